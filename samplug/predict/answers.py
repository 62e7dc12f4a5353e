"""Masks on their way from the decoder to Ultralytics' `Results`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplug.host import Results
from samplug.masks import boxes_of, resize_to_picture
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, Features, PromptBatch
from samplug.predict.cutouts import Cutouts
from samplug.predict.finish import Finish, Rows, Shown, finished
from samplug.predict.finite import check_finite
from samplug.predict.halving import Share
from samplug.prompts import Prompts, View, batches_of


class Prediction(tuple):
    """What `inference` returns: (logits (N, h, w), scores (N,)), or with no prompt (masks, scores, boxes (N, 4)).

    It unpacks like the plain tuple that Ultralytics' SAM returns, and knows in addition for each row the picture it
    belongs to (`owner`, (N,)) and the prompt it answers (`prompt`, (N,)), both int64 on the CPU, pictures and prompts
    in order. `prompts` are those of each picture. Masks of everything are cut out and become whole where they are
    unpacked; `answers` are what they are kept as.
    """

    owner: Tensor
    prompt: Tensor
    prompts: list[Prompts] | None = None

    def __new__(
        cls, answers: Tensor | Cutouts, *tensors: Tensor, owner: Tensor | None = None, prompt: Tensor | None = None
    ) -> Prediction:
        """Make it from two or three columns of N rows; without owner and prompt: one picture, a row a prompt."""
        made = super().__new__(cls, (answers, *tensors))
        rows = len(answers)
        made.owner = torch.zeros(rows, dtype=torch.int64) if owner is None else owner
        made.prompt = torch.arange(rows) if prompt is None else prompt
        return made

    @staticmethod
    def of_nothing(like: Tensor) -> Prediction:
        """What is said of no picture, on the device of another tensor."""
        return Prediction(like.new_zeros(0, 1, 1), like.new_zeros(0))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        column = super().__getitem__(index)
        return column.whole() if isinstance(column, Cutouts) else column

    @property
    def answers(self) -> Tensor | Cutouts:
        """The first column as it is kept."""
        return super().__getitem__(0)

    @property
    def boxes(self) -> Tensor | None:
        """(N, 4) xyxy in pixels of the network's input, where nothing was prompted; else None."""
        return self[2] if len(self) > 2 else None

    def rows(self, index: Tensor) -> Prediction:
        """Return the chosen rows of every field."""
        here = (column[index.to(column.device)] for column in super().__iter__())
        return Prediction(*here, owner=self.owner[index], prompt=self.prompt[index])

    def picture(self, owner: int) -> Prediction:
        """Return the rows of one picture; where there is no other, they are not copied."""
        here = self.owner == owner
        return self if here.all() else self.rows(here.nonzero()[:, 0])

    def moved_by(self, pictures: int) -> Prediction:
        """Count the pictures of these rows on by so many: where a slice of a batch begins."""
        return Prediction(*super().__iter__(), owner=self.owner + pictures, prompt=self.prompt)

    @staticmethod
    def cat(parts: Sequence[Prediction], prompts: list[Prompts] | None = None) -> Prediction:
        """Join predictions, a part a picture, in order."""
        if len(parts) == 1:
            parts[0].prompts = prompts
            return parts[0]
        answers, *columns = zip(*(tuple.__iter__(part) for part in parts), strict=True)
        joined_answers = Cutouts.cat(answers) if isinstance(answers[0], Cutouts) else torch.cat(answers)
        tensors = (torch.cat(column) for column in columns)
        owner, prompt = (torch.cat([getattr(part, name) for part in parts]) for name in ("owner", "prompt"))
        joined = Prediction(joined_answers, *tensors, owner=owner, prompt=prompt)
        joined.prompts = prompts
        return joined


@dataclass(frozen=True, eq=False)
class Frame(Shown):
    """One picture in hand and its prompts."""

    prompts: Prompts


def public_features(features: Features) -> Tensor | dict[str, Tensor | list[Tensor]]:
    """Spell features as Ultralytics does: a tensor for SAM, {"image_embed", "high_res_feats"} for SAM 2."""
    if not features.fine:
        return features.image
    return {"image_embed": features.image, "high_res_feats": list(features.fine)}


def read_features(features: Features | Tensor | dict) -> Features:
    """Read either spelling, or ours."""
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


def answer_prompts(
    model: SAMModel | SAM2Model,
    features: Features,
    views: Sequence[View],
    prompts: Sequence[Prompts],
    multimask: bool | str,
    at_once: Share,
) -> Prediction:
    """Answer the prompts on F pictures, rows in the order of pictures and prompts.

    Args:
        model: one of our networks.
        features: of the F pictures.
        views: how each picture lies in the network's input.
        prompts: the objects of each picture, in its pixels.
        multimask: False for one mask a prompt, "best" for the one of three with the highest predicted IoU, "all" for
            all three, next to each other.
        at_once: how many prompts are answered together.

    Raises:
        FloatingPointError: the answer holds NaN or infinity.
    """
    masks = 3 if multimask == "all" else 1
    counts = torch.tensor([len(few) for few in prompts])
    height, width = features.grid
    logits = features.image.new_zeros(int(counts.sum()), masks, 4 * height, 4 * width)
    scores = features.image.new_zeros(int(counts.sum()), masks)
    for rows, batch in batches_of(prompts, views, device=features.image.device):

        def answer(some: slice, rows: Tensor = rows, batch: PromptBatch = batch) -> None:
            several = model.answer(features, batch[some], multimask=bool(multimask))
            chosen = likeliest(several) if multimask == "best" else several
            logits[rows[some]], scores[rows[some]] = chosen.logits, chosen.iou

        at_once.of(len(batch), answer)
    check_finite(model, features.image, logits, scores)
    owner = torch.arange(len(prompts)).repeat_interleave(counts).repeat_interleave(masks)
    prompt = torch.cat([torch.arange(count) for count in counts.tolist()]).repeat_interleave(masks)
    return Prediction(logits.flatten(0, 1), scores.flatten(0, 1), owner=owner, prompt=prompt)


def likeliest(answer: Answer) -> Answer:
    """Keep of each prompt's masks the one with the highest predicted IoU."""
    best = answer.iou.argmax(1)
    each = torch.arange(len(best), device=best.device)
    return Answer(answer.logits[each, best][:, None], answer.iou[each, best][:, None], answer.tokens, answer.presence)


def to_results(prediction: Prediction, frame: Frame, finish: Finish) -> Results:
    """Bring one picture's rows to its own size and wrap them as `Results`.

    `boxes.cls` is the class given, else the index of the prompt; `boxes.id` exists when ids were given.
    `result.prompt_index` (N,) says whose answer a row is.

    Args:
        prediction: the rows of this picture alone.
        frame: the picture.
        finish: which rows are kept, and how their masks are made ready.
    """
    result, chosen = finished(rows_of(prediction, frame.prompts, frame.view), frame, finish)
    result.prompt_index = prediction.prompt[chosen].numpy()
    return result


def rows_of(prediction: Prediction, prompts: Prompts, view: View) -> Rows:
    """The rows of one picture with what its prompts say of them; with nothing prompted, their class is their number."""
    classes = torch.tensor(prompts.classes)[prediction.prompt] if prompts.given else prediction.prompt
    names = prompts.class_names if prompts.given else {number: str(number) for number in classes.tolist()}
    ids = None if prompts.ids is None else torch.tensor(prompts.ids, dtype=torch.int64)[prediction.prompt]
    answers, boxes = prediction.answers, prediction.boxes
    if isinstance(answers, Tensor) and answers.dtype == torch.bool:
        answers = Cutouts.of(answers)
    if boxes is not None and isinstance(answers, Cutouts) and answers.frame != view.picture:
        boxes = boxes_at_picture(boxes, view)
    return Rows(answers, prediction[1], classes, names, ids, boxes)


def boxes_at_picture(boxes: Tensor, view: View) -> Tensor:
    """(N, 4) xyxy of the network's input to the picture's, as Ultralytics does: by the gains after rounding."""
    height, width = view.picture
    rows, columns = view.content
    scaled = boxes / boxes.new_tensor([columns / width, rows / height] * 2)
    return scaled.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))


def cut_out(prediction: Prediction, view: View, threshold: float) -> tuple[Tensor | None, Tensor]:
    """One picture's rows as masks (N, H, W) bool, None without rows, and boxes (N, 6): xyxy, score, prompt's index."""
    if not len(prediction.prompt):
        return None, prediction[1].new_zeros((0, 6))
    masks = resize_to_picture(prediction[0], view, threshold)
    index = prediction.prompt.to(masks.device)[:, None]
    return masks, torch.cat([boxes_of(masks).float(), prediction[1].float()[:, None], index.float()], 1)
