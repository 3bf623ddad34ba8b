"""Track: which object of a picture is which of those before it, by how much their boxes overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isaac_infer.core.boxes import box_iou

MISSES = 3  # pictures without an object after which it may be forgotten, however slow they come
MOST_UNSEEN = 256  # objects that are remembered though they are not found: where no time passes, too


@dataclass(frozen=True)
class _Track:
    """An object when it was last seen."""

    number: int
    xyxy: np.ndarray  # (4,) float32, source pixels
    stamp_ns: int
    misses: int = 0  # pictures since


class Tracker:
    """Numbers objects, the first one 1; an object keeps its number as long as it is found again."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next = 1
        self._stamp_ns = 0

    def __call__(
        self, xyxy: np.ndarray, stamp_ns: int, *, iou_threshold: float = 0.3, max_age_s: float = 1.0
    ) -> np.ndarray:
        """Give the numbers of the objects of a picture: (N,) int64, in the order of their boxes.

        The pairs that overlap most are matched first, each box and each number once. One that is not found is
        forgotten once both are over: some time, and some pictures, which alone count where they come slowly.
        Where time goes back, as in a recording that begins anew, everything is new.

        Args:
            xyxy: (N, 4) float32, source pixels.
            stamp_ns: of the picture.
            iou_threshold: objects that overlap less are different ones.
            max_age_s: how long one that is not found is remembered at least.
        """
        if stamp_ns < self._stamp_ns:
            self._tracks = []
        self._stamp_ns = stamp_ns
        oldest_ns = stamp_ns - round(max_age_s * 1e9)
        self._tracks = [
            track for track in self._tracks if track.stamp_ns >= oldest_ns or track.misses < MISSES
        ]
        numbers = np.zeros(len(xyxy), np.int64)
        known = np.array([track.xyxy for track in self._tracks], np.float32).reshape(-1, 4)
        overlap = box_iou(xyxy, known)
        is_free = np.ones(len(known), bool)
        for pair in np.argsort(-overlap, axis=None, kind='stable').tolist():
            row, column = divmod(pair, len(known))
            if overlap[row, column] < iou_threshold:
                break
            if not numbers[row] and is_free[column]:
                numbers[row], is_free[column] = self._tracks[column].number, False
        for row in np.flatnonzero(numbers == 0).tolist():
            numbers[row] = self._next
            self._next += 1
        unseen = [
            replace(track, misses=track.misses + 1)
            for track, is_left in zip(self._tracks, is_free.tolist())
            if is_left
        ]
        seen = [_Track(number, box, stamp_ns) for number, box in zip(numbers.tolist(), xyxy.copy())]
        self._tracks = seen + unseen[:MOST_UNSEEN]  # those that were seen last come first
        return numbers

    @property
    def numbers(self) -> frozenset[int]:
        """Those of the objects that are remembered."""
        return frozenset(track.number for track in self._tracks)
