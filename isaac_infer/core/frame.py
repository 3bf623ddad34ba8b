"""Frame: one picture with the time and the coordinate frame it was taken in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isaac_infer.core.errors import FrameError

MAX_PIXELS = 1 << 28  # 16384 x 16384: more is a lying header, not a camera
CHANNEL_ORDERS = ('bgr', 'rgb')


@dataclass(frozen=True)
class Frame:
    """A picture on its way through the pipeline: the only carrier of time and coordinate frame."""

    image: np.ndarray  # (H, W, 3) uint8; rows may be padded, pixels of a row are contiguous
    channel_order: str = 'bgr'  # one of CHANNEL_ORDERS
    stamp_ns: int = 0  # when the picture was taken, nanoseconds
    frame_id: str = ''  # tf frame of the camera

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray):  # cv2.imread gives None where it cannot read a file
            raise FrameError(f'picture: expected an array of pixels, got {type(image).__name__}')
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise FrameError(
                f'picture: expected uint8[height, width, 3] with at least one pixel, '
                f'got {image.dtype}{list(image.shape)}'
            )
        if image.shape[0] * image.shape[1] > MAX_PIXELS:
            raise FrameError(
                f'picture: {image.shape[1]} x {image.shape[0]} pixels are more than the limit of '
                f'{MAX_PIXELS}; scale it down before it is sent here'
            )
        if self.channel_order not in CHANNEL_ORDERS:
            raise FrameError(f'picture: channel order is one of {CHANNEL_ORDERS}, got {self.channel_order!r}')

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def bgr(self) -> np.ndarray:
        """Copy the picture, in OpenCV's channel order."""
        order = slice(None, None, 1 if self.channel_order == 'bgr' else -1)
        return np.array(self.image[..., order], order='C')
