"""Results: what was found in one picture, as parallel arrays in source-image pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isaac_infer.core.errors import TensorError


@dataclass(frozen=True)
class Detections:
    """N objects, best score first; row i of every array speaks of the same object."""

    xyxy: np.ndarray  # (N, 4) float32, source pixels: left, top, right, bottom
    score: np.ndarray  # (N,) float32, 0..1
    class_id: np.ndarray  # (N,) int32
    rotated: np.ndarray | None = None  # (N, 5) float32: centre x, y, width, height in pixels, radians

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        wanted = {'xyxy': (count, 4), 'score': (count,), 'class_id': (count,)}
        if self.rotated is not None:
            wanted['rotated'] = (count, 5)
        for name, shape in wanted.items():
            got = getattr(self, name).shape
            if got != shape:
                raise TensorError(f'detections.{name}: expected shape {shape}, got {got}')

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, rows: np.ndarray | slice) -> Detections:
        """Select rows by mask, index array or slice."""
        rotated = None if self.rotated is None else self.rotated[rows]
        return Detections(self.xyxy[rows], self.score[rows], self.class_id[rows], rotated)


@dataclass(frozen=True)
class Segmentation:
    """What the pixels of one picture are.

    Semantic models say it of every pixel (`class_map`), instance models of each object (`masks`).
    """

    objects: Detections  # of semantic models the regions, where they are asked for
    masks: tuple[np.ndarray, ...]  # per object: (h, w) bool, the pixels of its `mask_box`
    class_map: np.ndarray | None = None  # (H, W) uint8 or uint16, class of every source pixel

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.objects):
            raise TensorError(
                f'segmentation.masks: expected {len(self.objects)}, one per object, got {len(self.masks)}'
            )

    def __len__(self) -> int:
        return len(self.objects)


def mask_box(xyxy: np.ndarray) -> tuple[int, int, int, int]:
    """The whole pixels that a box (4,) touches: left, top, right, bottom; right and bottom are outside."""
    left, top = np.floor(xyxy[:2]).astype(int)
    right, bottom = np.ceil(xyxy[2:]).astype(int)
    return int(left), int(top), int(right), int(bottom)


@dataclass(frozen=True)
class Poses:
    """N persons and their K key points; row i of every array speaks of the same person."""

    persons: Detections
    xy: np.ndarray  # (N, K, 2) float32, source pixels; may lie outside the picture
    score: np.ndarray  # (N, K) float32, 0..1; 0: not found
    ids: np.ndarray | None = None  # (N,) int64, a number that a person keeps from picture to picture

    def __post_init__(self) -> None:
        points = self.score.shape[1] if self.score.ndim == 2 else -1
        count = len(self.persons)
        wanted: dict[str, tuple[int, ...]] = {'xy': (count, points, 2), 'score': (count, points)}
        if self.ids is not None:
            wanted['ids'] = (count,)
        for name, shape in wanted.items():
            got = getattr(self, name).shape
            if got != shape:
                raise TensorError(f'poses.{name}: expected shape {shape}, got {got}')

    def __len__(self) -> int:
        return len(self.persons)


def no_detections() -> Detections:
    """The result of a picture in which nothing was found."""
    return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
