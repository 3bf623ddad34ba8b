"""Images: ROS picture messages as frames, as views of the message's own bytes where their encoding allows."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import MAX_PIXELS, Frame

if TYPE_CHECKING:
    from std_msgs.msg import Header

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class ImageView:
    """A sensor_msgs/Image that was not copied: what the message says, and its data where they lie."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int  # bytes from one row to the next
    data: memoryview


@dataclass(frozen=True)
class _Encoding:
    """How pixels lie in a message, and the OpenCV conversion to three channels of 8 bit."""

    channels: int  # values per pixel in memory
    conversion: int | None  # None: pixels are used where they lie
    order: str = 'bgr'  # of the result
    dtype: type[np.uint8] | type[np.uint16] = np.uint8
    multiple: int = 1  # width (and height, where chroma has planes) must be a multiple of this
    has_chroma_plane: bool = False  # half as many rows follow the picture


# ROS names a bayer pattern by its first two rows, OpenCV by the second row's second and third pixel.
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2BGR,
    'bggr': cv2.COLOR_BayerRG2BGR,
    'gbrg': cv2.COLOR_BayerGR2BGR,
    'grbg': cv2.COLOR_BayerGB2BGR,
}
ENCODINGS = {
    'bgr8': _Encoding(3, None),
    'rgb8': _Encoding(3, None, 'rgb'),
    '8UC3': _Encoding(3, None),
    'bgra8': _Encoding(4, cv2.COLOR_BGRA2BGR),
    'rgba8': _Encoding(4, cv2.COLOR_BGRA2BGR, 'rgb'),
    'mono8': _Encoding(1, cv2.COLOR_GRAY2BGR),
    '8UC1': _Encoding(1, cv2.COLOR_GRAY2BGR),
    'mono16': _Encoding(1, cv2.COLOR_GRAY2BGR, dtype=np.uint16),
    'yuv422': _Encoding(2, cv2.COLOR_YUV2BGR_UYVY, multiple=2),
    'uyvy': _Encoding(2, cv2.COLOR_YUV2BGR_UYVY, multiple=2),
    'yuv422_yuy2': _Encoding(2, cv2.COLOR_YUV2BGR_YUY2, multiple=2),
    'yuyv': _Encoding(2, cv2.COLOR_YUV2BGR_YUY2, multiple=2),
    'nv12': _Encoding(1, cv2.COLOR_YUV2BGR_NV12, multiple=2, has_chroma_plane=True),
    'nv21': _Encoding(1, cv2.COLOR_YUV2BGR_NV21, multiple=2, has_chroma_plane=True),
    **{f'bayer_{name}8': _Encoding(1, code) for name, code in _BAYER.items()},
    **{f'bayer_{name}16': _Encoding(1, code, dtype=np.uint16) for name, code in _BAYER.items()},
}


def frame_from_image(image: Image | ImageView) -> Frame:
    """Give the picture of a message as a frame.

    bgr8, rgb8 and 8UC3 are views of the message's data; the others are converted. 16-bit pictures are scaled
    from the full range 0..65535 to 0..255. Encodings that are not in ENCODINGS are left to cv_bridge, where
    it is installed.

    Raises:
        FrameError: sizes contradict one another or the data, or the encoding is unknown.
    """
    view = image if isinstance(image, ImageView) else _view_of(image)
    encoding = ENCODINGS.get(view.encoding)
    if encoding is None:
        return _frame_by_cv_bridge(view)
    _check_sizes(view, encoding)
    rows = view.height * 3 // 2 if encoding.has_chroma_plane else view.height
    order = '>' if view.is_bigendian else '<'
    dtype = np.dtype(encoding.dtype).newbyteorder(order)
    pixels = np.ndarray(
        (rows, view.width, encoding.channels),
        dtype,
        view.data,
        strides=(view.step, encoding.channels * dtype.itemsize, dtype.itemsize),
    )
    if encoding.dtype is np.uint16:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=255 / 65535)
    if encoding.conversion is not None:
        try:
            pixels = cv2.cvtColor(pixels, encoding.conversion)
        except cv2.error as error:
            raise FrameError(f'image: {_size(view)} cannot be converted: {error.err}') from error
    return Frame(pixels, encoding.order, view.stamp_ns, view.frame_id)


def frame_from_image_cdr(cdr: bytes) -> Frame:
    """Give a serialised sensor_msgs/Image, as a raw subscription receives it, as a frame.

    Raises:
        FrameError: it is no such message, or see `frame_from_image`.
    """
    return frame_from_image(view_from_cdr(cdr) or _deserialised(cdr, Image))


def frame_from_compressed_cdr(cdr: bytes) -> Frame:
    """Give a serialised sensor_msgs/CompressedImage as a frame; raises FrameError."""
    return frame_from_compressed(_deserialised(cdr, CompressedImage))


def frame_from_compressed(image: CompressedImage) -> Frame:
    """Decode a JPEG or PNG message into a frame.

    Raises:
        FrameError: it is neither, it is cut off, nothing in it can be decoded, or it would be absurdly
            large. Damage inside a JPEG makes wrong pixels and no error: OpenCV does not tell.
    """
    data = bytes(image.data)
    width, height = _compressed_size(data, image.format)
    if not 0 < width * height <= MAX_PIXELS:
        raise FrameError(f'image: expected 1 to {MAX_PIXELS} pixels, got {width} x {height}')
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise FrameError(f'image: cannot be decompressed: {error.err}') from error
    if pixels is None:
        raise FrameError(f'image: {len(data)} bytes of {image.format[:40]!r} cannot be decompressed')
    return Frame(pixels, 'bgr', stamp_ns_of(image.header), image.header.frame_id)


# --- messages without deserialising them -------------------------------------------------------------------

_BYTE_ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}  # of plain CDR, by representation identifier


def view_from_cdr(cdr: bytes) -> ImageView | None:
    """Read a serialised sensor_msgs/Image without copying it; None where it is not plain CDR.

    Raises:
        FrameError: a length in it points beyond its end.
    """
    order = _BYTE_ORDERS.get(bytes(cdr[:2]))
    if order is None:
        return None
    body = memoryview(cdr)[4:]
    try:
        sec, nanosec, length = struct.unpack_from(f'{order}iII', body)
        frame_id, at = _text(body, 12, length)
        at = _aligned(at)
        height, width, length = struct.unpack_from(f'{order}III', body, at)
        encoding, at = _text(body, at + 12, length)
        (is_bigendian,) = struct.unpack_from('B', body, at)
        at = _aligned(at + 1)
        step, length = struct.unpack_from(f'{order}II', body, at)
    except struct.error as error:
        raise FrameError(f'image: the message ends early, after {len(cdr)} bytes') from error
    data = _part(body, at + 8, length)
    stamp_ns = _checked_stamp_ns(sec, nanosec)
    return ImageView(stamp_ns, frame_id, height, width, encoding, is_bigendian, step, data)


def image_to_cdr(image: np.ndarray, *, stamp_ns: int, frame_id: str, encoding: str = 'bgr8') -> bytes:
    """Give a picture (H, W, 3) or (H, W) uint8 as a serialised sensor_msgs/Image, which publishers take too.

    rclpy would copy the picture twice more, and need as long as for all the rest of the way.
    """
    height, width = image.shape[:2]
    sec, nanosec = divmod(stamp_ns, SECOND_NS)
    texts = frame_id.encode() + b'\0', encoding.encode() + b'\0'
    head = struct.pack('<iII', sec, nanosec, len(texts[0])) + texts[0]
    head = _padded(head) + struct.pack('<III', height, width, len(texts[1])) + texts[1]
    head = _padded(head + b'\0') + struct.pack('<II', image.nbytes // height, image.nbytes)
    return b''.join((b'\0\1\0\0', head, np.ascontiguousarray(image).data))


def _padded(part: bytes) -> bytes:
    return part.ljust(_aligned(len(part)), b'\0')


def _aligned(at: int) -> int:
    return at + 3 & ~3


def _part(body: memoryview, at: int, length: int) -> memoryview:
    if at + length > len(body):
        raise FrameError(f'image: expected {length} bytes in the message at {at}, got {len(body) - at}')
    return body[at : at + length]


def _text(body: memoryview, at: int, length: int) -> tuple[str, int]:
    """Read a string, which ends at its first NUL, and where it ends in the message."""
    text = bytes(_part(body, at, length)).split(b'\0', 1)[0]
    return text.decode('utf-8', 'replace'), at + length


def _deserialised(cdr: bytes, kind: Any) -> Any:
    try:
        return deserialize_message(bytes(cdr), kind)
    except Exception as error:  # whatever rclpy and the middleware make of damaged bytes
        raise FrameError(f'image: {len(cdr)} bytes are not a {kind.__name__} message: {error}') from error


# --- checks ------------------------------------------------------------------------------------------------


def _view_of(image: Image) -> ImageView:
    return ImageView(
        stamp_ns_of(image.header), image.header.frame_id, image.height, image.width, image.encoding,
        image.is_bigendian, image.step, memoryview(image.data).cast('B'),
    )  # fmt: skip


def stamp_ns_of(header: Header) -> int:
    return _checked_stamp_ns(header.stamp.sec, header.stamp.nanosec)


def _checked_stamp_ns(sec: int, nanosec: int) -> int:
    if nanosec >= SECOND_NS:
        raise FrameError(f'image: expected a stamp with less than {SECOND_NS} nanoseconds, got {nanosec}')
    return sec * SECOND_NS + nanosec


def _size(view: ImageView) -> str:
    return f'{view.width} x {view.height} {view.encoding[:40]}'


def _check_sizes(view: ImageView, encoding: _Encoding) -> None:
    if not 0 < view.width * view.height <= MAX_PIXELS:
        raise FrameError(f'image: expected 1 to {MAX_PIXELS} pixels, got {_size(view)}')
    odd_rows = encoding.has_chroma_plane and view.height % encoding.multiple
    if view.width % encoding.multiple or odd_rows:
        raise FrameError(f'image: expected even sides for {view.encoding}, got {_size(view)}')
    row_bytes = view.width * encoding.channels * np.dtype(encoding.dtype).itemsize
    if view.step < row_bytes:
        raise FrameError(
            f'image: expected a step of at least {row_bytes} bytes for {_size(view)}, got {view.step}'
        )
    rows = view.height * 3 // 2 if encoding.has_chroma_plane else view.height
    if len(view.data) != view.step * rows:
        raise FrameError(
            f'image: expected {view.step * rows} bytes for {_size(view)} with a step of {view.step}, '
            f'got {len(view.data)}'
        )


def _frame_by_cv_bridge(view: ImageView) -> Frame:
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # it is built against one NumPy and fails in many ways with another
        known = ', '.join(ENCODINGS)
        raise FrameError(
            f'image: expected one of the encodings {known}, got {view.encoding[:40]!r}; '
            f'cv_bridge knows more, but is not usable here ({error})'
        ) from error
    if not 0 < view.width * view.height <= MAX_PIXELS or len(view.data) != view.step * view.height:
        raise FrameError(
            f'image: {_size(view)} with a step of {view.step} contradicts {len(view.data)} bytes of data'
        )
    try:
        pixels = CvBridge().imgmsg_to_cv2(view, 'bgr8')
    except Exception as error:  # CvBridgeError, TypeError, cv2.error, ... as the encoding may have it
        raise FrameError(f'image: cv_bridge cannot convert {_size(view)}: {error}') from error
    return Frame(pixels, 'bgr', view.stamp_ns, view.frame_id)


# --- compressed pictures: how large would they be? ---------------------------------------------------------

_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8'
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of segments that tell the size
_JPEG_BARE = frozenset(range(0xD0, 0xDA)) | {0x01}  # markers without a segment


def _compressed_size(data: bytes, format: str) -> tuple[int, int]:
    """Read width and height from the header, before anything is unpacked."""
    try:
        if data.startswith(_PNG):
            width, height = struct.unpack_from('>II', data, 16)
            return width, height
        if data.startswith(_JPEG):
            if data.rfind(b'\xff\xd9') < 0:
                raise FrameError(f'image: the JPEG of {len(data)} bytes is cut off')
            return _jpeg_size(data)
    except struct.error as error:
        raise FrameError(f'image: the header of {format[:40]!r} is cut off') from error
    raise FrameError(
        f'image: expected JPEG or PNG data, got {len(data)} bytes of {format[:40]!r} '
        f'that begin with {data[:8].hex(" ") or "nothing"}'
    )


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while (at := data.find(b'\xff', at)) >= 0:
        (marker,) = struct.unpack_from('B', data, at + 1)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from('>HH', data, at + 5)
            return width, height
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + struct.unpack_from('>H', data, at + 2)[0]
    raise FrameError(f'image: the JPEG of {len(data)} bytes has no header with its size')
