"""What bench measures of segmentation and pose: answers of networks, read our way and the usual way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.fit import Fit, Size, fit_picture
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.tensor import TensorSpec

NETWORK_HW = (640, 640)
INPUT = TensorSpec('images', (1, 3, *NETWORK_HW), np.dtype(np.float32))
ANCHORS = sum((NETWORK_HW[0] // stride) ** 2 for stride in (8, 16, 32))
OBJECTS, CLASSES, PROTOTYPES, GRID = 20, 80, 32, 160
PIXEL_CLASSES = 21
PERSONS, KEYPOINTS = 10, 17
NAMES = {index: f'class {index}' for index in range(CLASSES)}


class Pair(NamedTuple):
    """One answer, read in two ways."""

    what: str
    ours: Callable[[], object]
    usual: Callable[[], object]


def _decode(
    task: str, outputs: dict[str, np.ndarray], spec: ModelSpec, fit: Fit, limits: Limits = Limits()
) -> Callable[[], object]:
    return partial(TASKS[task].decoders[spec.decoder], outputs, fit, spec, limits)


def _boxes(count: int) -> np.ndarray:
    """Boxes that do not overlap, in network pixels: centre x, y, width, height."""
    at = np.arange(count)
    return np.stack((70 + 125 * (at % 5), 190 + 85 * (at // 5), np.full(count, 110), np.full(count, 78)), 1)


def instance_masks(source_hw: Size) -> Pair:
    """Masks of 20 objects, by prototypes as YOLO-seg has them."""
    rng = np.random.default_rng(1)
    rows = np.zeros((1, 4 + CLASSES + PROTOTYPES, ANCHORS), np.float32)
    prototypes = cv2.GaussianBlur(rng.normal(size=(GRID, GRID, PROTOTYPES)).astype(np.float32), (0, 0), 4)
    prototypes = np.ascontiguousarray(prototypes.transpose(2, 0, 1))[None] * 20
    boxes = _boxes(OBJECTS)
    rows[0, :4] = NETWORK_HW[0] / 2
    rows[0, :4, :OBJECTS] = boxes.T
    rows[0, 4 + np.arange(OBJECTS), np.arange(OBJECTS)] = 0.9
    rows[0, 4 + CLASSES :, :OBJECTS] = rng.normal(size=(PROTOTYPES, OBJECTS))
    outputs = {'output0': rows, 'output1': prototypes}
    specs = tuple(TensorSpec(name, array.shape, array.dtype) for name, array in outputs.items())
    spec = resolve_spec((INPUT,), specs, {'task': 'segment', 'names': str(NAMES)}, task='segmentation')
    fit = fit_picture(source_hw, NETWORK_HW, resize='letterbox')
    left, top, right, bottom = fit.network_box

    def usual() -> list[np.ndarray]:
        found = rows[0].T
        scores = found[:, 4 : 4 + CLASSES].max(axis=1)
        found = found[scores > 0.25]
        masks = 1 / (1 + np.exp(-(found[:, 4 + CLASSES :] @ prototypes[0].reshape(PROTOTYPES, -1))))
        whole = []
        for mask, (x, y, w, h) in zip(masks.reshape(-1, GRID, GRID), found[:, :4], strict=True):
            large = cv2.resize(mask, NETWORK_HW)[top:bottom, left:right]
            large = cv2.resize(large, source_hw[::-1])
            inside = np.zeros(source_hw, bool)
            x1, y1 = (np.array((x - w / 2 - left, y - h / 2 - top)) / fit.scale_xy[0]).astype(int)
            x2, y2 = (np.array((x + w / 2 - left, y + h / 2 - top)) / fit.scale_xy[0]).astype(int)
            inside[max(y1, 0) : y2, max(x1, 0) : x2] = True
            whole.append((large > 0.5) & inside)
        return whole

    return Pair(f'masks of {OBJECTS} objects', _decode('segmentation', outputs, spec, fit), usual)


def class_map(source_hw: Size, *, how: str = 'scores') -> Pair:
    """Classes of pixels.

    Args:
        how: of the `scores` of every class, interpolated at their borders; of the `nearest` scores; or where
            the network gives the best class itself, as a `map`.
    """
    rng = np.random.default_rng(2)
    coarse = rng.normal(size=(8, 8, PIXEL_CLASSES)).astype(np.float32)  # some fifty regions
    scores = np.ascontiguousarray(cv2.resize(coarse, NETWORK_HW[::-1]).transpose(2, 0, 1))[None]
    answer = scores.argmax(axis=1).astype(np.int32) if how == 'map' else scores
    output = TensorSpec('output', answer.shape, answer.dtype)
    names = {index: NAMES[index] for index in range(PIXEL_CLASSES)}
    spec = resolve_spec((INPUT,), (output,), {'names': str(names)}, task='segmentation')
    fit = fit_picture(source_hw, NETWORK_HW, resize=spec.image.resize)
    limits = Limits(interpolate_scores=how == 'scores')

    def usual() -> np.ndarray:
        labels = answer[0] if how == 'map' else answer[0].argmax(axis=0)
        left, top, right, bottom = fit.network_box
        part = labels.astype(np.uint8)[top:bottom, left:right]
        return cv2.resize(part, source_hw[::-1], interpolation=cv2.INTER_NEAREST)

    kinds = {'map': 'best class in the network', 'nearest': f'{PIXEL_CLASSES} scores, not interpolated'}
    kind = kinds.get(how, f'{PIXEL_CLASSES} scores, interpolated')
    return Pair(f'class map, {kind}', _decode('segmentation', {'output': answer}, spec, fit, limits), usual)


def keypoints(source_hw: Size) -> Pair:
    """Key points of 10 persons, as Ultralytics' pose models answer."""
    rng = np.random.default_rng(3)
    rows = np.zeros((1, 5 + 3 * KEYPOINTS, ANCHORS), np.float32)
    rows[0, :4] = NETWORK_HW[0] / 2
    rows[0, 4] = rng.random(ANCHORS) * 0.05
    each = 8  # boxes of one person
    for row, box in enumerate(_boxes(PERSONS)):
        at = slice(row * each, (row + 1) * each)
        rows[0, :4, at] = box[:, None] + rng.normal(size=(4, each))
        rows[0, 4, at] = 0.5 + 0.4 * rng.random(each)
        points = rng.random((KEYPOINTS, 3, each)) * np.array((640, 640, 1))[:, None]
        rows[0, 5:, at] = points.reshape(-1, each)
    output = TensorSpec('output0', rows.shape, rows.dtype)
    spec = resolve_spec((INPUT,), (output,), {'task': 'pose', 'kpt_shape': '[17, 3]'}, task='pose')
    fit = fit_picture(source_hw, NETWORK_HW, resize='letterbox')
    left, top, _, _ = fit.network_box

    def usual() -> list[tuple[np.ndarray, np.ndarray]]:
        found = rows[0].T
        found = found[found[:, 4] > 0.25].copy()
        found[:, :2] -= found[:, 2:4] / 2
        kept = cv2.dnn.NMSBoxes(found[:, :4].tolist(), found[:, 4].tolist(), 0.25, 0.45)
        persons = []
        for row in np.ravel(kept):
            points = found[row, 5:].reshape(KEYPOINTS, 3).copy()
            points[:, :2] = (points[:, :2] - (left, top)) / fit.scale_xy[0]
            persons.append((found[row, :4], points))
        return persons

    return Pair(f'key points of {PERSONS} persons', _decode('pose', {'output0': rows}, spec, fit), usual)
