"""A GPU without memory, as far as a CPU can be one, for the tests of what happens then."""

from contextlib import contextmanager

import torch


def rows_in(given, named):
    return len(given[0])


def prompts_in(given, named):
    return len(named["sparse_prompt_embeddings"])


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
