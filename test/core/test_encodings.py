"""Pictures become frames, whatever their encoding, and whatever is wrong with them; without ROS."""

import struct

import cv2
import numpy as np
import pytest

from isaac_infer.core.encodings import (
    ENCODINGS,
    CompressedView,
    ImageView,
    frame_from_compressed_view,
    frame_from_view,
)
from isaac_infer.core.errors import FrameError

BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def message(encoding, rows, *, width, height, step=None, is_bigendian=0):
    """A message whose data are these bytes."""
    data = bytes(rows)
    step = len(data) // height if step is None else step
    return ImageView(12_000_000_034, 'camera', height, width, encoding, is_bigendian, step, memoryview(data))


def bgr_of(frame):
    return frame.image if frame.channel_order == 'bgr' else frame.image[..., ::-1]


# One row of two pixels, blue and red, in every encoding with colours of 8 bit per value.
TWO_PIXELS = [
    ('bgr8', [255, 0, 0, 0, 0, 255]),
    ('8UC3', [255, 0, 0, 0, 0, 255]),
    ('rgb8', [0, 0, 255, 255, 0, 0]),
    ('bgra8', [255, 0, 0, 7, 0, 0, 255, 7]),
    ('rgba8', [0, 0, 255, 7, 255, 0, 0, 7]),
]


@pytest.mark.parametrize(('encoding', 'data'), TWO_PIXELS)
def test_colours_keep_their_meaning(encoding, data):
    frame = frame_from_view(message(encoding, data, width=2, height=1))
    assert bgr_of(frame).tolist() == [[list(BLUE), list(RED)]]
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_034, 'camera')


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    frame = frame_from_view(message(encoding, [0, 100, 255], width=3, height=1))
    assert frame.image.tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


@pytest.mark.parametrize('is_bigendian', [0, 1])
def test_16_bit_grey_is_scaled_from_its_full_range(is_bigendian):
    data = struct.pack('>3H' if is_bigendian else '<3H', 0, 0x8000, 0xFFFF)
    frame = frame_from_view(message('mono16', data, width=3, height=1, is_bigendian=is_bigendian))
    assert frame.image[0, :, 0].tolist() == [0, 128, 255]


# Limited-range YUV of black (16, 128, 128) and white (235, 128, 128), next to one another.
@pytest.mark.parametrize(
    ('encoding', 'data'),
    [
        ('yuv422', [128, 16, 128, 235]),
        ('uyvy', [128, 16, 128, 235]),
        ('yuv422_yuy2', [16, 128, 235, 128]),
        ('yuyv', [16, 128, 235, 128]),
    ],
)
def test_packed_yuv_keeps_brightness_in_its_place(encoding, data):
    frame = frame_from_view(message(encoding, data, width=2, height=1))
    assert frame.image.tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize(('encoding', 'chroma'), [('nv12', (90, 240)), ('nv21', (240, 90))])
def test_planar_yuv_takes_its_colour_from_the_second_plane(encoding, chroma):
    luma = np.full((4, 6), 81, np.uint8)
    data = np.concatenate((luma, np.tile(chroma, (2, 3)).astype(np.uint8)))
    image = message(encoding, data.tobytes(), width=6, height=4, step=6)
    blue, green, red = frame_from_view(image).image[2, 3].tolist()
    assert red > 240 and max(blue, green) < 15


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_patterns_give_the_colour_that_was_seen(pattern, bits):
    """A red wall, seen through the pattern: only the cells below a red filter are lit."""
    cells = [pattern[:2], pattern[2:]]
    lit = np.array([[cell == 'r' for cell in row] for row in cells])
    raw = np.tile(lit, (4, 4)) * np.array((1 << bits) - 1)
    data = raw.astype('<u2' if bits == 16 else 'u1').tobytes()
    frame = frame_from_view(message(f'bayer_{pattern}{bits}', data, width=8, height=8))
    assert bgr_of(frame)[4, 4].tolist() == list(RED)


@pytest.mark.parametrize('encoding', sorted(ENCODINGS))
def test_padding_at_the_end_of_rows_is_skipped(encoding):
    width, height = 8, 6
    facts = ENCODINGS[encoding]
    row_bytes = width * facts.channels * np.dtype(facts.dtype).itemsize
    rows = height * 3 // 2 if facts.has_chroma_plane else height
    tight = np.random.default_rng(3).integers(0, 256, (rows, row_bytes), np.uint8)
    padded = np.hstack((tight, np.full((rows, 6), 77, np.uint8)))
    expected = frame_from_view(message(encoding, tight.tobytes(), width=width, height=height, step=row_bytes))
    got = frame_from_view(message(encoding, padded.tobytes(), width=width, height=height, step=row_bytes + 6))
    np.testing.assert_array_equal(got.image, expected.image)


BAD_MESSAGES = [
    ('bgr8', {'width': 0, 'height': 2}, 'expected 1 to'),
    ('bgr8', {'width': 1 << 31, 'height': 1 << 31}, 'expected 1 to'),
    ('bgr8', {'width': 2, 'height': 2, 'step': 5}, 'a step of at least 6 bytes'),
    ('bgr8', {'width': 2, 'height': 2, 'step': 7}, 'expected 14 bytes'),
    ('bgr8', {'width': 2, 'height': 3, 'step': 6}, 'expected 18 bytes'),
    ('nv12', {'width': 3, 'height': 4, 'step': 3}, 'even sides'),
    ('nv12', {'width': 4, 'height': 3, 'step': 4}, 'even sides'),
    ('yuyv', {'width': 3, 'height': 2, 'step': 6}, 'even sides'),
    ('', {'width': 2, 'height': 2, 'step': 6}, 'expected one of the encodings'),
    ('depth of the sea', {'width': 2, 'height': 2, 'step': 6}, 'expected one of the encodings'),
]


@pytest.mark.parametrize(('encoding', 'sizes', 'says'), BAD_MESSAGES)
def test_messages_that_contradict_themselves_are_refused(encoding, sizes, says):
    with pytest.raises(FrameError, match=says):
        frame_from_view(message(encoding, range(12), **{'step': 6, **sizes}))


def test_a_progressive_jpeg_with_a_long_header_is_decoded():
    picture = np.full((16, 16, 3), 90, np.uint8)
    data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    comment = b'\xff\xfe' + struct.pack('>H', 60002) + b'\xff\xc0' * 30000
    view = CompressedView(0, '', 'jpeg', memoryview(data[:2] + comment + data[2:]))
    assert frame_from_compressed_view(view).size_hw == (16, 16)


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (b'', 'got 0 bytes'),
        (b'\xff\xd8', 'cut off'),
        (b'\x89PNG\r\n\x1a\n', 'cut off'),
        (b'\xff\xd8\xff\xd9', 'no header'),
        (b'RIFF\0\0\0\0WEBP', 'expected JPEG or PNG'),
        (
            b'\x89PNG\r\n\x1a\n' + b'\0\0\0\rIHDR' + struct.pack('>II', 1 << 16, 1 << 16) + b'\0' * 20,
            '65536 x 65536',
        ),
        (
            b'\xff\xd8\xff\xc0\0\x11\x08' + struct.pack('>HH', 65535, 65535) + b'\0' * 20 + b'\xff\xd9',
            '65535 x 65535',
        ),
        (b'\xff\xd8\xff\xc0\0\x11\x08' + struct.pack('>HH', 0, 8) + b'\0' * 20 + b'\xff\xd9', '8 x 0'),
    ],
)
def test_compressed_data_that_are_wrong_are_refused_before_they_are_unpacked(data, says):
    with pytest.raises(FrameError, match=says):
        frame_from_compressed_view(CompressedView(0, '', 'jpeg', memoryview(data)))
