"""TrtSession on stand-ins for TensorRT and the driver: what needs no GPU."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import trt_stand_in
from trt_stand_in import Network, Tensor, TensorFormat

from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.engine import cuda
from isaac_infer.engine.trt import TrtSession

LEAN = ('TensorFormat', 'TensorLocation')  # types that the lean and dispatch runtimes of 8.6 lack


@pytest.fixture
def open_network(tmp_path, monkeypatch):
    """Open a session on a network of the stand-ins."""

    def open_it(network, without=()):
        tensorrt = trt_stand_in.install(monkeypatch, network)
        for name in without:
            delattr(tensorrt, name)
        plan = tmp_path / 'network.engine'
        plan.write_bytes(trt_stand_in.PLAN)
        return TrtSession(plan)

    return open_it


def doubler(**facts):
    """What gives twice what it takes."""
    return Network({'x': Tensor((4,), **facts)}, {'y': Tensor((4,))}, lambda given: {'y': 2 * given['x']})


def test_what_goes_in_comes_out(open_network):
    with open_network(doubler()) as session:
        session.input_buffer('x', (4,))[...] = (1, 2, 3, 4)
        assert session.run()['y'].tolist() == [2, 4, 6, 8]


def shrinker():
    """What gives 10 - n numbers for n."""
    return Network(
        {'x': Tensor((-1,), profile=((1,), (5,), (9,)))},
        {'y': Tensor((-1,))},
        lambda given: {'y': np.full(10 - given['x'].size, given['x'].size)},
        lambda given: {'y': (10 - given['x'][0],)},
    )


def test_an_output_that_is_largest_with_the_smallest_input_is_whole(open_network):
    with open_network(shrinker()) as session:
        allocated = []
        for length in (9, 5, 1, 9, 1):
            session.input_buffer('x', (length,))
            assert session.run()['y'].tolist() == [length] * (10 - length)
            allocated.append(cuda.allocations())
    assert allocated[2:] == allocated[2:3] * 3  # once it has grown, it stays


def reshaper():
    """What puts the numbers of x into the shape s, and tells that shape."""

    def shapes(given):
        height, width = map(int, given['s'])
        if height * width != 24:
            raise RuntimeError('infer_shapes error code: -1')
        return {'y': (height, width), 't': (2,)}

    return Network(
        {'x': Tensor((4, 6)), 's': Tensor((2,), 'INT32', is_on_host=True)},
        {'y': Tensor((-1, -1)), 't': Tensor((2,), 'INT32', is_on_host=True)},
        lambda given: {'y': given['x'].reshape(given['s']), 't': given['s']},
        shapes,
    )


@pytest.mark.parametrize('without', [(), LEAN])
def test_an_input_that_shapes_depend_on_is_read_on_the_host(open_network, without):
    with open_network(reshaper(), without) as session:
        session.input_buffer('x', (4, 6))[...] = np.arange(24).reshape(4, 6)
        values = session.input_buffer('s', (2,))
        for shape in ((3, 8), (3, 8), (3, 8), (24, 1), (2, 12)):
            values[...] = shape
            outputs = session.run()
            assert outputs['y'].shape == shape and (outputs['y'].reshape(-1) == np.arange(24)).all()
            assert tuple(outputs['t']) == shape
        values[...] = (12, 2)
        session.run_timed()
        assert tuple(session.run()['t']) == (12, 2)


def test_values_that_give_no_shape_are_an_error_and_the_next_ones_run(open_network):
    with open_network(reshaper()) as session:
        session.input_buffer('x', (4, 6))[...] = 1
        values = session.input_buffer('s', (2,))
        for shape, is_right in (
            ((0, 0), False),
            ((4, 6), True),
            ((5, 5), False),
            ((5, 5), False),
            ((6, 4), True),
        ):
            values[...] = shape
            if is_right:
                assert session.run()['y'].shape == shape
            else:
                with pytest.raises(SessionError, match='cannot work out the shapes'):
                    session.run()


def repeater():
    """What gives as many numbers as n says."""
    return Network(
        {'n': Tensor((1,), 'INT32', is_on_host=True)},
        {'y': Tensor((-1,))},
        lambda given: {'y': np.ones(given['n'])},
        lambda given: {'y': (int(given['n'][0]),)},
    )


def test_memory_grows_with_such_values_and_rarely(open_network):
    with open_network(repeater()) as session:
        values = session.input_buffer('n', (1,))
        before = cuda.allocations()
        for count in range(10_000, 40_000, 1000):
            values[...] = count
            assert session.run()['y'].sum() == count
        assert before < cuda.allocations() <= before + 4


def test_an_output_that_there_is_no_more_memory_for_keeps_what_it_has(open_network, monkeypatch):
    network = shrinker()
    with open_network(network) as session:
        session.input_buffer('x', (9,))
        session.run()
        with monkeypatch.context() as full:
            full.setattr(
                network.driver, 'mem_alloc', lambda size: (_ for _ in ()).throw(trt_stand_in.OutOfMemoryError)
            )
            session.input_buffer('x', (1,))
            with pytest.raises(SessionError, match='out of GPU memory'):
                session.run()
        for length in (9, 1):
            session.input_buffer('x', (length,))
            assert session.run()['y'].tolist() == [length] * (10 - length)


def test_a_buffer_that_is_too_small_says_how_much_too_small():
    buffer = cuda.Buffer(np.zeros(16, np.uint8), 0, False)
    assert buffer.view((2, 2), np.dtype(np.float32)).shape == (2, 2)
    with pytest.raises(TensorError, match=r'at most 16 bytes, got float32\[1, 3, 4\] of 48 bytes'):
        buffer.view((1, 3, 4), np.dtype(np.float32))


@pytest.mark.parametrize('without', [(), LEAN])
@pytest.mark.parametrize('layout', [TensorFormat.CHW16, TensorFormat.HWC])
def test_an_engine_whose_numbers_lie_in_another_order_is_refused(open_network, layout, without):
    with pytest.raises(ModelError, match='x: expected .*LINEAR.* format.*; build .*without --inputIOFormats'):
        open_network(doubler(layout=layout), without)


def test_the_lean_runtime_runs_what_lies_in_order(open_network):
    with open_network(doubler(), LEAN) as session:
        session.input_buffer('x', (4,))[...] = 1
        assert session.run()['y'].tolist() == [2] * 4


def refuse_while_recording(network, monkeypatch):
    """Have the driver refuse copies to the host while a graph is recorded."""
    copy = network.driver.memcpy_dtoh_async

    def refusing(*arguments):
        if network.driver.is_recording:
            raise trt_stand_in.DriverError('operation not permitted when stream is capturing')
        copy(*arguments)

    monkeypatch.setattr(network.driver, 'memcpy_dtoh_async', refusing)


def test_runs_are_replayed_from_the_second_on(open_network):
    network = doubler()
    with open_network(network) as session:
        session.input_buffer('x', (4,))
        for _ in range(4):
            session.run()
        assert network.driver.calls.count('execute') == 2 and network.driver.calls.count('launch') == 3
        assert session.fallbacks == ()
    assert not network.driver.graphs


def test_what_the_driver_refuses_to_record_is_run_as_before_and_said_once(open_network, monkeypatch):
    network = doubler()
    with open_network(network) as session:
        refuse_while_recording(network, monkeypatch)
        for value in range(4):
            session.input_buffer('x', (4,))[...] = value
            assert session.run()['y'].tolist() == [2 * value] * 4
        (said,) = session.fallbacks
        assert 'not replayed as a CUDA graph: operation not permitted' in said
        assert not network.driver.graphs  # nor is what was recorded until then left


def test_a_run_that_cannot_be_begun_waits_for_its_copies(open_network, monkeypatch):
    network = doubler()
    with open_network(network) as session:
        session.input_buffer('x', (4,))
        monkeypatch.setattr(session.execution_context, 'fails', True)
        for begin in (session.start, session.run_timed):
            with pytest.raises(SessionError, match='the network failed'):
                begin()
            assert network.driver.calls[-2:] == ['execute', 'synchronize']


def test_the_first_error_is_told_when_waiting_fails_too(open_network, monkeypatch):
    network = doubler()
    with open_network(network) as session:
        session.input_buffer('x', (4,))

        def fault(stream):
            network.driver.fault = 'an illegal memory access was encountered'
            return False

        monkeypatch.setattr(session.execution_context, 'execute_async_v3', fault)
        with pytest.raises(SessionError, match='the network failed'):
            session.start()
        network.driver.fault = ''


def test_all_is_freed_while_the_context_is_current(open_network):
    network = doubler()
    session = open_network(network)
    twin = session.twin()
    session.close()
    assert network.freed == [('context', True)]
    twin.close()
    assert network.freed == [('context', True), ('context', True), ('engine', True)]
    assert not network.driver.device


@pytest.mark.parametrize('failing', ['synchronize', 'hook', 'graph'])
def test_what_fails_while_a_session_is_closed_keeps_nothing_open(open_network, monkeypatch, failing):
    network, released = doubler(), []
    session = open_network(network)
    session.input_buffer('x', (4,))
    for _ in range(3):
        session.run()

    def fail(*_):
        raise trt_stand_in.DriverError('of the driver')

    def hook():
        released.append('hook')
        if failing == 'hook':
            fail()

    session.at_close(hook)
    if failing == 'synchronize':
        monkeypatch.setattr(session.stream, 'synchronize', fail)
    if failing == 'graph':
        monkeypatch.setattr(cuda._libcuda(), 'cuGraphExecDestroy', lambda graph: 700)
    with pytest.raises(SessionError, match='of the driver|cuGraphExecDestroy failed with CUDA error 700'):
        session.close()
    assert released == ['hook'] and not network.driver.device
    assert network.freed == [('context', True), ('engine', True)]
    session.close()
    with pytest.raises(SessionError, match='closed'):
        session.run()


def test_the_allocator_of_an_output_does_not_keep_the_engine(open_network):
    network = Network(
        {'x': Tensor((4,))},
        {'y': Tensor((-1,))},
        lambda given: {'y': given['x'][given['x'] > 0]},
        lambda given: {'y': (-1,)},
    )
    with open_network(network) as session:
        session.input_buffer('x', (4,))[...] = (1, 0, 2, 0)
        assert session.run()['y'].tolist() == [1, 2]
    assert network.freed == [('context', True), ('engine', True)] and not network.driver.device


def test_what_lies_on_a_lost_context_is_never_freed(open_network, tmp_path):
    network = doubler()
    session = open_network(network)
    twin = session.twin()
    network.driver.fault = 'an illegal memory access was encountered'
    for use in (session.twin, lambda: TrtSession(tmp_path / 'network.engine'), session.close, twin.close):
        with pytest.raises(SessionError, match='an illegal memory access'):
            use()
    session.close()
    with pytest.raises(SessionError, match='closed'):
        session.run()
    del session, twin
    gc.collect()
    assert network.freed == [] and 'free' not in network.driver.calls


LEAVE = """
import sys
from pathlib import Path
import pytest, trt_stand_in
from trt_stand_in import Network, Tensor
network = Network({'x': Tensor((4,))}, {'y': Tensor((4,))}, lambda given: {})
trt_stand_in.install(pytest.MonkeyPatch(), network)
for kind in (trt_stand_in.Engine, trt_stand_in.Context):
    kind.__del__ = lambda self: print('freed', flush=True)
from isaac_infer.engine.trt import TrtSession
place = Path(sys.argv[1])
place.write_bytes(trt_stand_in.PLAN)
session = TrtSession(place)
twin = session.twin()
network.driver.fault = sys.argv[2]
"""


@pytest.mark.parametrize(('fault', 'freed'), [('', 3), ('an illegal memory access was encountered', 0)])
def test_a_process_that_leaves_sessions_open_frees_them_where_it_can(tmp_path, fault, freed):
    ended = subprocess.run(
        [sys.executable, '-c', LEAVE, str(tmp_path / 'network.engine'), fault],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, '')
    assert ended.stdout.split() == ['freed'] * freed
