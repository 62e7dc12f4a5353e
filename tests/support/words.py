"""Names that the package no longer uses: `python tests/support/words.py` prints where they stand.

A name counts if it is one of the words or has one between its underscores. Checked is what a module
defines: its name, classes, functions, parameters, attributes and variables.
"""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a script, only its own folder is there

from support.house import files, name_of

WORDS = {  # by the words that replaced them
    "image": "picture pictures",
    "given options, store_overrides, current, num_obj_ptr_tokens, fp32_model, non_overlap, without_memory": (
        "said in_hand begun loose plain apart anew"
    ),
    "resources, memory_estimate, OutOfMemory…": "room needs RoomError",
    "crops, CropSpace": "grounds Ground InInput InPicture",
    "video, VideoFrame, FrameOrder, read_image, ErrorPolicy.handle": "Shot Course opening meet",
    "AdaptiveBatch.run": "halving Share",
    "RawPrompts, coords, ImagePrompts, FramePrompts": "spelled Spelled schedule timeline",
    "cli/parse, UsageError, handling_of": "words Refusal fate ELSEWHERE",
    "VideoStream, VideoProtocol, ClipLoss": "Following",
    "postprocess options, build_results, MaskRows, ImageInfo, FrameInfo": "finish finished Finish Rows Shown Here",
    "prompts, functions of the tensor API": "conversation by_hand",
    "select_mask, condition_on_memory, predict_masks, encode_memory, encode_image": (
        "settle take look_back remember see"
    ),
    "MemoryContext, MemorySelection, keep_prompt, feed_forward, image_index, expand_to": (
        "candidates Past Recall recall worth think owner spread"
    ),
    "regions, packed, BilinearWeights, Axis, ImageTransform, PixelTokens": "specks tidy cutouts Taps taps Side View",
    "val, preprocess, clicks, trackers, Target, scores, CalibrationLog": (
        "measure entering pointing followers Sought findings Claims"
    ),
    "Context, process, worker, ultralytics_, samplug_, participants, missing, interleaved": (
        "stage alone child stock ours cast lacks by_turns"
    ),
    "prompts, choreography, Sprite, SpriteMaker, teacher_forcing": "asking prompting Dress Tailor tame",
}
MODULES = {  # as names of modules alone
    "items": "image_loader",
    "sources.clips": "video",
    "direction": "choreography",  # the direction of time, or of a vector, is a direction
}
EXCEPTIONS = {  # by pattern of module:name, why it stays
    "files.embedding:picture": "public: Embedding.picture, and a key of its files",
    "predict.interactive.predictor:picture": "public: clear_prompts(picture=)",
    "val.settings:pictures": "public: val's option pictures=",
    "val.run:pictures": "public: that option handed on",
    "val.report:pictures": "public: a key of val's results",
    "val.metrics:recall": "statistics: beside precision",
    "nn.encoders.*:*stage*": "the encoders' papers: a stage of blocks of one size",
    "nn.encoders.*:Stage": "the same",
    "nn.constants:NON_OWNER_LOGIT": "the object that owns a pixel",
    "masks.*:*owner": "the same",
    "nn.inputs:one_owner": "the same",
    "tracking.policies.motion:ASPECT_MEASURE_NOISE": "Kalman filter: noise of a measurement",
}


def main() -> None:
    """Print every name with one of the words, and what to say instead."""
    rows = found()
    print(*(f"{where}: {instead}" for where, instead in rows), f"{len(rows)} names", sep="\n")


def found() -> list[tuple[str, str]]:
    """(module:name, line) of each, with the words that replaced it."""
    instead = {word: better for better, words in WORDS.items() for word in words.split()}
    rows: dict[str, str] = {}
    for module, name, line in defined():
        if any(fnmatchcase(f"{module}:{name}", pattern) for pattern in EXCEPTIONS):
            continue
        for word in instead:
            if has(name, word):
                rows.setdefault(f"{module}:{name} (line {line})", instead[word])
        tail = next((tail for tail in MODULES if name == module and f".{module}".endswith(f".{tail}")), None)
        if tail:
            rows[module] = MODULES[tail]
    return sorted(rows.items())


def has(name: str, word: str) -> bool:
    """Whether a name is a word, or has it between underscores; a word with a capital is a whole name."""
    if not word.islower():
        return name == word
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"_{word}_" in f"_{parts}_"


def defined() -> Iterator[tuple[str, str, int]]:
    """(module, name, line) of what each module defines, itself first."""
    for path in files():
        module = name_of(path)
        yield module, module.rpartition(".")[2], 1
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in names_of(node):
                yield module, name, getattr(node, "lineno", 0)


def names_of(node: ast.AST) -> list[str]:
    """The names that a node defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
        case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
    return []


if __name__ == "__main__":
    main()
