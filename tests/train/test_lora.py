"""Low-rank adaptation: nothing changes at first, every site learns, and what is merged answers as what was adapted."""

from __future__ import annotations

import pytest
import torch
from support.networks import drawn, network, object_draws, rectangles

from samplug.benchmark.weights import random_state
from samplug.errors import CheckpointError
from samplug.files.embedding import model_fingerprint
from samplug.nn.structs import PromptBatch
from samplug.train.learn import select_learning
from samplug.train.lora import ADDED, load_lora, merge_lora, merged, save_lora
from samplug.train.losses.clip_loss import ClipPlan
from samplug.train.losses.image_loss import ImagePlan
from samplug.train.losses.options import LossOptions
from samplug.train.losses.step import follow
from samplug.transforms import normalise

FAMILIES = ("SAM", "MobileSAM", "SAM 2")


def answers(model, frames=1):
    """Masks of two images, or of a clip, without dropout."""
    model.eval()
    batch = rectangles(frames)
    with torch.no_grad():
        if frames == 1:
            points = torch.tensor([[[40.0, 50.0]], [[80.0, 60.0]]])
            prompts = PromptBatch(torch.arange(2), points=points, labels=torch.ones(2, 1))
            return model.answer(model.encode(normalise(batch.images[0])), prompts).logits
        found = []
        model.select_mask = lambda answer, **_: (
            found.append(answer.logits.flatten()) or type(model).select_mask(model, answer)
        )
        follow(ClipPlan("mask"), model, batch, LossOptions(), object_draws(4), lambda loss: None)
        del model.select_mask
        return torch.cat(found)


def same_answers(some, others):
    """Whether logits are the same but for rounding: where a weight lies in memory decides on the order of sums."""
    return (some - others).abs().max() <= 1e-5 * others.abs().max()


def adapted(family, learn="late", clips=False, steps=0, **how):
    """A network with factors, after some steps; the names that learn and the fingerprint of its base."""
    model = network(family)
    base = model_fingerprint(model)
    names = select_learning(model, learn, lora=4, clips=clips, **how)
    learning = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    plan = ClipPlan("click") if clips else ImagePlan({"click": False, "box": False}, "")
    for seed in range(steps):
        optimizer.zero_grad()
        batch, draws = rectangles(3 if clips else 1), object_draws(4, seed)
        follow(plan, model, batch, LossOptions(), draws, torch.Tensor.backward)
        optimizer.step()
    return model, names, base


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_step_the_network_answers_as_before(family):
    assert same_answers(answers(adapted(family)[0]), answers(network(family)))


@pytest.mark.parametrize(
    ("family", "learn", "clips"),
    [*((each, "all", False) for each in FAMILIES), ("SAM 2", "memory", True), ("SAM 2", "all", True)],
)
def test_every_site_learns_from_the_first_step_and_its_base_does_not(family, learn, clips):
    """As long as B is 0, A has no gradient. A weight that is read past the parametrisation would give B none either."""
    model, names, _ = adapted(family, learn, clips)
    plan = ClipPlan("click", (0, 2)) if clips else ImagePlan({"click": True}, "")
    follow(plan, model, rectangles(3 if clips else 1), LossOptions(), object_draws(4), torch.Tensor.backward)
    parameters = dict(model.named_parameters())
    factors = [name for name in names if name.endswith(f"{ADDED}B")]
    assert len(factors) > 2 and all(parameters[name].grad.abs().max() > 0 for name in factors)
    for name in factors:
        assert parameters[name.replace(f"{ADDED}B", ".parametrizations.weight.original")].grad is None
        assert not parameters[name[:-1] + "A"].grad.any()
    assert any("memory_attention" in name for name in factors) is clips
    assert not any(name.startswith(("image_encoder.", "memory_attention.")) for name in names if ADDED not in name)


@pytest.mark.parametrize(("family", "clips"), [*((each, False) for each in FAMILIES), ("SAM 2", True)])
def test_what_is_merged_answers_as_what_was_adapted(family, clips):
    model, _, _ = adapted(family, "all", clips, steps=3)
    frames = 3 if clips else 1
    expected, plain = answers(model, frames), merged(model.state_dict())
    other = network(family)
    assert not torch.allclose(answers(other, frames), expected, rtol=1e-2)
    other.load_state_dict(plain, strict=True)
    merge_lora(model)
    assert (
        list(model.state_dict()) == list(other.state_dict()) or model.state_dict().keys() == other.state_dict().keys()
    )
    for each in (model, other):
        assert same_answers(answers(each, frames), expected)


def test_a_file_of_what_was_learned_is_small_and_makes_the_same_network_of_its_base(tmp_path):
    model, names, base = adapted("SAM 2", steps=2)
    save_lora(tmp_path / "lora.pt", model.state_dict(), names, base, "mine")
    other = network("SAM 2")
    load_lora(tmp_path / "lora.pt", other)
    assert same_answers(answers(other), answers(model))
    merge_lora(other)
    assert other.state_dict().keys() == network("SAM 2").state_dict().keys()
    torch.save(other.state_dict(), tmp_path / "whole.pt")
    assert (tmp_path / "lora.pt").stat().st_size < 0.7 * (tmp_path / "whole.pt").stat().st_size


def test_a_file_for_another_network_is_refused(tmp_path):
    model, names, base = adapted("SAM 2")
    save_lora(tmp_path / "lora.pt", model.state_dict(), names, base, "mine")
    other = drawn()
    other.load_state_dict(random_state(other.state_dict(), seed=1))
    for wrong in (other, network("SAM"), model):
        with pytest.raises(CheckpointError, match="lora.pt. It was made from mine with the fingerprint"):
            load_lora(tmp_path / "lora.pt", wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {"sam_mask_decoder.nothing": torch.zeros(2)}, "the network has no sam_mask_decoder.nothing"),
        (lambda tensors: {f"image_encoder.trunk{ADDED}A": torch.zeros(2, 2)}, "image_encoder.trunk is no place for it"),
        (lambda tensors: {name: tensor[:1] for name, tensor in tensors.items() if tensor.ndim}, "damaged"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, change, message):
    model, names, base = adapted("SAM 2")
    state = change({name: model.state_dict()[name] for name in names})
    save_lora(tmp_path / "lora.pt", state, list(state), base)
    with pytest.raises(CheckpointError, match=f"Cannot load .*lora.pt. .*{message}"):
        load_lora(tmp_path / "lora.pt", network("SAM 2"))
    (tmp_path / "half.pt").write_bytes((tmp_path / "lora.pt").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_lora(tmp_path / "half.pt", network("SAM 2"))
