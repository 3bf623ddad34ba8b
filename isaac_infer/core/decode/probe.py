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
from isaac_infer.core.decode.families import BOXES_ONLY, COCO_KEYPOINT_VALUES, FAMILIES, describe_decoders
from isaac_infer.core.errors import ModelError, TensorError
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec, Overrides


def probe(
    outputs: Mapping[str, np.ndarray], spec: ModelSpec, overrides: Overrides = Overrides()
) -> ModelSpec:
    """Settle by the outputs of one run what names and shapes cannot tell, and check them.

    Shapes do not tell whether YOLOX's boxes are decoded, whether boxes are pixels or 0..1, or whether DETR's logits
    want softmax. A run on any picture does, because such networks answer for every cell or query of it, object or
    not. What the user has said stays as it is.

    Raises:
        SessionError: an output is not finite, or not what the decoder reads.
        TensorError: an output has another shape than the decoder reads.
        ModelError: the outputs contradict the decoder, and do not tell the right one.
    """
    tensors = []
    for name in spec.outputs:
        if name not in outputs:
            raise TensorError(f'output {name!r}: expected among the outputs, got {list(outputs)}')
        tensors.append(outputs[name])
    if not overrides.decoder and spec.decoder in _PROBES:
        spec = _PROBES[spec.decoder](tensors, spec)
    found = DECODERS[spec.decoder].read(tensors, spec, Limits(confidence_threshold=0))
    return spec if overrides.box_unit else _probe_unit(found, spec)


def _probe_unit(found: Candidates, spec: ModelSpec) -> ModelSpec:
    """Tell pixels from 0..1 by how far the boxes of the whole picture reach."""
    size = found.boxes[:, 2:] if found.angle is not None else found.boxes[:, 2:] - found.boxes[:, :2]
    reach = np.abs(found.boxes[(size > 0).all(axis=1)]).max(axis=1)
    if not len(reach):
        return spec  # nothing to tell by; the decoder refuses boxes of the wrong unit when they come
    if spec.box_unit == 'pixels' and reach.max() <= LARGEST_NORMALISED:
        seen = 'normalised'
    elif spec.box_unit == 'normalised' and np.median(reach) > LARGEST_NORMALISED:
        seen = 'pixels'
    else:
        return spec
    return replace(spec, box_unit=seen, notes=(*spec.notes, f'boxes are {seen}, as its answers show'))


def _probe_ultralytics(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Find key points or an angle behind the scores of a model without metadata: they leave 0..1, scores do not."""
    output = tensors[0].astype(np.float32, copy=False)
    rows = output[0] if output.shape[1] == spec.row_length else output[0].T
    values = rows[4 : 4 + spec.num_classes]
    strange = np.flatnonzero((values.min(axis=1) < -SCORE_TOLERANCE) | (values.max(axis=1) > HIGHEST_SCORE))
    if not len(strange):
        return spec
    if spec.num_classes == 1 + COCO_KEYPOINT_VALUES and strange[0] > 0 and not spec.class_names:
        return replace(spec, num_classes=1, notes=(*spec.notes, BOXES_ONLY))
    if strange.tolist() == [spec.num_classes - 1] and np.abs(values[-1]).max() <= np.pi and strange[0] > 0:
        if spec.class_names:
            raise ModelError(
                f'{spec.outputs[0]}: the last value of each box is an angle, no score; set decoder to '
                f'ultralytics_obb, and give {spec.num_classes - 1} class names'
            )
        turned = as_family(spec, 'ultralytics_obb', 'rotated boxes, as its answers show')
        return replace(turned, num_classes=spec.num_classes - 1)
    raise ModelError(
        f'{spec.outputs[0]}: expected scores from 0 to 1 behind the four numbers of a box, got '
        f'{values[strange[0]].min():.3g} to {values[strange[0]].max():.3g} in value {strange[0]}; '
        f'set class_names or decoder. There are:\n{describe_decoders()}'
    )


SCORE_TOLERANCE = HIGHEST_SCORE - 1


def _probe_yolox(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Tell offsets within cells from decoded boxes: only decoded centres follow the grid across the picture."""
    cells = grid_cells(spec.image.size_hw, spec.strides)
    centres = tensors[0][0, :, :2].astype(np.float32)
    if centres.shape != cells[:, :2].shape:
        return spec  # the decoder says what is wrong
    # From one cell to the next, a decoded centre moves by the stride (or a cell's share of the picture).
    middles = (cells[:, :2] + 0.5) * cells[:, 2:]
    follows = float(np.corrcoef(centres.ravel(), middles.ravel())[0, 1]) if np.ptp(centres) > 0 else 0.0
    if follows > CLEARLY:
        return as_family(spec, 'yolox_decoded', 'its boxes are decoded, as its answers show')
    if follows < 1 - CLEARLY:
        return spec
    raise ModelError(
        f'{spec.outputs[0]}: its answers do not tell whether its boxes are decoded; set decoder to yolox (they are '
        'not) or yolox_decoded (they are)'
    )


CLEARLY = 0.7  # correlation of centres with the grid: 1 where decoded, but for noise; about 0 where not


def _probe_end2end(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Tell corners from RT-DETR's centre and size, which share a shape: corners never lie left of their partner."""
    rows = tensors[0][0].astype(np.float32, copy=False)
    rows = rows[rows[:, 4] > 0]
    if spec.row_length != 6 or not len(rows) or np.abs(rows[:, :4]).max() > LARGEST_NORMALISED:
        return spec  # RT-DETR's are 0..1
    if (rows[:, 2:4] < rows[:, :2]).any():
        return as_family(spec, 'ultralytics_rtdetr_end2end', 'centre and size in 0..1, as its answers show')
    raise ModelError(
        f'{spec.outputs[0]}: boxes in 0..1, which may be corners or centre and size; set decoder to '
        'ultralytics_end2end and box_unit to normalised, or decoder to ultralytics_rtdetr_end2end'
    )


def _probe_detr(tensors: Sequence[np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Tell softmax from sigmoid: in a picture of nothing, softmax puts `no object` first, sigmoid puts all low."""
    if spec.class_names:
        return spec  # their number has told
    logits = tensors[1][0].astype(np.float32, copy=False)
    if (logits.argmax(axis=1) == logits.shape[1] - 1).mean() > 0.5:
        return spec
    if (logits.max(axis=1) < 0).mean() > 0.5:
        sigmoid = as_family(spec, 'detr_sigmoid', 'logits for sigmoid, as its answers show')
        return replace(sigmoid, num_classes=spec.row_length)
    raise ModelError(
        f'{spec.outputs[1]}: its answers do not tell whether its logits want softmax, the last being `no object`, or '
        'sigmoid; set decoder to detr (softmax) or detr_sigmoid'
    )


_PROBES: dict[str, Callable[[Sequence[np.ndarray], ModelSpec], ModelSpec]] = {
    'ultralytics': _probe_ultralytics,
    'yolox': _probe_yolox,
    'ultralytics_end2end': _probe_end2end,
    'detr': _probe_detr,
}


def as_family(spec: ModelSpec, decoder: str, note: str) -> ModelSpec:
    """Give the spec another decoder, with its family's ways wherever the spec has those of its present one."""
    old, new = FAMILIES[spec.decoder], FAMILIES[decoder]
    keys = {*old.image, *new.image} if spec.image.dtype.kind == 'f' else {'resize'} & {*old.image, *new.image}
    usual = ImageSpec('', spec.image.size_hw)
    image = {
        key: new.image.get(key, getattr(usual, key))
        for key in keys
        if getattr(spec.image, key) == old.image.get(key, getattr(usual, key))
    }
    return replace(
        spec,
        decoder=decoder,
        image=replace(spec.image, **image),
        box_unit=new.box_unit if spec.box_unit == old.box_unit else spec.box_unit,
        notes=(*(note for note in spec.notes if note not in old.notes), *new.notes, note),
    )
