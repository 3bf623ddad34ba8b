"""Worker: one thread that owns a session; a newer frame takes the place of one that still waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar('Item')


class Worker(Generic[Item]):
    """A thread that makes calls in order and, between them, works on the newest frame."""

    def __init__(self, work: Callable[[Item], None]) -> None:
        """Start the thread; `work` handles one frame and its own errors."""
        self._work = work
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._newest: list[Item] = []  # at most one
        self._closing = False
        self._changed = threading.Condition()
        # A daemon: a backend that never returns must not keep the process alive after Ctrl-C.
        self._thread = threading.Thread(target=self._loop, name='inference', daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Have a function called by the thread, after those before it."""
        future: Future[Any] = Future()
        with self._changed:
            self._calls.append((future, function))
            self._changed.notify()
        return future

    def offer(self, item: Item) -> bool:
        """Hand over a frame; tell whether an older one, not yet begun, had to go for it."""
        with self._changed:
            replaced = bool(self._newest)
            self._newest[:] = [item]
            self._changed.notify()
        return replaced

    @property
    def is_waited_for(self) -> bool:
        """Whether a frame waits already."""
        return bool(self._newest)

    def forget(self) -> bool:
        """Drop the frame that waits; tell whether one did."""
        with self._changed:
            waited = bool(self._newest)
            self._newest.clear()
        return waited

    def close(self, timeout_s: float | None = None) -> None:
        """End the thread after the calls that wait; safe to call twice.

        Raises:
            TimeoutError: it is still busy.
        """
        with self._changed:
            self._closing = True
            self._newest.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f'the model is busy for {timeout_s:g} s; leaving without it')

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (self._calls or self._newest or self._closing):
                    self._changed.wait()
                if self._calls:
                    future, function = self._calls.popleft()
                elif self._newest:
                    future, item = None, self._newest.pop()
                else:
                    return
            if future is None:
                self._work(item)
                del item  # a picture is large; do not keep it until the next one comes
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # belongs to whoever asked for the call
                future.set_exception(error)
            del future, function
