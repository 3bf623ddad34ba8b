"""Masks and classes blended into pictures, seen by their pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from isaac_infer.core.draw import class_colour, draw_segmentation
from isaac_infer.core.results import Detections, Segmentation, no_detections

GREY = 128


def canvas(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def objects(*boxes: tuple[float, float, float, float]) -> Segmentation:
    """Objects that fill the left half of their boxes, classes 0, 1, ..., best first."""
    count = len(boxes)
    masks = []
    for left, top, right, bottom in boxes:
        mask = np.zeros((int(bottom - top), int(right - left)), bool)
        mask[:, : mask.shape[1] // 2] = True
        masks.append(mask)
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.arange(count, dtype=np.int32),
    )
    return Segmentation(found, tuple(masks))


def classes(class_map: np.ndarray) -> Segmentation:
    return Segmentation(no_detections(), (), class_map)


def blended(class_id: int, opacity: float) -> list[float]:
    return [GREY * (1 - opacity) + value * opacity for value in class_colour(class_id)]


@pytest.mark.parametrize('found', [objects(), classes(np.zeros((120, 160), np.uint8))])
def test_nothing_found_leaves_the_picture_as_it_was(found):
    assert (draw_segmentation(canvas(), found, [], hidden=(0,)) == GREY).all()


def test_the_picture_itself_is_drawn_on():
    image = canvas()
    assert draw_segmentation(image, objects((20, 30, 80, 90)), ['cup']) is image


@pytest.mark.parametrize('opacity', [0.0, 0.3, 1.0])
def test_a_mask_is_blended_in_the_colour_of_its_class(opacity):
    image = draw_segmentation(canvas(), objects((20, 30, 80, 90)), ['cup'], opacity=opacity, boxes=False)
    assert image[30:90, 20:50].reshape(-1, 3).mean(axis=0) == pytest.approx(blended(0, opacity), abs=1)
    assert np.ptp(image[30:90, 20:50], axis=(0, 1)).max() == 0
    image[30:90, 20:50] = GREY
    assert (image == GREY).all()


def test_the_best_object_lies_on_top():
    image = draw_segmentation(
        canvas(), objects((20, 30, 80, 90), (30, 30, 90, 90)), [], opacity=1.0, boxes=False
    )
    assert tuple(image[60, 45]) == class_colour(0)
    assert tuple(image[60, 55]) == class_colour(1)


def test_objects_of_one_class_that_overlap_are_told_apart_by_their_outlines():
    both = objects((20, 30, 80, 90), (40, 40, 100, 100))
    same = replace(both, objects=replace(both.objects, class_id=np.zeros(2, np.int32)))
    image = draw_segmentation(canvas(), same, ['cup'], opacity=1.0)
    across = image[65, 40:60].tolist()  # from the one into the other, between their boxes
    own, outline = list(class_colour(0)), [part // 2 for part in class_colour(0)]
    assert across[5] == across[15] == own and across[9] == outline
    hidden = draw_segmentation(canvas(), same, ['cup'], opacity=1.0, hidden=(0,), labels=False, scores=False)
    assert (hidden[65, 45:60] == GREY).all()


def test_boxes_and_labels_are_drawn_over_masks():
    without = draw_segmentation(canvas(), objects((20, 30, 80, 90)), ['cup'], boxes=False)
    image = draw_segmentation(canvas(), objects((20, 30, 80, 90)), ['cup'], line_width=3)
    assert tuple(image[60, 79]) == class_colour(0)
    assert (image[40:80, 60:70] == without[40:80, 60:70]).all()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_every_class_of_a_map_has_its_colour_but_the_hidden_ones(dtype):
    class_map = np.zeros((120, 160), dtype)
    class_map[:40, :50], class_map[40:80, :50] = 3, np.iinfo(dtype).max % 1000 - 1
    class_map[100:] = np.iinfo(dtype).max  # what has no class
    image = draw_segmentation(canvas(), classes(class_map), [], opacity=1.0, hidden=(0, 77, 100_000))
    assert (image[:40, :50] == class_colour(3)).all()
    assert (image[40:80, :50] == class_colour(int(class_map[40, 0]))).all()
    assert (image[80:] == GREY).all() and (image[:, 50:] == GREY).all()
    everything = draw_segmentation(canvas(), classes(class_map), [], opacity=1.0)
    assert (everything[80:100] == class_colour(0)).all() and (everything[100:] == GREY).all()
