"""Mistakes to plant in networks, and on the way from the image to the network and back."""

from planted.defect import Defect

DECODER = "test_decoder.py"
VIT = "test_image.py"
HIERA = "test_hiera.py"
IMAGES = "test_images.py::test_the_same_file_and_image_give_the_peers_answer[sam2.1_t-UltralyticsSAM2-256-{}]"
PHOTOGRAPHS = "test_predict.py::test_a_photograph_gives_ultralytics_masks_and_scores[sam2.1_t-256-{}]"
CONF = "test_predict.py::test_scores_below_the_hosts_default_conf_drop_nothing[sam2.1_t-256]"
PREDICTOR = "predict/test_predictor.py::{}"
PROMPTS = "prompts/test_prompts.py"
BATCHES = "test_batches.py"
VIEW = "test_transforms.py"
MASKS = "test_masks.py"

NETWORKS = (
    # What a prompt is to the network
    Defect(
        "half a pixel missing",
        "prompt_encoder.py",
        "HALF_PIXEL = 0.5",
        "HALF_PIXEL = 0.0",
        DECODER,
    ),
    Defect(
        "padding point dropped",
        "prompt_encoder.py",
        "pad=boxes is None",
        "pad=False",
        DECODER,
    ),
    Defect(
        "padding point beside a box",
        "prompt_encoder.py",
        "pad=boxes is None",
        "pad=True",
        DECODER,
    ),
    Defect(
        "box corners swapped",
        "constants.py",
        "BOX_CORNER_LABELS = (2, 3)",
        "BOX_CORNER_LABELS = (3, 2)",
        DECODER,
    ),
    Defect(
        "clicks before corners",
        "inputs.py",
        "torch.cat([corners, points], dim=1)",
        "torch.cat([points, corners], dim=1)",
        IMAGES.format("boxes and points-1"),
    ),
    Defect(
        "padding has a place",
        "prompt_encoder.py",
        "torch.where(is_point, positions, 0)",
        "positions",
        DECODER,
    ),
    Defect(
        "mask prompt turned round",
        "masks.py",
        "np.where(on, np.float32(MASK_PROMPT_LOGIT), np.float32(-MASK_PROMPT_LOGIT))",
        "np.where(on, np.float32(-MASK_PROMPT_LOGIT), np.float32(MASK_PROMPT_LOGIT))",
        PROMPTS,
    ),
    Defect(
        "mask prompt on in the padding",
        "transforms.py",
        "value=-MASK_PROMPT_LOGIT)",
        "value=MASK_PROMPT_LOGIT)",
        VIEW,
    ),
    Defect(
        "mask prompt without anti-aliasing",
        "transforms.py",
        "align_corners=False, antialias=True)[0, 0]",
        "align_corners=False, antialias=False)[0, 0]",
        VIEW,
    ),
    # The decoder
    Defect(
        "image_index ignored",
        "chunks.py",
        "rows = image_index[chunk]",
        "rows = image_index[chunk] * 0",
        PREDICTOR.format("test_a_batch_equals_single_calls_with_its_own_number_of_prompts_each"),
    ),
    Defect(
        "first block like the others",
        "two_way.py",
        "first=index == 0",
        "first=False",
        DECODER,
    ),
    Defect(
        "single mask among the several",
        "mask_decoder.py",
        "slice(1, None) if multimask",
        "slice(0, 3) if multimask",
        DECODER,
    ),
    Defect(
        "unstable masks kept",
        "mask_decoder.py",
        "< self.dynamic_multimask_stability_thresh, best, 0",
        "< 0, best, 0",
        DECODER,
    ),
    Defect(
        "finer maps columns first",
        "upscaling.py",
        "zip(down, across, strict=True)",
        "zip(across, down, strict=True)",
        DECODER,
    ),
    Defect(
        "no-memory embedding missing",
        "nn/sam2.py",
        "Features(features.image + self.no_mem_embed.view(1, -1, 1, 1), features.fine)",
        "features",
        IMAGES.format("point-1"),
    ),
    # Encoders
    Defect(
        "window of the new stage",
        "hiera.py",
        "0 if i in global_att_blocks else window_spec[before]",
        "0 if i in global_att_blocks else window_spec[stage]",
        HIERA,
    ),
    Defect(
        "shortcut not normed",
        "hiera.py",
        "self.proj(normed)",
        "self.proj(x)",
        HIERA,
    ),
    Defect(
        "relative positions turned round",
        "vit.py",
        "index[:, None] - index + size - 1",
        "index - index[:, None] + size - 1",
        VIT,
    ),
    Defect(
        "relative rows for columns",
        "ops/attention.py",
        "row_bias[..., :, None] + column_bias[..., None, :]",
        "column_bias[..., :, None] + row_bias[..., None, :]",
        VIT,
    ),
    Defect(
        "bias of rows for columns",
        "tiny_vit.py",
        "distance[:, None, :, None], distance[:, None, :]]",
        "distance[:, None, :], distance[:, None, :, None]]",
        VIT,
    ),
    # From the image to the network and back
    Defect(
        "letterbox rounded down",
        "transforms.py",
        "max(round(side * gain), 1)",
        "max(int(side * gain), 1)",
        VIEW,
    ),
    Defect(
        "one gain for both sides of a stretch",
        "transforms.py",
        "return h / height, w / width",
        "return h / height, h / height",
        VIEW,
    ),
    Defect(
        "red and blue swapped",
        "transforms.py",
        "np.stack(batch)[..., ::-1]",
        "np.stack(batch)",
        PHOTOGRAPHS.format("clicks"),
    ),
    Defect(
        "features of the last image",
        "predict/image.py",
        "if self.features is not None and im is self.im else None",
        "if self.features is not None else None",
        "predict/test_set_image.py",
    ),
    Defect(
        "input of the last image",
        "predict/image.py",
        "if self.im is not None and self._fingerprint(im) == self._image_fingerprint:",
        "if self.im is not None:",
        "predict/test_set_image.py",
    ),
    Defect(
        "features of another network",
        "predict/image.py",
        "return pixels, self.fp32_model, tuple",
        "return pixels, tuple",
        "predict/test_set_image.py",
    ),
    Defect(
        "the image that is set gives way to another source",
        "predict/image.py",
        "self.dataset, self.source_type = self._set_image, self._set_image.source_type",
        "self.source_type = self._set_image.source_type",
        "predict/test_set_image.py",
    ),
    Defect(
        "order of the prompts lost",
        "prompts/objects.py",
        "(torch.tensor(rows).to(device, non_blocking=True), stack_prompts",
        "(torch.arange(len(rows)).to(device, non_blocking=True), stack_prompts",
        BATCHES,
    ),
    Defect(
        "masks dropped by the host's conf",
        "predict/base.py",
        "return None if self.args.conf == self._default_conf else self.args.conf",
        "return self.args.conf",
        CONF,
    ),
    Defect(
        "mask threshold of a probability",
        "sam2_base.py",
        "    mask_threshold = 0.0",
        "    mask_threshold = 0.5",
        PHOTOGRAPHS.format("boxes"),
    ),
    Defect(
        "padding enlarged with the image",
        "resize.py",
        "(np.arange(pixels) + 0.5) * (span / pixels) - 0.5",
        "(np.arange(pixels) + 0.5) * (cells / pixels) - 0.5",
        MASKS,
    ),
    # Threads
    Defect(
        "as many threads as cores",
        "idle_team.py",
        "max(2, self._cores - threads + 2)",
        "max(1, self._cores - threads + 1)",
        "test_idle_team.py::test_computing_and_sleeping_threads_are_one_more_than_the_cores",
    ),
    Defect(
        "threads to come take the team's number",
        "idle_team.py",
        "torch.set_num_threads(threads)  #",
        "pass  #",
        "test_idle_team.py::test_a_team_changes_no_number_of_threads",
    ),
)
