"""The scores of measuring against examples that were worked out by hand."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from samplug.data.clicks import Click, next_click, outer_box
from samplug.data.samples import AnnotatedFrame
from samplug.val import baselines
from samplug.val.metrics import boundary, boundary_f, jaccard
from samplug.val.scores import CalibrationLog, Case, Row, Scores
from samplug.val.trackers import TrackedMasks
from samplug.val.videos import FrameScore, VideoLog, absences


def rectangle(top, left, bottom, right, shape=(100, 100)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


NOTHING = rectangle(0, 0, 0, 0)


# Overlap --------------------------------------------------------------------------------------------------------------


def test_the_overlap_is_intersection_over_union():
    # 10×10 and the same moved by 5: 50 pixels shared, 150 covered
    assert jaccard(rectangle(10, 10, 20, 20), rectangle(10, 15, 20, 25)) == pytest.approx(50 / 150)
    assert jaccard(NOTHING, NOTHING) == 1 and jaccard(NOTHING, rectangle(0, 0, 1, 1)) == 0


def test_pixels_that_nobody_knows_count_for_neither():
    # without column 15 and beyond, the found one is 10×5 and the true one is the same
    void = rectangle(0, 15, 100, 100)
    assert jaccard(rectangle(10, 10, 20, 20), rectangle(10, 10, 20, 15), void) == 1
    assert boundary_f(rectangle(10, 10, 20, 20), rectangle(10, 10, 20, 15), void) == 1


def test_a_boundary_lies_on_the_pixels_before_a_change():
    # 2×2 in the middle of 5×5: every pixel whose right, lower or lower right neighbour differs
    expected = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    assert np.array_equal(boundary(rectangle(2, 2, 4, 4, (5, 5))), expected)
    assert not boundary(np.ones((5, 5), bool)).any()  # the image's border is no boundary


def test_a_boundary_is_met_within_the_tolerance_and_no_further():
    # 0.008 of the diagonal of 100×100 is 1.13, rounded up: 2 pixels
    truth = rectangle(40, 40, 60, 60)
    assert boundary_f(rectangle(42, 40, 62, 60), truth) == 1
    assert boundary_f(rectangle(43, 40, 63, 60), truth) < 0.8
    assert boundary_f(truth, truth) == 1 and boundary_f(NOTHING, NOTHING) == 1
    assert boundary_f(truth, NOTHING) == 0 and boundary_f(NOTHING, truth) == 0
    assert boundary_f(rectangle(0, 0, 20, 20), truth) == 0


def test_boundary_f_of_a_half_is_two_thirds_of_precision_and_recall():
    # The found one is the true one, 20 wide, cut in half. Its boundary has 2·(10 + 20) = 60 pixels. Those of the cut
    # itself, column 49, are met only where the true boundary is within 2: rows 39 (on it), 40, 41, 57, 58, 59 (on it).
    found, truth = rectangle(40, 40, 60, 50), rectangle(40, 40, 60, 60)
    counted = [np.count_nonzero(boundary(mask)) for mask in (found, truth)]
    assert counted == [60, 80]
    # of column 49 (rows 39 … 59) 15 are missed: precision 45/60; of the truth those to the right of column 51 are,
    # but for what lies within 2 of the found corners: rows 39 and 59, columns 50 and 51
    right = sum(1 for row in range(39, 60) for column in range(39, 60) if boundary(truth)[row, column] and column > 51)
    precision, recall = 45 / 60, (80 - right) / 80
    assert boundary_f(found, truth) == pytest.approx(2 * precision * recall / (precision + recall))


# Pointing -------------------------------------------------------------------------------------------------------------


def test_the_first_click_is_in_the_middle_of_the_object_and_the_next_in_the_deepest_error():
    truth = rectangle(20, 20, 41, 41)  # 21 wide: one middle
    assert next_click(None, truth) == Click(30, 30, 1)
    # the upper 4 rows are missing (2 deep), and a 9×9 square too much is found (5 deep)
    found = truth & ~rectangle(20, 20, 24, 41) | rectangle(70, 50, 79, 59)
    assert next_click(found, truth) == Click(54, 74, 0)
    assert next_click(truth, truth) is None


def test_the_images_border_is_an_edge():
    # an object that fills the left 11 columns: the middle is between the border and its right edge
    assert next_click(None, rectangle(0, 0, 100, 11)).x == 5


def test_a_box_has_the_edges_of_its_mask():
    assert outer_box(rectangle(3, 5, 7, 11)) == (5, 3, 11, 7)


# What the network says of itself --------------------------------------------------------------------------------------


def test_a_reliability_table_is_worked_out_by_hand():
    log = CalibrationLog()
    for claimed, true in [(0.95, 0.9), (0.99, 0.8), (1.3, 1.0), (0.15, 0.4), (-0.2, 0.0)]:
        log.add(claimed, true)
    first, second, last = log.bins()
    assert (first.low, first.high, first.count, first.claimed, first.true) == (0, 0.1, 1, 0, 0)
    assert (second.count, second.claimed, second.true) == (1, 0.15, 0.4)
    assert last.count == 3 and last.claimed == pytest.approx(2.94 / 3) and last.true == pytest.approx(0.9)
    # 1·0 + 1·0.25 + 3·(0.98 − 0.9), over 5
    assert log.error() == pytest.approx((0.25 + 3 * 0.08) / 5)


# Summing up -----------------------------------------------------------------------------------------------------------


def test_sizes_are_cocos_and_means_are_over_those_that_have_the_score():
    rows = [Row("a", 0.003, {"x": 0.2}), Row("b", 0.03, {"x": 0.4, "y": 1.0}), Row("c", 0.5, {"x": 0.9})]
    scores = Scores(rows=rows)
    assert [row.size for row in rows] == ["small", "medium", "large"]
    assert scores.means() == {"x": pytest.approx(0.5), "y": 1.0} and scores.means("large") == {"x": 0.9}
    assert scores.as_dict()["sizes"]["medium"] == {"objects": 1, "x": 0.4, "y": 1.0}


def test_the_worst_cases_are_kept_worst_first():
    scores = Scores()
    for number in np.random.default_rng(0).permutation(40):
        scores.add_case("x", Case(str(number), number / 40, NOTHING, NOTHING, NOTHING))
    assert [case.name for case in scores.worst["x"]] == [str(number) for number in range(12)]


# Videos ---------------------------------------------------------------------------------------------------------------


def frames(*visible, presence=(), j=()):
    """A frame for each letter: v visible, - absent."""
    presence, j = presence or [1.0] * len(visible), j or [1.0] * len(visible)
    return [FrameScore(v == "v", {"J": jj}, p, 0.9) for v, p, jj in zip(visible, presence, j, strict=True)]


def test_an_absence_counts_from_three_frames_and_is_noticed_within_three():
    late = frames(*"v----v", presence=(5, 5, 5, 5, -5, 5))
    assert absences(late) == {"gone": 0.0, "found": 1.0}
    soon = frames(*"v----v", presence=(5, 5, 5, -5, 5, 5), j=(1, 1, 1, 1, 1, 0.4))
    assert absences(soon) == {"gone": 1.0, "found": 0.0}
    assert absences(frames(*"v--v", presence=(5, -5, -5, 5))) == {"found": 1.0}  # too short to count as left
    assert absences(frames(*"vvv")) == {}
    two = frames(*"---v---", presence=(-1, -1, -1, 1, 1, 1, 1))
    assert absences(two) == {"gone": 0.5, "found": 1.0}


def tracked(*masks):
    """The masks of objects 0 and 1."""
    return TrackedMasks([0, 1], np.stack(masks))


def test_j_and_f_leave_out_the_first_frame_and_the_last():
    left, right = rectangle(10, 10, 30, 30), rectangle(10, 60, 30, 80)
    image, scores = np.zeros((100, 100, 3), np.uint8), Scores()
    frame, log = AnnotatedFrame(image, np.stack([left, right])), VideoLog()
    half = rectangle(10, 10, 30, 20)
    log.add(frame, {0, 1}, tracked(NOTHING, NOTHING))  # the frame where objects are shown is not judged
    log.add(frame, set(), tracked(left, right))
    log.add(frame, set(), tracked(half, right))
    log.add(AnnotatedFrame(image, None), set(), tracked(NOTHING, NOTHING))  # nor is one that nobody drew
    log.add(frame, set(), tracked(NOTHING, NOTHING))  # nor the last
    log.add_to(scores, "film")
    one, other = scores.rows
    assert one.scores["J"] == pytest.approx((1 + 0.5) / 2) and other.scores["J&F"] == 1
    assert one.scores["F"] == pytest.approx((1 + boundary_f(half, left)) / 2)
    assert one.scores["J&F"] == pytest.approx((one.scores["J"] + one.scores["F"]) / 2)
    assert one.name == "film #0" and one.share == 0.04


def test_a_mask_that_goes_over_to_another_object_is_a_switch():
    left, right = rectangle(10, 10, 30, 30), rectangle(10, 60, 30, 80)
    frame = AnnotatedFrame(np.zeros((100, 100, 3), np.uint8), np.stack([left, right]))
    log = VideoLog()
    for masks in ((left, right), (left, right), (right, right), (NOTHING, right), (left, right)):
        log.add(frame, {0, 1} if not log.frames else (), tracked(*masks))
    assert log.on_object == {0: [0, 1, 0], 1: [1]}  # lost in between is no switch


# Without a network ----------------------------------------------------------------------------------------------------


def test_a_flood_fill_stays_in_the_clicked_colour_and_a_box_is_filled():
    image = np.full((60, 60, 3), 30, np.uint8)
    image[20:40, 10:30] = 200
    disc = rectangle(20, 10, 40, 30, (60, 60))
    scores = baselines.baseline_scores(image, disc)
    assert scores["flood_fill"] > 0.8 and scores["box_as_mask"] == 1 and scores["grabcut"] > 0.8
    truth = cv2.circle(np.zeros((60, 60), np.uint8), (30, 30), 12, 1, -1).astype(bool)
    assert baselines.baseline_scores(image, truth)["box_as_mask"] == pytest.approx(truth.sum() / 25**2)
    assert baselines.grabcut(image, (0, 0, 60, 60)).all()


def test_the_built_in_set_is_measured_without_ultralytics():
    found = "{'ultralytics', 'torchvision'} & set(sys.modules)"
    code = f"import sys, samplug.data.synthetic.dataset; sys.exit(bool({found}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
