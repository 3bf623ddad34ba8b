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


def no_detections() -> Detections:
    """The result of a picture in which nothing was found."""
    return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
