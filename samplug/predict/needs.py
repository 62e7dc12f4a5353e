"""The memory that answers to prompts will take, told before any of it is taken."""

from __future__ import annotations

from collections.abc import Sequence

from samplug import room
from samplug.predict.answers import Frame
from samplug.predict.faults import Faults
from samplug.predict.finish import Finish, bytes_of_masks
from samplug.prompts import Prompts
from samplug.room import RoomError
from samplug.view import MASK_STRIDE, View

GRID = 16  # pixels of the input to one of the features
MOST_PROMPTS = 1 << 8  # answered together, while a GPU's memory suffices; the decoder cuts them up as the cache likes
# What decoding has in hand, measured. Of each of these prompts, in logits of one mask:
CANDIDATES = 8  # for each mask of an answer: all that it might have been, and copies of those that are
GIVEN = 24  # for a prompt that is a mask: its map, as wide as the features
CLICK = 4096  # bytes of each click
# Of those that the decoder takes at a time, by the pixels of the features' grid that they look at together:
PIXELS = 8192
ATTENTION = 64  # bytes of a click and a pixel: their weight for each of 8 heads, twice

PLAIN = Finish()


def with_room(frames: Sequence[Frame], faults: Faults, masks: int, finish: Finish) -> list[Frame | None]:
    """The pictures of a batch whose answers fit into memory beside those before them; None for the others.

    Args:
        frames: the pictures with their prompts.
        faults: where the others are noted.
        masks: how many answer a prompt.
        finish: what becomes of them.

    Raises:
        RoomError: one does not fit, and faults end the run.
    """
    fitting: list[Frame | None] = []
    taken = 0
    for frame in frames:
        try:
            taken += check_room(frame.prompts, frame.view, masks, finish, taken)
        except RoomError as error:
            faults.meet(frame.path, error)
            fitting.append(None)
        else:
            fitting.append(frame)
    return fitting


def check_room(prompts: Prompts, view: View, masks: int, finish: Finish = PLAIN, taken: int = 0) -> int:
    """Refuse prompts whose answers would not fit into memory beside what is taken of it.

    Returns:
        The bytes that they need.

    Raises:
        RoomError: there are fewer.
    """
    (height, width), clicks = view.picture, most_clicks(prompts)
    need = bytes_of(prompts, view, masks, finish)
    by = f" by up to {clicks} clicks each" if clicks > 1 else ""
    what = f"answering with {masks * len(prompts)} masks of {width}x{height} pixels{by}"
    room.check(taken + need, what, "give fewer objects at once, fewer clicks, fewer pictures (batch=), or smaller ones")
    return need


def bytes_of(prompts: Prompts, view: View, masks: int, finish: Finish) -> int:
    """The memory for the answers on one picture: logits and masks of all, and what decoding has in hand."""
    (height, width), count = view.network, len(prompts)
    logits = 4 * (height // MASK_STRIDE) * (width // MASK_STRIDE)
    given = sum(prompt.mask is not None for prompt in prompts.objects)
    copies = 1 if finish.conf is None and finish.classes is None else 2
    kept = (masks * count * copies + given) * logits + bytes_of_masks(masks * count, view.picture, finish.non_overlap)
    candidates = min(count, MOST_PROMPTS) * (masks * CANDIDATES + GIVEN * bool(given)) * logits
    return kept + candidates + bytes_of_clicks(most_clicks(prompts), count, (height // GRID) * (width // GRID))


def bytes_of_clicks(clicks: int, count: int, grid: int) -> int:
    """The memory for so many clicks on each of some objects, on features of so many pixels."""
    return clicks * (CLICK * min(count, MOST_PROMPTS) + ATTENTION * min(count * grid, max(grid, PIXELS)))


def most_clicks(prompts: Prompts) -> int:
    """How many clicks the object with the most has."""
    return max((len(prompt.points) for prompt in prompts.objects), default=0)
