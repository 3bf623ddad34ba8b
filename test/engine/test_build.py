"""What the child that builds says and does not say reaches who waits for it; here it is another program."""

import contextlib
import errno
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from isaac_infer.core.build_options import BuildOptions
from isaac_infer.core.errors import ModelError, ParameterError, SessionError
from isaac_infer.engine import build, cuda, trt
from isaac_infer.engine.build import Request, build_plan


class Listener:
    """Who waits, with a bar to draw."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shares: list[float] = []

    def __call__(self, text: str) -> None:
        self.said.append(text)

    def show_share(self, share: float) -> None:
        self.shares.append(share)


# What a child needs for its messages: the last argument is the number of its end of the pipe.
CHILD = """
import json, os, signal, sys, time

def tell(message, end='\\n'):
    os.write(int(sys.argv[-1]), (json.dumps(message) + end).encode())

"""


@pytest.fixture
def build_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Build with a child that runs these lines."""
    python = sys.executable

    def build_it(body: str, **facts: float) -> tuple[dict[str, object], Listener]:
        program = tmp_path / 'child'
        program.write_text(f'#!{python}\n{CHILD}{body}\n')
        program.chmod(0o755)
        monkeypatch.setattr(sys, 'executable', str(program))
        listener = Listener()
        request = Request(model='m.onnx', into=str(tmp_path / 'm.engine'), options={}, **facts)
        return build_plan(request, say=listener), listener

    return build_it


def test_what_is_said_at_once_arrives_in_order_and_the_share_too(build_by) -> None:
    messages = [{'say': 'a'}, {'share': 0.25}, {'say': 'b'}, {'share': 0.5}, {'build_s': 1}]
    answer, listener = build_by(f'for message in {messages}: tell(message)')
    assert answer == {'build_s': 1}
    assert (listener.said, listener.shares) == (['a', 'b'], [0.25, 0.5])


def test_before_tensorrt_10_the_share_is_that_of_the_last_time(build_by, monkeypatch) -> None:
    monkeypatch.setattr(build, 'POLL_S', 0.02)
    _, listener = build_by('time.sleep(0.3); tell({})', expected_s=1.0)
    assert listener.shares == sorted(listener.shares) and 0 < listener.shares[-1] < 0.9


def test_a_build_that_says_nothing_tells_its_time(build_by, monkeypatch) -> None:
    monkeypatch.setattr(build, 'SILENCE_S', 0.1)
    _, listener = build_by('time.sleep(0.7); tell({})', expected_s=60.0)
    assert listener.said and all(text.endswith('of about 60 s') for text in listener.said)


def test_a_full_disk_is_an_error_of_the_system_with_its_number(build_by) -> None:
    message = {'error': 'No space left on device', 'errno': errno.ENOSPC, 'file': 'm.engine'}
    with pytest.raises(OSError, match='No space left') as raised:
        build_by(f'tell({message})')
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, 'm.engine')


def test_a_child_that_ends_by_itself_is_not_called_killed(build_by) -> None:
    with pytest.raises(SessionError, match='ended with code 3'):
        build_by('os.close(int(sys.argv[-1])); time.sleep(0.2); os._exit(3)')


def test_a_child_that_crashes_is_named_by_its_signal(build_by) -> None:
    with pytest.raises(SessionError, match='ended by SIGSEGV'):
        build_by('os.kill(os.getpid(), signal.SIGSEGV)')


def test_what_tensorrt_refuses_is_an_error_of_the_model(build_by) -> None:
    with pytest.raises(ModelError, match='cannot read this'):
        build_by("tell({'error': 'cannot read this'})")


def test_what_libraries_print_is_no_message_and_is_shown_only_where_the_build_fails(build_by) -> None:
    print_all = 'print("a library"); print("{}"); print(7); print("its error", file=sys.stderr)'
    answer, listener = build_by(f"{print_all}; tell({{'build_s': 1}})")
    assert (answer, listener.said) == ({'build_s': 1}, [])
    with pytest.raises(SessionError, match=r'ended by SIGSEGV.*\na library\n{}\n7\nits error\n'):
        build_by(f'{print_all}; os.kill(os.getpid(), signal.SIGSEGV)')


def test_half_a_message_of_a_child_that_was_killed_is_none(build_by) -> None:
    with pytest.raises(SessionError, match='ended by SIGKILL'):
        build_by("tell({'build_s': 1}, end=''); os.kill(os.getpid(), signal.SIGKILL)")


def test_the_child_builds_on_the_gpu_that_was_asked_for(monkeypatch) -> None:
    def gpu(index: int) -> None:
        raise SessionError(f'GPU {index}')

    monkeypatch.setattr(trt, 'find_tensorrt', lambda: SimpleNamespace(__name__='tensorrt'))
    monkeypatch.setattr(cuda, 'Gpu', gpu)
    request = Request(model='m.onnx', into='m.engine', options=asdict(BuildOptions()), device=1)
    with pytest.raises(SessionError, match='GPU 1'):
        build._build(request, print)


@pytest.fixture
def calibrator(tmp_path, monkeypatch):
    """A calibrator for two stored batches with a size as int64, of which TensorRT 8 makes int32."""
    base = type('IInt8EntropyCalibrator2', (), {})
    kinds = {'images/x': 'FLOAT', 'size': 'INT32'}
    inputs = [SimpleNamespace(name=name, dtype=SimpleNamespace(name=kind)) for name, kind in kinds.items()]
    network = SimpleNamespace(num_inputs=len(inputs), get_input=lambda index: inputs[index])
    monkeypatch.setattr(cuda, 'Upload', lambda: lambda name, array: array)
    build.store_batches(
        (
            {'images/x': np.full((1, 3, 2, 2), number, np.float32), 'size': np.array([[640, 480]])}
            for number in range(2)
        ),
        tmp_path,
    )
    request = Request(
        model='m.onnx',
        into='m.engine',
        options={},
        batches=str(tmp_path),
        calibration_cache=str(tmp_path / 'calibration.cache'),
    )
    options = BuildOptions(precision='int8', calibration='entropy')
    trt_8 = SimpleNamespace(IInt8EntropyCalibrator2=base, __version__='8.6.1')
    return build._calibrator(trt_8, network, request, options, lambda message: None)


def test_a_calibrator_gets_batch_after_batch_in_what_tensorrt_made_of_the_inputs(calibrator) -> None:
    for number in range(2):
        size, images = calibrator.get_batch(['size', 'images/x'])
        assert (size.dtype, size.tolist()) == (np.int32, [[640, 480]])
        assert images.dtype == np.float32 and (images == number).all()
    assert calibrator.get_batch(['size', 'images/x']) is None


def test_batches_that_find_no_room_are_an_error_with_a_way_out(tmp_path) -> None:
    with pytest.raises(ModelError, match='pictures cannot be kept: No such file or directory; make room'):
        build.store_batches([{'x': np.zeros(1)}], tmp_path / 'nowhere')


def test_what_a_calibrator_found_out_is_kept_for_the_next_build_and_forgotten_where_it_is_damaged(
    calibrator, tmp_path
) -> None:
    file = tmp_path / 'calibration.cache'
    assert calibrator.read_calibration_cache() is None
    calibrator.write_calibration_cache(b'scales' * 100)
    assert calibrator.read_calibration_cache() == b'scales' * 100
    file.write_bytes(file.read_bytes()[:-9])
    assert calibrator.read_calibration_cache() is None and not file.exists()


class Config:
    """What a builder's configuration does with timing caches; this one takes those that begin with `TRT`."""

    def __init__(self) -> None:
        self.cache: bytes | None = None

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content if content.startswith(b'TRT') or not content else None

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not ignore_mismatch


@pytest.mark.parametrize('damage', ['', 'cut', 'changed', 'no', 'of another TensorRT'])
def test_a_damaged_timing_cache_is_set_aside_and_said_and_the_build_goes_on(tmp_path, damage) -> None:
    file = tmp_path / 'timing.cache'
    content = b'something' if damage == 'of another TensorRT' else b'TRT' * 100
    build._save_timing_cache(SimpleNamespace(serialize=lambda: content), str(file))
    kept = bytearray(file.read_bytes())
    if damage == 'changed':
        kept[-6] ^= 1
    file.write_bytes({'cut': kept[:9], 'no': b'TRT'}.get(damage, kept))
    config, told = Config(), []
    build._load_timing_cache(config, str(file), told.append)
    assert config.cache == (content if not damage else b'')
    is_damaged = damage in ('cut', 'changed', 'no')
    assert [('timing.cache: set aside as timing.cache.broken' in each['say']) for each in told] == (
        [True] if is_damaged else []
    )
    assert file.exists() != is_damaged and (tmp_path / 'timing.cache.broken').exists() == is_damaged


@pytest.mark.parametrize(
    ('shapes', 'complaint'),
    [
        ({}, ''),
        ({'x': (1, 3, 32, 32)}, ''),
        ({'y': (1, 3, 32, 32)}, 'the model has no input y; it has x'),
        ({'x': (3, 32, 32)}, r'shapes of x: expected shapes \[\?, 3, \?, \?\], got \[3, 32, 32\]'),
        ({'x': (1, 4, 32, 32)}, r'shapes of x: expected shapes \[\?, 3, \?, \?\]'),
        ({'x': (1, 3, 32, 1 << 40)}, 'shapes of x: expected at most 2147483647 values'),
    ],
)
def test_shapes_that_an_input_cannot_have_are_refused_in_words(shapes, complaint) -> None:
    given = {name: (shape,) * 3 for name, shape in shapes.items()}
    with pytest.raises(ParameterError, match=complaint) if complaint else contextlib.nullcontext():
        build.check_shapes(given, {'x': (-1, 3, -1, -1)})


def test_an_input_whose_values_are_shapes_is_refused_in_words() -> None:
    inputs = [
        SimpleNamespace(name=name, shape=(2,), is_shape_tensor=name == 'size') for name in ('x', 'size')
    ]
    network = SimpleNamespace(num_inputs=2, get_input=lambda index: inputs[index])
    with pytest.raises(ModelError, match='^size: expected inputs that hold data, got values that shapes'):
        build._profile(None, network, BuildOptions())


def test_neither_what_python_prints_at_its_start_nor_modules_that_lie_around_disturb_the_real_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here' / 'statistics.py').write_text('open("was_here", "w")')
    (tmp_path / 'sitecustomize.py').write_text('print("welcome to my machine")')
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.syspath_prepend(tmp_path)
    request = Request(
        model=str(tmp_path / 'none.onnx'), into=str(tmp_path / 'engine'), options=asdict(BuildOptions())
    )
    with pytest.raises(ModelError, match='TensorRT'):  # there is no GPU, or no model
        build_plan(request, say=lambda text: None)
    assert not Path('was_here').exists()
