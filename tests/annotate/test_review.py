"""The review list and its contact sheet: what puts a mask on top, and what it looks like."""

import base64
import csv
import re

import cv2
import numpy as np
import pytest
from support.videos import write_video

from samplug.annotate.review.sheet import write_sheet
from samplug.annotate.review.table import review_rows, risk_of, write_review
from samplug.annotate.settings import Settings
from samplug.data.formats.records import ImageRecord, ObjectRecord

SIZE = (80, 100)


def square(side, left=20, top=20):
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def sure(mask, name="cat", iou=0.9, **given):
    return ObjectRecord.of_mask(mask, 0, name, iou, **given)


def rows_of(*records):
    return [row.columns for row in review_rows(records, Settings())]


SURE = sure(square(20))


@pytest.mark.parametrize(
    "other",
    [
        sure(square(20), iou=0.5),
        sure(square(20), stability=0.4),
        sure(square(20), presence=-3.0),
        sure(square(20)).prompted((0, 0, 90, 70)),
        sure(square(20, left=0)),
        sure(square(20) | square(5, 60, 60)),
        sure(np.zeros(SIZE, bool)),
    ],
    ids=["iou", "stability", "presence", "agreement", "border", "parts", "empty"],
)
def test_every_sign_of_a_wrong_mask_adds_to_its_risk(other):
    assert risk_of(other, SIZE) > risk_of(SURE, SIZE) + 0.05


def test_two_classes_in_one_place_are_a_conflict_and_two_of_one_class_are_none():
    twice = ImageRecord("a", SIZE, None, (SURE, sure(square(20), "dog"), sure(square(20, 60), "dog")))
    same = ImageRecord("b", SIZE, None, (SURE, SURE))
    assert [row["conflict"] for row in rows_of(twice, same)] == [1, 1, 0, 0, 0]
    risks = [row["risk"] for row in rows_of(twice)]
    assert risks[0] == risks[1] > risks[2]


def test_a_jump_in_area_is_found_by_the_id_in_the_same_video_alone():
    def frame(number, side, name="clip.mp4"):
        return ImageRecord(name, SIZE, number, (sure(square(10), id=1), sure(square(side, 50), id=2)))

    found = rows_of(frame(0, 20), frame(1, 20), frame(2, 10), frame(3, 11), frame(0, 20, "other.mp4"))
    assert [row["jump"] for row in found] == [0, 0, 0, 0, 0, 0.75, 0, pytest.approx(1 - 100 / 121, abs=1e-4), 0, 0]


def test_the_sheet_shows_the_riskiest_with_their_outlines(tmp_path):
    image = np.full((*SIZE, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    frames = [np.full((*SIZE, 3), 40 * i, np.uint8) for i in range(5)]
    write_video(tmp_path / "clip.avi", frames)
    records = [
        ImageRecord("a.png", SIZE, None, (sure(square(20), "<b>"), sure(square(30, 40), iou=0.2))),
        *(ImageRecord("clip.avi", SIZE, i, (sure(square(20), iou=0.5 - 0.1 * (i == 3), id=4),)) for i in (1, 3)),
        ImageRecord("gone.png", SIZE, None, (sure(square(20), iou=0.3),)),
    ]
    rows = write_review(records, Settings(), tmp_path / "review.csv")
    write_sheet(rows[:5], lambda name: str(tmp_path / name), tmp_path / "review.html")
    text = (tmp_path / "review.html").read_text("utf-8")
    figures = re.findall("<figure>.*?</figure>", text)
    assert [re.search(r"risk ([\d.]+)", figure)[1] for figure in figures] == ["0.8", "0.7", "0.6", "0.5", "0.1"]
    assert "cannot be read" in figures[1] and "&lt;b&gt;" in figures[4] and "http" not in text
    greys = []
    for figure in (figures[0], figures[2], figures[3]):
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(re.search('base64,(.*?)"', figure)[1]), np.uint8), 1)
        red = (shown[..., 2].astype(int) - shown[..., 1]) > 60
        assert 20 < red.sum() < 0.1 * red.size
        greys.append(int(np.median(shown)))
    assert greys == pytest.approx([200, 120, 40], abs=4)


def test_a_job_makes_the_sheet_and_zero_makes_an_empty_one(job):
    done = job()
    assert (done.out / "review.html").read_text().count("<img") == sum(len(r.objects) for r in done.records())
    assert (job(sheet=0).out / "review.html").read_text().count("<img") == 0


def test_the_list_is_no_longer_than_it_is_to_be(job):
    rows = list(csv.DictReader((job(review=2, sheet=3).out / "review.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 2
