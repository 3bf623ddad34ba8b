"""detector_node, as a process of its own, over DDS."""

import json
import os
import random
import signal
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from camera import PICTURE, SECOND, Camera, stamp_of, values_of
from diagnostic_msgs.msg import DiagnosticStatus
from onnx import TensorProto, helper
from processes import wait_until
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo

from isaac_infer.core.boxes import box_iou
from isaac_infer.engine.load import tensorrt_problem
from isaac_infer.ros.images import image_to_cdr
from isaac_infer.ros.messages import detections_from_msg
from isaac_infer.ros.reminders import MOST_LINES
from models import OPSET, save_constant_detector, save_model, ultralytics_metadata, ultralytics_output

NODE = '/detector_node'
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=10)
# A 64 x 48 picture lies 8 pixels from the top of a 64 x 64 network input: a mug and a doubtful ball.
OBJECTS = [(20.0, 30.0, 10.0, 12.0, 0, 0.9), (45.0, 30.0, 8.0, 8.0, 1, 0.4)]


def save_detector(path, objects=OBJECTS, names=('mug', 'ball')):
    output = ultralytics_output(objects, classes=len(names))
    return save_constant_detector(path, {'output0': output}, metadata=ultralytics_metadata(names))


def save_slow_detector(path, *, size=1024, products=50):
    """A detector that multiplies large matrices first: half a second on one core."""
    output = ultralytics_output(OBJECTS, classes=2)
    nodes = [
        helper.make_node('ReduceMean', ['images'], ['mean'], keepdims=0),
        helper.make_node('Mul', ['matrix', 'mean'], ['m0']),
        *(helper.make_node('MatMul', [f'm{i}', 'matrix'], [f'm{i + 1}']) for i in range(products)),
        helper.make_node('ReduceMean', [f'm{products}'], ['number'], keepdims=0),
        helper.make_node('Mul', ['number', 'zero'], ['nothing']),
        helper.make_node('Add', ['answer', 'nothing'], ['output0']),
    ]
    return save_model(
        path,
        nodes,
        {'images': (TensorProto.FLOAT, (1, 3, 64, 64))},
        {'output0': (TensorProto.FLOAT, output.shape)},
        constants={
            'matrix': np.full((size, size), 1 / size, np.float32),
            'zero': np.zeros((), np.float32),
            'answer': output,
        },
        metadata=ultralytics_metadata(['mug', 'ball']),
        opsets={'': OPSET},
    )


def parameters(**values):
    arguments = ['--ros-args']
    for name, value in values.items():
        arguments += ['-p', f'{name}:={value}']
    return arguments


def is_balanced(values):
    """Every picture that was received is accounted for."""
    causes = 'busy', 'bad_image', 'failed', 'inactive', 'load_level'
    dropped = sum(int(values[f'dropped_{cause}']) for cause in causes)
    return int(values['received']) == int(values['answered']) + dropped


@pytest.fixture
def camera(make_peer):
    return Camera(make_peer('camera'))


@pytest.fixture
def detector(start, tmp_path):
    """A detector that is active."""
    process = start('detector_node', *parameters(model_file_path=save_detector(tmp_path / 'table.onnx')))
    process.wait_for('waiting for pictures on /image')
    return process


def test_every_picture_is_answered_with_its_header_and_boxes_in_its_pixels(detector, camera):
    for _ in range(3):
        answer = camera.ask()
        assert answer.header.frame_id == 'camera'
        mug, ball = answer.detections
        assert mug.results[0].hypothesis.class_id == 'mug'
        assert mug.results[0].hypothesis.score == pytest.approx(0.9)
        assert ball.results[0].hypothesis.class_id == 'ball'
        box = mug.bbox
        assert (box.center.position.x, box.center.position.y) == (20, 22)
        assert (box.size_x, box.size_y) == (10, 12)


def test_live_parameters_change_the_next_answer_and_others_are_refused(detector, camera):
    assert len(camera.ask().detections) == 2
    assert camera.peer.set(NODE, confidence_threshold=0.5)[0].successful
    assert len(camera.ask().detections) == 1
    assert camera.peer.set(NODE, confidence_threshold=1)[0].successful  # a whole number
    assert list(camera.ask().detections) == []
    assert camera.peer.set(NODE, confidence_threshold=0.1, class_filter=['ball'], class_ids='index')[
        2
    ].successful
    (ball,) = camera.ask().detections
    assert ball.results[0].hypothesis.class_id == '1'

    refused = camera.peer.set(NODE, confidence_threshold=2.0, class_filter=['dragon'], decoder='yolox')
    assert not any(result.successful for result in refused)
    assert 'mug' in refused[1].reason and 'dragon' in refused[1].reason
    assert 'deactivate' in refused[2].reason
    assert len(camera.ask().detections) == 1


def test_late_subscribers_learn_the_class_names_and_the_threshold_in_force(detector, camera):
    camera.peer.set(NODE, confidence_threshold=0.5)
    camera.peer.listen(LabelInfo, 'label_info', LATCHED)
    labels = camera.peer.wait_for('label_info', 1)[-1]
    assert [entry.class_name for entry in labels.class_map] == ['mug', 'ball']
    assert labels.threshold == 0.5


def test_the_overlay_is_drawn_for_those_who_subscribe(detector, camera):
    camera.ask()
    camera.peer.listen(Image, 'overlay', RELIABLE)
    assert wait_until(lambda: camera.peer.node.count_subscribers('overlay') > 0)
    assert wait_until(lambda: camera.send() and not time.sleep(0.1) and camera.peer.got['overlay'])
    overlay = camera.peer.got['overlay'][-1]
    assert (overlay.height, overlay.width, overlay.encoding, overlay.header.frame_id) == (
        48,
        64,
        'bgr8',
        'camera',
    )
    drawn = np.frombuffer(overlay.data, np.uint8).reshape(PICTURE.shape) != PICTURE
    assert drawn[10:35].any() and not drawn[45:].any()


def test_diagnostics_say_what_runs_and_how_fast(detector, camera):
    camera.ask()
    status = camera.status(lambda status: int(values_of(status)['answered']) >= 1)
    values = values_of(status)
    assert status.name == 'detector_node: detections'
    assert values['model'].endswith('table.onnx') and len(values['sha256']) == 64
    assert 'CPUExecutionProvider' in values['backend'] and values['decoder'] == 'ultralytics'
    for stage in ('wait', 'convert', 'prepare', 'run', 'decode', 'publish', 'total'):
        assert 0 <= float(values[f'{stage}_ms_p50']) <= float(values[f'{stage}_ms_p99']) < 1000
    assert values['messages'] == 'cdr'
    assert values['dropped_busy'] == values['dropped_bad_image'] == '0'


def test_bad_pictures_are_counted_and_the_node_lives_on(detector, camera):
    camera.ask()
    rng = random.Random(3)
    good = bytes(image_to_cdr(PICTURE, stamp_ns=1, frame_id='camera'))
    for _ in range(300):
        cdr = bytearray(good[:200])  # too short for its sizes
        at = rng.randrange(0, 60, 4)
        cdr[at + 4 : at + 8] = struct.pack('<I', rng.choice((0, 1, 1 << 20, (1 << 32) - 1)))
        camera.publisher.publish(bytes(cdr))
        time.sleep(0.001)
    status = camera.status(lambda status: int(values_of(status)['dropped_bad_image']) > 100)
    assert status.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
    assert values_of(status)['last_error'].startswith('image: ')
    assert len(camera.ask().detections) == 2
    assert detector.log.count('[ERROR]') < 5  # throttled


def test_errors_of_many_kinds_are_all_in_diagnostics_and_few_in_the_log(detector, camera):
    camera.ask()
    good = {'height': 48, 'width': 64, 'encoding': 'bgr8', 'step': 192, 'data': bytes(48 * 192)}
    bad = {
        'expected a step of at least': {'step': 8},
        "got 'neither'": {'encoding': 'neither'},
        "got 'this'": {'encoding': 'this'},
        "got 'nor that'": {'encoding': 'nor that'},
        'for 64 x 48 bgr8': {'data': bytes(9)},
        'for 64 x 48 rgb8': {'data': bytes(9), 'encoding': 'rgb8'},
        'expected even sides': {'encoding': 'nv12', 'height': 47},
        'pixels, got 0 x 48': {'width': 0},
    }
    pictures = [Image(**{**good, **changed}) for changed in bad.values()]

    def errors():
        return ' | '.join(values_of(m.status[0])['errors'] for m in list(camera.peer.got['/diagnostics']))

    begin = time.monotonic()
    while not (all(text in errors() for text in bad) and time.monotonic() - begin > 12):
        assert time.monotonic() - begin < 30, errors()
        for picture in pictures:
            camera.publisher.publish(picture)
            time.sleep(0.01)
    lines = [float(line.split('[')[2].split(']')[0]) for line in detector.log.splitlines() if 'ERROR' in line]
    assert max(sum(at_s <= other < at_s + 9.9 for other in lines) for at_s in lines) <= MOST_LINES
    assert len(camera.ask().detections) == 2


def test_a_picture_that_comes_from_the_typed_interface_is_answered(detector, camera):
    assert wait_until(camera.is_matched)
    image = Image(height=2, width=2, encoding='mono8', step=3, data=[0] * 6)
    image.header.stamp.sec = 77
    camera.publisher.publish(image)
    assert camera.peer.wait_for('detections', 1)[-1].header.stamp.sec == 77


def test_compressed_pictures_are_answered(start, tmp_path, make_peer):
    peer = make_peer('camera', 'robot')
    publisher = peer.node.create_publisher(CompressedImage, 'front/compressed', 1)
    peer.listen(Detection2DArray, 'detections')
    model = save_detector(tmp_path / 'table.onnx')
    arguments = parameters(model_file_path=model, transport='compressed')
    process = start('detector_node', *arguments, '-r', '__ns:=/robot', '-r', 'image:=front')
    process.wait_for('waiting for pictures on /robot/front/compressed')
    image = CompressedImage(format='jpeg')
    image.data.frombytes(cv2.imencode('.jpg', PICTURE)[1].tobytes())
    assert wait_until(lambda: publisher.publish(image) or time.sleep(0.1) or peer.got['detections'])
    assert len(peer.got['detections'][0].detections) == 2


def test_the_node_answers_while_a_slow_model_runs(start, tmp_path, camera):
    model = save_slow_detector(tmp_path / 'slow.onnx')
    process = start('detector_node', *parameters(model_file_path=model, num_threads=1, slow_frame_ms=20.0))
    process.wait_for('waiting for pictures')
    camera.ask()
    camera.peer.state(NODE)
    camera.peer.set(NODE, confidence_threshold=0.25)
    times_ms, end = [], time.monotonic() + 4
    while time.monotonic() < end:
        camera.send()
        camera.send()
        for question in (lambda: camera.peer.state(NODE), lambda: camera.peer.set(NODE, nms_threshold=0.5)):
            begin = time.monotonic()
            question()
            times_ms.append((time.monotonic() - begin) * 1e3)
        time.sleep(0.02)
    status = camera.status(lambda status: int(values_of(status)['dropped_busy']) > 5)
    values = values_of(status)
    assert 'came while the model was busy' in process.log
    run_ms = float(values['run_ms_p50'])
    assert run_ms > 100  # or this test would show nothing
    assert np.median(times_ms) < run_ms / 4, sorted(times_ms)  # who waits for the model waits for half of it
    stamps = [stamp_of(m) for m in camera.peer.got['/diagnostics']]
    assert np.median(np.diff(stamps)) < 1.3 * SECOND
    assert 'slowest stage is run' in process.log
    del camera.peer.got['/diagnostics'][:]
    camera.status(lambda status: is_balanced(values_of(status)))
    assert process.stop() == 0


def test_an_answer_with_nan_is_an_error_and_the_node_lives_on(start, tmp_path, camera):
    """NaN for bright pictures only, so that the model passes the check when it is opened."""
    output = ultralytics_output(OBJECTS, classes=2)
    nodes = [
        helper.make_node('ReduceMax', ['images'], ['bright'], keepdims=0),
        helper.make_node('Sub', ['limit', 'bright'], ['left']),
        helper.make_node('Sqrt', ['left'], ['number']),
        helper.make_node('Mul', ['number', 'zero'], ['nothing']),
        helper.make_node('Add', ['answer', 'nothing'], ['output0']),
    ]
    model = save_model(
        tmp_path / 'nan.onnx',
        nodes,
        {'images': (TensorProto.FLOAT, (1, 3, 64, 64))},
        {'output0': (TensorProto.FLOAT, output.shape)},
        constants={'limit': np.float32(0.7), 'zero': np.float32(0), 'answer': output},
        metadata=ultralytics_metadata(['mug', 'ball']),
    )
    start('detector_node', *parameters(model_file_path=model)).wait_for('waiting for pictures')
    camera.ask()
    camera.send(np.full_like(PICTURE, 255))
    status = camera.status(lambda status: values_of(status)['dropped_failed'] == '1')
    assert 'output0' in values_of(status)['last_error']
    camera.ask()


def test_a_lifecycle_manager_can_lead_the_node(start, tmp_path, camera):
    first, second = save_detector(tmp_path / 'a.onnx'), save_detector(tmp_path / 'b.onnx', OBJECTS[:1])
    process = start('detector_node', *parameters(autostart='false', model_file_path=first))
    peer = camera.peer
    assert peer.state(NODE) == 'unconfigured'
    assert not peer.transit(NODE, number=3) and not peer.transit(NODE, number=99)  # and lives on
    assert peer.transit(NODE, 'configure') and peer.state(NODE) == 'inactive'
    assert peer.transit(NODE, 'activate') and len(camera.ask().detections) == 2
    assert not peer.set(NODE, model_file_path=str(second))[0].successful
    assert peer.transit(NODE, 'deactivate') and wait_until(
        lambda: not camera.publisher.get_subscription_count()
    )
    assert not peer.set(NODE, model_file_path=str(second))[0].successful
    assert peer.transit(NODE, 'cleanup') and peer.state(NODE) == 'unconfigured'
    assert peer.set(NODE, model_file_path=str(second))[0].successful
    assert peer.transit(NODE, 'configure') and peer.transit(NODE, 'activate')
    assert len(camera.ask().detections) == 1
    assert peer.transit(NODE, 'shutdown') and peer.state(NODE) == 'finalized'
    assert process.is_alive and process.stop() == 0


@pytest.mark.parametrize(
    ('content', 'says'),
    [(None, 'no such model file'), (b'', 'empty'), (b'not a model at all', 'bad.onnx')],
)
def test_a_model_that_cannot_be_opened_is_said_and_another_one_can_follow(
    start, tmp_path, camera, content, says
):
    bad = tmp_path / 'bad.onnx'
    if content is not None:
        bad.write_bytes(content)
    process = start('detector_node', *parameters(model_file_path=bad))
    status = camera.status(lambda status: status.level == DiagnosticStatus.ERROR)
    assert says in status.message and says in process.log
    assert process.log.count('[ERROR]') == 1 and 'Traceback' not in process.log
    assert camera.peer.state(NODE) == 'unconfigured'
    good = save_detector(tmp_path / 'good.onnx')
    assert camera.peer.set(NODE, model_file_path=str(good))[0].successful
    assert camera.peer.transit(NODE, 'configure') and camera.peer.transit(NODE, 'activate')
    assert len(camera.ask().detections) == 2
    camera.status(
        lambda status: status.level == DiagnosticStatus.OK and 'pictures per second' in status.message
    )


@pytest.mark.parametrize(
    ('name', 'backend', 'code'),
    [('a.onnx', 'onnxruntime', 0), ('nowhere.onnx', 'onnxruntime', 1), ('a.onnx', 'tensorrt', 1)],
)
def test_a_node_that_only_builds_ends_with_the_model(start, tmp_path, name, backend, code):
    save_detector(tmp_path / 'a.onnx')
    process = start(
        'detector_node',
        *parameters(model_file_path=tmp_path / name, backend=backend, build_only='true'),
    )
    assert process.wait() == code


def test_a_node_that_only_builds_fails_where_nothing_was_built(start, tmp_path):
    if not tensorrt_problem():
        pytest.skip('an engine would be built')
    process = start(
        'detector_node', *parameters(model_file_path=save_detector(tmp_path / 'a.onnx'), build_only='true')
    )
    assert process.wait() == 1
    assert 'no engine was built: TensorRT cannot be used' in process.log


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='reads memory and threads from /proc')
def test_a_hundred_reconfigurations_leave_neither_memory_nor_threads(start, tmp_path, camera):
    models = [save_detector(tmp_path / 'a.onnx'), save_detector(tmp_path / 'b.onnx', OBJECTS[:1])]
    detector = start('detector_node', *parameters(model_file_path=models[0]))
    process, used = psutil.Process(detector.pid), []
    camera.ask()
    for number in range(100):
        for step in ('deactivate', 'cleanup'):
            assert camera.peer.transit(NODE, step)
        camera.peer.set(NODE, model_file_path=str(models[number % 2]))
        for step in ('configure', 'activate'):
            assert camera.peer.transit(NODE, step)
        if number % 10 == 9:
            assert len(camera.ask().detections) == 2 - number % 2
            used.append((process.memory_info().rss, process.num_threads()))
    memory, threads = zip(*used)
    assert threads[-1] <= threads[1]
    assert memory[-1] - memory[3] < 8 << 20, [value >> 20 for value in memory]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_the_node_cleanly(detector, camera, number):
    camera.ask()
    for _ in range(5):
        camera.send()
    begin = time.monotonic()
    assert detector.stop(number) == 0
    assert time.monotonic() - begin < 5
    assert 'Traceback' not in detector.log and '[ERROR]' not in detector.log


def test_a_signal_while_the_model_runs_ends_the_node_cleanly(start, tmp_path, camera):
    model = save_slow_detector(tmp_path / 'slow.onnx')
    process = start('detector_node', *parameters(model_file_path=model, num_threads=1))
    process.wait_for('waiting for pictures')
    assert wait_until(camera.is_matched)
    camera.send()
    time.sleep(0.1)
    assert process.stop() == 0
    assert 'Traceback' not in process.log


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (
            parameters(confidence_treshold=0.5),
            'unknown parameter confidence_treshold; expected confidence_threshold',
        ),
        (
            parameters(confidence_threshold='high'),
            "confidence_threshold: expected float from 0 to 1, got 'high'",
        ),
        (
            ['--ros-args', '--params-file', '/nowhere.yaml'],
            '--params-file /nowhere.yaml: there is no such file',
        ),
        (
            ['--ros-args', '-p', 'model_file_path=a.onnx'],
            '-p model_file_path=a.onnx: expected -p NAME:=VALUE',
        ),
        (['--ros-args', '-r', 'image=front'], '-r image=front: expected -r FROM:=TO'),
        (
            parameters(depth_tolerance_ms=1.0),
            'unknown parameter depth_tolerance_ms: it is one of pose_node, not of this node',
        ),
    ],
)
def test_wrong_parameters_end_the_process_with_one_error(start, arguments, says):
    process = start('detector_node', *arguments)
    assert process.wait() == 1
    assert says in process.log and 'Traceback' not in process.log


def test_incompatible_reliability_is_a_warning_that_says_what_to_change(start, tmp_path, camera):
    model = save_detector(tmp_path / 'table.onnx')
    process = start('detector_node', *parameters(model_file_path=model, image_reliability='reliable'))
    process.wait_for('set image_reliability to best_effort')


def test_silence_is_a_warning_that_names_the_topic_and_who_publishes_there(start, tmp_path, camera):
    model = save_detector(tmp_path / 'table.onnx')
    arguments = parameters(model_file_path=model, image_timeout_s=0.2)
    silent = start('detector_node', *arguments)
    status = camera.status(
        lambda status: status.level == DiagnosticStatus.WARN and 'camera' in status.message
    )
    assert '/image is silent' in status.message and 'sensor_msgs/msg/Image, best_effort' in status.message
    silent.stop()
    camera.peer.node.create_publisher(CompressedImage, '/packed', 10)
    packed = start('detector_node', *arguments, '-r', 'image:=/packed')
    wrong = '/packed has another type (camera publishes sensor_msgs/msg/CompressedImage, '
    camera.status(lambda status: wrong in status.message)
    packed.stop()
    lost = start('detector_node', *arguments, '-r', 'image:=/nobody')
    camera.status(lambda status: 'nobody publishes /nobody; remap it to one of /image' in status.message)
    assert 'nobody publishes /nobody' in lost.log
    lost.stop()
    start('detector_node', *arguments, '-p', 'transport:=compressed')
    camera.status(lambda status: '/image is there; set transport to raw' in status.message)


@pytest.mark.skipif('ISAAC_INFER_TEST_DATA' not in os.environ, reason='ISAAC_INFER_TEST_DATA is not set')
@pytest.mark.parametrize('name', ['yolov8n_320_coco', 'yolox_nano_coco'])
def test_a_real_network_says_over_dds_what_its_reference_says(start, camera, name):
    data = Path(os.environ['ISAAC_INFER_TEST_DATA'])
    folder = data / 'models' / name
    arguments = parameters(model_file_path=folder / 'model.onnx', class_ids='index')
    start('detector_node', *arguments).wait_for('waiting for pictures')
    for path in sorted((folder / 'refs').glob('*.json')):
        expected = json.loads(path.read_text())['detections']
        found, texts = detections_from_msg(
            camera.ask(cv2.imread(str(data / 'images' / f'{path.stem}.jpg'))), []
        )
        assert len(found) == len(expected)
        overlap = box_iou(found.xyxy, np.array([entry['box_xyxy'] for entry in expected], np.float32))
        for row, column in enumerate(overlap.argmax(axis=1)):
            assert overlap[row, column] >= 0.98
            assert texts[row] == str(expected[column]['class_id'])
            assert found.score[row] == pytest.approx(expected[column]['score'], abs=0.01)


def test_a_load_level_lowers_the_rate_only_where_it_is_obeyed_and_is_told(detector, start, camera):
    peer = camera.peer
    levels = peer.node.create_publisher(String, 'load_level', LATCHED)
    levels.publish(String(data='reduced'))  # before it obeys: it is latched
    source = start('image_source', *parameters(rate=30, width=64, height=48))
    source.wait_for('at 30 Hz')

    def report_at(least_hz, most_hz, **wanted):
        """Give a report at such a rate, which a busy machine may reach late, but none may exceed."""
        assert all(result.successful for result in peer.set(NODE, **wanted)) if wanted else True
        peer.got['/diagnostics'].clear()
        found = {}

        def is_there():
            reports = [m for m in peer.got['/diagnostics'] if m.status[0].name.startswith('detector_node')]
            for report in reports[2:]:  # the first ones are of times before, too
                values = values_of(report.status[0])
                assert float(values['rate_hz']) <= most_hz, values
                if float(values['rate_hz']) >= least_hz:
                    found.update(values, message=report.status[0].message)
            return found

        assert wait_until(is_there)
        return found

    found = report_at(20, 35)
    assert found['dropped_load_level'] == '0' and 'load_level' not in found
    found = report_at(8, 12, obey_load_level=True)
    assert 'load_level reduced: 10 pictures per second at most' in found['message']
    assert found['load_level'] == 'reduced' and is_balanced(found)
    report_at(3.5, 6.5, reduced_rate_hz=5.0)
    levels.publish(String(data='minimal'))
    detector.wait_for('load_level minimal: 2 pictures per second at most')
    report_at(1, 3.1)
    levels.publish(String(data='lunch'))
    detector.wait_for("load_level: expected one of normal, reduced, minimal, got 'lunch'; it stays minimal")
    levels.publish(String(data='normal'))
    detector.wait_for('load_level normal')
    report_at(20, 35)


def test_a_load_level_has_a_lighter_model_answer(start, camera, tmp_path):
    objects = [OBJECTS, OBJECTS[:1], []]  # what each of the models finds
    paths = [save_detector(tmp_path / f'{number}.onnx', found) for number, found in enumerate(objects)]
    levels = camera.peer.node.create_publisher(String, 'load_level', LATCHED)
    levels.publish(String(data='minimal'))  # before there is a node: it is latched
    detector = start(
        'detector_node',
        *parameters(
            model_file_path=paths[0],
            model_variants=f'[{paths[1]}, {paths[2]}]',
            reduced_rate_hz=1000.0,
            minimal_rate_hz=1000.0,
        ),
    )
    detector.wait_for('waiting for pictures on /image')
    assert len(camera.ask().detections) == 2  # it does not obey
    assert camera.peer.set(NODE, obey_load_level=True)[0].successful

    def finds(count):
        return wait_until(lambda: len(camera.ask().detections) == count)

    assert finds(0), detector.log
    found = values_of(camera.status(lambda status: values_of(status).get('load_level') == 'minimal'))
    assert found['model'] == str(paths[2]) and is_balanced(found)
    levels.publish(String(data='reduced'))
    detector.wait_for('load_level reduced: 1000 pictures per second at most, by 1.onnx')
    assert finds(1)
    assert camera.peer.set(NODE, confidence_threshold=0.95)[0].successful  # of all models
    assert finds(0)
    levels.publish(String(data='normal'))
    assert camera.peer.set(NODE, confidence_threshold=0.25)[0].successful
    assert finds(2)


MANY = [f'class {number}' for number in range(28)]


@pytest.mark.parametrize(
    ('variant', 'said'),
    [
        (
            (*MANY[:25], 'cup', *MANY[26:]),
            'which are, from number 25 on, class 25, class 26, class 27; got cup, class 26, class 27',
        ),
        (MANY[:-1], 'which are, from number 27 on, class 27; got none'),
        ((), 'nowhere.onnx'),
    ],
)
def test_a_variant_with_other_classes_or_without_a_file_is_refused(start, tmp_path, variant, said):
    light = save_detector(tmp_path / 'light.onnx', names=variant) if variant else tmp_path / 'nowhere.onnx'
    detector = start(
        'detector_node',
        *parameters(
            model_file_path=save_detector(tmp_path / 'table.onnx', names=MANY), model_variants=f'[{light}]'
        ),
    )
    detector.wait_for(said)
    assert detector.stop() == 0
