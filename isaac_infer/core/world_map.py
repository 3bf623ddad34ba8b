"""WorldMap: a drive seen from above: the arena, the way of the robot, and where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from isaac_infer.core.world import Arena

PIXELS_PER_METRE = 80
MARGIN = 24  # pixels, around the walls
# BGR
PAPER, WALL, OBSTACLE, WORDS = (250, 250, 250), (60, 60, 60), (190, 170, 150), (70, 70, 70)
BEGIN, END = np.array([200.0, 120.0, 30.0]), np.array([30.0, 90.0, 220.0])  # of the way, by time
STOP, COLLISION = (40, 40, 40), (0, 0, 220)
_SHIFT = 4  # fractional bits in the coordinates given to OpenCV


def draw_map(
    arena: Arena,
    track: Sequence[tuple[float, float]],
    *,
    radius_m: float,
    stops: Sequence[tuple[float, float]] = (),
    collisions: Sequence[tuple[float, float]] = (),
    caption: str = '',
) -> np.ndarray:
    """Return the map (H, W, 3) uint8, BGR, x to the right and y up.

    Args:
        track: where the robot was, in metres, from a blue dot at the beginning to red at the end.
        radius_m: of the robot, which is drawn where the track ends.
        stops: where it stopped, drawn as rings.
        collisions: where it ran into something, drawn as crosses.
    """
    size = np.array([arena.width_m, arena.length_m]) * PIXELS_PER_METRE
    height, width = (np.ceil(size).astype(int) + 2 * MARGIN).tolist()
    image = np.full((height + MARGIN, width, 3), PAPER, np.uint8)

    def place(points: object) -> np.ndarray:
        """Pixels of points (N, 2), in OpenCV's fixed-point drawing coordinates."""
        metres = np.asarray(points, np.float64).reshape(-1, 2) * (PIXELS_PER_METRE, -PIXELS_PER_METRE)
        pixels: np.ndarray = np.round((metres + (width / 2, height / 2)) * (1 << _SHIFT)).astype(np.int32)
        return pixels

    def circle(x: float, y: float, radius_px: float, colour: tuple[int, ...], thickness: int) -> None:
        centre, radius = place((x, y))[0].tolist(), round(radius_px * (1 << _SHIFT))
        cv2.circle(image, centre, radius, colour, thickness, cv2.LINE_AA, _SHIFT)

    for x, y, radius in arena.discs.tolist():
        circle(x, y, radius * PIXELS_PER_METRE, OBSTACLE, cv2.FILLED)
    sides = arena.sides.reshape(-1, 4, 2, 2)[:, :, 0]  # (boxes and the walls, 4 corners, 2)
    for corners in sides[:-1]:
        cv2.fillPoly(image, [place(corners)], OBSTACLE, cv2.LINE_AA, _SHIFT)
    cv2.polylines(image, [place(sides[-1])], True, WALL, 3, cv2.LINE_AA, _SHIFT)
    for obstacle in arena.obstacles:
        _write(image, obstacle.name, place((obstacle.x, obstacle.y))[0] / (1 << _SHIFT), is_centred=True)

    way = place(track)
    for number, (this, after) in enumerate(pairwise(way)):
        colour = (BEGIN + (END - BEGIN) * number / len(way)).tolist()
        cv2.line(image, this.tolist(), after.tolist(), colour, 2, cv2.LINE_AA, _SHIFT)
    for x, y in stops:
        circle(x, y, 5, STOP, 2)
    for x, y in collisions:
        u, v = (place((x, y))[0] / (1 << _SHIFT)).round().astype(int).tolist()
        cv2.drawMarker(image, (u, v), COLLISION, cv2.MARKER_TILTED_CROSS, 14, 3, cv2.LINE_AA)
    if len(way):
        circle(*track[0], 5, tuple(BEGIN.astype(int).tolist()), cv2.FILLED)
        x, y = track[-1]
        circle(x, y, radius_m * PIXELS_PER_METRE, tuple(END.astype(int).tolist()), 2)
    _write(image, caption, np.array([MARGIN, height + MARGIN / 3]), is_centred=False)
    _scale(image)
    return image


def _scale(image: np.ndarray) -> None:
    """Draw how long a metre is, below the arena, to the right."""
    right, y = image.shape[1] - MARGIN, image.shape[0] - MARGIN
    left = right - PIXELS_PER_METRE
    cv2.line(image, (left, y), (right, y), WORDS, 2)
    for x in (left, right):
        cv2.line(image, (x, y - 4), (x, y + 4), WORDS, 2)
    _write(image, '1 m', np.array([(left + right) / 2, y - 10]), is_centred=True)


def _write(image: np.ndarray, text: str, xy: np.ndarray, *, is_centred: bool) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (wide, tall), _ = cv2.getTextSize(text, font, scale, 1)
    x, y = (xy - ((wide / 2, -tall / 2) if is_centred else (0, 0))).round().astype(int).tolist()
    cv2.putText(image, text, (x, y), font, scale, WORDS, 1, cv2.LINE_AA)
