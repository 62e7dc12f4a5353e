"""One run of a predictor at a time. A second is refused at once: Ultralytics' own lock would wait for ever."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

Class = TypeVar("Class")
Method = TypeVar("Method", bound=Callable[..., Any])

OTHER_THREAD = (
    "{name}: this predictor is computing in another thread. Give each thread a predictor of its own; they can share "
    "a network: setup_model(first.fp32_model)."
)
OPEN = (
    "{name}: this predictor is in use: a stream of it is open, or this is one of its own callbacks. Read the stream to "
    "its end or close it (stream.close()) first, or use a second predictor."
)
OTHER_IMAGE = (
    "Another thread has given this predictor another image since this thread gave its own. Give each thread a "
    "predictor of its own; they can share a network: setup_model(first.fp32_model)."
)


class RunGuard:
    """Who uses a predictor: a run holds it from its first frame to its last, a thread while it computes."""

    def __init__(self) -> None:
        self._computing = threading.RLock()  # held by a thread while it computes, not between two results
        self._running = False
        self._openers: WeakSet[threading.Thread] = WeakSet()
        self._opener: threading.Thread | None = None

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """Hold the predictor for a run; RuntimeError if it is in use."""
        with self.step(name):
            if self._running:
                raise RuntimeError(OPEN.format(name=name))
            self._running = True
            try:
                yield
            finally:
                self._running = False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Compute for a moment, also in a run of this thread or between two results; RuntimeError if another does."""
        if not self._computing.acquire(blocking=False):
            raise RuntimeError(OTHER_THREAD.format(name=name))
        try:
            yield
        finally:
            self._computing.release()

    @contextmanager
    def between_results(self) -> Iterator[None]:
        """Let others compute while the caller of a stream looks at a result."""
        self._computing.release()
        try:
            yield
        finally:
            self._computing.acquire()

    def note_source(self) -> None:
        """Remember that this thread has opened the current source."""
        self._opener = threading.current_thread()
        self._openers.add(self._opener)

    def require_own_source(self) -> None:
        """Refuse to go on with an image that has taken the place of this thread's own."""
        this = threading.current_thread()
        if self._opener is not this and this in self._openers:
            raise RuntimeError(OTHER_IMAGE)


def exclusive(*names: str) -> Callable[[type[Class]], type[Class]]:
    """A predictor whose methods of these names change its state, and so must not meet another thread's."""

    def guard(predictor: type[Class]) -> type[Class]:
        for name in names:
            setattr(predictor, name, _holding(RunGuard.step, getattr(predictor, name)))
        return predictor

    return guard


def one_at_a_time(method: Method) -> Method:
    """A method of a predictor that is a run of its own."""
    return _holding(RunGuard.run, method)


def _holding(hold: Callable[[RunGuard, str], AbstractContextManager[None]], method: Method) -> Method:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with hold(self._guard, method.__name__):
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]
