"""What a frozen encoder makes of the images of a data set, computed once and kept.

A file an image and view, named by the hash of the image's bytes, in a folder named by the encoder's weights, the size
of the input and the precision: a cache serves every run for which these are the same, and no other.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import TQDM

from samplug.data.arrays import read_image
from samplug.data.image_file import ImageFile
from samplug.data.open import Data
from samplug.errors import DataError, OutOfMemoryError
from samplug.files.atomic import atomic_write
from samplug.host import LOGGER
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.resources import require_memory
from samplug.train.data.augment import Augmentation
from samplug.train.data.check import file_digest, files_of, in_threads
from samplug.transforms import Size, normalise
from samplug.val.images import Network

CACHED = ("image_encoder.", "sam_mask_decoder.conv_s0.", "sam_mask_decoder.conv_s1.")  # beginnings of their names
CHECKED = 3  # images that are encoded again at the start of a run
GAIN = 2  # times the rest of a step that encoding takes, from which on `auto` keeps features
BACKWARD = 3  # times a forward pass that a step of learning takes
DISK_RESERVE = 0.1  # share of the free disk that is left
FEATURE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3}  # of a fresh encoding, in shares of the largest value


def cached_parameters(model: Network) -> list[str]:
    """The names of the parameters that features depend on: of the encoder, and the decoder's two layers for fine maps.

    These two layers are applied to the encoder's maps once an image, before any prompt.
    """
    return [name for name, _ in model.named_parameters() if name.startswith(CACHED)]


def encode(model: Network, images: Tensor) -> Features:
    """Features of inputs (F, 3, h, w) uint8 RGB, of SAM 2 before any memory."""
    weight = next(model.parameters())
    statistics = model.get_buffer("pixel_mean"), model.get_buffer("pixel_std")
    inputs = normalise(images.to(weight.device), *statistics).to(weight.dtype)
    return model.encode_image(inputs) if isinstance(model, SAM2Model) else model.encode(inputs)


@dataclass(eq=False)
class FeatureCache:
    """Features of images, of one row each."""

    folder: Path | None  # of the files; None keeps them in memory
    input_size: Size  # (h, w) of the network's input
    shapes: Sequence[torch.Size]  # of the maps of an image
    dtype: torch.dtype  # in which they are kept
    views: tuple[bool, ...] = (False,)  # whether images are kept as they are (False), and mirrored (True)
    digests: dict[Path, str] = field(default_factory=dict)  # of the bytes of each image
    sizes: dict[Path, Size] = field(default_factory=dict)  # (H, W) of each image
    kept: dict[str, Features] = field(default_factory=dict)  # features in memory, by name

    @property
    def kind(self) -> str:
        """The value of `features=` that asks for this cache."""
        return "disk" if self.folder else "ram"

    @staticmethod
    def make(model: Network, data: Data, settings: Any, input_size: Size, folder: Path) -> FeatureCache | None:
        """Encode all images, or find them encoded; None where `features=` says, or `auto` finds, that this is no gain.

        What learns has been chosen; `input_size` is (h, w) of the network's input, `folder` that of caches' folders.

        Raises:
            ValueError: the encoder learns.
            DataError: the disk has not enough space.
            OutOfMemoryError: the memory neither.
        """
        if settings.features == "off":
            return None
        parameters = dict(model.named_parameters())
        learning = [name for name in cached_parameters(model) if parameters[name].requires_grad]
        if learning and settings.features != "auto":
            raise ValueError(
                f"features={settings.features} keeps what a frozen encoder gives, but {learning[0]} and "
                f"{len(learning) - 1} more learn: give learn=token, decoder or memory, or features=off."
            )
        files = files_of(data)
        with torch.no_grad(), evaluating(model.image_encoder):
            if learning or settings.features == "auto" and not pays_off(model, files[0], input_size, settings):
                return None
            cache = FeatureCache._plan(model, files, settings, input_size, folder)
            if cache is not None:
                cache._fill(model, files, settings.verbose)
        return cache

    @staticmethod
    def _plan(
        model: Network, files: Sequence[ImageFile], settings: Any, input_size: Size, folder: Path
    ) -> FeatureCache | None:
        """An empty cache where there is space for it."""
        device = next(model.parameters()).device
        dtype = torch.float32 if device.type == "cpu" else torch.float16
        maps = _maps(encode(model, torch.zeros(1, 3, *input_size, dtype=torch.uint8)))
        cache = FeatureCache(None, input_size, [level.shape for level in maps], dtype)
        cache.views = (False, True) if settings.fliplr else (False,)
        name = f"{encoder_fingerprint(model)}-{input_size[0]}x{input_size[1]}-{str(dtype).removeprefix('torch.')}"
        need = cache.bytes_an_entry * len(cache.views) * len(files)
        for kind in ("disk", "ram") if settings.features == "auto" else (settings.features,):
            try:
                if kind == "disk":
                    cache.folder = folder / name
                    require_disk(cache.folder, need)
                else:
                    cache.folder = None
                    require_memory(need, f"features=ram of {len(files)} images", "give features=disk or features=off")
            except (DataError, OutOfMemoryError) as error:
                if settings.features != "auto":
                    raise
                LOGGER.info(f"Features are not kept in {kind}: {error}")
                continue
            place = cache.folder or "memory"
            LOGGER.info(f"Features of {len(files)} images are kept in {place}: {need / 1e6:.0f} MB.")
            return cache
        return None

    @property
    def bytes_an_entry(self) -> int:
        """Of the features of an image."""
        return sum(math.prod(shape) for shape in self.shapes) * self.dtype.itemsize

    def _fill(self, model: Network, files: Sequence[ImageFile], verbose: bool) -> None:
        """Encode what is missing, one image at a time, so that no value depends on others; check some of the rest."""
        paths = list(dict.fromkeys(file.path for file in files))
        self.digests = dict(zip(paths, in_threads(file_digest, paths, "hashing images", verbose), strict=True))
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        present = [path for path in paths if all(self._is_kept(path, view) for view in self.views)]
        checked = present[:: -(-len(present) // CHECKED) or 1]
        fresh = any(not self._agrees(model, path) for path in checked)
        if fresh:
            LOGGER.warning(f"Features in {self.folder} differ from those of this encoder: all are made anew.")
        for path in TQDM(paths, desc="encoding images", disable=not verbose):
            image = read_image(path)
            self.sizes[path] = image.shape[0], image.shape[1]
            for view in self.views:
                if fresh or not self._is_kept(path, view):
                    self._keep(path, view, self._encoded(model, image, view))

    def _encoded(self, model: Network, image: np.ndarray, view: bool) -> Features:
        fitted = torch.from_numpy(Augmentation(fliplr=view).fit_image(image, self.input_size))
        return encode(model, fitted.permute(2, 0, 1)[None]).to("cpu", self.dtype)

    def _agrees(self, model: Network, path: Path) -> bool:
        """Whether what is kept of an image is what its encoder makes of it now."""
        image = read_image(path)
        for view in self.views:
            pairs = zip(_maps(self._load(path, view)), _maps(self._encoded(model, image, view)), strict=True)
            for kept, made in pairs:
                if not (kept - made).abs().max() <= FEATURE_TOLERANCE[self.dtype] * made.abs().max():  # NaN too
                    return False
        return True

    def _entry(self, path: Path, view: bool) -> str:
        return f"{self.digests[path]}{'-mirrored' if view else ''}"

    def _is_kept(self, path: Path, view: bool) -> bool:
        name = self._entry(path, view)
        if self.folder is None:
            return name in self.kept
        file = self.folder / name
        return file.is_file() and file.stat().st_size == self.bytes_an_entry

    def _keep(self, path: Path, view: bool, features: Features) -> None:
        name = self._entry(path, view)
        if self.folder is None:
            self.kept[name] = features.apply(lambda level: level.clone().share_memory_())
            return
        with atomic_write(self.folder / name, flush=False) as file, file.open("wb") as stream:
            for level in _maps(features):
                stream.write(level.contiguous().numpy().data)

    def _load(self, path: Path, view: bool) -> Features:
        name = self._entry(path, view)
        if self.folder is None:
            return self.kept[name]
        mapped = np.memmap(self.folder / name, np.uint8, "c")  # copied where written to: torch wants it writable
        parts = torch.from_numpy(mapped).view(self.dtype).split([math.prod(shape) for shape in self.shapes])
        image, *fine = (part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))
        return Features(image, tuple(fine))

    def image_size(self, file: ImageFile) -> Size:
        """(H, W) of an image."""
        return self.sizes[file.path]

    def read(self, file: ImageFile, mirrored: bool) -> Features:
        """The features of an image, of one row."""
        return self._load(file.path, mirrored)


def _maps(features: Features) -> tuple[Tensor, ...]:
    return features.image, *features.fine


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training


def encoder_fingerprint(model: Network) -> str:
    """A hash of all weights that features depend on, and of what the network was built from."""
    digest = hashlib.blake2b(repr((model.variant, model.config)).encode(), digest_size=12)
    for name, tensor in model.state_dict().items():
        if name.startswith(CACHED):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_disk(folder: Path, need: int) -> None:
    """Refuse a cache for which the disk has no space; what is there already counts as space."""
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    kept = sum(file.stat().st_size for file in folder.glob("*")) if folder.is_dir() else 0
    if need - kept > free * (1 - DISK_RESERVE):
        raise DataError(
            f"features=disk needs {need / 1e9:.2f} GB in {folder}, {free / 1e9:.2f} GB are free: free some, or give "
            "features=off."
        )


def pays_off(model: Network, file: ImageFile, input_size: Size, settings: Any) -> bool:
    """Whether encoding takes longer than the rest of a step, by so much that keeping features is a gain."""
    image = torch.from_numpy(Augmentation().fit_image(read_image(file.path), input_size)).permute(2, 0, 1)[None]
    features = encode(model, image)
    rows = torch.zeros(settings.objects, dtype=torch.int64, device=features.image.device)
    prompts = PromptBatch(rows, points=rows.new_zeros(len(rows), 1, 2).float(), labels=rows[:, None] + 1)
    encoding = _seconds(lambda: encode(model, image).image)
    rest = _seconds(lambda: model.answer(features, prompts, True).iou) * BACKWARD * (1 + settings.corrections / 2)
    pays = encoding > GAIN * rest
    LOGGER.info(
        f"Encoding an image takes {encoding:.2f} s, learning from it about {rest:.2f} s: features are "
        + ("kept, and images at most mirrored (features=off changes them more)." if pays else "not kept.")
    )
    return pays


def _seconds(compute: Callable[[], Tensor]) -> float:
    """How long something takes the second time, on a GPU too."""
    compute().sum().item()
    started = time.perf_counter()
    compute().sum().item()
    return time.perf_counter() - started
