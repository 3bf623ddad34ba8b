"""Matching: which objects of one result are those of another, and how well two ways of finding agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from isaac_infer.core.boxes import box_iou
from isaac_infer.core.results import Detections

_BELOW_ONE = float(np.nextafter(1, 0))


@dataclass(frozen=True)
class Matches:
    """Pairs of objects of two results, best overlap first; an object is in one pair at most."""

    reference: np.ndarray  # (M,) intp, rows of the reference
    other: np.ndarray  # (M,) intp, rows of the other result
    iou: np.ndarray  # (M,) float64, overlap of each pair

    def __len__(self) -> int:
        return len(self.iou)


@dataclass(frozen=True)
class Agreement:
    """How much of what a reference found was found again, over any number of pictures.

    Means and worsts are over the pairs; None where there is no pair.
    """

    expected: int  # objects of the reference
    found: int  # of them found again
    extra: int  # objects that the reference does not have
    mean_iou: float | None
    worst_iou: float | None
    mean_score_difference: float | None  # without sign
    worst_score_difference: float | None

    @property
    def share(self) -> float | None:
        """Found again, of what the reference found; None where it found nothing."""
        return self.found / self.expected if self.expected else None

    @property
    def extra_share(self) -> float | None:
        """Extra objects per object of the reference; None where it found nothing."""
        return self.extra / self.expected if self.expected else None


def match_detections(reference: Detections, other: Detections, *, iou_threshold: float) -> Matches:
    """Pair the objects of two results of one picture: same class, best overlap of their boxes first.

    Rotated boxes are compared by the upright boxes around them. Which result is the reference does not change
    the pairs.

    Args:
        reference: what was found.
        other: what was found in another way.
        iou_threshold: intersection over union that a pair has at least.
    """
    return match(reference, other, box_overlap(reference, other), threshold=iou_threshold)


def box_overlap(reference: Detections, other: Detections) -> np.ndarray:
    """Intersection over union of every box with every other: (N, M) float64; 1 where they are equal only."""
    xyxy, other_xyxy = reference.xyxy.astype(np.float64), other.xyxy.astype(np.float64)
    is_same = (xyxy[:, None] == other_xyxy[None]).all(axis=2)
    iou = np.minimum(box_iou(xyxy, other_xyxy), _BELOW_ONE)  # of nearly equal ones rounding makes it 1
    return np.where(is_same, 1.0, iou)  # also of boxes without area


def match(reference: Detections, other: Detections, overlap: np.ndarray, *, threshold: float) -> Matches:
    """Pair the objects of two results of one picture: same class, best overlap first.

    Args:
        reference: what was found.
        other: what was found in another way.
        overlap: (N, M) float64, 0..1, of each object of the reference with each of the other result.
        threshold: overlap that a pair has at least.
    """
    is_pair = (reference.class_id[:, None] == other.class_id[None]) & (overlap >= threshold)
    row, column = np.nonzero(is_pair)
    difference = np.abs(reference.score[row].astype(np.float64) - other.score[column])
    # Equal overlaps are told apart by what does not depend on which of the two is the reference.
    order = np.lexsort((np.abs(row - column), row + column, difference, -overlap[row, column]))
    is_free, is_other_free = np.ones(len(reference), bool), np.ones(len(other), bool)
    kept = []
    for at in order.tolist():
        if is_free[row[at]] and is_other_free[column[at]]:
            is_free[row[at]] = is_other_free[column[at]] = False
            kept.append(at)
    pairs = np.array(kept, np.intp)
    return Matches(row[pairs], column[pairs], overlap[row[pairs], column[pairs]])


class Tally:
    """How well the objects of one picture after the other agree with those of the reference."""

    def __init__(self) -> None:
        self._expected = self._others = 0
        self._iou: list[float] = []
        self._difference: list[float] = []  # of scores

    def add(self, reference: Detections, other: Detections, matches: Matches) -> None:
        """Count the objects of one picture."""
        self._expected += len(reference)
        self._others += len(other)
        self._iou += matches.iou.tolist()
        scores = reference.score[matches.reference].astype(np.float64)
        self._difference += np.abs(scores - other.score[matches.other]).tolist()

    def agreement(self) -> Agreement:
        """Sum up all pictures."""
        iou, difference = self._iou, self._difference
        return Agreement(
            expected=self._expected,
            found=len(iou),
            extra=self._others - len(iou),
            mean_iou=float(np.mean(iou)) if iou else None,
            worst_iou=min(iou, default=None),
            mean_score_difference=float(np.mean(difference)) if iou else None,
            worst_score_difference=max(difference, default=None),
        )


def agreement(pairs: Iterable[tuple[Detections, Detections]], *, iou_threshold: float) -> Agreement:
    """Sum up how well results agree with the reference's.

    Args:
        pairs: per picture, what the reference found and what was found in another way.
        iou_threshold: see `match_detections`.
    """
    tally = Tally()
    for reference, other in pairs:
        tally.add(reference, other, match_detections(reference, other, iou_threshold=iou_threshold))
    return tally.agreement()
