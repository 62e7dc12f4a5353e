"""The arguments of training: Ultralytics' words, ours, refused ones, near misses."""

import re

import pytest

from samplug.arguments import arguments_of
from samplug.cli import main
from samplug.cli.parse import host_defaults, merge
from samplug.errors import UsageError
from samplug.train.fit.learner import mean_decay, rate_factor
from samplug.train.settings import OF_RUN, REFUSED, TrainSettings

OTHER_MODES = """task mode model conf iou max_det dnn source vid_stride stream_buffer visualize augment agnostic_nms
    retina_masks embed show save_frames save_txt save_conf save_crop show_labels show_conf show_boxes line_width format
    keras end2end optimize int8 dynamic simplify opset workspace nms save_json tracker cfg channels_last"""


@pytest.mark.host
def test_every_word_of_ultralytics_training_is_taken_or_refused_with_a_reason():
    known = {*TrainSettings.defaults(), *REFUSED, *OTHER_MODES.split()}
    assert [name for name in host_defaults() if name not in known] == []
    assert not REFUSED.keys() & TrainSettings.defaults().keys()


@pytest.mark.parametrize("name", ["mosaic", "box", "momentum", "nbs", "dropout"])
def test_a_word_without_meaning_is_refused_by_name_with_the_reason(name):
    with pytest.raises(TypeError, match=f"'{name}' is not an argument of SAM's training: {REFUSED[name][:20]}"):
        TrainSettings.read({"data": "a.yaml", name: 1})
    with pytest.raises(UsageError, match=f"'{name}' is not an argument of SAM's training"):
        main.samplug(merge(["train", "data=a.yaml", f"{name}=1"]))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"learn": "encoder"}, "learn='encoder': give one of 'token', 'decoder'"),
        ({"epochs": 0}, "epochs=0: give a number of epochs, 1 or more"),
        ({"batch": 0.5}, "batch=0.5: give a number of images, or auto"),
        ({"lr0": 0}, "lr0=0: give a learning rate above 0"),
        ({"amp": "fp16"}, "amp='fp16': give one of True, False, 'bf16'"),
        ({"imgsz": "large"}, "imgsz='large': give pixels"),
        ({"device": "0,cpu"}, "device=0,cpu: give one device, numbers of GPUs as in 0,1, or cpu,cpu"),
        ({"device": "1,1"}, "give one device, numbers of GPUs"),
        ({"device": "0,1,2", "batch": 2}, "batch=2 on 3 devices: give a number of images, at least one a device"),
        ({"data": "scenes", "device": "0,1"}, "drawn data are learned from on one device"),
        ({"keep": 1}, "keep=1: give a share, 0 or more and below 1"),
        ({"data": None}, "train needs data=: scenes, a data.yaml"),
        ({"data": "scenes", "fliplr": 0.1}, "fliplr=0.1 means nothing where data=scenes"),
        ({"data": "scenes", "features": "disk"}, "features=disk means nothing where data=scenes"),
        ({"data": "scenes", "level": [0, 2]}, "level=[0, 2]: give a number from 0 to 1, or two"),
        ({"data": "scenes", "imgsz": [64, 96]}, "imgsz=[64, 96]: drawn inputs are squares"),
        ({"steps": 5}, "steps=5 means nothing where data=files"),
        ({"pretrained": False}, "pretrained=False means nothing where data=files"),
    ],
)
def test_a_wrong_value_is_refused_in_python_and_in_the_shell(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainSettings.read({"data": "a.yaml", **given})
    words = [f"{name}={value}" for name, value in {"data": "a.yaml", **given}.items() if value is not None]
    with pytest.raises(UsageError, match=re.escape(message)):
        main.samplug(merge(["train", *words]))


def test_a_near_miss_names_the_argument():
    with pytest.raises(TypeError, match="Did you mean epochs"):
        TrainSettings.read({"data": "a.yaml", "epoch": 3})
    with pytest.raises(UsageError, match="Similar arguments: patience"):
        main.samplug(["train", "data=a.yaml", "patince=3"])


def test_help_has_a_line_for_every_argument_and_names_the_refused(capsys):
    main.samplug(["train", "help"])
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in arguments_of(TrainSettings))
    assert all(name in text for name in REFUSED)
    assert max(map(len, text.splitlines())) <= 140


def test_arguments_come_from_a_file_too_and_the_call_wins(tmp_path):
    (tmp_path / "args.yaml").write_text("task: segment\nmodel: x.pt\ndata: a.yaml\nepochs: 3\nlearn: token\n")
    settings = TrainSettings.read({"cfg": tmp_path / "args.yaml", "epochs": 4})
    assert (settings.data, settings.epochs, settings.learn) == ("a.yaml", 4, "token")
    with pytest.raises(ValueError, match="is no file of settings"):
        TrainSettings.read({"cfg": tmp_path / "gone.yaml"})


def test_what_does_not_change_the_weights_may_change_when_a_run_goes_on():
    assert set(OF_RUN) <= TrainSettings.defaults().keys()
    one, other = (TrainSettings.read({"data": "a.yaml", "device": device}) for device in ("cpu", "0"))
    assert one.of_weights == other.of_weights
    assert one.of_weights != TrainSettings.read({"data": "a.yaml", "seed": 1}).of_weights


def test_rates_rise_and_fall():
    rates = [rate_factor(step, 100, 10, 0.1) for step in range(100)]
    assert rates[:11] == sorted(rates[:11]) and rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rate_factor(55, 100, 10, 0.1, cosine=False) == pytest.approx(0.55)
    late = [rate_factor(step, 100, 10, 0.1, cooldown=0.4) for step in range(100)]
    assert late[10:61] == [1] * 51 and late[60:] == sorted(late[60:], reverse=True) and late[-1] < 0.11
    assert rate_factor(0, 5, 100, 0.1) == pytest.approx(0.5)  # a warm-up is a fifth of all steps, at most


def test_the_running_mean_looks_back_over_fewer_steps_in_a_short_run():
    assert mean_decay(1, 10_000, 0.998) == pytest.approx(2 / 11)
    assert mean_decay(10_000, 10_000, 0.998) == 0.998
    assert mean_decay(90, 100, 0.998) == pytest.approx(0.91, abs=0.05)
    assert mean_decay(9, 100, 0.0) == 0
