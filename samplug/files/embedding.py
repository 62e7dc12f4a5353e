"""An image's features in a file, to be prompted later; bound to the network, the input size and the image.

embedding = Embedding.of(model, image, features, transform)
embedding.save("bus.npz")
embedding = Embedding.load("bus.npz")
embedding.check(model, image)          # raises for another network, size or image
"""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samplug.errors import ArrayFileError, EmbeddingError
from samplug.files.npz import damaged_error, read_npz, write_npz
from samplug.nn.constants import FEATURE_STRIDE
from samplug.nn.structs import Features
from samplug.runtime.torch_state import default_torch_state
from samplug.transforms import ImageTransform
from samplug.values import check_path

EMBEDDING_FORMAT = "samplug embedding 1"  # the number rises when older code cannot read the files
SAMPLED = 16  # values of each tensor that go into a fingerprint


@dataclass(frozen=True, eq=False)
class Embedding:
    """The features of one image, and what they were made from."""

    features: Features  # of one image, without gradients
    view: ImageTransform  # how the image was fitted into the network's input
    variant: str  # the name of the network
    model: str  # fingerprint of the network's weights
    picture: str  # fingerprint of the image's pixels

    @classmethod
    def of(cls, model: nn.Module, picture: np.ndarray, features: Features, view: ImageTransform) -> Embedding:
        """Bind features, which are not copied, to the network that made them and the image (H, W, 3) as it was loaded.

        Raises:
            EmbeddingError: if the features are not of one image, or not of that input size.
        """
        values = Features(features.image.detach(), tuple(level.detach() for level in features.fine))
        if fault := _find_fault(values, view):
            raise EmbeddingError(f"These features are not of {view}: {fault}.")
        return cls(values, view, _variant(model), model_fingerprint(model), image_fingerprint(picture))

    def check(self, model: nn.Module, picture: np.ndarray | None = None, view: ImageTransform | None = None) -> None:
        """Check that the embedding belongs to a network, an image and a transform.

        Args:
            model: the network to be prompted; its precision may differ, its weights may not.
            picture: the image to be prompted, as loaded; None if it is not available.
            view: how the caller would fit the image into the network's input; None for any.

        Raises:
            EmbeddingError: if one of them is another one; the message says which.
        """
        if self.model != model_fingerprint(model):
            raise EmbeddingError(
                f"This embedding is of another network: {self.variant or 'unnamed'} with the fingerprint {self.model}, "
                f"not {_variant(model) or 'unnamed'} with {model_fingerprint(model)}. Embed the image again with this "
                "network, or load the one that made it."
            )
        if picture is not None and picture.shape[:2] != self.view.image_size:
            raise EmbeddingError(
                f"This embedding is of an image of {_size(self.view.image_size)} pixels, not "
                f"{_size(picture.shape[:2])}: give the image at the size it was embedded at, or embed this one."
            )
        if picture is not None and image_fingerprint(picture) != self.picture:
            raise EmbeddingError(
                "This embedding is of another image of the same size, or of this one before it was edited or saved "
                "with losses: embed this image."
            )
        if view is not None and view != self.view:
            raise EmbeddingError(f"This embedding was made with {self.view}, not {view}: embed the image again.")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file in the features' own precision; the write is atomic."""
        levels = {"image": self.features.image} | {f"fine_{i}": level for i, level in enumerate(self.features.fine)}
        names = {"variant": self.variant, "model": self.model, "picture": self.picture}
        view = {"picture": self.view.image_size, "network": self.view.input_size, "resize": self.view.resize}
        write_npz(path, {"format": EMBEDDING_FORMAT, "view": view, **names}, levels)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Embedding:
        """Read what `save` wrote; no pickle is opened.

        Raises:
            EmbeddingError: if the file is missing, damaged, of another version, or not an embedding.
        """
        try:
            check_path("path", path)
            return _parse(*read_npz(Path(path), EMBEDDING_FORMAT, "Embedding.save"), torch.device(device))
        except ArrayFileError as error:
            raise EmbeddingError(f"Cannot load the embedding {path}. {error}") from error


def read_embedding(value: Any) -> Embedding:
    """What `embedding=` takes: an `Embedding`, or its file.

    Raises:
        EmbeddingError: it is neither, or the file cannot be read.
    """
    if isinstance(value, str | os.PathLike):
        return Embedding.load(value)
    if isinstance(value, Embedding):
        return value
    raise EmbeddingError(f"embedding={reprlib.repr(value)}. Expected what SAM.embed(image) returned, or its file.")


def model_fingerprint(model: nn.Module) -> str:
    """A short hash over a network's variant, the names and shapes of its tensors, and some values of each.

    The values are rounded to half precision first, so that a network and its `.half()` are one.
    """
    state = model.state_dict()
    shapes = [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    with default_torch_state():
        values = torch.cat([_sample(tensor) for tensor in state.values()]).cpu().numpy()
    return _hash(repr((_variant(model), shapes)).encode(), values.tobytes())


def image_fingerprint(image: np.ndarray | Tensor) -> str:
    """A short hash over an image's pixels, shape and dtype."""
    image = image.float().cpu().numpy() if isinstance(image, Tensor) else image
    return _hash(repr((image.shape, image.dtype.str)).encode(), np.ascontiguousarray(image).data)


def _hash(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _sample(tensor: Tensor) -> Tensor:
    """A few values from all over a tensor, in half precision."""
    flat = tensor.detach().flatten()
    return flat[:: -(-len(flat) // SAMPLED) or 1].half()


def _variant(model: nn.Module) -> str:
    return getattr(model, "variant", "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _parse(header: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> Embedding:
    """The embedding of a file's header and tensors, which may hold anything."""
    try:
        view = header["view"]
        transform = ImageTransform(_pair(view["picture"]), _pair(view["network"]), view["resize"])
        fine = tuple(tensors[name] for name in sorted(tensors) if name.startswith("fine_"))
        features = Features(tensors["image"], fine)
        names = {name: str(header[name]) for name in ("variant", "model", "picture")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged_error(error) from error
    if fault := _find_fault(features, transform):
        raise damaged_error(fault)
    return Embedding(features.to(device), transform, **names)


def _pair(values: list[int]) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _find_fault(features: Features, transform: ImageTransform) -> str:
    """Why features cannot be of one image in this transform; empty if they can."""
    h, w = (side // FEATURE_STRIDE for side in transform.input_size)
    maps = [features.image, *features.fine]
    for level, scale in zip(maps, (1, 4, 2), strict=False):
        grid = h * scale, w * scale
        if level.dim() != 4 or len(level) != 1 or tuple(level.shape[2:]) != grid:
            return f"a map is {_size(tuple(level.shape))}, expected 1 x C x {_size(grid)}"
    if min(*transform.image_size, h, w) < 1:
        return f"the sizes of {transform} are not those of an image"
    if len(features.fine) not in (0, 2):
        return f"{len(features.fine)} finer maps, expected none or 2"
    return "" if all(bool(level.isfinite().all()) for level in maps) else "they hold NaN or infinity"
