"""Boxes: conversions, overlap and non-maximum suppression."""

from __future__ import annotations

import math

import cv2
import numpy as np

MANY_CLASSES = 10_000  # more would push boxes so far apart that they lose their precision


def xyxy_from_cxcywh(boxes: np.ndarray) -> np.ndarray:
    """Turn (N, 4) centre x, y, width, height into left, top, right, bottom."""
    columns = boxes.T  # NumPy is several times faster along many boxes than along four numbers
    centre, half = columns[:2], columns[2:4] * 0.5
    boxes_xyxy: np.ndarray = np.concatenate((centre - half, centre + half)).T
    return boxes_xyxy


def clip_boxes(xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Clip (N, 4) boxes to a picture of this height and width."""
    height, width = size_hw
    return np.asarray(np.clip(xyxy, 0, np.array((width, height, width, height), xyxy.dtype)))


def box_iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Overlap of every box of a (N, 4) with every box of b (M, 4): intersection over union, (N, M)."""
    top_left = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    bottom_right = np.minimum(a_xyxy[:, None, 2:4], b_xyxy[None, :, 2:4])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area_a = np.prod(a_xyxy[:, 2:4] - a_xyxy[:, :2], axis=1)
    area_b = np.prod(b_xyxy[:, 2:4] - b_xyxy[:, :2], axis=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    iou: np.ndarray = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return iou


def nms(
    xyxy: np.ndarray,
    score: np.ndarray,
    class_id: np.ndarray | None,
    *,
    iou_threshold: float,
    max_detections: int,
) -> np.ndarray:
    """Pick the boxes that no better-scored box overlaps by more than a threshold.

    Args:
        xyxy: (N, 4) boxes, finite.
        score: (N,) scores, above 0.
        class_id: (N,) classes: only boxes of one class suppress one another. None: all do.
        iou_threshold: intersection over union above which the lower-scored box goes.
        max_detections: how many boxes are kept at most.

    Returns:
        (K,) indices into the boxes, best score first.
    """
    if len(xyxy) == 0:
        return np.empty(0, np.intp)
    boxes = xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    if class_id is not None:
        # Far apart, boxes of different classes cannot overlap: one pass serves all classes.
        extent = 1.0 + float(np.abs(boxes[:, :2]).max() + boxes[:, 2:].max()) * 2.0
        rank = class_id if class_id.max() < MANY_CLASSES else np.unique(class_id, return_inverse=True)[1]
        boxes[:, :2] += (rank * extent)[:, None]
    # Lists, because OpenCV reads them three times faster here than arrays.
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), score.tolist(), 0.0, iou_threshold, top_k=0)
    return np.asarray(kept, np.intp).reshape(-1)[:max_detections]


def rotated_nms(
    rotated: np.ndarray, score: np.ndarray, class_id: np.ndarray | None, *, iou_threshold: float
) -> np.ndarray:
    """Pick the rotated boxes that no better-scored one overlaps by more than a threshold.

    Args:
        rotated: (N, 5) centre x, y, width, height, angle in radians; finite, sizes above 0.
        score: (N,) scores, above 0.
        class_id: (N,) classes: only boxes of one class suppress one another. None: all do.
        iou_threshold: intersection over union above which the lower-scored box goes.

    Returns:
        (K,) indices into the boxes, best score first.
    """
    boxes = rotated.astype(np.float64)
    upright, area = xyxy_from_rotated(boxes), boxes[:, 2] * boxes[:, 3]
    left = np.argsort(-score, kind='stable')
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        # Much smaller or larger boxes cannot overlap by more, and most others do not touch.
        is_rival = np.minimum(area[left], area[best]) > iou_threshold * np.maximum(area[left], area[best])
        is_rival &= (upright[left, :2] < upright[best, 2:]).all(axis=1)
        is_rival &= (upright[left, 2:] > upright[best, :2]).all(axis=1)
        if class_id is not None:
            is_rival &= class_id[left] == class_id[best]
        for at in np.flatnonzero(is_rival):
            is_rival[at] = _rotated_iou(boxes[best], boxes[left[at]]) > iou_threshold
        left = left[~is_rival]
    return np.array(kept, np.intp)


def _rotated_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two rotated boxes: (5,) centre x, y, width, height, angle."""
    # Around the first one's centre, because OpenCV reckons in single precision.
    x, y = (b[:2] - a[:2]).tolist()
    (width_a, height_a, angle_a), (width_b, height_b, angle_b) = a[2:].tolist(), b[2:].tolist()
    how, corners = cv2.rotatedRectangleIntersection(
        ((0.0, 0.0), (width_a, height_a), math.degrees(angle_a)),
        ((x, y), (width_b, height_b), math.degrees(angle_b)),
    )
    if how == cv2.INTERSECT_NONE or corners is None:
        return 0.0
    common = min(width_a * height_a, width_b * height_b)
    if how == cv2.INTERSECT_PARTIAL:
        common = min(common, float(cv2.contourArea(cv2.convexHull(corners))))
    iou: float = common / (width_a * height_a + width_b * height_b - common)
    return iou


def xyxy_from_rotated(rotated: np.ndarray) -> np.ndarray:
    """The upright boxes around (N, 5) centre x, y, width, height, angle in radians: (N, 4)."""
    cos, sin = np.abs(np.cos(rotated[:, 4])), np.abs(np.sin(rotated[:, 4]))
    width, height = rotated[:, 2], rotated[:, 3]
    half = np.column_stack((width * cos + height * sin, width * sin + height * cos)) * 0.5
    return np.concatenate((rotated[:, :2] - half, rotated[:, :2] + half), axis=1)
