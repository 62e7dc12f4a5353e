"""COCO's run lengths: a mask as the lengths of its runs, column by column, without loss (holes and parts included)."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

CHAR_ZERO = 48  # six bits a character, counted from "0"
PAYLOAD = 0x1F
MORE = 0x20
SIGN = 0x10
MAX_PIXELS = 2**30  # of a mask: a few bytes may claim any size


def rle_encode(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """A mask as COCO's `{"size": [H, W], "counts": …}`.

    Args:
        mask: (H, W) bool, or numbers where anything but 0 is on.
        compressed: counts as COCO's string (what `pycocotools` writes), else as a list of ints.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}: run lengths are for one (H, W) mask at a time.")
    columns = np.flatnonzero(mask.any(0))
    first, stop = (columns[0], columns[-1] + 1) if len(columns) else (0, 0)
    off = np.zeros(1, bool)
    flat = np.concatenate([off, mask[:, first:stop].ravel(order="F").astype(bool), off])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + first * len(mask)
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()  # the first run is of pixels that are off
    if len(edges) and not counts[-1]:
        counts.pop()
    return {"size": list(mask.shape), "counts": pack(counts) if compressed else counts}


def rle_decode(rle: dict[str, Any]) -> np.ndarray:
    """The (H, W) bool mask of a COCO run-length dict; `counts` may be a list, a string or bytes.

    ValueError if the size is none or too large, or the runs do not fill it; TypeError if either is of another type.
    """
    height, width = rle_size(rle)
    counts = rle["counts"]
    counts = unpack(counts) if isinstance(counts, (str, bytes)) else [index(count) for count in counts]
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"runs of {sum(counts)} pixels do not fill a mask of {height}x{width}.")
    states = np.arange(len(counts)) % 2 == 1
    return np.repeat(states, counts).reshape((height, width), order="F")


def rle_size(rle: dict[str, Any]) -> tuple[int, int]:
    """The (H, W) that a run-length dict states, before anything is unpacked; ValueError or TypeError as above."""
    height, width = map(index, rle["size"])
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"their size is {height}x{width}, at most {MAX_PIXELS} pixels are read.")
    return height, width


def pack(counts: list[int]) -> str:
    """Counts as COCO's string: from the fourth on, the change since the run of the same kind before.

    Each is a signed number, five bits a character, lowest first, a sixth bit where more follow.
    """
    characters = []
    for i, count in enumerate(counts):
        number, more = count - counts[i - 2] if i > 2 else count, True
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
        if not 0 <= bits <= MORE | PAYLOAD or shift > 60:
            raise ValueError(f"{chr(code)!r} has no place in a string of counts.")
        number |= (bits & PAYLOAD) << shift
        shift += 5
        if bits & MORE:
            continue
        if bits & SIGN:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the string of counts is cut short.")
    return counts
