"""The cluster: actors of Ray write what this machine writes, whatever dies. Skipped without Ray."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are not ours

# A prompter whose actor dies once, at an image of 64 rows.
DEADLY = """
import os, signal, time
from pathlib import Path
MARK = Path(__file__).with_name("seen")
def boxes(image):
    if image.shape[0] == 64 and not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return [[5, 5, 30, 30]] * (image.shape[0] % 3)
"""


@pytest.fixture(scope="module")
def prompter(tmp_path_factory):
    """That prompter, which actors import, and its mark: while that is there nobody dies."""
    folder = tmp_path_factory.mktemp("prompter")
    (folder / "dying_prompter.py").write_text(DEADLY)
    (folder / "seen").touch()
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **quiet}.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(folder))
        import dying_prompter

        yield dying_prompter.boxes, folder / "seen"


@pytest.fixture(scope="module")
def cluster(prompter):
    """Two nodes of one core each, for all tests."""
    pytest.importorskip("ray.data")
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    system = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False, "_system_config": system})
    second = made.add_node(**node)
    ray.init(address=made.address, log_to_driver=False)
    yield made, second
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def whole(job, prompter, contents):
    """The records that this machine writes, a shard an image."""
    return contents(job("whole", prompter=prompter[0], shard=1))


def test_local_and_parts_and_ray_write_the_same_bytes(cluster, job, contents):
    whole = contents(job())
    job("parts", part="1/2")
    assert contents(job("parts", part="2/2")) == whole
    done = job("ray", engine="ray", workers=2)
    assert contents(done) == whole and (done.out / "labels" / "image1.txt").exists()


def test_an_actor_that_is_killed_is_replaced(cluster, prompter, job, contents, whole):
    boxes, mark = prompter
    mark.unlink()
    done = job("ray", engine="ray", workers=1, prompter=boxes, shard=1)
    assert mark.exists() and contents(done) == whole and not done.failures


# A driver, with a cluster of its own, that is killed once a shard is done.
DRIVER = """
import os, signal, sys, threading, time
from pathlib import Path
import samplug
from dying_prompter import boxes
def kill():
    while not list(Path(sys.argv[2]).glob("records/??/*.gz")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill, daemon=True).start()
samplug.annotate(sys.argv[1], boxes, sys.argv[2], model=sys.argv[3], imgsz=64, shard=1, batch=2, engine="ray",
                 workers=1, verbose=False)
"""


def test_a_killed_driver_costs_what_was_not_written(prompter, job, contents, whole, folder, nano_file, tmp_path):
    pytest.importorskip("ray.data")
    out = tmp_path / "killed"
    command = [sys.executable, "-c", DRIVER, str(folder), str(out), str(nano_file)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("*.gz")}
    assert len(finished) >= 1
    assert contents(job("killed", prompter=prompter[0], shard=1)) == whole
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in finished.items())


def test_a_node_that_is_lost_costs_what_it_was_doing(cluster, prompter, job, contents, whole, tmp_path):
    made, second = cluster  # the last test: it leaves one node

    def lose():
        while not list((tmp_path / "ray").glob("records/??/*.gz")):
            time.sleep(0.05)
        made.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    done = job("ray", engine="ray", workers=2, prompter=prompter[0], shard=1)
    thread.join()
    assert contents(done) == whole and not done.failures
