"""Images as the world sends them: each is answered, or refused with its name and a reason."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from support.images import bad, good, model, noise, predict  # noqa: F401

from samplug import PromptError, SAM2Predictor
from samplug.cli import main
from samplug.errors import SourceError, UsageError
from samplug.sources.image import read_image
from samplug.sources.image_loader import ImageLoader


def test_every_kind_of_image_is_answered_at_its_size(predict, good):
    folder, sizes = good
    results = predict(str(folder), points=[[0, 0]])
    assert {result.path.rpartition("/")[2]: result.orig_shape for result in results} == sizes
    assert all(result.masks.data.shape == (1, *result.orig_shape) for result in results)


def test_an_image_is_the_same_from_a_folder_a_list_and_in_memory(good):
    folder, sizes = good
    for name, size in sizes.items():
        image = read_image(str(folder / name))
        assert image.shape == (*size, 3) and image.dtype == np.uint8
        with Image.open(folder / name) as opened:
            close = np.abs(read_image(opened).astype(int) - image).mean()
        assert close < 6, name  # decoders round, CMYK has no one meaning


def test_what_is_no_image_is_refused_with_its_name_and_a_reason(predict, bad):
    folder, reasons = bad
    for name, reason in reasons.items():
        for source in (str(folder / name), [str(folder / name)]):
            with pytest.raises(SourceError, match=f"{name}: .*({reason})"):
                predict(source, points=[[0, 0]])


def test_bad_images_in_a_folder_are_left_out_and_the_rest_is_done(model, predict, good, bad, tmp_path, capture_log):
    for folder, names in (good, bad):
        for name in names:
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    results = predict(str(tmp_path), points=[[0, 0]], batch=4)
    assert {result.path.rpartition("/")[2] for result in results} == set(good[1])
    errors = model.predictor.errors.all
    assert {fault.name.rpartition("/")[2] for fault in errors} == set(bad[1])
    assert all(any(f"{name} is skipped" in line for line in capture_log) for name in bad[1])
    assert f"{len(bad[1])} inputs skipped" in capture_log[-1]


def test_prompts_for_each_image_stay_with_it_when_one_before_is_bad(predict, tmp_path):
    for name in "ac":
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise())
    (tmp_path / "b.png").write_bytes(b"no image")
    prompts = [{"bboxes": [[1, 1, 9, 9]]}, {"points": [[5, 5], [6, 6]]}, {"bboxes": [[20, 5, 50, 30]] * 3}]
    for source in (str(tmp_path), [str(tmp_path / f"{name}.png") for name in "abc"]):
        for batch in (1, 3):
            assert [len(result) for result in predict(source, prompts=prompts, batch=batch)] == [1, 3]


def test_an_image_that_a_prompt_does_not_fit_is_left_out_of_a_folder(model, predict, tmp_path):
    for name, size in (("a", (40, 60)), ("b", (8, 8)), ("c", (50, 50))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise(*size))
    results = predict(str(tmp_path), bboxes=[[10, 10, 30, 30]], batch=3)
    assert [result.path[-5:] for result in results] == ["a.png", "c.png"]
    assert "outside" in model.predictor.errors.all[0].reason
    with pytest.raises(PromptError, match="outside"):
        predict(str(tmp_path), bboxes=[[10, 10, 30, 30]], on_error="raise")
    with pytest.raises(PromptError, match="outside"):
        predict(str(tmp_path / "b.png"), bboxes=[[10, 10, 30, 30]])


def test_prompts_that_are_wrong_on_every_image_end_a_run_at_once(model, predict, tmp_path):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise())
    with pytest.raises(PromptError, match="nan"):
        predict(str(tmp_path), bboxes=[[10, float("nan"), 30, 30]])
    assert not model.predictor.errors.all


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
    with pytest.raises(UsageError, match="1 input skipped: .*b.png"):
        main.samplug(words)
    assert (tmp_path / "out" / "a.jpg").exists()
    monkeypatch.setattr(sys, "argv", ["samplug", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert str(ended.value).startswith("samplug: 1 input skipped")


@pytest.mark.parametrize("image", [np.zeros((0, 5, 3), np.uint8), np.zeros((2, 5, 5, 3), np.uint8), object(), 3.5])
def test_arrays_that_are_no_image_are_refused(predict, image):
    with pytest.raises((TypeError, OSError)) as caught:
        predict([image], points=[[0, 0]])
    assert "image0.jpg" in str(caught.value) or "is not an image" in str(caught.value)


def test_a_list_is_opened_image_by_image(network):
    errors = SAM2Predictor(overrides={"verbose": False}).errors
    files = [noise() for _ in range(5)]
    loader = iter(ImageLoader(files, errors, batch=2))
    assert [len(images) for _, images, _ in loader] == [2, 2, 1]
