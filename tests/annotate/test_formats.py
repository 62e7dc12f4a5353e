"""Labels: every format there and back, classes right, filters without a network."""

import csv
import inspect
import json

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from support.videos import film, write_video

import samplug
from samplug import annotate
from samplug.annotate import job as job_module
from samplug.annotate.filters import class_table
from samplug.annotate.records import RecordFolder
from samplug.annotate.review.table import review_rows
from samplug.annotate.settings import Settings
from samplug.data.formats import WRITERS, read_labels
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.data.help import LABEL_FORMATS
from samplug.data.open import open_data
from samplug.masks.rle import rle_decode, rle_encode
from samplug.train.data.sets import open_sets
from samplug.train.settings import TrainSettings


def object_record(mask, number=0, name="cat", **given):
    mask = np.asarray(mask, bool)
    rows, columns = np.nonzero(mask)
    box = (0, 0, 0, 0) if not len(rows) else (*(columns.min(), rows.min()), *(columns.max() + 1, rows.max() + 1))
    values = {"iou": 0.9, "area": int(mask.sum()), "box": tuple(float(side) for side in box)}
    return ObjectRecord(cls=number, name=name, rle=rle_encode(mask), **{**values, **given})


def masks(count=4, size=(40, 50)):
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(size=size), (0, 0), 3) for _ in range(count)]
    return [each > np.quantile(each, 0.7) for each in noise]


@pytest.fixture
def written(job, monkeypatch):
    """A job whose records are what a test says: the masks of its first image."""

    def write(records, **given):
        done = job()
        folder = RecordFolder(done.out / "records")
        for shard in done.shards:
            folder.write(shard.id, [record for record in records if record.source in [s.name for s in shard.sources]])
        monkeypatch.setattr(job_module, "annotate_shards", lambda *given: pytest.fail("a network was loaded"))
        return job(**given)

    return write


def test_yolo_labels_are_a_data_set_that_ultralytics_opens(job):
    done = job(format="yolo")
    found = open_data(done.out / "data.yaml")
    assert sorted(image.name for image in found.images) == ["image1.png", "image1.png", "image2.png", "image4.png"]
    names = yaml.safe_load((done.out / "data.yaml").read_text())["names"]
    assert names == {0: "cat", 1: "dog"}


@pytest.mark.host
@pytest.mark.parametrize("name, data", [("yolo", "data.yaml"), ("coco", "annotations.json"), ("png", "")])
def test_what_was_annotated_is_trained_on_as_it_is(job, folder, name, data):
    done = job(format=name)
    source = None if name == "yolo" else str(folder)
    sets = open_sets(TrainSettings(data=str(done.out / data), source=source, verbose=False), (64, 64))
    found = {file.path.resolve() for part in (sets.train, sets.val) for file in part.images.keys}
    truth = {(folder / record.source).resolve() for record in done.records() if record.objects}
    assert found == truth and len(sets.val.images) == 1 and "held out" in sets.lines[0]


def test_yolo_rows_draw_the_records_masks(written):
    shapes = masks()
    done = written([ImageRecord("image0.png", (40, 50), None, tuple(object_record(mask) for mask in shapes))])
    drawn = np.zeros((40, 50), np.uint8)
    for row in (done.out / "labels" / "image0.txt").read_text().splitlines():
        points = np.array(row.split()[1:], np.float32).reshape(-1, 2) * (50, 40)
        cv2.fillPoly(drawn, [points.astype(np.int32)], 1)
    assert np.array_equal(drawn > 0, np.any(shapes, 0))
    assert (done.out / "images" / "image0.png").resolve().is_file()


def test_an_image_without_objects_has_an_empty_label(job):
    assert (job().out / "labels" / "image0.txt").read_text() == ""


def test_coco_gives_every_pixel_class_and_score_back(job):
    done = job(format="coco")
    content = json.loads((done.out / "annotations.json").read_text())
    files = {image["id"]: image["file_name"] for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = [(files[row["image_id"]], names[row["category_id"]], row) for row in content["annotations"]]
    truth = [(record.source, each.name, each) for record in done.records() for each in record.objects]
    assert len(files) == 7 and [row[:2] for row in found] == [row[:2] for row in truth]
    for (_, _, row), (_, _, each) in zip(found, truth, strict=True):
        assert np.array_equal(rle_decode(row["segmentation"]), each.mask)
        left, top, right, bottom = each.box
        assert row["bbox"] == pytest.approx([left, top, right - left, bottom - top]) and row["iscrowd"] == 0
        assert row["score"] == each.iou and row["area"] == each.area


def test_coco_is_what_pycocotools_reads(job):
    tools = pytest.importorskip("pycocotools.coco")
    done = job(format="coco")
    coco = tools.COCO(str(done.out / "annotations.json"))
    truth = [each for record in done.records() for each in record.objects]
    for row, each in zip(coco.loadAnns(coco.getAnnIds()), truth, strict=True):
        assert np.array_equal(coco.annToMask(row).astype(bool), each.mask)


def test_an_index_mask_gives_the_likelier_object_what_two_share(written):
    first, second = masks(2)
    rows = (object_record(first, iou=0.9), object_record(second, iou=0.4))
    done = written([ImageRecord("image0.png", (40, 50), None, rows)], format="png")
    image = Image.open(done.out / "masks" / "image0.png")
    indices = np.asarray(image)
    assert np.array_equal(indices == 1, first) and np.array_equal(indices == 2, second & ~first)
    assert image.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]  # DAVIS' first colours


def test_frames_keep_ids_and_numbers(written):
    mask = masks(1)[0]
    frames = [ImageRecord("image0.png", (40, 50), frame, (object_record(mask, id=7),)) for frame in (0, 3)]
    done = written(frames, format="png,coco,yolo")
    assert set(np.unique(np.asarray(Image.open(done.out / "masks" / "image0" / "000003.png")))) == {0, 7}
    assert (done.out / "labels" / "image0" / "000003.txt").read_text()
    content = json.loads((done.out / "annotations.json").read_text())
    assert [image["frame"] for image in content["images"]] == [0, 3]
    assert [row["track_id"] for row in content["annotations"]] == [7, 7]


def test_ids_that_are_no_index_get_a_free_one_for_the_whole_video(written):
    shapes = [np.zeros((40, 50), bool) for _ in range(3)]
    for i, shape in enumerate(shapes):
        shape[10 * i : 10 * i + 5] = True
    ids = [(0, 1, 900), (900, 1, 0)]
    frames = [
        ImageRecord("image0.png", (40, 50), n, tuple(object_record(shapes[ids[0].index(i)], id=i) for i in row))
        for n, row in enumerate(ids)
    ]
    done = written(frames, format="png")
    first, second = (np.asarray(Image.open(done.out / "masks" / "image0" / f"{n:06d}.png")) for n in (0, 1))
    assert np.array_equal(first, second) and set(np.unique(first)) == {0, 1, 2, 3}


def test_a_dropped_mask_in_the_middle_shifts_no_class_and_gaps_in_numbers_stay(written):
    """Ultralytics' auto_annotate indexes its classes with the rows that are left."""
    shapes = masks(3)
    rows = [
        object_record(shapes[0], 2, "car"),
        object_record(shapes[1], 5, "bus", iou=0.1),
        object_record(shapes[2], 7, "truck"),
    ]
    done = written([ImageRecord("image0.png", (40, 50), None, tuple(rows))], min_iou=0.5, format="yolo,coco")
    lines = (done.out / "labels" / "image0.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"2", "7"}
    names = yaml.safe_load((done.out / "data.yaml").read_text())["names"]
    assert list(names) == list(range(8)) and (names[2], names[7]) == ("car", "truck")
    content = json.loads((done.out / "annotations.json").read_text())
    table = {category["id"]: category["name"] for category in content["categories"]}
    assert [table[row["category_id"]] for row in content["annotations"]] == ["car", "truck"]


def test_classes_are_renamed_joined_and_dropped_by_name(written):
    shapes = masks(3)
    rows = [object_record(m, i, name) for i, (m, name) in enumerate(zip(shapes, ("car", "van", "dog"), strict=True))]
    names = {"car": "vehicle", "van": "vehicle", "dog": None}
    done = written([ImageRecord("image0.png", (40, 50), None, tuple(rows))], class_names=names, format="coco")
    content = json.loads((done.out / "annotations.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["vehicle"]
    assert len(content["annotations"]) == 2


def test_two_names_of_one_number_get_numbers_of_their_own():
    rows = (object_record(masks(1)[0], 0, "cat"), object_record(masks(1)[0], 0, "dog"))
    table = class_table(lambda: iter([ImageRecord("a", (40, 50), None, rows)]), Settings())
    assert table == {"cat": 0, "dog": 1}


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ({"min_iou": 0.5}, {"iou": 0.4}),
        ({"min_stability": 0.5}, {"stability": 0.4}),
        ({"min_presence": 0.0}, {"presence": -1.0}),
        ({"min_area": 10_000}, {}),
        ({"min_agreement": 0.5}, {"agreement": 0.4}),
        ({"class_names": {"cat": None}}, {}),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else None,
)
def test_each_filter_drops_from_the_labels_and_not_from_the_records(written, setting, values):
    mask = masks(1)[0]
    record = ImageRecord("image0.png", (40, 50), None, (object_record(mask, **values),))
    done = written([record], **setting)
    assert (done.out / "labels" / "image0.txt").read_text() == ""
    assert len(next(done.records()).objects) == 1
    rows = list(csv.DictReader((done.out / "review.csv").read_text("utf-8").splitlines()))
    assert rows[0]["dropped"] == {"class_names": "class"}.get(next(iter(setting)), next(iter(setting))[4:])
    assert written([record]).out.joinpath("labels", "image0.txt").read_text()


def test_the_review_list_begins_with_the_riskiest(job):
    done = job(review=3)
    rows = list(csv.DictReader((done.out / "review.csv").read_text("utf-8").splitlines()))
    risks = sorted((row.risk for row in review_rows(done.records(), done.settings)), reverse=True)
    assert [float(row["risk"]) for row in rows] == pytest.approx(risks[:3], abs=1e-4)


def test_labels_that_cannot_be_written_leave_those_before(job, monkeypatch):
    done = job()
    before = (done.out / "labels" / "image1.txt").read_text()
    monkeypatch.setattr("samplug.data.formats.yolo.yolo_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job()
    assert (done.out / "labels" / "image1.txt").read_text() == before and not (done.out / ".export").exists()


def test_wrong_formats_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="format=voc: give some of yolo,coco,png"):
        Settings.read({"format": "yolo,voc"})
    with pytest.raises(ValueError, match="K/N"):
        Settings.read({"part": "4/3"})


@pytest.mark.slow
def test_ultralytics_trains_an_epoch_on_what_came_out(job, tmp_path):
    from ultralytics import YOLO

    done = job()
    model = YOLO("yolo11n-seg.yaml")
    options = {"epochs": 1, "imgsz": 64, "batch": 2, "workers": 0, "plots": False, "device": "cpu", "amp": False}
    model.train(data=str(done.out / "data.yaml"), project=str(tmp_path / "runs"), **options)
    assert list((tmp_path / "runs").rglob("last.pt"))


def test_every_format_is_written_from_records_alone(written, tmp_path):
    shapes = masks(2)
    records = [
        ImageRecord("image0.png", (40, 50), None, (object_record(shapes[0]), object_record(shapes[1], 3, "dog")))
    ]
    formats = [name for name in LABEL_FORMATS if name != "parquet"]
    done = written(records, format=formats, class_names={"dog": "wolf & co"})
    assert all((done.out / WRITERS[name].place).exists() for name in formats)
    for place in ("cvat.xml", "datumaro.json", "label_studio/tasks.json"):
        found = [each for record in read_labels(done.out / place) for each in record.objects]
        assert [each.name for each in found] == ["cat", "wolf & co"], place
        assert all(np.array_equal(each.mask, shape) for each, shape in zip(found, shapes, strict=True)), place


@pytest.mark.parametrize("place", ["cvat.xml", "datumaro.json", "label_studio/tasks.json"])
def test_labels_of_other_tools_prompt_a_job(job, place, tmp_path):
    done = job(format="cvat,datumaro,labelstudio")
    truth = {r.source: [(each.name, each.box) for each in r.objects] for r in done.records() if r.objects}
    again = job(out="again", prompter=str(done.out / place))
    found = {r.source: [(each.name, each.prompt_box) for each in r.objects] for r in again.records() if r.objects}
    visible = {name: [row for row in rows if row[1] != (0, 0, 0, 0)] for name, rows in truth.items()}
    wanted = {name: rows for name, rows in visible.items() if rows}
    assert wanted and {name: sorted(rows) for name, rows in found.items() if name in wanted} == {
        name: sorted(rows) for name, rows in wanted.items()
    }


def test_frames_are_written_where_training_needs_them(nano_file, tmp_path):
    write_video(tmp_path / "film.avi", film())
    box = {"prompter": lambda image: np.array([[30, 20, 70, 60]]), "model": str(nano_file), "imgsz": 64}
    done = annotate(str(tmp_path / "film.avi"), out=str(tmp_path / "out"), save_frames=True, verbose=False, **box)
    assert sorted(path.name for path in (done.out / "images" / "film").iterdir()) == [f"{i:06d}.jpg" for i in range(8)]
    shown = cv2.imread(str(done.out / "images" / "film" / "000005.jpg"))
    assert np.abs(shown.astype(int) - film()[5]).mean() < 8
    assert (done.out / "labels" / "film" / "000005.txt").exists()


@pytest.mark.host
def test_auto_annotate_has_ultralytics_arguments():
    from ultralytics.data.annotator import auto_annotate as theirs

    ours, theirs = (inspect.signature(function).parameters for function in (samplug.auto_annotate, theirs))
    assert list(ours) == list(theirs)
    assert {name: each.default for name, each in ours.items() if name != "det_model"} == {
        name: each.default for name, each in theirs.items() if name != "det_model"
    }  # the default detector is that of the year
