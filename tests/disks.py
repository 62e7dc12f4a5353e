"""Disks that are full and folders of somebody else, for the tests of what is written."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")


@contextmanager
def no_file_longer_than(size):
    """What a full disk does to writers, for this process; the disk itself does not look full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder, size):
    """A disk of so many bytes in an empty folder; skips the test where nobody may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("cannot mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def as_somebody_else(folder, *writable):
    """Be one who may look everywhere down to a folder, and write nowhere but in some folders."""
    for each in [folder, *list(folder.parents)[:-2]]:
        os.chmod(each, each.stat().st_mode & ~0o022 | 0o055)
    for each in writable:
        os.chmod(each, 0o777)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
