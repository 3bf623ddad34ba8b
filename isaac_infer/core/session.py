"""Session: the protocol of a loaded network; `engine/` has one implementation per backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np

from isaac_infer.core.tensor import TensorSpec


class Session(Protocol):
    """A network that is loaded and ready: write into its input buffers, run, read its outputs.

    One thread at a time. What `run` returns is valid until the next `run`.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the model file says of itself; empty where it says nothing."""
        ...

    @property
    def backend(self) -> str:
        """The backend and device really in use, for people: `onnxruntime CPUExecutionProvider`."""
        ...

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What was asked for and is not in use, and why, one sentence each; for log and diagnostics."""
        ...

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Give the array that the next `run` reads; the same array for the same shape, every time.

        Raises:
            TensorError: the model has no such input, or it does not take this shape.
        """
        ...

    def run(self) -> Mapping[str, np.ndarray]:
        """Run the network on what its input buffers hold and return its outputs by name.

        Raises:
            SessionError: the backend failed, or an input has no buffer yet.
        """
        ...

    def close(self) -> None:
        """Release everything; safe to call twice."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class AsyncSession(Protocol):
    """A session whose runs go on beside the CPU: `run` is `start`, then `finish`."""

    def start(self) -> None:
        """Begin a run; its input buffers must not change before `finish`."""
        ...

    def finish(self) -> Mapping[str, np.ndarray]:
        """Wait for the run that was begun and give its outputs, valid until the next one."""
        ...


@runtime_checkable
class TimedSession(Protocol):
    """A session that can tell where the time of a run goes."""

    def run_timed(self) -> Mapping[str, float]:
        """Run with all copies, and give milliseconds by name: h2d, compute, d2h, enqueue, total."""
        ...


def close_all(closings: Iterable[Callable[[], object]]) -> None:
    """Call every one of them, whatever the others raise; then raise the first error."""
    first: BaseException | None = None
    for close in closings:
        try:
            close()
        except BaseException as error:  # an interrupt too: nobody else closes the others
            first = first or error
    try:
        if first is not None:
            raise first
    finally:
        first = None  # or the error would hold this call, and all that was to be closed
