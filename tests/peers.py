"""The implementations that the benchmark measures, each from a file of weights: those of a square picture.

`peer.encode(pixels)` takes (1, 3, S, S) RGB in 0-255. `peer.answer(prompts, multimask)` takes a PromptBatch and gives
logits (N, M, S/4, S/4), predicted IoUs (N, M) and presences (N, 1), which are None where there are none.
"""

import importlib
import os

import pytest
import torch

from samplug.benchmark import meta, ours, stock
from samplug.benchmark.runner import Job
from samplug.checkpoints import load_model
from samplug.variants import VARIANTS


def peer_package(name: str):
    """A peer, or a skip where it is absent; with SAMPLUG_PEERS=1 its absence is a failure."""
    return importlib.import_module(name) if os.environ.get("SAMPLUG_PEERS") == "1" else pytest.importorskip(name)


class FromFile:
    """Built from a file that is named after its network."""

    package = "ultralytics"

    def __init__(self, path, size):
        peer_package(self.package)
        weights = dict(load_model(path).state_dict())
        super().__init__(Job(VARIANTS[path.stem], weights, size, torch.device("cpu")))


class Ours(FromFile, ours.Ours):
    pass


class UltralyticsSAM(FromFile, stock.UltralyticsSAM):
    pass


class UltralyticsSAM2(FromFile, stock.UltralyticsSAM2):
    pass


class MetaSAM(FromFile, meta.SegmentAnything):
    package = "segment_anything"


class MetaSAM2(FromFile, meta.SAM2):
    package = "sam2"
