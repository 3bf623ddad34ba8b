"""recorder: pictures and answers from other processes, a report and a contact sheet."""

import json
import math
import os
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from processes import parameters, wait_until
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from isaac_infer.ros.images import image_to_cdr

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def answer(stamp, *class_ids, size_x=20.0):
    """A Detection2DArray; a class of None is a detection without any hypothesis."""
    detections = []
    for class_id in class_ids:
        detection = Detection2D()
        detection.bbox.size_x, detection.bbox.size_y = size_x, 20.0
        if class_id is not None:
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = class_id, 0.5
            detection.results = [result]
        detections.append(detection)
    return Detection2DArray(header=Header(stamp=stamp), detections=detections)


def publishers(peer):
    """Publishers of pictures and answers, once the recorder listens."""
    images = peer.node.create_publisher(Image, 'image', 10)
    answers = peer.node.create_publisher(Detection2DArray, 'detections', 10)
    assert wait_until(lambda: images.get_subscription_count() and answers.get_subscription_count())
    wait_until(lambda: False, timeout_s=1)  # they know this peer a moment later
    return images, answers


def heard(publisher, message, report, key):
    """Publish a message, and tell whether the recorder has counted it, which may know its publisher later."""
    publisher.publish(message)
    return wait_until(lambda: read(report).get(key), timeout_s=3)


def test_answers_are_counted_and_shown_with_their_pictures(start, make_peer, tmp_path):
    report, sheet = tmp_path / 'report.json', tmp_path / 'sheet.png'
    recorder = start('recorder', *parameters(report=report, contact_sheet=sheet))
    images, answers = publishers(make_peer())
    for second in range(1, 4):
        picture = np.full((60, 80, 3), 40 * second, np.uint8)
        images.publish(bytes(image_to_cdr(picture, stamp_ns=second * 10**9, frame_id='camera')))
        assert wait_until(lambda wanted=second: read(report).get('pictures') == wanted)
        answers.publish(answer(Time(sec=second), 'cup', 'cup', None))
    answers.publish(answer(Time(sec=9, nanosec=2_000_000_000), 'cup'))  # no time at all
    answers.publish(answer(Time(sec=9), '4294967296', '9' * 5000, size_x=math.nan))  # of no detector of ours
    assert wait_until(lambda: read(report).get('answered') == 4)
    assert recorder.stop() == 0
    assert read(report)['classes'] == {'cup': 6, '4294967296': 1, '9' * 5000: 1}
    assert read(report)['latency_ms']['p50'] > 0
    assert cv2.imread(str(sheet)).shape[2] == 3
    assert 'Traceback' not in recorder.log
    assert f'written: {report}' in recorder.log and f'written: {sheet}' in recorder.log


def test_names_that_come_with_answers_alone_are_drawn_as_those_of_label_info(start, make_peer, tmp_path):
    sheets = []
    for names in ([], ['cup']):
        report, sheet = tmp_path / f'{len(names)}.json', tmp_path / f'{len(names)}.png'
        recorder = start('recorder', *parameters(report=report, contact_sheet=sheet))
        peer = make_peer(f'camera_{len(names)}')
        images, answers = publishers(peer)
        labels = peer.node.create_publisher(LabelInfo, 'label_info', LATCHED)
        if names:
            labels.publish(LabelInfo(class_map=[VisionClass(class_id=0, class_name='cup')]))
        picture = np.full((240, 320, 3), 40, np.uint8)
        cdr = bytes(image_to_cdr(picture, stamp_ns=10**9, frame_id='camera'))
        assert wait_until(partial(heard, images, cdr, report, 'pictures'))
        assert wait_until(
            partial(heard, answers, answer(Time(sec=1), 'cup', size_x=100.0), report, 'answered')
        )
        assert recorder.stop() == 0
        sheets.append(cv2.imread(str(sheet))[:370])  # without the caption, which has times
    assert np.array_equal(*sheets)


@pytest.mark.parametrize('topic', ['a//b', '{foo}/b'])
def test_a_text_topic_that_is_none_is_refused(start, topic):
    recorder = start('recorder', *parameters(text_topics=f"['{topic}']"))
    assert recorder.wait() == 1
    assert 'text_topics: ' in recorder.log and 'Traceback' not in recorder.log


def test_a_sheet_that_nothing_can_be_shown_on_is_told(start, tmp_path):
    recorder = start(
        'recorder', *parameters(report=tmp_path / 'report.json', contact_sheet=tmp_path / 'a.png')
    )
    assert wait_until((tmp_path / 'report.json').exists)
    assert recorder.stop() == 0
    assert 'no contact sheet: no answers came' in recorder.log and recorder.log.count('written') == 1
    assert not (tmp_path / 'a.png').exists()


def test_answers_on_another_topic_are_named_where_none_came(start, make_peer, tmp_path):
    peer = make_peer()
    peer.node.create_publisher(Detection2DArray, 'persons', 10)
    recorder = start('recorder', *parameters(contact_sheet=tmp_path / 'a.png'), '-r', 'image:=picture')
    assert wait_until(lambda: peer.node.count_subscribers('picture'))
    wait_until(lambda: False, timeout_s=1)  # it knows this peer a moment later
    assert recorder.stop() == 0
    assert 'nobody publishes /detections; remap detections to one of /persons' in recorder.log


def test_it_is_told_while_no_answers_come(start, make_peer, tmp_path):
    make_peer().node.create_publisher(Detection2DArray, 'persons', 10)
    recorder = start('recorder', *parameters(report=tmp_path / 'report.json'))
    recorder.wait_for(
        'no answers yet on /detections, 0 pictures on /image: nobody publishes /detections; remap'
    )


WITHOUT_ROOM = """
import sys
from isaac_infer.nodes import recorder

def fail(*args, **options):
    raise MemoryError('no room')

recorder.contact_sheet = fail
sys.exit(recorder.main())
"""


def test_the_report_is_written_where_the_contact_sheet_cannot_be_drawn(make_peer, tmp_path):
    report, sheet = tmp_path / 'report.json', tmp_path / 'sheet.png'
    command = [sys.executable, '-c', WITHOUT_ROOM, *parameters(report=report, contact_sheet=sheet)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recorder:
        images, answers = publishers(make_peer())
        images.publish(bytes(image_to_cdr(np.zeros((60, 80, 3), np.uint8), stamp_ns=10**9, frame_id='')))
        assert wait_until(lambda: read(report).get('pictures') == 1)
        answers.publish(answer(Time(sec=1), 'cup'))
        assert wait_until(lambda: read(report).get('answered') == 1)
        report.unlink()
        recorder.terminate()
        assert recorder.wait(20) == 1
        assert f'{sheet}: cannot be made: MemoryError: no room' in recorder.stderr.read()
    assert read(report)['answered'] == 1


def test_simulated_time_that_nobody_tells_is_warned_of(start, make_peer, tmp_path):
    recorder = start('recorder', *parameters(report=tmp_path / 'report.json', use_sim_time='true'))
    _, answers = publishers(make_peer())
    answers.publish(answer(Time(sec=1), 'cup'))
    recorder.wait_for('no /clock came')


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
        (
            parameters(report='/proc/nowhere/report.json'),
            'nowhere/report.json: cannot be written: No such file',
        ),
        (parameters(report='.'), 'report: .: expected a file, got a folder'),
        (parameters(contact_sheet='/tmp'), 'contact_sheet: /tmp: expected a file, got a folder'),
        (parameters(report='/tmp/x.png', contact_sheet='/tmp/./x.png'), 'is the file of report, too'),
        (parameters(contact_sheet='/tmp/sheet'), 'contact_sheet: expected a file name with .png'),
        (parameters(samples=0), 'samples: expected int from 1 to 100, got 0'),
    ],
)
def test_what_cannot_be_written_is_said_at_the_start(start, arguments, says):
    recorder = start('recorder', *arguments)
    assert recorder.wait() == 1
    assert says in recorder.log
    assert 'Traceback' not in recorder.log


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_that_may_not_be_written_is_said_at_the_start(start, tmp_path):
    folder = tmp_path / 'locked'
    folder.mkdir(mode=0o555)
    recorder = start('recorder', *parameters(report=folder / 'report.json'))
    assert recorder.wait() == 1
    assert 'report.json: may not be written by this user' in recorder.log


@pytest.mark.parametrize('name', ['report', 'contact_sheet'])
def test_a_file_that_the_recorder_has_not_written_is_not_overwritten(start, tmp_path, name):
    precious = tmp_path / 'precious.png'
    cv2.imwrite(str(precious), np.zeros((6, 8, 3), np.uint8))
    before = precious.read_bytes()
    recorder = start('recorder', *parameters(**{name: precious}))
    assert recorder.wait() == 1
    assert f'{name}: {precious}: exists and is no ' in recorder.log
    assert precious.read_bytes() == before


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_the_files_of_an_earlier_run_are_replaced(start, make_peer, tmp_path, suffix):
    report, sheet = tmp_path / 'report.json', tmp_path / f'sheet{suffix}'
    arguments = parameters(report=report, contact_sheet=sheet)
    recorder = start('recorder', *arguments)
    images, answers = publishers(make_peer())
    images.publish(bytes(image_to_cdr(np.zeros((60, 80, 3), np.uint8), stamp_ns=10**9, frame_id='')))
    assert wait_until(lambda: read(report).get('pictures') == 1)
    answers.publish(answer(Time(sec=1), 'cup'))
    assert wait_until(lambda: read(report).get('answered') == 1)
    assert recorder.stop() == 0
    assert cv2.imread(str(sheet)) is not None
    again = start('recorder', *arguments)
    assert wait_until(lambda: read(report)['answered'] == 0)
    assert again.stop() == 0


def test_texts_are_counted_when_they_change_whatever_their_numbers(start, make_peer, tmp_path):
    report, peer = tmp_path / 'report.json', make_peer()
    recorder = start('recorder', *parameters(report=report, text_topics='[status]'))
    publisher = peer.node.create_publisher(String, 'status', 10)
    assert wait_until(publisher.get_subscription_count)
    wait_until(lambda: False, timeout_s=1)  # it knows this peer a moment later
    for text in ('0.4 m ahead', '0.3 m ahead', 'driving', '0.2 m ahead', 'driving', 'driving'):
        publisher.publish(String(data=text))

    def counted():
        texts = json.loads(report.read_text())['texts'] if report.exists() else {}
        return sum(texts.get('status', {}).values())

    assert wait_until(lambda: counted() == 4)
    assert recorder.stop() == 0
    assert json.loads(report.read_text())['texts'] == {'status': {'0.4 m ahead': 2, 'driving': 2}}
