"""`isaac-infer demo`: three processes over DDS, and what came of it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import cv2
import pytest
from demos import COMMAND, demo, processes_of
from full_disk import full_disk

from isaac_infer.cli import demo as module
from isaac_infer.cli import demo_nodes
from isaac_infer.core.scenes import draw_scene

pytest.importorskip('rclpy', reason='the demo runs ROS 2 nodes')


def test_every_picture_is_sent_answered_and_shown(environment, tmp_path):
    strange = tmp_path / 'strange'
    strange.mkdir()
    (strange / 'random.py').write_text('raise SystemExit("of somebody else")')
    done = demo(environment, '--frames', 20, '--rate', 10, '--out', tmp_path, cwd=strange)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['answered'] == report['pictures'] == 20
    assert report['nodes']['image_source']['values']['sent'] == '20'
    assert sum(report['classes'].values()) > 20
    assert 0 < report['latency_ms']['p50'] < 1000
    assert report['nodes']['detector_node']['message'].startswith('20 pictures answered')
    assert not any('no picture' in warning for warning in report['warnings'])
    sheet = cv2.imread(str(tmp_path / 'contact_sheet.png'))
    assert min(sheet.shape[:2]) > 500
    for word in ('sent', 'answered', 'p99', 'picture stamp to result', 'onnxruntime'):
        assert word in done.stdout
    assert not processes_of(environment)


@pytest.mark.parametrize(
    ('task', 'node', 'model'),
    [('segmentation', 'segmentation_node', 'tabletop_instances'), ('pose', 'pose_node', 'humanoid_pose')],
)
def test_models_of_other_tasks_are_shown_as_their_node_draws_them(environment, tmp_path, task, node, model):
    done = demo(environment, '--task', task, '--frames', 6, '--rate', 2, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    assert f'{model}.onnx' in done.stdout
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['answered'] == report['pictures'] == 6
    assert report['nodes'][node]['values']['answered'] == '6'
    assert sum(report['classes'].values()) >= 6
    assert 'overlay_ms_p50' in report['nodes'][node]['values']
    assert min(cv2.imread(str(tmp_path / 'contact_sheet.png')).shape[:2]) > 500
    assert not processes_of(environment)


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--model', 'nowhere.onnx'], 'nowhere.onnx: no such model file'),
        (['--source', 'nowhere.png'], "'nowhere.png': no such file"),
        (
            ['--task', 'pose', '--model', 'tabletop_segmentation.onnx'],
            'expected a model for pose, or take seg',
        ),
        (['--frames', '0'], '--frames: expected at least 1, got 0'),
        (['--frames', '99999999999999999999'], 'frames: expected int of at least 0, got a number of 67 bits'),
        (['--confidence-threshold', '2'], 'confidence_threshold: expected float from 0 to 1, got 2.0'),
    ],
)
def test_what_cannot_work_is_one_clear_error_and_leaves_nothing_behind(
    environment, tmp_path, arguments, says
):
    done = demo(environment, *arguments, '--out', tmp_path)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert 'Traceback' not in done.stderr
    assert not done.stdout and 'ended with code' not in done.stderr  # no node was started for it
    assert not processes_of(environment)


def test_a_demo_that_fails_leaves_the_results_of_an_earlier_one(environment, tmp_path):
    (tmp_path / 'report.json').write_text('{"answered": 0, "of": "an earlier run"}')
    assert demo(environment, '--model', 'nowhere.onnx', '--out', tmp_path).returncode == 1
    assert 'earlier' in (tmp_path / 'report.json').read_text()


def test_a_report_of_somebody_else_is_not_replaced(environment, tmp_path):
    (tmp_path / 'report.json').write_text('[1, 2, "my own measurements"]')
    done = demo(environment, '--out', tmp_path)
    assert done.returncode == 1 and 'report.json there is none of the demo' in done.stderr


def test_on_a_full_disk_the_results_of_an_earlier_demo_stay_and_the_disk_is_named(tmp_path):
    (tmp_path / 'sheet.png').write_bytes(b'earlier')
    with full_disk(), pytest.raises(demo_nodes.DemoError, match='sheet.png: cannot be written: File too'):
        demo_nodes.write_result(tmp_path / 'sheet.png', bytes(1000))
    assert (tmp_path / 'sheet.png').read_bytes() == b'earlier' and os.listdir(tmp_path) == ['sheet.png']


def test_every_picture_of_a_folder_is_shown_once(environment, tmp_path):
    pictures = tmp_path / 'pictures \U0001f600 \x85 \xfc'  # also what Unicode has added later
    pictures.mkdir()
    for seed in range(3):
        cv2.imwrite(str(pictures / f'{seed}.png'), draw_scene(seed).image)
    (pictures / 'z.png').write_bytes(b'none')
    done = demo({**environment, 'HOME': str(tmp_path)}, '--source', pictures, '--out', '~/out')
    assert done.returncode == 1, done.stderr  # as of `run`: one could not be read
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['answered'] == report['pictures'] == 3
    for row in ('sent         3', 'unreadable   1', 'answered     3'):
        assert row in done.stdout
    assert 'z.png: expected a picture' in done.stdout and 'knows drawn scenes only' in done.stdout


@pytest.mark.parametrize(
    ('task', 'source', 'is_tracked'),
    [('pose', 'synthetic:humanoids', False), ('pose', 'walk.mp4', True), ('detection', 'synthetic', True)],
)
def test_persons_of_drawn_scenes_are_not_followed_from_one_to_the_next(task, source, is_tracked):
    assert module._usual_values(task, source).get('track', True) == is_tracked


def test_warnings_are_of_the_whole_run():
    said = [
        'pictures lost on the way here: 4; use cups',
        '16.0 pictures per second of 21.0; 5 came while the model was busy',
        'low light',
    ]
    values = {'received': '90', 'dropped_busy': '60', 'rate_hz': '32.53', 'input_rate_hz': '105.19'}
    report = {'nodes': {'n': {'values': values}, 'image_source': {'values': {'sent': '100'}}}}
    assert module._warnings(said, report, 'n') == [
        'low light',
        '10 of 100 pictures lost on the way; use cups',
        (
            '32.5 pictures per second of 105.2; 60 came while the model was busy: a robot wants the newest '
            'alone; for all of them --rate 32, with make RATE=32'
        ),
    ]
    values |= {'received': '100', 'dropped_busy': '0'}
    assert module._warnings(['low light'], report, 'n') == ['low light']


def test_what_the_nodes_say_of_a_part_of_the_run_is_not_shown(environment, tmp_path):
    done = demo(environment, '--frames', 300, '--rate', 300, '--out', tmp_path)
    report = json.loads((tmp_path / 'report.json').read_text())
    values = report['nodes']['detector_node']['values']
    (busy,) = [text for text in report['warnings'] if 'busy' in text]
    assert f'; {values["dropped_busy"]} came while' in busy and busy in done.stdout


def test_ctrl_c_ends_with_what_was_found_so_far_however_often_it_comes(environment, tmp_path):
    process = begin(environment, '--out', tmp_path / 'out')
    wait_until(lambda: answers_of(environment) > 30)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
        time.sleep(0.1)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert 'answered' in said and 'Traceback' not in said
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    source, detector = (report['nodes'][name]['values'] for name in ('image_source', 'detector_node'))
    assert 30 < report['answered'] <= report['pictures'] <= int(source['sent'])
    assert report['answered'] <= int(detector['answered']) <= int(detector['received']) <= int(source['sent'])
    assert (tmp_path / 'out' / 'contact_sheet.png').exists()
    assert not processes_of(environment)


def test_ctrl_c_before_the_first_answer_is_said_in_a_line(environment, tmp_path):
    process = begin(environment, '--out', tmp_path / 'out')
    wait_until(lambda: len(processes_of(environment)) == 3)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert 'ended before the first picture was answered' in said and 'Traceback' not in said
    assert not (tmp_path / 'out' / 'report.json').exists()


def begin(environment, *arguments):
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    command = [*COMMAND, '--frames', '100000', *map(str, arguments)]
    return subprocess.Popen(command, env=environment, start_new_session=True, **options)


def test_what_is_waited_for_is_told():
    nodes = {'detector_node': 'opening the model', 'image_source': 'drawing 40 scenes'}
    report = {'nodes': {name: {'message': message} for name, message in nodes.items()}}
    assert module._waiting_for({}) == 'starting'
    assert module._waiting_for(report) == 'opening the model, drawing 40 scenes'


def answers_of(environment):
    """How many answers the recorder of the demo has reported."""
    reports = Path(environment['TMPDIR']).glob('isaac_infer.demo.*/report.json')
    return max((json.loads(path.read_text())['answered'] for path in reports), default=0)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_demo_ends_its_nodes(environment, tmp_path, number):
    with (tmp_path / 'output').open('w') as output:
        arguments = ['--frames', '100000', '--out', str(tmp_path)]
        process = subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=output, stderr=output)
        wait_until(lambda: len(processes_of(environment)) == 3)
        process.send_signal(number)
        process.wait(30)
    wait_until(lambda: not processes_of(environment))
    assert 'Traceback' not in (tmp_path / 'output').read_text()


def wait_until(is_so, timeout_s=30):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, 'it did not happen in time'
        time.sleep(0.1)
