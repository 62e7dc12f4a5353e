"""A network in half precision beside the one in full, which keeps its bits."""

from __future__ import annotations

from copy import deepcopy
from weakref import WeakKeyDictionary

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model

Network = SAMModel | SAM2Model
_HALVES: WeakKeyDictionary[Network, Network] = WeakKeyDictionary()


def in_precision(model: Network, half: bool) -> Network:
    """Return the network in fp32, or a copy of it in fp16 on its device, made once for as long as it lives."""
    if not half:
        return model.float()
    if model not in _HALVES:
        _HALVES[model] = deepcopy(model).half()
    return _HALVES[model].to(next(model.parameters()).device)
