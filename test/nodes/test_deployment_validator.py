"""deployment_validator: against real nodes over DDS: a pass, and each check made to fail."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from processes import parameters, wait_until
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, LaserScan
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2DArray

from isaac_infer.engine.load import file_sha256
from isaac_infer.ros.images import image_to_cdr

ROOT = Path(__file__).parents[2]
DETECTOR = ROOT / 'models' / 'tabletop_detector.onnx'
LATCHED = QoSProfile(depth=200, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
IMAGE, DETECTIONS = 'sensor_msgs/msg/Image', 'vision_msgs/msg/Detection2DArray'
RATE_HZ = 10.0  # of the pictures; slow, for machines that are busy


@pytest.fixture(scope='module')
def robot(start_once):
    """A camera and a detector, at work."""
    start_once('image_source', *parameters(rate=RATE_HZ), '-r', 'image:=camera/image_raw')
    detector = start_once(
        'detector_node', *parameters(model_file_path=DETECTOR), '-r', 'image:=camera/image_raw'
    )
    detector.wait_for('first picture answered', timeout_s=60)
    return detector


@pytest.fixture
def validate(start, tmp_path):
    """Validate a manifest once; give exit code, report and checks by their names."""

    def run(content, *more, **values):
        manifest, report = tmp_path / 'robot.json', tmp_path / 'report.json'
        manifest.write_text(json.dumps({'listen_s': 2, **content}))
        values = {'manifest': manifest, 'report': report, **values}
        validator = start('deployment_validator', *parameters(**values), *more)
        code = validator.wait(90)
        assert 'Traceback' not in validator.log
        written = json.loads(report.read_text())
        return code, written, {check['name']: check for check in written['checks']}

    return run


def topic(name='camera/image_raw', kind=IMAGE, **more):
    return {'topics': [{'name': name, 'type': kind, **more}]}


def test_what_runs_here_passes(robot, validate, tmp_path):
    content = {
        'models': [
            {
                'path': str(DETECTOR),
                'sha256': file_sha256(DETECTOR),
                'backend': 'onnxruntime',
                'reference': 'onnxruntime',
                'latency_budget_ms': 5000,
            }
        ],
        **topic(min_rate_hz=2, frame_id='camera'),
        'nodes': ['detector_node', 'image_source'],
        'outputs': [
            {
                'topic': 'detections',
                'type': DETECTIONS,
                'stamps_of': 'camera/image_raw',
                'max_age_ms': 5000,
            }
        ],
        'disk_free_mb': 1,
        'budget': {
            'nodes': ['detector_node'],
            **dict.fromkeys(('camera', 'prepare', 'inference', 'decode', 'publish'), 5000),
        },
    }
    begun_s = time.monotonic()
    code, report, checks = validate(content)
    print(f'\n{len(checks)} checks: {report["seconds"]:.1f} s, process {time.monotonic() - begun_s:.1f} s')
    for check in report['checks']:
        print(f'  {check["seconds"]:.2f} s  {check["name"]}')
    assert code == 0, report
    assert report['passed'] is True
    assert {check['outcome'] for check in checks.values()} == {'passed'}
    assert len(checks) == 12
    assert checks['camera/image_raw: topic']['values']['rate_hz'] == pytest.approx(RATE_HZ, rel=0.5)
    node = checks['detector_node: node']['values']
    assert node['state'] == 'active'
    assert node['diagnostics'] in ('OK', 'WARN')  # of a machine that is busy: slow frames
    output = checks['detections: output']['values']
    assert output['with_stamps_of_input'] == output['compared'] > 0
    assert 0 < checks['latency: budget']['values']['inference_ms_p95'] < 5000


@pytest.mark.parametrize(
    ('content', 'name', 'reason'),
    [
        (
            topic(kind='sensor_msgs/msg/CompressedImage'),
            'camera/image_raw: topic',
            'expected sensor_msgs/msg/CompressedImage, got sensor_msgs/msg/Image of image_source',
        ),
        (topic(kind='sensor_msgs/msg/Picture'), 'camera/image_raw: topic', 'is not installed here'),
        (topic('image_raw'), 'image_raw: topic', 'nobody publishes /image_raw; there is /camera/image_raw'),
        (topic(min_rate_hz=200), 'camera/image_raw: topic', 'expected at least 200 Hz, got'),
        (topic(frame_id='laser'), 'camera/image_raw: topic', "expected frame_id 'laser', got 'camera'"),
        (topic(reliability='reliable'), 'camera/image_raw: topic', 'image_source offers does not fit what'),
        (
            topic('detections', DETECTIONS, frame_id='laser'),
            'detections: topic',
            "expected frame_id 'laser', got 'camera'",
        ),
        ({'nodes': ['planner']}, 'planner: node', 'expected one node /planner, got none'),
        (
            {'outputs': [{'topic': 'detections', 'type': DETECTIONS, 'max_age_ms': 0.001}]},
            'detections: output',
            'expected an age of at most 0.001 ms, got',
        ),
        (
            {'budget': {'nodes': ['detector_node'], 'prepare': 5000, 'inference': 0.001, 'decode': 0.001}},
            'latency: budget',
            'inference: expected at most 0.001 ms, got',
        ),
        ({'disk_free_mb': 1e12}, 'system: disk', 'expected 1e+12 MB free'),
        ({'board': {'mode': 'MAXN'}}, 'board: mode', ''),
    ],
)
def test_what_is_not_as_it_should_be_has_failed(robot, validate, content, name, reason):
    code, report, checks = validate(content)
    assert code == 1
    assert report['passed'] is False
    assert checks[name]['outcome'] in (['failed'] if reason else ['failed', 'not run'])
    assert reason in checks[name]['reason']
    assert f'{name}: ' in report['verdict']


def test_stages_that_nobody_measures_are_not_run_and_so_not_passed(robot, validate):
    code, _, checks = validate({'budget': {'nodes': ['detector_node'], 'prepare': 5000, 'planning': 9}})
    assert code == 1
    assert checks['latency: budget']['outcome'] == 'not run'
    assert 'planning: not measured now by detector_node' in checks['latency: budget']['reason']


def test_a_check_that_is_called_optional_does_not_decide(robot, validate):
    content = {'disk_free_mb': 1e12, 'nodes': ['detector_node'], 'optional': ['system: disk']}
    code, report, checks = validate(content)
    assert (code, report['passed']) == (0, True)
    assert checks['system: disk']['outcome'] == 'failed'


def test_parts_that_are_not_asked_for_are_not_run(robot, validate):
    content = {'disk_free_mb': 1, **topic('nowhere')}
    code, _, checks = validate(content, parts='[board]')
    assert code == 0
    assert checks['nowhere: topic']['outcome'] == 'not run'
    code, _, checks = validate({'disk_free_mb': 1}, parts='[ros]')
    assert code == 1  # nothing is known to be well


def test_a_node_that_is_not_active_has_failed(start, validate):
    node = start('detector_node', *parameters(model_file_path=DETECTOR, autostart=False), '-r', '__ns:=/idle')
    node.wait_for('', timeout_s=1)
    code, _, checks = validate({'nodes': ['/idle/detector_node']})
    assert code == 1
    assert 'expected state active, got unconfigured' in checks['/idle/detector_node: node']['reason']


class Sender:
    """Sends messages at a rate until it is closed."""

    def __init__(self, peer, kind, name, make, qos=qos_profile_sensor_data, rate_hz=20):
        publisher = peer.node.create_publisher(kind, name, qos)
        peer.node.create_timer(1 / rate_hz, lambda: publisher.publish(make()))


def now(peer):
    return peer.node.get_clock().now().nanoseconds


def picture(stamp_ns):
    return bytes(image_to_cdr(np.zeros((4, 4, 3), np.uint8), stamp_ns=stamp_ns, frame_id='camera'))


def header(stamp_ns):
    message = Header(frame_id='camera')
    message.stamp.sec, message.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


ANSWERS = {
    'topics': [{'name': 'picture', 'type': IMAGE}],
    'outputs': [{'topic': 'answer', 'type': DETECTIONS, 'stamps_of': 'picture', 'max_age_ms': 1e6}],
}


@pytest.mark.parametrize(
    ('offset_ns', 'reason'),
    [
        (1, 'expected the stamps of /picture, got them in 0 of'),
        (3_600_000_000_000, 'expected the stamps of /picture, got them in 0 of'),
    ],
)
def test_outputs_with_other_stamps_than_the_input_have_failed(make_peer, validate, offset_ns, reason):
    peer = make_peer()
    images = peer.node.create_publisher(Image, 'picture', qos_profile_sensor_data)
    answers = peer.node.create_publisher(Detection2DArray, 'answer', 10)

    def send():
        stamp_ns = now(peer)
        images.publish(picture(stamp_ns))
        answers.publish(Detection2DArray(header=header(stamp_ns + offset_ns)))

    peer.node.create_timer(0.05, send)
    code, _, checks = validate(ANSWERS)
    assert code == 1
    assert checks['picture: topic']['outcome'] == 'passed'
    assert reason in checks['answer: output']['reason']


def test_stamps_from_the_future_have_failed(make_peer, validate):
    peer = make_peer()
    images = peer.node.create_publisher(Image, 'picture', qos_profile_sensor_data)
    answers = peer.node.create_publisher(Detection2DArray, 'answer', 10)

    def send():
        stamp_ns = now(peer) + 3_600_000_000_000
        images.publish(picture(stamp_ns))
        answers.publish(Detection2DArray(header=header(stamp_ns)))

    peer.node.create_timer(0.05, send)
    _, _, checks = validate(ANSWERS)
    assert 'ms from the future: clocks differ' in checks['answer: output']['reason']


def test_outputs_whose_input_is_silent_are_not_run_and_silent_topics_have_failed(make_peer, validate):
    peer = make_peer()
    peer.node.create_publisher(Image, 'picture', qos_profile_sensor_data)
    Sender(peer, Detection2DArray, 'answer', lambda: Detection2DArray(header=header(now(peer))), 10)
    code, _, checks = validate(ANSWERS)
    assert code == 1
    assert checks['picture: topic']['reason'] == '/picture is silent: no message in 2 s'
    assert checks['answer: output']['outcome'] == 'not run'


def test_a_topic_that_falls_silent_has_too_low_a_rate(make_peer, validate):
    peer = make_peer()
    scans = peer.node.create_publisher(LaserScan, 'scan', qos_profile_sensor_data)

    def send():  # a burst, as long as the validator has just come
        if scans.get_subscription_count():
            timer.cancel()
            time.sleep(0.5)
            for _ in range(10):
                scans.publish(LaserScan(header=header(now(peer))))
                time.sleep(0.01)

    timer = peer.node.create_timer(0.01, send)
    _, _, checks = validate({'listen_s': 4, **topic('scan', 'sensor_msgs/msg/LaserScan', min_rate_hz=20)})
    assert checks['scan: topic']['outcome'] == 'failed'
    assert checks['scan: topic']['values']['messages'] > 2
    assert 'expected at least 20 Hz, got' in checks['scan: topic']['reason']


def test_a_plain_node_whose_diagnostics_are_an_error_has_failed(make_peer, validate):
    peer = make_peer('planner')
    status = DiagnosticStatus(
        level=DiagnosticStatus.ERROR,
        name='planner: path',
        message='no map',
        values=[KeyValue(key='planning_ms_p95', value='7.5')],
    )
    Sender(peer, DiagnosticArray, '/diagnostics', lambda: DiagnosticArray(status=[status]), 10)
    content = {'nodes': ['planner'], 'budget': {'nodes': ['planner'], 'planning': 7}}
    _, _, checks = validate(content)
    assert checks['planner: node']['reason'] == 'planner: path: ERROR: no map'
    assert checks['latency: budget']['reason'] == 'planning: expected at most 7 ms, got 7.5 (p95)'


def test_two_nodes_of_one_name_have_failed(make_peer, validate):
    make_peer('twin'), make_peer('twin')
    _, _, checks = validate({'nodes': ['twin']})
    assert checks['twin: node']['reason'] == 'expected one node /twin, got 2'


def test_names_are_relative_and_can_be_remapped(make_peer, validate):
    peer = make_peer('planner', namespace='/robot1')
    Sender(peer, LaserScan, 'front_scan', lambda: LaserScan(header=header(now(peer))))
    content = {**topic('scan', 'sensor_msgs/msg/LaserScan', min_rate_hz=1), 'nodes': ['planner']}
    code, report, _ = validate(content, '-r', '__ns:=/robot1', '-r', 'scan:=front_scan')
    assert code == 0, report


def test_the_status_tells_each_step_and_a_report_to_those_who_come_later_too(start, make_peer, tmp_path):
    manifest = tmp_path / 'robot.yaml'
    manifest.write_text('disk_free_mb: 1\nnodes: [nobody]\nlisten_s: 0.1\n')
    validator = start('deployment_validator', *parameters(manifest=manifest, period=600.0))
    validator.wait_for('deployment not passed', timeout_s=60)
    peer = make_peer()
    peer.listen(String, 'deployment_validation_status', LATCHED)
    peer.listen(DiagnosticArray, '/diagnostics')
    lines = [message.data for message in peer.wait_for('deployment_validation_status', 4)]
    assert lines[0].startswith('passed: system: disk: free_mb ')
    assert lines[1].startswith('failed: nobody: node: expected one node /nobody, got none')
    assert lines[2].startswith('deployment not passed: 1 passed, 1 failed, 0 not run; first: nobody: node: ')
    assert json.loads(lines[3])['passed'] is False

    def statuses():
        found = [status for message in peer.got['/diagnostics'] for status in message.status]
        return [status for status in found if status.name == 'deployment_validator: deployment']

    assert wait_until(statuses)
    status = statuses()[-1]
    assert status.level == DiagnosticStatus.ERROR
    assert {pair.key: pair.value for pair in status.values}['failed_checks'] == 'nobody: node'
    assert validator.stop(signal.SIGINT) == 1


def test_it_validates_again_and_again_and_ends_as_the_last_one_went(start, tmp_path):
    manifest = tmp_path / 'robot.yaml'
    manifest.write_text('disk_free_mb: 1\n')
    validator = start('deployment_validator', *parameters(manifest=manifest, period=0.2))
    assert wait_until(lambda: validator.log.count('deployment passed') >= 3, 60)
    assert validator.stop() == 0


def test_at_the_end_of_its_time_the_rest_is_not_run(validate):
    content = {'nodes': ['nobody'], 'listen_s': 3000, 'budget': {'nodes': ['a'], 'camera': 1}}
    code, _, checks = validate(content, validation_timeout=1.0)
    assert code == 1
    assert checks['nobody: node']['outcome'] == 'failed'
    assert 'not done when the time for all checks, 1 s, was over' in checks['nobody: node']['reason']
    assert checks['latency: budget']['outcome'] == 'not run'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'expected a mapping, got nothing'),
        ('nods: [a]', 'nods: unknown; expected nodes'),
        ('nodes: [a]\noptional: [b]', "optional: expected names of checks (a: node), got 'b'"),
    ],
)
def test_a_manifest_that_is_wrong_ends_it_at_once(start, tmp_path, text, message):
    manifest = tmp_path / 'robot.yaml'
    manifest.write_text(text)
    validator = start('deployment_validator', *parameters(manifest=manifest))
    assert validator.wait() == 1
    assert message in validator.log
    assert 'Traceback' not in validator.log


def test_without_a_manifest_it_says_how_to_give_one(start):
    validator = start('deployment_validator')
    assert validator.wait() == 1
    assert '-p manifest:=FILE' in validator.log


def stopped_at(name):
    raise ValueError(f'JSON has no {name}')


def test_a_report_with_numbers_that_are_not_finite_is_json(validate, tmp_path):
    model = {'path': str(DETECTOR), 'backend': 'onnxruntime', 'reference': 'a.npz'}
    np.savez(tmp_path / 'a.npz', **{'zeros/output0': np.full((1, 13, 2100), np.nan)})
    code, _, checks = validate({'models': [model]})
    assert code == 1
    zeros = checks['tabletop_detector.onnx: zeros']
    assert (zeros['outcome'], zeros['values']['worst_difference']) == ('failed', None)
    json.loads((tmp_path / 'report.json').read_text(), parse_constant=stopped_at)


def test_of_several_nodes_the_slowest_one_has_to_keep_the_budget(make_peer, validate):
    for name, took in (('quick', '5'), ('slow', '900')):
        status = DiagnosticStatus(name=f'{name}: model', values=[KeyValue(key='run_ms_p95', value=took)])
        Sender(
            make_peer(name), DiagnosticArray, '/diagnostics', partial(DiagnosticArray, status=[status]), 10
        )
    code, _, checks = validate({'budget': {'nodes': ['quick', 'slow'], 'inference': 20}})
    assert code == 1
    assert checks['latency: budget']['reason'] == 'inference: expected at most 20 ms, got 900 (p95)'


def test_percentiles_of_a_node_that_answers_nothing_now_are_no_measurement(make_peer, validate):
    values = [KeyValue(key='run_ms_p95', value='5'), KeyValue(key='rate_hz', value='0.00')]
    statuses = [DiagnosticStatus(name='idle: model', values=values)]
    Sender(make_peer('idle'), DiagnosticArray, '/diagnostics', lambda: DiagnosticArray(status=statuses), 10)
    code, _, checks = validate({'budget': {'nodes': ['idle'], 'inference': 20}})
    assert (code, checks['latency: budget']['outcome']) == (1, 'not run')
    values = [KeyValue(key='run_ms_p95', value='5'), KeyValue(key='rate_hz', value='9.50')]
    statuses.append(DiagnosticStatus(name='idle: other model', values=values))
    code, _, checks = validate({'budget': {'nodes': ['idle'], 'inference': 20}})
    assert (code, checks['latency: budget']['outcome']) == (0, 'passed')


def test_ended_while_it_listens_nothing_has_failed_but_nothing_passed(start, make_peer, tmp_path):
    peer = make_peer('planner')
    manifest, report = tmp_path / 'robot.yaml', tmp_path / 'report.json'
    manifest.write_text('nodes: [planner]\nlisten_s: 60\n')
    validator = start('deployment_validator', *parameters(manifest=manifest, report=report))
    assert wait_until(lambda: peer.node.count_subscribers('/diagnostics'), 30)
    time.sleep(1)
    assert validator.stop(signal.SIGTERM) == 1
    checks = json.loads(report.read_text())['checks']
    assert [(check['name'], check['outcome']) for check in checks] == [('planner: node', 'not run')]


def test_a_check_that_hangs_is_not_begun_again_beside_itself(start, tmp_path, monkeypatch):
    # A library that hangs where the model is loaded, once as many times as it is begun.
    hang = 'def __getattr__(name):\n    import time\n    print("hangs", flush=True)\n    time.sleep(600)'
    (tmp_path / 'path').mkdir()
    (tmp_path / 'path' / 'onnxruntime.py').write_text(hang)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'path'), prepend=os.pathsep)
    manifest = tmp_path / 'robot.json'
    manifest.write_text(json.dumps({'models': [{'path': str(DETECTOR), 'backend': 'onnxruntime'}]}))
    validator = start(
        'deployment_validator', *parameters(manifest=manifest, period=0.1, validation_timeout=2.0)
    )
    validator.wait_for('has not ended yet', timeout_s=60)
    assert validator.log.count('hangs') == 1
    assert validator.stop() == 1


def test_stamps_older_than_the_input_are_wrong_once_right_ones_came(make_peer, validate):
    peer = make_peer()
    images = peer.node.create_publisher(Image, 'picture', qos_profile_sensor_data)
    answers = peer.node.create_publisher(Detection2DArray, 'answer', 10)

    def send():
        stamp_ns = now(peer)
        images.publish(picture(stamp_ns))
        answers.publish(Detection2DArray(header=header(stamp_ns)))
        answers.publish(Detection2DArray(header=header(0)))

    peer.node.create_timer(0.05, send)
    output = {'topic': 'answer', 'type': DETECTIONS, 'stamps_of': 'picture'}
    code, _, checks = validate({**ANSWERS, 'outputs': [output]})
    assert code == 1
    assert 'expected the stamps of /picture, got them in' in checks['answer: output']['reason']


def test_a_topic_that_only_begins_at_the_end_has_too_low_a_rate(make_peer, validate):
    peer = make_peer()
    scans = peer.node.create_publisher(LaserScan, 'scan', qos_profile_sensor_data)

    def send():  # from 2.5 s on, so that none of it is silence at the end
        if scans.get_subscription_count():
            timer.cancel()
            time.sleep(2.5)
            peer.node.create_timer(0.02, lambda: scans.publish(LaserScan(header=header(now(peer)))))

    timer = peer.node.create_timer(0.01, send)
    _, _, checks = validate({'listen_s': 4, **topic('scan', 'sensor_msgs/msg/LaserScan', min_rate_hz=35)})
    assert checks['scan: topic']['values']['messages'] > 5
    assert 'expected at least 35 Hz, got' in checks['scan: topic']['reason']


def test_a_node_that_falls_silent_in_diagnostics_has_failed(make_peer, start, tmp_path):
    peer = make_peer()
    peer.listen(String, 'deployment_validation_status', LATCHED)
    manifest = tmp_path / 'robot.yaml'
    manifest.write_text('nodes: [camera]\nlisten_s: 1.5\n')
    source = start('image_source', *parameters(rate=2.0), '-r', '__node:=camera')
    source.wait_for('', timeout_s=5)
    validator = start('deployment_validator', *parameters(manifest=manifest, period=0.1))

    def said(text):
        return lambda: any(text in each.data for each in peer.got['deployment_validation_status'])

    assert wait_until(said('passed: camera: node: diagnostics '), 30), validator.log + source.log
    os.kill(source.pid, signal.SIGSTOP)
    try:
        assert wait_until(said('/camera publishes /diagnostics, but said nothing in'), 30), validator.log
    finally:
        os.kill(source.pid, signal.SIGCONT)
