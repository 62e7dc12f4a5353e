"""Copies of a network in fp16, bfloat16 or channels last; the one in float32 stays as it is."""

from copy import deepcopy
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model

Network = SAMModel | SAM2Model


@dataclass(frozen=True)
class ComputeOptions:
    """How a network computes.

    Beside bfloat16 the prompt encoder and the mask decoder stay in float32. Norms and softmax compute in float32 in any
    case: torch's kernels widen what they are given and round once at the end.
    """

    dtype: torch.dtype = torch.float32  # of weights and maps
    channels_last: bool = False  # maps lie in memory with their channels last
    compile: str = ""  # mode of torch.compile; empty for none

    def prepare_images(self, images: Tensor) -> Tensor:
        """Images (F, 3, h, w) in the dtype and memory layout of the network."""
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return images.to(self.dtype, memory_format=layout)


FLOAT32_PARTS = ("prompt_encoder", "mask_decoder", "sam_prompt_encoder", "sam_mask_decoder", "obj_ptr_proj")
OF_THE_ENCODER = ("conv_s0", "conv_s1")  # layers of the mask decoder that are a part of the image's encoding

_COPIES: WeakKeyDictionary[Network, dict[ComputeOptions, Network]] = WeakKeyDictionary()
_COPIED: WeakKeyDictionary[Network, tuple[int, ...]] = WeakKeyDictionary()  # the state of the weights that a copy has


def convert(model: Network, options: ComputeOptions) -> Network:
    """Return the network in float32 as it is, or a copy with other options on its device.

    The copy is made once while the network lives, and takes over weights that were changed since. Compiling is left to
    `samplug.runtime.compiled`.
    """
    if options.dtype == torch.float32 and not options.channels_last:
        return model.float()
    options, copies = replace(options, compile=""), _COPIES.setdefault(model, {})
    if options not in copies:
        layout = torch.channels_last if options.channels_last else torch.preserve_format
        made = deepcopy(model).to(options.dtype)
        if options.dtype == torch.bfloat16:
            _restore_float32_parts(made, model)
        copies[options] = made.to(memory_format=layout)
        _COPIED[made] = weights_state(model)
    copy = copies[options].to(next(model.parameters()).device)
    if _COPIED[copy] != (state := weights_state(model)):
        copy.load_state_dict(model.state_dict())
        _COPIED[copy] = state
    return copy


def _restore_float32_parts(made: Network, model: Network) -> None:
    """Give a copy in bfloat16 the prompt encoder and mask decoder of the original.

    They take a small share of the time and bring most of the error: sums over all pixels decide between masks that are
    nearly alike, and eight bits do not tell them apart.
    """
    for name in FLOAT32_PARTS:
        if isinstance(part := getattr(model, name, None), nn.Module):
            setattr(made, name, deepcopy(part))
            for layer in OF_THE_ENCODER:
                if isinstance(convolution := getattr(getattr(made, name), layer, None), nn.Module):
                    convolution.bfloat16()


def weights_state(model: Network) -> tuple[int, ...]:
    """Numbers that change when weights are loaded, trained or replaced."""
    tensors = [*model.parameters(), *model.buffers()]
    return tuple(
        tensor.data_ptr() if tensor.is_inference() else tensor._version + tensor.data_ptr() for tensor in tensors
    )
