"""An embedding is used for the image it is of, or refused, wherever it is given."""

import numpy as np
import pytest
import torch
from support.images import draw

from samplug import SAM, Embedding, PromptError, SAM2CameraPredictor, SAM2VideoPredictor
from samplug.errors import EmbeddingError

IMAGE, OTHER, SMALL = draw(96, 128, 1), draw(96, 128, 2), draw(64, 80, 3)
BLACK = np.zeros_like(IMAGE)
OPTIONS = {"imgsz": 128, "verbose": False, "save": False}
CLICK = {"points": [[40, 40]], **OPTIONS}
EVERYTHING = {"points_stride": 4, "conf_thres": -1, "stability_score_thresh": -1, **OPTIONS}


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture(scope="module")
def embedding(model):
    return model.embed(IMAGE, imgsz=128)


@pytest.mark.parametrize("others", [[OTHER], [BLACK], [SMALL], [IMAGE, OTHER], [OTHER, IMAGE], [IMAGE, IMAGE, BLACK]])
@pytest.mark.parametrize("options", [CLICK, EVERYTHING], ids=["prompts", "everything"])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_embedding_never_answers_for_another_image(model, embedding, others, options, batch):
    with pytest.raises(EmbeddingError, match="embedding is of an"):
        model.predict(others, embedding=embedding, batch=batch, **options)


@pytest.mark.parametrize("options", [CLICK, EVERYTHING], ids=["prompts", "everything"])
@pytest.mark.parametrize("batch", [1, 2])
def test_it_stands_in_for_the_encoder_on_its_own_image_in_every_batch(model, embedding, options, batch):
    expected = model.predict(IMAGE, **options)[0].masks.data
    assert len(expected)
    runs = []
    hook = model.model.image_encoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        results = model.predict([IMAGE, IMAGE], embedding=embedding, batch=batch, **options)
        blank = model.predict(embedding=embedding, **options)
    finally:
        hook.remove()
    assert not runs
    for result in (*results, *blank):
        assert torch.equal(torch.as_tensor(result.masks.data), torch.as_tensor(expected))


def test_black_is_an_image_like_any_other(model):
    black = model.embed(BLACK, imgsz=128)
    expected = model.predict(BLACK, **CLICK)[0].masks.data
    assert torch.equal(model.predict(BLACK, embedding=black, **CLICK)[0].masks.data, expected)
    with pytest.raises(EmbeddingError):
        model.predict(IMAGE, embedding=black, **CLICK)


@pytest.mark.parametrize("options", [{"tile": 64}, {"tile": 64, "rules": "meta"}])
def test_tiles_refuse_it(model, embedding, options):
    with pytest.raises(EmbeddingError, match="each tile is encoded by itself|made with"):
        model.predict(IMAGE, embedding=embedding, **EVERYTHING, **options)


@pytest.mark.parametrize("options", [{"crop_n_layers": 1}, {"tile": 64}, {"prompter": lambda image: [[5, 5, 50, 50]]}])
def test_what_looks_at_the_image_refuses_it_alone(model, embedding, options):
    with pytest.raises(EmbeddingError, match="came without its image"):
        model.predict(embedding=embedding, **OPTIONS, **options)


def test_memory_refuses_it(model, embedding, nano_file):
    with pytest.raises(PromptError, match="memory needs more"):
        model.track([IMAGE, IMAGE], embedding=embedding, **CLICK)
    with pytest.raises(PromptError, match="memory needs more"):
        model.predict([IMAGE, IMAGE], embedding=embedding, track=True, **OPTIONS)
    overrides = {"model": str(nano_file), "embedding": embedding, **OPTIONS}
    with pytest.raises(PromptError, match="memory needs more"):
        SAM2CameraPredictor(overrides=overrides).step(IMAGE, {1: {"points": [[40, 40]]}})
    with pytest.raises(PromptError, match="memory needs more"):
        SAM2VideoPredictor(overrides=overrides)([IMAGE], points=[[40, 40]])


@pytest.mark.parametrize("what", [5, object(), [], b"x", np.zeros(3), {"image": 1}])
def test_what_is_no_embedding_is_refused(model, what):
    with pytest.raises(EmbeddingError, match="Expected what SAM.embed"):
        model.predict(IMAGE, embedding=what, **CLICK)


def test_a_size_that_no_image_has_is_refused_before_memory_is_taken(model, embedding, tmp_path):
    from dataclasses import replace

    from samplug.errors import OutOfMemoryError

    for size, error in (((0, 5), EmbeddingError), ((-3, 5), EmbeddingError), ((10**7, 10**7), OutOfMemoryError)):
        replace(embedding, view=replace(embedding.view, image_size=size)).save(tmp_path / "a.npz")
        with pytest.raises(error):
            Embedding.load(tmp_path / "a.npz")
            model.predict(embedding=tmp_path / "a.npz", **CLICK)
