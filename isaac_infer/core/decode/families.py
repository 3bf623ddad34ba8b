"""Families: the outputs that each decoder is recognised by, and how models of its family are fed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from isaac_infer.core.decode.metadata import Metadata
from isaac_infer.core.fit import Size
from isaac_infer.core.tensor import TensorSpec

# The levels that published grid heads have, by the strides of their cells in pixels; the usual one first.
STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16), (8, 16, 32, 64, 128))
ANCHORS_PER_CELL = 3  # of the decoded YOLOv5 and YOLOv7
COCO_KEYPOINT_VALUES = 17 * 3  # x, y, visibility
# Letters of names that stand for no object, last in the lists of DETR; none: a sign such as an empty set.
NOTHING_NAMES = ('', 'noobject', 'nothing', 'na', 'none', 'void', 'empty', 'null', 'background')
BACKGROUND_NAMES = ('background', '__background__', 'bg', '???')


class Match(NamedTuple):
    """A decoder that fits a model's outputs."""

    outputs: tuple[str, ...]  # in the order that the decoder reads them
    num_classes: int = 0  # 0: the outputs do not tell
    row_length: int = 0
    strides: tuple[int, ...] = ()
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    first_class: int = 0
    notes: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()  # their names, or their numbers where nobody named them
    keypoint_values: int = 0
    keypoint_refinement: str = 'none'


@dataclass(frozen=True)
class Model:
    """What is known of a model before its decoder is."""

    outputs: tuple[TensorSpec, ...]
    image: TensorSpec
    size_hw: Size
    layout: str
    size_input: str
    says: Metadata
    names: tuple[str, ...]
    strides: tuple[int, ...]  # given by the user or the sidecar; empty: find out
    anchors: tuple[float, ...]
    output_names: tuple[str, ...]  # given by the user, in the decoder's order
    asked: bool  # whether this decoder was asked for by name: then only what it cannot do without is checked
    left_out: tuple[TensorSpec, ...] = ()  # outputs that hold no numbers that NumPy knows

    def stride_sets(self) -> tuple[tuple[int, ...], ...]:
        if self.strides:
            return (self.strides,)
        fitting = tuple(strides for strides in STRIDES if self.says.stride in (0, strides[-1]))
        return fitting or STRIDES

    def strides_of(self, count: int, per_cell: int = 1) -> tuple[int, ...]:
        """The strides of a grid head with this many boxes; empty where there is none."""
        for strides in self.stride_sets():
            levels = [-(-self.size_hw[0] // stride) * -(-self.size_hw[1] // stride) for stride in strides]
            if count == per_cell * sum(levels):
                return strides
        return ()

    def named(self, *names: str) -> tuple[TensorSpec, ...] | None:
        """The outputs of these names, whatever their case and suffix; None unless all are there."""
        by_name = {_plain(output.name): output for output in self.outputs}
        found = tuple(by_name[name] for name in names if name in by_name)
        return found if len(found) == len(names) else None

    @property
    def prototype_channels(self) -> int:
        """Channels of a segmentation head's prototype masks: each box has so many coefficients; or 0."""
        outputs = *self.outputs, *self.left_out
        masks = [output.shape for output in outputs if len(output.shape) == 4]
        height, width = self.size_hw
        fitting = [shape[1] for shape in masks if shape[2] * 4 == height and shape[3] * 4 == width]
        return fitting[0] if len(fitting) == 1 and len(masks) == 1 else 0


def _plain(name: str) -> str:
    return name.split(':')[0].rsplit('/', 1)[-1].lower()


class Assumption(NamedTuple):
    """How pictures are prepared for want of a word about it, and the parameters that would be one."""

    text: str
    keys: tuple[str, ...]


def note_assumed(assumed: Iterable[Assumption], said: Collection[str]) -> tuple[str, ...]:
    """Name what is assumed still where some parameters are said; no note where all is.

    Whoever says mean and std has a scale in mind.
    """
    left = [each for each in assumed if any(key not in said for key in each.keys if key != 'scale')]
    keys = ', '.join(key for each in left for key in each.keys if key not in said)
    return (f'assumed: {", ".join(each.text for each in left)}; set {keys} if not',) if left else ()


@dataclass(frozen=True)
class Family:
    """How a decoder is recognised, and what those who trained such models fed them."""

    match: Callable[[Model], Match | None]
    image: dict[str, Any] = field(default_factory=dict)  # fields of ImageSpec that differ from its defaults
    box_unit: str = 'pixels'
    notes: tuple[str, ...] = ()
    assumed: tuple[Assumption, ...] = ()  # of what such models differ in
    by_grid: bool = False  # whether the decoder makes pixels out of grid cells: then box_unit is certain


# ---- the layouts, in the order of the decoders ---------------------------------------------------


NO_MASKS = (
    'a segmentation model: its boxes are used, its masks are not; segmentation_node, on the command line '
    '--task segmentation, reads them'
)
NO_KEYPOINTS = (
    'a pose model: its boxes are used, its key points are not; pose_node, on the command line --task pose, '
    'reads them'
)
BOXES_ONLY = frozenset((NO_MASKS, NO_KEYPOINTS))


def _row_tensors(model: Model, dimensions: int = 3) -> list[TensorSpec]:
    """The outputs that can hold one row per box: [1, boxes, row] or [1, row, boxes]."""
    wanted = model.output_names[:1] or tuple(output.name for output in model.outputs)
    return [output for output in model.outputs if output.name in wanted and len(output.shape) == dimensions]


def _match_ultralytics(model: Model) -> Match | None:
    for output, row, strides, transposed in _grid_rows(model):
        values = row - 4 - _further_values(model, row - 4)
        # Without a reason to think otherwise, rows of boxes are YOLOX's.
        if values >= 1 and (not transposed or model.asked or model.says.task or len(model.names) == values):
            return Match((output.name,), values, row, strides, notes=_beside(model, row - 4 - values))
    return None


def _match_ultralytics_best(model: Model) -> Match | None:
    if not model.asked:
        return None  # the model's metadata asks for it, where its head was cut
    for output, row, strides, _ in _grid_rows(model):
        if row == 6:
            return Match((output.name,), row_length=6, strides=strides)
    return None


def _match_obb(model: Model) -> Match | None:
    if not (model.asked or model.says.task == 'obb'):
        return None  # the angle looks like one more class: only metadata, the user or a run can tell
    for output, row, strides, _ in _grid_rows(model):
        if row >= 6:
            return Match((output.name,), row - 5, row, strides)
    return None


def _grid_rows(model: Model) -> Iterator[tuple[TensorSpec, int, tuple[int, ...], bool]]:
    """Outputs with one row per cell: tensor, length of a row, strides, whether rows come first."""
    for output in _row_tensors(model):
        _, second, third = output.shape
        for row, count in ((second, third), (third, second)):
            strides = model.strides_of(count)
            if row > 0 and (strides or (model.asked and count > row)):
                yield output, row, strides, row == third


def _further_values(model: Model, values: int) -> int:
    """How many values of a box follow its class scores: mask coefficients or key points."""
    says = model.says
    if 'pose' in (says.task, says.purpose):
        return says.keypoint_values or COCO_KEYPOINT_VALUES
    if says.task in ('', 'segment') and model.prototype_channels:
        return model.prototype_channels
    if not says.task and model.names and values - len(model.names) == COCO_KEYPOINT_VALUES:
        return COCO_KEYPOINT_VALUES
    return 0


def _beside(model: Model, further: int) -> tuple[str, ...]:
    """Say what so many further values of a box are, which a detector does not read."""
    if not further:
        return ()
    return (NO_MASKS if further == model.prototype_channels else NO_KEYPOINTS,)


def _match_end2end(model: Model) -> Match | None:
    for output in _row_tensors(model):
        _, count, row = output.shape
        further = _further_values(model, 0) or (COCO_KEYPOINT_VALUES if _is_bare_pose(model, row) else 0)
        told = model.says.end2end or model.says.embedded_nms
        if (row == 6 + further and (told or not _is_grid(model, count))) or (model.asked and row >= 6):
            nms = BAKED_IN if model.says.embedded_nms else NO_NMS
            return Match((output.name,), row_length=row, notes=(nms, *_beside(model, further)))
    return None


def _is_bare_pose(model: Model, row: int) -> bool:
    return not model.says.task and row == 6 + COCO_KEYPOINT_VALUES and len(model.names) in (0, 1)


def _match_obb_end2end(model: Model) -> Match | None:
    for output in _row_tensors(model):
        _, count, row = output.shape
        is_likely = output.name == 'output0' and not _is_grid(model, count)
        if row == 7 and (model.asked or model.says.task == 'obb' or (is_likely and not model.says.task)):
            nms = BAKED_IN if model.says.embedded_nms else NO_NMS
            return Match((output.name,), row_length=7, notes=(nms,))
    return None


def _is_grid(model: Model, count: int) -> bool:
    return bool(model.strides_of(count) or model.strides_of(count, ANCHORS_PER_CELL))


def _match_ultralytics_rtdetr(model: Model) -> Match | None:
    for output in _row_tensors(model):
        _, count, row = output.shape
        if model.asked and row >= 5:
            return Match((output.name,), row - 4, row)
        if count < 0 or row < 5 or _is_grid(model, count) or _is_grid(model, row):
            continue
        if model.prototype_channels or _is_bare_pose(model, row):
            continue
        if model.says.task:
            # With two classes both forms have rows of six; the version tells which it is.
            if row - 4 == len(model.names) and (row != 6 or model.says.version <= (8, 4, 60)):
                return Match((output.name,), row - 4, row)
    return None


def _match_rtdetr_end2end(model: Model) -> Match | None:
    two_classes = len(model.names) == 2 and model.says.version <= (8, 4, 60)
    if not model.asked and (not model.says.task or two_classes):
        return None  # of the shape of other rows of six, which are far more common
    for output in _row_tensors(model):
        if output.shape[2] == 6:
            return Match((output.name,), row_length=6)
    return None


def _match_yolov5(model: Model) -> Match | None:
    return _match_objectness(model, ANCHORS_PER_CELL)


def _match_yolov7(model: Model) -> Match | None:
    """YOLOv7 writes no metadata and calls its output `output`; only a single class scores differently."""
    match = _match_objectness(model, ANCHORS_PER_CELL)
    if match and not model.asked:
        may_be = match.num_classes == 1 and match.outputs == ('output',) and not model.says.names
        return match if may_be else None
    return match


def _match_yolox(model: Model) -> Match | None:
    match = _match_objectness(model, 1)
    if match and not match.strides:
        return None  # without the grid, offsets in it say nothing
    if match and not model.asked:
        # One class in this layout is two in Ultralytics' transposed one, or rows of an embedded NMS.
        unclear = not model.names and match.num_classes == 1
        return None if unclear or (model.names and _match_ultralytics(model)) else match
    return match


def _match_yolox_decoded(model: Model) -> Match | None:
    return (
        _match_objectness(model, 1) if model.asked else None
    )  # else found by `probe`: the shapes are the same


def _match_objectness(model: Model, per_cell: int) -> Match | None:
    """[1, boxes, 5 + classes], with mask coefficients behind where there are prototypes."""
    for output in _row_tensors(model):
        _, count, row = output.shape
        strides = model.strides_of(count, per_cell)
        num_classes = row - 5 - model.prototype_channels
        if num_classes >= 1 and (strides or (model.asked and count > row)):
            notes = _beside(model, model.prototype_channels)
            return Match((output.name,), num_classes, row, strides, notes=notes)
    return None


def _match_flat(own: str) -> Callable[[Model], Match | None]:
    """[N, 7] rows, with a word in the output's name that tells whose; without one, both families fit."""

    def match(model: Model) -> Match | None:
        for output in _row_tensors(model, dimensions=2):
            told = [word for word in ('flat', 'output') if word in _plain(output.name)]
            if output.shape[1] == 7 and (model.asked or not told or told[0] == own):
                return Match((output.name,), row_length=7)
        return None

    return match


Levels = tuple[tuple[tuple[float, float], ...], ...]

# Width and height in pixels of the anchors that these families publish, for strides 8, 16 and 32.
_ANCHORS_V3_V5: Levels = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
_ANCHORS_V4_V7: Levels = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


def _match_heads(published: Levels, *, twin: bool = False) -> Callable[[Model], Match | None]:
    """One tensor per level. Twins differ from another decoder by nothing but their anchors."""

    def match(model: Model) -> Match | None:
        if not model.asked and (_match_objectness(model, ANCHORS_PER_CELL) or (twin and model.anchors)):
            return None
        for strides in model.stride_sets():
            anchors = _levels(model.anchors, len(strides)) if model.anchors else published
            if len(anchors) == len(strides):
                heads = [_head(model, level, stride, len(anchors[0])) for level, stride in enumerate(strides)]
                names, rows = zip(*heads)
                if all(names) and len(set(rows)) == 1 and rows[0] > 5:
                    return Match(names, rows[0] - 5, rows[0], strides, anchors)
        return None

    return match


def _levels(anchors: tuple[float, ...], levels: int) -> Levels:
    """Deal a flat list of widths and heights to this many levels; empty where they do not come out even."""
    pairs = tuple(zip(anchors[0::2], anchors[1::2]))
    each, left_over = divmod(len(pairs), levels)
    if left_over or len(anchors) % 2 or not each:
        return ()
    return tuple(pairs[level * each : (level + 1) * each] for level in range(levels))


def _head(model: Model, level: int, stride: int, anchors: int) -> tuple[str, int]:
    """The output that is the head of a level, and the length of its rows; '' and 0 where there is none."""
    height, width = (-(-length // stride) for length in model.size_hw)
    names = model.output_names[level : level + 1]
    for output in model.outputs:
        if (names and output.name not in names) or len(output.shape) not in (4, 5) or output.shape[0] > 1:
            continue
        lengths = list(output.shape[1:])
        grid = next((at for at in range(len(lengths) - 1) if lengths[at : at + 2] == [height, width]), None)
        if grid is None:
            continue
        values = lengths[:grid] + lengths[grid + 2 :]
        if len(values) == 1 and values[0] > 0 and values[0] % anchors == 0:
            return output.name, values[0] // anchors
        if len(values) == 2 and values[0] == anchors and values[1] > 0:
            return output.name, values[1]
    return '', 0


def _match_counted(
    *name_sets: tuple[str, str, str, str], classes: Mapping[str, tuple[str, ...]] = {}
) -> Callable[[Model], Match | None]:
    """A count, boxes, scores and classes by name; asked for, by shape too.

    Args:
        name_sets: what exporters call them.
        classes: dtypes that the class numbers have, by the name of their output; any where it is not there.
    """

    def match(model: Model) -> Match | None:
        for names in name_sets:
            found = model.named(*names)
            if found and found[3].dtype.name in classes.get(names[3], (found[3].dtype.name,)):
                return Match(tuple(output.name for output in found))
        return _by_shape(model, counted=True) if model.asked else None

    return match


def _match_labelled(names: tuple[str, str, str], *, sized: bool) -> Callable[[Model], Match | None]:
    """Labels, boxes, scores by name; asked for, by shape too. Sized: the picture's size is an input."""

    def match(model: Model) -> Match | None:
        found = model.named(*names)
        plain = len(model.outputs) == 3 and len(found[0].shape) < 3 if found else False
        if found and (model.asked or (plain and bool(model.size_input) == sized)):
            return Match(tuple(output.name for output in found))
        return _by_shape(model, counted=False) if model.asked else None

    return match


def _by_shape(model: Model, *, counted: bool) -> Match | None:
    """Tell a count, boxes, scores and classes apart where their names are unknown: boxes have fours."""
    if len(model.output_names) == (4 if counted else 3):
        return Match(model.output_names)
    boxes = [output for output in model.outputs if output.shape[-1:] == (4,) and len(output.shape) >= 2]
    counts = [output for output in model.outputs if output.shape in ((1,), (1, 1), (-1, 1), (-1,), ())]
    rest = [output for output in model.outputs if output not in boxes and output not in counts]
    classes = [output for output in rest if output.dtype.kind in 'iu']
    scores = [output for output in rest if output not in classes]
    if counted and not classes and len(scores) == 2:
        scores, classes = scores[:1], scores[1:]  # the plugins' order
    if not len(boxes) == len(scores) == len(classes) == 1 or (counted and len(counts) != 1):
        return None
    found = (counts[0], boxes[0], scores[0], classes[0]) if counted else (classes[0], boxes[0], scores[0])
    return Match(tuple(output.name for output in found))


def _from_one(match: Callable[[Model], Match | None]) -> Callable[[Model], Match | None]:
    """Classes are numbered from 1, unless the class names begin with one for the background."""

    def numbered(model: Model) -> Match | None:
        found = match(model)
        return found._replace(first_class=0 if _names_background(model) else 1) if found else None

    return numbered


def _names_background(model: Model) -> bool:
    return bool(model.names) and model.names[0].strip().lower() in BACKGROUND_NAMES


def _match_yolo_nas_raw(model: Model) -> Match | None:
    boxes, scores = _boxes_and_scores(model)
    if not boxes or not scores or not (model.asked or model.strides_of(boxes.shape[1])):
        return None
    return Match(
        (boxes.name, scores.name), scores.shape[2], scores.shape[2], model.strides_of(boxes.shape[1])
    )


def _match_jetson_ssd(model: Model) -> Match | None:
    boxes, scores = _boxes_and_scores(model, boxes_first=False)
    if not boxes or not scores or scores.shape[2] < 2:
        return None
    if not model.asked and (model.named('scores', 'boxes') is None or model.strides_of(boxes.shape[1])):
        return None
    columns = scores.shape[2]
    background = int(not _names_background(model))
    return Match((scores.name, boxes.name), columns - background, columns, first_class=background)


def _match_rfdetr(model: Model) -> Match | None:
    if not model.asked and model.named('dets', 'labels') is None:
        return None
    return _detr(model, extra=len(model.names) + 1 == _columns(model))


def _match_detr(model: Model) -> Match | None:
    # Without names, softmax or sigmoid is for a run to tell.
    fits = not model.names or len(model.names) != _columns(model) or _names_nothing(model)
    return _detr(model, extra=True) if model.asked or (_has_detr_names(model) and fits) else None


def _match_detr_sigmoid(model: Model) -> Match | None:
    fits = model.names and len(model.names) == _columns(model) and not _names_nothing(model)
    return _detr(model, extra=False) if model.asked or (_has_detr_names(model) and fits) else None


def _has_detr_names(model: Model) -> bool:
    return bool(model.named('logits', 'pred_boxes') or model.named('pred_logits', 'pred_boxes'))


def _names_nothing(model: Model) -> bool:
    """Whether the last class name stands for no object."""
    return bool(model.names) and re.sub('[^a-z]', '', model.names[-1].lower()) in NOTHING_NAMES


def _columns(model: Model) -> int:
    scores = _boxes_and_scores(model)[1]
    return scores.shape[2] if scores else 0


def _detr(model: Model, *, extra: bool) -> Match | None:
    """Boxes and logits per query. Extra: the last logit is no class."""
    boxes, logits = _boxes_and_scores(model)
    if not boxes or not logits or logits.shape[2] <= extra:
        return None
    return Match((boxes.name, logits.name), logits.shape[2] - extra, logits.shape[2])


def _boxes_and_scores(
    model: Model, *, boxes_first: bool = True
) -> tuple[TensorSpec | None, TensorSpec | None]:
    """[1, N, 4] and [1, N, classes]; the four tells which is which, where both have one the names do."""
    tensors = [output for output in model.outputs if len(output.shape) == 3 and min(output.shape[1:]) > 0]
    if len(model.output_names) == 2:
        by_name = {output.name: output for output in tensors}
        first, second = (by_name.get(name) for name in model.output_names)
        boxes_at, scores_at = (first, second) if boxes_first else (second, first)
        paired = boxes_at and scores_at and boxes_at.shape[1:] == (scores_at.shape[1], 4)
        return (boxes_at, scores_at) if paired else (None, None)
    boxes = [output for output in tensors if output.shape[2] == 4]
    if len(boxes) == 2:
        boxes = [output for output in boxes if any(word in _plain(output.name) for word in ('box', 'dets'))]
    if len(boxes) != 1:
        return None, None
    scores = [output for output in tensors if output is not boxes[0] and output.shape[1] == boxes[0].shape[1]]
    return (boxes[0], scores[0]) if len(scores) == 1 else (None, None)


IMAGENET: dict[str, Any] = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
STRETCH: dict[str, Any] = {'resize': 'stretch'}
_BYTES: dict[str, Any] = {'scale': 1.0}
_YOLOX: dict[str, Any] = {**_BYTES, 'channel_order': 'bgr', 'resize': 'letterbox_top_left'}
_CAFFE: dict[str, Any] = {**_BYTES, **STRETCH, 'channel_order': 'bgr', 'mean': (103.939, 116.779, 123.68)}
_SSD: dict[str, Any] = {**_BYTES, **STRETCH, 'mean': (127.0,), 'std': (128.0,)}
BAKED_IN = 'thresholds are baked in: confidence_threshold can only raise them, nms_threshold has no effect'
NO_NMS = 'the network answers without overlaps: nms_threshold has no effect'
FROM_ONE = 'class_id counts the classes from 0, without the background, unless the class names begin with it'
NORMALISED_BY = ('scale', 'mean', 'std')
STRETCHED = Assumption('stretched', ('resize',))
_BGR_MEAN = Assumption('BGR minus the ImageNet mean', ('channel_order', *NORMALISED_BY))
_UNIT_RANGE = Assumption('RGB in 0..1', (*NORMALISED_BY, 'channel_order'))
_LETTERBOXED = Assumption('letterboxed', ('resize',))
_WITHOUT_MEAN = Assumption(
    'RGB in 0..1 without mean and std, as RT-DETR (Deformable DETR and its kin want those of ImageNet: '
    'mean 0.485 0.456 0.406, std 0.229 0.224 0.225)',
    ('mean', 'std'),
)

FAMILIES: dict[str, Family] = {
    'ultralytics': Family(_match_ultralytics),
    'ultralytics_best': Family(_match_ultralytics_best),
    'ultralytics_end2end': Family(_match_end2end),
    'ultralytics_obb': Family(_match_obb),
    'ultralytics_obb_end2end': Family(_match_obb_end2end),
    'ultralytics_rtdetr': Family(_match_ultralytics_rtdetr, STRETCH, 'normalised', (NO_NMS,)),
    'ultralytics_rtdetr_end2end': Family(_match_rtdetr_end2end, STRETCH, 'normalised', (NO_NMS,)),
    'yolov5': Family(_match_yolov5),
    'yolov7': Family(_match_yolov7),
    'yolov7_max_wh': Family(_match_flat('output'), notes=(BAKED_IN,)),
    'yolov5_heads': Family(_match_heads(_ANCHORS_V3_V5), by_grid=True),
    'yolov7_heads': Family(_match_heads(_ANCHORS_V4_V7, twin=True), by_grid=True),
    'yolov3_heads': Family(_match_heads(_ANCHORS_V3_V5), by_grid=True),
    'yolov4_heads': Family(_match_heads(_ANCHORS_V4_V7, twin=True), by_grid=True),
    'yolox': Family(_match_yolox, _YOLOX, by_grid=True),
    'yolox_decoded': Family(_match_yolox_decoded, _YOLOX),
    'yolo_nas': Family(
        _match_counted(('num_predictions', 'pred_boxes', 'pred_scores', 'pred_classes')), notes=(BAKED_IN,)
    ),
    'yolo_nas_flat': Family(_match_flat('flat'), notes=(BAKED_IN,)),
    'yolo_nas_raw': Family(_match_yolo_nas_raw, assumed=(_UNIT_RANGE, _LETTERBOXED)),
    'rtdetr': Family(_match_labelled(('labels', 'boxes', 'scores'), sized=True), STRETCH, notes=(NO_NMS,)),
    'rfdetr': Family(_match_rfdetr, {**STRETCH, **IMAGENET}, 'normalised', (NO_NMS,)),
    'detr': Family(_match_detr, {**STRETCH, **IMAGENET}, 'normalised', (NO_NMS,)),
    'detr_sigmoid': Family(_match_detr_sigmoid, STRETCH, 'normalised', (NO_NMS,), (_WITHOUT_MEAN,)),
    'efficient_nms': Family(
        _match_counted(
            ('num_dets', 'det_boxes', 'det_scores', 'det_classes'),
            ('num_detections', 'detection_boxes', 'detection_scores', 'detection_classes'),
            ('num_detections', 'nmsed_boxes', 'nmsed_scores', 'nmsed_classes'),
            ('num_dets', 'bboxes', 'scores', 'labels'),
            classes={'detection_classes': ('int32',)},  # the plugin's own names
        ),
        notes=(BAKED_IN,),
    ),
    'batched_nms': Family(
        _match_counted(('batchednms', 'batchednms_1', 'batchednms_2', 'batchednms_3')),
        _CAFFE,
        'normalised',
        (BAKED_IN,),
        (_BGR_MEAN, STRETCHED),
    ),
    'tf_ssd': Family(
        _from_one(
            _match_counted(
                ('num_detections', 'detection_boxes', 'detection_scores', 'detection_classes'),
                classes={'detection_classes': ('float32', 'float16', 'int64')},
            )
        ),
        {**_BYTES, **STRETCH},
        'normalised',
        (BAKED_IN, FROM_ONE),
    ),
    'jetson_ssd': Family(_match_jetson_ssd, _SSD, 'normalised', (FROM_ONE,)),
    'onnx_ssd': Family(
        _from_one(_match_labelled(('labels', 'bboxes', 'scores'), sized=False)),
        {**STRETCH, **IMAGENET},
        'normalised',
        (BAKED_IN, FROM_ONE),
    ),
}


# Told by names or by pairs of tensors, these come before those told by the shape of a single one.
NAMED = (
    'yolo_nas', 'yolo_nas_raw', 'rtdetr', 'rfdetr', 'detr', 'detr_sigmoid', 'efficient_nms', 'batched_nms',
    'tf_ssd', 'jetson_ssd', 'onnx_ssd',
)  # fmt: skip


def by_metadata(model: Model) -> tuple[str, ...]:
    """The decoders that Ultralytics' metadata leaves open; the shapes of the outputs decide between them."""
    says = model.says
    raw, final = ('ultralytics_obb', 'ultralytics_obb_end2end') if says.task == 'obb' else _ULTRALYTICS
    if says.head == 'RTDETRDecoder':
        return _ULTRALYTICS_RTDETR
    told = says.end2end or says.embedded_nms
    for name in (final, raw) if told else (raw,):
        if FAMILIES[name].match(model):
            return (name,)
    if says.task == 'obb':
        return (final,)
    if says.end2end is None:  # written before 8.4, when rows of six were YOLOv10's
        return final, _ULTRALYTICS_RTDETR[0]
    return _ULTRALYTICS_RTDETR  # every other head that answers in such rows says so, only this one does not


_ULTRALYTICS = ('ultralytics', 'ultralytics_end2end')
_ULTRALYTICS_RTDETR = ('ultralytics_rtdetr', 'ultralytics_rtdetr_end2end')
