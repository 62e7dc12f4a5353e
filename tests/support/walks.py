"""A network that only notes what it is asked, and walks through frames with it."""

import torch

from samplug.nn.memory.frames import FrameOutput
from samplug.nn.structs import Answer, Features, PromptBatch
from samplug.tracking import Tracker

FRAMES = 40


class Notebook:
    """Stands in for the network: features, memories and pointers are frame numbers, and all looking back is noted."""

    num_maskmem, max_obj_ptrs_in_encoder, max_cond_frames_in_attn, memory_temporal_stride_for_eval = 7, 16, -1, 1
    only_obj_ptrs_in_the_past_for_eval = use_mask_input_as_output_without_sam = True
    add_all_frames_to_correct_as_cond = non_overlap_masks_for_mem_enc = False

    def __init__(self, absent=(), **options):
        self.absent, self.looks, self.fed_back, self.remembered = absent, {}, {}, []
        vars(self).update(options)

    def without_memory(self, features):
        return features

    def prepare(self, features):
        return features

    def condition_on_memory(self, features, past, image_index):
        frame = int(features.image.item())
        slots = [(int(f), int(slot)) for f, slot in zip(past.memories.flatten(), past.slots[0], strict=True)]
        pointers = [(int(f), round(15 * t.item())) for f, t in zip(past.pointers.flatten(), past.times[0], strict=True)]
        self.looks[frame] = slots, pointers
        return features

    def predict_masks(self, features, prompts, prompted):
        frame = features.image.view(1, 1)
        self.fed_back[int(frame.item())] = prompts.masks
        presence = -1.0 if int(frame.item()) in self.absent else 1.0
        clicks = 0 if prompts.points is None else prompts.points.shape[1]
        logits = torch.full((1, 1, 4, 4), presence * (clicks + 1))
        return Answer(logits, torch.ones(1, 1), frame[None], torch.full((1, 1), presence))

    def select_mask(self, answer, choice=None, present_above=0.0):
        return FrameOutput(answer.logits[:, 0], answer.tokens[:, 0], answer.presence[:, 0], answer.iou[:, 0])

    def segment(self, features, prompts, prompted):
        return self.select_mask(self.predict_masks(features, prompts, prompted))

    def use_mask_as_output(self, features, masks, image_index):
        return FrameOutput(20 * masks[:, 0] - 10, features.image.view(1, 1), torch.ones(1), torch.ones(1))

    def encode_memory(self, features, logits, presence, image_index, prompted, binarize=None):
        self.remembered.append((int(features.image.item()), prompted, binarize))
        return features.image.view(1, 1, 1).clone()


def number(frame):
    return Features(torch.full((1, 1, 1, 1), float(frame)))


def click(x=20.0, y=30.0, label=1):
    return PromptBatch(torch.tensor([0]), torch.tensor([[[x, y]]]), torch.tensor([[label]]))


def walk(tracker, frames, prompts=()):
    """Step through frames, prompting object 1 on some."""
    for frame in frames:
        tracker.start_frame(frame, number(frame))
        if frame in prompts:
            tracker.prompt(1, click())
        yield tracker.step()


def noted(frames, prompts=(0,), options=None, **how):
    model = Notebook(**options or {})
    list(walk(Tracker(model, **how), frames, prompts))
    return model


def drifting(model, count, down, across, plane):
    """What a real network sees of frames of 64 pixels that drift over a drawn plane of so many."""
    torch.manual_seed(0)
    drawn = torch.nn.functional.interpolate(torch.randn(1, 3, 24, 24), size=plane, mode="bicubic")
    with torch.no_grad():
        return [
            model.encode_image(drawn[..., down * i : down * i + 64, across * i : across * i + 64]) for i in range(count)
        ]


def tensors(track):
    """All tensors of an object."""
    held = [*track.records.values(), *track.clicks.values(), track.current]
    fields = (value for item in held if item is not None for value in vars(item).values())
    return [value for value in fields if isinstance(value, torch.Tensor)]


def state_bytes(tracker):
    """The bytes of the current frame and all objects, each storage once."""
    held = [tensor for track in tracker._tracks.values() for tensor in tensors(track)]
    held += [] if tracker._features is None else [tracker._features.image, *tracker._features.fine]
    storages = (tensor.untyped_storage() for tensor in held)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
