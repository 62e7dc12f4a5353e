"""A video is committed every few frames with the state of its tracker, and goes on there, bit for bit."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from samplug.annotate.plan import Source
from samplug.annotate.records import encode, write_shard
from samplug.annotate.settings import Settings
from samplug.annotate.work.journal import UNSUPERVISED, Journal
from samplug.annotate.work.objects import make_predictor
from samplug.data.formats.records import ImageRecord
from samplug.errors import DataError, PromptError, SourceError, one_line
from samplug.files.atomic import atomic_write
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.results.labels import objects_of
from samplug.predict.video.predictor import SAM2VideoPredictor
from samplug.prompts.raw import from_json
from samplug.sources.video import ImageSequence
from samplug.sources.video_loader import video_of

SEGMENT = 64  # frames that are committed together
IN_QUARANTINE = "it was being annotated when the process died, twice in the same frame: quarantined"
FAULTS_OF_VIDEO = (SourceError, DataError, PromptError, OSError, TypeError, MemoryError, FloatingPointError)
State = dict[str, Any]


class Segments:
    """What is committed of a video before its end.

    ```
    00000000.jsonl.gz   the records of the first frames
    00000001.pt         the tracker behind them: the newest alone
    ```

    Args:
        folder: of one video.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self, number: int) -> Path:
        """The records of a segment."""
        return self.folder / f"{number:08}.jsonl.gz"

    def newest(self, device: torch.device) -> tuple[int, State | None]:
        """The segment to go on with, and the state before it; (0, None) is the beginning."""
        for file in sorted(self.folder.glob("[0-9]*.pt"), reverse=True):
            number = int(file.stem)
            if all(self.records(i).exists() for i in range(number)):
                try:
                    return number, torch.load(file, map_location=device, weights_only=True)
                except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
                    continue  # damaged: an older one, or the beginning
        return 0, None

    def commit(self, number: int, records: list[ImageRecord], state: State | None) -> None:
        """Write a segment, then the state behind it, which makes it count; none behind the last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.records(number)) as temporary:
            temporary.write_bytes(encode(records))
        if state is None:
            return
        with atomic_write(self.folder / f"{number + 1:08}.pt") as temporary:
            torch.save(state, temporary)
        (self.folder / f"{number:08}.pt").unlink(missing_ok=True)


class VideoAnnotator:
    """Tracks what is found in a video through its memory.

    Args:
        settings: of the job.
        model: the network.
        folder: where what is committed before the end lies.
    """

    def __init__(self, settings: Settings, model: SAMModel | SAM2Model, folder: Path) -> None:
        self.settings, self.model, self.segments = settings, model, Segments(folder)

    def annotate(self, source: Source, journal: Journal, tick: Callable[[int], None], file: Path) -> int:
        """Annotate a video, from where it was left, into the file of its shard; returns 1 if it failed, else 0."""
        number, state = self.segments.newest(next(self.model.parameters()).device)
        records: list[ImageRecord] = []
        kept: State | None = None
        journal.note("source", frame_key(source, 0 if state is None else state["next"]), UNSUPERVISED)
        for record, snapshot in self._frames(source, state, journal):
            if len(records) == SEGMENT:  # it is not the last one
                self.segments.commit(number, records, kept)
                number, records = number + 1, []
            records.append(record)
            kept = snapshot() if len(records) == SEGMENT else None
            tick(1)
            journal.note("source", frame_key(source, (record.frame or 0) + 1), UNSUPERVISED)
        self.segments.commit(number, records, None)
        failures = [record for record in records if record.error]
        write_shard(file, (self.segments.records(i).read_bytes() for i in range(number + 1)), failures)
        shutil.rmtree(self.segments.folder, ignore_errors=True)
        return len(failures)

    def _frames(
        self, source: Source, state: State | None, journal: Journal
    ) -> Iterator[tuple[ImageRecord, Callable[[], State]]]:
        """The records of the frames behind a state, with what gives the state behind each; at last why it fails."""
        if any(name.startswith(frame_key(source, "")) for name in journal.quarantined):
            yield ImageRecord(source.name, error=IN_QUARANTINE), dict
            return
        try:
            for result, snapshot in self._track(source, state):
                objects = objects_of(result, None, self.model.mask_threshold)
                yield ImageRecord(source.name, tuple(result.orig_shape), int(result.frame), objects), snapshot
        except FAULTS_OF_VIDEO as error:
            yield ImageRecord(source.name, error=one_line(error)), dict

    def _track(self, source: Source, state: State | None) -> Iterator[tuple[Any, Callable[[], State]]]:
        if not isinstance(self.model, SAM2Model):
            raise DataError(f"videos need SAM 2 or 2.1, which have a memory; this is {self.model.variant}.")
        start = 0 if state is None else state["next"]
        options = {"prompt_every": self.settings.prompt_every, "mode": "track", "start": start or None}
        options |= prompts_of_video(self.settings, source, start)
        predictor = make_predictor(SAM2VideoPredictor, self.settings, self.model, options)
        if state is not None:
            restore = lambda each: each.inference_state[0].restore(state)  # noqa: E731
            predictor.add_callback("on_predict_start", restore)
        video = video_of(source.path)
        for result in predictor(source=video.items if isinstance(video, ImageSequence) else video.path, stream=True):
            yield result, partial(state_behind, predictor, int(result.frame))


def frame_key(source: Source, frame: int | str) -> str:
    """What the journal calls a frame: a video is to blame if two processes die in the same one."""
    return f"{source.name}#{frame}"


def state_behind(predictor: SAM2VideoPredictor, frame: int) -> State:
    """What the frames behind one need: the first of them, and the tracker."""
    return {"next": frame + 1, **predictor.inference_state[0].state()}


def prompts_of_video(settings: Settings, source: Source, start: int) -> dict[str, Any]:
    """What says where objects are in a video from some frame on, as options of a video predictor.

    Raises:
        DataError: labels of images, or a file that does not name the video.
    """
    given = settings.prompter
    if given is None:
        return {"track": True}
    path = Path(given) if isinstance(given, str | Path) else None
    if path is None or not (path.is_dir() or path.suffix in (".json", ".yaml", ".yml")):
        return {"prompter": given if path is None else {"model": given, "conf": settings.conf}}
    content = from_json(path) if path.suffix == ".json" else {}
    for key in (source.name, source.path, Path(source.name).name):
        if key in content:
            later = prompts_from(content[key], start)
            return {"prompts": later} if later else {"bboxes": []}
    raise DataError(f"prompter={path} says nothing of this video. Expected a detector, or a .json with its prompts.")


def prompts_from(prompts: Any, start: int) -> Any:
    """The prompts of a video that are still to come: by frame, or those of its first frame."""
    if isinstance(prompts, dict) and prompts and all(str(key).isdecimal() for key in prompts):
        return {int(frame): value for frame, value in prompts.items() if int(frame) >= start}
    return prompts if not start else {}
