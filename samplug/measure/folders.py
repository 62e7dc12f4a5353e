"""Pictures and videos beside index masks, in folders: `images` and `masks`, VOC's, DAVIS'."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from samplug.measure.lazy import Lazy
from samplug.measure.pictures import Picture
from samplug.measure.reading import (
    PICTURES,
    DataError,
    masks_of,
    numbers_of,
    read_index_mask,
    read_picture,
    same_size,
)
from samplug.measure.videos import Frame, Video

OF_PICTURES = (("images", "masks"), ("JPEGImages", "SegmentationObject"))
OF_VIDEOS = ("JPEGImages", "Annotations")
LISTS = ("2017", "Segmentation", "2016", "")  # folders of ImageSets in which a split may be listed
USUAL = "480p"  # where DAVIS comes in several resolutions, this one is measured


def open_videos(root: Path, split: str) -> Lazy[Video] | None:
    """The videos of a folder in DAVIS' layout, `JPEGImages/…/video/*.jpg` and `Annotations/…/video/*.png`; else None.

    A frame may lack its mask. Where `ImageSets` lists the split, only its videos count.
    """
    pictures, truth = (root / name for name in OF_VIDEOS)
    folders = sorted({path.parent for path in truth.rglob("*.png")}) if pictures.is_dir() else []
    if not folders:
        return None
    names = [folder.relative_to(truth) for folder in folders]
    if len({name.parent for name in names}) > 1 and any(name.parts[0] == USUAL for name in names):
        names = [name for name in names if name.parts[0] == USUAL]
    chosen = listed(root, split)
    names = [name for name in names if chosen is None or name.name in chosen]
    if not names:
        raise DataError(f"{root} has no video of split={split}: ImageSets lists others.")
    return Lazy(names, partial(_video, pictures, truth))


def _video(pictures: Path, truth: Path, name: Path) -> Video:
    files = sorted(path for path in (pictures / name).glob("*") if path.suffix.lower() in PICTURES)
    if not files:
        raise DataError(f"{pictures / name} holds no frame, but {truth / name} holds masks.")
    masks = {path.stem: path for path in (truth / name).glob("*.png")}
    numbers = numbers_of([read_index_mask(path) for path in masks.values()])
    rows = [(file, masks.get(file.stem)) for file in files]
    return Video(name.as_posix(), Lazy(rows, partial(_frame, numbers)))


def _frame(numbers: Sequence[int], row: tuple[Path, Path | None]) -> Frame:
    file, truth = row
    image = read_picture(file)
    if truth is None:
        return Frame(image, None)
    masks, void = masks_of(read_index_mask(truth), numbers)
    same_size(truth, masks, image)
    return Frame(image, masks, void)


def open_pictures(root: Path, split: str) -> Lazy[Picture] | None:
    """The pictures of `images` with masks of the same name in `masks`, or of VOC's folders; None where neither is."""
    for pictures, truth in OF_PICTURES:
        masks = sorted((root / truth).rglob("*.png")) if (root / pictures).is_dir() else []
        if masks:
            return Lazy(_pairs(root / pictures, root / truth, masks, listed(root, split)), _picture)
    return None


def _pairs(pictures: Path, truth: Path, masks: Sequence[Path], chosen: set[str] | None) -> list[tuple[Path, Path]]:
    """Picture and mask of each name."""
    files = {
        path.relative_to(pictures).with_suffix(""): path
        for path in pictures.rglob("*")
        if path.suffix.lower() in PICTURES
    }
    pairs = []
    for mask in masks:
        name = mask.relative_to(truth).with_suffix("")
        if chosen is not None and name.name not in chosen:
            continue
        if name not in files:
            raise DataError(f"{mask} has no picture: there is no {pictures / name} with any of {', '.join(PICTURES)}.")
        pairs.append((files[name], mask))
    return pairs


def _picture(pair: tuple[Path, Path]) -> Picture:
    file, truth = pair
    image, index = read_picture(file), read_index_mask(truth)
    masks, _ = masks_of(index, numbers_of([index]))
    same_size(truth, masks, image)
    return Picture(file.name, image, masks)


def listed(root: Path, split: str) -> set[str] | None:
    """The names that `ImageSets` lists for a split; None where it lists none."""
    for folder in LISTS:
        file = root / "ImageSets" / folder / f"{split}.txt"
        if file.is_file():
            return {Path(line).stem for line in file.read_text(encoding="utf-8").split()}
    return None
