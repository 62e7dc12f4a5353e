"""A mask as outlines from which Ultralytics draws the same mask: holes stay open, no pixel is lost."""

import cv2
import numpy as np

from samplug.transforms import Size

INSIDE_PIXEL = 0.25  # added to a vertex before it is scaled: the same pixel whether a reader truncates or rounds
LABEL_ROUNDING = 1e-6  # of a side of the image, by the six digits of a label's numbers


def outlines_of(mask: np.ndarray) -> list[np.ndarray]:
    """The outline of each separate part of a mask (H, W) bool.

    A hole is joined to the outline around it by a bridge: straight up from its topmost pixel to the next pixel that is
    on an outline already. All of that bridge is mask, and so are all vertices, so that filling the outline, its border
    included, as `cv2.fillPoly` does, gives the mask again.

    Returns:
        For each part (K, 2) int32 xy of pixels, K >= 1, without vertices on a straight line.
    """
    return [without_straight(join_holes(outer, holes)) for outer, *holes in rings_of(mask)]


def rings_of(mask: np.ndarray) -> list[list[np.ndarray]]:
    """The rings (K, 2) int32 xy of each separate part of a mask (H, W) bool.

    First the outer one, then those of mask around its holes, each from its topmost pixel on, the highest first.
    """
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)
    inside = pixels[y : y + height, x : x + width]
    contours, hierarchy = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
    if hierarchy is None:
        return []
    rings, parents = [contour[:, 0] for contour in contours], hierarchy[0, :, 3].tolist()
    parts = {i: [ring] for i, (ring, parent) in enumerate(zip(rings, parents, strict=True)) if parent < 0}
    holes = [(np.roll(ring, -int(ring[:, 1].argmin()), 0), i) for ring, i in zip(rings, parents, strict=True) if i >= 0]
    for ring, parent in sorted(holes, key=lambda hole: hole[0][0, ::-1].tolist()):
        parts[parent].append(ring)
    return list(parts.values())


def join_holes(outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """One closed line around a part and its holes, (K, 2).

    The line is kept as each point's successor, so that a detour is inserted without moving the points behind it.
    """
    points = [tuple(point) for point in outline.tolist()]
    successors = [*range(1, len(points)), -1]
    where = {point: i for i, point in enumerate(points)}
    for ring in holes:
        x, y = top = tuple(ring[0].tolist())
        while (x, y) not in where:  # a ring is somewhere above, as the part is closed
            y -= 1
        at, start = where[x, y], len(points)
        points += [*map(tuple, ring.tolist()), top, (x, y)]
        successors += [*range(start + 1, len(points)), successors[at]]
        successors[at] = start
        where.update(zip(points[start:], range(start, len(points)), strict=True))
    order = [0]
    while (successor := successors[order[-1]]) >= 0:
        order.append(successor)
    return np.array(points, np.int32)[order]


def without_straight(path: np.ndarray) -> np.ndarray:
    """A closed line without the vertices that lie on a straight stretch; turning back is no such stretch."""
    before, after = path - np.roll(path, 1, 0), np.roll(path, -1, 0) - path
    straight = (before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]) & ((before * after).sum(1) > 0)
    kept = path[~straight]
    return kept if len(kept) else path[:1]


def is_of_yolo_rows(outline: np.ndarray, size: Size) -> bool:
    """Whether an outline (K, 2) xy in pixels of an image (H, W) is one of `yolo_rows`.

    Each vertex of those lies the same bit inside its pixel, which no three vertices of others do by chance. They run
    through the outermost pixels of a mask, where outlines of other programs run around them.
    """
    places = outline - INSIDE_PIXEL
    return bool((np.abs(places - places.round()) <= LABEL_ROUNDING * max(size)).all())


def yolo_rows(mask: np.ndarray, number: int) -> list[str]:
    """The lines of a YOLO segmentation label for one object of a class: one for each separate part.

    Ultralytics takes each line for an instance of its own; its reader needs three vertices.
    """
    height, width = mask.shape
    rows = []
    for outline in outlines_of(mask):
        outline = outline[np.arange(max(len(outline), 3)) % len(outline)]  # a pixel or a line is drawn back and forth
        scaled = (outline + INSIDE_PIXEL) / (width, height)
        rows.append(f"{number} " + " ".join(f"{value:.6f}" for value in scaled.ravel()))
    return rows
