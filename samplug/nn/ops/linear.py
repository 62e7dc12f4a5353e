"""Linear layers, by the faster of torch's two CPU libraries for products of matrices.

torch hands float32 products to MKL, which does not use AVX-512 on AMD processors. oneDNN, which torch carries for
convolutions, does. The choice depends on the machine, not on a clock, so that equal runs give equal bits.

Inputs (..., I), weights (O, I), outputs (..., O).
"""

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ONEDNN_MIN_ROWS = 256  # with fewer, oneDNN's reordering of the weight costs more than it saves


def is_recording() -> bool:
    """Whether operations are recorded, for gradients or as a graph, so that nothing may depend on values."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


def may_split(x: Tensor) -> bool:
    """Whether work on a tensor may be split into parts that fit a CPU's cache."""
    return x.device.type == "cpu" and not is_recording()


@cache
def is_amd_with_avx512() -> bool:
    """Whether MKL leaves half of this processor idle."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    cpuinfo = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (cpuinfo.read_text(errors="replace") if cpuinfo.exists() else platform.processor())


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN's products are available, correct and faster."""
    if not is_amd_with_avx512() or not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-1, 1, 12).view(3, 4)
    try:
        return torch.allclose(_onednn_linear(x, x.sin(), None), x @ x.sin().T, atol=1e-6)
    except (AttributeError, RuntimeError):  # the operation is private to torch
        return False


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight.contiguous(), bias, "none", [], "")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: x (..., I), weight (O, I), bias (O,) -> (..., O)."""
    if not may_split(x) or x.dtype != torch.float32:  # asked first: a size that is compared would bind a graph to it
        return F.linear(x, weight, bias)
    large = x.numel() >= ONEDNN_MIN_ROWS * x.shape[-1]
    if large and prefers_onednn() and not torch.is_autocast_enabled("cpu"):
        return _onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)
