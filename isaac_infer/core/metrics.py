"""Metrics: how well masks, class maps and key points of two results of one picture lie on one another."""

from __future__ import annotations

import numpy as np

from isaac_infer.core.matching import box_overlap
from isaac_infer.core.oks import object_keypoint_similarity
from isaac_infer.core.results import Poses, Segmentation, mask_box


def mask_overlap(reference: Segmentation, other: Segmentation) -> np.ndarray:
    """Intersection over union of every mask with every other of the same class: (N, M) float64.

    Masks without any pixel are compared by their boxes.
    """
    boxes = [
        np.array([mask_box(xyxy) for xyxy in result.objects.xyxy], np.intp).reshape(-1, 4)
        for result in (reference, other)
    ]
    areas = [np.array([np.count_nonzero(mask) for mask in result.masks]) for result in (reference, other)]
    left_top = np.maximum(boxes[0][:, None, :2], boxes[1][None, :, :2])
    right_bottom = np.minimum(boxes[0][:, None, 2:], boxes[1][None, :, 2:])
    touches = (right_bottom > left_top).all(axis=2)
    touches &= reference.objects.class_id[:, None] == other.objects.class_id[None]
    common = np.zeros(touches.shape)
    for row, column in np.argwhere(touches).tolist():
        left, top = left_top[row, column]
        right, bottom = right_bottom[row, column]
        parts = [
            result.masks[at][top - box[at, 1] : bottom - box[at, 1], left - box[at, 0] : right - box[at, 0]]
            for result, box, at in ((reference, boxes[0], row), (other, boxes[1], column))
        ]
        common[row, column] = np.count_nonzero(parts[0] & parts[1])
    union = areas[0][:, None] + areas[1][None] - common
    bare = box_overlap(reference.objects, other.objects)
    return np.where(union > 0, common / np.maximum(union, 1), bare)


def pose_overlap(
    reference: Poses, other: Poses, *, sigmas: np.ndarray, keypoint_threshold: float
) -> np.ndarray:
    """Similarity of the key points (OKS) of every person with those of every other: (N, M) float64.

    Those that the reference found count; one that the other result did not find is not where it should be.
    The area is that of the reference's box. Persons of which the reference found no key point are compared by
    their boxes.

    Args:
        reference: what was found.
        other: what was found in another way, with the same key points.
        sigmas: (K,) see `oks.sigmas_of`.
        keypoint_threshold: score from which a key point counts as found.
    """
    is_found = _is_found(reference, keypoint_threshold)
    xyxy = reference.persons.xyxy.astype(np.float64)
    similar = object_keypoint_similarity(
        np.where(_is_found(other, keypoint_threshold)[..., None], other.xy, np.inf),
        reference.xy,
        is_found,
        (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1),
        sigmas=sigmas,
    ).T
    has_points = np.asarray(is_found.any(axis=1))
    return np.where(has_points[:, None], similar, box_overlap(reference.persons, other.persons))


def _is_found(poses: Poses, threshold: float) -> np.ndarray:
    return np.asarray((poses.score >= threshold) & (poses.score > 0))


def is_seen(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Where a class map (H, W) has a class; what was cut off before the network has the highest number."""
    unseen = np.iinfo(class_map.dtype).max
    return np.ones(class_map.shape, bool) if num_classes > unseen else np.asarray(class_map != unseen)


class ClassCounts:
    """Pixels by class, over any number of class maps: what both say, what the one says, what the other does.

    These are the diagonal of the confusion matrix, the sums of its rows and the sums of its columns.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((3, 0), np.int64)

    def add(
        self, reference: np.ndarray, other: np.ndarray, *, known: np.ndarray, answered: np.ndarray
    ) -> None:
        """Count the pixels of one picture.

        Args:
            reference: (H, W) unsigned, the class of every pixel.
            other: (H, W) unsigned, what is compared with it.
            known: (H, W) bool, the pixels that are compared.
            answered: (H, W) bool, of which pixels the other says something; its silence is no class.
        """
        both_say = known & answered
        labels = (reference[both_say & (reference == other)], reference[known], other[both_say])
        added = [np.bincount(each) for each in labels]
        size = max(self._counts.shape[1], *map(len, added))
        total = np.zeros((3, size), np.int64)
        total[:, : self._counts.shape[1]] = self._counts
        for row, pixels in zip(total, added):
            row[: len(pixels)] += pixels
        self._counts = total

    @property
    def pixels(self) -> int:
        """All pixels that were compared."""
        return int(self._counts[1].sum())

    @property
    def equal(self) -> int:
        """Pixels of which both say the same."""
        return int(self._counts[0].sum())

    def classes(self) -> np.ndarray:
        """The classes that occur in one of them: (C,) intp."""
        return np.flatnonzero(self._counts.any(axis=0))

    def known(self) -> np.ndarray:
        """How many pixels the reference has of each class that occurs in one of them: (C,) int64."""
        return np.asarray(self._counts[1, self.classes()])

    def iou(self, least_share: float = 0.0) -> np.ndarray:
        """Intersection over union of each class that occurs in one of them: (C,) float64.

        Args:
            least_share: leave out those of which the reference has a smaller share of its pixels.
        """
        both, one, two = self._counts[:, self.classes()]
        counts = one >= least_share * self.pixels
        return np.asarray((both / (one + two - both))[counts])
