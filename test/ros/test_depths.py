import math

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import Frame
from isaac_infer.ros.depths import Depths
from isaac_infer.ros.images import image_to_cdr


def matrix(fx: float, fy: float, cx: float, cy: float) -> list[float]:
    return [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]


OWN = {'width': 64, 'height': 48, 'k': matrix(50.0, 55.0, 31.5, 23.5)}


def sensor(*numbers: float, **more: object) -> dict[str, object]:
    return {'width': 128, 'height': 96, 'k': matrix(*numbers), **more}


@pytest.mark.parametrize(
    'camera',
    [
        OWN,
        sensor(100.0, 110.0, 63.5, 47.5),
        sensor(100.0, 110.0, 63.5, 47.5, binning_x=2, binning_y=2),
        sensor(
            *(50.0, 55.0, 63.5, 33.5), roi=RegionOfInterest(x_offset=32, y_offset=10, width=64, height=48)
        ),
        sensor(*(50.0, 55.0, 95.5, 71.5), roi=RegionOfInterest(x_offset=64, y_offset=48)),
        sensor(*(100.0, 55.0, 63.5, 23.5), height=48, binning_x=2),
        {
            **sensor(100.0, 110.0, 73.5, 53.5, binning_x=2, binning_y=2),
            **{'width': 200, 'height': 150},
            'roi': RegionOfInterest(x_offset=10, y_offset=6, width=129, height=97),
        },
    ],
    ids=[
        'whole',
        'larger',
        'binned',
        'region',
        'region to the corner',
        'binned along x alone',
        'region, binned with a rest',
    ],
)
def test_a_camera_that_gives_a_part_of_its_sensor_sees_the_same_points(camera) -> None:
    depths = Depths()
    depths.take_camera_info(CameraInfo(**camera))
    depth = np.full((48, 64), 2000, np.uint16)
    depths.take_depth(bytes(image_to_cdr(depth, stamp_ns=1, frame_id='camera', encoding='16UC1')))
    frame = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns=1)
    (point,) = depths.positions(np.array([[20.25, 6.0]]), frame, 1.0)
    assert point == pytest.approx(((20.25 - 32) * 2 / 50, (6 - 24) * 2 / 55, 2))


@pytest.mark.parametrize(
    ('picture_hw', 'camera'), [((48, 40), OWN), ((48, 64), sensor(100.0, 110.0, 63.5, 35.5, height=72))]
)
def test_pictures_depth_and_calibration_of_several_cameras_are_told(picture_hw, camera) -> None:
    depths = Depths()
    depths.take_camera_info(CameraInfo(**camera))
    depth = np.full((48, 64), 2000, np.uint16)
    depths.take_depth(bytes(image_to_cdr(depth, stamp_ns=1, frame_id='camera', encoding='16UC1')))
    with pytest.raises(FrameError, match='expected pictures, depth and camera_info of one shape, got'):
        depths.positions(
            np.array([[20.0, 6.0]]), Frame(np.zeros((*picture_hw, 3), np.uint8), stamp_ns=1), 1.0
        )


@pytest.mark.parametrize(
    'camera',
    [
        {**OWN, 'k': [0.0] * 9},
        {**OWN, 'k': matrix(50.0, 55.0, math.nan, math.nan)},
        {**OWN, 'width': 0, 'height': 0},
        {**OWN, 'roi': RegionOfInterest(x_offset=100, y_offset=100)},
    ],
)
def test_what_is_no_calibration_is_told(camera) -> None:
    depths = Depths()
    with pytest.raises(FrameError, match='calibrated camera, got fx'):
        depths.take_camera_info(CameraInfo(**camera))


@pytest.mark.parametrize(
    ('picture', 'depth', 'camera', 'said'),
    [
        ('colour', 'colour', 'colour', None),
        (
            'colour',
            'infrared',
            'colour',
            "expected depth in the frame of the pictures, 'colour', got 'infrared'",
        ),
        ('colour', 'colour', 'infrared', 'expected camera_info in the frame of the pictures'),
        ('', 'infrared', 'colour', None),  # who does not say it is not doubted
        ('colour', '', '', None),
        ('colour', '/colour', 'colour', None),
    ],
)
def test_depth_that_is_not_aligned_with_the_pictures_is_told_by_its_frame(
    picture, depth, camera, said
) -> None:
    depths = Depths()
    depths.take_camera_info(CameraInfo(**OWN, header=Header(frame_id=camera)))
    image = image_to_cdr(np.full((48, 64), 2000, np.uint16), stamp_ns=1, frame_id=depth, encoding='16UC1')
    depths.take_depth(bytes(image))
    frame = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns=1, frame_id=picture)
    if said is None:
        assert depths.positions(np.array([[20.0, 6.0]]), frame, 1.0)[0, 2] == 2
    else:
        with pytest.raises(FrameError, match=said):
            depths.positions(np.array([[20.0, 6.0]]), frame, 1.0)


def test_errors_of_depth_do_not_blame_the_picture() -> None:
    depths = Depths()
    image = bytes(image_to_cdr(np.ones((48, 64), np.uint16), stamp_ns=1, frame_id='', encoding='16UC1'))
    for broken in (image[:30], b'\xff' + image[1:]):
        with pytest.raises(FrameError, match='^depth: '):
            depths.take_depth(broken)
    depths.take_camera_info(CameraInfo(**OWN))
    strange = image_to_cdr(np.zeros((48, 64, 3), np.uint8), stamp_ns=1, frame_id='', encoding='bgr8')
    depths.take_depth(bytes(strange))
    frame = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns=1)
    with pytest.raises(FrameError, match='^depth: expected one of the encodings'):
        depths.positions(np.zeros((1, 2)), frame, 1.0)
