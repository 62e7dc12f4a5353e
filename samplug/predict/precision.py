"""A network in another form beside the one in float32, which keeps its bits: fp16, bfloat16, channels last."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model

Network = SAMModel | SAM2Model


@dataclass(frozen=True)
class Form:
    """How a network computes.

    Attributes:
        dtype: of weights and maps. Norms and softmax compute in float32 in any case: torch's kernels widen what they
            are given and round once at the end.
        channels_last: maps lie in memory with their channels last.
        compile: mode of torch.compile; empty for none.
    """

    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    compile: str = ""

    @property
    def uncompiled(self) -> Form:
        """The same without torch.compile."""
        return replace(self, compile="")

    def shape(self, images: Tensor) -> Tensor:
        """Pictures (F, 3, h, w) as a network of this form takes them."""
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return images.to(self.dtype, memory_format=layout)


PLAIN = Form()
_FORMS: WeakKeyDictionary[Network, dict[Form, Network]] = WeakKeyDictionary()


def in_form(model: Network, form: Form) -> Network:
    """Return the network in float32 as it is, or a copy in another form on its device, made once while it lives.

    A compiled network is not made here but by `samplug.predict.compiled`, out of what this returns.
    """
    if form.uncompiled == PLAIN:
        return model.float()
    made = _FORMS.setdefault(model, {})
    if form.uncompiled not in made:
        layout = torch.channels_last if form.channels_last else torch.preserve_format
        made[form.uncompiled] = deepcopy(model).to(form.dtype).to(memory_format=layout)
    return made[form.uncompiled].to(next(model.parameters()).device)
