"""Heat maps: where their peaks are, more finely than cells; points are x, y in cells, the first is 0, 0."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from isaac_infer.core.fit import Size

BLUR = 11  # cells: width of the Gaussian that DARK smooths with, as published for maps of 64x48
REACH = 2  # cells around a peak that its derivatives are taken from
FARTHEST = 1.0  # cells: a refined point that is farther from its peak is noise
COARSEST = 32  # network pixels per cell
_FLOOR = 1e-10  # maps are taken to logarithms


class Peaks(NamedTuple):
    """P peaks of M maps; row i of every array speaks of the same peak."""

    at: np.ndarray  # (P,) intp, which map
    row: np.ndarray  # (P,) intp
    column: np.ndarray  # (P,) intp
    score: np.ndarray  # (P,) float32, the value there


def cell_of(size_hw: Size, grid_hw: Size) -> int:
    """How many network pixels wide and high a cell of maps is; 0: no network divides its picture so."""
    cell, rest = divmod(size_hw[0], grid_hw[0])
    is_whole = not rest and 1 <= cell <= COARSEST and grid_hw[1] * cell == size_hw[1]
    return cell if is_whole else 0


def highest(maps: np.ndarray) -> Peaks:
    """The highest cell of every map (M, h, w); NaN counts as highest, so that its score tells of it."""
    flat = maps.reshape(len(maps), -1)
    cell, every = flat.argmax(axis=1), np.arange(len(maps))
    row, column = np.divmod(cell, maps.shape[2])
    return Peaks(every, row, column, flat[every, cell].astype(np.float32, copy=False))


def find_peaks(maps: np.ndarray, *, threshold: float, window: int, most: int) -> Peaks:
    """All cells of maps (M, h, w) float32 that no other within a window exceeds; best first in each map.

    Args:
        maps: finite.
        threshold: peaks are higher.
        window: cells, odd.
        most: peaks per map.
    """
    before = np.ones((window, window), np.uint8)
    before.reshape(-1)[window * window // 2 :] = 0
    after = before[::-1, ::-1]
    found = []
    for at, heat in enumerate(maps):
        is_high = heat > threshold
        if not is_high.any():
            continue
        heat = np.ascontiguousarray(heat)
        # Of equal neighbours the first one is the peak.
        is_peak = is_high & (heat > cv2.dilate(heat, before)) & (heat >= cv2.dilate(heat, after))
        row, column = np.nonzero(is_peak)
        score = heat[row, column]
        best = np.argsort(-score, kind='stable')[:most]
        found.append(Peaks(np.full(len(best), at, np.intp), row[best], column[best], score[best]))
    if not found:
        nothing = np.empty(0, np.intp)
        return Peaks(nothing, nothing, nothing, np.empty(0, np.float32))
    return Peaks(*(np.concatenate(arrays) for arrays in zip(*found)))


def refine(maps: np.ndarray, peaks: Peaks, *, how: str, blur: int = BLUR) -> np.ndarray:
    """Tell peaks of maps (M, h, w) more finely than their cells: (P, 2) float32 x, y.

    Args:
        maps: the maps.
        peaks: of them.
        how: `none`: the cell itself. `quarter`: a quarter of a cell towards the higher neighbour, as
            SimpleBaseline (Xiao et al. 2018) does. `dark`: the top of the Gaussian, from the derivatives of
            the map's logarithm (Zhang et al. 2020, Distribution-Aware Coordinate Representation, section 3).
        blur: of `dark`: width of the Gaussian that smooths the map beforehand, odd; 1: as it is.
    """
    xy = np.column_stack((peaks.column, peaks.row)).astype(np.float32)
    if how == 'none' or not len(xy):
        return xy
    height, width = maps.shape[1:]
    margin = 1 if how == 'quarter' else REACH
    is_inner = np.minimum(xy, np.array((width - 1, height - 1)) - xy).min(axis=1) >= margin
    with np.errstate(invalid='ignore'):  # between two of minus infinity there is no slope
        if how == 'quarter':
            around = _patches(maps, peaks, 1)
            shift = 0.25 * np.sign(np.nan_to_num(_slopes(around, 1)))
        else:
            shift = _newton(maps, peaks, blur)
    return np.asarray(xy + np.where(is_inner[:, None], shift, 0), np.float32)


def _patches(maps: np.ndarray, peaks: Peaks, reach: int) -> np.ndarray:
    """The squares around peaks, zeros beyond the map: (P, 2 reach + 1, 2 reach + 1)."""
    height, width = maps.shape[1:]
    steps = np.arange(-reach, reach + 1)
    rows, columns = peaks.row[:, None] + steps, peaks.column[:, None] + steps
    near_rows, near_columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    patches = maps[peaks.at[:, None, None], near_rows[:, :, None], near_columns[:, None, :]]
    inside = np.equal(rows, near_rows)[:, :, None] & np.equal(columns, near_columns)[:, None, :]
    return np.asarray(np.where(inside, patches, 0))


def _slopes(patches: np.ndarray, middle: int) -> np.ndarray:
    """Right minus left and below minus above of the middles of patches: (P, 2)."""
    across = patches[:, middle, middle + 1] - patches[:, middle, middle - 1]
    down = patches[:, middle + 1, middle] - patches[:, middle - 1, middle]
    return np.column_stack((across, down))


def _newton(maps: np.ndarray, peaks: Peaks, blur: int) -> np.ndarray:
    """From each peak to the top of the Gaussian that its surroundings follow: (P, 2) x, y in cells."""
    patches = _patches(maps, peaks, REACH + blur // 2).astype(np.float64)
    weights = _smoothing(blur)
    log = np.log(np.maximum(weights @ patches @ weights.T, _FLOOR))  # (P, 5, 5)
    m = REACH
    dx, dy = 0.5 * _slopes(log, m).T
    dxx = 0.25 * (log[:, m, m + 2] - 2 * log[:, m, m] + log[:, m, m - 2])
    dyy = 0.25 * (log[:, m + 2, m] - 2 * log[:, m, m] + log[:, m - 2, m])
    dxy = 0.25 * (log[:, m + 1, m + 1] - log[:, m - 1, m + 1] - log[:, m + 1, m - 1] + log[:, m - 1, m - 1])
    determinant = dxx * dyy - dxy**2
    is_top = (dxx < 0) & (determinant > 0)  # elsewhere there is nothing to climb
    safe = np.where(is_top, determinant, 1)
    step = np.column_stack(((dxy * dy - dyy * dx) / safe, (dxy * dx - dxx * dy) / safe))
    return np.where(is_top[:, None] & (np.abs(step).max(axis=1) <= FARTHEST)[:, None], step, 0)


@cache
def _smoothing(blur: int) -> np.ndarray:
    """Weights that turn a row of 5 + blur - 1 values into 5 smoothed ones: (5, 4 + blur)."""
    kernel = cv2.getGaussianKernel(blur, 0).reshape(-1)
    weights = np.zeros((2 * REACH + 1, 2 * REACH + blur))
    for at in range(len(weights)):
        weights[at, at : at + blur] = kernel
    return weights
