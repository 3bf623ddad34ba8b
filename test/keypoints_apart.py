"""How far the key points of two pipelines lie apart, in source pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import match_detections
from isaac_infer.core.pipeline import Pipeline


def keypoints_apart(reference: Pipeline, other: Pipeline, frames: Iterable[Frame]) -> np.ndarray:
    """Distances (N,) of the key points that the reference finds in all the frames.

    No person of whom it is sure may be missing.
    """
    apart = []
    for frame in frames:
        one, two = reference(frame), other(frame)
        pairs = match_detections(one.persons, two.persons, iou_threshold=0.5)
        assert len(pairs) >= np.count_nonzero(one.persons.score > 0.35), 'a person is missing'
        is_found = one.score[pairs.reference] >= reference.limits.keypoint_threshold
        apart.append(np.linalg.norm(one.xy[pairs.reference] - two.xy[pairs.other], axis=2)[is_found])
    return np.concatenate(apart)
