"""What needs a process of its own: peak memory, and how long it takes to start.

As a program, it runs one implementation and prints its peak memory.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from samplug.benchmark.context import OBJECT_COST, PROMPT_COST, Part, plural
from samplug.benchmark.report import SAMPLUG
from samplug.benchmark.runners import runner_types
from samplug.benchmark.runners.base import Runner, generate_options
from samplug.benchmark.scene import draw_clicks, draw_image, draw_video

STATUS = Path("/proc/self/status")
PROCESS_TIMEOUT = 3600.0  # seconds
START_COST = 0.1  # in runs of an encoder
SAMPLUG_COMMAND = "import sys; sys.argv = ['samplug', {}]; from samplug.cli.main import main; main()"
YOLO_COMMAND = "import sys; sys.argv = ['yolo', {}]; from ultralytics.cfg import entrypoint; entrypoint()"
WRONG = "'predict', 'wrong=1'"
STARTS: dict[str, dict[str, str]] = {  # by case and package, as a line of Python
    "import": {
        "samplug": "import samplug",
        "ultralytics": "import ultralytics",
        "sam2": "import sam2",
        "segment-anything": "import segment_anything",
        "transformers": "import transformers",
    },
    "import the model": {
        "samplug": "from samplug import SAM",
        "ultralytics": "from ultralytics import SAM",
        "sam2": "from sam2.sam2_image_predictor import SAM2ImagePredictor",
        "transformers": "from transformers import Sam2Model",
    },
    "help": {"samplug": SAMPLUG_COMMAND.format("'help'"), "ultralytics": YOLO_COMMAND.format("'help'")},
    "wrong argument": {"samplug": SAMPLUG_COMMAND.format(WRONG), "ultralytics": YOLO_COMMAND.format(WRONG)},
}


class Memory(Part):
    """Peak memory of every runner in a process of its own, in those parts that are asked for too."""

    name = "memory"

    @property
    def tasks(self) -> list[tuple[str, str, int, float]]:
        """(case, task, count, cost in runs of an encoder)."""
        job, settings = self.context.job, self.context.settings
        objects = (max if job.device.type == "cuda" else min)(settings.objects)  # a CPU takes minutes
        side, prompts = settings.points_stride, max(settings.prompts)
        video = settings.frames * (1 + OBJECT_COST * objects)
        tasks = [
            (f"{prompts} prompts", "decoder", prompts, 2 + PROMPT_COST * prompts),
            (f"everything, {side}x{side}", "everything", side, 2 + PROMPT_COST * side**2),
            (f"video, {plural(objects, 'object')}", "video", objects, video),
        ]
        tasks = tasks if job.has_memory else tasks[:2]
        return [task for task in tasks if task[1] in settings.parts] or tasks

    @property
    def weight(self) -> float:
        """An encoder, and the work, of each process."""
        return len(self.runners) * sum(cost for *_, cost in self.tasks)

    def run(self) -> None:
        """Measure all runners."""
        with tempfile.TemporaryDirectory() as folder:
            job = Path(folder) / "job.pt"
            torch.save(self.context.job, job)
            for case, task, count, cost in self.tasks:
                peaks = {}
                for name in (name for name, runner in self.runners.items() if task not in runner.skips):
                    arguments = job, name, task, count, self.context.settings.frames, torch.get_num_threads()
                    printed = output_of("-m", "samplug.benchmark.parts.process", *map(str, arguments))
                    peaks[name] = [float(printed.splitlines()[-1])]
                    self.context.progress.tick(f"memory, {case}, {name}", cost)
                self.record(case, peaks, unit="MB")


class Startup(Part):
    """From the start of a process to its end, where nothing else is done."""

    name = "startup"

    @property
    def cases(self) -> dict[str, dict[str, str]]:
        """The starts of what is installed and asked for."""
        names = {SAMPLUG, *(name for name in self.context.settings.peers if name != "vos_optimized")}
        installed = {name for name in names if importlib.util.find_spec(name.replace("-", "_")) is not None}
        return {
            case: {name: line for name, line in lines.items() if name in installed} for case, lines in STARTS.items()
        }

    @property
    def weight(self) -> float:
        """Each start weighs little."""
        return START_COST * (self.context.settings.rounds + 1) * sum(map(len, self.cases.values()))

    def run(self) -> None:
        """Measure; a first round, which fills the disk's cache, is not counted."""
        for case, lines in self.cases.items():
            fails = case == "wrong argument"
            works = {name: partial(output_of, "-c", line, fails=fails) for name, line in lines.items()}
            seconds, _ = self.interleaved(works, case, START_COST)
            self.record(case, seconds)


def output_of(*arguments: str, fails: bool = False) -> str:
    """What a Python process prints.

    Raises:
        RuntimeError: it ended with an error, unless it should.
    """
    command, env = [sys.executable, *arguments], environment()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_TIMEOUT, env=env)
    if ran.returncode and not fails:
        raise RuntimeError(f"{' '.join(arguments)[:80]} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return ran.stdout


def environment() -> dict[str, str]:
    """The environment of a Python process that imports what this one imports."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONWARNINGS": ""}


# In a process of its own


def main(path: str, name: str, task: str, count: str, frames: str, threads: str) -> None:
    """Run a task of the job in a file, and print the most megabytes held after the network was loaded."""
    torch.set_num_threads(int(threads))
    job = torch.load(path, mmap=True, weights_only=False)  # the parent wrote it
    runner = runner_types(job)[name](job)
    runner.job = replace(job, weights={})
    del job
    reset_peak(runner.job.device)
    with torch.inference_mode():
        work(runner, task, int(count), int(frames))
    print(peak(runner.job.device))


def work(runner: Runner, task: str, count: int, frames: int) -> None:
    """Run one task: `decoder` with so many prompts, `everything` on such a grid, `video` with so many objects."""
    size, device = runner.job.size, runner.job.device
    if task == "video":
        for _ in runner.track(draw_video(size, frames).to(device), draw_clicks(count, size, device)):
            pass
        return
    image = draw_image(size, size).to(device)
    if task == "everything":
        runner.generate(image, generate_options(count, conf_thres=0.5))
        return
    runner.encode(image)
    runner.answer(draw_clicks(count, size, device), True)


def reset_peak(device: torch.device) -> None:
    """Leave loading out of the peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is held now


def peak(device: torch.device) -> float:
    """The most that was held, MB: of the GPU's memory where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists() and (found := re.search(r"VmHWM:\s*(\d+)", STATUS.read_text())):
        return int(found[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
