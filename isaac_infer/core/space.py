"""Space: where key points are in the camera's frame, in metres: by a depth image, or on a plane of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH = 2  # pixels around a key point whose depths count
FOCAL = (0.01, 10_000)  # of cameras, in sides of the picture, which may be a small part of what they see


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point in pixels of a picture of some size."""

    fx: float
    fy: float
    cx: float
    cy: float
    size_hw: tuple[int, int]

    @property
    def is_calibrated(self) -> bool:
        """Whether these are numbers of a camera; drivers without a calibration publish zeros."""
        (low, high), (height, width) = FOCAL, self.size_hw
        sides = ((self.fx, self.cx, width), (self.fy, self.cy, height))
        # Written so that NaN fails too.
        return all(
            low * side <= f <= high * side and abs(c) <= high * side and side > 0 for f, c, side in sides
        )

    def for_size(self, size_hw: tuple[int, int]) -> Intrinsics:
        """The same camera, for its picture in another size."""
        by_y, by_x = size_hw[0] / self.size_hw[0], size_hw[1] / self.size_hw[1]
        # Pixel centres are at integers here: the edge of a picture, which stays where it is, is at -0.5.
        cx, cy = (self.cx + 0.5) * by_x - 0.5, (self.cy + 0.5) * by_y - 0.5
        return Intrinsics(self.fx * by_x, self.fy * by_y, cx, cy, size_hw)


def on_plane(xy: np.ndarray, size_hw: tuple[int, int], pixel_m: float) -> np.ndarray:
    """Points on a plane of pixels around the camera: (..., 3) float64 metres, x right, y down, z 0.

    Args:
        xy: (..., 2), source pixels.
        size_hw: of the picture, whose middle is the origin.
        pixel_m: width of a pixel, in metres.
    """
    middle = np.array(size_hw[::-1]) / 2
    return np.concatenate(((xy - middle) * pixel_m, np.zeros((*xy.shape[:-1], 1))), axis=-1)


def in_space(xy: np.ndarray, depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Points where a depth image has them: (..., 3) float64 metres, x right, y down, z forward.

    The depth of a point is the median of those measured around it; NaN where there is none.

    Args:
        xy: (..., 2), pixels of the picture that the depth image is aligned with, of the same size.
        depth: (H, W) float32 metres, NaN where nothing was measured.
        camera: of that picture.
    """
    height, width = depth.shape
    flat = xy.reshape(-1, 2)
    points = np.full((len(flat), 3), np.nan)
    for row, (x, y) in enumerate(np.floor(flat).astype(np.int64).tolist()):
        if not (0 <= x < width and 0 <= y < height):
            continue
        around = depth[max(y - REACH, 0) : y + REACH + 1, max(x - REACH, 0) : x + REACH + 1]
        known = around[np.isfinite(around)]
        if len(known):
            points[row, 2] = np.median(known)
    # Pixel centres are at half-integers here, at integers in a camera's calibration.
    points[:, 0] = (flat[:, 0] - 0.5 - camera.cx) * points[:, 2] / camera.fx
    points[:, 1] = (flat[:, 1] - 0.5 - camera.cy) * points[:, 2] / camera.fy
    return points.reshape(*xy.shape[:-1], 3)
