"""Actors of Ray on a cluster that annotate shards: `pip install samplug[ray]`.

The files of the shards are what is known to be done, as with every engine: Ray's own checkpoint, readers and writers
are not used. The folder of the job and the images are read and written by every node, so they are on a shared disk.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from samplug.annotate.engines.pool import Commit
from samplug.annotate.plan import Shard
from samplug.annotate.settings import Settings
from samplug.errors import JobError

CORES_OF_AN_ACTOR = 4
MOST_BLOCKS = 20_000
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


class ShardActor:
    """Annotates the shards of rows {"number", "shard"} and returns {"number", "failed"}."""

    def __init__(self, settings: bytes) -> None:
        from samplug.annotate.work.worker import Worker

        self.worker = Worker(pickle.loads(settings))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """A batch is one row."""
        failed = [self.worker.annotate(pickle.loads(shard), lambda count: None) for shard in batch["shard"]]
        return {"number": list(batch["number"]), "failed": failed}


def annotate_on_ray(settings: Settings, shards: Sequence[Shard], commit: Commit) -> None:
    """Annotate shards on the cluster at `address`, or on one of this machine.

    Raises:
        JobError: Ray is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise JobError("engine=ray needs Ray: pip install samplug[ray].") from error
    own = not ray.is_initialized()
    if own:
        local = {} if settings.address else {"include_dashboard": False}
        ray.init(address=settings.address or "local", log_to_driver=settings.verbose, **local)
    try:
        rows = [{"number": number, "shard": pickle.dumps(shard)} for number, shard in enumerate(shards)]
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        least, most, gpus, cores = actors_on(nodes, settings, len(rows))
        settings = replace(settings, device=None) if gpus else settings  # Ray says which
        actors = ray.data.ActorPoolStrategy(min_size=least, max_size=most)
        options = {"compute": actors, "num_gpus": gpus, "num_cpus": cores}
        given = {"fn_constructor_args": [pickle.dumps(settings)], "batch_size": 1, "max_restarts": -1}
        for row in dataset.map_batches(ShardActor, **given, **options).iter_rows():
            commit(shards[row["number"]], int(row["failed"]))
    finally:
        if own:
            ray.shutdown()


def actors_on(nodes: Sequence[Mapping[str, float]], settings: Settings, shards: int) -> tuple[int, int, int, int]:
    """The least and the most actors, and the GPUs and cores of each, which one node has to have.

    An actor a GPU where there are some, else one for a few cores.
    """
    gpus = 0 if str(settings.device).startswith("cpu") else sum(int(node.get("GPU", 0)) for node in nodes)
    able = [node for node in nodes if not gpus or node.get("GPU")]
    cores = [int(node.get("CPU", 0)) for node in able]
    of_gpu = [int(node.get("CPU", 0) / node["GPU"]) for node in able] if gpus else []  # all of a node can be in use
    share = max(1, min(CORES_OF_AN_ACTOR, min(of_gpu) if gpus else max(cores, default=1)))
    least, most = settings.worker_range or (1, gpus or max(1, sum(cores) // share))
    least, most = max(1, min(least, shards)), max(1, min(most, shards))
    return least, most, min(gpus, 1), max(1, min(share, sum(cores) // most))
