"""The arguments that say how a network computes, not what: half, bf16, compile, channels_last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from samplug import host
from samplug.host import LOGGER
from samplug.predict.compiled import compiled
from samplug.predict.precision import Form, Network, in_form

SLOW_HALF = "half precision is slow on a CPU and rounds masks away: computing in fp32; bf16=True is for CPUs too."


def asked_form(args: Any, option: Callable[[str], Any], device: torch.device) -> Form:
    """Read how to compute from the host's arguments and ours.

    Raises:
        ValueError: fp16 and bfloat16 at once.
    """
    half, bf16, mode = host.wants_half(args), bool(option("bf16")), option("compile")
    if half and bf16:
        raise ValueError("half and bf16 at once: give one of the two.")
    if half and device.type == "cpu":
        host.warn_once(SLOW_HALF)
        half = False
    dtype = torch.float16 if half else torch.bfloat16 if bf16 else torch.float32
    return Form(dtype, bool(option("channels_last")), "default" if mode is True else mode or "")


def network_in(form: Form, plain: Network, size: tuple[int, int] | None, follows: bool) -> Network:
    """A network in the form asked for; compiled once the size of its input is known, and only if that computes alike.

    Args:
        form: how it shall compute.
        plain: the network in float32.
        size: (h, w) of the input; None while it is not known.
        follows: whether it is to follow objects.
    """
    with torch.inference_mode(False), torch.no_grad():  # the copy outlives this call
        network = in_form(plain, form)
        if not form.compile or size is None:
            return network
        network, why = compiled(network, form.compile, size, follows)
    if why:
        LOGGER.warning(f"compile={form.compile}: {why}. Going on without.")
    return network
