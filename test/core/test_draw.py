import cv2
import numpy as np
import pytest

from isaac_infer.core.draw import class_colour, contact_sheet, draw_detections
from isaac_infer.core.results import Detections, no_detections

GREY = 128


def canvas(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def detections(*boxes: tuple[float, float, float, float], **arrays: np.ndarray) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.arange(count, dtype=np.int32),
        **arrays,
    )


def touched(image: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of everything that was drawn."""
    rows, columns = np.nonzero((image != GREY).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_nothing_found_leaves_the_picture_as_it_was() -> None:
    assert (draw_detections(canvas(), no_detections(), []) == GREY).all()


def test_the_picture_itself_is_drawn_on() -> None:
    image = canvas()
    assert draw_detections(image, detections((20, 30, 80, 90)), ['cup']) is image


def test_a_box_is_drawn_along_its_sides_in_the_colour_of_its_class() -> None:
    image = draw_detections(
        canvas(), detections((20, 30, 80, 90)), ['cup'], line_width=3, labels=False, scores=False
    )
    for y, x in ((60, 20), (60, 79), (30, 50), (89, 50)):
        assert tuple(image[y, x]) == class_colour(0)
    assert (image[40:80, 30:70] == GREY).all()
    assert touched(image) == pytest.approx((17, 27, 83, 93), abs=2)


def test_a_rotated_box_is_drawn_rotated() -> None:
    rotated = np.array([(80, 60, 60, 20, np.pi / 2)], np.float32)
    found = detections((70, 30, 90, 90), rotated=rotated)
    image = draw_detections(canvas(), found, [], line_width=1, labels=False, scores=False)
    assert touched(image) == pytest.approx((70, 30, 90, 90), abs=4)


@pytest.mark.parametrize('far', [1e9, 1e30, 3e38])
def test_a_box_that_reaches_far_beyond_the_picture_is_drawn_where_it_is_seen(far: float) -> None:
    found = detections((20, 30, far, far))
    image = draw_detections(canvas(), found, [], line_width=1, labels=False, scores=False)
    assert touched(image) == pytest.approx((20, 30, 160, 120), abs=3)
    draw_detections(canvas(), found, ['cup'])  # its label finds a place, too


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_box_that_lies_nowhere_is_left_out_and_the_others_are_drawn(bad: float) -> None:
    expected = draw_detections(canvas(), detections((20, 30, 80, 90)), ['cup'])
    found = detections((20, 30, 80, 90), (20, 30, bad, 90))
    assert (draw_detections(canvas(), found, ['cup']) == expected).all()
    rotated = np.array([(50, 60, 30, 20, bad)], np.float32)
    assert (draw_detections(canvas(), detections((20, 30, 80, 90), rotated=rotated), []) == GREY).all()


@pytest.mark.parametrize(
    'box', [(0, 0, 10, 10), (150, 110, 160, 120), (0, 0, 160, 120), (-50, -50, 300, 300)]
)
def test_labels_stay_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    large = canvas(400, 500)
    image = large[100:220, 150:310]
    draw_detections(image, detections(box), ['a label that is long'])
    outside = large.copy()
    outside[100:220, 150:310] = GREY
    assert (outside == GREY).all()
    plate = (image == class_colour(0)).all(axis=2).sum()
    assert plate > 500


def test_labels_and_scores_can_be_left_out() -> None:
    found = detections((40, 60, 120, 110))
    tops = [
        touched(draw_detections(canvas(), found, ['cup'], labels=labels, scores=scores))[1]
        for labels, scores in ((True, True), (True, False), (False, True), (False, False))
    ]
    assert max(tops[:3]) < 50
    assert tops[3] > 50


@pytest.mark.parametrize('size_hw', [(1, 1), (3, 1000), (1080, 1920)])
def test_every_size_of_picture_can_be_drawn_on(size_hw: tuple[int, int]) -> None:
    image = canvas(*size_hw)
    draw_detections(image, detections((0, 0, size_hw[1], size_hw[0])), [])
    assert (image != GREY).any()


def test_lines_and_text_grow_with_the_picture() -> None:
    def drawn(scale: int) -> float:
        image = canvas(480 * scale, 640 * scale)
        draw_detections(image, detections((100 * scale, 100 * scale, 300 * scale, 300 * scale)), ['cup'])
        return (image != GREY).any(axis=2).mean()

    assert drawn(3) == pytest.approx(drawn(1), rel=0.3)


def test_a_class_keeps_its_colour_and_neighbours_differ() -> None:
    colours = [class_colour(class_id) for class_id in range(100)]
    assert len(set(colours)) == 100
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 60
    assert colours[7] == class_colour(7)


def test_no_two_of_the_first_classes_look_alike() -> None:
    colours = np.array([[class_colour(class_id) for class_id in range(25)]], np.float32)
    (lab,) = cv2.cvtColor(colours / 255, cv2.COLOR_BGR2LAB)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2)
    assert apart[~np.eye(25, dtype=bool)].min() > 18  # of black and white 100


@pytest.mark.parametrize(
    ('count', 'columns', 'rows'), [(1, 1, 1), (2, 2, 1), (6, 3, 2), (9, 3, 3), (12, 4, 3)]
)
def test_a_contact_sheet_shows_every_picture_in_a_grid(count: int, columns: int, rows: int) -> None:
    images = [canvas(30 + number, 40) for number in range(count)]
    sheet = contact_sheet(images, cell_wh=(80, 60), background=(0, 0, 0))
    assert sheet.shape[1] // 80 == columns
    assert sheet.shape[0] // 60 == rows
    shown = (sheet == GREY).all(axis=2).sum()
    assert shown == pytest.approx(count * 80 * 60 * 0.9, rel=0.2)


def test_captions_are_written_below_the_pictures() -> None:
    plain = contact_sheet([canvas()], cell_wh=(160, 120), background=(0, 0, 0))
    sheet = contact_sheet([canvas()], captions=['a cup'], cell_wh=(160, 120), background=(0, 0, 0))
    assert sheet.shape[0] > plain.shape[0]
    below = sheet[plain.shape[0] - 4 :]
    assert below.max() > 100


@pytest.mark.parametrize(
    ('name', 'drawn'),
    [
        ('caf\u00e9', 'cafe'),
        ('\uff21\uff22', 'AB'),  # full-width letters
        ('s\u00f8m', 's?m'),
        ('\u6a21\u578b', '0'),  # nothing that can be drawn: the number of the class
        ('\u6a21 2', '? 2'),
        ('\ud800', '0'),
        ('', '0'),
    ],
)
def test_labels_are_drawn_as_far_as_the_font_goes(name: str, drawn: str) -> None:
    found = detections((20, 60, 80, 90))
    np.testing.assert_array_equal(
        draw_detections(canvas(), found, [name]), draw_detections(canvas(), found, [drawn])
    )


def test_captions_are_drawn_as_far_as_the_font_goes() -> None:
    sheets = [contact_sheet([canvas()], captions=[caption]) for caption in ('caf\u00e9 \ud800', 'cafe ?')]
    np.testing.assert_array_equal(*sheets)


def test_the_best_of_many_labels_lies_on_top() -> None:
    boxes = [(100.0, 60.0, 200.0, 110.0)] * 8
    image = draw_detections(canvas(150, 300), detections(*boxes), ['best', *'abcdefg'], labels=True)
    alone = draw_detections(canvas(150, 300), detections(*boxes[:1]), ['best'], labels=True)
    label = slice(0, 55)  # above the outline
    plate = (alone[label] != GREY).any(axis=2)
    assert plate.any() and (image[label][plate] == alone[label][plate]).all()
