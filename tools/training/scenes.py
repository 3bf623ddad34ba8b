"""Scenes: the pictures to train on and what is in them, drawn by all cores into shared memory."""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from isaac_infer.core.fit import Fit
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.scenes import Scene, draw_scene
from isaac_infer.core.shapes import CLASS_NAMES, KEYPOINT_NAMES
from isaac_infer.core.spec import ImageSpec

INPUT_SIZE = 320
MOST_OBJECTS = 12  # per picture; scenes have at most 11
PADDING = 255  # in a label map, where there is no picture
NO_OBJECT = -1

# Height and width of the drawn pictures and how often; then they are scaled as at run time.
SOURCES_HW = {
    (480, 640): 0.58,
    (360, 640): 0.08,
    (720, 1280): 0.08,
    (1080, 1920): 0.05,
    (640, 480): 0.07,
    (600, 800): 0.06,
    (240, 320): 0.04,
    (320, 320): 0.04,
}
FIGURINE = CLASS_NAMES.index('figurine')


@dataclass(frozen=True)
class Scenes:
    """Drawn pictures as the network gets them, and what is in them."""

    pictures: Tensor  # (N, 3, S, S) uint8, RGB
    objects: Tensor  # (N, M, 5) float32: class or NO_OBJECT, left, top, right, bottom in input pixels
    labels: Tensor | None  # (N, S, S) uint8: 0 background, i + 1 object i, PADDING; None: nobody wants them
    keypoints: Tensor | None  # (N, M, 17, 3) float32: x, y, visibility; None: nobody wants them

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> Scenes:
        """Move everything to a device."""
        return self._each(lambda tensor: tensor.to(device))

    def __getitem__(self, rows: Tensor | slice) -> Scenes:
        """Take some of the pictures."""
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Scenes:
        values = self.pictures, self.objects, self.labels, self.keypoints
        return Scenes(*(None if value is None else change(value) for value in values))


@dataclass(frozen=True)
class Order:
    """Scenes to be drawn."""

    first_seed: int
    count: int
    humanoids: bool = False  # draw humanoid scenes, and ask for the figurines in them alone, as class 0
    wants_labels: bool = False


class Drawing:
    """Processes that draw one order after the other, while others already train on the first ones.

    They are forked, so that they write into memory that they inherit: make it before anything uses the GPU.
    """

    def __init__(self, orders: Sequence[Order], *, workers: int) -> None:
        context = multiprocessing.get_context('fork')
        self._arrays = [_reserve(order) for order in orders]
        self._done = [context.Semaphore(0) for _ in orders]
        self._workers = [
            context.Process(target=self._draw, args=(orders, worker, workers), daemon=True)
            for worker in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def wait(self, number: int) -> Scenes:
        """Give what belongs to an order, once it is drawn."""
        for _ in self._workers:
            while not self._done[number].acquire(timeout=1.0):
                broken = [worker.exitcode for worker in self._workers if worker.exitcode]
                if broken:
                    raise SystemExit(f'drawing scenes failed in a worker, exit code {broken[0]}')
        return Scenes(*(None if array is None else torch.from_numpy(array) for array in self._arrays[number]))

    def forget(self, number: int) -> None:
        """Let go of the memory of an order."""
        self._arrays[number] = ()

    def _draw(self, orders: Sequence[Order], worker: int, workers: int) -> None:
        cv2.setNumThreads(1)
        os.nice(5)  # the training that may run beside it comes first
        for order, arrays, done in zip(orders, self._arrays, self._done, strict=True):
            painter = _Painter(order, arrays)
            for index in range(worker, order.count, workers):
                painter.draw(index)
            done.release()


def _reserve(order: Order) -> tuple[np.ndarray | None, ...]:
    count, size = order.count, INPUT_SIZE
    return (
        _shared((count, 3, size, size), np.uint8),
        _shared((count, MOST_OBJECTS, 5), np.float32),
        _shared((count, size, size), np.uint8) if order.wants_labels else None,
        _shared((count, MOST_OBJECTS, len(KEYPOINT_NAMES), 3), np.float32) if order.humanoids else None,
    )


def _shared(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


class _Painter:
    """Draws the scenes of an order into its arrays."""

    def __init__(self, order: Order, arrays: tuple[np.ndarray | None, ...]) -> None:
        self._order, self._arrays = order, arrays
        spec = ImageSpec('images', (INPUT_SIZE, INPUT_SIZE), dtype=np.dtype(np.uint8), scale=1.0)
        self._preparers = {size_hw: Preparer(spec) for size_hw in SOURCES_HW}
        self._buffer = np.empty(spec.shape, np.uint8)

    def draw(self, index: int) -> None:
        seed = self._order.first_seed + index
        sizes = list(SOURCES_HW)
        rng = np.random.default_rng([seed, INPUT_SIZE])
        size_hw = sizes[rng.choice(len(sizes), p=list(SOURCES_HW.values()))]
        scene = draw_scene(seed, size_hw=size_hw, humanoids=self._order.humanoids)
        fit = self._preparers[size_hw](Frame(scene.image), into=self._buffer)
        pictures, objects, labels, keypoints = self._arrays
        pictures[index] = self._buffer[0]
        if labels is not None:
            labels[index] = label_map(scene, fit, rng)
        wanted = scene.class_id == FIGURINE if self._order.humanoids else np.ones(len(scene.class_id), bool)
        rows = objects[index, : np.count_nonzero(wanted)]
        objects[index, :, 0] = NO_OBJECT
        rows[:, 0] = 0 if self._order.humanoids else scene.class_id
        rows[:, 1:] = fit.to_network(scene.boxes_xyxy[wanted])
        if keypoints is not None:
            keypoints[index, : len(rows)] = scene.keypoints[wanted]
            keypoints[index, : len(rows), :, :2] = fit.to_network(scene.keypoints[wanted][..., :2])


def label_map(scene: Scene, fit: Fit, rng: np.random.Generator) -> np.ndarray:
    """Bring the instances of a scene to the pixels of the network input: (S, S) uint8.

    A pixel of the input lies between pixels of the picture. Which of these it takes is random, the same for
    the whole picture: always the same neighbour would shift all outlines by up to half a pixel.
    """
    left, top, right, bottom = fit.network_box
    axes = []
    for length, source in zip((bottom - top, right - left), fit.source_hw, strict=True):
        middles = (np.arange(length) + 0.5) * (source / length) - 0.5
        axes.append(np.clip(np.floor(middles + rng.random()), 0, source - 1).astype(np.intp))
    labels = np.full(fit.network_hw, PADDING, np.uint8)
    labels[top:bottom, left:right] = scene.instance_map[np.ix_(*axes)]
    return labels


# ---- batches -------------------------------------------------------------------------------------


def _other_side(name: str) -> str:
    left, right = 'left_', 'right_'
    return right + name[len(left) :] if name.startswith(left) else name.replace(right, left)


MIRRORED = [KEYPOINT_NAMES.index(_other_side(name)) for name in KEYPOINT_NAMES]


def batches(scenes: Scenes, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Scenes]]:
    """Yield shuffled batches without end, as pictures 0..1 and what is in them.

    Half of them are mirrored, light and colour vary a little.
    """
    device = scenes.pictures.device
    while True:
        order = torch.randperm(len(scenes), generator=generator, device=device)
        for rows in order[: len(order) // size * size].split(size):
            batch = scenes[rows]
            mirror = torch.rand(size, generator=generator, device=device) < 0.5
            batch = _mirrored(batch, mirror)
            gain = 1 + 0.12 * torch.randn(size, 1, 1, 1, generator=generator, device=device)
            tint = 1 + 0.05 * torch.randn(size, 3, 1, 1, generator=generator, device=device)
            yield (batch.pictures.float() / 255 * gain * tint).clamp_(0, 1), batch


def _mirrored(scenes: Scenes, mirror: Tensor) -> Scenes:
    """Mirror some of the pictures (N,), and what is in them."""
    pictures = torch.where(mirror[:, None, None, None], scenes.pictures.flip(3), scenes.pictures)
    objects = scenes.objects.clone()
    sides = INPUT_SIZE - objects[..., [3, 1]]
    objects[..., [1, 3]] = torch.where(mirror[:, None, None], sides, objects[..., [1, 3]])
    labels, keypoints = scenes.labels, scenes.keypoints
    if labels is not None:
        labels = torch.where(mirror[:, None, None], labels.flip(2), labels)
    if keypoints is not None:
        other = keypoints[:, :, MIRRORED].clone()
        other[..., 0] = INPUT_SIZE - other[..., 0]
        keypoints = torch.where(mirror[:, None, None, None], other, keypoints)
    return replace(scenes, pictures=pictures, objects=objects, labels=labels, keypoints=keypoints)
