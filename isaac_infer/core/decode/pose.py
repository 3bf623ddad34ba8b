"""Decoders: the outputs of a pose network to Poses, one decoder per output layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from isaac_infer.core.boxes import clip_boxes
from isaac_infer.core.decode import detection, heatmaps, paf
from isaac_infer.core.decode.detection import FAR, HIGHEST_SCORE, LARGEST_NORMALISED, LOWEST_SCORE, Candidates
from isaac_infer.core.decode.pose_families import note_names, usual_names
from isaac_infer.core.errors import SessionError, TensorError
from isaac_infer.core.fit import Fit, fit_picture
from isaac_infer.core.results import Detections, Poses, no_detections
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.text import counted

Outputs = Mapping[str, np.ndarray]
Tensors = list[np.ndarray]  # the spec's outputs, in its order
# Of a batch of N pictures: (N, K, 2) float32 points in network pixels, (N, K) float32 scores.
Points = Callable[[Tensors, ModelSpec], tuple[np.ndarray, np.ndarray]]

FEWEST_FOUND = 3  # key points that make a person, where nothing else says that there is one
HIGHEST_PEAK = 2.0  # heat maps are trained to reach 1, and overshoot
PIXEL_CENTRE = 0.5  # maps are trained on points counted from the centre of the first pixel, as mmpose does
MOSTLY = 0.9  # of numbers, single ones of which may be off
PEAK_THRESHOLD = 0.1  # lower peaks of bottom-up networks are noise
MOST_PEAKS = 64  # per part: what fills a picture with more is noise, and would take long to deal out


@dataclass(frozen=True)
class Decoder:
    """One output layout: called with a network's outputs, it gives the persons in source pixels."""

    description: str  # one line for people
    read: Callable[[Tensors, Fit, ModelSpec, Limits], Poses]
    points: Points | None = None  # where the layout is about one person: that of each picture of a batch
    boxes: detection.Decoder | None = None  # where rows hold a box and key points: how the boxes are read

    def __call__(self, outputs: Outputs, fit: Fit, spec: ModelSpec, limits: Limits) -> Poses:
        """Decode one picture.

        Raises:
            TensorError: an output is missing or has another shape than its layout asks for.
            SessionError: an output is not finite, or its scores or boxes are not in the unit expected.
        """
        with np.errstate(over='ignore', invalid='ignore'):  # refused or clipped instead
            return self.read(tensors_of(outputs, spec), fit, spec, limits)


def tensors_of(outputs: Outputs, spec: ModelSpec) -> Tensors:
    """The outputs that a decoder reads, in its order; half precision widened."""
    try:
        arrays = [outputs[name] for name in spec.outputs]
    except KeyError as missing:
        raise TensorError(f'output {missing}: expected among the outputs, got {list(outputs)}') from None
    return [array.astype(np.float32) if array.dtype == np.float16 else array for array in arrays]


# ---- what decoders share -------------------------------------------------------------------------


def find_persons_around(xy: np.ndarray, score: np.ndarray, size_hw: tuple[int, int], limits: Limits) -> Poses:
    """Make persons of key points alone: the box around those found, their mean score; best first.

    Args:
        xy: (N, K, 2) float32, source pixels, finite.
        score: (N, K) float32, 0..1.
        size_hw: of the source.
        limits: what counts as found, and as a person.
    """
    is_found = score >= max(limits.keypoint_threshold, LOWEST_SCORE)
    number = is_found.sum(axis=1)
    mean = (score * is_found).sum(axis=1) / np.maximum(number, 1)
    counts = (number >= min(FEWEST_FOUND, score.shape[1])) & (mean >= limits.confidence_threshold)
    if limits.class_ids and 0 not in limits.class_ids:
        counts[:] = False
    rows = np.flatnonzero(counts)
    rows = rows[np.argsort(-mean[rows], kind='stable')]
    where = is_found[rows, :, None]
    low = np.where(where, xy[rows], np.inf).min(axis=1, initial=np.inf)
    high = np.where(where, xy[rows], -np.inf).max(axis=1, initial=-np.inf)
    widen = np.maximum(1 - (high - low), 0) / 2  # points in one line have a box too
    boxes = np.concatenate((low - widen, high + widen), axis=1).astype(np.float32)
    boxes = clip_boxes(boxes, size_hw)
    seen = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[: limits.max_detections]
    rows = rows[seen]
    persons = Detections(boxes[seen], mean[rows].astype(np.float32), np.zeros(len(rows), np.int32))
    return Poses(persons, xy[rows], score[rows])


def _to_source(xy: np.ndarray, fit: Fit) -> np.ndarray:
    """Map (N, K, 2) network pixels to source pixels; not clipped, but to what is everywhere."""
    return np.asarray(np.clip(fit.to_source(np.clip(xy, -FAR, FAR)), -FAR, FAR), np.float32)


def _expect(array: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    """Raise TensorError where the shape is another one; -1 stands for any length but 0."""
    if array.ndim != len(shape) or 0 in array.shape or any(
        want not in (-1, got) for want, got in zip(shape, array.shape)
    ):  # fmt: skip
        wanted = ', '.join('?' if length < 0 else str(length) for length in shape)
        raise TensorError(f'{name}: expected shape [{wanted}], got {list(array.shape)}')


def _check_scores(score: np.ndarray, name: str, highest: float = HIGHEST_SCORE) -> None:
    if not ((score <= highest) & (score > -np.inf)).all():  # written so that NaN fails too
        raise SessionError(
            f'{name}: expected scores of key points from 0 to 1, got {score.min()} to {score.max()}; check '
            'how pictures are prepared (scale, mean, std), export the model so that it answers with '
            'probabilities, or set decoder if this is not its layout; of a model that gives classes of '
            'pixels take segmentation_node, on the command line --task segmentation'
        )


# ---- one stage: a box and its key points in a row ------------------------------------------------


def _read_boxed(
    tensors: Tensors,
    fit: Fit,
    spec: ModelSpec,
    limits: Limits,
    *,
    boxes: detection.Decoder,
    y_first: bool = False,
) -> Poses:
    """Boxes as a detector has them, and key points behind: x, y, or x, y, score."""
    points, each = len(spec.keypoints), spec.keypoint_values
    blend = partial(_blended, points=points, each=each)
    persons, _, values = boxes.find(dict(zip(spec.outputs, tensors)), fit, spec, limits, blend=blend)
    if values is None or values.shape[1] < points * each:
        got = 0 if values is None else values.shape[1]
        raise TensorError(
            f'{spec.outputs[0]}: expected {counted(points, "key point")} of {each} values behind each box, '
            f'got {counted(got, "value")}'
        )
    rows = values[:, : points * each].reshape(-1, points, each)
    if not np.isfinite(rows).all():
        raise SessionError(f'{spec.outputs[0]}: expected finite key points, got NaN or Inf')
    xy = rows[..., 1::-1] if y_first else rows[..., :2]
    if each == 3:
        _check_scores(rows[..., 2], spec.outputs[0])
        score = np.clip(rows[..., 2], 0, 1)
    else:
        # Nothing is said of the single point: it is as sure as its person, but for those left at 0, 0.
        score = np.where((xy != 0).any(axis=2), persons.score[:, None], np.float32(0))
    if (spec.keypoint_unit or spec.box_unit) == 'normalised':
        height, width = spec.image.size_hw
        xy = xy * np.array((width, height), np.float32)
    return Poses(persons, _to_source(xy, fit), score.astype(np.float32))


def _blended(
    own: np.ndarray, others: np.ndarray, shares: detection.Shares, *, points: int, each: int
) -> np.ndarray:
    """The mean of key points, those that are surer count more; what was not seen has no part in it."""
    if own.shape[1] < points * each:
        return own  # refused by who reads them
    is_sound = np.isfinite(others).all(axis=1)
    of, weight = shares.of[is_sound], shares.weight[is_sound, None, None]
    own, others = (rows[:, : points * each].reshape(-1, points, each) for rows in (own, others[is_sound]))
    if each == 3:
        sure, as_sure = (np.clip(rows[..., 2:], 0, 1) for rows in (own, others))
    else:
        sure, as_sure = ((rows != 0).any(axis=2, keepdims=True).astype(np.float32) for rows in (own, others))
    mean = detection.weighted_mean(own, sure, others, weight * as_sure, of)
    if each == 3:
        mean[..., 2:] = detection.weighted_mean(own[..., 2:], np.ones_like(sure), others[..., 2:], weight, of)
    elif not sure.all():
        mean = np.where(sure > 0, mean, own)
    return mean.reshape(len(own), -1)


def _read_movenet_rows(tensors: Tensors, spec: ModelSpec, limits: Limits) -> Candidates:
    """17 times y, x, score, then top, left, bottom, right, score."""
    _expect(tensors[0], spec.outputs[0], (1, -1, spec.row_length))
    rows = tensors[0][0].astype(np.float32)
    score = rows[:, -1]
    _check_scores(score, spec.outputs[0])
    rows = rows[score >= (limits.confidence_threshold or LOWEST_SCORE)]
    return Candidates(
        rows[:, [-4, -5, -2, -3]], rows[:, -1], np.zeros(len(rows), np.int32), further=rows[:, :-5]
    )


_MOVENET_ROWS = detection.Decoder('', _read_movenet_rows, False)


# ---- one person per picture ----------------------------------------------------------------------


def _read_single(tensors: Tensors, fit: Fit, spec: ModelSpec, limits: Limits, *, points: Points) -> Poses:
    xy, score = points(tensors, spec)
    if len(xy) != spec.image.batch:
        raise TensorError(
            f'{spec.outputs[0]}: expected answers for as many pictures as it is given, {spec.image.batch}, '
            f'got {len(xy)}'
        )
    return find_persons_around(_to_source(xy[:1] + PIXEL_CENTRE, fit), score[:1], fit.source_hw, limits)


def _movenet_points(tensors: Tensors, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    """[N, 1, K, 3]: y, x in 0..1, score."""
    _expect(tensors[0], spec.outputs[0], (-1, 1, len(spec.keypoints), 3))
    rows = tensors[0][:, 0].astype(np.float32)
    if not np.isfinite(rows).all():
        raise SessionError(f'{spec.outputs[0]}: expected finite key points, got NaN or Inf')
    _check_scores(rows[..., 2], spec.outputs[0])
    height, width = spec.image.size_hw
    # Of its width and height, not counted from the centre of a pixel.
    xy = rows[..., 1::-1] * np.array((width, height), np.float32) - PIXEL_CENTRE
    return xy, np.clip(rows[..., 2], 0, 1)


def _heatmap_points(tensors: Tensors, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    """[N, K, h, w] or [N, h, w, K]: the highest cell of each map, and its value as score."""
    maps = _maps(tensors[0], spec.outputs[0], len(spec.keypoints))
    count, parts, height, width = maps.shape
    flat = maps.reshape(-1, height, width)
    peaks = heatmaps.highest(flat)
    _check_scores(peaks.score, spec.outputs[0], HIGHEST_PEAK)
    cells = heatmaps.refine(flat, peaks, how=spec.keypoint_refinement)
    return (cells * _cell(spec, maps)).reshape(count, parts, 2), np.clip(peaks.score, 0, 1).reshape(
        count, parts
    )


def _simcc_points(tensors: Tensors, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    """SimCC (Li et al. 2022): along x [N, K, bins] and along y; the score is the lower of both maxima."""
    parts = len(spec.keypoints)
    for tensor, name in zip(tensors, spec.outputs):
        _expect(tensor, name, (len(tensors[0]), parts, -1))
    at = [tensor.argmax(axis=2) for tensor in tensors]
    highest = np.stack([tensor.max(axis=2) for tensor in tensors]).astype(np.float32)
    if not np.isfinite(highest).all():
        raise SessionError(f'{", ".join(spec.outputs)}: expected finite values, got NaN or Inf')
    bins = [tensor.shape[2] / side for tensor, side in zip(tensors, spec.image.size_hw[::-1])]
    xy = np.stack([best / each for best, each in zip(at, bins)], axis=2).astype(np.float32)
    return xy, np.clip(highest.min(axis=0), 0, 1)


def _cell(spec: ModelSpec, maps: np.ndarray) -> np.ndarray:
    """Width and height of a cell in network pixels."""
    height, width = spec.image.size_hw
    return np.array((width / maps.shape[-1], height / maps.shape[-2]), np.float32)


def _maps(tensor: np.ndarray, name: str, channels: int) -> np.ndarray:
    """View [N, C, h, w] or [N, h, w, C] as (N, C, h, w)."""
    if tensor.ndim == 4 and tensor.shape[1] != channels and tensor.shape[3] == channels:
        tensor = tensor.transpose(0, 3, 1, 2)
    _expect(tensor, name, (-1, channels, -1, -1))
    return tensor


# ---- bottom-up: all key points, then who they belong to ------------------------------------------


def _read_fields(
    tensors: Tensors, fit: Fit, spec: ModelSpec, limits: Limits, *, topology: paf.Topology, window: int
) -> Poses:
    """Heat maps of the parts, with or without one of the background, and part affinity fields."""
    parts, channels = len(spec.keypoints), 2 * len(topology.links)
    if len(tensors) == 1:
        both = _maps(tensors[0], spec.outputs[0], spec.row_length)
        heat, fields = both[:, :parts], both[:, -channels:]
    else:
        heat = _maps(tensors[0], spec.outputs[0], spec.row_length)[:, :parts]
        fields = _maps(tensors[1], spec.outputs[1], channels)
    if len(heat) != 1 or fields.shape[0] != 1 or heat.shape[2:] != fields.shape[2:]:
        raise TensorError(
            f'{", ".join(spec.outputs)}: expected maps and fields of one picture and of one size, '
            f'got {[list(tensor.shape) for tensor in tensors]}'
        )
    heat, fields = (np.asarray(array[0], np.float32) for array in (heat, fields))
    if not (np.isfinite(heat).all() and np.abs(fields).max() < FAR):  # written so that NaN fails too
        raise SessionError(f'{", ".join(spec.outputs)}: expected finite maps, got NaN or Inf')
    _check_scores(heat.max(axis=(1, 2)), spec.outputs[0], HIGHEST_PEAK)
    # Of all persons: of the fewest that are wanted, each part may be of another one.
    peaks = heatmaps.find_peaks(heat, threshold=PEAK_THRESHOLD, window=window, most=MOST_PEAKS)
    rows = paf.find_persons(peaks, fields, topology, parts=parts)
    cells = heatmaps.refine(heat, peaks, how='dark', blur=1)
    # These networks count cells by their centres.
    cell = _cell(spec, heat)
    # Where a person has no such peak: a place like any other, but score 0.
    xy = np.append(_to_source(((cells + 0.5) * cell)[None], fit)[0], np.zeros((1, 2), np.float32), axis=0)
    score = np.append(np.clip(peaks.score, 0, 1), np.float32(0))
    return find_persons_around(xy[rows], score[rows], fit.source_hw, limits)


# ---- the table -----------------------------------------------------------------------------------


def _boxed(description: str, boxes: detection.Decoder, *, y_first: bool = False) -> Decoder:
    return Decoder(description, partial(_read_boxed, boxes=boxes, y_first=y_first), boxes=boxes)


def _single(description: str, points: Points) -> Decoder:
    return Decoder(description, partial(_read_single, points=points), points=points)


def _fields(description: str, topology: paf.Topology, *, window: int = 3) -> Decoder:
    return Decoder(description, partial(_read_fields, topology=topology, window=window))


DECODERS: dict[str, Decoder] = {
    'ultralytics_pose': _boxed(
        'Ultralytics pose: [1, 4+classes+K*d, boxes], centre, size, scores, then x, y or x, y, score',
        detection.DECODERS['ultralytics'],
    ),
    'ultralytics_pose_end2end': _boxed(
        'the same after NMS: [1, N, 6+K*d], left, top, right, bottom, score, class, key points',
        detection.DECODERS['ultralytics_end2end'],
    ),
    'movenet': _single('MoveNet, single person: [1, 1, 17, 3], y, x in 0..1, score', _movenet_points),
    'movenet_multi': _boxed(
        'MoveNet, multi person: [1, 6, 56], 17 times y, x, score, then the box in 0..1 and its score',
        _MOVENET_ROWS,
        y_first=True,
    ),
    'heatmaps': _single(
        'one person, heat maps: [1, K, h, w] or [1, h, w, K], as EfficientPose, HRNet, ViTPose',
        _heatmap_points,
    ),
    'simcc': _single('one person, SimCC: simcc_x [1, K, bins], simcc_y, as RTMPose', _simcc_points),
    'trt_pose': _fields(
        'trt_pose: cmap [1, 18, h, w] and paf [1, 42, h, w]', paf.TRT_POSE, window=5
    ),
    'openpose_coco': _fields(
        'OpenPose COCO: [1, 57, h, w], or heat maps [1, 19, h, w] and fields [1, 38, h, w]',
        paf.OPENPOSE_COCO,
    ),
    'openpose_body25': _fields(
        'OpenPose BODY_25: [1, 78, h, w], or heat maps [1, 26, h, w] and fields [1, 52, h, w]',
        paf.OPENPOSE_BODY_25,
    ),
}  # fmt: skip


def no_poses(spec: ModelSpec) -> Poses:
    """The result of a picture in which nobody was found."""
    count = len(spec.keypoints)
    return Poses(no_detections(), np.empty((0, count, 2), np.float32), np.empty((0, count), np.float32))


def probe(outputs: Outputs, spec: ModelSpec) -> ModelSpec:
    """Settle by a first run what key points are made of, and check that the outputs can be read.

    Raises:
        SessionError: the outputs are not what the decoder reads.
        TensorError: an output is missing, or has another shape than the decoder reads.
    """
    decoder = DECODERS[spec.decoder]
    tensors = tensors_of(outputs, spec)
    spec = _probe_split(tensors, spec, decoder.boxes)
    spec = _probe_units(tensors, spec, decoder.boxes)
    size_hw = spec.image.size_hw
    decoder(outputs, fit_picture(size_hw, size_hw, resize='stretch'), spec, Limits())
    return spec


def _probe_split(tensors: Tensors, spec: ModelSpec, boxes: detection.Decoder | None) -> ModelSpec:
    """Settle whether numbers are key points of two or of three: every third one is a score then, 0 to 1."""
    count = len(spec.keypoints) * spec.keypoint_values
    if 'keypoints' not in spec.unsettled or boxes is None or boxes is _MOVENET_ROWS or count % 6:
        return spec
    with np.errstate(over='ignore', invalid='ignore'):
        found = boxes.read(tensors, spec, Limits(confidence_threshold=-1))
    if found.further is None or found.further.shape[1] < count:
        return spec  # refused when it is decoded
    values = found.further[:, :count]
    thirds = values[values.any(axis=1)].reshape(-1, count // 3, 3)  # rows of zeros say nothing
    inside = np.abs(thirds - 0.5) <= HIGHEST_SCORE - 0.5
    if not len(thirds) or inside[..., :2].mean() >= MOSTLY:  # nobody is there, or coordinates are 0 to 1, too
        warning = (
            f'{spec.outputs[0]}: {count} numbers may be {count // 3} key points of 3, or {count // 2} of 2, '
            f'and a first run does not tell; taken for {len(spec.keypoints)} of {spec.keypoint_values}; set '
            'keypoints to their names if they are not'
        )
        return replace(spec, warnings=(*spec.warnings, warning))
    is_score = inside[..., 2].mean() >= MOSTLY
    names = usual_names(count // 3 if is_score else count // 2)
    notes = (note for note in spec.notes if note != note_names(spec.keypoints))
    return replace(
        spec,
        keypoints=names,
        keypoint_values=3 if is_score else 2,
        unsettled=spec.unsettled - {'keypoints'},
        notes=(*notes, note_names(names)),
    )


def _probe_units(tensors: Tensors, spec: ModelSpec, boxes: detection.Decoder | None) -> ModelSpec:
    settled = replace(spec, unsettled=spec.unsettled - {'box_unit'})
    if boxes is None or boxes is _MOVENET_ROWS:
        return settled  # no other form is known
    with np.errstate(over='ignore', invalid='ignore'):
        found = boxes.read(tensors, spec, Limits(confidence_threshold=-1))
    is_box = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)
    reach = np.abs(found.boxes[is_box]).max(axis=1)
    if not len(reach) or found.further is None:
        return spec  # it answers only where it found somebody; then its boxes are checked
    if 'box_unit' in spec.unsettled:
        is_small = reach.max() <= LARGEST_NORMALISED
        spec = _with_unit(spec, 'box_unit') if is_small else settled
    each = spec.keypoint_values
    points = found.further[is_box][:, : len(spec.keypoints) * each].reshape(len(reach), -1, each)[..., :2]
    farthest = np.abs(points).max(axis=(1, 2))
    # Some exports divide the boxes alone. Zeros tell nothing, and neither do a few that are far off.
    if spec.box_unit == 'pixels' and 0 < farthest.max() <= LARGEST_NORMALISED:
        return _with_unit(spec, 'keypoint_unit')
    if spec.box_unit == 'normalised' and np.median(farthest) > 2 * LARGEST_NORMALISED:
        return _with_unit(spec, 'keypoint_unit', 'pixels')
    return spec


def _with_unit(spec: ModelSpec, field: str, unit: str = 'normalised') -> ModelSpec:
    note = f'{field} {unit}, as the answers of a first run show'
    values: dict[str, Any] = {field: unit}
    return replace(spec, notes=(*spec.notes, note), **values)
