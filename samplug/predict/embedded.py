"""`embedding=`: an image's features that were saved before, used for that image alone, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from samplug import resources
from samplug.errors import EmbeddingError, reject, report_slip
from samplug.files.embedding import read_embedding
from samplug.nn.structs import Features
from samplug.predict.results.build import ImageInfo

NEED_PIXELS = ("prompter", "crop_n_layers", "tile")  # options that look at the image itself


def blank_image(embedding: Any, options: Mapping[str, Any]) -> np.ndarray:
    """A black image of the embedded one's size, to stand in for it.

    EmbeddingError where it cannot be read, or an option needs the image itself; OutOfMemoryError if that is too large.
    """
    height, width = read_embedding(embedding).view.image_size
    for name in NEED_PIXELS:
        if options.get(name):
            raise EmbeddingError(f"embedding= came without its image, which {name}= looks at: give the image too.")
    resources.require_memory(3 * height * width, f"an image of {height}x{width} pixels", "embed a smaller one")
    return np.zeros((height, width, 3), np.uint8)


def embedded_features(embedding: Any, model: nn.Module, images: Sequence[ImageInfo], blank: bool) -> Features:
    """The features (F, …) of an embedding, which each of F images must be the image of, else an EmbeddingError."""
    given = read_embedding(embedding)
    for image in images:
        given.check(model, None if blank else image.image, image.transform)
    return given.features[[0] * len(images)]


def refuse_tiles(embedding: Any, tile: int | None, logits: bool = False) -> None:
    """Refuse an embedding together with tiles, which are encoded one by one; report that these give no logits."""
    if tile and logits:
        report_slip("logits=True: without effect, as tile= draws masks at the image's size. Give one of the two.")
    if tile and embedding is not None:
        raise EmbeddingError(f"embedding= came with tile={tile}: each tile is encoded by itself. Give one of the two.")


def refuse_embedding(options: Mapping[str, Any]) -> None:
    """Refuse an embedding where memory needs more of an image than it holds."""
    if options.get("embedding") is not None:
        reject("embedding", "came", "the image itself: memory needs more than an embedding holds")
