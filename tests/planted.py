"""What a planted mistake is, and those in what follows objects and reads sources; defects.py has the others."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Defect:
    """One mistake: in `file` of the package `old`, standing there once, becomes `new`; `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def plant(self, package: Path) -> None:
        """Make the mistake in a copy of the package."""
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise LookupError(f"{self.file} has this {text.count(self.old)} times instead of once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


TRACKER = "test_tracker.py::test_{}"
POLICIES = "test_policies.py::test_{}"
VIDEO = "test_video.py::test_{}"
SOURCES = "test_sources.py::test_{}"
CAMERA = "test_camera.py::test_{}"
MASKS = "test_masks.py::test_{}"
SCHEDULE = "test_prompt_schedule.py::test_{}"
EVERYTHING = "test_predictor.py::test_everything_is_segmented_when_nothing_is_prompted"
NAN = "test_inputs_prompts.py::test_nan_in_the_weights_is_reported_not_shown_as_an_empty_mask"
GIVEN_UP = "test_prefetch.py::test_a_video_that_is_given_up_is_left_out_though_its_next_frame_was_read"

FOLLOWED = (
    # Objects and their frames
    Defect(
        "track: the frames that a stride leaves out count",
        "predict/following.py",
        "return number // self.stride",
        "return number",
        VIDEO.format("a_stride_reports_true_frame_numbers"),
    ),
    Defect(
        "track: rows under the ids of others",
        "tracking/tracker.py",
        "Objects(tuple(track.obj_id for track in here)",
        "Objects(tuple(sorted(track.obj_id for track in here))",
        VIDEO.format("rows_carry_the_ids_classes_and_names_that_were_given"),
    ),
    Defect(
        "track: a removed object's row stays",
        "predict/following.py",
        "self.objects.output[rows]",
        "self.objects.output[list(range(len(rows)))]",
        "test_video_prompts.py::test_removing_an_object_leaves_the_others_as_they_are",
    ),
    Defect(
        "track: forgotten before it is answered",
        "tracking/tracker.py",
        "if self._forget and self._stepped and self.frame is not None:",
        "if self._forget and self.frame is not None:",
        TRACKER.format("prompting_another_frame_in_between_forgets_nothing"),
    ),
    Defect(
        "track: an object is let go a frame early",
        "tracking/tracks.py",
        "return rule.behind(frame, self.last_seen) >= expire_after",
        "return rule.behind(frame, self.last_seen) >= expire_after - 1",
        TRACKER.format("objects_that_stay_away_are_let_go_and_those_that_return_in_time_are_not"),
    ),
    Defect(
        "track: corrections survive another pass",
        "tracking/tracks.py",
        "        for frame in self.tracked():\n            self.drop(frame)\n        self.policy",
        "        self.policy",
        TRACKER.format("a_new_pass_starts_from_the_prompted_frames"),
    ),
    Defect(
        "policy: one prompted frame too many",
        "tracking/policies.py",
        "passed[rule.max_prompted :]",
        "passed[rule.max_prompted + 1 :]",
        "test_tracker_kept.py",
    ),
    Defect(
        "policy: one pointer too few",
        "tracking/policies.py",
        "0 <= rule.behind(frame, f) < rule.reach)",
        "0 <= rule.behind(frame, f) < rule.reach - 1)",
        TRACKER.format("whatever_is_dropped_nobody_would_have_asked_for"),
    ),
    Defect(
        "motion: velocity learnt like the place",
        "tracking/motion.py",
        "self.velocity += velocity_gain * surprise",
        "self.velocity += gain * surprise",
        POLICIES.format("the_filter_learns_the_velocity"),
    ),
    Defect(
        "motion: absent frames looked back at",
        "tracking/motion.py",
        "if iou > self.memory_iou and presence > 0 and (",
        "if iou > self.memory_iou and (",
        POLICIES.format("good_frames_are_looked_back_at_and_the_one_before"),
    ),
    Defect(
        "distractors: anchors too near each other",
        "tracking/distractors.py",
        "abs(frame - self.found[-1]) > self.interval",
        "abs(frame - self.found[-1]) >= self.interval - 1",
        POLICIES.format("anchors_are_sure_steady_frames_with_a_rival_and_far_enough_apart"),
    ),
    Defect(
        "distractors: the first prompt forgotten",
        "tracking/distractors.py",
        "memories = anchors | {first, frame, ",
        "memories = anchors | {frame, ",
        POLICIES.format("four_anchors_count_and_the_first_prompt_is_one_of_them"),
    ),
    # Prompts over time
    Defect(
        "timeline: prompts of a frame that was passed over",
        "predict/timeline.py",
        "if number >= frame if backwards else number <= frame:",
        "if number == frame:",
        SOURCES.format("prompts_by_frame_are_read_with_numbers_and_from_a_file"),
    ),
    Defect(
        "timeline: prompts added before a run dropped",
        "predict/timeline.py",
        "self.later.setdefault(frame, [])[:0] = values",
        "self.later[frame] = values",
        "test_timeline.py::test_prompts_added_before_a_run_come_after_its_own_on_the_same_frame",
    ),
    Defect(
        "schedule: files known by their whole path only",
        "prompt_schedule.py",
        "[str(file), Path(file).name]",
        "[str(file)]",
        SCHEDULE.format("each_picture_of_a_batch_gets_its_own_prompts"),
    ),
    Defect(
        "schedule: the entry of the picture before",
        "prompt_schedule.py",
        "return entries[index]",
        "return entries[max(index - 1, 0)]",
        SCHEDULE.format("entries_per_picture_read_as_single_calls_would"),
    ),
    # Sources
    Defect(
        "source: saved names count from 0",
        "predict/sources.py",
        "shot.number + 1\n",
        "shot.number\n",
        SOURCES.format("the_loader_says_in_words_and_attributes_which_frame_it_is"),
    ),
    Defect(
        "source: a video that was given up goes on",
        "predict/video.py",
        "self.dataset.given_up.add(self.dataset.count)",
        "self.dataset.given_up = {self.dataset.count}",
        GIVEN_UP,
    ),
    Defect(
        "source: a frame of a video that was given up",
        "predict/video.py",
        "if isinstance(self.dataset, Clips) and self.dataset.count in self.dataset.given_up:",
        "if not self.batch:",
        GIVEN_UP,
    ),
    Defect(
        "source: frames too large for memory",
        "predict/clips.py",
        "            check_size(int(",
        "            max(int(",
        "test_odd_videos.py::test_a_video_whose_frames_memory_cannot_hold_is_refused_before_they_are_decoded",
    ),
    Defect(
        "stream: an old frame waits",
        "predict/streams.py",
        "super().__setitem__(stream, frames)",
        "super().__setitem__(stream, self[stream] or frames)",
        "test_waiting.py",
    ),
    Defect(
        "camera: a frame's number given twice",
        "predict/camera.py",
        "number = 0 if one.here is None else one.here.number + 1",
        "number = 0 if one.here is None else max(one.here.number, 1)",
        CAMERA.format("stepping_equals_a_run_over_the_same_frames"),
    ),
    Defect(
        "camera: a lost signal remembered",
        "predict/camera.py",
        "return bool(here.picture.any())",
        "return True",
        CAMERA.format("a_black_frame_is_a_lost_signal"),
    ),
    # Everything, its masks, and how they are written down
    Defect(
        "everything: NaN is not promising",
        "predict/everything.py",
        "(self.settings.likely(overlaps.float()) | ~overlaps.isfinite())",
        "self.settings.likely(overlaps.float())",
        NAN,
    ),
    Defect(
        "everything: the frame's border cuts off",
        "predict/everything.py",
        "(near_window & ~near_edge)",
        "near_window",
        EVERYTHING,
    ),
    Defect(
        "raster: a patch begins where the mask does",
        "raster.py",
        "max(first - side.reach + 1, 0)",
        "first",
        "test_raster.py",
    ),
    Defect(
        "raster: boxes of the larger mask",
        "raster.py",
        "(flat >= 2)",
        "(flat >= 1)",
        "test_raster.py",
    ),
    Defect(
        "raster: weights a cell late",
        "raster.py",
        "weights[inside, j]",
        "weights[inside, j - 1]",
        "test_raster.py",
    ),
    Defect(
        "rle: changes from the third run on",
        "rle.py",
        "count - counts[i - 2] if i > 2 else count",
        "count - counts[i - 2] if i > 1 else count",
        MASKS.format("run_lengths_by_hand"),
    ),
    Defect(
        "rle: rows before columns",
        "rle.py",
        'reshape((height, width), order="F")',
        "reshape((height, width))",
        MASKS.format("run_lengths_lose_nothing"),
    ),
)
