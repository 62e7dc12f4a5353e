"""Prompts decoded some at a time, so that the pixels of their images stay in a CPU's cache, or fit a GPU's memory.

F images, N prompts.
"""

from collections.abc import Iterator

from torch import Tensor

from samplug.nn.ops.linear import is_recording

# Pixel channels per chunk: on a CPU one prompt of a 64 x 64 grid.
NUMBERS_PER_CHUNK = {"cpu": 2**20, "other": 2**26}

ImageRows = slice | Tensor


def prompt_chunks(image: Tensor, num_prompts: int, image_index: Tensor | None) -> Iterator[tuple[slice, ImageRows]]:
    """Yield the prompts of each chunk and their images (F, ...); one chunk where gradients or a graph are recorded.

    `image_index` (N,) is the index of each prompt's image; None for one image for all, or one a prompt.
    """
    numbers = NUMBERS_PER_CHUNK.get(image.device.type, NUMBERS_PER_CHUNK["other"])
    size = max(1, numbers // image[0].numel())
    chunks = [slice(start, start + size) for start in range(0, num_prompts, size)]
    for chunk in [slice(None)] if is_recording() else chunks:
        yield chunk, _images_of(chunk, image, image_index)


def _images_of(chunk: slice, image: Tensor, image_index: Tensor | None) -> ImageRows:
    if len(image) == 1:
        return slice(None)
    if image_index is None:
        return chunk
    rows = image_index[chunk]  # if all are one, a slice selects it without a copy
    if is_recording() or rows.device.type != "cpu" or (rows != rows[0]).any():
        return rows
    return slice(int(rows[0]), int(rows[0]) + 1)
