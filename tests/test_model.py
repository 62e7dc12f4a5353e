"""`SAM`, the model class, and what scripts do with its results."""

import copy
import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from ultralytics.engine.model import Model

from samplug import SAM, Predictor, PromptError, SAM2Predictor

BOXES = [[20, 30, 120, 140], [100, 60, 300, 200]]
EVENTS = [
    "on_predict_start",
    "on_predict_batch_start",
    "on_predict_postprocess_end",
    "on_predict_batch_end",
    "on_predict_end",
]


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(str(nano_file))


@pytest.fixture(scope="module")
def result(model, images):
    return model.predict(images[0], bboxes=BOXES, verbose=False, save=False)[0]


@pytest.fixture
def folder(images, tmp_path):
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"drawn_{i}.png"), image)
    return tmp_path


def clip(folder, image, frames=3):
    """A video of one image."""
    path = str(folder / "clip.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, image.shape[1::-1])
    for _ in range(frames):
        writer.write(image)
    writer.release()
    return path


@pytest.mark.host
def test_it_is_an_ultralytics_model(model):
    assert isinstance(model, Model) and model.task == "segment" and model.is_sam2
    assert model.task_map == {"segment": {"predictor": SAM2Predictor}}
    assert model.names == {} and issubclass(SAM2Predictor, Predictor)
    assert model.info(verbose=False) is None or len(model.info()) == 4


@pytest.mark.host
@pytest.mark.parametrize("kind", ["path", "array", "list", "glob", "folder"])
def test_sources_of_every_kind_give_a_result_an_image(model, folder, images, kind):
    source = {
        "path": str(folder / "drawn_0.png"),
        "array": images[0],
        "list": [str(folder / "drawn_0.png"), str(folder / "drawn_1.png")],
        "glob": str(folder / "*.png"),
        "folder": folder,
    }[kind]
    results = model(source, points=[40, 40], verbose=False)
    assert len(results) == {"path": 1, "array": 1, "list": 2, "glob": 3, "folder": 3}[kind]
    assert all(len(result) == 1 for result in results)


@pytest.mark.host
def test_a_stream_is_lazy_and_two_streams_do_not_meet(model, folder, images):
    one = model.predict(folder, points=[40, 40], stream=True, verbose=False)
    other = model.predict(folder, bboxes=[10, 10, 90, 80], stream=True, verbose=False)
    pairs = list(zip(one, other, strict=True))
    assert len(pairs) == 3
    expected = model.predict(images[1], points=[40, 40], verbose=False)[0]
    assert torch.equal(pairs[1][0].masks.data, expected.masks.data)


@pytest.mark.host
def test_prompts_do_not_leak_into_the_next_call(model, images):
    assert len(model.predict(images[0], bboxes=BOXES, verbose=False)[0]) == 2
    assert len(model.predict(images[0], conf_thres=9.0, points_stride=2, verbose=False)[0]) == 0


@pytest.mark.host
def test_results_do_what_scripts_ask_of_them(result, tmp_path):
    assert len(result) == 2 and result.boxes.xyxy.shape == (2, 4)
    for row, mask in zip(result.boxes.xyxy.int().tolist(), result.masks.data, strict=True):
        ys, xs = mask.nonzero(as_tuple=True)
        assert row == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] or row == [
            xs.min(),
            ys.min(),
            xs.max(),
            ys.max(),
        ]
    assert result.plot().shape == result.orig_img.shape
    assert [row["name"] for row in result.summary()] == ["0", "1"]
    assert [row["name"] for row in json.loads(result.to_json())] == ["0", "1"]
    result.save_txt(str(tmp_path / "labels.txt"))
    assert [line.split()[0] for line in (tmp_path / "labels.txt").read_text().splitlines()] == ["0", "1"]
    result.save(str(tmp_path / "drawn.jpg"))
    assert cv2.imread(str(tmp_path / "drawn.jpg")).shape == result.orig_img.shape
    result.save_crop(tmp_path / "crops", "drawn")
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == 2
    assert result[1:].boxes.cls.tolist() == [1] and result.cpu().masks.data.shape == result.masks.data.shape
    assert pickle.loads(pickle.dumps(result)).boxes.data.equal(result.boxes.data)
    assert len(copy.deepcopy(result).masks.xy) == 2


@pytest.mark.slow
def test_supervision_reads_results(result):
    supervision = pytest.importorskip("supervision")
    detections = supervision.Detections.from_ultralytics(result)
    assert detections.mask.shape == (2, 240, 320) and detections.class_id.tolist() == [0, 1]


@pytest.mark.host
def test_files_are_saved_where_yolo_saves_them(nano_file, folder, tmp_path):
    model = SAM(str(nano_file))
    where = {"project": str(tmp_path / "out"), "name": "run", "save": True, "save_txt": True, "verbose": False}
    model.predict(folder / "drawn_0.png", bboxes=BOXES, **where)
    model.predict(folder / "drawn_1.png", points=[40, 40], **where)
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["run/drawn_0.jpg", "run/drawn_1.jpg", "run/labels/drawn_0.txt", "run/labels/drawn_1.txt"]


@pytest.mark.host
def test_nothing_is_saved_unless_it_is_asked_for(model, images, tmp_path):
    model.predict(images[0], points=[40, 40], verbose=False, project=str(tmp_path / "out"))
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.host
def test_the_five_callbacks_fire_and_none_is_left_behind(nano_file, images):
    model = SAM(str(nano_file))
    seen = []
    for event in EVENTS:
        model.add_callback(event, lambda predictor, event=event: seen.append(event))
    before = {event: list(functions) for event, functions in model.callbacks.items()}
    model.predict(images[0], points=[40, 40], verbose=False)
    assert seen == EVENTS
    assert {event: list(functions) for event, functions in model.callbacks.items()} == before


@pytest.mark.host
def test_a_video_is_prompted_frame_by_frame_when_that_is_asked(model, images, tmp_path):
    path = clip(tmp_path, images[0])
    results = list(model.predict(path, bboxes=BOXES, track=False, stream=True, verbose=False))
    assert [len(result) for result in results] == [2, 2, 2] and results[0].boxes.id is None


@pytest.mark.host
def test_a_video_with_prompts_is_followed_and_the_log_says_so(model, images, tmp_path, capture_log):
    path = clip(tmp_path, images[0])
    for results in (model.predict(path, bboxes=BOXES, keep_lost=True), model.track(path, bboxes=BOXES, keep_lost=True)):
        assert [result.boxes.id.tolist() for result in results] == [[0, 1]] * 3
    assert sum("through memory" in line for line in capture_log) == 2
    model.predict(path, bboxes=BOXES, track=False)
    assert "Prompting every frame alone, without memory." in capture_log


@pytest.mark.host
def test_trackers_give_ids_that_belong_to_their_rows(nano_file, images):
    pytest.importorskip("lap")
    model = SAM()
    discs = [(70, 80), (200, 150)]
    seen = {}
    for step, order in enumerate([(0, 1), (0, 1), (1, 0), (0, 1), (1, 0)]):
        image = np.full((240, 320, 3), 60, np.uint8)
        centres = [(x + 4 * step, y - 3 * step) for x, y in discs]
        for (x, y), colour in zip(centres, ((40, 200, 220), (220, 60, 40)), strict=True):
            cv2.circle(image, (x, y), 30, colour, -1)
        boxes = [[x - 31, y - 31, x + 31, y + 31] for x, y in (centres[i] for i in order)]
        said = {"bboxes": boxes, "track": False, "persist": True, "tracker": "bytetrack.yaml", "verbose": False}
        result = model.track(image, **said)[0]
        assert result.boxes.is_track and len(result.masks.data) == len(result.boxes) == 2
        for mask, obj_id in zip(result.masks.data, result.boxes.id.tolist(), strict=True):
            (disc,) = [i for i, (x, y) in enumerate(centres) if mask[y, x]]
            seen.setdefault(obj_id, set()).add(disc)
    assert sorted(map(tuple, seen.values())) == [(0,), (1,)]  # whatever the order of the rows, and they moved


@pytest.mark.host
def test_ultralytics_own_model_class_runs_our_predictor(nano_file, images, model):
    """A host model holding one of our networks, as `ultralytics.SAM(...).predict(predictor=…)` holds its own."""
    stock = Model.__new__(SAM)
    stock.__dict__.update(model.__dict__)
    results = Model.predict(
        stock, images[0], predictor=SAM2Predictor, prompts={"bboxes": BOXES}, imgsz=256, verbose=False
    )
    assert len(results[0]) == 2  # the host's own conf=0.25 drops nothing


@pytest.mark.slow
def test_ultralytics_own_sam_is_taken_over(tmp_path, images):
    import ultralytics

    from samplug.benchmark.weights import randomise
    from samplug.checkpoints.config import build

    weights = randomise(build({"variant": "mobile_sam"})).state_dict()
    torch.save(weights, tmp_path / "mobile_sam.pt")
    stock = ultralytics.SAM(str(tmp_path / "mobile_sam.pt"))
    theirs = stock.predict(images[0], bboxes=BOXES, verbose=False, conf=0, imgsz=1024)[0]
    ours = stock.predict(images[0], bboxes=BOXES, predictor=Predictor, verbose=False, imgsz=1024)[0]
    assert len(ours) == 2
    assert (theirs.masks.data.bool() == ours.masks.data).float().mean() > 0.999


def test_wrong_calls_say_what_is_right(model, images):
    with pytest.raises(PromptError, match="bboxes"):
        model.predict(images[0], boxes=BOXES)
    with pytest.raises(ValueError, match="yaml"):
        SAM("sam2.yaml")
    with pytest.raises(NotImplementedError, match="yet"):
        model.export()


def test_an_embedding_stands_in_for_the_encoder(model, images):
    embedding = model.embed(images[0])
    expected = model.predict(images[0], bboxes=BOXES, verbose=False)[0]
    result = model.predict(images[0], bboxes=BOXES, embedding=embedding, verbose=False)[0]
    assert torch.equal(result.masks.data, expected.masks.data)
    blind = model.predict(bboxes=BOXES, embedding=embedding, verbose=False)[0]
    assert torch.equal(blind.masks.data, expected.masks.data) and not blind.orig_img.any()


def test_threads_share_one_model(model, images):
    from concurrent.futures import ThreadPoolExecutor

    def run(i):
        return model.predict(images[i % 3], points=[40, 40], verbose=False)[0].masks.data.numpy()

    expected = [run(i) for i in range(3)]
    with ThreadPoolExecutor(4) as pool:
        for i, masks in enumerate(pool.map(run, range(12))):
            assert np.array_equal(masks, expected[i % 3])
