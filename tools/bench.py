"""Bench: what the package costs per frame, side by side with the usual way, medians of many, in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.fit import fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.core.stats import percentile
from isaac_infer.core.tensor import TensorSpec

NETWORK_HW = (640, 640)
NUM_CLASSES = 80
SOURCES = {'640x480': (480, 640), '1920x1080': (1080, 1920)}
IMAGE = ImageSpec('images', NETWORK_HW)
SPEC = ModelSpec('detection', 'yolov8', IMAGE, ('output0',), (), NUM_CLASSES, strides=(8, 16, 32))


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    what: str
    ours_ms: float
    ours_p95_ms: float
    usual_ms: float | None = None  # the comparison, where there is one
    target: str = ''


def alternate(ours: Callable[[], object], usual: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Time two functions in turn, so that a slow moment of the machine hits both; milliseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 5):
        for function, into in ((ours, times[0]), (usual, times[1])):
            start = perf_counter()
            function()
            if turn >= 5:  # the first rounds warm caches up
                into.append((perf_counter() - start) * 1e3)
    return times


def row(what: str, ours: list[float], usual: list[float] | None = None, *, target: str = '') -> Row:
    return Row(what, percentile(ours, 50), percentile(ours, 95), percentile(usual, 50) if usual else None, target)


def bench_prepare(rounds: int) -> list[Row]:
    rows = []
    for name, size_hw in SOURCES.items():
        frame = Frame(draw_scene(1, size_hw=size_hw).image)
        preparer, buffer = Preparer(IMAGE), np.empty(IMAGE.shape, np.float32)
        left, top, right, bottom = fit_picture(size_hw, NETWORK_HW, resize='letterbox').network_box

        def usual() -> np.ndarray:
            small = cv2.resize(frame.image, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
            padded = cv2.copyMakeBorder(
                small, top, NETWORK_HW[0] - bottom, left, NETWORK_HW[1] - right, cv2.BORDER_CONSTANT, value=(114,) * 3
            )
            return cv2.dnn.blobFromImage(padded, 1 / 255, swapRB=True)

        np.testing.assert_allclose(usual(), _prepared(preparer, frame, buffer), atol=1e-6)
        times = alternate(lambda: preparer(frame, into=buffer), usual, rounds)
        limit = {'640x480': 0.35, '1920x1080': 0.65}[name]
        rows.append(row(f'prepare {name} to 640x640', *times, target=f'{limit} ms, 2x'))
    return rows


def _prepared(preparer: Preparer, frame: Frame, buffer: np.ndarray) -> np.ndarray:
    preparer(frame, into=buffer)
    return buffer


def crowded_output(objects: int = 30, boxes_per_object: int = 12) -> np.ndarray:
    """An output of a YOLOv8-like head in which each of the objects was found several times."""
    rng = np.random.default_rng(7)
    anchors = sum((NETWORK_HW[0] // stride) * (NETWORK_HW[1] // stride) for stride in SPEC.strides)
    output = np.zeros((1, 4 + NUM_CLASSES, anchors), np.float32)
    output[0, 4:] = rng.random((NUM_CLASSES, anchors)) * 0.05
    columns = rng.permutation(anchors)[: objects * boxes_per_object]
    for index, column in enumerate(columns):
        place = index // boxes_per_object
        centre = np.array((60 + 100 * (place % 6), 60 + 110 * (place // 6)))
        output[0, :2, column] = centre + rng.normal(size=2) * 2
        output[0, 2:4, column] = 70 + rng.normal(size=2) * 3
        output[0, 4 + place, column] = 0.3 + 0.65 * rng.random()
    return output


def bench_decode(rounds: int) -> list[Row]:
    output = crowded_output()
    fit = fit_picture(SOURCES['1920x1080'], NETWORK_HW, resize='letterbox')
    limits, decode = Limits(), DECODERS[SPEC.decoder]

    def usual() -> list[tuple[np.ndarray, float, int]]:
        rows = output[0].T
        scores = rows[:, 4:].max(axis=1)
        classes = rows[:, 4:].argmax(axis=1)
        keep = scores > limits.confidence_threshold
        boxes = rows[keep, :4].copy()
        boxes[:, :2] -= boxes[:, 2:] / 2
        kept = cv2.dnn.NMSBoxesBatched(
            boxes.tolist(), scores[keep].tolist(), classes[keep].tolist(), limits.confidence_threshold, limits.nms_threshold
        )
        scale, (left, top, _, _) = fit.scale_xy[0], fit.network_box
        return [
            ((boxes[i] - (left, top, 0, 0)) / scale, scores[keep][i], classes[keep][i]) for i in np.asarray(kept).ravel()
        ]

    found = decode({'output0': output}, fit, SPEC, limits)
    if len(found) != len(usual()):
        raise SystemExit(f'bench: the two ways to decode disagree: {len(found)} and {len(usual())} objects')
    times = alternate(lambda: decode({'output0': output}, fit, SPEC, limits), usual, rounds)
    return [row(f'decode {list(output.shape)}, {len(found)} objects', *times, target='0.35 ms')]


class NullSession:
    """A network that answers at once with the same output: what is left is our own cost."""

    backend, metadata = 'null', {}

    def __init__(self, output: np.ndarray) -> None:
        self._output = {'output0': output}
        self._buffers: dict[str, np.ndarray] = {}
        self.inputs = (TensorSpec('images', IMAGE.shape, IMAGE.dtype),)
        self.outputs = (TensorSpec('output0', output.shape, output.dtype),)

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._buffers.setdefault(name, np.zeros(shape, IMAGE.dtype))

    def run(self) -> Mapping[str, np.ndarray]:
        return self._output

    def close(self) -> None:
        self._buffers.clear()
