"""The actors of a drawn clip and their paths.

Followed actors take part in events: some leave and return, some are occluded, some meet look-alikes.
"""

import cv2
import numpy as np

from samplug.data.synthetic import motion, scenes, shapes
from samplug.data.synthetic.painting import Layer
from samplug.data.synthetic.sprites import Actor, Sprite, SpriteMaker, make_actor

_MARGIN = 0.15  # of the image, over which the camera may pan at each side
_LONGEST_ABSENCE = 8.0  # frames
_BAR_OUTLINE = np.array([[-1, -8], [1, -8], [1, 8], [-1, 8]], np.float32)


class Choreographer:
    """Plans one clip of T frames."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, frames: int, painter: scenes.Painter):
        self.rng, self.painter, self.level = rng, painter, float(painter.level)
        self.shape, self.side = np.array([width, height]), float(height * width) ** 0.5
        self.when = motion.times(rng, frames, 0.15 * self.level * (rng.random() < 0.5))
        self.length = max(float(self.when[-1]), 1.0)
        self.camera = self._camera()
        self.scenery = self._scenery()
        self.sprites = SpriteMaker(painter, self.scenery)
        self.followed: list[list[Layer]] = []  # the layers of each object that may be prompted
        self._actors: list[tuple[float, Actor]] = []  # with their depth order

    @property
    def layers(self) -> list[Layer]:
        """The layers of all actors, in painter's order."""
        return [layer for _, actor in sorted(self._actors, key=lambda pair: pair[0]) for layer in actor.layers]

    def backgrounds(self) -> np.ndarray:
        """The background of each frame: (T, H, W, 3) uint8."""
        if not self._margin:
            return np.tile(self.scenery, (len(self.when), 1, 1, 1))
        corner = np.array([[1, 0, -self._margin], [0, 1, -self._margin], [0, 0, 1.0]])
        size = self.shape.tolist()
        moves = ((matrix @ corner)[:2] for matrix in self.camera)
        return np.stack([cv2.warpAffine(self.scenery, m, size, borderMode=cv2.BORDER_REFLECT) for m in moves])

    def place_actors(self) -> None:
        """Add all actors."""
        rng, level = self.rng, self.level
        for _ in range(1 + int(rng.random() < 0.4) + int(rng.random() < 0.6 * level)):
            self._add_lead()
        for _ in range(rng.poisson(2 * level)):
            size = self._size()
            self._add_actor(self.sprites.make(size), size, self._free_path(size, still=rng.random() < 0.4))

    def _add_lead(self) -> None:
        rng, size = self.rng, self._size()
        sprite = self.sprites.make(size)
        event, busy = rng.random(), 0.6 * min(1.0, 2 * self.level)
        if event < 0.5 * busy:
            actor = self._add_actor(sprite, size, self._leaving_path(sprite.radius * size, size))
        elif event < busy and sprite.radius * size < 0.25 * self.side:
            actor = self._add_occluded(sprite, size)
        else:
            actor = self._add_actor(sprite, size, self._free_path(size))
        self.followed.append(actor.objects[0])
        if len(actor.objects) > 1 and rng.random() < 0.4:
            self.followed.append(actor.objects[int(rng.integers(1, len(actor.objects)))])
        if rng.random() < 0.35 * min(1.0, 3 * self.level):
            self._add_look_alikes(sprite, size, actor)

    def _add_actor(self, sprite: Sprite, size: float, poses: np.ndarray, nearness: float = 0.0) -> Actor:
        """Add an actor of a size on a path, matrices (T, 3, 3) that rotate and scale about its position."""
        actor = make_actor(self.rng, sprite, poses @ np.diag([size, size, 1]), self.when, self.level)
        self._actors.append((nearness + self.rng.random(), actor))
        return actor

    def _add_look_alikes(self, sprite: Sprite, size: float, like: Actor) -> None:
        """Add one or two more actors with the same sprite, which may meet the first."""
        for _ in range(int(self.rng.integers(1, 3))):
            frame = int(self.rng.integers(len(self.when)))
            meeting = like.layers[-1].poses[frame, :2, 2] if self.rng.random() < 0.5 else None
            path = self._free_path(size, meeting=meeting, meeting_frame=frame)
            actor = self._add_actor(sprite, size * self.rng.uniform(0.85, 1.15), path)
            self.followed.append(actor.objects[0])

    def _free_path(
        self, size: float, still: bool = False, meeting: np.ndarray | None = None, meeting_frame: int = 0
    ) -> np.ndarray:
        """A path through a random position, or the one given; most turn back at the border."""
        rng = self.rng
        if still:
            return self.camera @ self._poses_at(np.tile(self._random_position(), (len(self.when), 1)), 0.0)
        move = motion.straight(rng, self.when, self._speed(size))
        positions = self._random_position() + move if meeting is None else meeting + move - move[meeting_frame]
        if rng.random() < 0.7:
            positions = motion.bounced(positions, 0.05 * self.shape, 0.95 * self.shape)
        return self.camera @ self._poses_at(positions)

    def _leaving_path(self, radius: float, size: float) -> np.ndarray:
        """A path from near the border out of the image, and mostly back again."""
        rng, length = self.rng, self.length
        axis, far_side = int(rng.integers(2)), rng.random() < 0.5
        home, inset = self._random_position(), radius * rng.uniform(0.3, 1.3)
        home[axis] = self.shape[axis] - inset if far_side else inset
        away = np.zeros(2)
        away[axis] = (1 if far_side else -1) * (inset + 1.15 * radius)
        ramp = float(np.clip((inset + radius) / (size * rng.uniform(0.15, 0.4)), 1, 0.3 * length))
        absent = float(np.clip(rng.uniform(0.15, 0.5) * length, 1.3, _LONGEST_ABSENCE))
        begin = rng.uniform(0.7 * ramp, max(length - absent - 0.6 * ramp, 0.71 * ramp))
        end = begin + absent if rng.random() < 0.8 else np.inf
        share = motion.gone(self.when, begin, end, ramp)
        drift = np.stack([motion.wander(rng, self.when, 0.03 * size) for _ in range(2)], 1)
        return self._poses_at(home + drift + share[:, None] * away, 0.5)

    def _add_occluded(self, sprite: Sprite, size: float) -> Actor:
        """Add an actor that is occluded for a while, by a still actor or by one that passes."""
        rng, length, radius = self.rng, self.length, 1.1 * sprite.radius * size
        cover = radius * rng.uniform(1.15, 1.8)
        middle, half = rng.uniform(0.3, 0.7) * length, float(np.clip(rng.uniform(0.08, 0.25) * length, 0.6, 4))
        ramp = float(np.clip(rng.uniform(0.15, 0.35) * length, 1.5, 6))
        angle = rng.uniform(0, 2 * np.pi)
        distance = motion.passing(self.when, middle, half, ramp, cover - radius, cover + 1.5 * radius)
        away = distance[:, None] * [np.cos(angle), np.sin(angle)]
        if rng.random() < 0.5:
            centre = np.tile(rng.uniform(0.25, 0.75, 2) * self.shape, (len(self.when), 1))
            mine, its, bar = centre + away, centre, rng.random() < 0.5
        else:
            mine = self._random_position() + motion.straight(rng, self.when, 0.4 * self._speed(size))
            its, bar = mine + away, False
        outline = [[_BAR_OUTLINE]] if bar else shapes.superellipse(rng, float(2 ** rng.uniform(1, 3)))
        turned = motion.matrices(its, np.full(len(its), angle), np.ones(len(its)))
        self._add_actor(self.sprites.make_simple(outline, cover), cover, self.camera @ turned, nearness=1.0)
        return self._add_actor(sprite, size, self.camera @ self._poses_at(mine, 0.3))

    def _poses_at(self, positions: np.ndarray, strength: float = 1.0) -> np.ndarray:
        """Matrices (T, 3, 3) at the positions (T, 2), with a random rotation and growth."""
        rng, when = self.rng, self.when
        strength *= 0.2 + 0.8 * self.level
        turn = rng.uniform(0, 2 * np.pi) + motion.wander(rng, when, rng.normal(0, 0.06) * strength)
        grow = np.exp(np.clip(motion.wander(rng, when, rng.normal(0, 0.03) * strength), -0.7, 0.7))
        return motion.matrices(positions, turn, grow)

    def _random_position(self) -> np.ndarray:
        return self.rng.uniform(0.12, 0.88, 2) * self.shape

    def _size(self) -> float:
        """Square root of an area that is log-uniform between shares of the image, smaller ones at higher levels."""
        least = 0.05 * (0.002 / 0.05) ** self.level
        return float(np.exp(self.rng.uniform(np.log(least), np.log(0.2)) / 2)) * self.side

    def _speed(self, size: float) -> float:
        """Pixels a frame, in proportion to the size: most things overlap where they were a frame ago."""
        share = np.exp(self.rng.uniform(np.log(0.015), np.log(0.05 + 0.17 * self.level)))
        return float(share * (size + 0.03 * self.side))

    def _camera(self) -> np.ndarray:
        """Matrices (T, 3, 3) from the first frame to each: pan, zoom, rotation and shake."""
        rng, when, strength = self.rng, self.when, self.level * (self.rng.random() < 0.7)
        pan = [motion.wander(rng, when, rng.normal(0, 0.012) * strength * self.side) for _ in range(2)]
        shake = rng.normal(0, 0.003 * strength * rng.random() * self.side, (len(when), 2))
        turn, zoom = (motion.wander(rng, when, rng.normal(0, 0.01) * strength) for _ in range(2))
        made = motion.matrices(np.stack(pan, 1) + shake, turn, np.exp(zoom))
        centre = self.shape / 2
        made[:, :2, 2] += centre - made[:, :2, :2] @ centre
        return made

    def _scenery(self) -> np.ndarray:
        """The background, uint8, with a margin around the image for the camera to pan over."""
        self._margin = int(_MARGIN * self.side) if np.ptp(self.camera, 0).max() > 0 else 0
        width, height = (self.shape + 2 * self._margin).tolist()
        empty = self.rng.random() > 0.2 + 0.5 * self.level
        canvas = (self.painter.backdrop if empty else self.painter.scene)(height, width)
        return (np.clip(canvas.image, 0, 1) * 255).astype(np.uint8)
