"""Boxes: conversions, overlap, and what non-maximum suppression keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.boxes import box_iou, clip_boxes, nms, rotated_nms, xyxy_from_cxcywh, xyxy_from_rotated

PLENTY = 10_000


@pytest.mark.parametrize(
    ('cxcywh', 'xyxy'),
    [
        (np.empty((0, 4)), np.empty((0, 4))),
        ([[10, 20, 4, 6]], [[8, 17, 12, 23]]),
        ([[0, 0, 1, 1], [5, 5, 0, 0]], [[-0.5, -0.5, 0.5, 0.5], [5, 5, 5, 5]]),
    ],
)
def test_centre_and_size_become_corners(cxcywh, xyxy):
    np.testing.assert_array_equal(xyxy_from_cxcywh(np.asarray(cxcywh, np.float32)), xyxy)


def test_boxes_are_clipped_to_the_picture():
    boxes = np.array([[-5.0, -5, 700, 500], [10, 10, 20, 20]], np.float32)
    assert clip_boxes(boxes, (480, 640)).tolist() == [[0, 0, 640, 480], [10, 10, 20, 20]]
    assert boxes[0].tolist() == [-5, -5, 700, 500]


@pytest.mark.parametrize(
    ('a', 'b', 'iou'),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
        ([0, 0, 10, 10], [2, 2, 4, 4], 0.04),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0),
    ],
)
def test_overlap_is_intersection_over_union(a, b, iou):
    assert box_iou(np.array([a], float), np.array([b], float)) == pytest.approx(iou)


def test_overlap_of_no_boxes_is_an_empty_table():
    assert box_iou(np.empty((0, 4)), np.ones((3, 4))).shape == (0, 3)


# Boxes on a coarse lattice, so that equal, nested and touching ones are common.
_boxes = st.lists(
    st.tuples(
        st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2)
    ),
    max_size=25,
)
_thresholds = st.floats(0.05, 0.95)


def _arrays(boxes: list[tuple[int, ...]], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(boxes, np.float32).reshape(-1, 5)
    xyxy = np.concatenate((table[:, :2], table[:, :2] + table[:, 2:4]), axis=1)
    score = np.random.default_rng(seed).permutation(np.linspace(0.1, 0.9, len(table))).astype(np.float32)
    return xyxy, score, table[:, 4].astype(np.int32)


def _kept(xyxy, score, class_id, threshold, limit=PLENTY) -> np.ndarray:
    return nms(xyxy, score, class_id, iou_threshold=threshold, max_detections=limit)


@given(_boxes, st.integers(0, 99), _thresholds, st.booleans())
def test_kept_boxes_do_not_overlap_and_dropped_ones_overlap_a_better_one(boxes, seed, threshold, by_class):
    xyxy, score, class_id = _arrays(boxes, seed)
    kept = _kept(xyxy, score, class_id if by_class else None, threshold)
    assert (np.diff(score[kept]) <= 0).all()
    rivals = box_iou(xyxy, xyxy.astype(np.float64))
    if by_class:
        rivals *= class_id[:, None] == class_id[None, :]
    among_kept = rivals[np.ix_(kept, kept)] - np.eye(len(kept))
    assert (among_kept <= threshold + 1e-6).all()
    for dropped in set(range(len(boxes))) - set(kept.tolist()):
        assert (rivals[dropped, kept[score[kept] > score[dropped]]] > threshold - 1e-6).any()


@given(_boxes, st.integers(0, 99), _thresholds, st.integers(0, 99))
def test_the_order_of_the_boxes_does_not_matter(boxes, seed, threshold, order_seed):
    xyxy, score, class_id = _arrays(boxes, seed)
    order = np.random.default_rng(order_seed).permutation(len(boxes))
    shuffled = order[_kept(xyxy[order], score[order], class_id[order], threshold)]
    assert shuffled.tolist() == _kept(xyxy, score, class_id, threshold).tolist()


@given(_boxes, st.integers(0, 99), _thresholds, st.integers(1, 5))
def test_a_limit_keeps_the_best(boxes, seed, threshold, limit):
    xyxy, score, class_id = _arrays(boxes, seed)
    everything = _kept(xyxy, score, class_id, threshold)
    assert _kept(xyxy, score, class_id, threshold, limit).tolist() == everything[:limit].tolist()


def test_far_and_near_boxes_of_many_classes_are_kept_apart():
    xyxy = np.array([[-900, -900, 5, 5], [0, 0, 1e4, 1e4], [0, 0, 1e4, 1e4]], np.float32)
    kept = _kept(xyxy, np.float32([0.5, 0.9, 0.8]), np.array([0, 79, 78]), 0.5)
    assert kept.tolist() == [1, 2, 0]


def test_a_turned_box_is_bounded_by_its_corners():
    np.testing.assert_allclose(xyxy_from_rotated(np.array([[10, 10, 8, 2, np.pi / 2]])), [[9, 6, 11, 14]])
    np.testing.assert_allclose(xyxy_from_rotated(np.array([[0, 0, 2, 2, np.pi / 4]]))[0, 2:], 2**0.5)


@pytest.mark.parametrize('angle', [0.0, 0.3, np.pi / 2, -2.0])
def test_rotated_boxes_suppress_their_likes_and_not_what_crosses_them(angle):
    boxes = np.array(
        [
            [50, 50, 40, 6, angle],
            [51, 50, 40, 6, angle],
            [50, 50, 40, 6, angle + np.pi / 2],
            [50, 50, 40, 6, angle],
        ],
        np.float32,
    )
    score, class_id = np.float32([0.6, 0.9, 0.8, 0.7]), np.array([0, 0, 0, 1])
    assert rotated_nms(boxes, score, class_id, iou_threshold=0.5).tolist() == [1, 2, 3]
    assert rotated_nms(boxes, score, None, iou_threshold=0.5).tolist() == [1, 2]


@pytest.mark.parametrize('size', [1e3, 1e5, 1e7])
@pytest.mark.parametrize('classes', [[0, 0, 0], [0, 1, 1], [5, 1 << 30, 3]])
def test_a_huge_rotated_box_drops_none_of_the_small_ones_in_it(size, classes):
    boxes = np.array([[0, 0, size, size, 0.1], [50, 50, 40, 10, 0.2], [80, 80, 40, 10, 0.2]], np.float32)
    kept = rotated_nms(boxes, np.float32([0.9, 0.8, 0.7]), np.array(classes), iou_threshold=0.45)
    assert kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize('far', [0.0, 1e6])
def test_the_overlap_of_rotated_boxes_is_intersection_over_union_wherever_they_lie(far):
    inner_and_outer = np.array([[far, far, 40, 10, 0.5], [far, far, 40, 20, 0.5]])  # half of it
    for threshold, count in ((0.49, 1), (0.51, 2)):
        kept = rotated_nms(inner_and_outer, np.float32([0.9, 0.8]), None, iou_threshold=threshold)
        assert len(kept) == count


def test_class_numbers_of_any_size_keep_boxes_apart_and_together():
    xyxy = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 1e7, 1e7], [0, 0, 10, 10]], np.float32)
    kept = _kept(xyxy, np.float32([0.9, 0.8, 0.7, 0.6]), np.array([1 << 30, 1 << 30, 7, 0]), 0.5)
    assert kept.tolist() == [0, 2, 3]


def test_no_boxes_are_no_indices():
    assert _kept(np.empty((0, 4)), np.empty(0), None, 0.5).shape == (0,)
    assert rotated_nms(np.empty((0, 5)), np.empty(0), None, iou_threshold=0.5).shape == (0,)
