"""Thirty frames beside Meta's video predictor: the same random weights, the same square frames, the same prompts.

Both remember in fp32, and click prompts are not remembered as 0 and 1: a pixel whose logit is nought but for rounding
would otherwise tell the two apart. Meta's pointers are timed by the length of the video, so it is given all frames.
"""

from dataclasses import replace

import pytest
import torch
from peers import peer_package

from samplug.benchmark.meta import sam2_modules
from samplug.benchmark.weights import random_state, staying
from samplug.nn.types import PromptBatch
from samplug.tracking import Reference, Tracker
from samplug.variants import AS_RELEASED, VARIANTS, build

pytestmark = pytest.mark.slow

SIZE = 256
FRAMES = 30
FAR = 2e-4  # of the largest logit
NANO = "samplug-nano"
SAM_2_1 = {"proj_tpos_enc_in_obj_ptrs": True, "use_signed_tpos_enc_to_obj_ptrs": True, "no_obj_embed_spatial": True}


class Float32:
    """torch, where memories are put away in full."""

    bfloat16 = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)


class Meta:
    """sam2's video predictor behind the surface of `Tracker`."""

    def __init__(self, state, pictures, monkeypatch, as_shipped=False, variant=NANO, **options):
        module = peer_package("sam2.sam2_video_predictor")
        if not as_shipped:
            monkeypatch.setattr(module, "torch", Float32())
        size = pictures.shape[-1]
        monkeypatch.setattr(module, "load_video_frames", lambda **_: (pictures, size, size))
        monkeypatch.setattr(module, "tqdm", lambda frames, **_: frames)
        self.predictor = module.SAM2VideoPredictor(
            **sam2_modules(VARIANTS[variant]), **AS_RELEASED | SAM_2_1 | options, image_size=size
        )
        self.predictor.load_state_dict(state, strict=True)
        self.state = self.predictor.eval().init_state("")

    def see(self, frame):
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
        return record["pred_masks"][:, 0].float(), record["obj_ptr"], record["object_score_logits"][:, 0]


class Ours:
    """`Tracker` on the same pictures."""

    def __init__(self, state, pictures, variant=NANO, **how):
        self.model = build({"variant": variant}).eval()
        self.model.load_state_dict(state, strict=True)
        for name in ("add_all_frames_to_correct_as_cond", "memory_temporal_stride_for_eval", "max_cond_frames_in_attn"):
            setattr(self.model, name, how.pop(name, getattr(self.model, name)))
        self.tracker = Tracker(self.model, **{"max_prompted": -1, "binarize": False} | how)
        self.pictures, self.remove = pictures, self.tracker.remove

    def see(self, frame):
        with torch.no_grad():
            self.tracker.see(frame, self.model.see(self.pictures[frame, None]))

    def prompt(self, *given, **how):
        return values(self.tracker.prompt(*given, **how))

    def step(self, reverse=False):
        objects = self.tracker.step()
        return {obj_id: values(objects.output[row]) for row, obj_id in enumerate(objects.ids)}


def values(output):
    return output.logits, output.pointer, output.presence


def play(side, ahead, corrections=None, order=range(FRAMES), reverse=False):
    """Walk: what is prompted ahead of a frame's step and after it, by frame. Gives every answer."""
    answers = {}
    for frame in order:
        side.see(frame)
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
    return {"prompts": PromptBatch(prompts.owner, prompts.points, prompts.labels, boxes)}


def mask(x, y, w, h):
    drawn = torch.zeros(1, 1, SIZE, SIZE)
    drawn[..., y : y + h, x : x + w] = 1
    return {"mask": drawn}


SCENARIOS = {
    "a click": {"ahead": {0: [(1, clicks((100, 120)))]}},
    "several clicks": {"ahead": {0: [(1, clicks((100, 120), (150, 100), (30, 30), labels=[1, 1, 0]))]}},
    "clicks one after another": {"ahead": {0: [(1, clicks((100, 120))), (1, clicks((160, 60), add=True))]}},
    "a box": {"ahead": {0: [(1, box(60, 80, 150, 170))]}},
    "a box and a click": {"ahead": {0: [(1, box(60, 80, 150, 170, clicks=clicks((100, 120))))]}},
    "a mask": {"ahead": {0: [(1, mask(70, 90, 60, 50))]}},
    "an empty mask": {"ahead": {0: [(1, mask(0, 0, 0, 0))]}},
    "three objects": {"ahead": {0: [(1, clicks((100, 120))), (7, box(20, 30, 90, 90)), (-2, mask(150, 140, 70, 60))]}},
    "a correction": {"ahead": {0: [(1, clicks((100, 120)))]}, "corrections": {10: [(1, clicks((140, 60)))]}},
    "a corrected mask": {"ahead": {0: [(1, mask(70, 90, 60, 50))]}, "corrections": {10: [(1, mask(90, 90, 60, 50))]}},
    "a comer": {"ahead": {0: [(1, clicks((100, 120)))], 5: [(2, clicks((200, 60)))]}},
    "a second prompted frame": {"ahead": {0: [(1, clicks((100, 120)))], 12: [(1, box(60, 80, 150, 170))]}},
    "three prompted frames": {
        "ahead": {0: [(1, clicks((100, 120)))], 6: [(1, clicks((140, 60)))], 12: [(1, box(60, 80, 150, 170))]}
    },
    "backwards": {"ahead": {29: [(1, clicks((100, 120)))]}, "order": range(29, 0, -1), "reverse": True},
}
OPTIONS = {
    "a correction": {"add_all_frames_to_correct_as_cond": True},
    "a click": {"memory_temporal_stride_for_eval": 3},
    "three prompted frames": {"max_cond_frames_in_attn": 2},
}


@pytest.fixture(scope="module")
def pictures():
    return drifting()


def drifting(size=SIZE, frames=FRAMES):
    """Pictures (frames, 3, size, size) of a noisy plane that moves under the window."""
    torch.manual_seed(0)
    plane = torch.nn.functional.interpolate(torch.randn(1, 3, 40, 40), size=size + 160, mode="bicubic")
    plane = plane + 0.1 * torch.randn_like(plane)
    return torch.cat([plane[:, :, 5 * i : 5 * i + size, 3 * i : 3 * i + size] for i in range(frames)])


@pytest.fixture(scope="module")
def leaving():
    """Weights under which objects are away after a few frames."""
    return random_state(build({"variant": NANO}).state_dict())


@pytest.fixture(scope="module")
def state(leaving):
    return staying(leaving, 2)


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


@pytest.mark.parametrize("name", SCENARIOS)
def test_objects_are_followed_as_meta_follows_them(name, state, pictures, monkeypatch):
    script = SCENARIOS[name]
    mine = play(Ours(state, pictures, reverse=script.get("reverse", False)), **script)
    compare(mine, play(Meta(state, pictures, monkeypatch), **script))
    first = next(iter(mine.values()))
    assert name == "an empty mask" or 0.02 < shown(first).float().mean() < 0.9


def test_a_network_of_the_released_size_follows_as_meta_does(monkeypatch):
    """Eight frames of sixteen: Meta's pointers are timed by the length of shorter videos."""
    variant = "sam2.1_t"
    weights = staying(random_state(build({"variant": variant}).state_dict()), 8)
    film = drifting(512, 16)
    script = {"ahead": {0: [(1, clicks((200, 240))), (7, box(40, 60, 180, 180))]}, "order": range(8)}
    mine = play(Ours(weights, film, variant=variant), **script)
    compare(mine, play(Meta(weights, film, monkeypatch, variant=variant), **script), far=5e-3)
    assert all(0.01 < shown(answer).float().mean() < 0.9 for answer in mine.values())


def test_a_hundred_frames_on_nothing_has_drifted(state, pictures, monkeypatch):
    """Long after the oldest pointer, the padding points of tracked frames still hold the object."""
    there_and_back = torch.cat([pictures, pictures.flip(0)] * 2)
    script = SCENARIOS["a click"] | {"order": range(104)}
    mine = play(Ours(state, there_and_back), **script)
    compare(mine, play(Meta(state, there_and_back, monkeypatch), **script))


def test_objects_are_lost_as_meta_loses_them(leaving, pictures, monkeypatch):
    script = SCENARIOS["three objects"] | SCENARIOS["a correction"] | {"order": range(16)}
    script["ahead"] = SCENARIOS["three objects"]["ahead"]
    mine = play(Ours(leaving, pictures), **script)
    compare(mine, play(Meta(leaving, pictures, monkeypatch), **script))
    here = [presence.item() > 0 for *_, presence in mine.values()]
    assert 3 < sum(here) < len(here) - 3


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_heard_as_meta_hears_them(name, state, pictures, monkeypatch):
    mine = play(Ours(state, pictures, **OPTIONS[name]), **SCENARIOS[name])
    compare(mine, play(Meta(state, pictures, monkeypatch, **OPTIONS[name]), **SCENARIOS[name]))
    usual = play(Ours(state, pictures), **SCENARIOS[name])
    assert max(distance(mine[key], usual[key]) for key in mine) > 5 * FAR


def test_as_shipped_few_pixels_differ(state, pictures, monkeypatch):
    """Meta puts memories away in bf16, and binarises those of prompted frames."""
    script = SCENARIOS["three objects"]
    meta = Meta(state, pictures, monkeypatch, as_shipped=True, binarize_mask_from_pts_for_mem_enc=True)
    compare(play(Ours(state, pictures, binarize=True), **script), play(meta, **script), far=0.05, flips=1e-3)


class WrongSlots(Reference):
    def select(self, *given):
        chosen = super().select(*given)
        return replace(
            chosen, memories=tuple((f, slot if slot == 6 else (slot + 1) % 6) for f, slot in chosen.memories)
        )


class FewPointers(Reference):
    def select(self, *given):
        chosen = super().select(*given)
        return replace(chosen, pointers=chosen.pointers[:8])


class MirroredTime(Reference):
    def select(self, *given):
        chosen = super().select(*given)
        return replace(chosen, pointers=tuple((f, -distance) for f, distance in chosen.pointers))


@pytest.mark.parametrize("mistaken", [WrongSlots, FewPointers, MirroredTime])
def test_a_mistake_would_be_seen(mistaken, state, pictures):
    script = SCENARIOS["a click"] | {"order": range(16)}
    right, wrong = (play(Ours(state, pictures, policy=policy), **script) for policy in (Reference, mistaken))
    assert max(distance(wrong[key], right[key]) for key in right) > 10 * FAR
