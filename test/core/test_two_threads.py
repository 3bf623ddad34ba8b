"""Two threads: both parts are done, wherever; nobody works on after the end; errors arrive."""

import threading
import time

import pytest

from isaac_infer.core.two_threads import share


def test_the_parts_are_done_at_the_same_time_by_two_threads():
    meeting, done = threading.Barrier(2, timeout=10), {}

    def work(part):
        meeting.wait()
        done[part] = threading.current_thread().name

    share(work, 'one', 'other')
    assert set(done) == {'one', 'other'} and len(set(done.values())) == 2


def test_while_the_helper_is_busy_the_caller_does_both():
    busy, is_free, done = threading.Event(), threading.Event(), []

    def hold(part):
        if part == 'other':
            busy.set()
            is_free.wait(20)

    thread = threading.Thread(target=share, args=(hold, 'one', 'other'))
    thread.start()
    assert busy.wait(10)
    share(done.append, 1, 2)
    assert done == [1, 2] and not is_free.is_set()
    is_free.set()
    thread.join()


@pytest.mark.parametrize('failing', [{'one'}, {'other'}, {'one', 'other'}])
def test_an_error_arrives_when_nobody_works_any_more(failing):
    working = set()

    def work(part):
        working.add(part)
        time.sleep(0.05 if part == 'one' else 0.2)
        working.discard(part)
        if part in failing:
            raise ValueError(part)

    with pytest.raises(ValueError, match='^one$' if 'one' in failing else '^other$'):
        share(work, 'one', 'other')
    assert not working


def test_work_may_be_shared_in_a_part_again():
    done = []
    share(lambda part: share(done.append, part, part + 1), 0, 10)
    assert sorted(done) == [0, 1, 10, 11]
