"""Machines without room or without a GPU: full disks, folders of somebody else, full GPUs, and GPUs in name only."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


def rows_in(given, named):
    return len(given[0])


def prompts_in(given, named):
    return len(given[2] if len(given) > 2 else named["sparse_prompt_embeddings"])


@contextmanager
def room_for(module, most, count=rows_in):
    """Let a module run out of memory with more than so many of what `count` counts in its inputs."""

    def hook(_, given, named):
        if count(given, named) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def said_of_memory(lines):
    return [line[line.index("The GPU") :] for line in lines if "memory is full" in line]


# GPUs, and a CPU that is as strict about waiting

HAS_GPU = torch.cuda.is_available()
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not HAS_GPU, reason="needs a GPU"))
DEVICES = ["cpu", GPU]


def gpu_or_fake():
    """Where tensors of the device "cuda" can be made: on a GPU, or without values on a CPU that has none."""
    return nullcontext() if HAS_GPU else FakeTensorMode()


def placed(model):
    """Give a model tensors of the device "cuda", without their values."""
    for module in model.modules():
        for name, tensor in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.zeros(tensor.shape, device="cuda"), requires_grad=False))
        for name, tensor in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros(tensor.shape, dtype=tensor.dtype, device="cuda"))
    return model.eval()


class CopiesDoNotWait(TorchDispatchMode):
    """Refuses copies between devices that a GPU is waited for; tensors without values refuse to be read themselves."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs, result = kwargs or {}, operator(*args, **(kwargs or {}))
        if operator in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if operator is torch.ops.aten.copy_.default else args[0]
            goes = source.device.type, result.device.type
            if goes[0] != goes[1] and not (kwargs.get("non_blocking", len(args) > 2 and args[2]) and goes[0] == "cpu"):
                raise RuntimeError(f"a copy from {goes[0]} to {goes[1]} waits for the GPU")
        return result


class NumbersAreNotCopied(TorchFunctionMode):
    """Refuses tensors on a GPU that are made of numbers, which is a copy that waits."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.is_cuda:
            raise RuntimeError(f"{function.__name__} of numbers waits for the GPU")
        return result


@contextmanager
def no_waiting():
    """Let what waits for the GPU fail."""
    if not HAS_GPU:
        with CopiesDoNotWait(), NumbersAreNotCopied():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def little_memory(device, module, count, most, run):
    """Let memory run out for so much of a run, but not for half of it: the GPU's, or for so many rows of a module."""
    if device == "cpu":
        with room_for(module, most, count):
            yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    room = before + 0.75 * (torch.cuda.max_memory_allocated() - before)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
