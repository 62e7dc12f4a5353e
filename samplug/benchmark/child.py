"""One implementation alone in a process of its own: `python -m samplug.benchmark.child JSON` says how much it held."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from samplug.benchmark.bench import kinds_of
from samplug.benchmark.runner import Grid, Job, Runner
from samplug.benchmark.scene import clicks, film, on, picture
from samplug.variants import row_of

STATUS = Path("/proc/self/status")


def main() -> None:
    """Do what is asked and print the megabytes held at most, after the network was loaded."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    weights = torch.load(asked["weights"], mmap=True, weights_only=True)
    dtype = getattr(torch, asked["dtype"])
    job = Job(row_of(asked["row"]), weights, asked["size"], torch.device(asked["device"]), dtype)
    job = replace(job, compile=asked["compile"], channels_last=asked["channels_last"])
    runner = kinds_of(job)[asked["runner"]](job)
    runner.job = replace(job, weights={})
    del weights, job
    forget_peak(runner.job.device)
    with torch.inference_mode():
        work(runner, asked["task"], asked["count"], asked["frames"])
    print(json.dumps(peak(runner.job.device)))


def work(runner: Runner, task: str, count: int, frames: int) -> None:
    """Do one thing: `decoder` with so many prompts, `everything` on such a grid, `video` with so many objects."""
    size, device = runner.job.size, runner.job.device
    if task == "video":
        for _ in runner.follow(film(size, frames).to(device), on(clicks(count, size), device)):
            pass
        return
    drawn = picture(size, size).to(device)
    if task == "everything":
        runner.everything(drawn, Grid(count, predicted_iou=0.5))
        return
    runner.encode(drawn)
    runner.answer(on(clicks(count, size), device), True)


def forget_peak(device: torch.device) -> None:
    """Begin to count anew: loading is over."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is held now


def peak(device: torch.device) -> float:
    """The most that was held, MB: of the GPU's memory where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
