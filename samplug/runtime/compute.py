"""The arguments for how a network computes: half, bf16, compile, channels_last."""

from collections.abc import Mapping
from typing import Any

import torch

from samplug import host
from samplug.host import LOGGER
from samplug.runtime.compiled import compiled
from samplug.runtime.precision import ComputeOptions, Network, convert
from samplug.runtime.torch_state import lasting_tensors

SLOW_HALF = "half precision is slow on a CPU and rounds masks away: computing in fp32; bf16=True is for CPUs too."


def compute_options_of(args: Any, options: Mapping[str, Any], device: torch.device) -> ComputeOptions:
    """Read how to compute from Ultralytics' arguments and the options of ours; ValueError for fp16 with bfloat16."""
    half, bf16, mode = host.wants_half(args), bool(options.get("bf16")), options.get("compile")
    if half and bf16:
        raise ValueError("half and bf16 at once: give one of the two.")
    if half and device.type == "cpu":
        host.warn_once(SLOW_HALF)
        half = False
    dtype = torch.float16 if half else torch.bfloat16 if bf16 else torch.float32
    return ComputeOptions(dtype, bool(options.get("channels_last")), "default" if mode is True else mode or "")


def network_for(options: ComputeOptions, model: Network, size: tuple[int, int] | None, tracks: bool) -> Network:
    """The network that computes as the options say; compiled once the size of its input is known, if results agree.

    `model` is the network in float32; `size`, (h, w) of the input, None while it is not known; `tracks`, whether it is
    to track objects.
    """
    with torch.inference_mode(False), torch.no_grad():  # the copy outlives this call
        network = convert(model, options)
        if not options.compile or size is None:
            return network
    with lasting_tensors():
        network, reason = compiled(network, options.compile, size, tracks)
    if reason:
        LOGGER.warning(f"compile={options.compile}: {reason}. Going on without.")
    return network
