"""Large jobs: memory, bookkeeping and start do not grow with the number of images, or hardly."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from support.scarce import LINUX

from samplug.annotate import plan

# A job over a folder whose network is a stub; prints seconds an image and the most memory it took, in kB.
STUB = """
import sys, time
from pathlib import Path
import numpy as np
from samplug.annotate import engines, job
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.annotate.settings import Settings
from samplug.annotate.work import worker
from samplug.masks.rle import rle_encode
corner = rle_encode(np.add.outer(np.arange(8) > 3, np.arange(8) > 3) == 0)
row = ObjectRecord(0, "object", (0.0, 0.0, 4.0, 4.0), corner, 0.9, 16)
def load(self, settings):
    self.settings, self.supervised, self.journal, self.prompter = settings, False, None, None
    self.records_of = worker.RecordFolder(worker.Path(settings.out) / "records")
    self._readers = worker.ThreadPoolExecutor(worker.READERS)
worker.Worker.__init__ = load
worker.Worker._batch = lambda self, given: [ImageRecord(source.name, (8, 8), None, (row,)) for source in given]
settings = Settings(source=sys.argv[1], out=sys.argv[2], workers=0, verbose=False, format=("coco",))
start = time.perf_counter()
done = job.Job(settings).run()
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()  # the usage that Python tells of begins with that of its parent
print(seconds / done.progress[0] / settings.shard, status.partition("VmHWM:")[2].split()[0])
"""


def run_stub(tmp_path, count):
    """Seconds an image, and kB of memory, of a job over so many tiny images with a stub for a network."""
    folder = tmp_path / f"images{count}"
    folder.mkdir()
    tiny = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(tiny)
    command = [sys.executable, "-c", STUB, str(folder), str(tmp_path / f"out{count}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), int(memory)


@LINUX
@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_images(tmp_path, capsys):
    (few_seconds, few), (many_seconds, many) = (run_stub(tmp_path, count) for count in (1000, 10_000))
    with capsys.disabled():
        print(f"\n1,000 images: {few / 1024:.0f} MB, {few_seconds * 1e3:.2f} ms an image", end="; ")
        print(f"10,000 images: {many / 1024:.0f} MB, {many_seconds * 1e3:.2f} ms an image")
    assert many < 1.05 * few


def test_a_hundred_thousand_images_are_planned_and_their_plan_is_read(tmp_path):
    sources = [plan.Source(f"folder{i // 1000}/image{i}.jpg", f"/x/{i}.jpg", 1, 1) for i in range(100_000)]
    shards, _ = plan.update_plan([], sources, 256)
    plan.write_plan(tmp_path / "plan.jsonl", shards)
    before = plan.read_plan(tmp_path / "plan.jsonl", "/x")
    again, dropped = plan.update_plan(before, sources, 256)
    assert not dropped and [shard.id for shard in again] == [shard.id for shard in shards]
    assert again[3].sources[5].path == "/x/folder0/image773.jpg"
