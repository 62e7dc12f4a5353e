"""Pictures of every kind, files that are none, and `SAM.predict` for them."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from samplug import SAM
from samplug.predict.opening import MOST_PIXELS

HEIGHT, WIDTH = 40, 60


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
