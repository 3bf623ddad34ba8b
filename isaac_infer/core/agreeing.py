"""Agreeing: how alike the results of two models are, picture by picture, for each kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np

from isaac_infer.core.decode.semantic import SemanticDecoder
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.matching import Agreement, Tally, box_overlap, match
from isaac_infer.core.metrics import ClassCounts, is_seen, mask_overlap, pose_overlap
from isaac_infer.core.oks import sigmas_of
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.results import Detections, Segmentation
from isaac_infer.core.spec import ModelSpec


class Agreeing(Protocol):
    """Takes two results of one picture after the other."""

    def add(self, reference: Any, other: Any) -> None:
        """Compare two results of one picture."""

    def agreement(self) -> Agreement:
        """Sum up all pictures."""


def kind_of(spec: ModelSpec) -> str:
    """What kind of answer a model gives, a key of AGREEING."""
    if spec.task == 'segmentation':
        is_semantic = isinstance(TASKS[spec.task].decoders[spec.decoder], SemanticDecoder)
        return 'pixels' if is_semantic else 'masks'
    return {'detection': 'boxes', 'pose': 'poses'}[spec.task]


class _Objects:
    """Pairs objects of one class by their overlap."""

    def __init__(
        self,
        overlap: Callable[[Any, Any], np.ndarray],
        objects: Callable[[Any], Detections],
        threshold: float,
    ) -> None:
        self._overlap, self._objects, self._threshold = overlap, objects, threshold
        self._tally = Tally()

    def add(self, reference: Any, other: Any) -> None:
        one, two = self._objects(reference), self._objects(other)
        matches = match(one, two, self._overlap(reference, other), threshold=self._threshold)
        self._tally.add(one, two, matches)

    def agreement(self) -> Agreement:
        return self._tally.agreement()


class Pixels:
    """Compares class maps: the overlaps are those of the classes over all pictures."""

    def __init__(self, reference: Pipeline, other: Pipeline, threshold: float) -> None:
        self._classes = reference.spec.num_classes, other.spec.num_classes
        self._counts = ClassCounts()

    def add(self, reference: Segmentation, other: Segmentation) -> None:
        one, two = reference.class_map, other.class_map
        assert one is not None and two is not None
        known, answered = is_seen(one, self._classes[0]), is_seen(two, self._classes[1])
        self._counts.add(one, two, known=known, answered=answered)

    def agreement(self, least_share: float = 0.0) -> Agreement:
        """Sum up all pictures; classes of a smaller share of the pixels count in no overlap."""
        iou = self._counts.iou(least_share)
        return Agreement(
            expected=self._counts.pixels,
            found=self._counts.equal,
            extra=0,
            mean_iou=float(iou.mean()) if len(iou) else None,
            worst_iou=float(iou.min()) if len(iou) else None,
            mean_score_difference=None,
            worst_score_difference=None,
        )


def _boxes(reference: Pipeline, other: Pipeline, threshold: float) -> Agreeing:
    return _Objects(box_overlap, lambda found: found, threshold)


def _masks(reference: Pipeline, other: Pipeline, threshold: float) -> Agreeing:
    return _Objects(mask_overlap, lambda found: found.objects, threshold)


def _poses(reference: Pipeline, other: Pipeline, threshold: float) -> Agreeing:
    names = reference.spec.keypoints
    if other.spec.keypoints != names:
        wanted, got = (', '.join(each) or 'none' for each in (names, other.spec.keypoints))
        raise ParameterError(f'keypoints: expected those of the first model, {wanted}, got {got}')
    least = reference.limits.keypoint_threshold
    overlap = partial(pose_overlap, sigmas=sigmas_of(names), keypoint_threshold=least)
    return _Objects(overlap, lambda found: found.persons, threshold)


# By kind of answer: begins to compare, given reference, other one, and the overlap that a pair has at least.
AGREEING: Mapping[str, Callable[[Pipeline, Pipeline, float], Agreeing]] = {
    'boxes': _boxes,
    'masks': _masks,
    'pixels': Pixels,
    'poses': _poses,
}
