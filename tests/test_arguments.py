"""The table of arguments against what Ultralytics really has."""

import pytest

from samplug import SAM, arguments
from samplug.host import DEFAULT_CFG_DICT

TRAINING = {"epochs", "lr0", "mosaic", "optimizer", "workers", "data", "close_mosaic", "freeze"}


@pytest.mark.host
def test_every_predict_argument_of_the_host_has_its_fate():
    """What `yolo predict` documents is in the table; the rest belongs to other modes."""
    of_predict = [
        "source",
        "conf",
        "iou",
        "imgsz",
        "half",
        "device",
        "batch",
        "vid_stride",
        "stream_buffer",
        "visualize",
        "augment",
        "agnostic_nms",
        "classes",
        "retina_masks",
        "embed",
        "project",
        "name",
        "show",
        "save",
        "save_frames",
        "save_txt",
        "save_conf",
        "save_crop",
        "show_labels",
        "show_conf",
        "show_boxes",
        "line_width",
        "verbose",
        "max_det",
        "dnn",
        "compile",
    ]
    for name in of_predict:
        if name in DEFAULT_CFG_DICT:
            assert arguments.fate(name) != arguments.ELSEWHERE, name
    for name in TRAINING & DEFAULT_CFG_DICT.keys() - {"data"}:
        assert arguments.fate(name) == arguments.ELSEWHERE, name


def test_our_names_hide_none_that_predict_honours():
    assert not {name for name in arguments.OWN if arguments.fate(name) == arguments.HONOURED}


@pytest.mark.parametrize(
    "setting",
    [
        {"agnostic_nms": True},
        {"augment": True},
        {"visualize": True},
        {"max_det": 1},
        {"retina_masks": False},
        {"dnn": True},
    ],
)
def test_arguments_listed_without_effect_have_none(nano_file, pictures, setting):
    model = SAM(str(nano_file))
    boxes = [[20, 30, 120, 140], [100, 60, 300, 200]]
    plain = model.predict(pictures[0], bboxes=boxes, verbose=False)[0]
    result = model.predict(pictures[0], bboxes=boxes, verbose=False, **setting)[0]
    assert result.masks.data.equal(plain.masks.data)


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="points_stride"):
        arguments.check({"point_strid": 8})
    arguments.check({name: argument.default for name, argument in arguments.OWN.items()})


def test_splitting_leaves_the_dict_as_it_was():
    given = {"points": 1, "imgsz": 2}
    assert arguments.split(given) == ({"points": 1}, {"imgsz": 2}) and given == {"points": 1, "imgsz": 2}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("fill_holes", [0, 0.2, 50, True], [-1, "many"]),
        ("prompt_every", [None, 1, 30], [0, 2.5, "often"]),
        ("iou_match", [0.5, 1], [0, 1.2]),
        ("expire_after", [None, 5], [0, -1]),
        ("max_prompted", [8, -1, 2], [0, 1, -2]),
    ],
)
def test_a_number_out_of_its_range_is_refused_saying_what_is_accepted(name, good, bad):
    for value in good:
        arguments.check({name: value})
    for value in bad:
        with pytest.raises(ValueError, match=f"{name}=.*: give a number"):
            arguments.check({name: value})


def test_policies_go_by_the_names_that_are_accepted():
    from samplug.tracking import POLICIES

    assert tuple(POLICIES) == arguments.POLICIES
    arguments.check({"policy": POLICIES["motion"]})
    with pytest.raises(ValueError, match="'motion'"):
        arguments.check({"policy": "movement"})
