"""Layouts: for every pose decoder, the outputs of a small network that has found given persons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isaac_infer.core.decode import paf
from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.fit import Fit, fit_picture
from isaac_infer.core.skeleton import SKELETONS
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec

SIZE_HW = (256, 384)  # of the network
CELLS = 32 * 48 + 16 * 24 + 8 * 12
SOURCE_HW = (333, 517)  # odd, so that the letterbox rounds

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Person:
    """One person as the network sees it."""

    xy: np.ndarray  # (K, 2) network pixels
    score: np.ndarray  # (K,)
    certainty: float = 0.8  # of the whole person, where a layout has that

    @property
    def box(self) -> np.ndarray:
        """Left, top, right, bottom around the points."""
        return np.concatenate((self.xy.min(axis=0), self.xy.max(axis=0)))


@dataclass(frozen=True)
class Layout:
    """A decoder's layout: how outputs look, and what else the model shows."""

    encode: Callable[[Sequence[Person]], Outputs]
    keypoints: int
    many: bool = True  # whether it finds more than one person
    tolerance: float = 0.05  # network pixels
    metadata: Mapping[str, Any] = field(default_factory=dict)
    overrides: Overrides = Overrides()
    dtype: type = np.float32
    nhwc: bool = False
    has_scores: bool = True

    def spec(self) -> ModelSpec:
        shape = (1, *SIZE_HW, 3) if self.nhwc else (1, 3, *SIZE_HW)
        inputs = (TensorSpec('images', shape, np.dtype(self.dtype)),)
        outputs = tensor_specs(self.encode(()))
        return resolve_spec(inputs, outputs, self.metadata, self.overrides, task='pose')


def tensor_specs(outputs: Outputs) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, array.shape, array.dtype) for name, array in outputs.items())


def fit_for(spec: ModelSpec) -> Fit:
    return fit_picture(SOURCE_HW, spec.image.size_hw, resize=spec.image.resize)


def points_of(person: Person, values: int) -> np.ndarray:
    return np.column_stack((person.xy, person.score))[:, :values].reshape(-1)


def ultralytics(keypoints: int, values: int, unit: float = 1.0) -> Callable[[Sequence[Person]], Outputs]:
    def encode(persons: Sequence[Person]) -> Outputs:
        rows = np.zeros((CELLS, 5 + keypoints * values), np.float32)
        rows[:, :4] = 200, 100, 8, 8
        for at, person in enumerate(persons):
            left, top, right, bottom = person.box
            rows[7 + at, :5] = (
                (left + right) / 2,
                (top + bottom) / 2,
                right - left,
                bottom - top,
                person.certainty,
            )
            rows[7 + at, 5:] = points_of(person, values)
        scale = np.array([SIZE_HW[1], SIZE_HW[0]])
        if unit != 1:
            rows[:, :4] /= (*scale, *scale)
            rows[:, 5:].reshape(CELLS, keypoints, values)[..., :2] /= scale
        return {'output0': rows.T[None].copy()}

    return encode


def end2end(keypoints: int, values: int) -> Callable[[Sequence[Person]], Outputs]:
    def encode(persons: Sequence[Person]) -> Outputs:
        rows = np.zeros((300, 6 + keypoints * values), np.float32)
        for at, person in enumerate(persons):
            rows[at, :5] = *person.box, person.certainty
            rows[at, 6:] = points_of(person, values)
        return {'output0': rows[None]}

    return encode


def movenet(persons: Sequence[Person]) -> Outputs:
    rows = np.full((1, 1, 17, 3), 0.01, np.float32)
    for person in persons[:1]:
        rows[0, 0] = np.column_stack((person.xy[:, ::-1] / SIZE_HW, person.score))
    return {'output_0': rows}


def movenet_multi(persons: Sequence[Person]) -> Outputs:
    rows = np.zeros((1, 6, 56), np.float32)
    for at, person in enumerate(persons):
        rows[0, at, :51] = np.column_stack((person.xy[:, ::-1] / SIZE_HW, person.score)).reshape(-1)
        rows[0, at, 51:55] = person.box[[1, 0, 3, 2]] / (*SIZE_HW, *SIZE_HW)
        rows[0, at, 55] = person.certainty
    return {'output_0': rows}


def blobs(xy: np.ndarray, score: np.ndarray, size_hw: tuple[int, int], sigma: float) -> np.ndarray:
    """Gaussians at points given in cells: (K, h, w)."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    square = (columns - xy[:, 0, None, None]) ** 2 + (rows - xy[:, 1, None, None]) ** 2
    return (score[:, None, None] * np.exp(-square / (2 * sigma**2))).astype(np.float32)


def heat(keypoints: int, cell: int, *, last: bool = False) -> Callable[[Sequence[Person]], Outputs]:
    def encode(persons: Sequence[Person]) -> Outputs:
        size_hw = SIZE_HW[0] // cell, SIZE_HW[1] // cell
        maps = np.zeros((keypoints, *size_hw), np.float32)
        for person in persons[:1]:
            maps = blobs((person.xy - 0.5) / cell, person.score, size_hw, 2.0)
        return {'maps': maps.transpose(1, 2, 0)[None].copy() if last else maps[None]}

    return encode


def simcc(persons: Sequence[Person]) -> Outputs:
    along = {
        'simcc_x': np.zeros((1, 17, 2 * SIZE_HW[1]), 'f4'),
        'simcc_y': np.zeros((1, 17, 2 * SIZE_HW[0]), 'f4'),
    }
    for person in persons[:1]:
        bins = np.rint((person.xy - 0.5) * 2).astype(int)
        for axis, rows in enumerate(along.values()):
            inside = (bins[:, axis] >= 0) & (bins[:, axis] < rows.shape[2])
            rows[0, np.flatnonzero(inside), bins[inside, axis]] = person.score[inside]
    return along


def fields(
    topology: paf.Topology, parts: int, *, background: bool, names: tuple[str, ...]
) -> Callable[[Sequence[Person]], Outputs]:
    cell = 8
    size_hw = SIZE_HW[0] // cell, SIZE_HW[1] // cell

    def encode(persons: Sequence[Person]) -> Outputs:
        maps = np.zeros((parts + background, *size_hw), np.float32)
        field = np.zeros((2 * len(topology.links), *size_hw), np.float32)
        rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
        for person in persons:
            xy = person.xy / cell - 0.5
            maps[:parts] = np.maximum(maps[:parts], blobs(xy, person.score, size_hw, 1.2))
            for (start, end), (x_at, y_at) in zip(topology.links, topology.fields):
                way = xy[end] - xy[start]
                length = np.hypot(*way)
                if min(person.score[start], person.score[end]) <= 0 or not length:
                    continue
                ahead = ((columns - xy[start, 0]) * way[0] + (rows - xy[start, 1]) * way[1]) / length
                beside = ((columns - xy[start, 0]) * way[1] - (rows - xy[start, 1]) * way[0]) / length
                is_near = (np.abs(beside) <= 1.2) & (ahead >= -1) & (ahead <= length + 1)
                field[x_at][is_near], field[y_at][is_near] = way / length
        if len(names) == 1:
            return {names[0]: np.concatenate((maps, field))[None]}
        return {names[0]: maps[None], names[1]: field[None]}

    return encode


COCO_METADATA = {'task': 'pose', 'names': "{0: 'person'}", 'stride': '32', 'kpt_shape': '[17, 3]'}
DARK = Overrides(keypoint_refinement='dark')

# By the decoder, and where a decoder reads several forms, a word behind it.
LAYOUTS: dict[str, Layout] = {
    'ultralytics_pose': Layout(ultralytics(17, 3), 17, metadata=COCO_METADATA),
    'ultralytics_pose bare': Layout(ultralytics(17, 3), 17),
    'ultralytics_pose normalised': Layout(ultralytics(17, 3, 0), 17, metadata=COCO_METADATA),
    'ultralytics_pose flat': Layout(
        ultralytics(4, 2), 4, metadata={**COCO_METADATA, 'kpt_shape': '[4, 2]'}, has_scores=False
    ),
    'ultralytics_pose_end2end': Layout(
        end2end(17, 3), 17, metadata={**COCO_METADATA, 'args': "{'nms': True}", 'end2end': 'False'}
    ),
    'ultralytics_pose_end2end bare': Layout(end2end(17, 3), 17),
    'movenet': Layout(movenet, 17, many=False, dtype=np.int32, nhwc=True),
    'movenet_multi': Layout(movenet_multi, 17, dtype=np.int32, nhwc=True),
    'heatmaps': Layout(heat(16, 1), 16, many=False, tolerance=0.75),
    'heatmaps coarse': Layout(heat(17, 4), 17, many=False, tolerance=1.5),
    'heatmaps dark': Layout(heat(17, 4), 17, many=False, tolerance=0.2, overrides=DARK),
    'heatmaps last': Layout(heat(17, 4, last=True), 17, many=False, tolerance=1.5, nhwc=True),
    'simcc': Layout(simcc, 17, many=False, tolerance=0.4),
    'trt_pose': Layout(
        fields(paf.TRT_POSE, 18, background=False, names=('cmap', 'paf')), 18, tolerance=0.5
    ),
    'openpose_coco': Layout(
        fields(paf.OPENPOSE_COCO, 18, background=True, names=('net_output',)), 18, tolerance=0.5
    ),
    'openpose_coco two': Layout(
        fields(paf.OPENPOSE_COCO, 18, background=True, names=('heat', 'fields')), 18, tolerance=0.5
    ),
    'openpose_body25': Layout(
        fields(paf.OPENPOSE_BODY_25, 25, background=True, names=('net_output',)), 25, tolerance=0.5
    ),
}  # fmt: skip

# A standing person by joint, as shares of its box.
_STANDING = {
    'nose': (0.5, 0.10), 'left_eye': (0.6, 0.04), 'right_eye': (0.4, 0.04), 'left_ear': (0.75, 0.07),
    'right_ear': (0.25, 0.07), 'neck': (0.5, 0.2), 'left_shoulder': (0.8, 0.2), 'right_shoulder': (0.2, 0.2),
    'left_elbow': (0.95, 0.36), 'right_elbow': (0.05, 0.36), 'left_wrist': (0.98, 0.52),
    'right_wrist': (0.02, 0.52), 'mid_hip': (0.5, 0.5), 'left_hip': (0.7, 0.5), 'right_hip': (0.3, 0.5),
    'left_knee': (0.72, 0.72), 'right_knee': (0.28, 0.72), 'left_ankle': (0.74, 0.93),
    'right_ankle': (0.26, 0.93), 'left_big_toe': (0.9, 0.99), 'left_small_toe': (1.0, 0.94),
    'left_heel': (0.62, 0.99), 'right_big_toe': (0.1, 0.99), 'right_small_toe': (0.0, 0.94),
    'right_heel': (0.38, 0.99), 'head_top': (0.5, 0.0), 'upper_neck': (0.5, 0.18), 'thorax': (0.5, 0.22),
    'pelvis': (0.5, 0.5),
}  # fmt: skip


def standing(box: Sequence[float], keypoints: Sequence[str], score: float = 0.75) -> Person:
    """A person in a box of the source picture, given in source pixels."""
    left, top, right, bottom = box
    shares = np.array(
        [_STANDING.get(name, (0.1 + 0.2 * at, 0.2 + 0.2 * at)) for at, name in enumerate(keypoints)]
    )
    xy = np.array((left, top)) + shares * (right - left, bottom - top)
    return Person(xy, np.full(len(keypoints), score), score)


KNOWN = tuple(SKELETONS)
