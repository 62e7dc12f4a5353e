"""A stream without end: what is kept stays the same, and nothing that is ever asked for is missing.

SAMPLUG_FRAMES=5000 python -m pytest -m slow -s tests/test_long_stream.py    # the whole length; by default 410 frames
"""

import gc
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.videos import alike, resident
from support.walks import state_bytes

from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.predict.video.predictor import SAM2VideoPredictor

FRAMES = int(os.environ.get("SAMPLUG_FRAMES", 410))
EARLY, PERIOD = 50, 30  # frames: when memory is full, and from one prompt to the next
BOXES = {1: [8, 8, 40, 40], 2: [50, 30, 90, 60]}
SMALL = {
    "variant": "small",
    "architecture": "sam2",
    "embed_dim": 16,
    "num_heads": 1,
    "stages": [1, 1, 1, 1],
    "global_att_blocks": [2],
    "window_spec": [4, 4, 4, 4],
    "window_pos_embed_bkg_spatial_size": [4, 4],
    "image_size": 64,
    "d_model": 64,
    "mem_dim": 16,
    "memory_layers": 1,
    "memory_feedforward": 64,
}
SCRIPTS = [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 15))]


def drawn(count):
    """Frames of two discs that wander over a wall, made when they are asked for."""
    rng = np.random.default_rng(0)
    wall = rng.integers(60, 120, (72, 96, 3), dtype=np.uint8)
    for t in range(count):
        frame = wall.copy()
        for i, colour in enumerate(((40, 60, 220), (220, 140, 40))):
            centre = 48 + 40 * np.sin(t / (23 + 9 * i) + i), 36 + 28 * np.cos(t / (17 + 5 * i) + i)
            cv2.circle(frame, np.int32(centre), 12, colour, -1)
        yield frame


def network():
    """A small network of random weights that sees its objects on most frames, and misses them on some."""
    model = randomise(build(SMALL))
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data += 4.0
    return model


def run(frames, every, forget=True):
    """Results over a stream with a prompt on its first frame and on every so many, and the predictor."""
    worker = SAM2VideoPredictor(overrides={"imgsz": 64, "verbose": False, "save": False})
    worker.setup_model(network(), verbose=False)
    worker.add_callback("on_predict_start", lambda p: setattr(p.inference_state[0].tracker, "_forget", forget))
    shown = {obj_id: {"bboxes": box} for obj_id, box in BOXES.items()}
    prompts = dict.fromkeys(range(0, frames, every or frames), shown)
    said = {"prompts": prompts, "max_prompted": 2, "keep_lost": True, "logits": True}
    return worker, worker(source=drawn(frames), stream=True, **said)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux says of a process")
@pytest.mark.parametrize("every", [None, PERIOD], ids=["prompted once", f"prompted every {PERIOD}"])
def test_memory_stays_the_same_however_long_the_stream(every):
    worker, results = run(FRAMES + 1, every)
    state, memory = np.full(FRAMES + 1, -1), np.full(FRAMES + 1, -1)  # what is noted here takes its memory now
    for result in results:
        state[result.frame] = state_bytes(worker.inference_state[0].tracker)
        if result.frame >= FRAMES // 4 and result.frame % 10 == 0:
            gc.collect()
            memory[result.frame] = resident()
    assert (state >= 0).all() and result.obj_ids == (1, 2)
    assert {*state[EARLY::PERIOD].tolist()} == {state[EARLY]}
    assert state.max() == state[: EARLY + PERIOD].max()
    (looked,) = (memory >= 0).nonzero()
    slope = np.polyfit(looked, memory[looked], 1)[0]
    print(
        f"{state[EARLY]} bytes of state at frame {EARLY}, {state[FRAMES]} at {FRAMES}; {slope:.0f} bytes a frame in all"
    )
    assert slope < 200_000 / FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("every", [None, PERIOD], ids=["prompted once", f"prompted every {PERIOD}"])
def test_forgetting_leaves_every_mask_as_it_is(every):
    kept, everything = run(200, every, forget=False)
    pruned, results = run(200, every)
    results = list(results)
    assert alike(results, everything)
    seen = torch.stack([result.presence for result in results]) > 0
    assert 0.5 < seen.float().mean() < 1
    sizes = [state_bytes(one.inference_state[0].tracker) for one in (pruned, kept)]
    assert sizes[0] < sizes[1] / 4


def meddled(seed, forget):
    """Results and the ids after each frame of a stream in which prompts come, change and go as a seed has it."""
    rng = np.random.default_rng(seed)
    worker, results = run(60, None, forget)
    ids, done = [], []
    for result in results:
        done.append(result)
        known = list(worker.inference_state[0].tracker.ids)
        spot = rng.uniform([4, 4], [70, 50])
        kind = {"points": spot} if rng.random() < 0.5 else {"bboxes": [*spot, *(spot + 20)]}
        new = int(rng.integers(-5, 1000))
        match int(rng.integers(8)):
            case 0 if len(known) < 5:
                worker.add_new_prompts(new, **kind, frame_idx=None)
            case 1 if len(known) < 5:
                worker.add_new_prompts(new, **kind, frame_idx=result.frame + int(rng.integers(1, 9)))
            case 2:
                worker.add_new_prompts(int(rng.choice(known)), **kind, frame_idx=None)
            case 3 if len(known) > 1:
                worker.remove_object(int(rng.choice(known)))
            case 4 if len(known) > 1:
                worker.clear_prompts(int(rng.choice(known)))
        ids.append(tuple(worker.inference_state[0].tracker.ids))
    return done, ids


@pytest.mark.parametrize("seed", SCRIPTS)
def test_whatever_is_prompted_and_removed_forgetting_changes_nothing(seed):
    (pruned, ids), (kept, their_ids) = meddled(seed, forget=True), meddled(seed, forget=False)
    assert len(pruned) == 60 and ids == their_ids and len(set(ids)) > 4
    assert alike(pruned, kept)
