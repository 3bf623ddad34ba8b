"""Fit: how a source image was scaled and padded into the network input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isaac_infer.core.errors import ParameterError

Box = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels; right and bottom are outside
Size = tuple[int, int]  # height, width in pixels

RESIZE_MODES = ('letterbox', 'letterbox_top_left', 'stretch', 'center_crop')


def input_size_text(size_hw: Size) -> str:
    """Tell the size of a network input, of which some name the width first, and `--input-size` the height."""
    height, width = size_hw
    return f'{width}x{height}' if width == height else f'{width} wide, {height} high'


@dataclass(frozen=True)
class Fit:
    """A box of the source picture and the box of the network input that it fills.

    Everything between the two is one linear map per axis. Made by prepare, inverted by decode.
    """

    source_hw: Size
    network_hw: Size
    source_box: Box  # the part of the source that is shown
    network_box: Box  # the part of the network input that it fills; the rest is padding
    ratio: float = 0.0  # the scale of both axes, where the aspect ratio is kept; 0: it follows from the boxes

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Network pixels per source pixel, along x and along y."""
        if self.ratio:
            # The box is rounded to whole pixels, the ratio is not: networks are measured by the ratio.
            return self.ratio, self.ratio
        (left, top, right, bottom), (to_left, to_top, to_right, to_bottom) = self.source_box, self.network_box
        return (to_right - to_left) / (right - left), (to_bottom - to_top) / (bottom - top)

    def to_source(self, points_xy: np.ndarray) -> np.ndarray:
        """Map (..., 2k) x, y pairs from network pixels to source pixels; not clipped."""
        scale, source, network = self._as_pairs(points_xy)
        return np.asarray((points_xy - network) / scale + source)

    def to_network(self, points_xy: np.ndarray) -> np.ndarray:
        """Map (..., 2k) x, y pairs from source pixels to network pixels; not clipped."""
        scale, source, network = self._as_pairs(points_xy)
        return np.asarray((points_xy - source) * scale + network)

    def _as_pairs(self, points_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pairs = points_xy.shape[-1] // 2
        dtype = points_xy.dtype if points_xy.dtype.kind == 'f' else np.dtype(np.float64)
        return (
            np.array(self.scale_xy * pairs, dtype),
            np.array(self.source_box[:2] * pairs, dtype),
            np.array(self.network_box[:2] * pairs, dtype),
        )


def fit_picture(source_hw: Size, network_hw: Size, *, resize: str, scale_up: bool = True) -> Fit:
    """Fit a picture into a network input.

    Args:
        source_hw: height and width of the picture, each at least 1.
        network_hw: height and width of the network input.
        resize: one of RESIZE_MODES. `letterbox` keeps the aspect ratio and centres, rounding as Ultralytics
            does; `letterbox_top_left` puts the picture at the top left and truncates, as YOLOX does;
            `stretch` fills the input; `center_crop` fills the input with the middle of the picture.
        scale_up: whether the letterbox modes may enlarge a picture that is smaller than the input.

    Raises:
        ParameterError: the mode is unknown.
    """
    if resize in ('letterbox', 'letterbox_top_left'):
        ratio = min(
            network_hw[0] / source_hw[0], network_hw[1] / source_hw[1], float('inf') if scale_up else 1.0
        )
        network_box = _letterbox(source_hw, network_hw, ratio, centred=resize == 'letterbox')
        return Fit(source_hw, network_hw, _whole(source_hw), network_box, ratio)
    if resize == 'stretch':
        return Fit(source_hw, network_hw, _whole(source_hw), _whole(network_hw))
    if resize == 'center_crop':
        return Fit(source_hw, network_hw, _middle(source_hw, network_hw), _whole(network_hw))
    raise ParameterError(f'resize: expected one of {", ".join(RESIZE_MODES)}, got {resize!r}')


def _whole(size_hw: Size) -> Box:
    return 0, 0, size_hw[1], size_hw[0]


def _letterbox(source_hw: Size, network_hw: Size, ratio: float, *, centred: bool) -> Box:
    (height, width), (to_height, to_width) = source_hw, network_hw
    if not centred:
        return 0, 0, max(int(width * ratio), 1), max(int(height * ratio), 1)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    # The 0.1 decides which side gets the odd pixel, the way Ultralytics' training did.
    left = max(round((to_width - new_width) / 2 - 0.1), 0)
    top = max(round((to_height - new_height) / 2 - 0.1), 0)
    return left, top, left + new_width, top + new_height


def _middle(source_hw: Size, network_hw: Size) -> Box:
    (height, width), (to_height, to_width) = source_hw, network_hw
    ratio = max(to_height / height, to_width / width)
    crop_width = min(max(round(to_width / ratio), 1), width)
    crop_height = min(max(round(to_height / ratio), 1), height)
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
