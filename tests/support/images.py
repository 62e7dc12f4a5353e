"""Drawn images for the tests."""

import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samplug import SAM
from samplug.nn.structs import PromptBatch


def draw(height, width, seed):
    """A noisy gradient with a few ellipses on it."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 160, width, dtype=np.float32)[None, :, None] * rng.uniform(0.4, 1, 3)
    image = (ramp + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)
    for _ in range(5):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(8, width // 4)), int(rng.integers(8, height // 4))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, rng.integers(0, 255, 3).tolist(), -1)
    return image


def logits_at_image(logits, transform):
    """(N, a, b) logits as (N, H, W) float32 at the image's size: what `resize_to_image` cuts at its threshold."""
    from samplug.masks.resize import bilinear_weights, enlarge

    resized = torch.empty((len(logits), *transform.image_size), device=logits.device)
    rows, columns = bilinear_weights(logits.shape[1:], transform, logits.device)
    for mask, target in zip(logits, resized, strict=True):
        for first, values in enlarge(mask, rows, columns):
            target[first : first + len(values)] = values
    return resized


# The centres of five objects, far from each other, as shares of the image.
CENTRES = torch.tensor([[0.2, 0.2], [0.8, 0.75], [0.25, 0.8], [0.5, 0.45], [0.85, 0.15]])


def photograph(size: int) -> Tensor:
    """(1, 3, size, size) raw RGB: a square of the street that comes with Ultralytics."""
    from ultralytics.utils import ASSETS

    street = cv2.imread(str(ASSETS / "bus.jpg"))[200:1010, :, ::-1]
    return torch.from_numpy(cv2.resize(street, (size, size))).permute(2, 0, 1)[None].float()


def prompts_of(kind: str, size: int) -> PromptBatch:
    """Prompts of the kinds named in it: `point`, `points`, `boxes`, `masks`."""
    count = 2 if "mask" in kind else 5
    centres = CENTRES[:count] * size + 0.3
    given = {}
    if "points" in kind:
        given["points"] = torch.stack([centres, size - centres.flip(1) * 0.7], 1)
        given["labels"] = torch.tensor([[1, 1], [1, 0], [0, 1], [1, -1], [0, 0]], dtype=torch.int32)
    elif "point" in kind:
        given["points"], given["labels"] = centres[:, None], torch.ones(count, 1, dtype=torch.int32)
    if "boxes" in kind:
        given["boxes"] = torch.cat([centres * 0.7, centres * 0.7 + size * 0.28], 1)
    if "mask" in kind:
        given["masks"] = torch.full((count, 1, size // 4, size // 4), -10.0)
        for mask, centre in zip(given["masks"][:, 0], (centres / 4).long().tolist(), strict=True):
            mask[centre[1] - size // 32 : centre[1] + size // 16, centre[0] - size // 32 : centre[0] + size // 20] = (
                10.0
            )
    return PromptBatch(torch.zeros(count, dtype=torch.int64), **given)


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
    """Images of every kind by name, with the (H, W) that they have."""
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
    for name, image in kinds.items():
        image.save(folder / name)
        sizes[name] = image.size[::-1]
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
    """Files that are no image, by name, with the reason that is given."""
    kinds = (".jpg", ".png", ".webp", ".bmp", ".tif")
    sound = {kind: cv2.imencode(kind, noise(200, 300))[1].tobytes() for kind in kinds}
    files = {
        f"cut-{kind[1:]}{kind}": (data[: len(data) // 2], "cut short|cannot be decoded") for kind, data in sound.items()
    }
    files |= {
        "empty.jpg": (b"", "it is empty"),
        "page.jpg": (b"<!doctype html><html>404</html>", "web page"),
        "noise.png": (bytes(range(256)) * 20, "not an image"),
        "bomb.png": (bomb(40_000, 40_000), "claims 40000x40000 pixels"),
        "void.png": (bomb(0, 0), "not an image|cannot be decoded|0x0"),
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


def blobs(seed, height=37, width=53, speckle=0.08):
    """Masks with holes and islands of many sizes."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 3) > 0
    return torch.from_numpy(noise ^ (rng.random((height, width)) < speckle))


def nested(*tensors):
    """A nested tensor, of which torch warns that it may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(list(tensors))
