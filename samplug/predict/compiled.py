"""A network whose parts run through torch.compile, in so few shapes that nothing is compiled twice.

Pictures are encoded one by one, so the encoder has one shape for each size of the input. Prompts are filled up to 1, 8
or 64 by repeating the last one; the number of tokens a prompt and the number of memories are left open when compiling.
Before it is used, a compiled network answers a drawn picture beside the one that is not compiled: one that answers
differently is not used at all.

F pictures, N prompts or objects, T tokens a prompt, C channels, (h, w) the grid of features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, PromptBatch
from samplug.predict.precision import Network
from samplug.tracking import Tracker

SHARED = (1, 8, 64)  # prompts about one picture, answered at once
OWN = (8,)  # prompts about a picture each, answered at once
SHAPES = 64  # of one part, that torch keeps before it gives up compiling
NEAR = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}  # of the largest value: what rounding explains
TOOLS = "it needs a C++ compiler on a CPU, and Triton on a GPU"

_MADE: WeakKeyDictionary[Network, dict[str, Network]] = WeakKeyDictionary()
_TRIED: WeakKeyDictionary[Network, dict[tuple, str]] = WeakKeyDictionary()


def compiled(model: Network, mode: str, size: tuple[int, int], follows: bool = False) -> tuple[Network, str]:
    """A network that computes the same through torch.compile, tried out on inputs of a size.

    Args:
        model: the network, which stays as it is; its weights are shared.
        mode: of torch.compile: "default", "reduce-overhead" or "max-autotune".
        size: (h, w) of the input.
        follows: try out the memory of videos too.

    Returns:
        (the compiled network, "") or (the network itself, why).
    """
    made = _MADE.setdefault(model, {})
    if mode not in made:
        made[mode] = with_compiled_parts(model, mode)
    tried = _TRIED.setdefault(model, {})
    trial = mode, size, follows and isinstance(model, SAM2Model)
    if trial not in tried:
        tried[trial] = objection(model, made[mode], size, trial[2])
    return (model, tried[trial]) if tried[trial] else (made[mode], "")


def objection(model: Network, other: Network, size: tuple[int, int], follows: bool) -> str:
    """Why a compiled network must not stand in for the one it was made from; empty if it may."""
    try:
        right, answers = (trial_run(network, size, follows) for network in (model, other))
    except Exception as error:  # whatever a compiler may raise: without it all works as before
        return f"torch.compile does not run here ({TOOLS}): {type(error).__name__}: {str(error).strip()[:300]}"
    apart = max(distance(answer, true) for answer, true in zip(answers, right, strict=True))
    if not apart <= NEAR[next(model.parameters()).dtype]:
        return f"what torch.compile made answers differently, by {apart:.1e} of the largest value"
    return ""


@torch.inference_mode()
def trial_run(model: Network, size: tuple[int, int], follows: bool) -> list[Tensor]:
    """What a network says to clicks on a drawn picture, and on the next frame."""
    like = next(model.parameters())
    rows, columns = (torch.linspace(0, 12, side, device=like.device) for side in size)
    wave = rows.sin()[:, None] * columns.cos()
    picture = torch.stack([wave, wave.roll(7, 0), wave.roll(9, 1)])[None].to(like.dtype)
    features = model.encode(picture)
    answers = [features.image]
    for count, clicks in ((1, 1), (3, 2)):
        points = torch.rand(count, clicks, 2, generator=torch.Generator().manual_seed(0)) * min(size)
        labels = torch.ones(count, clicks, dtype=torch.int64)
        owner = torch.zeros(count, dtype=torch.int64)
        prompts = PromptBatch(*(each.to(like.device) for each in (owner, points, labels)))
        answer = model.answer(features, prompts, multimask=True)
        answers += [answer.logits, answer.iou]
    if follows:
        assert isinstance(model, SAM2Model)
        answers += followed(model, picture, prompts)
    return [each.clone() for each in answers]


def followed(model: SAM2Model, picture: Tensor, prompts: PromptBatch) -> list[Tensor]:
    """The masks of an object on three frames."""
    tracker, masks = Tracker(model), []
    for frame in range(3):
        tracker.see(frame, model.see(picture.roll(4 * frame, -1)))
        if frame == 0:
            tracker.prompt(0, prompts[0])
        output = tracker.step().output
        assert output is not None
        masks.append(output.logits)
    return masks


def distance(answer: Tensor, right: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    answer, right = answer.float(), right.float()
    return ((answer - right).abs().max() / right.abs().max().clamp(min=1e-6)).item()


# The parts


def with_compiled_parts(model: Network, mode: str) -> Network:
    """A network that shares its weights with another, and whose parts are compiled when they are called."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    made = deepcopy(model, shared)
    make = partial(compiled_part, mode=mode)
    if isinstance(made, SAM2Model):
        made._maps = one_by_one(make(made._maps))  # type: ignore[assignment, method-assign]
        decoder: Any = made.sam_mask_decoder
        made.begin = lambda features: features  # type: ignore[assignment, method-assign]  # condition as a whole
        attention = made.memory_attention
        attention.begin = make(attention.begin)  # type: ignore[method-assign]
        attention.finish = conditioned(make(attention.finish, fixed=False))  # type: ignore[method-assign]
        made.memory_encoder.encode = remembered(make(made.memory_encoder.encode))  # type: ignore[method-assign]
    else:
        made.image_encoder.forward = one_by_one(make(made.image_encoder.forward))  # type: ignore[assignment, method-assign]
        decoder = made.mask_decoder
    decoder.forward = Decoder(make(decoder.forward))
    return made


def compiled_part(work: Callable[..., Any], mode: str, fixed: bool = True) -> Callable[..., Any]:
    """A function through torch.compile, which keeps many shapes of it and whose results nothing overwrites.

    Where shapes are fixed, open is what `left_open` says and nothing else: maps of any height and width would keep the
    compiler busy for an hour once a second size of input has been seen.
    """
    compiling = torch.compile(work, mode=None if mode == "default" else mode)
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"

    settings: dict[str, Any] = {limit: SHAPES}
    if fixed:
        settings["automatic_dynamic_shapes"] = False

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._dynamo.config.patch(settings), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the compiler sees in ours and in its own code
            return kept(compiling(*args, **kwargs))

    return run


def kept(result: Any) -> Any:
    """Results apart from the memory that a recorded graph writes into each time."""
    if isinstance(result, Tensor):
        return result.clone() if result.is_cuda else result
    if isinstance(result, Answer):
        presence = None if result.presence is None else kept(result.presence)
        return Answer(kept(result.logits), kept(result.iou), kept(result.tokens), presence)
    return [kept(each) for each in result]


def one_by_one(encode: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """An encoder that takes one picture at a time."""

    def run(images: Tensor) -> Any:
        seen = [encode(images[i : i + 1]) for i in range(len(images))]
        if len(seen) == 1:
            return seen[0]
        if isinstance(seen[0], Tensor):
            return torch.cat(seen)
        return [torch.cat(level) for level in zip(*seen, strict=True)]

    return run


def left_open(tensor: Tensor | None, *axes: int) -> None:
    """Let torch compile for any size of some axes, unless it is 0 or 1, which are always told apart."""
    for axis in axes:
        if tensor is not None and tensor.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, axis)


def conditioned(finish: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Memory attention for any number of objects and memories."""

    def run(
        begun: Tensor,
        pos: Tensor | None,
        memory: Tensor,
        memory_pos: Tensor | None,
        grid: tuple[int, int],
        unrotated: int = 0,
        owner: Tensor | None = None,
    ) -> Tensor:
        left_open(memory, 0, 1)
        left_open(memory_pos, 0, 1)
        left_open(owner, 0)
        return finish(begun, pos, memory, memory_pos, grid, unrotated, owner)

    return run


def remembered(encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Memory encoder for any number of objects."""

    def run(image: Tensor, masks: Tensor, owner: Tensor | None = None) -> Tensor:
        left_open(masks, 0)
        left_open(owner, 0)
        return encode(image, masks, owner)

    return run


class Decoder:
    """A mask decoder's forward in few shapes: prompts come in bundles of set sizes."""

    def __init__(self, decode: Callable[..., Answer]) -> None:
        self.decode = decode

    def __call__(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool = False,
        *,
        high_res_features: Sequence[Tensor] = (),
        owner: Tensor | None = None,
        **_: object,
    ) -> Answer:
        """As `MaskDecoder.forward`."""
        image, dense, sparse = image_embeddings, dense_prompt_embeddings, sparse_prompt_embeddings
        levels = [image, *high_res_features]
        if len(image) > 1 and owner is not None:
            levels = [level[owner] for level in levels]
        if len(dense) == 1 or not dense.stride(0):
            dense = dense[0][None]  # whatever stride one row had
        sizes = SHARED if len(image) == 1 else OWN
        answers = []
        for part in bundles(len(sparse), sizes):
            size = next(size for size in sizes if size >= part.stop - part.start)
            pictures = [filled(level[part] if len(level) > 1 else level, size) for level in levels]
            tokens, maps = (
                filled(sparse[part], size, always=True),
                filled(dense[part] if len(dense) > 1 else dense, size),
            )
            left_open(tokens, 1)
            fine = {"high_res_features": pictures[1:]} if high_res_features else {}
            answer = self.decode(pictures[0], image_pe, tokens, maps, multimask_output, **fine)
            answers.append(answer[: part.stop - part.start])
        return Answer.cat(answers)


def bundles(count: int, sizes: Sequence[int]) -> list[slice]:
    """Cut so many prompts into bundles no larger than the largest size."""
    return [slice(start, min(start + sizes[-1], count)) for start in range(0, count, sizes[-1])]


def filled(rows: Tensor, size: int, always: bool = False) -> Tensor:
    """Fill (n, …) up to a size by repeating the last row; what all prompts share, one row, stays so."""
    if len(rows) == size or (len(rows) == 1 and not always):
        return rows
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
