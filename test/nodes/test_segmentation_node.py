"""segmentation_node, as a process of its own, over DDS."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera import Camera, stamp_of, values_of
from processes import parameters, wait_until
from sensor_msgs.msg import Image

from isaac_infer.ros.messages import detections_from_msg
from models import save_constant_detector, ultralytics_metadata

NODE = '/segmentation_node'
SIZE = 64
PICTURES = ('mask', 'instance_mask', 'mask_color', 'overlay')
NAMES = ('background', 'mug', 'ball')


@pytest.fixture
def camera(make_peer):
    return Camera(make_peer('camera'))


def pixels(message):
    """A picture message as an array."""
    dtype = np.uint16 if message.encoding == 'mono16' else np.uint8
    image = np.frombuffer(message.data, dtype).reshape(message.height, message.width, -1)
    return image[..., 0] if message.encoding.startswith('mono') else image


def ask_for(camera, topics, picture):
    """Publish a picture until it has an answer on all of these topics; give them by topic."""
    for topic in topics:
        camera.peer.listen(Image, topic)
    assert wait_until(lambda: all(camera.peer.node.count_publishers(topic) for topic in topics)), (
        'the topics are not there'
    )
    for _ in range(10):
        answer = camera.ask(picture)
        if wait_until(lambda: len(of(camera, topics, answer)) == len(topics), timeout_s=3):  # noqa: B023
            return answer, of(camera, topics, answer)
    raise AssertionError({topic: len(camera.peer.got[topic]) for topic in topics})


def of(camera, topics, answer):
    """The messages with the stamp of an answer, by topic, as far as they came."""
    came = ((topic, message) for topic in topics for message in list(camera.peer.got[topic]))
    return {topic: message for topic, message in came if stamp_of(message) == stamp_of(answer)}


def save_semantic(path):
    """A mug in the middle of the upper half, a ball at the bottom right, as logits at half the size."""
    logits = np.zeros((1, 3, SIZE // 2, SIZE // 2), np.float32)
    logits[0, 0] = 1.0
    logits[0, 1, 4:12, 12:20] = 5.0
    logits[0, 2, 24:32, 24:32] = 9.0
    metadata = {**ultralytics_metadata(NAMES, SIZE), 'task': 'semantic', 'head': 'Semantic'}
    return save_constant_detector(
        path, {'output0': logits}, image_shape=(1, 3, SIZE, SIZE), metadata=metadata
    )


def test_a_semantic_model_gives_classes_regions_and_pictures_of_the_size_of_the_source(
    start, tmp_path, camera
):
    model = save_semantic(tmp_path / 'table.onnx')
    start('segmentation_node', *parameters(model_file_path=model)).wait_for('waiting for pictures')
    picture = np.full((2 * SIZE, 2 * SIZE, 3), 90, np.uint8)
    answer, pictures = ask_for(camera, PICTURES, picture)
    mask, instances = pixels(pictures['mask']), pixels(pictures['instance_mask'])
    assert {topic: message.encoding for topic, message in pictures.items()} == {
        'mask': 'mono8', 'instance_mask': 'mono16', 'mask_color': 'bgr8', 'overlay': 'bgr8'
    }  # fmt: skip
    assert mask.shape == picture.shape[:2] and mask[32, 64] == 1 and mask[112, 112] == 2 and mask[0, 0] == 0
    found, names = detections_from_msg(answer, list(NAMES))
    assert sorted(names) == ['ball', 'mug']
    for row, name in enumerate(names):
        left, top, right, bottom = found.xyxy[row].astype(int)
        assert (mask[top:bottom, left:right] == NAMES.index(name)).mean() > 0.9
        assert (instances == row + 1).sum() == (mask == NAMES.index(name)).sum()
    ball = found.score[names.index('ball')]
    assert 0.9 < ball <= 1 / (1 + np.exp(-8) + np.exp(-9)) + 1e-6  # softmax of 9, 1 and 0; less at the border
    colours = pixels(pictures['mask_color'])
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 3
    assert (pixels(pictures['overlay'])[32, 64] != picture[32, 64]).any()
    status = camera.status(lambda status: 'share_mug' in values_of(status))
    assert values_of(status)['share_mug'] == f'{(mask == 1).mean():.1%}'


def test_parameters_of_masks_change_between_two_pictures(start, tmp_path, camera):
    arguments = parameters(model_file_path=save_semantic(tmp_path / 'table.onnx'), min_region_area=50)
    start('segmentation_node', *arguments).wait_for('waiting for pictures')
    assert len(camera.ask().detections) == 2
    (done,) = camera.peer.set(NODE, min_region_area=0)
    assert done.successful and len(camera.ask().detections) == 0
    refused = camera.peer.set(NODE, palette=['red'])[0]
    assert not refused.successful and '#ff8800' in refused.reason
    (done,) = camera.peer.set(NODE, palette=['#000000', '#ff8800'])
    assert done.successful
    _, pictures = ask_for(camera, ('mask_color', 'mask'), np.zeros((SIZE, SIZE, 3), np.uint8))
    is_mug = pixels(pictures['mask']) == 1
    assert (pixels(pictures['mask_color'])[is_mug] == (0, 0x88, 0xFF)).all()


def test_a_detector_is_refused_and_the_node_takes_another_model(start, tmp_path, camera):
    output = np.zeros((1, 6, 84), np.float32)
    model = save_constant_detector(tmp_path / 'boxes.onnx', {'output0': output})
    node = start('segmentation_node', *parameters(model_file_path=model, min_region_area=50))
    node.wait_for('boxes.onnx')
    assert node.is_alive and 'Traceback' not in node.log
    (done,) = camera.peer.set(NODE, model_file_path=str(save_semantic(tmp_path / 'table.onnx')))
    assert done.successful
    assert camera.peer.transit(NODE, 'configure') and camera.peer.transit(NODE, 'activate')
    assert len(camera.ask().detections) == 2


def test_a_variant_that_tells_objects_where_the_model_tells_pixels_is_refused(start, tmp_path):
    boxes = np.zeros((1, 4 + len(NAMES) + 32, 84), np.float32)
    masks = np.zeros((1, 32, SIZE // 4, SIZE // 4), np.float32)
    metadata = {**ultralytics_metadata(NAMES, SIZE), 'task': 'segment', 'head': 'Segment'}
    light = save_constant_detector(
        tmp_path / 'light.onnx', {'output0': boxes, 'output1': masks}, metadata=metadata
    )
    arguments = parameters(
        model_file_path=save_semantic(tmp_path / 'table.onnx'), model_variants=f'[{light}]'
    )
    node = start('segmentation_node', *arguments)
    node.wait_for('light.onnx: expected the kind of table.onnx, which is semantic, got instances')
    assert node.is_alive


needs_data = pytest.mark.skipif(
    'ISAAC_INFER_TEST_DATA' not in os.environ, reason='ISAAC_INFER_TEST_DATA is not set'
)


@needs_data
def test_a_real_network_gives_the_masks_of_its_reference(start, camera):
    data = Path(os.environ['ISAAC_INFER_TEST_DATA'])
    folder = data / 'models' / 'yolov8n_seg_320_coco'
    start(
        'segmentation_node', *parameters(model_file_path=folder / 'model.onnx', class_ids='index')
    ).wait_for('waiting for pictures')
    for name in ('bus', 'dog'):
        picture = cv2.imread(str(data / 'images' / f'{name}.jpg'))
        expected = json.loads((folder / 'refs' / f'{name}.json').read_text())['detections']
        stored = np.load(folder / 'refs' / f'{name}.masks.npz')
        _, height, width = stored['shape']
        masks = np.unpackbits(stored['masks'], axis=1)[:, : height * width].reshape(-1, height, width) > 0
        answer, pictures = ask_for(camera, ('instance_mask',), picture)
        found, classes = detections_from_msg(answer, [])
        assert len(found) == len(expected)
        instances = pixels(pictures['instance_mask'])
        for row, one in enumerate(expected):
            near = int(np.abs(found.xyxy - one['box_xyxy']).max(axis=1).argmin())
            assert classes[near] == str(one['class_id'])
            # Where objects overlap, a pixel belongs to the best one.
            mine = instances == near + 1
            others = (instances > 0) & (instances < near + 1)
            assert (mine & masks[row]).sum() / ((mine | masks[row]) & ~others).sum() > 0.95


@needs_data
def test_a_real_semantic_network_gives_the_labels_of_its_reference(start, camera):
    data = Path(os.environ['ISAAC_INFER_TEST_DATA'])
    folder = data / 'models' / 'deeplab_v3_mnv2_257_voc'
    start('segmentation_node', *parameters(model_file_path=folder / 'model.onnx')).wait_for(
        'waiting for pictures'
    )
    picture = cv2.imread(str(data / 'images' / 'dog.jpg'))
    labels = cv2.imread(str(folder / 'refs' / 'dog.labels.png'), cv2.IMREAD_UNCHANGED)
    _, pictures = ask_for(camera, ('mask',), picture)
    expected = cv2.resize(labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    assert (pixels(pictures['mask']) == expected).mean() > 0.99
