"""Atomic writes, and the archives that are refused before they are opened."""

import os
import stat
import zipfile

import numpy as np
import pytest

from samplug.files.atomic import atomic_write, find_archive_fault


def test_a_written_file_is_there_whole_and_leaves_nothing_beside_it(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_name_lies_in_the_same_folder_and_keeps_the_suffix(tmp_path):
    with atomic_write(tmp_path / "a.npz") as temporary:
        np.savez(temporary, x=np.zeros(2))
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
    assert np.load(tmp_path / "a.npz")["x"].shape == (2,)


def test_a_link_still_points_to_the_file_after_it_was_written_through(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_write(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_a_new_file_has_the_rights_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"), atomic_write(tmp_path / "nowhere/a"):
        pass


def test_a_sound_archive_has_no_fault(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(100))
    assert find_archive_fault(tmp_path / "a.npz") == ""


def test_a_cut_archive_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(100))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in find_archive_fault(tmp_path / "a.npz")


def test_a_flipped_bit_is_told_with_the_entry_it_is_in(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(100))
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[400] ^= 16
    (tmp_path / "a.npz").write_bytes(damaged)
    assert find_archive_fault(tmp_path / "a.npz") == "the checksum of its entry 'x.npy' is wrong"


def test_an_archive_that_could_unpack_to_any_size_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10**6))
    assert "compressed" in find_archive_fault(tmp_path / "bomb.npz")


def test_entries_that_lie_over_each_other_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", bytes(1000))
        archive.filelist *= 10  # the same bytes under ten entries
    assert "larger than the file" in find_archive_fault(tmp_path / "a.npz")
