"""Linear layers and products of matrices, by the faster of torch's two libraries for them on a CPU.

torch hands float32 products to MKL, which does not use the AVX-512 of AMD's processors. oneDNN, which torch carries for
convolutions, does. The choice follows from the machine, not from a clock, so that equal runs give equal bits.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MANY = 256  # rows from which on it pays that oneDNN puts the weight into an order of its own


def recorded() -> bool:
    """Whether what runs is written down, for gradients or as a graph, so that nothing may depend on values."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


@cache
def amd_with_avx512() -> bool:
    """Whether MKL leaves half of this processor idle."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    told = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (told.read_text(errors="replace") if told.exists() else platform.processor())


@cache
def by_onednn() -> bool:
    """Whether oneDNN's products are there, right and faster."""
    if not amd_with_avx512() or not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-1, 1, 12).view(3, 4)
    try:
        return torch.allclose(_onednn(x, x.sin(), None), x @ x.sin().T, atol=1e-6)
    except (AttributeError, RuntimeError):  # the operation is not part of torch's public face
        return False


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight.contiguous(), bias, "none", [], "")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply x (..., I) by the transpose of a weight (O, I) and add a bias (O,): (..., O)."""
    plain = not recorded() and x.dtype == torch.float32 and x.device.type == "cpu"
    if plain and x.numel() >= MANY * x.shape[-1] and by_onednn() and not torch.is_autocast_enabled("cpu"):
        return _onednn(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return product(x, self.weight, self.bias)
