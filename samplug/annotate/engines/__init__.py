"""Who annotates the shards of a job: this process, processes of this machine, or actors on a cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from samplug.annotate.engines.pool import Commit, Pool, pool_size
from samplug.annotate.plan import Shard
from samplug.annotate.progress import Progress
from samplug.annotate.settings import Settings
from samplug.host import LOGGER
from samplug.runtime.interrupts import Interrupts

STOPPING = "Ctrl-C: what is being annotated is finished first. Once more stops at once; what is committed is kept."


def annotate_shards(settings: Settings, shards: Sequence[Shard], progress: Progress, commit: Commit) -> None:
    """Annotate shards in whichever order.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the shards that were being annotated.
        JobError: processes die whatever they do.
    """
    if settings.engine == "ray":
        from samplug.annotate.engines.cluster import annotate_on_ray

        annotate_on_ray(settings, shards, commit)
        return
    size = pool_size(settings, len(shards))
    with finishing_on_interrupt(settings.verbose) as is_stopping:
        if size:
            Pool(settings, shards, size, progress, commit).run(is_stopping)
        else:
            annotate_here(settings, shards, progress, commit, is_stopping)


def annotate_here(
    settings: Settings, shards: Sequence[Shard], progress: Progress, commit: Commit, is_stopping: Callable[[], bool]
) -> None:
    """Annotate shards in this process."""
    from samplug.annotate.work.worker import Worker

    worker = Worker(settings)
    for shard in shards:
        if not is_stopping():
            commit(shard, worker.annotate(shard, partial(progress.tick, shard)))


@contextmanager
def finishing_on_interrupt(verbose: bool) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C be asked for, the second interrupt; after a first one the block ends as interrupted.

    Yields:
        Whether there was one.
    """
    unhandled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else somebody does, as he likes
    tell = partial(LOGGER.warning, STOPPING) if verbose else lambda: None
    with Interrupts([signal.SIGINT] if unhandled else [], tell) as interrupts:
        yield lambda: interrupts.pending is not None
    if interrupts.pending is not None:
        interrupts.deliver()
