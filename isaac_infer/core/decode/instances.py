"""Objects with masks: the boxes of a detection layout, and a mask for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from isaac_infer.core.decode import detection
from isaac_infer.core.decode.masks import Taps, interpolated_above, refuse_large_masks, taps, taps_at
from isaac_infer.core.errors import SessionError, TensorError
from isaac_infer.core.fit import Fit
from isaac_infer.core.maps import label_dtype, names_wanted
from isaac_infer.core.results import Detections, Segmentation, mask_box
from isaac_infer.core.spec import Limits, ModelSpec

MARGIN = 1  # cells of zeros around the mask of a box


class Grids(NamedTuple):
    """Where the masks of the objects are on their grids."""

    values: Callable[[int, slice, slice], np.ndarray]  # object, rows, columns -> (h, w) of its mask
    size_hw: tuple[int, int]
    are_logits: bool = True
    of_box: bool = False  # whether a grid spans the object's whole box and MARGIN around it, not the input


ReadGrids = Callable[[np.ndarray, np.ndarray, ModelSpec], Grids]


@dataclass(frozen=True)
class InstanceDecoder:
    """Boxes of a detection layout, and a mask for each.

    Memory for one picture at most: MAX_MASK_PIXELS bytes for all masks together; while one is made, another
    16 bytes for each column of it on each row of the grid, and a copy of the prototypes.
    """

    description: str
    boxes: str  # the detection decoder that reads them, from all outputs but the last
    grids: ReadGrids  # from what the boxes' decoder read further of each, and the last output

    def __call__(
        self, outputs: Mapping[str, np.ndarray], fit: Fit, spec: ModelSpec, limits: Limits
    ) -> Segmentation:
        """Decode one picture."""
        *_, name = spec.outputs
        if name not in outputs:
            raise TensorError(f'output {name!r}: expected among the outputs, got {list(outputs)}')
        boxes_spec = replace(spec, outputs=spec.outputs[:-1])
        objects, whole, further = detection.DECODERS[self.boxes].find(outputs, fit, boxes_spec, limits)
        if further is None:
            raise TensorError(f'decoder {spec.decoder}: expected mask values behind each box, got none')
        none = np.iinfo(label_dtype(spec.num_classes)).max  # which no class has in the map of them
        if objects.class_id.max(initial=0) >= none:
            raise SessionError(
                f'{", ".join(boxes_spec.outputs)}: expected class numbers below {none}, got '
                f'{objects.class_id.max()}{names_wanted(spec.num_classes)}'
            )
        grids = self.grids(further, outputs[name], spec)
        return Segmentation(objects, _masks(objects, whole, grids, fit, limits, name))


def _masks(
    objects: Detections, whole: np.ndarray, grids: Grids, fit: Fit, limits: Limits, name: str
) -> tuple[np.ndarray, ...]:
    boxes = [mask_box(xyxy) for xyxy in objects.xyxy]
    refuse_large_masks(len(boxes), sum((right - left) * (bottom - top) for left, top, right, bottom in boxes))
    rows, columns = taps(fit, grids.size_hw)
    masks = []
    for at, (left, top, right, bottom) in enumerate(boxes):
        if grids.of_box:
            along_y, along_x = _box_taps(whole[at], (left, top, right, bottom), grids.size_hw)
        else:
            along_y, along_x = rows[top:bottom], columns[left:right]
        part_y, along_y = along_y.within
        part_x, along_x = along_x.within
        with np.errstate(over='ignore', invalid='ignore'):  # refused below instead
            values = grids.values(at, part_y, part_x)
        if not np.isfinite(values).all():
            raise SessionError(
                f'{name}: expected finite masks, got NaN or Inf; the model is broken, or its precision '
                'does not suffice'
            )
        if grids.are_logits:
            values = detection._sigmoid(values)  # before it is interpolated, as such networks are measured
        mask = interpolated_above(values, along_y, along_x, limits.mask_threshold)
        masks.append(_cut(mask, objects.xyxy[at]))
    return tuple(masks)


def _cut(mask: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Leave out, in place, the pixels of a mask whose middle is outside its box."""
    left, top, right, bottom = (xyxy.astype(np.float64) - np.floor(xyxy[[0, 1, 0, 1]])).tolist()
    height, width = mask.shape
    mask[: int(top > 0.5)] = mask[height - int(bottom < height - 0.5) :] = False
    mask[:, : int(left > 0.5)] = mask[:, width - int(right < width - 0.5) :] = False
    return mask


def _box_taps(
    xyxy: np.ndarray, box: tuple[int, int, int, int], grid_hw: tuple[int, int]
) -> tuple[Taps, Taps]:
    """Where the pixels of an object lie on a grid that spans its whole box, but for the margin around it."""
    left, top, right, bottom = xyxy.astype(np.float64)
    height, width = grid_hw[0] - 2 * MARGIN, grid_hw[1] - 2 * MARGIN
    rows = (np.arange(box[1], box[3]) + 0.5 - top) * (height / (bottom - top))
    columns = (np.arange(box[0], box[2]) + 0.5 - left) * (width / (right - left))
    return taps_at(rows + MARGIN, grid_hw[0]), taps_at(columns + MARGIN, grid_hw[1])


def grids_of_prototypes(further: np.ndarray, prototypes: np.ndarray, spec: ModelSpec) -> Grids:
    """Each mask is a sum of prototypes [1, K, h, w], weighted by the K coefficients of its box."""
    _expect_grid(prototypes, spec, (1, further.shape[1], -1, -1))
    planes = prototypes[0]

    def values(at: int, rows: slice, columns: slice) -> np.ndarray:
        part = planes[:, rows, columns]
        flat = part.reshape(len(part), -1).astype(np.float32, copy=False)
        return np.asarray((further[at] @ flat).reshape(part.shape[1:]))

    return Grids(values, planes.shape[1:])


def grids_of_queries(further: np.ndarray, masks: np.ndarray, spec: ModelSpec) -> Grids:
    """A mask [1, queries, h, w] of each query, logits over the whole picture; the box says which query."""
    _expect_grid(masks, spec, (1, -1, -1, -1))
    query = _row_numbers(further, masks.shape[1], spec)

    def values(at: int, rows: slice, columns: slice) -> np.ndarray:
        return np.asarray(masks[0, query[at], rows, columns], np.float32)

    return Grids(values, masks.shape[2:])


def _expect_grid(array: np.ndarray, spec: ModelSpec, shape: tuple[int, ...]) -> None:
    detection._expect(array, spec.outputs[-1], shape)
    if array.dtype.kind != 'f' or 0 in array.shape[-2:]:
        raise TensorError(
            f'{spec.outputs[-1]}: expected floating-point numbers on a grid, '
            f'got {array.dtype}{list(array.shape)}'
        )


def _row_numbers(further: np.ndarray, count: int, spec: ModelSpec) -> np.ndarray:
    numbers = further[:, 0].astype(np.intp)
    if numbers.max(initial=-1) >= count:
        raise TensorError(f'{spec.outputs[-1]}: expected a mask for each box, got {count}')
    return numbers


def grids_of_boxes(further: np.ndarray, masks: np.ndarray, spec: ModelSpec) -> Grids:
    """A mask of each box, probabilities: a small one over its box, or one over the whole picture.

    Beyond the middle of its outermost cells a small one fades to zero, as those who train such networks paste
    it: paste_masks_in_image of torchvision (padding 1), _do_paste_mask of Detectron2 (grid_sample, zeros).
    """
    planes = masks
    if masks.ndim == 4 and 1 in masks.shape[:2]:  # [N, 1, h, w] or [1, N, h, w]
        planes = masks[:, 0] if masks.shape[1] == 1 else masks[0]
    _expect_grid(planes, spec, (-1, -1, -1))
    row = _row_numbers(further, len(planes), spec)
    height, width = planes.shape[1:]

    def values(at: int, rows: slice, columns: slice) -> np.ndarray:
        return np.asarray(planes[row[at], rows, columns], np.float32)

    def values_of_box(at: int, rows: slice, columns: slice) -> np.ndarray:
        padded = np.zeros((height + 2 * MARGIN, width + 2 * MARGIN), np.float32)
        padded[MARGIN:-MARGIN, MARGIN:-MARGIN] = planes[row[at]]
        return padded[rows, columns]

    if (height, width) == spec.image.size_hw:
        return Grids(values, (height, width), are_logits=False)
    size_hw = height + 2 * MARGIN, width + 2 * MARGIN
    return Grids(values_of_box, size_hw, are_logits=False, of_box=True)
