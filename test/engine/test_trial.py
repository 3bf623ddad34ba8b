import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from isaac_infer.core.errors import ModelError, SessionError
from isaac_infer.engine import trial
from models import save_colour_detector, save_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was tried is remembered for one test only."""
    trial._tried_here.clear()
    monkeypatch.setenv('ISAAC_INFER_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def replace_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Let the child be a program that does something else than run a model."""
    program = tmp_path / 'child'
    program.write_text(f'#!{sys.executable}\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(program))


def test_a_model_that_ends_its_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    replace_child(monkeypatch, tmp_path, 'import os; os.abort()')
    with pytest.raises(ModelError, match=r'model.onnx: a trial run was ended by SIGABRT'):
        trial.try_model(model)


def test_a_model_that_never_comes_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    replace_child(monkeypatch, tmp_path, 'import time; time.sleep(60)')
    monkeypatch.setattr(trial, 'TIMEOUT_S', 0.2)
    with pytest.raises(ModelError, match='did not end within 0.2 s'):
        trial.try_model(model)


def test_a_model_is_tried_again_only_when_its_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    log = tmp_path / 'log'
    replace_child(monkeypatch, tmp_path, f'print("tried", file=open({str(log)!r}, "a"))')
    trial.try_model(model)
    trial.try_model(model)
    assert log.read_text().count('tried') == 1
    model.write_bytes(model.read_bytes() + b'\x00')
    trial.try_model(model)
    assert log.read_text().count('tried') == 2


def test_a_model_whose_weights_file_changed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    onnx.save(onnx.load(model), model, save_as_external_data=True, location='weights', size_threshold=0)
    log, weights = tmp_path / 'log', tmp_path / 'weights'
    replace_child(monkeypatch, tmp_path, f'print("tried", file=open({str(log)!r}, "a"))')
    for times in (1, 2):
        for _ in range(2):
            trial.try_model(model)
            trial._tried_here.clear()  # as in another process
            trial.try_model(model)
        assert log.read_text().count('tried') == times
        weights.write_bytes(weights.read_bytes()[::-1])


def test_a_model_that_lacks_its_weights_is_tried_every_time(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    onnx.save(onnx.load(model), model, save_as_external_data=True, location='weights', size_threshold=0)
    (tmp_path / 'weights').unlink()
    log = tmp_path / 'log'
    replace_child(monkeypatch, tmp_path, f'print("tried", file=open({str(log)!r}, "a"))')
    for _ in range(2):
        trial.try_model(model)
    assert log.read_text().count('tried') == 2
    assert not (cache / 'tried').exists()


def test_another_process_does_not_try_again_what_went_well(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    with monkeypatch.context() as patched:
        replace_child(patched, tmp_path, 'import os; os.abort()')
        with pytest.raises(ModelError):
            trial.try_model(model)
    trial.try_model(model)
    trial._tried_here.clear()  # as in another process
    replace_child(monkeypatch, tmp_path, 'import os; os.abort()')
    trial.try_model(model)
    assert len(list((cache / 'tried').iterdir())) == 1


def test_copies_of_a_model_are_tried_once_and_of_many_models_the_last_are_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, 'MOST_REMEMBERED', 2)
    model = save_colour_detector(tmp_path / 'model.onnx')
    for number in (1, 2, 3):
        copy = tmp_path / f'{number}.onnx'
        copy.write_bytes(model.read_bytes())
        trial.try_model(copy)
    assert len(list((cache / 'tried').iterdir())) == 1
    for size in (96, 128):
        trial.try_model(save_colour_detector(model, size=size))
    assert len(list((cache / 'tried').iterdir())) == 2


def test_a_trial_is_cancelled_at_once(tmp_path: Path) -> None:
    model = save_endless_model(tmp_path / 'endless.onnx')
    begin = time.monotonic()
    with pytest.raises(SessionError, match='endless.onnx: its trial run was cancelled'):
        trial.try_model(model, is_cancelled=lambda: time.monotonic() > begin + 0.5)
    assert time.monotonic() < begin + 5


def test_where_nothing_can_be_remembered_models_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('ISAAC_INFER_CACHE', str(tmp_path / 'file'))
    model = save_colour_detector(tmp_path / 'model.onnx')
    log = tmp_path / 'log'
    replace_child(monkeypatch, tmp_path, f'print("tried", file=open({str(log)!r}, "a"))')
    for _ in range(2):
        trial._tried_here.clear()
        trial.try_model(model)
    assert log.read_text().count('tried') == 2


def test_the_real_child_runs_a_good_model_and_keeps_quiet_about_a_bad_one(tmp_path: Path) -> None:
    trial.try_model(save_colour_detector(tmp_path / 'good.onnx'))
    bad = tmp_path / 'bad.onnx'
    bad.write_bytes(b'no model')
    trial.try_model(bad)


def test_modules_of_the_working_directory_do_not_keep_the_child_from_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'onnxruntime.py').write_text('open("was_here", "w"); raise ImportError("mine")')
    monkeypatch.chdir(tmp_path)
    trial.try_model(save_colour_detector(tmp_path / 'model.onnx'))
    assert not Path('was_here').exists()
    assert len(list(Path('cache', 'tried').iterdir())) == 1


def wait_until(is_true: Callable[[], bool], *, at_most_s: float = 30.0) -> None:
    end = time.monotonic() + at_most_s
    while not is_true():
        assert time.monotonic() < end, 'it did not come to pass'
        time.sleep(0.05)


def save_endless_model(path: Path) -> Path:
    """Write a model that counts for some hundred years."""
    body = helper.make_graph(
        [
            helper.make_node('Identity', ['go_in'], ['go_out']),
            helper.make_node('Sin', ['at_in'], ['at_out']),
        ],
        'body',
        [
            helper.make_tensor_value_info('step', TensorProto.INT64, []),
            helper.make_tensor_value_info('go_in', TensorProto.BOOL, []),
            helper.make_tensor_value_info('at_in', TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info('go_out', TensorProto.BOOL, []),
            helper.make_tensor_value_info('at_out', TensorProto.FLOAT, [1]),
        ],
    )
    return save_model(
        path,
        [helper.make_node('Loop', ['steps', 'go', 'x'], ['y'], body=body)],
        {'x': (TensorProto.FLOAT, [1])},
        {'y': (TensorProto.FLOAT, [1])},
        constants={'steps': np.array(1 << 62), 'go': np.array(True)},
    )


def test_a_trial_that_never_ends_ends_with_its_parent(tmp_path: Path) -> None:
    model = save_endless_model(tmp_path / 'endless.onnx')
    program = (
        'import sys; from pathlib import Path; from isaac_infer.engine.trial import try_model; '
        'try_model(Path(sys.argv[1]))'
    )
    parent = subprocess.Popen([sys.executable, '-c', program, str(model)])
    children = Path(f'/proc/{parent.pid}/task/{parent.pid}/children')
    try:
        wait_until(lambda: bool(children.read_text()))
        child = Path('/proc', children.read_text().split()[0])
        wait_until(lambda: 'onnxruntime' in (child / 'maps').read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    try:
        wait_until(lambda: not child.exists() or ') Z ' in (child / 'stat').read_text(), at_most_s=10)
    except AssertionError:
        os.kill(int(child.name), signal.SIGKILL)  # or it would go on after this test
        raise
