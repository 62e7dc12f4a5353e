"""What a run needs before its first step: data, the network in training, the size of a batch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import cv2
import torch
from torch.utils.data import DataLoader
from ultralytics.utils.checks import check_imgsz

from samplug.data.help import SCENES
from samplug.data.open import Data
from samplug.errors import DataError, OutOfMemoryError
from samplug.host import LOGGER
from samplug.nn.sam2 import SAM2Model
from samplug.resources import usable_cores
from samplug.runtime.interrupts import SIGNALS
from samplug.train.data.batches import Batch
from samplug.train.data.drawn_batches import DrawnBatches
from samplug.train.data.feature_cache import FeatureCache
from samplug.train.data.rehearsal import RehearsalSet
from samplug.train.data.sets import TrainSets, open_sets
from samplug.train.data.user_batches import UserBatches
from samplug.train.fit.estimate import MOST_IMAGES, StepCost, fitting_recipe, memory_of, step_cost
from samplug.train.fit.folder import RunFolder
from samplug.train.fit.learner import Learner
from samplug.train.init import initial_network
from samplug.train.parallel.ranks import ONE_PROCESS, Ranks
from samplug.train.settings import TrainSettings
from samplug.transforms import Size
from samplug.val.images import Network

GPU_WORKERS = 8


@dataclass(eq=False)
class Setup:
    """What a run works with.

    Attributes:
        settings: those of the caller, with the size of the batch and the kind of feature cache that were chosen.
        size: (h, w) of the network's input.
        sets: the data set.
        batches: of learning, by their number over the whole run.
        learner: the network in training.
        cost: of a step, where it was evaluation.
    """

    settings: TrainSettings
    size: Size
    sets: TrainSets
    batches: UserBatches | DrawnBatches
    learner: Learner
    cost: StepCost | None = None

    @staticmethod
    def of(
        model: Network, settings: TrainSettings, folder: RunFolder, device: torch.device, ranks: Ranks = ONE_PROCESS
    ) -> Setup:
        """Open the data set, choose what learns and how many images fit.

        Raises:
            DataError: the data set cannot be used.
            OutOfMemoryError: not one image fits.
        """
        size = input_size(model, settings)
        tracks = isinstance(model, SAM2Model)
        sets = open_sets(settings, size, tracks, ranks)
        for line in sets.lines:
            LOGGER.info(line)
        for line in sets.warnings:
            LOGGER.warning(line)
        if settings.learn == "memory" and not tracks:
            raise DataError(f"learn=memory needs SAM 2 or 2.1, which have a memory; this is {model.variant}.")
        torch.manual_seed(settings.seed)  # what is not loaded begins at random
        network = deepcopy(model) if settings.pretrained else initial_network(model)
        learner = Learner(network.to(device), settings, len(sets.train.videos) > 0 or settings.clips > 0, ranks)
        cost, settings = _fitted(learner, model, sets, settings, size)
        if settings.dry:
            return Setup(settings, size, sets, _batches(sets, settings, size), learner, cost)
        cache = None if settings.data == SCENES else _cache(learner, sets, settings, size, folder)
        settings = replace(settings, features="off" if cache is None else cache.kind)
        batches = _batches(sets, settings, size, cache, ranks)
        learner.plan(settings, len(batches))
        return Setup(settings, size, sets, batches, learner, cost)

    def rehearse(self, anchor: Data | None) -> None:
        """Rehearse other images than those of the anchor set that are measured.

        Raises:
            DataError: it has no others.
        """
        settings, tracks = self.settings, isinstance(self.learner.model, SAM2Model)
        self.learner.rehearse(RehearsalSet.open(settings.anchor, anchor, tracks, settings.frames, self.size))

    @property
    def card(self) -> dict:
        """What a file of weights says about the data set."""
        return {"data": str(self.settings.data), "names": self.sets.classes, "counts": self.sets.counts}

    def groups(self, step: int) -> Iterator[list[Batch]]:
        """The batches from a step to the last one, as many at once as are accumulated; an epoch's last may be fewer."""
        length, epochs = len(self.batches), self.settings.epochs
        loader = iter(
            DataLoader(
                self.batches,
                batch_size=None,
                sampler=range(step, length * epochs),
                num_workers=self._workers,
                worker_init_fn=_start_worker,
            )
        )
        while step < length * epochs:
            count = min(self.settings.accumulate, length - step % length)
            yield [next(loader) for _ in range(count)]
            step += count

    @property
    def _workers(self) -> int:
        if self.settings.workers is not None:
            return self.settings.workers
        own = max(1, usable_cores() // self.learner.ranks.count)
        return min(GPU_WORKERS, own) if self.learner.device.type == "cuda" else 0


def input_size(model: Network, settings: TrainSettings) -> Size:
    """(h, w) of the network's input: its own, or `imgsz` rounded up to what the network takes."""
    if settings.imgsz is None:
        return model.image_size
    height, width = check_imgsz(settings.imgsz, stride=model.stride, min_dim=2)
    return height, width


def _batches(
    sets: TrainSets,
    settings: TrainSettings,
    size: Size,
    features: FeatureCache | None = None,
    ranks: Ranks = ONE_PROCESS,
) -> UserBatches | DrawnBatches:
    """The batches of a data set, or drawn ones."""
    if settings.data == SCENES:
        return DrawnBatches(settings, size)
    return UserBatches(sets.train, settings, size, features, ranks)


def _fitted(
    learner: Learner, model: Network, sets: TrainSets, settings: TrainSettings, size: Size
) -> tuple[StepCost, TrainSettings]:
    """What a step takes, and the settings with the number of images; refused where that does not fit.

    Raises:
        OutOfMemoryError: see there; the message names settings that would fit.
    """
    processes, auto = max(1, len(settings.devices)), settings.batch in ("auto", -1)
    free = _free(learner)
    objects = min(settings.objects, sets.most_objects or settings.objects)
    frames = settings.frames if len(sets.train.videos) else 1
    try:
        cost = step_cost(learner, size, frames, objects, 1 if auto else -(-settings.batch // processes), free)
        fitting = MOST_IMAGES if free is None else cost.images_in(free)
    except OutOfMemoryError:
        cost, fitting = None, 0
    if cost is None or fitting < 1:
        assert free is not None
        raise OutOfMemoryError(
            f"A step on one image with {objects} objects (learn={settings.learn}, imgsz={size}) needs too much of the "
            f"{free / 1e9:.2f} GB of memory that are free: "
            f"{fitting_recipe(model, settings, size, frames, objects, free)}."
        )
    if auto:
        count = len(sets.train.images) or len(sets.train.videos)
        together = int(learner.ranks.least(torch.tensor([fitting]))) * processes
        batch = max(min(together, count or together), processes)
        LOGGER.info(f"batch={batch} fits into memory.")
        return replace(cost, images=-(-batch // processes)), replace(settings, batch=batch)
    if free is not None and cost.bytes > free:
        raise OutOfMemoryError(
            f"A step on batch={settings.batch} images needs about {cost.bytes / 1e9:.2f} GB of memory, "
            f"{free / 1e9:.2f} GB are free: give batch={fitting * processes}, and accumulate= for as large a step."
        )
    return cost, settings


def _free(learner: Learner) -> int | None:
    """Bytes of memory that this process may use; several share that of the machine."""
    free = memory_of(learner.device)
    return free if free is None or learner.device.type == "cuda" else free // learner.ranks.count


def _cache(
    learner: Learner, sets: TrainSets, settings: TrainSettings, size: Size, folder: RunFolder
) -> FeatureCache | None:
    """The cache of features, which the first process chooses and fills; the others then find the files."""

    def make(kind: str) -> FeatureCache | None:
        chosen = replace(settings, features=kind)
        return FeatureCache.make(learner.model, sets.train, chosen, size, folder.path / "features")

    cache = make(settings.features) if learner.ranks.is_first else None
    kind = learner.ranks.first(lambda: "off" if cache is None else cache.kind)
    return cache if learner.ranks.is_first else make(kind)


def _start_worker(_: int) -> None:
    """OpenCV would start threads for all cores in every worker; signals are the main process's to handle."""
    cv2.setNumThreads(0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
