"""Objects of images prompted by clicks and by boxes, as `SAM.predict` answers them.

M masks of an answer, (H, W) the image's size, (h, w) the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from samplug.data.clicks import Click, box_prompt, click_prompt, next_click, outer_box
from samplug.data.samples import AnnotatedImage
from samplug.masks.boxes import Box
from samplug.masks.resize import resize_to_image
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features
from samplug.prompts.objects import Prompt, stack_prompts
from samplug.transforms import ImageTransform, Size, fit_image, normalise
from samplug.val.baselines import baseline_scores
from samplug.val.metrics import METRICS, jaccard, mask_scores
from samplug.val.scores import CalibrationLog, Case, Row, Scores

Network = SAMModel | SAM2Model
REPORTED_CLICKS = (1, 3, 5)  # numbers of clicks after which scores are reported
TARGET_IOUS = (0.85, 0.90)  # that a user wants to reach by clicking
EVERYTHING_IOU = 0.75  # from which an object counts as found by segmenting everything


@dataclass(frozen=True)
class ImageProtocol:
    """How the objects of images are prompted."""

    prompts: tuple[str, ...] = ("click", "box")
    clicks: int = 20  # the most on an object; after five, an object whose IoU has reached 0.90 gets no more
    feedback: bool = True  # whether every answer goes back into the network with the next click, as `masks=` does
    objects: int | None = None  # the most of an image, drawn at random; None for all
    batch: int = 8  # images at once
    baselines: bool = False  # whether to score a flood fill, the box itself and GrabCut too
    everything: Callable[[np.ndarray], np.ndarray] | None = None  # all masks (K, H, W) of an image (H, W, 3) RGB


@dataclass(frozen=True, eq=False)
class Predicted:
    """An answer: masks (M, H, W) bool, their predicted IoU (M,), and their logits (M, h/4, w/4)."""

    masks: np.ndarray
    iou: np.ndarray
    logits: Tensor


@dataclass(eq=False)
class Target:
    """An object to be segmented."""

    name: str  # of the image and the object
    image_index: int  # of its image in the batch
    transform: ImageTransform  # how that image lies in the network's input
    image: np.ndarray
    truth: np.ndarray  # its mask
    scores: dict[str, float] = field(default_factory=dict)  # so far
    clicks: list[Click] = field(default_factory=list)  # so far
    last: Predicted | None = None  # the answer to them
    curve: list[float] = field(default_factory=list)  # IoU after each click

    def add_click(self) -> bool:
        """Click once more, in the middle of the largest error; False where there is none."""
        click = next_click(self.last.masks[0] if self.last else None, self.truth)
        self.clicks += [click] if click else []
        return click is not None

    def click_prompt(self, feedback: bool) -> Prompt:
        """All clicks so far, and with feedback the mask that they gave."""
        return click_prompt(self.clicks, self.last.logits[0] if self.last and feedback else None)

    def case(self, score: float, answer: Predicted, box: Box | None = None) -> Case:
        """An answer to the clicks so far, or to a box, to be drawn."""
        clicks = tuple((click.x, click.y, click.label) for click in self.clicks)
        return Case(self.name, score, self.image, self.truth, answer.masks[0], clicks, box)

    def is_unfinished(self) -> bool:
        """Whether more clicks can still change a score."""
        return len(self.curve) < max(REPORTED_CLICKS) or max(self.curve) < max(TARGET_IOUS)


def evaluate_images(
    model: Network, images: Iterable[AnnotatedImage], size: Size, protocol: ImageProtocol = ImageProtocol()
) -> Scores:
    """Prompt every object of images, which are read or drawn as they are needed, and score the answers.

    The network is in eval mode, on any device and in any precision; images are letterboxed into its input of `size`
    (h, w). Objects without a pixel are left out.

    Returns:
        Scores of every object: `click1`, `click3`, `click5`, `box` are the IoU of the one mask that a user gets by
        default; `…_best` and `…_chosen` those of three, the best by the truth and by predicted IoU; `…_F` boundary F;
        `noc85`, `noc90` the number of clicks to that IoU, the most allowed where it was not reached, and `failed85`,
        `failed90` whether it was not. `everything` is the best IoU of a mask from segmenting everything,
        `everything75` whether it is 0.75. Of the baselines: `flood_fill`, `box_as_mask`, `grabcut`.
    """
    scores = Scores(calibration={"iou": CalibrationLog()})
    curves: list[list[float]] = []
    remaining, first = iter(images), 0
    while batch := list(islice(remaining, max(protocol.batch, 1))):
        targets = [each for i, image in enumerate(batch) for each in _targets(image, i, first + i, size, protocol)]
        first += len(batch)
        with torch.inference_mode():
            _evaluate_batch(model, [image.image for image in batch], targets, size, protocol, scores)
        scores.rows += [Row(each.name, float(each.truth.mean()), each.scores) for each in targets]
        curves += [each.curve for each in targets if each.curve]
    longest = max(map(len, curves), default=0)
    padded = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
    scores.curve = np.mean(padded, 0).tolist() if padded else []
    return scores


def preprocess(model: Network, images: Sequence[np.ndarray], size: Size) -> Tensor:
    """RGB images as the network's normalised input (F, 3, h, w), on its device and in its precision."""
    weight = next(model.parameters())
    fitted = torch.from_numpy(np.stack([fit_image(image, size) for image in images])).to(weight.device)
    statistics = model.get_buffer("pixel_mean"), model.get_buffer("pixel_std")
    return normalise(fitted.permute(0, 3, 1, 2), *statistics).to(weight.dtype)


def _targets(image: AnnotatedImage, image_index: int, seed: int, size: Size, protocol: ImageProtocol) -> list[Target]:
    """The objects of an image to be prompted; where there are too many, `seed` decides which."""
    visible = [i for i, mask in enumerate(image.masks) if mask.any()]
    if protocol.objects is not None and len(visible) > protocol.objects:
        visible = sorted(np.random.default_rng(seed).choice(visible, protocol.objects, replace=False).tolist())
    transform = ImageTransform((image.image.shape[0], image.image.shape[1]), size)
    return [Target(f"{image.name} #{i}", image_index, transform, image.image, image.masks[i]) for i in visible]


def _evaluate_batch(
    model: Network, images: Sequence[np.ndarray], targets: Sequence[Target], size: Size, protocol: ImageProtocol,
    scores: Scores,
) -> None:  # fmt: skip
    if not targets:
        return
    features = model.encode(preprocess(model, images, size))
    if "box" in protocol.prompts:
        _evaluate_boxes(model, features, targets, scores)
    if "click" in protocol.prompts:
        _evaluate_clicks(model, features, targets, protocol, scores)
    if protocol.everything is not None:
        for image_index, image in enumerate(images):
            same_image = [each for each in targets if each.image_index == image_index]
            _score_everything(same_image, protocol.everything(image))
    if protocol.baselines:
        for target in targets:
            target.scores |= baseline_scores(target.image, target.truth)


def _evaluate_boxes(model: Network, features: Features, targets: Sequence[Target], scores: Scores) -> None:
    prompts = [box_prompt(target.truth) for target in targets]
    for target, answer in zip(targets, _predict(model, features, targets, prompts), strict=True):
        iou = _score_mask(target, "box", answer, scores)
        scores.add_case("box", target.case(iou, answer, outer_box(target.truth)))
    for target, answer in zip(targets, _predict(model, features, targets, prompts, multimask=True), strict=True):
        _score_multimask(target, "box", answer, scores)


def _evaluate_clicks(
    model: Network, features: Features, targets: Sequence[Target], protocol: ImageProtocol, scores: Scores
) -> None:
    active = [target for target in targets if target.add_click()]
    prompts = [target.click_prompt(feedback=False) for target in active]
    for target, answer in zip(active, _predict(model, features, active, prompts, multimask=True), strict=True):
        _score_multimask(target, "click1", answer, scores)
    for number in range(1, protocol.clicks + 1):
        prompts = [target.click_prompt(protocol.feedback) for target in active]
        name = f"click{number}" if number in REPORTED_CLICKS else ""
        for target, answer in zip(active, _predict(model, features, active, prompts), strict=True):
            target.last = answer
            target.curve.append(_score_mask(target, name, answer, scores))
            if number == 1:
                scores.add_case("click", target.case(target.curve[0], answer))
        active = [each for each in active if each.is_unfinished() and number < protocol.clicks and each.add_click()]
    for target in targets:
        _score_clicks(target, protocol.clicks)


def _predict(
    model: Network, features: Features, targets: Sequence[Target], prompts: Sequence[Prompt], multimask: bool = False
) -> Iterator[Predicted]:
    """The answer to a prompt of each object, all prompts of one form; masks at their image's size.

    On a CPU each is decoded alone, as a user's one prompt is: how numbers are rounded follows how many there are.
    """
    members = [(prompt, each.transform, each.image_index) for prompt, each in zip(prompts, targets, strict=True)]
    together = len(members) if features.image.is_cuda else 1
    for first in range(0, len(members), max(together, 1)):
        batch = stack_prompts(members[first : first + together], features.image.device)
        answer = model.answer(features, batch, multimask)
        logits, iou = answer.logits.float().cpu(), answer.iou.float().cpu().numpy()
        for i, target in enumerate(targets[first : first + together]):
            masks = resize_to_image(logits[i], target.transform, model.mask_threshold)
            yield Predicted(masks.numpy(), iou[i], logits[i])


def _score_mask(target: Target, name: str, answer: Predicted, scores: Scores) -> float:
    """Score the single mask of an answer under a name, or only its calibration without one; returns its IoU."""
    if not name:
        iou = jaccard(answer.masks[0], target.truth)
    else:
        values = mask_scores(answer.masks[0], target.truth)
        iou = values.pop("J")
        target.scores |= {name: iou} | {f"{name}_{metric}": value for metric, value in values.items()}
    scores.calibration["iou"].add(answer.iou[0], iou)
    return iou


def _score_multimask(target: Target, name: str, answer: Predicted, scores: Scores) -> None:
    """Score the best of several masks, and the one with the highest predicted IoU."""
    ious = [jaccard(mask, target.truth) for mask in answer.masks]
    for predicted, iou in zip(answer.iou, ious, strict=True):
        scores.calibration["iou"].add(predicted, iou)
    target.scores |= {f"{name}_best": max(ious), f"{name}_chosen": ious[int(answer.iou.argmax())]}


def _score_everything(targets: Sequence[Target], masks: np.ndarray) -> None:
    """Score the best of all masks of an image for each of its objects."""
    for target in targets:
        best = max((jaccard(mask, target.truth) for mask in masks), default=0.0)
        target.scores |= {"everything": best, f"everything{EVERYTHING_IOU * 100:.0f}": float(best >= EVERYTHING_IOU)}


def _score_clicks(target: Target, most: int) -> None:
    """Number of clicks to each target IoU; an object that needs no more clicks keeps its last scores."""
    for number in REPORTED_CLICKS:
        if len(target.curve) < number <= most:
            last = f"click{max(n for n in REPORTED_CLICKS if n <= len(target.curve))}"
            kept = {f"click{number}_{metric}": target.scores[f"{last}_{metric}"] for metric in METRICS if metric != "J"}
            target.scores |= {f"click{number}": target.curve[-1]} | kept
    for iou in TARGET_IOUS:
        reached = [i for i, value in enumerate(target.curve, 1) if value >= iou]
        target.scores[f"noc{iou * 100:.0f}"] = float(reached[0] if reached else most)
        target.scores[f"failed{iou * 100:.0f}"] = float(not reached)
