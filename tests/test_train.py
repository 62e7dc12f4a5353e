"""The training loop, on small pictures: the same curve interrupted or not, and nothing lost."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from samplug.checkpoints import load_model
from samplug.nn.types import PromptBatch
from samplug.train import __main__ as command
from samplug.train import scenes
from samplug.train.asking import BOX, CLICK, best_mask, corrected_prompts, first_prompts
from samplug.train.batches import Batch, Steps, follows, gather, letterboxed
from samplug.train.check import central_clicks, look
from samplug.train.curves import line, plot
from samplug.train.prompting import boxes_around, shares
from samplug.train.run import CARD, CHECKPOINT, CONFIG, CURVES, WEIGHTS, Leg, prepared, ship, train
from samplug.train.scenes import Scene
from samplug.train.settings import Settings
from samplug.train.trainer import Diverged, Figures
from samplug.variants import build

SMALL = Settings(size=64, largest=96, pictures=2, prompts=2, steps=6, warmup=2, corrections=0.7, every_mask=3)
CLIPS = dataclasses.replace(SMALL, largest=64, clips=0.5, clips_at_once=2, frames=3, objects=2, views=2)


@pytest.fixture(autouse=True)
def one_core():
    """Sums in one order, so that equal runs are equal bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(folder, settings=SMALL, **how):
    return train(settings, Leg(folder, workers=0, check_every=0, say_every=2, **how))


def weights(trainer) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in trainer.averaged().values()])


@pytest.mark.parametrize("settings", [SMALL, CLIPS], ids=["pictures", "clips"])
def test_six_steps_are_three_and_three_more_after_an_interruption(tmp_path, settings):
    whole = run(tmp_path / "whole", settings)
    first = prepared(settings, Leg(tmp_path / "halves"))
    for step in range(3):
        first.advance(Steps(settings)[step // settings.views])
    (tmp_path / "halves").mkdir()
    first.save(tmp_path / "halves" / CHECKPOINT)
    resumed = run(tmp_path / "halves", settings)
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(first), weights(whole))


def test_the_curves_hold_every_step_once_after_a_run_was_cut_off_behind_its_checkpoint(tmp_path):
    trainer = run(tmp_path, dataclasses.replace(SMALL, steps=4))
    trainer.step = 2
    trainer.save(tmp_path / CHECKPOINT)
    run(tmp_path, dataclasses.replace(SMALL, steps=4))
    with (tmp_path / CURVES).open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


def test_batches_are_the_same_whoever_draws_them():
    for step in range(5):
        one, other = Steps(SMALL)[step], Steps(SMALL)[step]
        assert all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    one = Steps(SMALL)[3]
    assert not torch.equal(one.images, Steps(SMALL)[4].images)
    assert not torch.equal(one.images, Steps(dataclasses.replace(SMALL, seed=1))[3].images)


def test_larger_inputs_come_in_smaller_batches_and_some_pictures_are_padded():
    settings = dataclasses.replace(SMALL, pictures=9, steps=40, padded=0.5)
    drawn = [Steps(settings)[step].images for step in range(8)]
    assert {tuple(images.shape) for images in drawn} == {(1, 9, 3, 64, 64), (1, 4, 3, 96, 96)}
    padded = [(image[:, -1, -1] == 114).all().item() for images in drawn for image in images[0]]
    assert 0.2 < np.mean(padded) < 0.8


def test_a_padded_scene_keeps_its_pixels_and_masks_at_the_top_left():
    drawn = scenes.draw(np.random.default_rng(0), 40, 64)
    square = letterboxed(drawn, 64)
    assert np.array_equal(square.image[:40], drawn.image)
    assert np.array_equal(square.masks[:, :40], drawn.masks)
    assert (square.image[40:] == 114).all() and not square.masks[:, 40:].any()


def test_a_loss_that_is_no_number_stops_and_leaves_weights_and_checkpoint_as_they_were(tmp_path):
    trainer = run(tmp_path, dataclasses.replace(SMALL, steps=1))
    before, stored = weights(trainer), (tmp_path / CHECKPOINT).read_bytes()
    torch.nn.init.constant_(trainer.probe.head[0].bias, torch.nan)
    with pytest.raises(Diverged, match="smaller --rate"):
        trainer.advance(Steps(SMALL)[1])
    assert torch.equal(weights(trainer), before)
    assert (tmp_path / CHECKPOINT).read_bytes() == stored


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    trainer = prepared(SMALL, Leg(tmp_path))
    trainer.save(tmp_path / CHECKPOINT)
    stored = (tmp_path / CHECKPOINT).read_bytes()

    def killed(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    trainer.step = 5
    with pytest.raises(KeyboardInterrupt):
        trainer.save(tmp_path / CHECKPOINT)
    assert (tmp_path / CHECKPOINT).read_bytes() == stored
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_checkpoint_of_other_settings_is_refused_and_says_which(tmp_path):
    run(tmp_path, dataclasses.replace(SMALL, steps=1))
    with pytest.raises(ValueError, match="rate 0.001 there, 0.5 here"):
        run(tmp_path, dataclasses.replace(SMALL, steps=1, rate=0.5))


FOR_PICTURES = {"image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed"}
FOR_CLIPS = {"memory_attention", "memory_encoder", "obj_ptr_proj", "obj_ptr_tpos_proj", "maskmem_tpos_enc"}


def changed(tmp_path, settings: Settings) -> set[str]:
    fresh = prepared(settings, Leg(tmp_path / "none")).averaged()
    trained = run(tmp_path, settings).averaged()
    return {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], trained[name])}


def test_without_clips_only_the_parts_that_see_pictures_and_prompts_learn(tmp_path):
    assert changed(tmp_path, dataclasses.replace(SMALL, steps=2)) == FOR_PICTURES


def test_with_clips_the_memory_learns_too(tmp_path):
    assert changed(tmp_path, dataclasses.replace(CLIPS, steps=4)) >= FOR_PICTURES | FOR_CLIPS


def test_a_trunk_with_rate_nought_stays_as_it_is(tmp_path):
    settings = dataclasses.replace(SMALL, steps=2, trunk_rate=0.0)
    fresh, trained = prepared(settings, Leg(tmp_path / "none")).averaged(), run(tmp_path, settings).averaged()
    for name, tensor in fresh.items():
        if name.startswith("image_encoder.trunk"):
            assert torch.equal(tensor, trained[name])
    assert not torch.equal(fresh["no_mem_embed"], trained["no_mem_embed"])


def test_a_batch_of_clips_asks_for_as_many_objects_whatever_each_clip_has():
    settings = dataclasses.replace(CLIPS, clips=1.0, clips_at_once=6, objects=3, level=0.0, level_end=0.0)
    batch = Steps(settings)[0]
    assert batch.owner.tolist() == [clip for clip in range(len(batch.images[0])) for _ in range(3)]
    assert batch.masks[0].flatten(1).any(1).all()


def test_clips_are_spread_evenly_over_a_leg():
    settings = dataclasses.replace(SMALL, clips=0.3)
    assert sum(follows(settings, number) for number in range(100)) == 30
    assert not any(follows(SMALL, number) for number in range(100))
    batch = Steps(CLIPS)[1]
    assert batch.images.shape == (3, 2, 3, 64, 64)
    assert batch.masks.shape == (3, len(batch.owner), 64, 64)
    assert batch.masks[0].flatten(1).any(1).all()


def test_a_view_changes_picture_and_masks_together():
    """Bright pixels are the object: still so after mirroring, turning and another brightness."""
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 3:9, 20:30] = True
    batch = Batch((mask * 200).to(torch.uint8)[:, :, None].expand(1, 1, 3, 32, 32), mask, torch.tensor([0]))
    seen = [batch.viewed(torch.Generator().manual_seed(seed)) for seed in range(30)]
    for view in seen:
        brightness = view.images[0, 0].float().mean(0)
        assert torch.equal(brightness > brightness.mean(), view.masks[0, 0])
    places = {tuple(boxes_around(view.masks[0])[0].tolist()) for view in seen}
    assert len(places) == 8


def test_a_run_on_few_scenes_draws_them_again_and_again():
    settings = dataclasses.replace(SMALL, steps=9, scenes=2)
    assert torch.equal(Steps(settings)[1].images, Steps(settings)[7].images)
    assert not torch.equal(Steps(settings)[0].images, Steps(settings)[1].images)


def test_bfloat16_trains_too(tmp_path):
    trainer = run(tmp_path, dataclasses.replace(CLIPS, steps=4, precision="bfloat16"))
    assert torch.isfinite(weights(trainer)).all()
    assert weights(trainer).dtype == torch.float32


def test_the_line_on_the_screen_says_how_far_and_how_long():
    figures = [Figures(5, 0.1, 1.0, click_iou=0.5), Figures(6, 0.1, 1.0, clip_iou=0.25)]
    said = line(figures, steps=12, seconds=1.0)
    assert said.startswith("[##########..........] 6/12  click iou 0.500  clip iou 0.250")
    assert said.endswith("2.00 steps/s  0 min left")


def test_a_leg_leaves_a_picture_of_its_curves(tmp_path):
    pytest.importorskip("matplotlib")
    run(tmp_path, dataclasses.replace(CLIPS, steps=4))
    assert plot(tmp_path / CURVES).stat().st_size > 5000


def test_a_fresh_network_hears_its_prompt(tmp_path):
    """Most of the variance of its logits comes from where the click is; drawn as usual it is a few hundredths."""
    clicks = PromptBatch(
        torch.zeros(16, dtype=torch.int64), points=128 * torch.rand(16, 1, 2), labels=torch.ones(16, 1)
    )
    shares = []
    for model in (prepared(SMALL, Leg(tmp_path)).model.eval(), build(CONFIG).eval()):
        with torch.no_grad():
            logits = model.answer(model.encode(torch.randn(1, 3, 128, 128)), clicks).logits
        shares.append((logits.var(0).mean() / logits.var()).item())
    assert shares[0] > 0.4 > 0.1 > shares[1]


def test_what_is_shipped_is_the_running_mean_with_its_card(tmp_path):
    trainer = run(tmp_path, dataclasses.replace(SMALL, steps=2))
    model = load_model(ship(trainer, tmp_path, {"licence": "ours"}))
    name = "sam_mask_decoder.iou_token.weight"
    assert torch.equal(model.state_dict()[name], trainer.mean[name].half().float())
    assert not torch.equal(trainer.mean[name], trainer.model.state_dict()[name])
    card = json.loads((tmp_path / CARD).read_text())
    assert card["licence"] == "ours"
    assert [(leg["steps"], leg["settings"]["size"]) for leg in card["legs"]] == [(2, 64)]


def test_the_command_trains_and_writes_the_file_and_a_card_with_itself_in_it(tmp_path, capsys):
    words = ["--steps=1", "--size=64", "--pictures=1", "--prompts=1", "--workers=0", "--final-pictures=1"]
    words += ["--check-every=0"]
    assert command.main([*words, "--folder", str(tmp_path)]) == 0
    assert load_model(tmp_path / WEIGHTS).variant == "samplug-nano"
    card = json.loads((tmp_path / CARD).read_text())
    assert card["command"].startswith("python -m samplug.train --steps=1")
    assert 0 <= card["metrics"]["unseen scenes"]["box"] <= 1
    assert command.main([*words, "--folder", str(tmp_path), "--seed", "4"]) == 1
    assert "seed 0 there, 4 here" in capsys.readouterr().err


def test_a_leg_begins_with_the_weights_of_another(tmp_path):
    settings = dataclasses.replace(CLIPS, steps=2)
    first = run(tmp_path / "first", settings)
    later = prepared(settings, Leg(tmp_path / "later", begin=tmp_path / "first" / CHECKPOINT))
    assert torch.equal(weights(later), weights(first))
    assert later.step == 0
    assert [leg["steps"] for leg in later.legs] == [2, 0]
    shipped = prepared(settings, Leg(tmp_path / "last", begin=ship(first, tmp_path, {})))
    assert torch.equal(weights(shipped), weights(first).half().float())
    assert shipped.past == first.legs


def test_a_memory_that_never_learned_starts_as_drawn(tmp_path):
    """A file of a leg without clips holds a memory that no step has touched."""
    first = run(tmp_path / "first", dataclasses.replace(SMALL, steps=1, seed=5))
    later = prepared(CLIPS, Leg(tmp_path / "later", begin=tmp_path / "first" / CHECKPOINT)).averaged()
    fresh, name = prepared(CLIPS, Leg(tmp_path / "fresh")).averaged(), "memory_attention.layers.0.linear1.weight"
    assert torch.equal(later[name], fresh[name])
    assert not torch.equal(later[name], first.averaged()[name])
    assert torch.equal(later["no_mem_embed"], first.averaged()["no_mem_embed"])


def scene(*masks: np.ndarray) -> Scene:
    return Scene(np.zeros((64, 64, 3), np.uint8), np.stack(masks), np.full(len(masks), -1))


def half(left: bool) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[8:56, slice(0, 32) if left else slice(32, 64)] = True
    return mask


def test_prompts_for_measuring_are_centres_and_exact_boxes():
    batch = gather([scene(half(True), half(False)), scene(half(False))], 2)
    masks, points = batch.masks[0], central_clicks(batch).points
    assert batch.owner.tolist() == [0, 0, 1, 1]
    assert boxes_around(masks)[:3].tolist() == [[0, 8, 32, 56], [32, 8, 64, 56], [32, 8, 64, 56]]
    assert shares(masks).shape == (4, 16, 16)
    assert shares(masks)[0].sum() * 16 == half(True).sum()
    assert all(mask[int(y), int(x)] for mask, (x, y) in zip(masks, points[:, 0], strict=True))


def test_a_corrected_prompt_carries_the_mask_and_a_click_on_its_error():
    batch = gather([scene(half(True))], 1)
    truth = shares(batch.masks[0]) > 0.5
    logits = torch.where(truth, 1.0, -1.0)
    logits[:, 4:8, 12:16] = 1  # too much, at pixels 48..64, 16..32
    generator = torch.Generator().manual_seed(0)
    first = first_prompts(batch.masks[0], batch.owner, CLICK, generator)
    prompts = corrected_prompts(first, logits, truth, generator)
    assert prompts.labels.tolist() == [[1, 0]]
    x, y = prompts.points[0, 1].tolist()
    assert 48 <= x < 64 and 16 <= y < 32
    assert torch.equal(prompts.masks[:, 0], logits)
    boxed = first_prompts(batch.masks[0], batch.owner, BOX, generator)
    boxed = corrected_prompts(boxed, logits, truth, generator, with_mask=False)
    assert boxed.boxes is not None and boxed.masks is None and boxed.labels.tolist() == [[0]]


def test_the_best_mask_is_that_of_the_highest_predicted_overlap():
    logits = torch.arange(6.0).view(2, 3, 1, 1)
    assert best_mask(logits, torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.1]])).flatten().tolist() == [1, 3]


def test_a_look_at_unseen_scenes_gives_the_same_figures_every_time():
    model = build(CONFIG).eval()
    first, again = (look(model, 64, count=3, prompts=2) for _ in range(2))
    assert first == again
    assert set(first) == {"click", "box", "same", "same_truth"}
    assert 0 <= first["same_truth"] < 1
