"""recorder: pictures and answers from other processes, a report and a contact sheet."""

import json

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from processes import parameters, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from isaac_infer.ros.images import image_to_cdr


def answer(stamp, *class_ids):
    """A Detection2DArray; a class of None is a detection without any hypothesis."""
    detections = []
    for class_id in class_ids:
        detection = Detection2D()
        detection.bbox.size_x = detection.bbox.size_y = 20.0
        if class_id is not None:
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = class_id, 0.5
            detection.results = [result]
        detections.append(detection)
    return Detection2DArray(header=Header(stamp=stamp), detections=detections)


def test_answers_are_counted_and_shown_with_their_pictures(start, make_peer, tmp_path):
    report, sheet = tmp_path / 'report.json', tmp_path / 'sheet.png'
    recorder = start('recorder', *parameters(report=report, contact_sheet=sheet))
    peer = make_peer()
    images = peer.node.create_publisher(Image, 'image', 10)
    answers = peer.node.create_publisher(Detection2DArray, 'detections', 10)
    assert wait_until(lambda: images.get_subscription_count() and answers.get_subscription_count())
    wait_until(lambda: False, timeout_s=0.5)  # they know this peer a moment later
    for second in range(1, 4):
        picture = np.full((60, 80, 3), 40 * second, np.uint8)
        images.publish(bytes(image_to_cdr(picture, stamp_ns=second * 10**9, frame_id='camera')))
        assert wait_until(lambda wanted=second: read(report).get('pictures') == wanted)
        answers.publish(answer(Time(sec=second), 'cup', 'cup', None))
    answers.publish(answer(Time(sec=9, nanosec=2_000_000_000), 'cup'))  # no time at all
    assert wait_until(lambda: read(report).get('answered') == 3)
    assert recorder.stop() == 0
    assert read(report)['classes'] == {'cup': 6}
    assert read(report)['latency_ms']['p50'] > 0
    assert cv2.imread(str(sheet)).shape[2] == 3
    assert 'Traceback' not in recorder.log
    assert f'written: {report}' in recorder.log and f'written: {sheet}' in recorder.log


def test_a_sheet_that_nothing_can_be_shown_on_is_told(start, tmp_path):
    recorder = start(
        'recorder', *parameters(report=tmp_path / 'report.json', contact_sheet=tmp_path / 'a.png')
    )
    assert wait_until((tmp_path / 'report.json').exists)
    assert recorder.stop() == 0
    assert 'no contact sheet: no answers came' in recorder.log and recorder.log.count('written') == 1
    assert not (tmp_path / 'a.png').exists()


@pytest.mark.parametrize('namespace', ['/', '/left'])
def test_the_health_of_the_nodes_of_its_namespace_is_in_the_report(start, make_peer, tmp_path, namespace):
    report = tmp_path / 'report.json'
    start('recorder', *parameters(report=report), '-r', f'__ns:={namespace}')
    peer = make_peer()
    diagnostics = peer.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    assert wait_until(diagnostics.get_subscription_count)
    name = f'{namespace.strip("/")}/detector_node'.lstrip('/')
    status = DiagnosticStatus(name=f'{name}: detections', message='fine')
    other = DiagnosticStatus(name='elsewhere/detector_node: detections', message='not ours')

    def is_reported():
        diagnostics.publish(DiagnosticArray(status=[status, other]))
        return read(report).get('nodes', {}).get('detector_node')

    assert wait_until(is_reported)
    assert read(report)['nodes']['detector_node']['message'] == 'fine'


def read(path):
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (parameters(report='/proc/nowhere/report.json'), 'report: /proc/nowhere: cannot be made'),
        (parameters(contact_sheet='/tmp'), 'contact_sheet: expected a file, got the folder'),
        (parameters(contact_sheet='/tmp/sheet'), 'contact_sheet: expected a file name with .png'),
        (parameters(samples=0), 'samples: expected int from 1 to 100, got 0'),
    ],
)
def test_what_cannot_be_written_is_said_at_the_start(start, arguments, says):
    recorder = start('recorder', *arguments)
    assert recorder.wait() == 1
    assert says in recorder.log
    assert 'Traceback' not in recorder.log
