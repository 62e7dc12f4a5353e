"""Every choice of a training run; each field is a flag of `python -m samplug.train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, text: str) -> Any:
    """A field with what `--help` says about it."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """The choices that shape the curve; runs with equal settings and seed are equal, interrupted or not."""

    size: int = option(128, "least side of the network's input in pixels, a multiple of 32")
    largest: int = option(128, "largest side; every step draws one of the multiples of 32 between")
    pictures: int = option(8, "pictures a step at the least side; fewer at larger ones, for as many pixels")
    padded: float = option(0.5, "share of the pictures that are not square and padded, as photographs will be")
    prompts: int = option(4, "objects asked for in each picture, each once by click and once by box")
    views: int = option(1, "steps taken on each drawn batch, each time mirrored, recoloured and prompted otherwise")
    clips: float = option(0.0, "share of the batches that are clips, in which objects are followed through memory")
    clips_at_once: int = option(4, "clips a step at the least side; fewer at larger ones, for as many pixels")
    frames: int = option(8, "frames of a clip")
    objects: int = option(3, "objects followed in a clip; where it has fewer they repeat")
    given: float = option(0.0, "share of the clips' steps at the start in which the true masks are remembered")
    steps: int = option(2000, "steps of this leg")
    rate: float = option(1e-3, "learning rate of the decoder, the prompt encoder and the neck")
    trunk_rate: float = option(1e-3, "learning rate of the encoder's trunk; 0 leaves it as it is")
    warmup: int = option(100, "steps over which the rates rise")
    cooldown: float = option(0.4, "last share of the steps over which the rates fall to a twentieth, by a cosine")
    decay: float = option(0.01, "weight decay of matrices")
    clip: float = option(1.0, "largest norm of the gradient")
    average: float = option(0.998, "decay of the running mean of the weights, which is what is kept in the end")
    level: float = option(0.05, "hardest scenes at the first step, 0 to 1")
    level_end: float = option(0.5, "hardest scenes at the last step, 0 to 1")
    every_mask: int = option(
        1500, "steps in which all masks of an answer to a click are trained, not the best one alone"
    )
    balance: float = option(1.0, "1 weighs object and background alike, 0 all pixels alike")
    probe: float = option(1.0, "weight of the probe's loss, which teaches the encoder to group pixels")
    corrections: float = option(0.3, "share of the steps with more rounds: clicks that correct the mask before")
    rounds: int = option(1, "rounds of such clicks, at most")
    scenes: int = option(0, "draw only so many different batches, to see that the network can learn them; 0: no end")
    precision: str = option("float32", "of the network's products: float32 or bfloat16")
    presence: float = option(1.0, "weight of the loss of presence, on the frames of clips")
    learn: str = option("all", "what learns: all, or memory, the networks of memory and the head of presence alone")
    seed: int = option(0, "of everything that is drawn")
