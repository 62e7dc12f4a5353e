"""Plant known mistakes in a copy of the project, one at a time, and see the tests turn red.

    python tests/defects.py                  # all of them, as a table
    python tests/defects.py pixel letterbox  # those with one of these words in their names

A defect that survives is a gap in the tests; one whose text is no longer found has to follow the code. The exit status
is 0 only if the tests are green without a defect and red with each.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from planted import FOLLOWED, Defect

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("samplug", "tests", "examples", "pyproject.toml", "README.md", "LICENSE")
LIMIT = 1800  # seconds that one run of tests may take, beside others too
GREEN, RED = 0, 1  # exit statuses of pytest


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    name: str
    good: bool
    said: str
    seconds: float


DECODER = "test_nn_decoder.py"
VIT = "test_nn_image.py"
HIERA = "test_nn_hiera.py"
RECALL = "test_recall.py"
MEMORY = "test_nn_memory.py"
SAM2 = "test_nn_sam2.py"
CLIPS = "test_nn_clips.py"
PICTURES = (
    "test_parity_images.py::test_the_same_file_and_picture_give_the_peers_answer[sam2.1_t-UltralyticsSAM2-256-{}]"
)
PHOTOGRAPHS = "test_parity_predict.py::test_a_photograph_gives_ultralytics_masks_and_scores[sam2.1_t-256-{}]"
CONF = "test_parity_predict.py::test_scores_below_the_hosts_default_conf_drop_nothing[sam2.1_t-256]"
PREDICTOR = "test_predictor.py::{}"
PROMPTS = "test_prompts.py"
BATCHES = "test_prompt_batches.py"
VIEW = "test_view.py"
MASKS = "test_masks.py"
EMBEDDINGS = "test_embeddings.py"
REFUSALS = "test_checkpoint_refusals.py"
DYNAMIC = "test_dynamic.py::test_{}"
DYNAMIC_IDS = "test_dynamic_ids.py::test_{}"
INPUTS = "test_inputs_pictures.py::test_{}"
FAULTS = "test_faults.py::test_{}"
SCORES = "test_measure_scores.py"
PROMPTER = "test_prompter.py::test_{}"
TIDY = "test_tidy.py::test_{}"
EVERYTHING = "test_track_everything.py::test_{}"
TILES = "test_tiles.py::test_{}"

DEFECTS = (
    # What a prompt is to the network
    Defect(
        "half a pixel missing",
        "nn/prompt_encoder.py",
        "HALF_PIXEL = 0.5",
        "HALF_PIXEL = 0.0",
        DECODER,
    ),
    Defect(
        "padding point dropped",
        "nn/prompt_encoder.py",
        "pad=boxes is None",
        "pad=False",
        DECODER,
    ),
    Defect(
        "padding point beside a box",
        "nn/prompt_encoder.py",
        "pad=boxes is None",
        "pad=True",
        DECODER,
    ),
    Defect(
        "box corners swapped",
        "nn/prompt_encoder.py",
        "BOX_CORNERS = (2, 3)",
        "BOX_CORNERS = (3, 2)",
        DECODER,
    ),
    Defect(
        "clicks before corners",
        "nn/inputs.py",
        "torch.cat([corners, xy], dim=1)",
        "torch.cat([xy, corners], dim=1)",
        PICTURES.format("boxes and points-1"),
    ),
    Defect(
        "padding has a place",
        "nn/prompt_encoder.py",
        "torch.where(somewhere, positions, 0)",
        "positions",
        DECODER,
    ),
    Defect(
        "mask prompt turned round",
        "mask_forms.py",
        "two_valued(argument, array)), MASK_LOGIT, -MASK_LOGIT)",
        "two_valued(argument, array)), -MASK_LOGIT, MASK_LOGIT)",
        PROMPTS,
    ),
    Defect(
        "mask prompt on in the padding",
        "view.py",
        "value=-MASK_LOGIT)",
        "value=MASK_LOGIT)",
        VIEW,
    ),
    Defect(
        "mask prompt without anti-aliasing",
        "view.py",
        "align_corners=False, antialias=True)",
        "align_corners=False, antialias=False)",
        VIEW,
    ),
    # The decoder
    Defect(
        "owner ignored",
        "nn/mask_decoder.py",
        "rows = owner[part]",
        "rows = torch.zeros_like(owner[part])",
        PREDICTOR.format("test_a_batch_equals_single_calls_with_its_own_number_of_prompts_each"),
    ),
    Defect(
        "first block like the others",
        "nn/two_way.py",
        "first=index == 0",
        "first=False",
        DECODER,
    ),
    Defect(
        "single mask among the several",
        "nn/mask_decoder.py",
        "slice(1, None) if multimask",
        "slice(0, 3) if multimask",
        DECODER,
    ),
    Defect(
        "unstable masks kept",
        "nn/mask_decoder.py",
        "< self.dynamic_multimask_stability_thresh, best, 0",
        "< 0, best, 0",
        DECODER,
    ),
    Defect(
        "finer maps columns first",
        "nn/mask_decoder.py",
        "zip(down, across, strict=True)",
        "zip(across, down, strict=True)",
        DECODER,
    ),
    Defect(
        "no-memory embedding missing",
        "nn/sam2.py",
        "Features(features.image + self.no_mem_embed.view(1, -1, 1, 1), features.fine)",
        "features",
        PICTURES.format("point-1"),
    ),
    # Encoders
    Defect(
        "window of the new stage",
        "nn/hiera.py",
        "0 if i in global_att_blocks else window_spec[before]",
        "0 if i in global_att_blocks else window_spec[stage]",
        HIERA,
    ),
    Defect(
        "shortcut not normed",
        "nn/hiera.py",
        "self.proj(normed)",
        "self.proj(x)",
        HIERA,
    ),
    Defect(
        "relative positions turned round",
        "nn/vit.py",
        "place[:, None] - place + size - 1",
        "place - place[:, None] + size - 1",
        VIT,
    ),
    Defect(
        "relative rows for columns",
        "nn/vit.py",
        "rows[..., :, None] + columns[..., None, :]",
        "columns[..., :, None] + rows[..., None, :]",
        VIT,
    ),
    Defect(
        "bias of rows for columns",
        "nn/tiny_vit.py",
        "apart[:, None, :, None], apart[:, None, :]]",
        "apart[:, None, :], apart[:, None, :, None]]",
        VIT,
    ),
    # From the picture to the network and back
    Defect(
        "letterbox rounded down",
        "view.py",
        "max(round(side * gain), 1)",
        "max(int(side * gain), 1)",
        VIEW,
    ),
    Defect(
        "one gain for both sides of a stretch",
        "view.py",
        "return h / height, w / width",
        "return h / height, h / height",
        VIEW,
    ),
    Defect(
        "red and blue swapped",
        "predict/fit.py",
        "np.stack(batch)[..., ::-1]",
        "np.stack(batch)",
        PHOTOGRAPHS.format("clicks"),
    ),
    Defect(
        "features of the last picture",
        "predict/image.py",
        "if self.features is None or self._key(self.batch[1]) != self._shown:",
        "if self.features is None:",
        PREDICTOR.format("test_features_of_another_picture_are_never_used"),
    ),
    Defect(
        "input of the last picture",
        "predict/image.py",
        "if self.im is not None and self._key(im) == self._shown:",
        "if self.im is not None:",
        PREDICTOR.format("test_features_of_another_picture_are_never_used"),
    ),
    Defect(
        "order of the prompts lost",
        "prompt_batches.py",
        "(torch.tensor(rows, device=device), even_batch",
        "(torch.arange(len(rows), device=device), even_batch",
        BATCHES,
    ),
    Defect(
        "masks dropped by the host's conf",
        "predict/loop.py",
        "return None if self.args.conf == self._nobodys_conf else self.args.conf",
        "return self.args.conf",
        CONF,
    ),
    Defect(
        "mask threshold of a probability",
        "nn/sam2_parts.py",
        "    mask_threshold = 0.0",
        "    mask_threshold = 0.5",
        PHOTOGRAPHS.format("boxes"),
    ),
    Defect(
        "padding enlarged with the picture",
        "masks.py",
        "(np.arange(side) + 0.5) * (span / side) - 0.5",
        "(np.arange(side) + 0.5) * (cells / side) - 0.5",
        MASKS,
    ),
    # Files
    Defect(
        "tensors left over or left out",
        "checkpoints.py",
        "    _check_fit(model, tensors)\n    _check_finite",
        "    _check_finite",
        REFUSALS,
    ),
    Defect(
        "code in a checkpoint runs",
        "tensor_files.py",
        "weights_only=True, mmap",
        "weights_only=False, mmap",
        REFUSALS,
    ),
    Defect(
        "embedding of another picture",
        "embeddings.py",
        "picture is not None and picture_fingerprint(picture) != self.picture",
        "False",
        EMBEDDINGS,
    ),
    # Videos
    Defect(
        "wrong memory slot",
        "nn/recall.py",
        "(f, num_maskmem - 1) for f in chosen",
        "(f, 0) for f in chosen",
        RECALL,
    ),
    Defect(
        "pointers end with the memories",
        "nn/recall.py",
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
        "nn/sam2.py",
        'size=quarter, mode="bilinear", antialias=True)',
        'size=quarter, mode="bilinear")',
        CLIPS,
    ),
    Defect(
        "tracked without a padding point",
        "nn/inputs.py",
        "if prompts.points is not None or prompts.boxes is not None:",
        "if prompts:",
        SAM2,
    ),
    Defect(
        "rotary rows before columns",
        "nn/memory_attention.py",
        "torch.cat([columns, rows], dim=-1)",
        "torch.cat([rows, columns], dim=-1)",
        MEMORY,
    ),
    Defect(
        "full weight of the positions",
        "nn/memory_attention.py",
        "INPUT_POSITION_WEIGHT = 0.1",
        "INPUT_POSITION_WEIGHT = 1.0",
        MEMORY,
    ),
    # Objects shown and found
    Defect(
        "shown with a choice of masks",
        "tracking/bank.py",
        "model.answer(model.without_past(features), padded(given))",
        "model.answer(model.without_past(features), padded(given), True)",
        DYNAMIC.format("showing_neither_looks_at_memory_nor_leaves_a_choice_of_masks"),
    ),
    Defect(
        "shown pictures as tracked frames",
        "predict/dynamic.py",
        "self.network.num_maskmem - 1)",
        "0)",
        DYNAMIC.format("memories_have_the_time_embedding_of_prompted_frames_and_no_pointers"),
    ),
    Defect(
        "objects found together on a CPU",
        "tracking/bank.py",
        "size if features.image.is_cuda else row",
        "size",
        DYNAMIC_IDS.format("objects_come_and_go_without_a_trace_in_the_others"),
    ),
    Defect(
        "every frame of a video shown",
        "predict/dynamic.py",
        "self.seen > 0 and host.picture_count(self.dataset) is None",
        "False",
        "test_dynamic_sources.py::test_on_a_video_the_first_frame_is_shown_and_the_others_are_searched",
    ),
    Defect(
        "memory of another network",
        "predict/bank_files.py",
        'if header.get("model") != own:',
        "if not own:",
        "test_dynamic_files.py::test_the_memory_of_another_network_is_refused_by_name",
    ),
    Defect(
        "forgotten picture still counts",
        "tracking/bank.py",
        "self.lessons = [each for each in self.lessons if each.ids]",
        "pass",
        DYNAMIC_IDS.format("objects_come_and_go_without_a_trace_in_the_others"),
    ),
    # Measuring
    Defect(
        "J counts the frame that was shown",
        "measure/videos.py",
        "            if place not in shown:\n",
        "            if place in self.moments:\n",
        f"{SCORES}::test_j_and_f_leave_out_the_first_frame_and_the_last",
    ),
    Defect(
        "J counts the last frame",
        "measure/videos.py",
        "counted = moments[:-1]",
        "counted = moments",
        f"{SCORES}::test_j_and_f_leave_out_the_first_frame_and_the_last",
    ),
    Defect(
        "unknown pixels count",
        "measure/overlap.py",
        "def boundary_f(found: np.ndarray, wanted: np.ndarray, void: np.ndarray | None = None) -> float:",
        "def boundary_f(found: np.ndarray, wanted: np.ndarray, unknown=None, void=None) -> float:",
        f"{SCORES}::test_pixels_that_nobody_knows_count_for_neither",
    ),
    Defect(
        "boundary tolerance rounded down",
        "measure/overlap.py",
        "radius = math.ceil(TOLERANCE",
        "radius = int(TOLERANCE",
        f"{SCORES}::test_a_boundary_is_met_within_the_tolerance_and_no_further",
    ),
    Defect(
        "a click in the larger, not the deeper error",
        "measure/pointing.py",
        "key=lambda error: (error[0], error[2])",
        "key=lambda error: (error[2], error[0])",
        f"{SCORES}::test_the_first_click_is_in_the_middle_of_the_object_and_the_next_in_the_deepest_error",
    ),
    Defect(
        "the picture's border is no edge",
        "measure/pointing.py",
        "np.pad(mask[top : top + height, left : left + width], 1)",
        'np.pad(mask[top : top + height, left : left + width], 1, mode="edge")',
        f"{SCORES}::test_the_pictures_border_is_an_edge",
    ),
    Defect(
        "clicks do not take the mask along",
        "measure/pictures.py",
        "self.logits is None or not feedback",
        "self.logits is None or feedback",
        "test_measure.py::test_a_click_takes_the_mask_before_along_as_masks_does",
    ),
    Defect(
        "measured in BGR",
        "measure/entering.py",
        "stacked = np.stack([letterboxed(image, view)",
        "stacked = np.stack([letterboxed(image[..., ::-1], view)",
        "test_measure.py::test_pictures_enter_normalised_in_rgb",
    ),
    Defect(
        "pixels shared in a measured video",
        "measure/followers.py",
        "non_overlap: bool = True",
        "non_overlap: bool = False",
        "test_measure.py::test_what_is_measured_is_what_the_video_predictor_gives",
    ),
    Defect(
        "polygons filled on whole pixels",
        "measure/reading.py",
        "FINE = 4",
        "FINE = 1",
        "test_measure_data.py::test_a_pixel_belongs_to_a_polygon_that_covers_half_of_it",
    ),
    Defect(
        "255 is an object",
        "measure/reading.py",
        "return [number for number in numbers if number != VOID] or numbers",
        "return numbers",
        "test_measure_data.py::test_videos_in_davis_layout_are_read_frame_by_frame",
    ),
    # Detectors in the loop, and tidy masks
    Defect(
        "find: doubled when found twice",
        "predict/matching.py",
        "    for i in (~known).nonzero()[:, 0].tolist():",
        "    for i in (i for i in range(len(now)) if i not in same):",
        PROMPTER.format("a_find_that_overlaps_an_object_is_that_object_and_others_on_it_are_repetitions"),
    ),
    Defect(
        "find: a neighbour taken for the object",
        "predict/matching.py",
        "now * nested",
        "now",
        PROMPTER.format("an_object_that_shrank_or_ran_out_is_shown_anew_and_a_neighbour_is_not_taken_for_it"),
    ),
    Defect(
        "find: shown anew with the wrong mask",
        "predict/following.py",
        "cls=None), anew=True))",
        "cls=None)))",
        PROMPTER.format("an_object_that_drifted_is_shown_anew_and_keeps_its_id"),
    ),
    Defect(
        "find: an id given twice",
        "predict/following.py",
        "1 + max(self.highest, ",
        "1 + max(*self.tracker.ids, ",
        PROMPTER.format("ids_of_objects_that_are_gone_or_still_to_come_are_not_given_again"),
    ),
    Defect(
        "find: the padding counted as a place",
        "predict/following.py",
        "masks = logits[:, :height, :width] > 0",
        "masks = logits > 0",
        PROMPTER.format("the_place_of_an_object_is_in_the_picture"),
    ),
    Defect(
        "tidy: what is open at the border filled",
        "predict/tidy.py",
        "    holes[numbers[0, 0]] = False\n",
        "",
        TIDY.format("holes_and_specks_are_the_connected_components_of_opencv"),
    ),
    Defect(
        "tidy: a pixel left to one that does not claim it",
        "predict/tidy.py",
        "better = mask[part] & (values > best[part])",
        "better = values > best[part]",
        TIDY.format("a_pixel_is_left_to_nobody_who_does_not_claim_it"),
    ),
    Defect(
        "tidy: rows left out take pixels",
        "predict/finish.py",
        "    chosen = finish.asks_for(rows)",
        "    chosen = torch.arange(len(rows.classes))",
        TIDY.format("rows_that_are_left_out_take_no_pixels_from_others"),
    ),
    Defect(
        "pickled with the run in progress",
        "predict/loop.py",
        'del state["_lock"]',
        "pass",
        "test_isolation.py::test_a_predictor_can_be_sent_to_another_process",
    ),
    # What the world sends, and what breaks
    Defect(
        "old file written over",
        "files.py",
        "            yield aside\n",
        "            yield target\n            aside = target\n",
        FAULTS.format("a_full_disk_raises_and_leaves_the_old_file_alone[embedding]"),
    ),
    Defect(
        "pickles run",
        "tensor_files.py",
        'map_location="cpu", weights_only=True',
        'map_location="cpu", weights_only=False',
        "test_fuzz_checkpoints.py",
    ),
    Defect(
        "prompts move up behind a bad picture",
        "predict/image.py",
        'numbers = getattr(self.dataset, "numbers", None) or range(',
        "numbers = range(",
        INPUTS.format("prompts_for_each_picture_stay_with_it_when_one_before_is_bad"),
    ),
    Defect(
        "NaN becomes an empty mask",
        "predict/answers.py",
        "    check_finite(model, features.image, logits, scores)\n",
        "",
        "test_inputs_prompts.py::test_nan_that_arises_on_the_way_is_reported",
    ),
    Defect(
        "memory not asked for",
        "room.py",
        "need > free * (1 - SPARE)",
        "need < 0",
        "test_inputs_size.py::test_what_memory_cannot_hold_is_refused_before_it_is_taken",
    ),
    Defect(
        "bad pictures in silence",
        "predict/faults.py",
        "        self.all.append(Fault(name, in_a_line(error)))\n",
        "        return\n",
        INPUTS.format("bad_pictures_in_a_folder_are_left_out_and_the_rest_is_done"),
    ),
    Defect(
        "header's number of frames believed",
        "predict/clips.py",
        "            while capture.grab():\n                if number",
        "            while number < self.stated and capture.grab():\n                if number",
        "test_inputs_video.py::test_a_header_that_counts_wrongly_changes_nothing",
    ),
    Defect(
        "frames of another size not saved",
        "predict/loop.py",
        "        self.plotted_img = fitted(self.plotted_img, shape)\n",
        "",
        "test_inputs_video.py::test_a_saved_video_keeps_every_frame_of_a_source_that_changes_size",
    ),
    Defect(
        "what memory ran out for is lost",
        "predict/halving.py",
        "            if self._fits(part, work):\n                start = part.stop",
        "            self._fits(part, work)\n            start = part.stop",
        FAULTS.format("a_gpu_without_memory_for_many_prompts_answers_fewer_at_once"),
    ),
    # Measuring and switching
    Defect(
        "benchmark_blind_to_answers",
        "benchmark/stage.py",
        "not deviation.distance <= (allowed or {})[dtype]",
        "deviation.distance < 0",
        "test_benchmark.py::test_a_wrong_answer_shows",
    ),
    Defect(
        "benchmark_compares_with_itself",
        "benchmark/compare.py",
        "furthest = (answer - reference).abs().max().item() / size",
        "furthest = (answer - answer).abs().max().item() / size",
        "test_benchmark.py::test_a_wrong_answer_shows[decoder]",
    ),
    Defect(
        "benchmark_same_order_each_round",
        "benchmark/timing.py",
        "    by %= max(1, len(names))\n",
        "    by = 0\n",
        "test_benchmark.py::test_everybody_has_a_turn_in_every_round_and_the_first_does_not_count",
    ),
    Defect(
        "benchmark_counts_the_warm_up",
        "benchmark/timing.py",
        "            if i >= warm:\n",
        "            if i >= 0:\n",
        "test_benchmark.py::test_everybody_has_a_turn_in_every_round_and_the_first_does_not_count",
    ),
    Defect(
        "benchmark_needs_ultralytics",
        "predict/__init__.py",
        "from typing import TYPE_CHECKING, Any\n",
        "from typing import TYPE_CHECKING, Any\n\nimport ultralytics\n",
        "test_benchmark.py::test_it_runs_where_ultralytics_is_not_installed",
    ),
    Defect(
        "bf16_in_the_shared_network",
        "predict/precision.py",
        "deepcopy(model).to(form.dtype)",
        "model.to(form.dtype)",
        "test_switches.py::test_the_network_keeps_its_bits",
    ),
    Defect(
        "bf16_not_heard",
        "predict/switches.py",
        "torch.bfloat16 if bf16 else torch.float32",
        "torch.float32",
        "test_switches.py::test_predictors_compute_in_the_form_that_was_asked_for",
    ),
    Defect(
        "picture_in_hand_of_another_form",
        "predict/image.py",
        "tuple(self.imgsz), self.resize, self.form",
        "tuple(self.imgsz), self.resize",
        "test_switches.py::test_a_picture_in_hand_is_encoded_anew_in_another_form",
    ),
    Defect(
        "compiled_unseen",
        "predict/compiled.py",
        "    if not apart <= NEAR[next(model.parameters()).dtype]:\n",
        "    if apart < 0:\n",
        "test_switches.py::test_a_network_that_answers_otherwise_is_not_used",
    ),
    Defect(
        "bundle_of_another_picture",
        "predict/compiled.py",
        "levels = [level[owner] for level in levels]",
        "levels = [level[owner.sort().values] for level in levels]",
        "test_switches.py::test_bundles_know_whose_picture_a_prompt_is_about",
    ),
    Defect(
        "bundle_answers_its_filling",
        "predict/compiled.py",
        "answers.append(answer[: part.stop - part.start])",
        "answers.append(answer[size - part.stop + part.start :] if part.start else answer[: part.stop])",
        "test_switches.py::test_bundles_give_the_answers_of_all_at_once[70]",
    ),
    Defect(
        "threads_kept",
        "host.py",
        "        torch.set_num_threads(threads)\n\n\ndef usable_cores",
        "        pass\n\n\ndef usable_cores",
        "test_switches.py::test_threads_are_set_while_it_computes_and_given_back",
    ),
    # Large pictures in tiles
    Defect(
        "two pieces of one tile",
        "predict/tiles.py",
        "isdisjoint(piece.tile for piece in other)",
        "isdisjoint(())",
        TILES.format("an_object_takes_one_piece_of_a_tile"),
    ),
    Defect(
        "what ends in its tile taken for more",
        "predict/tiles.py",
        "return self.tile if self.cut else (0, 0, *self.mask.frame[::-1])",
        "return self.tile",
        TILES.format("what_ends_in_its_tile_is_not_taken_for_a_larger_thing"),
    ),
    Defect(
        "tiles equally loud at their borders",
        "predict/tiles.py",
        "torch.where(piece.mask.inside(part), loud, -loud)",
        "torch.where(piece.mask.inside(part), 1.0, -1.0)",
        TILES.format("a_pixel_is_left_to_the_tile_that_shows_most_around_it"),
    ),
    Defect(
        "what is left of others stays",
        "predict/tiles.py",
        "for piece in alone if all(piece.sameness(each) < SAME for each in whole)]",
        "for piece in alone]",
        TILES.format("what_is_cut_off_and_repeats_an_object_goes"),
    ),
    Defect(
        "masks compared by their boxes",
        "predict/following.py",
        "if finds and all(find.mask is not None for find in finds):",
        "if not finds:",
        EVERYTHING.format("masks_are_compared_as_masks_not_by_their_boxes"),
    ),
    Defect(
        "objects without number",
        "predict/following.py",
        "for i in matches.new[:room]:",
        "for i in matches.new:",
        EVERYTHING.format("a_prompter_finds_no_more_than_was_said_either"),
    ),
    *FOLLOWED,
)


def check(tests: Iterable[str], defect: Defect | None = None) -> tuple[int, str]:
    """Run tests in a copy of the project with a defect in it: pytest's exit status, and the first failure or error."""
    with tempfile.TemporaryDirectory(prefix="samplug-defect-") as folder:
        copy_project(Path(folder))
        if defect:
            defect.plant(Path(folder) / "samplug")
        # As a module, pytest puts the folder it runs in before an installed samplug; other processes need the variable.
        command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-p", "no:cacheprovider"]
        command += [f"tests/{file}" for file in tests]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        lines = (run.stdout + run.stderr).splitlines()
        failed = [line.split(" - ")[0].split("::")[-1] for line in lines if line.startswith(("FAILED", "ERROR"))]
        return run.returncode, (failed or lines or ["nothing"])[-1]


def copy_project(folder: Path) -> None:
    """Copy what the tests need, so that a defect never touches the original."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)


def without_defect(tests: Iterable[str]) -> Outcome:
    """The chosen tests as they are: they must pass, or their failing says nothing."""
    start = time.monotonic()
    status, said = check(tests)
    said = "green" if status == GREEN else said
    return Outcome("no defect", status == GREEN, said, time.monotonic() - start)


def with_defect(defect: Defect) -> Outcome:
    """The chosen tests with the defect: some of them must fail."""
    start = time.monotonic()
    try:
        status, said = check([defect.tests], defect)
    except (LookupError, subprocess.TimeoutExpired) as error:
        return Outcome(defect.name, False, str(error), time.monotonic() - start)
    said = said if status == RED else "SURVIVED" if status == GREEN else f"pytest ended with {status}: {said}"
    return Outcome(defect.name, status == RED, said, time.monotonic() - start)


def main(words: Sequence[str] = ()) -> int:
    """Plant the defects whose names contain one of the words (all, without words); 0 if the tests catch each."""
    chosen = [defect for defect in DEFECTS if not words or any(word in defect.name for word in words)]
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        green = pool.submit(without_defect, {defect.tests for defect in chosen})
        outcomes = [report(outcome) for outcome in pool.map(with_defect, chosen)] + [report(green.result())]
    good = bool(chosen) and all(outcome.good for outcome in outcomes)
    print(f"{len(chosen)} defects, {time.monotonic() - start:.0f} s: {'all caught' if good else 'SEE ABOVE'}")
    return 0 if good else 1


def report(outcome: Outcome) -> Outcome:
    """Print a row of the table as soon as it is known."""
    mark = "ok  " if outcome.good else "FAIL"
    print(f"{mark} {outcome.seconds:5.1f} s  {outcome.name:38}  {outcome.said}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
