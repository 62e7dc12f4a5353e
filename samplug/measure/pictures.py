"""Objects of pictures asked for by clicks and by boxes, as `SAM.predict` answers them.

M masks of an answer, (H, W) the picture's size, (h, w) the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from samplug.masks import resize_to_picture
from samplug.measure import baselines
from samplug.measure.calibration import Claims
from samplug.measure.entering import Network, entered, views_of
from samplug.measure.findings import Case, Findings, Row, Worst
from samplug.measure.overlap import boundary_f, jaccard
from samplug.measure.pointing import Click, box_around, next_click
from samplug.nn.types import Features
from samplug.prompt_batches import even_batch
from samplug.prompts import Prompt
from samplug.view import Size, View

CLICK, BOX = "click", "box"
SHOWN = (1, 3, 5)  # clicks after which overlaps are told
TARGETS = (0.85, 0.90)  # overlaps that a user wants to reach by clicking
RECALLED = 0.75  # overlap from which an object counts as found by segmenting everything
FED_BACK = 32.0  # a mask goes back into the network with its logits held within


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture (H, W, 3) uint8 RGB, and the masks (N, H, W) bool of its objects."""

    name: str
    image: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Asking:
    """How the objects of pictures are asked for.

    Attributes:
        ask: By what: `"click"`, `"box"`, or both.
        clicks: The most clicks on an object; after five, an object whose overlap has reached 0.90 gets no more.
        feedback: Whether every answer goes back into the network with the next click, as `masks=` does.
        objects: The most objects of a picture, drawn at random; None for all.
        batch: Pictures at once.
        baselines: Whether to see what a flood fill, the box itself and GrabCut give.
        everything: Segments everything on a picture (H, W, 3) RGB, masks (K, H, W); None to leave that out.
    """

    ask: tuple[str, ...] = (CLICK, BOX)
    clicks: int = 20
    feedback: bool = True
    objects: int | None = None
    batch: int = 8
    baselines: bool = False
    everything: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """An answer: masks (M, H, W) bool, what the network thinks of them (M,), and the logits (M, h/4, w/4)."""

    masks: np.ndarray
    claimed: np.ndarray
    logits: Tensor


@dataclass(eq=False)
class Sought:
    """An object that is asked for.

    Attributes:
        name: The picture's.
        owner: The place of its picture in the batch.
        view: How that picture lies in the network's input.
        image: The picture.
        wanted: Its mask.
        scores: What was found out about it so far.
        clicks: Those it got.
        found: Its mask after them.
        logits: That mask's logits (1, h/4, w/4).
        curve: Overlap after each click.
    """

    name: str
    owner: int
    view: View
    image: np.ndarray
    wanted: np.ndarray
    scores: dict[str, float] = field(default_factory=dict)
    clicks: list[Click] = field(default_factory=list)
    found: np.ndarray | None = None
    logits: Tensor | None = None
    curve: list[float] = field(default_factory=list)

    def point(self) -> bool:
        """Click once more, in the middle of the largest error; False where there is none."""
        click = next_click(np.zeros_like(self.wanted) if self.found is None else self.found, self.wanted)
        self.clicks += [click] if click else []
        return click is not None

    def clicked(self, feedback: bool) -> Prompt:
        """All clicks so far, and the mask they gave."""
        points = torch.tensor([(click.x, click.y) for click in self.clicks], dtype=torch.float32)
        labels = torch.tensor([click.label for click in self.clicks])
        given = None if self.logits is None or not feedback else self.logits[0].clamp(-FED_BACK, FED_BACK)
        return Prompt(points, labels, mask=given)

    def boxed(self) -> Prompt:
        """A box around it."""
        box = torch.tensor(box_around(self.wanted), dtype=torch.float32)
        return Prompt(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), box)

    def case(self, score: float, found: np.ndarray, box: bool = False) -> Case:
        """What was asked and answered, to be looked at."""
        clicks = () if box else tuple((click.x, click.y, click.label) for click in self.clicks)
        around = box_around(self.wanted) if box else None
        return Case(self.name, score, self.image, self.wanted, found, clicks, around)


def measure(model: Network, pictures: Iterable[Picture], size: Size, asking: Asking = Asking()) -> Findings:
    """Ask for every object of pictures, and compare the answers with the truth.

    Args:
        model: Any network of ours, in eval mode, wherever it is and in whatever precision.
        pictures: Read or drawn as they are needed; objects without a pixel are left out.
        size: (h, w) of the network's input, into which pictures are letterboxed.
        asking: How objects are asked for.

    Returns:
        Scores of every object: `click1`, `click3`, `click5`, `box` are the overlap (IoU) of the one mask that a user
        gets by default; `…_best` and `…_chosen` those of three, the best by the truth and by the network's own word;
        `…_F` its boundary F; `noc85`, `noc90` the clicks it took to reach that overlap, the most allowed where it was
        not reached, and `failed85`, `failed90` whether it was not. `everything` is the best overlap of a mask that
        segmenting everything found, `everything75` whether it is 0.75. Of the baselines: `flood_fill`, `box_as_mask`,
        `grabcut`.
    """
    findings = Findings(claims={"iou": Claims()}, worst={kind: Worst() for kind in asking.ask})
    curves: list[list[float]] = []
    remaining, place = iter(pictures), 0
    while few := list(islice(remaining, max(asking.batch, 1))):
        sought = [one for i, picture in enumerate(few) for one in _objects(picture, i, place + i, size, asking)]
        place += len(few)
        with torch.inference_mode():
            _ask(model, [picture.image for picture in few], sought, size, asking, findings)
        findings.rows += [Row(one.name, float(one.wanted.mean()), one.scores) for one in sought]
        curves += [one.curve for one in sought if one.curve]
    longest = max(map(len, curves), default=0)
    whole = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
    findings.curve = np.mean(whole, 0).tolist() if whole else []
    return findings


def _objects(picture: Picture, owner: int, place: int, size: Size, asking: Asking) -> list[Sought]:
    """The objects of a picture that will be asked for; `place` decides which, where there are too many."""
    seen = [i for i, mask in enumerate(picture.masks) if mask.any()]
    if asking.objects is not None and len(seen) > asking.objects:
        seen = sorted(np.random.default_rng(place).choice(seen, asking.objects, replace=False).tolist())
    (view,) = views_of([picture.image], size)
    return [Sought(f"{picture.name} #{i}", owner, view, picture.image, picture.masks[i]) for i in seen]


def _ask(
    model: Network,
    images: Sequence[np.ndarray],
    sought: Sequence[Sought],
    size: Size,
    asking: Asking,
    findings: Findings,
) -> None:
    if not sought:
        return
    features = model.encode(entered(model, images, views_of(images, size)))
    if BOX in asking.ask:
        _by_box(model, features, sought, findings)
    if CLICK in asking.ask:
        _by_clicks(model, features, sought, asking, findings)
    for owner, image in enumerate(images if asking.everything else ()):
        assert asking.everything is not None
        _find([one for one in sought if one.owner == owner], asking.everything(image))
    if asking.baselines:
        for one in sought:
            one.scores |= baselines.of_picture(one.image, one.wanted)


def _by_box(model: Network, features: Features, sought: Sequence[Sought], findings: Findings) -> None:
    prompts = [one.boxed() for one in sought]
    for one, found in zip(sought, answers(model, features, sought, prompts), strict=True):
        _compare(one, BOX, found, findings)
        findings.worst[BOX].show(one.case(one.scores[BOX], found.masks[0], box=True))
    for one, found in zip(sought, answers(model, features, sought, prompts, multimask=True), strict=True):
        _choose(one, BOX, found, findings)


def _by_clicks(
    model: Network, features: Features, sought: Sequence[Sought], asking: Asking, findings: Findings
) -> None:
    going = [one for one in sought if one.point()]
    prompts = [one.clicked(feedback=False) for one in going]
    for one, found in zip(going, answers(model, features, going, prompts, multimask=True), strict=True):
        _choose(one, f"{CLICK}1", found, findings)
    for number in range(1, asking.clicks + 1):
        prompts = [one.clicked(asking.feedback) for one in going]
        for one, found in zip(going, answers(model, features, going, prompts), strict=True):
            one.found, one.logits = found.masks[0], found.logits
            one.curve.append(_compare(one, f"{CLICK}{number}" if number in SHOWN else "", found, findings))
            if number == 1:
                findings.worst[CLICK].show(one.case(one.curve[0], one.found))
        going = [one for one in going if _goes_on(one) and number < asking.clicks and one.point()]
    for one in sought:
        _count(one, asking.clicks)


def _goes_on(one: Sought) -> bool:
    """Whether more clicks can still tell something."""
    return len(one.curve) < max(SHOWN) or max(one.curve) < max(TARGETS)


def answers(
    model: Network, features: Features, sought: Sequence[Sought], prompts: Sequence[Prompt], multimask: bool = False
) -> Iterator[Found]:
    """What the network says to a prompt for each object, all prompts of one form; masks at their picture's size."""
    if not sought:
        return
    members = [(prompt, one.view, one.owner) for prompt, one in zip(prompts, sought, strict=True)]
    answer = model.answer(features, even_batch(members, features.image.device), multimask)
    logits, claimed = answer.logits.float().cpu(), answer.iou.float().cpu().numpy()
    for i, one in enumerate(sought):
        masks = resize_to_picture(logits[i], one.view, model.mask_threshold)
        yield Found(masks.numpy(), claimed[i], logits[i])


def _compare(one: Sought, name: str, found: Found, findings: Findings) -> float:
    """Note how good the single mask of an answer is, and what the network thought."""
    overlap = jaccard(found.masks[0], one.wanted)
    findings.claims["iou"].add(found.claimed[0], overlap)
    if name:
        one.scores |= {name: overlap, f"{name}_F": boundary_f(found.masks[0], one.wanted)}
    return overlap


def _choose(one: Sought, name: str, found: Found, findings: Findings) -> None:
    """Note how good the best of several masks is, and the one that the network holds for the best."""
    overlaps = [jaccard(mask, one.wanted) for mask in found.masks]
    for claimed, overlap in zip(found.claimed, overlaps, strict=True):
        findings.claims["iou"].add(claimed, overlap)
    one.scores |= {f"{name}_best": max(overlaps), f"{name}_chosen": overlaps[int(found.claimed.argmax())]}


def _find(sought: Sequence[Sought], masks: np.ndarray) -> None:
    """Note how well the best of masks that nobody asked for fits each object of a picture."""
    for one in sought:
        best = max((jaccard(mask, one.wanted) for mask in masks), default=0.0)
        one.scores |= {"everything": best, f"everything{RECALLED * 100:.0f}": float(best >= RECALLED)}


def _count(one: Sought, most: int) -> None:
    """Note the number of clicks that each target took; an object that needs no more click keeps its last overlap."""
    for number in SHOWN:
        if len(one.curve) < number <= most:
            last = f"{CLICK}{max(n for n in SHOWN if n <= len(one.curve))}"
            one.scores |= {f"{CLICK}{number}": one.curve[-1], f"{CLICK}{number}_F": one.scores[f"{last}_F"]}
    for target in TARGETS:
        reached = [i for i, overlap in enumerate(one.curve, 1) if overlap >= target]
        one.scores[f"noc{target * 100:.0f}"] = float(reached[0] if reached else most)
        one.scores[f"failed{target * 100:.0f}"] = float(not reached)
