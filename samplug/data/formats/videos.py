"""Labels of whole videos: YouTube-VIS, BURST (TAO), MOTS, and SA-1B's and SA-V's; an image is a video of one frame.

An object is not there on frames where it has no pixel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from samplug.data.formats.base import Named, VideoWriter, Writer, file_for, image_name, track_of, tracks_of
from samplug.data.formats.coco import CocoWriter, coco_object
from samplug.data.formats.records import ImageRecord
from samplug.errors import DataError
from samplug.masks.rle import rle_encode

MOTS_TRACKS = 1000  # of a class: an id is the class times this, plus the number of the track
VIS_LISTS = {"segmentations": "segmentation", "bboxes": "bbox", "areas": "area"}  # of frames, and of one
Frames = Sequence[tuple[ImageRecord, Named]]


class VisWriter(VideoWriter, CocoWriter):
    """ytvis.json, YouTube-VIS: an entry a video, and one a track with a mask, or null, for each of its frames."""

    place = "ytvis.json"
    lists = ("videos", "annotations")

    def add_video(self, frames: Frames) -> None:
        """Write a video and its tracks."""
        first, names = frames[0][0], [image_name(record) for record, _ in frames]
        size = {"height": first.size[0], "width": first.size[1]}
        video = self.append("videos", {"file_names": names, "name": first.source, "length": len(frames), **size})
        for track, found in tracks_of(frames).items():
            number, best = max(found.values(), key=lambda item: item[1].iou)
            rows = [coco_object(*found[at]) if at in found else {} for at in range(len(frames))]
            masks = {name: [row.get(key) for row in rows] for name, key in VIS_LISTS.items()}
            ids = {"video_id": video, "track_id": track, "category_id": number + 1, "iscrowd": 0, "score": best.iou}
            self.append("annotations", {**ids, **size, **masks})


class BurstWriter(VideoWriter, CocoWriter):
    """burst.json, which TAO's tools and TrackEval read: an entry a video. Tracks are numbered from 1."""

    place = "burst.json"
    lists = ("sequences",)

    def add_video(self, frames: Frames) -> None:
        """Write a sequence."""
        first, tracks = frames[0][0], tracks_of(frames)
        classes = {str(track + 1): next(iter(found.values()))[0] + 1 for track, found in tracks.items()}
        masks: list[dict[str, Any]] = [{} for _ in frames]
        for track, found in tracks.items():
            for at, (_, each) in found.items():
                masks[at][str(track + 1)] = {"rle": each.rle["counts"], "is_gt": False, "score": each.iou}
        names = {"dataset": "samplug", "seq_name": first.source, "height": first.size[0], "width": first.size[1]}
        more = {"neg_category_ids": [], "not_exhaustive_category_ids": [], "track_category_ids": classes}
        files = [image_name(record) for record, _ in frames]
        self.append("sequences", {**names, **more, "annotated_image_paths": files, "segmentations": masks})


class SaWriter(VideoWriter):
    """sa/: a json an image as in SA-1B, or a video as in SA-V, with class names beside the masks."""

    place = "sa"

    def add_video(self, frames: Frames) -> None:
        """Write an image or a video."""
        record, objects = frames[0]
        content = sa_image(record, objects) if record.frame is None else sa_video(frames)
        file_for(ImageRecord(record.source), self.target, ".json").write_text(json.dumps(content), "utf-8")


def sa_image(record: ImageRecord, objects: Named) -> dict[str, Any]:
    """SA-1B's content of an image."""
    height, width = record.size
    rows = []
    for i, (number, each) in enumerate(objects, 1):
        same = {name: value for name, value in coco_object(number, each).items() if name in VIS_LISTS.values()}
        scores = {"predicted_iou": each.iou, "stability_score": each.stability}
        place = {"crop_box": [0, 0, width, height], "point_coords": []}
        rows.append({"id": i, **same, **scores, **place, "class": each.name})
    image = {"image_id": 1, "width": width, "height": height, "file_name": record.source}
    return {"image": image, "annotations": rows}


def sa_video(frames: Frames) -> dict[str, Any]:
    """SA-V's content of a video: `masklet` has the masks of all objects for each frame, empty ones where unseen."""
    first, tracks, count = frames[0][0], tracks_of(frames), len(frames)
    (height, width), nothing = first.size, rle_encode(np.zeros(first.size, bool))
    masks = [[found[at][1].rle if at in found else nothing for found in tracks.values()] for at in range(count)]
    video = {"video_id": first.source, "video_height": height, "video_width": width, "video_frame_count": count}
    files, seen = [image_name(record) for record, _ in frames], [min(found) for found in tracks.values()]
    names = [next(iter(found.values()))[1].name for found in tracks.values()]
    more = {"masklet_frame_count": [count] * len(tracks), "masklet_type": ["auto"] * len(tracks)}
    more |= {"masklet_first_appeared_frame": seen, "masklet_num": len(tracks), "masklet_class": names}
    return {**video, **more, "annotated_frames": files, "masklet_id": list(tracks), "masklet": masks}


class MotsWriter(Writer):
    """mots/, which TrackEval reads: a file a video with lines `frame id class height width run-lengths`.

    An id is 1000 times the class plus the number of the track. Masks of a frame share no pixel: one of several objects
    belongs to that of the highest predicted IoU. classes.json has the names by number, from 1.
    """

    place = "mots"

    def _open(self) -> None:
        self._source, self._ids = "", dict[tuple[int, int], int]()  # of the current video
        self._file: IO[str] | None = None

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write the lines of a frame."""
        if self._file is None or record.frame is None or record.source != self._source:
            self.files.close()
            path = file_for(ImageRecord(record.source), self.target, ".txt")
            self._source, self._ids = record.source, {}
            self._file = self.files.enter_context(path.open("w", encoding="utf-8"))
        height, width = record.size
        for place, ((number, _), mask) in enumerate(zip(objects, without_overlap(objects), strict=True)):
            if mask.any():
                ids = f"{self._id(number, track_of(objects, place))} {number + 1}"
                self._file.write(f"{record.frame or 0} {ids} {height} {width} {rle_encode(mask)['counts']}\n")

    def _id(self, number: int, track: int) -> int:
        """The id of a track: with its own number where that is free and small enough, else the lowest that is free."""
        if (number, track) not in self._ids:
            first, taken = (number + 1) * MOTS_TRACKS, {*self._ids.values()}
            wanted = [first + track] if 0 <= track < MOTS_TRACKS else []
            free = [n for n in (*wanted, *range(first, first + MOTS_TRACKS)) if n not in taken]
            if not free:
                raise DataError(f"{self._source}: MOTS numbers at most {MOTS_TRACKS} objects of a class in a video.")
            self._ids[number, track] = free[0]
        return self._ids[number, track]

    def close(self) -> None:
        """Write the names of the classes."""
        names = {number + 1: name for name, number in self.classes.items()}
        (self.target / "classes.json").write_text(json.dumps(names), "utf-8")


def without_overlap(objects: Named) -> list[np.ndarray]:
    """The masks (H, W) bool of objects; a pixel of several belongs to the one of the highest predicted IoU alone."""
    masks = [each.mask for _, each in objects]
    taken = np.zeros((1, 1), bool)
    for i in sorted(range(len(masks)), key=lambda i: -objects[i][1].iou):
        masks[i] = masks[i] & ~taken
        taken = taken | masks[i]
    return masks
