"""Masks: what a network says on a coarse grid, brought to the pixels of the source picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from isaac_infer.core.errors import SessionError
from isaac_infer.core.fit import Fit, Size
from isaac_infer.core.text import counted
from isaac_infer.core.two_threads import share

BLOCK = 1 << 17  # values worked on at once: they stay in the processor's cache
LEAST = 1 << 14  # pixels worked on at once: fewer would cost more in calls than the cache saves
TILES = 1 << 19  # values of tiles worked on at once: each costs many calls
LEAST_TILES = 1 << 9  # tiles worked on at once
SHARED = 1 << 22  # scores of a map from which on two threads are faster than one
LONGEST_RUN = 32  # pixels of a tile along an axis: few, so that also those of a coarse grid fit into a block
MANY_CLASSES = 32  # side by side in memory, from which on argmax is faster than comparing them one by one
CORNERS = 4
MAX_MASK_PIXELS = 1 << 29  # of all masks of a picture together, a byte each
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


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

    @cached_property
    def within(self) -> tuple[slice, Taps]:
        """The part of the grid that is needed, and the taps into this part."""
        first, last = int(self.low[0]), int(self.high[-1])
        return slice(first, last + 1), Taps(
            self.low - first, self.high - first, self.weight, self.nearest - first
        )

    @cached_property
    def runs(self) -> Runs:
        """The pixels in runs, for tiles."""
        return _runs(self)

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
    weight = np.minimum(
        (point - low).astype(np.float32), BELOW_ONE
    )  # rounding must not leave the low one out
    found = Taps(low, np.minimum(low + 1, length - 1), weight, nearest)
    for array in (found.low, found.high, found.weight, found.nearest):
        array.setflags(write=False)  # shared by all who ask
    return found


def blocks(
    rows: int, values_per_row: int, least: int = 1, *, values: int = 0, begin: int = 0
) -> Iterator[slice]:
    """Rows in blocks that the cache holds, as far as it goes."""
    step = max((values or BLOCK) // max(values_per_row, 1), least, 1)
    return (slice(start, min(start + step, rows)) for start in range(begin, rows, step))


def interpolated_above(grid: np.ndarray, rows: Taps, columns: Taps, threshold: float) -> np.ndarray:
    """Tell where a grid (h, w), interpolated bilinearly, is above a threshold: (rows, columns) bool."""
    grid = grid.astype(np.float32, copy=False)
    wide = _take_columns(grid, columns.low)  # first along the axis that stays short
    wide += (_take_columns(grid, columns.high) - wide) * columns.weight
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
    wide = _take_columns(grid, columns.nearest)
    return np.asarray(wide.take(rows.nearest, axis=0))


def _take_columns(grid: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Columns of a grid (h, w) of bool, bytes, two bytes or float32.

    They are taken as rows, which are copied whole: of bytes in a sixth of the time, transposing included.
    """
    if not grid.size:
        return grid.take(columns, axis=1)
    plain = grid.view(np.uint8) if grid.dtype == bool else grid
    return np.asarray(cv2.transpose(cv2.transpose(plain).take(columns, axis=0))).view(grid.dtype)


# ---- the best of many classes --------------------------------------------------------------------


def best_class(scores: np.ndarray, dtype: type[np.unsignedinteger]) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of the best class of (C, h, w): (h, w) dtype, (h, w) float32; the first of equals.

    NaN survives in the score.
    """
    count, height, width = scores.shape
    label, score = np.empty((height, width), dtype), np.empty((height, width), np.float32)
    has_classes_last = _has_classes_last(scores)
    if has_classes_last and count >= MANY_CLASSES:
        for block in blocks(height, width * count):
            values = np.moveaxis(scores[:, block], 0, -1).astype(np.float32, copy=False)
            label[block] = found = values.argmax(axis=-1)
            score[block] = np.take_along_axis(values, found[..., None], axis=-1)[..., 0]
        return label, score
    is_copied = has_classes_last or scores.dtype != np.float32
    for block in blocks(height, width * count if is_copied else width, LEAST // width):
        # Copied block by block, so that the classes come first while the values are in the cache.
        values = np.ascontiguousarray(scores[:, block], np.float32) if is_copied else scores[:, block]
        best, labels = score[block], label[block]
        is_better, number = np.empty(best.shape, bool), np.empty_like(labels)
        factor = is_better.view(np.uint8)  # bool itself would be converted in a pass of its own
        best[...], labels[...] = values[0], 0
        for class_id in range(1, count):
            np.greater(values[class_id], best, out=is_better)
            # Later classes have higher numbers: the maximum replaces, and is far faster than a mask.
            np.multiply(factor, dtype(class_id), out=number)
            np.maximum(labels, number, out=labels)
            np.maximum(best, values[class_id], out=best)
    return label, score


def _has_classes_last(scores: np.ndarray) -> bool:
    """Whether the scores of a point of (C, h, w) lie side by side in memory, as some layouts have them."""
    return scores.strides[0] == scores.itemsize


def nearest_labels(
    scores: np.ndarray, rows: Taps, columns: Taps, dtype: type[np.unsignedinteger]
) -> tuple[np.ndarray, np.ndarray]:
    """The best class of every source pixel, that of the cell which it lies in.

    Args:
        scores: (C, H, W), of the whole grid.
        rows: where the rows of the source lie on the grid.
        columns: where its columns lie.
        dtype: of the labels.

    Returns:
        labels: (rows, columns) dtype.
        score: (h, w) float32, of the best class of each grid point that is needed; NaN survives in it.
    """
    (part_y, rows), (part_x, columns) = rows.within, columns.within
    label, score = best_class(scores[:, part_y, part_x], dtype)
    return nearest(label, rows, columns), score


def interpolated_labels(
    scores: np.ndarray, rows: Taps, columns: Taps, dtype: type[np.unsignedinteger]
) -> tuple[np.ndarray, np.ndarray]:
    """The same as `nearest_labels`, but scores are interpolated bilinearly before they are compared.

    A cell is what lies between four neighbouring grid points. An interpolated score is a mean of those at
    the corners of its cell, so a class that is best at all four is best in the whole cell, and its pixels
    need no interpolation. Only the mixed cells, along the borders of classes, are worked out, in tiles: the
    source pixels of a cell as a small rectangle. Where there are too many borders, labels are taken as they
    are. Large maps are shared by two threads.
    """
    if not (rows.weight.any() or columns.weight.any()):
        return nearest_labels(scores, rows, columns, dtype)
    try:
        return _interpolated(scores, rows, columns, dtype)
    except _TooManyBordersError:
        return nearest_labels(scores, rows, columns, dtype)


class _TooManyBordersError(Exception):
    """More would have to be interpolated than it is worth."""


def _interpolated(
    scores: np.ndarray, rows: Taps, columns: Taps, dtype: type[np.unsignedinteger]
) -> tuple[np.ndarray, np.ndarray]:
    (part_y, on_y), (part_x, on_x) = rows.within, columns.within
    part = scores[:, part_y, part_x]
    count, height, width = part.shape
    score, labels = np.empty((height, width), np.float32), np.empty((len(on_y), len(on_x)), dtype)
    down, across = on_y.runs, on_x.runs
    most_cells = min(MOST_PIXELS * score.size // labels.size, MOST_SCORES // count)
    values_per_tile = CORNERS * count + len(down.pixel) * len(across.pixel)
    cells, values = list[int](), list[int]()  # how many there are, block by block, of both threads

    def work_on(block: slice) -> None:
        first, last = block.start, block.stop
        # The cells of the last row want the grid points below it too, but for those at the end of the grid.
        label, best = best_class(part[:, first : last + 1], dtype)
        score[block] = best[: last - first]
        is_mixed = _is_mixed(label)[: last - first]
        _count(cells, int(np.count_nonzero(is_mixed)), most_cells)
        pixels = slice(*np.searchsorted(on_y.low, (first, last)))
        wide = _take_columns(label[: last - first], on_x.low)
        wide.take(on_y.low[pixels] - first, axis=0, out=labels[pixels], mode='clip')  # clip: not checked
        runs = down[np.arange(*np.searchsorted(down.cell, (first, last)))]
        tiles = np.flatnonzero(_take_columns(is_mixed.take(runs.cell - first, axis=0), across.cell))
        at_down, at_across = np.divmod(tiles, len(across.cell))
        for some in blocks(len(tiles), values_per_tile, LEAST_TILES, values=TILES):
            of_down, of_across = runs[at_down[some]], across[at_across[some]]
            corners = _corners(scores, of_down.cell + part_y.start, of_across.cell + part_x.start)
            _count(values, _label_tiles(labels, corners, of_down, of_across), MOST_VALUES)

    def work(of: Iterable[slice]) -> None:
        with np.errstate(over='ignore', invalid='ignore'):  # of this thread; what is not finite is refused
            for block in of:
                work_on(block)

    if part.size < SHARED:
        work(blocks(height, width))
    else:
        middle = height // 2
        share(work, blocks(middle, width), blocks(height, width, begin=middle))
    return labels, score


def _count(counts: list[int], more: int, most: int) -> None:
    counts.append(more)
    if sum(counts) > most:
        raise _TooManyBordersError


# What is interpolated in one picture; a map with more borders than that is left as it is.
MOST_PIXELS = 1 << 19
MOST_SCORES = 1 << 22
MOST_VALUES = 1 << 22  # scores that are worked out: pixels times rivals, which are many in noise alone


def _is_mixed(label: np.ndarray) -> np.ndarray:
    """Tell of each cell, by its lower corner in (h, w) labels, whether its corners have several labels."""
    differs = np.zeros(label.shape, bool)
    np.not_equal(label[:, :-1], label[:, 1:], out=differs[:, :-1])
    differs[:-1] |= label[:-1] != label[1:]
    differs[:-1, :-1] |= label[:-1, :-1] != label[1:, 1:]
    return differs


@dataclass(frozen=True)
class Runs:
    """The source pixels along one axis in runs: neighbours that lie between the same two grid points."""

    cell: np.ndarray  # (n,) intp, the lower one of the two
    pixel: np.ndarray  # (longest, n) intp; a run that is shorter repeats its last one
    weight: np.ndarray  # (longest, n) float32, 0..1, of the higher one of the two

    def __getitem__(self, runs: np.ndarray) -> Runs:
        """Some of the runs, in any order."""
        return Runs(self.cell[runs], self.pixel.take(runs, axis=1), self.weight.take(runs, axis=1))


def _runs(along: Taps) -> Runs:
    """Put the pixels along an axis into runs of about the same length."""
    first = np.flatnonzero(np.diff(along.low, prepend=-1))
    count = np.diff(first, append=len(along))
    longest = min(-(-len(along) // len(first)), LONGEST_RUN)
    parts = -(-count // longest)  # more than one at the ends of the grid, and where that is very coarse
    part = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    start = np.repeat(first, parts) + longest * part
    last = np.repeat(first + count - 1, parts)
    pixel = np.minimum(start + np.arange(longest)[:, None], last)
    return Runs(along.low[start], pixel, along.weight[pixel])


def _label_tiles(labels: np.ndarray, corners: np.ndarray, down: Runs, across: Runs) -> int:
    """Write the best class of the source pixels of n tiles, each a run of rows and one of columns.

    Gives how many scores were worked out for it.

    A class that no corner of a cell raises above the lowest corner of another cannot win in it: mostly two
    are left, its rivals. All tiles are worked out at once, with their first rival, then with their second,
    and so on; those with most rivals come first, so that what is not through yet is a slice.

    Args:
        labels: (H, W) of the source, written to.
        corners: (C, 4, n) scores, as `_corners` gives them.
        down: the n runs of rows.
        across: the n runs of columns.
    """
    can_win = corners.max(axis=1) >= corners.min(axis=1).max(axis=0)
    # Bytes are counted and sorted in no time.
    dtype = np.uint8 if len(corners) <= np.iinfo(np.uint8).max else np.intp
    count = np.add.reduce(can_win.view(np.uint8), axis=0, dtype=dtype)
    order = np.argsort(len(corners) - count, kind='stable')
    down, across, count = down[order], across[order], count[order]
    rival = np.flatnonzero(can_win.T.take(order, axis=0)) % len(corners)  # tile by tile, lower classes first
    start = np.cumsum(count, dtype=np.intp) - count
    best = np.full((len(down.pixel), len(across.pixel), len(order)), -np.inf, np.float32)
    winner = np.zeros(best.shape, labels.dtype)
    for rank in range(int(count[0])):
        left = slice(np.count_nonzero(count > rank))
        class_id = rival[start[left] + rank]
        first = class_id * (CORNERS * len(order)) + order[left]
        top_left, top_right, bottom_left, bottom_right = (
            corners.take(first + corner * len(order)) for corner in range(CORNERS)
        )
        by_x, by_y = top_right - top_left, bottom_left - top_left
        by_both = bottom_right - bottom_left - by_x
        x, y = across.weight[:, left], down.weight[:, None, left]
        value = y * (by_y + x * by_both)
        value += top_left + x * by_x
        number = (value > best[..., left]) * class_id.astype(labels.dtype)
        np.maximum(winner[..., left], number, out=winner[..., left])  # later rivals have higher numbers
        np.maximum(best[..., left], value, out=best[..., left])
    labels.reshape(-1)[down.pixel[:, None] * labels.shape[1] + across.pixel] = winner
    return len(rival) * len(down.pixel) * len(across.pixel)


def _corners(scores: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Scores (C, H, W) at the corners of n cells: (C, 4, n) float32, finite."""
    count, height, width = scores.shape
    below, right = np.minimum(row + 1, height - 1), np.minimum(column + 1, width - 1)
    points = np.concatenate((row, row, below, below)) * width
    points += np.concatenate((column, right, column, right))
    if _has_classes_last(scores):
        values = np.moveaxis(scores, 0, -1).reshape(-1, count).take(points, axis=0).T
    else:
        values = scores.reshape(count, -1).take(points, axis=1, mode='clip')  # they are inside: not checked
    values = np.ascontiguousarray(values, np.float32)
    return np.clip(values, -FAR, FAR, out=values).reshape(count, CORNERS, -1)


FAR = 1e30  # of a score: differences of such are still finite


def refuse_large_masks(count: int, pixels: int) -> None:
    if pixels > MAX_MASK_PIXELS:
        raise SessionError(
            f'masks: {counted(count, "object")} of {pixels} pixels together are more than the limit of '
            f'{MAX_MASK_PIXELS}; raise confidence_threshold, lower max_detections, or send smaller pictures'
        )
