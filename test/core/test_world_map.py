"""WorldMap: everything is drawn where it is."""

import numpy as np
import pytest

from isaac_infer.core.world import Arena, Obstacle
from isaac_infer.core.world_map import (
    BEGIN,
    COLLISION,
    MARGIN,
    OBSTACLE,
    PAPER,
    PIXELS_PER_METRE,
    STOP,
    WORDS,
    draw_map,
)

ARENA = Arena(
    6.0,
    4.0,
    (
        Obstacle('ball', 0, 2.0, 1.0, 0.0, 0.5, 0.5, True),
        Obstacle('block', 0, -2.0, 0.0, 0.0, 0.6, 0.3, False),
    ),
)


def colour_at(image, x, y):
    row, column = 2 * PIXELS_PER_METRE + MARGIN, 3 * PIXELS_PER_METRE + MARGIN
    return tuple(image[round(row - y * PIXELS_PER_METRE), round(column + x * PIXELS_PER_METRE)].tolist())


def test_obstacles_lie_where_they_are():
    image = draw_map(ARENA, [], radius_m=0.2)
    assert image.shape == (4 * PIXELS_PER_METRE + 3 * MARGIN, 6 * PIXELS_PER_METRE + 2 * MARGIN, 3)
    for x, y in ((2.0, 1.35), (2.0, 0.65), (-2.55, 0.0), (-2.0, 0.25)):
        assert colour_at(image, x, y) == OBSTACLE
    for x, y in ((2.0, 0.4), (-2.0, 0.4), (-2.7, 0.0), (2.45, 1.45), (0.0, 0.0)):
        assert colour_at(image, x, y) == PAPER


def test_the_way_goes_from_blue_to_red_past_its_stops_and_collisions():
    track = [(x, -1.0) for x in np.linspace(-1, 1, 50)]
    image = draw_map(ARENA, track, radius_m=0.2, stops=[(0.0, 1.0)], collisions=[(0.0, 0.0)])
    blue, red = colour_at(image, -0.95, -1.0), colour_at(image, 0.95, -1.0)
    assert blue[0] > blue[2] and red[0] < red[2]
    assert colour_at(image, -1.0, -1.0 + 4 / PIXELS_PER_METRE) == tuple(BEGIN)
    assert colour_at(image, 5 / PIXELS_PER_METRE, 1.0) == STOP
    assert colour_at(image, 0.0, 0.0) == COLLISION
    assert colour_at(image, 1.2, -1.0) != PAPER  # the hull of the robot


def test_a_scale_below_is_a_metre_long():
    below = draw_map(ARENA, [], radius_m=0.2)[4 * PIXELS_PER_METRE + 2 * MARGIN]
    drawn = np.flatnonzero((below == WORDS).all(axis=1))
    assert drawn.max() - drawn.min() == pytest.approx(PIXELS_PER_METRE, abs=2)


def test_a_caption_stands_below():
    plain, said = (draw_map(ARENA, [], radius_m=0.2, caption=text) for text in ('', '12.3 m'))
    assert (plain != said).any(axis=(1, 2)).nonzero()[0].min() > 4 * PIXELS_PER_METRE + MARGIN
