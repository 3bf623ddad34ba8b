"""Decoders: the outputs of a detection network to Detections, one decoder per output layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from isaac_infer.core.boxes import box_iou, clip_boxes, nms, rotated_nms, xyxy_from_cxcywh, xyxy_from_rotated
from isaac_infer.core.errors import SessionError, TensorError
from isaac_infer.core.fit import Fit, Size
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import Limits, ModelSpec

HIGHEST_SCORE = 1.01  # a probability, and what quantisation may add to it
MAX_PAIRS = 1 << 18  # of boxes that are compared, to find which share in which
FAR = 1e7  # pixels: a box beyond is everywhere, and would cost the small ones their precision
LOWEST_SCORE = float(np.finfo(np.float32).tiny)  # padding rows score 0 and never count


class Candidates(NamedTuple):
    """What a network says in one picture, as far as it passes the confidence threshold; in any order."""

    boxes: (
        np.ndarray
    )  # (N, 4) float32 in the spec's box unit: left, top, right, bottom; centre, size where rotated
    score: np.ndarray  # (N,) float32
    class_id: np.ndarray  # (N,) int32; negative: padding
    angle: np.ndarray | None = None  # (N,) float32, radians
    further: np.ndarray | None = None  # (N, K) float32: what else a row says, where the task asks for it


class Found(NamedTuple):
    """What a layout of detections says of a picture."""

    detections: Detections
    whole: np.ndarray  # (N, 4) float32, their boxes with what lies outside the picture
    further: np.ndarray | None  # (N, K) float32: what else the network says of each


Tensors = list[np.ndarray]  # the spec's outputs, in its order
Read = Callable[[Tensors, ModelSpec, Limits], Candidates]


# ---- boxes that score nearly the same ------------------------------------------------------------


class Shares(NamedTuple):
    """Which suppressed candidates share in which answered boxes; those themselves weigh 1."""

    of: np.ndarray  # (P,) intp, the answered box
    candidate: np.ndarray  # (P,) intp
    weight: np.ndarray  # (P,) float32, 0..1

    def of_these(self, boxes: np.ndarray, count: int) -> Shares:
        """The shares in some of so many boxes, in their order."""
        place = np.full(count, -1)
        place[boxes] = np.arange(len(boxes))
        of = place[self.of]
        is_left = of >= 0
        return Shares(of[is_left], self.candidate[is_left], self.weight[is_left])


NO_SHARES = Shares(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32))
# From (N, K) values of the answered boxes, (P, K) of the candidates that share in them, and how they do.
Blend = Callable[[np.ndarray, np.ndarray, Shares], np.ndarray]


def _shares(
    boxes: np.ndarray,
    score: np.ndarray,
    class_id: np.ndarray,
    kept: np.ndarray,
    within: float,
    limits: Limits,
) -> Shares:
    """How much candidates share in the boxes that suppressed them, which score best first.

    One that scores as much weighs as much, one that scores lower by `within` nothing. So nothing jumps where
    rounding, or the next picture, has another one win. Where thousands are left, only the best are shared in.
    """
    kept = kept[: max(MAX_PAIRS // max(len(score), 1), 1)]
    behind = score[kept, None] - score
    is_near = (behind >= 0) & (behind < within)
    is_near[:, kept] = False
    near = np.flatnonzero(is_near.any(axis=0))
    if not len(near):
        return NO_SHARES
    suppresses = box_iou(boxes[kept], boxes[near]) > limits.nms_threshold
    if not limits.class_agnostic_nms:
        suppresses &= class_id[kept, None] == class_id[near]
    of = suppresses.argmax(axis=0)  # the first, which is the one that did it
    counts = suppresses.any(axis=0) & is_near[of, near]
    of, near = of[counts], near[counts]
    return Shares(of, near, (1 - behind[of, near] / within).astype(np.float32))


def blended(own: np.ndarray, others: np.ndarray, shares: Shares) -> np.ndarray:
    """The mean of what boxes say, by their weights; who says what is not finite has no part in it."""
    is_sound = np.isfinite(others).all(axis=1)
    of, weight = shares.of[is_sound], shares.weight[is_sound, None]
    return weighted_mean(own, np.ones((len(own), 1), np.float32), others[is_sound], weight, of)


def weighted_mean(
    own: np.ndarray, own_weight: np.ndarray, others: np.ndarray, weight: np.ndarray, of: np.ndarray
) -> np.ndarray:
    """Mean of each of (N, ...) and those of (P, ...) that `of` (P,) gives it; `own` where all weigh 0."""
    total, weights = own * own_weight, own_weight.copy()
    np.add.at(total, of, others * weight)
    np.add.at(weights, of, weight)
    mean = own.astype(np.float32)
    np.divide(total, weights, out=mean, where=weights > 0)
    return mean


# ---- a layout -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoder:
    """One output layout: called with a network's outputs, it gives the detections in source pixels."""

    description: str  # one line for people
    read: Read
    overlapping: bool  # whether non-maximum suppression is still to be done

    def __call__(
        self, outputs: Mapping[str, np.ndarray], fit: Fit, spec: ModelSpec, limits: Limits
    ) -> Detections:
        """Decode one picture; raises as `find`."""
        return self.find(outputs, fit, spec, limits).detections

    def find(
        self,
        outputs: Mapping[str, np.ndarray],
        fit: Fit,
        spec: ModelSpec,
        limits: Limits,
        *,
        blend: Blend = blended,
    ) -> Found:
        """Decode one picture: the detections, and what else the network says of each, row by row.

        Args:
            blend: how what else is said of boxes that share in one object becomes one.

        Raises:
            TensorError: an output is missing or has another shape than its layout asks for.
            SessionError: an output is not finite, or its scores or boxes are not in the unit expected.
        """
        try:
            tensors = [_as_numbers(outputs[name]) for name in spec.outputs]
        except KeyError as missing:
            raise TensorError(f'output {missing}: expected among the outputs, got {list(outputs)}') from None
        with np.errstate(over='ignore', invalid='ignore'):  # refused below instead
            found = self.read(tensors, spec, limits)
        if not np.isfinite(found.boxes).all():
            raise _not_finite(tensors, spec)
        detections, whole, rows, shares = _finish(found, fit, spec, limits, overlapping=self.overlapping)
        if found.further is None:
            return Found(detections, whole, None)
        further = found.further[rows]
        if len(shares.of):
            further = blend(further, found.further[shares.candidate], shares)
        return Found(detections, whole, further)


def _not_finite(tensors: Tensors, spec: ModelSpec) -> SessionError:
    broken = [name for name, tensor in zip(spec.outputs, tensors) if not np.isfinite(tensor).all()]
    return SessionError(
        f'{", ".join(broken or spec.outputs)}: expected finite boxes, got NaN or Inf; the model is broken, '
        'or its precision does not suffice'
    )


def _as_numbers(array: np.ndarray) -> np.ndarray:
    # NumPy has no vector instructions for half precision: widened once, everything after is ten times faster.
    widened: np.ndarray = array.astype(np.float32) if array.dtype == np.float16 else array
    return widened


# ---- the tail that all decoders share ------------------------------------------------------------


def _finish(
    found: Candidates, fit: Fit, spec: ModelSpec, limits: Limits, *, overlapping: bool
) -> tuple[Detections, np.ndarray, np.ndarray, Shares]:
    """Class filter, top candidates, suppression, source pixels, clip.

    Returns:
        What is left, its boxes before they are clipped, which rows they are, and who shares in them.
    """
    boxes, score, class_id, angle, _ = found
    boxes = np.clip(boxes, -FAR, FAR).astype(np.float32, copy=False)
    score = score.astype(np.float32, copy=False)
    size = boxes[:, 2:] if angle is not None else boxes[:, 2:] - boxes[:, :2]
    counts = (size > 0).all(axis=1) & (class_id >= 0)
    if limits.class_ids:
        counts &= np.isin(class_id, list(limits.class_ids))
    rows = np.flatnonzero(counts)
    if len(rows) > limits.max_candidates or not overlapping:  # suppression sorts by itself
        rows = rows[np.argsort(-score[rows], kind='stable')[: limits.max_candidates]]
    boxes, score, class_id = boxes[rows], score[rows], class_id[rows]
    _check_unit(boxes, spec)
    if spec.box_unit == 'normalised':
        height, width = spec.image.size_hw
        boxes = boxes * np.array((width, height, width, height), np.float32)
    if angle is not None:
        rotated = np.column_stack((boxes, angle[rows]))
        turned, whole, kept = _finish_rotated(rotated, score, class_id, fit, limits, overlapping=overlapping)
        return turned, whole, rows[kept], NO_SHARES
    kept, shares = np.arange(len(rows)), NO_SHARES
    if overlapping:
        kept = nms(
            boxes,
            score,
            None if limits.class_agnostic_nms else class_id,
            iou_threshold=limits.nms_threshold,
            max_detections=len(boxes),  # cut below, when the boxes that lie in the padding are gone
        )
    whole = fit.to_source(boxes[kept])
    xyxy = clip_boxes(whole, fit.source_hw)
    seen = np.flatnonzero((xyxy[:, 2:] > xyxy[:, :2]).all(axis=1))[: limits.max_detections]
    whole, xyxy, best = whole[seen], xyxy[seen], kept[seen]
    if overlapping and spec.box_blend:
        shares = _shares(boxes, score, class_id, kept, spec.box_blend, limits).of_these(seen, len(kept))
        mean = fit.to_source(blended(boxes[best], boxes[shares.candidate], shares))
        mean_xyxy = clip_boxes(mean, fit.source_hw)
        is_seen = (mean_xyxy[:, 2:] > mean_xyxy[:, :2]).all(axis=1, keepdims=True)
        whole, xyxy = np.where(is_seen, mean, whole), np.where(is_seen, mean_xyxy, xyxy)
        shares = shares._replace(candidate=rows[shares.candidate])
    return Detections(xyxy, np.minimum(score[best], 1), class_id[best]), whole, rows[best], shares


def _finish_rotated(
    rotated: np.ndarray,
    score: np.ndarray,
    class_id: np.ndarray,
    fit: Fit,
    limits: Limits,
    *,
    overlapping: bool,
) -> tuple[Detections, np.ndarray, np.ndarray]:
    kept = np.arange(len(rotated))
    if overlapping:
        kept = rotated_nms(
            rotated,
            score,
            None if limits.class_agnostic_nms else class_id,
            iou_threshold=limits.nms_threshold,
        )
        rotated, score, class_id = rotated[kept], score[kept], class_id[kept]
    source = _rotated_to_source(rotated, fit)
    whole = xyxy_from_rotated(source)
    xyxy = clip_boxes(whole, fit.source_hw)
    seen = np.flatnonzero((xyxy[:, 2:] > xyxy[:, :2]).all(axis=1))[: limits.max_detections]
    found = Detections(xyxy[seen], np.minimum(score[seen], 1), class_id[seen], source[seen])
    return found, whole[seen], kept[seen]


def _rotated_to_source(rotated: np.ndarray, fit: Fit) -> np.ndarray:
    """Map (N, 5) centre, size, angle; where x and y scale differently, the width's edge gives the angle."""
    scale_x, scale_y = fit.scale_xy
    width, height, angle = rotated[:, 2], rotated[:, 3], rotated[:, 4]
    cos, sin = np.cos(angle), np.sin(angle)
    along_x, along_y = width * cos / scale_x, width * sin / scale_y
    across = np.hypot(height * sin / scale_x, height * cos / scale_y)
    # Equal scales leave the angle as the network gave it, instead of folding it into -pi..pi.
    turned = angle if scale_x == scale_y else angle + _turn(cos, sin, along_x, along_y)
    source = np.column_stack((fit.to_source(rotated[:, :2]), np.hypot(along_x, along_y), across, turned))
    return np.asarray(source, np.float32)


def _turn(from_x: np.ndarray, from_y: np.ndarray, to_x: np.ndarray, to_y: np.ndarray) -> np.ndarray:
    turn: np.ndarray = np.arctan2(from_x * to_y - from_y * to_x, from_x * to_x + from_y * to_y)
    return turn


def _check_unit(boxes: np.ndarray, spec: ModelSpec) -> None:
    """Refuse boxes in the wrong unit, which would all lie in one corner, or all fill the picture.

    Only where nothing else has settled the unit: the one object of a picture may well be tiny, in the corner.
    """
    if not len(boxes) or 'box_unit' not in spec.unsettled:
        return
    extent = np.abs(boxes)
    if spec.box_unit == 'pixels' and extent.max() <= LARGEST_NORMALISED:
        wrong, right = f'all lie within {extent.max():.2f} pixels', 'normalised'
    elif spec.box_unit == 'normalised' and (least := extent.max(axis=1).min()) > LARGEST_NORMALISED:
        wrong, right = f'reach {least:.1f} times the picture and more', 'pixels'
    else:
        return
    raise SessionError(
        f'{spec.outputs[0]}: expected boxes in {spec.box_unit} coordinates, but they {wrong}; '
        f'set box_unit to {right}'
        + (', or decoder to tf_ssd if they begin with the top' if _may_be_tensorflow(spec) else '')
    )


def _may_be_tensorflow(spec: ModelSpec) -> bool:
    return spec.decoder == 'efficient_nms' and any(
        name.startswith('detection_boxes') for name in spec.outputs
    )


LARGEST_NORMALISED = (
    2.0  # 0..1, and boxes that reach far outside the picture; as pixels it would be no object
)


# ---- scores and shapes ---------------------------------------------------------------------------


def _rows_above(score: np.ndarray, limits: Limits, name: str) -> np.ndarray:
    """Give the indices of the scores that pass the threshold; refuse what is not a probability."""
    highest = score.max(initial=0)  # NaN survives max
    if not highest <= HIGHEST_SCORE:  # written so that NaN fails too
        raise SessionError(f'{name}: expected scores from 0 to 1, got {highest}')
    return np.flatnonzero(score >= _least_score(limits))


def _least_score(limits: Limits) -> float:
    """The lowest score that counts: above 0, but for a threshold below 0, which lets everything through."""
    return limits.confidence_threshold or LOWEST_SCORE


def _best_above(scores: np.ndarray, limits: Limits, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of (N, nc) scores pass the threshold by their best class: row, score and class of each."""
    best = scores.max(axis=1)
    at = _rows_above(best, limits, name)
    return at, best[at], scores[at].argmax(axis=1).astype(np.int32)


def _best_class(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of (N, nc) scores: (N,) score, (N,) class."""
    best = scores.argmax(axis=1)
    return scores[np.arange(len(scores)), best], best.astype(np.int32)


def _logit(probability: float) -> float:
    """The logit whose sigmoid this is; of the ends, the logits that no float reaches."""
    if probability <= 0:
        return -np.inf
    return float(np.log(probability / (1 - probability))) if probability < 1 else np.inf


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # never overflows


def _expect(array: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    """Raise TensorError where the shape is another one; -1 stands for any length."""
    if array.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, array.shape)):
        wanted = ', '.join('?' if length < 0 else str(length) for length in shape)
        raise TensorError(f'{name}: expected shape [{wanted}], got {list(array.shape)}')


def _box_rows(array: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """View [1, A, row] or [1, row, A] as (A, row)."""
    turned = array.ndim == 3 and array.shape[:2] == (1, spec.row_length)
    if not turned:
        _expect(array, spec.outputs[0], (1, -1, spec.row_length))
    rows: np.ndarray = array[0]
    return rows.T if turned else rows


# ---- layouts -------------------------------------------------------------------------------------


def _read_ultralytics(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """cx, cy, w, h, then the class scores."""
    rows = _box_rows(tensors[0], spec)
    at, score, class_id = _best_above(rows[:, 4 : 4 + spec.num_classes], limits, spec.outputs[0])
    further = _further(rows, at, 4 + spec.num_classes, spec)
    return Candidates(xyxy_from_cxcywh(rows[at, :4]), score, class_id, further=further)


def _further(rows: np.ndarray, at: np.ndarray, first: int, spec: ModelSpec) -> np.ndarray | None:
    """What a row says behind its box and scores: mask coefficients, or key points."""
    return None if spec.task == 'detection' else rows[at, first:].astype(np.float32, copy=False)


def _numbers(at: np.ndarray, spec: ModelSpec) -> np.ndarray | None:
    """Which row each candidate was: its mask lies there, in a tensor of its own."""
    return None if spec.task == 'detection' else at[:, None].astype(np.float32)


def _read_ultralytics_best(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """cx, cy, w, h, then the best score and its class."""
    rows = _box_rows(tensors[0], spec)
    at = _rows_above(rows[:, 4], limits, spec.outputs[0])
    return Candidates(xyxy_from_cxcywh(rows[at, :4]), rows[at, 4], rows[at, 5].astype(np.int32))


def _read_obb(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """cx, cy, w, h, the class scores, then the angle."""
    rows = _box_rows(tensors[0], spec)
    at, score, class_id = _best_above(rows[:, 4 : 4 + spec.num_classes], limits, spec.outputs[0])
    return Candidates(rows[at, :4], score, class_id, _finite(rows[at, -1], spec.outputs[0]))


def _read_yolov5(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """cx, cy, w, h, objectness, then the class scores."""
    rows = _box_rows(tensors[0], spec)
    return _objectness_rows(rows[_rows_above(rows[:, 4], limits, spec.outputs[0])], spec, limits)


def _read_yolov7(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """As YOLOv5, but a single class is not scored: its objectness is the score."""
    rows = _box_rows(tensors[0], spec)
    rows = rows[_rows_above(rows[:, 4], limits, spec.outputs[0])]
    if spec.num_classes > 1:
        return _objectness_rows(rows, spec, limits)
    return Candidates(xyxy_from_cxcywh(rows[:, :4]), rows[:, 4], np.zeros(len(rows), np.int32))


def _read_yolox(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """As YOLOv5, but the boxes are offsets in a grid of cells."""
    rows = _box_rows(tensors[0], spec)
    cells = grid_cells(spec.image.size_hw, spec.strides)
    _expect(rows, spec.outputs[0], (len(cells), spec.row_length))
    at = _rows_above(rows[:, 4], limits, spec.outputs[0])
    rows, cells = rows[at], cells[at]
    stride = cells[:, 2:]
    centres = (rows[:, :2] + cells[:, :2]) * stride
    boxes = np.concatenate((centres, np.exp(rows[:, 2:4]) * stride), axis=1)
    return _objectness_rows(np.concatenate((boxes, rows[:, 4:]), axis=1), spec, limits)


def _objectness_rows(rows: np.ndarray, spec: ModelSpec, limits: Limits) -> Candidates:
    score, class_id = _best_class(rows[:, 5 : 5 + spec.num_classes])
    score = score * rows[:, 4]
    at = _rows_above(score, limits, spec.outputs[0])
    further = _further(rows, at, 5 + spec.num_classes, spec)
    return Candidates(xyxy_from_cxcywh(rows[at, :4]), score[at], class_id[at], further=further)


def _read_heads_v5(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Raw anchor heads of YOLOv5 and v7: centres within two cells, sizes up to four anchors."""

    def boxes(raw: np.ndarray, cells: np.ndarray, anchors: np.ndarray, stride: np.ndarray) -> np.ndarray:
        near = _sigmoid(raw) * 2
        return np.concatenate(((near[:, :2] - 0.5 + cells) * stride, near[:, 2:] ** 2 * anchors), axis=1)

    return _read_heads(tensors, spec, limits, boxes)


def _read_heads_v3(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Raw anchor heads of YOLOv3: centres within one cell, exponential sizes."""

    def boxes(raw: np.ndarray, cells: np.ndarray, anchors: np.ndarray, stride: np.ndarray) -> np.ndarray:
        centres = (_sigmoid(raw[:, :2]) + cells) * stride
        return np.concatenate((centres, np.exp(raw[:, 2:]) * anchors), axis=1)

    return _read_heads(tensors, spec, limits, boxes)


# How far YOLOv4's centres reach beyond their cell: scale_x_y of its published configurations, by stride.
_SCALE_XY = {8: 1.2, 16: 1.1, 32: 1.05}


def _read_heads_v4(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """As YOLOv3, but centres reach a little beyond their cell."""
    is_tiny = len(spec.strides) < len(_SCALE_XY)

    def boxes(raw: np.ndarray, cells: np.ndarray, anchors: np.ndarray, stride: np.ndarray) -> np.ndarray:
        scale_xy = 1.05 if is_tiny else _SCALE_XY.get(int(stride), 1.0)
        near = _sigmoid(raw[:, :2]) * scale_xy - (scale_xy - 1) / 2
        return np.concatenate(((near + cells) * stride, np.exp(raw[:, 2:]) * anchors), axis=1)

    return _read_heads(tensors, spec, limits, boxes)


def _read_heads(
    tensors: Tensors,
    spec: ModelSpec,
    limits: Limits,
    boxes_of: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Candidates:
    found = []
    least = _logit(_least_score(limits))
    levels = zip(tensors, spec.outputs, spec.strides, spec.anchors)
    for tensor, name, stride, anchors in levels:
        head = anchor_head(tensor, name, stride, spec)  # (anchors, rows, columns, row)
        objectness = head[..., 4]
        if not objectness.max() < np.inf:  # written so that NaN fails too
            raise _not_finite(tensors, spec)
        anchor, row, column = np.nonzero(objectness >= least)
        raw = head[anchor, row, column].astype(np.float32)
        sizes = np.array(anchors, np.float32)[anchor]
        cells = np.column_stack((column, row)).astype(np.float32)
        boxes = boxes_of(raw[:, :4], cells, sizes, np.float32(stride))
        found.append(np.concatenate((boxes, _sigmoid(raw[:, 4:])), axis=1))
    rows = np.concatenate(found)
    return _objectness_rows(rows, spec, limits)


def anchor_head(tensor: np.ndarray, name: str, stride: int, spec: ModelSpec) -> np.ndarray:
    """View one level of an anchor head, in any order of its axes, as (anchors, rows, columns, row)."""
    height, width = (-(-length // stride) for length in spec.image.size_hw)
    anchors, row = len(spec.anchors[0]), spec.row_length
    layouts = {
        (1, anchors, height, width, row): ((anchors, height, width, row), (0, 1, 2, 3)),
        (1, height, width, anchors, row): ((height, width, anchors, row), (2, 0, 1, 3)),
        (1, anchors * row, height, width): ((anchors, row, height, width), (0, 2, 3, 1)),
        (1, height, width, anchors * row): ((height, width, anchors, row), (2, 0, 1, 3)),
    }
    shape = tensor.shape
    if shape in layouts:
        lengths, order = layouts[shape]
        return np.transpose(tensor.reshape(lengths), order)
    raise TensorError(f'{name}: expected shape [1, {anchors}, {height}, {width}, {row}], got {list(shape)}')


def _read_final(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """x1, y1, x2, y2, score, class; what follows is ignored."""
    rows = _final_rows(tensors, spec)
    at = _rows_above(rows[:, 4], limits, spec.outputs[0])
    further = _further(rows, at, 6, spec)
    return Candidates(rows[at, :4], rows[at, 4], _classes(rows[at, 5], spec), further=further)


def _read_final_obb(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """cx, cy, w, h, score, class, angle."""
    rows = _final_rows(tensors, spec)
    rows = rows[_rows_above(rows[:, 4], limits, spec.outputs[0])]
    angle = _finite(rows[:, 6], spec.outputs[0])
    return Candidates(rows[:, :4], rows[:, 4], _classes(rows[:, 5], spec), angle)


def _read_final_rtdetr(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """cx, cy, w, h, score, class."""
    found = _read_final(tensors, spec, limits)
    return found._replace(boxes=xyxy_from_cxcywh(found.boxes))


def _read_max_wh(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """batch, x1, y1, x2, y2, class, score."""
    rows = _final_rows(tensors, spec)
    rows = rows[_rows_above(rows[:, 6], limits, spec.outputs[0])]
    return Candidates(rows[:, 1:5], rows[:, 6], _classes(rows[:, 5], spec))


def _read_yolo_nas_flat(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """batch, x1, y1, x2, y2, score, class."""
    rows = _final_rows(tensors, spec)
    rows = rows[_rows_above(rows[:, 5], limits, spec.outputs[0])]
    return Candidates(rows[:, 1:5], rows[:, 5], _classes(rows[:, 6], spec))


def _final_rows(tensors: Tensors, spec: ModelSpec) -> np.ndarray:
    """View [1, N, row] or [N, row] as (N, row)."""
    rows = tensors[0][0] if tensors[0].ndim == 3 and len(tensors[0]) == 1 else tensors[0]
    _expect(rows, spec.outputs[0], (-1, spec.row_length))
    numbers: np.ndarray = rows.astype(np.float32, copy=False)
    return numbers


def _classes(numbers: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Class numbers of any dtype as (N,) int32, the first class 0; padding stays negative."""
    whole = np.rint(numbers)
    if numbers.dtype.kind == 'f' and not (np.abs(numbers - whole) < CLASS_TOLERANCE).all():  # NaN fails too
        raise SessionError(
            f'{", ".join(spec.outputs)}: expected whole numbers as classes, got {numbers[:5].tolist()}; '
            f'the outputs are probably not in the order of decoder {spec.decoder!r}'
        )
    class_id: np.ndarray = np.clip(whole, -1, MAX_CLASS).astype(np.int32) - np.int32(spec.first_class)
    return class_id


CLASS_TOLERANCE = 0.01  # whole numbers are exact in every dtype that a network answers in
MAX_CLASS = 1 << 30


def _read_counted(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """A count, then boxes as corners, scores and classes; only the first `count` are valid."""
    count = tensors[0].reshape(-1)
    if count.size != 1 or not np.isfinite(count).all():
        raise SessionError(f'{spec.outputs[0]}: expected one count, got {count.tolist()}')
    # Clipped while still in its own type: a plugin that failed counts anything.
    valid = int(np.clip(count[0], 0, tensors[1].size))
    return _corner_boxes(tensors[1], tensors[2], tensors[3], spec.outputs[1:], valid, spec, limits)


def _read_tf_ssd(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """As counted, but the boxes are top, left, bottom, right."""
    found = _read_counted(tensors, spec, limits)
    return found._replace(boxes=found.boxes[:, [1, 0, 3, 2]])


def _read_labelled(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Labels, boxes as corners, scores, all of one length."""
    labels, boxes, scores = tensors
    names = (spec.outputs[1], spec.outputs[2], spec.outputs[0])
    return _corner_boxes(boxes, scores, labels, names, scores.size, spec, limits)


def _corner_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    names: tuple[str, ...],
    valid: int,
    spec: ModelSpec,
    limits: Limits,
) -> Candidates:
    count = boxes.size // 4
    if boxes.shape[-1:] != (4,):
        raise TensorError(f'{names[0]}: expected shape [1, ?, 4], got {list(boxes.shape)}')
    for name, array in ((names[1], scores), (names[2], classes)):
        if array.size != count:
            raise TensorError(f'{name}: expected shape [1, {count}], got {list(array.shape)}')
    score = scores.reshape(-1)[:valid].astype(np.float32, copy=False)
    at = _rows_above(score, limits, names[1])
    corners = boxes.reshape(-1, 4)[at].astype(np.float32, copy=False)
    class_id = _classes(classes.reshape(-1)[at], spec)
    return Candidates(corners, score[at], class_id, further=_numbers(at, spec))


def _read_yolo_nas_raw(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Boxes as corners, and scores of each class."""
    boxes, scores = _boxes_and_scores(tensors, spec)
    at, score, class_id = _best_above(scores, limits, spec.outputs[1])
    return Candidates(boxes[at], score, class_id)


def _read_jetson_ssd(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Scores of each class, the first of which is the background, and boxes as corners."""
    boxes, scores = _boxes_and_scores(tensors[::-1], spec, names=spec.outputs[::-1])
    objects = scores[:, 1:]
    at = _rows_above(objects.max(axis=1), limits, spec.outputs[0])
    score, class_id = _best_class(objects[at])
    return Candidates(boxes[at], score, class_id + np.int32(1 - spec.first_class))


def _boxes_and_scores(
    tensors: Tensors, spec: ModelSpec, *, names: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """View boxes [1, N, 4] and scores [1, N, classes] without the batch."""
    boxes, scores = tensors
    names = names or spec.outputs
    _expect(scores, names[1], (1, -1, spec.row_length))
    _expect(boxes, names[0], (1, scores.shape[1], 4))
    return boxes[0], scores[0]


def _read_detr_sigmoid(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Boxes as centre and size, and logits: every class of every query is a candidate of its own."""
    boxes, logits = _boxes_and_scores(tensors, spec)
    if not logits.max(initial=-np.inf) < np.inf:  # written so that NaN fails too
        raise _not_finite(tensors, spec)
    query, class_id = np.nonzero(logits >= _logit(_least_score(limits)))
    score = _sigmoid(logits[query, class_id].astype(np.float32))
    # As many candidates as queries, as these models are measured.
    best = np.argsort(-score, kind='stable')[: len(boxes)]
    query, class_id, score = query[best], class_id[best], score[best]
    boxes = xyxy_from_cxcywh(boxes[query])
    return Candidates(boxes, score, class_id.astype(np.int32), further=_numbers(query, spec))


def _read_detr_softmax(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """Boxes as centre and size, and logits, the last of which means: no object."""
    boxes, logits = _boxes_and_scores(tensors, spec)
    _finite(logits, spec.outputs[1])
    likely = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
    scores = (likely / likely.sum(axis=1, keepdims=True))[:, :-1]
    at, score, class_id = _best_above(scores, limits, spec.outputs[1])
    return Candidates(xyxy_from_cxcywh(boxes[at]), score, class_id)


@lru_cache(maxsize=4)
def grid_cells(size_hw: Size, strides: tuple[int, ...]) -> np.ndarray:
    """The cells of all levels, finest first: (A, 3) float32 column, row, stride in pixels."""
    levels = []
    for stride in strides:
        rows, columns = np.mgrid[: -(-size_hw[0] // stride), : -(-size_hw[1] // stride)]
        levels.append(np.stack((columns.ravel(), rows.ravel(), np.full(rows.size, stride)), axis=1))
    return np.concatenate(levels).astype(np.float32)


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise SessionError(f'{name}: expected finite values, got NaN or Inf')
    return array


DECODERS: dict[str, Decoder] = {
    'ultralytics': Decoder(
        'Ultralytics YOLO v8, 11, 12, ...: [1, 4+classes, boxes], centre, size in pixels, scores',
        _read_ultralytics,
        True,
    ),
    'ultralytics_best': Decoder(
        'Ultralytics, raw, with the best class only: [1, 6, boxes], as our engines answer',
        _read_ultralytics_best,
        True,
    ),
    'ultralytics_end2end': Decoder(
        'YOLOv10, YOLO26, or exported with NMS: [1, N, 6], left, top, right, bottom, score, class',
        _read_final,
        False,
    ),
    'ultralytics_obb': Decoder(
        'Ultralytics rotated boxes: [1, 4+classes+1, boxes], the last value is the angle', _read_obb, True
    ),
    'ultralytics_obb_end2end': Decoder(
        'the same after NMS: [1, N, 7], centre, size, score, class, angle', _read_final_obb, False
    ),
    'ultralytics_rtdetr': Decoder(
        'Ultralytics RT-DETR: [1, queries, 4+classes], centre, size in 0..1, scores', _read_ultralytics, False
    ),
    'ultralytics_rtdetr_end2end': Decoder(
        'Ultralytics RT-DETR from 8.4.90: [1, queries, 6], centre, size in 0..1, score, class',
        _read_final_rtdetr,
        False,
    ),
    'yolov5': Decoder(
        'YOLOv5, decoded: [1, boxes, 5+classes], score = objectness x class', _read_yolov5, True
    ),
    'yolov7': Decoder(
        'YOLOv7, decoded: as yolov5, but the only class of a model is not scored', _read_yolov7, True
    ),
    'yolov7_max_wh': Decoder(
        'YOLOv7 --end2end --max-wh: [N, 7], batch, left, top, right, bottom, class, score',
        _read_max_wh,
        False,
    ),
    'yolov5_heads': Decoder(
        'YOLOv5, raw: one [1, 3, rows, columns, 5+classes] per level', _read_heads_v5, True
    ),
    'yolov7_heads': Decoder('YOLOv7, raw: as yolov5_heads, with the anchors of YOLOv7', _read_heads_v5, True),
    'yolov3_heads': Decoder(
        'YOLOv3, raw: the same, or [1, 3*(5+classes), rows, columns]; exponential sizes', _read_heads_v3, True
    ),
    'yolov4_heads': Decoder(
        'YOLOv4, raw: as yolov3_heads, with the anchors and the scale_x_y of YOLOv4', _read_heads_v4, True
    ),
    'yolox': Decoder(
        'YOLOX, undecoded: [1, cells, 5+classes], boxes as offsets in a grid', _read_yolox, True
    ),
    'yolox_decoded': Decoder('YOLOX, decoded: [1, cells, 5+classes], boxes in pixels', _read_yolov5, True),
    'yolo_nas': Decoder('YOLO-NAS after NMS: count, boxes [1, N, 4], scores, classes', _read_counted, False),
    'yolo_nas_flat': Decoder(
        'YOLO-NAS after NMS: [N, 7], batch, left, top, right, bottom, score, class',
        _read_yolo_nas_flat,
        False,
    ),
    'yolo_nas_raw': Decoder(
        'YOLO-NAS: boxes [1, cells, 4] as corners in pixels, scores [1, cells, classes]',
        _read_yolo_nas_raw,
        True,
    ),
    'rtdetr': Decoder(
        'RT-DETR, D-FINE with orig_target_sizes: labels, boxes [1, N, 4] in pixels, scores',
        _read_labelled,
        False,
    ),
    'rfdetr': Decoder(
        'RF-DETR: dets [1, queries, 4] as centre, size in 0..1, labels as logits', _read_detr_sigmoid, False
    ),
    'detr': Decoder(
        'DETR: pred_boxes [1, queries, 4], logits [1, queries, classes+1], softmax', _read_detr_softmax, False
    ),
    'detr_sigmoid': Decoder(
        'Deformable DETR, RT-DETR of Transformers: the same without the extra class, sigmoid',
        _read_detr_sigmoid,
        False,
    ),
    'efficient_nms': Decoder(
        'EfficientNMS plugin, YOLOv7 --end2end: num_dets, det_boxes in pixels, scores, classes',
        _read_counted,
        False,
    ),
    'batched_nms': Decoder('BatchedNMS plugin, TAO: the same, boxes in 0..1', _read_counted, False),
    'tf_ssd': Decoder(
        'TensorFlow detection API: num_detections, boxes top, left, bottom, right in 0..1, classes from 1',
        _read_tf_ssd,
        False,
    ),
    'jetson_ssd': Decoder(
        'SSD of jetson-inference: scores [1, N, 1+classes], boxes [1, N, 4] in 0..1', _read_jetson_ssd, True
    ),
    'onnx_ssd': Decoder(
        'SSD of the ONNX zoo: bboxes [1, N, 4] in 0..1, labels from 1, scores', _read_labelled, False
    ),
}
