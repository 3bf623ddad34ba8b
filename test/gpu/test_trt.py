"""TrtSession: shapes, buffers, memory and ends, on engines of small networks."""

import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from gpu.conftest import QUICK, TACTICS
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.spec import ImageSpec
from isaac_infer.engine import cuda
from isaac_infer.engine.build import Request, build_plan
from isaac_infer.engine.device_prepare import DevicePreparer
from isaac_infer.engine.trt import Messages, TrtSession, find_tensorrt

FLOAT = TensorProto.FLOAT


def network(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        'network',
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)


@pytest.fixture(scope='session')
def plans(tmp_path_factory):
    """Engines by what they were built of: a build takes seconds."""
    folder, built = tmp_path_factory.mktemp('networks'), {}

    def plan(model, options):
        key = model.SerializeToString(), repr(sorted(options.items()))
        if key not in built:
            source, engine = folder / f'{len(built)}.onnx', folder / f'{len(built)}.engine'
            onnx.save(model, source)
            build = replace(QUICK, precision='fp32', **options)
            request = Request(model=str(source), into=str(engine), options=asdict(build), latency=False)
            build_plan(request, say=lambda text: None)
            built[key] = engine.read_bytes()
        return built[key]

    return plan


@pytest.fixture
def open_network(tmp_path, plans):
    opened = []

    def open_it(model, **options):
        engine = tmp_path / 'network.engine'
        engine.write_bytes(plans(model, options))
        opened.append(TrtSession(engine))
        return opened[-1]

    yield open_it
    for session in opened:
        session.close()


def foreign(model, place, *, formats=(), values=(), fp16=False):
    """Build an engine as others do, with what our builds have not.

    Args:
        formats: a dtype and a format for all inputs and outputs, by TensorRT's names.
        values: smallest, usual and largest values of inputs that shapes depend on, by their name.
    """
    trt, gpu = find_tensorrt(), cuda.Gpu()
    with gpu.current():
        messages = Messages(trt)
        builder = trt.Builder(messages.logger)
        explicit = getattr(trt.NetworkDefinitionCreationFlag, 'EXPLICIT_BATCH', None)
        network = builder.create_network(0 if explicit is None else 1 << int(explicit))
        parser = trt.OnnxParser(network, messages.logger)
        assert parser.parse(model.SerializeToString()), messages.reason()
        config = builder.create_builder_config()
        if TACTICS:
            sources = (1 << int(getattr(trt.TacticSource, name)) for name in TACTICS)
            config.set_tactic_sources(sum(sources))
        if fp16 and hasattr(trt.BuilderFlag, 'FP16'):
            config.set_flag(trt.BuilderFlag.FP16)
        if formats:
            dtype, layout = formats
            for tensor in (network.get_input(0), network.get_output(0)):
                tensor.dtype = getattr(trt, dtype)
                tensor.allowed_formats = 1 << int(getattr(trt.TensorFormat, layout))
        if values:
            profile = builder.create_optimization_profile()
            for name, limits in values.items():
                profile.set_shape_input(name, *limits)
            config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        assert plan is not None, messages.reason()
        place.write_bytes(bytes(plan))
    return place


def doubler(shape=(1, 3, 8, 8)):
    return network([('Add', ['x', 'x'], ['y'])], [('x', FLOAT, shape)], [('y', FLOAT, shape)])


def test_what_goes_in_comes_out_in_every_run(open_network):
    session = open_network(doubler())
    buffer = session.input_buffer('x', (1, 3, 8, 8))
    for value in range(5):  # the first as it is, then from a graph
        buffer[...] = value
        assert (session.run()['y'] == 2 * value).all()
    assert session.fallbacks == ()


def test_a_thousand_frames_allocate_nothing(open_network):
    session = open_network(doubler((1, 3, 320, 320)))
    buffer = session.input_buffer('x', (1, 3, 320, 320))
    session.run()
    session.run()
    before = cuda.allocations()
    grown = []
    for _ in range(3):  # other processes take and give memory meanwhile, but not three times alike
        with session.gpu.current():
            free = session.gpu.free_bytes()
        outputs = {id(session.run()['y']) for _ in range(1000)}
        assert cuda.allocations() == before and len(outputs) == 1
        assert session.input_buffer('x', (1, 3, 320, 320)) is buffer
        with session.gpu.current():
            grown.append(free - session.gpu.free_bytes())
    assert min(grown) <= 0


def test_open_sizes_are_run_within_what_the_engine_was_built_for(open_network):
    shapes = {'x': ((1, 3, 4, 4), (1, 3, 8, 8), (2, 3, 16, 16))}
    session = open_network(doubler((-1, 3, -1, -1)), shapes=shapes)
    for shape in ((1, 3, 4, 4), (2, 3, 16, 16), (1, 3, 7, 9), (1, 3, 4, 4)):
        for value in (1, 2, 3):
            session.input_buffer('x', shape)[...] = value
            answer = session.run()['y']
            assert answer.shape == shape and (answer == 2 * value).all()
    with pytest.raises(TensorError, match=r'from \[1, 3, 4, 4\] to \[2, 3, 16, 16\]'):
        session.input_buffer('x', (1, 3, 32, 32))
    session.input_buffer('x', (1, 3, 4, 4))[...] = 5
    assert (session.run()['y'] == 10).all()


def shrinker():
    """What gives 10 - n numbers for n, all of them their sum."""
    nodes = [
        ('Shape', ['x'], ['s']),
        ('Sub', ['ten', 's'], ['n']),
        ('Slice', ['zeros', 'zero', 'n', 'zero'], ['p']),
        ('ReduceSum', ['x'], ['t'], {'keepdims': 1}),
        ('Add', ['p', 't'], ['y']),
    ]
    constants = {'ten': np.array([10]), 'zero': np.array([0]), 'zeros': np.zeros(10, np.float32)}
    return network(
        nodes,
        [('x', FLOAT, ('n',))],
        [('y', FLOAT, ('m',))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def test_an_output_that_is_largest_with_the_smallest_input_is_whole(open_network):
    session = open_network(shrinker(), shapes={'x': ((1,), (5,), (9,))})
    for length in (9, 5, 1, 9, 1):
        session.input_buffer('x', (length,))[...] = 1
        for _ in range(3):
            assert session.run()['y'].tolist() == [length] * (10 - length)


@pytest.mark.parametrize('layout', ['CHW2', 'CHW4', 'HWC8', 'CHW16', 'CHW32'])
def test_an_engine_whose_numbers_lie_in_another_order_is_refused(tmp_path, layout):
    engine = foreign(doubler(), tmp_path / 'packed.engine', formats=('float16', layout), fp16=True)
    with pytest.raises(ModelError, match='x: expected .*LINEAR.* format.*; build .*without --inputIOFormats'):
        TrtSession(engine)


def test_an_input_that_shapes_depend_on_is_read_on_the_host(tmp_path):
    nodes = [('Reshape', ['x', 's'], ['r']), ('Relu', ['r'], ['y']), ('Add', ['s', 's'], ['t'])]
    model = network(
        nodes,
        [('x', FLOAT, (4, 6)), ('s', TensorProto.INT64, (2,))],
        [('y', FLOAT, ('a', 'b')), ('t', TensorProto.INT64, (2,))],
    )
    engine = foreign(model, tmp_path / 'reshaper.engine', values={'s': ([1, 1], [4, 6], [24, 24])})
    numbers = np.arange(24, dtype=np.float32)
    with TrtSession(engine) as session:
        session.input_buffer('x', (4, 6))[...] = numbers.reshape(4, 6)
        for shape in ((3, 8), (3, 8), (3, 8), (24, 1), (2, 12)):
            session.input_buffer('s', (2,))[...] = shape
            outputs = session.run()
            assert outputs['y'].shape == shape and (outputs['y'].reshape(-1) == numbers).all()
            assert outputs['t'].tolist() == [2 * length for length in shape]


def finder():
    """What finds where numbers are above 0: nobody knows how many before the run."""
    nodes = [
        ('Relu', ['x'], ['r']),
        ('NonZero', ['r'], ['i']),
        ('Cast', ['i'], ['f'], {'to': FLOAT}),
        ('Add', ['f', 'f'], ['y']),
    ]
    return network(nodes, [('x', FLOAT, (4, 600))], [('y', FLOAT, (2, None))])


def test_outputs_whose_size_only_a_run_tells(open_network):
    session = open_network(finder())
    buffer = session.input_buffer('x', (4, 600))
    for count in (0, 3, 2400, 5):
        buffer[...] = 0
        buffer.reshape(-1)[:count] = 1
        answer = session.run()['y']
        assert answer.shape == (2, count)
        assert (answer == 2 * np.stack(np.nonzero(buffer))).all()


def test_twins_share_the_engine_and_nothing_else(open_network):
    first = open_network(doubler())
    second = first.twin()
    a, b = (session.input_buffer('x', (1, 3, 8, 8)) for session in (first, second))
    for value in range(4):
        a[...], b[...] = value, value + 10
        first.start()
        second.start()
        assert (first.finish()['y'] == 2 * value).all() and (second.finish()['y'] == 2 * value + 20).all()
    first.close()
    b[...] = 7
    assert (second.run()['y'] == 14).all()
    second.close()
    second.close()
    with pytest.raises(SessionError, match='closed'):
        second.run()


def test_twins_whose_outputs_differ_in_size_do_not_disturb_one_another(open_network):
    first = open_network(finder())
    second = first.twin()
    buffers = [session.input_buffer('x', (4, 600)) for session in (first, second)]
    for counts in ((3, 2400), (0, 7), (100, 0)):
        for buffer, count in zip(buffers, counts):
            buffer[...] = 0
            buffer.reshape(-1)[:count] = 1
        first.start()
        second.start()
        for session, count in ((second, counts[1]), (first, counts[0])):
            assert session.finish()['y'].shape == (2, count)
    first.close()
    assert second.run()['y'].shape == (2, 0)


def test_twins_take_pictures_of_different_sizes(open_network):
    shapes = {'x': ((1, 3, 4, 4), (1, 3, 8, 8), (2, 3, 16, 16))}
    first = open_network(doubler((-1, 3, -1, -1)), shapes=shapes)
    second = first.twin()
    for value in range(4):
        for session, shape, more in ((first, (1, 3, 4, 4), 0), (second, (2, 3, 16, 16), 10)):
            session.input_buffer('x', shape)[...] = value + more
            session.start()
        assert (first.finish()['y'] == 2 * value).all() and (second.finish()['y'] == 2 * value + 20).all()


def test_what_was_prepared_on_the_gpu_is_still_there_after_a_timed_run(open_network):
    session = open_network(doubler((1, 3, 64, 96)))
    device = DevicePreparer(session, ImageSpec('x', (64, 96)))
    session.feed_from_device('x', True)
    device(Frame(np.full((48, 64, 3), 51, np.uint8)))
    session.run_timed()
    assert np.allclose(session.run()['y'][0, :, 32, 10:80], 0.4)  # between the borders


def test_the_times_of_a_run_are_told(open_network):
    session = open_network(doubler())
    session.input_buffer('x', (1, 3, 8, 8))
    times = session.run_timed()
    assert set(times) == {'h2d', 'compute', 'd2h', 'enqueue', 'total'}
    assert all(value >= 0 for value in times.values())


@pytest.mark.parametrize('size_hw', [(48, 64), (108, 192), (7, 333), (320, 320), (640, 640), (1, 1), (2, 1)])
@pytest.mark.parametrize('kind', ['float32', 'uint8', 'nhwc'])
def test_pictures_prepared_on_the_gpu_agree_to_one_level(open_network, size_hw, kind):
    image = ImageSpec('x', (64, 96))
    if kind != 'float32':
        image = replace(image, layout='nhwc')
    shape, dtype = image.shape, FLOAT
    model = network([('Add', ['x', 'x'], ['y'])], [('x', dtype, shape)], [('y', dtype, shape)])
    if kind == 'uint8':
        image = replace(image, dtype=np.dtype(np.uint8), scale=1.0)
        nodes = [('Cast', ['x'], ['f'], {'to': FLOAT}), ('Add', ['f', 'f'], ['y'])]
        model = network(nodes, [('x', TensorProto.UINT8, shape)], [('y', FLOAT, shape)])
    session = open_network(model)
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    want = np.empty(shape, image.dtype)
    level = 1 if kind == 'uint8' else 1 / 255
    for order in ('bgr', 'rgb'):
        frame = Frame(picture, channel_order=order)
        fit = Preparer(image)(frame, into=want)
        device = DevicePreparer(session, image)
        for first in (False, True):
            session.feed_from_device('x', True)
            assert device(frame, resize_first=first) == fit
            got = session.run()['y'] / 2
            assert np.abs(got - want.astype(np.float32)).max() <= (1e-6 if first else level * 1.001)


@pytest.fixture
def shared_memory(monkeypatch):
    """Have memory used as on a Jetson, whose GPU reads and writes the host's: a card can too, slowly."""
    facts = cuda.Gpu.facts.fget
    monkeypatch.setattr(cuda.Gpu, 'facts', property(lambda gpu: replace(facts(gpu), is_integrated=True)))


def test_shared_memory_is_used_in_place(open_network, shared_memory):
    shapes = {'x': ((1, 3, 4, 4), (1, 3, 8, 8), (2, 3, 16, 16))}
    session = open_network(doubler((-1, 3, -1, -1)), shapes=shapes)
    twin = session.twin()
    for shape in ((1, 3, 8, 8), (2, 3, 16, 16), (1, 3, 8, 8)):
        for value in range(4):
            for each in (session, twin):
                each.input_buffer('x', shape)[...] = value
                each.start()
            assert (session.finish()['y'] == 2 * value).all() and (twin.finish()['y'] == 2 * value).all()
    assert all(memory.is_mapped for memory in session._memory.values())


def test_outputs_whose_size_only_a_run_tells_come_through_shared_memory(open_network, shared_memory):
    session = open_network(finder())
    buffer = session.input_buffer('x', (4, 600))
    for count in (0, 3, 2400, 5):
        buffer[...] = 0
        buffer.reshape(-1)[:count] = 1
        assert (session.run()['y'] == 2 * np.stack(np.nonzero(buffer))).all()


def test_pictures_are_prepared_on_the_gpu_from_shared_memory(open_network, shared_memory):
    image = ImageSpec('x', (64, 96))
    session = open_network(doubler(image.shape))
    want = np.empty(image.shape, np.float32)
    for size_hw in ((48, 64), (108, 192), (7, 333)):
        picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
        fit = Preparer(image)(Frame(picture), into=want)
        device = DevicePreparer(session, image)
        for first in (False, True):
            session.feed_from_device('x', True)
            assert device(Frame(picture), resize_first=first) == fit
            assert session.run_timed()['h2d'] >= 0  # which copies nothing here
            assert np.abs(session.run()['y'] / 2 - want).max() <= 1.001 / 255


def test_an_engine_for_other_gpus_runs_on_this_one(open_network):
    session = open_network(doubler(), hardware_compatible=True)
    session.input_buffer('x', (1, 3, 8, 8))[...] = 3
    assert (session.run()['y'] == 6).all()


def test_too_little_memory_is_an_error_that_says_how_much(open_network):
    session = open_network(doubler())
    with session.gpu.current(), pytest.raises(SessionError, match='out of GPU memory: .* MiB needed'):
        cuda.Arena(session.gpu, [1 << 50], owner='monster')
    assert session.run() if session.input_buffer('x', (1, 3, 8, 8)) is not None else {}


def run_script(script, *arguments):
    """Run a script in a process of its own; gives how it ended."""
    command = [sys.executable, '-c', script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


FORK = """
import os, sys
from pathlib import Path
from isaac_infer.core.errors import SessionError
from isaac_infer.engine.trt import TrtSession
session = TrtSession(Path(sys.argv[1]))
session.input_buffer('x', (1, 3, 8, 8))[...] = 1
child = os.fork()
if not child:
    for use in (session.run, lambda: TrtSession(Path(sys.argv[1]))):
        try:
            use()
        except SessionError as error:
            if 'spawn' not in str(error):
                os._exit(8)
        else:
            os._exit(9)
    session.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (session.run()['y'] == 2).all()
"""


def test_a_fork_is_told_that_it_cannot_use_the_session(open_network, tmp_path):
    open_network(doubler()).close()
    ended = run_script(FORK, tmp_path / 'network.engine')
    assert ended.returncode == 0, ended.stderr


LEAVE = """
import sys, threading, signal, os
from pathlib import Path
from isaac_infer.engine.trt import TrtSession
session = TrtSession(Path(sys.argv[1]))
session.input_buffer('x', (1, 3, 8, 8))[...] = 1
how = sys.argv[2]
if how == 'exception':
    session.run()
    raise RuntimeError('of the user')
if how == 'thread':
    thread = threading.Thread(target=session.run)
    thread.start(); thread.join()
if how == 'interrupt':
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        session.run()
session.run()
"""


@pytest.mark.parametrize(('how', 'code'), [('open', 0), ('exception', 1), ('thread', 0), ('interrupt', -2)])
def test_a_process_that_leaves_a_session_open_ends_in_order(open_network, tmp_path, how, code):
    open_network(doubler()).close()
    ended = run_script(LEAVE, tmp_path / 'network.engine', how)
    assert ended.returncode == code, ended.stderr
    assert 'context stack' not in ended.stderr


FAULT = """
import sys
from pathlib import Path
import numpy as np
from isaac_infer.core.errors import SessionError
from isaac_infer.engine.cuda import compile_kernel
from isaac_infer.engine.trt import TrtSession
place, how = Path(sys.argv[1]), sys.argv[2]
session = TrtSession(place)
twin = session.twin()
for each in (session, twin):
    each.input_buffer('x', (1, 3, 8, 8))
    each.run()
with session.gpu.current():
    source = 'extern "C" __global__ void fault(int* place) { *place = 1; }'
    fault = compile_kernel(source, 'fault', place.parent, gpu=session.gpu)
    fault(np.uintp(16), block=(1, 1, 1), grid=(1, 1))
uses = [session.run, twin.run, session.twin, lambda: TrtSession(place)]
if how == 'closed':
    uses += [session.close, twin.close]
for use in uses:
    try:
        use()
    except SessionError as error:
        print(error)
    else:
        sys.exit(9)
"""


@pytest.mark.parametrize('how', ['open', 'closed'])
def test_a_process_ends_in_order_after_a_fault_on_the_gpu(open_network, tmp_path, how):
    open_network(doubler()).close()
    ended = run_script(FAULT, tmp_path / 'network.engine', how)
    assert ended.returncode == 0, f'{ended.returncode}: {ended.stdout}{ended.stderr}'
    assert ended.stdout.count('illegal memory access') >= 2


RUN = """
import importlib, sys
name = sys.argv[2]
try:
    module = importlib.import_module(name)
except ImportError:  # the wheel of the bindings alone
    module = importlib.import_module(f'{name}_bindings')
for other in ('tensorrt', 'tensorrt_lean', 'tensorrt_dispatch'):
    sys.modules[other] = module if other == name else None
from pathlib import Path
import numpy as np
from isaac_infer.engine.trt import TrtSession
with TrtSession(Path(sys.argv[1])) as session:
    for value in range(4):
        session.input_buffer('x', (1, 3, 8, 8))[...] = value
        assert (session.run()['y'] == 2 * value).all()
    print(session.backend)
"""


@pytest.mark.parametrize('runtime', ['tensorrt_lean', 'tensorrt_dispatch'])
def test_a_version_compatible_engine_runs_on_smaller_runtimes(open_network, tmp_path, runtime):
    open_network(doubler(), version_compatible=True).close()
    names = runtime, f'{runtime}_bindings'
    imports = [[sys.executable, '-c', f'import {name}'] for name in names]
    if all(subprocess.run(command, capture_output=True, check=False).returncode for command in imports):
        pytest.skip(f'{runtime} is not installed')
    ended = run_script(RUN, tmp_path / 'network.engine', runtime)
    assert ended.returncode == 0, ended.stderr
    assert runtime in ended.stdout
