"""Correct a track with one more click, live and afterwards. Run: python examples/correct.py."""

import cv2
import numpy as np

from samplug import SAM2VideoPredictor

frames = []
for i in range(24):  # a disc that loses half of itself to a bar of its own colour
    frame = np.full((240, 320, 3), 110, np.uint8)
    cv2.rectangle(frame, (150, 0), (170, 240), (60, 170, 90), -1)
    cv2.circle(frame, (50 + 9 * i, 120), 30, (40, 190, 70), -1)
    frames.append(frame)

predictor = SAM2VideoPredictor(overrides={"save": False, "verbose": False})
first = {"points": [50, 120]}

# Live: the answer just shown changes, and so do those to come.
for result in predictor(source=frames, stream=True, prompts={0: {1: first}}):
    if result.frame == 12:
        before = int(result.masks.data.sum())
        predictor.add_new_prompts(1, points=[[158, 120], [160, 20]], labels=[1, 0], frame_idx=None)
        result = predictor.results[0]
        print(f"frame 12: {before} pixels, {int(result.masks.data.sum())} after a click on the disc and one off it")

# Afterwards: the same clicks given ahead, on frames by their numbers; the last one spreads both ways.
clicks = {"points": [[158, 120], [160, 20]], "labels": [1, 0]}
plan = {0: {1: first}, 12: {1: clicks}}
forward = list(predictor(source=frames, stream=True, prompts=plan))
both = list(predictor(source=frames, stream=True, prompts={12: {1: clicks}}, reverse="both"))
print("frames in the order they were run, from the click on and back:", [result.frame for result in both])
for result in (forward[-1], both[-1]):
    cv2.imwrite(f"correct_{result.frame}.jpg", result.plot())
