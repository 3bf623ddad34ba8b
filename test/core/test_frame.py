"""Frame: what counts as a picture."""

import numpy as np
import pytest

from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import Frame


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.broadcast_to(np.zeros(3, np.uint8), (1 << 15, 1 << 14, 3)),
    ],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(FrameError, match='picture: '):
        Frame(image)


def test_an_unknown_channel_order_is_refused():
    with pytest.raises(FrameError, match='channel order'):
        Frame(np.zeros((1, 1, 3), np.uint8), 'hsv')


def test_one_pixel_is_a_picture():
    assert Frame(np.zeros((1, 1, 3), np.uint8)).size_hw == (1, 1)
