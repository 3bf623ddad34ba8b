"""WorldView: what a camera on the robot sees of its world; every object is drawn once and pasted after."""

from __future__ import annotations

from math import cos, sin
from typing import NamedTuple

import cv2
import numpy as np

from isaac_infer.core.scenes import draw_object, paste, table_texture, wall_texture
from isaac_infer.core.world import METRES_PER_UNIT, Arena, Obstacle

CAMERA_HEIGHT_M = 0.6
CAMERA_TILT = 0.3  # rad, downwards
FOCAL = 0.8  # of the picture's width: 64 degrees from left to right
NEAR_M = 0.25  # what is nearer to the camera's plane is not painted
WALL_HEIGHT_M = 0.25
CUTOUT_PIXELS = 90  # per unit of the meshes, before an object is made larger or smaller


class _Sprite(NamedTuple):
    """An object as it is pasted, at several sizes, each half as large as the one before."""

    obstacle: Obstacle
    levels: tuple[np.ndarray, ...]  # (h, w, 4) uint8, BGR and alpha
    foot_xy: tuple[float, float]  # of the first level
    pixels_per_metre: float  # of the first level


class WorldView:
    """The pictures of one camera in one arena."""

    def __init__(self, arena: Arena, *, size_hw: tuple[int, int], seed: int = 0) -> None:
        """Draw everything that pictures are made of; the seed decides on light, floor and background."""
        height, width = size_hw
        rng = np.random.default_rng(seed)
        self._size_hw, self._arena = size_hw, arena
        self._focal = FOCAL * width
        self._floor = table_texture(rng)
        self._floor_tone = np.array(cv2.mean(self._floor)[:3])
        self._horizon = round(height / 2 - self._focal * np.tan(CAMERA_TILT))
        band = cv2.resize(wall_texture(rng), (4 * width, max(1, self._horizon + 1)))
        self._band = np.concatenate([band, band[:, ::-1]], axis=1)  # once around
        self._sprites = [self._drawn(obstacle, seed) for obstacle in arena.obstacles]

    def _drawn(self, obstacle: Obstacle, seed: int) -> _Sprite:
        cutout = draw_object(
            obstacle.name, obstacle.seed, pixels_per_unit=CUTOUT_PIXELS, elevation=CAMERA_TILT, look_seed=seed
        )
        levels = [np.dstack([cutout.colour, cutout.alpha])]
        while min(levels[-1].shape[:2]) > 16:
            tall, wide = levels[-1].shape[:2]
            levels.append(cv2.resize(levels[-1], (wide // 2, tall // 2), interpolation=cv2.INTER_AREA))
        return _Sprite(obstacle, tuple(levels), cutout.foot_xy, cutout.pixels_per_unit / METRES_PER_UNIT)

    def draw(self, x: float, y: float, yaw: float) -> np.ndarray:
        """Return the picture (H, W, 3) uint8, BGR, from a robot at a place, looking along its yaw."""
        image = self._background(x, y, yaw)
        self._paint_walls(image, x, y, yaw)
        sprites = [
            (self._seen(sprite.obstacle.x, sprite.obstacle.y, x, y, yaw), sprite) for sprite in self._sprites
        ]
        for (u, v, depth), sprite in sorted(sprites, key=lambda each: -each[0][2]):
            if depth > NEAR_M:
                self._paste(image, sprite, u, v, depth)
        return image

    def _in_camera(self, points: np.ndarray, x: float, y: float, yaw: float) -> np.ndarray:
        """Return world points (..., 3) as the camera has them: right, down, forward."""
        dx, dy, z = points[..., 0] - x, points[..., 1] - y, points[..., 2] - CAMERA_HEIGHT_M
        ahead, right = dx * cos(yaw) + dy * sin(yaw), dx * sin(yaw) - dy * cos(yaw)
        down = -z * cos(CAMERA_TILT) - ahead * sin(CAMERA_TILT)
        forward = ahead * cos(CAMERA_TILT) - z * sin(CAMERA_TILT)
        return np.stack([right, down, forward], -1)

    def _seen(self, px: float, py: float, x: float, y: float, yaw: float) -> tuple[float, float, float]:
        """Return pixel and depth of a point on the floor."""
        right, down, depth = self._in_camera(np.array([px, py, 0.0]), x, y, yaw).tolist()
        scale = self._focal / max(depth, 1e-6)
        return self._size_hw[1] / 2 + right * scale, self._size_hw[0] / 2 + down * scale, depth

    def _background(self, x: float, y: float, yaw: float) -> np.ndarray:
        height, width = self._size_hw
        image = np.empty((height, width, 3), np.uint8)
        start = round(-yaw / (2 * np.pi) * self._band.shape[1]) % self._band.shape[1]
        band = self._band[: self._horizon + 1]
        shown = min(width, band.shape[1] - start)
        image[: len(band), :shown] = band[:, start : start + shown]
        image[: len(band), shown:] = band[:, : width - shown]
        # Pixel (u, v, 1) to the floor: its ray is turned into the world and cut with z = 0.
        c, s = cos(CAMERA_TILT), sin(CAMERA_TILT)
        first = len(band)
        to_ray = np.array(
            [
                [1 / self._focal, 0, -width / 2 / self._focal],
                [0, 1 / self._focal, (first - height / 2) / self._focal],
                [0, 0, 1],
            ]
        )
        # The ray falls by `s + c * down` for every `c - s * down` that it goes ahead.
        fall = np.array([0, c, s]) @ to_ray
        ahead = np.array([0, -s, c]) @ to_ray * CAMERA_HEIGHT_M
        right = np.array([1, 0, 0]) @ to_ray * CAMERA_HEIGHT_M
        to_floor = np.stack(
            [
                cos(yaw) * ahead + sin(yaw) * right + x * fall,
                sin(yaw) * ahead - cos(yaw) * right + y * fall,
                fall,
            ]
        )
        rows, columns = self._floor.shape[:2]  # over the whole arena
        to_pixels = np.array(
            [
                [columns / self._arena.length_m, 0, columns / 2],
                [0, rows / self._arena.width_m, rows / 2],
                [0, 0, 1],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpPerspective(
            self._floor,
            to_pixels @ to_floor,
            (width, height - first),
            image[first:],
            flags,
            cv2.BORDER_CONSTANT,
            self._floor_tone.tolist(),
        )
        return image

    def _paint_walls(self, image: np.ndarray, x: float, y: float, yaw: float) -> None:
        """Paint the walls, which lie behind all that stands in the arena."""
        for number, side in enumerate(self._arena.sides[-4:]):
            ends = side.reshape(2, 2)
            low, high = np.column_stack([ends, [0, 0]]), np.column_stack([ends, [WALL_HEIGHT_M] * 2])
            corners = self._in_camera(np.concatenate([low, high[::-1]]), x, y, yaw)
            corners = _clipped(corners)
            if len(corners) < 3:
                continue
            pixels = corners[:, :2] / corners[:, 2:] * self._focal + np.array(self._size_hw[::-1]) / 2
            shade = self._floor_tone * (0.55 + 0.1 * (number % 2))
            cv2.fillConvexPoly(image, np.round(pixels).astype(np.int32), shade.tolist(), cv2.LINE_AA)

    def _paste(self, image: np.ndarray, sprite: _Sprite, u: float, v: float, depth: float) -> None:
        scale = self._focal / depth / sprite.pixels_per_metre
        level = 0
        while scale < 0.75 and level + 1 < len(sprite.levels):
            scale, level = scale * 2, level + 1
        picture = sprite.levels[level]
        tall, wide = picture.shape[:2]
        to_level = wide / sprite.levels[0].shape[1], tall / sprite.levels[0].shape[0]
        left = u - sprite.foot_xy[0] * to_level[0] * scale
        top = v - sprite.foot_xy[1] * to_level[1] * scale
        x0, y0 = max(0, int(left)), max(0, int(top))
        x1, y1 = (
            min(self._size_hw[1], int(left + wide * scale) + 1),
            min(self._size_hw[0], int(top + tall * scale) + 1),
        )
        if x1 <= x0 or y1 <= y0:
            return
        shown = cv2.warpAffine(
            picture, np.array([[scale, 0, left - x0], [0, scale, top - y0]]), (x1 - x0, y1 - y0)
        )
        paste(image[y0:y1, x0:x1], cv2.cvtColor(shown, cv2.COLOR_BGRA2BGR), shown[..., 3])


def _clipped(corners: np.ndarray) -> np.ndarray:
    """Return what of a polygon (N, 3) in the camera's coordinates lies before it."""
    kept: list[np.ndarray] = []
    for this, after in zip(corners, np.roll(corners, -1, axis=0)):
        if this[2] >= NEAR_M:
            kept.append(this)
        if (this[2] >= NEAR_M) != (after[2] >= NEAR_M):
            kept.append(this + (after - this) * (NEAR_M - this[2]) / (after[2] - this[2]))
    return np.array(kept).reshape(-1, 3)
