"""The training loop: one step, the running mean of the weights, and going on after an interruption.

Whatever a step draws comes from the seed and the step's number, so a run that was killed and taken up again is the run
that was not.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samplug.files import write_aside
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, Features, PromptBatch

from . import clicks
from .batches import MASK_STRIDE, Batch
from .losses import Probe, answer_loss, mask_loss, overlap, tame
from .settings import Settings

TAME_WEIGHT = 0.1
LEARNED = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")  # the memory's parts wait
CLICK, BOX = "click", "box"


class Diverged(RuntimeError):
    """The loss is no number any more; the last checkpoint is from before."""


@dataclass(frozen=True)
class Figures:
    """What one step says about itself: losses, and the overlap of the first mask by kind of prompt."""

    step: int
    loss: float
    click_loss: float
    box_loss: float
    probe_loss: float
    click_iou: float
    box_iou: float
    rate: float


class Trainer:
    """A network in training."""

    def __init__(self, model: SAM2Model, settings: Settings, device: torch.device | str = "cpu"):
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.step = settings, torch.device(device), 0
        self.model = model.to(device).train()
        self.probe = Probe(model.hidden_dim).to(device)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(LEARNED))
        groups = _groups(self.model, self.probe, settings)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.mean = {name: tensor.detach().clone() for name, tensor in self._learned()}
        self.past: list[dict[str, Any]] = []

    def advance(self, batch: Batch) -> Figures:
        """Take one step with its batch.

        Raises:
            Diverged: If the loss is not finite. Nothing has changed then.
        """
        settings, rng = self.settings, np.random.default_rng([self.settings.seed, self.step, 1])
        rate = _rate(self.step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_rate"] * rate
        losses, overlaps = self._losses(batch.to(self.device), rng)
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise Diverged(
                f"The loss of step {self.step + 1} is {loss.item()}. Take up the last checkpoint with a smaller --rate."
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimizer.step()
        self.step += 1
        self._average()
        return Figures(
            step=self.step,
            loss=loss.item(),
            click_loss=losses[CLICK].item(),
            box_loss=losses[BOX].item(),
            probe_loss=losses["probe"].item(),
            click_iou=overlaps[CLICK],
            box_iou=overlaps[BOX],
            rate=settings.rate * rate,
        )

    def _losses(self, batch: Batch, rng: np.random.Generator) -> tuple[dict[str, Tensor], dict[str, float]]:
        """All parts of the loss, weighted, and the overlaps of the first masks."""
        settings, model = self.settings, self.model
        features = model.encode(normalised(model, batch.images))
        losses, overlaps = {"tame": TAME_WEIGHT * tame(features)}, {}
        corrected = rng.choice([CLICK, BOX]) if rng.random() < settings.corrections else ""
        for kind in (CLICK, BOX):
            prompts, several = first_prompts(batch, kind), bool(rng.random() < 0.6)
            answer = model.answer(features, prompts, multimask=several)
            losses[kind] = self._loss(answer, batch, ambiguous=kind == CLICK)
            overlaps[kind] = overlap(answer.logits, batch.targets).amax(1).mean().item()
            if kind == corrected:
                again = corrected_prompts(prompts, best_mask(answer.logits, answer.iou), batch, rng)
                losses["correction"] = self._loss(model.answer(features, again), batch, ambiguous=False)
        losses["probe"] = self._probe_loss(features, batch)
        return losses, overlaps

    def _loss(self, answer: Answer, batch: Batch, ambiguous: bool) -> Tensor:
        """Only a single click has several readings, for which the masks of an answer may differ."""
        every = self.step < self.settings.every_mask or not ambiguous
        return answer_loss(answer, batch.targets, balance=self.settings.balance, every_mask=every)

    def _probe_loss(self, features: Features, batch: Batch) -> Tensor:
        logits = self.probe(self.model.sam_mask_decoder, features, batch.owner, batch.points[:, 0])
        return self.settings.probe * mask_loss(logits[:, None], batch.targets, self.settings.balance).mean()

    def _learned(self) -> list[tuple[str, Tensor]]:
        return [(name, tensor) for name, tensor in self.model.named_parameters() if tensor.requires_grad]

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        now = [tensor for _, tensor in self._learned()]
        torch._foreach_lerp_(list(self.mean.values()), now, 1 - decay)

    @torch.no_grad()
    def averaged(self) -> dict[str, Tensor]:
        """The network's state with the running mean in place of the weights learned: what is evaluated and kept."""
        return {name: self.mean.get(name, tensor).clone() for name, tensor in self.model.state_dict().items()}

    @property
    def legs(self) -> list[dict[str, Any]]:
        """The settings and steps of every leg these weights have been through, this one last."""
        return [*self.past, {"steps": self.step, "settings": asdict(self.settings)}]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that is needed to go on; the file is replaced in one step, so a kill leaves the old or the new."""
        state = {
            "ema": self.averaged(),
            "model": self.model.state_dict(),
            "probe": self.probe.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "legs": self.legs,
            "settings": asdict(self.settings),
            "step": self.step,
        }
        with write_aside(path) as aside:
            torch.save(state, aside)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on where a checkpoint of the same settings stands.

        Raises:
            ValueError: If its settings are others.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise ValueError(
                f"{path} was made with other settings: {_differences(state['settings'], self.settings)}. "
                "Give the same, or begin a new leg from its weights with --init."
            )
        self.model.load_state_dict(state["model"])
        self.probe.load_state_dict(state["probe"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mean = {name: state["ema"][name].clone() for name in self.mean}
        self.step, self.past = state["step"], state["legs"][:-1]

    def begin_from(self, path: str | os.PathLike[str]) -> None:
        """Take the weights of another leg, or of a shipped file, and start counting anew."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        weights = state.get("ema", state["model"])
        self.model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        if "probe" in state:
            self.probe.load_state_dict(state["probe"])
        self.past = state.get("legs") or state.get("card", {}).get("legs", [])
        self.mean = {name: tensor.detach().clone() for name, tensor in self._learned()}


def normalised(model: SAM2Model, images: Tensor) -> Tensor:
    """Pictures (F, 3, H, W), 0 to 255, as the network wants them."""
    mean, deviation = model.get_buffer("pixel_mean"), model.get_buffer("pixel_std")
    return (images.float() - mean) / deviation


def first_prompts(batch: Batch, kind: str) -> PromptBatch:
    """The batch's clicks or its boxes."""
    if kind == BOX:
        return PromptBatch(batch.owner, boxes=batch.boxes)
    labels = torch.ones(batch.points.shape[:2], dtype=torch.int64, device=batch.points.device)
    return PromptBatch(batch.owner, points=batch.points, labels=labels)


def best_mask(logits: Tensor, iou: Tensor) -> Tensor:
    """The mask with the highest predicted overlap: (N, M, h, w), (N, M) -> (N, h, w), without gradient."""
    return logits.detach()[torch.arange(len(logits), device=logits.device), iou.argmax(1)]


def corrected_prompts(
    prompts: PromptBatch, logits: Tensor, batch: Batch, rng: np.random.Generator | None = None
) -> PromptBatch:
    """The prompts with one more click each, on an error of the masks (N, h, w), which go along as prompts.

    A mask without an error gets another click on the object.
    """
    found, wanted = (logits > 0).cpu().numpy(), (batch.targets > 0.5).cpu().numpy()
    again, labels = batch.points[:, 0].clone(), torch.ones_like(prompts.owner)
    for number, (mask, truth) in enumerate(zip(found, wanted, strict=True)):
        if click := clicks.correction(mask, truth, rng):
            again[number] = torch.from_numpy((click[0] + 0.5) * MASK_STRIDE - 0.5)
            labels[number] = click[1]
    points, labels = again[:, None], labels[:, None]
    if prompts.points is not None and prompts.labels is not None:
        points, labels = torch.cat([prompts.points, points], 1), torch.cat([prompts.labels, labels], 1)
    return PromptBatch(prompts.owner, points=points, labels=labels, boxes=prompts.boxes, masks=logits[:, None])


def _rate(step: int, settings: Settings) -> float:
    """The learning rates' factor at a step: a rise, a plain, a cosine down to a twentieth."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    begin = settings.steps * (1 - settings.cooldown)
    if step < begin:
        return rise
    done = min(1.0, (step - begin) / max(settings.steps - begin, 1))
    return rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def _groups(model: SAM2Model, probe: Probe, settings: Settings) -> list[dict]:
    """Parameters by learning rate and weight decay; norms, biases and embeddings do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in [*model.named_parameters(), *probe.named_parameters("probe")]:
        if parameter.requires_grad:
            rate = settings.trunk_rate if name.startswith("image_encoder.trunk") else settings.rate
            kept = parameter.ndim < 2 or "embed" in name or "token" in name.rsplit(".", 2)[-2]
            groups.setdefault((rate, 0.0 if kept else settings.decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "full_rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _differences(old: dict, settings: Settings) -> str:
    new = asdict(settings)
    return ", ".join(
        f"{name} {old.get(name)} there, {value} here" for name, value in new.items() if old.get(name) != value
    )
