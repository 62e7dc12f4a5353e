"""The same question has the same answer: twice, in a batch or alone, on any number of threads, beside other runs."""

import cv2
import numpy as np
import pytest
import torch
from support.images import draw
from support.videos import BOX, OTHER, alike, film, predictor_of

from samplug import SAM2Predictor

# Other sizes of batches and other numbers of threads take sums of float32 in another order: measured are 1.5e-6 of the
# largest logit and, where a mask crosses zero, one pixel in a million.
LOGITS = 1e-5  # of the largest logit
PIXELS = 1e-4  # of a mask's pixels

BOXES = [[10, 12, 60, 50], [30, 20, 110, 80], [5, 40, 40, 90]]


def ready(network, **overrides):
    made = SAM2Predictor(overrides={"verbose": False, "save": False, "imgsz": 128, "logits": True, **overrides})
    made.setup_model(network, verbose=False)
    return made


@pytest.fixture(scope="module")
def scenes():
    return [draw(96, 128, seed) for seed in range(3)]


def same(results, others):
    """Whether results are equal bit by bit."""
    pairs = list(zip(results, others, strict=True))
    tensors = [(a.logits, b.logits) for a, b in pairs] + [(a.masks.data, b.masks.data) for a, b in pairs]
    return all(torch.equal(*pair) for pair in tensors + [(a.boxes.data, b.boxes.data) for a, b in pairs])


def differences(results, others):
    """The largest difference of logits over the largest logit, and the largest share of pixels that changed."""
    pairs = list(zip(results, others, strict=True))
    logits = max(float((a.logits - b.logits).abs().max() / a.logits.abs().max()) for a, b in pairs)
    return logits, max(float((a.masks.data != b.masks.data).float().mean()) for a, b in pairs)


def nearly_same(results, others):
    logits, pixels = differences(results, others)
    assert logits <= LOGITS and pixels <= PIXELS, (logits, pixels)


def test_the_same_images_twice_are_equal_bit_by_bit(network, scenes):
    said = {"bboxes": BOXES}
    once = ready(network)(scenes, **said)
    predictor = ready(network)
    assert same(once, predictor(scenes, **said)) and same(once, predictor(scenes, **said))


def test_the_same_video_twice_is_equal_bit_by_bit(network):
    worker = predictor_of(network)
    runs = [list(worker(source=film()[:4], stream=True, bboxes=[BOX, OTHER])) for _ in range(2)]
    assert alike(*runs)


def test_everything_twice_is_equal_bit_by_bit(network, scenes):
    said = {"points_stride": 4, "conf_thres": 0.1, "stability_score_thresh": 0.1}
    one, two = (ready(network, logits=False)(scenes[:1], **said)[0] for _ in range(2))
    assert len(one) and torch.equal(one.masks.data, two.masks.data) and torch.equal(one.boxes.data, two.boxes.data)


@pytest.mark.parametrize("batch", [2, 3])
def test_a_batch_of_one_answers_as_a_batch_of_many(network, scenes, batch):
    nearly_same(ready(network)(scenes, bboxes=BOXES), ready(network, batch=batch)(scenes, bboxes=BOXES))


def test_a_prompt_answers_alone_as_among_others(network, scenes):
    (together,) = ready(network)(scenes[:1], bboxes=BOXES)
    for i, box in enumerate(BOXES):
        nearly_same(ready(network)(scenes[:1], bboxes=[box]), [row(together, i)])


def row(result, index):
    """One row of a result with its logits."""
    chosen = result[index]
    chosen.logits = result.logits[index : index + 1]
    return chosen


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_more_than_rounding(network, scenes, threads):
    one, more = (ready(network, threads=count)(scenes, bboxes=BOXES) for count in (1, threads))
    nearly_same(one, more)


def test_runs_that_take_turns_are_those_alone(network, scenes):
    alone = ready(network)(scenes, bboxes=BOXES), ready(network, imgsz=64)(scenes, points=[[40, 40]])
    worker = predictor_of(network)
    video = list(worker(source=film()[:3], stream=True, bboxes=[BOX]))
    running = (
        ready(network)(scenes, stream=True, bboxes=BOXES),
        ready(network, imgsz=64)(scenes, stream=True, points=[[40, 40]]),
        predictor_of(network)(source=film()[:3], stream=True, bboxes=[BOX]),
    )
    turns = list(zip(*running, strict=True))
    first, second, third = (list(column) for column in zip(*turns, strict=True))
    assert same(first, alone[0]) and same(second, alone[1]) and alike(third, video)


def test_what_ran_before_leaves_no_trace(network, scenes):
    predictor = ready(network)
    plain = ready(network)(scenes[:1], bboxes=BOXES)
    for before in ({"points": [[4, 4]], "multimask": "all"}, {"bboxes": [], "resize": "stretch"}, {"points_stride": 2}):
        predictor([cv2.resize(scenes[1], (50, 70))], **before)
        assert same(plain, predictor(scenes[:1], bboxes=BOXES))


@pytest.mark.slow
@pytest.mark.parametrize("imgsz", [128, 256])
def test_the_tolerances_have_a_margin(network, imgsz, capsys):
    scenes = [draw(300, 400, seed) for seed in range(8)]
    boxes = np.random.default_rng(0).uniform(0, 150, (16, 4)) + [0, 0, 150, 150]
    plain = ready(network, imgsz=imgsz, threads=1)(scenes, bboxes=boxes)
    ways = {"batch=8": {"batch": 8}, "threads=2": {"threads": 2}, "both": {"batch": 8, "threads": 2}}
    for name, said in ways.items():
        logits, pixels = differences(plain, ready(network, imgsz=imgsz, **{"threads": 1, **said})(scenes, bboxes=boxes))
        with capsys.disabled():
            print(f"\n{imgsz} px, {name}: logits differ by {logits:.1e} of the largest, {pixels:.1e} of the pixels")
        assert logits <= LOGITS / 2 and pixels <= PIXELS
