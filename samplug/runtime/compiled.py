"""A network whose parts run through torch.compile, in so few shapes that nothing is compiled twice.

Images are encoded one by one, so the encoder has one shape for each size of the input. Prompts are pad_rows up to 1, 8
or 64 by repeating the last one; the number of tokens a prompt and the number of memories are left open when compiling.
Before it is used, a compiled network answers a drawn image beside the one that is not compiled: one that answers
differently is not used at all.

F images, N prompts or objects, T tokens a prompt, C channels, (h, w) the grid of features.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Answer, PromptBatch
from samplug.runtime.precision import Network
from samplug.tracking import Tracker

SHARED_BATCH_SIZES = (1, 8, 64)  # prompts about one image, answered at once
BATCH_SIZES = (8,)  # prompts about an image each, answered at once
MAX_SHAPES = 64  # of one part, that torch keeps before it gives up compiling
# Differences that rounding explains, as shares of the largest value.
COMPILED_TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
REQUIREMENTS = "it needs a C++ compiler on a CPU, and Triton on a GPU"

_MADE: WeakKeyDictionary[Network, dict[str, Network]] = WeakKeyDictionary()
_TRIED: WeakKeyDictionary[Network, dict[tuple, str]] = WeakKeyDictionary()


def compiled(model: Network, mode: str, size: tuple[int, int], tracks: bool = False) -> tuple[Network, str]:
    """A network that computes the same through torch.compile, tried out on inputs (h, w), and in videos if it tracks.

    The network stays as it is; its weights are shared. `mode` is torch.compile's: "default", "reduce-overhead" or
    "max-autotune". Returns (the compiled network, "") or (the network itself, why).
    """
    made = _MADE.setdefault(model, {})
    if mode not in made:
        made[mode] = with_compiled_parts(model, mode)
    tried = _TRIED.setdefault(model, {})
    trial = mode, size, tracks and isinstance(model, SAM2Model)
    if trial not in tried:
        tried[trial] = find_mismatch(model, made[mode], size, trial[2])
    return (model, tried[trial]) if tried[trial] else (made[mode], "")


def find_mismatch(model: Network, other: Network, size: tuple[int, int], tracks: bool) -> str:
    """Why a compiled network cannot replace the one it was made from; empty if it can."""
    try:
        right, answers = (run_sample(network, size, tracks) for network in (model, other))
    except Exception as error:  # whatever a compiler may raise: without it all works as before
        return f"torch.compile does not run here ({REQUIREMENTS}): {type(error).__name__}: {str(error).strip()[:300]}"
    difference = max(distance(answer, true) for answer, true in zip(answers, right, strict=True))
    if not difference <= COMPILED_TOLERANCE[next(model.parameters()).dtype]:
        return f"what torch.compile made answers differently, by {difference:.1e} of the largest value"
    return ""


@torch.inference_mode()
def run_sample(model: Network, size: tuple[int, int], tracks: bool) -> list[Tensor]:
    """The outputs of a network for clicks on a drawn image, and on the next frames if it tracks."""
    like = next(model.parameters())
    rows, columns = (torch.linspace(0, 12, side, device=like.device) for side in size)
    wave = rows.sin()[:, None] * columns.cos()
    image = torch.stack([wave, wave.roll(7, 0), wave.roll(9, 1)])[None].to(like.dtype)
    features = model.encode(image)
    answers = [features.image]
    for count, clicks in ((1, 1), (3, 2)):
        points = torch.rand(count, clicks, 2, generator=torch.Generator().manual_seed(0)) * min(size)
        labels = torch.ones(count, clicks, dtype=torch.int64)
        image_index = torch.zeros(count, dtype=torch.int64)
        prompts = PromptBatch(*(each.to(like.device) for each in (image_index, points, labels)))
        answer = model.answer(features, prompts, multimask=True)
        answers += [answer.logits, answer.iou]
    if tracks:
        assert isinstance(model, SAM2Model)
        answers += track_sample(model, image, prompts)
    return [each.clone() for each in answers]


def track_sample(model: SAM2Model, image: Tensor, prompts: PromptBatch) -> list[Tensor]:
    """The masks of an object on three frames."""
    tracker, masks = Tracker(model), []
    for frame in range(3):
        tracker.start_frame(frame, model.encode_image(image.roll(4 * frame, -1)))
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
        made.prepare = lambda features: features  # type: ignore[assignment, method-assign]  # condition as a whole
        attention = made.memory_attention
        attention.prepare = make(attention.prepare)  # type: ignore[method-assign]
        attend = make(attention.attend_to_memory, fixed=False)  # memories, their positions and image_index are dynamic
        attention.attend_to_memory = with_dynamic(attend, {2: (0, 1), 3: (0, 1), 6: (0,)})  # type: ignore[method-assign]
        encode = make(made.memory_encoder.encode)  # masks and image_index are dynamic
        made.memory_encoder.encode = with_dynamic(encode, {1: (0,), 2: (0,)})  # type: ignore[method-assign]
    else:
        made.image_encoder.forward = one_by_one(make(made.image_encoder.forward))  # type: ignore[assignment, method-assign]
        decoder = made.mask_decoder
    decoder.forward = Decoder(make(decoder.forward))
    return made


def compiled_part(work: Callable[..., Any], mode: str, fixed: bool = True) -> Callable[..., Any]:
    """A function through torch.compile, which keeps many shapes of it and whose results nothing overwrites.

    Where shapes are fixed, only what `mark_dynamic` marks is dynamic: maps of any height and width would keep the
    compiler busy for an hour once a second size of input has been seen.
    """
    compiling = torch.compile(work, mode=None if mode == "default" else mode)
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    settings: dict[str, Any] = {limit: MAX_SHAPES} | ({"automatic_dynamic_shapes": False} if fixed else {})

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._dynamo.config.patch(settings), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the compiler sees in ours and in its own code
            return detached(compiling(*args, **kwargs))

    return run


def detached(result: Any) -> Any:
    """Copies of results in memory that a recorded CUDA graph does not overwrite."""
    if isinstance(result, Tensor):
        return result.clone() if result.is_cuda else result
    if isinstance(result, Answer):
        return result.apply(detached)
    return [detached(each) for each in result]


def one_by_one(encode: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """An encoder that takes one image at a time."""

    def run(images: Tensor) -> Any:
        seen = [encode(images[i : i + 1]) for i in range(len(images))]
        if len(seen) == 1:
            return seen[0]
        if isinstance(seen[0], Tensor):
            return torch.cat(seen)
        return [torch.cat(level) for level in zip(*seen, strict=True)]

    return run


def mark_dynamic(tensor: Tensor | None, *axes: int) -> None:
    """Let torch compile for any size of some axes, unless it is 0 or 1, which torch always tells apart."""
    for axis in axes:
        if tensor is not None and tensor.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, axis)


def with_dynamic(work: Callable[..., Tensor], axes: Mapping[int, Sequence[int]]) -> Callable[..., Tensor]:
    """A function with any size of some axes of its positional arguments, by their number."""

    def run(*args: Any) -> Tensor:
        for number, dynamic in axes.items():
            mark_dynamic(args[number] if number < len(args) else None, *dynamic)
        return work(*args)

    return run


class Decoder:
    """A mask decoder's forward in few shapes: prompts come in batch_slices of set sizes."""

    def __init__(self, decode: Callable[..., Answer]) -> None:
        self.decode = decode

    def __call__(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor, multimask_output: bool = False, *,
        high_res_features: Sequence[Tensor] = (), image_index: Tensor | None = None, **_: object,
    ) -> Answer:  # fmt: skip
        """As `MaskDecoder.forward`."""
        image, dense, sparse = image_embeddings, dense_prompt_embeddings, sparse_prompt_embeddings
        levels = [image, *high_res_features]
        if len(image) > 1 and image_index is not None:
            levels = [level[image_index] for level in levels]
        if len(dense) == 1 or not dense.stride(0):
            dense = dense[0][None]  # whatever stride one row had
        sizes = SHARED_BATCH_SIZES if len(image) == 1 else BATCH_SIZES
        answers = []
        for part in batch_slices(len(sparse), sizes):
            size = next(size for size in sizes if size >= part.stop - part.start)
            images = [pad_rows(level[part] if len(level) > 1 else level, size) for level in levels]
            tokens = pad_rows(sparse[part], size, always=True)
            maps = pad_rows(dense[part] if len(dense) > 1 else dense, size)
            mark_dynamic(tokens, 1)
            fine = {"high_res_features": images[1:]} if high_res_features else {}
            answer = self.decode(images[0], image_pe, tokens, maps, multimask_output, **fine)
            answers.append(answer[: part.stop - part.start])
        return Answer.cat(answers)


def batch_slices(count: int, sizes: Sequence[int]) -> list[slice]:
    """Cut so many prompts into batch_slices no larger than the largest size."""
    return [slice(start, min(start + sizes[-1], count)) for start in range(0, count, sizes[-1])]


def pad_rows(rows: Tensor, size: int, always: bool = False) -> Tensor:
    """Fill (n, …) up to a size by repeating the last row; what all prompts share, one row, stays so."""
    if len(rows) == size or (len(rows) == 1 and not always):
        return rows
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
