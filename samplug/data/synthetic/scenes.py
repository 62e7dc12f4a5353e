"""Procedural images with exact visible masks: endless, seeded, easy to hard.

A scene is painted back to front. Every layer has a number and the canvas records, per pixel, which layer is on top, so
the visible masks are exact. An object is a set of layers: a part and the whole it belongs to are two objects that
share layers, look-alikes are objects with one outline and one surface. In many scenes all objects share two or three
surfaces: where colour alone identifies objects, a network learns colour and ignores the prompt.

Some outlines and surfaces are never used unless `held_out` asks for them: they test a network on
what it was not trained on.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from samplug.data.synthetic import shapes, textures

_PART_AREA = (0.04, 0.3)  # of the whole
_MIN_CONTRAST = 0.06  # mean difference of a surface to what lies under it
MIN_VISIBLE = 20 / 256**2  # of the image: smaller objects are left out


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its objects."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    masks: np.ndarray  # (N, H, W) bool, what is visible of each object; N >= 1


@dataclass(eq=False)
class Canvas:
    """An image being painted, which layer lies on top at each pixel, and which layers make an object."""

    image: np.ndarray  # (H, W, 3) float32
    top: np.ndarray  # (H, W) int16, the layer on top
    objects: list[list[int]] = field(default_factory=list)  # layers of each object
    layers: int = 1
    regions: int = 0  # the first so many objects are pieces of the background

    @property
    def side(self) -> float:
        """Of a square of the same area, in pixels."""
        return float(np.sqrt(self.top.size))

    def visible(self, layers: list[int]) -> np.ndarray:
        """Bool (H, W): where one of these layers is on top."""
        among = np.zeros(self.layers, bool)
        among[layers] = True
        return among[self.top]

    def paint(self, cover: np.ndarray, surface: np.ndarray) -> int:
        """Blend a surface over the canvas, weighted by `cover` (H, W) uint8; returns the layer's number."""
        box = cv2.boundingRect(cover)
        window = slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2])
        below, alpha = self.image[window], (cover[window] * np.float32(1 / 255))[..., None]
        below += alpha * (surface[window] - below)
        self.top[window][cover[window] > 127] = self.layers
        self.layers += 1
        return self.layers - 1


def draw(rng: np.random.Generator, height: int, width: int, *, level: float = 1.0, held_out: bool = False) -> Scene:
    """Draw one image of so many pixels; the same state of the generator gives the same image.

    A level of 0 gives one to three large plain objects, 1 clutter, fine textures, small objects and camera noise.
    `held_out` uses the outlines and surfaces that training never sees, beside the usual ones.
    """
    painter = Painter(rng, level, held_out)
    while True:
        canvas = painter.scene(height, width)
        scene = _collect_objects(rng, canvas, level)
        if len(scene.masks):
            return scene


class Painter:
    """Draws the layers of a scene, at one level of difficulty."""

    def __init__(self, rng: np.random.Generator, level: float, held_out: bool):
        self.rng, self.level = rng, level
        self.outlines = shapes.HELD_OUT_OUTLINES if held_out else shapes.OUTLINES
        self.surfaces = textures.TEXTURES + 6 * textures.HELD_OUT_TEXTURES if held_out else textures.TEXTURES
        self.palette: list[np.ndarray] = []

    def backdrop(self, height: int, width: int) -> Canvas:
        """A background alone, in one piece or divided; chooses the surfaces that objects may share."""
        self.palette = []
        if self.rng.random() < 0.45:
            self.palette = [self.surface(height, width) for _ in range(int(self.rng.integers(2, 4)))]
        canvas = Canvas(self.surface(height, width), np.zeros((height, width), np.int16))
        if self.rng.random() < 0.6 - 0.4 * self.level:
            self.divide(canvas)
        return canvas

    def scene(self, height: int, width: int) -> Canvas:
        """A background with objects on it."""
        rng, level = self.rng, self.level
        canvas = self.backdrop(height, width)
        for _ in range(1 + rng.poisson(0.5 + 5 * level * rng.random())):
            kind = rng.random()
            if kind < 0.15 + 0.1 * level:
                self.look_alikes(canvas)
            elif kind < 0.25 + 0.35 * level:
                self.whole_with_parts(canvas)
            else:
                self.single(canvas)
        return canvas

    def surface(self, height: int, width: int) -> np.ndarray:
        """One that the scene's objects share, if they do, or a new one of this size."""
        rng = self.rng
        if self.palette and rng.random() < 0.9:
            return self.palette[int(rng.integers(len(self.palette)))]
        families = self.surfaces if rng.random() < 0.15 + 0.6 * self.level else textures.FLAT_TEXTURES
        return families[int(rng.integers(len(families)))](rng, height, width)

    def outline(self) -> shapes.Shape:
        """One of any family, in its own unit."""
        return self.outlines[int(self.rng.integers(len(self.outlines)))](self.rng)

    def cover(self, canvas: Canvas, outline: shapes.Shape, size: float, centre: np.ndarray | None = None) -> np.ndarray:
        """Coverage of an outline put somewhere; `size` is the square root of its area in pixels."""
        rng = self.rng
        height, width = canvas.top.shape
        centre = rng.uniform(0.08, 0.92, 2) * [width, height] if centre is None else centre
        placed = shapes.place(outline, centre, size, rng.uniform(0, 2 * np.pi), 2 ** rng.normal(0, 0.5))
        return shapes.fill(placed, height, width)

    def size(self, canvas: Canvas) -> float:
        """Square root of an area that is log-uniform between a least share of the image, by level, and 40 %."""
        least = 0.06 * (0.001 / 0.06) ** self.level
        return float(np.exp(self.rng.uniform(np.log(least), np.log(0.4)) / 2)) * canvas.side

    def divide(self, canvas: Canvas) -> None:
        """Split the background into two to four regions, each an object: sky, ground, walls."""
        rng = self.rng
        height, width = canvas.top.shape
        sites = rng.uniform(0, 1, (int(rng.integers(2, 5)), 2)) * [width, height]
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        bend = textures.noise(rng, height, width, 0.05) * rng.uniform(0, 0.12) * canvas.side
        distance = [np.hypot(x - site[0], y - site[1]) for site in sites]
        distance[0] = distance[0] + bend
        region = np.argmin(distance, axis=0)
        canvas.objects.append([0])
        for number in range(1, len(sites)):
            cover = cv2.GaussianBlur((region == number).astype(np.uint8) * 255, (3, 3), 0)
            canvas.objects.append([canvas.paint(cover, self.visible(canvas, cover))])
        canvas.regions = len(sites)

    def single(self, canvas: Canvas) -> None:
        """One object of one surface."""
        cover = self.cover(canvas, self.outline(), self.size(canvas))
        self.shadow(canvas, cover)
        canvas.objects.append([canvas.paint(cover, self.shaded(canvas, cover))])

    def look_alikes(self, canvas: Canvas) -> None:
        """Two to five objects with the same outline and the same surface."""
        rng = self.rng
        outline, size = self.outline(), self.size(canvas) * 0.6
        cover = self.cover(canvas, outline, size)
        surface = self.visible(canvas, cover)
        for _ in range(int(rng.integers(2, 6))):
            self.shadow(canvas, cover)
            canvas.objects.append([canvas.paint(cover, surface)])
            cover = self.cover(canvas, outline, size * rng.uniform(0.85, 1.15))

    def whole_with_parts(self, canvas: Canvas) -> None:
        """One object made of several surfaces; each large enough piece is an object too."""
        rng = self.rng
        size = max(self.size(canvas), 0.12 * canvas.side)
        cover = self.cover(canvas, self.outline(), size)
        inside = np.argwhere(cover > 127)
        if not len(inside):
            return
        self.shadow(canvas, cover)
        layers = [canvas.paint(cover, self.shaded(canvas, cover))]
        canvas.objects.append(layers)
        for _ in range(int(rng.integers(1, 5))):
            centre = inside[int(rng.integers(len(inside)))][::-1]
            part = self.cover(canvas, self.outline(), size * np.sqrt(rng.uniform(*_PART_AREA)), centre)
            part = np.minimum(part, cover)
            layers.append(canvas.paint(part, self.visible(canvas, part)))
            canvas.objects.append([layers[-1]])

    def visible(self, canvas: Canvas, cover: np.ndarray) -> np.ndarray:
        """A surface that differs from what it will cover: an object that nobody can see must not be prompted."""
        box = cv2.boundingRect(cover)
        window = slice(box[1], box[1] + box[3], 2), slice(box[0], box[0] + box[2], 2)
        below, weight = canvas.image[window], cover[window].astype(np.float32)
        for _ in range(6):
            surface = self.surface(*canvas.top.shape)
            difference = np.abs(surface[window] - below).mean(2)
            if (difference * weight).sum() >= _MIN_CONTRAST * weight.sum():
                break
            self.palette = [] if self.rng.random() < 0.2 else self.palette
        return surface

    def shaded(self, canvas: Canvas, cover: np.ndarray) -> np.ndarray:
        """A surface for one object, sometimes with light falling from a side."""
        return self.lit(self.visible(canvas, cover), cover, canvas.side)

    def lit(self, surface: np.ndarray, cover: np.ndarray, side: float) -> np.ndarray:
        """A surface as light from a side shows it, sometimes: `cover` rises where it ends, over a tenth of `side`."""
        if self.rng.random() < 0.3 + 0.3 * self.level:
            relief = cv2.blur(cover, (int(0.1 * side) | 1,) * 2).astype(np.float32) / 255
            shift = self.rng.integers(-6, 7, 2)
            light = relief - np.roll(relief, (int(shift[0]), int(shift[1])), (0, 1))
            surface = surface * (1 + np.float32(self.rng.uniform(0.3, 1.2)) * light)[..., None]
        return surface

    def shadow(self, canvas: Canvas, cover: np.ndarray) -> None:
        """Darken what lies beside an object; a shadow belongs to nobody."""
        rng = self.rng
        if rng.random() > 0.4 * self.level:
            return
        reach = int(0.06 * canvas.side)
        shift = rng.integers(-reach, reach + 1, 2)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
        soft = cv2.warpAffine(cover, matrix, cover.shape[::-1])
        soft = cv2.blur(soft, (int(rng.uniform(0.01, 0.06) * canvas.side) | 1,) * 2)
        canvas.image *= (1 - soft * np.float32(rng.uniform(0.2, 0.6) / 255))[..., None]


def _collect_objects(rng: np.random.Generator, canvas: Canvas, level: float) -> Scene:
    visible = [canvas.visible(layers) for layers in canvas.objects]
    pieces = [piece for region in visible[: canvas.regions] for piece in _pieces(region)]
    found = pieces + visible[canvas.regions :]
    masks = np.array(found, bool).reshape(len(found), *canvas.top.shape)  # there may be none
    kept = masks.sum((1, 2)) >= max(MIN_VISIBLE * canvas.top.size, 12)
    return Scene(_camera(rng, canvas.image, level), masks[kept])


def _pieces(region: np.ndarray) -> list[np.ndarray]:
    """The connected pieces of a piece of background, without crumbs: two bits of sky are two objects."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    large = [number for number in range(1, count) if stats[number, cv2.CC_STAT_AREA] >= 0.01 * region.size]
    return [pieces == number for number in large]


def _camera(rng: np.random.Generator, image: np.ndarray, level: float) -> np.ndarray:
    """What a camera does to an image: light, blur, grain, tone, compression. (H, W, 3) float32 to uint8."""
    height, width = image.shape[:2]
    if rng.random() < 0.4 * level:
        image = image * (1 + textures.noise(rng, height, width, 0)[..., None] * np.float32(rng.uniform(0, 0.2)))
    if rng.random() < 0.5 * level:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.7:
        grain = rng.standard_normal((height, width, 3), np.float32)
        image = image + grain * np.float32(rng.uniform(0, 0.015 + 0.035 * level))
    if rng.random() < 0.1:
        image = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    image = np.clip(image, 0, 1) ** np.float32(2 ** rng.normal(0, 0.35))
    image = np.round(image * 255).astype(np.uint8)
    if rng.random() < 0.4 * level:
        image = jpeg(image, int(rng.integers(35, 95)))
    return image


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """An image after JPEG compression."""
    _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
