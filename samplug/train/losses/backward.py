"""How the losses of a step reach the weights: one answer after the other, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Answer, Features, PromptBatch
from samplug.train.data.batches import Batch
from samplug.transforms import normalise

Network = SAMModel | SAM2Model
Backward = Callable[[Tensor], None]
Watch = Callable[[PromptBatch, Answer], None]


@dataclass(eq=False)
class LossSum:
    """Sums the losses of a step by name, and sends each backward.

    Attributes:
        backward: takes a scalar.
        together: collect the losses until `flush`.
        scale: factor of every loss.
        watch: called with prompts and their answer, to show them.
        values: the sums so far, without gradient.
        counts: how many values each mean in `values` has, by its name; the others are sums.
        pending: what was collected.
    """

    backward: Backward
    together: bool = False
    scale: float = 1.0
    watch: Watch | None = None
    values: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    pending: list[Tensor] = field(default_factory=list)

    def show(self, prompts: PromptBatch, answer: Answer) -> None:
        """Show prompts and their answer to whoever watches."""
        if self.watch is not None:
            self.watch(prompts, answer)

    def add(self, kind: str, losses: dict[str, Tensor]) -> None:
        """Add the parts of the loss of an answer of some kind; "mask" is the name of a part already."""
        kind = "coarse" if kind == "mask" else kind
        loss = torch.stack(list(losses.values())).sum() * self.scale
        parts = {f"{name}_loss": part.detach() * self.scale for name, part in losses.items()}
        for name, value in {**parts, f"{kind}_loss": loss.detach(), "loss": loss.detach()}.items():
            self.values[name] = self.values[name] + value if name in self.values else value
        self.pending.append(loss)
        if not self.together:
            self.flush()

    def add_ious(self, kind: str, ious: Tensor) -> None:
        """Add IoUs (n,) to the mean of a kind."""
        name = f"{kind}_iou"
        self.values[name] = self.values.get(name, 0) + ious.detach().sum()
        self.counts[name] = self.counts.get(name, 0) + len(ious)

    def merge(self, other: LossSum) -> None:
        """Add the sums of another batch, or of another part of the same one."""
        for name, value in other.values.items():
            self.values[name] = self.values.get(name, 0) + value
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def flush(self) -> None:
        """Send what was collected backward."""
        if self.pending:
            self.backward(torch.stack(self.pending).sum())
            self.pending.clear()

    def means(self) -> dict[str, float]:
        """The sums of losses and the means of IoUs as numbers; a mean of nothing is left out."""
        return {
            name: value.item() / self.counts.get(name, 1)
            for name, value in self.values.items()
            if self.counts.get(name, 1)
        }


@contextmanager
def encoded(model: Network, batch: Batch) -> Iterator[Features]:
    """Features of all frames of a batch (T * F, C, h, w), before any memory; their gradients are sent on at the end.

    Losses are computed on detached features, which sum up their gradients, and the encoder is passed once, whatever
    the number of losses. Where nothing in the encoder learns it keeps nothing for a backward pass.
    """
    features = batch.features
    if features is None:
        images = normalise(batch.images.flatten(0, 1))
        with nullcontext() if encoder_learns(model) else torch.no_grad():
            features = model.encode_image(images) if isinstance(model, SAM2Model) else model.encode(images)
    maps = [features.image, *features.fine]
    leaves = [each.detach().requires_grad_(each.requires_grad) for each in maps]
    yield Features(leaves[0], tuple(leaves[1:]))
    pairs = [(each, leaf.grad) for each, leaf in zip(maps, leaves, strict=True) if leaf.grad is not None]
    if pairs:
        torch.autograd.backward([each for each, _ in pairs], [gradient for _, gradient in pairs])


def encoder_learns(model: Network) -> bool:
    """Whether anything learns that features depend on."""
    parts: list[nn.Module] = [model.image_encoder]
    if isinstance(model, SAM2Model) and model.use_high_res_features_in_sam:
        parts += [model.sam_mask_decoder.conv_s0, model.sam_mask_decoder.conv_s1]
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def chunks(count: int, size: int) -> Iterator[slice]:
    """The rows of each chunk of `count` objects."""
    return (slice(start, start + size) for start in range(0, count, size))
