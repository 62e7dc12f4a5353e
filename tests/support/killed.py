"""Kill a writer at random moments, again and again, and look at what it left: `python killed.py KIND COUNT`.

Prints how often the old file stood there afterwards, how often the new one, and how many temporary files were left.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model, save_model
from samplug.files.embedding import Embedding
from samplug.files.memory_bank import load_bank, save_bank
from samplug.nn.structs import Features
from samplug.predict.results.mask_results import MaskResults
from samplug.predict.results.saved import write_image
from samplug.tracking.bank import MemoryBank, MemoryEntry
from samplug.train.fit.state import Progress, RunState
from samplug.transforms import ImageTransform

NANO = {"variant": "samplug-nano"}


class Image:
    """A drawing of results."""

    file = "a.png"

    def write(self, path, state):
        write_image(path, np.full((300, 400, 3), 50 + state, np.uint8))

    def read(self, path):
        image = cv2.imread(str(path))
        assert image.shape == (300, 400, 3) and (image == image[0, 0]).all()
        return int(image[0, 0, 0]) - 50


class Labels:
    """A label file, which is appended to."""

    file = "a.txt"

    def __init__(self):
        masks = torch.zeros(40, 64, 64, dtype=torch.bool)
        masks[:, 10:50, 10:50] = True
        table = torch.tensor([[10.0, 10, 50, 50, 0.5, 0]] * 40)
        self.result = MaskResults(np.zeros((64, 64, 3), np.uint8), "a.png", {0: "0"}, masks=masks, boxes=table)

    def write(self, path, state):
        if state == 0:
            path.unlink(missing_ok=True)
        self.result.save_txt(path)

    def read(self, path):
        lines = path.read_text().splitlines()
        assert len(set(lines)) == 1 and len(lines) % 40 == 0
        return len(lines) // 40 - 1


class OfNetwork:
    """What belongs to a network."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = build(NANO).eval()


class EmbeddingFile(OfNetwork):
    """An image's features."""

    file = "a.npz"

    def write(self, path, state):
        features = Features(torch.full((1, 128, 16, 16), float(state)))
        image = np.zeros((50, 60, 3), np.uint8)
        Embedding.of(self.model, image, features, ImageTransform((50, 60), (256, 256), "letterbox")).save(path)

    def read(self, path):
        values = Embedding.load(path).features.image
        assert (values == values.flatten()[0]).all()
        return int(values.flatten()[0])


class BankFile(OfNetwork):
    """A memory bank."""

    file = "a.npz"

    def write(self, path, state):
        bank = MemoryBank(0)
        bank.slots = [3]
        bank.entries.append(MemoryEntry("a", (3,), torch.full((1, 256, 32), float(state)), (1.0,), (16, 16)))
        save_bank(path, bank, self.model)

    def read(self, path):
        values = load_bank(path, self.model).entries[0].memories
        assert (values == values.flatten()[0]).all()
        return int(values.flatten()[0])


class ModelFile(OfNetwork):
    """A network."""

    file = "a.pt"

    def write(self, path, state):
        with torch.no_grad():
            self.model.no_mem_embed.fill_(float(state))
        save_model(path, self.model, NANO)

    def read(self, path):
        return int(load_model(path).no_mem_embed.flatten()[0])


class TrainingFile(OfNetwork):
    """All that a training needs to go on."""

    file = "last.pt"

    def write(self, path, state):
        weights = self.model.state_dict()
        about = {"config": NANO, "card": {}}
        RunState({}, {}, Progress(step=state), weights, mean=weights, optimizer={}).save(path, weights, about)

    def read(self, path):
        return RunState.load(path).progress.step


KINDS = {
    "picture": Image,
    "labels": Labels,
    "embedding": EmbeddingFile,
    "bank": BankFile,
    "network": ModelFile,
    "training": TrainingFile,
}


def kill_once(kind, folder, wait):
    """Write state 0, then let another process write states 1, 2, …, and kill it after so many seconds."""
    path = folder / kind.file
    kind.write(path, 0)
    child = os.fork()
    if not child:
        for state in range(1, 100):
            kind.write(path, state)
        os._exit(0)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return kind.read(path)


def main(name, count):
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    kind, draw, found, left = KINDS[name](), random.Random(0), Counter(), 0
    with TemporaryDirectory() as folder:
        began = time.monotonic()
        kind.write(Path(folder) / kind.file, 0)
        once = time.monotonic() - began
        for _ in range(count):
            state = kill_once(kind, Path(folder), draw.uniform(0, 3 * once))
            found["old" if state == 0 else "new"] += 1
            aside = [path for path in Path(folder).iterdir() if path.name != kind.file]
            assert all(path.name.startswith(".") for path in aside)
            left += len(aside)
            for path in aside:
                path.unlink()
    print(found["old"], found["new"], left)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
