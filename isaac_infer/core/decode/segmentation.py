"""Segmentation decoders: the outputs of a network to a Segmentation, one decoder per output layout."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from isaac_infer.core.decode import detection
from isaac_infer.core.decode.heatmaps import cell_of
from isaac_infer.core.decode.masks import (
    Taps,
    grid_in_source,
    interpolated_above,
    interpolated_labels,
    nearest,
    nearest_labels,
    taps,
    taps_at,
)
from isaac_infer.core.decode.probe import probe as probe_boxes
from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.core.fit import Fit, Size, fit_picture
from isaac_infer.core.maps import label_dtype
from isaac_infer.core.results import Detections, Segmentation, mask_box, no_detections
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.text import counted

MAX_MASK_PIXELS = 1 << 29  # of all masks of a picture together, a byte each
MAX_REGION_PIXELS = 1 << 26  # of a picture in which regions are looked for, several bytes each
MAX_REGION_WORK = 1 << 29  # pixels of the boxes around all classes of a picture: two seconds
MARGIN = 1  # cells of zeros around the mask of a box
COARSE = 1.25  # pixels of the picture per score: with fewer, nothing is seen of what is interpolated
FAINT = 0.5  # what key points score at most in a grey picture, where there are none
SHARES_TOLERANCE = 0.02  # of the sum of what softmax gives, in half precision
SAMPLES = 1 << 16  # points at which probabilities are worked out for the scores of regions
FEW_SAMPLES = 4  # in a region, with which its score would be one of chance
LOOKS = 64  # pixels of such a region that are looked at instead
GOLDEN = 0.6180339887498949  # ratio, multiples of which fill 0..1 evenly
LOOKING = 1 << 12  # what these cost, in pixels of the box around it
MAX_LOOKING = 1 << 23  # such cost in a picture; of regions beyond it the samples count, or all of their class
BACKGROUND_NAMES = (
    'background', '__background__', '_background_', 'bg', 'void', 'unlabeled', 'unlabelled', 'ignore',
    'nothing', 'none',
)  # fmt: skip
PROBABILITY = (1 - detection.HIGHEST_SCORE, detection.HIGHEST_SCORE)  # 0..1, and what quantisation adds


class Decoder(Protocol):
    """One output layout: called with a network's outputs, it gives the segmentation in source pixels."""

    @property
    def description(self) -> str:
        """One line for people."""

    def __call__(
        self, outputs: Mapping[str, np.ndarray], fit: Fit, spec: ModelSpec, limits: Limits
    ) -> Segmentation:
        """Decode one picture.

        Raises:
            TensorError: an output is missing or has another shape than its layout asks for.
            SessionError: an output is not finite, or holds something that its layout cannot have.
        """


# ---- objects with masks --------------------------------------------------------------------------


class Grids(NamedTuple):
    """Where the masks of the objects are on their grids."""

    values: Callable[[int, slice, slice], np.ndarray]  # object, rows, columns -> (h, w) of its mask
    size_hw: tuple[int, int]
    are_logits: bool = True
    of_box: bool = False  # whether a grid spans the object's box, and MARGIN around it, not the network input


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
        objects, further = detection.DECODERS[self.boxes].find(outputs, fit, boxes_spec, limits)
        if further is None:
            raise TensorError(f'decoder {spec.decoder}: expected mask values behind each box, got none')
        none = np.iinfo(label_dtype(spec.num_classes)).max  # which no class has in the map of them
        if objects.class_id.max(initial=0) >= none:
            raise SessionError(
                f'{", ".join(boxes_spec.outputs)}: expected class numbers below {none}, got '
                f'{objects.class_id.max()}{_class_names_say(spec)}'
            )
        grids = self.grids(further, outputs[name], spec)
        return Segmentation(objects, _masks(objects, grids, fit, limits, name))


def _masks(objects: Detections, grids: Grids, fit: Fit, limits: Limits, name: str) -> tuple[np.ndarray, ...]:
    boxes = [mask_box(xyxy) for xyxy in objects.xyxy]
    _refuse_too_large(len(boxes), sum((right - left) * (bottom - top) for left, top, right, bottom in boxes))
    rows, columns = taps(fit, grids.size_hw)
    masks = []
    for at, (left, top, right, bottom) in enumerate(boxes):
        if grids.of_box:
            along_y, along_x = _box_taps(objects.xyxy[at], (left, top, right, bottom), grids.size_hw)
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
    """Where the pixels of an object lie on a grid that spans its box, but for the margin around it."""
    left, top, right, bottom = xyxy.astype(np.float64)
    height, width = grid_hw[0] - 2 * MARGIN, grid_hw[1] - 2 * MARGIN
    rows = (np.arange(box[1], box[3]) + 0.5 - top) * (height / (bottom - top))
    columns = (np.arange(box[0], box[2]) + 0.5 - left) * (width / (right - left))
    return taps_at(rows + MARGIN, grid_hw[0]), taps_at(columns + MARGIN, grid_hw[1])


def _refuse_too_large(count: int, pixels: int) -> None:
    if pixels > MAX_MASK_PIXELS:
        raise SessionError(
            f'masks: {counted(count, "object")} of {pixels} pixels together are more than the limit of '
            f'{MAX_MASK_PIXELS}; raise confidence_threshold, lower max_detections, or send smaller pictures'
        )


def _grids_of_prototypes(further: np.ndarray, prototypes: np.ndarray, spec: ModelSpec) -> Grids:
    """Each mask is a sum of prototypes [1, K, h, w], weighted by the K coefficients of its box."""
    _expect_grid(prototypes, spec, (1, further.shape[1], -1, -1))
    planes = prototypes[0]

    def values(at: int, rows: slice, columns: slice) -> np.ndarray:
        part = planes[:, rows, columns]
        flat = part.reshape(len(part), -1).astype(np.float32, copy=False)
        return np.asarray((further[at] @ flat).reshape(part.shape[1:]))

    return Grids(values, planes.shape[1:])


def _grids_of_queries(further: np.ndarray, masks: np.ndarray, spec: ModelSpec) -> Grids:
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


def _grids_of_boxes(further: np.ndarray, masks: np.ndarray, spec: ModelSpec) -> Grids:
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


# ---- what every pixel is -------------------------------------------------------------------------


class Probability(Protocol):
    """What a network gives for the class of some points of its grid."""

    def __call__(
        self, at_rows: slice | np.ndarray, at_columns: slice | np.ndarray, class_id: int | None = None
    ) -> np.ndarray:
        """Those of rows and columns, or of n points; of a class, or else of the best at each of them."""


class Read(NamedTuple):
    """What a semantic network says of a picture."""

    class_map: np.ndarray  # (H, W) uint8 or uint16, source size
    grid_hw: tuple[int, int]
    probability: Probability | None


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
    def are_probabilities() -> bool:
        step = _step(grid_hw)
        return _are_probabilities(scores[:, ::step, ::step], spec)

    def probability(
        at_rows: slice | np.ndarray, at_columns: slice | np.ndarray, class_id: int | None = None
    ) -> np.ndarray:
        values = scores[:, at_rows, at_columns].astype(np.float32)
        highest = values.max(axis=0)
        of_class = highest if class_id is None else values[class_id]
        if are_probabilities():
            return np.asarray(np.clip(of_class, 0, 1))
        return np.asarray(np.exp(of_class - highest) / np.exp(values - highest).sum(axis=0))

    return Read(_hide_unseen(class_map, fit), grid_hw, probability)


def _read_foreground(plane: np.ndarray, fit: Fit, spec: ModelSpec, limits: Limits) -> Read:
    """One logit or probability per pixel: 1 is the object, 0 is not."""
    if plane.dtype.kind != 'f':
        raise TensorError(f'{spec.outputs[0]}: expected floating-point numbers, got {plane.dtype}')
    _refuse_infinite(plane, spec)
    is_probable = _are_probabilities(plane, spec)
    threshold = limits.mask_threshold if is_probable else detection._logit(limits.mask_threshold)
    rows, columns = taps(fit, plane.shape)
    if limits.interpolate_scores:
        part_y, along_y = rows.within
        part_x, along_x = columns.within
        is_object = interpolated_above(plane[part_y, part_x], along_y, along_x, threshold)
    else:
        is_object = nearest(plane > threshold, rows, columns)

    def probability(
        at_rows: slice | np.ndarray, at_columns: slice | np.ndarray, class_id: int | None = None
    ) -> np.ndarray:
        values = plane[at_rows, at_columns].astype(np.float32)
        likely = np.clip(values, 0, 1) if is_probable else detection._sigmoid(values)
        return np.where(values > threshold if class_id is None else class_id == 1, likely, 1 - likely)

    return Read(_hide_unseen(is_object.view(np.uint8), fit), plane.shape, probability)


def _read_map(plane: np.ndarray, fit: Fit, spec: ModelSpec) -> Read:
    """The number of the class of each pixel, of any type."""
    dtype = _map_dtype(plane, spec)
    if plane.dtype.kind == 'b':
        plane = plane.view(np.uint8)
    lowest, highest, most = plane.min(), plane.max(), np.iinfo(dtype).max
    if not (lowest >= 0 and highest <= most):  # written so that NaN fails too
        raise SessionError(
            f'{spec.outputs[0]}: expected class numbers from 0 to {most}, got {lowest} to {highest}'
            f'{_class_names_say(spec)}'
        )
    label = plane.astype(dtype)
    if plane.dtype.kind == 'f' and (label != plane).any():
        raise SessionError(
            f'{spec.outputs[0]}: expected whole numbers as classes, got numbers between them; '
            'set decoder to semantic_binary if they are scores of one class'
        )
    class_map = nearest(label, *taps(fit, label.shape))
    return Read(_hide_unseen(class_map, fit), label.shape, None)


def _map_dtype(plane: np.ndarray, spec: ModelSpec) -> type[np.unsignedinteger]:
    """A byte where the classes fit, or, where nobody says how many, where the network writes bytes."""
    is_byte = not spec.num_classes and plane.dtype.itemsize == 1
    return np.uint8 if is_byte else label_dtype(spec.num_classes)


def _class_names_say(spec: ModelSpec) -> str:
    return f'; class_names has {spec.num_classes}: name all of them' if spec.num_classes else ''


def _are_probabilities(values: np.ndarray, spec: ModelSpec) -> bool:
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


# ---- regions -------------------------------------------------------------------------------------


def kind_of_masks(spec: ModelSpec) -> str:
    """Whether a model gives the class of every pixel (semantic), or a mask of each object (instances)."""
    return 'semantic' if isinstance(DECODERS[spec.decoder], SemanticDecoder) else 'instances'


def background_classes(class_names: Sequence[str]) -> frozenset[int]:
    """The classes that are no objects: those named so; where no class has a name, the first."""
    if not class_names:
        return frozenset((0,))
    names = (name.strip().lower() for name in class_names)
    return frozenset(index for index, name in enumerate(names) if name in BACKGROUND_NAMES)


def _step(grid_hw: Size) -> int:
    """How many grid points there are to a sample along each axis."""
    return max(int((grid_hw[0] * grid_hw[1] / SAMPLES) ** 0.5), 1)


def regions(
    found: Read, fit: Fit, spec: ModelSpec, limits: Limits
) -> tuple[Detections, tuple[np.ndarray, ...]]:
    """The connected pixels of a class as objects, most probable first, with their masks.

    The score is the mean probability of the class in the region, 1 where the network gives none: over the
    samples of the whole picture that lie in it; where these are few, over some of its own pixels. Those of
    the background count only where `limits.class_ids` asks for them.

    Raises:
        SessionError: the picture is too large for it, or has too many classes that are all over it.
    """
    class_map = found.class_map
    if class_map.size > MAX_REGION_PIXELS:
        raise SessionError(
            f'regions: a picture of {class_map.size} pixels is above the limit of {MAX_REGION_PIXELS}; '
            'set min_region_area to 0, or send smaller pictures'
        )
    (rows, sample_y), (columns, sample_x) = grid_in_source(fit, found.grid_hw, _step(found.grid_hw))
    probability = found.probability(rows, columns) if found.probability else None
    along_y, along_x = taps(fit, found.grid_hw)
    numbers = np.iinfo(class_map.dtype).max + 1
    pixels = cv2.calcHist([class_map], [0], None, [numbers], [0, numbers]).reshape(-1)
    of_class = np.flatnonzero(pixels >= limits.min_region_area)
    if limits.class_ids:
        of_class = of_class[np.isin(of_class, list(limits.class_ids))]
    else:
        of_class = of_class[~np.isin(of_class, list(background_classes(spec.class_names)))]
    of_class = of_class[of_class < numbers - 1]
    boxes: list[tuple[int, int, int, int]] = []
    scores: list[float] = []
    classes: list[int] = []
    masks: list[np.ndarray] = []
    work = mask_pixels = 0
    left_to_look = MAX_LOOKING
    for class_id in of_class.tolist():
        if probability is None and len(scores) >= limits.max_detections:
            break  # all score the same: no further one is among the best
        is_class = (class_map == class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(is_class)
        part = is_class[top : top + height, left : left + width]
        work += part.size + class_map.size // 8  # where it is looked for
        if work > MAX_REGION_WORK:
            raise SessionError(
                f'regions: {len(of_class)} classes have {limits.min_region_area} pixels or more, and are too '
                'scattered for all to be looked at; raise min_region_area, or set class_filter'
            )
        count, labels, stats = _connected(part)
        number = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= limits.min_region_area)
        number = number[number > 0]
        score = np.ones(count)
        if found.probability and probability is not None:
            score, hits = _means(labels, probability, sample_y - top, sample_x - left, count)
            few = number[hits[number] < FEW_SAMPLES]
            # The largest first: specks do not matter as much.
            for at in few[np.argsort(-stats[few, cv2.CC_STAT_AREA], kind='stable')].tolist():
                cost = int(stats[at, cv2.CC_STAT_WIDTH]) * int(stats[at, cv2.CC_STAT_HEIGHT]) + LOOKING
                if cost > left_to_look:
                    continue
                left_to_look -= cost
                y, x = _some_pixels(labels, stats[at], at)
                points = along_y.nearest[top + y], along_x.nearest[left + x]
                score[at] = found.probability(*points, class_id).mean()
        number = number[score[number] >= limits.confidence_threshold]
        number = number[np.argsort(-score[number], kind='stable')[: limits.max_detections]]
        sides = stats[number][:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(np.int64)
        mask_pixels += int(sides.prod(axis=1).sum())
        _refuse_too_large(len(boxes) + len(number), mask_pixels)
        for at in number.tolist():
            x, y, wide, high, _ = stats[at].tolist()
            boxes.append((left + x, top + y, left + x + wide, top + y + high))
            scores.append(float(score[at]))
            classes.append(class_id)
            masks.append(labels[y : y + high, x : x + wide] == at)
    order = np.argsort(-np.array(scores), kind='stable')[: limits.max_detections]
    objects = Detections(
        np.array(boxes, np.float32).reshape(-1, 4)[order],
        np.array(scores, np.float32)[order],
        np.array(classes, np.int32)[order],
    )
    return objects, tuple(masks[at] for at in order.tolist())


def _connected(is_class: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number the connected pixels: how many numbers, (h, w) of them, and the statistics of each."""
    count, _ = cv2.connectedComponents(is_class, connectivity=8, ltype=cv2.CV_32S)
    # Counted first, in a sixth of the time: statistics of short numbers take half as long as of long ones.
    if count <= np.iinfo(np.uint16).max:
        try:
            return cv2.connectedComponentsWithStats(is_class, connectivity=8, ltype=cv2.CV_16U)[:3]
        except cv2.error:  # of noise: there are more numbers before those of neighbours are made one
            pass
    return cv2.connectedComponentsWithStats(is_class, connectivity=8, ltype=cv2.CV_32S)[:3]


def _means(
    labels: np.ndarray, probability: np.ndarray, y: np.ndarray, x: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of each region over the samples in it, and how many these are.

    Of one without any it is the mean over all of its class.
    """
    in_y = np.flatnonzero((y >= 0) & (y < labels.shape[0]))
    in_x = np.flatnonzero((x >= 0) & (x < labels.shape[1]))
    region = labels.take(y[in_y], axis=0).take(x[in_x], axis=1)
    is_counted = region > 0  # few: most samples are of other classes
    region, values = region[is_counted], probability.take(in_y, axis=0).take(in_x, axis=1)[is_counted]
    hits = np.bincount(region, minlength=count)
    sums = np.bincount(region, values, minlength=count)
    of_all = sums.sum() / hits.sum() if len(region) else 0.5
    return np.where(hits > 0, sums / np.maximum(hits, 1), of_all), hits


def _some_pixels(labels: np.ndarray, statistics: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of LOOKS pixels of a region at most, all over it."""
    x, y, wide, high, _ = statistics.tolist()
    row, column = np.nonzero(labels[y : y + high, x : x + wide] == at)
    some = np.arange(len(row))
    if len(row) > LOOKS:  # not every n-th: where rows have a multiple of n pixels, all would be of one column
        some = (np.arange(LOOKS) * GOLDEN % 1 * len(row)).astype(np.intp)
    return row[some] + y, column[some] + x


# ---- a first run ---------------------------------------------------------------------------------


def probe(outputs: Mapping[str, np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Settle by the outputs of one run what is unsettled in a spec, and check that its decoder can read them.

    Raises:
        SessionError: the outputs are not what the decoder reads.
        TensorError: an output is missing, or has another shape than the decoder reads.
        ModelError: the outputs contradict the decoder.
    """
    decoder = DECODERS[spec.decoder]
    height, width = spec.image.size_hw
    whole = fit_picture((height, width), (height, width), resize='stretch')
    if isinstance(decoder, InstanceDecoder):
        spec = _probe_boxes(outputs, spec, decoder.boxes)
        decoder(outputs, whole, spec, Limits(confidence_threshold=0.0, max_detections=1))
        return spec if spec.num_classes else replace(spec, notes=(*spec.notes, _WIDE))
    decoder(outputs, whole, spec, Limits())
    tensor = outputs[spec.outputs[0]]
    if spec.decoder == 'semantic_map' or tensor.dtype.kind in 'iub':
        is_wide = not spec.num_classes and _map_dtype(tensor, spec) == np.uint16
        return replace(spec, notes=(*spec.notes, _NO_SCORES, *((_WIDE,) if is_wide else ())))
    if not spec.score_unit and not _are_probabilities(tensor, spec):
        spec = replace(spec, score_unit='logits')
    if axis := class_axis(tensor.shape, spec):
        is_told = spec.class_names or 'task' not in spec.unsettled
        return spec if is_told else _doubt(spec, tensor.astype(np.float32), axis)
    is_whole = tensor.min() >= 0 and tensor.max() > 1 and not (tensor % 1).any()
    if is_whole and 'decoder' in spec.unsettled:
        raise ModelError(
            f'{spec.outputs[0]}: has whole numbers only, which are probably classes; set decoder to '
            'semantic_map, or to semantic_binary if they are scores'
        )
    names = spec.class_names
    return replace(spec, num_classes=2, class_names=('background', *names) if len(names) == 1 else names)


def _doubt(spec: ModelSpec, scores: np.ndarray, axis: int) -> ModelSpec:
    """Warn of scores like those of heat maps, which have the same shapes, where a pose decoder reads them.

    Whoever tells classes apart prefers one, even in a grey picture, all over which key points score about 0.
    """
    height, width = scores.shape[2:] if axis == 1 else scores.shape[1:3]
    low, high = scores.min(), scores.max()
    is_shared_out = np.allclose(scores.sum(axis=axis), 1, atol=SHARES_TOLERANCE)  # by softmax
    if max(-low, high) >= FAINT or is_shared_out or not cell_of(spec.image.size_hw, (height, width)):
        return spec
    warning = (
        f'{spec.outputs[0]}: {spec.num_classes} channels from {low:.2g} to {high:.2g} in a grey picture are '
        'more like heat maps of key points than like scores of classes; if they are, take pose_node, on the '
        f'command line --task pose; if not, set decoder to {spec.decoder}, or class_names'
    )
    return replace(spec, warnings=(*spec.warnings, warning))


_WIDE = 'how many classes there are is not known: class maps have 16 bits; set class_names for 8'
_NO_SCORES = 'the network gives classes without probabilities: all regions score 1'


def _probe_boxes(outputs: Mapping[str, np.ndarray], spec: ModelSpec, boxes: str) -> ModelSpec:
    """Have the boxes checked as those of a detector with the same decoder."""
    as_detector = replace(spec, decoder=boxes, outputs=spec.outputs[:-1])
    settled = probe_boxes(outputs, as_detector)
    if settled.decoder != boxes:
        raise ModelError(
            f'{spec.outputs[0]}: its boxes are those of decoder {settled.decoder}, expected {boxes}; '
            f'set decoder; for this task there are {", ".join(DECODERS)}'
        )
    return replace(settled, decoder=spec.decoder, outputs=spec.outputs)


DECODERS: dict[str, Decoder] = {
    'ultralytics_seg': InstanceDecoder(
        'Ultralytics YOLO v8-seg, 11-seg, ...: [1, 4+classes+K, boxes] and prototypes [1, K, h, w]',
        'ultralytics',
        _grids_of_prototypes,
    ),
    'ultralytics_seg_end2end': InstanceDecoder(
        'YOLO26-seg, or exported with NMS: [1, N, 6+K] and prototypes [1, K, h, w]',
        'ultralytics_end2end',
        _grids_of_prototypes,
    ),
    'yolov5_seg': InstanceDecoder(
        'YOLOv5-seg: [1, boxes, 5+classes+K] and prototypes [1, K, h, w]', 'yolov5', _grids_of_prototypes
    ),
    'rfdetr_seg': InstanceDecoder(
        'RF-DETR-seg: dets, labels, and masks [1, queries, h, w] as logits', 'rfdetr', _grids_of_queries
    ),
    'mask_rcnn': InstanceDecoder(
        'Mask R-CNN: labels from 1, boxes [N, 4] in pixels, scores, and masks [N, 1, h, w] of box or picture',
        'rtdetr',
        _grids_of_boxes,
    ),
    'semantic': SemanticDecoder('a score for every class: [1, classes, h, w] or [1, h, w, classes]'),
    'semantic_map': SemanticDecoder('the number of the class: [1, h, w], [1, 1, h, w] or [1, h, w, 1]'),
    'semantic_binary': SemanticDecoder('one score, 1 is the object: [1, 1, h, w], [1, h, w, 1] or [1, h, w]'),
    'semantic_symmetric': SemanticDecoder(
        'any of these three of a network fed -1..1: DeepLab of TensorFlow, UNet of TAO'
    ),
    'ultralytics_semantic': SemanticDecoder('any of these three of Ultralytics, letterboxed'),
}
