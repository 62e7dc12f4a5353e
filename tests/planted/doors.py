"""Mistakes to plant where values and prompts come in."""

from planted.defect import Defect

OPTIONS = "test_option_values.py::test_{}"

DOORS = (
    Defect(
        "embed takes any option",
        "samplug/model.py",
        "        arguments.check(own)\n        if unused",
        "        if unused",
        OPTIONS.format("no_door_takes_a_value_that_predict_refuses[embed-option1]"),
    ),
    Defect(
        "a question that fails is a yes",
        "values.py",
        "OverflowError, RuntimeError):\n        return False",
        "OverflowError, RuntimeError):\n        return True",
        OPTIONS.format("a_value_that_an_option_does_not_take_is_refused_by_name"),
    ),
    Defect(
        "prompts under no name are used",
        "per_image.py",
        "for file in files} - {None}",
        "for file in files}",
        "test_strict.py::test_prompts_by_file_that_match_no_file_are_named",
    ),
    Defect(
        "many flat polygons are a mask",
        "prompts/masks.py",
        "if min(rows, width) >= LEAST_MASK and (not of_rows or same_aspect((rows, width), shape)):",
        "if min(rows, width) >= LEAST_MASK:",
        "test_spellings.py::test_flat_polygons_are_an_object_each",
    ),
    Defect(
        "outlines on an image of another size",
        "data/coco.py",
        "if stated not in (None, size):",
        "if isinstance(stated, str):",
        "test_hostile_sets.py::test_two_images_of_one_id_and_outlines_of_another_size_are_refused",
    ),
    Defect(
        "the folder of a later call passed over",
        "predict/base.py",
        "self.save_dir if host.name_one_folder(self.args, args) else",
        "self.save_dir if args else",
        "test_options_heeded.py::test_a_folder_that_is_named_on_a_later_call_is_the_runs",
    ),
)
