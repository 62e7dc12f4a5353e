"""Other people's readers of our labels: the same masks. Each runs where its package is installed."""

import json

import numpy as np
import pytest
from support.labels.records import random_mask, records, write

from samplug.data.formats.cvat import cvat_mask
from samplug.data.formats.label_studio import pack_brush, unpack_brush

SEEDS = range(4)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),  # pycocotools 2.0.11
]


def truth_of(seed):
    return [each for record in records(seed) for each in record.objects]


@pytest.mark.parametrize("package", ["pycocotools.coco", "faster_coco_eval"])
@pytest.mark.parametrize("name", ["coco", "lvis"])
def test_coco_tools_read_the_masks(name, package, tmp_path):
    tools = pytest.importorskip(package)
    for seed in SEEDS:
        (tmp_path / str(seed)).mkdir()
        coco = tools.COCO(str(write(name, tmp_path / str(seed), records(seed))))
        rows = coco.loadAnns(coco.getAnnIds())
        truth = truth_of(seed)
        assert len(rows) == len(truth)
        for row, each in zip(rows, truth, strict=True):
            assert np.array_equal(coco.annToMask(row).astype(bool), each.mask)
            assert coco.cats[row["category_id"]]["name"] == each.name


def test_the_run_lengths_of_videos_are_pycocotools(tmp_path):
    mask_tools = pytest.importorskip("pycocotools.mask")
    content = json.loads(write("burst", tmp_path, records(0)).read_text())
    for video in content["sequences"]:
        for masks in video["segmentations"]:
            for row in masks.values():
                rle = {"size": [video["height"], video["width"]], "counts": row["rle"]}
                assert mask_tools.decode(rle).any()


def test_supervision_reads_coco(tmp_path):
    sv = pytest.importorskip("supervision")
    import cv2

    given = records(1)
    file = write("coco", tmp_path, given)
    for image in json.loads(file.read_text())["images"]:
        path = tmp_path / "images" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((image["height"], image["width"], 3), np.uint8))
    found = sv.DetectionDataset.from_coco(str(tmp_path / "images"), str(file), force_masks=True)
    rows = [(found.classes[c], m) for _, _, d in found if len(d) for c, m in zip(d.class_id, d.mask, strict=True)]
    assert [name for name, _ in rows] == [each.name for each in truth_of(1)]
    assert all(np.array_equal(mask, each.mask) for (_, mask), each in zip(rows, truth_of(1), strict=True))


def test_cvat_packs_a_mask_as_we_do():
    masks = pytest.importorskip("cvat_sdk.masks")
    for seed in SEEDS:
        mask = random_mask(np.random.default_rng(seed), (50, 70))
        made = cvat_mask(mask)
        box = [made["left"], made["top"], made["left"] + made["width"] - 1, made["top"] + made["height"] - 1]
        assert masks.encode_mask(mask) == [*map(float, made["rle"].split(",")), *map(float, box)]


def test_label_studio_unpacks_our_brush_and_we_its():
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    for seed in SEEDS:
        mask = random_mask(np.random.default_rng(seed), (50, 70))
        theirs = np.reshape(brush.decode_rle(pack_brush(mask)), (50, 70, 4))
        assert np.array_equal(theirs[..., 3] > 0, mask)
        assert np.array_equal(unpack_brush(brush.mask2rle(mask.astype(np.uint8) * 255), mask.shape), mask)


def test_datumaro_reads_its_format(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    (tmp_path / "annotations").mkdir()
    write("datumaro", tmp_path, records(0)).rename(tmp_path / "annotations" / "train.json")
    found = datumaro.Dataset.import_from(str(tmp_path), "datumaro")
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    rows = [(names[row.label], np.asarray(row.image, bool)) for item in found for row in item.annotations]
    assert sorted((name, mask.tobytes()) for name, mask in rows) == sorted(
        (each.name, each.mask.tobytes()) for each in truth_of(0)
    )
