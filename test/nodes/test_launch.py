"""The launch file, where the launch packages of ROS 2 are installed (they are not on PyPI)."""

import runpy
from pathlib import Path

import pytest

WORDS = {
    'autostart': 'maybe',
    'use_image_source': '1',
    'transport': 'shared',
    'log_level': 'loud',
}
FILE = Path(__file__).parents[2] / 'launch' / 'detector.launch.py'

# First launch_ros: the folder of launch files here could pass for an empty package `launch`.
pytest.importorskip('launch_ros', reason='launch_ros is not installed; it comes with ROS 2, not from PyPI')
launch = pytest.importorskip('launch')


@pytest.fixture
def description(monkeypatch):
    for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE', 'RMW_IMPLEMENTATION'):
        monkeypatch.delenv(variable, raising=False)
    return runpy.run_path(str(FILE))


def test_every_argument_has_a_description_and_a_default(description):
    arguments = description['generate_launch_description']().get_launch_arguments()
    assert {'model', 'image', 'namespace', 'params_file', 'log_level'} <= {a.name for a in arguments}
    assert all(argument.description and argument.default_value is not None for argument in arguments)


def test_every_process_gets_the_dds_profile(description):
    entities = description['generate_launch_description']().entities
    names = [
        entity.name[0].text
        for entity in entities
        if isinstance(entity, launch.actions.SetEnvironmentVariable)
    ]
    assert sorted(names) == ['FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE']


@pytest.mark.parametrize(('given', 'executables'), [('false', 1), ('true', 2)])
def test_the_image_source_is_started_on_request(description, given, executables):
    context = launch.LaunchContext()
    values = {'model': 'm.onnx', 'use_image_source': given, 'params_file': '/p.yaml', 'image': 'camera/image'}
    for name, default, _ in description['ARGUMENTS']:
        context.launch_configurations[name] = values.get(name, default if isinstance(default, str) else '')
    assert len(description['describe_nodes'](context)) == executables


@pytest.mark.parametrize('name', WORDS)
def test_a_word_that_means_nothing_is_refused_by_name(description, name):
    arguments = description['generate_launch_description']().get_launch_arguments()
    (argument,) = [argument for argument in arguments if argument.name == name]
    context = launch.LaunchContext()
    context.launch_configurations[name] = WORDS[name]
    with pytest.raises(RuntimeError, match=name):
        argument.execute(context)


def test_a_rate_that_is_no_number_is_refused_by_name(description):
    with pytest.raises(ValueError, match="rate: expected a number, got 'abc'"):
        description['number_of']({'rate': 'abc'}, 'rate')
