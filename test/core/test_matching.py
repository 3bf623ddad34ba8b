"""Matching: pairs of objects, and how well two results agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.matching import agreement, match_detections
from isaac_infer.core.results import Detections, no_detections


def detections(*rows):
    """Left, top, right, bottom, score, class of each object."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int32)
    )


# Few different values, so that equal boxes, scores and overlaps occur, and boxes without area.
@st.composite
def results(draw):
    coordinate = st.integers(0, 6)
    rows = draw(
        st.lists(
            st.tuples(coordinate, coordinate, coordinate, coordinate, st.integers(0, 3), st.integers(0, 1))
        )
    )
    return detections(
        *((x, y, x + width, y + height, sure / 3, kind) for x, y, width, height, sure, kind in rows)
    )


thresholds = st.sampled_from([0.1, 0.5, 0.75, 1.0])


def test_empty_results_have_no_pairs_and_nothing_to_say():
    nothing = no_detections()
    assert len(match_detections(nothing, nothing, iou_threshold=0.5)) == 0
    result = agreement([], iou_threshold=0.5)
    assert (result.expected, result.found, result.extra) == (0, 0, 0)
    assert (result.share, result.mean_iou, result.worst_score_difference) == (None, None, None)


@given(results(), thresholds)
def test_a_result_agrees_with_itself_perfectly(found, iou_threshold):
    matches = match_detections(found, found, iou_threshold=iou_threshold)
    assert len(matches) == len(found)
    assert (matches.iou == 1).all()
    result = agreement([(found, found)], iou_threshold=iou_threshold)
    assert (result.found, result.extra) == (len(found), 0)
    if len(found):
        assert result.share == 1
        assert result.worst_score_difference == 0


def test_equal_boxes_are_paired_before_those_that_are_equal_but_for_rounding():
    one, other = (0, 0, 100, 100, 0.5, 0), (1e-30, 0, 100, 100, 0.5, 0)
    matches = match_detections(detections(one, other), detections(other, one), iou_threshold=0.5)
    assert sorted(zip(matches.reference, matches.other)) == [(0, 1), (1, 0)]


@given(results(), results(), thresholds)
def test_it_makes_no_difference_which_result_is_the_reference(one, other, iou_threshold):
    there = match_detections(one, other, iou_threshold=iou_threshold)
    back = match_detections(other, one, iou_threshold=iou_threshold)
    pairs = set(zip(there.reference.tolist(), there.other.tolist(), strict=True))
    assert pairs == set(zip(back.other.tolist(), back.reference.tolist(), strict=True))
    forward, backward = (
        agreement([pair], iou_threshold=iou_threshold) for pair in ((one, other), (other, one))
    )
    assert forward.found == backward.found
    assert forward.expected == backward.found + backward.extra
    assert backward.expected == forward.found + forward.extra


@given(results(), results(), thresholds)
def test_pairs_are_of_one_class_overlap_enough_and_share_no_object(one, other, iou_threshold):
    matches = match_detections(one, other, iou_threshold=iou_threshold)
    assert (one.class_id[matches.reference] == other.class_id[matches.other]).all()
    assert (matches.iou >= iou_threshold).all()
    assert (np.diff(matches.iou) <= 0).all()
    assert len(set(matches.reference.tolist())) == len(set(matches.other.tolist())) == len(matches)


@given(results(), results(), thresholds)
def test_no_pair_is_left_that_could_be_made(one, other, iou_threshold):
    matches = match_detections(one, other, iou_threshold=iou_threshold)
    rest = np.setdiff1d(np.arange(len(one)), matches.reference)
    other_rest = np.setdiff1d(np.arange(len(other)), matches.other)
    assert len(match_detections(one[rest], other[other_rest], iou_threshold=iou_threshold)) == 0


def test_the_best_overlap_is_taken_first():
    reference = detections((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 8, 0.8, 0))
    other = detections((0, 0, 10, 8, 0.7, 0))
    matches = match_detections(reference, other, iou_threshold=0.5)
    assert matches.reference.tolist() == [1]


@pytest.mark.parametrize(
    ('other', 'found', 'extra'),
    [
        ([], 0, 0),
        ([(0, 0, 10, 10, 0.5, 1)], 0, 1),  # another class
        ([(0, 0, 10, 4, 0.5, 0)], 0, 1),  # too little overlap
        ([(0, 0, 10, 5, 0.5, 0)], 1, 0),
        ([(0, 0, 10, 10, 0.5, 0), (0, 0, 10, 10, 0.4, 0)], 1, 1),  # found twice
    ],
)
def test_what_was_found_again_and_what_is_extra_is_counted(other, found, extra):
    result = agreement([(detections((0, 0, 10, 10, 0.9, 0)), detections(*other))], iou_threshold=0.5)
    assert (result.expected, result.found, result.extra) == (1, found, extra)


def test_means_and_worsts_are_over_the_pairs_of_all_pictures():
    one, other = detections((0, 0, 10, 10, 0.9, 0)), detections((0, 0, 10, 5, 0.5, 0))
    result = agreement([(one, other), (one, one), (one, no_detections())], iou_threshold=0.5)
    assert result.share == pytest.approx(2 / 3)
    assert result.extra_share == 0
    assert (result.mean_iou, result.worst_iou) == (0.75, 0.5)
    assert result.mean_score_difference == pytest.approx(0.2)
    assert result.worst_score_difference == pytest.approx(0.4)
