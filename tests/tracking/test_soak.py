"""A camera that never ends and is faster than the bundled model, with objects that come and go: nothing grows.

python -m pytest -m soak -s tests/test_soak.py    # 10,000 frames, about 20 minutes; CI runs the short one
"""

import gc
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from support.videos import camera, predictor_of, resident
from support.walks import state_bytes

from samplug.checkpoints.load import bundled_path, load_model
from samplug.data.synthetic import clips

SETTLED, MOST = 200, 3  # frames until everything has been met once; objects at a time


def there_and_back():
    """Frames of a drawn clip, for ever."""
    drawn = clips.draw(np.random.default_rng(3), 256, 256, frames=60, level=0.4)
    frames = list(drawn.images[..., ::-1])
    return itertools.cycle(frames + frames[::-1])


def most_by_objects(state, frames):
    """The largest state, in bytes, of so many objects at a time."""
    return {count: max(size for n, size in map(state.get, frames) if n == count) for count in range(1, MOST + 1)}


def meddle(worker, rng):
    """Show a new object on the frame just returned, or let one go."""
    known = worker.inference_state[0].tracker.ids
    if len(known) > 1 and (len(known) == MOST or rng.random() < 0.5):
        worker.remove_object(int(rng.choice(known)))
    else:
        corner = rng.uniform(0, 180, 2)
        worker.add_new_prompts(int(rng.integers(10**6)), bboxes=[*corner, *(corner + 60)], frame_idx=None)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux says of a process")
@pytest.mark.parametrize(
    "count", [pytest.param(450, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.soak)]
)
def test_a_camera_that_never_ends_makes_nothing_grow(count):
    rng, worker = np.random.default_rng(0), predictor_of(load_model(bundled_path()), imgsz=256)
    took, memory, objects, state = [], {}, {}, {}
    with camera(there_and_back(), pause=0.02) as source:
        running = worker(source=source, stream=True, points=[[128, 128]], obj_ids=[1])
        started = time.perf_counter()
        for result in itertools.islice(running, count):
            took.append(time.perf_counter() - started)
            if result.frame % 20 == 19:
                meddle(worker, rng)
            tracker = worker.inference_state[0].tracker
            state[result.frame] = len(tracker.ids), state_bytes(tracker)
            if result.frame % 50 == 0:
                gc.collect()
                memory[result.frame], objects[result.frame] = resident(), len(gc.get_objects())
            started = time.perf_counter()
        running.close()
    (dropped,) = worker.dropped_frames.values()
    ms = 1000 * np.percentile(took[10:], [50, 90, 99, 100])
    print("\nframe, MB, objects, bytes of state")
    for frame in [f for f in memory if f % max(50, count // 20 // 50 * 50) == 0]:
        print(f"{frame:6} {memory[frame] / 1e6:7.1f} {objects[frame]:8} {state[frame][1]:8}")
    print(
        f"{len(took)} frames done, {dropped} dropped; ms a frame: median %.0f, 90 %% %.0f, 99 %% %.0f, most %.0f"
        % tuple(ms)
    )
    later = [frame for frame in memory if frame >= SETTLED]
    assert len(took) == count and dropped > 0
    assert max(memory[frame] for frame in later) < 1.02 * memory[SETTLED] + 2e6
    assert max(objects[frame] for frame in later) < 1.02 * objects[SETTLED] + 500
    first, since = (most_by_objects(state, frames) for frames in (range(SETTLED), range(SETTLED, count)))
    assert all(since[number] <= first[number] for number in first), (first, since)
