"""ControlLoop: ticks on a grid in a thread of their own, its priority and its cores."""

import os
import subprocess
import sys
import threading
import time

import pytest
from processes import wait_until

from isaac_infer.core.errors import ParameterError
from isaac_infer.ros.control_loop import ControlLoop, bind_to_cores


def test_ticks_come_at_their_rate_on_a_grid():
    dues_s = []
    loop = ControlLoop(50, dues_s.append)
    loop.start()
    assert wait_until(lambda: len(dues_s) >= 25)
    loop.close(5)
    steps = (dues_s[-1] - dues_s[0]) * 50
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert loop.pace().rate_hz > 0
    count = len(dues_s)
    time.sleep(0.1)
    assert len(dues_s) == count


def test_a_tick_that_takes_longer_costs_the_due_times_that_pass():
    ticks = []

    def tick(due_s):
        ticks.append(due_s)
        time.sleep(0.12 if len(ticks) == 1 else 0)

    loop = ControlLoop(20, tick)
    loop.start()
    assert wait_until(lambda: len(ticks) >= 3)
    loop.close(5)
    assert loop.pace().total_overruns >= 2
    assert ticks[1] - ticks[0] > 0.12


def test_closing_says_where_a_tick_does_not_end():
    go = threading.Event()
    loop = ControlLoop(100, lambda due_s: go.wait(10))
    loop.close(0)  # it has not begun
    loop = ControlLoop(100, lambda due_s: go.wait(10))
    loop.start()
    with pytest.raises(TimeoutError):
        loop.close(0.05)
    go.set()
    loop.close(5)


def test_a_priority_that_is_refused_is_told_with_the_way_out(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, 'sched_setscheduler', refuse)
    loop = ControlLoop(100, lambda due_s: None, priority=20)
    loop.start()
    assert wait_until(lambda: loop.note)
    loop.close(5)
    assert 'thread_priority: 20 is not permitted here' in loop.note
    assert 'limits.conf' in loop.note


def test_a_core_that_is_not_there_is_refused():
    with pytest.raises(ParameterError, match='cpu_affinity: expected some of the cores .* got 1023'):
        bind_to_cores([1023])


BOUND = """
import os, threading
from isaac_infer.ros.control_loop import bind_to_cores
go = threading.Event()
thread = threading.Thread(target=go.wait)
thread.start()
bind_to_cores([min(os.sched_getaffinity(0))])
print(*(len(os.sched_getaffinity(int(each))) for each in os.listdir('/proc/self/task')))
go.set()
"""


def test_all_threads_of_the_process_are_bound_also_those_that_run_already():
    done = subprocess.run([sys.executable, '-c', BOUND], capture_output=True, text=True, check=True)
    counts = done.stdout.split()
    assert len(counts) >= 2
    assert set(counts) == {'1'}
