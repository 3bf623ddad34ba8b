"""Encodings: ROS picture messages as frames, by the bytes that were sent or recorded, without ROS."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np

from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import MAX_PIXELS, Frame

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
class CompressedView:
    """A sensor_msgs/CompressedImage that was not copied."""

    stamp_ns: int
    frame_id: str
    format: str
    data: memoryview


@dataclass(frozen=True)
class _Encoding:
    """How pixels lie in a message, and the OpenCV conversion to three channels of 8 bit."""

    channels: int  # values per pixel in memory
    conversion: int | None  # None: pixels are used where they lie
    order: str = 'bgr'  # of the result
    dtype: type[np.uint8] | type[np.uint16] | type[np.float32] = np.uint8
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
    'bgr16': _Encoding(3, None, dtype=np.uint16),
    'rgb16': _Encoding(3, None, 'rgb', dtype=np.uint16),
    'bgra16': _Encoding(4, cv2.COLOR_BGRA2BGR, dtype=np.uint16),
    'rgba16': _Encoding(4, cv2.COLOR_BGRA2BGR, 'rgb', dtype=np.uint16),
    'yuv422': _Encoding(2, cv2.COLOR_YUV2BGR_UYVY, multiple=2),
    'uyvy': _Encoding(2, cv2.COLOR_YUV2BGR_UYVY, multiple=2),
    'yuv422_yuy2': _Encoding(2, cv2.COLOR_YUV2BGR_YUY2, multiple=2),
    'yuyv': _Encoding(2, cv2.COLOR_YUV2BGR_YUY2, multiple=2),
    'nv12': _Encoding(1, cv2.COLOR_YUV2BGR_NV12, multiple=2, has_chroma_plane=True),
    'nv21': _Encoding(1, cv2.COLOR_YUV2BGR_NV21, multiple=2, has_chroma_plane=True),
    **{f'bayer_{name}8': _Encoding(1, code) for name, code in _BAYER.items()},
    **{f'bayer_{name}16': _Encoding(1, code, dtype=np.uint16) for name, code in _BAYER.items()},
}


def frame_from_view(view: ImageView) -> Frame:
    """Give the picture of a message as a frame.

    bgr8, rgb8 and 8UC3 are views of the message's data; the others are converted. 16-bit pictures are scaled
    from the full range 0..65535 to 0..255.

    Raises:
        FrameError: sizes contradict one another or the data, or the encoding is none of ENCODINGS.
    """
    encoding = ENCODINGS.get(view.encoding)
    if encoding is None:
        known = ', '.join(ENCODINGS)
        raise FrameError(f'image: expected one of the encodings {known}, got {view.encoding[:40]!r}')
    pixels = _pixels(view, encoding)
    if encoding.dtype is np.uint16:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=255 / 65535)
    if encoding.conversion is not None:
        try:
            pixels = cv2.cvtColor(pixels, encoding.conversion)
        except cv2.error as error:
            raise FrameError(f'image: {size_text(view)} cannot be converted: {error.err}') from error
    return Frame(pixels, encoding.order, view.stamp_ns, view.frame_id)


_DEPTHS = {  # and metres per unit
    '16UC1': (_Encoding(1, None, dtype=np.uint16), 1e-3),
    'mono16': (_Encoding(1, None, dtype=np.uint16), 1e-3),
    '32FC1': (_Encoding(1, None, dtype=np.float32), 1.0),
}


def depth_from_view(view: ImageView) -> np.ndarray:
    """Give a depth image: (H, W) float32 metres, NaN where nothing was measured.

    16UC1 and mono16 are millimetres, 32FC1 metres (REP 118).

    Raises:
        FrameError: sizes contradict one another or the data, or the encoding is another one.
    """
    if view.encoding not in _DEPTHS:
        known = ', '.join(_DEPTHS)
        raise FrameError(f'depth: expected one of the encodings {known}, got {view.encoding[:40]!r}')
    encoding, metres = _DEPTHS[view.encoding]
    depth = _pixels(view, encoding)[..., 0].astype(np.float32) * np.float32(metres)
    return np.asarray(np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan)))


def _pixels(view: ImageView, encoding: _Encoding) -> np.ndarray:
    """View the data as (rows, width, channels)."""
    _check_sizes(view, encoding)
    rows = view.height * 3 // 2 if encoding.has_chroma_plane else view.height
    dtype: np.dtype = np.dtype(encoding.dtype).newbyteorder('>' if view.is_bigendian else '<')
    pixels: np.ndarray = np.ndarray(
        (rows, view.width, encoding.channels),
        dtype,
        view.data,
        strides=(view.step, encoding.channels * dtype.itemsize, dtype.itemsize),
    )
    return pixels


def frame_from_compressed_view(view: CompressedView) -> Frame:
    """Decode a JPEG or PNG message into a frame.

    Raises:
        FrameError: it is neither, it is cut off, nothing in it can be decoded, or it would be absurdly
            large. Damage inside a JPEG makes wrong pixels and no error: OpenCV does not tell.
    """
    data = bytes(view.data)
    width, height = _compressed_size(data, view.format)
    if not 0 < width * height <= MAX_PIXELS:
        raise FrameError(f'image: expected 1 to {MAX_PIXELS} pixels, got {width} x {height}')
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise FrameError(f'image: cannot be decompressed: {error.err}') from error
    if pixels is None:
        raise FrameError(f'image: {len(data)} bytes of {view.format[:40]!r} cannot be decompressed')
    return Frame(pixels, 'bgr', view.stamp_ns, view.frame_id)


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
        stamp_ns, frame_id, at = _header(body, order)
        height, width, length = struct.unpack_from(f'{order}III', body, at)
        encoding, at = _text(body, at + 12, length)
        (is_bigendian,) = struct.unpack_from('B', body, at)
        at = aligned(at + 1)
        step, length = struct.unpack_from(f'{order}II', body, at)
    except struct.error as error:
        raise FrameError(f'image: the message ends early, after {len(cdr)} bytes') from error
    data = _part(body, at + 8, length)
    return ImageView(stamp_ns, frame_id, height, width, encoding, is_bigendian, step, data)


def compressed_view_from_cdr(cdr: bytes) -> CompressedView | None:
    """Read a serialised sensor_msgs/CompressedImage without copying it; None where it is not plain CDR.

    Raises:
        FrameError: a length in it points beyond its end.
    """
    order = _BYTE_ORDERS.get(bytes(cdr[:2]))
    if order is None:
        return None
    body = memoryview(cdr)[4:]
    try:
        stamp_ns, frame_id, at = _header(body, order)
        (length,) = struct.unpack_from(f'{order}I', body, at)
        format, at = _text(body, at + 4, length)
        at = aligned(at)
        (length,) = struct.unpack_from(f'{order}I', body, at)
    except struct.error as error:
        raise FrameError(f'image: the message ends early, after {len(cdr)} bytes') from error
    return CompressedView(stamp_ns, frame_id, format, _part(body, at + 4, length))


def stamp_ns_from_cdr(cdr: bytes) -> int:
    """Read the stamp of a serialised message that begins with a header, and nothing else of it.

    Raises:
        FrameError: it is not plain CDR, or has no such header.
    """
    order = _BYTE_ORDERS.get(bytes(cdr[:2]))
    if order is None:
        raise FrameError(f'image: expected a message in plain CDR, got one that begins with {cdr[:4].hex()}')
    try:
        return _header(memoryview(cdr)[4:], order)[0]
    except struct.error as error:
        raise FrameError(f'image: the message ends early, after {len(cdr)} bytes') from error


def _header(body: memoryview, order: str) -> tuple[int, str, int]:
    """Read a std_msgs/Header: stamp in nanoseconds, frame, and where the next field begins."""
    sec, nanosec, length = struct.unpack_from(f'{order}iII', body)
    frame_id, at = _text(body, 12, length)
    return checked_stamp_ns(sec, nanosec), frame_id, aligned(at)


def aligned(at: int) -> int:
    """Give the next place in a message where a number of 32 bits may stand."""
    return at + 3 & ~3


def _part(body: memoryview, at: int, length: int) -> memoryview:
    if at + length > len(body):
        raise FrameError(f'image: expected {length} bytes in the message at {at}, got {len(body) - at}')
    return body[at : at + length]


def _text(body: memoryview, at: int, length: int) -> tuple[str, int]:
    """Read a string, which ends at its first NUL, and where it ends in the message."""
    text = bytes(_part(body, at, length)).split(b'\0', 1)[0]
    return text.decode('utf-8', 'replace'), at + length


# --- checks ------------------------------------------------------------------------------------------------


def checked_stamp_ns(sec: int, nanosec: int) -> int:
    """Give a stamp in nanoseconds; raises FrameError where it is none."""
    if nanosec >= SECOND_NS:
        raise FrameError(f'image: expected a stamp with less than {SECOND_NS} nanoseconds, got {nanosec}')
    return sec * SECOND_NS + nanosec


def size_text(view: ImageView) -> str:
    """Say width, height and encoding in an error."""
    return f'{view.width} x {view.height} {view.encoding[:40]}'


def _check_sizes(view: ImageView, encoding: _Encoding) -> None:
    if not 0 < view.width * view.height <= MAX_PIXELS:
        raise FrameError(f'image: expected 1 to {MAX_PIXELS} pixels, got {size_text(view)}')
    odd_rows = encoding.has_chroma_plane and view.height % encoding.multiple
    if view.width % encoding.multiple or odd_rows:
        raise FrameError(f'image: expected even sides for {view.encoding}, got {size_text(view)}')
    row_bytes = view.width * encoding.channels * np.dtype(encoding.dtype).itemsize
    if view.step < row_bytes:
        raise FrameError(
            f'image: expected a step of at least {row_bytes} bytes for {size_text(view)}, got {view.step}'
        )
    rows = view.height * 3 // 2 if encoding.has_chroma_plane else view.height
    if len(view.data) != view.step * rows:
        raise FrameError(
            f'image: expected {view.step * rows} bytes for {size_text(view)} with a step of {view.step}, '
            f'got {len(view.data)}'
        )


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
