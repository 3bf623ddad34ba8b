"""jetson.launch: what it starts, and with ROS 2's launch also that what ends comes back."""

import asyncio
import importlib.util
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from isaac_infer.params import (
    DetectorParams,
    ExecutorParams,
    PoseNodeParams,
    PowerManagerParams,
    RobotSimulatorParams,
    SegmentationNodeParams,
    ValidatorParams,
)
from isaac_infer.ros.launching import KINDS
from isaac_infer.ros.launching_jetson import (
    ARGUMENTS,
    LONGEST_PAUSE_S,
    ROLES,
    actions_of,
    kept_alive,
    longer_pause_s,
    node_of,
    remappings_of,
    slips_of,
)

ROOT = Path(__file__).parents[2]
XML = ROOT / 'launch' / 'jetson.launch.xml'
CONFIG = ROOT / 'config'
PARAMS = {
    'detector_node': DetectorParams,
    'segmentation_node': SegmentationNodeParams,
    'pose_node': PoseNodeParams,
    'jetson_executor': ExecutorParams,
    'power_manager': PowerManagerParams,
    'deployment_validator': ValidatorParams,
    'robot_simulator': RobotSimulatorParams,
}
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec('launch_ros') is None,
    reason='launch_ros is not installed; it comes with ROS 2, not from PyPI',
)


def values_of(**given):
    defaults = {
        each.name: str(CONFIG / each.default) if each.is_config else each.default for each in ARGUMENTS
    }
    assert set(given) <= set(defaults)
    return {**defaults, **given}


def role(noun):
    (found,) = [each for each in ROLES if each.noun == noun]
    return found


# --- without launch -----------------------------------------------------------------------------------------


def test_every_node_can_be_switched_and_every_argument_is_explained():
    assert {each.executable for each in ROLES} == set(PARAMS)
    names = [argument.name for argument in ARGUMENTS]
    assert len(set(names)) == len(names)
    assert {f'use_{each.noun}' for each in ROLES} < set(names)
    for argument in ARGUMENTS:
        assert argument.about.endswith('.')
        assert not argument.choices or argument.default in argument.choices
        assert not argument.is_config or (CONFIG / argument.default).is_file()


def test_the_executor_comes_after_what_it_needs_and_the_validator_last():
    order = [each.noun for each in ROLES]
    assert order.index('executor') > max(order.index(kind.noun) for kind in KINDS)
    assert order[-1] == 'validator'


@pytest.mark.parametrize('name', PARAMS)
def test_the_parameter_file_has_a_section_for_every_node_that_it_takes(name):
    sections = yaml.safe_load((CONFIG / 'jetson.yaml').read_text())
    assert set(sections) == {f'/**/{each}' for each in PARAMS}  # in any namespace
    given = sections[f'/**/{name}']['ros__parameters']
    values = PARAMS[name]().changed(**given)  # which refuses what the node would refuse
    assert all(getattr(values, key) == value for key, value in given.items())


def test_no_robot_of_the_parameter_file_moves_or_is_switched_by_itself():
    sections = yaml.safe_load((CONFIG / 'jetson.yaml').read_text())
    assert sections['/**/jetson_executor']['ros__parameters']['enabled_at_start'] is False
    assert sections['/**/power_manager']['ros__parameters']['dry_run'] is True


def test_topics_keep_their_names_but_for_those_of_perception():
    given = values_of()
    assert remappings_of(given, role('executor')) == []
    assert remappings_of(given, role('simulator')) == []
    assert dict(remappings_of(given, role('detector'))) == {
        'image': 'camera/image_raw',
        'detections': 'detector/detections',
        'overlay': 'detector/overlay',
        'label_info': 'detector/label_info',
    }


def test_topics_that_are_given_are_those_of_all_who_use_them():
    given = values_of(image='/front/image', control_output='/cmd_vel', scan='/lidar')
    assert dict(remappings_of(given, role('executor'))) == {
        'camera/image_raw': '/front/image',
        'scan': '/lidar',
        'control_output': '/cmd_vel',
    }
    for other in ('simulator', 'validator'):
        assert dict(remappings_of(given, role(other))) == dict(remappings_of(given, role('executor')))
    assert dict(remappings_of(given, role('pose')))['image'] == '/front/image'


def test_arguments_and_sections_that_nobody_reads_are_said_with_what_may_be_meant(tmp_path):
    params = tmp_path / 'robot.yaml'
    sections = ('/**/jetson_executer', '/**/power_manager', '/r1/detector_node', '/**', '/**/my_camera')
    params.write_text(yaml.safe_dump({name: {'ros__parameters': {'seed': 3}} for name in sections}))
    given = {**values_of(params_file=str(params)), 'use_detectr': 'false', 'world': 'of another launch file'}
    assert list(slips_of(given)) == [
        'use_detectr: no argument of this launch file; did you mean use_detector?',
        'params_file: no node here reads the section /**/jetson_executer; did you mean jetson_executor?',
    ]
    assert list(slips_of(values_of())) == []


@pytest.mark.parametrize('content', [b'a: [', b'\xff\xfe\xff'])
def test_a_parameter_file_that_is_none_is_told(tmp_path, content):
    params = tmp_path / 'robot.yaml'
    params.write_bytes(content)
    with pytest.raises(ValueError, match='params_file: .*robot.yaml cannot be read: '):
        list(slips_of(values_of(params_file=str(params))))


def test_pauses_grow_up_to_a_limit():
    pauses = [1.0]
    while pauses[-1] < LONGEST_PAUSE_S:
        pauses.append(longer_pause_s(pauses[-1]))
    assert pauses == [1, 2, 4, 8, 16, 32, 60]
    assert longer_pause_s(LONGEST_PAUSE_S) == LONGEST_PAUSE_S
    assert longer_pause_s(2 * LONGEST_PAUSE_S) == 2 * LONGEST_PAUSE_S  # the user's is not shortened


def test_what_is_started_again_at_once_waits_the_second_time():
    assert longer_pause_s(0.0) > 0


def test_xml_has_the_arguments_that_python_has_and_hands_all_over():
    root = ElementTree.parse(XML).getroot()
    found = [
        (
            element.get('name'),
            element.get('default'),
            element.get('description'),
            tuple(choice.get('value') for choice in element),
        )
        for element in root.findall('arg')
    ]
    share = '$(find-pkg-share isaac_infer)'
    assert found == [
        (
            argument.name,
            f'{share}/config/{argument.default}' if argument.is_config else argument.default,
            argument.about,
            argument.choices,
        )
        for argument in ARGUMENTS
    ]
    (include,) = root.findall('include')
    assert include.get('file') == f'{share}/launch/jetson.launch.py'
    handed = {element.get('name'): element.get('value') for element in include}
    assert handed == {argument.name: f'$(var {argument.name})' for argument in ARGUMENTS}


# --- with launch --------------------------------------------------------------------------------------------


@needs_launch
def test_what_is_switched_off_is_not_started():
    off = {f'use_{each.noun}': 'false' for each in ROLES}
    assert list(actions_of(values_of(**off))) == []
    assert len(list(actions_of(values_of(**{**off, 'use_executor': 'True', 'use_pose': 'true'})))) == 2


@needs_launch
def test_the_validator_gets_its_manifest_and_comes_later():
    from launch.actions import TimerAction

    off = {f'use_{each.noun}': 'false' for each in ROLES}
    (action,) = actions_of(values_of(**{**off, 'use_validator': 'true'}))
    assert isinstance(action, TimerAction)
    assert node_of(values_of(), role('validator')).node_executable == 'deployment_validator'


@needs_launch
@pytest.mark.parametrize(
    ('given', 'says'),
    [
        ({'respawn_delay': 'soon'}, "respawn_delay: expected a number, got 'soon'"),
        ({'respawn_delay': 'nan'}, 'respawn_delay: expected seconds from 0 on, got nan'),
        ({'respawn_delay': '-1'}, 'respawn_delay: expected seconds from 0 on, got -1'),
        ({'validate_after': 'inf'}, 'validate_after: expected seconds from 0 on, got inf'),
        ({'validate_after': ''}, "validate_after: expected a number, got ''"),
        ({'params_file': '/no.yaml'}, "params_file: expected a file, got '/no.yaml', which is not there"),
        ({'manifest': '/no.yaml'}, "manifest: expected a file, got '/no.yaml', which is not there"),
    ],
)
def test_arguments_are_checked_before_anything_starts(given, says):
    with pytest.raises(ValueError, match=says):
        list(actions_of(values_of(**given)))


@needs_launch
def test_what_ends_is_started_again_after_longer_and_longer_pauses(tmp_path):
    from launch import LaunchDescription, LaunchService
    from launch.actions import ExecuteProcess, OpaqueFunction, Shutdown, TimerAction

    log = tmp_path / 'starts'

    def make():
        return ExecuteProcess(cmd=['/bin/sh', '-c', f'date +%s.%N >> {log}; exit 3'])

    begin = OpaqueFunction(function=lambda context: kept_alive(make, first_s=0.2, pause_s=0.2))
    service = LaunchService()
    end = TimerAction(period=4.0, actions=[Shutdown()])
    service.include_launch_description(LaunchDescription([begin, end]))
    asyncio.new_event_loop().run_until_complete(service.run_async())
    starts = [float(line) for line in log.read_text().split()]
    pauses = [after - before for before, after in pairwise(starts)]
    # 0.2, 0.4, 0.8, 1.6 s, and what it takes to start a process on a machine that is busy
    assert 3 <= len(pauses) <= 4
    for number, pause_s in enumerate(pauses):
        assert 0.2 * 2**number <= pause_s < 0.2 * 2**number + 1.0
