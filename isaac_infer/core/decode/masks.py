"""Masks: what a network says on a coarse grid, brought to the pixels of the source picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from isaac_infer.core.fit import Fit, Size

BLOCK = 1 << 17  # values worked on at once: they stay in the processor's cache
LEAST = 1 << 14  # pixels worked on at once: fewer would cost more in calls than the cache saves
CORNERS = 4


@dataclass(frozen=True)
class Taps:
    """Along one axis, the two grid points that each source pixel lies between."""

    low: np.ndarray  # (n,) intp
    high: np.ndarray  # (n,) intp, `low` itself beyond the ends of the grid
    weight: np.ndarray  # (n,) float32, 0..1, of `high`
    nearest: np.ndarray  # (n,) intp

    def __getitem__(self, pixels: slice) -> Taps:
        """The same of some of the pixels."""
        return Taps(self.low[pixels], self.high[pixels], self.weight[pixels], self.nearest[pixels])

    def within(self) -> tuple[slice, Taps]:
        """The part of the grid that is needed, and the taps into this part."""
        first, last = int(self.low[0]), int(self.high[-1])
        return slice(first, last + 1), Taps(
            self.low - first, self.high - first, self.weight, self.nearest - first
        )

    def __len__(self) -> int:
        return len(self.low)


@lru_cache(maxsize=8)
def taps(fit: Fit, grid_hw: Size) -> tuple[Taps, Taps]:
    """Where the source's rows and columns lie on a grid that spans the network input, padding and all.

    Grid points are the middles of their cells, as pixels are. The picture was resized to whole pixels, so the
    boxes of the fit count here, not its ratio.
    """
    axes = []
    for axis in (1, 0):
        start, end = fit.source_box[axis], fit.source_box[axis + 2]
        to_start, to_end = fit.network_box[axis], fit.network_box[axis + 2]
        pixels = np.arange(fit.source_hw[1 - axis]) + 0.5
        network = (pixels - start) * ((to_end - to_start) / (end - start)) + to_start
        length = grid_hw[1 - axis]
        axes.append(taps_at(network * (length / fit.network_hw[1 - axis]), length))
    return axes[0], axes[1]


def grid_in_source(
    fit: Fit, grid_hw: Size, step: int
) -> tuple[tuple[slice, np.ndarray], tuple[slice, np.ndarray]]:
    """Every so many grid points that lie in the picture: of rows and of columns, and the pixels they hit."""
    axes = []
    for axis in (1, 0):
        start, end = fit.source_box[axis], fit.source_box[axis + 2]
        to_start, to_end = fit.network_box[axis], fit.network_box[axis + 2]
        length = grid_hw[1 - axis]
        network = (np.arange(length) + 0.5) * (fit.network_hw[1 - axis] / length)
        source = np.floor((network - to_start) * ((end - start) / (to_end - to_start)) + start)
        inside = np.flatnonzero((source >= start) & (source < end))
        part = slice(int(inside[0]), int(inside[-1]) + 1, step) if len(inside) else slice(0, 0)
        axes.append((part, source[part].astype(np.intp)))
    return axes[0], axes[1]


def taps_at(positions: np.ndarray, length: int) -> Taps:
    """Taps at positions along an axis of so many grid cells, the first of which spans 0 to 1."""
    point = np.clip(positions - 0.5, 0, length - 1)
    low = np.floor(point).astype(np.intp)
    nearest = np.clip(np.floor(positions), 0, length - 1).astype(np.intp)
    found = Taps(low, np.minimum(low + 1, length - 1), (point - low).astype(np.float32), nearest)
    for array in (found.low, found.high, found.weight, found.nearest):
        array.setflags(write=False)  # shared by all who ask
    return found


def blocks(rows: int, values_per_row: int, least: int = 1) -> Iterator[slice]:
    """Rows in blocks that the cache holds, as far as it goes."""
    step = max(BLOCK // max(values_per_row, 1), least, 1)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def interpolated_above(grid: np.ndarray, rows: Taps, columns: Taps, threshold: float) -> np.ndarray:
    """Tell where a grid (h, w), interpolated bilinearly, is above a threshold: (rows, columns) bool."""
    grid = grid.astype(np.float32, copy=False)
    wide = grid.take(columns.low, axis=1)  # first along the axis that stays short
    wide += (grid.take(columns.high, axis=1) - wide) * columns.weight
    steps = np.diff(wide, axis=0, append=wide[-1:])
    above = np.empty((len(rows), len(columns)), bool)
    for block in blocks(len(rows), len(columns)):
        low = rows.low[block]
        values = steps.take(low, axis=0)
        values *= rows.weight[block, None]
        values += wide.take(low, axis=0)
        np.greater(values, threshold, out=above[block])
    return above


def nearest(grid: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """A grid (h, w) of labels at source size, each pixel with the label of the cell that it lies in."""
    wide = grid.take(columns.nearest, axis=1)
    return np.asarray(wide.take(rows.nearest, axis=0))


# ---- the best of many classes --------------------------------------------------------------------


def best_class(scores: np.ndarray, dtype: type[np.unsignedinteger]) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of the best class of (C, h, w): (h, w) dtype, (h, w) float32; the first of equals.

    NaN survives in the score.
    """
    count, height, width = scores.shape
    label, score = np.zeros((height, width), dtype), np.empty((height, width), np.float32)
    for block in blocks(height, width * count, LEAST // width):
        # Some layouts have the classes last: brought to the front while in the cache.
        values = np.ascontiguousarray(scores[:, block], np.float32)
        best, labels = score[block], label[block]
        best[...] = values[0]
        for class_id in range(1, count):
            is_better = values[class_id] > best
            # Later classes have higher numbers: the maximum replaces, and is far faster than a mask.
            np.maximum(labels, is_better * dtype(class_id), out=labels)
            np.maximum(best, values[class_id], out=best)
    return label, score


def interpolated_labels(scores: np.ndarray, label: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """The best class of every source pixel, scores interpolated bilinearly before they are compared.

    Between four points with one and the same best class it is the best one everywhere, so only the other
    cells are looked at, and of their classes only those that can win: one that no point raises above the
    lowest value of another cannot. Where there are too many borders, labels are taken as they are.

    Args:
        scores: (C, h, w).
        label: (h, w) best class of each grid point, as `best_class` gives it.
    """
    around = np.pad(label, ((0, 1), (0, 1)), 'edge')
    is_mixed = (label != around[:-1, 1:]) | (label != around[1:, :-1]) | (label != around[1:, 1:])
    on_grid = not rows.weight.any() and not columns.weight.any()
    cells = np.count_nonzero(is_mixed)
    pixels = cells * len(rows) * len(columns) // is_mixed.size
    if on_grid or pixels > MOST_PIXELS or cells * len(scores) > MOST_SCORES:
        return nearest(label, rows, columns)
    labels = np.ascontiguousarray(label.take(columns.low, axis=1).take(rows.low, axis=0))
    flat = labels.reshape(-1)
    is_wide = is_mixed.take(columns.low, axis=1)
    grid_rows = int(rows.low[-1]) - int(rows.low[0]) + 1
    values_per_row = CORNERS * len(scores) * label.shape[1] * grid_rows // len(rows)
    for block in blocks(len(rows), max(len(columns), values_per_row) // 16):
        at = np.flatnonzero(is_wide.take(rows.low[block], axis=0))
        if len(at):
            at += block.start * len(columns)
            row = at // len(columns)
            flat[at] = _winners(scores, is_mixed, row, at - row * len(columns), rows, columns)
    return labels


# What is interpolated in one picture, some 40 ms of work; a map with more borders than that is left as it is.
MOST_PIXELS = 1 << 19
MOST_SCORES = 1 << 22


def _winners(
    scores: np.ndarray, is_mixed: np.ndarray, row: np.ndarray, column: np.ndarray, rows: Taps, columns: Taps
) -> np.ndarray:
    """The best class of source pixels that lie in mixed cells."""
    height, width = is_mixed.shape
    first, last = int(rows.low[row[0]]), int(rows.low[row[-1]]) + 1
    cell_row, cell_column = np.nonzero(is_mixed[first:last])
    number = np.empty((last - first, width), np.intp)
    number[cell_row, cell_column] = np.arange(len(cell_row))
    cell_row += first
    below, right = np.minimum(cell_row + 1, height - 1), np.minimum(cell_column + 1, width - 1)
    corners = [
        _points(scores, at_row, at_column)
        for at_row in (cell_row, below)
        for at_column in (cell_column, right)
    ]  # (cells, C) each
    upper = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    lower = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    can_win = upper >= lower.max(axis=1, keepdims=True)
    of_cell, class_id = np.nonzero(can_win)  # cell by cell, lower classes first
    count = can_win.sum(axis=1)
    start = np.cumsum(count) - count
    top_left, top_right, bottom_left, bottom_right = (corner[of_cell, class_id] for corner in corners)
    by_x, by_y = top_right - top_left, bottom_left - top_left
    by_both = bottom_right - bottom_left - by_x

    x, y = columns.weight[column], rows.weight[row]
    cell = number[rows.low[row] - first, columns.low[column]]
    at, rivals = start[cell], count[cell]

    def value() -> np.ndarray:
        return np.asarray(top_left[at] + x * by_x[at] + y * (by_y[at] + x * by_both[at]))

    winner, best = class_id[at], value()
    left = np.arange(len(row))
    for rank in range(1, int(count.max())):
        stays = rivals > rank
        left, at, rivals, x, y = left[stays], at[stays], rivals[stays], x[stays], y[stays]
        at += 1
        found = value()
        wins = found > best[left]
        best[left[wins]], winner[left[wins]] = found[wins], class_id[at[wins]]
    return np.asarray(winner)


def _points(scores: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Scores (C, h, w) of some points of the grid: (M, C) float32, finite."""
    has_classes_last = scores.strides[0] == scores.itemsize
    values = np.moveaxis(scores, 0, -1)[row, column] if has_classes_last else scores[:, row, column].T
    return np.asarray(np.clip(values, -FAR, FAR), np.float32)


FAR = 1e30  # of a score: differences of such are still finite
