"""A node's process ends when it is asked to, whatever the node does."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

SCRIPT = """
import sys, time
from rclpy.node import Node
from isaac_infer.params import Params
from isaac_infer.ros import process

process.STOP_TIMEOUT_S = 1.0

class Busy(Node):
    exit_code = 0

    def __init__(self, stop):
        super().__init__('busy')
        self.create_timer(0.01, self.work)

    def work(self):
        print('at work', flush=True)
        time.sleep(float(sys.argv[1]))

    def close(self):
        print('closed', flush=True)

sys.exit(process.run_node('busy', Params, Busy, []))
"""


@pytest.mark.parametrize(('work_s', 'is_closed'), [('0.3', True), ('600', False)])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_process_also_where_a_request_never_ends(work_s, is_closed, number):
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', 'ROS_LOCALHOST_ONLY': '1'}
    process = subprocess.Popen(
        [sys.executable, '-c', SCRIPT, work_s],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    )
    try:
        while 'at work' not in (line := process.stdout.readline()):
            assert line, 'the node ended'
        begin = time.monotonic()
        process.send_signal(number)
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and time.monotonic() - begin < 5
    assert ('closed' in said) == is_closed
    assert ('a request is not done' in said) != is_closed


def test_under_nohup_it_outlives_its_terminal():
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', 'ROS_LOCALHOST_ONLY': '1'}
    process = subprocess.Popen(
        ['nohup', sys.executable, '-c', SCRIPT, '0.01'],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while 'at work' not in (line := process.stdout.readline()):
            assert line, 'the node ended'
        process.send_signal(signal.SIGHUP)
        for _ in range(50):
            assert 'at work' in process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_that_comes_again_while_the_process_ends_is_no_crash():
    # A launch file passes on the Ctrl-C that the terminal has sent to its processes already.
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', 'ROS_LOCALHOST_ONLY': '1'}
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT, '0.01'], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            while 'at work' not in (line := process.stdout.readline()):
                assert line, 'the node ended'
            deadline = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(signal.SIGINT)
                time.sleep(0.001)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 0


@pytest.mark.parametrize(
    ('arguments', 'code', 'said'),
    [
        (['--help'], 0, 'confidence_threshold: float from 0 to 1 (default 0.25)'),
        (['--model', 'yolo.onnx'], 2, 'unrecognized arguments: --model yolo.onnx'),
        (['--model', 'yolo.onnx'], 2, 'did you mean --ros-args -p model_file_path:=yolo.onnx?'),
        (['-p', 'rate:=1.0'], 2, 'did you mean --ros-args -p rate:=1.0?'),
        (['--log-level', 'debug'], 2, 'did you mean --ros-args --log-level debug?'),
        (['--autostart', '--model', 'yolo.onnx'], 2, 'did you mean --ros-args -p autostart:=VALUE?'),
        ([''], 2, 'unrecognized arguments: \n'),
        (['--confidence-treshold=0.4'], 2, 'did you mean --ros-args -p confidence_threshold:=0.4?'),
        (['yolo.onnx'], 2, 'unrecognized arguments: yolo.onnx\n'),
        (['--threshold', '0.4'], 2, '-p NAME:=0.4 with one of confidence_threshold, nms_threshold?'),
        (['--ros-args', '-r', 'a:=b', '--ros-args', '-p', 'autostart'], 1, ': expected -p NAME:=VALUE\n'),
        (['--ros-args', '--log-level', 'bogus', '--ros-args', '-r', 'a:=b'], 1, 'valid severity level'),
        (['-p', 'autostart:=true', '--ros-args'], 2, 'unrecognized arguments: -p; it goes behind --ros-args'),
        (['-v'], 2, 'unrecognized arguments: -v\n'),
        (['--=5'], 2, 'unrecognized arguments: --=5\n'),
        (['--ros-args', '-p', 'autostart'], 1, 'error: -p autostart: expected -p NAME:=VALUE\n'),
        (['--ros-args', '-p'], 1, 'error: -p: expected -p NAME:=VALUE\n'),
        (
            ['--ros-args', '-p', 'kind:='],
            1,
            'kind:=: expected -p NAME:=VALUE; an empty text is kind:="\'\'"\n',
        ),
        (['--ros-args', '-r', 'image:='], 1, 'error: -r image:=: expected -r FROM:=TO\n'),
        (['--ros-args', '--params-file'], 1, 'error: --params-file: expected --params-file FILE\n'),
        (['--ros-args', '--params-file', '/'], 1, '--params-file /: expected a YAML file, got a folder\n'),
        (['--ros-args', '--param-file', 'a.yaml'], 1, 'no such argument; did you mean --params-file?\n'),
    ],
)
def test_arguments_that_ros_does_not_know_are_not_ignored(arguments, code, said):
    command = [sys.executable, '-m', 'isaac_infer.nodes.detector_node', *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
