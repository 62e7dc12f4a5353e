"""A network in half precision beside the one in full, which keeps its bits."""

from __future__ import annotations

from copy import deepcopy
from weakref import WeakKeyDictionary

from torch import nn

_HALVES: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def in_precision(model: nn.Module, half: bool) -> nn.Module:
    """Return the network in fp32, or a copy of it in fp16 on its device, made once for as long as it lives."""
    if not half:
        return model.float()
    if model not in _HALVES:
        _HALVES[model] = deepcopy(model).half()
    return _HALVES[model].to(next(model.parameters()).device)
