"""Prepare: a picture resized, padded and normalised straight into the network's input buffer."""

from __future__ import annotations

import cv2
import numpy as np

from isaac_infer.core.fit import Fit, Size, fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.spec import ImageSpec


class Preparer:
    """Prepare pictures for one network input; keeps its scratch pictures, so that a frame allocates nothing.

    A pixel has 256 values, so normalisation is a table per channel: exact, one pass, for every dtype.
    """

    def __init__(self, spec: ImageSpec) -> None:
        self.spec = spec
        self._tables = normalisation_tables(spec)  # (channels, 256) in the network's dtype
        self._passes_through = spec.dtype == np.uint8 and bool((self._tables == np.arange(256)).all())
        self._fit: Fit | None = None
        self._padded: np.ndarray | None = None  # the buffer whose border is already filled
        self._resized = np.empty((0, 0, 3), np.uint8)
        self._planes: list[np.ndarray] = []

    def __call__(self, frame: Frame, into: np.ndarray) -> Fit:
        """Write the picture into a buffer of shape `spec.shape` and return how it was fitted."""
        fit = self._fit_for(frame.size_hw)
        if self._padded is not into:
            self._fill_border(into)
            self._padded = into
        left, top, right, bottom = fit.source_box
        picture = frame.image[top:bottom, left:right]
        left, top, right, bottom = fit.network_box
        if picture.shape[:2] != self._resized.shape[:2]:
            # OpenCV resizes by bilinear interpolation with pixel centres at half-integers, as training did.
            picture = cv2.resize(picture, (right - left, bottom - top), dst=self._resized)
        if self.spec.layout == 'nchw':
            self._write_planes(picture, frame.channel_order, into[0, :, top:bottom, left:right])
        else:
            self._write_pixels(picture, frame.channel_order, into[0, top:bottom, left:right])
        return fit

    def _fit_for(self, source_hw: Size) -> Fit:
        if self._fit is None or self._fit.source_hw != source_hw:
            self._fit = fit_picture(
                source_hw, self.spec.size_hw, resize=self.spec.resize, scale_up=self.spec.scale_up
            )
            left, top, right, bottom = self._fit.network_box
            self._resized = np.empty((bottom - top, right - left, 3), np.uint8)
            self._planes = [np.empty((bottom - top, right - left), np.uint8) for _ in range(3)]
            self._padded = None
        return self._fit

    def _fill_border(self, into: np.ndarray) -> None:
        padding = self._tables[:, self.spec.pad_value]
        into[...] = padding[:, None, None] if self.spec.layout == 'nchw' else padding

    def _write_planes(self, picture: np.ndarray, channel_order: str, into: np.ndarray) -> None:
        if self.spec.channels == 1:
            planes = [cv2.cvtColor(picture, _GRAY[channel_order], dst=self._planes[0])]
        else:
            planes = list(cv2.split(picture, self._planes))
            if channel_order != self.spec.channel_order:
                planes.reverse()
        for plane, table, target in zip(planes, self._tables, into):
            _look_up(plane, table, target)

    def _write_pixels(self, picture: np.ndarray, channel_order: str, into: np.ndarray) -> None:
        if self.spec.channels == 1:
            gray = cv2.cvtColor(picture, _GRAY[channel_order], dst=self._planes[0])
            _look_up(gray, self._tables[0], into[..., 0])
            return
        if channel_order != self.spec.channel_order:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=self._resized)
        if self._passes_through:
            into[...] = picture
        else:
            _look_up(picture, np.ascontiguousarray(self._tables.T)[None], into)


_GRAY = {'bgr': cv2.COLOR_BGR2GRAY, 'rgb': cv2.COLOR_RGB2GRAY}

# OpenCV's look-up copies table entries by size; these are the types it knows for each size.
_CARRIERS = {1: np.uint8, 2: np.int16, 4: np.float32, 8: np.float64}


def _look_up(values: np.ndarray, table: np.ndarray, into: np.ndarray) -> None:
    carrier = _CARRIERS[table.dtype.itemsize]
    cv2.LUT(values, table.view(carrier), dst=into.view(carrier))


def normalisation_tables(spec: ImageSpec) -> np.ndarray:
    """What each of the 256 pixel values becomes: (channels, 256) in the network's dtype."""
    mean = np.broadcast_to(np.asarray(spec.mean, np.float64), (spec.channels,))[:, None]
    std = np.broadcast_to(np.asarray(spec.std, np.float64), (spec.channels,))[:, None]
    values = (np.arange(256) * spec.scale - mean) / std
    if spec.dtype.kind in 'iu':
        limits = np.iinfo(spec.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.ascontiguousarray(values.astype(spec.dtype))
