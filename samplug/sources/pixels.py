"""Values of an image, whatever their type, as bytes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug.errors import SourceError, report_slip
from samplug.transforms import numpy_of, require_dense

NOT_FINITE = "holds NaN or infinity: give finite numbers, such as nan_to_num makes them."
EXPECTED_VALUES = "Expected bytes 0-255, 16 bits 0-65535, bools, or floats 0-1 or 0-255"
OVERSHOOT = 0.25  # share of the range by which resampled floats may leave it
LEAST_WHITE = 16  # fractions up to here, and above 1, would be nearly black as 0-255: they are of another range
LEAST_16_BIT = 4096  # where nothing is brighter the image has 10 or 12 bits, or is nearly black


def as_bgr(image: np.ndarray, what: str = "image") -> np.ndarray:
    """Bring an image to (H, W, 3) BGR bytes: grey, alpha, bools, any integers and floats in any byte order.

    Bools are black and white. Integers are bytes where none is above 255, else 16-bit. Floats are 0-1 or 0-255.
    ValueError for other values, NaN or infinity, or more than 4 channels.
    """
    if image.dtype != np.uint8 or isinstance(image, np.ma.MaskedArray):
        image = to_bytes(image, what)
    image = np.atleast_3d(image)
    channels = image.shape[2]
    if channels == 3:
        return image
    if channels > 4:
        shape = "x".join(map(str, image.shape))
        raise ValueError(f"the {what} of {shape} has {channels} channels. Expected (H, W, 3) BGR: channels come last.")
    if channels < 3:
        return cv2.cvtColor(np.ascontiguousarray(image[..., 0]), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


def to_bytes(image: np.ndarray, what: str = "image") -> np.ndarray:
    """The values of an image as bytes; ValueError where nobody can tell which value is white."""
    if np.ma.is_masked(image):
        raise ValueError(f"the {what} is a masked array with masked pixels: fill them first (image.filled(0)).")
    image = np.asarray(image)
    kind, size = image.dtype.kind, image.dtype.itemsize
    if kind not in "buif":
        raise ValueError(f"the {what} holds values of type {image.dtype}. {EXPECTED_VALUES}.")
    if size == 1 and kind == "u" or not image.size:
        return image.astype(np.uint8, copy=False)
    if kind == "b":
        return image.view(np.uint8) * np.uint8(255)
    return floats_as_bytes(image, what) if kind == "f" else integers_as_bytes(image, what)


def integers_as_bytes(image: np.ndarray, what: str) -> np.ndarray:
    """Integers of more than 8 bits, or with a sign, as bytes."""
    low, high = int(image.min()), int(image.max())
    if low < 0 or high > 65535:
        raise ValueError(f"the {what} holds whole numbers from {low} to {high}. {EXPECTED_VALUES}.")
    if high <= 255:
        if image.dtype.itemsize == 2 and image.dtype.kind == "u":
            line = f"the {what} is {image.dtype}, but holds no number above 255: it is taken as bytes."
            report_slip(line, SourceError)
        return image.astype(np.uint8)
    if high < LEAST_16_BIT:
        line = f"the {what} is taken as 16-bit, but holds no number above {high}: it will be nearly black"
        report_slip(f"{line}. If white is {2 ** high.bit_length() - 1}, scale it to bytes first.", SourceError)
    return (image >> 8).astype(np.uint8)


def floats_as_bytes(image: np.ndarray, what: str) -> np.ndarray:
    """Floats as bytes: 0-1, or 0-255, each with a little overshoot such as resampling leaves."""
    if not np.isfinite(image).all():
        raise ValueError(f"the {what} {NOT_FINITE}")
    low, high = float(image.min()), float(image.max())
    white = 1 if high <= 1 + OVERSHOOT else 255
    strange = white == 255 and high < LEAST_WHITE and (image % 1).any()
    if strange or low < -OVERSHOOT * white or high > (1 + OVERSHOOT) * white:
        raise ValueError(f"the {what} holds floats from {low:.4g} to {high:.4g}. {EXPECTED_VALUES}.")
    return (image * (255 // white)).round().clip(0, 255).astype(np.uint8)


def tensor_as_bgr(image: Tensor) -> np.ndarray:
    """A (3, H, W) RGB tensor, or a grey one (1, H, W), as (H, W, 3) BGR bytes; ValueError or TypeError for others."""
    array = numpy_of(image)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        raise ValueError(f"the tensor has the shape {tuple(image.shape)}. Expected (3, H, W) RGB: channels come first.")
    return np.ascontiguousarray(as_bgr(array.transpose(1, 2, 0), "tensor")[..., ::-1])


def batch_as_bgr(originals: list[np.ndarray] | Tensor) -> list[np.ndarray]:
    """A batch as its loader gave it, a list of arrays or a (F, 3, H, W) RGB tensor, as BGR bytes by `as_bgr`."""
    if isinstance(originals, Tensor):
        return [tensor_as_bgr(image) for image in originals]
    return [as_bgr(image) for image in originals]


def tensor_in_0_1(batch: Tensor) -> Tensor:
    """A source (F, 3, H, W) or (3, H, W), RGB, as floats 0-1 (Ultralytics knows floats and bytes alone).

    ValueError where it has another shape, or its values are none that `as_bgr` takes; TypeError where it is not dense.
    """
    require_dense(batch)
    if batch.ndim not in (3, 4) or batch.shape[-3] != 3:
        shape = tuple(batch.shape)
        raise ValueError(f"the tensor has the shape {shape}. Expected (F, 3, H, W) RGB: channels come first.")
    batch = batch.float() if batch.is_floating_point() and batch.element_size() < 2 else batch  # torch has few float8
    if batch.is_floating_point() and batch.numel():
        low, high = map(float, batch.aminmax())
        if low >= 0 and high <= 1:
            return batch
        if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
            return batch.clamp(0, 1)
    return torch.from_numpy(to_bytes(numpy_of(batch), "tensor")).to(batch.device).float() / 255
