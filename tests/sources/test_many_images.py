"""A folder of a thousand images: all are answered, and neither memory nor open files grow.

python -m pytest -m slow -s tests/test_many_pictures.py
"""

import gc
from pathlib import Path

import cv2
import pytest
from support.images import draw
from support.videos import resident

from samplug import SAM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads what Linux says of a process"),
]
COUNT, SETTLED, EVERY = 1000, 200, 50  # images; until everything has been met once; from one look to the next
CLICKS = {"points": [[20, 20], [30, 25]]}
EVERYTHING = {"points_stride": 3, "conf_thres": 0.0, "stability_score_thresh": 0.0}
SHAPES = [(48, 64), (64, 48), (40, 40), (36, 90)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of a few shapes."""
    made = tmp_path_factory.mktemp("many")
    drawn = [draw(*shape, seed) for seed, shape in enumerate(SHAPES)]
    for i in range(COUNT):
        cv2.imwrite(str(made / f"{i:04}.png"), drawn[i % len(drawn)])
    return made


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("batch", "prompts"), [(1, CLICKS), (7, CLICKS), (1, EVERYTHING)], ids=["clicks", "batches", "everything"]
)
def test_a_thousand_images_make_nothing_grow(nano_file, folder, tmp_path, batch, prompts):
    said = {"imgsz": 64, "batch": batch, "verbose": False, "save_txt": True, "project": str(tmp_path), "name": "out"}
    shapes, memory, files = {}, {}, {}
    for number, result in enumerate(SAM(nano_file).predict(str(folder), stream=True, **said, **prompts)):
        shapes[Path(result.path).stem] = tuple(result.masks.data.shape[1:])
        if number % EVERY == EVERY - 1:
            gc.collect()
            memory[number + 1], files[number + 1] = resident(), open_files()
    print("\n", {number: f"{memory[number] / 1e6:.1f} MB, {files[number]} files" for number in memory})
    assert shapes == {f"{i:04}": SHAPES[i % len(SHAPES)] for i in range(COUNT)}
    assert len(list((tmp_path / "out" / "labels").iterdir())) == COUNT
    later = [number for number in memory if number >= SETTLED]
    assert max(memory[number] for number in later) < memory[SETTLED] + 4e6  # 5 KB an image
    assert {files[number] for number in later} == {files[SETTLED]}
