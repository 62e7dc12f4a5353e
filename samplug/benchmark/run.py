"""A benchmark from beginning to end: the participants, the parts one after another, the report."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug import __version__
from samplug.benchmark.context import Context, Part
from samplug.benchmark.neighbours import ForeignLoad, neighbours
from samplug.benchmark.parts import networks, process
from samplug.benchmark.report import Report
from samplug.benchmark.runners import runner_types
from samplug.benchmark.runners.base import Job, Runner
from samplug.benchmark.runners.samplug_ import Samplug
from samplug.benchmark.settings import Settings
from samplug.benchmark.timing import Progress
from samplug.benchmark.weights import random_weights
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.families.base import Row
from samplug.checkpoints.load import BUNDLED, load_model
from samplug.errors import CheckpointError
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.resources import usable_cores
from samplug.runtime.progress import duration

PART_TYPES: tuple[type[Part], ...] = (
    *(networks.Encoder, networks.Decoder, networks.Everything, networks.Video, networks.Switches),
    *(process.Memory, process.Startup),
)
PACKAGES = ("ultralytics", "sam2", "segment_anything", "transformers")  # whose versions are reported
CPUINFO = Path("/proc/cpuinfo")
QUIET_CORES = 0.1  # up to which other processes do not matter


def benchmark(settings: Settings, row: Row, weights: dict[str, Tensor] | None = None) -> Report:
    """Measure a network with these sizes and weights, None for random ones.

    What is done of a run that breaks off is in its folder.
    """
    start, load = time.monotonic(), ForeignLoad()
    job, folder = job_of(settings, row, weights), run_folder(settings) if settings.save else None
    with torch.inference_mode(), threads(settings.threads), neighbours(settings.neighbour):
        runners, absent = participants(job, settings.peers)
        context = Context(settings, job, runners, Report(about(settings, job, weights is None, absent)))
        report, types = context.report, {each.name: each for each in PART_TYPES}
        parts = [part for part in (types[name](context) for name in settings.parts) if part.weight]
        context.progress = Progress(sum(part.weight for part in parts), silent=not settings.verbose)
        context.progress.write(report.about["heading"])
        for part in parts:
            part.run()
            if folder:
                report.save(folder)
        report_load(context, load.cores())
    report.about["seconds"] = round(time.monotonic() - start, 1)
    context.progress.write(f"Done after {duration(report.about['seconds'])}.\n\n{report.table()}")
    if folder:
        report.save(folder)
        report.plot(folder / "benchmark.png")
        context.progress.write(f"Results saved to {folder}")
    return report


def report_load(context: Context, foreign: float | None) -> None:
    """Report how many cores the processes of others took, and warn where that falsifies the figures."""
    foreign = None if foreign is None else max(0.0, foreign - context.settings.neighbour)
    context.report.about["machine"]["foreign_cores"] = foreign
    if foreign is not None and foreign > QUIET_CORES:
        context.progress.write(f"Not a quiet machine: other processes took {foreign:.1f} cores meanwhile.")


def job_of(settings: Settings, row: Row, weights: dict[str, Tensor] | None) -> Job:
    """What every implementation is built for."""
    device = device_of(settings.device)
    if settings.half and device.type == "cpu":
        raise ValueError("half=True is for a GPU: a CPU is slow in fp16. bf16=True is there for CPUs too.")
    dtype = torch.float16 if settings.half else torch.bfloat16 if settings.bf16 else torch.float32
    mode = "default" if settings.compile is True else settings.compile or ""
    weights = random_weights(row) if weights is None else weights
    return Job(row, weights, settings.imgsz or row.image_size, device, dtype, mode, settings.channels_last)


def device_of(name: str) -> torch.device:
    """A device by its name: a number is a GPU, an empty name the best there is.

    Raises:
        ValueError: there is no such device.
    """
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError as error:
        raise ValueError(f"device={name} is not a device. Expected cpu, cuda, mps, or the number of a GPU.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device={name}: there are {count} CUDA devices here. Give device=cpu, or leave it out.")
    return device


def participants(job: Job, peers: tuple[str, ...]) -> tuple[dict[str, Runner], dict[str, str]]:
    """The runners, samplug first, and why others are absent."""
    wanted = {name: each for name, each in runner_types(job).items() if name in (Samplug.name, *peers)}
    missing = {name: reason for name, each in wanted.items() if (reason := each.missing(job))}
    return {name: each(job) for name, each in wanted.items() if name not in missing}, missing


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Give every implementation the same threads, and restore the setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or (before if "OMP_NUM_THREADS" in os.environ else usable_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def about(settings: Settings, job: Job, random: bool, absent: dict[str, str]) -> dict[str, Any]:
    """The circumstances that a reader of the figures has to know."""
    dtype = str(job.dtype).removeprefix("torch.")
    device = device_name(job.device)
    form = "".join(f", {name}" for name in ("compile", "channels_last") if getattr(settings, name))
    form += f", beside {settings.neighbour} busy processes" if settings.neighbour else ""
    heading = (
        f"{job.row.variant} at {job.size}, {'random weights' if random else settings.model}, {dtype}{form}, "
        f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, samplug {__version__}, "
        f"{time.strftime('%Y-%m-%d')}"
    )
    versions = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "heading": heading,
        "settings": {name: str(value) for name, value in vars(settings).items()},
        "machine": {"device": device, "system": platform.platform(), "load": [*getattr(os, "getloadavg", tuple)()]},
        "versions": versions,
        "absent": absent,
    }


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"^model name\s*: *(.+)", CPUINFO.read_text("utf-8"), re.MULTILINE) if CPUINFO.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def run_folder(settings: Settings) -> Path:
    """The folder that `project`, `name`, `exist_ok` and `save_dir` mean; without Ultralytics below runs/segment."""
    given = {name: getattr(settings, name) for name in ("project", "name", "exist_ok", "save_dir")}
    if importlib.util.find_spec("ultralytics") is not None:
        from samplug import host

        return host.run_folder(task="segment", mode="benchmark", **given)
    wanted = Path(settings.save_dir or Path(settings.project or "runs/segment", settings.name or "benchmark"))
    if settings.exist_ok or settings.save_dir:
        return wanted
    numbered = (wanted.with_name(f"{wanted.name}{n if n > 1 else ''}") for n in count(1))
    return next(path for path in numbered if not path.exists())


def of_file(settings: Settings) -> Report:
    """Measure what `settings.model` names: a file's network, or else a known one with random weights."""
    if os.path.exists(settings.model) or Path(settings.model).name == BUNDLED:
        return of_model(load_model(settings.model), settings)
    variant = settings.model.removesuffix(".pt")
    if variant not in VARIANTS:
        raise CheckpointError(f"{settings.model} is neither a file nor a network: {', '.join(VARIANTS)}.")
    return benchmark(settings, VARIANTS[variant])


def of_model(model: SAMModel | SAM2Model, settings: Settings) -> Report:
    """Measure a loaded network with its weights."""
    row = VARIANTS.get(model.variant)
    if row is None:
        raise ValueError(f"{model.variant!r} is not a known network: peers can build only {', '.join(VARIANTS)}.")
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    return benchmark(settings, replace(row, image_size=model.image_size[0]), weights)
