"""The table of arguments against what Ultralytics really has."""

import inspect
from dataclasses import dataclass, fields

import pytest

from samplug import SAM, SAM2DynamicInteractivePredictor, SAM2VideoPredictor, arguments, values
from samplug.arguments import Handling
from samplug.host import DEFAULT_CFG_DICT
from samplug.prompts.objects import Prompts
from samplug.prompts.raw import RawPrompts

TRAINING = {"epochs", "lr0", "mosaic", "optimizer", "workers", "data", "close_mosaic", "freeze"}


@pytest.mark.host
def test_every_predict_argument_of_the_host_is_handled():
    """What `yolo predict` documents is in the table; the rest belongs to other modes."""
    of_predict = [
        "source",
        "conf",
        "iou",
        "imgsz",
        "half",
        "device",
        "batch",
        "vid_stride",
        "stream_buffer",
        "visualize",
        "augment",
        "agnostic_nms",
        "classes",
        "retina_masks",
        "embed",
        "project",
        "name",
        "show",
        "save",
        "save_frames",
        "save_txt",
        "save_conf",
        "save_crop",
        "show_labels",
        "show_conf",
        "show_boxes",
        "line_width",
        "verbose",
        "max_det",
        "dnn",
        "compile",
    ]
    for name in of_predict:
        if name in DEFAULT_CFG_DICT:
            assert arguments.handling_of(name) != Handling.OTHER_MODE, name
    for name in TRAINING & DEFAULT_CFG_DICT.keys() - {"data"}:
        assert arguments.handling_of(name) == Handling.OTHER_MODE, name


def test_our_names_hide_none_that_predict_honours():
    assert not {name for name in arguments.OWN if arguments.handling_of(name) == Handling.HONOURED}


@pytest.mark.parametrize(
    "setting",
    [
        {"agnostic_nms": True},
        {"augment": True},
        {"visualize": True},
        {"max_det": 1},
        {"retina_masks": False},
        {"dnn": True},
    ],
)
def test_arguments_listed_without_effect_have_none(nano_file, images, setting):
    model = SAM(str(nano_file))
    boxes = [[20, 30, 120, 140], [100, 60, 300, 200]]
    plain = model.predict(images[0], bboxes=boxes, verbose=False)[0]
    result = model.predict(images[0], bboxes=boxes, verbose=False, **setting)[0]
    assert result.masks.data.equal(plain.masks.data)


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="points_stride"):
        arguments.check({"point_strid": 8})
    arguments.check(arguments.defaults(arguments.OWN))


def test_splitting_leaves_the_dict_as_it_was():
    given = {"points": 1, "imgsz": 2}
    assert arguments.split(given) == ({"points": 1}, {"imgsz": 2}) and given == {"points": 1, "imgsz": 2}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("fill_holes", [0, 0.2, 50, True], [-1, "many"]),
        ("prompt_every", [None, 1, 30], [0, 2.5, "often"]),
        ("iou_match", [0.5, 1], [0, 1.2]),
        ("expire_after", [None, 5], [0, -1]),
        ("max_prompted", [8, -1, 2], [0, 1, -2]),
    ],
)
def test_a_number_out_of_its_range_is_refused_saying_what_is_accepted(name, good, bad):
    for value in good:
        arguments.check({name: value})
    for value in bad:
        with pytest.raises(ValueError, match=f"{name}=.*: give a number"):
            arguments.check({name: value})


def test_policies_go_by_the_names_that_are_accepted():
    from samplug.tracking import POLICIES

    assert tuple(POLICIES) == arguments.POLICY_NAMES
    arguments.check({"policy": POLICIES["motion"]})
    with pytest.raises(ValueError, match="'motion'"):
        arguments.check({"policy": "movement"})


@dataclass(frozen=True)
class Settings:
    rounds: int = arguments.setting(3, "timed runs", values.count_of("rounds"))
    share: float = arguments.setting(1 / 3, "of the whole")
    sizes: tuple[int, ...] = arguments.setting((1, 8), "how many at once")
    device: str = arguments.setting("", "where")


def test_settings_of_other_modes_are_checked_and_explained_like_arguments_of_predict():
    known = arguments.arguments_of(Settings)
    assert arguments.defaults(known) == {"rounds": 3, "share": 1 / 3, "sizes": (1, 8), "device": ""}
    assert Settings() == Settings(**arguments.defaults(known))
    assert [line.split(maxsplit=1)[1] for line in arguments.help_lines(known)] == [
        "timed runs (3)", "of the whole (0.333)", "how many at once (1,8)", "where",
    ]  # fmt: skip
    arguments.check_values({"rounds": 1, "share": "any"}, known)
    with pytest.raises(ValueError, match="rounds=0: give a number of rounds, 1 or more"):
        arguments.check_values({"rounds": 0}, known)
    with pytest.raises(TypeError, match="'round' is not an argument of benchmark. Did you mean rounds"):
        arguments.check_names(["round"], known, "benchmark")


def test_prompt_arguments_are_the_fields_of_raw_prompts():
    """One more needs a row of the table, a field, `Prompts.read` and its reading: four files."""
    assert tuple(field.name for field in fields(RawPrompts)) == arguments.PROMPT_ARGUMENTS
    assert set(inspect.signature(Prompts.read).parameters) == {*arguments.PROMPT_ARGUMENTS, "shape"}
    given = RawPrompts.from_options({"points": [3, 4], "imgsz": 64}).given
    assert given == {"points": [3, 4]}


def test_the_default_of_non_overlap_stands_in_one_place():
    assert arguments.OWN["non_overlap"].default is None
    for kind in (SAM2VideoPredictor, SAM2DynamicInteractivePredictor):
        assert kind().non_overlap_masks is arguments.NON_OVERLAP_DEFAULT["videos"]
