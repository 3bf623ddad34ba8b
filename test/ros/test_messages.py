"""Results become messages that speak of the picture they belong to."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time

from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections, Poses, no_detections
from isaac_infer.core.spec import ImageSpec, ModelSpec
from isaac_infer.ros.messages import (
    detections_from_msg,
    entries_of_detections,
    entries_of_keypoints,
    entries_to_msg,
    label_info_msg,
)

SPEC = ModelSpec('detection', 'ultralytics', ImageSpec('images', (64, 64)), ('output0',), ('mug', 'ball'), 3)
FRAME = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns=1_500_000_007, frame_id='camera')
FOUND = Detections(
    np.array([[1, 2, 5, 10], [0, 0, 64, 48]], np.float32),
    np.array([0.75, 0.5], np.float32),
    np.array([1, 2], np.int32),
)


def message_of(found, frame=FRAME, **options):
    return entries_to_msg(entries_of_detections(found, SPEC, **options), frame)


def test_a_picture_without_objects_gives_an_empty_array_with_its_header():
    message = message_of(no_detections())
    assert list(message.detections) == []
    stamp = message.header.stamp
    assert (stamp.sec, stamp.nanosec, message.header.frame_id) == (1, 500_000_007, 'camera')


def test_a_stamp_before_1970_is_kept():
    frame = Frame(FRAME.image, stamp_ns=-1)
    stamp = message_of(no_detections(), frame).header.stamp
    assert (stamp.sec, stamp.nanosec) == (-1, 999_999_999)


def test_boxes_are_centre_and_size_in_source_pixels():
    message = message_of(FOUND)
    box = message.detections[0].bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (3, 6, 4, 8)
    assert box.center.theta == 0
    assert message.detections[0].header == message.header
    assert message.detections[0].id == ''


def test_rotated_boxes_have_their_own_size_and_angle():
    rotated = np.array([[30, 20, 10, 4, 0.5]], np.float32)
    message = message_of(Detections(FOUND.xyxy[:1], FOUND.score[:1], FOUND.class_id[:1], rotated))
    box = message.detections[0].bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (30, 20, 10, 4)
    assert box.center.theta == 0.5


@pytest.mark.parametrize(('class_ids', 'expected'), [('name', ['ball', '2']), ('index', ['1', '2'])])
def test_classes_are_names_or_numbers(class_ids, expected):
    message = message_of(FOUND, class_ids=class_ids)
    assert [entry.results[0].hypothesis.class_id for entry in message.detections] == expected
    assert [entry.results[0].hypothesis.score for entry in message.detections] == [0.75, 0.5]


def test_label_info_names_every_class():
    message = label_info_msg(SPEC, stamp=Time(sec=3), threshold=0.25)
    assert [(entry.class_id, entry.class_name) for entry in message.class_map] == [
        (0, 'mug'),
        (1, 'ball'),
        (2, '2'),
    ]
    assert (message.threshold, message.header.stamp.sec) == (0.25, 3)


def test_key_points_that_were_found_are_entries_without_size():
    xy = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    score = np.array([[0.9, 0.2, 0.0], [0.5, 0.0, 0.6]], np.float32)
    poses = Poses(FOUND, xy, score)
    entries = entries_of_keypoints(poses, ('nose', 'hip', 'knee'), threshold=0.3, ids=(4, 7))
    message = entries_to_msg(entries, FRAME)
    found = [
        (entry.results[0].hypothesis.class_id, entry.id, entry.bbox.center.position.x)
        for entry in message.detections
    ]
    assert found == [('nose', '4', 0), ('nose', '7', 6), ('knee', '7', 10)]
    assert all(entry.bbox.size_x == entry.bbox.size_y == 0 for entry in message.detections)
    everything = entries_of_keypoints(poses, ('nose', 'hip', 'knee'), threshold=0.0, ids=(4, 7))
    assert len(everything.texts) == 4  # what scores 0 was never found


def test_a_message_read_back_is_what_was_written():
    found, names = detections_from_msg(message_of(FOUND), ['mug', 'ball'])
    np.testing.assert_array_equal(found.xyxy, FOUND.xyxy)
    np.testing.assert_array_equal(found.score, FOUND.score)
    assert (found.class_id.tolist(), names) == ([1, 2], ['ball', '2'])


@pytest.mark.parametrize('text', ['4294967296', '9' * 5000, '\u00b2', '-3', ''])
def test_what_is_no_number_of_a_class_is_class_minus_one(text):
    message = message_of(FOUND)
    message.detections[0].results[0].hypothesis.class_id = text
    found, texts = detections_from_msg(message, ['mug', 'ball'])
    assert (found.class_id.tolist(), texts[0]) == ([-1, 2], text)


def test_boxes_too_large_for_their_type_are_read_as_infinite():
    message = message_of(FOUND)
    message.detections[0].bbox.size_x = 1e300
    message.detections[1].bbox.center.theta = float('inf')
    found, _ = detections_from_msg(message, [])
    assert not np.isfinite(found.xyxy[0]).all() and found.rotated[1, 4] == np.inf
