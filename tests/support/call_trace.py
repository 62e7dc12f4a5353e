"""The way of one click, or of the next video frame: `python tests/support/call_trace.py [click|frame]` prints the hops.

Counted are the calls of functions in samplug/ without samplug/nn, as Python 3.11 profiles them: a comprehension is a
call, and so is a generator, however often it is resumed. tests/predict/test_call_trace.py holds the limits.
"""

import inspect
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np


@dataclass
class CallTrace:
    """The calls of the package's own functions, networks left out.

    Attributes:
        hops: (depth, file, function) of each call in order.
    """

    hops: list[tuple[int, str, str]] = field(default_factory=list)

    def record(self, work: Callable[[], Any]) -> "CallTrace":
        """Record what `work` calls."""
        import samplug
        from samplug.runtime.idle_team import IDLE_TEAM

        root = f"{Path(samplug.__file__).parent}/"
        networks = f"{root}nn/"
        generators: set[FrameType] = set()

        def is_own(frame: FrameType) -> bool:
            file = frame.f_code.co_filename
            return file.startswith(root) and not file.startswith(networks)

        def note(frame: FrameType, event: str, _: Any) -> None:
            if event != "call" or not is_own(frame) or frame in generators:
                return
            if frame.f_code.co_flags & inspect.CO_GENERATOR:
                generators.add(frame)
            depth, outer = 0, frame.f_back
            while outer is not None:
                depth, outer = depth + is_own(outer), outer.f_back
            code = frame.f_code
            self.hops.append((depth, code.co_filename.removeprefix(root), code.co_qualname))

        IDLE_TEAM.next_look = math.inf  # four times a second it looks at the machine: not a part of the way
        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(None)
            IDLE_TEAM.next_look = 0.0
        return self

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return len(self.hops)

    @property
    def files(self) -> int:
        """How many files they went through."""
        return len({file for _, file, _ in self.hops})

    @property
    def depth(self) -> int:
        """How many own functions stood on top of each other at most."""
        return 1 + max(depth for depth, _, _ in self.hops)

    @property
    def changes(self) -> int:
        """How many calls went into another file than the call before them."""
        return sum(a[1] != b[1] for a, b in zip(self.hops, self.hops[1:], strict=False))

    def __str__(self) -> str:
        lines = [f"{'  ' * depth}{file}: {name}" for depth, file, name in self.hops]
        summary = f"{self.calls} calls, {self.files} files, depth {self.depth}, {self.changes} changes of file"
        return "\n".join([*lines, summary])


def drawn(shift: int = 0) -> np.ndarray:
    """A frame with two discs, which move by `shift` pixels."""
    image = np.full((240, 320, 3), 60, np.uint8)
    cv2.circle(image, (100 + shift, 120), 30, (40, 200, 220), -1)
    cv2.circle(image, (220 - shift, 100), 25, (220, 60, 40), -1)
    return image


def trace_click() -> CallTrace:
    """One click on the image given to `set_image`, with the bundled model."""
    from samplug.predict import Predictor

    predictor = Predictor(overrides={"verbose": False, "save": False})
    predictor.set_image(drawn())
    predictor(points=[[100, 120]])  # what is done once in a process
    return CallTrace().record(lambda: predictor(points=[[100, 120]]))


def trace_frame() -> CallTrace:
    """The third frame of a video of two objects, with the bundled model."""
    from samplug.predict import SAM2VideoPredictor

    predictor = SAM2VideoPredictor(overrides={"verbose": False, "save": False})
    frames = [drawn(2 * i) for i in range(4)]
    results = predictor(source=frames, points=[[100, 120], [220, 100]], stream=True)
    next(results), next(results)
    trace = CallTrace().record(lambda: next(results))
    results.close()
    return trace


WAYS = {"click": trace_click, "frame": trace_frame}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for way in sys.argv[1:] or WAYS:
        print(f"{way}:", WAYS[way](), sep="\n")
