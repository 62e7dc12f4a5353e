"""Images of records: files, and frames of videos, which are read once and in order."""

from __future__ import annotations

import numpy as np

from samplug.data.formats.base import FileOf
from samplug.data.formats.records import ImageRecord
from samplug.errors import DataError
from samplug.sources.image import read_image
from samplug.sources.video import VideoFrame
from samplug.sources.video_loader import video_of


class FrameImages:
    """Gives the BGR image (H, W, 3) of a record; of a video, frames have to be asked for in order.

    Args:
        file_of: gives the file of an image or video by its name.
    """

    def __init__(self, file_of: FileOf) -> None:
        self.file_of = file_of
        self._source, self._frames = "", iter(tuple[VideoFrame]())

    def __call__(self, record: ImageRecord) -> np.ndarray:
        """The image of a record.

        Raises:
            SourceError: it cannot be read.
            DataError: the video has no such frame any more.
        """
        path = self.file_of(record.source)
        if record.frame is None:
            return read_image(path)
        if self._source != record.source:
            self._source, self._frames = record.source, video_of(path).forward(0)
        for frame in self._frames:
            if frame.number == record.frame:
                return frame.image
        raise DataError(f"{path} has no frame {record.frame}: is it another video than the one that was annotated?")
