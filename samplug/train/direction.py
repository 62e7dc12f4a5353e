"""Who plays in a drawn clip and where everyone goes.

The leading things follow a script: some leave and return, some pass behind something, some meet what looks like them.
"""

from __future__ import annotations

import cv2
import numpy as np

from . import paths, scenes, shapes
from .cast import Actor, Dress, Tailor, actor
from .films import Layer

_MARGIN = 0.15  # of the picture, over which the camera may pan at each side
_LONGEST_ABSENCE = 8.0  # frames
_BAR = np.array([[-1, -8], [1, -8], [1, 8], [-1, 8]], np.float32)


class Director:
    """Plans one clip of T frames.

    Attributes:
        layers: Of everyone, in painter's order.
        followed: The layers of each object that may be asked for.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, frames: int, painter: scenes.Painter):
        self.rng, self.painter, self.level = rng, painter, float(painter.level)
        self.shape, self.side = np.array([width, height]), float(height * width) ** 0.5
        self.when = paths.times(rng, frames, 0.15 * self.level * (rng.random() < 0.5))
        self.length = max(float(self.when[-1]), 1.0)
        self.camera = self._camera()
        self.scenery = self._scenery()
        self.tailor = Tailor(painter, self.scenery)
        self.followed: list[list[Layer]] = []
        self._actors: list[tuple[float, Actor]] = []  # with their nearness

    @property
    def layers(self) -> list[Layer]:
        """Of everyone, in painter's order."""
        return [layer for _, player in sorted(self._actors, key=lambda pair: pair[0]) for layer in player.layers]

    def backgrounds(self) -> np.ndarray:
        """What everyone plays in front of: (T, H, W, 3) uint8."""
        if not self._margin:
            return np.tile(self.scenery, (len(self.when), 1, 1, 1))
        corner = np.array([[1, 0, -self._margin], [0, 1, -self._margin], [0, 0, 1.0]])
        size = self.shape.tolist()
        warped = [
            cv2.warpAffine(self.scenery, (m @ corner)[:2], size, borderMode=cv2.BORDER_REFLECT) for m in self.camera
        ]
        return np.stack(warped)

    def engage(self, leaving: bool = False) -> None:
        """Bring on everyone; with `leaving` every leading thing tries to leave and to return."""
        rng, level = self.rng, self.level
        for _ in range(1 + int(rng.random() < 0.4) + int(rng.random() < 0.6 * level)):
            self._lead(leaving)
        for _ in range(rng.poisson(2 * level)):
            size = self._size()
            self._enter(self.tailor.dress(size), size, self._free(size, still=rng.random() < 0.4))

    def _lead(self, leaving: bool) -> None:
        rng, size = self.rng, self._size()
        dress = self.tailor.dress(size)
        script, busy = rng.random(), 0.6 * min(1.0, 2 * self.level)
        if leaving or script < 0.5 * busy:
            player = self._enter(dress, size, self._leaving(dress.radius * size, size))
        elif script < busy and dress.radius * size < 0.25 * self.side:
            player = self._hidden(dress, size)
        else:
            player = self._enter(dress, size, self._free(size))
        self.followed.append(player.objects[0])
        if len(player.objects) > 1 and rng.random() < 0.4:
            self.followed.append(player.objects[int(rng.integers(1, len(player.objects)))])
        if rng.random() < 0.35 * min(1.0, 3 * self.level):
            self._twin(dress, size, player)

    def _enter(self, dress: Dress, size: float, places: np.ndarray, nearness: float = 0.0) -> Actor:
        """Bring on a thing of a size on a path, matrices (T, 3, 3) that turn and scale about its place."""
        player = actor(self.rng, dress, places @ np.diag([size, size, 1]), self.when, self.level)
        self._actors.append((nearness + self.rng.random(), player))
        return player

    def _twin(self, dress: Dress, size: float, like: Actor) -> None:
        """One or two more in the dress of another, which may meet that one."""
        for _ in range(int(self.rng.integers(1, 3))):
            frame = int(self.rng.integers(len(self.when)))
            meeting = like.layers[-1].places[frame, :2, 2] if self.rng.random() < 0.5 else None
            path = self._free(size, meeting=meeting, meeting_frame=frame)
            player = self._enter(dress, size * self.rng.uniform(0.85, 1.15), path)
            self.followed.append(player.objects[0])

    def _free(
        self, size: float, still: bool = False, meeting: np.ndarray | None = None, meeting_frame: int = 0
    ) -> np.ndarray:
        """A path through some place, or through the one given; most that come to the border turn back."""
        rng = self.rng
        if still:
            return self.camera @ self._posed(np.tile(self._somewhere(), (len(self.when), 1)), 0.0)
        move = paths.straight(rng, self.when, self._speed(size))
        places = self._somewhere() + move if meeting is None else meeting + move - move[meeting_frame]
        if rng.random() < 0.7:
            places = paths.bounced(places, 0.05 * self.shape, 0.95 * self.shape)
        return self.camera @ self._posed(places)

    def _leaving(self, radius: float, size: float) -> np.ndarray:
        """A path from near the border out of the picture, and mostly back again."""
        rng, length = self.rng, self.length
        axis, far_side = int(rng.integers(2)), rng.random() < 0.5
        home, room = self._somewhere(), radius * rng.uniform(0.3, 1.3)
        home[axis] = self.shape[axis] - room if far_side else room
        away = np.zeros(2)
        away[axis] = (1 if far_side else -1) * (room + 1.15 * radius)
        ramp = float(np.clip((room + radius) / (size * rng.uniform(0.15, 0.4)), 1, 0.3 * length))
        absent = float(np.clip(rng.uniform(0.15, 0.5) * length, 1.3, _LONGEST_ABSENCE))
        begin = rng.uniform(0.7 * ramp, max(length - absent - 0.6 * ramp, 0.71 * ramp))
        end = begin + absent if rng.random() < 0.8 else np.inf
        share = paths.gone(self.when, begin, end, ramp)
        drift = np.stack([paths.wander(rng, self.when, 0.03 * size) for _ in range(2)], 1)
        return self._posed(home + drift + share[:, None] * away, 0.5)

    def _hidden(self, dress: Dress, size: float) -> Actor:
        """A thing that is hidden for a while, by a still thing or by one that passes."""
        rng, length, radius = self.rng, self.length, 1.1 * dress.radius * size
        cover = radius * rng.uniform(1.15, 1.8)
        middle, half = rng.uniform(0.3, 0.7) * length, float(np.clip(rng.uniform(0.08, 0.25) * length, 0.6, 4))
        ramp = float(np.clip(rng.uniform(0.15, 0.35) * length, 1.5, 6))
        angle = rng.uniform(0, 2 * np.pi)
        apart = paths.passing(self.when, middle, half, ramp, cover - radius, cover + 1.5 * radius)
        away = apart[:, None] * [np.cos(angle), np.sin(angle)]
        if rng.random() < 0.5:
            centre = np.tile(rng.uniform(0.25, 0.75, 2) * self.shape, (len(self.when), 1))
            mine, its, bar = centre + away, centre, rng.random() < 0.5
        else:
            mine = self._somewhere() + paths.straight(rng, self.when, 0.4 * self._speed(size))
            its, bar = mine + away, False
        outline = [[_BAR]] if bar else shapes.superellipse(rng, float(2 ** rng.uniform(1, 3)))
        turned = paths.matrices(its, np.full(len(its), angle), np.ones(len(its)))
        self._enter(self.tailor.bare(outline, cover), cover, self.camera @ turned, nearness=1.0)
        return self._enter(dress, size, self.camera @ self._posed(mine, 0.3))

    def _posed(self, places: np.ndarray, lively: float = 1.0) -> np.ndarray:
        """Matrices of a thing that turns and grows while it is at the places (T, 2), more or less."""
        rng, when = self.rng, self.when
        lively *= 0.2 + 0.8 * self.level
        turn = rng.uniform(0, 2 * np.pi) + paths.wander(rng, when, rng.normal(0, 0.06) * lively)
        grow = np.exp(np.clip(paths.wander(rng, when, rng.normal(0, 0.03) * lively), -0.7, 0.7))
        return paths.matrices(places, turn, grow)

    def _somewhere(self) -> np.ndarray:
        return self.rng.uniform(0.12, 0.88, 2) * self.shape

    def _size(self) -> float:
        """Square root of an area that is log-uniform between shares of the picture, smaller ones at higher levels."""
        least = 0.05 * (0.002 / 0.05) ** self.level
        return float(np.exp(self.rng.uniform(np.log(least), np.log(0.2)) / 2)) * self.side

    def _speed(self, size: float) -> float:
        """Pixels a frame, in proportion to the size: most things overlap where they were a frame ago."""
        share = np.exp(self.rng.uniform(np.log(0.015), np.log(0.05 + 0.17 * self.level)))
        return float(share * (size + 0.03 * self.side))

    def _camera(self) -> np.ndarray:
        """Matrices (T, 3, 3) from a world that lies as the picture at first: pan, zoom, turn and a shaking hand."""
        rng, when, lively = self.rng, self.when, self.level * (self.rng.random() < 0.7)
        pan = [paths.wander(rng, when, rng.normal(0, 0.012) * lively * self.side) for _ in range(2)]
        shake = rng.normal(0, 0.003 * lively * rng.random() * self.side, (len(when), 2))
        turn, zoom = (paths.wander(rng, when, rng.normal(0, 0.01) * lively) for _ in range(2))
        made = paths.matrices(np.stack(pan, 1) + shake, turn, np.exp(zoom))
        centre = self.shape / 2
        made[:, :2, 2] += centre - made[:, :2, :2] @ centre
        return made

    def _scenery(self) -> np.ndarray:
        """The world behind, uint8, with a margin around the picture."""
        self._margin = int(_MARGIN * self.side) if np.ptp(self.camera, 0).max() > 0 else 0
        width, height = (self.shape + 2 * self._margin).tolist()
        bare = self.rng.random() > 0.2 + 0.5 * self.level
        canvas = (self.painter.backdrop if bare else self.painter.scene)(height, width)
        return (np.clip(canvas.image, 0, 1) * 255).astype(np.uint8)
