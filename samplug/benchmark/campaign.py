"""All that a GPU has to show, in minutes: `python -m samplug.benchmark.campaign --device cuda --seconds 540`.

Its steps are programs: pytest, and samplug's benchmark, annotate and train. Each is a process with a share of the time
that is left: one that crashes or hangs costs the others nothing. campaign.json and campaign.md are written after each.
On a CPU sizes are small: there it tries itself out.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

import samplug
from samplug.benchmark.parts.process import environment
from samplug.benchmark.run import device_name, device_of
from samplug.benchmark.runners.base import as_bytes
from samplug.benchmark.scene import draw_image
from samplug.benchmark.weights import random_checkpoint
from samplug.files.atomic import atomic_write

TESTS = Path(samplug.__file__).parents[1] / "tests"
PYTEST = ("-m", "pytest", "-v", "--tb=short", f"--rootdir={TESTS.parent}")
PARITY = "not test_transformers and not test_training"  # which stay on a CPU
GROUPS = ("tests", "parity", "bench", "profile", "train")
GRACE, LEAST = 10.0, 5.0  # seconds to write what is known once the time is over; and without which no step is begun
IMAGES = 16  # drawn, annotated, and then trained on
COMMAND = "from samplug.cli.main import main; main()"
PROFILED = (
    "import torch; from samplug.cli.main import main; profile = torch.profiler.profile(); profile.start(); main(); "
    "profile.stop(); print(profile.key_averages().table(sort_by='self_{}_time_total', row_limit=30))"
)
LARGE = {"rounds": 10, "prompts": "1,64,256", "objects": "1,8", "frames": 12, "points_stride": 32}
SMALL = {"rounds": 1, "prompts": "1,4", "objects": "1,2", "frames": 3, "points_stride": 2, "peers": "none"}


@dataclass(frozen=True)
class Step:
    """A program with its arguments, its share of the time, and what reads its result, else its last line."""

    name: str
    group: str
    weight: float
    program: tuple[str, ...]
    arguments: dict[str, Any]
    read: Callable[[], Any] | None = None

    def run(self, limit: float, log: Path, device: str) -> dict[str, Any]:
        """Run it for at most so many seconds, its output in a file: interrupted then, and killed soon after."""
        if limit < LEAST:
            return {"name": self.name, "state": "no time was left", "seconds": 0.0, "result": ""}
        start, env = time.monotonic(), environment() | {"SAMPLUG_TEST_DEVICE": device}
        command = [sys.executable, *self.program, *(f"{name}={value}" for name, value in self.arguments.items())]
        with log.open("w") as file:
            running = subprocess.Popen(command, stdout=file, stderr=file, env=env, start_new_session=True)
        try:
            state = f"exit code {code}" if (code := running.wait(limit)) else "done"
        except subprocess.TimeoutExpired:
            state = f"out of time after {limit:.0f} s"
            running.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                running.wait(GRACE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        result: Any = log.read_text(errors="replace").strip().rpartition("\n")[2]
        with suppress(OSError, ValueError):  # it did not come so far
            result = self.read() if self.read else result
        return {"name": self.name, "state": state, "seconds": round(time.monotonic() - start, 1), "result": result}


def steps(model: str, device: str, imgsz: int, out: Path) -> list[Step]:
    """All steps, those of a group one after another."""
    small = device == "cpu"
    sizes = {"model": model, "device": device, "imgsz": imgsz, **(SMALL if small else LARGE)}
    network = {"model": out / f"{model}.pt", "device": device, "imgsz": imgsz, "batch": 4}
    labels = {**network, "source": out / "images", "prompter": out / "prompts.json", "out": out / "labels"}
    short = {"epochs": 2, "features": "off", "val": False, "anchor": False, "plots": False}
    training = {**network, **short, "data": out / "labels/data.yaml", "save_dir": out / "train"}
    marked = [path for path in sorted(TESTS.rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    tests = ("-m", "gpu", "-k", "cpu and float32" if small else device, *map(str, marked or [TESTS]))
    parity = ("-m", "not soak", "-k", "mobile_sam and point-1" if small else PARITY, str(TESTS / "parity"))

    def bench(name: str, weight: float, parts: str, **given: Any) -> Step:
        arguments = {**sizes, "parts": parts, "save_dir": out / name, **given}
        file = out / name / "benchmark.json"
        return Step(name, "bench", weight, ("-m", "samplug.benchmark"), arguments, lambda: json.loads(file.read_text()))

    def profiled(part: str) -> Step:
        arguments = {**sizes, "parts": part, "objects": 1, "rounds": 1, "peers": "none", "save": False}
        code, name = PROFILED.format("cpu" if small else "device"), f"profile_{part}"
        return Step(name, "profile", 1, ("-c", code, "benchmark"), arguments, (out / f"{name}.log").read_text)

    return [
        Step("tests", "tests", 4, (*PYTEST, *tests), {}),
        Step("parity", "parity", 4, (*PYTEST, *parity), {}),
        bench("float32", 5, "encoder,decoder,everything,video"),
        bench("bfloat16", 4, "encoder,decoder,everything,video", bf16=True),
        bench("everything16", 1, "everything", points_stride=2 if small else 16),
        bench("compiled", 4, "encoder,decoder,video", bf16=True, compile=not small),
        bench("switches", 3, "switches"),
        bench("memory", 3, "memory"),
        profiled("everything"),
        profiled("video"),
        Step("annotate", "train", 2, ("-c", COMMAND, "annotate"), labels, (out / "labels/status.json").read_text),
        Step("train", "train", 2, ("-c", COMMAND, "train"), training, lambda: read_training(out / "train")),
    ]


def read_training(folder: Path) -> str:
    """Images a second of the last epoch, for which those before it have warmed up."""
    *_, before, last = csv.DictReader((folder / "results.csv").read_text().splitlines())
    return f"{IMAGES / (float(last['time']) - float(before['time'])):.2f} images/s"


def draw_inputs(model: str, imgsz: int, out: Path) -> None:
    """Write the images that are annotated, their prompts, and the network that does it."""
    (out / "images").mkdir(parents=True)
    side = imgsz // 4
    boxes = [[side * x, side * y, side * (x + 1), side * (y + 1)] for x in range(3) for y in range(3)]
    for i in range(IMAGES):
        cv2.imwrite(str(out / "images" / f"{i}.png"), as_bytes(draw_image(imgsz, imgsz, seed=i))[..., ::-1])
    (out / "prompts.json").write_text(json.dumps({f"{i}.png": {"bboxes": boxes} for i in range(IMAGES)}))
    random_checkpoint(model, out)


def summary(content: dict[str, Any]) -> str:
    """What is known so far, for people."""
    lines, tables = [f"# {content['heading']}", "", "| step | state | seconds | result |", "|---|---|---|---|"], [""]
    for name, state, seconds, result in (step.values() for step in content["steps"]):
        text = (result["table"] if isinstance(result, dict) else result).strip()
        if "\n" in text:
            tables.append(f"## {name}\n\n```\n{text}\n```\n")
            text = "below"
        lines.append(f"| {name} | {state} | {seconds} | {text} |")
    return "\n".join([*lines, *tables])


def main(given: list[str] | None = None) -> None:
    """Run the steps of the groups that are asked for, in the time that there is."""
    parser = argparse.ArgumentParser(prog="python -m samplug.benchmark.campaign")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where")
    parser.add_argument("--seconds", type=float, default=540.0, help="time for all steps")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"some of {','.join(GROUPS)}")
    parser.add_argument("--model", help="a network's name; left out: sam2.1_t, on a CPU samplug-nano")
    parser.add_argument("--imgsz", type=int, help="side of the input; left out: 1024, on a CPU 64")
    parser.add_argument("--out", type=Path, default=Path("runs/campaign"), help="folder for everything, a new one")
    options, start = parser.parse_args(given), time.monotonic()
    small, device = options.device == "cpu", device_name(device_of(options.device))
    model, imgsz = options.model or ("samplug-nano" if small else "sam2.1_t"), options.imgsz or (64 if small else 1024)
    draw_inputs(model, imgsz, out := options.out)
    left = [step for step in steps(model, options.device, imgsz, out) if step.group in options.only.split(",")]
    heading = f"{model} at {imgsz}, {device}, torch {torch.__version__}, samplug {samplug.__version__}"
    content: dict[str, Any] = {"heading": heading, "seconds": options.seconds, "steps": []}
    while left:
        share = left[0].weight / sum(step.weight for step in left)
        limit, step = share * (start + options.seconds - GRACE - time.monotonic()), left.pop(0)
        content["steps"].append(step.run(limit, out / f"{step.name}.log", options.device))
        for name, text in {"json": json.dumps(content, indent=1), "md": summary(content)}.items():
            with atomic_write(out / f"campaign.{name}") as aside:
                aside.write_text(text, encoding="utf-8")
        print(f"{step.name}: {content['steps'][-1]['state']}", flush=True)


if __name__ == "__main__":
    main()
