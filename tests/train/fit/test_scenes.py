"""Training on drawn scenes, in the loop that serves files too: what learns, what is measured, what is kept."""

import pytest
import torch

from samplug import SAM
from samplug.errors import DataError
from samplug.train.fit.evaluation import MOST_OBJECTS
from samplug.train.losses.options import DRAWN, LossOptions
from samplug.train.settings import TrainSettings

FOR_IMAGES = {"image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed"}
FOR_CLIPS = {"memory_attention", "memory_encoder", "obj_ptr_proj", "obj_ptr_tpos_proj", "maskmem_tpos_enc"}
SHORT = {"learn": "all", "epochs": 1, "steps": 2, "val": False, "lr0": 1e-3}
CLIPS = {**SHORT, "clips": 0.5, "frames": 3}


def changed(run) -> set[str]:
    """The parts of a network whose weights a run has changed."""
    before = {name: tensor.clone() for name, tensor in run.untouched.state_dict().items()}
    run.train()
    after = torch.load(run.last, weights_only=True)["model"]
    return {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_images_teach_the_parts_that_see_them_and_are_measured_as_val_measures(
    scenes_trainer, nano_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("samplug.train.data.sets.VAL_IMAGES", 1)
    run = scenes_trainer(**{**SHORT, "val": True, "anchor": "scenes"})
    scores = []
    run.add_callback("on_train_end", lambda run: scores.append(run.progress.rows))
    assert changed(run) == FOR_IMAGES
    val = SAM(nano_file).val(
        "scenes", imgsz=64, pictures=1, clips=0, clicks=3, objects=MOST_OBJECTS, batch=1, baselines=False,
        plots=False, verbose=False, save_dir=str(tmp_path / "val"), device="cpu",
    )  # fmt: skip
    ((untouched, trained),) = scores
    assert untouched["metrics/click1"] == val.results_dict["pictures/click1"]
    assert untouched["metrics/box"] == val.results_dict["pictures/box"]
    assert trained["train/click_iou"] >= 0 and trained["train/probe_loss"] > 0
    assert run.anchor is None  # scenes are measured once
    content = torch.load(run.last, weights_only=True)
    assert any(name.startswith("probe.") for name in content["training"]["weights"])  # for a run that goes on
    assert content["model"].keys() == torch.load(run.best, weights_only=True)["model"].keys()
    assert not any("probe" in name for name in content["model"])


def test_with_clips_the_memory_learns_too_also_in_bfloat16(scenes_trainer):
    run = scenes_trainer(**CLIPS, amp="bf16")
    assert changed(run) >= FOR_IMAGES | FOR_CLIPS
    tensors = torch.load(run.best, weights_only=True)["model"].values()
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in tensors)


@pytest.mark.parametrize(
    "how, parts",
    [({"encoder_rate": 0}, FOR_IMAGES - {"image_encoder"}), ({"learn": "decoder"}, {"sam_mask_decoder"})],
    ids=["encoder_rate=0", "learn=decoder"],
)
def test_what_is_to_stay_as_it_is_does(scenes_trainer, how, parts):
    assert changed(scenes_trainer(**{**SHORT, "steps": 1, **how})) == parts


def test_clips_need_a_network_with_a_memory(trainer):
    with pytest.raises(DataError, match="clips=0.5 are learned from by SAM 2 and 2.1 alone"):
        trainer(data="scenes", clips=0.5, steps=1).train()


def test_a_network_without_memory_learns_from_drawn_images(trainer):
    assert changed(trainer(data="scenes", epochs=1, steps=1, val=False, lr0=1e-3)) == {"mask_decoder"}


@pytest.mark.parametrize("pretrained, first", [(False, ("click", "box", "correction")), (True, ("box", "correction"))])
def test_a_network_that_knows_nothing_trains_all_masks_and_remembers_the_truth_at_first(network, pretrained, first):
    options = LossOptions.of(network, TrainSettings.read({"data": "scenes", "pretrained": pretrained}))
    assert options.in_step(0, 2000, in_clip=False).every_mask == first
    assert options.in_step(1500, 2000, in_clip=False).every_mask == DRAWN["every_mask"]
    shares = [options.in_step(step, 2000, in_clip=True).teacher_forcing for step in (0, 1000, 2000)]
    assert shares == ([0, 0, 0] if pretrained else [0.5, 0.25, 0])
    assert (options.in_step(0, 9, in_clip=True).mean, options.in_step(0, 9, in_clip=False).mean) == (True, False)


def test_files_are_learned_from_with_the_same_options_in_every_step(network):
    options = LossOptions.of(network, TrainSettings.read({"data": "a.yaml"}))
    assert options.in_step(0, 9, in_clip=False) is options and options.balance == 0.3
