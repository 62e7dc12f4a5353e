"""A picture's features, to keep and to prompt again later; bound to the network, the input size and the picture.

embedding = Embedding.of(model, picture, features, view)
embedding.save("bus.npz")
embedding = Embedding.load("bus.npz")
embedding.check(model, picture)          # refuses those of another network, size or picture
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samplug.array_files import ArrayFileError, damaged, read, write
from samplug.nn.types import Features
from samplug.view import View

FORMAT = "samplug embedding 1"  # the number rises when files change so that older code cannot read them
SAMPLED = 16  # values that are looked at in each tensor of a network
STRIDE = 16  # of the coarsest features


class EmbeddingError(ValueError):
    """A file that is no embedding, or an embedding of something else than it is used for."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The features of one picture, and what they were made of.

    Attributes:
        features: Of one picture, without gradients.
        view: The picture's size, the network's input size, and how the one was fitted into the other.
        variant: The name of the network.
        model: Fingerprint of the network's weights.
        picture: Fingerprint of the picture's pixels.
    """

    features: Features
    view: View
    variant: str
    model: str
    picture: str

    @classmethod
    def of(cls, model: nn.Module, picture: np.ndarray, features: Features, view: View) -> Embedding:
        """Bind features to the network and the picture they are of.

        Args:
            model: The network that made the features.
            picture: (H, W, 3) as loaded, before any resizing.
            features: Of this picture alone; taken as they are, not copied.
            view: How the picture lay in the network's input.

        Raises:
            EmbeddingError: If the features are not of one picture, or not of that input size.
        """
        values = Features(features.image.detach(), tuple(level.detach() for level in features.fine))
        fault = _misfit(values, view)
        if fault:
            raise EmbeddingError(f"These features are not of {view}: {fault}.")
        return cls(values, view, _variant(model), model_fingerprint(model), picture_fingerprint(picture))

    def check(self, model: nn.Module, picture: np.ndarray | None = None, view: View | None = None) -> None:
        """Refuse to be used for something else.

        Args:
            model: The network that is to be prompted; its precision may differ, its weights may not.
            picture: The picture that is to be prompted, as loaded; None where only the embedding is at hand.
            view: How the caller would lay the picture into the network's input; None for any.

        Raises:
            EmbeddingError: If the network, the picture or the view is another one, saying which.
        """
        if self.model != model_fingerprint(model):
            raise EmbeddingError(
                f"This embedding is of another network: {self.variant or 'one without a name'} with the fingerprint "
                f"{self.model}, not {_variant(model) or 'one without a name'} with {model_fingerprint(model)}. "
                "Embed the picture again with this network, or load the one it was made with."
            )
        if picture is not None and picture.shape[:2] != self.view.picture:
            raise EmbeddingError(
                f"This embedding is of a picture of {_size(self.view.picture)} pixels, not {_size(picture.shape[:2])}: "
                "give the picture at the size it was embedded at, or embed this one."
            )
        if picture is not None and picture_fingerprint(picture) != self.picture:
            raise EmbeddingError(
                "This embedding is of another picture of the same size, or of this one before it was edited or saved "
                "with losses: embed this picture."
            )
        if view is not None and view != self.view:
            raise EmbeddingError(f"This embedding was made with {self.view}, not {view}: embed the picture again.")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file of plain arrays, in the features' own precision; the write is atomic."""
        levels = {"image": self.features.image} | {f"fine_{i}": level for i, level in enumerate(self.features.fine)}
        bound = {"variant": self.variant, "model": self.model, "picture": self.picture}
        write(path, {"format": FORMAT, "view": asdict(self.view), **bound}, levels)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Embedding:
        """Read what `save` wrote; no pickle is opened.

        Raises:
            EmbeddingError: If the file is missing, damaged, of another version, or no embedding at all.
        """
        try:
            return _from_file(*read(Path(path), FORMAT, "Embedding.save"), torch.device(device))
        except ArrayFileError as error:
            raise EmbeddingError(f"Cannot load the embedding {path}. {error}") from error


def model_fingerprint(model: nn.Module) -> str:
    """A short hash over a network's variant, the names and shapes of its tensors, and some values of each.

    The values are rounded to half precision first, so that a network and its `.half()` are one.
    """
    state = model.state_dict()
    shapes = [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    values = torch.cat([_sample(tensor) for tensor in state.values()]).cpu().numpy()
    return _hash(repr((_variant(model), shapes)).encode(), values.tobytes())


def picture_fingerprint(picture: np.ndarray) -> str:
    """A short hash over a picture's pixels, shape and kind."""
    return _hash(repr((picture.shape, picture.dtype.str)).encode(), np.ascontiguousarray(picture).data)


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


def _from_file(header: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> Embedding:
    """The embedding in a file's header and tensors, each of which may be anything."""
    try:
        view = View(_pair(header["view"]["picture"]), _pair(header["view"]["network"]), header["view"]["resize"])
        fine = tuple(tensors[name] for name in sorted(tensors) if name.startswith("fine_"))
        features = Features(tensors["image"], fine)
        bound = {name: str(header[name]) for name in ("variant", "model", "picture")}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(error) from error
    if fault := _misfit(features, view):
        raise damaged(fault)
    return Embedding(features.to(device), view, **bound)


def _pair(values: list[int]) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _misfit(features: Features, view: View) -> str:
    """Why features cannot be of one picture in this view; empty if they can. Finer maps are 4 and 2 times as large."""
    h, w = (side // STRIDE for side in view.network)
    grids = [(h, w)] + [(h * scale, w * scale) for scale in (4, 2)[: len(features.fine)]]
    maps = [features.image, *features.fine]
    for level, grid in zip(maps, grids, strict=False):
        if level.dim() != 4 or len(level) != 1 or tuple(level.shape[2:]) != grid:
            return f"a map is {_size(tuple(level.shape))}, expected is 1 x C x {_size(grid)}"
    if len(features.fine) not in (0, 2):
        return f"{len(features.fine)} finer maps, expected are none or 2"
    return "" if all(bool(level.isfinite().all()) for level in maps) else "they hold NaN or infinity"
