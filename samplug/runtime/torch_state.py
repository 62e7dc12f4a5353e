"""What the user's program set for all of torch (default dtype and device, autocast), kept away from our networks."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

AUTOCAST_DEVICES = ("cpu", "cuda")


class _Float32Default:
    """Makes float32 the default dtype while any thread needs it: torch has one default for all of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # to be held while `holders` and the default are read together
        self.holders, self._before = 0, torch.float32  # how many blocks hold it, and the default before them

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold it while the block runs; the last of several threads restores what was there before the first."""
        with self.lock:
            if not self.holders:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if not self.holders:
                    torch.set_default_dtype(self._before)


_FLOAT32 = _Float32Default()


def default_torch_state() -> AbstractContextManager[None]:
    """Run a block with float32 and the CPU as defaults and without autocast, whatever the caller's program set.

    Never to be held over a `yield` to the user: what it sets would be seen there.
    """
    with _FLOAT32.lock:
        is_float32 = not _FLOAT32.holders and torch.get_default_dtype() is torch.float32
    autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    if is_float32 and not autocast and torch.get_default_device().type == "cpu":
        return nullcontext()
    return _default_torch_state()


@contextmanager
def _default_torch_state() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(_FLOAT32.hold())
        stack.enter_context(torch.device("cpu"))
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def recorded_gradients() -> Iterator[None]:
    """Record operations for gradients, as in a program of its own, whatever the caller switched off around it."""
    with torch.inference_mode(False), torch.enable_grad(), default_torch_state():
        yield


@contextmanager
def lasting_tensors() -> Iterator[None]:
    """Make tensors that outlive the caller's `torch.inference_mode`, so that they can be trained later."""
    with torch.inference_mode(False), torch.no_grad(), default_torch_state():
        yield
