"""Results serialised by hand are what rclpy makes of the same message."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import ImageSpec, ModelSpec
from isaac_infer.ros import cdr
from isaac_infer.ros.messages import entries_of_detections, entries_to_msg

numbers = st.floats(-1e4, 1e4, width=32)
texts = st.text(max_size=12).map(lambda text: text.replace('\0', ''))  # which ends strings of C


@given(
    st.lists(st.tuples(numbers, numbers, numbers, numbers, st.integers(0, 3)), max_size=5),
    st.booleans(),
    st.booleans(),
    st.lists(texts, min_size=2, max_size=4),
    texts,
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(0, 999_999_999),
)
def test_the_bytes_are_those_of_rclpy(rows, is_rotated, has_ids, names, frame_id, sec, nanosec):
    values = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    class_id = np.array([row[4] for row in rows], np.int32)
    rotated = np.hstack((values, values[:, :1])) if is_rotated else None
    found = Detections(values, values[:, 0].copy(), class_id, rotated)
    frame = Frame(np.zeros((1, 1, 3), np.uint8), stamp_ns=sec * 10**9 + nanosec, frame_id=frame_id)
    spec = ModelSpec('detection', '', ImageSpec('', (1, 1)), (), tuple(names), len(names))
    ids = range(7, 7 + len(rows)) if has_ids else ()
    entries = entries_of_detections(found, spec, ids=ids)
    written, message = cdr.entries_to_cdr(entries, frame), entries_to_msg(entries, frame)
    assert deserialize_message(written, Detection2DArray) == message
    assert len(written) == len(serialize_message(message))


def test_the_installed_message_is_recognised():
    assert cdr.fits_message()


def test_another_message_is_recognised_as_another(monkeypatch):
    monkeypatch.setattr(cdr, '_NUMBERS', 50)  # as if the message had one more field
    assert not cdr.fits_message()
