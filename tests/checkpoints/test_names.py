"""Names of checkpoints: found where they lie, or fetched by Ultralytics."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import pytest
from support.checkpoint_files import TOY_VIT, toy  # noqa: F401

from samplug.checkpoints import load
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.load import BUNDLED, bundled_path, load_model, save_model
from samplug.errors import CheckpointError


def test_the_bundled_model_is_found_by_its_name(monkeypatch, tmp_path, toy):
    monkeypatch.chdir(tmp_path)
    assert load._find(BUNDLED) == load._find("samplug-nano") == bundled_path()
    save_model(BUNDLED, toy, TOY_VIT)
    assert load._find("samplug-nano").resolve() == tmp_path / BUNDLED, "a file of the user's own comes first"


@pytest.fixture
def downloader(monkeypatch):
    """Ultralytics' downloader, replaced by one that notes what it is asked for."""
    from ultralytics.utils import downloads

    asked = []
    monkeypatch.setattr(downloads, "attempt_download_asset", lambda file: asked.append(str(file)) or f"found/{file}")
    return asked


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("sam_h", "samplug-nano")])
def test_names_that_ultralytics_publishes_are_fetched_by_it_when_absent(monkeypatch, tmp_path, downloader, variant):
    monkeypatch.chdir(tmp_path)
    for name in (variant, f"{variant}.pt"):
        assert str(load._find(name)) == f"found/{variant}.pt"
    assert downloader == [f"{variant}.pt"] * 2


def test_nothing_is_fetched_for_a_file_that_is_there(monkeypatch, tmp_path, toy, downloader):
    monkeypatch.chdir(tmp_path)
    save_model("sam_b.pt", toy, TOY_VIT)
    assert load_model("sam_b").variant == "toy"
    assert not downloader


def test_a_variant_that_nobody_publishes_there_is_told(monkeypatch, tmp_path, downloader):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no file sam_h.pt, and Ultralytics does not publish one"):
        load_model("sam_h.pt")
    assert not downloader


def test_a_failed_download_says_what_to_do_instead(monkeypatch, tmp_path):
    from ultralytics.utils import downloads

    def offline(file):
        raise ConnectionError("no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "attempt_download_asset", offline)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(no route to host\).* or use 'samplug-nano.pt'"):
        load_model("sam2.1_t.pt")
