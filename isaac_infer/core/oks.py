"""OKS: object key point similarity, how well key points lie where they should, as COCO measures it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Spread of human annotations per joint, in units of the square root of the object's area:
# `kpt_oks_sigmas` of pycocotools, and of COCO-WholeBody for feet and hands.
_SIGMAS = {
    'nose': 0.026, 'eye': 0.025, 'ear': 0.035, 'shoulder': 0.079, 'elbow': 0.072, 'wrist': 0.062,
    'hip': 0.107, 'knee': 0.087, 'ankle': 0.089, 'neck': 0.079, 'thorax': 0.079, 'pelvis': 0.107,
    'head': 0.035, 'toe': 0.067, 'heel': 0.066, 'thumb': 0.036, 'finger': 0.025,
}  # fmt: skip
OTHER_SIGMA = 0.072  # of a joint that nobody measured: about the mean of COCO's
_EPSILON = float(np.spacing(1))


def sigmas_of(keypoints: Sequence[str]) -> np.ndarray:
    """How far each key point may be off, by the joint that its name speaks of: (K,) float64."""
    return np.array(
        [
            next((value for joint, value in _SIGMAS.items() if joint in _words(name)), OTHER_SIGMA)
            for name in keypoints
        ]
    )


def _words(name: str) -> list[str]:
    return ''.join(character if character.isalpha() else ' ' for character in name.lower()).split()


def object_keypoint_similarity(
    xy: np.ndarray,
    reference_xy: np.ndarray,
    reference_visible: np.ndarray,
    reference_area: np.ndarray,
    *,
    sigmas: np.ndarray,
    reference_xyxy: np.ndarray | None = None,
) -> np.ndarray:
    """Compare the key points of every person with those of every person of a reference.

    Args:
        xy: (N, K, 2) key points, pixels.
        reference_xy: (M, K, 2) where they should be, pixels.
        reference_visible: (M, K), above 0: annotated; the others do not count.
        reference_area: (M,) of the persons, square pixels.
        sigmas: (K,) see `sigmas_of`.
        reference_xyxy: (M, 4) boxes of the persons. A person without any annotated key point is compared by
            how far points lie outside its box, doubled, as pycocotools does; without boxes, that is 0.

    Returns:
        (N, M) float64, 0..1; 1: all in place.
    """
    offset = xy[:, None].astype(np.float64) - reference_xy[None]  # (N, M, K, 2)
    counts = np.asarray(reference_visible > 0)  # (M, K)
    annotated = np.asarray(counts.any(axis=1))
    if reference_xyxy is not None and not annotated.all():
        left_top, right_bottom = (
            reference_xyxy[:, None, :2].astype(np.float64),
            reference_xyxy[:, None, 2:].astype(np.float64),
        )
        size = right_bottom - left_top
        below, above = left_top - size, left_top + 2 * size
        outside = np.maximum(0, below - xy[:, None]) + np.maximum(0, xy[:, None] - above)
        offset = np.where(annotated[None, :, None, None], offset, outside)
    counts = counts | (~annotated[:, None] & (reference_xyxy is not None))
    spread = (2 * np.asarray(sigmas, np.float64)) ** 2 * 2 * (reference_area[:, None] + _EPSILON)  # (M, K)
    similar = np.exp(-(offset**2).sum(axis=3) / spread) * counts
    number: np.ndarray = np.maximum(counts.sum(axis=1), 1)
    return np.asarray(similar.sum(axis=2) / number)
