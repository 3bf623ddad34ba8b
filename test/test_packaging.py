"""Packaging: what package.xml, setup.py and colcon make of the package."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import isaac_infer

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
SETUP = (ROOT / 'setup.py').read_text()
SCRIPTS = dict(re.findall(r"'([\w-]+) = ([\w.:]+)'", SETUP))
COLCON = shutil.which('colcon', path=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]))

MAKE = shutil.which('make')

needs_colcon = pytest.mark.skipif(COLCON is None, reason='colcon is not installed')
needs_make = pytest.mark.skipif(MAKE is None, reason='make is not installed')


def colcon(*arguments, cwd):
    command = [COLCON, '--log-base', str(cwd / 'log'), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_is_the_same_everywhere():
    in_setup = re.search(r"version='([^']+)'", SETUP)
    assert MANIFEST.findtext('version') == isaac_infer.__version__
    assert in_setup is not None
    assert in_setup[1] == isaac_infer.__version__


def test_the_manifest_is_valid():
    package = pytest.importorskip('catkin_pkg.package', reason='catkin_pkg is not installed')
    warnings = []
    found = package.parse_package(str(ROOT), warnings=warnings)
    assert warnings == []
    assert found.get_build_type() == 'ament_python'


def test_the_manifest_names_exactly_the_ros_packages_that_are_imported():
    ros = re.compile(r'rclpy|launch|launch_ros|cv_bridge|ament_index_python|\w+_(msgs|interfaces)')
    imported = set()
    for path in [*(ROOT / 'isaac_infer').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition('.')[0])
    declared = {depend.text for depend in MANIFEST.iter('exec_depend')}
    assert set(filter(ros.fullmatch, imported)) == set(filter(ros.fullmatch, declared))


def test_every_node_has_an_executable_and_every_executable_its_function():
    nodes = {path.stem for path in (ROOT / 'isaac_infer' / 'nodes').glob('[a-z]*.py')}
    assert set(SCRIPTS) == nodes | {'isaac-infer'}
    for target in SCRIPTS.values():
        module, _, function = target.partition(':')
        tree = ast.parse((ROOT / f'{module.replace(".", "/")}.py').read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@needs_colcon
def test_colcon_finds_this_package_and_nothing_else(tmp_path):
    found = colcon('list', '--base-paths', ROOT, ROOT / 'tools', cwd=tmp_path)
    assert [line.split('\t')[::2] for line in found.splitlines()] == [['isaac_infer', '(ros.ament_python)']]


@needs_colcon
@pytest.mark.parametrize('layout', [[], ['--merge-install'], ['--symlink-install']], ids=' '.join)
def test_colcon_installs_executables_and_shared_files(tmp_path, layout):
    colcon('build', '--base-paths', ROOT, *layout, cwd=tmp_path)
    prefix = tmp_path / 'install' / ('' if '--merge-install' in layout else 'isaac_infer')
    for name in SCRIPTS:
        assert os.access(prefix / 'lib' / 'isaac_infer' / name, os.X_OK)
    for folder in ('config', 'launch', 'models'):
        files = {path.name for path in (ROOT / folder).glob('*.*')}
        installed = prefix / 'share' / 'isaac_infer' / folder
        assert {path.name for path in installed.glob('*')} == files
    script = 'source install/setup.bash && command -v isaac-infer && isaac-infer --version'
    said = subprocess.run(['bash', '-c', script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said.stdout.splitlines() == [
        str(prefix / 'bin' / 'isaac-infer'),
        f'isaac-infer {isaac_infer.__version__}',
    ], said.stderr


@needs_colcon
def test_colcon_test_runs_pytest(tmp_path):
    colcon('build', '--base-paths', ROOT, cwd=tmp_path)
    one = 'test/test_packaging.py::test_the_version_is_the_same_everywhere'
    colcon('test', '--base-paths', ROOT, '--pytest-args', one, cwd=tmp_path)
    assert 'Summary: 1 test, 0 errors' in colcon('test-result', '--all', cwd=tmp_path)


@pytest.mark.parametrize(
    ('message', 'fields'),
    [
        ('BoundingBox2D', {'center': 'vision_msgs/Pose2D', 'size_x': 'double', 'size_y': 'double'}),
        (
            'Detection2DArray',
            {'header': 'std_msgs/Header', 'detections': 'sequence<vision_msgs/Detection2D>'},
        ),
        (
            'Detection2D',
            {
                'header': 'std_msgs/Header',
                'results': 'sequence<vision_msgs/ObjectHypothesisWithPose>',
                'bbox': 'vision_msgs/BoundingBox2D',
                'id': 'string',
            },
        ),
        (
            'ObjectHypothesisWithPose',
            {'hypothesis': 'vision_msgs/ObjectHypothesis', 'pose': 'geometry_msgs/PoseWithCovariance'},
        ),
        ('ObjectHypothesis', {'class_id': 'string', 'score': 'double'}),
        ('Pose2D', {'position': 'vision_msgs/Point2D', 'theta': 'double'}),
        (
            'LabelInfo',
            {
                'header': 'std_msgs/Header',
                'class_map': 'sequence<vision_msgs/VisionClass>',
                'threshold': 'float',
            },
        ),
        ('VisionClass', {'class_id': 'uint16', 'class_name': 'string'}),
    ],
)
def test_vision_msgs_has_the_fields_of_4_1(message, fields):
    msg = pytest.importorskip('vision_msgs.msg', reason='no ROS 2 here')
    assert getattr(msg, message).get_fields_and_field_types() == fields


def set_up(**environment):
    command = [sys.executable, ROOT / 'tools' / 'setup_env.py']
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 2
    return done.stderr


def test_set_up_says_so_where_python_does_not_start(tmp_path):
    assert set_up(PYTHON=str(tmp_path / 'python3')) == f'\nset-up: {tmp_path}/python3 does not start\n'


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'version': '3.8.10'}, '(Python 3.8.10) does not fit: 3.10 to 3.14 does'),
        ({'venv': False}, 'has no venv module ("sudo apt install python3-venv" brings it)'),
        ({'headers': False, 'vision_msgs': False}, '("sudo apt install python3-dev" brings them)'),
    ],
)
def test_set_up_names_what_a_python_lacks(tmp_path, changed, said):
    fit = {'version': '3.11.2', 'venv': True, 'rclpy': True, 'vision_msgs': True, 'headers': True}
    python = tmp_path / 'python3'
    python.write_text(f"#!/bin/sh\necho '{json.dumps({**fit, **changed})}'\n")
    python.chmod(0o755)
    message = set_up(PYTHON=str(python))
    assert said in message
    assert len(message.splitlines()) == 2


def make(*arguments, **environment):
    own = {name: value for name, value in os.environ.items() if not name.startswith(('MAKE', 'MFLAGS'))}
    return subprocess.run(
        [MAKE, *arguments], cwd=ROOT, env={**own, **environment}, capture_output=True, text=True, timeout=60
    )


@needs_make
@pytest.mark.parametrize('given', ['FRAME=5', 'FRAME:=5', 'FRAME='])
def test_make_refuses_variables_that_it_does_not_know_before_it_does_anything(given):
    done = make('help', 'RATE=5', given)
    assert (done.returncode, done.stdout) == (2, '')
    assert 'FRAME: no variable of this Makefile; there are SOURCE MODEL TASK FRAMES' in done.stderr


@needs_make
@pytest.mark.parametrize(
    'value', ['', '-k a=b --task M=pose', 'a b\\', '\\ M=1', 'a\nM=1', 'a\tM=1', '"M=1', "'M=1", '$M M=$$1']
)
def test_make_takes_no_part_of_a_value_for_a_variable(value):
    done = make('help', f'ARGS={value}', f'SOURCE={value}')
    assert (done.returncode, done.stderr) == (0, '')


@needs_make
def test_make_lets_variables_of_the_environment_and_of_a_make_above_it_be():
    assert make('help', FRAME='5').returncode == 0
    assert make('help', 'FRAME=5', MAKELEVEL='1').returncode == 0
