"""Pictures and prompts as the world sends them: each is answered, or refused with its name and a reason."""

import struct
import subprocess
import sys
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from samplug import SAM, PromptError, SAM2Predictor, cli, room
from samplug.checkpoints import load_model
from samplug.cli import Refusal
from samplug.predict.faults import SourceError
from samplug.predict.items import Items
from samplug.predict.opening import MOST_PIXELS, as_picture

HEIGHT, WIDTH = 40, 60


@pytest.fixture(scope="module")
def network(nano_file):
    return load_model(nano_file)


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture
def predict(model):
    """Runs `SAM.predict` small and silent, and without Ultralytics' guess of a conf."""
    return lambda source, **said: model.predict(source, **{"verbose": False, "imgsz": 64, **said})


def noise(height=HEIGHT, width=WIDTH):
    return cv2.resize(np.random.default_rng(1).integers(0, 255, (5, 7, 3), dtype=np.uint8), (width, height))


def written(folder):
    """Pictures of every kind by name, with the (H, W) that they have."""
    rgb, pil = noise(), Image.fromarray(noise())
    turned = Image.Exif()
    turned[274] = 6  # lies on its right side
    kinds = {
        "one.png": Image.fromarray(rgb[:1, :1]),
        "row.png": Image.fromarray(rgb[:1]),
        "column.png": Image.fromarray(np.ascontiguousarray(rgb[:, :1])),
        "ribbon.png": Image.fromarray(noise(1, 5000)),
        **{f"{mode}.png": pil.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA")},
        "cmyk.jpg": pil.convert("CMYK"),
        "cmyk.tif": pil.convert("CMYK"),
        "grey 16 bit.png": Image.fromarray(rgb[..., 0].astype(np.uint16) * 257),
        "float.tif": Image.fromarray(rgb[..., 0].astype(np.float32)),
    }
    sizes = {}
    for name, picture in kinds.items():
        picture.save(folder / name)
        sizes[name] = picture.size[::-1]
    for name in ("turned.jpg", "turned.png", "turned.webp"):
        pil.save(folder / name, exif=turned)
        sizes[name] = (WIDTH, HEIGHT)
    for name in ("moves.webp", "moves.png"):
        pil.save(folder / name, save_all=True, append_images=[pil.rotate(90), pil.rotate(180)])
        sizes[name] = (HEIGHT, WIDTH)
    for name in ("colour 16 bit.png", "colour 16 bit.tif"):
        cv2.imwrite(str(folder / name), rgb.astype(np.uint16) * 257)
        sizes[name] = (HEIGHT, WIDTH)
    return sizes


def spoilt(folder):
    """Files that are no picture, by name, with the reason that is given."""
    kinds = (".jpg", ".png", ".webp", ".bmp", ".tif")
    sound = {kind: cv2.imencode(kind, noise(200, 300))[1].tobytes() for kind in kinds}
    files = {f"cut{kind}": (data[: len(data) // 2], "cut short|cannot be decoded") for kind, data in sound.items()}
    files |= {
        "empty.jpg": (b"", "it is empty"),
        "page.jpg": (b"<!doctype html><html>404</html>", "web page"),
        "noise.png": (bytes(range(256)) * 20, "no picture"),
        "bomb.png": (bomb(40_000, 40_000), f"40000x40000 pixels, more than {MOST_PIXELS}"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in files.items()}


def bomb(width, height):
    """A PNG of a few bytes whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return folder, written(folder)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    return folder, spoilt(folder)


# Pictures -------------------------------------------------------------------------------------------------------------


def test_every_kind_of_picture_is_answered_at_its_size(predict, good):
    folder, sizes = good
    results = predict(str(folder), points=[[0, 0]])
    assert {result.path.rpartition("/")[2]: result.orig_shape for result in results} == sizes
    assert all(result.masks.data.shape == (1, *result.orig_shape) for result in results)


def test_a_picture_is_the_same_from_a_folder_a_list_and_in_memory(good):
    folder, sizes = good
    for name, size in sizes.items():
        picture = as_picture(str(folder / name))
        assert picture.shape == (*size, 3) and picture.dtype == np.uint8
        with Image.open(folder / name) as opened:
            close = np.abs(as_picture(opened).astype(int) - picture).mean()
        assert close < 6, name  # decoders round, CMYK has no one meaning


def test_what_is_no_picture_is_refused_with_its_name_and_a_reason(predict, bad):
    folder, reasons = bad
    for name, reason in reasons.items():
        for source in (str(folder / name), [str(folder / name)]):
            with pytest.raises(SourceError, match=f"{name}: .*({reason})"):
                predict(source, points=[[0, 0]])


def test_bad_pictures_in_a_folder_are_left_out_and_the_rest_is_done(model, predict, good, bad, tmp_path, capture_log):
    for folder, names in (good, bad):
        for name in names:
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    results = predict(str(tmp_path), points=[[0, 0]], batch=4)
    assert {result.path.rpartition("/")[2] for result in results} == set(good[1])
    faults = model.predictor.faults.all
    assert {fault.name.rpartition("/")[2] for fault in faults} == set(bad[1])
    assert all(any(f"{name} is left out" in line for line in capture_log) for name in bad[1])
    assert f"{len(bad[1])} left out" in capture_log[-1]


def test_prompts_for_each_picture_stay_with_it_when_one_before_is_bad(predict, tmp_path):
    for name in "ac":
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise())
    (tmp_path / "b.png").write_bytes(b"no picture")
    prompts = [{"bboxes": [[1, 1, 9, 9]]}, {"points": [[5, 5], [6, 6]]}, {"bboxes": [[20, 5, 50, 30]] * 3}]
    for source in (str(tmp_path), [str(tmp_path / f"{name}.png") for name in "abc"]):
        for batch in (1, 3):
            assert [len(result) for result in predict(source, prompts=prompts, batch=batch)] == [1, 3]


def test_a_picture_that_a_prompt_does_not_fit_is_left_out_of_a_folder(model, predict, tmp_path):
    for name, size in (("a", (40, 60)), ("b", (8, 8)), ("c", (50, 50))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise(*size))
    results = predict(str(tmp_path), bboxes=[[10, 10, 30, 30]], batch=3)
    assert [result.path[-5:] for result in results] == ["a.png", "c.png"]
    assert "outside" in model.predictor.faults.all[0].reason
    with pytest.raises(PromptError, match="outside"):
        predict(str(tmp_path), bboxes=[[10, 10, 30, 30]], on_error="raise")
    with pytest.raises(PromptError, match="outside"):
        predict(str(tmp_path / "b.png"), bboxes=[[10, 10, 30, 30]])


def test_prompts_that_are_wrong_on_every_picture_end_a_run_at_once(model, predict, tmp_path):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise())
    with pytest.raises(PromptError, match="nan"):
        predict(str(tmp_path), bboxes=[[10, float("nan"), 30, 30]])
    assert not model.predictor.faults.all


def test_a_mistake_ends_the_run_skips_or_both_as_was_asked(predict, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), noise())
    (tmp_path / "b.png").write_bytes(b"")
    assert len(predict(str(tmp_path), points=[[1, 1]])) == 1
    with pytest.raises(SourceError, match="b.png"):
        predict(str(tmp_path), points=[[1, 1]], on_error="raise")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match="a.png: it is empty"):  # nothing was done
        predict(str(tmp_path), points=[[1, 1]])
    assert predict(str(tmp_path), points=[[1, 1]], on_error="skip") == []
    with pytest.raises(ValueError, match="on_error='ignore'"):
        predict(str(tmp_path), on_error="ignore")


def test_the_shell_does_the_rest_and_fails_with_a_summary(nano_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    cv2.imwrite("in/a.png", noise())
    (tmp_path / "in" / "b.png").write_bytes(b"<html>")
    words = [
        "predict",
        f"model={nano_file}",
        "source=in",
        "points=[[5, 5]]",
        f"project={tmp_path}",
        "name=out",
        "imgsz=64",
    ]
    with pytest.raises(Refusal, match="1 left out: .*b.png"):
        cli.samplug(words)
    assert (tmp_path / "out" / "a.jpg").exists()
    monkeypatch.setattr(sys, "argv", ["samplug", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert str(ended.value).startswith("samplug: 1 left out")


@pytest.mark.parametrize("picture", [np.zeros((0, 5, 3), np.uint8), np.zeros((2, 5, 5, 3), np.uint8), object(), 3.5])
def test_arrays_that_are_no_picture_are_refused(predict, picture):
    with pytest.raises((TypeError, OSError)) as caught:
        predict([picture], points=[[0, 0]])
    assert "image0.jpg" in str(caught.value) or "a frame is" in str(caught.value)


def test_a_list_is_opened_picture_by_picture(network):
    faults = SAM2Predictor(overrides={"verbose": False}).faults
    files = [noise() for _ in range(5)]
    loader = iter(Items(files, faults, batch=2))
    assert [len(pictures) for _, pictures, _ in loader] == [2, 2, 1]


# Size -----------------------------------------------------------------------------------------------------------------


def test_what_memory_cannot_hold_is_refused_before_it_is_taken(predict, monkeypatch, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), noise(400, 500))
    monkeypatch.setattr(room, "available", lambda: 10**6)
    with pytest.raises(SourceError, match="a.png: a picture of 500x400 needs about 0.0 GB"):
        predict(str(tmp_path / "a.png"), points=[[0, 0]])
    with pytest.raises(MemoryError, match="9 masks of 500x400"):
        predict(torch.zeros(1, 3, 64, 64), points=[[0, 0]] * 9) and predict([noise(400, 500)], points=[[0, 0]] * 9)


def test_a_drawing_that_memory_cannot_hold_is_left_out_alone(model, predict, monkeypatch, tmp_path):
    monkeypatch.setattr(room, "available", lambda: 4 * 10**6)
    said = {"save": True, "save_txt": True, "project": str(tmp_path), "name": "out", "on_error": "skip"}
    (result,) = predict([noise(300, 400)], bboxes=[[10, 10, 300, 200]], **said)
    assert result.masks.data.shape == (1, 300, 400)
    assert "drawing 1 masks on 400x300" in model.predictor.faults.all[0].reason
    assert not list((tmp_path / "out").glob("*.jpg"))


def test_free_memory_is_what_the_machine_and_the_container_leave(tmp_path, monkeypatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("5000\n")
    used.write_text("4500\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 1000\n")
    monkeypatch.setattr(room, "GROUPS", ((limit, used),))
    assert room.available() == 1500
    limit.write_text("max\n")
    assert room.available() is None or room.available() > 10**6
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "none")
    assert room.available() is None
    room.check(10**15, "anything", "nothing")  # nobody knows, nothing is refused


BIG = """
import sys, resource
import numpy as np, torch
torch.set_num_threads(1)
from samplug import SAM
side, how = int(sys.argv[2]), sys.argv[3]
model = SAM(sys.argv[1])
model.predict(np.zeros((64, 64, 3), np.uint8), points=[[3, 3]], verbose=False, imgsz=256)
open("/proc/self/clear_refs", "w").write("5")
peak = lambda: int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) * 1024
before = peak()
said = {"points": [[side // 2, side // 3]], "verbose": False, "imgsz": 256, "save": how == "drawn"}
if how == "drawn":
    said |= {"project": sys.argv[4], "on_error": "skip"}
(result,) = model.predict(sys.argv[4] + "/big.png", **said)
print((peak() - before) / side**2, tuple(result.masks.data.shape))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("side", "how", "bytes_a_pixel"), [(20_000, "answered", 8), (4_000, "drawn", 64)])
def test_the_memory_of_a_huge_picture_is_bounded(nano_file, tmp_path, side, how, bytes_a_pixel):
    free = room.available()
    if free is not None and free < 1.3 * bytes_a_pixel * side**2:
        pytest.skip(f"{free / 1e9:.1f} GB free")
    picture = np.zeros((side, side), np.uint8)
    cv2.circle(picture, (side // 2, side // 3), side // 5, 200, -1)
    cv2.imwrite(str(tmp_path / "big.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    del picture
    words = [sys.executable, "-c", BIG, str(nano_file), str(side), how, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    used = float(done.stdout.splitlines()[-1].split()[0])
    print(f"{side}x{side} {how}: {used:.1f} bytes of memory a pixel, {used * side**2 / 1e9:.2f} GB")
    assert used < bytes_a_pixel and f"(1, {side}, {side})" in done.stdout


# Prompts --------------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
WRONG = {
    "a click that is NaN": ({"points": [[NAN, 3]]}, "nan"),
    "a click that is infinite": ({"points": [[INF, 3]]}, "is inf"),
    "a click outside": ({"points": [[600, 3]]}, "outside"),
    "a negative click": ({"points": [[-5, 3]]}, "outside"),
    "a click of three numbers": ({"points": [[1, 2, 3]]}, "two numbers"),
    "a click of text": ({"points": [["a", "b"]]}, "not an array of numbers"),
    "clicks of five dimensions": ({"points": np.zeros((1, 1, 1, 1, 2))}, "points"),
    "a label of two": ({"points": [[1, 2]], "labels": [2]}, "labels"),
    "a label too many": ({"points": [[1, 2]], "labels": [1, 1]}, "labels"),
    "a label that is NaN": ({"points": [[1, 2]], "labels": [NAN]}, "labels"),
    "labels alone": ({"labels": [1]}, "without points"),
    "a box outside": ({"bboxes": [[100, 100, 200, 200]]}, "outside"),
    "a box without width": ({"bboxes": [[10, 10, 10, 30]]}, "bboxes"),
    "a box without height": ({"bboxes": [[10, 10, 30, 10]]}, "bboxes"),
    "a box that is NaN": ({"bboxes": [[NAN, 1, 2, 3]]}, "nan"),
    "a box of three numbers": ({"bboxes": [[1, 2, 3]]}, "bboxes"),
    "a box of bytes": ({"bboxes": b"abcd"}, "bboxes"),
    "complex numbers": ({"points": np.zeros((1, 2), complex)}, "not an array of numbers"),
    "boxes and clicks of other counts": ({"bboxes": [[1, 1, 9, 9]], "points": [[1, 2], [3, 4]]}, "objects"),
    "an object without anything": ({"points": [[[1, 2]], []]}, "no point, no box and no mask"),
    "a mask of one dimension": ({"masks": np.zeros(9)}, "masks"),
    "a mask that is NaN": ({"masks": np.full((HEIGHT, WIDTH), NAN)}, "masks"),
    "a mask of text": ({"masks": "none.png"}, "masks"),
    "prompts of a number": ({"prompts": 5}, "prompts"),
    "a key that does not exist": ({"prompts": {"boxes": [[1, 2, 3, 4]]}}, "bboxes"),
    "classes too many": ({"points": [[1, 2]], "cls": [1, 2]}, "cls"),
    "an id twice": ({"points": [[1, 2], [3, 4]], "obj_ids": [1, 1]}, "obj_ids"),
}
RIGHT = {
    "no boxes": ({"bboxes": []}, 0),
    "no clicks": ({"points": np.zeros((0, 2))}, 0),
    "ragged clicks": ({"points": [[[1, 2]], [[3, 4], [5, 6]]]}, 2),
    "whole numbers of a byte": ({"points": np.array([[1, 2]], np.uint8)}, 1),
    "half precision": ({"bboxes": torch.tensor([[1, 2, 30, 20]]).half()}, 1),
    "a box reversed": ({"bboxes": [[30, 30, 10, 10]]}, 1),
    "a mask without pixels": ({"masks": np.zeros((0, 0), bool)}, 0),
    "a mask of another shape": ({"masks": np.ones((WIDTH, HEIGHT), bool)}, 1),
    "a box a pixel wide": ({"bboxes": [[10, 10, 11, 30]]}, 1),
    "a box that rounds over the edge": ({"bboxes": [[-0.4, 0, WIDTH + 0.6, HEIGHT]]}, 1),
    "a mask of half the size": ({"masks": np.ones((HEIGHT // 2, WIDTH // 2), bool)}, 1),
    "an empty mask": ({"masks": np.zeros((HEIGHT, WIDTH), bool)}, 1),
    "three hundred clicks": ({"points": [[i % WIDTH, i % HEIGHT] for i in range(300)]}, 300),
    "sixty clicks on one object": ({"points": [[[i, i % HEIGHT] for i in range(60)]]}, 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_prompt_that_cannot_be_is_refused_by_its_argument(predict, name):
    prompts, words = WRONG[name]
    with pytest.raises(PromptError, match=words):
        predict(noise(), **prompts)


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_prompt_is_answered(predict, name):
    prompts, rows = RIGHT[name]
    (result,) = predict(noise(), **prompts)
    assert result.masks.data.shape == (rows, HEIGHT, WIDTH) and len(result.boxes) == rows


# Numbers that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight"])
@pytest.mark.parametrize("prompts", [{"points": [[5, 5]]}, {}, {"bboxes": [[5, 5, 30, 30]], "track": True}])
def test_nan_in_the_weights_is_reported_not_shown_as_an_empty_mask(nano_file, name, prompts):
    model = SAM(nano_file)
    model.model.state_dict()[name].view(-1)[0] = NAN
    with pytest.raises(FloatingPointError, match=f"weights hold NaN or infinity: {name}"):
        model.predict([noise()], verbose=False, imgsz=64, points_stride=2, **prompts)


def test_nan_that_arises_on_the_way_is_reported(nano_file):
    model = SAM(nano_file)

    def overflows(module, given, maps):
        maps["backbone_fpn"][-1].fill_(NAN)

    model.model.image_encoder.register_forward_hook(overflows)
    with pytest.raises(FloatingPointError, match="features of the picture hold NaN"):
        model.predict([noise()], verbose=False, imgsz=64, points=[[5, 5]])


@pytest.mark.slow
def test_the_inputs_tried_are_counted(model, predict, good, bad, capsys):
    outcomes = Counter()
    for (folder, names), kind in ((good, "picture of an odd kind"), (bad, "file that is no picture")):
        for name in names:
            for way in (str(folder / name), [str(folder / name)]):
                outcomes[kind, outcome(predict, way, points=[[0, 0]])] += 1
    for cases, kind in ((WRONG, "prompt that cannot be"), (RIGHT, "odd prompt")):
        for prompts, _ in cases.values():
            outcomes[kind, outcome(predict, noise(), **prompts)] += 1
    with capsys.disabled():
        print()
        for (kind, ended), count in sorted(outcomes.items()):
            print(f"{kind:<28}{ended:<16}{count:>5}")
    assert set(outcomes) == {
        ("picture of an odd kind", "answered"),
        ("file that is no picture", "SourceError"),
        ("prompt that cannot be", "PromptError"),
        ("odd prompt", "answered"),
    }


def outcome(predict, source, **prompts):
    try:
        predict(source, **prompts)
    except (SourceError, PromptError) as error:
        return type(error).__name__
    return "answered"
