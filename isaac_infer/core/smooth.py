"""Smooth: key points that tremble less, by the one-euro filter, for each person that is tracked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isaac_infer.core.results import Poses
from isaac_infer.core.track import Tracker

SPEED_CUTOFF_HZ = 1.0  # of the filter of speeds, as published
SHORTEST_S = 1e-3  # between two pictures: stamps may be equal


@dataclass(frozen=True)
class Smoothing:
    """How much key points are smoothed; see `Smoother`."""

    min_cutoff_hz: float = 1.7  # of what stands still: lower is calmer
    beta: float = 1.0  # how much the cutoff rises with speed: higher lags less
    iou_threshold: float = 0.3  # of the boxes of one person in two pictures
    max_age_s: float = 1.0  # how long a person that is not found is remembered at least: see `Tracker`


@dataclass(frozen=True)
class _State:
    """The key points of a person when they were last seen."""

    xy: np.ndarray  # (K, 2) float64, source pixels, smoothed
    speed: np.ndarray  # (K, 2) float64, sizes of the person per second, smoothed
    is_known: np.ndarray  # (K,) bool
    stamp_ns: int


class Smoother:
    """Numbers the persons of a stream of pictures and smooths the key points of each.

    The filter is that of Casiez, Roussel and Vogel, 1 EURO Filter, CHI 2012: a low-pass whose cutoff rises
    with speed. Speeds count in sizes of the person (the root of the area of its box), so that parameters do
    not depend on the size of the picture.
    """

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._states: dict[int, _State] = {}

    def __call__(self, poses: Poses, stamp_ns: int, smoothing: Smoothing, *, threshold: float) -> Poses:
        """Give the same persons with numbers and smoothed key points.

        Args:
            poses: of a picture.
            stamp_ns: of the picture.
            smoothing: how much.
            threshold: key points that score less were not found: they stay as they are, and later ones of
                the same name begin anew.
        """
        numbers = self._track(poses, stamp_ns, smoothing)
        known = self._tracker.numbers
        self._states = {number: state for number, state in self._states.items() if number in known}
        xy = poses.xy.copy()
        is_found = (poses.score >= threshold) & (poses.score > 0)
        for row, number in enumerate(numbers.tolist()):
            left, top, right, bottom = poses.persons.xyxy[row].tolist()
            size = max(((right - left) * (bottom - top)) ** 0.5, 1.0)
            state = self._advanced(
                self._states.get(number), poses.xy[row], is_found[row], stamp_ns, size, smoothing
            )
            self._states[number] = state
            xy[row] = np.where(is_found[row, :, None], state.xy, poses.xy[row])
        return replace(poses, xy=xy, ids=numbers)

    def number(self, poses: Poses, stamp_ns: int, smoothing: Smoothing) -> Poses:
        """Give the same persons with numbers alone; key points that are smoothed later begin anew."""
        self._states.clear()
        return replace(poses, ids=self._track(poses, stamp_ns, smoothing))

    def _track(self, poses: Poses, stamp_ns: int, smoothing: Smoothing) -> np.ndarray:
        return self._tracker(
            poses.persons.xyxy,
            stamp_ns,
            iou_threshold=smoothing.iou_threshold,
            max_age_s=smoothing.max_age_s,
        )

    def _advanced(
        self,
        last: _State | None,
        xy: np.ndarray,
        is_found: np.ndarray,
        stamp_ns: int,
        size: float,
        smoothing: Smoothing,
    ) -> _State:
        xy = xy.astype(np.float64)
        if last is None:
            return _State(xy, np.zeros_like(xy), is_found, stamp_ns)
        seconds = max((stamp_ns - last.stamp_ns) / 1e9, SHORTEST_S)
        goes_on = (last.is_known & is_found)[:, None]
        speed = (xy - last.xy) / (size * seconds)
        speed = last.speed + _share(SPEED_CUTOFF_HZ, seconds) * (speed - last.speed)
        cutoff = smoothing.min_cutoff_hz + smoothing.beta * np.linalg.norm(speed, axis=1, keepdims=True)
        smooth = last.xy + _share(cutoff, seconds) * (xy - last.xy)
        return _State(np.where(goes_on, smooth, xy), np.where(goes_on, speed, 0), is_found, stamp_ns)


def _share(cutoff_hz: float | np.ndarray, seconds: float) -> float | np.ndarray:
    """How much of the difference a low-pass follows within some time (equation 5 of the paper)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * seconds))
