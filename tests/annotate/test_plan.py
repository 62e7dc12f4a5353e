"""What a source holds, and how it is cut into shards."""

import json
from contextlib import nullcontext

import cv2
import numpy as np
import pytest

from samplug.annotate.plan import Shard, Source, check_names, find_sources, shards_of, update_plan
from samplug.annotate.work.prompters import prompts_in
from samplug.errors import JobError


def names(source, before=""):
    return [each.name for each in find_sources(source, before)[1]]


@pytest.fixture
def tree(tmp_path):
    """Images in two folders, one of them with a number that text would sort otherwise, and what is none."""
    for name in ("a10.png", "a9.png", "b/2.png", "b/c/1.jpg", ".hidden/x.png", "notes.txt", "clip.mp4"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    return tmp_path / "tree"


def test_a_folder_is_walked_in_natural_order(tree):
    assert names(tree) == ["a9.png", "a10.png", "clip.mp4", "b/2.png", "b/c/1.jpg"]
    assert find_sources(tree)[0] == str(tree)


def test_globs_lists_and_single_files(tree):
    assert names(f"{tree}/*.png") == ["a10.png", "a9.png"]
    assert names([tree / "b" / "2.png", tree / "a9.png"]) == ["b/2.png", "a9.png"]
    assert names([tree / "b", tree / "b" / "2.png"]) == ["2.png", "c/1.jpg"]
    (tree / "list.txt").write_text("b/2.png\nb/c/1.jpg\n")
    assert names(tree / "list.txt") == ["2.png", "c/1.jpg"]


def test_a_data_yaml_names_the_images_of_its_splits(tree):
    (tree.parent / "data.yaml").write_text("path: tree\ntrain: [b]\nval: a9.png\n")
    assert names(tree.parent / "data.yaml") == ["b/2.png", "b/c/1.jpg", "a9.png"]
    (tree.parent / "data.yaml").write_text("- a\n")
    with pytest.raises(JobError, match=r"data.yaml.*Expected path, train and val"):
        find_sources(tree.parent / "data.yaml")


def test_names_stay_those_of_the_job_when_a_list_grows(tree):
    assert names([tree / "b" / "2.png"]) == ["2.png"]
    assert names([tree / "b" / "2.png"], str(tree)) == ["b/2.png"]
    with pytest.raises(JobError, match="where the job was begun"):
        find_sources([tree / "b" / "2.png", tree / "a9.png"], str(tree / "b"))


def test_a_job_stays_with_its_folder(tree):
    """Names and times of two folders may be the same, as of frames of two cameras."""
    with pytest.raises(JobError, match=r"is not below .*b, where the job was begun. Use another out="):
        find_sources(tree, str(tree / "b"))
    with pytest.raises(JobError, match="where the job was begun"):
        find_sources(tree / "b", str(tree / "gone"))
    assert names(tree / "b", str(tree)) == ["b/2.png", "b/c/1.jpg"]
    (tree.parent / "link").symlink_to(tree)
    assert names(tree.parent / "link", str(tree)) == names(tree)


def test_a_video_is_a_shard_and_images_come_in_shards_before_them():
    sources = [Source(name, f"/x/{name}", 1, 1) for name in ("a.png", "b.mp4", "c.png", "d.png")]
    shards = shards_of(sources, 2)
    assert [[source.name for source in shard.sources] for shard in shards] == [["a.png", "c.png"], ["d.png"], ["b.mp4"]]
    assert [shard.is_video for shard in shards] == [False, False, True]


def test_an_id_follows_from_names_sizes_and_times_not_from_where_they_lie():
    sources = [Source("a.png", "/x/a.png", 1, 2)]
    moved, touched = sources[0]._replace(path="/y/a.png"), sources[0]._replace(mtime_ns=3)
    assert Shard(tuple(sources)).id == Shard((moved,)).id != Shard((touched,)).id


def test_a_changed_source_drops_its_shard_alone():
    sources = [Source(f"{i}.png", f"/x/{i}.png", 1, 1) for i in range(4)]
    before, _ = update_plan([], sources, 2)
    sources[0] = sources[0]._replace(size=9)
    shards, dropped = update_plan(before, [*sources, Source("new.png", "/x/new.png", 1, 1)], 2)
    assert dropped == [before[0]] and shards[0] == before[1]
    assert [source.name for shard in shards[1:] for source in shard.sources] == ["0.png", "1.png", "new.png"]


def test_what_a_job_has_written_is_no_source(tree):
    job = tree / "b" / "labels"
    (job / "images").mkdir(parents=True)
    (job / "images" / "2.png").symlink_to(tree / "b" / "2.png")
    assert "b/labels/images/2.png" in names(tree)
    (job / "plan.jsonl").touch()
    assert names(tree) == ["a9.png", "a10.png", "clip.mp4", "b/2.png", "b/c/1.jpg"]
    assert names(job / "images") == ["2.png"]


@pytest.mark.parametrize(
    ("formats", "others", "refused"),
    [
        ("yolo", ["a.jpg", "a.png"], True),
        ("coco,png", ["a.jpg", "a.png"], True),
        ("sa", ["a.jpg", "a.mp4"], True),
        ("yolo", ["a.jpg", "a.mp4", "b/a.jpg"], False),
        ("coco,cvat", ["a.jpg", "a.png"], False),
    ],
)
def test_two_names_of_one_label_file_are_refused(formats, others, refused):
    sources = [Source(name, f"/x/{name}", 1, 1) for name in others]
    with pytest.raises(JobError, match=f"{others[0]} and {others[1]} .*format=coco") if refused else nullcontext():
        check_names(sources, formats.split(","))


def test_prompts_under_a_file_name_are_not_those_of_another_image_of_that_name(tmp_path):
    for name in ("a.jpg", "x/a.jpg", "x/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "p.json").write_text(json.dumps({name: {"points": [[5, 5]]} for name in ("a.jpg", "b.jpg")}))
    find = prompts_in(tmp_path / "p.json")
    for name, count in (("a.jpg", 1), ("x/a.jpg", 0), ("x/b.jpg", 1)):
        assert len(find(Source(name, str(tmp_path / name), 0, 0), (20, 20))) == count
