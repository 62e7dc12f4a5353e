"""Embeddings: what is saved comes back, and none serves another network, size or image."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from samplug.checkpoints.config import build
from samplug.errors import EmbeddingError
from samplug.files.embedding import EMBEDDING_FORMAT, Embedding, image_fingerprint, model_fingerprint
from samplug.nn.structs import Features
from samplug.transforms import ImageTransform

TOY = {
    "architecture": "sam_vit",
    "variant": "toy",
    "embed_dim": 32,
    "depth": 1,
    "num_heads": 1,
    "global_attn_indexes": [0],
    "image_size": 64,
    "width": 32,
}
VIEW = ImageTransform(image_size=(30, 40), input_size=(64, 96))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build(TOY).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def features(*, fine=True, images=1, grid=(4, 6)):
    h, w = grid
    levels = (torch.randn(images, 4, 4 * h, 4 * w), torch.randn(images, 8, 2 * h, 2 * w)) if fine else ()
    return Features(torch.randn(images, 16, h, w), levels)


@pytest.fixture
def embedding(model, image):
    return Embedding.of(model, image, features(), VIEW)


@pytest.fixture
def arrays(embedding, tmp_path):
    """What a saved file holds, and where it lies."""
    embedding.save(tmp_path / "a.npz")
    return dict(np.load(tmp_path / "a.npz"))


def equal(one, other):
    pairs = zip([one.image, *one.fine], [other.image, *other.fine], strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fine", [True, False])
def test_what_is_saved_comes_back_bit_for_bit(model, image, tmp_path, dtype, fine):
    before = Embedding.of(model, image, features(fine=fine).to(dtype), VIEW)
    before.save(tmp_path / "a.npz")
    after = Embedding.load(tmp_path / "a.npz")
    assert equal(before.features, after.features)
    assert (before.view, before.variant, before.model, before.picture) == (
        after.view,
        after.variant,
        after.model,
        after.picture,
    )
    after.check(model, image, VIEW)
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_file_may_have_any_name(embedding, tmp_path):
    embedding.save(tmp_path / "bus.embedding")
    assert equal(Embedding.load(tmp_path / "bus.embedding").features, embedding.features)


def test_an_embedding_holds_no_gradients(model, image):
    made = features()
    made.image.requires_grad_()
    assert not Embedding.of(model, image, made, VIEW).features.image.requires_grad


def test_features_of_many_images_or_of_another_size_are_refused(model, image):
    with pytest.raises(EmbeddingError, match="a map is 2x16x4x6, expected 1 x C x 4x6"):
        Embedding.of(model, image, features(images=2), VIEW)
    with pytest.raises(EmbeddingError, match="a map is 1x16x4x4, expected 1 x C x 4x6"):
        Embedding.of(model, image, features(grid=(4, 4)), VIEW)
    with pytest.raises(EmbeddingError, match="a map is 1x8x8x12, expected 1 x C x 16x24"):
        made = features()
        Embedding.of(model, image, Features(made.image, made.fine[::-1]), VIEW)


def test_features_that_are_not_finite_are_refused(model, image):
    made = features()
    made.fine[1][0, 0, 0, 0] = float("nan")
    with pytest.raises(EmbeddingError, match="NaN or infinity"):
        Embedding.of(model, image, made, VIEW)


# bound to a network, a size, an image


def test_another_network_is_refused_by_name(embedding, image):
    with pytest.raises(EmbeddingError, match=r"another network: toy with .*, not toy 2 with "):
        embedding.check(build({**TOY, "variant": "toy 2"}), image)


def test_the_same_network_with_other_weights_is_refused(embedding):
    torch.manual_seed(1)
    with pytest.raises(EmbeddingError, match="another network"):
        embedding.check(build(TOY))


def test_every_tensor_of_a_network_counts(model):
    before = model_fingerprint(model)
    for name, tensor in model.state_dict().items():
        kept = tensor.flatten()[0].item()
        tensor.view(-1)[0] += 1
        assert model_fingerprint(model) != before, name
        tensor.view(-1)[0] = kept
    assert model_fingerprint(model) == before


def test_a_network_in_half_precision_is_the_same_network(model):
    before = model_fingerprint(model)
    try:
        assert model_fingerprint(model.half()) == before
    finally:
        model.float()


def test_another_image_of_the_same_size_is_refused(model, embedding, image):
    for row, column in ((0, 0), (12, 31), (13, 30), (29, 39)):
        other = image.copy()
        other[row, column, 1] ^= 1
        with pytest.raises(EmbeddingError, match="another image of the same size"):
            embedding.check(model, other)


def test_an_image_of_another_size_is_refused_with_both(model, embedding):
    with pytest.raises(EmbeddingError, match="an image of 30x40 pixels, not 40x30"):
        embedding.check(model, np.zeros((40, 30, 3), np.uint8))


def test_an_image_is_told_by_its_pixels_not_by_how_they_lie_in_memory(image):
    assert image_fingerprint(image[::-1]) != image_fingerprint(image)
    assert image_fingerprint(np.asfortranarray(image)) == image_fingerprint(image)
    assert image_fingerprint(image.reshape(40, 30, 3)) != image_fingerprint(image)


@pytest.mark.parametrize(
    "transform",
    [
        ImageTransform((30, 40), (96, 96)),
        ImageTransform((30, 40), (64, 96), "stretch"),
        ImageTransform((31, 40), (64, 96)),
    ],
)
def test_another_input_size_or_fit_is_refused(model, embedding, image, transform):
    with pytest.raises(EmbeddingError, match="was made with ImageTransform"):
        embedding.check(model, image, transform)


# files


def refused(path, words):
    with pytest.raises(EmbeddingError, match=words) as caught:
        Embedding.load(path)
    assert str(caught.value).startswith(f"Cannot load the embedding {path}. ")


def rewritten(path, arrays, **changes):
    """The file with other arrays or other words in its header."""
    header = json.loads(str(arrays["header"]))
    for name, value in changes.items():
        if name in arrays:
            arrays = {**arrays, name: value}
        else:
            header[name] = value
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    refused(tmp_path / "a.npz", "There is no such file")
    for content in (b"", b"\x93NUMPY", b"PK\x03\x04", b"words" * 100):
        (tmp_path / "a.npz").write_bytes(content)
        refused(tmp_path / "a.npz", "was not written by Embedding.save")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    refused(tmp_path / "b.npz", "was not written by Embedding.save")


def test_a_file_that_was_cut_off_or_changed_is_refused(tmp_path, arrays):
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-50])
    refused(tmp_path / "a.npz", "cut short")
    (tmp_path / "a.npz").write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    refused(tmp_path / "a.npz", "checksum")


def test_a_file_of_another_version_is_refused_with_both(tmp_path, arrays):
    rewritten(tmp_path / "a.npz", arrays, format="samplug embedding 9")
    refused(tmp_path / "a.npz", f"Its format is 'samplug embedding 9'. Expected '{EMBEDDING_FORMAT}'")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "int8"},
        {"view": {"picture": [30], "network": [64, 96], "resize": "letterbox"}},
        {"view": {"picture": [30, 40], "network": [64, 96], "resize": "squash"}},
        {"view": 3},
        {"image": np.zeros((1, 16, 4, 5), np.float32)},
        {"image": np.full((1, 16, 4, 6), np.nan, np.float32)},
        {"image": np.array("words")},
        {"fine_0": np.zeros((1, 4), np.float32)},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, arrays, change):
    rewritten(tmp_path / "a.npz", arrays, **change)
    refused(tmp_path / "a.npz", "It is damaged")


def test_a_file_that_lacks_a_part_is_refused(tmp_path, arrays):
    for name in ("image", "fine_0"):
        np.savez(tmp_path / "a.npz", **{key: value for key, value in arrays.items() if key != name})
        refused(tmp_path / "a.npz", "It is damaged")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_inside_is_not_opened(tmp_path, arrays):
    trapped = np.array([Trap(tmp_path / "sprung")], dtype=object)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("image.npy", "w") as entry:
        np.lib.format.write_array(entry, trapped, allow_pickle=True)
    refused(tmp_path / "a.npz", "Object arrays cannot be loaded")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refused(tmp_path / "b.npz", "was not written by Embedding.save")
    assert not (tmp_path / "sprung").exists()


def test_damaged_files_are_refused_or_load_and_nothing_else(tmp_path, arrays):
    whole = (tmp_path / "a.npz").read_bytes()
    generator = np.random.default_rng(3)
    for _ in range(100):
        at, length = generator.integers(len(whole)), generator.integers(1, 100)
        (tmp_path / "a.npz").write_bytes(whole[:at] + generator.bytes(length) + whole[at + length :])
        try:
            Embedding.load(tmp_path / "a.npz")
        except EmbeddingError:
            continue
