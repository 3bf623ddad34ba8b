"""CDR: results serialised without message objects, which cost more time than all the rest of a frame."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import ImageSpec, ModelSpec
from isaac_infer.ros.images import PLAIN_CDR, SECOND_NS
from isaac_infer.ros.messages import boxes_of, class_texts, detections_to_msg

# The numbers of a Detection2D, in the order of the message: score; pose: position, orientation, covariance;
# bbox: centre x, y, angle, width, height.
_SCORE, _ORIENTATION_W, _BOX = 0, 7, slice(44, 49)
_NUMBERS = 49
_BOX_ORDER = [0, 1, 4, 2, 3]  # of boxes_of's columns
_EMPTY_ID = struct.pack('<I', 1) + b'\0'


def detections_to_cdr(found: Detections, frame: Frame, spec: ModelSpec, *, class_ids: str = 'name') -> bytes:
    """Give what `serialize_message(detections_to_msg(...))` gives, as publishers take it too."""
    header = _header(frame)
    numbers = np.zeros((len(found), _NUMBERS), '<f8')
    numbers[:, _SCORE] = found.score
    numbers[:, _ORIENTATION_W] = 1.0  # a quaternion's default
    numbers[:, _BOX] = boxes_of(found)[:, _BOX_ORDER]
    texts = class_texts(found, spec, class_ids)
    heads = {class_id: header + struct.pack('<I', 1) + _text(text) for class_id, text in texts.items()}
    body = bytearray(header + struct.pack('<I', len(found)))
    for class_id, row in zip(found.class_id.tolist(), numbers, strict=True):
        body += bytes(-len(body) % 4)
        # The header's own padding is right wherever it stands, because it starts at a multiple of 4.
        body += heads[class_id]
        body += bytes(-len(body) % 8)
        body += row.tobytes()
        body += _EMPTY_ID
    return PLAIN_CDR + bytes(body)


def write_detections(
    found: Detections, frame: Frame, spec: ModelSpec, *, class_ids: str = 'name'
) -> Detection2DArray | bytes:
    """Give detections as publishers take them, in the fastest way that the installed vision_msgs allows."""
    write = detections_to_cdr if writer() == 'cdr' else detections_to_msg
    return write(found, frame, spec, class_ids=class_ids)


@cache
def writer() -> str:
    """Who writes detections: `cdr` or, where the installed vision_msgs has other fields, slower `rclpy`."""
    return 'cdr' if fits_message() else 'rclpy'


def fits_message() -> bool:
    """Tell whether the Detection2DArray installed here has the fields that `detections_to_cdr` writes."""
    frame = Frame(np.zeros((1, 1, 3), np.uint8), stamp_ns=SECOND_NS + 2, frame_id='frame')
    spec = ModelSpec('detection', '', ImageSpec('', (1, 1)), (), ('a', 'class'), 2)
    boxes = np.array([(1, 2, 4, 8), (3, 5, 11, 17)], np.float32)
    found = Detections(boxes, np.array([0.75, 0.5], np.float32), np.array([1, 0], np.int32))
    try:
        written = deserialize_message(detections_to_cdr(found, frame, spec), Detection2DArray)
    except Exception:  # whatever rclpy makes of bytes that are no such message
        return False
    return bool(written == detections_to_msg(found, frame, spec))


def _header(frame: Frame) -> bytes:
    """A header, padded to a multiple of 4."""
    sec, nanosec = divmod(frame.stamp_ns, SECOND_NS)
    header = struct.pack('<iI', sec, nanosec) + _text(frame.frame_id)
    return header + bytes(-len(header) % 4)


def _text(text: str) -> bytes:
    data = text.encode() + b'\0'
    return struct.pack('<I', len(data)) + data
