"""ControlLoop: a thread that does the same at a fixed rate, whatever the rest of the process does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic

from isaac_infer.core.control.schedule import Pace, Schedule
from isaac_infer.core.errors import ParameterError


class ControlLoop:
    """Calls `tick(due_s)` at every due time, in a thread of its own; it begins with `start`."""

    def __init__(self, rate_hz: float, tick: Callable[[float], None], *, priority: int = 0) -> None:
        """Args:
        rate_hz: how often.
        tick: takes when it was due, by the steady clock; handles its own errors.
        priority: among the real-time threads of the machine (SCHED_FIFO); 0: an ordinary thread.
        """
        self._tick, self._rate_hz, self._priority = tick, rate_hz, priority
        self.note = ''  # what was asked for and is not so, and the way out
        self._closing = threading.Event()
        self._schedule = Schedule(rate_hz, monotonic())
        self._lock = threading.Lock()  # around the schedule
        self._thread = threading.Thread(target=self._run, name='control', daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pace(self) -> Pace:
        """How well the due times were kept lately; any thread may ask."""
        with self._lock:
            return self._schedule.pace(monotonic())

    def close(self, timeout_s: float) -> None:
        """End the thread after the tick that is under way; safe to call twice.

        Raises:
            TimeoutError: that does not end.
        """
        self._closing.set()
        if self._thread.ident is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f'the control thread is busy for {timeout_s:g} s; leaving without it')

    def _run(self) -> None:
        self.note = prefer_this_thread(self._priority)
        self._schedule = schedule = Schedule(self._rate_hz, monotonic())
        while not self._closing.wait(max(schedule.due_s - monotonic(), 0)):
            self._tick(schedule.due_s)
            with self._lock:
                schedule.done(monotonic())


def prefer_this_thread(priority: int) -> str:
    """Make a real-time thread of this one (SCHED_FIFO), 0: leave it; say where that is not permitted."""
    if not priority:
        return ''
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return (
            f'thread_priority: {priority} is not permitted here, so that the thread is an ordinary one; give '
            'the user "rtprio" in /etc/security/limits.conf, or set it to 0'
        )
    return ''


def bind_to_cores(cores: list[int]) -> None:
    """Let this process, with all threads that it starts from now on, run on these cores alone.

    Raises:
        ParameterError: one of them is not there, or not for this process.
    """
    allowed = os.sched_getaffinity(0)
    if missing := sorted(set(cores) - allowed):
        raise ParameterError(
            f'cpu_affinity: expected some of the cores {_listed(allowed)} that this process may use, got '
            f'{_listed(missing)}'
        )
    for thread in os.listdir('/proc/self/task'):  # those of the middleware run already
        try:
            os.sched_setaffinity(int(thread), cores)
        except ProcessLookupError:  # it has ended meanwhile
            continue


def _listed(cores: set[int] | list[int]) -> str:
    return ', '.join(map(str, sorted(cores)))
