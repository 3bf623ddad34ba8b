"""Layouts: for every decoder, the outputs of a small network that has found given objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.fit import Fit, fit_picture
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec

SIZE_HW = (64, 96)  # of the network; its grid of strides 8, 16, 32 has 96 + 24 + 6 cells
CELLS = 126
CLASSES = 3
SOURCE_HW = (201, 333)  # odd, so that the letterbox rounds

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Found:
    """One object as the network sees it."""

    box: tuple[float, float, float, float]  # network pixels: left, top, right, bottom
    score: float
    class_id: int
    angle: float = 0.0

    @property
    def centred(self) -> tuple[float, float, float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


@dataclass(frozen=True)
class Layout:
    """A decoder's layout: how outputs look, and what else the model shows."""

    encode: Callable[[Sequence[Found]], Outputs]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    overrides: Overrides = Overrides()
    inputs: tuple[TensorSpec, ...] = (TensorSpec('images', (1, 3, *SIZE_HW), np.dtype(np.float32)),)

    def spec(self, found: Sequence[Found] = ()) -> ModelSpec:
        return resolve_spec(self.inputs, tensor_specs(self.encode(found)), self.metadata, self.overrides)


def tensor_specs(outputs: Outputs) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, array.shape, array.dtype) for name, array in outputs.items())


def fit_for(spec: ModelSpec) -> Fit:
    return fit_picture(SOURCE_HW, spec.image.size_hw, resize=spec.image.resize)


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def cell_centres() -> np.ndarray:
    """Where the cells of the grid are: (126, 3) column, row, stride."""
    return np.array(
        [
            (column, row, stride)
            for stride in (8, 16, 32)
            for row in range(SIZE_HW[0] // stride)
            for column in range(SIZE_HW[1] // stride)
        ],
        np.float32,
    )


def background(count: int, width: int) -> np.ndarray:
    """Rows of a grid head that found nothing: small boxes around the cells, no scores."""
    cells = np.resize(cell_centres(), (count, 3))
    rows = np.zeros((count, width), np.float32)
    rows[:, :2] = (cells[:, :2] + 0.5) * cells[:, 2:]
    rows[:, 2:4] = 4
    return rows


def ultralytics(found: Sequence[Found], further: int = 0) -> np.ndarray:
    rows = background(CELLS, 4 + CLASSES + further)
    rows[:, 4 + CLASSES :] = 7.5  # mask coefficients and key points are no scores
    for at, one in enumerate(found):
        rows[3 + at, :4] = one.centred
        rows[3 + at, 4 + one.class_id] = one.score
    return rows.T[None].copy()


def segmentation(found: Sequence[Found]) -> Outputs:
    return {
        'output0': ultralytics(found, 8),
        'output1': np.zeros((1, 8, SIZE_HW[0] // 4, SIZE_HW[1] // 4), 'f4'),
    }


def obb(found: Sequence[Found]) -> Outputs:
    rows = ultralytics(found, 1)
    rows[0, -1] = 0
    rows[0, -1, 3 : 3 + len(found)] = [one.angle for one in found]
    return {'output0': rows}


def final(found: Sequence[Found], columns: Callable[[Found], Sequence[float]], rows: int = 20) -> np.ndarray:
    """Rows after NMS, the rest zeros."""
    width = len(columns(Found((0, 0, 1, 1), 1, 0)))
    table = np.zeros((rows, width), np.float32)
    for at, one in enumerate(found):
        table[at] = columns(one)
    return table


def objectness(found: Sequence[Found], count: int) -> np.ndarray:
    rows = background(count, 5 + CLASSES)
    for at, one in enumerate(found):
        rows[7 + at, :4] = one.centred
        rows[7 + at, 4] = 0.95
        rows[7 + at, 5 + one.class_id] = one.score / 0.95
    return rows[None]


def yolox(found: Sequence[Found]) -> Outputs:
    rows = np.zeros((1, CELLS, 5 + CLASSES), np.float32)
    cells = cell_centres()
    rows[0, :, :2] = 0.5
    for one in found:
        x, y, width, height = one.centred
        at = next(
            index
            for index, (column, row, stride) in enumerate(cells)
            if stride == 16 and column == x // 16 and row == y // 16
        )
        column, row, stride = cells[at]
        rows[0, at, :4] = (
            x / stride - column,
            y / stride - row,
            np.log(width / stride),
            np.log(height / stride),
        )
        rows[0, at, 4] = 0.95
        rows[0, at, 5 + one.class_id] = one.score / 0.95
    return {'output': rows}


ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
ANCHORS_V7 = {
    8: ((12, 16), (19, 36), (40, 28)),
    16: ((36, 75), (76, 55), (72, 146)),
    32: ((142, 110), (192, 243), (459, 401)),
}


def heads(
    found: Sequence[Found],
    *,
    anchors: Mapping[int, Any] = ANCHORS,
    exponential: bool = False,
    scale_xy: float = 1.0,
    order: str = 'ahwr',
) -> Outputs:
    """One tensor per level; every object in the middle level, with the first anchor. Order: of the axes."""
    outputs = {}
    for stride in (8, 16, 32):
        height, width = SIZE_HW[0] // stride, SIZE_HW[1] // stride
        head = np.full((3, height, width, 5 + CLASSES), -20, np.float32)
        for one in found if stride == 16 else ():
            x, y, box_width, box_height = one.centred
            row, column = int(y // 16), int(x // 16)
            values = head[0, row, column]
            dx, dy = x / 16 - column, y / 16 - row
            anchor = anchors[16][0]
            if exponential:
                values[:2] = [logit((d + (scale_xy - 1) / 2) / scale_xy) for d in (dx, dy)]
                values[2:4] = np.log(box_width / anchor[0]), np.log(box_height / anchor[1])
            else:
                values[:2] = logit((dx + 0.5) / 2), logit((dy + 0.5) / 2)
                values[2:4] = (
                    logit((box_width / anchor[0]) ** 0.5 / 2),
                    logit((box_height / anchor[1]) ** 0.5 / 2),
                )
            values[4] = logit(0.95)
            values[5 + one.class_id] = logit(one.score / 0.95)
        outputs[f'level{stride}'] = {
            'ahwr': head[None],
            'hwar': head.transpose(1, 2, 0, 3)[None],
            '(ar)hw': head.transpose(0, 3, 1, 2).reshape(1, -1, height, width),
            'hw(ar)': head.transpose(1, 2, 0, 3).reshape(1, height, width, -1),
        }[order].copy()
    return outputs


def counted(
    found: Sequence[Found],
    names: Sequence[str],
    *,
    normalised: bool = False,
    first: int = 0,
    dtype: str = 'i4',
    order: Sequence[int] = (0, 1, 2, 3),
) -> Outputs:
    """A count, then boxes, scores, classes; what lies behind the count is rubbish."""
    boxes, scores, classes = (
        np.full((1, 20, 4), 5e3, 'f4'),
        np.full((1, 20), 0.99, 'f4'),
        np.full((1, 20), 1, dtype),
    )
    for at, one in enumerate(found):
        boxes[0, at] = scaled(one.box, normalised)[list(order)]
        scores[0, at], classes[0, at] = one.score, one.class_id + first
    count = np.array([[len(found)]], dtype)
    return dict(zip(names, (count, boxes, scores, classes)))


def scaled(box: Sequence[float], normalised: bool) -> np.ndarray:
    height, width = SIZE_HW
    return np.array(box) / (np.array((width, height, width, height)) if normalised else 1)


def queries(
    found: Sequence[Found], width: int, *, missing: float = -8.0, last: float = -8.0
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as normalised centre and size, and logits, per query."""
    boxes, logits = np.full((1, 20, 4), 0.5, 'f4'), np.full((1, 20, width), missing, 'f4')
    logits[..., -1] = last
    for at, one in enumerate(found):
        boxes[0, at] = scaled(one.centred, True)
        logits[0, at, one.class_id] = logit(one.score)
    return boxes, logits


def softmax_queries(found: Sequence[Found]) -> Outputs:
    boxes, logits = queries(found, CLASSES + 1, missing=-100.0, last=5.0)
    for at, one in enumerate(found):
        logits[0, at, -1] = logits[0, at, one.class_id] - logit(one.score)
    return {'logits': logits, 'pred_boxes': boxes}


def best_class(output: np.ndarray) -> np.ndarray:
    scores = output[:, 4:]
    return np.concatenate([output[:, :4], scores.max(1, keepdims=True), scores.argmax(1)[:, None]], 1)


def rtdetr_rows(found: Sequence[Found]) -> np.ndarray:
    rows = np.full((1, 20, 4 + CLASSES), 0.01, 'f4')
    rows[..., :4] = 0.5
    for at, one in enumerate(found):
        rows[0, at, :4] = scaled(one.centred, True)
        rows[0, at, 4 + one.class_id] = one.score
    return rows


def boxes_and_scores(
    found: Sequence[Found], count: int, *, normalised: bool, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    boxes, scores = np.zeros((1, count, 4), 'f4'), np.zeros((1, count, CLASSES + skip), 'f4')
    boxes[0, :] = scaled((40, 20, 44, 24), normalised)
    if skip:
        scores[..., 0] = 1
    for at, one in enumerate(found):
        boxes[0, at] = scaled(one.box, normalised)
        scores[0, at, one.class_id + skip] = one.score
    return boxes, scores


def labelled(found: Sequence[Found], names: Sequence[str], *, normalised: bool, first: int) -> Outputs:
    outputs = counted(
        found, ('count', 'boxes', 'scores', 'labels'), normalised=normalised, first=first, dtype='i8'
    )
    outputs['scores'][:, len(found) :] = 0
    return dict(zip(names, (outputs['labels'], outputs['boxes'], outputs['scores'])))


def _task(task: str, **more: Any) -> dict[str, Any]:
    return {'task': task, 'stride': '32', 'names': str(dict(enumerate(NAMES))), 'end2end': 'False', **more}


NAMES = ('cup', 'ball', 'book')
_SIZED = (
    TensorSpec('images', (1, 3, *SIZE_HW), np.dtype(np.float32)),
    TensorSpec('orig_target_sizes', (1, 2), np.dtype(np.int64)),
)
_BYTES_NHWC = (TensorSpec('input_tensor:0', (1, *SIZE_HW, 3), np.dtype(np.uint8)),)
_COUNTED = ('num_dets', 'det_boxes', 'det_scores', 'det_classes')
_TF = ('num_detections:0', 'detection_boxes:0', 'detection_scores:0', 'detection_classes:0')
_TAO = ('BatchedNMS', 'BatchedNMS_1', 'BatchedNMS_2', 'BatchedNMS_3')
_NAS = ('num_predictions', 'pred_boxes', 'pred_scores', 'pred_classes')

# Every decoder, as it is recognised without being asked for; nothing tells the anchor heads apart.
LAYOUTS: dict[str, Layout] = {
    'ultralytics': Layout(lambda found: {'output0': ultralytics(found)}),
    'ultralytics_best': Layout(
        lambda found: {'output0': best_class(ultralytics(found))},
        overrides=Overrides(decoder='ultralytics_best', class_names=NAMES),
    ),
    'ultralytics_end2end': Layout(
        lambda found: {'output0': final(found, lambda one: (*one.box, one.score, one.class_id))[None]}
    ),
    'ultralytics_obb': Layout(obb, _task('obb')),
    'ultralytics_obb_end2end': Layout(
        lambda found: {
            'output0': final(found, lambda one: (*one.centred, one.score, one.class_id, one.angle))[None]
        },
        _task('obb', end2end='True'),
    ),
    'ultralytics_rtdetr': Layout(
        lambda found: {'output0': rtdetr_rows(found)}, _task('detect', head='RTDETRDecoder')
    ),
    'ultralytics_rtdetr_end2end': Layout(
        lambda found: {
            'output0': final(found, lambda one: (*scaled(one.centred, True), one.score, one.class_id))[None]
        },
        _task('detect', head='RTDETRDecoder'),
    ),
    'yolov5': Layout(lambda found: {'output0': objectness(found, 3 * CELLS)}),
    'yolov7': Layout(
        lambda found: {'output': objectness(found, 3 * CELLS)}, overrides=Overrides(decoder='yolov7')
    ),
    'yolov7_max_wh': Layout(
        lambda found: {'output': final(found, lambda one: (0, *one.box, one.class_id, one.score), len(found))}
    ),
    'yolov5_heads': Layout(heads, overrides=Overrides(decoder='yolov5_heads')),
    'yolov7_heads': Layout(
        lambda found: heads(found, anchors=ANCHORS_V7), overrides=Overrides(decoder='yolov7_heads')
    ),
    'yolov3_heads': Layout(
        lambda found: heads(found, exponential=True, order='(ar)hw'),
        overrides=Overrides(decoder='yolov3_heads'),
    ),
    'yolov4_heads': Layout(
        lambda found: heads(found, anchors=ANCHORS_V7, exponential=True, scale_xy=1.1, order='hw(ar)'),
        overrides=Overrides(decoder='yolov4_heads'),
    ),
    'yolox': Layout(yolox),
    'yolox_decoded': Layout(
        lambda found: {'output': objectness(found, CELLS)}, overrides=Overrides(class_names=NAMES)
    ),
    'yolo_nas': Layout(lambda found: counted(found, _NAS, dtype='i8')),
    'yolo_nas_flat': Layout(
        lambda found: {
            'graph2_flat_predictions': final(
                found, lambda one: (0, *one.box, one.score, one.class_id), len(found)
            )
        }
    ),
    'yolo_nas_raw': Layout(
        lambda found: dict(zip('ab', boxes_and_scores(found, CELLS, normalised=False, skip=0)))
    ),
    'rtdetr': Layout(
        lambda found: labelled(found, ('labels', 'boxes', 'scores'), normalised=False, first=0), inputs=_SIZED
    ),
    'rfdetr': Layout(lambda found: dict(zip(('dets', 'labels'), queries(found, CLASSES + 1)))),
    'detr': Layout(softmax_queries),
    'detr_sigmoid': Layout(lambda found: dict(zip(('pred_boxes', 'logits'), queries(found, CLASSES)))),
    'efficient_nms': Layout(lambda found: counted(found, _COUNTED)),
    'batched_nms': Layout(lambda found: counted(found, _TAO, normalised=True, dtype='f4')),
    'tf_ssd': Layout(
        lambda found: counted(found, _TF, normalised=True, first=1, dtype='f4', order=(1, 0, 3, 2)),
        inputs=_BYTES_NHWC,
    ),
    'jetson_ssd': Layout(
        lambda found: dict(zip(('boxes', 'scores'), boxes_and_scores(found, 300, normalised=True, skip=1)))
    ),
    'onnx_ssd': Layout(
        lambda found: labelled(found, ('labels', 'bboxes', 'scores'), normalised=True, first=1)
    ),
}
