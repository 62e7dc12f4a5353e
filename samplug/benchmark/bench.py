"""A benchmark from beginning to end: who takes part, the parts one after another, the report."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug import __version__
from samplug.benchmark import alone, grids, huggingface, meta, pictures, stock, switched, videos
from samplug.benchmark.folder import run_folder
from samplug.benchmark.ours import Ours
from samplug.benchmark.report import Report
from samplug.benchmark.runner import Job, Runner
from samplug.benchmark.settings import Settings
from samplug.benchmark.stage import Part, Stage
from samplug.benchmark.timing import Progress, spoken
from samplug.checkpoints import BUNDLED, VARIANTS, CheckpointError, load_model
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.variants import Row

PARTS: dict[str, type[Part]] = {
    "encoder": pictures.Encoder,
    "decoder": pictures.Decoder,
    "everything": grids.Everything,
    "video": videos.Video,
    "switches": switched.Switches,
    "memory": alone.Memory,
    "startup": alone.Startup,
}


def benchmark(settings: Settings, row: Row, weights: dict[str, Tensor] | None = None) -> Report:
    """Measure a network.

    Args:
        settings: what, where, how often.
        row: the network's sizes.
        weights: its tensors; None draws random ones.
    """
    start = time.monotonic()
    job = job_of(settings, row, weights).drawn()
    with torch.inference_mode(), threads(settings.threads):
        runners, absent = cast(job, settings.peers)
        stage = Stage(settings, job, runners, Report(about(settings, job, weights is None, absent)))
        wanted = [PARTS[name](stage) for name in settings.parts if name in PARTS]
        wanted = [part for part in wanted if part.weight]
        stage.progress = Progress(sum(part.weight for part in wanted), silent=not settings.verbose)
        stage.progress.say(stage.report.about["heading"])
        for part in wanted:
            part.run()
    stage.report.about["seconds"] = round(time.monotonic() - start, 1)
    stage.progress.say(f"Done after {spoken(stage.report.about['seconds'])}.\n\n{stage.report.table()}")
    if settings.save:
        folder = run_folder(settings)
        stage.report.save(folder)
        stage.progress.say(f"Results saved to {folder}")
    return stage.report


def job_of(settings: Settings, row: Row, weights: dict[str, Tensor] | None) -> Job:
    """What every implementation is built for."""
    device = device_of(settings.device)
    if settings.half and device.type == "cpu":
        raise ValueError("half=True is for a GPU: a CPU is slow in fp16. bf16=True is there for CPUs too.")
    dtype = torch.float16 if settings.half else torch.bfloat16 if settings.bf16 else torch.float32
    mode = "default" if settings.compile is True else settings.compile or ""
    return Job(row, weights, settings.imgsz or row.image_size, device, dtype, mode, settings.channels_last)


def device_of(name: str) -> torch.device:
    """A device from how people call it: a number is a GPU, nothing is the best there is."""
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(f"cuda:{name}" if name.isdigit() else name)


def cast(job: Job, peers: tuple[str, ...]) -> tuple[dict[str, Runner], dict[str, str]]:
    """Those that take part, samplug first, and why others do not."""
    kinds = kinds_of(job)
    runners: dict[str, Runner] = {Ours.name: Ours(job)}
    absent: dict[str, str] = {}
    for name in (name for name in kinds if name in peers):
        reason = kinds[name].lacks(job)
        if reason:
            absent[name] = reason
        else:
            runners[name] = kinds[name](job)
    return runners, absent


def kinds_of(job: Job) -> dict[str, type[Runner]]:
    """Everybody there is, by name."""
    return {
        Ours.name: Ours,
        "ultralytics": stock.runner_of(job),
        "sam2": meta.SAM2,
        "vos_optimized": meta.VOSOptimized,
        "segment-anything": meta.SegmentAnything,
        "transformers": huggingface.Transformers,
    }


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Give everybody the same threads, and the setting back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or (before if "OMP_NUM_THREADS" in os.environ else usable_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def about(settings: Settings, job: Job, random: bool, absent: dict[str, str]) -> dict[str, Any]:
    """What a reader of the figures has to know."""
    dtype = str(job.dtype).removeprefix("torch.")
    where = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else cpu_name()
    form = "".join(f", {name}" for name in ("compile", "channels_last") if getattr(settings, name))
    heading = (
        f"{job.row.variant} at {job.size}, {'random weights' if random else settings.model}, {dtype}{form}, "
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, samplug {__version__}, "
        f"{time.strftime('%Y-%m-%d')}"
    )
    versions = {name: version_of(name) for name in ("ultralytics", "sam2", "segment_anything", "transformers")}
    return {
        "heading": heading,
        "settings": {name: str(value) for name, value in vars(settings).items()},
        "machine": {"device": where, "system": platform.platform(), "load": list(os.getloadavg())},
        "versions": {name: version for name, version in versions.items() if version},
        "absent": absent,
    }


def version_of(name: str) -> str | None:
    """Which version of a distribution is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """What the processor calls itself."""
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def of_file(settings: Settings) -> Report:
    """Measure what `settings.model` names: a file's network, or else a known one with random weights."""
    if Path(settings.model).exists() or Path(settings.model).name == BUNDLED:
        return of_model(load_model(settings.model), settings)
    variant = settings.model.removesuffix(".pt")
    if variant not in VARIANTS:
        raise CheckpointError(f"{settings.model} is neither a file nor a network: {', '.join(VARIANTS)}.")
    return benchmark(settings, VARIANTS[variant])


def of_model(model: SAMModel | SAM2Model, settings: Settings) -> Report:
    """Measure a network that is loaded, by its weights."""
    row = VARIANTS.get(model.variant)
    if row is None:
        raise ValueError(f"{model.variant!r} is in no table: only {', '.join(VARIANTS)} can be built in other hands.")
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    return benchmark(settings, replace(row, image_size=model.image_size[0]), weights)
