"""What the child that builds says and does not say reaches who waits for it; here it is another program."""

import errno
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from isaac_infer.core.build_options import BuildOptions
from isaac_infer.core.errors import ModelError, SessionError
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
    return build._calibrator(
        SimpleNamespace(IInt8EntropyCalibrator2=base, __version__='8.6.1'), network, request, options
    )


def test_a_calibrator_gets_batch_after_batch_in_what_tensorrt_made_of_the_inputs(calibrator) -> None:
    for number in range(2):
        size, images = calibrator.get_batch(['size', 'images/x'])
        assert (size.dtype, size.tolist()) == (np.int32, [[640, 480]])
        assert images.dtype == np.float32 and (images == number).all()
    assert calibrator.get_batch(['size', 'images/x']) is None


def test_batches_that_find_no_room_are_an_error_with_a_way_out(tmp_path) -> None:
    with pytest.raises(ModelError, match='pictures cannot be kept: No such file or directory; make room'):
        build.store_batches([{'x': np.zeros(1)}], tmp_path / 'nowhere')


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
