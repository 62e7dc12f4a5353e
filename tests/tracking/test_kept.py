"""How much of an object is kept where it is prompted again and again: as many prompted frames as count, no more."""

import pytest
from support.walks import Notebook, number, walk

from samplug.tracking import Tracker

FRAMES, EVERY = 160, 16  # further apart than pointers reach


def kept(frames, model=None, **how):
    """The prompted frames that are kept once a walk has left its last frame."""
    frames = list(frames)
    tracker = Tracker(model or Notebook(), **how)
    list(walk(tracker, frames, frames[::EVERY]))
    tracker.start_frame(2 * frames[-1] - frames[-2], number(frames[-1]))
    return tracker._tracks[1].prompted_frames(), set(tracker._tracks[1].clicks)


@pytest.mark.parametrize("most", [2, 4, 8])
@pytest.mark.parametrize("reverse", [False, True])
def test_no_more_prompted_frames_are_kept_than_count(most, reverse):
    frames = range(FRAMES)[:: -1 if reverse else 1]
    anchors, clicks = kept(frames, reverse=reverse, max_prompted=most)
    assert anchors == list(frames[::EVERY])[-most:] and clicks == set(anchors)


def test_no_more_are_kept_than_the_networks_own_cap():
    assert kept(range(FRAMES), Notebook(max_cond_frames_in_attn=3))[0] == [112, 128, 144]


def test_without_a_cap_all_are_kept():
    assert kept(range(FRAMES), max_prompted=-1)[0] == list(range(0, FRAMES, EVERY))
