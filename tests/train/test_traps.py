"""The known traps of fine-tuning SAM, and the test that shows each to be shut, or why it cannot happen here."""

from pathlib import Path

import pytest

TRAPS = {
    "a file's name decides on the architecture": "fit/test_exports.py::ultralytics_loads_the_file_by_its_name",
    "Ultralytics' trainer unfreezes what is frozen": "test_learn.py::what_does_not_learn_stays_bit_by_bit",
    "LoRA by replaced modules is bypassed": "test_lora.py::every_site_learns_from_the_first_step",
    "LoRA is taken for a saver of memory": "fit/test_estimate.py::low_rank_updates_save_little",
    "layer decay of 0 is taken for freezing": "test_learn.py::what_does_not_learn_stays_bit_by_bit",  # learn= freezes
    "the encoder runs without gradients although factors in it learn": "test_lora.py::every_site_learns",
    "eval() to freeze changes what a network answers": "test_learn.py::frozen_parts_drop_nothing_out",
    "statistics of batch norms drift": "test_learn.py::batch_norms_use_their_statistics",
    "features are kept of layers that learn": "data/test_feature_cache.py::the_layers_for_fine_maps_are_part",
    "features are stale, or of another view": "data/test_feature_cache.py::other_weights_sizes_and_images",
    "unions of objects are taken for objects": "data/test_sets.py::masks_that_are_unions_of_objects_are_said",
    "one kind of prompt is trained and the others are lost": "losses/test_step.py::plans_of_images_mix_kinds",
    "images tune the decoder and videos get worse unseen": "fit/test_run.py::a_network_that_tracks_is_also_measured",
    "pixels differ from those of a predictor": "data/test_user_batches.py::the_pixels_of_a_batch_are_those",
    "void and crowds are background": "data/test_user_batches.py::crowds_of_coco_are_ignored",
    "objects vanish at the decoder's size": "data/test_sets.py::images_without_a_usable_object_are_left_out",
    "frames of one video are on both sides": "data/test_sets.py::images_of_one_video_and_copies_of_one_image",
    "broken files are replaced by others": "data/test_sets.py::a_broken_file_is_an_error_that_names_it",
    "a resumed run is another one": "fit/test_resume.py::killed_at_any_moment_the_same_command_ends",
    "processes divide by their own objects": "fit/test_parallel.py::gradients_of_the_parts_are_those_of_the_whole",
    "processes draw different plans, and wait for ever": "fit/test_parallel.py::two_processes_learn_what_one_learns",
    "memory grows with the objects of an image": "losses/test_step.py::memory_grows_neither_with_corrections",
    "nobody knows whether it was better before": "fit/test_run.py::epoch_0_is_the_untouched_network",
    "tables of positions are stored in another size": "fit/test_exports.py::metas_code_loads_the_file",
}
IMPOSSIBLE = {
    "rates, scaler and mean of Ultralytics' defaults": "the loop, its settings and their defaults are our own",
    "a mean of means over processes": "losses are sums, divided by the objects of all processes",
    "the folder of a run is removed by another process": "the first one writes, and none removes a folder",
    "equal bits on a GPU": "promised on a CPU alone; deterministic=True asks torch for what it has",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_its_test(trap):
    file, _, name = TRAPS[trap].partition("::")
    assert f"def test_{name}" in (Path(__file__).parent / file).read_text(encoding="utf-8")
