"""WorldView: the detector of this package finds what stands before the robot, where it stands."""

from math import atan, cos, pi, sin
from pathlib import Path

import numpy as np
import pytest

from isaac_infer.core.frame import Frame
from isaac_infer.core.spec import Limits
from isaac_infer.core.world import ANGULAR, ROUND, Arena, Obstacle, make_arena
from isaac_infer.core.world_view import FOCAL, WorldView
from isaac_infer.engine.load import open_pipeline

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
SIZE_HW = 480, 640


@pytest.fixture(scope='module')
def detect():
    pipeline = open_pipeline(MODEL, task='detection', limits=lambda spec: Limits())

    def found_in(image):
        """Give class, score and box of all that is found."""
        found = pipeline(Frame(image, 'bgr', 0, ''))
        names = [pipeline.spec.class_names[number] for number in found.class_id]
        return list(zip(names, found.score.tolist(), found.xyxy.tolist()))

    yield found_in
    pipeline.close()


def standing(name, seed, x, y):
    return Arena(8.0, 8.0, (Obstacle(name, seed, x, y, 0.0, 0.2, 0.2, name in ROUND),))


@pytest.mark.parametrize('distance_m', [1.2, 2.0, 3.0])
@pytest.mark.parametrize('name', ROUND + ANGULAR)
def test_the_detector_finds_what_stands_in_front(detect, name, distance_m):
    found = 0
    for seed in range(5):
        view = WorldView(standing(name, seed, distance_m, 0.0), size_hw=SIZE_HW, seed=seed)
        best = max(detect(view.draw(0.0, 0.0, 0.0)), key=lambda each: each[1], default=('nothing', 0, None))
        found += best[0] == name and best[2][0] < SIZE_HW[1] / 2 < best[2][2]
    assert found >= 4


def test_an_object_is_where_the_geometry_says(detect):
    view = WorldView(standing('ball', 1, 2.0, 0.5), size_hw=SIZE_HW)
    for yaw in (0.0, 0.2, -0.1):
        (_, _, (left, _, right, _)), *_ = detect(view.draw(0.0, 0.0, yaw))
        ahead, aside = 2 * cos(yaw) + 0.5 * sin(yaw), 0.5 * cos(yaw) - 2 * sin(yaw)
        assert (left + right) / 2 == pytest.approx(320 - aside / ahead * FOCAL * 640, abs=25)


def test_an_object_looks_larger_the_nearer_it_is(detect):
    view = WorldView(standing('mug', 3, 3.0, 0.0), size_hw=SIZE_HW)
    widths = [
        right - left for x in (0.0, 1.0, 1.5) for _, _, (left, _, right, _) in detect(view.draw(x, 0.0, 0.0))
    ]
    assert widths[1] / widths[0] == pytest.approx(3 / 2, rel=0.15)
    assert widths[2] / widths[0] == pytest.approx(3 / 1.5, rel=0.15)


def test_what_is_behind_or_past_the_edge_is_not_seen():
    arena = standing('bottle', 0, 2.0, 0.0)
    with_it, without = WorldView(arena, size_hw=SIZE_HW), WorldView(Arena(8.0, 8.0), size_hw=SIZE_HW)
    for yaw in (pi, pi / 2, atan(0.5 / FOCAL) + 0.5):
        np.testing.assert_array_equal(with_it.draw(0.0, 0.0, yaw), without.draw(0.0, 0.0, yaw))
    assert (with_it.draw(0.0, 0.0, 0.0) != without.draw(0.0, 0.0, 0.0)).any()


def test_every_place_and_heading_gives_a_whole_picture():
    arena = make_arena(5)
    view = WorldView(arena, size_hw=(120, 160))
    one = arena.obstacles[0]
    places = [(0.0, 0.0), (3.9, 3.9), (-3.9, 0.0), (one.x + 0.01, one.y), (9.0, 0.0)]
    for x, y in places:
        for yaw in np.linspace(-pi, pi, 9):
            image = view.draw(x, y, yaw)
            assert image.shape == (120, 160, 3) and image.dtype == np.uint8
            assert image.std() > 1


def test_nearer_objects_hide_those_behind():
    near, far = (
        Obstacle('ball', 1, 1.5, 0.0, 0, 0.2, 0.2, True),
        Obstacle('ball', 2, 3.0, 0.0, 0, 0.2, 0.2, True),
    )
    pictures = [
        WorldView(Arena(8.0, 8.0, order), size_hw=SIZE_HW).draw(0.0, 0.0, 0.0)
        for order in ((near, far), (far, near))
    ]
    np.testing.assert_array_equal(*pictures)
