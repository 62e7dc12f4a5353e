"""`samplug blend` and `samplug merge`: files from the files of trainings."""

import pytest
import torch
from support.datasets import folder_of
from support.images import draw

from samplug.checkpoints.load import load_model, save_model
from samplug.cli.main import samplug
from samplug.errors import CheckpointError, UsageError
from samplug.files.embedding import model_fingerprint
from samplug.train import blend as blending
from samplug.train.blend import blend, merge, mixed
from samplug.train.blend_settings import BlendSettings, MergeSettings
from samplug.train.lora import add_lora, is_site, save_lora


@pytest.fixture
def tuned_file(network, tmp_path):
    """The small network with other weights in its decoder."""
    model = load_model_like(network)
    with torch.no_grad():
        for parameter in model.sam_mask_decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(tmp_path / "best.pt", model, model.config, dtype=torch.float32)
    return tmp_path / "best.pt"


def load_model_like(network):
    return mixed(network, network, 0.0)


def test_a_mix_lies_between_two_networks(nano_file, tuned_file, tmp_path):
    out = tmp_path / "mix.pt"
    chosen = BlendSettings.read({"model": str(nano_file), "tuned": str(tuned_file), "share": 0.25, "out": str(out)})
    assert blend(chosen) == []
    base, tuned, mix = (load_model(path).state_dict() for path in (nano_file, tuned_file, out))
    for name, weight in mix.items():
        torch.testing.assert_close(weight, 0.75 * base[name] + 0.25 * tuned[name])
    assert all(
        torch.equal(weight, tuned[name])
        for name, weight in mixed(*map(load_model, (nano_file, tuned_file)), 1.0).state_dict().items()
    )


def test_of_several_mixes_the_one_with_the_best_scores_is_written(nano_file, tuned_file, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    data = folder_of(tmp_path / "data", *(draw(60, 80, seed) for seed in range(4)))
    given = {"model": str(nano_file), "tuned": str(tuned_file), "out": str(tmp_path / "mix.pt"), "imgsz": 64}
    chosen = BlendSettings.read({**given, "data": str(data), "anchor": False, "share": "0.5,0.25", "verbose": False})
    rows = blend(chosen)
    assert [row["share"] for row in rows] == [0.0, 0.25, 0.5, 1.0]
    assert all({"click1", "click3", "box"} < row.keys() for row in rows)
    monkeypatch.setattr(
        blending, "_measured", lambda *_: [{"share": s, "click1": c} for s, c in ((0.0, 1.0), (0.25, 0.4), (0.5, 0.3))]
    )
    blend(chosen)
    expected = mixed(load_model(nano_file), load_model(tuned_file), 0.25).state_dict()
    assert all(
        torch.equal(weight, expected[name]) for name, weight in load_model(tmp_path / "mix.pt").state_dict().items()
    )


def test_networks_of_other_shapes_do_not_mix(network):
    from support.networks import drawn

    with pytest.raises(CheckpointError, match="cannot be mixed"):
        mixed(network, drawn(), 0.5)


def test_merged_updates_answer_as_the_adapted_network(network, nano_file, tmp_path):
    adapted, image = load_model(nano_file), torch.rand(1, 3, 64, 64)
    base = model_fingerprint(adapted)
    names = add_lora(adapted, [name for name, _ in adapted.named_parameters() if is_site(name)], 4)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(std=0.02)
        expected = adapted.encode(image).image
    save_lora(tmp_path / "lora.pt", adapted.state_dict(), names, base, adapted.variant)
    given = {"model": str(nano_file), "lora": str(tmp_path / "lora.pt"), "out": str(tmp_path / "merged.pt")}
    merge(MergeSettings.read(given))
    with torch.no_grad():
        merged, before = load_model(tmp_path / "merged.pt").encode(image).image, network.encode(image).image
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
    assert (before - expected).abs().max() > 1e-3 * expected.abs().max()
    with pytest.raises(CheckpointError, match="fingerprint"):
        merge(MergeSettings.read({**given, "model": str(tmp_path / "merged.pt")}))


@pytest.mark.parametrize(
    "line, message",
    [
        ("merge model=a.pt", "Expected out= and lora=, the names of files"),
        ("merge model=a.pt lora=b.pt out=c.pt shares=1", "'shares' is not"),
        ("blend model=a.pt tuned=b.pt out=c.pt", "Without data="),
        ("blend model=a.pt tuned=b.pt out=c.pt share=1.5", "share=1.5: give a number from 0 to 1"),
        ("blend model=none.pt tuned=b.pt out=c.pt share=0.5", "none.pt"),
    ],
)
def test_a_command_that_cannot_be_run_says_why(line, message):
    with pytest.raises(UsageError, match=message):
        samplug(line.split())


@pytest.mark.parametrize("name", ["blend", "merge"])
def test_help_lists_the_arguments(name, capsys):
    samplug([name, "help"])
    assert f"samplug {name} model=" in (shown := capsys.readouterr().out) and "out" in shown
