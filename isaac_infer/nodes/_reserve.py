"""Reserve: whether there is memory for a model, and enough is left once it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isaac_infer.core.errors import SessionError
from isaac_infer.jetson.board import ROOT
from isaac_infer.jetson.memory import read_memory

MB = 1_000_000


@contextmanager
def reserved(path: Path, *, memory_mb: int, gpu_memory_mb: int) -> Iterator[None]:
    """Load a model in the block: with less memory than that left, before or after, it is refused.

    Before, at least as much as the size of its file has to be there besides.

    Args:
        path: the file of the model.
        memory_mb: that has to stay free; 0: not looked at.
        gpu_memory_mb: the same of the GPU; 0 also where the model does not run on it.

    Raises:
        SessionError: there is too little; whoever has loaded the model closes it then.
    """
    needed = path.stat().st_size
    _check(path, memory_mb, gpu_memory_mb, needed)
    yield
    _check(path, memory_mb, gpu_memory_mb, 0)


def _check(path: Path, memory_mb: int, gpu_memory_mb: int, needed: int) -> None:
    if memory_mb:
        _compare(path, 'memory_reservation_mb', memory_mb, read_memory(ROOT).ram_available_bytes, needed)
    if gpu_memory_mb:
        from isaac_infer.engine.cuda import Gpu  # which needs PyCUDA

        gpu = Gpu()
        with gpu.current():
            free = gpu.free_bytes()
        _compare(path, 'gpu_memory_reservation_mb', gpu_memory_mb, free, needed)


def _compare(path: Path, parameter: str, wanted_mb: int, free: int | None, needed: int) -> None:
    if free is None:
        raise SessionError(f'{parameter}: how much memory is free cannot be read; set it to 0')
    if free - needed < wanted_mb * MB:
        what = f'{free / MB:.0f} MB are free before it is loaded, its file has {needed / MB:.0f} MB'
        if not needed:
            what = f'{free / MB:.0f} MB are free with it loaded'
        raise SessionError(
            f'{path.name}: {what}, and {parameter} wants {wanted_mb} MB to stay free; use a lighter model, '
            'close other programs, or lower it'
        )
