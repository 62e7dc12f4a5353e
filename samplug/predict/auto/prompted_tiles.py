"""Prompts on large images, tile by tile: each is answered in the tile that shows most around it, or in a larger one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.masks.boxes import Box, mask_box
from samplug.masks.packed import PackedMask, PackedMasks
from samplug.masks.resize import resize_to_image
from samplug.nn.constants import MASK_PROMPT_LOGIT, MASK_STRIDE
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.auto.merge_tiles import may_continue
from samplug.predict.auto.tiles import check_tiles, tile_windows
from samplug.predict.prediction import Prediction, PromptedImage, segment_prompts
from samplug.prompts.objects import Prompt, Prompts
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.runtime.progress import JobProgress
from samplug.transforms import ImageTransform, Size, is_binary, resize_logits

Found = tuple[list[PackedMask], Tensor]  # the masks of one prompt, and their scores (M,)


@dataclass(frozen=True, eq=False)
class PromptTiles:
    """Answers prompts in tiles, of which only those with a prompt are encoded."""

    model: SAMModel | SAM2Model
    preprocess: Callable[[list[np.ndarray]], Tensor]  # brings parts of an image to the network's input
    resize: Any  # how it fits them, as in `ImageTransform`
    side: int  # of the smallest tiles, in pixels
    overlap: float  # what neighbours share at least, in pixels; below 1 a share of the side
    multimask: bool | str  # as in `segment_prompts`
    batch_size: AdaptiveBatch  # how many prompts are decoded together
    verbose: bool = False  # whether long jobs show a bar

    def __post_init__(self) -> None:
        check_tiles(self.side, self.overlap)

    def segment(self, image: PromptedImage, device: torch.device) -> Prediction:
        """Segment the prompted objects of one image: packed masks, in the order of the prompts."""
        found = self._answers(image)
        masks = PackedMasks((mask for few, _ in found for mask in few), image.transform.image_size, device)
        scores = torch.cat([torch.zeros(0, device=device), *(few for _, few in found)])
        prompt = torch.tensor([i for i, (few, _) in enumerate(found) for _ in few], dtype=torch.int64)
        return Prediction(masks, scores, prompt=prompt)

    def _answers(self, image: PromptedImage) -> list[Found]:
        """Answer prompts in tiles; in larger ones those that no tile shows whole, or whose object goes on beyond it."""
        prompts, transform = image.prompts.objects, image.transform
        size, side, answers = transform.image_size, self.side, dict[int, Found]()
        around = [extent(at_image(prompt, transform)) for prompt in prompts]
        while len(answers) < len(prompts):
            windows = tile_windows(size, side, self.overlap if self.overlap < 1 else self.overlap / self.side)
            by_window: dict[int, list[int]] = {}
            for i in [i for i in range(len(prompts)) if i not in answers]:
                chosen = best_window(around[i], [window.box for window in windows], size)
                if chosen is not None:
                    by_window.setdefault(chosen, []).append(i)
            with JobProgress({"tile": len(by_window)}, "A larger tile= takes less.", self.verbose) as progress:
                for number, rows in by_window.items():
                    with progress.timed("tile"):
                        found = self._answer_in(windows[number].box, [prompts[i] for i in rows], image)
                    answers |= {i: few for i, few in zip(rows, found, strict=True) if few is not None}
            side *= 2
        return [answers[i] for i in range(len(prompts))]

    def _answer_in(self, window: Box, prompts: Sequence[Prompt], image: PromptedImage) -> list[Found | None]:
        """Answers to prompts in a window; None where the object may continue beyond it."""
        (left, top, right, bottom), size = window, image.transform.image_size
        im = self.preprocess([image.image[top:bottom, left:right]])
        transform = ImageTransform((bottom - top, right - left), (im.shape[-2], im.shape[-1]), self.resize)
        inside = Prompts(tuple(in_window(at_image(prompt, image.transform), window) for prompt in prompts))
        few = self.model.encode(im), [transform], [inside], self.multimask, self.batch_size
        prediction = segment_prompts(self.model, *few)
        many = len(prediction.scores) // len(prompts)
        found: list[Found | None] = []
        for logits, scores in zip(prediction[0].split(many), prediction.scores.split(many), strict=True):
            masks = resize_to_image(logits, transform, self.model.mask_threshold)
            box = mask_box(masks[scores.argmax()])
            whole = None if box is None else (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
            cut = whole is not None and may_continue(whole, window, size)
            found.append(None if cut else ([PackedMask.pack(mask, top, left, size) for mask in masks], scores))
        return found


def segment_in_tiles(tiles: PromptTiles, images: list[PromptedImage], im: Tensor) -> Prediction:
    """Segment the prompted objects of the images of a batch, whose input is `im`, in tiles."""
    parts = [tiles.segment(image, im.device) for image in images]
    for i, part in enumerate(parts):
        part.image_index += i
    return Prediction.cat(parts or [Prediction.empty(im)], images)


def at_image(prompt: Prompt, transform: ImageTransform) -> Prompt:
    """A prompt whose mask, if it has one, has the image's size, so that a window can be cut out of it."""
    mask, (h, w) = prompt.mask, transform.input_size
    if mask is None or tuple(mask.shape) == transform.image_size:
        return prompt
    binary = is_binary(mask)
    if tuple(mask.shape) == (h // MASK_STRIDE, w // MASK_STRIDE) and not binary:  # an earlier answer fed back
        rows, columns = transform.content
        mask = resize_logits(mask.float(), (h, w))[:rows, :columns]
    mask = resize_logits(mask.float(), transform.image_size)
    return replace(prompt, mask=torch.where(mask >= 0, MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT) if binary else mask)


def in_window(prompt: Prompt, window: Box) -> Prompt:
    """A prompt in pixels of a window."""
    left, top, right, bottom = window
    corner = prompt.points.new_tensor([left, top])
    box = None if prompt.box is None else prompt.box - corner.repeat(2)
    mask = None if prompt.mask is None else prompt.mask[top:bottom, left:right]
    return Prompt(prompt.points - corner, prompt.labels, box, mask)


def best_window(around: Sequence[float] | None, windows: Sequence[Box], size: Size) -> int | None:
    """The window with the widest margin around a box; None if none shows it whole. One alone shows everything."""
    if len(windows) == 1 or around is None:
        return 0 if len(windows) == 1 else None
    margins = [margin(around, window, size) for window in windows]
    best = int(np.argmax(margins))
    return best if margins[best] >= 0 else None


def extent(prompt: Prompt) -> list[float] | None:
    """The xyxy around all that a prompt points at; None for an empty mask alone."""
    on = None if prompt.mask is None else mask_box(prompt.mask > 0)
    boxes = [torch.as_tensor(box).float() for box in (prompt.box, on) if box is not None]
    joined = torch.cat([prompt.points, *(box.reshape(2, 2) for box in boxes)])
    return [*joined.amin(0).tolist(), *joined.amax(0).tolist()] if len(joined) else None


def margin(around: Sequence[float], window: Box, size: Size) -> float:
    """The least distance from a box to a window's borders, those of the image left out; negative outside of one."""
    far, (height, width) = float(sum(size)), size
    return min(
        around[0] - window[0] if window[0] > 0 else far,
        around[1] - window[1] if window[1] > 0 else far,
        window[2] - around[2] if window[2] < width else far,
        window[3] - around[3] if window[3] < height else far,
    )
