"""`samplug pick`: clicks and boxes in a window, the masks at once, and in the end the command that repeats it.

`sketch` (mouse and keys), `canvas` (drawing) and `session` (what happens) need no window; these functions do.
"""

import json
import os
import re
import shlex
import sys
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import cv2

from samplug.cli.session import Frames, Session
from samplug.cli.sketch import Sketch
from samplug.errors import PromptError, WindowError
from samplug.files.atomic import atomic_write
from samplug.nn.sam2 import SAM2Model
from samplug.predict.image import Predictor
from samplug.predict.video.predictor import SAM2VideoPredictor
from samplug.sources.base_loader import is_video, list_files
from samplug.sources.video_loader import videos_of_files

TITLE, TRACKBAR = "samplug pick", "frame"
SOURCES = "an image, a folder or list of images, or one video; track=True takes a folder of images as a video"


def pick(settings: dict[str, Any]) -> None:
    """Let the user draw on what `source` names, given arguments of `predict`; print the command that repeats it.

    The prompts of several images, and of a video, are written into prompts.json, or prompts-2.json where that exists.

    Raises:
        PromptError: `source` is neither images nor one video.
        WindowError: there is no screen, or an OpenCV without windows.
    """
    settings = dict(settings)
    source, moving = settings.pop("source", None), settings.pop("track", None)
    frames = frames_of(source, bool(moving))
    open_window()
    predictor = Predictor(overrides={**settings, "save": False, "verbose": False})
    predictor.setup_model()
    session = Session(frames, predictor, path=str(source), sketch=Sketch(moving=frames.video is not None))
    if session.sketch.moving and isinstance(predictor.fp32_model, SAM2Model):
        session.follower = SAM2VideoPredictor(overrides={**settings, "save": False, "verbose": False})
        session.follower.setup_model(predictor.fp32_model, verbose=False)
    try:
        interact(session)
    finally:  # also after an error: what was drawn is not lost
        session.close()
        cv2.destroyWindow(TITLE)
        if session.sketch.strokes:
            print(repeat_command({"source": source, **settings}, session))


def frames_of(source: Any, moving: bool) -> Frames:
    """What a source names: images, or the frames of one video, of images too where they are `moving`."""
    files: list[str] = []
    if isinstance(source, str):
        with suppress(OSError):
            files = [source] if "://" in source else list_files(source)
    videos = videos_of_files(files) if moving or any(map(is_video, files)) else []
    if not files or len(videos) > 1:
        raise PromptError(f"source: got {source!r}{f', {len(videos)} videos' if videos else ''}. Expected {SOURCES}.")
    for video in videos:
        video.open()
    return Frames(videos[0] if videos else None, files)


def repeat_command(settings: dict[str, Any], session: Session) -> str:
    """The command line that gives the same masks without a window; prompts of several frames go into a file."""
    sketch, images = session.sketch, session.frames.images
    if not sketch.moving and len(images) == 1:
        return command("predict", {**settings, **sketch.prompts()})
    by_name: dict[Any, Any] = sketch.by_frame()
    if not sketch.moving:
        names = [Path(file).name for file in images]
        keys = names if len({*names}) == len(names) else images
        by_name = {keys[frame]: sketch.prompts(frame) for frame in sketch.frames}
    files = chain(["prompts.json"], (f"prompts-{number}.json" for number in count(2)))
    path = next(Path(file) for file in files if not Path(file).exists())
    prompts: Any = str(path)
    try:
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(by_name, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:  # what was drawn is not lost
        print(f"{error}: the prompts stand in the command.", file=sys.stderr)
        prompts = by_name
    return command("track" if sketch.moving else "predict", {**settings, "prompts": prompts})


def command(mode: str, options: dict[str, Any]) -> str:
    """The command line of a mode with these options."""
    return " ".join([f"samplug {mode}", *(f"{name}={quoted(item)}" for name, item in options.items())])


def quoted(item: Any) -> str:
    """Write a value for a shell: in double quotes, which every shell reads, where it needs any."""
    text = str(item)
    if re.fullmatch(r"[\w./:=@+-]+", text):
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def open_window() -> None:
    """Open the window, or raise `WindowError`: without a screen some builds of OpenCV end the whole program instead."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise WindowError("there is no screen here (DISPLAY is not set): give prompts as arguments, see samplug help.")
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
    except cv2.error as error:
        raise WindowError(
            "this OpenCV is built without windows: pip uninstall opencv-python-headless, then "
            "pip install --force-reinstall opencv-python; or give prompts as arguments, see samplug help."
        ) from error


def interact(session: Session) -> None:
    """Show the session, and hand it mouse events and keys, until the user quits."""
    cv2.setMouseCallback(TITLE, lambda event, x, y, flags, _: session.mouse(event, x, y, flags))
    scrubs = session.frames.length > 1
    if scrubs:
        cv2.createTrackbar(TRACKBAR, TITLE, 0, session.frames.length - 1, session.seek)
    first = True
    while not session.done and (first or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0):
        first = False
        image = session.view()
        if image is not None:
            cv2.imshow(TITLE, image)
            if scrubs:
                cv2.setTrackbarPos(TRACKBAR, TITLE, session.sketch.frame)
        session.key(cv2.waitKey(1 if session.playing else 30) & 0xFF)
