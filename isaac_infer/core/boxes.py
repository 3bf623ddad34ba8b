"""Boxes: conversions, overlap and non-maximum suppression."""

from __future__ import annotations

import cv2
import numpy as np


def xyxy_from_cxcywh(boxes: np.ndarray) -> np.ndarray:
    """Turn (N, 4) centre x, y, width, height into left, top, right, bottom."""
    half = boxes[:, 2:4] * 0.5
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def clip_boxes(xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Clip (N, 4) boxes to a picture of this height and width, in place, and return them."""
    height, width = size_hw
    np.clip(xyxy[:, 0::2], 0, width, out=xyxy[:, 0::2])
    np.clip(xyxy[:, 1::2], 0, height, out=xyxy[:, 1::2])
    return xyxy


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
        boxes[:, :2] += (class_id * extent)[:, None]
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
    if len(rotated) == 0:
        return np.empty(0, np.intp)
    centres = rotated[:, :2].astype(np.float64)
    if class_id is not None:
        extent = 1.0 + float(np.abs(rotated[:, :4]).max()) * 4.0
        centres[:, 0] += class_id * extent
    degrees = np.degrees(rotated[:, 4])
    boxes = [
        ((x, y), (width, height), angle)
        for (x, y), (width, height), angle in zip(
            centres.tolist(), rotated[:, 2:4].tolist(), degrees.tolist()
        )
    ]
    kept = cv2.dnn.NMSBoxesRotated(boxes, score.tolist(), 0.0, iou_threshold)
    return np.asarray(kept, np.intp).reshape(-1)


def xyxy_from_rotated(rotated: np.ndarray) -> np.ndarray:
    """The upright boxes around (N, 5) centre x, y, width, height, angle in radians: (N, 4)."""
    cos, sin = np.abs(np.cos(rotated[:, 4])), np.abs(np.sin(rotated[:, 4]))
    width, height = rotated[:, 2], rotated[:, 3]
    half = np.column_stack((width * cos + height * sin, width * sin + height * cos)) * 0.5
    return np.concatenate((rotated[:, :2] - half, rotated[:, :2] + half), axis=1)
