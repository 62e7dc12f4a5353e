"""Signals that wait until a step is complete, so that what is saved then is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(Exception):
    """A signal has come; raised by `Interrupts.check`."""


class Interrupts:
    """Holds back signals inside a `with`; a second one acts at once. Main thread only.

    Args:
        signals: which; those that programs are ended by if left out.
        tell: is called when the first one comes.

    Attributes:
        pending: the signal that has come.
    """

    def __init__(self, signals: Sequence[int] = SIGNALS, tell: Callable[[], object] = lambda: None) -> None:
        self.pending: int | None = None
        self._signals, self._tell = signals, tell
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup ignores SIGHUP
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.pending is not None:
            raise Interrupted

    def deliver(self) -> None:
        """Let the pending signal do what it does without us; never returns."""
        number = self.pending or signal.SIGINT
        self._restore()
        signal.raise_signal(number)
        raise KeyboardInterrupt

    def _note(self, number: int, _: Any) -> None:
        if self.pending is not None:
            self.deliver()
        self.pending = number
        self._tell()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
