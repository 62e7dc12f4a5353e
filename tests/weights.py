"""Seeded random weights: the recipe is the benchmark's."""

from samplug.benchmark.weights import CLASSIFIER, noise, random_checkpoint, random_state, randomise

__all__ = ["CLASSIFIER", "noise", "random_checkpoint", "random_state", "randomise"]
