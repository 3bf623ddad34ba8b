"""Metrics: overlaps of masks and of key points, and class maps, beside what pycocotools and hands reckon."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.metrics import ClassCounts, is_seen, mask_overlap, pose_overlap
from isaac_infer.core.results import Detections, Poses, Segmentation, mask_box, no_detections

HEIGHT, WIDTH = 12, 16


def objects(boxes, classes):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.array(classes, np.int32).reshape(count),
    )


@st.composite
def segmentations(draw):
    seed = draw(st.integers(0, 9999))
    random = np.random.default_rng(seed)
    count = draw(st.integers(0, 4))
    corner = random.uniform((0, 0), (WIDTH - 2, HEIGHT - 2), (count, 2))
    far = np.minimum(corner + random.uniform(1, 9, (count, 2)), (WIDTH, HEIGHT))
    found = objects(np.concatenate((corner, far), axis=1), random.integers(0, 2, count))
    masks = []
    for xyxy in found.xyxy:
        left, top, right, bottom = mask_box(xyxy)
        masks.append(random.random((bottom - top, right - left)) < 0.7)
        masks[-1][0, 0] = True
    return Segmentation(found, tuple(masks))


def whole(found):
    """All masks in the size of the picture, (N, H, W)."""
    masks = np.zeros((len(found), HEIGHT, WIDTH), np.uint8)
    for mask, part, xyxy in zip(masks, found.masks, found.objects.xyxy, strict=True):
        left, top, right, bottom = mask_box(xyxy)
        mask[top:bottom, left:right] = part
    return masks


@given(segmentations(), segmentations())
def test_masks_of_one_class_overlap_as_pycocotools_reckons(one, two):
    coco = pytest.importorskip('pycocotools.mask')
    got = mask_overlap(one, two)
    assert got.shape == (len(one), len(two))
    if not got.size:
        return
    runs = [coco.encode(np.asfortranarray(whole(found).transpose(1, 2, 0))) for found in (one, two)]
    wanted = coco.iou(*runs, [0] * len(two))
    is_same_class = one.objects.class_id[:, None] == two.objects.class_id
    np.testing.assert_allclose(got[is_same_class], np.asarray(wanted)[is_same_class], atol=1e-12)


def test_masks_without_a_pixel_are_compared_by_their_boxes():
    empty = np.zeros((2, 2), bool)
    one = Segmentation(objects([(0, 0, 2, 2), (4, 4, 6, 6)], [0, 0]), (empty, empty))
    np.testing.assert_array_equal(mask_overlap(one, one), np.eye(2))


def person(xy, score, box=(0, 0, 100, 200)):
    return Poses(objects([box], [0]), np.array([xy], np.float32), np.array([score], np.float32))


SIGMAS = np.array([0.05, 0.1])
POINTS = [(10, 20), (50, 150)]


def overlap(reference, other):
    return pose_overlap(reference, other, sigmas=SIGMAS, keypoint_threshold=0.3)


def test_nobody_is_like_nobody():
    nobody = Poses(no_detections(), np.empty((0, 2, 2), np.float32), np.empty((0, 2), np.float32))
    assert overlap(nobody, nobody).shape == (0, 0)
    assert overlap(person(POINTS, (0.9, 0.9)), nobody).shape == (1, 0)
    assert overlap(nobody, person(POINTS, (0.9, 0.9))).shape == (0, 1)


def test_a_person_is_like_itself_and_less_so_the_farther_a_key_point_is_off():
    usual = person(POINTS, (0.9, 0.8))
    assert overlap(usual, usual) == 1
    # OKS = mean of exp(-d^2 / (2 s^2 (2 sigma)^2)), with s^2 the area of the box.
    moved = person([(10, 20), (50, 170)], (0.9, 0.8))
    wanted = (1 + math.exp(-(20**2) / (2 * 100 * 200 * 0.2**2))) / 2
    assert overlap(usual, moved) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ('score', 'other_score', 'wanted'),
    [
        ((0.9, 0.9), (0.9, 0.2), 0.5),  # one is lost
        ((0.9, 0.9), (0.0, 0.0), 0),
        ((0.9, 0.2), (0.9, 0.9), 1),  # one that the reference did not find does not count
        ((0.2, 0.2), (0.9, 0.2), 1),  # by their boxes, because there is nothing else
    ],
)
def test_key_points_count_that_the_reference_found_and_the_other_has_to_find_them(score, other_score, wanted):
    assert overlap(person(POINTS, score), person(POINTS, other_score)) == wanted


def test_persons_without_key_points_are_compared_by_their_boxes():
    one, two = person(POINTS, (0, 0)), person(POINTS, (0.9, 0.9), box=(0, 0, 100, 100))
    assert overlap(one, two) == 0.5
    # A score of 0 says that there is none, whatever is asked for.
    assert pose_overlap(one, two, sigmas=SIGMAS, keypoint_threshold=0) == 0.5


def counts_of(*pairs):
    counts = ClassCounts()
    for one, two in pairs:
        whole_picture = np.ones(one.shape, bool)
        counts.add(one, two, known=whole_picture, answered=whole_picture)
    return counts


def test_no_picture_has_no_pixels():
    counts = ClassCounts()
    assert (counts.pixels, counts.equal, len(counts.iou())) == (0, 0, 0)


def test_overlaps_of_classes_are_those_of_all_pictures_together():
    one = np.array([[0, 0, 5], [5, 5, 7]], np.uint8), np.array([[0, 5]], np.uint8)
    two = np.array([[0, 5, 5], [5, 9, 7]], np.uint8), np.array([[0, 0]], np.uint8)
    counts = counts_of(*zip(one, two))
    assert (counts.pixels, counts.equal) == (8, 5)
    # 0: 2 of 4, 5: 2 of 5, 7: 1 of 1, 9: 0 of 1
    np.testing.assert_allclose(counts.iou(), [2 / 4, 2 / 5, 1, 0])


@given(st.integers(0, 999))
def test_they_are_those_of_the_confusion_matrix(seed):
    random = np.random.default_rng(seed)
    one, two = random.integers(0, 4, (2, 6, 7), np.uint8)
    matrix = np.zeros((4, 4))
    np.add.at(matrix, (one, two), 1)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    np.testing.assert_allclose(counts_of((one, two)).iou(), (np.diag(matrix) / union)[union > 0])


def test_pixels_that_nobody_knows_do_not_count_and_silence_is_no_class():
    one, two = np.array([[1, 1, 2]], np.uint8), np.array([[1, 8, 9]], np.uint8)
    counts = ClassCounts()
    counts.add(one, two, known=np.array([[True, True, False]]), answered=np.array([[True, False, True]]))
    assert (counts.pixels, counts.equal) == (2, 1)
    np.testing.assert_array_equal(counts.iou(), [0.5])


def test_the_highest_number_is_no_class_but_of_models_that_have_so_many():
    labels = np.array([[0, 255]], np.uint8)
    assert is_seen(labels, 21).tolist() == [[True, False]]
    assert is_seen(labels, 255).tolist() == [[True, False]]
    assert is_seen(labels, 256).tolist() == [[True, True]]
    assert is_seen(labels.astype(np.uint16), 300).tolist() == [[True, True]]


def test_classes_of_stray_pixels_can_be_left_out():
    reference, other = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    other[0, :3], reference[1, 0], reference[50:], other[60:] = (1, 2, 3), 4, 5, 5
    counts = ClassCounts()
    everywhere = np.ones(reference.shape, bool)
    counts.add(reference, other, known=everywhere, answered=everywhere)
    assert len(counts.iou()) == 6 and counts.iou().mean() < 0.4
    np.testing.assert_allclose(counts.iou(0.001), [4996 / 6000, 0.8], atol=1e-3)
