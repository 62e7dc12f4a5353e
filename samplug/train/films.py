"""Painting drawn things that move, frame by frame.

T frames of (H, W). A thing lives in its own unit, in which its outline has area 1 about the origin; a place is the
(3, 3) matrix from there to the pixels of a frame, and it moves outline and surface as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import cv2
import numpy as np

from . import shapes

Window = tuple[slice, slice]
_SHORTEST_BLUR, _LONGEST_BLUR = 2.0, 15.0  # pixels
_SHADOW_SOFTNESS = 9


@dataclass(frozen=True, eq=False)
class Wave:
    """A slow wave through an outline: every vertex swings by itself, so the outline changes its form.

    Attributes:
        reach: (2,) in the thing's unit, how far vertices swing in x and y.
        across: (2, 2) radians a unit; the phase of a vertex is `across @ vertex`.
        phase: (T,) radians.
    """

    reach: np.ndarray
    across: np.ndarray
    phase: np.ndarray

    def bend(self, vertices: np.ndarray, frame: int) -> np.ndarray:
        """The vertices (V, 2) as they are in a frame."""
        swing = np.sin(vertices @ self.across.T + self.phase[frame]) * self.reach
        return vertices + swing.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Layer:
    """One surface in one outline.

    Attributes:
        outline: In its own unit.
        skin: (h, w, 3) uint8, its surface.
        texels: (3, 3) from pixels of the skin to the unit.
        places: (T, 3, 3).
        wave: How its outline changes; None if it does not.
        within: The layer whose cover cuts it off, for a part.
        shadow: (2,) xy in pixels where its shadow falls; None without one.
        shutter: How much of a frame's time the picture is exposed: fast things smear, 0 if not.
    """

    outline: shapes.Shape
    skin: np.ndarray
    texels: np.ndarray
    places: np.ndarray
    wave: Wave | None = None
    within: Layer | None = None
    shadow: np.ndarray | None = None
    shutter: float = 0.0

    @cached_property
    def _corners(self) -> np.ndarray:
        return np.concatenate([contour for part in self.outline for contour in part], dtype=np.float32)

    def vertices(self, frame: int) -> np.ndarray:
        """All vertices (V, 2) of the outline in pixels of a frame."""
        place = self.places[frame].astype(np.float32)
        bent = self.wave.bend(self._corners, frame) if self.wave else self._corners
        return bent @ place[:2, :2].T + place[:2, 2]

    def filled(self, vertices: np.ndarray, window: Window) -> np.ndarray:
        """Coverage (h, w) uint8 of a window by the outline with its vertices where they are said to be."""
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
        """By how many pixels xy its origin moves while a frame is exposed; 0 where that is too little to see."""
        before, after = max(frame - 1, 0), min(frame + 1, len(self.places) - 1)
        move = (self.places[after, :2, 2] - self.places[before, :2, 2]) * (self.shutter / max(after - before, 1))
        length = float(np.linalg.norm(move))
        return move * min(1.0, _LONGEST_BLUR / length) if length >= _SHORTEST_BLUR else np.zeros(2)


class Film:
    """Frames in the making.

    Attributes:
        images: (T, H, W, 3) uint8, RGB; the caller fills them with the background.
        top: (T, H, W) uint8, the layer on top, counted from 1; 0 is the background.
        layers: In painter's order.
    """

    def __init__(self, images: np.ndarray, layers: list[Layer]):
        self.images, self.layers = images, layers
        self.top = np.zeros(images.shape[:3], np.uint8)
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

    def amodal(self, layers: list[Layer]) -> np.ndarray:
        """Bool (T, H, W): where one of the layers is, whatever lies over it."""
        made = np.zeros(self.top.shape, bool)
        for canvas, covers in zip(made, self._covers, strict=True):
            for layer in layers:
                if layer in covers:
                    window, cover = covers[layer]
                    canvas[window] |= cover > 127
        return made

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
        skin = cv2.warpAffine(
            layer.skin, _from(layer, frame, window), cover.shape[::-1], borderMode=cv2.BORDER_REFLECT_101
        )
        _blend(self.images[frame][window], _smeared(skin, smear), _smeared(cover, smear))
        np.copyto(self.top[frame][window], number, where=cover > 127)


def _window(vertices: np.ndarray, shape: tuple[int, ...], margin: int = 1) -> Window | None:
    """The rows and columns that an outline touches; None if it lies outside the picture."""
    (low_x, low_y), (high_x, high_y) = vertices.min(0).tolist(), vertices.max(0).tolist()
    left, top = max(floor(low_x) - margin, 0), max(floor(low_y) - margin, 0)
    right, bottom = min(ceil(high_x) + margin + 1, shape[1]), min(ceil(high_y) + margin + 1, shape[0])
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _from(layer: Layer, frame: int, window: Window) -> np.ndarray:
    """(2, 3) from pixels of a layer's skin to those of a window."""
    matrix = (layer.places[frame] @ layer.texels)[:2]
    matrix[:, 2] -= [window[1].start, window[0].start]
    return matrix


def _smeared(picture: np.ndarray, move: np.ndarray) -> np.ndarray:
    """A picture or a cover smeared along a move."""
    if not move.any():
        return picture
    reach = int(np.ceil(np.abs(move).max() / 2))
    line = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    start, end = (tuple(np.round(reach + move * half).astype(int).tolist()) for half in (-0.5, 0.5))
    cv2.line(line, start, end, 1.0)
    return cv2.filter2D(picture, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE)


def _blend(image: np.ndarray, skin: np.ndarray, cover: np.ndarray) -> None:
    """Lay a surface over a picture in place, as much as the cover (h, w) uint8 says."""
    weight = cover * np.float32(1 / 255)
    image[:] = cv2.blendLinear(skin, np.ascontiguousarray(image), weight, 1 - weight)


def _shade(image: np.ndarray, layer: Layer, vertices: np.ndarray) -> None:
    """Darken a picture in place where the shadow of a layer falls."""
    window = _window(vertices, image.shape[:2], _SHADOW_SOFTNESS)
    if window is None:
        return
    soft = cv2.blur(layer.filled(vertices, window), (_SHADOW_SOFTNESS, _SHADOW_SOFTNESS))
    light = 255 - soft // 2
    image[window] = cv2.multiply(np.ascontiguousarray(image[window]), cv2.merge([light] * 3), scale=1 / 255)
