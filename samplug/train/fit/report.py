"""What `SAM.train` returns: before, after, and what was kept of what the network knew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from samplug.files.atomic import atomic_write
from samplug.train.fit.evaluation import MOST_OBJECTS

FORGOTTEN = 0.02  # from which a loss on the anchor set is pointed out
LABELS = {"click1": "1 click", "click3": "3 clicks", "box": "box", "J&F": "videos, J&F"}


@dataclass(frozen=True)
class TrainReport:
    """What `SAM.train` returns; printed, it is the table.

    Attributes:
        save_dir: the run's folder.
        epochs: that were run.
        best_epoch: the one whose weights were kept; 0: the untouched network's.
        before: scores of the untouched network on the data set's validation part.
        after: those of the weights that were kept.
        kept_before: scores of the untouched network on the anchor set.
        kept: those of the weights that were kept.
        files: checkpoints that were written, by who loads them.
    """

    save_dir: Path
    epochs: int
    best_epoch: int
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    kept_before: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def results_dict(self) -> dict[str, float]:
        """The scores of the kept weights in one flat dict, by the names of `SAM.val`."""
        named = {name: f"videos/mask/{name}" if name == "J&F" else f"pictures/{name}" for name in LABELS}
        flat = {named[name]: value for name, value in self.after.items()}
        return flat | {f"kept/{name}": value for name, value in self.kept.items()}

    @staticmethod
    def load(folder: Path) -> TrainReport:
        """The report that was written to a run's folder."""
        content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return TrainReport(**{**content, "save_dir": folder})

    def save(self) -> None:
        """Write `report.json`."""
        content = {**asdict(self), "save_dir": str(self.save_dir)}
        with atomic_write(self.save_dir / "report.json") as file:
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _best(self) -> str:
        of_images = bool({"click1", "box"} & self.after.keys())
        scores = "the mean of 1 click and box" if of_images else "J&F"
        if self.best_epoch:
            best = f"epoch {self.best_epoch} of {self.epochs} is the best by {scores}"
        else:
            best = f"none of {self.epochs} epochs is better than the untouched network by {scores}: it was kept"
        fewer = f"; at most {MOST_OBJECTS} objects an image: `val` measures all" if of_images else ""
        return f"{best} (before and after{fewer})"

    def __str__(self) -> str:
        lines = [self._best()] if self.after else [f"{self.epochs} epochs; nothing was measured (val=False)."]
        lines += _rows("", self.before, self.after)
        lines += _rows("kept: ", self.kept_before, self.kept)
        lost = max((self.kept_before[name] - value for name, value in self.kept.items()), default=0.0)
        if lost > FORGOTTEN:
            lines.append(
                f"  The network forgot {100 * lost:.1f} points on the anchor set: keep=0.2, learn=token, a lower lr0 "
                "or fewer epochs forget less."
            )
        lines += [f"  {who}: {file}" for who, file in self.files.items()]
        return "\n".join(lines)


def _rows(start: str, before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    return [
        f"  {start + LABELS[name]:<28}{before[name]:>9.3f}{after[name]:>9.3f}{after[name] - before[name]:>+9.3f}"
        for name in LABELS
        if name in before and name in after
    ]
