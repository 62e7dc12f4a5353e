"""The modes of `yolo sam …` and `samplug …`, a row of `MODES` each.

Nothing heavy is imported before the arguments are known to be right, so help and refusals come at once.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from samplug.arguments import check, check_host, split
from samplug.cli.help import asks_help, help_text, topic_text
from samplug.cli.parse import read, read_settings
from samplug.errors import CheckpointError, DataError, JobError, PromptError, UsageError, one_line
from samplug.resources import GPU_MEMORY_ADVICE


@dataclass(frozen=True)
class Mode:
    """What a mode runs, given its arguments and the name of the program, and its lines in the help."""

    run: Callable[[list[str], str], None]
    help: tuple[str, ...]


def run_sam(args: list[str], program: str) -> None:
    """Run the task `sam`, which the arguments may name or not."""
    args = [arg for arg in args if arg not in ("sam", "task=sam")]
    named = [name for name in MODES if name in args or f"mode={name}" in args]
    MODES[named[-1] if named else "predict"].run(args, program)


def segment(args: list[str], program: str) -> None:
    """Segment images or track objects, saving and printing as `yolo predict` does, and keeping no result in memory."""
    if asks_help(args):
        examples = (line for mode in MODES.values() for line in mode.help)
        print(topic_text(args, MODES) or help_text(program, MODES, examples))
        return
    name, options = read(args, MODES)
    if name not in MODES:
        raise UsageError(f"there is no mode {name!r} for sam; it has {', '.join(MODES)}.")
    with user_errors():
        from samplug.model import SAM

        own, host = split(options)
        check_values(own, host)
        checkpoint = host.pop("model", None)
        model = SAM(checkpoint) if checkpoint else SAM()
        with closing(getattr(model, name)(stream=True, **{"save": True, **host}, **own)) as results:
            for _ in results:
                pass
        if model.predictor and model.predictor.errors.all:
            raise UsageError(model.predictor.errors.summary())


def command(
    name: str, settings: str, work: Callable[[Any, dict[str, Any]], Any], *examples: str
) -> Callable[[list[str], str], None]:
    """A mode whose arguments are those that `settings` names, `module:class`, and the `model=` that it is a verb of."""

    def run(args: list[str], program: str) -> None:
        known = resolve_name(settings)
        args = [arg for arg in args if arg not in (name, f"mode={name}")]
        if args and asks_help(args):
            print("\n".join([*(f"    {program} {example}" for example in examples), "", *known.help()]))
            return
        accepted = known.accepted()
        options = read_settings(args, {"model": None, **accepted}, name)
        with argument_errors():
            chosen = known.read({each: value for each, value in options.items() if each != "model" or each in accepted})
        with user_errors():
            work(chosen, options)

    return run


def val(chosen: Any, options: dict[str, Any]) -> None:
    """Measure how good a network is on the data set `data=`."""
    from samplug.model import SAM

    checkpoint, (_, own, host) = options.pop("model", None), chosen
    check_values(own, host)
    (SAM(checkpoint) if checkpoint else SAM()).val(**options)


def fine_tune(_: Any, options: dict[str, Any]) -> None:
    """Train the network of `model=`, or the one in the run that `resume=` names, on the data set `data=`."""
    from samplug.model import SAM

    resumed = options.get("resume")
    checkpoint = options.pop("model", None) or (resumed if resumed and not isinstance(resumed, bool) else None)
    (SAM(str(checkpoint)) if checkpoint else SAM()).train(**options)


def benchmark(settings: Any, _: dict[str, Any]) -> None:
    """Measure how fast a network is; Ultralytics need not be installed."""
    from samplug.benchmark.run import device_of, of_file

    with argument_errors():
        device_of(settings.device)
    of_file(settings)


def annotate(settings: Any, _: dict[str, Any]) -> None:
    """Annotate images and videos, or go on with a job."""
    from samplug.annotate.job import Job

    Job(settings).run()


def combine_weights(settings: Any, _: dict[str, Any]) -> None:
    """Mix the files of a network and its fine-tuned self, or merge low-rank updates."""
    from samplug.train import blend

    blend.COMMANDS[type(settings)](settings)


BLEND = "blend model=sam2.1_t.pt tuned=best.pt data=cells.yaml out=mix.pt"
MERGE = "merge model=sam2.1_t.pt lora=lora.pt out=merged.pt"
BENCHMARK = "benchmark model=sam2.1_t imgsz=512"
ANNOTATE = "annotate source=images/ prompter=yolo11n.pt model=sam2.1_t.pt out=labels format=yolo,coco"
ANNOTATE_ON = "annotate out=labels      goes on with it"
WEIGHTS = "samplug.train.blend_settings"
VAL = "val model=sam2.1_t.pt data=scenes device=0"
TRAIN = "train model=sam2.1_t.pt data=coco8-seg.yaml epochs=20 imgsz=512"
train = command("train", "samplug.train.settings:TrainSettings", fine_tune, TRAIN)
MODES = {
    "predict": Mode(
        segment,
        (
            'predict source=bus.jpg points="[[500, 375]]"',
            'predict source=bus.jpg bboxes="[[20, 230, 800, 750]]" model=sam2.1_t.pt imgsz=512',
            "predict source=images/ prompts=prompts.json save_txt",
        ),
    ),
    "track": Mode(segment, ('track model=sam2.1_t.pt source=clip.mp4 bboxes="[[40, 60, 320, 400]]"',)),
    "val": Mode(
        command("val", "samplug.val.settings", val, VAL),
        ("val data=scenes          how good the network is; data= your own, see `{program} val help`",),
    ),
    "train": Mode(train, ("train data=cells.yaml epochs=20    fine-tune, see `{program} train help`",)),
    "blend": Mode(command("blend", f"{WEIGHTS}:BlendSettings", combine_weights, BLEND), (BLEND,)),
    "merge": Mode(command("merge", f"{WEIGHTS}:MergeSettings", combine_weights, MERGE), (MERGE,)),
    "annotate": Mode(
        command("annotate", "samplug.annotate.settings:Settings", annotate, ANNOTATE, ANNOTATE_ON),
        ("annotate source=images/ prompter=yolo11n.pt out=labels",),
    ),
    "benchmark": Mode(
        command("benchmark", "samplug.benchmark.settings:Settings", benchmark, BENCHMARK),
        ("benchmark                   how fast it is, see `{program} benchmark help`",),
    ),
}


# Errors ---------------------------------------------------------------------------------------------------------------


def check_values(own: dict[str, Any], host: dict[str, Any]) -> None:
    """Refuse values that we or Ultralytics would; its older names become the ones it has now, in place."""
    from ultralytics.utils.checks import check_imgsz

    from samplug.host import get_cfg, select_device

    size = host.get("imgsz") or 640
    try:
        check_imgsz(size, stride=1, max_dim=2)
    except (TypeError, ValueError, SyntaxError, NameError) as error:  # older releases do not name the argument
        raise UsageError(f"imgsz={size} is not a size: give pixels or [height,width]. {one_line(error)}") from error
    with argument_errors():
        check(own)
        check_host(host, host)
        get_cfg(overrides=host)
        select_device(host.get("device"), verbose=False)


@contextmanager
def argument_errors() -> Iterator[None]:
    """Turn the errors of whoever checks arguments into a line."""
    try:
        yield
    except (TypeError, ValueError, SyntaxError) as error:
        raise UsageError(one_line(error)) from error


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the user's mistakes into a line; ours keep their traceback."""
    import torch

    try:
        yield
    except (PromptError, CheckpointError, DataError, JobError, OSError, MemoryError, FloatingPointError) as error:
        # OSError: file, network, screen or disk; FloatingPointError: NaN or infinity in an output
        raise UsageError(one_line(error)) from error
    except torch.OutOfMemoryError as error:  # where nothing was left to be halved
        raise UsageError(f"The GPU has not enough memory: {GPU_MEMORY_ADVICE}") from error
