"""ModelSpec: everything that has to be known about a model to feed it pictures and read its answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isaac_infer.core.fit import Size

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


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes the network's image input: (pixel * scale - mean) / std per channel."""

    name: str  # of the tensor
    size_hw: Size
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
        """Shape of the tensor that holds one picture."""
        height, width = self.size_hw
        if self.layout == 'nchw':
            return 1, self.channels, height, width
        return 1, height, width, self.channels


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
    size_input: str = ''  # name of an `orig_target_sizes` input, where the model has one
    keypoints: tuple[str, ...] = ()  # of pose models, in the order in which they answer
    keypoint_values: int = 0  # numbers per key point: 2: x, y; 3: and a score
    keypoint_unit: str = ''  # one of BOX_UNITS: what their coordinates mean; empty: what those of boxes mean
    keypoint_refinement: str = 'none'  # one of KEYPOINT_REFINEMENTS, of heat maps
    unsettled: frozenset[str] = frozenset()  # fields that a first run may still correct
    notes: tuple[str, ...] = ()  # for the user: how it was recognised, limits baked into the model

    def class_name(self, class_id: int) -> str:
        """Name a class, by its number where it has no name."""
        return self.class_names[class_id] if 0 <= class_id < len(self.class_names) else str(class_id)


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
