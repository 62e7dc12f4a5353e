"""One step of training, the running mean of what learns, and their state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from samplug.errors import DivergedError
from samplug.nn.sam2 import SAM2Model
from samplug.train.data.batches import Batch
from samplug.train.data.rehearsal import RehearsalSet
from samplug.train.fit.state import RunState
from samplug.train.learn import parameter_groups, select_learning, set_training_modes
from samplug.train.losses.backward import LossSum, encoder_learns
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.options import LossOptions
from samplug.train.losses.probe import Probe
from samplug.train.losses.rehearsal import Rehearsal
from samplug.train.losses.step import draw_plan, follow
from samplug.train.parallel.ranks import ONE_PROCESS, Ranks
from samplug.train.settings import TrainSettings
from samplug.val.images import Network

Watch = Callable[..., None]
MOST_WARMUP = 0.2  # of all steps
MEAN_HORIZON = 0.2  # of all steps that the running mean looks back over, at most
PLAN, PLACES = 1, 2  # in the seeds of a batch: what is done, and where


class Learner:
    """A network in training.

    Args:
        model: changed in place.
        settings: of the run.
        clips: whether clips are learned from.
        ranks: the processes that learn together, each from its part of every batch.

    Attributes:
        names: of the parameters that learn.
        updates: steps of the optimizer in the whole run.
        warmup: those over which rates rise.
        batches: of the whole run.
        mean: the running mean of what learns.
        rehearsal: of what is to be kept, beside every step.
        start: what learns as it was before training, for that.
    """

    def __init__(self, model: Network, settings: TrainSettings, clips: bool, ranks: Ranks = ONE_PROCESS) -> None:
        self.model, self.settings, self.ranks = model, settings, ranks
        self.updates, self.updates_per_epoch, self.warmup, self.batches = 1, 1, 0, 1
        self.names = select_learning(model, settings.learn, settings.freeze, settings.lora, clips)
        self.options = LossOptions.of(model, settings)
        if isinstance(model, SAM2Model) and self.options.every_prompt and encoder_learns(model):
            self.options = replace(self.options, probe=Probe(model.hidden_dim).to(model.device))
            model.add_module("probe", self.options.probe)  # so that it learns and is saved like the rest
        self.optimizer = torch.optim.AdamW(parameter_groups(model, settings), lr=1.0)
        self.full_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.mean = {name: parameter.detach().clone() for name, parameter in self._learning()}
        self.rehearsal: Rehearsal | None = None
        self.start: dict[str, Tensor] = {}

    def rehearse(self, data: RehearsalSet) -> None:
        """Keep the answers that the network gives now to other images, from the next step on."""
        settings = self.settings
        self.rehearsal = Rehearsal.of(data, self.options, settings.keep, int(settings.batch) * settings.accumulate)
        self.start = {name: tensor.clone() for name, tensor in self.mean.items()}

    def plan(self, settings: TrainSettings, batches: int) -> None:
        """Set how rates rise and fall, given the settings and the number of batches in an epoch."""
        self.settings, self.batches = settings, settings.epochs * batches
        self.updates_per_epoch = -(-batches // settings.accumulate)
        self.updates = settings.epochs * self.updates_per_epoch
        self.warmup = round(settings.warmup_epochs * self.updates_per_epoch)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def rate(self) -> float:
        """The largest learning rate now."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def step(self, batches: Sequence[Batch], number: int, update: int, watch: Watch | None = None) -> dict[str, float]:
        """Learn from batches, whose gradients are added up.

        Args:
            batches: one, or as many as are accumulated.
            number: of the first, counted over the whole run.
            update: of this step of the optimizer.
            watch: called with the prompts and the answer of every prompt step of the first batch.

        Returns:
            The mean of each loss.

        Raises:
            DivergedError: a loss or the gradient is not finite; nothing has changed then.
        """
        how = self.settings
        factor = rate_factor(update, self.updates, self.warmup, how.lrf, how.cos_lr, how.cooldown)
        for group, rate in zip(self.optimizer.param_groups, self.full_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad()
        losses = self.accumulate(batches, number, watch)
        parameters = [parameter for _, parameter in self._learning()]
        self.ranks.add_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_norm)
        if not torch.isfinite(norm) or not all(map(np.isfinite, losses.values())):
            self.optimizer.zero_grad()
            raise DivergedError(f"The loss or its gradient in step {number + 1} is not finite ({losses})")
        self.optimizer.step()
        self._average(update + 1)
        return losses

    def accumulate(self, batches: Sequence[Batch], number: int, watch: Watch | None = None) -> dict[str, float]:
        """Add up the gradients of batches."""
        (count,) = self.ranks.sums([sum(len(batch.image_index) for batch in batches)])
        total = LossSum(Tensor.backward)
        for i, batch in enumerate(batches):
            total.merge(self._learn_from(batch, number + i, count, None if i else watch))
        if self.rehearsal is not None:
            total.values["keep_loss"] = self._rehearse(self.rehearsal, number)
        return self._means(total)

    def _rehearse(self, rehearsal: Rehearsal, number: int) -> Tensor:
        """Add the gradients of rehearsal beside a batch of this number; returns how much answers differ."""
        places = range(self.ranks.rank, rehearsal.count, self.ranks.count)
        found = torch.zeros((), device=self.device)
        for place in places:
            with self.autocast():
                item = number * rehearsal.count + place
                found += rehearsal.run(self.model, [self.settings.seed], item, partial(self._holding, self.start))
        return found

    def _learn_from(self, batch: Batch, number: int, count: float, watch: Watch | None) -> LossSum:
        """Add the gradients of one batch, given its number and how many objects losses are divided by."""
        seed, ranks = [self.settings.seed, number], self.ranks
        rng = np.random.default_rng([*seed, PLAN])
        torch.manual_seed(int(rng.integers(2**62)) + ranks.rank)  # for dropout in memory attention
        draws = ObjectDraws.of([*seed, PLACES], batch.image_index, self.device, ranks.rank, ranks.count)
        options = self.options.in_step(number, self.batches, in_clip=len(batch.images) > 1)
        with self.autocast():
            plan = draw_plan(self.model, batch, options, rng, ranks.least)
            return follow(plan, self.model, batch.to(self.device), options, draws, Tensor.backward, count, watch)

    def _means(self, losses: LossSum) -> dict[str, float]:
        """Sums of losses and means of IoUs over all processes."""
        names = list(losses.values)
        found = self.ranks.sums([*(float(losses.values[name]) for name in names), *losses.counts.values()])
        counts = dict(zip(losses.counts, found[len(names) :], strict=True))
        return {
            name: value / counts.get(name, 1) for name, value in zip(names, found, strict=False) if counts.get(name, 1)
        }

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 where it is wanted."""
        wanted = self.settings.amp == "bf16" or self.settings.amp is True and _has_bf16(self.device)
        return torch.autocast(self.device.type, torch.bfloat16) if wanted else nullcontext()

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """The network in eval mode with the running mean in place of the trained weights, inside the `with`."""
        with self._holding(self.mean):
            self.model.eval()
            try:
                yield self.model
            finally:
                set_training_modes(self.model)

    def state(self) -> dict[str, dict]:
        """What `RunState` holds of it."""
        weights, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return {"weights": weights, "mean": self.mean, "start": self.start, "optimizer": optimizer}

    def restore(self, state: RunState) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state.weights)
        self.optimizer.load_state_dict(state.optimizer)
        self.mean = {name: tensor.to(self.device) for name, tensor in state.mean.items()}
        self.start = {name: tensor.to(self.device) for name, tensor in state.start.items()}

    def _learning(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    @torch.no_grad()
    def _average(self, update: int) -> None:
        decay = mean_decay(update, self.updates, self.settings.ema)
        current = [parameter.detach() for _, parameter in self._learning()]
        get_ema_multi_avg_fn(decay)(list(self.mean.values()), current, update)

    @contextmanager
    def _holding(self, tensors: dict[str, Tensor]) -> Iterator[None]:
        """Give what learns other values inside the `with`."""
        self._swap(tensors)
        try:
            yield
        finally:
            self._swap(tensors)

    @torch.no_grad()
    def _swap(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._learning():
            trained = parameter.detach().clone()
            parameter.copy_(tensors[name])
            tensors[name].copy_(trained)


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def rate_factor(step: int, steps: int, warmup: int, last: float, cosine: bool = True, cooldown: float = 1.0) -> float:
    """The share of the full learning rate at a step of so many: a linear rise, then a fall to `last`.

    It begins after the rise, or with the last `cooldown` of the steps.
    """
    warmup = min(warmup, int(MOST_WARMUP * steps))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = max(warmup, steps * (1 - cooldown))
    done = min(1.0, max(step - start, 0) / max(steps - start, 1))
    return last + (1 - last) * (0.5 * (1 + math.cos(math.pi * done)) if cosine else 1 - done)


def mean_decay(step: int, steps: int, most: float) -> float:
    """The decay of the running mean after a step: it rises, and in a short run looks back over fewer steps."""
    horizon = max(MEAN_HORIZON * steps, 1.0)
    return min(most, 1 - 1 / horizon, (1 + step) / (10 + step))
