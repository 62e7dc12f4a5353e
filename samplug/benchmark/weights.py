"""Seeded random weights whose masks follow the prompts: every network, any size, in closed form.

Fresh modules are poor ground for a comparison: half of their tensors are constants, and their masks have one sign
wherever one clicks. Here every tensor is drawn from its name, its shape and a seed. Then one direction of the
embedding, *inside*, is threaded through the decoder:

- The embeddings of clicks on an object and of box corners point inside; those of clicks off it, of padding and of the
  output tokens point outside. A mask prompt, and the memory of a mask, add the direction with the mask's sign.
- Attention in the decoder compares like with like (keys are projected as queries are) and hands on what it attends to
  (the output projection is the value projection's transpose), so a pixel takes the side of the tokens near it.
- The upscaler, the hypernetworks and the heads read the direction through channels of opposite signs, a pair of which
  GELU and ReLU leave linear: f(x) - f(-x) = x.

The rest is noise of a trained network's size, thus every tensor has a say in the answer. On photographs: 5 to 60 % of
a mask is positive, masks of far clicks overlap by less than a half, predicted IoUs differ between prompts, and the
presence is below zero for clicks off the object.
"""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from samplug.variants import build

# Tensors that are no projection, by how their names end, with the size of their entries.
TABLES = {
    "positional_encoding_gaussian_matrix": 0.35,
    "rel_pos_h": 0.2,
    "rel_pos_w": 0.2,
    "attention_biases": 0.5,
    "pos_embed": 0.5,
    "pos_embed_window": 0.5,
    "_pos_enc": 0.3,
    "_tpos_enc": 0.3,
    "_embed": 0.3,
    "_embed.weight": 0.3,
    "_token.weight": 0.7,
    "_tokens.weight": 0.5,
    "_ptr": 0.5,
    "_spatial": 0.5,
    **{f"point_embeddings.{i}.weight": 0.3 for i in range(4)},
}

# How far inside the tokens start.
SIDES = {
    "point_embeddings.0.weight": -1.5,
    "point_embeddings.1.weight": 1.8,
    "point_embeddings.2.weight": 1.0,
    "point_embeddings.3.weight": 1.0,
    "not_a_point_embed.weight": -0.5,
    "iou_token.weight": -0.4,
    "mask_tokens.weight": -0.4,
    "obj_score_token.weight": -0.4,
}

# Projections and norms that are scaled, by how their names end: pictures whisper, so that positions are heard.
SCALES = {
    "neck.3.weight": 0.5,
    "neck.convs.0.conv.weight": 0.2,
    "neck.convs.1.conv.weight": 0.2,
    "neck.convs.2.conv.weight": 0.2,
    "neck.convs.3.conv.weight": 0.2,
    "conv_s0.weight": 0.4,
    "conv_s1.weight": 0.4,
    "norm4.weight": 0.8,
    "memory_attention.norm.weight": 2.0,
}

# What MobileSAM's file holds besides.
CLASSIFIER = {
    "image_encoder.norm_head.weight": (320,),
    "image_encoder.norm_head.bias": (320,),
    "image_encoder.head.weight": (1000, 320),
    "image_encoder.head.bias": (1000,),
}

PRESENCE, OVERLAP = "pred_obj_score_head.layers.2.bias", "iou_prediction_head.layers.2.bias"

# The last projections of the encoders' blocks.
STREAM_ENDS = ("attn.proj.weight", "mlp.lin2.weight", "mlp.fc2.weight", "mlp.layers.1.weight")


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model itself, its parameters and buffers replaced."""
    model.load_state_dict(random_state(model.state_dict(), seed), strict=True)
    return model.eval()


def random_state(shapes: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """A state dict of the shapes given; those of a model on the meta device will do."""
    state = {key: noise(key, like, seed) for key, like in shapes.items()}
    calm_the_encoder(state)
    prefix = "sam_" if "maskmem_tpos_enc" in state else ""
    prompts, decoder = f"{prefix}prompt_encoder.", f"{prefix}mask_decoder."
    width = state[f"{prompts}no_mask_embed.weight"].shape[1]
    inside = unit(draw("inside", (width,), seed)) * math.sqrt(width)
    thread_prompts(state, prompts, inside)
    thread_decoder(state, decoder, inside)
    if "maskmem_tpos_enc" in state:
        thread_memory(state, inside, seed)
    return state


def staying(state: Mapping[str, Tensor], raised: float) -> dict[str, Tensor]:
    """The weights with every object's presence raised by so much, in logits; as they are where it is not predicted.

    Left alone, it hovers about zero after some frames, where rounding decides whether an object is there.
    """
    return {name: tensor + raised if name.endswith(PRESENCE) else tensor for name, tensor in state.items()}


def decided(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose choices no rounding turns: objects are there, and one of the several masks is clearly the best."""
    clear = {name: tensor.clone() for name, tensor in state.items() if name.endswith(OVERLAP)}
    for tensor in clear.values():
        tensor[2] += 2.0
    return staying({**state, **clear}, 10.0)


def random_checkpoint(variant: str, folder: Path, seed: int = 0) -> Path:
    """A file of random weights as its publisher lays it out, under the name that Ultralytics knows it by."""
    with torch.device("meta"):
        shapes = build({"variant": variant}).state_dict()
    state = random_state(shapes, seed)
    if variant == "mobile_sam":
        state |= {key: noise(key, torch.empty(shape, device="meta"), seed) for key, shape in CLASSIFIER.items()}
    wrapped = {"model": state} if "maskmem_tpos_enc" in state else state
    path = Path(folder) / f"{variant}.pt"
    torch.save(wrapped | ({"config": {"variant": variant}} if variant == "samplug-nano" else {}), path)
    return path


# Noise


def draw(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal values that depend on the name, the shape and the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode())))


def noise(key: str, like: Tensor, seed: int) -> Tensor:
    """A tensor of a plausible size for its role, which its name and rank tell."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1000)
    values = draw(key, tuple(like.shape), seed)
    scale = next((scale for ending, scale in SCALES.items() if key.endswith(ending)), 1.0)
    size = next((size for ending, size in TABLES.items() if key.endswith(ending)), None)
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


def calm_the_encoder(state: dict[str, Tensor]) -> None:
    """Keep the sum of what the blocks add to the stream the same at any depth."""
    ends = [key for key in state if key.startswith("image_encoder") and key.endswith(STREAM_ENDS)]
    for key in ends:
        state[key] *= math.sqrt(8 / len(ends))


# Threads


def unit(vector: Tensor) -> Tensor:
    """The vector at length one."""
    return vector / vector.norm()


def signs(count: int) -> Tensor:
    """Channels by turns for and against: their mean is nought, so layer norms keep them."""
    return 1.0 - 2.0 * (torch.arange(count) % 2)


def thread(state: dict[str, Tensor], key: str, onto: Tensor, reads: Tensor, size: float = 1.0) -> None:
    """Let a projection hear `reads` (its mean product with the input) and say `onto`."""
    weight = state[key]
    across = torch.outer(reads, onto) if "output_upscaling" in key else torch.outer(onto, reads)
    weight += size / len(reads) * across.view(*across.shape, *[1] * (weight.ndim - 2))


def thread_prompts(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Point the embeddings of clicks, corners and mask prompts in or out."""
    take_sides(state, prefix, inside)
    down = f"{prefix}mask_downscaling"
    thread(state, f"{down}.0.weight", signs(4), torch.ones(1))
    thread(state, f"{down}.3.weight", signs(16), signs(4))
    thread(state, f"{down}.6.weight", inside, signs(16), 8.0)


def thread_decoder(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Let the decoder carry the direction from tokens to pixels, masks and scores."""
    width = len(inside)
    take_sides(state, prefix, inside)
    for key in [key for key in state if key.startswith(f"{prefix}transformer") and key.endswith("q_proj.weight")]:
        weave(state, key.removesuffix("q_proj.weight"), inside)
    thread(state, f"{prefix}output_upscaling.0.weight", signs(width // 4), inside)
    thread(state, f"{prefix}output_upscaling.3.weight", signs(width // 8), signs(width // 4), 1.5)
    for mask in range(len(state[f"{prefix}mask_tokens.weight"])):
        state[f"{prefix}output_hypernetworks_mlps.{mask}.layers.2.bias"] += signs(width // 8)
    squashed = f"{prefix}obj_score_token.weight" in state  # a sigmoid follows in SAM 2
    thread_head(state, f"{prefix}iou_prediction_head.layers", inside, gain=20.0 if squashed else 5.0, middle=0.6)
    if f"{prefix}pred_obj_score_head.layers.0.weight" in state:
        thread_head(state, f"{prefix}pred_obj_score_head.layers", inside, gain=60.0, middle=0.0)


def take_sides(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Move embeddings to the side they start on."""
    for name, side in SIDES.items():
        if f"{prefix}{name}" in state:
            state[f"{prefix}{name}"] += side * inside


def weave(state: dict[str, Tensor], prefix: str, inside: Tensor) -> None:
    """Attention that looks where positions agree, blind to sides, and hands on what it sees."""
    query, key, value, out = (f"{prefix}{name}_proj.weight" for name in ("q", "k", "v", "out"))
    u = unit(inside)
    rows = len(state[query])
    gain = (256 / rows) ** 0.25 if "self_attn" in prefix else 1.5 * (128 / rows) ** 0.25  # products of any width alike
    state[query] = gain * (state[query] - torch.outer(state[query] @ u, u))
    state[key] = state[query] + 0.1 * state[key]
    turn, _ = torch.linalg.qr(state[value][:, :rows])
    basis, _ = torch.linalg.qr(torch.cat([u[None], state[query][1:]]).T)
    state[value] = turn @ basis.T
    state[out] = (0.5 if "token_to_image" in prefix else 1.0) * state[value].T + 0.1 * state[out]


def thread_head(state: dict[str, Tensor], prefix: str, inside: Tensor, gain: float, middle: float) -> None:
    """A head that reads the side of its token, around the usual one."""
    hidden = len(state[f"{prefix}.0.bias"])
    thread(state, f"{prefix}.0.weight", signs(hidden), inside)
    thread(state, f"{prefix}.1.weight", signs(hidden), signs(hidden))
    outputs = len(state[f"{prefix}.2.bias"])
    state[f"{prefix}.2.weight"] *= gain / 60
    thread(state, f"{prefix}.2.weight", torch.linspace(0.7, 1.3, outputs), signs(hidden), gain)
    state[f"{prefix}.2.bias"] = middle + gain * (0.06 + 0.05 * state[f"{prefix}.2.bias"])


def thread_memory(state: dict[str, Tensor], inside: Tensor, seed: int) -> None:
    """Memories that carry their mask's side, found again at the place they came from."""
    width, slim = len(inside), state["maskmem_tpos_enc"].shape[-1]
    mask, told = draw("mask", (width,), seed), draw("told", (slim,), seed)
    down = "memory_encoder.mask_downsampler.encoder"
    channels = [1, *(len(state[f"{down}.{i}.weight"]) for i in (0, 3, 6, 9))]
    for i, reads, onto in zip((0, 3, 6, 9), channels, channels[1:], strict=False):
        thread(state, f"{down}.{i}.weight", signs(onto), signs(reads), 1 / 9)
    thread(state, f"{down}.12.weight", mask, signs(channels[-1]), 2.0)
    thread(state, "memory_encoder.out_proj.weight", told, mask)
    for key in [key for key in state if key.startswith("memory_attention") and "cross" in key and "q_proj.bias" in key]:
        prefix = key.removesuffix("q_proj.bias")
        place = 2 * draw("place", (width,), seed) * (torch.arange(width) % (width // 2) < width // 8)  # fast rotations
        state[key] += place
        state[f"{prefix}k_proj.bias"] += place
        said = draw(f"{prefix}said", (width,), seed)
        thread(state, f"{prefix}v_proj.weight", said, told)
        thread(state, f"{prefix}out_proj.weight", inside, said, 4.0)
