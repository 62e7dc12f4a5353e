"""Answers that are no numbers: reported with where they come from, instead of shown as an empty mask."""

import torch
from torch import Tensor, nn


def check_finite(model: nn.Module, features: Tensor, *answer: Tensor) -> None:
    """Refuse the answer of a network, logits and scores, made of features, that holds NaN or infinity.

    The FloatingPointError says whether weights, features or the decoder are to blame.
    """
    if all(is_finite(tensor) for tensor in answer):
        return
    broken = [name for name, tensor in model.state_dict().items() if not is_finite(tensor)]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise FloatingPointError(f"The network's weights hold NaN or infinity: {broken[0]}{more}. Load them again.")
    where = "decoder's answer" if is_finite(features) else "features of the image"
    small = features.dtype == torch.float16
    advice = "float16 is too small for this network: leave half out." if small else "Is the image finite?"
    raise FloatingPointError(f"The {where} hold NaN or infinity, though the weights do not. {advice}")


def is_finite(tensor: Tensor) -> bool:
    """By its smallest and largest value, which are NaN where any is: no mask as large as the tensor."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    tensor = tensor.float() if tensor.element_size() == 1 else tensor  # float8 can do next to nothing
    return bool(torch.stack(tensor.aminmax()).isfinite().all())
