"""Segmentation decoders: the outputs of a network to a Segmentation, one decoder per output layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from isaac_infer.core.decode.heatmaps import cell_of
from isaac_infer.core.decode.instances import (
    InstanceDecoder,
    grids_of_boxes,
    grids_of_prototypes,
    grids_of_queries,
)
from isaac_infer.core.decode.probe import probe as probe_boxes
from isaac_infer.core.decode.semantic import SemanticDecoder, are_probabilities, class_axis, map_dtype
from isaac_infer.core.errors import ModelError, NamesError
from isaac_infer.core.fit import Fit, fit_picture
from isaac_infer.core.results import Segmentation
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.text import listed

FAINT = 0.5  # what key points score at most in a grey picture, where there are none
SHARES_TOLERANCE = 0.02  # of the sum of what softmax gives, in half precision


class Decoder(Protocol):
    """One output layout: called with a network's outputs, it gives the segmentation in source pixels."""

    @property
    def description(self) -> str:
        """One line for people."""

    def __call__(
        self, outputs: Mapping[str, np.ndarray], fit: Fit, spec: ModelSpec, limits: Limits
    ) -> Segmentation:
        """Decode one picture.

        Raises:
            TensorError: an output is missing or has another shape than its layout asks for.
            SessionError: an output is not finite, or holds something that its layout cannot have.
        """


def kind_of_masks(spec: ModelSpec) -> str:
    """Whether a model gives the class of every pixel (semantic), or a mask of each object (instances)."""
    return 'semantic' if isinstance(DECODERS[spec.decoder], SemanticDecoder) else 'instances'


def probe(outputs: Mapping[str, np.ndarray], spec: ModelSpec) -> ModelSpec:
    """Settle by the outputs of one run what is unsettled in a spec, and check that its decoder can read them.

    Raises:
        SessionError: the outputs are not what the decoder reads.
        TensorError: an output is missing, or has another shape than the decoder reads.
        ModelError: the outputs contradict the decoder.
        NamesError: more classes have names than there are.
    """
    decoder = DECODERS[spec.decoder]
    height, width = spec.image.size_hw
    whole = fit_picture((height, width), (height, width), resize='stretch')
    if isinstance(decoder, InstanceDecoder):
        spec = _probe_boxes(outputs, spec, decoder.boxes)
        decoder(outputs, whole, spec, Limits(confidence_threshold=0.0, max_detections=1))
        further = (_NO_REGIONS,) if spec.num_classes else (_NO_REGIONS, _WIDE)
        return replace(spec, notes=(*spec.notes, *further))
    decoder(outputs, whole, spec, Limits())
    spec = replace(spec, notes=(*spec.notes, _NO_BOXES))
    tensor = outputs[spec.outputs[0]]
    if spec.decoder == 'semantic_map' or tensor.dtype.kind in 'iub':
        is_object = len(spec.class_names) == 1
        if is_object or tensor.dtype.kind == 'b':
            spec = replace(_of_two_classes(spec), white_is_object=is_object)
        if tensor.dtype == np.uint8 and not is_object and spec.num_classes in (0, 2):
            spec = replace(spec, notes=(*spec.notes, _WHITE))
        is_wide = not spec.num_classes and map_dtype(tensor, spec) == np.uint16
        return replace(spec, notes=(*spec.notes, _NO_SCORES, *((_WIDE,) if is_wide else ())))
    if not spec.score_unit and not are_probabilities(tensor, spec):
        spec = replace(spec, score_unit='logits')
    if axis := class_axis(tensor.shape, spec):
        is_told = spec.class_names or 'task' not in spec.unsettled
        return spec if is_told else _doubt(spec, tensor.astype(np.float32), axis)
    is_whole = tensor.min() >= 0 and tensor.max() > 1 and not (tensor % 1).any()
    if is_whole and 'decoder' in spec.unsettled:
        raise ModelError(
            f'{spec.outputs[0]}: has whole numbers only, which are probably classes; set decoder to '
            'semantic_map, or to semantic_binary if they are scores'
        )
    return _of_two_classes(spec)


def _of_two_classes(spec: ModelSpec) -> ModelSpec:
    """What tells an object from the rest has two classes, also where only the object has a name."""
    names = spec.class_names
    if len(names) > 2:
        raise NamesError(
            f'{spec.outputs[0]}: expected the name of one object, or of the background and the object, got '
            f'{len(names)}: {listed(names)}'
        )
    return replace(spec, num_classes=2, class_names=('background', *names) if len(names) == 1 else names)


def _doubt(spec: ModelSpec, scores: np.ndarray, axis: int) -> ModelSpec:
    """Warn of scores like those of heat maps, which have the same shapes, where a pose decoder reads them.

    Whoever tells classes apart prefers one, even in a grey picture, all over which key points score about 0.
    """
    height, width = scores.shape[2:] if axis == 1 else scores.shape[1:3]
    low, high = scores.min(), scores.max()
    is_shared_out = np.allclose(scores.sum(axis=axis), 1, atol=SHARES_TOLERANCE)  # by softmax
    if max(-low, high) >= FAINT or is_shared_out or not cell_of(spec.image.size_hw, (height, width)):
        return spec
    warning = (
        f'{spec.outputs[0]}: {spec.num_classes} channels from {low:.2g} to {high:.2g} in a grey picture are '
        'more like heat maps of key points than like scores of classes; if they are, take pose_node, on the '
        f'command line --task pose; if not, set decoder to {spec.decoder}, or class_names'
    )
    return replace(spec, warnings=(*spec.warnings, warning))


_WIDE = 'how many classes there are is not known: class maps have 16 bits; set class_names for 8'
_NO_REGIONS = 'it finds objects: min_region_area and interpolate_scores have no effect'
_NO_BOXES = 'it finds the class of every pixel: nms_threshold and max_candidates have no effect'
_WHITE = '255 is taken for no class; if it is an object, set class_names to its one name'
_NO_SCORES = 'the network gives classes without probabilities: all regions score 1'


def _probe_boxes(outputs: Mapping[str, np.ndarray], spec: ModelSpec, boxes: str) -> ModelSpec:
    """Have the boxes checked as those of a detector with the same decoder."""
    as_detector = replace(spec, decoder=boxes, outputs=spec.outputs[:-1])
    settled = probe_boxes(outputs, as_detector)
    if settled.decoder != boxes:
        raise ModelError(
            f'{spec.outputs[0]}: its boxes are those of decoder {settled.decoder}, expected {boxes}; '
            f'set decoder; for this task there are {", ".join(DECODERS)}'
        )
    return replace(settled, decoder=spec.decoder, outputs=spec.outputs)


DECODERS: dict[str, Decoder] = {
    'ultralytics_seg': InstanceDecoder(
        'Ultralytics YOLO v8-seg, 11-seg, ...: [1, 4+classes+K, boxes] and prototypes [1, K, h, w]',
        'ultralytics',
        grids_of_prototypes,
    ),
    'ultralytics_seg_end2end': InstanceDecoder(
        'YOLO26-seg, or exported with NMS: [1, N, 6+K] and prototypes [1, K, h, w]',
        'ultralytics_end2end',
        grids_of_prototypes,
    ),
    'yolov5_seg': InstanceDecoder(
        'YOLOv5-seg: [1, boxes, 5+classes+K] and prototypes [1, K, h, w]', 'yolov5', grids_of_prototypes
    ),
    'rfdetr_seg': InstanceDecoder(
        'RF-DETR-seg: dets, labels, and masks [1, queries, h, w] as logits', 'rfdetr', grids_of_queries
    ),
    'mask_rcnn': InstanceDecoder(
        'Mask R-CNN: labels from 1, boxes [N, 4] in pixels, scores, and masks [N, 1, h, w] of box or picture',
        'rtdetr',
        grids_of_boxes,
    ),
    'semantic': SemanticDecoder('a score for every class: [1, classes, h, w] or [1, h, w, classes]'),
    'semantic_map': SemanticDecoder('the number of the class: [1, h, w], [1, 1, h, w] or [1, h, w, 1]'),
    'semantic_binary': SemanticDecoder('one score, 1 is the object: [1, 1, h, w], [1, h, w, 1] or [1, h, w]'),
    'semantic_symmetric': SemanticDecoder(
        'any of these three of a network fed -1..1: DeepLab of TensorFlow, UNet of TAO'
    ),
    'ultralytics_semantic': SemanticDecoder('any of these three of Ultralytics, letterboxed'),
}
