"""CDR: results serialised without message objects, which cost more time than all the rest of a frame."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.frame import Frame
from isaac_infer.ros.images import PLAIN_CDR, SECOND_NS
from isaac_infer.ros.messages import Entries, entries_to_msg

# The numbers of a Detection2D, in the order of the message: score; pose: position, orientation, covariance;
# bbox: centre x, y, angle, width, height.
_SCORE, _ORIENTATION_W, _BOX = 0, 7, slice(44, 49)
_NUMBERS = 49
_BOX_ORDER = [0, 1, 4, 2, 3]  # of the columns of Entries.boxes


def entries_to_cdr(entries: Entries, frame: Frame) -> bytes:
    """Give what `serialize_message(entries_to_msg(...))` gives, as publishers take it too."""
    header = _header(frame)
    numbers = np.zeros((len(entries.texts), _NUMBERS), '<f8')
    numbers[:, _SCORE] = entries.score
    numbers[:, _ORIENTATION_W] = 1.0  # a quaternion's default
    numbers[:, _BOX] = entries.boxes[:, _BOX_ORDER]
    heads = {text: header + struct.pack('<I', 1) + _text(text) for text in set(entries.texts)}
    ends = {number: _text(number) for number in set(entries.ids)}
    body = bytearray(header + struct.pack('<I', len(numbers)))
    for text, row, number in zip(entries.texts, numbers, entries.ids, strict=True):
        body += bytes(-len(body) % 4)
        # The header's own padding is right wherever it stands, because it starts at a multiple of 4.
        body += heads[text]
        body += bytes(-len(body) % 8)
        body += row.tobytes()
        body += ends[number]
    return PLAIN_CDR + bytes(body)


def write_entries(entries: Entries, frame: Frame) -> Detection2DArray | bytes:
    """Give entries as publishers take them, in the fastest way that the installed vision_msgs allows."""
    return entries_to_cdr(entries, frame) if writer() == 'cdr' else entries_to_msg(entries, frame)


@cache
def writer() -> str:
    """Who writes detections: `cdr` or, where the installed vision_msgs has other fields, slower `rclpy`."""
    return 'cdr' if fits_message() else 'rclpy'


def fits_message() -> bool:
    """Tell whether the Detection2DArray installed here has the fields that `entries_to_cdr` writes."""
    frame = Frame(np.zeros((1, 1, 3), np.uint8), stamp_ns=SECOND_NS + 2, frame_id='frame')
    boxes = np.array([(1, 2, 4, 8, 0.5), (3, 5, 11, 17, 0)])
    entries = Entries(np.array([0.75, 0.5]), boxes, ['a', 'class'], ['', '12'])
    try:
        written = deserialize_message(entries_to_cdr(entries, frame), Detection2DArray)
    except Exception:  # whatever rclpy makes of bytes that are no such message
        return False
    return bool(written == entries_to_msg(entries, frame))


def _header(frame: Frame) -> bytes:
    """A header, padded to a multiple of 4."""
    sec, nanosec = divmod(frame.stamp_ns, SECOND_NS)
    header = struct.pack('<iI', sec, nanosec) + _text(frame.frame_id)
    return header + bytes(-len(header) % 4)


def _text(text: str) -> bytes:
    data = text.encode() + b'\0'
    return struct.pack('<I', len(data)) + data
