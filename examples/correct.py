"""Correct a track with a click on the object and one off it, live and afterwards. Run: python examples/correct.py."""

import cv2
import numpy as np

from samplug import SAM2VideoPredictor

frames = []
for i in range(24):  # a disc that passes a bar of nearly its own colour
    frame = np.full((240, 320, 3), 110, np.uint8)
    cv2.rectangle(frame, (140, 0), (170, 240), (60, 170, 90), -1)
    cv2.circle(frame, (50 + 9 * i, 120), 30, (40, 190, 70), -1)
    frames.append(frame)

predictor = SAM2VideoPredictor(overrides={"save": False, "verbose": False})
first = {"points": [50, 120]}
clicks = {"points": [[212, 120], [155, 60]], "labels": [1, 0]}  # on the disc and off it, on frame 18

# Live: the result just returned changes, and so do those to come.
for result in predictor(source=frames, stream=True, prompts={0: {1: first}}):
    if result.frame == 18:
        before = int(result.masks.data.sum())
        predictor.add_new_prompts(1, **clicks)
        print(f"frame 18: {before} pixels, {int(predictor.results[0].masks.data.sum())} after the correction")

# Afterwards: the same prompts given ahead, on frames by their numbers.
forward = list(predictor(source=frames, stream=True, prompts={0: {1: first}, 18: {1: clicks}}))

# From one frame both ways: forwards to the end, then backwards to the beginning.
both = list(predictor(source=frames, stream=True, prompts={18: {1: clicks}}, reverse="both"))
print("frames in the order they were run:", [result.frame for result in both])
for result in (forward[-1], both[-1]):
    cv2.imwrite(f"correct_{result.frame}.jpg", result.plot())
