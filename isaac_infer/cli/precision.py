"""Precision: average precision of boxes, masks and key points, COCO's metric."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isaac_infer.core.errors import ParameterError

# What is customary for average precision: nearly every answer counts, down to the least sure one.
CUSTOMARY = {'confidence_threshold': 0.001, 'nms_threshold': 0.7, 'max_detections': 100}


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of one class."""

    name: str
    objects: int
    ap50: float
    ap50_95: float


def average_precision(
    pictures: Sequence[int],
    truth: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    *,
    class_names: Sequence[str],
    iou_type: str = 'bbox',
    sigmas: np.ndarray | None = None,
) -> list[ClassPrecision]:
    """Score answers with COCO's metric, class by class; classes without any object are left out.

    Args:
        pictures: image_id of all pictures.
        truth: what is in them.
        answers: what was found in them, with scores.
        class_names: by category_id.
        iou_type: what is compared: `bbox`, `segm` or `keypoints`.
        sigmas: (K,) how far each key point may be off, see `oks.sigmas_of`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        wanted = COCO()
        wanted.dataset = {
            'images': [
                {'id': number, 'height': 0, 'width': 0} for number in pictures
            ],  # masks know their own
            'categories': [{'id': index, 'name': name} for index, name in enumerate(class_names)],
            'annotations': [{**entry, 'id': number} for number, entry in enumerate(truth, 1)],
        }
        wanted.createIndex()
        given = COCO()
        given.dataset = {
            **wanted.dataset,
            'annotations': [{**entry, 'id': number} for number, entry in enumerate(answers, 1)],
        }
        given.createIndex()
        judge = COCOeval(wanted, given, iou_type)
        if sigmas is not None:
            judge.params.kpt_oks_sigmas = sigmas
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval['precision'][:, :, :, 0, -1]  # (IoU, recall, class), of all sizes; -1: no objects
    counted = [entry['category_id'] for entry in truth if not _is_ignored(entry, iou_type)]
    counts = np.bincount(np.array(counted, int), minlength=len(class_names))
    return [
        ClassPrecision(
            name, int(count), float(precision[0, :, index].mean()), float(precision[:, :, index].mean())
        )
        for index, (name, count) in enumerate(zip(class_names, counts, strict=True))
        if count
    ]


def _is_ignored(entry: dict[str, Any], iou_type: str) -> bool:
    return bool(entry['iscrowd'] or (iou_type == 'keypoints' and not entry['num_keypoints']))


def coco_entries(
    image_id: int, class_id: np.ndarray, xyxy: np.ndarray, score: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Boxes of one picture in COCO's form; those of a negative class are left out."""
    scores = np.ones(len(xyxy)) if score is None else score
    return [
        {
            'image_id': image_id,
            'category_id': category,
            'bbox': [left, top, right - left, bottom - top],
            'area': (right - left) * (bottom - top),
            'iscrowd': 0,
            'score': sure,
        }
        for category, (left, top, right, bottom), sure in zip(
            class_id.tolist(), xyxy.tolist(), scores.tolist(), strict=True
        )
        if category >= 0
    ]


def require_pycocotools(who: str) -> None:
    """See that average precisions can be computed.

    Raises:
        ParameterError: pycocotools is not there, or was built for another NumPy.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except (ImportError, ValueError) as error:
        raise ParameterError(
            f'{who} needs pycocotools ({error}); install it: pip install pycocotools'
        ) from error
