"""Image messages become frames, whatever their encoding, and whatever is wrong with them."""

import random
import struct
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from isaac_infer.core.encodings import ENCODINGS, compressed_view_from_cdr, view_from_cdr
from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import Frame
from isaac_infer.ros import images
from isaac_infer.ros.images import (
    frame_from_compressed,
    frame_from_compressed_cdr,
    frame_from_image,
    frame_from_image_cdr,
    image_to_cdr,
)


def message(encoding, rows, *, width, height, step=None, is_bigendian=0):
    """A message whose data are these bytes."""
    data = bytes(rows)
    image = Image(height=height, width=width, encoding=encoding, is_bigendian=is_bigendian)
    image.step = len(data) // height if step is None else step
    image.data.frombytes(data)
    image.header.stamp.sec, image.header.stamp.nanosec = 12, 34
    image.header.frame_id = 'camera'
    return image


@pytest.mark.parametrize('encoding', ['bgr8', 'rgb8', '8UC3'])
def test_common_encodings_are_not_copied(encoding):
    cdr = serialize_message(message(encoding, range(12), width=2, height=2))
    frame = frame_from_image_cdr(cdr)
    assert np.shares_memory(frame.image, np.frombuffer(cdr, np.uint8))


def test_a_stamp_that_is_no_time_is_refused():
    image = message('bgr8', range(12), width=2, height=2)
    image.header.stamp.nanosec = 1_000_000_000
    with pytest.raises(FrameError, match='nanoseconds'):
        frame_from_image(image)


@pytest.fixture
def cv_bridge(monkeypatch, tmp_path):
    """Put a cv_bridge in place whose conversion is this text; the child processes find it too."""

    def write(conversion):
        (tmp_path / 'cv_bridge.py').write_text(
            'import os, signal\n'
            'import numpy as np\n'
            'class CvBridge:\n'
            '    def encoding_to_dtype_with_channels(self, encoding):\n'
            "        return 'float32', 1\n"
            '    def imgmsg_to_cv2(self, image, desired_encoding):\n'
            f'        {conversion}\n'
        )

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    monkeypatch.setattr(images, '_tried', {})
    yield write
    sys.modules.pop('cv_bridge', None)


VALUES = np.array([[1, 2], [3, 4]], np.float32).tobytes()


def test_cv_bridge_converts_what_is_not_known_here(cv_bridge):
    cv_bridge(
        'values = np.frombuffer(image.data, np.float32).reshape(image.height, image.width); '
        'return np.repeat(values[..., None].astype(np.uint8), 3, axis=2)'
    )
    frame = frame_from_image(message('32FC1', VALUES, width=2, height=2))
    assert frame.image[..., 0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(FrameError, match='expected 16 bytes for 2 x 2 32FC1 with a step of 8'):
        frame_from_image(message('32FC1', bytes(24), width=2, height=2))


def test_what_cv_bridge_cannot_convert_is_refused(cv_bridge):
    cv_bridge("raise TypeError('Unrecognized image encoding')")
    with pytest.raises(FrameError, match='Unrecognized image encoding'):
        frame_from_image(message('32FC9', VALUES, width=2, height=2))


def test_a_cv_bridge_that_crashes_ends_a_child_and_not_the_node(cv_bridge):
    cv_bridge('os.kill(os.getpid(), signal.SIGSEGV)')
    for _ in range(2):
        with pytest.raises(FrameError, match='ended by SIGSEGV; is it built for the NumPy'):
            frame_from_image(message('16UC1', VALUES, width=2, height=2))


def test_a_cv_bridge_that_lies_in_the_working_directory_is_not_run(monkeypatch, tmp_path):
    (tmp_path / 'cv_bridge.py').write_text('open("was_here", "w")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(images, '_tried', {})
    with pytest.raises(FrameError, match='cv_bridge cannot convert either'):
        frame_from_image(message('32FC1', VALUES, width=2, height=2))
    assert not (tmp_path / 'was_here').exists()


def test_without_cv_bridge_the_known_encodings_are_named(monkeypatch):
    monkeypatch.setattr(images, '_tried', {})
    with pytest.raises(FrameError, match="bayer_grbg16, got '32FC1', which cv_bridge cannot convert either"):
        frame_from_image(message('32FC1', VALUES, width=2, height=2))


def test_absurd_names_of_encodings_are_refused_and_only_some_are_tried(monkeypatch):
    tried = {}
    monkeypatch.setattr(images, '_tried', tried)
    monkeypatch.setattr(images, '_cv_bridge_problem', lambda encoding: 'no')
    for encoding in ('8UC' + '1' * 100_000, *(f'8UC{number}' for number in range(5, 50))):
        with pytest.raises(FrameError) as raised:
            frame_from_image(message(encoding, VALUES, width=2, height=2))
        assert len(str(raised.value)) < 600
    assert len(tried) == images.MOST_TRIED


# --- serialised messages ---------------------------------------------------------------------------------

texts = st.text(max_size=20).map(lambda text: text.replace('\0', ''))  # which ends strings of C


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
    assert frame.image.tolist() == [[[255, 0, 0], [0, 0, 255]]]


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
    cdr = bytes(image_to_cdr(picture, stamp_ns=stamp_ns, frame_id=frame_id, encoding=encoding))
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


@settings(max_examples=50)
@given(data=st.binary(max_size=20), frame_id=texts, suffix=texts, stamp_ns=st.integers(0, 2**31 * 10**9 - 1))
def test_reading_the_bytes_of_a_compressed_message_equals_reading_the_message(
    data, frame_id, suffix, stamp_ns
):
    image = CompressedImage(format=suffix)
    image.data.frombytes(data)
    image.header.frame_id = frame_id
    image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    view = compressed_view_from_cdr(serialize_message(image))
    assert (view.stamp_ns, view.frame_id, view.format, bytes(view.data)) == (stamp_ns, frame_id, suffix, data)


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
