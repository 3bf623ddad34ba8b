import numpy as np
import pytest

from isaac_infer.core.draw import class_colour, draw_poses
from isaac_infer.core.results import Detections, Poses
from isaac_infer.core.skeleton import LEFT, MIDDLE, RIGHT, Skeleton, fit_skeleton, skeleton_from

GREY = 128
ARMS = skeleton_from({'keypoints': ['chest', 'left_hand', 'right_hand'], 'links': [[0, 1], [0, 2]]})


def canvas() -> np.ndarray:
    return np.full((120, 160, 3), GREY, np.uint8)


def poses(*persons: tuple[tuple[float, float, float], ...]) -> Poses:
    rows = np.array(persons, np.float32).reshape(len(persons), len(persons[0]) if persons else 3, 3)
    count = len(persons)
    found = Detections(np.zeros((count, 4), 'f4'), np.ones(count, 'f4'), np.zeros(count, np.int32))
    return Poses(found, rows[..., :2], rows[..., 2])


def untouched(image: np.ndarray) -> bool:
    return bool((image == GREY).all())


def test_nobody_found_leaves_the_picture_as_it_was() -> None:
    image = canvas()
    assert draw_poses(image, poses(), ARMS) is image and untouched(image)


def test_joints_and_links_are_drawn_in_the_colours_of_their_sides() -> None:
    image = draw_poses(
        canvas(), poses(((80, 60, 0.9), (140, 60, 0.9), (20, 60, 0.9))), ARMS, line_width=3, boxes=False
    )
    assert tuple(image[59, 79]) == MIDDLE
    assert tuple(image[59, 139]) == tuple(image[59, 110]) == LEFT
    assert tuple(image[59, 19]) == tuple(image[59, 50]) == RIGHT
    assert (image.max(axis=2) < GREY / 2).any()  # the rim around everything


@pytest.mark.parametrize('gone', [(140, 60, 0.2), (0, 0, 0.0), (1e7, 60, 0.9), (-900, 60, 0.9)])
def test_joints_that_were_not_found_are_left_out_with_their_links(gone: tuple[float, float, float]) -> None:
    image = draw_poses(canvas(), poses(((80, 60, 0.9), gone, (20, 60, 0.9))), ARMS, boxes=False)
    assert untouched(image[:, 90:]) and untouched(image[:40])
    assert not untouched(image[:, :85])


def test_key_points_that_the_skeleton_does_not_name_are_not_drawn() -> None:
    fitted = fit_skeleton(skeleton_from({'keypoints': ['chest', 'right_hand']}), ARMS.keypoints)
    image = draw_poses(canvas(), poses(((80, 60, 0.9), (140, 60, 0.9), (20, 60, 0.9))), fitted, boxes=False)
    assert untouched(image[:, 90:]) and not untouched(image[:, 70:90]) and not untouched(image[:, :40])


def test_a_threshold_of_zero_draws_nothing_that_scores_nothing() -> None:
    image = draw_poses(
        canvas(), poses(((80, 60, 0.0), (140, 60, 0.0), (20, 60, 0.01))), ARMS, threshold=0, boxes=False
    )
    assert untouched(image[:, 40:]) and not untouched(image)


def test_a_point_just_outside_the_picture_keeps_its_link() -> None:
    image = draw_poses(canvas(), poses(((80, 60, 0.9), (200, 60, 0.9), (20, 60, 0.1))), ARMS)
    assert not untouched(image[:, 150:])


def test_the_best_lies_on_top() -> None:
    dot = Skeleton('dot', ('dot',), colours=((1, 2, 3),))
    other = draw_poses(canvas(), poses(((80, 60, 0.9),), ((80, 60, 0.8),)), dot)
    assert tuple(other[59, 79]) == (1, 2, 3)


def numbered(numbers: list[int] | None) -> Poses:
    """Persons in boxes of 40 x 60 pixels, whose key points were not found."""
    count = 2 if numbers is None else len(numbers)
    boxes = np.array([(10.5 + 70 * at, 40.5, 50.5 + 70 * at, 100.5) for at in range(count)], np.float32)
    found = Detections(boxes, np.full(count, 0.8, np.float32), np.zeros(count, np.int32))
    ids = None if numbers is None else np.array(numbers)
    return Poses(found, np.zeros((count, 3, 2), np.float32), np.zeros((count, 3), np.float32), ids)


def test_persons_have_boxes_in_the_colours_of_their_numbers() -> None:
    image = draw_poses(canvas(), numbered([3, 7]), ARMS, line_width=3, labels=False, scores=False)
    assert tuple(image[70, 50]) == class_colour(3) and tuple(image[70, 120]) == class_colour(7)
    assert untouched(image[45:95, 15:45]) and untouched(image[:37]) and untouched(image[105:])


def test_numbers_and_scores_are_written_where_they_are_wanted_and_known() -> None:
    def label(persons: Poses, **options: bool) -> np.ndarray:
        return draw_poses(canvas(), persons, ARMS, **options)[:37]

    number, other = (label(numbered([at]), scores=False) for at in (3, 7))
    assert not untouched(number) and (number != other).any()
    score = label(numbered(None))
    assert not untouched(score) and (score[:, :60] != label(numbered([0]))[:, :60]).any()
    assert untouched(label(numbered(None), scores=False))
