"""Prepare: what arrives in the network's input buffer."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.fit import RESIZE_MODES
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.spec import ImageSpec

BLUE, GREEN, RED = 10, 100, 200


def solid(height=6, width=8):
    """A picture of one colour whose three channels differ, in BGR."""
    return Frame(np.full((height, width, 3), (BLUE, GREEN, RED), np.uint8))


def prepared(frame, spec):
    buffer = np.full(spec.shape, 77, spec.dtype)  # so that what is not written shows
    fit = Preparer(spec)(frame, into=buffer)
    return buffer, fit


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
@pytest.mark.parametrize(
    ('channel_order', 'expected'),
    [('rgb', (RED, GREEN, BLUE)), ('bgr', (BLUE, GREEN, RED))],
)
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'uint8', 'int32', 'float64', 'int64'])
def test_channels_arrive_in_the_networks_order_and_dtype(layout, channel_order, expected, dtype):
    spec = ImageSpec(
        'images', (6, 8), layout=layout, dtype=np.dtype(dtype), channel_order=channel_order, scale=1.0
    )
    buffer, _ = prepared(solid(), spec)
    pixels = buffer[0] if layout == 'nhwc' else buffer[0].transpose(1, 2, 0)
    assert buffer.dtype == dtype
    assert (pixels == expected).all()


def test_an_rgb_frame_and_a_bgr_frame_of_the_same_scene_look_the_same_to_the_network():
    spec = ImageSpec('images', (6, 8))
    frame = solid()
    swapped = Frame(np.ascontiguousarray(frame.image[..., ::-1]), 'rgb')
    np.testing.assert_array_equal(prepared(frame, spec)[0], prepared(swapped, spec)[0])


def test_scale_mean_and_std_apply_per_channel_in_the_networks_order():
    spec = ImageSpec('images', (6, 8), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    buffer, _ = prepared(solid(), spec)
    assert buffer[0, 0, 0, 0] == pytest.approx((RED / 255 - 0.485) / 0.229, abs=1e-6)
    assert buffer[0, 2, 0, 0] == pytest.approx((BLUE / 255 - 0.406) / 0.225, abs=1e-6)


def test_the_border_holds_the_normalised_pad_value_and_the_picture_lies_where_the_fit_says():
    spec = ImageSpec('images', (20, 20), pad_value=114)
    buffer, fit = prepared(solid(10, 20), spec)
    left, top, right, bottom = fit.network_box
    assert (top, bottom) == (5, 15)
    assert buffer[0, 0, top:bottom, left:right] == pytest.approx(RED / 255)
    buffer[0, :, top:bottom, left:right] = 114 / 255
    assert buffer == pytest.approx(114 / 255)


def test_the_border_is_right_again_when_the_picture_size_changes():
    spec = ImageSpec('images', (20, 20), scale=1.0)
    preparer, buffer = Preparer(spec), np.zeros(spec.shape, np.float32)
    for height, width in ((10, 20), (20, 10), (10, 20)):
        fit = preparer(solid(height, width), into=buffer)
        left, top, right, bottom = fit.network_box
        outside = np.ones((20, 20), bool)
        outside[top:bottom, left:right] = False
        assert (buffer[0][:, outside] == 114).all()
        assert (buffer[0, 1][~outside] == GREEN).all()


def test_a_gray_network_gets_the_luminance():
    spec = ImageSpec('images', (6, 8), channel_order='gray', scale=1.0)
    buffer, _ = prepared(solid(), spec)
    assert buffer.shape == (1, 1, 6, 8)
    assert buffer == pytest.approx(0.114 * BLUE + 0.587 * GREEN + 0.299 * RED, abs=0.51)


def test_a_frame_with_padded_rows_is_read_without_its_padding():
    spec = ImageSpec('images', (6, 8), scale=1.0)
    wide = np.zeros((6, 11, 3), np.uint8)
    wide[:, :8] = (BLUE, GREEN, RED)
    buffer, _ = prepared(Frame(wide[:, :8]), spec)
    assert (buffer[0, 0] == RED).all()


def test_int8_networks_get_clipped_values_instead_of_wrapped_ones():
    spec = ImageSpec('images', (2, 2), dtype=np.dtype(np.int8), scale=1.0)
    buffer, _ = prepared(Frame(np.full((2, 2, 3), 200, np.uint8)), spec)
    assert (buffer == 127).all()


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from(RESIZE_MODES),
    st.sampled_from(['nchw', 'nhwc']),
    st.booleans(),
)
def test_any_picture_size_fills_any_network_size(source_hw, network_hw, resize, layout, scale_up):
    spec = ImageSpec(
        'images', network_hw, layout=layout, resize=resize, scale_up=scale_up, scale=1.0, pad_value=3
    )
    buffer, fit = prepared(solid(*source_hw), spec)
    pixels = buffer[0] if layout == 'nhwc' else buffer[0].transpose(1, 2, 0)
    left, top, right, bottom = fit.network_box
    inside = np.zeros(network_hw, bool)
    inside[top:bottom, left:right] = True
    assert (pixels[inside] == (RED, GREEN, BLUE)).all()
    assert (pixels[~inside] == 3).all()


def test_an_object_lands_where_the_fit_says_it_does():
    image = np.zeros((300, 500, 3), np.uint8)
    cv2.rectangle(image, (100, 60), (199, 119), (255, 255, 255), -1)
    spec = ImageSpec('images', (128, 128), scale=1.0, pad_value=0)
    buffer, fit = prepared(Frame(image), spec)
    rows, columns = np.nonzero(buffer[0, 0] > 127)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    expected = fit.to_network(np.array([100.0, 60.0, 200.0, 120.0]))
    assert np.abs(found - expected).max() <= 1.0


def test_a_frame_of_the_same_size_reuses_every_buffer():
    spec = ImageSpec('images', (32, 32))
    preparer, buffer = Preparer(spec), np.zeros(spec.shape, np.float32)
    frame = solid(48, 64)
    first = preparer(frame, into=buffer)
    scratch = preparer._resized, preparer._planes
    assert preparer(frame, into=buffer) is first
    assert preparer._resized is scratch[0] and preparer._planes is scratch[1]
