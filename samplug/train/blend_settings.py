"""The arguments of `samplug blend` and `samplug merge`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from samplug.arguments import CommandSettings, arguments_of, check_values, setting
from samplug.data.help import SCENES
from samplug.train.settings import TrainSettings
from samplug.values import SHARE, count_of

OF_DATA = ("data", "val_data", "source", "split", "classes", "holdout", "seed", "imgsz", "verbose")  # as in train


@dataclass(frozen=True)
class WeightSettings(CommandSettings):
    """What both commands have."""

    model: str | None = setting(None, "the network that was fine-tuned")
    out: str | None = setting(None, "the file that is written")

    def __post_init__(self) -> None:
        check_values(vars(self), arguments_of(type(self)))
        missing = [
            name for name, value in vars(self).items() if value is None and name in ("model", "tuned", "lora", "out")
        ]
        if missing:
            raise ValueError(f"Expected {'= and '.join(missing)}=, the names of files.")


@dataclass(frozen=True)
class MergeSettings(WeightSettings):
    """The arguments of `samplug merge`."""

    lora: str | None = setting(None, "lora.pt of a training with lora=")


@dataclass(frozen=True)
class BlendSettings(WeightSettings):
    """The arguments of `samplug blend`."""

    tuned: str | None = setting(None, "best.pt of its training")
    share: Any = setting((0.25, 0.5, 0.75), "shares of the tuned weights, 0 to 1; of several the best is written")
    data: Any = setting(None, "the training's data set, on which each mix is measured; left out: nothing is measured")
    val_data: Any = setting(None, "as in train")
    source: Any = setting(None, "as in train")
    split: str = setting("val", "as in train")
    classes: Any = setting(None, "as in train")
    holdout: float = setting(0.2, "as in train", SHARE)
    seed: int = setting(0, "as in train")
    anchor: Any = setting(SCENES, "data set that shows what was forgotten; False: none")
    imgsz: Any = setting(None, "size of the input; left out: the network's own")
    batch: int = setting(1, "images at once", count_of("images"))
    device: Any = setting(None, "as in predict")
    verbose: bool = setting(True, "show progress")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares or not all(SHARE.holds(share) for share in self.shares):
            raise ValueError(f"share={self.share!r}: give a number from 0 to 1, or several, as share=0.25,0.5.")
        if self.data is None and len(self.shares) > 1:
            raise ValueError("Without data= no mix is measured: give one share=, or the data= of the training.")

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares, each once, in order."""
        given = self.share.split(",") if isinstance(self.share, str) else self.share
        try:
            return tuple(sorted({float(share) for share in ([given] if isinstance(given, int | float) else given)}))
        except (TypeError, ValueError):
            return ()

    @property
    def of_training(self) -> TrainSettings:
        """The settings of a training on the same data, measured on the same part."""
        return TrainSettings.read({name: value for name in OF_DATA if (value := getattr(self, name)) is not None})
