"""Peers beside samplug: on square images, each from a file of weights, and as trackers; and what compares them.

`peer.encode(pixels)` takes (1, 3, S, S) RGB in 0-255. `peer.answer(prompts, multimask)` takes a PromptBatch and gives
logits (N, M, S/4, S/4), predicted IoUs (N, M) and presences (N, 1), which are None where there are none.
"""

import importlib
import os

import pytest
import torch

from samplug.benchmark.runners import meta, samplug_, ultralytics_
from samplug.benchmark.runners.base import Job
from samplug.benchmark.runners.meta import sam2_modules
from samplug.checkpoints.config import build
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.families.sam2 import AS_RELEASED
from samplug.checkpoints.load import load_model
from samplug.nn.structs import PromptBatch
from samplug.tracking import Tracker

DEVICE = torch.device(os.environ.get("SAMPLUG_TEST_DEVICE", "cpu"))  # where both sides compute
torch.backends.cudnn.allow_tf32 = False  # of ten bits, which would hide or feign differences
SIZE = 256
FRAMES = 30
FAR = 2e-4  # of the largest logit
NANO = "samplug-nano"
SAM_2_1 = {"proj_tpos_enc_in_obj_ptrs": True, "use_signed_tpos_enc_to_obj_ptrs": True, "no_obj_embed_spatial": True}


def peer_package(name: str):
    """A peer, or a skip where it is absent; with SAMPLUG_PEERS=1 its absence is a failure."""
    return importlib.import_module(name) if os.environ.get("SAMPLUG_PEERS") == "1" else pytest.importorskip(name)


def on_device(tensor):
    return tensor.to(DEVICE)


class FromFile:
    """Built from a file that is named after its network."""

    def __init__(self, path, size):
        peer_package(self.package)
        weights = dict(load_model(path).state_dict())
        super().__init__(Job(VARIANTS[path.stem], weights, size, DEVICE))

    def encode(self, pixels):
        return super().encode(pixels.to(DEVICE))

    def answer(self, prompts, multimask):
        answer = super().answer(prompts.apply(on_device), multimask)
        return tuple(None if each is None else each.cpu() for each in answer)


class Ours(FromFile, samplug_.Samplug):
    pass


class UltralyticsSAM(FromFile, ultralytics_.UltralyticsSAM):
    pass


class UltralyticsSAM2(FromFile, ultralytics_.UltralyticsSAM2):
    pass


class MetaSAM(FromFile, meta.SegmentAnything):
    pass


class MetaSAM2(FromFile, meta.SAM2):
    pass


# Trackers


class Float32:
    """torch, where memories are put away in full."""

    bfloat16 = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)


class MetaTracker:
    """sam2's video predictor behind the surface of `Tracker`."""

    def __init__(self, state, images, monkeypatch, as_shipped=False, variant=NANO, **options):
        module = peer_package("sam2.sam2_video_predictor")
        if not as_shipped:
            monkeypatch.setattr(module, "torch", Float32())
        images, size = images.to(DEVICE), images.shape[-1]
        monkeypatch.setattr(module, "load_video_frames", lambda **_: (images, size, size))
        monkeypatch.setattr(module, "tqdm", lambda frames, **_: frames)
        self.predictor = module.SAM2VideoPredictor(
            **sam2_modules(VARIANTS[variant]), **AS_RELEASED | SAM_2_1 | options, image_size=size
        )
        self.predictor.load_state_dict(state, strict=True)
        self.state = self.predictor.eval().to(DEVICE).init_state("")

    def start_frame(self, frame):
        self.frame = frame

    def prompt(self, obj_id, prompts=None, mask=None, add=False):
        where = {"inference_state": self.state, "frame_idx": self.frame, "obj_id": obj_id}
        if mask is not None:
            self.predictor.add_new_mask(**where, mask=mask[0, 0])
        else:
            points = None if prompts.points is None else (prompts.points[0], prompts.labels[0])
            points = {} if points is None else {"points": points[0], "labels": points[1]}
            box = None if prompts.boxes is None else prompts.boxes[0]
            self.predictor.add_new_points_or_box(**where, **points, box=box, clear_old_points=not add)
        return self._record(obj_id, "temp_output_dict_per_obj")

    def step(self, reverse=False):
        *_, (_, ids, _) = self.predictor.propagate_in_video(self.state, self.frame, 0, reverse)
        return {obj_id: self._record(obj_id, "output_dict_per_obj") for obj_id in ids}

    def remove(self, obj_id):
        self.predictor.remove_object(self.state, obj_id)

    def _record(self, obj_id, where):
        outputs = self.state[where][self.state["obj_id_to_idx"][obj_id]]
        record = outputs["cond_frame_outputs"].get(self.frame) or outputs["non_cond_frame_outputs"][self.frame]
        found = record["pred_masks"][:, 0].float(), record["obj_ptr"], record["object_score_logits"][:, 0]
        return tuple(each.cpu() for each in found)


class SamplugTracker:
    """`Tracker` on the same images."""

    def __init__(self, state, images, variant=NANO, **how):
        self.model = build({"variant": variant}).eval()
        self.model.load_state_dict(state, strict=True)
        self.model.to(DEVICE)
        for name in ("add_all_frames_to_correct_as_cond", "memory_temporal_stride_for_eval", "max_cond_frames_in_attn"):
            setattr(self.model, name, how.pop(name, getattr(self.model, name)))
        self.tracker = Tracker(self.model, **{"max_prompted": -1, "binarize": False} | how)
        self.images, self.remove = images.to(DEVICE), self.tracker.remove

    def start_frame(self, frame):
        with torch.no_grad():
            self.tracker.start_frame(frame, self.model.encode_image(self.images[frame, None]))

    def prompt(self, obj_id, prompts=None, mask=None, **how):
        prompts = None if prompts is None else prompts.apply(on_device)
        return values(self.tracker.prompt(obj_id, prompts, mask, **how))

    def step(self, reverse=False):
        objects = self.tracker.step()
        return {obj_id: values(objects.output[row]) for row, obj_id in enumerate(objects.ids)}


def values(output):
    return output.logits.cpu(), output.pointer.cpu(), output.presence.cpu()


def play(side, ahead, corrections=None, order=range(FRAMES), reverse=False):
    """Walk: what is prompted ahead of a frame's step and after it, by frame. Gives every answer."""
    answers = {}
    for frame in order:
        side.start_frame(frame)
        for i, (obj_id, given) in enumerate(ahead.get(frame, [])):
            answers[frame, obj_id, f"prompt {i}"] = side.prompt(obj_id, **given)
        for obj_id, answer in side.step(reverse).items():
            answers[frame, obj_id, "step"] = answer
        for i, (obj_id, given) in enumerate((corrections or {}).get(frame, [])):
            answers[frame, obj_id, f"correction {i}"] = side.prompt(obj_id, **given)
    return answers


def clicks(*xy, labels=None, **how):
    points = torch.tensor([xy], dtype=torch.float32)
    return {"prompts": PromptBatch(torch.tensor([0]), points, torch.tensor([labels or [1] * len(xy)])), **how}


def box(*xyxy, **points):
    given = points.pop("clicks", None)
    prompts = PromptBatch(torch.tensor([0])) if given is None else given["prompts"]
    boxes = torch.tensor([xyxy], dtype=torch.float32)
    return {"prompts": PromptBatch(prompts.image_index, prompts.points, prompts.labels, boxes)}


def mask(x, y, w, h):
    drawn = torch.zeros(1, 1, SIZE, SIZE)
    drawn[..., y : y + h, x : x + w] = 1
    return {"mask": drawn}


def drifting(size=SIZE, frames=FRAMES):
    """Images (frames, 3, size, size) of a noisy plane that moves under the window."""
    torch.manual_seed(0)
    plane = torch.nn.functional.interpolate(torch.randn(1, 3, 40, 40), size=size + 160, mode="bicubic")
    plane = plane + 0.1 * torch.randn_like(plane)
    return torch.cat([plane[:, :, 5 * i : 5 * i + size, 3 * i : 3 * i + size] for i in range(frames)])


def distance(mine, theirs):
    """How far apart two answers are, as a share of the largest logit and of the largest entry of the pointer."""
    shares = []
    for ours, other in zip(mine[:2], theirs[:2], strict=True):
        size = other[other != -1024].abs().max() if (other != -1024).any() else torch.tensor(1.0)
        shares.append(((ours - other).abs().max() / size).item())
    return max(shares)


def shown(answer):
    """The mask (1, 1, H, W) as a user sees it."""
    return torch.nn.functional.interpolate(answer[0][None], scale_factor=4, mode="bilinear") > 0


def compare(mine, theirs, far=FAR, flips=1e-4):
    """Assert the same answers."""
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key][2] > 0, theirs[key][2] > 0) for key in theirs)
    worst = max(distance(mine[key], theirs[key]) for key in theirs)
    flipped = max((shown(mine[key]) != shown(theirs[key])).float().mean().item() for key in theirs)
    print(f"{len(mine)} answers: {worst:.1e} of the largest logit, {flipped:.1e} of the signs")
    assert worst <= far and flipped <= flips
