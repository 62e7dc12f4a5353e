"""Features of frozen encoders: those of a fresh encoding, of these weights and images, where there is space."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.datasets import BLOCK, OTHER, as_davis, folder_of, settings
from support.images import draw
from support.networks import drawn, object_draws, run_step

from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.data.open import open_data
from samplug.errors import DataError, OutOfMemoryError
from samplug.nn.structs import PromptBatch
from samplug.train.data import feature_cache
from samplug.train.data.feature_cache import FeatureCache, cached_parameters, encode
from samplug.train.data.user_batches import UserBatches
from samplug.train.learn import select_learning
from samplug.train.losses.options import LossOptions
from samplug.transforms import normalise

SIZE = (128, 128)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return open_data(folder_of(tmp_path / "data", draw(90, 120, 0), draw(120, 70, 1), draw(64, 64, 2)))


def frozen(model):
    for name in cached_parameters(model):
        model.get_parameter(name).requires_grad_(False)
    return model


NETWORKS = {"sam2": drawn, "mobile_sam": lambda: randomise(build({"variant": "mobile_sam"}))}


@pytest.mark.parametrize("name, kind", [("sam2", "disk"), ("sam2", "ram"), ("mobile_sam", "disk")])
def test_kept_features_give_the_answers_of_fresh_ones(data, tmp_path, name, kind):
    model, chosen = frozen(NETWORKS[name]()), settings(batch=3, fliplr=0.5, features=kind)
    kept = UserBatches(data, chosen, SIZE, FeatureCache.make(model, data, chosen, SIZE, tmp_path / "features"))
    fresh = UserBatches(data, chosen, SIZE)
    seen = set()
    for step in range(4):
        batch, other = kept[step].to("cpu"), fresh[step]
        assert torch.equal(batch.masks, other.masks) and batch.images.shape == other.images.shape
        with torch.no_grad():
            inputs = normalise(other.images[0], model.pixel_mean, model.pixel_std)
            features = model.encode_image(inputs) if name == "sam2" else model.encode(inputs)
            prompts = PromptBatch(batch.image_index, points=torch.full((len(batch.image_index), 1, 2), 40.0),
                                  labels=torch.ones(len(batch.image_index), 1, dtype=torch.int64))  # fmt: skip
            answers = [model.answer(each, prompts).logits for each in (features, batch.features)]
        torch.testing.assert_close(
            batch.features.image, features.image, rtol=1e-5, atol=1e-5 * features.image.abs().max()
        )
        torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5 * answers[0].abs().max())
        seen |= {tuple(row.tolist()) for row in other.masks[0].any(1)}
    assert len(list((tmp_path / "features").rglob("*"))) == (7 if kind == "disk" else 0)  # a folder, 3 x 2 views


@pytest.mark.parametrize("name", NETWORKS)
def test_learning_from_kept_features_is_learning_from_images(data, tmp_path, name):
    rows = {}
    for kind in ("off", "disk"):
        torch.manual_seed(0)
        model, chosen = NETWORKS[name](), settings(batch=2, fliplr=0.5, features=kind)
        optimizer = torch.optim.SGD([model.get_parameter(name) for name in select_learning(model, "decoder")], 1e-5)
        cache = FeatureCache.make(model, data, chosen, (64, 64), tmp_path / "features")
        batches, rows[kind] = UserBatches(data, chosen, (64, 64), cache), []
        assert (cache is None) == (kind == "off")
        for step in range(3):
            batch, rng = batches[step].to("cpu"), np.random.default_rng(step)
            how = LossOptions.of(model, chosen), rng, object_draws(len(batch.image_index)), torch.Tensor.backward
            rows[kind].append(run_step(model, batch, *how))
            optimizer.step()
            optimizer.zero_grad()
    for fresh, kept in zip(*rows.values(), strict=True):
        assert kept == pytest.approx(fresh, rel=1e-5, abs=1e-6)


def test_the_layers_for_fine_maps_are_part_of_the_encoder(data, tmp_path):
    model = frozen(drawn())
    assert {name for name in cached_parameters(model) if "conv_s" in name} == {
        f"sam_mask_decoder.conv_s{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    }
    model.get_parameter("sam_mask_decoder.conv_s0.weight").requires_grad_(True)
    with pytest.raises(ValueError, match=r"features=disk keeps .*conv_s0\.weight"):
        FeatureCache.make(model, data, settings(features="disk"), SIZE, tmp_path)
    assert FeatureCache.make(model, data, settings(), SIZE, tmp_path) is None  # auto


def test_other_weights_sizes_and_images_are_never_taken_for_these(data, tmp_path, caplog):
    chosen, model = settings(features="disk"), frozen(drawn())
    first = FeatureCache.make(model, data, chosen, SIZE, tmp_path / "f")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").rglob("*") if path.is_file()}
    again = FeatureCache.make(model, data, chosen, SIZE, tmp_path / "f")
    assert again.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing is encoded twice
    with torch.no_grad():
        model.image_encoder.neck.convs[0].conv.bias[3] += 0.01  # one number of all
    changed = FeatureCache.make(model, data, chosen, SIZE, tmp_path / "f")
    assert changed.folder != first.folder
    assert FeatureCache.make(model, data, chosen, (96, 128), tmp_path / "f").folder != changed.folder
    file = data.images.keys[0]
    shutil.copy(data.images.keys[1].path, file.path)
    edited = FeatureCache.make(model, data, chosen, SIZE, tmp_path / "f")
    assert torch.equal(edited.read(file, False).image, edited.read(data.images.keys[1], False).image)
    assert "made anew" not in caplog.text


def test_damaged_features_are_found_at_the_start_of_a_run_and_made_anew(data, tmp_path, caplog):
    chosen, model = settings(features="disk"), frozen(drawn())
    cache = FeatureCache.make(model, data, chosen, SIZE, tmp_path / "f")
    expected = cache.read(data.images.keys[0], False).image.clone()
    (path, *_) = sorted(path for path in cache.folder.iterdir())
    path.write_bytes(bytes(path.stat().st_size))
    cut = sorted(cache.folder.iterdir())[1]
    cut.write_bytes(cut.read_bytes()[:100])
    again = FeatureCache.make(model, data, chosen, SIZE, tmp_path / "f")
    assert "made anew" in caplog.text
    assert torch.equal(again.read(data.images.keys[0], False).image, expected)
    assert len({path.stat().st_size for path in cache.folder.iterdir()}) == 1


def test_what_has_no_space_is_refused_before_an_image_is_encoded(data, tmp_path, monkeypatch):
    model = frozen(drawn())
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**3))
    monkeypatch.setattr("samplug.resources.free_memory", lambda: 10**3)
    with pytest.raises(DataError, match=r"features=disk needs 0\.\d+ GB in .* 0\.00 GB are free.*features=off"):
        FeatureCache.make(model, data, settings(features="disk"), SIZE, tmp_path / "f")
    with pytest.raises(OutOfMemoryError, match="features=ram of 3 images"):
        FeatureCache.make(model, data, settings(features="ram"), SIZE, tmp_path / "f")
    monkeypatch.setattr(feature_cache, "pays_off", lambda *_: True)
    assert FeatureCache.make(model, data, settings(features="auto"), SIZE, tmp_path / "f") is None
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("encoding, worth", [(9.0, True), (0.1, False)])
def test_auto_keeps_features_where_encoding_is_most_of_a_step(data, tmp_path, monkeypatch, encoding, worth):
    times = iter([encoding, 1.0])
    monkeypatch.setattr(feature_cache, "_seconds", lambda _: next(times))
    cache = FeatureCache.make(frozen(drawn()), data, settings(corrections=0), SIZE, tmp_path / "f")
    assert (cache is not None and cache.kind == "disk") == worth


def test_features_of_clips_stand_in_the_order_of_frames(tmp_path):
    data, model = open_data(as_davis(tmp_path / "d", BLOCK, OTHER)), frozen(drawn())
    chosen = settings(frames=2, features="ram")
    batch = UserBatches(data, chosen, SIZE, FeatureCache.make(model, data, chosen, SIZE, tmp_path))[0]
    other = UserBatches(data, replace(chosen, features="off"), SIZE)[0]
    with torch.no_grad():
        expected = encode(model, other.images.flatten(0, 1))
    torch.testing.assert_close(batch.features.image, expected.image, rtol=1e-4, atol=1e-5)
    assert len(batch.features.fine) == 2
