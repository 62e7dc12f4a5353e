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
from samplug.train.batches import Steps, gather, letterboxed
from samplug.train.check import filled, iou, measure
from samplug.train.run import CARD, CHECKPOINT, CONFIG, CURVES, WEIGHTS, Leg, prepared, ship, train
from samplug.train.scenes import Scene
from samplug.train.settings import Settings
from samplug.train.trainer import BOX, CLICK, Diverged, best_mask, corrected_prompts, first_prompts
from samplug.variants import build

SMALL = Settings(size=64, largest=96, pictures=2, prompts=2, steps=6, warmup=2, corrections=0.7, every_mask=3)


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


def test_six_steps_are_three_and_three_more_after_an_interruption(tmp_path):
    whole = run(tmp_path / "whole")
    first = prepared(SMALL, Leg(tmp_path / "halves"))
    for step in range(3):
        first.advance(Steps(SMALL)[step])
    (tmp_path / "halves").mkdir()
    first.save(tmp_path / "halves" / CHECKPOINT)
    resumed = run(tmp_path / "halves")
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
    assert {tuple(images.shape) for images in drawn} == {(9, 3, 64, 64), (4, 3, 96, 96)}
    padded = [(image[:, -1, -1] == 114).all().item() for images in drawn for image in images]
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
    batch = Steps(SMALL)[1]
    batch.targets[0] = torch.nan
    with pytest.raises(Diverged, match="smaller --rate"):
        trainer.advance(batch)
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


def test_only_the_parts_that_see_pictures_and_prompts_learn(tmp_path):
    fresh = prepared(SMALL, Leg(tmp_path / "none")).averaged()
    trained = run(tmp_path, dataclasses.replace(SMALL, steps=2)).averaged()
    changed = {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert changed == {"image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed"}


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
    first = run(tmp_path / "first", dataclasses.replace(SMALL, steps=2))
    later = prepared(SMALL, Leg(tmp_path / "later", begin=tmp_path / "first" / CHECKPOINT))
    assert torch.equal(weights(later), weights(first))
    assert later.step == 0
    assert [leg["steps"] for leg in later.legs] == [2, 0]
    shipped = prepared(SMALL, Leg(tmp_path / "last", begin=ship(first, tmp_path, {})))
    assert torch.equal(weights(shipped), weights(first).half().float())
    assert shipped.past == first.legs


def scene(*masks: np.ndarray) -> Scene:
    return Scene(np.zeros((64, 64, 3), np.uint8), np.stack(masks), np.full(len(masks), -1))


def half(left: bool) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[8:56, slice(0, 32) if left else slice(32, 64)] = True
    return mask


def test_prompts_for_measuring_are_centres_and_exact_boxes():
    batch = gather([scene(half(True), half(False)), scene(half(False))], 2)
    assert batch.owner.tolist() == [0, 0, 1, 1]
    assert batch.boxes[:3].tolist() == [[0, 8, 32, 56], [32, 8, 64, 56], [32, 8, 64, 56]]
    assert batch.targets.shape == (4, 16, 16)
    assert batch.targets[0].sum() * 16 == half(True).sum()
    assert all(mask[int(y), int(x)] for mask, (x, y) in zip(batch.masks, batch.points[:, 0], strict=True))
    assert torch.equal(filled(batch), batch.masks)
    assert iou(filled(batch), batch.masks).tolist() == [1, 1, 1, 1]


def test_a_corrected_prompt_carries_the_mask_and_a_click_on_its_error():
    batch = gather([scene(half(True))], 1)
    logits = torch.where(batch.targets > 0.5, 1.0, -1.0)
    logits[:, 4:8, 12:16] = 1  # too much, at pixels 48..64, 16..32
    prompts = corrected_prompts(first_prompts(batch, CLICK), logits, batch)
    assert prompts.labels.tolist() == [[1, 0]]
    x, y = prompts.points[0, 1].tolist()
    assert 48 <= x < 64 and 16 <= y < 32
    assert torch.equal(prompts.masks[:, 0], logits)
    boxed = corrected_prompts(first_prompts(batch, BOX), logits, batch)
    assert boxed.boxes is not None and boxed.labels.tolist() == [[0]]


def test_the_best_mask_is_that_of_the_highest_predicted_overlap():
    logits = torch.arange(6.0).view(2, 3, 1, 1)
    assert best_mask(logits, torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.1]])).flatten().tolist() == [1, 3]


def test_measuring_never_looks_at_what_training_draws():
    """And gives the same figures every time."""
    model = build(CONFIG).eval()
    first, again = (measure(model, 64, count=3, prompts=2) for _ in range(2))
    assert first == again
    assert set(first) >= {"click", "click_best", "three_clicks", "box", "box_as_mask"}
    assert 0 < first["box_as_mask"] < 1
