"""Memory and time of a step, told before they are spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from samplug.errors import OutOfMemoryError
from samplug.resources import free_memory
from samplug.train.data.batches import Batch
from samplug.train.fit.learner import Learner
from samplug.train.losses.clip_loss import ClipPlan
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.image_loss import ImagePlan, Round
from samplug.train.losses.options import LossOptions
from samplug.train.losses.step import Plan, follow
from samplug.train.settings import TrainSettings
from samplug.transforms import Size
from samplug.val.images import Network

LEARNED_BYTES = 16  # of a parameter that learns: gradient, AdamW's two means, our running mean
PIXEL_BYTES = 15  # of an image: its pixels, and as the network takes them
TRUTH_BYTES = 1.25  # of a pixel of an object: its mask, and the shares at a quarter
USED_SHARE = 0.8  # of the free memory
MOST_IMAGES = 64  # that batch=auto takes
EASIER = {  # what learns with less memory, in the order in which it is proposed
    "all": ("late", "decoder", "token"),
    "late": ("decoder", "token"),
    "memory": (),
    "decoder": ("token",),
    "token": (),
}


class SavedBytes:
    """Counts bytes that autograd keeps for backward inside a `with`, `most` at once; parameters and buffers aside.

    More than `limit` end the block with an error, before they are spent.
    """

    def __init__(self, model: nn.Module, limit: float | None = None) -> None:
        self.now = self.most = 0
        self.limit = limit
        self._own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._held: Counter[int] = Counter()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Held(tensor, self), lambda held: held.tensor
        )

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)  # type: ignore[arg-type]

    def count(self, tensor: Tensor, by: int) -> None:
        """Note that a tensor is kept once more, or once less."""
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._own:
            return
        before = self._held[place]
        self._held[place] = before + by
        if before == 0 or self._held[place] == 0:
            self.now += size * by
            self.most = max(self.most, self.now)
        if by > 0 and self.limit is not None and self.now > self.limit:
            raise OutOfMemoryError(f"More than {self.limit / 1e9:.2f} GB are kept for backward.")


class _Held:
    """A tensor that autograd keeps."""

    def __init__(self, tensor: Tensor, counted: SavedBytes) -> None:
        self.tensor, self._counted = tensor.detach(), counted
        counted.count(self.tensor, 1)

    def __del__(self) -> None:
        self._counted.count(self.tensor, -1)


@dataclass(frozen=True)
class StepCost:
    """What a step takes, in one process."""

    images: int  # of the step
    objects: int  # of an image, at most
    at_once: int  # objects that are answered at once, at most
    of_image: float  # bytes that an image keeps for backward
    of_object: float  # bytes that an object keeps for backward while it is answered
    of_input: float  # bytes of an image with its objects' masks
    fixed: int  # bytes of weights, gradients and the optimizer
    seconds: float  # that one image took

    @property
    def saved(self) -> int:
        """Bytes kept for backward."""
        return round(self.images * self.of_image + min(self.images * self.objects, self.at_once) * self.of_object)

    @property
    def bytes(self) -> int:
        """All of it."""
        return round(self.fixed + self.saved + self.images * self.of_input)

    @property
    def step_seconds(self) -> float:
        """Of a step."""
        return self.seconds * self.images

    def describe(self, learner: Learner, steps: int, free: int | None) -> str:
        """What `dry` prints, given the steps of an epoch and the bytes of memory that are free."""
        parameters = dict(learner.model.named_parameters())
        learned, total = (
            sum(parameters[name].numel() for name in names) / 1e6 for names in (learner.names, parameters)
        )
        available = "" if free is None else f"; {free / 1e9:.1f} GB are free"
        return (
            f"  learns: {learned:.2f} of {total:.2f} million parameters in {len(learner.names)} tensors\n"
            f"  memory: {self.bytes / 1e9:.2f} GB for {self.images} images a step with up to {self.objects} objects "
            f"each, {self.saved / 1e9:.2f} of them kept for backward{available}\n"
            f"  time: {self.step_seconds:.2f} s a step, {steps} steps an epoch: "
            f"{self.step_seconds * steps / 60:.1f} minutes, and measuring"
        )

    def images_in(self, free: float) -> int:
        """How many images fit into so many bytes, `MOST_IMAGES` at most; 0 for none."""
        count = 0
        while count < MOST_IMAGES and replace(self, images=count + 1).bytes <= USED_SHARE * free:
            count += 1
        return count


def step_cost(
    learner: Learner, size: Size, frames: int, objects: int, images: int, free: float | None = None
) -> StepCost:
    """Count what steps on one image keep, with one object and with several, and from that what a step takes.

    Args:
        learner: nothing of it changes.
        size: (h, w) of the network's input.
        frames: of a clip; 1 for images.
        objects: of an image, at most.
        images: of a step.
        free: bytes of memory; None for no limit.

    Raises:
        OutOfMemoryError: they do not hold one image.
    """
    parameters = list(learner.model.parameters())
    fixed = sum((4 + LEARNED_BYTES * each.requires_grad) * each.numel() for each in parameters)
    limit = None if free is None else max(USED_SHARE * free - fixed, 0)
    few, many = 1, max(2, min(objects, learner.options.chunk))
    started = time.monotonic()
    one = _kept(learner, _example(size, frames, few), limit)
    middle = time.monotonic()
    several = _kept(learner, _example(size, frames, many), limit)
    seconds = (time.monotonic() - middle) if objects > 1 else middle - started
    of_object = (several - one) / (many - few)
    pixels = frames * size[0] * size[1]
    inputs = pixels * (PIXEL_BYTES + objects * TRUTH_BYTES)
    chunk = learner.options.chunk
    return StepCost(images, objects, chunk, max(one - of_object, 0), of_object, inputs, fixed, seconds)


def _example(size: Size, frames: int, objects: int) -> Batch:
    """An image or a clip with objects, of which only the sizes count."""
    masks = torch.zeros(frames, objects, *size, dtype=torch.bool)
    masks[..., size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    images = torch.full((frames, 1, 3, *size), 127, dtype=torch.uint8)
    return Batch(images, masks, torch.zeros(objects, dtype=torch.int64))


def _kept(learner: Learner, batch: Batch, limit: float | None) -> int:
    """The most bytes that the largest step on a batch keeps for backward."""
    model, options, device = learner.model, learner.options, learner.device
    draws = ObjectDraws.of([0], batch.image_index, device)
    try:
        with learner.autocast(), _peak(model, device, limit) as peak:
            follow(largest_plan(options, len(batch.masks)), model, batch.to(device), options, draws, Tensor.backward)
    finally:
        model.zero_grad(set_to_none=True)
    return peak.most


@contextmanager
def _peak(model: nn.Module, device: torch.device, limit: float | None) -> Iterator[SavedBytes]:
    """Count bytes on the CPU; on a GPU the allocator does, which knows what is used for a moment too."""
    counted = SavedBytes(model, limit)
    if device.type != "cuda":
        with counted:
            yield counted
        return
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        yield counted
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError("A step on one image does not fit.") from error
    gradients = sum(each.nbytes for each in model.parameters() if each.requires_grad)  # they are counted as fixed
    counted.most = max(torch.cuda.max_memory_allocated(device) - before - gradients, 0)


def largest_plan(options: LossOptions, frames: int) -> Plan:
    """What takes most memory of all that is drawn in a run."""
    rounds = options.corrections * (Round(True, False),)
    if frames == 1:
        return ImagePlan({"click": True}, "click", rounds[:1])
    corrected = tuple(range(frames))[-options.corrected_frames :] if rounds else ()
    return ClipPlan("click", (0,), corrected, rounds)


def memory_of(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that is unknown."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def fitting_recipe(model: Network, settings: TrainSettings, size: Size, frames: int, objects: int, free: float) -> str:
    """The nearest settings with which a step on one image fits, in words: "give learn=decoder (0.5 GB)"."""
    for changes in _easier(settings, size):
        side = changes.get("imgsz", size)
        chosen = replace(settings, **changes)
        try:
            learner = Learner(deepcopy(model), chosen, frames > 1)
            cost = step_cost(learner, side, frames, min(objects, chosen.objects), 1, free)
        except OutOfMemoryError:
            continue
        if cost.images_in(free):
            changed = " ".join(f"{name}={value}" for name, value in changes.items() if value != getattr(settings, name))
            return f"give {changed}, which needs {cost.bytes / 1e9:.2f} GB"
    return "free memory, or take a smaller network"


def _easier(settings: TrainSettings, size: Size) -> Iterator[dict[str, Any]]:
    """Changes of settings that need less and less memory."""
    changes: dict[str, Any] = {}
    for learn in EASIER[settings.learn]:
        changes = {"learn": learn} if learn == "late" else {"learn": learn, "lora": 0}
        yield changes
    for objects in (2, 1):
        yield {**changes, "objects": min(objects, settings.objects)}
    for part in (2, 4):
        yield {**changes, "objects": 1, "imgsz": [side // part // 64 * 64 or 64 for side in size]}
