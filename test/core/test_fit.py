"""Fit: pictures into network inputs and results back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.fit import RESIZE_MODES, fit_picture

lengths = st.integers(1, 5000)
sizes = st.tuples(lengths, lengths)
network_sizes = st.tuples(st.integers(1, 1300), st.integers(1, 1300))
modes = st.sampled_from(RESIZE_MODES)


@pytest.mark.parametrize(
    ('source_hw', 'network_hw', 'network_box'),
    [
        ((1, 1), (640, 640), (0, 0, 640, 640)),
        ((480, 640), (640, 640), (0, 80, 640, 560)),
        ((1080, 1920), (640, 640), (0, 140, 640, 500)),
        ((1080, 810), (320, 320), (40, 0, 280, 320)),
        # An odd remainder: Ultralytics puts the extra row below the picture.
        ((425, 640), (320, 320), (0, 54, 320, 266)),
        ((667, 1000), (320, 320), (0, 53, 320, 266)),
        ((1, 10000), (640, 640), (0, 319, 640, 320)),
    ],
)
def test_letterbox_centres_with_the_rounding_of_ultralytics(source_hw, network_hw, network_box):
    assert fit_picture(source_hw, network_hw, resize='letterbox').network_box == network_box


def test_letterbox_top_left_truncates_as_yolox_does():
    assert fit_picture((667, 1000), (416, 416), resize='letterbox_top_left').network_box == (0, 0, 416, 277)


def test_letterbox_leaves_a_small_picture_its_size_where_scaling_up_is_off():
    assert fit_picture((100, 50), (640, 640), resize='letterbox', scale_up=False).network_box == (
        295,
        270,
        345,
        370,
    )


def test_center_crop_shows_the_middle_of_the_picture():
    fit = fit_picture((480, 640), (224, 224), resize='center_crop')
    assert fit.source_box == (80, 0, 560, 480)
    assert fit.network_box == (0, 0, 224, 224)


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ParameterError, match="one of letterbox, .*, got 'squash'"):
        fit_picture((1, 1), (1, 1), resize='squash')


@given(sizes, network_sizes, modes, st.booleans())
def test_both_boxes_lie_inside_and_are_not_empty(source_hw, network_hw, resize, scale_up):
    fit = fit_picture(source_hw, network_hw, resize=resize, scale_up=scale_up)
    for (left, top, right, bottom), (height, width) in (
        (fit.source_box, source_hw),
        (fit.network_box, network_hw),
    ):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@given(sizes, network_sizes, modes, st.lists(st.floats(-2000, 7000), min_size=4, max_size=4))
def test_there_and_back_again_is_the_identity(source_hw, network_hw, resize, box):
    fit = fit_picture(source_hw, network_hw, resize=resize)
    boxes = np.array([box])
    np.testing.assert_allclose(fit.to_source(fit.to_network(boxes)), boxes, rtol=1e-9, atol=1e-6)


@given(sizes, network_sizes, modes)
def test_the_corners_of_one_box_map_to_the_corners_of_the_other_to_within_a_pixel(
    source_hw, network_hw, resize
):
    fit = fit_picture(source_hw, network_hw, resize=resize)
    corners = fit.to_network(np.array(fit.source_box, float))
    assert np.abs(corners - fit.network_box).max() <= 1 + 1e-9


@given(sizes, network_sizes, st.sampled_from(['letterbox', 'letterbox_top_left']))
def test_letterbox_scales_both_axes_alike(source_hw, network_hw, resize):
    horizontal, vertical = fit_picture(source_hw, network_hw, resize=resize).scale_xy
    assert horizontal == vertical


@given(sizes, network_sizes)
def test_letterbox_keeps_the_aspect_ratio_to_within_a_pixel(source_hw, network_hw):
    fit = fit_picture(source_hw, network_hw, resize='letterbox')
    left, top, right, bottom = fit.network_box
    ratio = min(network_hw[0] / source_hw[0], network_hw[1] / source_hw[1])
    assert abs((right - left) - max(source_hw[1] * ratio, 1)) <= 0.5 + 1e-6
    assert abs((bottom - top) - max(source_hw[0] * ratio, 1)) <= 0.5 + 1e-6


def test_points_of_float32_stay_float32():
    fit = fit_picture((480, 640), (320, 320), resize='letterbox')
    assert fit.to_source(np.zeros((3, 4), np.float32)).dtype == np.float32
