"""Every public attribute of Ultralytics' model class works on `SAM`, or refuses in one sentence."""

import re
import sys
from pathlib import Path

import pytest
import torch
from support.checkpoint_files import same
from support.images import draw
from ultralytics.engine.model import Model

from samplug import SAM, CheckpointError, SAM2DynamicInteractivePredictor, SAM2VideoPredictor
from samplug.checkpoints.load import load_model
from samplug.files.embedding import Embedding

IMAGE = draw(96, 128, 1)
IMAGES = str(Path(__file__).parents[1] / "examples" / "pictures" / "scene.jpg")
OPTIONS = {"points": [[40, 40]], "imgsz": 128, "verbose": False}
REFUSED = {
    "tune": "does not exist",
    "export": "no format",
    "calibrate": "depth models",
    "compile": "compile=True",
    "forward": "forward",
}
READ = {
    "callbacks": dict,
    "device": torch.device,
    "names": dict,
    "task_map": dict,
    "transforms": type(None),
    "T_destination": object,
    "call_super_init": bool,
    "dump_patches": bool,
}
CALLED = {
    "__call__": lambda model, tmp: model(IMAGE, **OPTIONS),
    "predict": lambda model, tmp: model.predict(IMAGE, **OPTIONS),
    "track": lambda model, tmp: model.track([IMAGE] * 2, **OPTIONS),
    "embed": lambda model, tmp: model.embed(IMAGE, imgsz=128),
    "info": lambda model, tmp: model.info(verbose=False),
    "add_callback": lambda model, tmp: model.add_callback("on_predict_start", print),
    "clear_callback": lambda model, tmp: model.clear_callback("on_predict_start"),
    "reset_callbacks": lambda model, tmp: model.reset_callbacks(),
    "is_triton_model": lambda model, tmp: model.is_triton_model("http://a/b"),
    "is_hub_model": lambda model, tmp: model.is_hub_model("a.pt"),  # in older releases
    "fuse": lambda model, tmp: model.fuse(),
    "load": lambda model, tmp: model.load("samplug-nano.pt"),
    "save": lambda model, tmp: model.save(tmp / "saved.pt"),
    "reset_weights": lambda model, tmp: model.reset_weights(),
    "eval": lambda model, tmp: model.eval(),
    "apply": lambda model, tmp: model.apply(lambda module: None),
    "to": lambda model, tmp: model.to("cpu"),
    "cpu": lambda model, tmp: model.cpu(),
    "float": lambda model, tmp: model.float(),
    "half": lambda model, tmp: model.half(),
    "bfloat16": lambda model, tmp: model.bfloat16(),
    "double": lambda model, tmp: model.double(),
    "type": lambda model, tmp: model.type(torch.float32),
    "share_memory": lambda model, tmp: model.share_memory(),
    "requires_grad_": lambda model, tmp: model.requires_grad_(False),
    "zero_grad": lambda model, tmp: model.zero_grad(),
    "state_dict": lambda model, tmp: model.state_dict(),
    "load_state_dict": lambda model, tmp: model.load_state_dict(model.state_dict()),
}
CALLED = {name: call for name, call in CALLED.items() if hasattr(Model, name)}
MEASURED = {"val", "benchmark", "train"}  # minutes; tests of their own
DEVICES = {"cuda", "ipu", "xpu", "mtia", "to_empty"}  # torch's own, about hardware and memory
PLUMBING = ("register_", "get_", "set_", "named_", "add_module", "buffers", "children", "modules", "parameters")
PLUMBING += ("extra_repr",)
PUBLIC = [name for name in dir(Model) if not name.startswith("_")]


@pytest.fixture
def model():
    return SAM()


@pytest.mark.host
def test_the_tables_name_every_public_attribute():
    known = {*REFUSED, *READ, *CALLED, *MEASURED, *DEVICES}
    assert [name for name in PUBLIC if name not in known and not name.startswith(PLUMBING)] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_for_sam_refuses(model, name):
    with pytest.raises(NotImplementedError, match=REFUSED[name]):
        getattr(model, name)()


@pytest.mark.parametrize("name", READ)
def test_attributes_are_there(model, name):
    if hasattr(Model, name) or name == "callbacks":
        assert isinstance(getattr(model, name), READ[name])


@pytest.mark.parametrize("name", CALLED)
def test_what_works_leaves_a_model_that_predicts(model, name, tmp_path):
    CALLED[name](model, tmp_path)
    assert len(model.predict(IMAGE, **OPTIONS)[0]) == 1


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_saved_model_is_loaded_with_the_same_weights_and_config(model, tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    model.reset_weights().save(tmp_path / f"saved{suffix}")
    again, other = SAM(tmp_path / f"saved{suffix}"), SAM().load(tmp_path / f"saved{suffix}")
    for each in (again, other):
        assert each.model.config == model.model.config
        assert same(each.model, model.model)


def test_load_takes_a_file_a_module_or_a_state_dict_of_the_same_network_alone(model, nano_file):
    drawn = load_model(nano_file)
    config = {"variant": "samplug-nano"}
    for weights in (nano_file, str(nano_file), drawn, {"model": drawn.state_dict(), "config": config}):
        loaded = SAM().load(weights)
        assert same(loaded.model, drawn)
    from samplug.checkpoints.config import build

    with pytest.raises(CheckpointError, match="weights of sam2.1_t, this network is samplug-nano"):
        model.load(build({"variant": "sam2.1_t"}))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/mine.pt", "https://a.b/sam2.1_t.pt", "ul://a/b", "grpc://a/b.pt"])
def test_an_address_is_no_model(url, tmp_path):
    for door in (SAM, load_model, SAM().load):
        with pytest.raises(CheckpointError, match="Expected a file"):
            door(url)


def test_what_is_no_name_of_a_file_is_no_model(model):
    for what in (None, 5, model, model.model):
        with pytest.raises(TypeError, match="Expected the path or the name"):
            SAM(what)


@pytest.mark.parametrize("what", [None, 5, []])
def test_what_is_no_name_of_a_file_is_refused_wherever_one_is_expected(model, what):
    shown = SAM2DynamicInteractivePredictor(overrides={"model": "samplug-nano.pt"})
    for door in (model.load, shown.save_memory, shown.load_memory, model.embed(IMAGE, imgsz=64).save, Embedding.load):
        with pytest.raises(TypeError, match="name of a file"):
            door(what)


FOLDERS = {  # how a run's folder is named
    "predict": lambda model, folder: model.predict(IMAGE, **OPTIONS, save=True, save_dir=folder),
    "project": lambda model, folder: model.predict(IMAGE, **OPTIONS, save_txt=True, project=folder),
    "track": lambda model, folder: model.track([IMAGE] * 2, **OPTIONS, save=True, save_dir=folder),
    "val": lambda model, folder: model.val(data="scenes", save_dir=folder, imgsz=128, verbose=False),
    "train": lambda model, folder: model.train(data="scenes", save_dir=folder, imgsz=128, verbose=False),
    "annotate": lambda model, folder: model.annotate(IMAGES, out=folder, verbose=False),
    "benchmark": lambda model, folder: model.benchmark(parts="encoder", save_dir=folder, imgsz=128, verbose=False),
}


@pytest.mark.parametrize("below", ["", "new"])
@pytest.mark.parametrize("verb", FOLDERS)
def test_a_folder_that_is_a_file_is_refused_before_the_work(model, tmp_path, monkeypatch, verb, below):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    monkeypatch.setattr(type(model.model), "encode", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(NotADirectoryError, match=f"{re.escape(str(file))} is no folder. Expected one, or a new name"):
        FOLDERS[verb](model, str(file / below))
    assert file.read_text() == "mine"


def test_a_network_without_values_is_named_and_may_be_loaded_anew(model, tmp_path):
    model.model.to("meta")
    calls = (lambda: model.save(tmp_path / "a.pt"), lambda: model.train(data="scenes", dry=True), model.benchmark)
    for call in (*calls, lambda: model.predict(IMAGE, **OPTIONS)):
        with pytest.raises(ValueError, match="without values"):
            call()
    assert len(model.load("samplug-nano.pt").predict(IMAGE, **OPTIONS)[0]) == 1


def test_a_buffer_without_values_is_named(model):
    model.model.maskmem_tpos_enc  # noqa: B018  the network has one
    next(module for module in model.model.modules() if dict(module.named_buffers(recurse=False))).to("meta")
    with pytest.raises(ValueError, match="without values"):
        model.predict(IMAGE, **OPTIONS)


def test_predictors_without_a_network_say_so():
    for kind in (SAM2DynamicInteractivePredictor, SAM2VideoPredictor):
        with pytest.raises(RuntimeError, match="setup_model"):
            kind(overrides={"model": "samplug-nano.pt"}).get_im_features(torch.zeros(1, 3, 64, 64))


def test_a_caller_who_records_no_gradients_may_train(model):
    with torch.inference_mode():
        model.reset_weights()
    model.model.encode(torch.zeros(1, 3, 64, 64)).image.sum().backward()
    for around in (torch.inference_mode, torch.no_grad):
        with around():
            assert model.train(data="scenes", dry=True, imgsz=64, device="cpu")


def test_benchmark_measures_the_model_it_belongs_to(model):
    with pytest.raises(TypeError, match="measures this model"):
        model.benchmark(model="other.pt")


def test_embed_takes_no_prompts(model):
    with pytest.raises(TypeError, match="embed takes no points"):
        model.embed(IMAGE, points=[[1, 1]])


@pytest.mark.host
def test_no_call_leaves_a_callback_behind():
    pytest.importorskip("lap")
    model = SAM()
    before = {event: list(functions) for event, functions in model.callbacks.items() if functions}
    model.predict(IMAGE, **OPTIONS)
    model.track([IMAGE] * 2, **OPTIONS)
    model.track(IMAGE, persist=True, points_stride=2, imgsz=128, verbose=False)
    model.track(IMAGE, persist=True, points_stride=2, imgsz=128, verbose=False)
    assert {event: functions for event, functions in model.callbacks.items() if functions} == before


@pytest.mark.parametrize("argv", [[], [""], None])
def test_a_python_without_arguments_predicts(model, monkeypatch, argv):
    if argv is None:
        monkeypatch.delattr(sys, "argv")
    else:
        monkeypatch.setattr(sys, "argv", argv)
    assert len(model.predict(IMAGE, **OPTIONS)[0]) == 1
