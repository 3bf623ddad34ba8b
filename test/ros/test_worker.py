"""The worker makes calls in order and works on the newest frame."""

import threading

import pytest

from isaac_infer.ros.worker import Worker


@pytest.fixture
def work():
    """A worker that collects what it gets, and waits at 'stop' until it is released."""
    done, at_stop, release = [], threading.Event(), threading.Event()

    def handle(item):
        done.append(item)
        if item == 'stop':
            at_stop.set()
            release.wait(10)

    worker = Worker(handle)
    yield worker, done, at_stop, release
    release.set()
    worker.close()


def test_a_newer_frame_takes_the_place_of_one_that_waits(work):
    worker, done, at_stop, release = work
    assert not worker.offer('stop')
    at_stop.wait(10)
    assert [worker.offer(number) for number in (1, 2, 3)] == [False, True, True]
    release.set()
    worker.call(lambda: None).result(10)
    worker.close()
    assert done == ['stop', 3] or done == ['stop']  # a call goes before a frame; closing drops the frame


def test_a_frame_that_waits_can_be_forgotten(work):
    worker, done, at_stop, release = work
    worker.offer('stop')
    at_stop.wait(10)
    assert not worker.forget()
    worker.offer(1)
    assert worker.forget() and not worker.forget()
    release.set()
    worker.call(lambda: None).result(10)
    assert done == ['stop']


def test_a_call_gives_its_result_or_its_error(work):
    worker, *_ = work
    assert worker.call(lambda: 7).result(10) == 7
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 / 0).result(10)
    assert worker.call(threading.current_thread).result(10) is not threading.current_thread()


def test_calls_wait_for_the_frame_that_is_worked_on(work):
    worker, done, at_stop, release = work
    worker.offer('stop')
    at_stop.wait(10)
    call = worker.call(lambda: list(done))
    assert not call.done()
    release.set()
    assert call.result(10) == ['stop']


def test_a_forgotten_frame_is_not_worked_on(work):
    worker, done, at_stop, release = work
    worker.offer('stop')
    at_stop.wait(10)
    worker.offer('late')
    worker.forget()
    release.set()
    worker.call(lambda: None).result(10)
    worker.close()
    assert done == ['stop']


def test_closing_makes_the_calls_that_wait_and_ends_the_thread(work):
    worker, *_ = work
    before = threading.active_count()
    call = worker.call(lambda: 'made')
    worker.close()
    worker.close()
    assert call.result(0) == 'made'
    assert threading.active_count() == before - 1
