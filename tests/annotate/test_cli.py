"""`samplug annotate` and `SAM.annotate`: the job from the shell and from a model."""

import pytest

import samplug
from samplug import SAM
from samplug.cli.modes import MODES
from samplug.errors import UsageError


def run(*arguments):
    """`samplug annotate …`, less the end of the process."""
    MODES["annotate"].run(list(arguments), "samplug")


def test_the_shell_annotates_goes_on_and_writes_other_formats(folder, nano_file, tmp_path, capsys):
    out, boxes = tmp_path / "labels", tmp_path / "boxes.json"
    run(f"source={folder}", f"prompter={boxes}", f"model={nano_file}", f"out={out}", "imgsz=64")
    assert (out / "labels" / "image1.txt").read_text()
    run(f"out={out}", "format=coco,png")
    assert (out / "annotations.json").exists() and (out / "masks" / "image1.png").exists()


@pytest.mark.parametrize(
    ("argument", "hint"),
    [("sorce=x", "source"), ("format=voc", "yolo,coco,png"), ("out=/nowhere/labels", "no job to go on with")],
)
def test_mistakes_end_in_a_line(argument, hint):
    with pytest.raises(UsageError, match=hint):
        run(argument)


def test_help_lists_every_argument(capsys):
    from samplug.annotate.settings import Settings

    run("help")
    printed = capsys.readouterr().out
    assert all(f"{name}" in printed for name in Settings.defaults())


def test_a_model_annotates_with_its_checkpoint(folder, nano_file, tmp_path):
    job = SAM(nano_file).annotate(str(folder), str(tmp_path / "boxes.json"), str(tmp_path / "out"), imgsz=64)
    assert job.settings.model == str(nano_file) and job.progress == (1, 1)


def test_the_package_is_called_like_its_verb_before_and_after_it_is_imported(folder, nano_file, tmp_path):
    import samplug.annotate.job

    given = {"imgsz": 64, "model": str(nano_file), "verbose": False}
    job = samplug.annotate(str(folder), lambda image: None, str(tmp_path / "out"), **given)
    assert isinstance(job, samplug.annotate.job.Job) and not any(record.objects for record in job.records())


def test_auto_annotate_takes_ultralytics_arguments(folder, nano_file):
    job = samplug.auto_annotate(folder, str(nano_file), str(nano_file), "cpu", imgsz=64, max_det=3)
    assert job.out == folder.with_name("images_auto_annotate_labels")
    assert (job.out / "labels" / "image1.txt").exists()
