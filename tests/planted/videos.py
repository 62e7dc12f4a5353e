"""Mistakes to plant in what follows, shows and finds objects, and reads sources."""

from planted.defect import Defect

SAM2 = "test_sam2.py"
RECALL = "test_selection.py"
MEMORY = "test_memory.py"
CLIPS = "nn/test_clips.py"
DYNAMIC = "predict/interactive/test_predictor.py::test_{}"
DYNAMIC_IDS = "test_ids.py::test_{}"
TRACKER = "test_tracker.py::test_{}"
POLICIES = "test_policies.py::test_{}"
VIDEO = "predict/video/test_video.py::test_{}"
SOURCES = "test_video_loader.py::test_{}"
CAMERA = "test_camera.py::test_{}"
RLE = "test_rle.py::test_{}"
SCHEDULE = "test_per_image.py::test_{}"
EVERYTHING = "predict/test_predictor.py::test_everything_is_segmented_when_nothing_is_prompted"
NAN = "test_odd_prompts.py::test_nan_in_the_weights_is_reported_not_shown_as_an_empty_mask"
GIVEN_UP = "test_prefetch.py::test_a_video_that_is_given_up_is_left_out_though_its_next_frame_was_read"

VIDEOS = (
    # Videos
    Defect(
        "wrong memory slot",
        "selection.py",
        "(f, num_maskmem - 1) for f in chosen",
        "(f, 0) for f in chosen",
        RECALL,
    ),
    Defect(
        "pointers end with the memories",
        "selection.py",
        "for d in range(1, reach)",
        "for d in range(1, num_maskmem)",
        RECALL,
    ),
    Defect(
        "unsigned pointer time",
        "nn/sam2.py",
        "times if self.use_signed_tpos_enc_to_obj_ptrs else times.abs()",
        "times.abs()",
        CLIPS,
    ),
    Defect(
        "no-object embedding missing",
        "nn/sam2.py",
        "return memory + absent * self.no_obj_embed_spatial",
        "return memory",
        SAM2,
    ),
    Defect(
        "pointer of an absent object kept",
        "nn/sam2.py",
        "kept + (1 - visible) * self.no_obj_ptr",
        "kept",
        SAM2,
    ),
    Defect(
        "given mask without anti-aliasing",
        "nn/inputs.py",
        'mode="bilinear", antialias=True)',
        'mode="bilinear")',
        CLIPS,
    ),
    Defect(
        "tracked without a padding point",
        "inputs.py",
        "if prompts.points is not None or prompts.boxes is not None:",
        "if prompts:",
        SAM2,
    ),
    Defect(
        "rotary rows before columns",
        "ops/positions.py",
        "torch.cat([columns, rows], dim=-1)",
        "torch.cat([rows, columns], dim=-1)",
        MEMORY,
    ),
    Defect(
        "full weight of the positions",
        "memory/attention.py",
        "INPUT_POSITION_WEIGHT = 0.1",
        "INPUT_POSITION_WEIGHT = 1.0",
        MEMORY,
    ),
    # Objects shown and found
    Defect(
        "shown with a choice of masks",
        "steps.py",
        "model.answer(features, add_padding_point(prompts))",
        "model.answer(features, add_padding_point(prompts), True)",
        DYNAMIC.format("showing_neither_looks_at_memory_nor_leaves_a_choice_of_masks"),
    ),
    Defect(
        "shown images as tracked frames",
        "tensor_api.py",
        "network.num_maskmem - 1)",
        "0)",
        DYNAMIC.format("memories_have_the_time_embedding_of_prompted_frames_and_no_pointers"),
    ),
    Defect(
        "objects found together on a CPU",
        "steps.py",
        "key if runs_batched(features) else row",
        "key",
        DYNAMIC_IDS.format("objects_come_and_go_without_a_trace_in_the_others"),
    ),
    Defect(
        "every frame of a video shown",
        "interactive/predictor.py",
        "self.seen > 0 and image_count(self.dataset) is None",
        "False",
        "predict/interactive/test_sources.py::test_on_a_video_the_first_frame_is_shown_and_the_others_are_searched",
    ),
    Defect(
        "memory of another network",
        "memory_bank.py",
        'if header.get("model") != own:',
        "if not own:",
        "test_files.py::test_the_memory_of_another_network_is_refused_by_name",
    ),
    Defect(
        "forgotten image still counts",
        "bank.py",
        "self.entries = [entry for entry in self.entries if entry.ids]",
        "pass",
        DYNAMIC_IDS.format("objects_come_and_go_without_a_trace_in_the_others"),
    ),
    # Objects and their frames
    Defect(
        "track: the frames that a stride leaves out count",
        "stream.py",
        "self.time_step = frame.number // self.stride if",
        "self.time_step = frame.number if",
        VIDEO.format("a_stride_reports_true_frame_numbers"),
    ),
    Defect(
        "track: rows under the ids of others",
        "tracker.py",
        "Objects(tuple(outputs)",
        "Objects(tuple(sorted(outputs))",
        VIDEO.format("rows_carry_the_ids_classes_and_names_that_were_given"),
    ),
    Defect(
        "track: a removed object's row stays",
        "stream.py",
        "self.objects.output[rows]",
        "self.objects.output[list(range(len(rows)))]",
        "predict/video/test_prompts.py::test_removing_an_object_leaves_the_others_as_they_are",
    ),
    Defect(
        "track: forgotten before it is answered",
        "tracker.py",
        "if self._forget and self._stepped and self.frame is not None:",
        "if self._forget and self.frame is not None:",
        TRACKER.format("prompting_another_frame_in_between_forgets_nothing"),
    ),
    Defect(
        "track: an object is let go a frame early",
        "track.py",
        "return rule.distance(frame, self.last_seen) >= expire_after",
        "return rule.distance(frame, self.last_seen) >= expire_after - 1",
        TRACKER.format("objects_that_stay_away_are_let_go_and_those_that_return_in_time_are_not"),
    ),
    Defect(
        "track: corrections survive another pass",
        "track.py",
        "        for frame in self.tracked_frames():\n            self.drop(frame)\n        self.policy",
        "        self.policy",
        TRACKER.format("a_new_pass_starts_from_the_prompted_frames"),
    ),
    Defect(
        "policy: one prompted frame too many",
        "policies/base.py",
        "passed[rule.max_prompted :]",
        "passed[rule.max_prompted + 1 :]",
        "test_kept.py",
    ),
    Defect(
        "policy: one pointer too few",
        "policies/base.py",
        "0 <= (frame - f) * direction < reach]",
        "0 <= (frame - f) * direction < reach - 1]",
        TRACKER.format("whatever_is_dropped_nobody_would_have_asked_for"),
    ),
    Defect(
        "motion: velocity learnt like the place",
        "policies/motion.py",
        "self.velocity += velocity_gain * residual",
        "self.velocity += gain * residual",
        POLICIES.format("the_filter_learns_the_velocity"),
    ),
    Defect(
        "motion: absent frames looked back at",
        "policies/motion.py",
        "if iou > self.memory_iou and presence > 0 and (",
        "if iou > self.memory_iou and (",
        POLICIES.format("good_frames_are_looked_back_at_and_the_one_before"),
    ),
    Defect(
        "distractors: anchors too near each other",
        "distractors.py",
        "abs(frame - self.found[-1]) > self.interval",
        "abs(frame - self.found[-1]) >= self.interval - 1",
        POLICIES.format("anchors_are_sure_steady_frames_with_a_rival_and_far_enough_apart"),
    ),
    Defect(
        "distractors: the first prompt forgotten",
        "distractors.py",
        "memories = anchors | {first, frame, ",
        "memories = anchors | {frame, ",
        POLICIES.format("four_anchors_count_and_the_first_prompt_is_one_of_them"),
    ),
    # Prompts over time
    Defect(
        "timeline: prompts of a frame that was passed over",
        "per_frame.py",
        "(number >= frame if backwards else number <= frame):",
        "number == frame:",
        SOURCES.format("prompts_by_frame_are_read_with_numbers_and_from_a_file"),
    ),
    Defect(
        "timeline: prompts added before a run dropped",
        "per_frame.py",
        "self.by_frame.setdefault(frame, [])[:0] = values",
        "self.by_frame[frame] = values",
        "test_per_frame.py::test_prompts_added_before_a_run_come_after_its_own_on_the_same_frame",
    ),
    Defect(
        "schedule: files known by their whole path only",
        "per_image.py",
        "[str(file), Path(file).name]",
        "[str(file)]",
        SCHEDULE.format("each_image_of_a_batch_gets_its_own_prompts"),
    ),
    Defect(
        "schedule: the entry of the image before",
        "per_image.py",
        "own[name] = entries[index]",
        "own[name] = entries[max(index - 1, 0)]",
        SCHEDULE.format("entries_per_image_read_as_single_calls_would"),
    ),
    # Sources
    Defect(
        "source: saved names count from 1",
        "video_loader.py",
        "backwards, frame, frame.number\n",
        "backwards, frame, frame.number + 1\n",
        SOURCES.format("the_loader_says_in_words_and_attributes_which_frame_it_is"),
    ),
    Defect(
        "source: a video that was given up goes on",
        "video/predictor.py",
        "self.dataset.skipped.add(self.dataset.count)",
        "self.dataset.skipped = {self.dataset.count}",
        GIVEN_UP,
    ),
    Defect(
        "source: a frame of a video that was given up",
        "video/predictor.py",
        "read_ahead = is_video and self.dataset.count in self.dataset.skipped",
        "read_ahead = False",
        GIVEN_UP,
    ),
    Defect(
        "source: frames too large for memory",
        "sources/video.py",
        "            check_size(int(",
        "            max(int(",
        "test_odd_videos.py::test_a_video_whose_frames_memory_cannot_hold_is_refused_before_they_are_decoded",
    ),
    Defect(
        "stream: an old frame waits",
        "live.py",
        "super().__setitem__(stream, frames)",
        "super().__setitem__(stream, self[stream] or frames)",
        "test_live.py",
    ),
    Defect(
        "camera: a frame's number given twice",
        "stream.py",
        "return 0 if self.frame is None else self.frame.number + 1",
        "return 0 if self.frame is None else max(self.frame.number, 1)",
        CAMERA.format("stepping_equals_a_run_over_the_same_frames"),
    ),
    Defect(
        "camera: a lost signal remembered",
        "camera.py",
        "return bool(frame.image.any())",
        "return True",
        CAMERA.format("a_black_frame_is_a_lost_signal"),
    ),
    # Everything, its masks, and how they are written down
    Defect(
        "everything: NaN is not promising",
        "generator.py",
        "(self.options.passes_iou(iou.float()) | ~iou.isfinite())",
        "self.options.passes_iou(iou.float())",
        NAN,
    ),
    Defect(
        "everything: the frame's border cuts off",
        "generator.py",
        "(near_window & ~near_edge)",
        "near_window",
        EVERYTHING,
    ),
    Defect(
        "raster: a crop of logits begins where the mask does",
        "raster.py",
        "max(first - self.kernel_size + 1, 0)",
        "first",
        "test_raster.py",
    ),
    Defect(
        "raster: boxes of the larger mask",
        "raster.py",
        "(full >= 2)",
        "(full >= 1)",
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
        RLE.format("run_lengths_by_hand"),
    ),
    Defect(
        "rle: rows before columns",
        "rle.py",
        'reshape((height, width), order="F")',
        "reshape((height, width))",
        RLE.format("run_lengths_lose_nothing"),
    ),
)
