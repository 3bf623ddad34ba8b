"""Parameter files that say nothing of the node that they were given to are told."""

import subprocess
import sys

import pytest
from rclpy.node import Node

from isaac_infer.ros.param_files import slips_of

NAME = '/front/pose_node'


def slips(tmp_path, text, name=NAME, usual='pose_node'):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    return list(slips_of(['--ros-args', '--params-file', str(path), '-p', 'a:=1'], name, usual))


def section(*names):
    return ''.join(f'{name}:\n  ros__parameters:\n    keypoint_threshold: 0.9\n' for name in names)


@pytest.mark.parametrize(
    'text',
    [
        section('/**'),
        section('/**/pose_node'),
        section('/*/pose_node'),
        section('/front/*'),
        section('/front/pose_node'),
        section('front/pose_node', '/camera'),
        '/front:\n  pose_node:\n    ros__parameters:\n      track: true\n',
        section('/**/detector_node', 'power_manager'),  # shared by several nodes
    ],
)
def test_files_with_a_section_of_the_node_or_of_others_alone_are_right(tmp_path, text):
    assert slips(tmp_path, text) == []


@pytest.mark.parametrize(
    'name',
    ['/**', '/**/pose_node', '/*/pose_node', '/*/*', '/*', '/front/*', '/front/**', '/front/pose_node',
     'front/pose_node', 'pose_node', '/pose_node', '/pose_nod', '/**/camera', '/front', '/**/pose'],
)  # fmt: skip
def test_a_section_is_for_a_node_where_ros_says_so(ros, tmp_path, name):
    told = slips(tmp_path, section(name))
    path = tmp_path / 'mine.yaml'
    node = Node('pose_node', namespace='front', cli_args=['--ros-args', '--params-file', str(path)])
    is_given = bool(node._parameter_overrides)
    node.destroy_node()
    assert is_given == (not told)


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        (section('/**/pose_nod'), '/**/pose_nod'),
        (section('pose_node'), '/pose_node'),  # in the root namespace alone
        (section('/back/pose_node', '/**/detector_node'), '/back/pose_node, /**/detector_node'),
        (section('camera'), '/camera'),
        ('', 'no section with ros__parameters'),
        ('pose_node:\n  keypoint_threshold: 0.9\n', 'no section with ros__parameters'),
    ],
)
def test_others_are_told_with_what_they_have(tmp_path, text, shown):
    (slip,) = slips(tmp_path, text)
    assert f'nothing in it is for {NAME}: it has {shown}; ' in slip
    assert slip.endswith(f'name the section {NAME}, or /**/pose_node for all namespaces')


def test_the_usual_name_of_a_node_that_has_another_one_is_no_other_node(tmp_path):
    (slip,) = slips(tmp_path, section('pose_node'), '/front_pose')
    assert slip.endswith('name the section /front_pose, or /**/front_pose for all namespaces')
    assert slips(tmp_path, section('front_pose'), '/front_pose') == []


def test_what_ros_alone_can_read_is_left_to_it(tmp_path):
    assert slips(tmp_path, 'camera: !ours\n  ros__parameters:\n    a: 1\n') == []


def test_the_node_says_it(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(section('image_sourc'))
    command = [sys.executable, '-m', 'isaac_infer.nodes.image_source', '--ros-args', '-p', 'loop:=false']
    more = ['-p', 'source:=synthetic', '-p', 'frames:=1', '--params-file', str(path)]
    ended = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60)
    assert 'nothing in it is for /image_source: it has /image_sourc;' in ended.stderr + ended.stdout
