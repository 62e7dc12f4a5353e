"""COCO's run lengths: a mask as the lengths of its runs, column by column, without loss (holes and parts included)."""

from __future__ import annotations

from typing import Any

import numpy as np

CHAR_ZERO = 48  # six bits a character, counted from "0"
PAYLOAD = 0x1F
MORE = 0x20
SIGN = 0x10


def rle_encode(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """A mask as COCO's `{"size": [H, W], "counts": …}`.

    Args:
        mask: (H, W) bool, or numbers where anything but 0 is on.
        compressed: counts as COCO's string (what `pycocotools` writes), else as a list of ints.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}: run lengths are for one (H, W) mask at a time.")
    flat = mask.astype(bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)  # the first run is always of pixels that are off
    return {"size": list(mask.shape), "counts": pack(counts) if compressed else counts}


def rle_decode(rle: dict[str, Any]) -> np.ndarray:
    """The (H, W) bool mask of a COCO run-length dict; `counts` may be a list, a string or bytes.

    Raises:
        ValueError: if the runs do not fill the size that the dict states.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    counts = unpack(counts) if isinstance(counts, (str, bytes)) else list(counts)
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"runs of {sum(counts)} pixels do not fill a mask of {height}x{width}.")
    states = np.arange(len(counts)) % 2 == 1
    return np.repeat(states, counts).reshape((height, width), order="F")


def pack(counts: list[int]) -> str:
    """Counts as COCO's string: from the fourth on, the change since the run of the same kind before."""
    changes = [count - counts[i - 2] if i > 2 else count for i, count in enumerate(counts)]
    return "".join(pack_number(change) for change in changes)


def pack_number(number: int) -> str:
    """One signed number, five bits a character, lowest first, a sixth bit where more follow."""
    characters = []
    more = True
    while more:
        payload = number & PAYLOAD
        number >>= 5
        more = number != (-1 if payload & SIGN else 0)
        characters.append(chr(CHAR_ZERO + payload + (MORE if more else 0)))
    return "".join(characters)


def unpack(text: str | bytes) -> list[int]:
    """The counts in COCO's string."""
    codes = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    number = shift = 0
    for code in codes:
        bits = code - CHAR_ZERO
        number |= (bits & PAYLOAD) << shift
        shift += 5
        if bits & MORE:
            continue
        if bits & SIGN:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    return counts
