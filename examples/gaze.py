"""Track what somebody looks at: an eye tracker's fixations choose objects in a video and correct their masks.

Run: python examples/gaze.py [video.mp4 fixations.csv], whose columns are start_ms, duration_ms, x, y, under a heading.
"""

import sys

import cv2
import numpy as np

from samplug import SAM

NEAR, MOST = 50, 5  # pixels between fixations on one object; clicks an object
if len(sys.argv) > 2:
    video, fixations = sys.argv[1], np.loadtxt(sys.argv[2], delimiter=",", skiprows=1)
    fps = cv2.VideoCapture(video).get(cv2.CAP_PROP_FPS)
else:  # a disc and a brick pass each other; somebody looks at the one, the other, and the first again
    fps, t = 25, np.arange(60)[:, None]
    disc, brick = (60, 80) + t * (3, 0), (250, 180) - t * (3, 0)
    video = [np.full((256, 320, 3), (160, 150, 140), np.uint8) for _ in t]
    for frame, d, b in zip(video, disc, brick, strict=True):
        cv2.circle(frame, d, 32, (60, 60, 210), -1, cv2.LINE_AA)
        cv2.rectangle(frame, b - (36, 22), b + (36, 22), (190, 120, 40), -1)
    gaze = [(brick if 20 <= i < 40 else disc)[i + 2] + (i % 4 * 10 - 15, 0) for i in range(1, 57, 5)]
    fixations = np.array([(40 * (1 + 5 * i), 120 + 40 * (i % 3), *xy) for i, xy in enumerate(gaze)])

far = np.linalg.norm(np.diff(fixations[:, 2:], axis=0), axis=1) > NEAR  # those near each other are a look at one object
model, clicks, objects, spent = SAM(), [], {}, {}
for look, part in enumerate(np.split(fixations, 1 + np.flatnonzero(far))):
    for start, duration, x, y in part[np.argsort(part[:, 1])[-MOST:]]:  # the longest, in the middle of their time
        clicks.append((int((start + duration / 2) * fps / 1000), look, int(x), int(y)))
for result in model.track(video, bboxes=[], stream=True, verbose=False):
    for look, x, y in (click[1:] for click in clicks if click[0] == result.frame):
        seen = [i for i, mask in zip(result.obj_ids, result.masks.data, strict=True) if mask[y, x]]
        obj_id = objects.setdefault(look, seen[0] if seen else look)  # a look back at a known object, or a new one
        if obj_id not in seen and spent.setdefault(obj_id, 0) < MOST:
            spent[obj_id] += 1
            model.predictor.add_new_prompts(obj_id, points=[[x, y]])
        print(f"frame {result.frame}: ({x}, {y}) is on object {obj_id}, {spent[obj_id]} clicks so far")
        model.predictor.results[0].save(f"gaze_{result.frame:03}.jpg")
