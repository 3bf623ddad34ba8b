"""Probe: what shapes and names cannot tell of a model, settled by the outputs of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from isaac_infer.core.decode.detection import (
    DECODERS,
    HIGHEST_SCORE,
    LARGEST_NORMALISED,
    Candidates,
    grid_cells,
)
from isaac_infer.core.decode.families import COCO_KEYPOINT_VALUES, FAMILIES, NO_KEYPOINTS
from isaac_infer.core.errors import ModelError, TensorError
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.core.text import counted

SCORE_TOLERANCE = HIGHEST_SCORE - 1
COCO_CLASSES = 80  # of the published YOLOX models, which do not name them
ALWAYS = 0.999  # an objectness that says nothing
NEVER_MEDIAN = 0.1  # no class is that likely in half of the cells of a grey picture
CLEARLY = 0.7  # correlation of centres with the grid: about 1 where they are decoded, about 0 where not


def probe(outputs: Mapping[str, np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Settle by the outputs of one run what is unsettled in a spec, and check that its decoder can read them.

    Shapes do not tell whether YOLOX's boxes are decoded, whether boxes are pixels or 0..1, or whether DETR's
    logits want softmax. A run on any picture does, because such networks answer for every cell or query,
    object or not. Networks that answer only where they found something stay as their family is; their decoder
    refuses boxes of the wrong unit when they come.

    Raises:
        SessionError: the outputs are not what the decoder reads.
        TensorError: an output is missing, or has another shape than the decoder reads.
        ModelError: the outputs contradict the decoder, and do not tell the right one.
    """
    missing = [name for name in spec.outputs if name not in outputs]
    if missing:
        raise TensorError(f'output {", ".join(missing)}: expected among the outputs, got {list(outputs)}')
    tensors = [outputs[name].astype(np.float32, copy=False) for name in spec.outputs]
    if 'decoder' in spec.unsettled and spec.decoder in _PROBES:
        spec = _PROBES[spec.decoder](tensors, spec)
    with np.errstate(over='ignore', invalid='ignore'):
        found = DECODERS[spec.decoder].read(tensors, spec, Limits(confidence_threshold=-1))
    return _probe_unit(found, spec) if 'box_unit' in spec.unsettled else spec


def as_family(spec: ModelSpec, decoder: str, reason: str) -> ModelSpec:
    """Give a spec another decoder, with its family's ways wherever the spec has those of its present one."""
    old, new = FAMILIES[spec.decoder], FAMILIES[decoder]
    usual = ImageSpec('', spec.image.size_hw)
    keys = {*old.image, *new.image}
    if spec.image.dtype.kind in 'iu':
        keys -= {'scale', 'mean', 'std'}  # such a model normalises inside, whatever its family
    image = {
        key: new.image.get(key, getattr(usual, key))
        for key in keys
        if getattr(spec.image, key) == old.image.get(key, getattr(usual, key))
    }
    kept = tuple(note for note in spec.notes if note not in old.notes)
    return replace(
        spec,
        decoder=decoder,
        image=replace(spec.image, **image),
        box_unit=new.box_unit if 'box_unit' in spec.unsettled else spec.box_unit,
        notes=(*kept, *new.notes, f'decoder {decoder}: {reason}, as the answers of a first run show'),
    )


def _probe_unit(found: Candidates, spec: ModelSpec) -> ModelSpec:
    """Tell pixels from 0..1 by how far the boxes of the whole picture reach."""
    settled = replace(spec, unsettled=spec.unsettled - {'box_unit'})
    if FAMILIES[spec.decoder].by_grid:
        return settled
    size = found.boxes[:, 2:] if found.angle is not None else found.boxes[:, 2:] - found.boxes[:, :2]
    reach = np.abs(found.boxes[(size > 0).all(axis=1)]).max(axis=1)
    if not len(reach):
        return spec
    if spec.box_unit == 'pixels' and reach.max() <= LARGEST_NORMALISED:
        note = 'box_unit normalised, as the answers of a first run show'
        return replace(spec, box_unit='normalised', notes=(*spec.notes, note))
    if spec.box_unit == 'normalised' and np.median(reach) > LARGEST_NORMALISED:
        note = 'box_unit pixels, as the answers of a first run show'
        return replace(settled, box_unit='pixels', notes=(*spec.notes, note))
    # What reaches beyond 0..1 proves pixels; small numbers prove nothing.
    return settled if spec.box_unit == 'pixels' else spec


def _probe_ultralytics(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Find key points or an angle behind the scores: they leave 0..1, scores do not."""
    rows = _rows(tensors[0], spec)
    scores = rows[:, 4 : 4 + spec.num_classes]
    strange = _strange(scores)
    if not strange and not spec.class_names and np.median(scores[:, -1]) > NEVER_MEDIAN:
        raise ModelError(
            f'{spec.outputs[0]}: the last value of each box is too high to be the score of a class, and may '
            'be an angle; set decoder to ultralytics_obb, or to ultralytics if it is a score'
        )
    if not strange:
        return spec
    # Key points as many as those of COCO: of a person.
    if spec.num_classes == 1 + COCO_KEYPOINT_VALUES and strange[0] > 0 and not spec.class_names:
        return replace(spec, num_classes=1, class_names=('person',), notes=(*spec.notes, NO_KEYPOINTS))
    is_angle = strange == [spec.num_classes - 1] and np.abs(rows[:, -1]).max() <= np.pi
    if is_angle and spec.num_classes > 1 and not spec.class_names:
        turned = as_family(spec, 'ultralytics_obb', 'its boxes are rotated')
        return replace(turned, num_classes=spec.num_classes - 1)
    raise _not_scores(rows, 4 + strange[0], spec)


def _probe_yolov5(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Refuse other heads with rows of boxes: scores are 0..1, logits and box distributions are not."""
    rows = _rows(tensors[0], spec)
    strange = _strange(rows[:, 4 : 5 + spec.num_classes])
    if strange:
        raise _not_scores(rows, 4 + strange[0], spec)
    return spec


def _probe_yolox(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Tell offsets within cells from decoded boxes: only decoded centres follow the grid."""
    spec = _probe_yolov5(tensors, spec)
    cells = grid_cells(spec.image.size_hw, spec.strides)
    centres = _rows(tensors[0], spec)[:, :2]
    middles = (cells[:, :2] + 0.5) * cells[:, 2:]
    if centres.shape != middles.shape:
        return spec  # the decoder says what is wrong
    follows = float(np.corrcoef(centres.ravel(), middles.ravel())[0, 1]) if np.ptp(centres) > 0 else 0.0
    # No offset leads from one end of the picture to the other, not even in the smallest cells.
    if follows > CLEARLY or np.abs(centres).max() > max(spec.image.size_hw) / min(spec.strides):
        if (_rows(tensors[0], spec)[:, 4] > ALWAYS).all():  # YOLOv6 has no objectness, its exports write 1
            return as_family(spec, 'yolov5', 'its boxes are decoded, and its objectness is always 1')
        if not spec.class_names and spec.num_classes != COCO_CLASSES:
            raise ModelError(
                f'{spec.outputs[0]}: rows of boxes may be YOLOX with {counted(spec.num_classes, "class")}, '
                f'decoded, or Ultralytics with {spec.num_classes + 1}, transposed; give class_names, or set '
                'decoder to yolox_decoded or ultralytics'
            )
        return as_family(spec, 'yolox_decoded', 'its boxes are decoded')
    if follows < 1 - CLEARLY:
        return spec
    raise ModelError(
        f'{spec.outputs[0]}: the answers of a first run do not tell whether its boxes are decoded; set '
        'decoder to yolox (they are not) or yolox_decoded (they are)'
    )


def _probe_end2end(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Tell corners from RT-DETR's centre and size, which share a shape: corners never change places."""
    rows = _rows(tensors[0], spec)
    rows = rows[rows[:, 4] > 0]
    if spec.row_length != 6 or not len(rows) or np.abs(rows[:, :4]).max() > LARGEST_NORMALISED:
        return spec  # RT-DETR's are 0..1
    if (rows[:, 2:4] < rows[:, :2]).any():
        return as_family(spec, 'ultralytics_rtdetr_end2end', 'its boxes are centre and size in 0..1')
    if 'box_unit' not in spec.unsettled:
        return spec
    raise ModelError(
        f'{spec.outputs[0]}: its boxes are 0..1, and may be corners or centre and size; set decoder to '
        'ultralytics_rtdetr_end2end (centre and size), or box_unit to normalised (corners)'
    )


def _probe_efficient_nms(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Refuse boxes in 0..1 under names that TensorFlow uses too: its boxes begin with the top."""
    boxes = tensors[1][:, : int(tensors[0].max(initial=0))]  # behind the count lies anything
    is_small = 0 < np.abs(boxes).max(initial=0) <= LARGEST_NORMALISED
    if spec.outputs[1].split(':')[0] == 'detection_boxes' and is_small and 'box_unit' in spec.unsettled:
        raise ModelError(
            f'{spec.outputs[1]}: its boxes are 0..1, and may be top, left, bottom, right as of TensorFlow, '
            'or left, top, right, bottom; set decoder to tf_ssd, or to efficient_nms with box_unit normalised'
        )
    return spec


def _probe_detr(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Tell softmax from sigmoid: where nothing is, softmax puts `no object` first, sigmoid puts all low."""
    logits = _rows(tensors[1], spec)
    if spec.class_names:  # their number has told
        if spec.decoder == 'detr_sigmoid' and (logits.max(axis=1) > 0).mean() > 0.5:
            raise ModelError(
                f'{spec.outputs[1]}: has as many logits as there are class names, which tells sigmoid, but '
                'most say that something is there in a grey picture; leave a name such as `no object` out of '
                'class_names, or set decoder to detr (softmax) or detr_sigmoid'
            )
        return spec
    if (logits.argmax(axis=1) == logits.shape[1] - 1).mean() > 0.5:
        return spec
    if (logits.max(axis=1) < 0).mean() > 0.5:
        return replace(
            as_family(spec, 'detr_sigmoid', 'its logits want sigmoid'), num_classes=spec.row_length
        )
    raise ModelError(
        f'{spec.outputs[1]}: the answers of a first run do not tell whether its logits want softmax, the '
        'last being `no object`, or sigmoid; set decoder to detr (softmax) or detr_sigmoid'
    )


_PROBES: dict[str, Callable[[Sequence[np.ndarray], ModelSpec], ModelSpec]] = {
    'ultralytics': _probe_ultralytics,
    'ultralytics_end2end': _probe_end2end,
    'yolov5': _probe_yolov5,
    'yolov7': _probe_yolov5,
    'yolox': _probe_yolox,
    'efficient_nms': _probe_efficient_nms,
    'detr': _probe_detr,
    'detr_sigmoid': _probe_detr,
}


def _rows(tensor: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """View [1, N, row] or [1, row, N] as (N, row)."""
    if tensor.ndim != 3 or len(tensor) != 1 or spec.row_length not in tensor.shape[1:]:
        raise TensorError(
            f'{spec.outputs[0]}: expected shape [1, ?, {spec.row_length}] or [1, {spec.row_length}, ?], '
            f'got {list(tensor.shape)}'
        )
    rows: np.ndarray = tensor[0]
    return rows.T if tensor.shape[1] == spec.row_length else rows


def _strange(scores: np.ndarray) -> list[int]:
    """The columns that hold something that is no probability."""
    below, above = scores.min(axis=0) < -SCORE_TOLERANCE, scores.max(axis=0) > HIGHEST_SCORE
    return [int(column) for column in np.flatnonzero(below | above)]


def _not_scores(rows: np.ndarray, column: int, spec: ModelSpec) -> ModelError:
    return ModelError(
        f'{spec.outputs[0]}: decoder {spec.decoder} expects scores from 0 to 1 in value {column} of each '
        f'box, got {rows[:, column].min():.3g} to {rows[:, column].max():.3g}; set decoder, or class_names '
        f'if the model does not have {counted(spec.num_classes, "class")}; decoders are {", ".join(DECODERS)}'
    )
