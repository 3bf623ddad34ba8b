"""Images: ROS picture messages as frames, as views of the message's own bytes where their encoding allows."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from isaac_infer.core.child import python_command, python_environment
from isaac_infer.core.encodings import (
    ENCODINGS,
    SECOND_NS,
    CompressedView,
    ImageView,
    aligned,
    checked_stamp_ns,
    compressed_view_from_cdr,
    frame_from_compressed_view,
    frame_from_view,
    size_text,
    view_from_cdr,
)
from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import MAX_PIXELS, Frame
from isaac_infer.core.text import printable, signal_name

if TYPE_CHECKING:
    from rclpy.publisher import Publisher
    from std_msgs.msg import Header


def frame_from_image(image: Image | ImageView) -> Frame:
    """Give the picture of a message as a frame.

    As `frame_from_view`; but encodings that it does not know are left to cv_bridge, where it is installed.

    Raises:
        FrameError: sizes contradict one another or the data, or the encoding is unknown.
    """
    view = image if isinstance(image, ImageView) else _view_of(image)
    return frame_from_view(view) if view.encoding in ENCODINGS else _frame_by_cv_bridge(view)


def frame_from_image_cdr(cdr: bytes) -> Frame:
    """Give a serialised sensor_msgs/Image, as a raw subscription receives it, as a frame.

    Raises:
        FrameError: it is no such message, or see `frame_from_image`.
    """
    return frame_from_image(view_from_cdr(cdr) or _deserialised(cdr, Image))


def frame_from_compressed_cdr(cdr: bytes) -> Frame:
    """Give a serialised sensor_msgs/CompressedImage as a frame; raises FrameError."""
    view = compressed_view_from_cdr(cdr)
    return frame_from_compressed_view(view or _compressed_view_of(_deserialised(cdr, CompressedImage)))


def frame_from_compressed(image: CompressedImage) -> Frame:
    """Decode a JPEG or PNG message into a frame; see `frame_from_compressed_view`."""
    return frame_from_compressed_view(_compressed_view_of(image))


PLAIN_CDR = b'\x00\x01\x00\x00'  # encapsulation: little-endian, version 1


# --- serialised messages ---------------------------------------------------------------------------------


def image_to_cdr(image: np.ndarray, *, stamp_ns: int = 0, frame_id: str, encoding: str = 'bgr8') -> bytearray:
    """Give a picture as a serialised sensor_msgs/Image: (H, W, 3) uint8, or (H, W) uint8 or uint16.

    It is for `publish_cdr`. rclpy would copy the picture twice more, and need as long as for all the rest.
    """
    height, width = image.shape[:2]
    sec, nanosec = divmod(stamp_ns, SECOND_NS)
    texts = frame_id.encode() + b'\0', encoding.encode() + b'\0'
    head = struct.pack('<iII', sec, nanosec, len(texts[0])) + texts[0]
    head = _padded(head) + struct.pack('<III', height, width, len(texts[1])) + texts[1]
    head = _padded(head + b'\0') + struct.pack('<II', image.nbytes // height, image.nbytes)
    return bytearray().join((PLAIN_CDR, head, np.ascontiguousarray(image).data))


def picture_of(image: np.ndarray, frame: Frame) -> bytearray:
    """Give a picture that was made of a frame as a serialised message with the header of that frame.

    Args:
        image: (H, W, 3) uint8 BGR, or (H, W) uint8 or uint16.
        frame: what it was made of.
    """
    encoding = 'bgr8' if image.ndim == 3 else 'mono8' if image.dtype == np.uint8 else 'mono16'
    return image_to_cdr(image, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, encoding=encoding)


def stamp_cdr(cdr: bytearray, stamp_ns: int) -> None:
    """Give a serialised message that begins with a header another stamp."""
    struct.pack_into('<iI', cdr, len(PLAIN_CDR), *divmod(stamp_ns, SECOND_NS))


def publish_cdr(publisher: Publisher, cdr: bytearray) -> None:
    """Publish a serialised message; rclpy's own function would have it copied into bytes first."""
    try:
        with publisher.handle:
            publisher.handle.publish_raw(cdr)
    except TypeError:  # Humble takes nothing else than bytes
        publisher.publish(bytes(cdr))


def _padded(part: bytes) -> bytes:
    return part.ljust(aligned(len(part)), b'\0')


def _deserialised(cdr: bytes, kind: Any) -> Any:
    if len(cdr) < 4:  # no header: rmw_cyclonedds would end the process
        raise FrameError(f'image: {len(cdr)} bytes are not a {kind.__name__} message')
    try:
        return deserialize_message(bytes(cdr), kind)
    except Exception as error:  # whatever rclpy and the middleware make of damaged bytes
        raise FrameError(f'image: {len(cdr)} bytes are not a {kind.__name__} message: {error}') from error


# --- checks ----------------------------------------------------------------------------------------------


def _view_of(image: Image) -> ImageView:
    return ImageView(
        stamp_ns_of(image.header), image.header.frame_id, image.height, image.width, image.encoding,
        image.is_bigendian, image.step, memoryview(image.data).cast('B'),
    )  # fmt: skip


def _compressed_view_of(image: CompressedImage) -> CompressedView:
    data = memoryview(image.data).cast('B')
    return CompressedView(stamp_ns_of(image.header), image.header.frame_id, image.format, data)


def stamp_ns_of(header: Header) -> int:
    return checked_stamp_ns(header.stamp.sec, header.stamp.nanosec)


# --- encodings that only cv_bridge knows -----------------------------------------------------------------

MOST_TRIED = 16  # encodings; whoever sends more of them sends nonsense
LONGEST_ENCODING = 40  # characters; on very long ones cv_bridge's regular expressions overflow the stack
TRIAL_TIMEOUT_S = 20.0
_tried: dict[str, str] = {}  # encoding -> why cv_bridge cannot convert it; empty where it can
_TRIAL = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
bridge, encoding = CvBridge(), sys.argv[1]
dtype, channels = bridge.encoding_to_dtype_with_channels(encoding)
step = 2 * channels * __import__('numpy').dtype(dtype).itemsize
bridge.imgmsg_to_cv2(Image(height=2, width=2, encoding=encoding, step=step, data=bytes(2 * step)), 'bgr8')
"""


def _frame_by_cv_bridge(view: ImageView) -> Frame:
    known = f'image: expected one of the encodings {", ".join(ENCODINGS)}, got {view.encoding[:40]!r}'
    if len(view.encoding) > LONGEST_ENCODING or '\0' in view.encoding:
        raise FrameError(known)
    if view.encoding not in _tried:
        if len(_tried) >= MOST_TRIED:
            raise FrameError(f'{known}; {MOST_TRIED} others were tried with cv_bridge, no more will be')
        _tried[view.encoding] = _cv_bridge_problem(view.encoding)
    if _tried[view.encoding]:
        raise FrameError(f'{known}, which cv_bridge cannot convert either: {_tried[view.encoding]}')
    from cv_bridge import CvBridge

    bridge = CvBridge()
    try:
        dtype, channels = bridge.encoding_to_dtype_with_channels(view.encoding)
    except Exception as error:  # as below
        raise FrameError(f'image: cv_bridge cannot convert {size_text(view)}: {error}') from error
    step = view.width * channels * np.dtype(dtype).itemsize
    # It would read rows with padding, or sizes that lie, as other pictures without a word.
    if not 0 < view.width * view.height <= MAX_PIXELS or (view.step, len(view.data)) != (
        step,
        step * view.height,
    ):
        raise FrameError(
            f'image: expected {step * view.height} bytes for {size_text(view)} with a step of {step}, '
            f'got {len(view.data)} with a step of {view.step}'
        )
    try:
        pixels = bridge.imgmsg_to_cv2(view, 'bgr8')
    except Exception as error:  # CvBridgeError, TypeError, cv2.error, ... as the encoding may have it
        raise FrameError(f'image: cv_bridge cannot convert {size_text(view)}: {error}') from error
    return Frame(pixels, 'bgr', view.stamp_ns, view.frame_id)


def _cv_bridge_problem(encoding: str) -> str:
    """Have cv_bridge convert a picture in a child: built for another NumPy, it would end this process."""
    try:
        child = subprocess.run(
            python_command(_TRIAL, encoding),
            env=python_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=TRIAL_TIMEOUT_S,
        )
    except (subprocess.TimeoutExpired, OSError) as error:  # the next picture may find a less busy machine
        raise FrameError(f'image: {encoding}: cv_bridge was not tried: {error}') from error
    if child.returncode < 0:
        return (
            f'it was ended by {signal_name(-child.returncode)}; is it built for the NumPy that is installed?'
        )
    last = child.stderr.strip().splitlines()[-1:] if child.returncode else []
    return printable(last[0][:200]) if last else '' if not child.returncode else 'it gives no reason'
