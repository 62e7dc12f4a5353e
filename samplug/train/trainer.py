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

from .batches import Batch
from .following import Chances, Following
from .losses import Probe
from .pictures import Asking
from .settings import Settings

TRUNK = "image_encoder.trunk"
PRESENCE = "sam_mask_decoder.pred_obj_score_head."
FOR_PICTURES = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")


class Diverged(RuntimeError):
    """The loss is no number any more; the last checkpoint is from before."""


@dataclass(frozen=True)
class Figures:
    """What one step says about itself; None for what a step of its kind does not have.

    Attributes:
        step: Its number, from 1.
        rate: Learning rate of the decoder.
        loss: All that is minimised.
        click_loss: Of the answers to clicks.
        box_loss: Of those to boxes.
        probe_loss: Of the probe.
        click_iou: Mean IoU of the best mask after one click.
        box_iou: The same for a box.
        clip_loss: Of the answers on the frames of clips.
        clip_iou: Mean IoU on the frames behind the first, where the object is visible.
    """

    step: int
    rate: float
    loss: float
    click_loss: float | None = None
    box_loss: float | None = None
    probe_loss: float | None = None
    click_iou: float | None = None
    box_iou: float | None = None
    clip_loss: float | None = None
    clip_iou: float | None = None


class Trainer:
    """A network in training."""

    def __init__(self, model: SAM2Model, settings: Settings, device: torch.device | str = "cpu"):
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.step = settings, torch.device(device), 0
        self.model = model.to(device).train()
        self.probe = Probe(model.hidden_dim).to(device)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_learns(name, settings))
        groups = _groups(self.model, self.probe, settings)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.mean = {name: tensor.detach().clone() for name, tensor in self._learned()}
        self.past: list[dict[str, Any]] = []

    def advance(self, batch: Batch) -> Figures:
        """Take one step with a drawn batch.

        Raises:
            Diverged: If the loss is not finite. Nothing has changed then.
        """
        settings, rng = self.settings, np.random.default_rng([self.settings.seed, self.step, 1])
        torch.manual_seed(int(rng.integers(2**62)))  # of the dropout in memory attention
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        rate = _rate(self.step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_rate"] * rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            losses, figures = self._losses(batch.to(self.device).viewed(generator), rng, generator)
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
        parts = {f"{name}_loss": value for name, value in losses.items()} | figures
        told = {name: value.item() for name, value in parts.items() if name in Figures.__dataclass_fields__}
        return Figures(step=self.step, rate=settings.rate * rate, loss=loss.item(), **told)

    def _losses(
        self, batch: Batch, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All parts of the loss, weighted, and the overlaps that the curves show."""
        settings = self.settings
        if len(batch.images) == 1:
            asking = Asking(self.model, self.probe, settings, generator, every_mask=self.step < settings.every_mask)
            asking.ask(batch, rng)
            return asking.losses, {f"{kind}_iou": overlaps.mean() for kind, overlaps in asking.overlaps.items()}
        given = settings.given * (1 - self.step / settings.steps)
        following = Following(self.model, settings, Chances.draw(rng, settings, len(batch.images), given), generator)
        following.walk(batch)
        return {"clip": torch.stack(following.losses).mean()}, {"clip_iou": torch.cat(following.overlaps).mean()}

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
        self.past = state.get("legs") or state.get("card", {}).get("legs", [])
        followed = any(leg["settings"].get("clips") for leg in self.past)
        learned = {
            name: tensor.float() for name, tensor in weights.items() if followed or name.startswith(FOR_PICTURES)
        }
        self.model.load_state_dict(self.model.state_dict() | learned)  # a memory that never learned starts as drawn
        if "probe" in state:
            self.probe.load_state_dict(state["probe"])
        self.mean = {name: tensor.detach().clone() for name, tensor in self._learned()}


def _learns(name: str, settings: Settings) -> bool:
    """Without clips the memory's networks wait; at rate 0 the encoder's trunk stays as it is."""
    if name.startswith(TRUNK) and not settings.trunk_rate:
        return False
    if settings.learn == "memory":
        return name.startswith(PRESENCE) or not name.startswith(FOR_PICTURES)
    return settings.clips > 0 or name.startswith(FOR_PICTURES)


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
            rate = settings.trunk_rate if name.startswith(TRUNK) else settings.rate
            owner = name.rpartition(".")[0].rpartition(".")[2]
            kept = parameter.ndim < 2 or not owner or "embed" in name or "token" in owner
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
