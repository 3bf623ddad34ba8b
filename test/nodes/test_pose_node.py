"""pose_node, as a process of its own, over DDS."""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera import PICTURE, SECOND, Camera, stamp_of, values_of
from diagnostic_msgs.msg import DiagnosticStatus
from processes import parameters, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import Marker, MarkerArray

from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections, Poses
from isaac_infer.core.skeleton import SKELETONS
from isaac_infer.core.spec import ImageSpec, ModelSpec
from isaac_infer.nodes.pose_node import PoseMessages
from isaac_infer.params import PoseNodeParams
from isaac_infer.ros.images import image_to_cdr, stamp_ns_of
from isaac_infer.ros.messages import entries_of_detections, entries_to_msg
from models import save_constant_detector, ultralytics_metadata, ultralytics_output

NODE = '/pose_node'
NAMES = SKELETONS['coco17'].keypoints
SIZE = 64
CELLS = sum((SIZE // stride) ** 2 for stride in (8, 16, 32))
# A 64 x 48 picture lies 8 pixels from the top of a 64 x 64 network input.
TOP = 8


@pytest.fixture
def camera(make_peer):
    return Camera(make_peer('camera'), answers='persons')


def save_pose(path, persons):
    """Persons at x, in network pixels: a box around 17 points in a column, the last of which is not seen."""
    output = np.zeros((1, 4 + 1 + 17 * 3, CELLS), np.float32)
    output[0, :4] = SIZE / 2
    for row, x in enumerate(persons):
        points = np.array([(x, 14 + 2 * at, 0.9) for at in range(17)], np.float32)
        points[-1, 2] = 0.1
        output[0, :, row] = (x, 30, 10, 40, 0.8 - 0.1 * row, *points.reshape(-1))
    metadata = {**ultralytics_metadata(['person'], SIZE), 'task': 'pose', 'kpt_shape': '[17, 3]'}
    return save_constant_detector(path, {'output0': output}, metadata=metadata)


def newest(camera, topic, answer, timeout_s=20):
    """The message of a topic with the stamp of an answer; None where none comes."""
    found = []

    def came():
        for message in list(camera.peer.got[topic]):
            header = message.markers[0].header if topic == 'markers' else message.header
            if stamp_ns_of(header) == stamp_of(answer):
                found.append(message)
        return found

    return found[0] if wait_until(came, timeout_s) else None


def ask_for(camera, topic, kind, picture=PICTURE):
    camera.peer.listen(kind, topic)
    camera.ask(picture)
    assert wait_until(lambda: camera.peer.node.count_publishers(topic))
    for _ in range(10):  # pictures may go by, and messages before both ends know one another
        message = newest(camera, topic, camera.ask(picture), timeout_s=3)
        if message is not None:
            return message
    raise AssertionError(f'{topic}: no message with the stamp of an answer')


def test_persons_have_boxes_key_points_and_markers(start, tmp_path, camera):
    model = save_pose(tmp_path / 'pose.onnx', [20, 50])
    node = start('pose_node', *parameters(model_file_path=model))
    node.wait_for('waiting for pictures')
    assert f'decoder ultralytics_pose, {len(NAMES)} key points, ' in node.log
    persons = camera.ask()
    assert [entry.results[0].hypothesis.class_id for entry in persons.detections] == ['person'] * 2
    assert [entry.id for entry in persons.detections] == ['1', '2']
    box = persons.detections[0].bbox
    assert (box.center.position.x, box.center.position.y) == pytest.approx((20, 30 - TOP))
    keypoints = ask_for(camera, 'keypoints', Detection2DArray)
    of_first = [entry for entry in keypoints.detections if entry.id == '1']
    assert [entry.results[0].hypothesis.class_id for entry in of_first] == list(NAMES[:-1])
    places = [(entry.bbox.center.position.x, entry.bbox.center.position.y) for entry in of_first]
    assert places == pytest.approx([(20, 14 + 2 * at - TOP) for at in range(16)])
    markers = ask_for(camera, 'markers', MarkerArray).markers
    assert markers[0].action == Marker.DELETEALL
    assert [(marker.ns, marker.id) for marker in markers[1:]] == [
        (namespace, number) for number in (1, 2) for namespace in ('joints', 'links')
    ]
    joints = markers[1]
    assert len(joints.points) == 16 and len(joints.colors) == 16
    assert (joints.points[0].x, joints.points[0].y) == pytest.approx((0.001 * (20 - 32), 0.001 * (6 - 24)))
    overlay = ask_for(camera, 'overlay', Image)
    assert np.frombuffer(overlay.data, np.uint8).std() > 5
    values = values_of(camera.status(lambda status: values_of(status).get('persons') == '2'))
    assert values['skeleton'] == 'coco17'


def test_nobody_is_an_empty_answer(start, tmp_path, camera):
    model = save_pose(tmp_path / 'pose.onnx', [])
    start('pose_node', *parameters(model_file_path=model)).wait_for('waiting for pictures')
    assert list(camera.ask().detections) == []
    assert len(ask_for(camera, 'markers', MarkerArray).markers) == 1


def test_no_more_persons_than_are_wanted(start, tmp_path, camera):
    model = save_pose(tmp_path / 'pose.onnx', [10, 30, 50])
    start('pose_node', *parameters(model_file_path=model, max_persons=2)).wait_for('waiting for pictures')
    assert len(camera.ask().detections) == 2


def test_smoothing_that_is_switched_on_begins_with_the_next_picture_as_it_is():
    messages = PoseMessages(SKELETONS['coco17'], None)
    box = Detections(np.array([[0, 0, 40, 40]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    points = np.ones((1, 17, 2), np.float32)
    found = []
    for at, smooth in enumerate([False, True, True]):
        frame = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns=at * SECOND // 30)
        poses = Poses(box, points * 10 * at, np.ones((1, 17), np.float32))
        found.append(messages.refine(poses, frame, PoseNodeParams(model_file_path='m', smooth=smooth)))
    assert [poses.ids.tolist() for poses in found] == [[1], [1], [1]]
    assert (found[1].xy == 10).all()
    assert ((found[2].xy > 10) & (found[2].xy < 20)).all()


def test_key_points_that_the_skeleton_does_not_name_are_not_published(start, tmp_path, camera):
    file = tmp_path / 'arm.yaml'
    file.write_text('keypoints: [left_wrist, left_elbow]\nlinks: [[left_wrist, left_elbow]]\n')
    model = save_pose(tmp_path / 'pose.onnx', [20])
    arguments = parameters(model_file_path=model, skeleton=file, keypoint_threshold=0.0)
    start('pose_node', *arguments).wait_for('waiting for pictures')
    keypoints = ask_for(camera, 'keypoints', Detection2DArray).detections
    assert [entry.results[0].hypothesis.class_id for entry in keypoints] == ['left_elbow', 'left_wrist']
    joints = ask_for(camera, 'markers', MarkerArray).markers[1]
    assert len(joints.points) == 2


def test_a_skeleton_that_names_joints_the_model_does_not_have_is_refused(start, tmp_path):
    file = tmp_path / 'dog.yaml'
    file.write_text('keypoints: [nose, tail]\nlinks: [[nose, tail]]\n')
    model = save_pose(tmp_path / 'pose.onnx', [20])
    node = start('pose_node', *parameters(model_file_path=model, skeleton=file))
    node.wait_for('the model has no key point tail')
    assert node.is_alive and 'Traceback' not in node.log


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        ({'persons_topic': '"bad topic!"'}, 'persons_topic: Invalid topic name'),
        ({'person_classes': '[person, cat]'}, 'finder.onnx, which finds the persons, (dog, person), got'),
        ({'person_classes': '["99"]'}, 'finder.onnx, which finds the persons, (dog, person), got'),
    ],
)
def test_what_top_down_cannot_use_is_said_when_the_model_is_opened(start, tmp_path, values, says):
    model = save_single(tmp_path / 'single.onnx')
    if 'persons_topic' not in values:
        finder = save_constant_detector(
            tmp_path / 'finder.onnx',
            {'output0': ultralytics_output([], classes=2)},
            metadata=ultralytics_metadata(['dog', 'person']),
        )
        values = {**values, 'person_model_file_path': finder}
    node = start('pose_node', *parameters(model_file_path=model, **values))
    node.wait_for(says)
    assert node.is_alive and 'Traceback' not in node.log


def test_markers_that_fail_are_a_warning_of_the_node(start, tmp_path, camera):
    model = save_pose(tmp_path / 'pose.onnx', [20])
    start('pose_node', *parameters(model_file_path=model, use_depth=True)).wait_for('waiting for pictures')
    camera.peer.listen(MarkerArray, 'markers')

    def warned():
        camera.ask()
        statuses = [message.status[0] for message in camera.peer.got['/diagnostics']]
        return any(one.level != DiagnosticStatus.OK and 'camera_info' in one.message for one in statuses)

    assert wait_until(warned)
    assert_deleted(camera.peer.got['markers'])  # who was there before may have gone


def assert_deleted(got):
    assert [marker.action for marker in got[-1].markers] == [Marker.DELETEALL]


def test_who_is_deactivated_deletes_the_markers_that_stand(start, tmp_path, camera):
    start('pose_node', *parameters(model_file_path=save_pose(tmp_path / 'pose.onnx', [20]))).wait_for(
        'waiting for pictures'
    )
    shown = ask_for(camera, 'markers', MarkerArray)
    assert len(shown.markers) > 1
    assert all(marker.lifetime.sec > 0 for marker in shown.markers[1:])
    got = camera.peer.got['markers']
    count = len(got)
    assert camera.peer.transit(NODE, 'deactivate')
    assert wait_until(lambda: len(got) > count)
    assert_deleted(got)


def save_single(path):
    """A network for the picture of one person: every point in its middle."""
    maps = np.zeros((1, 16, 16, 16), np.float32)
    maps[0, :, 8, 8] = 0.9
    return save_constant_detector(path, {'heatmaps': maps}, image_shape=(1, 3, SIZE, SIZE))


def start_beside_a_detector(start, tmp_path, camera, **values):
    """Start a node that takes its persons from a topic; give the publisher of that topic."""
    model = save_single(tmp_path / 'single.onnx')
    arguments = parameters(model_file_path=model, persons_topic='detections', **values)
    start('pose_node', *arguments).wait_for('waiting for pictures')
    publisher = camera.peer.node.create_publisher(Detection2DArray, 'detections', 10)
    assert wait_until(lambda: publisher.get_subscription_count() and camera.is_matched())
    return publisher


def publish_persons(camera, publisher, stamp_ns, boxes, class_id=0):
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), 0.9, np.float32),
        np.full(len(boxes), class_id, np.int32),
    )
    spec = ModelSpec('detection', '', ImageSpec('', (1, 1)), (), ('person', 'dog'), 2)
    frame = Frame(PICTURE, stamp_ns=stamp_ns, frame_id='camera')
    publisher.publish(entries_to_msg(entries_of_detections(found, spec), frame))


def test_persons_of_another_node_are_taken_by_the_stamp_of_the_picture(start, tmp_path, camera):
    publisher = start_beside_a_detector(start, tmp_path, camera)
    keypoints, answers = camera.peer.got['keypoints'], camera.peer.got['persons']
    camera.peer.listen(Detection2DArray, 'keypoints')
    for _ in range(10):
        stamp_ns = camera.send()
        publish_persons(camera, publisher, stamp_ns, [(10, 4, 30, 44), (40, 4, 60, 44)])
        if wait_until(lambda: keypoints and stamp_of(keypoints[-1]) == stamp_ns, 2):  # noqa: B023
            break
    assert len(answers[-1].detections) == 2 and len(keypoints[-1].detections) == 2 * 16
    assert {entry.results[0].hypothesis.class_id for entry in answers[-1].detections} == {'person'}
    x = [entry.bbox.center.position.x for entry in keypoints[-1].detections if entry.id == '2']
    assert np.allclose(x, 50, atol=3)
    stamp_ns = camera.send()
    publish_persons(camera, publisher, stamp_ns, [(10, 4, 30, 44)], class_id=1)  # dogs are none
    assert wait_until(lambda: stamp_of(answers[-1]) == stamp_ns)
    assert list(answers[-1].detections) == []


def test_pictures_are_answered_at_their_rate_however_late_their_persons_come(start, tmp_path, camera):
    publisher = start_beside_a_detector(start, tmp_path, camera)
    answers = camera.peer.got['persons']

    def is_answered():  # until both ends know one another
        stamp_ns = camera.send()
        publish_persons(camera, publisher, stamp_ns, [(10, 4, 30, 44)])
        return wait_until(lambda: answers and stamp_of(answers[-1]) == stamp_ns, timeout_s=2)

    assert wait_until(is_answered)
    first, stamps = len(answers), []
    for _ in range(60):
        stamps.append(camera.send())
        if len(stamps) > 4:  # four pictures later: 133 ms
            publish_persons(camera, publisher, stamps[-5], [(10, 4, 30, 44)])
        time.sleep(1 / 30)
    # Of 56 that have persons; a busy machine may lose some. A model that waits for them answers a quarter.
    camera.peer.wait_for('persons', first + 40)
    answered = [stamp_of(answer) for answer in answers[first:]]
    assert answered == sorted(answered) and set(answered) <= set(stamps)


def test_pictures_without_persons_are_given_up_for_the_next_that_has_some(start, tmp_path, camera):
    publisher = start_beside_a_detector(start, tmp_path, camera, persons_timeout_ms=10000.0)

    def received():
        return int(camera.peer.diagnostics().get('received', 0))

    for _ in range(20):  # the first ones may go by before both ends know one another
        before, stamp_ns = received(), camera.send()
        if wait_until(lambda: received() > before, timeout_s=3) and received() >= 4:  # noqa: B023
            break
    publish_persons(camera, publisher, stamp_ns, [(10, 4, 30, 44)])

    def all_but_one_are_given_up(status):
        values = values_of(status)
        return 3 <= int(values['received']) - 1 == int(values['dropped_unpaired'])

    status = camera.status(all_but_one_are_given_up)
    assert status.level == DiagnosticStatus.OK and ' given up for newer ones' in status.message
    assert [stamp_of(answer) for answer in camera.peer.got['persons']] == [stamp_ns]


def test_persons_that_never_match_a_picture_are_said_in_diagnostics(start, tmp_path, camera):
    model = save_single(tmp_path / 'single.onnx')
    arguments = parameters(model_file_path=model, persons_topic='detections', persons_timeout_ms=20.0)
    node = start('pose_node', *arguments)
    node.wait_for('waiting for pictures')
    publisher = camera.peer.node.create_publisher(Detection2DArray, 'detections', 10)
    assert wait_until(lambda: publisher.get_subscription_count() and camera.is_matched())

    def said(text):
        stamp_ns = camera.send()
        publish_persons(camera, publisher, stamp_ns - 5 * SECOND, [(10, 4, 30, 44)])
        return any(text in message.status[0].message for message in camera.peer.got['/diagnostics'])

    assert wait_until(lambda: said('expected detections with the stamp of the picture within 20 ms'))
    assert wait_until(lambda: said('s older'))
    assert node.is_alive


def test_a_detector_of_ones_own_finds_the_persons(start, tmp_path, camera):
    boxes = ultralytics_output([(20, 32, 20, 40, 1, 0.9), (44, 32, 20, 40, 0, 0.9)], classes=2)
    finder = save_constant_detector(
        tmp_path / 'finder.onnx', {'output0': boxes}, metadata=ultralytics_metadata(['dog', 'person'])
    )
    model = save_single(tmp_path / 'single.onnx')
    start('pose_node', *parameters(model_file_path=model, person_model_file_path=finder)).wait_for(
        'waiting for pictures'
    )
    (person,) = camera.ask().detections
    assert person.bbox.center.position.x == pytest.approx(20)
    assert person.results[0].hypothesis.class_id == 'person'
    (done,) = camera.peer.set(NODE, confidence_threshold=0.95)
    assert done.successful and len(camera.ask().detections) == 0
    (done,) = camera.peer.set(NODE, confidence_threshold=0.25)
    keypoints = ask_for(camera, 'keypoints', Detection2DArray).detections
    assert len(keypoints) == 16
    assert np.allclose([entry.bbox.center.position.x for entry in keypoints], 20, atol=3)


def test_with_depth_and_calibration_markers_are_in_metres(start, tmp_path, camera):
    model = save_pose(tmp_path / 'pose.onnx', [20])
    start('pose_node', *parameters(model_file_path=model, use_depth=True)).wait_for('waiting for pictures')
    depth = camera.peer.node.create_publisher(Image, 'depth', 10)
    info = camera.peer.node.create_publisher(CameraInfo, 'camera_info', 10)
    camera.peer.listen(MarkerArray, 'markers')
    assert wait_until(lambda: depth.get_subscription_count() and info.get_subscription_count())
    millimetres = np.full(PICTURE.shape[:2], 2000, np.uint16)
    millimetres[:, :10] = 0
    k = [50.0, 0, 32, 0, 50, 24, 0, 0, 1]
    got = camera.peer.got['markers']

    def lifted():
        info.publish(CameraInfo(height=48, width=64, k=k, header=Header(frame_id='camera')))
        cdr = image_to_cdr(
            millimetres, stamp_ns=camera.stamp_ns + SECOND // 10, frame_id='camera', encoding='16UC1'
        )
        depth.publish(bytes(cdr))
        camera.send()
        wait_until(lambda: got and len(got[-1].markers) > 1, 0.5)
        return got and len(got[-1].markers) > 1

    assert wait_until(lifted)
    point = got[-1].markers[1].points[0]
    assert point.z == pytest.approx(2.0)
    assert (point.x, point.y) == pytest.approx(((20 - 0.5 - 32) * 2 / 50, (6 - 0.5 - 24) * 2 / 50))


needs_data = pytest.mark.skipif(
    'ISAAC_INFER_TEST_DATA' not in os.environ, reason='ISAAC_INFER_TEST_DATA is not set'
)


@needs_data
def test_a_real_network_finds_the_persons_of_its_reference(start, camera):
    data = Path(os.environ['ISAAC_INFER_TEST_DATA'])
    folder = data / 'models' / 'yolov8n_pose_320'
    arguments = parameters(model_file_path=folder / 'model.onnx', keypoint_threshold=0.0)
    start('pose_node', *arguments).wait_for('waiting for pictures')
    for path in sorted((folder / 'refs').glob('*.json')):
        expected = json.loads(path.read_text())['detections']
        picture = cv2.imread(str(data / 'images' / f'{path.stem}.jpg'))
        keypoints = ask_for(camera, 'keypoints', Detection2DArray, picture)
        persons = newest(camera, 'persons', keypoints)
        assert len(persons.detections) == len(expected)
        for one, person in zip(persons.detections, expected, strict=True):
            places = {
                entry.results[0].hypothesis.class_id: entry.bbox.center.position
                for entry in keypoints.detections
                if entry.id == one.id
            }
            for name, (x, y, _) in zip(NAMES, person['keypoints_xyv'], strict=True):
                assert (places[name].x, places[name].y) == pytest.approx((x, y), abs=2)
