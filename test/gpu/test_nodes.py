"""The nodes on TensorRT, as processes of their own over DDS, answer as ONNX Runtime does."""

import numpy as np
import pytest
from camera import Camera, values_of
from gpu.conftest import MODEL, TACTICS
from nodes.conftest import environment, make_peer, ros, start  # noqa: F401 - fixtures
from processes import parameters
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.frame import Frame
from isaac_infer.core.maps import class_map_of
from isaac_infer.core.matching import match_detections
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.spec import Limits
from isaac_infer.engine.load import open_pipeline
from isaac_infer.ros.messages import detections_from_msg

SCENES = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + 10)


@pytest.fixture
def node(start, folder):  # noqa: F811
    """Start a node with one of our models on TensorRT, once its engine is there."""

    def start_it(name, model):
        tactics = {'tactic_sources': f'[{",".join(TACTICS)}]'} if TACTICS else {}
        process = start(
            name,
            *parameters(
                model_file_path=MODEL.with_name(f'{model}.onnx'),
                backend='tensorrt',
                engine_cache_path=folder,
                optimization_level=0,
                **tactics,
            ),
        )
        process.wait_for('waiting for pictures', timeout_s=110)

    return start_it


@pytest.fixture
def reference():
    """Open one of our models on ONNX Runtime, with the nodes' own limits."""
    opened = []

    def open_it(model, task):
        opened.append(
            open_pipeline(
                MODEL.with_name(f'{model}.onnx'),
                task=task,
                backend='onnxruntime',
                limits=lambda spec: Limits(),
            )
        )
        return opened[-1]

    yield open_it
    for pipeline in opened:
        pipeline.close()


def answers(camera, **kind):
    """Ask for an answer to every scene; give both."""
    for seed in SCENES:
        image = draw_scene(seed, **kind).image
        yield image, camera.ask(image)
    status = camera.status(lambda status: 'backend' in values_of(status))
    assert values_of(status)['backend'].startswith('tensorrt')


def test_boxes(node, make_peer, reference):  # noqa: F811
    pipeline = reference('tabletop_detector', 'detection')
    node('detector_node', 'tabletop_detector')
    for image, answer in answers(Camera(make_peer())):
        want = pipeline(Frame(image))
        got, _ = detections_from_msg(answer, list(pipeline.spec.class_names))
        pairs = match_detections(want, got, iou_threshold=0.97)
        assert len(pairs) >= np.count_nonzero(want.score > 0.35)


def test_masks(node, make_peer, reference):  # noqa: F811
    pipeline = reference('tabletop_segmentation', 'segmentation')
    node('segmentation_node', 'tabletop_segmentation')
    camera = Camera(make_peer())
    camera.peer.listen(Image, 'mask')
    equal = []
    for image, answer in answers(camera):
        message = camera.beside('mask', answer)
        mask = np.frombuffer(message.data, np.uint8).reshape(image.shape[:2])
        equal.append((mask == class_map_of(pipeline(Frame(image)), image.shape[:2], 10)).mean())
    assert min(equal) >= 0.99, equal


def test_key_points(node, make_peer, reference):  # noqa: F811
    pipeline = reference('humanoid_pose', 'pose')
    node('pose_node', 'humanoid_pose')
    camera = Camera(make_peer(), answers='persons')
    camera.peer.listen(Detection2DArray, 'keypoints')
    apart = []
    for image, answer in answers(camera, humanoids=True):
        want = pipeline(Frame(image))
        persons, _ = detections_from_msg(answer, list(pipeline.spec.class_names))
        pairs = match_detections(want.persons, persons, iou_threshold=0.9)
        assert len(pairs) >= np.count_nonzero(want.persons.score > 0.35)
        places = {
            (entry.id, entry.results[0].hypothesis.class_id): entry.bbox.center.position
            for entry in camera.beside('keypoints', answer).detections
        }
        for row, column in zip(pairs.reference, pairs.other):
            for name, (x, y), score in zip(pipeline.spec.keypoints, want.xy[row], want.score[row]):
                if score > 0.6:  # others may fall below the threshold of the node
                    place = places[answer.detections[column].id, name]
                    apart.append(np.hypot(place.x - x, place.y - y))
    assert len(apart) > 50 and np.mean(np.array(apart) <= 1.0) >= 0.95, apart  # see test_tasks
