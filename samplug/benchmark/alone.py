"""What needs a process of its own: peak memory, and how long it takes to start."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from samplug.benchmark.report import OURS
from samplug.benchmark.stage import Part
from samplug.variants import HieraRow

LONGEST = 3600.0  # seconds until a process is given up
STARTED = 0.1  # what a start weighs, in runs of an encoder
OURS_SAYS = "import sys; sys.argv = ['samplug', {words}]; from samplug.cli import main; main()"
ITS_SAYS = "import sys; sys.argv = ['yolo', {words}]; from ultralytics.cfg import entrypoint; entrypoint()"
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
    "help": {"samplug": OURS_SAYS.format(words="'help'"), "ultralytics": ITS_SAYS.format(words="'help'")},
    "wrong argument": {"samplug": OURS_SAYS.format(words=WRONG), "ultralytics": ITS_SAYS.format(words=WRONG)},
}


class Memory(Part):
    """The most that everybody holds, each in a process of its own, in those parts that are asked for too."""

    name = "memory"

    @property
    def tasks(self) -> list[tuple[str, str, int]]:
        """(case, task, count)."""
        settings = self.stage.settings
        followed = (max if self.stage.job.device.type == "cuda" else min)(settings.objects)  # a CPU takes minutes
        side, asked = settings.points_stride, max(settings.prompts)
        tasks = [
            (f"{asked} prompts", "decoder", asked),
            (f"everything, {side}x{side}", "everything", side),
            (f"video, {followed} object{'s' if followed > 1 else ''}", "video", followed),
        ]
        if not isinstance(self.stage.job.row, HieraRow):
            tasks.pop()
        return [task for task in tasks if task[1] in settings.parts] or tasks

    @property
    def weight(self) -> float:
        """An encoder, and the work, of each process."""
        return len(self.runners) * sum(self.cost(*task) for task in self.tasks)

    def cost(self, _: str, task: str, count: int) -> float:
        """What one process should take, in runs of an encoder."""
        if task == "video":
            return self.stage.settings.frames * (1 + 1.5 * count)
        return 2 + 0.03 * count * (count if task == "everything" else 1)

    def run(self) -> None:
        """Measure."""
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.pt"
            torch.save(self.stage.job.state, weights)
            for case, task, count in self.tasks:
                held = {}
                for name in (name for name, one in self.runners.items() if task not in one.skips):
                    held[name] = [self.held(name, task, count, weights)]
                    self.stage.progress.tick(f"memory, {case}, {name}", self.cost(case, task, count))
                self.stage.note("memory", case, held, unit="MB")

    def held(self, name: str, task: str, count: int, weights: Path) -> float:
        """Megabytes that one held at most in a process of its own."""
        job = self.stage.job
        asked = {
            "runner": name,
            "task": task,
            "count": count,
            "frames": self.stage.settings.frames,
            "weights": str(weights),
            "row": asdict(job.row),
            "size": job.size,
            "device": str(job.device),
            "dtype": str(job.dtype).removeprefix("torch."),
            "compile": job.compile,
            "channels_last": job.channels_last,
            "threads": torch.get_num_threads(),
        }
        return float(json.loads(output_of("-m", "samplug.benchmark.child", json.dumps(asked)).splitlines()[-1]))


class Startup(Part):
    """From the start of a process to its end, where nothing else is done."""

    name = "startup"

    @property
    def cases(self) -> dict[str, dict[str, str]]:
        """The starts of what is installed and asked for."""
        names = {OURS, *(name for name in self.stage.settings.peers if name != "vos_optimized")}
        installed = {name for name in names if importlib.util.find_spec(name.replace("-", "_")) is not None}
        return {
            case: {name: line for name, line in lines.items() if name in installed} for case, lines in STARTS.items()
        }

    @property
    def weight(self) -> float:
        """Each start weighs little."""
        return STARTED * (self.stage.settings.rounds + 1) * sum(map(len, self.cases.values()))

    def run(self) -> None:
        """Measure; a first round, which fills the disk's cache, is not counted."""
        for case, lines in self.cases.items():
            seconds: dict[str, list[float]] = {name: [] for name in lines}
            for i in range(self.stage.settings.rounds + 1):
                for name, line in lines.items():
                    start = time.perf_counter()
                    output_of("-c", line, fails=case == "wrong argument")
                    taken = time.perf_counter() - start
                    if i:
                        seconds[name].append(taken)
                    self.stage.progress.tick(f"startup, {case}, {name}", STARTED)
            self.stage.note("startup", case, seconds)


def output_of(*words: str, fails: bool = False) -> str:
    """What a Python process prints.

    Raises:
        RuntimeError: it ended with an error, unless it should.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONWARNINGS": ""}
    ran = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=LONGEST, env=environment)
    if ran.returncode and not fails:
        raise RuntimeError(f"{' '.join(words)[:80]} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return ran.stdout
