"""Image messages become frames, whatever their encoding, and whatever is wrong with them."""

import random
import struct
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import Frame
from isaac_infer.ros.images import (
    ENCODINGS,
    frame_from_compressed,
    frame_from_compressed_cdr,
    frame_from_image,
    frame_from_image_cdr,
    image_to_cdr,
    view_from_cdr,
)

BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def message(encoding, rows, *, width, height, step=None, is_bigendian=0):
    """A message whose data are these bytes."""
    data = bytes(rows)
    image = Image(height=height, width=width, encoding=encoding, is_bigendian=is_bigendian)
    image.step = len(data) // height if step is None else step
    image.data.frombytes(data)
    image.header.stamp.sec, image.header.stamp.nanosec = 12, 34
    image.header.frame_id = 'camera'
    return image


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
    frame = frame_from_image(message(encoding, data, width=2, height=1))
    assert bgr_of(frame).tolist() == [[list(BLUE), list(RED)]]
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_034, 'camera')


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    frame = frame_from_image(message(encoding, [0, 100, 255], width=3, height=1))
    assert frame.image.tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


@pytest.mark.parametrize('is_bigendian', [0, 1])
def test_16_bit_grey_is_scaled_from_its_full_range(is_bigendian):
    data = struct.pack('>3H' if is_bigendian else '<3H', 0, 0x8000, 0xFFFF)
    frame = frame_from_image(message('mono16', data, width=3, height=1, is_bigendian=is_bigendian))
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
    frame = frame_from_image(message(encoding, data, width=2, height=1))
    assert frame.image.tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize(('encoding', 'chroma'), [('nv12', (90, 240)), ('nv21', (240, 90))])
def test_planar_yuv_takes_its_colour_from_the_second_plane(encoding, chroma):
    luma = np.full((4, 6), 81, np.uint8)
    data = np.concatenate((luma, np.tile(chroma, (2, 3)).astype(np.uint8)))
    image = message(encoding, data.tobytes(), width=6, height=4, step=6)
    blue, green, red = frame_from_image(image).image[2, 3].tolist()
    assert red > 240 and max(blue, green) < 15


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_patterns_give_the_colour_that_was_seen(pattern, bits):
    """A red wall, seen through the pattern: only the cells below a red filter are lit."""
    cells = [pattern[:2], pattern[2:]]
    lit = np.array([[cell == 'r' for cell in row] for row in cells])
    raw = np.tile(lit, (4, 4)) * np.array((1 << bits) - 1)
    data = raw.astype('<u2' if bits == 16 else 'u1').tobytes()
    frame = frame_from_image(message(f'bayer_{pattern}{bits}', data, width=8, height=8))
    assert bgr_of(frame)[4, 4].tolist() == list(RED)


@pytest.mark.parametrize('encoding', sorted(ENCODINGS))
def test_padding_at_the_end_of_rows_is_skipped(encoding):
    width, height = 8, 6
    facts = ENCODINGS[encoding]
    row_bytes = width * facts.channels * np.dtype(facts.dtype).itemsize
    rows = height * 3 // 2 if facts.has_chroma_plane else height
    tight = np.random.default_rng(3).integers(0, 256, (rows, row_bytes), np.uint8)
    padded = np.hstack((tight, np.full((rows, 6), 77, np.uint8)))
    expected = frame_from_image(
        message(encoding, tight.tobytes(), width=width, height=height, step=row_bytes)
    )
    got = frame_from_image(
        message(encoding, padded.tobytes(), width=width, height=height, step=row_bytes + 6)
    )
    np.testing.assert_array_equal(got.image, expected.image)


@pytest.mark.parametrize('encoding', ['bgr8', 'rgb8', '8UC3'])
def test_common_encodings_are_not_copied(encoding):
    cdr = serialize_message(message(encoding, range(12), width=2, height=2))
    frame = frame_from_image_cdr(cdr)
    assert np.shares_memory(frame.image, np.frombuffer(cdr, np.uint8))


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
        frame_from_image(message(encoding, range(12), **{'step': 6, **sizes}))


def test_a_stamp_that_is_no_time_is_refused():
    image = message('bgr8', range(12), width=2, height=2)
    image.header.stamp.nanosec = 1_000_000_000
    with pytest.raises(FrameError, match='nanoseconds'):
        frame_from_image(image)


def test_cv_bridge_converts_what_is_not_known_here(monkeypatch):
    class CvBridge:
        def imgmsg_to_cv2(self, image, desired_encoding):
            assert (image.encoding, desired_encoding) == ('32FC1', 'bgr8')
            values = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
            return cv2.cvtColor(values.astype(np.uint8), cv2.COLOR_GRAY2BGR)

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=CvBridge))
    data = np.array([[1, 2], [3, 4]], np.float32).tobytes()
    frame = frame_from_image(message('32FC1', data, width=2, height=2))
    assert frame.image[..., 0].tolist() == [[1, 2], [3, 4]]


def test_what_cv_bridge_cannot_convert_is_refused(monkeypatch):
    class CvBridge:
        def imgmsg_to_cv2(self, image, desired_encoding):
            raise TypeError('Unrecognized image encoding')

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=CvBridge))
    with pytest.raises(FrameError, match='Unrecognized image encoding'):
        frame_from_image(message('32FC9', range(12), width=2, height=2))


# --- serialised messages ---------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=20)


@settings(max_examples=200)
@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    half_hw=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    padding=st.integers(0, 5),
    frame_id=texts,
    stamp_ns=st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1),
)
def test_reading_bytes_equals_reading_the_message(encoding, half_hw, padding, frame_id, stamp_ns):
    height, width = 2 * half_hw[0], 2 * half_hw[1]
    facts = ENCODINGS[encoding]
    step = width * facts.channels * np.dtype(facts.dtype).itemsize + padding
    rows = height * 3 // 2 if facts.has_chroma_plane else height
    data = np.random.default_rng(height).integers(0, 256, rows * step, np.uint8).tobytes()
    image = message(encoding, data, width=width, height=height, step=step)
    image.header.frame_id = frame_id
    image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    cdr = serialize_message(image)
    assert view_from_cdr(cdr) is not None
    typed, raw = frame_from_image(deserialize_message(cdr, Image)), frame_from_image_cdr(cdr)
    np.testing.assert_array_equal(raw.image, typed.image)
    assert raw.channel_order == typed.channel_order
    assert (raw.stamp_ns, raw.frame_id) == (typed.stamp_ns, typed.frame_id) == (stamp_ns, frame_id)


def test_big_endian_messages_are_read_too():
    head = struct.pack('>iII4sIII', 1, 2, 4, b'cam\0', 1, 2, 5) + b'bgr8\0' + b'\0' + b'\0\0'
    cdr = b'\0\0\0\0' + head + struct.pack('>II', 6, 6) + bytes([255, 0, 0, 0, 0, 255])
    frame = frame_from_image_cdr(cdr)
    assert (frame.stamp_ns, frame.frame_id) == (1_000_000_002, 'cam')
    assert frame.image.tolist() == [[list(BLUE), list(RED)]]


def test_other_representations_are_left_to_rclpy():
    cdr = b'\0\x03' + serialize_message(message('bgr8', range(12), width=2, height=2))[2:]
    assert view_from_cdr(cdr) is None
    assert frame_from_image_cdr(cdr).image.ravel().tolist() == list(range(12))


@settings(max_examples=100)
@given(
    size_hw=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    encoding=st.sampled_from(['bgr8', 'rgb8', 'mono8']),
    frame_id=texts,
    stamp_ns=st.integers(0, 2**31 * 10**9 - 1),
)
def test_rclpy_reads_the_pictures_that_are_written_here(size_hw, encoding, frame_id, stamp_ns):
    shape = size_hw if encoding == 'mono8' else (*size_hw, 3)
    picture = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    cdr = image_to_cdr(picture, stamp_ns=stamp_ns, frame_id=frame_id, encoding=encoding)
    image = deserialize_message(cdr, Image)
    assert bytes(image.data) == picture.tobytes()
    assert (image.height, image.width, image.encoding) == (*size_hw, encoding)
    assert image.step == picture.nbytes // size_hw[0]
    assert image.header.stamp.sec * 10**9 + image.header.stamp.nanosec == stamp_ns
    assert image.header.frame_id == frame_id


def test_ten_thousand_damaged_messages_give_a_frame_or_a_frame_error():
    rng = random.Random(11)
    originals = []
    for encoding, facts in ENCODINGS.items():
        rows = 6 if facts.has_chroma_plane else 4
        step = 4 * facts.channels * np.dtype(facts.dtype).itemsize
        originals.append(
            serialize_message(message(encoding, bytes(rows * step), width=4, height=4, step=step))
        )
    outcomes, longest = {Frame: 0, FrameError: 0}, 0
    for _ in range(10_000):
        cdr = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 4)):
            kind, at = rng.randrange(4), rng.randrange(len(cdr))
            if kind == 0:
                cdr[at] = rng.randrange(256)
            elif kind == 1:  # lengths and sizes
                at = min(at // 4 * 4, len(cdr) - 4)
                cdr[at : at + 4] = struct.pack('<I', rng.choice((0, 1, 255, 1 << 16, 1 << 31, (1 << 32) - 1)))
            elif kind == 2 and len(cdr) > 8:
                del cdr[at:]
            else:
                cdr[at:at] = rng.randbytes(rng.randint(1, 8))
            if not cdr:
                cdr = bytearray(1)
        try:
            frame = frame_from_image_cdr(bytes(cdr))
            assert isinstance(frame, Frame)
            outcomes[Frame] += 1
        except FrameError as error:
            longest = max(longest, len(str(error)))
            outcomes[FrameError] += 1
    assert min(outcomes.values()) > 500, outcomes  # damage of both kinds was tried
    assert longest < 1000  # for the log


def test_ten_thousand_lying_messages_give_a_frame_or_a_frame_error():
    rng = random.Random(12)
    numbers = (0, 1, 2, 3, 4, 5, 12, 255, 1 << 16, 1 << 28, (1 << 31) - 1, (1 << 32) - 1)
    outcomes, longest = {Frame: 0, FrameError: 0}, 0
    for _ in range(10_000):
        encoding = rng.choice((*ENCODINGS, 'BGR8', '32FC1', '', 'x' * 5000))
        height, width = rng.choice((2, 4)), rng.choice((2, 4))
        facts = ENCODINGS.get(encoding, ENCODINGS['bgr8'])
        step = width * facts.channels * np.dtype(facts.dtype).itemsize
        size = step * (height * 3 // 2 if facts.has_chroma_plane else height)
        image = message(encoding, rng.randbytes(size), width=width, height=height, step=step)
        for _ in range(rng.randrange(3)):
            field = rng.choice(('height', 'width', 'step', 'is_bigendian', 'data'))
            if field == 'data':
                image.data = image.data[: rng.randrange(size + 1)]
            else:
                setattr(image, field, rng.choice(numbers[:8] if field == 'is_bigendian' else numbers))
        try:
            frame_from_image(image)
            outcomes[Frame] += 1
        except FrameError as error:
            longest = max(longest, len(str(error)))
            outcomes[FrameError] += 1
    assert min(outcomes.values()) > 500, outcomes
    assert longest < 1000


# --- compressed pictures ---------------------------------------------------------------------------------


def compressed(picture, suffix):
    image = CompressedImage(format=suffix)
    image.data.frombytes(cv2.imencode(f'.{suffix}', picture)[1].tobytes())
    image.header.stamp.sec, image.header.frame_id = 7, 'camera'
    return image


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
@pytest.mark.parametrize('shape', [(40, 60, 3), (40, 60)])
def test_compressed_pictures_are_decoded(suffix, shape):
    picture = np.full(shape, 120, np.uint8)
    picture[:, :30] = 200
    frame = frame_from_compressed_cdr(serialize_message(compressed(picture, suffix)))
    expected = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    assert np.abs(frame.image.astype(int) - expected).max() <= 3
    assert (frame.stamp_ns, frame.frame_id, frame.channel_order) == (7_000_000_000, 'camera', 'bgr')


def test_a_progressive_jpeg_with_a_long_header_is_decoded():
    picture = np.full((16, 16, 3), 90, np.uint8)
    data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    comment = b'\xff\xfe' + struct.pack('>H', 60002) + b'\xff\xc0' * 30000
    image = CompressedImage(format='jpeg')
    image.data.frombytes(data[:2] + comment + data[2:])
    assert frame_from_compressed(image).size_hw == (16, 16)


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
    image = CompressedImage(format='jpeg')
    image.data.frombytes(data)
    with pytest.raises(FrameError, match=says):
        frame_from_compressed(image)


def test_a_picture_that_was_cut_short_is_refused():
    whole = compressed(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8), 'jpg')
    whole.data = whole.data[: len(whole.data) // 2]
    with pytest.raises(FrameError, match='cut off'):
        frame_from_compressed(whole)


@pytest.mark.filterwarnings('ignore')
def test_a_thousand_damaged_compressed_messages_give_a_frame_or_a_frame_error(capfd):
    rng = random.Random(13)
    picture = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    originals = [serialize_message(compressed(picture, suffix)) for suffix in ('png', 'jpg')]
    outcomes = {Frame: 0, FrameError: 0}
    for _ in range(1000):
        cdr = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 3)):
            cdr[rng.randrange(len(cdr))] = rng.randrange(256)
        if rng.random() < 0.2:
            del cdr[rng.randrange(len(cdr)) :]
        try:
            frame_from_compressed_cdr(bytes(cdr))
            outcomes[Frame] += 1
        except FrameError:
            outcomes[FrameError] += 1
    capfd.readouterr()  # what the decoders print
    assert min(outcomes.values()) > 50, outcomes
