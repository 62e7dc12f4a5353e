"""The command line: words to arguments, refusals at once, and an image segmented from the shell."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml

from samplug.arguments import OWN
from samplug.cli import main
from samplug.cli.main import is_for_sam
from samplug.cli.modes import MODES, run_sam, user_errors
from samplug.cli.parse import HOST_MODES, host_defaults, merge, read, read_settings, read_value
from samplug.errors import UsageError


def refused(*words):
    with pytest.raises(UsageError) as caught:
        read(merge(list(words)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def files(images, tmp_path, monkeypatch):
    """A folder of three drawn images, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), image)
    return tmp_path


@pytest.fixture
def predict(files, nano_file):
    """Runs `samplug predict` on the small random network, into the folder `out`."""

    def run(*words, mode="predict"):
        main.samplug(merge([mode, f"model={nano_file}", f"project={files}", "name=out", *words]))
        return files / "out"

    return run


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["sam", "predict", "source=a.jpg"],
        ["source", "=", "a.jpg", "conf=", "0.5", "iou", "=0.7"],
        ["points=[[500,", "375],", "[1,2]]", "labels=[1,", "0]"],
        ["conf=", "iou=0.7"],
        ["source=a=b.jpg", "name=x"],
        ["source=a[1].jpg"],
    ],
)
def test_words_are_joined_as_the_host_joins_them(words):
    from ultralytics.cfg import merge_equals_args

    assert merge(words) == merge_equals_args(list(words))


def test_spaces_round_the_sign_and_in_brackets_may_come_together():
    assert merge(["points", "=", "[[500,", "375]]", "save_txt"]) == ["points=[[500,375]]", "save_txt"]


@pytest.mark.host
@pytest.mark.parametrize(
    "text", ["1", "0.5", "none", "TRUE", "false", "bus.jpg", "[[1, 2]]", "0,1", "rtsp://a/b", "{'a': 1}", "'x'"]
)
def test_values_are_read_as_the_host_reads_them(text):
    from ultralytics.cfg import smart_value

    assert read_value("source", text) == smart_value(text)


def test_a_run_called_by_a_number_keeps_its_name():
    assert read(["name=007", "project=12"])[1] == {"name": "007", "project": "12"}


@pytest.mark.host
def test_the_table_of_the_host_is_read_without_importing_it():
    from ultralytics.utils import DEFAULT_CFG_DICT

    assert host_defaults() == DEFAULT_CFG_DICT


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("sam", True),
        ("sam predict source=x", True),
        ("predict sam", True),
        ("source=x sam", True),
        ("predict task=sam", True),
        ("predict task = sam", True),
        ("predict", False),
        ("", False),
        ("detect predict source=sam", False),
        ("detect predict source = sam", False),
        ("login sam", False),
        ("settings sam=1", False),
        ("solutions count source=sam", False),
        ("predict model=sam2.1_b.pt", False),
    ],
)
def test_only_the_task_sam_is_claimed(line, ours):
    assert is_for_sam(merge(line.split())) is ours


def test_arguments_of_both_tables_are_read_with_their_types():
    mode, settings = read(
        merge(["predict", "source=a.jpg", "points=[[500,", "375]]", "labels=[1]", "conf=0.5", "save_txt", "device=0,1"])
    )
    assert mode == "predict"
    assert settings == {
        "source": "a.jpg",
        "points": [[500, 375]],
        "labels": [1],
        "conf": 0.5,
        "save_txt": True,
        "device": (0, 1),
    }


def test_dashes_commas_and_spelled_out_words_are_forgiven():
    assert read(["--mode=predict,", "--save_txt", "half"]) == ("predict", {"save_txt": True, "half": True})


@pytest.mark.parametrize("word", ["hide_labels", "half", "save_dir=x", "boxes=False", "line_thickness=2"])
def test_older_spellings_of_the_host_are_passed_on(word):
    assert list(read([word])[1]) == [word.split("=")[0]]


def test_a_near_miss_is_named():
    assert refused("pointz=1") == "'pointz' is not an argument. Similar arguments: points."
    assert "bboxes" in refused("bbox=[[1,2,3,4]]")
    assert "predict" in refused("predct")
    assert "`samplug help`" in refused("qqqq")
    with pytest.raises(UsageError, match="'qqqq' is not an argument. `samplug val help` lists the arguments."):
        read_settings(["qqqq=1"], {"data": None}, "val")


def test_boxes_is_not_mistaken_for_bboxes():
    assert "did you mean bboxes" in refused("boxes=[[1,2,3,4]]")


def test_unfinished_words_are_refused():
    assert refused("source=") == "'source=' has no value."
    assert "needs a value" in refused("conf")
    assert "needs a value" in refused("points")
    assert "bracket" in refused("points=[[1,2]", "conf=1")
    assert "no task 'cook'" in refused("task=cook")


@pytest.mark.parametrize("mode", [mode for mode in HOST_MODES if mode not in MODES])
def test_a_mode_that_does_not_exist_says_which_do(mode):
    with pytest.raises(UsageError, match=f"no mode '{mode}' for sam; it has predict"):
        run_sam(["sam", mode, "data=x.yaml"], "yolo sam")


# Files ----------------------------------------------------------------------------------------------------------------


def test_prompts_are_read_from_files(tmp_path):
    prompts = {"bboxes": [[1, 2, 3, 4]], "labels": None}
    (tmp_path / "p.json").write_text(json.dumps(prompts))
    assert read([f"prompts={tmp_path}/p.json"])[1]["prompts"] == f"{tmp_path}/p.json"  # read by Prompts
    assert read([f"prompts=@{tmp_path}/p.json"])[1]["prompts"] == prompts
    (tmp_path / "points.json").write_text("[[500, 375]]")
    assert read([f"points=@{tmp_path}/points.json"])[1]["points"] == [[500, 375]]
    assert read(["masks=mask.png"])[1]["masks"] == "mask.png"


def test_a_file_of_prompts_that_is_absent_or_broken_is_one_line(tmp_path):
    assert "cannot be read: No such file" in refused(f"points=@{tmp_path}/none.json")
    (tmp_path / "broken.json").write_text("[[1, 2")
    assert "is not JSON" in refused(f"prompts=@{tmp_path}/broken.json")


def test_a_cfg_file_gives_what_the_words_do_not(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("task: detect\nmode: predict\nconf: 0.1\niou:\npoints: [[1, 2]]\nlr0: 0.01\n")
    assert read([f"cfg={path}", "conf=0.5"]) == ("predict", {"conf": 0.5, "points": [[1, 2]]})
    assert read(["conf=0.5", f"cfg={path}"]) == ("predict", {"conf": 0.5, "points": [[1, 2]]})


@pytest.mark.host
def test_a_copy_of_the_hosts_own_cfg_is_taken(tmp_path):
    from ultralytics.utils import DEFAULT_CFG_DICT

    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(DEFAULT_CFG_DICT))
    mode, settings = read(["predict", f"cfg={path}"])
    assert mode == "predict" and settings["imgsz"] == 640 and "lr0" not in settings and "model" not in settings


def test_a_wrong_cfg_file_is_one_line(tmp_path):
    assert "cannot be read" in refused(f"cfg={tmp_path}/none.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    assert "not YAML" in refused(f"cfg={tmp_path}/a.yaml")
    (tmp_path / "b.yaml").write_text("- 1")
    assert "name: value" in refused(f"cfg={tmp_path}/b.yaml")
    (tmp_path / "c.yaml").write_text("pointz: 1")
    assert "Similar arguments: points" in refused(f"cfg={tmp_path}/c.yaml")


# Answers without work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["", "help", "--help", "-h", "sam", "predict help", "sam help"])
def test_help_names_every_argument_of_ours(words, capsys):
    main.samplug(words.split())
    text = capsys.readouterr().out
    assert "samplug predict" in text
    assert all(f" {name} " in text for name in OWN)
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize(
    "words", ["help", "version", "predict pointz=1", "train", "predict source=x boxes=[[1,2,3,4]]"]
)
def test_help_and_refusals_import_nothing_heavy(words):
    script = (
        "import sys; sys.argv[1:] = sys.argv[1].split(); from samplug.cli.main import main\n"
        "try: main()\n"
        "finally: print('HEAVY', *sorted({'torch', 'ultralytics', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY"
    assert (done.returncode, bool(done.stderr)) in ((0, False), (1, True))
    assert done.stderr.count("\n") <= 1


@pytest.mark.parametrize("line", ["detect predict model=x", "predict task=pose", "settings", "copy-cfg", "segment"])
def test_other_tasks_and_commands_are_the_hosts(line):
    assert main.is_for_host(line.split())


@pytest.mark.parametrize("line", ["", "predict source=detect", "sam predict", "source=x"])
def test_our_words_stay_ours(line):
    assert not main.is_for_host(line.split())


@pytest.mark.slow
def test_another_task_is_handed_to_the_host():
    done = subprocess.run(
        [sys.executable, "-c", "from samplug.cli.main import main; main()", "detect", "predict", "sourcee=x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "sourcee" in done.stderr and "is not a valid YOLO argument" in done.stderr


# Work -----------------------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_an_image_is_segmented_and_saved(predict):
    out = predict("source=in/0.png", "points=[[60, 80], [200, 120]]", "labels=[1, 1]", "save_txt")
    drawn = cv2.imread(str(next(out.glob("0.*"))))
    assert drawn.shape == (240, 320, 3)
    assert len((out / "labels" / "0.txt").read_text().splitlines()) == 2


@pytest.mark.host
def test_a_folder_is_streamed(predict, files, monkeypatch):
    from samplug.predict.results.mask_results import MaskResults as Results

    alive = []
    stock = Results.verbose

    def living():
        gc.collect()
        return sum(type(item) is Results for item in gc.get_objects())

    def counting(result):
        alive.append(living())
        return stock(result)

    before = living()  # fixtures of other tests keep theirs
    monkeypatch.setattr(Results, "verbose", counting)
    out = predict("source=in", "bboxes=[[20, 30, 120, 90]]")
    assert len(list(out.glob("*.*"))) == 3
    assert len(alive) == 3 and max(alive) <= before + 2, "results pile up"


def test_masks_and_files_of_prompts_reach_the_network(predict, files, images):
    mask = (images[0][..., 0] > 128) * 255
    cv2.imwrite("mask.png", mask)
    predict("source=in/0.png", "masks=mask.png")
    (files / "p.json").write_text('{"points": [[60, 80]], "cls": [3], "names": {"3": "lamp"}}')
    out = predict("source=in/0.png", "prompts=p.json", "save_txt", "exist_ok=True")
    assert (out / "labels" / "0.txt").read_text().startswith("3 ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["source=in/0.png", "points=[[6000, 80]]"], "outside the image"),
        (["source=in/0.png", "points=[[1, 2, 3]]"], "points"),
        (["source=none.png", "points=[[1, 2]]"], "none.png"),
        (["source=in/0.png", "model=none.pt"], "none.pt"),
        (["source=in/0.png", "model=in/0.png"], "0.png"),
        (["source=in/0.png", "conf=high"], "conf"),
        (["source=in/0.png", "multimask=some"], "multimask"),
        (["source=in/0.png", "resize=crop"], "letterbox"),
        (["source=in/0.png", "imgsz=large"], "imgsz"),
        (["source=in/0.png", "device=99"], "device"),
        (["source=in/0.png", "prompts=none.json"], "none.json"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(predict, words, message):
    with pytest.raises(UsageError) as caught:
        predict(*words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def clip(files, images):
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (320, 240))
    for _ in range(2):
        writer.write(images[0])
    writer.release()
    return "clip.avi"


def test_a_video_is_followed_and_its_labels_carry_ids(predict, clip):
    out = predict(f"source={clip}", "bboxes=[[20, 30, 120, 140]]", "obj_ids=[7]", "save_txt", mode="track")
    lines = [path.read_text().split() for path in sorted((out / "labels").glob("clip_*.txt"))]
    assert len(lines) == 2 and (out / "clip.avi").stat().st_size > 0
    assert all(line[-1] == "7" for line in lines if line)


@pytest.mark.parametrize(
    "prompts",
    [
        "{0: {4: {'bboxes': [20, 30, 120, 140]}}, 1: {9: {'points': [200, 120]}}}",
        '{"0": {"4": {"bboxes": [20, 30, 120, 140]}}, "1": {"9": {"points": [200, 120]}}}',
        "@plan.json",
        "plan.json",
    ],
    ids=["numbers", "text", "file by @", "file"],
)
def test_prompts_by_frame_and_object_are_taken_in_line_and_from_files(predict, clip, prompts):
    plan = {0: {4: {"bboxes": [20, 30, 120, 140]}}, 1: {9: {"points": [200, 120]}}}
    Path("plan.json").write_text(json.dumps(plan))
    out = predict(f"source={clip}", f"prompts={prompts}", "save_txt", "keep_lost=True", mode="track")
    ids = [[line.split()[-1] for line in (out / "labels" / f"clip_{i}.txt").read_text().splitlines()] for i in (0, 1)]
    assert ids[0] == ["4"] and set(ids[1]) <= {"4", "9"} and "9" in ids[1]


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ValueError, match="a bug"), user_errors():
        raise ValueError("a bug")


def test_the_console_script_prints_the_line_and_fails(monkeypatch, files, nano_file):
    monkeypatch.setattr(sys, "argv", ["samplug", "predict", f"model={nano_file}", "source=none.png"])
    with pytest.raises(SystemExit, match="^samplug: .*none.png"):
        main.main()


def test_a_reader_that_has_seen_enough_is_no_mistake():
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", "import sys; from samplug.cli.main import main; sys.argv[1:] = ['help']; main()"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_yolo_segments_saves_and_prints(files, nano_file):
    words = ["sam", "predict", f"model={nano_file}", "source=in", "bboxes=[[20,", "30,", "120,", "90]]", "save_txt"]
    words += [f"project={files}", "name=out"]
    yolo = Path(sys.executable).with_name("yolo")
    done = subprocess.run([str(yolo), *words], capture_output=True, text=True, cwd=files)
    assert done.returncode == 0, done.stderr
    assert len(list((files / "out" / "labels").glob("*.txt"))) == 3
    assert "image 3/3" in done.stdout and "Results saved to" in done.stdout


@pytest.mark.parametrize("name", ["model", "data", "split", "out", "tuned", "save_dir", "project", "name"])
def test_a_file_or_folder_called_by_a_number_keeps_its_name(name):
    for text in ("2024", "007", "1e5", "1_000"):
        assert read_value(name, text) == text
    assert read_value(name, "none") is None
