import math

import numpy as np
import pytest

from isaac_infer.core.space import Intrinsics, in_space

CAMERA = Intrinsics(50.0, 55.0, 31.5, 23.5, (48, 64))


@pytest.mark.parametrize('times', [0.25, 0.5, 1, 2])
def test_a_point_stays_where_it_is_whatever_the_size_of_the_depth_image(times) -> None:
    xy = np.array([[20.25, 6.0], [32.0, 24.0]])
    size_hw = (int(48 * times), int(64 * times))
    points = in_space(xy * times, np.full(size_hw, 2, np.float32), CAMERA.for_size(size_hw))
    expected = [((20.25 - 32) * 2 / 50, (6 - 24) * 2 / 55, 2), (0, 0, 2)]
    assert np.allclose(points, expected)


@pytest.mark.parametrize(
    'numbers',
    [
        (0.0, 0.0, 0.0, 0.0),
        (math.nan, 55.0, 31.5, 23.5),
        (50.0, 55.0, math.nan, 23.5),
        (50.0, 55.0, 31.5, math.inf),
        (math.inf, math.inf, 31.5, 23.5),
        (1e-300, 1e-300, 31.5, 23.5),
        (1e300, 55.0, 31.5, 23.5),
        (-50.0, 55.0, 31.5, 23.5),
        (50.0, 55.0, 1e300, 23.5),
        (0.1, 0.1, 0.5, 0.5),
    ],
)
def test_numbers_that_no_camera_has_are_no_calibration(numbers) -> None:
    assert CAMERA.is_calibrated
    assert not Intrinsics(*numbers, (48, 64)).is_calibrated


def test_a_picture_without_pixels_has_no_calibration() -> None:
    assert not Intrinsics(50.0, 55.0, 31.5, 23.5, (0, 0)).is_calibrated
