"""SAM 2 frame by frame, under a loop of one's own."""

from __future__ import annotations

from typing import Any

import torch

from samplug import arguments
from samplug.host import Results
from samplug.predict.clips import Shot
from samplug.predict.following import Here
from samplug.predict.opening import as_picture
from samplug.predict.video import SAM2VideoPredictor


class SAM2CameraPredictor(SAM2VideoPredictor):
    """Follow objects through frames that you hand over one by one, for as long as you like, in constant memory.

    The masks are those of `SAM2VideoPredictor` on the same frames. `add_new_prompts(…, frame_idx=None)` corrects the
    frame stepped last, `remove_object`, `clear_prompts` and `reset` work at any time. The loop is yours: neither
    callbacks nor files are Ultralytics' here.

    Examples:
        >>> camera = SAM2CameraPredictor(overrides={"model": "sam2.1_t.pt"})  # doctest: +SKIP
        >>> result = camera.step(frame, {"points": [[320, 240]]})  # doctest: +SKIP
        >>> result = camera.step(next_frame)  # doctest: +SKIP
    """

    def step(self, frame: Any, prompts: Any = None) -> Results:
        """Answer the next frame.

        Args:
            frame: (H, W, 3) BGR, or a PIL picture, a (3, H, W) RGB tensor in 0-1 or a picture file. A wholly black one
                is a lost signal: every object is absent on it, and nothing is remembered.
            prompts: for objects on this frame, new or known: {obj_id: {"points": …, "labels": …}}, or whatever
                `prompts=` takes for a picture. Without any so far, the result has no rows.

        Returns:
            The frame's result; `result.frame` counts from 0.

        Raises:
            PromptError: a prompt cannot be read or does not fit the frame, which then does not count.
        """
        picture = as_picture(frame)
        with torch.inference_mode(), self._cores():
            if not self.inference_state:
                self._start()
            one = self.inference_state[0]
            number = 0 if one.here is None else one.here.number + 1
            self.dataset.shot = Shot(number, picture, "camera")
            self.batch = ["camera"], [picture], [""]
            one.timeline.add(number, prompts)
            im = self.preprocess([picture])
            self.results = self.postprocess(self.inference(im), im, [picture])
        return self.results[0]

    def _start(self) -> None:
        """Make ready for a first frame."""
        arguments.check(self.said)
        if self.model is None:
            self.setup_model()
        self.setup_source(iter(()))

    def _has_signal(self, here: Here) -> bool:
        return bool(here.picture.any())
