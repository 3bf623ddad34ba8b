"""Regions: the connected pixels of a class as objects, with a score, a box and a mask each."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np

from isaac_infer.core.decode.masks import grid_in_source, refuse_large_masks, taps
from isaac_infer.core.errors import SessionError
from isaac_infer.core.fit import Fit, Size
from isaac_infer.core.maps import background_classes
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import Limits, ModelSpec

MAX_REGION_PIXELS = 1 << 26  # of a picture in which regions are looked for, several bytes each
MAX_REGION_WORK = 1 << 29  # pixels of the boxes around all classes of a picture: two seconds
SAMPLES = 1 << 16  # points at which probabilities are worked out for the scores of regions
FEW_SAMPLES = 4  # in a region, with which its score would be one of chance
LOOKS = 64  # pixels of such a region that are looked at instead
GOLDEN = 0.6180339887498949  # ratio, multiples of which fill 0..1 evenly
LOOKING = 1 << 12  # what these cost, in pixels of the box around it
MAX_LOOKING = 1 << 23  # such cost in a picture; of regions beyond it the samples count, or all of their class


class Probability(Protocol):
    """What a network gives for a class at some points of its grid."""

    def __call__(
        self, at_rows: np.ndarray, at_columns: np.ndarray, class_id: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """At n points: the probabilities (n,), and whether no other class is more probable (n,)."""


class Read(NamedTuple):
    """What a semantic network says of a picture."""

    class_map: np.ndarray  # (H, W) uint8 or uint16, source size
    grid_hw: tuple[int, int]
    probability: Probability | None


def sample_step(grid_hw: Size) -> int:
    """How many grid points there are to a sample along each axis."""
    return max(int((grid_hw[0] * grid_hw[1] / SAMPLES) ** 0.5), 1)


def regions(
    found: Read, fit: Fit, spec: ModelSpec, limits: Limits
) -> tuple[Detections, tuple[np.ndarray, ...]]:
    """The connected pixels of a class as objects, most probable first, with their masks.

    The score is the mean probability of the class in the region, 1 where the network gives none: over the
    samples of the whole picture that lie in it and have no other class; where these are few, over some of its
    own pixels. Those of the background count only where `limits.class_ids` asks for them.

    Raises:
        SessionError: the picture is too large for it, or has too many classes that are all over it.
    """
    class_map = found.class_map
    if class_map.size > MAX_REGION_PIXELS:
        raise SessionError(
            f'regions: a picture of {class_map.size} pixels is above the limit of {MAX_REGION_PIXELS}; '
            'set min_region_area to 0, or send smaller pictures'
        )
    of_class = _classes(class_map, spec, limits)
    rate = _Rating(found.probability, fit, found.grid_hw) if found.probability else None
    boxes: list[tuple[int, int, int, int]] = []
    scores: list[float] = []
    classes: list[int] = []
    masks: list[np.ndarray] = []
    work = mask_pixels = 0
    for class_id in of_class.tolist():
        if rate is None and len(scores) >= limits.max_detections:
            break  # all score the same: no further one is among the best
        is_class = (class_map == class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(is_class)
        part = is_class[top : top + height, left : left + width]
        work += part.size + class_map.size // 8  # where it is looked for
        if work > MAX_REGION_WORK:
            raise SessionError(
                f'regions: {len(of_class)} classes have {limits.min_region_area} pixels or more, and are too '
                'scattered for all to be looked at; raise min_region_area, or set class_filter'
            )
        count, labels, stats = _connected(part)
        number = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= limits.min_region_area)
        number = number[number > 0]
        score = rate(class_id, labels, stats, number, (left, top)) if rate else np.ones(count)
        number = number[score[number] >= limits.confidence_threshold]
        number = number[np.argsort(-score[number], kind='stable')[: limits.max_detections]]
        sides = stats[number][:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(np.int64)
        mask_pixels += int(sides.prod(axis=1).sum())
        refuse_large_masks(len(boxes) + len(number), mask_pixels)
        for at in number.tolist():
            x, y, wide, high, _ = stats[at].tolist()
            boxes.append((left + x, top + y, left + x + wide, top + y + high))
            scores.append(float(score[at]))
            classes.append(class_id)
            masks.append(labels[y : y + high, x : x + wide] == at)
    order = np.argsort(-np.array(scores), kind='stable')[: limits.max_detections]
    objects = Detections(
        np.array(boxes, np.float32).reshape(-1, 4)[order],
        np.array(scores, np.float32)[order],
        np.array(classes, np.int32)[order],
    )
    return objects, tuple(masks[at] for at in order.tolist())


def _classes(class_map: np.ndarray, spec: ModelSpec, limits: Limits) -> np.ndarray:
    """The classes that may have regions large enough; the highest number is no class."""
    numbers = np.iinfo(class_map.dtype).max + 1
    pixels = cv2.calcHist([class_map], [0], None, [numbers], [0, numbers]).reshape(-1)
    classes = np.flatnonzero(pixels[:-1] >= limits.min_region_area)
    if limits.class_ids:
        return classes[np.isin(classes, list(limits.class_ids))]
    return classes[~np.isin(classes, list(background_classes(spec.class_names)))]


class _Rating:
    """Scores of the regions of a picture."""

    def __init__(self, probability: Probability, fit: Fit, grid_hw: Size) -> None:
        (rows, self._y), (columns, self._x) = grid_in_source(fit, grid_hw, sample_step(grid_hw))
        self._rows, self._columns = np.arange(grid_hw[0])[rows], np.arange(grid_hw[1])[columns]
        self._probability = probability
        self._along_y, self._along_x = taps(fit, grid_hw)
        self._left_to_look = MAX_LOOKING

    def __call__(
        self,
        class_id: int,
        labels: np.ndarray,
        stats: np.ndarray,
        wanted: np.ndarray,
        left_top: tuple[int, int],
    ) -> np.ndarray:
        """Score each number of a part of the picture; where samples are few, the wanted ones alone."""
        left, top = left_top
        score, hits = self._means(class_id, labels, left_top, len(stats))
        few = wanted[hits[wanted] < FEW_SAMPLES]
        # The largest first: specks do not matter as much.
        for at in few[np.argsort(-stats[few, cv2.CC_STAT_AREA], kind='stable')].tolist():
            cost = int(stats[at, cv2.CC_STAT_WIDTH]) * int(stats[at, cv2.CC_STAT_HEIGHT]) + LOOKING
            if cost > self._left_to_look:
                continue
            self._left_to_look -= cost
            y, x = _some_pixels(labels, stats[at], at)
            points = self._along_y.nearest[top + y], self._along_x.nearest[left + x]
            score[at] = self._probability(*points, class_id)[0].mean()
        return score

    def _means(
        self, class_id: int, labels: np.ndarray, left_top: tuple[int, int], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean probability of each region over the samples in it, and how many these are.

        Of one without any it is the mean over all of its class.
        """
        y, x = self._y - left_top[1], self._x - left_top[0]
        in_y = np.flatnonzero((y >= 0) & (y < labels.shape[0]))
        in_x = np.flatnonzero((x >= 0) & (x < labels.shape[1]))
        region = labels.take(y[in_y], axis=0).take(x[in_x], axis=1)
        at_y, at_x = np.nonzero(region)  # few: most samples are of other classes
        points = self._rows[in_y[at_y]], self._columns[in_x[at_x]]
        values, is_best = self._probability(*points, class_id)  # at the border, another one may be
        region, values = region[at_y, at_x][is_best], values[is_best]
        hits = np.bincount(region, minlength=count)
        sums = np.bincount(region, values, minlength=count)
        of_all = sums.sum() / hits.sum() if len(region) else 0.5
        return np.where(hits > 0, sums / np.maximum(hits, 1), of_all), hits


def _connected(is_class: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number the connected pixels: how many numbers, (h, w) of them, and the statistics of each."""
    count, _ = cv2.connectedComponents(is_class, connectivity=8, ltype=cv2.CV_32S)
    # Counted first, in a sixth of the time: statistics of short numbers take half as long as of long ones.
    if count <= np.iinfo(np.uint16).max:
        try:
            return cv2.connectedComponentsWithStats(is_class, connectivity=8, ltype=cv2.CV_16U)[:3]
        except cv2.error:  # of noise: there are more numbers before those of neighbours are made one
            pass
    return cv2.connectedComponentsWithStats(is_class, connectivity=8, ltype=cv2.CV_32S)[:3]


def _some_pixels(labels: np.ndarray, statistics: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of LOOKS pixels of a region at most, all over it."""
    x, y, wide, high, _ = statistics.tolist()
    row, column = np.nonzero(labels[y : y + high, x : x + wide] == at)
    some = np.arange(len(row))
    if len(row) > LOOKS:  # not every n-th: where rows have a multiple of n pixels, all would be of one column
        some = (np.arange(LOOKS) * GOLDEN % 1 * len(row)).astype(np.intp)
    return row[some] + y, column[some] + x
