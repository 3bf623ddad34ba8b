import argparse
from dataclasses import dataclass

import pytest

from isaac_infer.cli.main import main
from isaac_infer.cli.options import add_options, given_values, params_from
from isaac_infer.core.errors import ParameterError
from isaac_infer.params import DetectionParams, Params, param, parameters


@dataclass(frozen=True)
class Some(Params):
    model_file_path: str = param('', 'The model; 100 % of it.')
    scale: float = param(0.0, 'A scale.', low=0.0)
    count: int = param(-1, 'A number.', low=-1)
    mean: list[float] = param([], 'Numbers.')
    input_size: list[int] = param([], 'Whole numbers.')
    class_names: list[str] = param([], 'Names.')
    scale_up: bool = param(True, 'Whether.')
    resize: str = param('', 'How.', choices=('', 'stretch', 'letterbox'))


def parse(*arguments: str) -> Some:
    parser = argparse.ArgumentParser()
    add_options(parser, Some)
    return params_from(parser.parse_args(arguments), Some)


def test_nothing_given_gives_the_defaults() -> None:
    assert parse() == Some()


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--model', 'a.onnx'], {'model_file_path': 'a.onnx'}),
        (['--model-file-path', 'a.onnx'], {'model_file_path': 'a.onnx'}),
        (['--scale', '1'], {'scale': 1.0}),
        (['--scale', '3.92e-3'], {'scale': 0.00392}),
        (['--count', '-1'], {'count': -1}),
        (['--mean', '0.485', '0.456', '0.406'], {'mean': [0.485, 0.456, 0.406]}),
        (['--mean', '0.485,0.456,0.406'], {'mean': [0.485, 0.456, 0.406]}),
        (['--mean', '0.485, 0.456,', '0.406'], {'mean': [0.485, 0.456, 0.406]}),
        (['--mean', '-1', '-2.5', '3'], {'mean': [-1.0, -2.5, 3.0]}),
        (['--mean', ' -1e-3,-2'], {'mean': [-0.001, -2.0]}),
        (['--input-size', '480', '640'], {'input_size': [480, 640]}),
        (['--input-size', '480,640'], {'input_size': [480, 640]}),
        (['--class-names', 'cat', 'hot dog'], {'class_names': ['cat', 'hot dog']}),
        (['--class-names', 'cat, hot dog'], {'class_names': ['cat', 'hot dog']}),
        (['--class-names', 'dog, hot', 'cat'], {'class_names': ['dog, hot', 'cat']}),
        (['--class-names', 'names.txt'], {'class_names': ['names.txt']}),
        (['--scale-up'], {'scale_up': True}),
        (['--scale-up', 'False'], {'scale_up': False}),
        (['--resize', 'stretch'], {'resize': 'stretch'}),
    ],
)
def test_a_parameter_is_given_as_people_write_it(arguments: list[str], expected: dict[str, object]) -> None:
    assert parse(*arguments) == Some(**expected)


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--scale', '-1'], 'scale: expected float of at least 0, got -1.0'),
        (['--scale', 'nan'], 'scale: expected float of at least 0, got nan'),
        (['--mean', '1', 'x'], r"mean: expected float\[\], got \[1.0, 'x'\]"),
        (['--input-size', '1.5'], r"input_size: expected int\[\], got \['1.5'\]"),
        (['--resize', 'squeeze'], "resize: expected one of '', 'stretch', 'letterbox', got 'squeeze'"),
    ],
)
def test_a_value_out_of_range_is_refused_in_the_parameter_s_own_words(
    arguments: list[str], expected: str
) -> None:
    with pytest.raises(ParameterError, match=expected):
        parse(*arguments)


@pytest.mark.parametrize('arguments', [['--scale', 'much'], ['--count', '1.5'], ['--scale-up', 'perhaps']])
def test_a_value_of_the_wrong_type_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(*arguments)
    assert end.value.code == 2
    assert f'argument {arguments[0]}' in capsys.readouterr().err


def test_a_file_whose_name_has_a_comma_is_one_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a,b.txt').touch()
    assert parse('--class-names', 'a,b.txt').class_names == ['a,b.txt']


def test_only_what_was_given_counts_as_given() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Some)
    assert given_values(parser.parse_args(['--count', '-1']), Some) == {'count': -1}


def test_every_parameter_of_the_detector_is_an_option_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(['run', '--help'])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for parameter in parameters(DetectionParams):
        assert f'--{parameter.name.replace("_", "-")}' in shown
