"""`isaac-infer build`, and `--build-only` of other commands."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isaac_infer.cli import build
from isaac_infer.cli.main import main
from isaac_infer.core.spec import Overrides
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.load import open_session
from models import save_colour_detector, save_constant_detector

NO_GPU = pytest.mark.skipif(not device_problem(), reason='there is a GPU')


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_colour_detector(tmp_path / 'colours.onnx')


@NO_GPU
def test_without_a_gpu_nothing_is_built_and_the_error_says_why(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['build', str(model)]) == 1
    said = capsys.readouterr()
    assert 'TensorRT cannot be used' in said.err and not said.out


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that there is a GPU, on which every model has this engine already; how it is read is found."""
    path = tmp_path / 'built.engine'

    def open_engine(model: Path, options: Any, overrides: Overrides, find_spec: Any, **_: Any) -> Any:
        with contextlib.closing(open_session(model, backend='onnxruntime')) as session:
            spec = find_spec(session, model, overrides)
        return SimpleNamespace(path=path, backend='pretended', fallbacks=(), close=lambda: None), spec

    monkeypatch.setattr(build, 'open_engine', open_engine)
    return path


def test_what_may_be_wrong_with_a_model_is_said_when_it_is_built_and_what_it_hints_at_works(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_constant_detector(
        tmp_path / 'maps.onnx', {'seg': np.full((1, 17, 16, 16), 0.01, np.float32)}
    )
    file = tmp_path / 'report.json'
    assert main(['build', str(model), '--json', str(file)]) == 0
    said, report = capsys.readouterr(), json.loads(file.read_text())
    (warning,) = report['warnings']
    assert said.err == f'isaac-infer: warning: {warning}\n' and 'more like heat maps' in warning
    assert said.out == f'{engine}\n' and report['task'] == 'segmentation'
    for task, *options in (('pose', '--task', 'pose'), ('segmentation', '--decoder', 'semantic')):
        assert main(['build', str(model), '--json', str(file), *options]) == 0
        report = json.loads(file.read_text())
        assert (report['task'], report['warnings'], capsys.readouterr().err) == (task, [], '')


def test_a_task_that_a_model_is_not_for_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, 'open_engine', lambda *_, **__: pytest.fail('built'))
    assert main(['build', 'tabletop_detector.onnx', '--task', 'pose']) == 1
    assert "for the task 'detect'" in capsys.readouterr().err


@pytest.mark.parametrize('command', ['run', 'inspect', 'evaluate', 'bench'])
def test_that_there_is_no_such_model_is_in_the_report_too(command: str, tmp_path: Path) -> None:
    report = tmp_path / 'r.json'
    report.write_text('{"model": "old", "pictures": []}')
    sources = ['--source', 'synthetic'] if command == 'run' else []
    assert main([command, 'nosuch.onnx', *sources, '--json', str(report)]) == 1
    assert 'no such model' in json.loads(report.read_text())['failure']


def test_an_engine_is_not_built_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / 'a.engine'
    engine.write_bytes(b'ftrt')
    assert main(['build', str(engine)]) == 2
    assert 'expected an ONNX model, got an engine' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['run', 'bench', 'compare'])
def test_build_only_opens_the_model_needs_no_pictures_and_ends(
    command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(model)] if command != 'run' else ['--model', str(model)]
    file = tmp_path / 'out' / 'report.json'
    asked = [command, *named, '--backend', 'onnxruntime', '--build-only', '--json', str(file)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f'{model}: nothing to build, it runs on onnxruntime')
    report = json.loads(file.read_text())
    assert (report['model'], len(report['opened'])) == (str(model), 1)
    assert main(asked) == 0  # its own report may be written again


@pytest.mark.parametrize('command', ['run', 'bench', 'compare'])
def test_build_only_does_not_write_its_report_over_the_model(command: str, model: Path) -> None:
    named = [str(model)] if command != 'run' else ['--model', str(model)]
    before = model.read_bytes()
    assert main([command, *named, '--build-only', '--json', str(model)]) == 2
    assert model.read_bytes() == before


@NO_GPU
def test_build_only_fails_where_the_engine_cannot_be_built(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ['run', '--model', str(model), '--backend', 'tensorrt', '--build-only', '--json', '-']
    assert main(asked) == 1
    said = capsys.readouterr()
    assert 'cannot be used' in json.loads(said.out)['failure']
    assert f'isaac-infer: error: {model}: TensorRT cannot be used' in said.err


@NO_GPU
@pytest.mark.parametrize('command', ['run', 'bench', 'compare'])
def test_build_only_fails_where_nothing_is_built_and_nobody_chose_that(
    command: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(model)] if command != 'run' else ['--model', str(model)]
    assert main([command, *named, '--build-only', '--json', '-']) == 1
    said = capsys.readouterr()
    assert 'no engine was built: TensorRT cannot be used' in json.loads(said.out)['failure']
    assert f'isaac-infer: error: {model}: no engine was built: TensorRT cannot be used' in said.err


@pytest.mark.parametrize('command', ['run', 'bench'])
@pytest.mark.parametrize('task', ['pose', 'detection'])
def test_build_only_of_a_top_down_pose_model_opens_what_finds_the_persons_too(
    command: str, task: str, model: Path, tmp_path: Path
) -> None:
    pose = save_constant_detector(tmp_path / 'pose.onnx', {'heatmaps': np.zeros((1, 17, 16, 16), np.float32)})
    file = tmp_path / 'report.json'
    asked = [command, str(pose if task == 'pose' else model), '--backend', 'onnxruntime', '--build-only']
    finder = ['--person-model-file-path', str(model)] if task == 'pose' else []
    assert main([*asked, *finder, '--task', task, '--json', str(file)]) == 0
    opened = [each['model'] for each in json.loads(file.read_text())['opened']]
    assert opened == ([str(pose), str(model)] if task == 'pose' else [str(model)])


@pytest.mark.parametrize('command', ['build', 'run', 'bench', 'compare', 'evaluate', 'inspect'])
@pytest.mark.parametrize('place', ['-', 'file', 'precious'])
def test_why_a_command_failed_is_in_its_report(
    command: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / 'broken.onnx'
    model.write_bytes(b'nothing')
    file = tmp_path / 'out.json'
    if place == 'precious':
        file.write_text('{"weights": 1}')
    source = ['--source', 'synthetic'] if command in ('run', 'compare') else []
    asked = [
        command,
        str(model),
        *source,
        '--backend',
        'onnxruntime',
        '--json',
        '-' if place == '-' else str(file),
    ]
    if command == 'build':
        asked.remove('--backend')
        asked.remove('onnxruntime')
    code = main(asked)
    said = capsys.readouterr()
    if place == 'precious':
        assert code == 2 and file.read_text() == '{"weights": 1}'
        return
    report = json.loads(said.out if place == '-' else file.read_text())
    assert code == 1 and report['model'] == str(model)
    assert report['failure'] and report['failure'].splitlines()[0] in said.err


def test_without_build_only_run_needs_pictures(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['run', '--model', str(model)]) == 2
    assert 'source: expected pictures, got none' in capsys.readouterr().err
