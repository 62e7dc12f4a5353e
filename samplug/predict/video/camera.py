"""SAM 2 frame by frame, in the caller's own loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ultralytics.utils.ops import Profile

from samplug import arguments
from samplug.errors import SlipLog
from samplug.host import Results
from samplug.predict.video.predictor import SAM2VideoPredictor
from samplug.predict.video.stream import FrameInfo
from samplug.runtime.run_guard import one_at_a_time
from samplug.sources.image import read_image
from samplug.sources.video import VideoFrame


class SAM2CameraPredictor(SAM2VideoPredictor):
    """Track objects through frames that are passed one by one, for any length of time, in constant memory.

    The masks are those of `SAM2VideoPredictor` on the same frames. `add_new_prompts` corrects the
    frame stepped last, `remove_object`, `clear_prompts` and `reset` work at any time. Ultralytics' callbacks do not
    run, and no files are saved.

    Examples:
        >>> camera = SAM2CameraPredictor(overrides={"model": "sam2.1_t.pt"})  # doctest: +SKIP
        >>> result = camera.step(frame, {"points": [[320, 240]]})  # doctest: +SKIP
        >>> result = camera.step(next_frame)  # doctest: +SKIP
    """

    @one_at_a_time
    def step(self, frame: Any, prompts: Any = None) -> Results:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) BGR, or a PIL image, a (3, H, W) RGB tensor in 0-1 or an image file. A wholly black one
                is a lost signal: every object is absent on it, and nothing is remembered.
            prompts: for objects on this frame, new or known: {obj_id: {"points": …, "labels": …}}, or whatever
                `prompts=` takes for an image. Without any so far, the result has no rows.

        Returns:
            The frame's result; `result.frame` counts from 0.

        Raises:
            PromptError: a prompt cannot be read or does not fit the frame.

        A step that ends in an error, or is interrupted, leaves everything as it was: its frame does not count.
        """
        if not self.inference_state:
            self._slips = SlipLog(self._option("strict"))
        with torch.inference_mode(), self._threads(), self._slips.active():
            image = read_image(frame)
            image = image.copy() if isinstance(frame, np.ndarray) else image  # the caller may fill it again
            if not self.inference_state:
                self._start()
            stream = self.inference_state[0]
            number = stream.next_number
            self.dataset.video_frame = VideoFrame(number, image, "camera")
            self.batch = ["camera"], [image], [""]
            clocks = [Profile(device=self.device) for _ in range(3)]
            with stream.restored_on(BaseException):  # Ctrl-C too: neither the frame nor its prompts count
                stream.prompts.add(number, prompts)
                with clocks[0]:
                    im = self.preprocess([image])
                with clocks[1]:
                    prediction = self.inference(im)
                with clocks[2]:
                    results = self.postprocess(prediction, im, [image])
        self.results = results
        took = [1e3 * clock.dt for clock in clocks]
        self.results[0].speed = dict(zip(("preprocess", "inference", "postprocess"), took, strict=True))
        return self.results[0]

    def _start(self) -> None:
        """Set up the model and an empty source, before the first frame."""
        arguments.check(self.run_options)
        if self.model is None:
            self.setup_model()
        self.setup_source(iter(()))

    def _has_signal(self, frame: FrameInfo) -> bool:
        return bool(frame.image.any())
