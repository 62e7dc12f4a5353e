"""Mistakes to plant in networks, and on the way from the picture to the network and back."""

from planted import Defect

DECODER = "test_nn_decoder.py"
VIT = "test_nn_image.py"
HIERA = "test_nn_hiera.py"
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

NETWORKS = (
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
)
