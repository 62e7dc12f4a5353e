"""The networks by themselves, in plain torch: no Ultralytics is imported. Run: python examples/networks.py."""

import sys

import torch

from samplug.checkpoints.load import BUNDLED, load_model
from samplug.nn.structs import PromptBatch

model = load_model(BUNDLED)
height, width = model.image_size

# A green disc on grey, as the encoder wants it: (1, 3, h, w), normalised.
y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
disc = (y - 120) ** 2 + (x - 150) ** 2 < 50**2
image = torch.full((3, height, width), 120.0)
image[:, disc] = torch.tensor([40.0, 200.0, 60.0])[:, None]
images = (image[None] - model.pixel_mean) / model.pixel_std

with torch.inference_mode():
    features = model.encode(images)
    click = PromptBatch(
        image_index=torch.tensor([0]),
        points=torch.tensor([[[150.0, 120.0]]]),
        labels=torch.ones(1, 1, dtype=torch.int64),
    )
    answer = model.answer(features, click)  # logits (1, 1, h/4, w/4), predicted IoU (1, 1)

mask = answer.logits[0, 0] > model.mask_threshold
truth = disc[::4, ::4]
print(f"IoU with the disc: {float((mask & truth).sum() / (mask | truth).sum()):.2f}, predicted {float(answer.iou):.2f}")
assert "ultralytics" not in sys.modules
