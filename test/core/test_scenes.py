from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from isaac_infer.core.scenes import MIN_SIDE_FRACTION, Scene, draw_scene
from isaac_infer.core.shapes import CLASS_NAMES, KEYPOINT_NAMES

FIGURINE = CLASS_NAMES.index('figurine')
SEEDS = range(500, 530)
FIRST_CLASSES, FIRST_BOX = [0, 7, 4, 5, 0, 1, 5, 6, 2, 8], [358, 420, 428, 480]  # of the first of these


@pytest.fixture(scope='module')
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in SEEDS]


def fields(scene: Scene) -> list[np.ndarray]:
    return [scene.image, scene.boxes_xyxy, scene.class_id, scene.instance_map, scene.keypoints]


def test_a_seed_gives_the_same_scene_again_whatever_was_drawn_between() -> None:
    first = draw_scene(7, time_s=1.5)
    for seed in (8, 9, 10):
        draw_scene(seed, size_hw=(90, 120))
    again = draw_scene(7, time_s=1.5)
    for before, after in zip(fields(first), fields(again), strict=True):
        np.testing.assert_array_equal(before, after)


def test_another_seed_gives_another_picture() -> None:
    assert np.abs(draw_scene(1).image.astype(int) - draw_scene(2).image).mean() > 10


def test_arrays_have_the_declared_shapes_and_types(scenes: list[Scene]) -> None:
    for scene in scenes:
        count = len(scene.class_id)
        assert scene.image.shape == (480, 640, 3) and scene.image.dtype == np.uint8
        assert scene.boxes_xyxy.shape == (count, 4) and scene.boxes_xyxy.dtype == np.float32
        assert scene.class_id.dtype == np.int32
        assert scene.instance_map.shape == (480, 640) and scene.instance_map.dtype == np.uint16
        assert (
            scene.keypoints.shape == (count, len(KEYPOINT_NAMES), 3) and scene.keypoints.dtype == np.float32
        )


def test_boxes_are_tight_around_the_visible_pixels(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert set(np.unique(scene.instance_map)) - {0} == set(range(1, len(scene.class_id) + 1))
        for index, box in enumerate(scene.boxes_xyxy):
            y, x = np.nonzero(scene.instance_map == index + 1)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_nothing_is_labelled_that_is_too_small_to_see(scenes: list[Scene]) -> None:
    boxes = np.concatenate([scene.boxes_xyxy for scene in scenes])
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= MIN_SIDE_FRACTION * 640


def test_every_class_appears_and_none_rules(scenes: list[Scene]) -> None:
    counts = np.bincount(np.concatenate([scene.class_id for scene in scenes]), minlength=len(CLASS_NAMES))
    assert len(counts) == len(CLASS_NAMES)
    assert counts.min() >= 5
    assert counts.max() <= 0.3 * counts.sum()


def test_only_figurines_have_keypoints_and_those_lie_on_them(scenes: list[Scene]) -> None:
    visible = 0
    for scene in scenes:
        assert not scene.keypoints[scene.class_id != FIGURINE].any()
        for index in np.flatnonzero(scene.class_id == FIGURINE):
            points = scene.keypoints[index]
            assert set(points[:, 2].tolist()) <= {0.0, 1.0, 2.0}
            assert not points[points[:, 2] == 0].any()
            labelled = points[points[:, 2] > 0]
            assert (labelled[:, :2] >= 0).all() and (labelled[:, :2] < (640, 480)).all()
            x, y = points[points[:, 2] == 2][:, :2].astype(int).T
            assert (scene.instance_map[y, x] == index + 1).all()
            visible += len(x)
    assert visible > 100


def test_a_figurines_head_is_above_its_feet_and_its_left_is_not_its_right(scenes: list[Scene]) -> None:
    name = {part: index for index, part in enumerate(KEYPOINT_NAMES)}
    figurines = np.concatenate([scene.keypoints[scene.class_id == FIGURINE] for scene in scenes])
    whole = figurines[(figurines[..., 2] > 0).all(axis=1)]
    assert len(whole) >= 5
    assert (whole[:, name['nose'], 1] < whole[:, name['left_ankle'], 1]).mean() > 0.9
    # Seen from the front, the left side is on the right of the picture, for every pair of joints alike.
    order = [
        np.sign(whole[:, name[f'left_{part}'], 0] - whole[:, name[f'right_{part}'], 0])
        for part in ('shoulder', 'hip')
    ]
    assert (order[0] == order[1]).mean() > 0.8


@pytest.mark.parametrize('size_hw', [(1, 1), (2, 3), (37, 53), (640, 1), (1, 640), (641, 479), (720, 1280)])
def test_any_size_works(size_hw: tuple[int, int]) -> None:
    scene = draw_scene(3, size_hw=size_hw)
    assert scene.image.shape == (*size_hw, 3)
    assert scene.instance_map.shape == size_hw
    assert (scene.boxes_xyxy[:, 2:] <= size_hw[::-1]).all() and (scene.boxes_xyxy >= 0).all()


def test_a_larger_picture_shows_the_same_scene() -> None:
    small, large = draw_scene(11), draw_scene(11, size_hw=(960, 1280))
    assert small.class_id.tolist() == large.class_id.tolist()
    np.testing.assert_allclose(small.boxes_xyxy * 2, large.boxes_xyxy, atol=4)


def test_time_moves_objects_smoothly_and_loses_none_at_once() -> None:
    frames = [draw_scene(40, time_s=step / 15) for step in range(8)]
    assert all(frame.class_id.tolist() == frames[0].class_id.tolist() for frame in frames)
    steps = [np.abs(b.boxes_xyxy - a.boxes_xyxy).max() for a, b in pairwise(frames)]
    assert 0 < max(steps) < 12
    assert np.abs(frames[-1].boxes_xyxy - frames[0].boxes_xyxy).max() > max(steps)


def test_camera_effects_change_pixels_and_no_ground_truth() -> None:
    for seed in SEEDS:
        with_effects, without = draw_scene(seed), draw_scene(seed, camera_effects=False)
        for before, after in zip(fields(with_effects)[1:], fields(without)[1:], strict=True):
            np.testing.assert_array_equal(before, after)
        if (with_effects.image != without.image).any():
            return
    pytest.fail('no scene has camera effects')


# ---- humanoid scenes -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def humanoid_scenes() -> list[Scene]:
    return [draw_scene(seed, humanoids=True) for seed in SEEDS]


def test_humanoid_scenes_do_not_change_the_usual_ones(scenes: list[Scene]) -> None:
    draw_scene(SEEDS[0], humanoids=True)
    for before, after in zip(fields(scenes[0]), fields(draw_scene(SEEDS[0])), strict=True):
        np.testing.assert_array_equal(before, after)
    # Another order of random numbers would draw other pictures, of which the detector's card is not true.
    assert scenes[0].class_id.tolist() == FIRST_CLASSES
    np.testing.assert_array_equal(scenes[0].boxes_xyxy[0], FIRST_BOX)


def test_a_seed_gives_the_same_humanoids_again_whatever_was_drawn_between() -> None:
    for time_s in (0.0, 1.5):
        first = draw_scene(7, time_s=time_s, humanoids=True)
        draw_scene(7, time_s=time_s)
        again = draw_scene(7, time_s=time_s, humanoids=True)
        for before, after in zip(fields(first), fields(again), strict=True):
            np.testing.assert_array_equal(before, after)


def test_humanoid_scenes_have_several_figurines_larger_than_usual(
    scenes: list[Scene], humanoid_scenes: list[Scene]
) -> None:
    counts = [np.count_nonzero(scene.class_id == FIGURINE) for scene in humanoid_scenes]
    assert np.mean(counts) > 2.5 and max(counts) >= 5
    assert any((scene.class_id != FIGURINE).any() for scene in humanoid_scenes)
    heights = []
    for drawn in (scenes, humanoid_scenes):
        boxes = np.concatenate([scene.boxes_xyxy[scene.class_id == FIGURINE] for scene in drawn])
        heights.append(np.median(boxes[:, 3] - boxes[:, 1]))
    assert heights[1] > 1.25 * heights[0]


def test_visible_keypoints_of_humanoids_lie_on_them_and_some_are_hidden(humanoid_scenes: list[Scene]) -> None:
    seen = []
    for scene in humanoid_scenes:
        for index in np.flatnonzero(scene.class_id == FIGURINE):
            points = scene.keypoints[index]
            left, top, right, bottom = scene.boxes_xyxy[index]
            x, y = points[points[:, 2] == 2][:, :2].T
            assert (x >= left).all() and (x < right).all() and (y >= top).all() and (y < bottom).all()
            assert (scene.instance_map[y.astype(int), x.astype(int)] == index + 1).all()
            hidden = points[points[:, 2] == 1][:, :2]
            size = max(right - left, bottom - top)
            assert (hidden > np.array([left, top]) - size).all()
            assert (hidden < np.array([right, bottom]) + size).all()
            seen += points[:, 2].tolist()
    shares = np.bincount(np.array(seen, int), minlength=3) / len(seen)
    assert shares[2] > 0.6 and shares[1] > 0.05


def test_humanoids_stay_as_large_while_time_moves_them() -> None:
    frames = [draw_scene(10, time_s=step / 15, humanoids=True) for step in range(6)]
    assert all(frame.class_id.tolist() == frames[0].class_id.tolist() for frame in frames)
    steps = [np.abs(b.boxes_xyxy - a.boxes_xyxy).max() for a, b in pairwise(frames)]
    assert 0 < max(steps) < 16
