"""Depths: depth images and the calibration of their camera, for key points in metres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sensor_msgs.msg import CameraInfo

from isaac_infer.core.encodings import depth_from_view, view_from_cdr
from isaac_infer.core.errors import FrameError
from isaac_infer.core.frame import Frame
from isaac_infer.core.space import Intrinsics, in_space
from isaac_infer.ros.recent import Recent

ASPECT = 0.02  # how far width / height may differ, since sizes are rounded
KEPT = 10  # depth images, as large as pictures


@contextmanager
def _said_of_depth() -> Iterator[None]:
    """Name the topic in an error: it is not that of the pictures."""
    try:
        yield
    except FrameError as error:
        said = str(error).removeprefix('image: ').removeprefix('depth: ')
        raise FrameError(f'depth: {said}') from error


class Depths:
    """The newest depth images, and what the camera says of itself."""

    def __init__(self) -> None:
        self._images: Recent[bytes] = Recent(KEPT)
        self._camera: Intrinsics | None = None
        self._camera_frame = ''  # where it says one
        self._picture_hw = (0.0, 0.0)  # as the camera says, binned

    def take_depth(self, cdr: bytes) -> None:
        """Keep a depth image as it came: most are never looked at."""
        with _said_of_depth():
            view = view_from_cdr(cdr)
            if view is None:
                raise FrameError('expected a serialised sensor_msgs/Image in plain CDR')
            self._images.add(view.stamp_ns, cdr)

    def take_camera_info(self, message: CameraInfo) -> None:
        """Keep what the camera says of the part of its sensor that is in its pictures.

        Raises:
            FrameError: these are not the numbers of a camera.
        """
        k, roi = message.k, message.roi
        # All of it where no region is given; binning leaves over what does not fill a pixel.
        height, width = (
            side // max(binned, 1) * max(binned, 1)
            for side, binned in (
                (roi.height or message.height - roi.y_offset, message.binning_y),
                (roi.width or message.width - roi.x_offset, message.binning_x),
            )
        )
        camera = Intrinsics(k[0], k[4], k[2] - roi.x_offset, k[5] - roi.y_offset, (height, width))
        if not camera.is_calibrated:
            raise FrameError(
                'camera_info: expected focal lengths, principal point and size of a calibrated camera, got '
                f'fx {k[0]:g}, fy {k[4]:g}, cx {k[2]:g}, cy {k[5]:g} for {message.width} x {message.height} '
                'pixels; calibrate it, or set use_depth to false'
            )
        self._camera, self._camera_frame = camera, message.header.frame_id
        self._picture_hw = height / max(message.binning_y, 1), width / max(message.binning_x, 1)

    def positions(self, xy: np.ndarray, frame: Frame, tolerance_ms: float) -> np.ndarray:
        """Give points (..., 2) of a frame in metres (..., 3); NaN where their depth is not known.

        Raises:
            FrameError: there is no depth image of that time, nothing is known of the camera, or they are of
                another one.
        """
        if self._camera is None:
            raise FrameError('markers: no camera_info came yet, without which there are no metres')
        cdr = self._images.nearest(frame.stamp_ns, round(tolerance_ms * 1e6))
        view = None if cdr is None else view_from_cdr(cdr)
        if view is None:
            raise FrameError(
                f'markers: no depth image within {tolerance_ms:g} ms of the picture; raise '
                'depth_tolerance_ms, or set use_depth to false'
            )
        for topic, frame_id in (('depth', view.frame_id), ('camera_info', self._camera_frame)):
            frames = {name.lstrip('/') for name in (frame_id, frame.frame_id)}  # a slash, as long ago
            if len(frames - {''}) > 1:
                raise FrameError(
                    f'markers: expected {topic} in the frame of the pictures, {frame.frame_id!r}, got '
                    f'{frame_id!r}; remap {topic} to that of the depth which is aligned to them'
                )
        with _said_of_depth():
            depth = depth_from_view(view)
        shapes = [depth.shape, frame.size_hw, self._picture_hw]
        aspects = [width / height for height, width in shapes]
        rounding = 1 / min(min(shape) for shape in shapes)  # small ones are rounded by more
        if not np.allclose(aspects, aspects[0], rtol=ASPECT + rounding):
            sizes = [f'{width:g} x {height:g}' for height, width in shapes]
            raise FrameError(
                'markers: expected pictures, depth and camera_info of one shape, got '
                f'{sizes[1]}, {sizes[0]} and {sizes[2]} pixels; they are not of one camera'
            )
        scale = np.array(depth.shape[::-1]) / frame.size_hw[::-1]
        return in_space(xy * scale, depth, self._camera.for_size((depth.shape[0], depth.shape[1])))
