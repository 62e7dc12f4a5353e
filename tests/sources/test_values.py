"""Images of every dtype, byte order and range, in every container: the right image, or a refusal that says why."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import codecs
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.images import model, nested, noise, predict  # noqa: F401

from samplug.errors import SlipLog, SourceError
from samplug.host import PIL_FORMATS
from samplug.sources.image import read_image
from samplug.sources.image_loader import image_loader_of
from samplug.sources.pixels import as_bgr, tensor_in_0_1

BYTES = noise()  # (H, W, 3) BGR, 0-255
GREY = BYTES[..., 1]
INTEGERS = ("u2", "i2", "u4", "i4", "u8", "i8")
SCALES = {"0-255": 1, "0-32767": 128, "0-65535": 257}
ARRAYS = [
    *((f"{order}{kind}", scale) for order in "<>" for kind in INTEGERS for scale in SCALES),
    *((f"{order}f{size}", scale) for order in "<>" for size in (2, 4, 8) for scale in ("0-1", "0-1.004", "0-255")),
]
FLOATS = {"0-1": 1 / 255, "0-1.004": 1.004 / 255, "0-255": 1}


def scaled(dtype, scale, image=BYTES):
    return (image.astype(float) * (FLOATS if "f" in dtype else SCALES)[scale]).astype(dtype)


@pytest.mark.parametrize(("dtype", "scale"), [row for row in ARRAYS if row[0][1:] != "i2" or row[1] != "0-65535"])
def test_an_array_is_the_image_that_it_was_made_of(dtype, scale):
    image = read_image(scaled(dtype, scale))
    expected = BYTES // 2 if scale == "0-32767" else BYTES
    assert image.dtype == np.uint8 and np.abs(image.astype(int) - expected).max() <= 2


def test_bools_are_black_and_white():
    for mask in (BYTES > 127, GREY > 127, np.asfortranarray(BYTES > 127)):
        white = read_image(mask) == 255
        assert (
            np.array_equal(white, np.broadcast_to(np.atleast_3d(mask), BYTES.shape)) and read_image(mask).max() == 255
        )


TENSORS = {
    "bytes": torch.from_numpy(BYTES[..., ::-1].transpose(2, 0, 1).copy()),
    "0-1": torch.from_numpy((BYTES[..., ::-1] / 255).transpose(2, 0, 1).copy()).float(),
}
TENSORS |= {
    "bfloat16": TENSORS["0-1"].bfloat16(),
    "float64": TENSORS["0-1"].double(),
    "0-255": TENSORS["bytes"].float(),
    "overshoot": TENSORS["0-1"] * 1.004,
    "16-bit": TENSORS["bytes"].int() * 257,
    "batch of one": TENSORS["0-1"][None],
    "negative bit": torch.complex(TENSORS["0-1"], -TENSORS["0-1"]).conj().imag,
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_the_image_that_it_was_made_of(name):
    assert np.abs(read_image(TENSORS[name]).astype(int) - BYTES.astype(int)).max() <= 2


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "batch of one"])
def test_a_tensor_as_a_source_has_the_values_0_to_1(name):
    batch = image_loader_of(TENSORS[name], None, 1, 1)
    assert (batch.float() - TENSORS["0-1"]).abs().max() < 0.01 and batch.min() >= 0 and batch.max() <= 1


WRONG = {
    "object": (BYTES.astype(object), "type object"),
    "text": (BYTES.astype(str), "holds values of type"),
    "complex": (BYTES.astype(complex), "complex128"),
    "times": (BYTES.astype("m8[s]"), "timedelta"),
    "negative": (BYTES.astype(int) - 128, "from -"),
    "24 bits": (BYTES.astype(int) * 65793, "whole numbers from"),
    "normalised by mean and deviation": (BYTES / 127 - 1, "floats from -"),
    "0-10": (BYTES / 25.5, "floats from"),
    "16-bit floats": (BYTES * 257.0, "floats from"),
    "masked": (np.ma.masked_array(BYTES, BYTES > 250), "masked pixels"),
    "channels first": (BYTES.transpose(2, 0, 1), "channels come last"),
    "seven channels": (np.zeros((20, 30, 7), np.uint8), "7 channels"),
    "sparse tensor": (TENSORS["0-1"].to_sparse(), "sparse"),
    "nested tensor": (nested(TENSORS["0-1"]), "nested"),
    "meta tensor": (TENSORS["0-1"].to("meta"), "meta"),
    "complex tensor": (TENSORS["0-1"] + 0j, "complex"),
    "channels last in a tensor": (TENSORS["0-1"].permute(1, 2, 0), "channels come first"),
    "two in a tensor": (torch.stack([TENSORS["0-1"]] * 2), "channels come first"),
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_nobody_can_tell_are_refused(name):
    image, reason = WRONG[name]
    with pytest.raises((SourceError, TypeError), match=reason):
        read_image(image)


def test_a_tensor_of_eight_bit_floats_is_its_values():
    eight = TENSORS["0-1"].to(torch.float8_e5m2)
    assert torch.equal(tensor_in_0_1(eight), eight.float())


@pytest.mark.parametrize("name", [name for name in WRONG if "tensor" in name and "two" not in name])
def test_a_source_refuses_such_a_tensor_before_the_host_sees_it(name):
    with pytest.raises((ValueError, TypeError)):
        image_loader_of(WRONG[name][0], None, 1, 1)


@pytest.mark.parametrize(("image", "words"), [(GREY.astype("u2"), "taken as bytes"), (GREY.astype("u2") * 4, "1023")])
def test_16_bits_that_hold_fewer_are_reported(image, words, capture_log):
    as_bgr(image)
    assert any(words in line for line in capture_log)
    with SlipLog(strict=True).active(), pytest.raises(SourceError, match=words):
        as_bgr(image)


def write_pil(mode):
    def write(path):
        Image.fromarray(BYTES[..., ::-1]).convert(mode).save(path)

    return write


FILES = {
    **{f"{kind} {bits}.{ending}": (image, bits, ending) for ending in ("png", "tif") for kind, image in
       (("colour", BYTES), ("grey", GREY)) for bits in ("u1", "u2")},
    **{f"grey {bits}.tif": (GREY, bits, "tif") for bits in ("i2", "i4", "f4", "f8")},
    **{f"colour {bits}.tif": (BYTES, bits, "tif") for bits in ("i2", "i4", "f4")},
    "colour f4.pfm": (BYTES, "f4", "pfm"),
    "grey u2.pgm": (GREY, "u2", "pgm"),
}  # fmt: skip


@pytest.mark.host
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_image_that_it_was_made_of(tmp_path, name):
    image, bits, _ = FILES[name]
    scale = {"u1": 1, "u2": 257, "i2": 128, "i4": 257, "f4": 1 / 255, "f8": 1 / 255}[bits]
    assert cv2.imwrite(str(tmp_path / name), (image.astype(float) * scale).astype(bits))
    expected = np.broadcast_to(np.atleast_3d(image), BYTES.shape) // (2 if bits == "i2" else 1)
    assert np.abs(read_image(tmp_path / name).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_a_pil_image_of_every_mode_is_the_image_that_it_was_made_of(mode):
    rgb = Image.fromarray(BYTES[..., ::-1])
    image = read_image(rgb.convert("L").convert(mode) if mode in "1 L LA PA I F" else rgb.convert(mode))
    expected = np.asarray(rgb.convert("L" if mode in "1 L LA PA I F" else "RGB"))
    expected = np.atleast_3d(expected)[..., ::-1]
    assert np.abs(image.astype(int) - expected).mean() < (130 if mode == "1" else 12)  # dithered; P has a palette


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bits_of_pil_are_not_clipped(mode):
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, GREY.shape[::-1], (GREY.astype(order) * 257).astype(order).tobytes())
    assert np.array_equal(read_image(image)[..., 0], GREY)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n{ } loop\n%%EOF\n"


@pytest.mark.parametrize("name", ["a.jpg", "a.eps", "a.png", "a.heic", "a.avif", "a.tif"])
@pytest.mark.parametrize("head", [b"", b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + (99).to_bytes(4, "little")])
def test_postscript_is_refused_under_every_name_and_never_run(tmp_path, name, head, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("it ran"))
    (tmp_path / name).write_bytes(head.ljust(32, b"\0")[: 32 * bool(head)] + EPS)
    with pytest.raises(SourceError, match="PostScript"):
        read_image(tmp_path / name)
    if not head:
        with Image.open(tmp_path / name, formats=["EPS"]) as opened, pytest.raises(SourceError, match="EPS files"):
            read_image(opened)
    assert "EPS" not in PIL_FORMATS


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_a_list_of_names_skips_what_is_not_there(model, predict, tmp_path, ending):
    cv2.imwrite(str(tmp_path / "a b.png"), BYTES)
    lines = ["# a comment", "", str(tmp_path / "a b.png"), "a b.png", "/nowhere.jpg", "no image at all"]
    (tmp_path / f"l.{ending}").write_text("\n".join(lines))
    results = predict(str(tmp_path / f"l.{ending}"), points=[[5, 5]])
    assert [result.path.rpartition("/")[2] for result in results] == ["a b.png"] * 2
    skipped = {fault.name.rpartition("/")[2] for fault in model.predictor.errors.all}
    assert skipped == {"nowhere.jpg", "no image at all"}
    with pytest.raises(SourceError, match="there is no such file"):
        predict(str(tmp_path / f"l.{ending}"), points=[[5, 5]], on_error="raise")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_of_names_in_unicode_is_read(predict, tmp_path, encoding):
    cv2.imwrite(str(tmp_path / "ä.png"), BYTES)
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / "l.txt").write_bytes(mark + "ä.png\n".encode(encoding))
    assert len(predict(str(tmp_path / "l.txt"), points=[[5, 5]])) == 1


def test_a_list_of_names_that_was_cut_inside_a_letter_is_read(predict, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), BYTES)
    (tmp_path / "l.txt").write_bytes("a.png\n".encode("utf-16") + b"a")
    assert len(predict(str(tmp_path / "l.txt"), points=[[5, 5]])) == 1


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_whose_name_looks_like_a_pattern_is_that_file(predict, tmp_path, kind):
    for name in ("a[1]*.png", "a1b.png"):
        cv2.imwrite(str(tmp_path / name), BYTES)
    for track in (None, False):
        results = predict(kind(tmp_path / "a[1]*.png"), points=[[5, 5]], track=track)
        assert [result.path for result in results] == [str(tmp_path / "a[1]*.png")]
    assert len(predict(str(tmp_path / "a*b.png"), points=[[5, 5]])) == 1


@pytest.mark.parametrize("track", [None, False])
@pytest.mark.parametrize("what", ["bytes", "dict", "set", "file", "range", "object", "number", "iterator"])
def test_what_holds_no_images_is_refused_by_its_type(predict, tmp_path, what, track):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", BYTES)[1].tobytes())
    with (tmp_path / "a.png").open("rb") as file:
        source = {
            "bytes": file.read(), "dict": {"a.png": BYTES}, "set": {"a.png"}, "file": file, "range": range(3),
            "object": object(), "number": 1.5, "iterator": iter([BYTES]),
        }[what]  # fmt: skip
        if what == "iterator" and track is None:
            assert len(predict(source, points=[[5, 5]])) == 1
            return
        with pytest.raises(TypeError, match="source is .*. Expected a path, a stream"):
            predict(source, points=[[5, 5]], track=track)
