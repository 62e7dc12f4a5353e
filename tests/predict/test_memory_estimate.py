"""Very many prompts: what memory cannot hold is refused before anything is computed, with figures; the rest is done."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from support.images import draw
from support.videos import resident

from samplug import SAM, resources
from samplug.errors import OutOfMemoryError
from samplug.predict.memory_estimate import prompt_bytes
from samplug.predict.results.build import PostprocessOptions
from samplug.prompts.objects import Prompts, prompt_batches
from samplug.transforms import ImageTransform

SAID = {"imgsz": 256, "verbose": False}
REFUSED = r"needs about [\d.]+ GB of memory, [\d.]+ GB are free: give fewer"


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture
def free(tmp_path, monkeypatch):
    """Says how much memory the machine has free."""

    def say(count):
        path = tmp_path / "meminfo"
        path.write_text(f"MemTotal: 99999999999 kB\nMemAvailable: {int(count) // 1024} kB\n")
        monkeypatch.setattr(resources, "MEMINFO", path)

    return say


@pytest.mark.parametrize("verb", ["predict", "track", "embed"])
@pytest.mark.parametrize("imgsz", [32768, [8192, 4096]])
def test_an_input_that_memory_cannot_hold_is_refused_before_it_is_made(model, images, free, verb, imgsz):
    free(2e9)
    given = {} if verb == "embed" else {"points": [[9, 9]]}
    with pytest.raises(OutOfMemoryError, match=r"imgsz=\[\d+, \d+\] needs about [\d.]+ GB.*give a smaller one"):
        getattr(model, verb)(images[0], **given, imgsz=imgsz, verbose=False)


@pytest.fixture
def decoded(model):
    """How many prompts each call of the decoder had."""
    counts = []
    decoder = model.model.sam_mask_decoder
    hook = lambda _, given, named: counts.append(len(given[2]))  # noqa: E731
    handle = decoder.register_forward_pre_hook(hook, with_kwargs=True)
    yield counts
    handle.remove()


def boxes(count, side=64, seed=0):
    corners = np.random.default_rng(seed).uniform(0, side - 20, (count, 2))
    return np.concatenate([corners, corners + 15], 1)


def figures(error):
    """(needed, free) in GB."""
    needed, free = re.search(r"about ([\d.]+) GB of memory, ([\d.]+) GB are free", str(error)).groups()
    return float(needed), float(free)


# ------------------------------------------------------------------ refused, and said how much


def test_too_many_boxes_are_refused_before_anything_is_computed(model, free, decoded):
    free(2e9)
    with pytest.raises(MemoryError, match=f"5000 masks of 640x480 pixels {REFUSED} objects at once") as caught:
        model.predict(np.zeros((480, 640, 3), np.uint8), bboxes=boxes(5000), **SAID)
    needed, left = figures(caught.value)
    assert left == 2 and 5000 * (640 * 480 + 4 * 64 * 64) / 1e9 < needed < 5
    assert not decoded


def test_the_logits_alone_can_be_too_many(model, free, decoded):
    free(1e9)
    with pytest.raises(MemoryError, match=f"3000 masks of 32x32 pixels {REFUSED}") as caught:
        model.predict(np.zeros((32, 32, 3), np.uint8), points=np.ones((3000, 2)), imgsz=1024, verbose=False)
    assert 3000 * 4 * 256**2 / 1e9 < figures(caught.value)[0] < 2 and not decoded


@pytest.mark.parametrize(
    ("said", "times"),
    [({"multimask": "all"}, 3), ({"non_overlap": True}, 2.5), ({"conf": 0.1}, 1.1)],
    ids=["three masks", "no overlap", "some left out"],
)
def test_what_takes_more_memory_is_refused_sooner(model, free, said, times):
    image = np.zeros((128, 128, 3), np.uint8)
    transform, prompts = ImageTransform((128, 128), (256, 256)), Prompts.read(bboxes=boxes(400))
    free(prompt_bytes(prompts, 0, transform, 1, PostprocessOptions()) * 1.05 / (1 - resources.RESERVED))
    assert len(model.predict(image, bboxes=boxes(400), **SAID)[0]) == 400
    with pytest.raises(MemoryError, match=REFUSED) as caught:
        model.predict(image, bboxes=boxes(400), **said, **SAID)
    assert figures(caught.value)[0] >= 0.01 * times


def test_an_image_with_too_many_prompts_is_left_out_of_a_folder(model, free, tmp_path):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), draw(64, 64, 1))
    free(5e7)
    prompts = {"a.png": {"bboxes": boxes(2)}, "b.png": {"bboxes": boxes(3000)}, "c.png": {"bboxes": boxes(3)}}
    for batch in (1, 3):
        results = model.predict(str(tmp_path), prompts=prompts, batch=batch, **SAID)
        assert [(result.path[-5:], len(result)) for result in results] == [("a.png", 2), ("c.png", 3)]
        (fault,) = model.predictor.errors.all
        assert fault.name.endswith("b.png") and "3000 masks of 64x64 pixels" in fault.reason
    with pytest.raises(MemoryError, match="3000 masks"):
        model.predict(str(tmp_path), prompts=prompts, on_error="raise", **SAID)


def test_the_images_of_a_batch_are_counted_together_and_fit_one_by_one(model, free):
    images = [draw(64, 64, seed) for seed in range(4)]
    transform, prompts = ImageTransform((64, 64), (256, 256)), Prompts.read(bboxes=boxes(200))
    free(prompt_bytes(prompts, 0, transform, 1, PostprocessOptions()) * 2.5 / (1 - resources.RESERVED))
    together = model.predict(images, bboxes=boxes(200), batch=4, **SAID)
    assert len(together) == 2 and [fault.name for fault in model.predictor.errors.all] == ["image2.jpg", "image3.jpg"]
    assert "batch=" in model.predictor.errors.all[0].reason
    assert len(model.predict(images, bboxes=boxes(200), batch=1, **SAID)) == 4


def test_tensors_and_features_at_hand_are_checked_too(model, free, decoded):
    model.predict(np.zeros((64, 64, 3), np.uint8), points=[[5, 5]], **SAID)
    predictor = model.predictor
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    decoded.clear()
    free(5e7)
    with pytest.raises(MemoryError, match=f"3000 masks of 256x256 pixels {REFUSED}"):
        model.predict(torch.zeros(1, 3, 256, 256), bboxes=boxes(3000), on_error="skip", **SAID)
    with pytest.raises(MemoryError, match=f"3000 masks of 64x64 pixels {REFUSED}"):
        predictor.inference_features(predictor.features, (64, 64), bboxes=boxes(3000))
    assert not decoded and predictor.inference_features(predictor.features, (64, 64), bboxes=boxes(2))[0].shape[0] == 2


@pytest.mark.parametrize("kind", ["arrays", "polygons"])
def test_masks_as_prompts_are_refused_before_they_are_read(model, free, kind):
    count = 200
    given = {
        "arrays": lambda: np.ones((count, 300, 400), bool),
        "polygons": lambda: [np.array([[1, 1], [300, 1], [300, 200]])] * count,
    }[kind]()
    free(5e7)
    with pytest.raises(MemoryError, match=f"{count} masks as prompts {REFUSED} at once") as caught:
        model.predict(np.zeros((300, 400, 3), np.uint8), masks=given, **SAID)
    assert figures(caught.value)[0] == 0.1


def test_a_shell_says_it_in_a_line(nano_file, free, tmp_path):
    from samplug.cli import main
    from samplug.errors import UsageError

    cv2.imwrite(str(tmp_path / "a.png"), draw(64, 64, 1))
    (tmp_path / "many.json").write_text(f'{{"bboxes": {boxes(3000).tolist()}}}')
    free(5e7)
    words = [f"model={nano_file}", f"source={tmp_path / 'a.png'}", f"prompts={tmp_path / 'many.json'}", "imgsz=256"]
    with pytest.raises(UsageError, match=f"3000 masks of 64x64 pixels {REFUSED}"):
        main.samplug(["predict", *words, f"project={tmp_path}"])


# ------------------------------------------------------------------ done


def test_more_prompts_than_go_together_are_answered_as_each_alone(model, decoded):
    image, asked = draw(96, 128, 1), boxes(300, 96)
    (many,) = model.predict(image, bboxes=asked, logits=True, **SAID)
    assert decoded == [256, 44]
    for i in (0, 255, 256, 299):
        (one,) = model.predict(image, bboxes=asked[i : i + 1], logits=True, **SAID)
        assert torch.allclose(many.logits[i], one.logits[0], atol=1e-3)
        assert torch.allclose(many.boxes.conf[i], one.boxes.conf[0], atol=1e-4)


def test_ten_thousand_clicks_on_one_object_are_answered(model):
    clicks = np.random.default_rng(0).uniform(0, 95, (1, 10_000, 2))
    (result,) = model.predict(draw(96, 128, 1), points=clicks, logits=True, imgsz=128, verbose=False)
    assert result.masks.data.shape == (1, 96, 128) and result.logits.isfinite().all()


def test_the_order_of_very_many_clicks_does_not_matter(model):
    clicks = np.random.default_rng(0).uniform(0, 95, (1, 1000, 2))
    labels = np.arange(1000)[None] % 3 > 0
    one, other = (
        model.predict(draw(96, 128, 1), points=clicks[:, ::step], labels=labels[:, ::step], logits=True, **SAID)[0]
        for step in (1, -1)
    )
    assert torch.allclose(one.logits, other.logits, atol=1e-3) and one.logits.abs().max() > 0.1


def test_clicks_that_memory_cannot_hold_are_refused_by_their_number(model, free, decoded):
    free(1e8)
    clicks = np.random.default_rng(0).uniform(0, 60, (1, 10_000, 2))
    with pytest.raises(
        MemoryError, match=f"1 masks of 64x64 pixels by up to 10000 clicks each {REFUSED}.* fewer clicks"
    ):
        model.predict(np.zeros((64, 64, 3), np.uint8), points=clicks, **SAID)
    assert not decoded
    assert len(model.predict(np.zeros((64, 64, 3), np.uint8), points=clicks[:, :100], **SAID)[0]) == 1


# ------------------------------------------------------------------ as much as was said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_masks_as_prompts_take_their_own_memory_and_leave_no_holes():
    masks = np.zeros((300, 64, 64), bool)
    masks[:, 5:40, 5:40] = True
    prompts, transform = Prompts.read(masks=masks), ImageTransform((64, 64), (512, 512))
    before = resident()
    ((_, batch),) = prompt_batches([prompts], [transform])
    assert resident() - before < 2 * batch.masks.nbytes + 3e7
    assert batch.masks.shape == (300, 1, 128, 128) and torch.equal(
        batch.masks[299, 0], transform.mask_to_input(prompts.objects[0].mask)
    )


MEASURED = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
from samplug import SAM
from samplug.predict.memory_estimate import prompt_bytes
from samplug.predict.results.build import PostprocessOptions
from samplug.prompts.objects import Prompts
from samplug.transforms import ImageTransform
kind, count, side, size = sys.argv[2], *map(int, sys.argv[3:6])
model = SAM(sys.argv[1])
image = np.zeros((side, side, 3), np.uint8)
rng = np.random.default_rng(0)
corners = rng.uniform(0, side - 20, (count, 2))
said = {"bboxes": np.concatenate([corners, corners + 15], 1)}
if kind == "clicks":
    said = {"points": corners[None]}
elif kind == "clicks on some":
    said = {"points": corners.reshape(40, -1, 2)}
elif kind == "masks":
    said = {"masks": np.arange(side)[None, :, None] < rng.integers(5, side, (count, 1, side))}
more = {"three": {"multimask": "all"}, "apart": {"non_overlap": True}}.get(kind, {})
model.predict(image, points=[[3, 3]], verbose=False, imgsz=size)
prompts = Prompts.read(**said, shape=(side, side))
finish = PostprocessOptions(non_overlap=kind == "apart")
clicks = max(len(prompt.points) for prompt in prompts.objects)
need = prompt_bytes(prompts, clicks, ImageTransform((side, side), (size, size)), 3 if kind == "three" else 1, finish)
open("/proc/self/clear_refs", "w").write("5")
def held(name):
    return int(next(line for line in open("/proc/self/status") if name in line).split()[1]) * 1024
before, code = held("VmHWM"), held("RssFile")
model.predict(image, verbose=False, imgsz=size, **said, **more)
print(held("VmHWM") - before - (held("RssFile") - code), need)  # without the pages of libraries that were read anew
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "count", "side", "size"),
    [
        ("boxes", 4000, 64, 256),
        ("boxes", 1000, 64, 512),
        ("boxes", 500, 1000, 256),
        ("three", 3000, 64, 256),
        ("apart", 300, 600, 256),
        ("masks", 600, 64, 512),
        ("clicks", 10_000, 64, 256),
        ("clicks", 3000, 64, 512),
        ("clicks on some", 12_000, 64, 256),
    ],
)
def test_prompts_take_no_more_memory_than_is_asked_for(nano_file, kind, count, side, size):
    words = [sys.executable, "-c", MEASURED, str(nano_file), kind, *map(str, (count, side, size))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    used, need = map(int, done.stdout.splitlines()[-1].split())
    print(f"{count} {kind} of {side}x{side} at {size}: {used / 1e6:.0f} MB, asked for {need / 1e6:.0f} MB")
    assert need / 4 < used < 1.1 * need + 3e7
