"""One image that is prompted many times: encoded once, and answered whatever comes between."""

from copy import deepcopy

import cv2
import pytest
import torch

from samplug import SAM2Predictor

BOXES = [[20, 30, 120, 140], [100, 60, 300, 200], [5, 5, 60, 60]]
CLICKS = [[60, 80], [200, 120]]


@pytest.fixture
def predictor(network):
    return ready(network)


def ready(network):
    made = SAM2Predictor(overrides={"verbose": False, "save": False})
    made.setup_model(network, verbose=False)
    return made


def same(one, two):
    """Whether two results hold the same rows, up to rounding at the edges of masks."""
    close = torch.allclose(one.boxes.conf, two.boxes.conf, rtol=1e-4, atol=1e-5)
    return close and bool((one.masks.data == two.masks.data).float().mean() > 0.9995)


def test_an_image_set_once_is_encoded_once(predictor, images, encodings):
    predictor.set_image(images[0])
    before = [level.clone() for level in (predictor.features["image_embed"], *predictor.features["high_res_feats"])]
    answers = [predictor(points=[click])[0] for click in CLICKS] + [predictor(bboxes=BOXES)[0]]
    assert encodings == [1]
    after = (predictor.features["image_embed"], *predictor.features["high_res_feats"])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    predictor.reset_image()
    assert same(answers[2], predictor(images[0], bboxes=BOXES)[0])


def test_features_of_another_image_are_never_used(predictor, images):
    expected = predictor(images[1], points=[60, 60])[0]
    predictor.set_image(images[0])
    assert same(predictor(images[1], points=[60, 60])[0], expected)
    image = images[0].copy()
    predictor.set_image(image)
    image[:] = cv2.resize(images[2], image.shape[1::-1])  # changed in place, behind the predictor's back
    assert same(predictor(points=[60, 60])[0], ready(predictor.model)(image, points=[60, 60])[0])


def test_an_image_stays_set_beside_other_sources(predictor, images, encodings):
    def refused(image):
        with pytest.raises((ValueError, OSError)):
            predictor.set_image(image)

    predictor.set_image(images[0])
    expected = predictor(points=CLICKS[0])[0]
    for other in (
        lambda: predictor(images[1], points=[60, 60]),
        lambda: predictor.embed(images[1]),
        lambda: refused([images[1], images[2]]),
        lambda: refused("missing.png"),
        lambda: predictor.setup_model(predictor.fp32_model),
    ):
        other()
        assert same(predictor(points=CLICKS[0])[0], expected)
        encodings.clear()
        assert same(predictor(points=CLICKS[0])[0], expected) and not encodings
    predictor.reset_image()
    with pytest.raises(RuntimeError, match="There is no image yet"):
        predictor(points=CLICKS[0])


def test_an_image_that_was_encoded_elsewhere_is_not_set(predictor, images):
    predictor.embed(images[0])
    with pytest.raises(RuntimeError, match="There is no image yet"):
        predictor(points=CLICKS[0])


def test_an_image_is_not_answered_with_the_features_of_another_network(network, images):
    predictor, other = ready(network), deepcopy(network)
    with torch.no_grad():
        for parameter in other.image_encoder.parameters():
            parameter.mul_(1.5)
    predictor.set_image(images[0])
    assert not same(predictor(points=CLICKS[0])[0], ready(other)(images[0], points=CLICKS[0])[0])
    predictor.setup_model(other)
    assert same(predictor(points=CLICKS[0])[0], ready(other)(images[0], points=CLICKS[0])[0])


def test_the_file_of_an_image_that_is_set_may_go(predictor, images, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    predictor.set_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    found = predictor(points=CLICKS[0])[0]
    assert same(found, predictor(images[0], points=CLICKS[0])[0]) and found.path == str(tmp_path / "a.png")
