"""Records of drawn masks: with holes, parts, borders, of one pixel, of all, of none."""

import cv2
import numpy as np

from samplug.data.formats.records import ImageRecord, ObjectRecord


def random_mask(rng, size):
    """Smooth or rough, from a few specks to nearly all."""
    noise = cv2.GaussianBlur(rng.normal(size=size), (0, 0), float(rng.uniform(0.4, 6)))
    return noise > np.quantile(noise, rng.uniform(0.2, 0.95))


def odd_masks(size):
    """All, a ring, the four corners, a pixel, a line along the border, none."""
    height, width = size
    ring, corners, pixel, line = (np.zeros(size, bool) for _ in range(4))
    ring[3:15, 4:18], ring[6:9, 7:12] = True, False
    corners[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    pixel[height // 2, width // 2] = True
    line[-1] = True
    return [np.ones(size, bool), ring, corners, pixel, line, np.zeros(size, bool)]


def objects(masks, names=("cat", "dog & <co>", "bus"), ids=None):
    """Objects of the classes 0, 3, 7 in turn, with scores in order."""
    return tuple(
        ObjectRecord.of_mask(mask, (0, 3, 7)[i % 3], names[i % 3], round(0.9 - 0.01 * i, 4), id=ids and ids[i])
        for i, mask in enumerate(masks)
    )


def records(seed, disjoint=False):
    """Two images, one of them without objects, and two videos, on whose frames objects come and go."""
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(20, 90, 2))

    def masks(count):
        drawn = [random_mask(rng, size) for _ in range(count)]
        return disjoint_masks(drawn) if disjoint else drawn

    odd = disjoint_masks(odd_masks(size)[1:]) if disjoint else odd_masks(size)
    images = [
        ImageRecord("a/photo é.jpg", size, None, objects([*odd, *([] if disjoint else masks(3))])),
        ImageRecord("nothing.png", size),
    ]
    ids = [(4, 7, 250), (7, 250, 4), (4, 9, 250)]  # not in order, and one that goes, one that comes
    by_id = {4: ("cat", 0), 7: ("dog & <co>", 3), 9: ("bus", 7), 250: ("bus", 7)}
    frames = [
        ImageRecord(
            "clip.mp4",
            size,
            frame,
            tuple(
                ObjectRecord.of_mask(mask, by_id[i][1], by_id[i][0], 0.5, id=i)
                for i, mask in zip(row, masks(3), strict=True)
            ),
        )
        for frame, row in zip((0, 1, 5), ids, strict=True)
    ]
    (mask,) = masks(1)
    other = ImageRecord(
        "more/other.avi", size, 2, (ObjectRecord.of_mask(mask, 7, "bus", 0.5, id=4),)
    )  # 4 is a cat there
    return [*images, *frames, ImageRecord("clip.mp4", size, 6), other]


def disjoint_masks(masks):
    """Each pixel left to the first."""
    taken, left = np.zeros(masks[0].shape, bool), []
    for mask in masks:
        left.append(mask & ~taken)
        taken |= mask
    return left


CLASSES = {"cat": 0, "dog & <co>": 3, "bus": 7}


def write(name, folder, given, **options):
    """Write records in a format; where they lie."""
    from samplug.data.formats import WRITERS

    with WRITERS[name](folder, CLASSES, str, **options) as writer:
        for record in given:
            writer.add(record, [(CLASSES[each.name], each) for each in record.objects])
    return folder / writer.place
