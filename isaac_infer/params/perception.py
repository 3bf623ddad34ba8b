"""Perception: the parameters of what looks at pictures, and of what gives them and keeps the answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from isaac_infer.core.build_options import CALIBRATIONS, PRECISIONS, BuildOptions, EngineOptions, Shape
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.fit import RESIZE_MODES
from isaac_infer.core.load_level import MINIMAL, REDUCED
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.smooth import Smoothing
from isaac_infer.core.spec import (
    BOX_UNITS,
    KEYPOINT_REFINEMENTS,
    NETWORK_CHANNEL_ORDERS,
    PIXEL_LAYOUTS,
    SCALE_UP,
    SCORE_UNITS,
    Limits,
    Overrides,
)
from isaac_infer.core.text import class_number
from isaac_infer.params.declare import Params, param, parameters


@dataclass(frozen=True)
class ModelParams(Params):
    """Which model, on which backend, and what the user knows better than the model file says."""

    model_file_path: str = param(
        '',
        'The ONNX model. A relative path is looked up in the working directory, then among the models '
        'of this package.',
    )
    engine_file_path: str = param(
        '',
        'A TensorRT engine to use instead of the ONNX model. Usually not needed: the engine of an ONNX model '
        'is built once and kept.',
    )
    backend: str = param(
        'auto',
        'What runs the model; auto is tensorrt where there is a GPU and TensorRT with PyCUDA, else '
        'onnxruntime.',
        choices=('auto', 'onnxruntime', 'tensorrt'),
    )
    providers: list[str] = param(
        [],
        'ONNX Runtime execution providers in order of preference, such as CUDAExecutionProvider; '
        'empty: the CPU.',
    )
    num_threads: int = param(0, 'Threads of the CPU backend; 0: one per core.', low=0, high=256)
    precision: str = param(
        'fp16', 'What TensorRT computes in; int8 needs calibration_path.', choices=PRECISIONS
    )
    calibration_path: str = param(
        '',
        'What int8 is calibrated on: a folder of some hundred pictures as the robot sees them, or a rosbag2 '
        'recording (PATH, or PATH::/topic where it has several topics of pictures).',
    )
    calibration: str = param(
        'qdq',
        'How int8 is calibrated: qdq nodes in the model (every TensorRT), or a calibrator of TensorRT up to '
        '10.',
        choices=CALIBRATIONS,
    )
    engine_cache_path: str = param(
        '', 'Folder for built engines; empty: ISAAC_INFER_CACHE, else ~/.cache/isaac_infer/engines.'
    )
    engine_shapes: list[str] = param(
        [],
        'Smallest, usual and largest shape of each input that the model leaves open: '
        'images=1x3x320x320,1x3x640x640,1x3x640x640.',
    )
    engine_profile: int = param(
        0, 'Which optimisation profile is run, of engines that have several.', low=0, high=1000
    )
    workspace_mib: int = param(
        0, 'Temporary memory of an engine at most, in MiB; 0: as much as TensorRT asks for.', low=0
    )
    optimization_level: int = param(
        -1, 'From 0 (quick to build) to 5 (quick to run); -1: the default of TensorRT.', low=-1, high=5
    )
    tactic_sources: list[str] = param(
        [], 'Where TensorRT takes kernels from, such as CUBLAS and CUDNN; empty: everywhere.'
    )
    dla_core: int = param(
        -1, 'Deep-learning accelerator to use, the GPU for what it cannot do; -1: GPU only.', low=-1, high=7
    )
    version_compatible: bool = param(False, 'Whether newer TensorRT may run the engine too.')
    hardware_compatible: bool = param(False, 'Whether other GPUs, from Ampere on, may run the engine too.')
    strongly_typed: bool = param(False, 'Whether the types in the model are obeyed instead of precision.')
    uint8_input: bool = param(True, 'Normalise pictures inside the engine: a quarter of the bytes to send.')
    best_class: bool = param(
        True, 'Let only the best class of each box leave the engine, where the decoder allows it.'
    )
    prepare: str = param(
        'auto',
        'Where pictures are prepared for TensorRT: cpu, gpu, or resize (resized on the CPU, normalised on '
        'the GPU); auto: the fastest, found by a trial with the first picture of each size.',
        choices=('auto', 'cpu', 'resize', 'gpu'),
    )
    device: int = param(0, 'Index of the GPU.', low=0, high=63)
    pipeline_depth: int = param(
        1,
        'Pictures under way at once on TensorRT: with 2, one is prepared while the GPU works on another; '
        'more pictures per second, and no later ones while the camera is slower than the model.',
        low=1,
        high=4,
    )
    decoder: str = param('', 'How to read the outputs; empty: found from metadata, names and shapes.')
    class_names: list[str] = param(
        [], 'Class names by index, or one text, JSON or YAML file that lists them; empty: from the model.'
    )
    input_tensor_names: list[str] = param(
        [], 'The image input, then the size input where there is one; empty: found.'
    )
    output_tensor_names: list[str] = param(
        [], 'The outputs in the order the decoder reads them; empty: found.'
    )
    input_size: list[int] = param(
        [],
        'Height and width of the network input; needed only where the model leaves them open.',
        low=1,
        high=16384,
    )
    input_layout: str = param(
        '', "Order of the image input's axes; empty: found from its shape.", choices=('', *PIXEL_LAYOUTS)
    )
    channel_order: str = param(
        '', 'Colour order the network was trained with; empty: found.', choices=('', *NETWORK_CHANNEL_ORDERS)
    )
    resize: str = param(
        '',
        'How a picture is fitted into the network input; empty: as the model family was trained.',
        choices=('', *RESIZE_MODES),
    )
    scale_up: str = param(
        '',
        'Whether letterboxing may enlarge pictures smaller than the network input; empty: as the model says, '
        'else always.',
        choices=('', *SCALE_UP),
    )
    pad_value: int = param(
        -1,
        'Grey value 0..255 of the letterbox border; -1: as the model family was trained.',
        low=-1,
        high=255,
    )
    scale: float = param(
        0.0, 'Network value = (pixel * scale - mean) / std; 0: as the model family was trained.', low=0.0
    )
    mean: list[float] = param(
        [], 'Subtracted after scaling, one value or one per channel; empty: as the model family was trained.'
    )
    std: list[float] = param(
        [],
        'Divided by at the end, one value or one per channel; empty: as the model family was trained.',
        low=1e-9,
    )
    strides: list[int] = param(
        [], 'Strides of a grid-based head, finest first; empty: found from the shapes.', low=1
    )
    box_unit: str = param(
        '',
        'What the box coordinates of the outputs are: pixels of the network input, or normalised to 0..1; '
        'empty: found.',
        choices=('', *BOX_UNITS),
    )
    anchors: list[float] = param(
        [],
        'Anchor width, height, ... in network pixels, level by level; empty: those of the model family.',
        low=0.0,
    )

    def check(self) -> None:
        if len(self.input_size) not in (0, 2):
            raise ParameterError(f'input_size: expected height and width, got {self.input_size}')
        for name in ('mean', 'std'):
            if len(getattr(self, name)) not in (0, 1, 3):
                raise ParameterError(f'{name}: expected 1 or 3 values, got {getattr(self, name)}')

    def run_options(self) -> dict[str, Any]:
        """What the model is run on, as `open_session` and `open_pipeline` take it; see `engine_options`."""
        return {
            'backend': self.backend,
            'providers': self.providers,
            'num_threads': self.num_threads,
            'engine': self.engine_options(),
        }

    def engine_options(self) -> EngineOptions:
        """How TensorRT engines are built, kept and fed.

        Raises:
            ParameterError: engine_shapes cannot be read.
        """
        build = BuildOptions(
            precision=self.precision,
            shapes=dict(_shapes(text) for text in self.engine_shapes),
            workspace_mib=self.workspace_mib,
            optimization_level=self.optimization_level,
            dla_core=self.dla_core,
            tactic_sources=tuple(self.tactic_sources),
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
            strongly_typed=self.strongly_typed,
            uint8_input=self.uint8_input,
            best_class=self.best_class,
            calibration=self.calibration,
        )
        return EngineOptions(
            build,
            cache_folder=self.engine_cache_path,
            calibration=self.calibration_path,
            prepare=self.prepare,
            device=self.device,
            profile=self.engine_profile,
            pipeline_depth=self.pipeline_depth,
        )

    def overrides(self, class_names: tuple[str, ...]) -> Overrides:
        """What the user says about the model; class names already read from their file."""
        return Overrides(
            decoder=self.decoder,
            class_names=class_names,
            input_size_hw=(self.input_size[0], self.input_size[1]) if self.input_size else None,
            input_names=tuple(self.input_tensor_names),
            output_names=tuple(self.output_tensor_names),
            layout=self.input_layout,
            channel_order=self.channel_order,
            resize=self.resize,
            scale_up=SCALE_UP.get(self.scale_up),
            pad_value=self.pad_value if self.pad_value >= 0 else None,
            scale=self.scale or None,
            mean=tuple(self.mean),
            std=tuple(self.std),
            strides=tuple(self.strides),
            anchors=tuple(self.anchors),
            box_unit=self.box_unit,
        )


def _shapes(text: str) -> tuple[str, tuple[Shape, Shape, Shape]]:
    """Read `images=1x3x320x320,1x3x640x640,1x3x640x640`."""
    name, _, shapes = text.partition('=')
    try:
        low, usual, high = (tuple(int(length) for length in shape.split('x')) for shape in shapes.split(','))
    except ValueError:
        raise ParameterError(
            'engine_shapes: expected the smallest, usual and largest shape of an input such as '
            f'images=1x3x320x320,1x3x640x640,1x3x640x640, got {text!r}'
        ) from None
    return name, (low, usual, high)


@dataclass(frozen=True)
class DetectionParams(ModelParams):
    """A detector: its model and what of its answer counts."""

    confidence_threshold: float = param(0.25, 'Drop boxes that score less.', low=0.0, high=1.0, live=True)
    nms_threshold: float = param(
        0.45,
        'Drop a box that overlaps a better one by more than this (intersection over union).',
        low=0.0,
        high=1.0,
        live=True,
    )
    nms_mode: str = param(
        'class_aware',
        'Whether only boxes of one class suppress one another, or all do.',
        choices=('class_aware', 'class_agnostic'),
        live=True,
    )
    box_blend: float = param(
        -1.0,
        'Boxes of one object that score nearly as well as its best one, less than this below it, share in '
        'its place, mask and key points, which then do not jump from one to the other; 0: the best one '
        'alone; below 0: as the model says, else 0.',
        low=-1.0,
        high=1.0,
    )
    max_detections: int = param(300, 'Objects per picture at most.', low=1, high=10000, live=True)
    max_candidates: int = param(
        3000, 'Best-scored boxes that enter non-maximum suppression.', low=1, high=100000, live=True
    )
    class_filter: list[str] = param(
        [],
        'Names or numbers of the classes to report, as objects and in class maps; empty: all.',
        live=True,
    )

    def limits(self, class_names: tuple[str, ...], num_classes: int) -> Limits:
        """What of the answer counts, with the class filter resolved to indices.

        Raises:
            ParameterError: the filter names a class that the model does not have.
        """
        return Limits(
            confidence_threshold=self.confidence_threshold,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            max_candidates=self.max_candidates,
            class_agnostic_nms=self.nms_mode == 'class_agnostic',
            class_ids=frozenset(
                _class_id(text, class_names, num_classes, self._filter(), self._naming())
                for text in self.class_filter
            ),
        )

    def overrides(self, class_names: tuple[str, ...]) -> Overrides:
        return replace(
            super().overrides(class_names), box_blend=self.box_blend if self.box_blend >= 0 else None
        )

    def _filter(self) -> str:
        """What the class filter is called, and the classes of what it expects."""
        return 'class_filter: expected classes of the model'

    def _naming(self) -> str:
        """How the classes of a model are named that does not name them."""
        return f'set class_names, or {_SIDECAR}'


_SIDECAR = 'write class_names into a YAML file of its name beside it'


def _class_id(text: str, class_names: tuple[str, ...], num_classes: int, expected: str, naming: str) -> int:
    if text in class_names:
        return class_names.index(text)
    number = class_number(text)
    if number is not None and (number < num_classes or not num_classes):
        return number
    known = ', '.join(class_names) or (f'0 to {num_classes - 1}' if num_classes else 'by their numbers')
    unnamed = '' if class_names else f'; the model names none: give numbers, {naming}'
    raise ParameterError(f'{expected} ({known}), got {text!r}{unnamed}')


@dataclass(frozen=True)
class SegmentationParams(DetectionParams):
    """A segmentation model, and what of its answer counts."""

    mask_threshold: float = param(
        0.5, 'Probability above which a pixel belongs to an object.', low=0.0, high=1.0, live=True
    )
    interpolate_scores: bool = param(
        True,
        'Interpolate scores to the size of the picture before the class of a pixel is chosen; false: coarse '
        'borders, faster.',
        live=True,
    )
    min_region_area: int = param(
        400,
        'Semantic models: connected pixels of one class, as many or more, are an object in detections; 0: no '
        'objects, faster.',
        low=0,
        live=True,
    )
    score_unit: str = param(
        '',
        'What the network says of each class: logits, or probabilities; empty: told by the values.',
        choices=('', *SCORE_UNITS),
    )

    def limits(self, class_names: tuple[str, ...], num_classes: int) -> Limits:
        return replace(
            super().limits(class_names, num_classes),
            mask_threshold=self.mask_threshold,
            interpolate_scores=self.interpolate_scores,
            min_region_area=self.min_region_area,
        )

    def overrides(self, class_names: tuple[str, ...]) -> Overrides:
        return replace(super().overrides(class_names), score_unit=self.score_unit)


@dataclass(frozen=True)
class PoseParams(DetectionParams):
    """A pose model, and what of its answer counts."""

    keypoint_threshold: float = param(
        0.3, 'Key points that score less count as not found.', low=0.0, high=1.0, live=True
    )
    keypoints: list[str] = param(
        [],
        'Names of the key points in the order of the model; empty: from the model, or its family.',
    )
    keypoint_refinement: str = param(
        '',
        'Heat maps: how a peak is told more finely than its cell: none, a quarter towards the higher '
        'neighbour, or dark (from the derivatives); empty: as the model family was trained.',
        choices=('', *KEYPOINT_REFINEMENTS),
    )

    skeleton: str = param(
        '',
        'YAML or JSON file with keypoints and links, or the name of a known skeleton; empty: that of the '
        'key points of the model.',
    )
    person_model_file_path: str = param(
        '',
        'Top-down: the detector that finds the persons, for pose models that expect the picture of one; '
        'it runs on the same backend.',
    )
    person_classes: list[str] = param(
        ['person'], 'Top-down: the classes of the detector, or of the topic, that are persons.'
    )
    person_threshold: float = param(
        0.4, 'Top-down: persons that the detector is less sure of are left out.', low=0.0, high=1.0
    )
    person_padding: float = param(
        1.25, 'Top-down: how much larger than its box the crop of a person is.', low=1.0, high=4.0
    )
    max_batch: int = param(
        8, 'Top-down: crops in one run, where the model leaves that open.', low=1, high=256
    )

    def limits(self, class_names: tuple[str, ...], num_classes: int) -> Limits:
        return replace(super().limits(class_names, num_classes), keypoint_threshold=self.keypoint_threshold)

    def overrides(self, class_names: tuple[str, ...]) -> Overrides:
        return replace(
            super().overrides(class_names),
            keypoints=tuple(self.keypoints),
            keypoint_refinement=self.keypoint_refinement,
        )

    def person_params(self) -> PersonParams:
        """The same backend and engine options, for the model that finds the persons."""
        shared = (
            'backend', 'providers', 'num_threads', 'precision', 'calibration_path', 'calibration',
            'engine_cache_path', 'workspace_mib', 'optimization_level', 'tactic_sources', 'dla_core',
            'version_compatible', 'hardware_compatible', 'uint8_input', 'best_class', 'prepare', 'device',
        )  # fmt: skip
        return PersonParams(
            model_file_path=self.person_model_file_path,
            confidence_threshold=self.person_threshold,
            class_filter=self.person_classes,
            **{name: getattr(self, name) for name in shared},
        )


@dataclass(frozen=True)
class PersonParams(PoseParams):
    """The detector that finds the persons for a pose model, its class filter being person_classes."""

    def _filter(self) -> str:
        return f'person_classes: expected classes of {self.model_file_path}, which finds the persons,'

    def _naming(self) -> str:
        return f'or {_SIDECAR}'


@dataclass(frozen=True)
class TaskParams(SegmentationParams, PoseParams):
    """A model of any task, and what of its answer counts."""


@dataclass(frozen=True)
class PerceptionNodeParams(Params):
    """What every perception node has, whatever its model: its topics, its overlay, its warnings."""

    autostart: bool = param(
        True, 'Configure and activate by itself; false where a lifecycle manager does it.'
    )
    build_only: bool = param(
        False, 'Open the model, which builds its engine where there is none, and end; needs autostart.'
    )
    transport: str = param(
        'raw', 'Subscribe to image (raw) or image/compressed (compressed).', choices=('raw', 'compressed')
    )
    image_reliability: str = param(
        'best_effort',
        'Reliability of the image subscription; reliable only works if the camera publishes reliably.',
        choices=('best_effort', 'reliable'),
    )
    class_ids: str = param(
        'name',
        'What class_id carries in the messages: the class name, or its index.',
        choices=('name', 'index'),
        live=True,
    )
    image_timeout_s: float = param(5.0, 'Warn when no picture came for this long.', low=0.1, live=True)
    slow_frame_ms: float = param(
        100.0, 'Warn, and name the slowest stage, when a frame takes longer.', low=0.0, live=True
    )
    overlay_line_width: int = param(
        0, 'Line width of the overlay in pixels; 0: fitting the picture.', low=0, high=100, live=True
    )
    overlay_labels: bool = param(
        True, 'Write class names, or the numbers of persons, into the overlay.', live=True
    )
    overlay_scores: bool = param(True, 'Write scores into the overlay.', live=True)
    obey_load_level: bool = param(
        False, 'Work on fewer pictures while load_level, which power_manager publishes, says so.', live=True
    )
    reduced_rate_hz: float = param(
        10.0, 'Pictures per second at load level reduced, at most.', low=0.01, high=1000.0, live=True
    )
    minimal_rate_hz: float = param(
        2.0, 'Pictures per second at load level minimal, at most.', low=0.01, high=1000.0, live=True
    )

    model_variants: list[str] = param(
        [],
        'One or two lighter models with the same classes, smaller ones or exported for a smaller input, the '
        'lightest last: while load_level is reduced the first of these is used, while it is minimal the last '
        'one. All are open from the start; needs obey_load_level.',
    )

    def check(self) -> None:
        super().check()
        if len(self.model_variants) > 2 or not all(self.model_variants):
            raise ParameterError(
                'model_variants: expected one or two models, for load_level reduced and for minimal, got '
                f'{self.model_variants}'
            )

    def rate_limit_hz(self, load_level: str) -> float:
        """Pictures per second at a load level; infinite where there is no limit."""
        rates_hz = {REDUCED: self.reduced_rate_hz, MINIMAL: self.minimal_rate_hz}
        return rates_hz.get(load_level, inf) if self.obey_load_level else inf


@dataclass(frozen=True)
class PerceptionParams(PerceptionNodeParams, DetectionParams):
    """What all perception nodes have."""

    def lighter(self, path: str) -> PerceptionParams:
        """The same for one of model_variants: what describes the first model, this one says itself."""
        described = (
            'engine_file_path', 'engine_shapes', 'engine_profile', 'decoder', 'input_tensor_names',
            'output_tensor_names', 'input_size', 'input_layout', 'channel_order', 'resize', 'scale_up',
            'pad_value', 'scale', 'mean', 'std', 'strides', 'box_unit', 'anchors', 'score_unit',
            'keypoint_refinement',
        )  # fmt: skip
        usual = {each.name: each.default for each in parameters(type(self)) if each.name in described}
        return self.changed(model_file_path=path, **usual)


@dataclass(frozen=True)
class DetectorParams(PerceptionParams):
    """Parameters of detector_node."""


@dataclass(frozen=True)
class SegmentationNodeParams(PerceptionParams, SegmentationParams):
    """Parameters of segmentation_node."""

    palette: list[str] = param(
        [],
        'Colours of the classes by index, such as #ff8800; empty, or beyond its end: colours of our own.',
        live=True,
    )
    overlay_opacity: float = param(
        0.5, 'How much of the picture the colours of the overlay hide.', low=0.0, high=1.0, live=True
    )

    def check(self) -> None:
        super().check()
        self.colours()

    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """The palette as blue, green, red.

        Raises:
            ParameterError: one of them is no colour.
        """
        return tuple(map(_colour, self.palette))


def _colour(text: str) -> tuple[int, int, int]:
    if not re.fullmatch('#[0-9a-fA-F]{6}', text):
        raise ParameterError(f'palette: expected colours such as #ff8800, got {text!r}')
    red, green, blue = bytes.fromhex(text[1:])
    return blue, green, red


@dataclass(frozen=True)
class PoseNodeParams(PerceptionParams, PoseParams):
    """Parameters of pose_node."""

    max_persons: int = param(20, 'Persons per picture at most, those with the best scores.', low=1, high=1000)
    persons_topic: str = param(
        '',
        'Top-down: a topic of vision_msgs/Detection2DArray that has the persons of every picture, with its '
        'stamp, such as detections.',
    )
    persons_timeout_ms: float = param(
        200.0, 'Top-down: how long a picture waits for its persons from the topic.', low=1.0, high=10000.0
    )
    track: bool = param(True, 'Give persons a number that they keep from picture to picture.', live=True)
    smooth: bool = param(False, 'Smooth the key points of each person over time; needs track.', live=True)
    smooth_min_cutoff_hz: float = param(
        1.7, 'One-euro filter: cutoff of what stands still; lower is calmer.', low=0.01, high=100.0, live=True
    )
    smooth_beta: float = param(
        1.0,
        'One-euro filter: how much the cutoff rises with speed, in sizes of the person per second; higher '
        'lags less.',
        low=0.0,
        high=1000.0,
        live=True,
    )
    use_depth: bool = param(
        False, 'Markers in metres, by camera_info and depth, an image that is aligned with the pictures.'
    )
    depth_tolerance_ms: float = param(
        50.0, 'How far the stamps of picture and depth may lie apart.', low=0.0, high=10000.0, live=True
    )
    marker_pixel_m: float = param(
        0.001, 'Without depth: width of a pixel of the markers, in metres.', low=1e-6, high=1.0, live=True
    )
    marker_joint_m: float = param(
        0.02, 'Width of a joint of the markers, in metres.', low=1e-4, high=10.0, live=True
    )

    def check(self) -> None:
        super().check()
        if self.person_model_file_path and self.persons_topic:
            raise ParameterError(
                'person_model_file_path and persons_topic: expected one of them at most, got '
                f'{self.person_model_file_path!r} and {self.persons_topic!r}'
            )
        if self.model_variants and self.persons_topic:
            raise ParameterError(
                'model_variants: expected none where persons come from a topic (persons_topic), '
                f'got {", ".join(self.model_variants)}'
            )
        if self.smooth and not self.track:
            raise ParameterError('smooth: needs track, which is false')

    def limits(self, class_names: tuple[str, ...], num_classes: int) -> Limits:
        limits = super().limits(class_names, num_classes)
        return replace(limits, max_detections=min(limits.max_detections, self.max_persons))

    def smoothing(self) -> Smoothing:
        """How key points are smoothed."""
        return Smoothing(min_cutoff_hz=self.smooth_min_cutoff_hz, beta=self.smooth_beta)


@dataclass(frozen=True)
class ImageSourceParams(Params):
    """Parameters of image_source."""

    source: str = param(
        'synthetic',
        'A picture, a folder, a video, a rosbag2 recording (PATH or PATH::/topic), a camera (/dev/video0), a '
        'stream (rtsp://...), synthetic: drawn table-top scenes, or synthetic:humanoids: drawn figures.',
    )
    rate: float = param(30.0, 'Pictures per second.', low=0.01, high=1000.0)
    frames: int = param(0, 'Stop after this many pictures; 0: never.', low=0)
    loop: bool = param(True, 'Start again at the end of a folder, video or recording.')
    width: int = param(640, 'Width of synthetic pictures.', low=1, high=8192)
    height: int = param(480, 'Height of synthetic pictures.', low=1, high=8192)
    seed: int = param(
        FIRST_HELD_OUT_SEED, 'Which synthetic scene comes first; the default ones were not trained on.', low=0
    )
    frame_id: str = param('camera', 'Coordinate frame in the header.')
    encoding: str = param('bgr8', 'Encoding of the published pictures.', choices=('bgr8', 'rgb8', 'mono8'))
    reliability: str = param(
        'best_effort', 'Reliability of the publisher.', choices=('best_effort', 'reliable')
    )
    wait_for_subscribers: int = param(
        0, 'Publish only once this many subscribers are there; 0: at once.', low=0
    )


@dataclass(frozen=True)
class RecorderParams(Params):
    """Parameters of recorder."""

    report: str = param('', 'JSON file for the counts and times, written twice a second; empty: none.')
    contact_sheet: str = param(
        '', 'Picture file for a sheet of annotated pictures, written at the end; empty: none.'
    )
    samples: int = param(
        12, 'Pictures on the contact sheet, spread evenly over the run, each once.', low=1, high=100
    )
    text_topics: list[str] = param(
        [],
        'Topics of std_msgs/String whose texts the report counts, each time that another one comes; what '
        'differs in numbers only is one text.',
    )
    use_overlay: bool = param(
        False, 'Take the pictures of the contact sheet from overlay, as the node draws them.'
    )
