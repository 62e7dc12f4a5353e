"""Seeded random weights whose masks follow the prompts: every network, any size, in closed form.

Fresh modules are unsuitable for a comparison: half of their tensors are constants, and their masks have one sign
wherever one clicks. Here every tensor is drawn from its name, its shape and a seed. Then low-rank terms carry one
direction of the embedding, *inside*, through the decoder:

- The embeddings of clicks on an object and of box corners point inside; those of clicks off it, of padding and of the
  output tokens point outside. A mask prompt, and the memory of a mask, add the direction with the mask's sign.
- Attention in the decoder compares positions (keys are projected as queries are) and passes on what it attends to
  (the output projection is the value projection's transpose), so a pixel gets the sign of the tokens near it.
- The upscaler, the hypernetworks and the heads read the direction through channels of opposite signs, a pair of which
  GELU and ReLU leave linear: f(x) - f(-x) = x.

The rest is noise of a trained network's size, thus every tensor contributes to the answer. On photographs: 5 to 60 % of
a mask is positive, masks of distant clicks have an IoU below one half, predicted IoUs differ between prompts, and the
presence is below zero for clicks off the object.
"""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samplug.checkpoints.config import build
from samplug.checkpoints.families.base import Row

# Standard deviation of tensors that are not projections, by the end of their names; the first that fits.
EMBEDDING_SIZES: dict[float, tuple[str, ...]] = {
    0.35: ("positional_encoding_gaussian_matrix",),
    0.2: ("rel_pos_h", "rel_pos_w"),
    0.7: ("_token.weight",),
    0.5: ("attention_biases", "pos_embed", "pos_embed_window", "_tokens.weight", "_ptr", "_spatial"),
    0.3: ("_pos_enc", "_tpos_enc", "_embed", "_embed.weight", *(f"point_embeddings.{i}.weight" for i in range(4))),
}

# How far inside the tokens start.
OFFSETS = {
    "point_embeddings.0.weight": -1.5,
    "point_embeddings.1.weight": 1.8,
    "point_embeddings.2.weight": 1.0,
    "point_embeddings.3.weight": 1.0,
    "not_a_point_embed.weight": -0.5,
    "iou_token.weight": -0.4,
    "mask_tokens.weight": -0.4,
    "obj_score_token.weight": -0.4,
}

# Factors of projections and norms, by the end of their names: small image features let positions decide.
SCALES: dict[float, tuple[str, ...]] = {
    0.2: tuple(f"neck.convs.{i}.conv.weight" for i in range(4)),
    0.4: ("conv_s0.weight", "conv_s1.weight"),
    0.5: ("neck.3.weight",),
    0.8: ("norm4.weight",),
    2.0: ("memory_attention.norm.weight",),
}

# Unused tensors in MobileSAM's file.
CLASSIFIER = {
    "image_encoder.norm_head.weight": (320,),
    "image_encoder.norm_head.bias": (320,),
    "image_encoder.head.weight": (1000, 320),
    "image_encoder.head.bias": (1000,),
}

PRESENCE_BIAS, IOU_BIAS = "pred_obj_score_head.layers.2.bias", "iou_prediction_head.layers.2.bias"
SINGLE_MASK = "output_hypernetworks_mlps.0.layers.2."  # its last layer

# The last projections of the residual branches in the encoders' blocks.
BRANCH_ENDS = ("attn.proj.weight", "mlp.lin2.weight", "mlp.fc2.weight", "mlp.layers.1.weight")


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Replace a model's parameters and buffers; returns the model."""
    model.load_state_dict(random_state(model.state_dict(), seed), strict=True)
    return model.eval()


def random_state(shapes: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """A state dict with these names and shapes; a model on the meta device gives them."""
    state = {key: noise(key, like, seed) for key, like in shapes.items()}
    scale_branches(state)
    prefix = "sam_" if "maskmem_tpos_enc" in state else ""
    prompts, decoder = f"{prefix}prompt_encoder.", f"{prefix}mask_decoder."
    width = state[f"{prompts}no_mask_embed.weight"].shape[1]
    inside = unit(draw("inside", (width,), seed)) * math.sqrt(width)
    carry_through_prompts(state, prompts, inside)
    carry_through_decoder(state, decoder, inside)
    if "maskmem_tpos_enc" in state:
        carry_through_memory(state, inside, seed)
    return state


def raise_presence(state: Mapping[str, Tensor], by: float) -> dict[str, Tensor]:
    """Weights with a higher presence of every object, in logits; unchanged where it is not predicted.

    Otherwise it is near zero after some frames, where rounding decides whether an object is there.
    """
    return {name: tensor + by if name.endswith(PRESENCE_BIAS) else tensor for name, tensor in state.items()}


def decisive(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose choices rounding cannot change.

    Objects are present, one of the three masks is clearly best, and the single mask is stable: its logits are larger.
    """
    biases = {name: tensor.clone() for name, tensor in state.items() if name.endswith(IOU_BIAS)}
    for tensor in biases.values():
        tensor[2] += 2.0
    stable = {name: 10 * tensor for name, tensor in state.items() if SINGLE_MASK in name}
    return raise_presence({**state, **biases, **stable}, 10.0)


def random_weights(row: Row) -> dict[str, Tensor]:
    """Decisive random weights of a network."""
    with torch.device("meta"):
        shapes = row.build().state_dict()
    return decisive(random_state(shapes))


def random_checkpoint(variant: str, folder: Path, seed: int = 0) -> Path:
    """A file of random weights as its publisher lays it out, under the name that Ultralytics knows it by."""
    with torch.device("meta"):
        shapes = build({"variant": variant}).state_dict()
    path = Path(folder) / f"{variant}.pt"
    torch.save(as_published(variant, random_state(shapes, seed), seed), path)
    return path


def as_published(variant: str, state: dict[str, Tensor], seed: int = 0) -> dict[str, Any]:
    """Weights as the variant's publisher lays out a checkpoint."""
    if variant == "mobile_sam":
        missing = {key: torch.empty(shape, device="meta") for key, shape in CLASSIFIER.items() if key not in state}
        return state | {key: noise(key, like, seed) for key, like in missing.items()}
    if "maskmem_tpos_enc" not in state:
        return state
    return {"model": state} | ({"config": {"variant": variant}} if variant == "samplug-nano" else {})


# Noise


def draw(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal values that depend on the name, the shape and the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode())))


def noise(key: str, like: Tensor, seed: int) -> Tensor:
    """A tensor of a plausible size for its role, which its name and rank tell."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1000)
    values = draw(key, tuple(like.shape), seed)
    scale = next((scale for scale, endings in SCALES.items() if key.endswith(endings)), 1.0)
    size = next((size for size, endings in EMBEDDING_SIZES.items() if key.endswith(endings)), None)
    if size is not None:
        return size * values
    if key.endswith("running_var"):
        return torch.exp(0.3 * values)
    if key.endswith("gamma"):  # layer scale
        return 0.3 * torch.exp(0.3 * values)
    if like.ndim == 1:
        return scale * (1 + 0.2 * values) if key.endswith("weight") else 0.1 * values
    fan_in = like.shape[0] if "output_upscaling" in key else like[0].numel()
    return scale * values / math.sqrt(fan_in)


def scale_branches(state: dict[str, Tensor]) -> None:
    """Keep the sum of all residual branches the same at any depth."""
    ends = [key for key in state if key.startswith("image_encoder") and key.endswith(BRANCH_ENDS)]
    for key in ends:
        state[key] *= math.sqrt(8 / len(ends))


# The direction


def unit(vector: Tensor) -> Tensor:
    """The vector scaled to length one."""
    return vector / vector.norm()


def signs(count: int) -> Tensor:
    """Alternating signs: their mean is zero, so layer norms keep them."""
    return 1.0 - 2.0 * (torch.arange(count) % 2)


def carry(state: dict[str, Tensor], key: str, output: Tensor, input: Tensor, size: float = 1.0) -> None:
    """Let a projection map the direction `input` (by its mean product with the features) to the direction `output`."""
    weight = state[key]
    rank_one = torch.outer(input, output) if "output_upscaling" in key else torch.outer(output, input)
    weight += size / len(input) * rank_one.view(*rank_one.shape, *[1] * (weight.ndim - 2))


def carry_through_prompts(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Let the embeddings of clicks, corners and mask prompts point inside or outside."""
    add_offsets(state, prefix, inside)
    down = f"{prefix}mask_downscaling"
    carry(state, f"{down}.0.weight", signs(4), torch.ones(1))
    carry(state, f"{down}.3.weight", signs(16), signs(4))
    carry(state, f"{down}.6.weight", inside, signs(16), 8.0)


def carry_through_decoder(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Let the decoder carry the direction from tokens to pixels, masks and scores."""
    width = len(inside)
    add_offsets(state, prefix, inside)
    for key in [key for key in state if key.startswith(f"{prefix}transformer") and key.endswith("q_proj.weight")]:
        align_attention(state, key.removesuffix("q_proj.weight"), inside)
    carry(state, f"{prefix}output_upscaling.0.weight", signs(width // 4), inside)
    carry(state, f"{prefix}output_upscaling.3.weight", signs(width // 8), signs(width // 4), 1.5)
    for mask in range(len(state[f"{prefix}mask_tokens.weight"])):
        state[f"{prefix}output_hypernetworks_mlps.{mask}.layers.2.bias"] += signs(width // 8)
    squashed = f"{prefix}obj_score_token.weight" in state  # a sigmoid follows in SAM 2
    carry_through_head(state, f"{prefix}iou_prediction_head.layers", inside, gain=20.0 if squashed else 5.0, middle=0.6)
    if f"{prefix}pred_obj_score_head.layers.0.weight" in state:
        carry_through_head(state, f"{prefix}pred_obj_score_head.layers", inside, gain=60.0, middle=0.0)


def add_offsets(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Move embeddings inside or outside."""
    for name, offset in OFFSETS.items():
        if f"{prefix}{name}" in state:
            state[f"{prefix}{name}"] += offset * inside


def align_attention(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Attend where positions agree, whatever the direction's sign, and pass on what is there."""
    query, key, value, out = (f"{prefix}{name}_proj.weight" for name in ("q", "k", "v", "out"))
    u = unit(inside)
    rows = len(state[query])
    gain = (256 / rows) ** 0.25 if "self_attn" in prefix else 1.5 * (128 / rows) ** 0.25  # products of any width alike
    state[query] = gain * (state[query] - torch.outer(state[query] @ u, u))
    state[key] = state[query] + 0.1 * state[key]
    rotation, _ = torch.linalg.qr(state[value][:, :rows])
    basis, _ = torch.linalg.qr(torch.cat([u[None], state[query][1:]]).T)
    state[value] = rotation @ basis.T
    state[out] = (0.5 if "token_to_image" in prefix else 1.0) * state[value].T + 0.1 * state[out]


def carry_through_head(state: dict[str, Tensor], prefix: str, inside: Tensor, gain: float, middle: float) -> None:
    """A head that reads the sign of its token, around the usual value."""
    hidden = len(state[f"{prefix}.0.bias"])
    carry(state, f"{prefix}.0.weight", signs(hidden), inside)
    carry(state, f"{prefix}.1.weight", signs(hidden), signs(hidden))
    outputs = len(state[f"{prefix}.2.bias"])
    state[f"{prefix}.2.weight"] *= gain / 60
    carry(state, f"{prefix}.2.weight", torch.linspace(0.7, 1.3, outputs), signs(hidden), gain)
    state[f"{prefix}.2.bias"] = middle + gain * (0.06 + 0.05 * state[f"{prefix}.2.bias"])


def carry_through_memory(state: dict[str, Tensor], inside: Tensor, seed: int) -> None:
    """Memories that carry their mask's sign, and are attended to at the position they came from."""
    width, slim = len(inside), state["maskmem_tpos_enc"].shape[-1]
    mask, memory = draw("mask", (width,), seed), draw("told", (slim,), seed)
    down = "memory_encoder.mask_downsampler.encoder"
    channels = [1, *(len(state[f"{down}.{i}.weight"]) for i in (0, 3, 6, 9))]
    for i, before, after in zip((0, 3, 6, 9), channels, channels[1:], strict=False):
        carry(state, f"{down}.{i}.weight", signs(after), signs(before), 1 / 9)
    carry(state, f"{down}.12.weight", mask, signs(channels[-1]), 2.0)
    carry(state, "memory_encoder.out_proj.weight", memory, mask)
    for key in [key for key in state if key.startswith("memory_attention") and "cross" in key and "q_proj.bias" in key]:
        prefix = key.removesuffix("q_proj.bias")
        place = 2 * draw("place", (width,), seed) * (torch.arange(width) % (width // 2) < width // 8)  # fast rotations
        state[key] += place
        state[f"{prefix}k_proj.bias"] += place
        value = draw(f"{prefix}said", (width,), seed)
        carry(state, f"{prefix}v_proj.weight", value, memory)
        carry(state, f"{prefix}out_proj.weight", inside, value, 4.0)
