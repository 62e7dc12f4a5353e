"""The implementations that a benchmark compares."""

from samplug.benchmark.runners import meta, transformers_, ultralytics_
from samplug.benchmark.runners.base import Job, Runner
from samplug.benchmark.runners.samplug_ import Samplug


def runner_types(job: Job) -> dict[str, type[Runner]]:
    """Every implementation by name, samplug first."""
    types = Samplug, ultralytics_.runner_for(job), meta.SAM2, meta.VOSOptimized, meta.SegmentAnything
    return {each.name: each for each in (*types, transformers_.Transformers)}
