"""Images and videos beside index masks, in folders: `images` and `masks`, VOC's, DAVIS'."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from samplug.data.arrays import IMAGE_SUFFIXES, VOID, object_numbers, read_index_mask
from samplug.data.image_file import ImageFile, Labels, frame_files
from samplug.data.samples import AnnotatedImage, AnnotatedVideo, Lazy
from samplug.errors import DataError, MissingSplitError, names_of, report_slip
from samplug.sources.base_loader import lines_of_list
from samplug.transforms import Size

IMAGE_FOLDERS = (("images", "masks"), ("JPEGImages", "SegmentationObject"))
VIDEO_FOLDERS = ("JPEGImages", "Annotations")
SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = ("2017", "Segmentation", "2016", "")  # folders of ImageSets in which a split may be listed
DAVIS_RESOLUTION = "480p"  # where DAVIS comes in several resolutions, benchmarks use this one


def open_videos(root: Path, split: str) -> Lazy[AnnotatedVideo] | None:
    """The videos of a folder in DAVIS' layout, `JPEGImages/…/video/*.jpg` and `Annotations/…/video/*.png`; else None.

    A frame may lack its mask. Where `ImageSets` lists the split, only its videos count.
    """
    images, truth = (root / name for name in VIDEO_FOLDERS)
    folders = sorted({path.parent for path in truth.rglob("*.png")}) if images.is_dir() else []
    if not folders:
        return None
    names = [folder.relative_to(truth) for folder in folders]
    usual = [name for name in names if name.parts[0] == DAVIS_RESOLUTION]
    if usual and len({name.parent for name in names}) > 1:
        names = usual
    listed = _listed(root, split, {name.name for name in names}, "video with masks")
    names = [name for name in names if name.name in listed]
    if not names:
        raise MissingSplitError(f"{root} has no video of split={split}: ImageSets lists others.")
    return Lazy(names, partial(_load_video, images, truth))


def _load_video(images: Path, truth: Path, name: Path) -> AnnotatedVideo:
    files = frame_files(images / name)
    if not files:
        raise DataError(f"{images / name} holds no frame, but {truth / name} holds masks.")
    masks = {path.stem: path for path in (truth / name).glob("*.png")}
    numbers = object_numbers([read_index_mask(path) for path in masks.values()])
    labels = {stem: partial(read_index_labels, path, numbers) for stem, path in masks.items()}
    keys = [ImageFile(file, labels.get(file.stem), masks.get(file.stem)) for file in files]
    return AnnotatedVideo(name.as_posix(), Lazy(keys, ImageFile.load_frame))


def read_index_labels(path: Path, numbers: Sequence[int] | None = None) -> Labels:
    """The labels in an index mask: the objects in it, or those of a video by their numbers, on this frame or not."""
    index = read_index_mask(path)
    numbers = object_numbers([index]) if numbers is None else numbers
    ignored = [VOID] if VOID not in numbers and (index == VOID).any() else []
    return Labels(numbers, partial(_pixels_of, index), ignored=ignored)


def _pixels_of(index: np.ndarray, number: int, size: Size) -> np.ndarray:
    return index == number


def open_images(root: Path, split: str, source: str | Path | None = None) -> Lazy[AnnotatedImage] | None:
    """The images of `images` with masks of the same name in `masks`, or of VOC's folders; None where neither is.

    A folder named as the split in both, or a list in `ImageSets`, chooses; where there is neither, all count. `source`
    is where the images are, in place of `images`.
    """
    for images, truth in IMAGE_FOLDERS:
        folder = root / images if source is None else Path(source)
        masks = sorted((root / truth).rglob("*.png")) if folder.is_dir() else []
        if masks:
            part = _split_folder(folder, root / truth, split)
            masks = [mask for mask in masks if mask.is_relative_to(root / truth / part)]
            listed = _listed(root, split, {mask.stem for mask in masks}, "image with a mask")
            masks = [mask for mask in masks if mask.stem in listed]
            pairs = _pairs(folder / part, root / truth / part, masks)
            files = [ImageFile(file, partial(read_index_labels, mask), mask) for file, mask in pairs]
            return Lazy(files, ImageFile.load)
    return None


def _split_folder(images: Path, truth: Path, split: str) -> str:
    """The folder of a split, in the folders of images and masks; empty where they are not split."""
    there = [name for name in SPLITS if (images / name).is_dir() and (truth / name).is_dir()]
    if there and split not in there:
        raise MissingSplitError(f"{images} has no split={split}; it has {', '.join(there)}.")
    return split if there else ""


def _pairs(images: Path, truth: Path, masks: Sequence[Path]) -> list[tuple[Path, Path]]:
    found = (path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files = {path.relative_to(images).with_suffix(""): path for path in found}
    pairs = []
    for mask in masks:
        name = mask.relative_to(truth).with_suffix("")
        if name not in files:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{mask} has no image. Expected {images / name} with any of {suffixes}.")
        pairs.append((files[name], mask))
    return pairs


def _listed(root: Path, split: str, known: Collection[str], what: str) -> Collection[str]:
    """Those of the known names that `ImageSets` lists for a split; all where it lists none."""
    file = next((path for path in _lists(root, split) if path.is_file()), None)
    if file is None:
        return known
    lines = lines_of_list(file)
    chosen = [_names_in(line, known) for line in lines]
    if lost := [line for line, names in zip(lines, chosen, strict=True) if not names]:
        report_slip(f"{file}: {len(lost)} of {len(lines)} lines name no {what}: {names_of(lost)}.", DataError)
    return set().union(*chosen)


def _lists(root: Path, split: str) -> list[Path]:
    """Where a split may be listed."""
    return [root / "ImageSets" / folder / f"{split}.txt" for folder in SPLIT_FOLDERS]


def _names_in(line: str, known: Collection[str]) -> set[str]:
    """The known names that a line lists: one, which may hold spaces, or several words, such as VOC's `name 1`.

    Folders before a name and a suffix behind it are left out. A line of several paths is an image's and its mask's.
    """
    whole, pieces = [line], line.split()
    readings = [pieces, whole] if sum("/" in piece for piece in pieces) > 1 else [whole, pieces]
    found = ({name for text in texts if (name := _known_name(text, known))} for texts in readings)
    return next(filter(None, found), set())


def _known_name(text: str, known: Collection[str]) -> str | None:
    """The known name that a text is, with or without a suffix; a number behind a dot belongs to the name."""
    path = Path(text)
    names = [path.name] if path.suffix[1:].isdecimal() else [path.name, path.stem]
    return next((name for name in names if name in known), None)
