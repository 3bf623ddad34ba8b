"""Semantic segmentation: the class of every pixel, and the regions of a class as objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from isaac_infer.core.decode import detection
from isaac_infer.core.decode.masks import (
    interpolated_above,
    interpolated_labels,
    nearest,
    nearest_labels,
    taps,
)
from isaac_infer.core.decode.regions import Read, regions, sample_step
from isaac_infer.core.errors import SessionError, TensorError
from isaac_infer.core.fit import Fit
from isaac_infer.core.maps import label_dtype, names_wanted
from isaac_infer.core.results import Segmentation, no_detections
from isaac_infer.core.spec import Limits, ModelSpec

COARSE = 1.25  # pixels of the picture per score: with fewer, nothing is seen of what is interpolated
WHITE = 255  # what masks of one object have instead of 1
NO_CLASS = -1  # what maps with a sign have where there is no class
PROBABILITY = (1 - detection.HIGHEST_SCORE, detection.HIGHEST_SCORE)  # 0..1, and what quantisation adds


@dataclass(frozen=True)
class SemanticDecoder:
    """A class for every pixel, and the regions of a class as objects where they are asked for.

    Memory for one picture at most: 4 bytes per source pixel (24 where there is one score), with the rows of
    the grid where it has more than the picture, 128 per grid point, 256 KiB per class, and 16 MiB. Regions
    take another 32 bytes per source pixel, 12 per class at each of up to 4 * SAMPLES points, and
    MAX_MASK_PIXELS bytes for their masks.
    """

    description: str

    def __call__(
        self, outputs: Mapping[str, np.ndarray], fit: Fit, spec: ModelSpec, limits: Limits
    ) -> Segmentation:
        """Decode one picture."""
        (name,) = spec.outputs
        if name not in outputs:
            raise TensorError(f'output {name!r}: expected among the outputs, got {list(outputs)}')
        with np.errstate(over='ignore', invalid='ignore'):  # what is not finite is refused
            found = _read_pixels(outputs[name], fit, spec, limits)
            wants_regions = limits.min_region_area > 0
            if limits.class_ids:
                class_map, counted = _only(found.class_map, limits.class_ids, spec.num_classes)
                found, limits = found._replace(class_map=class_map), replace(limits, class_ids=counted)
                wants_regions &= bool(counted)  # none would mean all
            if not wants_regions:
                return Segmentation(no_detections(), (), found.class_map)
            objects, masks = regions(found, fit, spec, limits)
        return Segmentation(objects, masks, found.class_map)


def class_axis(shape: tuple[int, ...], spec: ModelSpec) -> int:
    """The axis of a tensor that has a score for every class; 0: none has.

    A grid may have as many rows or columns as there are classes. Whether these are classes the decoder
    says; where it reads both, an axis of length 1 is taken for that of the only score.
    """
    if len(shape) != 4 or spec.num_classes < 2 or spec.decoder == 'semantic_binary':
        return 0
    if 1 in (shape[1], shape[3]) and spec.decoder != 'semantic':
        return 0
    order = (1, 3) if spec.image.layout == 'nchw' else (3, 1)
    return next((axis for axis in order if shape[axis] == spec.num_classes), 0)


def _read_pixels(tensor: np.ndarray, fit: Fit, spec: ModelSpec, limits: Limits) -> Read:
    if 0 in tensor.shape:
        raise TensorError(f'{spec.outputs[0]}: expected at least one number, got {list(tensor.shape)}')
    if spec.decoder == 'semantic_map' or tensor.dtype.kind in 'iub':
        return _read_map(_plane(tensor, spec), fit, spec)
    axis = class_axis(tensor.shape, spec)
    if axis and len(tensor) == 1:
        return _read_scores(np.moveaxis(tensor[0], axis - 1, 0), fit, spec, limits)
    return _read_foreground(_plane(tensor, spec), fit, spec, limits)


def _plane(tensor: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """View [1, 1, h, w], [1, h, w, 1], [1, h, w] or [h, w] as (h, w)."""
    shape = tensor.shape
    if len(shape) == 4 and shape[0] == 1 and 1 in (shape[1], shape[3]):
        return np.asarray(tensor[0, 0] if shape[1] == 1 else tensor[0, ..., 0])
    if len(shape) == 3 and shape[0] == 1:
        return np.asarray(tensor[0])
    if len(shape) == 2:
        return tensor
    classes = f'[1, {spec.num_classes}, ?, ?]' if spec.num_classes > 2 else '[1, 1, ?, ?]'
    raise TensorError(f'{spec.outputs[0]}: expected shape {classes} or [1, ?, ?], got {list(shape)}')


def _read_scores(scores: np.ndarray, fit: Fit, spec: ModelSpec, limits: Limits) -> Read:
    """Logits or probabilities (C, h, w)."""
    grid_hw = (scores.shape[1], scores.shape[2])
    rows, columns = taps(fit, grid_hw)
    is_coarse = any(len(axis) > COARSE * (axis.high[-1] - axis.low[0] + 1) for axis in (rows, columns))
    read = interpolated_labels if limits.interpolate_scores and is_coarse else nearest_labels
    class_map, best = read(scores, rows, columns, label_dtype(len(scores)))
    _refuse_infinite(best, spec)

    @cache
    def is_probable() -> bool:
        step = sample_step(grid_hw)
        return are_probabilities(scores[:, ::step, ::step], spec)

    def probability(
        at_rows: np.ndarray, at_columns: np.ndarray, class_id: int
    ) -> tuple[np.ndarray, np.ndarray]:
        values = scores[:, at_rows, at_columns].astype(np.float32)
        highest, own = values.max(axis=0), values[class_id]
        if is_probable():
            return np.clip(own, 0, 1), own == highest
        return np.exp(own - highest) / np.exp(values - highest).sum(axis=0), own == highest

    return Read(_hide_unseen(class_map, fit), grid_hw, probability)


def _read_foreground(plane: np.ndarray, fit: Fit, spec: ModelSpec, limits: Limits) -> Read:
    """One logit or probability per pixel: 1 is the object, 0 is not."""
    if plane.dtype.kind != 'f':
        raise TensorError(f'{spec.outputs[0]}: expected floating-point numbers, got {plane.dtype}')
    _refuse_infinite(plane, spec)
    is_probable = are_probabilities(plane, spec)
    threshold = limits.mask_threshold if is_probable else detection._logit(limits.mask_threshold)
    rows, columns = taps(fit, plane.shape)
    if limits.interpolate_scores:
        part_y, along_y = rows.within
        part_x, along_x = columns.within
        is_object = interpolated_above(plane[part_y, part_x], along_y, along_x, threshold)
    else:
        is_object = nearest(plane > threshold, rows, columns)

    def probability(
        at_rows: np.ndarray, at_columns: np.ndarray, class_id: int
    ) -> tuple[np.ndarray, np.ndarray]:
        values = plane[at_rows, at_columns].astype(np.float32)
        likely = np.clip(values, 0, 1) if is_probable else detection._sigmoid(values)
        is_object = values > threshold
        return (likely, is_object) if class_id == 1 else (1 - likely, ~is_object)

    return Read(_hide_unseen(is_object.view(np.uint8), fit), plane.shape, probability)


def _read_map(plane: np.ndarray, fit: Fit, spec: ModelSpec) -> Read:
    """The number of the class of each pixel, of any type."""
    dtype = map_dtype(plane, spec)
    if plane.dtype.kind == 'b':
        plane = plane.view(np.uint8)
    lowest, highest, most = plane.min(), plane.max(), np.iinfo(dtype).max
    if spec.white_is_object and highest == WHITE:
        plane = np.where(plane == WHITE, plane.dtype.type(1), plane)
        highest = plane.max()
    if not (lowest >= NO_CLASS and highest <= most):  # written so that NaN fails too
        raise SessionError(
            f'{spec.outputs[0]}: expected class numbers from 0 to {most}, {NO_CLASS} for none, got {lowest} '
            f'to {highest}{names_wanted(spec.num_classes) if highest > most else ""}'
        )
    if plane.dtype.kind == 'f':
        whole = plane.astype(np.int32)
        if (whole != plane).any():
            raise SessionError(
                f'{spec.outputs[0]}: expected whole numbers as classes, got numbers between them; '
                'set decoder to semantic_binary if they are scores of one class'
            )
        plane = whole
    label = plane.astype(dtype)  # NO_CLASS becomes the highest number
    class_map = nearest(label, *taps(fit, label.shape))
    return Read(_hide_unseen(class_map, fit), label.shape, None)


def map_dtype(plane: np.ndarray, spec: ModelSpec) -> type[np.unsignedinteger]:
    """A byte where the classes fit, or, where nobody says how many, where the network writes bytes."""
    is_byte = not spec.num_classes and plane.dtype.itemsize == 1
    return np.uint8 if is_byte else label_dtype(spec.num_classes)


def are_probabilities(values: np.ndarray, spec: ModelSpec) -> bool:
    """Whether scores are 0..1, as the spec or else the values say."""
    if spec.score_unit or not values.size:
        return spec.score_unit == 'probabilities'
    return bool(values.min() >= PROBABILITY[0] and values.max() <= PROBABILITY[1])


def _refuse_infinite(values: np.ndarray, spec: ModelSpec) -> None:
    if not np.isfinite(values).all():
        raise SessionError(
            f'{spec.outputs[0]}: expected finite scores, got NaN or Inf; the model is broken, or its '
            'precision does not suffice'
        )


def _hides(fit: Fit) -> bool:
    """Whether the network sees a part of the picture only."""
    return fit.source_box != (0, 0, fit.source_hw[1], fit.source_hw[0])


def _hide_unseen(class_map: np.ndarray, fit: Fit) -> np.ndarray:
    """Give what was cut off before the network the highest number, which no class has."""
    if _hides(fit):
        left, top, right, bottom = fit.source_box
        unseen = np.iinfo(class_map.dtype).max
        class_map[:top] = class_map[bottom:] = unseen
        class_map[:, :left] = class_map[:, right:] = unseen
    return class_map


def _only(
    class_map: np.ndarray, class_ids: Collection[int], num_classes: int
) -> tuple[np.ndarray, frozenset[int]]:
    """Give the classes that do not count the highest number, too; and those that do, which it has not."""
    if num_classes > np.iinfo(class_map.dtype).max:  # no number is left for no class
        class_map = class_map.astype(np.uint16)
    unseen = np.iinfo(class_map.dtype).max
    counted = [class_id for class_id in class_ids if class_id < unseen]
    table = np.full(unseen + 1, unseen, class_map.dtype)
    table[counted] = counted
    # For bytes OpenCV is several times as fast.
    only = cv2.LUT(class_map, table) if class_map.dtype == np.uint8 else table[class_map]
    return np.asarray(only), frozenset(counted)
