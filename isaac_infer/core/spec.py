"""ModelSpec: everything that has to be known about a model to feed it pictures and read its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.fit import RESIZE_MODES, Size
from isaac_infer.core.text import counted

PIXEL_LAYOUTS = ('nchw', 'nhwc')
NETWORK_CHANNEL_ORDERS = ('rgb', 'bgr', 'gray')
SCALE_UP = {'always': True, 'never': False}  # whether letterboxing may enlarge a picture, as people say it
KEYPOINT_REFINEMENTS = (
    'none',
    'quarter',
    'dark',
)  # how a peak of a heat map is told more finely than its cell
BOX_UNITS = ('pixels', 'normalised')  # of the network input; normalised: 0..1 of its width and height
SCORE_UNITS = ('logits', 'probabilities')  # of the classes of pixels; logits want a sigmoid or softmax
SIZE_DTYPES = ('int64', 'int32', 'float32', 'float16', 'float64')

MAX_SIDE = 1 << 20  # of a network's picture, in pixels
MAX_AREA = 1 << 28
MAX_BATCH = 256  # pictures
MAX_NUMBER = 1e9  # of a spec's


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes the network's image input: (pixel * scale - mean) / std per channel."""

    name: str  # of the tensor
    size_hw: Size
    batch: int = 1  # pictures that the tensor always holds; a frame fills the first
    layout: str = 'nchw'  # one of PIXEL_LAYOUTS
    dtype: np.dtype = np.dtype(np.float32)
    channel_order: str = 'rgb'  # one of NETWORK_CHANNEL_ORDERS; mean and std follow this order
    resize: str = 'letterbox'  # one of fit.RESIZE_MODES
    scale_up: bool = True
    pad_value: int = 114  # 0..255, of the letterbox border, before normalisation
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)  # one value, or one per channel
    std: tuple[float, ...] = (1.0,)

    @property
    def channels(self) -> int:
        return 1 if self.channel_order == 'gray' else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the tensor."""
        height, width = self.size_hw
        if self.layout == 'nchw':
            return self.batch, self.channels, height, width
        return self.batch, height, width, self.channels


@dataclass(frozen=True)
class ModelSpec:
    """A model as the pipeline sees it, resolved once at load from metadata, names, shapes and parameters."""

    task: str  # 'detection'
    decoder: str  # a key of the task's decoder table
    image: ImageSpec
    outputs: tuple[str, ...]  # tensor names, in the order that the decoder reads them
    class_names: tuple[str, ...]  # by class index; empty where nobody named them
    num_classes: int
    strides: tuple[int, ...] = ()  # of grid-based heads, one per output level
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()  # per level: width, height in network pixels
    row_length: int = 0  # numbers per box in the box tensor; what follows the class scores is ignored
    first_class: int = 0  # the number by which the model calls the first class: 1 where 0 is the background
    box_unit: str = 'pixels'  # one of BOX_UNITS: what the network's own box coordinates mean
    score_unit: str = ''  # one of SCORE_UNITS, of the classes of pixels; empty: told by the values
    white_is_object: bool = (
        False  # whether 255 in a class map of one object means it, as 1 does, not no class
    )
    size_input: str = ''  # name of an `orig_target_sizes` input, where the model has one
    size_dtype: str = 'int64'  # of that input, one of SIZE_DTYPES
    keypoints: tuple[str, ...] = ()  # of pose models, in the order in which they answer
    keypoint_values: int = 0  # numbers per key point: 2: x, y; 3: and a score
    keypoint_unit: str = ''  # one of BOX_UNITS: what their coordinates mean; empty: what those of boxes mean
    keypoint_refinement: str = 'none'  # one of KEYPOINT_REFINEMENTS, of heat maps
    box_blend: float = 0.0  # how far below the best box of an object others still share in it
    unsettled: frozenset[str] = frozenset()  # fields that a first run may still correct or doubt
    notes: tuple[str, ...] = ()  # for the user: how it was recognised, limits baked into the model
    warnings: tuple[str, ...] = ()  # for the user: what may be wrong with this spec, and how to decide it

    def sizes(self) -> dict[str, np.ndarray]:
        """What the size input is fed, by its name; empty where there is none."""
        if not self.size_input:
            return {}
        return {self.size_input: np.array([self.image.size_hw[::-1]], self.size_dtype)}

    def class_name(self, class_id: int) -> str:
        """Name a class, by its number where it has no name."""
        return self.class_names[class_id] if 0 <= class_id < len(self.class_names) else str(class_id)

    @property
    def extent(self) -> str:
        """How much there is to find, for people: `80 classes`, of pose models `17 key points`."""
        if self.task == 'pose':
            return counted(len(self.keypoints), 'key point')
        return counted(self.num_classes, 'class')


@dataclass(frozen=True)
class Limits:
    """What of a model's answer counts; may change between two frames."""

    confidence_threshold: float = 0.25  # results that score less are dropped
    nms_threshold: float = 0.45  # intersection over union above which the lower-scored box goes
    max_detections: int = 300  # results per picture
    max_candidates: int = 3000  # best-scored boxes that enter non-maximum suppression
    class_agnostic_nms: bool = False  # whether boxes of different classes suppress one another
    class_ids: frozenset[int] = frozenset()  # the classes that count; empty: all
    mask_threshold: float = 0.5  # probability above which a pixel belongs to an object
    interpolate_scores: bool = True  # before the class of a pixel is chosen; false: coarse borders, faster
    min_region_area: int = 0  # connected source pixels of a class, as many or more, are an object; 0: none
    keypoint_threshold: float = 0.3  # key points that score less count as not found

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # written so that NaN fails too
                raise ParameterError(f'{name}: expected a number from {low:g} to {high:g}, got {value!r}')


_LIMITS = {
    'confidence_threshold': (-1, 1),  # below 0: also what scores nothing
    'nms_threshold': (0, 1),
    'max_detections': (1, math.inf),
    'max_candidates': (1, math.inf),
    'mask_threshold': (0, 1),
    'min_region_area': (0, math.inf),
    'keypoint_threshold': (-1, 1),
}


@dataclass(frozen=True)
class Overrides:
    """What the user says about a model; None or empty means: find out. It always wins over what was found."""

    decoder: str = ''
    class_names: tuple[str, ...] = ()
    input_size_hw: Size | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    layout: str = ''
    channel_order: str = ''
    resize: str = ''
    scale_up: bool | None = None
    pad_value: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    strides: tuple[int, ...] = ()
    anchors: tuple[float, ...] = ()  # width, height, width, height, ... level by level, in network pixels
    box_unit: str = ''
    score_unit: str = ''
    keypoints: tuple[str, ...] = ()
    keypoint_refinement: str = ''
    box_blend: float | None = None


def check_spec(spec: ModelSpec) -> None:
    """See that every value of a spec that somebody may have edited is one that a model can have.

    Raises:
        ValueError: says which one is not.
    """
    check_image(spec.image)
    _check_rules(spec, _MODEL_RULES)


def check_image(image: ImageSpec) -> None:
    """See that every value of it is one that a model can have.

    Raises:
        ValueError: says which one is not.
    """
    _check_rules(image, _IMAGE_RULES)
    if image.size_hw[0] * image.size_hw[1] > MAX_AREA:
        raise ValueError(f'size_hw cannot be {image.size_hw}')
    for name, values in (('mean', image.mean), ('std', image.std)):
        if len(values) not in (1, image.channels):
            raise ValueError(f'{name}: expected 1 or {image.channels} values, got {len(values)}')


def _check_rules(holder: object, rules: Mapping[str, Callable[[object], bool]]) -> None:
    for name, is_possible in rules.items():
        if not is_possible(getattr(holder, name)):
            raise ValueError(f'{name} cannot be {getattr(holder, name)!r}')


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _one_of(*choices: object) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (str, bool)) and value in choices


def _whole(low: int, high: float = MAX_NUMBER) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high  # bool is a subclass of int


def _is_real(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER  # type: ignore[arg-type]  # NaN is not


def _is_positive(value: object) -> bool:
    return _is_real(value) and value >= 1 / MAX_NUMBER  # type: ignore[operator]


def _all(is_possible: Callable[[object], bool], *, counts: range | None = None) -> Callable[[object], bool]:
    """Tell whether something is a tuple of so many values of a kind; of any number where none is given."""
    return lambda value: (
        isinstance(value, tuple)
        and (counts is None or len(value) in counts)
        and all(is_possible(part) for part in value)
    )


_IMAGE_RULES: dict[str, Callable[[object], bool]] = {
    'name': _is_text,
    'size_hw': _all(_whole(1, MAX_SIDE), counts=range(2, 3)),
    'batch': _whole(1, MAX_BATCH),
    'layout': _one_of(*PIXEL_LAYOUTS),
    'channel_order': _one_of(*NETWORK_CHANNEL_ORDERS),
    'resize': _one_of(*RESIZE_MODES),
    'scale_up': _one_of(True, False),
    'pad_value': _whole(0, 255),
    'scale': _is_positive,
    'mean': _all(_is_real),
    'std': _all(_is_positive),
}
_MODEL_RULES: dict[str, Callable[[object], bool]] = {
    'outputs': _all(_is_text, counts=range(1, 100)),
    'class_names': _all(_is_text),
    'num_classes': _whole(0),
    'strides': _all(_whole(1, MAX_SIDE)),
    'anchors': _all(_all(_all(_is_real, counts=range(2, 3)))),
    'row_length': _whole(0),
    'first_class': _whole(0),
    'box_unit': _one_of(*BOX_UNITS),
    'score_unit': _one_of('', *SCORE_UNITS),
    'size_input': _is_text,
    'size_dtype': _one_of(*SIZE_DTYPES),
    'keypoints': _all(_is_text),
    'keypoint_values': _whole(0),
    'keypoint_unit': _one_of('', *BOX_UNITS),
    'keypoint_refinement': _one_of(*KEYPOINT_REFINEMENTS),
    'box_blend': lambda value: _is_real(value) and 0 <= value <= 1,  # type: ignore[operator]
    'notes': _all(_is_text),
    'warnings': _all(_is_text),
}
