"""Maps: a segmentation as a picture of numbers: of the class of every pixel, or of its object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isaac_infer.core.fit import Size
from isaac_infer.core.results import Segmentation, mask_box

BACKGROUND_NAMES = (
    'background', '__background__', '_background_', 'bg', 'void', 'unlabeled', 'unlabelled', 'ignore',
    'nothing', 'none',
)  # fmt: skip


def label_dtype(num_classes: int) -> type[np.unsignedinteger]:
    """The type of a map of so many classes, 0: of any number; one number more is that of no class.

    It must not change from picture to picture, so what a picture happens to hold does not count.
    """
    return np.uint8 if 0 < num_classes <= np.iinfo(np.uint8).max else np.uint16


def names_wanted(num_classes: int) -> str:
    """What to add to an error about a class number that is too high."""
    return f'; class_names has {num_classes}: name all of them' if num_classes else ''


def background_classes(class_names: Sequence[str]) -> frozenset[int]:
    """The classes that are no objects: those named so; where no class has a name, the first."""
    if not class_names:
        return frozenset((0,))
    names = (name.strip().lower() for name in class_names)
    return frozenset(index for index, name in enumerate(names) if name in BACKGROUND_NAMES)


def class_map_of(found: Segmentation, size_hw: Size, num_classes: int) -> np.ndarray:
    """The class of every pixel: (H, W) uint8, or uint16 where a byte may not suffice, see `label_dtype`.

    Where nothing was found, and what the network did not see, has the highest number of the type.
    """
    if found.class_map is not None:
        return found.class_map
    dtype = label_dtype(num_classes)
    return _painted(found, size_hw, found.objects.class_id, np.full(size_hw, np.iinfo(dtype).max, dtype))


def instance_map_of(found: Segmentation, size_hw: Size) -> np.ndarray:
    """The object that every pixel belongs to: (H, W) uint16, from 1; 0 where there is none."""
    return _painted(found, size_hw, np.arange(1, len(found) + 1), np.zeros(size_hw, np.uint16))


def class_shares(class_map: np.ndarray) -> dict[int, float]:
    """Which part of a class map (H, W) each class has that is in it; classes without a pixel are left out."""
    pixels = np.bincount(class_map.reshape(-1))
    return {
        class_id: float(pixels[class_id] / class_map.size) for class_id in np.flatnonzero(pixels).tolist()
    }


def _painted(found: Segmentation, size_hw: Size, numbers: np.ndarray, into: np.ndarray) -> np.ndarray:
    for row in range(len(found) - 1, -1, -1):  # the best one on top
        left, top, right, bottom = mask_box(found.objects.xyxy[row])
        into[top:bottom, left:right][found.masks[row]] = numbers[row]
    return into
