"""Readers of formats that the package writes alone: label files as (class, pixels, id in a video) by image."""

import json
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from samplug.data.formats import read_labels
from samplug.data.formats.base import image_name
from samplug.masks.rle import rle_decode


def stem(name):
    return str(PurePosixPath(name).with_suffix(""))


def by_key(rows):
    """Rows (key, class, mask, id), and keys without any, gathered."""
    found = {}
    for key, *row in rows:
        found.setdefault(key, [])
        if row:
            name, mask, track = row
            found[key].append((name, mask.tobytes(), track))
    return {key: sorted(few, key=str) for key, few in found.items()}


def names_of(content):
    return {each["id"]: each["name"] for each in content["categories"]}


def coco(path):
    content = json.loads(path.read_text())
    files, names = {image["id"]: stem(image["file_name"]) for image in content["images"]}, names_of(content)
    for file in files.values():
        yield (file,)
    for row in content["annotations"]:
        yield files[row["image_id"]], names[row["category_id"]], rle_decode(row["segmentation"]), row.get("track_id")


def ytvis(path):
    content = json.loads(path.read_text())
    videos, names = {video["id"]: video for video in content["videos"]}, names_of(content)
    for video in videos.values():
        assert video["length"] == len(video["file_names"])
        yield from ((stem(file),) for file in video["file_names"])
    for row in content["annotations"]:
        video = videos[row["video_id"]]
        is_image = video["file_names"] == [video["name"]]
        for file, rle in zip(video["file_names"], row["segmentations"], strict=True):
            if rle:
                yield stem(file), names[row["category_id"]], rle_decode(rle), None if is_image else row["track_id"]


def burst(path):
    content = json.loads(path.read_text())
    names = names_of(content)
    for video in content["sequences"]:
        size, files = (video["height"], video["width"]), video["annotated_image_paths"]
        for file, masks in zip(files, video["segmentations"], strict=True):
            yield (stem(file),)
            for track, row in masks.items():
                name = names[video["track_category_ids"][track]]
                obj_id = None if files == [video["seq_name"]] else int(track) - 1
                yield stem(file), name, rle_decode({"size": size, "counts": row["rle"]}), obj_id


def mots(folder):
    names = json.loads((folder / "classes.json").read_text())
    for file in sorted(folder.rglob("*.txt")):
        source = file.relative_to(folder).with_suffix("").as_posix()
        for line in file.read_text().splitlines():
            frame, track, number, height, width, counts = line.split(" ")
            assert int(track) // 1000 == int(number)
            mask = rle_decode({"size": [int(height), int(width)], "counts": counts})
            is_image = "photo" in source
            key = source if is_image else f"{source}/{int(frame):06d}"
            yield key, names[number], mask, None if is_image else int(track) % 1000


def sa(folder):
    for file in sorted(folder.rglob("*.json")):
        content = json.loads(file.read_text())
        if "image" in content:
            key = stem(content["image"]["file_name"])
            yield (key,)
            for row in content["annotations"]:
                yield key, row["class"], rle_decode(row["segmentation"]), None
            continue
        for name, masks in zip(content["annotated_frames"], content["masklet"], strict=True):
            yield (stem(name),)
            for cls, track, rle in zip(content["masklet_class"], content["masklet_id"], masks, strict=True):
                if (mask := rle_decode(rle)).any():
                    yield stem(name), cls, mask, track


def png(folder):
    """Classes of a video's objects are in meta.json, by their index: the id, where that is up to 255."""
    meta = folder / "meta.json"
    videos = json.loads(meta.read_text())["videos"] if meta.exists() else {}
    of_folder = {stem(name): entry["objects"] for name, entry in videos.items()}
    for file in folder.rglob("*.png"):
        index, key = np.asarray(Image.open(file)), file.relative_to(folder).with_suffix("").as_posix()
        objects = of_folder.get(str(PurePosixPath(key).parent))
        yield (key,)
        for number in np.unique(index[index > 0]).tolist():
            name, track = (objects[str(number)]["category"], number) if objects else (None, None)
            yield key, name, index == number, track


def parquet(path):
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for row in table.read().to_pylist():
            key, size = stem(row["file_name"]), (row["height"], row["width"])
            yield (key,)
            for each in row["objects"]:
                yield key, each["class"], rle_decode({"size": size, "counts": each["rle"]}), each["track_id"]


def ours(path):
    for record in read_labels(path / "tasks.json" if path.is_dir() else path):
        key = stem(image_name(record))
        yield (key,)
        for each in record.objects:
            yield key, each.name, each.mask, each.id


READERS = {
    "coco": coco, "lvis": coco, "ytvis": ytvis, "burst": burst, "mots": mots, "sa": sa, "png": png,
    "cvat": ours, "labelstudio": ours, "datumaro": ours, "parquet": parquet,
}  # fmt: skip
