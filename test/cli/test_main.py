import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from isaac_infer.cli import main as module
from isaac_infer.cli.main import COMMANDS, main
from models import save_colour_detector


def command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'isaac_infer.cli.main', *arguments], capture_output=True, text=True, **options
    )


def test_no_sub_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in COMMANDS)


def test_an_unknown_sub_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(['paint'])
    assert end.value.code == 2
    assert "'paint'" in capsys.readouterr().err


@pytest.mark.parametrize('name', COMMANDS)
def test_a_sub_command_is_for_what_the_list_of_all_says(name: str) -> None:
    subparsers = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f'isaac_infer.cli.{name}').add_parser(subparsers)
    (listed,) = subparsers._choices_actions
    assert listed.help == COMMANDS[name]


@pytest.mark.parametrize('name', COMMANDS)
def test_every_sub_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert end.value.code == 0
    assert f'isaac-infer {name}' in capsys.readouterr().out


def test_help_comes_without_loading_what_it_does_not_need() -> None:
    loaded = command('--version', env={**os.environ, 'PYTHONPROFILEIMPORTTIME': '1'}).stderr
    assert 'isaac_infer.cli' in loaded
    for heavy in ('numpy', 'cv2', 'onnxruntime', 'rich', 'rclpy'):
        assert f' {heavy}\n' not in loaded


def test_the_version_is_printed() -> None:
    from isaac_infer import __version__

    assert command('--version').stdout == f'isaac-infer {__version__}\n'


def test_an_error_is_one_line_without_a_traceback() -> None:
    result = command('run', '--model', 'nowhere.onnx', '--source', 'synthetic')
    assert result.returncode == 1
    assert result.stdout == ''
    assert result.stderr.startswith('isaac-infer: error: nowhere.onnx: no such model file')
    assert result.stderr.count('\n') == 1


def test_a_parameter_out_of_range_is_a_usage_error() -> None:
    result = command('run', '--source', 'synthetic', '--confidence-threshold', '7')
    assert result.returncode == 2
    assert result.stderr == 'isaac-infer: error: confidence_threshold: expected float from 0 to 1, got 7.0\n'


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, '-m', 'isaac_infer.cli.main', 'decoders'],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert result.stderr == ''
    assert result.returncode == 1


def test_an_interruption_ends_with_the_shell_s_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, '_parser', interrupt)
    assert main(['decoders']) == 130


def test_what_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    picture = tmp_path / '\udcff\u6a21.png'
    picture.write_bytes(cv2.imencode('.png', np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    result = command(
        'run',
        '--model',
        str(model),
        '--source',
        str(picture),
        env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
    )
    assert result.returncode == 0
    assert '\\udcff\\u6a21.png' in result.stdout


@pytest.mark.parametrize('task', ['detection', 'pose'])
def test_the_decoders_are_listed_with_what_they_read(capsys: pytest.CaptureFixture[str], task: str) -> None:
    from isaac_infer.core.decode.tasks import TASKS

    assert main(['decoders', '--task', task]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TASKS[task].decoders)
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize(
    ('arguments', 'hint'),
    [
        (['--confidence-treshold', '0.4'], '; did you mean --confidence-threshold?\n'),
        (['--confidence_threshold', '0.4'], '; did you mean --confidence-threshold?\n'),
        (['--wxyz'], 'unrecognized arguments: --wxyz\n'),
        (['--test'], 'unrecognized arguments: --test\n'),
        (['--iou', '0.5'], 'unrecognized arguments: --iou 0.5\n'),
        (['--palette', 'red'], '; palette is a parameter of segmentation_node, and no option here\n'),
        (['--frames', '1', 'b.onnx'], 'arguments: b.onnx; name models together, before the options\n'),
        (['--frames', '1', '/'], 'arguments: /; pictures go after --source\n'),
    ],
)
def test_an_unknown_option_shows_its_command_and_what_may_have_been_meant(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(['run', 'yolo.onnx', '--source', 'synthetic', *arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert 'usage: isaac-infer run' in said and hint in said


@pytest.mark.parametrize(
    ('words', 'meant'),
    [
        (['demo', '--model_file_path=a.onnx'], '--model-file-path'),
        (['inspect', 'a.onnx', '--class_names', 'a'], '--class-names'),
        (['bench', 'a.onnx', '--input_size', '64'], '--input-size'),
        (['validate', 'a.yaml', '--model_directory', '.'], '--model-directory'),
    ],
)
def test_an_option_with_underscores_is_told_with_its_hyphens(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert capsys.readouterr().err.endswith(f'; did you mean {meant}?\n')


@pytest.mark.parametrize('name', ['run', 'demo', 'evaluate', 'inspect', 'build', 'bench'])
def test_the_model_is_given_with_or_without_an_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, 'nowhere.onnx', '--model', 'nowhere.onnx']) == 2
    assert 'got two models' in capsys.readouterr().err


def test_the_decoders_of_all_tasks_are_listed_under_headings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from isaac_infer.core.decode.tasks import TASKS

    assert main(['decoders']) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert first == [word for task in TASKS for word in (f'{task}:', *TASKS[task].decoders)]


@pytest.mark.parametrize('value', ['-1e-3', '-1,-2,-3', '-.5'])
def test_negative_numbers_are_values_and_not_options(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['run', '--source', 'synthetic', '--mean', value, '--model', 'nowhere.onnx']) == 1
    assert 'nowhere.onnx: no such model file' in capsys.readouterr().err


def test_a_closed_standard_output_is_no_traceback() -> None:
    program = f'"{sys.executable}" -m isaac_infer.cli.main decoders >&-'
    result = subprocess.run(['sh', '-c', program], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, '')


def test_a_missing_library_is_one_line_that_says_what_to_install() -> None:
    hide = (
        'import sys; sys.modules["cv2"] = None; '
        'from isaac_infer.cli.main import main; sys.exit(main(["run", "--source", "x.png"]))'
    )
    result = subprocess.run([sys.executable, '-c', hide], capture_output=True, text=True)
    assert result.returncode == 1
    assert 'cv2 is missing' in result.stderr and 'pip install' in result.stderr
    assert 'Traceback' not in result.stderr
