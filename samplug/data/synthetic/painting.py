"""Moving layers painted frame by frame, and exact masks of them.

T frames of (H, W). An outline has its own unit, in which its area is 1 about the origin; a pose is the (3, 3) matrix
from that unit to the pixels of a frame, for outline and surface alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import cv2
import numpy as np

from samplug.data.synthetic import shapes

Window = tuple[slice, slice]
_SHORTEST_BLUR, _LONGEST_BLUR = 2.0, 15.0  # pixels
_SHADOW_SOFTNESS = 9


@dataclass(frozen=True, eq=False)
class Wave:
    """A slow wave through an outline: every vertex swings by itself, so the outline changes its form."""

    reach: np.ndarray  # (2,) in the thing's unit, how far vertices swing in x and y
    across: np.ndarray  # (2, 2) radians a unit; the phase of a vertex is `across @ vertex`
    phase: np.ndarray  # (T,) radians

    def bend(self, vertices: np.ndarray, frame: int) -> np.ndarray:
        """The vertices (V, 2) as they are in a frame."""
        swing = np.sin(vertices @ self.across.T + self.phase[frame]) * self.reach
        return vertices + swing.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Layer:
    """One outline with its surface and its motion."""

    outline: shapes.Shape  # in its own unit
    skin: np.ndarray  # (h, w, 3) uint8, its surface
    texels: np.ndarray  # (3, 3) from pixels of the skin to the unit
    poses: np.ndarray  # (T, 3, 3), from its unit to pixels
    wave: Wave | None = None  # how its outline bends
    within: Layer | None = None  # for a part, the layer that clips it
    shadow: np.ndarray | None = None  # (2,) xy offset of its shadow in pixels
    shutter: float = 0.0  # exposure as a share of a frame's time, for motion blur; 0 for none

    @cached_property
    def _corners(self) -> np.ndarray:
        return np.concatenate([contour for part in self.outline for contour in part], dtype=np.float32)

    def vertices(self, frame: int) -> np.ndarray:
        """All vertices (V, 2) of the outline in pixels of a frame."""
        pose = self.poses[frame].astype(np.float32)
        bent = self.wave.bend(self._corners, frame) if self.wave else self._corners
        return bent @ pose[:2, :2].T + pose[:2, 2]

    def filled(self, vertices: np.ndarray, window: Window) -> np.ndarray:
        """Coverage (h, w) uint8 of a window by the outline with its vertices moved to the given ones."""
        rows, columns = window
        moved, start = vertices - np.array([columns.start, rows.start], np.float32), 0
        shape: shapes.Shape = []
        for part in self.outline:
            shape.append([])
            for contour in part:
                shape[-1].append(moved[start : start + len(contour)])
                start += len(contour)
        return shapes.fill(shape, rows.stop - rows.start, columns.stop - columns.start)

    def smear(self, frame: int) -> np.ndarray:
        """How many pixels xy its origin moves during the exposure of a frame; 0 where that is too little to see."""
        before, after = max(frame - 1, 0), min(frame + 1, len(self.poses) - 1)
        move = (self.poses[after, :2, 2] - self.poses[before, :2, 2]) * (self.shutter / max(after - before, 1))
        length = float(np.linalg.norm(move))
        return move * min(1.0, _LONGEST_BLUR / length) if length >= _SHORTEST_BLUR else np.zeros(2)


class Film:
    """The frames of a clip, painted layer by layer, in painter's order, on `images` that show the background."""

    def __init__(self, images: np.ndarray, layers: list[Layer]):
        self.images, self.layers = images, layers  # (T, H, W, 3) uint8, RGB
        self.top = np.zeros(images.shape[:3], np.uint8)  # (T, H, W), the layer on top, counted from 1
        self._covers: list[dict[Layer, tuple[Window, np.ndarray]]] = []
        for frame in range(len(images)):
            self._covers.append({})
            for number, layer in enumerate(layers, 1):
                self._paint(frame, number, layer)

    def visible(self, layers: list[Layer], frames: slice = slice(None)) -> np.ndarray:
        """Bool (T, H, W): where one of the layers is on top, in all frames or in some."""
        among = np.zeros(256, np.uint8)
        among[[number for number, layer in enumerate(self.layers, 1) if layer in layers]] = 1
        top = self.top[frames]
        return cv2.LUT(top.reshape(-1, top.shape[-1]), among).view(bool).reshape(top.shape)

    def _paint(self, frame: int, number: int, layer: Layer) -> None:
        vertices, smear = layer.vertices(frame), layer.smear(frame)
        whole = self._covers[frame].get(layer.within) if layer.within else None
        window = whole[0] if whole else _window(vertices, self.top.shape[1:], 1 + int(np.abs(smear).max()))
        if window is None or (layer.within and not whole):
            return
        cover = layer.filled(vertices, window)
        cover = np.minimum(cover, whole[1]) if whole else cover
        self._covers[frame][layer] = window, cover
        if layer.shadow is not None:
            _shade(self.images[frame], layer, vertices + layer.shadow)
        matrix = (layer.poses[frame] @ layer.texels)[:2]  # from pixels of the skin to those of the window
        matrix[:, 2] -= [window[1].start, window[0].start]
        skin = cv2.warpAffine(layer.skin, matrix, cover.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
        image, weight = self.images[frame][window], _smeared(cover, smear) * np.float32(1 / 255)
        image[:] = cv2.blendLinear(_smeared(skin, smear), np.ascontiguousarray(image), weight, 1 - weight)
        np.copyto(self.top[frame][window], number, where=cover > 127)


def _window(vertices: np.ndarray, shape: tuple[int, ...], margin: int = 1) -> Window | None:
    """The rows and columns that an outline touches; None if it lies outside the image."""
    (low_x, low_y), (high_x, high_y) = vertices.min(0).tolist(), vertices.max(0).tolist()
    left, top = max(floor(low_x) - margin, 0), max(floor(low_y) - margin, 0)
    right, bottom = min(ceil(high_x) + margin + 1, shape[1]), min(ceil(high_y) + margin + 1, shape[0])
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _smeared(image: np.ndarray, move: np.ndarray) -> np.ndarray:
    """An image or a cover smeared along a move."""
    if not move.any():
        return image
    reach = int(np.ceil(np.abs(move).max() / 2))
    line = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    start, end = (tuple(np.round(reach + move * half).astype(int).tolist()) for half in (-0.5, 0.5))
    cv2.line(line, start, end, 1.0)
    return cv2.filter2D(image, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE)


def _shade(image: np.ndarray, layer: Layer, vertices: np.ndarray) -> None:
    """Darken an image in place where the shadow of a layer falls."""
    window = _window(vertices, image.shape[:2], _SHADOW_SOFTNESS)
    if window is None:
        return
    soft = cv2.blur(layer.filled(vertices, window), (_SHADOW_SOFTNESS, _SHADOW_SOFTNESS))
    light = 255 - soft // 2
    image[window] = cv2.multiply(np.ascontiguousarray(image[window]), cv2.merge([light] * 3), scale=1 / 255)
