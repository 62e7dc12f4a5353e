"""Every option of the table of arguments changes something: ignored, it fails here. The shell hands each of them on."""

import itertools
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.images import draw

from samplug import SAM, SAM2DynamicInteractivePredictor
from samplug.arguments import OWN
from samplug.cli import modes
from samplug.predict.auto import generator
from samplug.runtime import compute
from samplug.tracking import Reference, policy_of

IMAGE = draw(96, 160, 1)
FRAMES = [np.roll(IMAGE, 6 * i, 1) for i in range(5)]
SCENE = cv2.imread(str(Path(__file__).parents[1] / "examples/pictures/scene.jpg"))
BOX, OTHER, LAST = [30, 20, 70, 60], [60, 30, 110, 80], [100, 10, 150, 60]
MASK = np.zeros((96, 160), bool)
MASK[20:60, 30:70] = True
CLICK = {"points": [[40, 30]]}
BOXES = {"bboxes": [BOX, OTHER, LAST]}
EVERYTHING = {"points_stride": 6, "imgsz": 256}
CROPS = {**EVERYTHING, "crop_n_layers": 1}
TILES = {**EVERYTHING, "tile": 200, "points_stride": 3}
TURNS = {"prompter": lambda frame: np.array([BOX, OTHER], float) + 8 * (frame[0, 0, 0] % 3)}
BY_FRAME = {"prompts": {i: {7: {"bboxes": [box]}} for i, box in enumerate([BOX, OTHER, LAST, BOX])}}


class Forgetful(Reference):
    """Remembers prompted frames alone."""

    def observe(self, frame, output, answer):
        return False


# Of each option: the call, its other options, and the value that must change the answer.
CALLS = {
    "points": ("predict", {"points_stride": 2}, [[40, 30]]),
    "labels": ("predict", {"points": [[[40, 30], [100, 60]]]}, [[1, 0]]),
    "bboxes": ("predict", CLICK, [BOX]),
    "masks": ("predict", {"bboxes": [BOX]}, MASK),
    "prompts": ("predict", {"points_stride": 2}, {"bboxes": [BOX]}),
    "cls": ("predict", CLICK, [5]),
    "names": ("predict", CLICK, ["thing"]),
    "obj_ids": ("track", CLICK, [77]),
    "embedding": ("predict", CLICK, "another image"),
    "multimask": ("predict", CLICK, "all"),
    "multimask_output": ("predict", CLICK, True),
    "logits": ("predict", CLICK, True),
    "fill_holes": ("predict", BOXES, 1000),
    "min_area": ("predict", BOXES, 1000),
    "non_overlap": ("predict", BOXES, True),
    "resize": ("predict", CLICK, "stretch"),
    "track": ("predict", {**CLICK, "source": FRAMES}, True),
    "keep_lost": ("lost", {}, True),
    "keep_corrections": ("corrected", {"bboxes": [BOX]}, True),
    "save_format": ("saved", {"bboxes": [BOX]}, "mots"),
    "save_ids": ("saved", {"bboxes": [BOX]}, False),
    "expire_after": ("lost", {}, 1),
    "prompter": ("predict", CLICK, lambda frame: [OTHER]),
    "prompt_every": ("track", TURNS, 2),
    "iou_match": ("track", {**TURNS, "prompt_every": 1}, 1e-6),
    "max_objects": ("track", TURNS, 1),
    "max_prompted": ("track", BY_FRAME, 2),
    "policy": ("track", CLICK, Forgetful),
    "start": ("track", CLICK, 2),
    "reverse": ("track", CLICK, True),
    "on_error": ("predict", {**CLICK, "source": [IMAGE, "nowhere.jpg"]}, "raise"),
    "strict": ("predict", {"points": [[0.4, 0.3]]}, True),
    "update_memory": ("predict", {**CLICK, "obj_ids": [3], "predictor": SAM2DynamicInteractivePredictor}, True),
    "bf16": ("predict", CLICK, True),
    "compile": ("predict", CLICK, True),
    "channels_last": ("predict", CLICK, True),
    "threads": ("predict", CLICK, 3),
    "points_stride": ("everything", EVERYTHING, 4),
    "points_batch_size": ("everything", EVERYTHING, 5),
    "point_grids": ("everything", EVERYTHING, [np.array([[0.3, 0.3], [0.6, 0.5]])]),
    "conf_thres": ("everything", EVERYTHING, 0.8),
    "stability_score_thresh": ("everything", EVERYTHING, 0.9),
    "stability_score_offset": ("everything", EVERYTHING, 3.0),
    "crop_n_layers": ("everything", EVERYTHING, 1),
    "crop_overlap_ratio": ("everything", CROPS, 0.9),
    "crop_downscale_factor": ("everything", CROPS, 2),
    "crop_nms_thresh": ("everything", CROPS, 0.1),
    "min_mask_region_area": ("everything", EVERYTHING, 300),
    "tile": ("everything", EVERYTHING, 200),
    "overlap": ("everything", TILES, 0.5),
    "rules": ("everything", EVERYTHING, "meta"),
    "outlines": ("everything", EVERYTHING, "grid"),
}
SECOND = [  # pairs that once were ignored together
    ("predict", {**BOXES, "non_overlap": True}, {"min_area": 1000}),
    ("predict", {**BOXES, "non_overlap": True}, {"fill_holes": 1000}),
    ("everything", TILES, {"overlap": 0.0}),
    ("predict", CLICK, {"resize": "pad"}),
    ("predict", CLICK, {"imgsz": (128, 256)}),
    ("predict", {**CLICK, "imgsz": (128, 256)}, {"imgsz": (256, 128)}),
    ("predict", {**CLICK, "imgsz": (128, 256)}, {"imgsz": 256}),
    ("predict", BOXES, {"classes": [1]}),
    ("predict", {**BOXES, "cls": [4, 5, 6]}, {"conf": 0.9}),
    ("everything", EVERYTHING, {"iou": 0.1}),
    ("track", CLICK, {"vid_stride": 2}),
    *(("track", CLICK, {"policy": name}) for name in ("motion", "presence", "distractors", "hybrid")),
]


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(str(nano_file))


@pytest.fixture(scope="module")
def bundled():
    return SAM()


@pytest.fixture
def answer(model, bundled, monkeypatch, tmp_path):
    """What a call gives, with how it was computed; an error counts as an answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compute, "compiled", lambda network, *_: (network, ""))
    batches, threads, policies = [], [], []

    class Batch(generator.AdaptiveBatch):
        def __init__(self, size, what):
            batches.append(size)
            super().__init__(size, what)

    monkeypatch.setattr(generator, "AdaptiveBatch", Batch)
    monkeypatch.setattr(
        "samplug.predict.video.predictor.tracking.policy_of", lambda given: policies.append(given) or policy_of(given)
    )
    folders = itertools.count()

    def ask(call, options):
        given = {"imgsz": 128, "verbose": False, **options}
        if given.get("embedding"):
            given["embedding"] = model.embed(FRAMES[1], imgsz=128, verbose=False)
        source = given.pop("source", None)
        folder = tmp_path / str(next(folders))
        batches.clear(), threads.clear(), policies.clear()
        hook = model.model.image_encoder.register_forward_pre_hook(lambda *_: threads.append(torch.get_num_threads()))
        try:
            if call == "predict":
                results = model.predict(IMAGE if source is None else source, **given)
            elif call == "track":
                results = model.track(FRAMES, **given)
            elif call == "lost":
                white = np.full_like(SCENE, 255)
                given = {**given, "points": [[235, 77]], "imgsz": 256}
                results = bundled.track([SCENE, white, white, white, SCENE], **given)
            elif call == "corrected":
                results = []
                for result in model.track(FRAMES, stream=True, **given):
                    results.append(result)
                    if result.frame == 1:
                        model.predictor.add_new_prompts(0, points=[[120, 40]])
            elif call == "everything":
                results = bundled.predict(SCENE, **given)
            else:
                model.track(FRAMES, project=str(folder), name="out", save_txt=True, **given)
                return sorted(file.read_text() for file in folder.rglob("*.txt"))
        except Exception as error:
            return type(error).__name__
        finally:
            hook.remove()
        how = [str(model.predictor.compute_options)] if call in ("predict", "track") else []
        return [*how, *batches[:1], *threads[:1], *map(str, policies), *map(described, results)]

    return ask


def described(result):
    """Everything in a result that an option can change, as text."""
    logits = getattr(result, "logits", None)
    return str(
        (
            result.masks.data.shape,
            np.packbits(np.asarray(result.masks.data, bool)).tobytes(),
            result.boxes.data.tolist(),
            result.names,
            getattr(result, "frame", None),
            logits is not None,
        )
    )


def test_there_is_a_call_for_every_option_of_the_table():
    assert set(CALLS) == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_an_option_changes_the_answer(answer, name):
    call, others, value = CALLS[name]
    assert answer(call, {**others, name: value}) != answer(call, others)


@pytest.mark.parametrize(
    ("call", "others", "more"), SECOND, ids=[f"{i}-{list(case[2])[0]}" for i, case in enumerate(SECOND)]
)
def test_options_change_the_answer_beside_others(answer, call, others, more):
    assert answer(call, {**others, **more}) != answer(call, others)


@pytest.mark.parametrize("name", ["save_dir", "project", "name"])
@pytest.mark.parametrize("persist", [False, True])
def test_a_folder_that_is_named_on_a_later_call_is_the_runs(model, tmp_path, persist, name):
    ask = partial(model.track, persist=True) if persist else model.predict
    given = {"bboxes": [BOX], "imgsz": 128, "verbose": False, "save_txt": True, "project": str(tmp_path / "first")}
    ask(IMAGE, **given)
    first = set(tmp_path.rglob("*.txt"))
    ask(IMAGE, **given | {name: "own" if name == "name" else str(tmp_path / "own")})
    (written,) = set(tmp_path.rglob("*.txt")) - first
    assert first and "own" in written.parts


def test_the_same_call_has_the_same_answer(answer):
    for call, options in (("predict", BOXES), ("everything", CROPS), ("track", CLICK), ("saved", {"bboxes": [BOX]})):
        assert answer(call, options) == answer(call, options)


WORDS = {  # a value of each option as it is typed, and as it arrives; others are numbers and switches
    "masks": ("mask.png", "mask.png"),
    "prompts": ("p.json", "p.json"),
    "embedding": ("e.npz", "e.npz"),
    "prompter": ("yolo11n.pt", "yolo11n.pt"),
    "names": ("['a']", ["a"]),
    "point_grids": ("[[[0.5,0.5]]]", [[[0.5, 0.5]]]),
    "policy": ("motion", "motion"),
    "resize": ("pad", "pad"),
    "save_format": ("coco,png", "coco,png"),
    "multimask": ("all", "all"),
    "on_error": ("skip", "skip"),
    "rules": ("meta", "meta"),
    "points": ("[[1,2]]", [[1, 2]]),
    "bboxes": ("[[1,2,3,4]]", [[1, 2, 3, 4]]),
    **dict.fromkeys(("labels", "cls", "obj_ids"), ("[1]", [1])),
    **dict.fromkeys(("iou_match", "crop_overlap_ratio", "conf_thres", "overlap"), ("0.5", 0.5)),
    **dict.fromkeys(("max_prompted", "crop_n_layers", "start", "points_stride"), ("3", 3)),
    "tile": ("64", 64),
    "outlines": ("grid", "grid"),
}


@pytest.mark.parametrize("mode", ["predict", "track"])
@pytest.mark.parametrize("name", OWN)
def test_the_shell_hands_every_option_on(monkeypatch, name, mode):
    given = {}

    class Recorder:
        predictor = None

        def __getattr__(self, verb):
            return lambda **options: (given.update(options), iter(()))[1]

    class Closing:
        def __init__(self, items):
            self.items = items

        def __enter__(self):
            return self.items

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("samplug.model.SAM", lambda *_: Recorder())
    monkeypatch.setattr(modes, "closing", Closing)
    typed, arrives = WORDS.get(name, ("True", True) if isinstance(OWN[name].default, bool) else ("1", 1))
    if name in ("track", "update_memory", "non_overlap"):
        typed, arrives = "True", True
    modes.run_sam([mode, "source=a.jpg", f"{name}={typed}"], "samplug")
    assert given[name] == arrives and given["source"] == "a.jpg"
