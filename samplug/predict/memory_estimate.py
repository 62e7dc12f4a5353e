"""The memory that masks for prompts will take, required before any of it is taken."""

from __future__ import annotations

from collections.abc import Sequence

from samplug import resources
from samplug.errors import OutOfMemoryError
from samplug.nn.constants import FEATURE_STRIDE, MASK_STRIDE
from samplug.predict.prediction import PromptedImage
from samplug.predict.results.build import PostprocessOptions, mask_bytes
from samplug.prompts.objects import Prompts
from samplug.sources.errors import ErrorPolicy
from samplug.transforms import ImageTransform

INPUT_PIXEL_BYTES = 100  # for a pixel of the network's input: the least that loading and encoding it takes, measured
LARGE_INPUT = 1 << 22  # pixels from which on that memory is asked for before it is taken
PROMPTS_AT_ONCE = 1 << 8  # decoded together, while a GPU's memory suffices; the decoder splits them to fit the cache
# What decoding takes, measured. For each of these prompts, in logits of one mask:
MASKS_WHILE_DECODING = 8  # for each mask of an answer: all its decoding, and copies of the chosen ones
MASK_PROMPT = 24  # for a prompt that is a mask: its embedding, as wide as the features
CLICK_BYTES = 4096  # for each click
# For those that the decoder takes at a time, by the pixels of the features' grid that they attend to together:
ATTENDED_PIXELS = 8192
ATTENTION_BYTES = 64  # for a click and a pixel: the attention weights of 8 heads, twice


def fitting_images(
    images: Sequence[PromptedImage], errors: ErrorPolicy, masks: int, options: PostprocessOptions
) -> list[PromptedImage | None]:
    """The images of a batch whose masks, so many a prompt, fit into memory beside those before them; None for others.

    OutOfMemoryError where one does not fit, and errors end the run.
    """
    fitting: list[PromptedImage | None] = []
    taken = 0
    for image in images:
        try:
            taken += require_prompt_memory(image.prompts, image.transform, masks, options, taken)
            fitting.append(image)
        except OutOfMemoryError as error:
            errors.handle(image.path, error)
            fitting.append(None)
    return fitting


def require_prompt_memory(
    prompts: Prompts, transform: ImageTransform, masks: int, options: PostprocessOptions, taken: int = 0
) -> int:
    """Require the memory for the masks of one image beside what is taken, or raise OutOfMemoryError; its bytes."""
    (height, width), clicks = transform.image_size, max((len(each.points) for each in prompts.objects), default=0)
    need = prompt_bytes(prompts, clicks, transform, masks, options)
    by = f" by up to {clicks} clicks each" if clicks > 1 else ""
    what = f"answering with {masks * len(prompts.objects)} masks of {width}x{height} pixels{by}"
    resources.require_memory(
        taken + need, what, "give fewer objects at once, fewer clicks, fewer images (batch=), or smaller ones"
    )
    return need


def prompt_bytes(
    prompts: Prompts, clicks: int, transform: ImageTransform, masks: int, options: PostprocessOptions
) -> int:
    """The memory for the masks of one image, so many a prompt of up to so many clicks, and for decoding them."""
    (height, width), count = transform.input_size, len(prompts.objects)
    logit_bytes = 4 * (height // MASK_STRIDE) * (width // MASK_STRIDE)
    mask_prompts = sum(prompt.mask is not None for prompt in prompts.objects)
    copies = 1 if options.conf is None and options.classes is None else 2
    logits = masks * count * copies + mask_prompts
    decoding = min(count, PROMPTS_AT_ONCE) * (masks * MASKS_WHILE_DECODING + MASK_PROMPT * bool(mask_prompts))
    grid = (height // FEATURE_STRIDE) * (width // FEATURE_STRIDE)
    attended = min(count * grid, max(grid, ATTENDED_PIXELS))
    click_bytes = clicks * (CLICK_BYTES * min(count, PROMPTS_AT_ONCE) + ATTENTION_BYTES * attended)
    at_image = mask_bytes(masks * count, transform.image_size, options.non_overlap)
    return (logits + decoding) * logit_bytes + at_image + click_bytes
