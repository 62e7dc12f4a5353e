"""Frames of a live stream that nobody took in time."""

from samplug.sources.live import FrameQueue


def test_the_newest_frame_waits_and_those_it_took_the_place_of_are_counted(capture_log):
    waiting = FrameQueue([["first"], []], ["front", "back"])
    waiting[1] = ["a"]
    assert waiting.dropped == [0, 0] and not capture_log
    for frame in ("second", "third"):
        waiting[0] = [frame]
    assert list(waiting) == [["third"], ["a"]] and waiting.dropped == [2, 0]
    waiting[0].pop()
    waiting[0] = ["fourth"]
    assert waiting[0] == ["fourth"] and waiting.dropped == [2, 0]
    assert [line.split(" comes ")[0] for line in capture_log] == ["WARNING ⚠️ front"]
