"""Masks on their way from the decoder to Ultralytics' `Results`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.errors import OutOfMemoryError, PromptError, names_of, report_slip, shown
from samplug.host import LOGGER, Results, say_once
from samplug.masks.boxes import mask_boxes
from samplug.masks.packed import PackedMasks
from samplug.masks.resize import resize_to_image
from samplug.nn.constants import MASK_STRIDE
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Answer, Features, PromptBatch
from samplug.predict.results.build import ImageInfo, MaskRows, PostprocessOptions, build_results
from samplug.prompts.objects import Prompts, prompt_batches
from samplug.prompts.per_image import ImagePrompts
from samplug.prompts.raw import RawPrompts
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.runtime.finite import check_finite
from samplug.sources.base_loader import SourceLoader, image_count
from samplug.sources.errors import ErrorPolicy
from samplug.transforms import ImageTransform

SURE_IOU = 0.5  # predicted: below it a network that has not learnt a kind of prompt does not know what is meant
NO_PROMPTS = Prompts(given=False)
OF_FOLLOWING = (
    "start",
    "reverse",
    "keep_lost",
    "keep_corrections",
    "expire_after",
    "policy",
)  # options of what memory follows


@dataclass(frozen=True, eq=False)
class PromptedImage(ImageInfo):
    """One image and its prompts."""

    prompts: Prompts = NO_PROMPTS


def with_prompts(
    images: Sequence[PromptedImage], indices: Sequence[int], prompts: ImagePrompts, errors: ErrorPolicy
) -> list[PromptedImage | None]:
    """Images with their prompts, by their places in the run; None where those do not fit the image.

    PromptError where they are wrong on every image, or errors end the run; OutOfMemoryError where they are too many.
    """
    prompted: list[PromptedImage | None] = []
    for image, index in zip(images, indices, strict=True):
        try:
            few = prompts.for_image(index, image.path, image.transform.image_size)
            prompted.append(replace(image, prompts=few))
        except (PromptError, OutOfMemoryError) as error:
            if isinstance(error, PromptError) and prompts.are_wrong_everywhere():
                raise
            errors.handle(image.path, error)
            prompted.append(None)
    return prompted


def report_unused_files(options: dict[str, Any], dataset: Any) -> None:
    """Report prompts by file for files that the source does not have, and its files that have none."""
    raw = RawPrompts.from_options(options)
    if raw.prompts == {}:
        report_slip("prompts={}: it holds nothing, and so everything is segmented. Expected prompts, or leave it out.")
    if not isinstance(dataset, SourceLoader) or not isinstance(raw.prompts, dict | str | Path):
        return
    prompts = ImagePrompts(raw, image_count(dataset))
    if unused := prompts.unused_files(dataset.files):
        example = Path(dataset.files[0]).name
        report_slip(f"prompts: {unused}. Expected paths or names of files, such as {example!r}.")
    report_files_without(prompts, dataset.files)


def report_files_without(prompts: ImagePrompts, files: Sequence[str]) -> None:
    """Report the files of a source for which prompts by file have no entry."""
    if without := prompts.files_without(files):
        LOGGER.warning(f"prompts: no entry, and so no rows, for {names_of(Path(file).name for file in without)}.")


def report_unused_options(options: dict[str, Any]) -> None:
    """Report options that act on what is followed, where nothing is."""
    for name in OF_FOLLOWING:
        if options.get(name) not in (None, False):
            report_slip(f"{name}={shown(options[name])}: without effect, as each image or frame is segmented alone.")


@dataclass(eq=False)
class Prediction:
    """N masks on the images of a batch. Unpacks as (masks, scores), or (masks, scores, boxes) where it has boxes.

    The masks are logits (N, h, w) over the network's input; or, of everything, masks (N, H, W), packed until unpacked.
    `image_index` and `prompt`, (N,) int64 on the CPU, are the image (ascending) and the prompt of each row; left out:
    of one image, a row a prompt.
    """

    masks: Tensor | PackedMasks
    scores: Tensor  # (N,)
    boxes: Tensor | None = None  # (N, 4) xyxy in the pixels of packed masks
    image_index: Tensor = None  # type: ignore[assignment]  # see __post_init__
    prompt: Tensor = None  # type: ignore[assignment]
    images: list[PromptedImage] | None = None  # of the batch; None: `postprocess` reads them from the batch
    memory_checked: bool = False  # whether the memory for the masks at their images' sizes was required before

    def __post_init__(self) -> None:
        if self.image_index is None:
            self.image_index = torch.zeros(len(self.masks), dtype=torch.int64)
        if self.prompt is None:
            self.prompt = torch.arange(len(self.masks))

    @staticmethod
    def empty(like: Tensor) -> Prediction:
        """No rows, on the device of another tensor."""
        return Prediction(like.new_zeros(0, 1, 1), like.new_zeros(0))

    def __len__(self) -> int:
        return 2 if self.boxes is None else 3

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        column = (self.masks, self.scores, self.boxes)[: len(self)][index]
        return column.unpack() if isinstance(column, PackedMasks) else column

    def image(self, image_index: int) -> Prediction:
        """The rows of one image; where there is no other, they are not copied."""
        here = self.image_index == image_index
        if here.all():
            return self
        rows = here.nonzero()[:, 0]
        return replace(
            self,
            masks=self.masks[rows.to(self.masks.device)],
            scores=self.scores[rows.to(self.scores.device)],
            boxes=None if self.boxes is None else self.boxes[rows.to(self.boxes.device)],
            image_index=self.image_index[rows],
            prompt=self.prompt[rows],
        )

    @staticmethod
    def cat(parts: Sequence[Prediction], images: list[PromptedImage] | None = None) -> Prediction:
        """Join the rows of several, in order."""
        first = parts[0]
        if len(parts) == 1:
            first.images = images
            return first
        masks: list[Any] = [part.masks for part in parts]
        return Prediction(
            PackedMasks.cat(masks) if isinstance(first.masks, PackedMasks) else torch.cat(masks),
            torch.cat([part.scores for part in parts]),
            None if first.boxes is None else torch.cat([part.boxes for part in parts if part.boxes is not None]),
            torch.cat([part.image_index for part in parts]),
            torch.cat([part.prompt for part in parts]),
            images,
            all(part.memory_checked for part in parts),
        )


def public_features(features: Features) -> Tensor | dict[str, Tensor | list[Tensor]]:
    """Features as Ultralytics returns them: a tensor for SAM, {"image_embed", "high_res_feats"} for SAM 2."""
    if not features.fine:
        return features.image
    return {"image_embed": features.image, "high_res_feats": list(features.fine)}


def read_features(features: Features | Tensor | dict) -> Features:
    """Read features as `public_features` returns them."""
    if isinstance(features, Features):
        return features
    if isinstance(features, Tensor):
        return Features(features)
    if isinstance(features, dict) and {"image_embed", "high_res_feats"} <= features.keys():
        return Features(features["image_embed"], tuple(features["high_res_feats"]))
    raise TypeError(
        f"features are {type(features).__name__}: give a tensor (SAM) or a dict with image_embed and high_res_feats "
        "(SAM 2), as get_im_features returns them."
    )


def segment_prompts(
    model: SAMModel | SAM2Model, features: Features, transforms: Sequence[ImageTransform], prompts: Sequence[Prompts],
    multimask: bool | str, batch_size: AdaptiveBatch,
) -> Prediction:  # fmt: skip
    """Segment what the prompts of F images ask for, in pixels of the image; rows in the order of images and prompts.

    `multimask` is False for one mask a prompt, "best" for the one of three of the highest predicted IoU, "all" for all
    three, next to each other. FloatingPointError where the result holds NaN or infinity.
    """
    masks = 3 if multimask == "all" else 1
    counts = [len(few.objects) for few in prompts]
    height, width = features.grid
    dtype = torch.promote_types(features.image.dtype, torch.float16)  # beside bfloat16 the decoder is in float32
    logits = features.image.new_zeros(sum(counts), masks, 4 * height, 4 * width, dtype=dtype)
    scores = features.image.new_zeros(sum(counts), masks, dtype=dtype)
    learnt = (model.config or {}).get("mask_prompts", True)
    for rows, batch in prompt_batches(prompts, transforms, device=features.image.device):
        masks_only = not learnt and batch.points is None and batch.boxes is None

        def decode(part: slice, rows: Tensor = rows, batch: PromptBatch = batch, masks_only: bool = masks_only) -> None:
            answer = model.answer(features, batch[part], multimask=bool(multimask))
            answer = best_masks(answer) if multimask == "best" else answer
            if masks_only and batch.masks is not None:
                answer = masks_where_unsure(answer, batch.masks[part], model.variant)
            logits[rows[part]], scores[rows[part]] = answer.logits.to(dtype), answer.iou.to(dtype)

        batch_size.run(len(batch), decode)
    check_finite(model, features.image, logits, scores)
    image_index = torch.arange(len(prompts)).repeat_interleave(masks * torch.tensor(counts, dtype=torch.int64))
    prompt = torch.cat([torch.arange(count) for count in counts]).repeat_interleave(masks)
    return Prediction(logits.flatten(0, 1), scores.flatten(0, 1), image_index=image_index, prompt=prompt)


def best_masks(answer: Answer) -> Answer:
    """Keep of each prompt's masks the one with the highest predicted IoU."""
    best = answer.iou.argmax(1)
    each = torch.arange(len(best), device=best.device)
    return Answer(answer.logits[each, best][:, None], answer.iou[each, best][:, None], answer.tokens, answer.presence)


def masks_where_unsure(answer: Answer, masks: Tensor, variant: str) -> Answer:
    """Answers to N masks without a click or a box: the masks (N, 1, 4h, 4w) themselves where no IoU is predicted high.

    Their IoU is 1 then, as SAM 2 has it in videos, where a mask is always its own answer.
    """
    unsure = (answer.iou < SURE_IOU).all(1)
    if not unsure.any():
        return answer
    say_once(f"{variant} has not learnt to answer masks alone on images: where it is unsure, the mask is the answer.")
    given = masks = masks.to(answer.logits.device, torch.float32)
    for _ in range(2):  # sharpened, so that enlarging them gives the masks back
        enlarged = F.interpolate(masks, scale_factor=MASK_STRIDE, mode="bilinear")
        masks = masks + given - F.interpolate(enlarged, given.shape[-2:], mode="bilinear", antialias=True)
    logits = torch.where(unsure[:, None, None, None], masks.to(answer.logits.dtype), answer.logits)
    return replace(answer, logits=logits, iou=answer.iou.masked_fill(unsure[:, None], 1))


def image_results(prediction: Prediction, image: PromptedImage, options: PostprocessOptions) -> Results:
    """Bring one image's rows to its own size and wrap them as `Results`.

    `boxes.cls` is the class given, else the index of the prompt; `boxes.id` exists when ids were given.
    `result.prompt_index` (N,) is the prompt of each row.
    """
    prompts, transform, prompt = image.prompts, image.transform, prediction.prompt
    classes = torch.tensor(prompts.classes)[prompt] if prompts.given else prompt
    names = prompts.class_names if prompts.given else {number: str(number) for number in classes.tolist()}
    ids = None if prompts.ids is None else torch.tensor(prompts.ids, dtype=torch.int64)[prompt]
    masks, boxes = prediction.masks, prediction.boxes
    if isinstance(masks, Tensor) and masks.dtype == torch.bool:
        masks = PackedMasks.pack(masks)
    if boxes is not None and isinstance(masks, PackedMasks) and masks.size != transform.image_size:
        boxes = boxes_at_image(boxes, transform)
    rows = MaskRows(masks, prediction.scores, classes, names, ids, boxes, prediction.memory_checked)
    result, kept = build_results(rows, image, options)
    result.prompt_index = prompt[kept].numpy()
    return result


def boxes_at_image(boxes: Tensor, transform: ImageTransform) -> Tensor:
    """(N, 4) xyxy of the network's input to the image's, as Ultralytics does: by the gains after rounding."""
    height, width = transform.image_size
    rows, columns = transform.content
    scaled = boxes / boxes.new_tensor([columns / width, rows / height] * 2)
    return scaled.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))


def masks_and_boxes(
    prediction: Prediction, transform: ImageTransform, threshold: float
) -> tuple[Tensor | None, Tensor]:
    """One image's rows as masks (N, H, W) bool, None without rows, and boxes (N, 6): xyxy, score, prompt's index."""
    if not len(prediction.prompt):
        return None, prediction.scores.new_zeros((0, 6))
    masks = resize_to_image(prediction[0], transform, threshold)
    index = prediction.prompt.to(masks.device)[:, None]
    return masks, torch.cat([mask_boxes(masks), prediction.scores.float()[:, None], index.float()], 1)
