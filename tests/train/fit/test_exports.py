"""What a training writes loads where users take it: here, in Ultralytics by its name, in Meta's code."""

import csv

import numpy as np
import pytest
import torch
from support.datasets import write_drawn
from support.images import draw
from support.peers import peer_package

from samplug import SAM
from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model, save_model
from samplug.cli import main
from samplug.cli.parse import merge
from samplug.nn.structs import PromptBatch

VARIANTS = ["samplug-nano", "sam2.1_t", "mobile_sam", "sam_b"]
CONFIGS = {"sam2.1_t": "configs/sam2.1/sam2.1_hiera_t.yaml"}
BOX = [60.0, 40.0, 200.0, 180.0]
SQUARE = 256


@pytest.fixture(scope="module", params=VARIANTS)
def trained(request, tmp_path_factory):
    """The folder of a run of two epochs from the shell, and its variant."""
    folder = tmp_path_factory.mktemp(request.param)
    base = folder / f"{request.param}.pt"
    save_model(base, randomise(build({"variant": request.param})), {"variant": request.param}, dtype=torch.float32)
    data = write_drawn(folder / "data", train=8, val=1, side=128)
    words = f"train model={base} data={data} epochs=2 imgsz={SQUARE} objects=2 batch=2 device=cpu anchor=False".split()
    words += f"save_dir={folder / 'run'} workers=0 verbose=False lr0=1e-3 corrections=1".split()
    main.samplug(merge(words))
    return folder / "run", request.param


@pytest.mark.slow
def test_losses_fall_and_the_file_is_the_model(trained):
    folder, variant = trained
    with (folder / "results.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in list(csv.DictReader(file))[1:]]
    assert losses[1] < losses[0]
    assert load_model(folder / "weights" / "best.pt").variant == variant
    assert load_model(folder / "weights" / "last.pt").variant == variant


@pytest.mark.slow
def test_ultralytics_loads_the_file_by_its_name_and_answers_alike(trained):
    folder, variant = trained
    if variant == "samplug-nano":
        assert not list((folder / "weights").glob("best_*"))
        return
    import ultralytics

    path, image = folder / "weights" / f"best_{variant}.pt", draw(SQUARE, SQUARE, 1)
    how = {"bboxes": [BOX], "imgsz": 1024, "verbose": False, "device": "cpu", "conf": 0.0}
    theirs = ultralytics.SAM(path)
    expected = theirs.predict(image, **how)[0].masks
    ours = SAM(folder / "weights" / "best.pt").predict(image, **how)[0].masks
    assert same_tensors(theirs.model.state_dict(), load_model(path).state_dict())
    if expected is not None:
        assert (expected.data.bool() == ours.data).float().mean() > 0.999


@pytest.mark.slow
def test_metas_code_loads_the_file_and_gives_equal_logits(trained):
    folder, variant = trained
    path = folder / "weights" / f"best_{variant}.pt"
    if variant in CONFIGS:
        theirs = peer_package("sam2.build_sam").build_sam2(CONFIGS[variant], str(path), device="cpu")
        predictor = peer_package("sam2.sam2_image_predictor").SAM2ImagePredictor(theirs)
    elif variant == "sam_b":
        theirs = peer_package("segment_anything").sam_model_registry["vit_b"](checkpoint=str(path)).eval()
        predictor = peer_package("segment_anything").SamPredictor(theirs)
    else:
        return
    model, pixels = load_model(path), draw(1024, 1024, 1)
    predictor.set_image(pixels)
    _, _, expected = predictor.predict(box=np.array(BOX) * 4, multimask_output=False)
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        image = (image - model.get_buffer("pixel_mean")) / model.get_buffer("pixel_std")
        prompts = PromptBatch(torch.tensor([0]), boxes=torch.tensor([BOX]) * 4)
        logits = model.answer(model.encode(image), prompts).logits[0].numpy()
    if variant in CONFIGS:
        logits = logits.clip(-32, 32)  # as Meta's predictor gives them back
    assert np.abs(logits - expected).max() < 2e-4 * np.abs(expected).max()


def same_tensors(theirs, ours):
    shared = theirs.keys() & ours.keys()
    return len(shared) > 0.9 * len(ours) and all(torch.equal(theirs[name], ours[name]) for name in shared)
