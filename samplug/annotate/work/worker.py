"""From a shard to its committed records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from samplug.annotate.plan import Shard, Source
from samplug.annotate.records import ImageRecord, RecordFolder
from samplug.annotate.settings import Settings
from samplug.annotate.work.journal import Journal
from samplug.annotate.work.objects import make_predictor, prompt_boxes, with_classes
from samplug.annotate.work.prompters import prompter_of
from samplug.annotate.work.video import VideoAnnotator
from samplug.checkpoints.load import load_model
from samplug.errors import DataError, PromptError, SourceError, one_line
from samplug.host import Results
from samplug.nn.sam2 import SAM2Model
from samplug.predict.image import Predictor, SAM2Predictor
from samplug.predict.results.labels import objects_of
from samplug.prompts.objects import Prompts
from samplug.sources.image import read_image

FAULTS_OF_INPUT = (SourceError, DataError, PromptError, OSError, TypeError, MemoryError)  # an image's own fault
FAULTS_OF_SEGMENTING = (PromptError, MemoryError, FloatingPointError)  # too many objects, or NaN in a low precision
QUARANTINED = "it was being annotated when the process died, twice: quarantined"
BATCH_DEATHS = 3  # of a batch whose images harm nobody one by one: then they stay one by one
READERS = 4  # threads that read images ahead
Image = np.ndarray | Exception
Tick = Callable[[int], None]  # is called with the number of images or frames done; 0 is a sign of life


class Worker:
    """Annotates shards with one network and one prompter.

    Args:
        settings: of the job.
        supervised: see `Journal`.

    Attributes:
        journal: of the shard that is being annotated, None between two.
    """

    def __init__(self, settings: Settings, supervised: bool = False) -> None:
        self.settings, self.supervised = settings, supervised
        self.records_of = RecordFolder(Path(settings.out) / "records")
        self.model = load_model(settings.model)
        self.model.eval()
        self.journal: Journal | None = None
        kind = SAM2Predictor if isinstance(self.model, SAM2Model) else Predictor
        self._predictor = make_predictor(kind, settings, self.model, {"logits": True, "on_error": "raise"})
        self.prompter = prompter_of(settings.prompter, kind, settings.device, settings.conf)
        self._readers = ThreadPoolExecutor(READERS)

    def annotate(self, shard: Shard, tick: Tick) -> int:
        """Annotate a shard and commit its records; returns how many of its images, or its video, failed.

        The batches follow from the shard alone: whoever annotates it, at once or after a break, gives the same bytes.
        """
        folder = Path(self.settings.out)
        self.journal = journal = Journal(folder / "journal" / shard.id, self.supervised)
        journal.note("start")
        try:
            if shard.is_video:
                film = VideoAnnotator(self.settings, self.model, folder / "state" / shard.id)
                failed = film.annotate(shard.sources[0], journal, tick, self.records_of.path(shard.id))
            else:
                records = [record for few in self._images(shard, journal, tick) for record in few]
                failed = self.records_of.write(shard.id, records)
        except BaseException:
            journal.stop()  # nothing died here
            raise
        journal.remove()
        self.journal = None
        return failed

    # Batches

    def _images(self, shard: Shard, journal: Journal, tick: Tick) -> Iterator[list[ImageRecord]]:
        """The records of each batch; the images of the next one are read meanwhile, unless a process died there."""
        size = self.settings.batch
        batches = [shard.sources[start : start + size] for start in range(0, len(shard.sources), size)]
        ahead: list[Future[Image]] = []
        for number, batch in enumerate(batches):
            journal.note("batch", number)
            deaths = journal.deaths(number)
            if deaths:
                self._probe(batch, journal, tick)
                journal.note("batch", number)
            images = [future.result() for future in ahead] if ahead else [read(source, journal) for source in batch]
            following = batches[number + 1] if batches[number + 1 :] and not journal.deaths(number + 1) else ()
            ahead = [self._readers.submit(read, source, journal) for source in following]
            given = dict(zip(batch, images, strict=True))
            if deaths < BATCH_DEATHS:
                yield self._batch(given)
            else:
                yield [record for source, image in given.items() for record in self._batch({source: image})]
            tick(len(batch))

    def _probe(self, batch: Sequence[Source], journal: Journal, tick: Tick) -> None:
        """Annotate the images of a batch in which a process died one by one, for the journal to name the one to blame.

        The records are those of the batch, so that they are the same as if nothing had died.
        """
        for source in batch:
            if source.name not in journal.quarantined:
                journal.note_source(source.name)
                self._batch({source: read(source, journal)})
                tick(0)

    def _batch(self, given: dict[Source, Image]) -> list[ImageRecord]:
        """Annotate images together; one that cannot be read, prompted or segmented has a record with the reason."""
        images = {source: image for source, image in given.items() if isinstance(image, np.ndarray)}
        found = self._prompts(images)
        prompted = {source: few for source, few in found.items() if not isinstance(few, Exception)}
        try:
            results = self._segment([images[source] for source in prompted], list(prompted.values()))
        except FAULTS_OF_SEGMENTING as error:
            if len(given) > 1:  # one of them is to blame: which?
                return [record for source, image in given.items() for record in self._batch({source: image})]
            return [ImageRecord(source.name, error=one_line(error)) for source in given]
        segmented = dict(zip(prompted, results, strict=True))
        return [self._record(source, {**given, **found}[source], segmented.get(source), images) for source in given]

    def _record(
        self, source: Source, found: Prompts | Image | None, result: Results | None, images: dict[Source, np.ndarray]
    ) -> ImageRecord:
        if isinstance(found, Exception):
            return ImageRecord(source.name, error=one_line(found))
        shape = images[source].shape
        given = found if isinstance(found, Prompts) else None
        objects = () if result is None else objects_of(result, prompt_boxes(given, result), self.model.mask_threshold)
        return ImageRecord(source.name, (shape[0], shape[1]), None, objects)

    def _prompts(self, images: dict[Source, np.ndarray]) -> dict[Source, Prompts | Exception | None]:
        """The prompts of each image, None for everything, or the error where they cannot be read."""
        if self.prompter is None or not images:
            return dict.fromkeys(images)
        try:
            return dict(zip(images, self.prompter(list(images.values()), list(images)), strict=True))
        except FAULTS_OF_INPUT as error:
            if len(images) == 1:
                return dict.fromkeys(images, error)
            one_by_one = [
                self._prompts({source: image}) for source, image in images.items()
            ]  # one of them is wrong: which?
            return {source: found for each in one_by_one for source, found in each.items()}

    def _segment(self, images: Sequence[np.ndarray], prompts: Sequence[Prompts | None]) -> list[Results | None]:
        """The result of each image; None where there is nothing to segment."""
        if self.prompter is None:
            return list(self._predictor(source=list(images))) if images else []
        chosen = [i for i, found in enumerate(prompts) if found]
        results: list[Results | None] = [None] * len(images)
        if chosen:
            given = [with_classes(found) for found in prompts if found]
            for i, result in zip(chosen, self._predictor([images[i] for i in chosen], prompts=given), strict=True):
                results[i] = result
        return results


def read(source: Source, journal: Journal) -> Image:
    """The image of a source, or why it cannot be read."""
    if source.name in journal.quarantined:
        return SourceError(QUARANTINED)
    try:
        return read_image(source.path)
    except FAULTS_OF_INPUT as error:
        return error
