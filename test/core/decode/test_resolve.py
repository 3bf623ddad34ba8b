"""Recognition: from tensors, metadata and what the user says to a spec, or to a clear error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core.decode.layouts import LAYOUTS, NAMES

from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.decode.families import FAMILIES
from isaac_infer.core.decode.resolve import input_shapes, resolve_spec
from isaac_infer.core.errors import ModelError
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec
from models import exported_metadata as ultralytics

F32, F16, I32, I64, U8 = (np.dtype(name) for name in ('f4', 'f2', 'i4', 'i8', 'u1'))
COCO = tuple(f'class {index}' for index in range(80))


def tensor(name: str, *shape: int, dtype: np.dtype = F32) -> TensorSpec:
    return TensorSpec(name, shape, dtype)


def picture(*shape: int, dtype: np.dtype = F32) -> TensorSpec:
    return tensor('images', *(shape or (1, 3, 640, 640)), dtype=dtype)


def resolve(
    *outputs: TensorSpec,
    image: TensorSpec | None = None,
    metadata: Any = None,
    sizes: TensorSpec | None = None,
    task: str = 'detection',
    **said: Any,
) -> ModelSpec:
    inputs = [image or picture(), *([sizes] if sizes else [])]
    return resolve_spec(inputs, outputs, metadata or {}, Overrides(**said), task=task, file_name='net.onnx')


def test_every_decoder_belongs_to_a_family():
    assert list(FAMILIES) == list(DECODERS)


PROTOS = tensor('output1', 1, 32, 160, 160)
RAW_LEVELS = [tensor(f'out{stride}', 1, 3, 640 // stride, 640 // stride, 85) for stride in (8, 16, 32)]


@pytest.mark.parametrize(
    ('decoder', 'classes', 'outputs'),
    [
        ('ultralytics', 80, [tensor('output0', 1, 84, 8400)]),
        ('ultralytics', 1, [tensor('output0', 1, 5, 8400)]),
        ('ultralytics', 2, [tensor('output0', 1, 6, 8400)]),
        ('ultralytics', 80, [tensor('output0', -1, 84, 8400)]),
        ('ultralytics', 80, [tensor('output0', 1, 116, 8400), PROTOS]),
        ('ultralytics', 80, [tensor('output0', 1, 84, 8500)]),
        ('ultralytics', 80, [tensor('output0', 1, 84, 34000)]),
        ('ultralytics_end2end', 0, [tensor('output0', 1, 300, 6)]),
        ('ultralytics_end2end', 0, [tensor('output0', 1, 300, 38), PROTOS]),
        ('ultralytics_end2end', 0, [tensor('output0', 1, 300, 57)]),
        ('ultralytics_obb_end2end', 0, [tensor('output0', 1, 300, 7)]),
        ('yolov5', 80, [tensor('output0', 1, 25200, 85)]),
        ('yolov5', 80, [tensor('output', 1, 25200, 85), *RAW_LEVELS]),
        ('yolov5', 80, [tensor('output0', 1, 25200, 117), PROTOS]),
        ('yolov5', 1, [tensor('output0', 1, 25200, 6)]),
        ('yolov5', 2, [tensor('output0', 1, 25200, 7)]),
        ('yolov5', 80, [tensor('output0', 1, 25500, 85)]),
        ('yolov7_max_wh', 0, [tensor('output', -1, 7)]),
        ('yolox', 80, [tensor('output', 1, 8400, 85)]),
        ('yolox', 2, [tensor('output', 1, 8400, 7)]),
        ('yolo_nas_flat', 0, [tensor('graph2_flat_predictions', -1, 7)]),
        ('yolo_nas_raw', 80, [tensor('904', 1, 8400, 4), tensor('913', 1, 8400, 80)]),
        ('rfdetr', 91, [tensor('dets', 1, 300, 4), tensor('labels', 1, 300, 91)]),
        (
            'rfdetr',
            91,
            [tensor('dets', 1, 300, 4), tensor('labels', 1, 300, 91), tensor('masks', 1, 300, 108, 108)],
        ),
        ('detr', 91, [tensor('logits', 1, 100, 92), tensor('pred_boxes', 1, 100, 4)]),
        ('detr', 90, [tensor('pred_logits', 1, 300, 91), tensor('pred_boxes', 1, 300, 4)]),
        (
            'efficient_nms',
            0,
            [
                tensor('num_dets', 1, 1, dtype=I32),
                tensor('bboxes', 1, 100, 4),
                tensor('scores', 1, 100),
                tensor('labels', 1, 100, dtype=I32),
            ],
        ),
        (
            'tf_ssd',
            0,
            [
                tensor('num_detections', 1),
                tensor('detection_boxes', 1, 100, 4),
                tensor('detection_scores', 1, 100),
                tensor('detection_classes', 1, 100, dtype=I64),
            ],
        ),
        ('jetson_ssd', 90, [tensor('scores', 1, 3000, 91), tensor('boxes', 1, 3000, 4)]),
        (
            'onnx_ssd',
            0,
            [tensor('bboxes', 1, -1, 4), tensor('labels', 1, -1, dtype=I64), tensor('scores', 1, -1)],
        ),
        (
            'efficient_nms',
            0,
            [
                tensor('num_dets', -1, 1, dtype=I32),
                tensor('det_boxes', -1, 100, 4),
                tensor('det_scores', -1, 100),
                tensor('det_classes', -1, 100, dtype=I32),
            ],
        ),
        (
            'efficient_nms',
            0,
            [
                tensor('detection_classes', 1, 100, dtype=I32),
                tensor('detection_boxes', 1, 100, 4),
                tensor('detection_scores', 1, 100),
                tensor('num_detections', 1, 1, dtype=I32),
            ],
        ),
    ],
)
def test_outputs_alone_tell_the_decoder(decoder, classes, outputs):
    spec = resolve(*outputs)
    assert (spec.decoder, spec.num_classes) == (decoder, classes)
    assert decoder in spec.notes[0]


@pytest.mark.parametrize(
    ('decoder', 'classes', 'metadata', 'outputs'),
    [
        ('ultralytics', 80, ultralytics('detect'), [tensor('output0', 1, 84, 8400)]),
        ('ultralytics', 80, ultralytics('segment'), [tensor('output0', 1, 116, 8400), PROTOS]),
        ('ultralytics', 1, ultralytics('pose', 1, kpt_shape='[17, 3]'), [tensor('output0', 1, 56, 8400)]),
        ('ultralytics', 2, ultralytics('pose', 2, kpt_shape='[4, 2]'), [tensor('output0', 1, 14, 8400)]),
        ('ultralytics', 2, ultralytics('detect', 2), [tensor('output0', 1, 8400, 6)]),
        ('ultralytics', 81, ultralytics('detect', 81), [tensor('output0', 1, 8400, 85)]),
        ('ultralytics', 80, ultralytics('detect', end2end='True'), [tensor('output0', 1, 84, 8400)]),
        ('ultralytics', 80, ultralytics('detect', stride='64'), [tensor('output0', 1, 84, 8500)]),
        ('ultralytics_end2end', 80, ultralytics('detect', end2end='True'), [tensor('output0', 1, 300, 6)]),
        ('ultralytics_end2end', 80, ultralytics('detect'), [tensor('output0', 1, 300, 6)]),
        (
            'ultralytics_end2end',
            80,
            ultralytics('detect', args="{'nms': True}", end2end='False'),
            [tensor('output0', 1, 300, 6)],
        ),
        (
            'ultralytics_end2end',
            80,
            ultralytics('segment', args="{'nms': True}", end2end='False'),
            [tensor('output0', 1, 300, 38), PROTOS],
        ),
        (
            'ultralytics_end2end',
            1,
            ultralytics('pose', 1, kpt_shape='[17, 3]', end2end='True'),
            [tensor('output0', 1, 300, 57)],
        ),
        ('ultralytics_obb', 15, ultralytics('obb', 15), [tensor('output0', 1, 20, 8400)]),
        (
            'ultralytics_obb_end2end',
            15,
            ultralytics('obb', 15, end2end='True'),
            [tensor('output0', 1, 300, 7)],
        ),
        (
            'ultralytics_obb_end2end',
            15,
            ultralytics('obb', 15, args="{'nms': True}"),
            [tensor('output0', 1, 300, 7)],
        ),
        (
            'ultralytics_rtdetr',
            80,
            ultralytics('detect', head='RTDETRDecoder'),
            [tensor('output0', 1, 300, 84)],
        ),
        ('ultralytics_rtdetr', 80, ultralytics('detect'), [tensor('output0', 1, 300, 84)]),
        (
            'ultralytics_rtdetr',
            2,
            ultralytics('detect', 2, head='RTDETRDecoder', version='8.3.0'),
            [tensor('output0', 1, 300, 6)],
        ),
        (
            'ultralytics_rtdetr_end2end',
            2,
            ultralytics('detect', 2, head='RTDETRDecoder', version='8.4.100'),
            [tensor('output0', 1, 300, 6)],
        ),
        (
            'ultralytics_rtdetr_end2end',
            80,
            ultralytics('detect', end2end='False'),
            [tensor('output0', 1, 300, 6)],
        ),
        ('yolov5', 80, {'stride': '32', 'names': str(COCO)}, [tensor('output0', 1, 25200, 85)]),
        ('yolov5', 1, {'stride': '32', 'names': "['cup']"}, [tensor('output', 1, 25200, 6)]),
        ('yolox', 1, {'names': "['cup']"}, [tensor('output', 1, 8400, 6)]),
        ('ultralytics', 2, {'names': "['cup', 'ball']"}, [tensor('output', 1, 8400, 6)]),
        (
            'detr_sigmoid',
            80,
            {'names': str(COCO)},
            [tensor('logits', 1, 300, 80), tensor('pred_boxes', 1, 300, 4)],
        ),
        ('detr', 80, {'names': str(COCO)}, [tensor('logits', 1, 100, 81), tensor('pred_boxes', 1, 100, 4)]),
    ],
)
def test_metadata_decides_where_shapes_alone_cannot(decoder, classes, metadata, outputs):
    spec = resolve(*outputs, metadata=metadata)
    assert (spec.decoder, spec.num_classes, len(spec.class_names)) == (decoder, classes, classes)


@pytest.mark.parametrize(
    'outputs',
    [
        [],
        [tensor('features', 1, 256, 20, 20)],
        [tensor('out', 1, 1000)],
        [tensor('output', 1, 8400, 6)],  # YOLOX of one class, or Ultralytics' of two turned
        [tensor('something', -1, 7)],  # rows of YOLOv7 or of YOLO-NAS
        RAW_LEVELS,  # the same shapes in four families
        [tensor('output', 1, 25200, 6)],  # one class of YOLOv5, or of YOLOv7, which scores differently
        [tensor('out', 1, 84, 8401)],
        [tensor('output0', 1, 300, 84)],  # RT-DETR of Ultralytics without its metadata: boxes of anybody
        [tensor('output0', 1, 100800, 85)],  # YOLOv5 of other strides
        [tensor('output0', 1, 80, 37)],  # text
        [tensor('features', 1, 577, 384)],
        [tensor('dets', 1, 100, 5), tensor('labels', 1, 100, dtype=I64)],  # MMDetection
        [tensor('dets', 1, -1, 5), tensor('labels', 1, -1, dtype=I64)],
        [
            tensor('num', 1, dtype=I32),
            tensor('bboxes', 1, 9, 4),
            tensor('labels', 1, 9, dtype=I64),
            tensor('scores', 1, 9),
        ],
        [tensor('out', -1, -1, -1)],
        [tensor('output_cov/Sigmoid', 1, 3, 40, 40), tensor('output_bbox/BiasAdd', 1, 12, 40, 40)],
        [tensor('cls8', 1, 80, 80, 80), tensor('box8', 1, 64, 80, 80)],
    ],
)
def test_unknown_and_ambiguous_outputs_are_refused_with_every_tensor_and_the_ways_out(outputs):
    with pytest.raises(ModelError) as error:
        resolve(*outputs)
    message = str(error.value)
    assert 'net.onnx' in message and 'set decoder' in message
    for output in outputs:
        assert str(output) in message
    assert 'set --task' in message or f': {", ".join(DECODERS)}' in message


def test_the_decoders_that_nearly_fit_are_told_with_what_is_in_the_way():
    with pytest.raises(ModelError) as error:
        resolve(tensor('output0', 1, 84, 8399))
    _, nearly, first, second, outputs, _ = str(error.value).splitlines()
    assert nearly == '  nearly:' and outputs == '  outputs: output0 float32[1, 84, 8399]'
    assert first.startswith('    ultralytics (Ultralytics YOLO v8, ')
    assert first.endswith(': it has 8399 boxes, expected 8400 of pictures of 640x640')
    assert second.startswith('    ultralytics_obb (') and second.endswith('do not tell it from others')
    with pytest.raises(
        ModelError, match='yolov5 .*: it has 25000 boxes, expected 25200 of pictures of 640x640'
    ):
        resolve(tensor('output0', 1, 25000, 85))
    with pytest.raises(ModelError) as error:
        resolve(tensor('output0', 1, 1000))
    assert 'nearly' not in str(error.value)


def test_the_decoders_that_fit_are_named_where_several_do():
    with pytest.raises(ModelError, match='yolov5_heads or yolov7_heads or yolov3_heads or yolov4_heads'):
        resolve(*RAW_LEVELS)
    with pytest.raises(ModelError, match=r'yolov3_heads \(YOLOv3, raw: .*\)\n'):
        resolve(*RAW_LEVELS)
    with pytest.raises(ModelError, match='yolov5_heads or yolov3_heads;'):
        resolve(*RAW_LEVELS, anchors=tuple(range(1, 19)))


@pytest.mark.parametrize(
    'outputs',
    [
        [tensor('a', 1, 84, 8400), tensor('b', 1, 84, 8400)],
        [tensor('a', 1, 84, 8400), tensor('b', 1, 36, 8400)],
        [tensor('a', 1, 300, 6), tensor('b', 1, 300, 6)],
        [tensor('a', -1, 7), tensor('b', -1, 7)],
    ],
)
def test_two_outputs_that_fit_alike_are_asked_for(outputs):
    decoder = {'decoder': 'yolov7_max_wh'} if len(outputs[0].shape) == 2 else {}
    with pytest.raises(ModelError, match='both a and b .*set output_tensor_names'):
        resolve(*outputs, **decoder)
    assert resolve(*outputs, output_names=('b',), **decoder).outputs == ('b',)


def test_class_names_tell_which_of_two_outputs_is_read():
    outputs = [tensor('output0', 1, 84, 8400), tensor('coefficients', 1, 32, 8400)]
    assert resolve(*outputs, class_names=COCO).outputs == ('output0',)


def test_outputs_that_hold_no_numbers_are_in_nobody_s_way():
    odd = TensorSpec('labels', (-1,), np.dtype(object), 'string')
    spec = resolve(odd, tensor('output0', 1, 84, 8400))
    assert spec.outputs == ('output0',)
    assert [note for note in spec.notes if 'left out' in note and 'labels string[?];' in note]
    with pytest.raises(ModelError, match='no output named labels; those that hold numbers are output0'):
        resolve(odd, tensor('output0', 1, 84, 8400), output_names=('labels',))


@pytest.mark.parametrize('said', [{}, {'decoder': 'yolo_nas_raw'}, {'output_names': ('boxes', 'scores')}])
def test_an_output_that_a_decoder_lacks_because_of_its_type_is_named(said: dict[str, Any]):
    boxes = TensorSpec('boxes', (1, 8400, 4), np.dtype(object), 'bfloat16')
    with pytest.raises(ModelError, match=r'left out, .*: boxes bfloat16\[1, 8400, 4\]; if'):
        resolve(boxes, tensor('scores', 1, 8400, 80), **said)


def test_coefficients_are_no_classes_although_the_masks_are_of_an_odd_type():
    masks = replace(PROTOS, dtype=np.dtype(object), other_type='bfloat16')
    assert resolve(tensor('output0', 1, 116, 8400), masks).num_classes == 80


def test_a_sidecar_names_tensors_as_the_parameters_do():
    outputs = [tensor('a', 1, 84, 8400), tensor('b', 1, 84, 8400)]
    metadata = {'output_tensor_names': ['b'], 'input_tensor_names': ['images']}
    assert resolve(*outputs, metadata=metadata).outputs == ('b',)
    assert resolve(*outputs, metadata=metadata, output_names=('a',)).outputs == ('a',)
    with pytest.raises(ModelError, match='no input named other'):
        resolve(*outputs, metadata={**metadata, 'input_tensor_names': ['other']})


@pytest.mark.parametrize('task', ['classify', 'depth', 'semantic'])
def test_a_model_for_another_task_is_refused_by_its_task(task):
    with pytest.raises(ModelError, match=task):
        resolve(tensor('output0', 1, 84, 8400), metadata=ultralytics(task))


@pytest.mark.parametrize('source', ['user', 'sidecar'])
def test_a_decoder_asked_for_wins_over_everything_found(source):
    said = {'decoder': 'yolox_decoded'}
    metadata = ultralytics('detect', 5) if source == 'user' else {**ultralytics('detect', 5), **said}
    spec = resolve(tensor('o', 1, 8400, 10), metadata=metadata, **(said if source == 'user' else {}))
    assert (spec.decoder, spec.num_classes, spec.image.channel_order) == ('yolox_decoded', 5, 'bgr')
    assert 'decoder' not in spec.unsettled


def test_an_unknown_decoder_and_one_that_does_not_fit_are_refused_with_the_list():
    with pytest.raises(ModelError, match="no decoder 'yolo'"):
        resolve(tensor('o', 1, 84, 8400), decoder='yolo')
    with pytest.raises(ModelError, match="layout of decoder 'rfdetr'"):
        resolve(tensor('o', 1, 84, 8400), decoder='rfdetr')


@pytest.mark.parametrize('name', list(DECODERS))
def test_every_decoder_can_be_asked_for_by_name_whatever_its_outputs_are_called(name):
    layout = LAYOUTS[name]
    outputs = [
        replace(output, name=f'{index}')
        for index, output in enumerate(
            TensorSpec(key, array.shape, array.dtype) for key, array in layout.encode(()).items()
        )
    ]
    spec = resolve_spec(
        layout.inputs, outputs, {}, Overrides(decoder=name, output_names=_ORDERS.get(name, ()))
    )
    assert spec.decoder == name
    assert set(spec.outputs) <= {output.name for output in outputs}


# Where boxes and scores have the same shape, only the user can tell them apart.
_ORDERS = {'rfdetr': ('0', '1'), 'detr': ('1', '0'), 'jetson_ssd': ('1', '0')}


def test_output_names_given_by_the_user_are_read_in_his_order():
    outputs = [tensor(name, 1, 100) for name in 'xyz'] + [tensor('boxes', 1, 100, 4)]
    spec = resolve(*outputs, decoder='efficient_nms', output_names=('z', 'boxes', 'y', 'x'))
    assert spec.outputs == ('z', 'boxes', 'y', 'x')
    with pytest.raises(ModelError, match='no output named other; .* x float32'):
        resolve(*outputs, output_names=('other',))


def test_one_of_two_outputs_that_fit_can_be_chosen_by_name():
    outputs = [tensor('first', 1, 84, 8400), tensor('second', 1, 84, 8400)]
    assert resolve(*outputs, output_names=('second',)).outputs == ('second',)


@pytest.mark.parametrize('count', [79, 81])
def test_class_names_of_the_wrong_length_are_refused_with_both_numbers(count):
    with pytest.raises(ModelError, match=f'expected 80 class names.* got {count}'):
        resolve(tensor('output0', 1, 84, 8400), class_names=COCO[:count] + ('more',) * (count - 80))


def test_class_names_are_counted_by_those_of_the_model_where_its_outputs_do_not_tell():
    rows = tensor('output0', 1, 300, 6)
    with pytest.raises(ModelError, match='expected 80 class names.* got 2'):
        resolve(rows, metadata=ultralytics('detect', end2end='True'), class_names=('a', 'b'))
    assert any('3 are named' in note for note in resolve(rows, class_names=NAMES).notes)


def test_class_names_given_by_the_user_win_over_those_of_the_model():
    spec = resolve(tensor('output0', 1, 7, 8400), metadata=ultralytics('detect', 3), class_names=NAMES)
    assert spec.class_names == NAMES


@pytest.mark.parametrize(
    ('names', 'classes', 'first'),
    [((), 3, 1), (NAMES, 3, 1), (('BACKGROUND', *NAMES), 4, 0)],
)
def test_a_background_among_the_class_names_is_counted_with_them(names, classes, first):
    spec = resolve(tensor('scores', 1, 3000, 4), tensor('boxes', 1, 3000, 4), class_names=names)
    assert (spec.decoder, spec.num_classes, spec.first_class) == ('jetson_ssd', classes, first)


# ---- the preparation ---------------------------------------------------------------------

RAW = tensor('output0', 1, 84, 8400)


@pytest.mark.parametrize(
    ('outputs', 'expected'),
    [
        (
            [RAW],
            {
                'resize': 'letterbox',
                'channel_order': 'rgb',
                'scale': 1 / 255,
                'mean': (0.0,),
                'pad_value': 114,
            },
        ),
        ([tensor('o', 1, 8400, 85)], {'resize': 'letterbox_top_left', 'channel_order': 'bgr', 'scale': 1.0}),
        (
            [tensor('dets', 1, 300, 4), tensor('labels', 1, 300, 91)],
            {
                'resize': 'stretch',
                'scale': 1 / 255,
                'mean': (0.485, 0.456, 0.406),
                'std': (0.229, 0.224, 0.225),
            },
        ),
        (
            [tensor('scores', 1, 3000, 91), tensor('boxes', 1, 3000, 4)],
            {'resize': 'stretch', 'scale': 1.0, 'mean': (127.0,), 'std': (128.0,)},
        ),
    ],
)
def test_pictures_are_prepared_as_the_family_was_trained(outputs, expected):
    image = resolve(*outputs).image
    assert {key: getattr(image, key) for key in expected} == expected


def test_the_model_says_more_than_its_family_and_the_user_more_than_the_model():
    sidecar = {
        'resize': 'stretch',
        'channel_order': 'bgr',
        'scale': 1,
        'mean': [1, 2, 3],
        'std': 2,
        'pad_value': 0,
    }
    image = resolve(RAW, metadata=sidecar).image
    assert (image.resize, image.channel_order, image.scale) == ('stretch', 'bgr', 1.0)
    assert (image.mean, image.std, image.pad_value) == ((1.0, 2.0, 3.0), (2.0,), 0)
    image = resolve(RAW, metadata=sidecar, resize='center_crop', mean=(5.0,), scale_up=False).image
    assert (image.resize, image.mean, image.scale_up, image.channel_order) == (
        'center_crop',
        (5.0,),
        False,
        'bgr',
    )


@pytest.mark.parametrize('said', [False, 'false', 'never', 'no'])
def test_a_sidecar_may_forbid_to_enlarge_pictures(said):
    assert resolve(RAW, metadata={'scale_up': said}).image.scale_up is False
    assert resolve(RAW, metadata={'scale_up': said}, scale_up=True).image.scale_up is True


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('resize', 'squash'),
        ('scale', -1),
        ('std', [0]),
        ('pad_value', 300),
        ('input_size', [0, 5]),
        ('mean', 'x'),
        ('strides', 8),
        ('class_names', 7),
        ('box_unit', 'metres'),
        ('output_tensor_names', 'output0'),
        ('scale_up', 'sometimes'),
    ],
)
def test_a_sidecar_with_a_value_that_cannot_be_is_refused_by_its_key(key, value):
    with pytest.raises(ModelError, match=f'net.onnx.*{key}'):
        resolve(RAW, metadata={key: value})


def test_a_model_that_takes_bytes_is_fed_bytes():
    image = resolve(tensor('o', 1, 8400, 85), image=picture(1, 3, 640, 640, dtype=U8)).image
    assert (image.dtype, image.scale, image.mean, image.std) == (U8, 1.0, (0.0,), (1.0,))
    image = resolve(
        tensor('dets', 1, 9, 4), tensor('labels', 1, 9, 5), image=picture(1, 3, 640, 640, dtype=U8)
    ).image
    assert (image.scale, image.mean, image.std) == (1.0, (0.0,), (1.0,))


@pytest.mark.parametrize(
    ('shape', 'layout', 'size_hw', 'order'),
    [
        ((1, 3, 480, 640), 'nchw', (480, 640), 'rgb'),
        ((1, 480, 640, 3), 'nhwc', (480, 640), 'rgb'),
        ((1, 1, 480, 640), 'nchw', (480, 640), 'gray'),
        ((1, 480, 640, 1), 'nhwc', (480, 640), 'gray'),
        ((-1, 3, 480, 640), 'nchw', (480, 640), 'rgb'),
    ],
)
def test_layout_size_and_colours_come_from_the_shape_of_the_input(shape, layout, size_hw, order):
    image = resolve(tensor('output0', 1, 84, 6300), image=picture(*shape)).image
    assert (image.layout, image.size_hw, image.channel_order) == (layout, size_hw, order)


def test_a_size_left_open_comes_from_the_user_or_the_metadata_or_is_asked_for():
    open_size = picture(-1, 3, -1, -1)
    assert resolve(RAW, image=open_size, metadata=ultralytics('detect')).image.size_hw == (640, 640)
    spec = resolve(tensor('output0', 1, 84, 6300), image=open_size, input_size_hw=(480, 640))
    assert spec.image.size_hw == (480, 640)
    with pytest.raises(ModelError, match='input_size'):
        resolve(RAW, image=open_size)
    with pytest.raises(ModelError, match='640.*320'):
        resolve(RAW, input_size_hw=(320, 320))


@pytest.mark.parametrize(
    ('inputs', 'complaint'),
    [
        ([], 'got none'),
        ([tensor('text', 1, 77, dtype=I64)], 'text'),
        ([picture(), tensor('other', 1, 3, 640, 640)], 'other'),
        ([picture(4, 3, 640, 640)], '4 pictures at once'),
        ([picture(1, 4, 640, 640)], 'channels'),
        ([picture(1, 3, 640, 640, dtype=np.dtype('i1'))], 'int8'),
        ([picture(1, 3, 640, 640, dtype=I64)], 'int64'),
    ],
)
def test_inputs_that_are_no_picture_are_refused(inputs, complaint):
    with pytest.raises(ModelError, match=complaint):
        resolve_spec(inputs, [RAW], {}, file_name='net.onnx')
    if 'at once' not in complaint:  # it can be run, but not by every decoder
        with pytest.raises(ModelError, match=complaint):
            input_shapes(inputs, {}, file_name='net.onnx')


def test_only_decoders_of_one_person_take_several_pictures_at_once():
    images, maps = [picture(4, 3, 64, 48)], [tensor('heatmaps', 4, 17, 16, 12)]
    assert input_shapes(images, {}) == {'images': (4, 3, 64, 48)}
    spec = resolve_spec(images, maps, {}, task='pose')
    assert spec.decoder == 'heatmaps' and spec.image.shape == (4, 3, 64, 48)
    for task, outputs in (
        ('segmentation', maps),
        ('pose', [tensor('paf', 4, 42, 16, 12), tensor('cmap', 4, 18, 16, 12)]),
    ):
        with pytest.raises(ModelError, match='takes 4 pictures at once, expected 1 at most'):
            resolve_spec(images, outputs, {}, task=task)
    with pytest.raises(ModelError, match='expected 256 at most'):
        resolve_spec([picture(257, 3, 64, 48)], [tensor('heatmaps', 257, 17, 16, 12)], {}, task='pose')


def test_mean_and_std_of_the_wrong_length_are_refused():
    with pytest.raises(ModelError, match='mean has 2 values, expected 1 or 3'):
        resolve(RAW, mean=(1.0, 2.0))
    with pytest.raises(ModelError, match='mean has 3 values, expected 1 or 1'):
        resolve(RAW, image=picture(1, 1, 640, 640), mean=(1.0, 2.0, 3.0))


@pytest.mark.parametrize('dtype', ['int64', 'int32', 'float32'])
def test_an_input_for_the_picture_s_size_is_found(dtype):
    outputs = [tensor('labels', -1, 300, dtype=I64), tensor('boxes', -1, 300, 4), tensor('scores', -1, 300)]
    sizes = tensor('orig_target_sizes', -1, 2, dtype=np.dtype(dtype))
    spec = resolve(*outputs, sizes=sizes)
    assert (spec.decoder, spec.size_input, spec.image.resize) == ('rtdetr', 'orig_target_sizes', 'stretch')
    assert spec.size_dtype == dtype
    shapes = input_shapes([picture(-1, 3, 640, 640), sizes], {})
    assert shapes == {'images': (1, 3, 640, 640), 'orig_target_sizes': (1, 2)}


def test_baked_in_thresholds_are_told():
    spec = resolve(tensor('output0', 1, 300, 6), metadata=ultralytics('detect', args="{'nms': True}"))
    assert any('nms_threshold has no effect' in note for note in spec.notes)


def test_anchors_and_strides_can_be_given():
    levels = [tensor(f'o{stride}', 1, 2, 640 // stride, 640 // stride, 8) for stride in (16, 32)]
    said = {
        'strides': (16, 32),
        'anchors': (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        'decoder': 'yolov3_heads',
    }
    spec = resolve(*levels, **said)
    assert spec.outputs == ('o16', 'o32')
    assert spec.anchors == (((1.0, 2.0), (3.0, 4.0)), ((5.0, 6.0), (7.0, 8.0)))
    with pytest.raises(ModelError, match='layout of decoder'):
        resolve(*levels, **{**said, 'anchors': (1.0, 2.0, 3.0)})


@pytest.mark.parametrize('last', ['no-object', 'N/A', 'background', '∅'])
def test_class_names_that_end_with_no_object_are_one_too_many(last):
    outputs = tensor('logits', 1, 100, 3), tensor('pred_boxes', 1, 100, 4)
    with pytest.raises(ModelError, match='expected 2 class names'):
        resolve(*outputs, class_names=('cat', 'dog', last))


def test_names_for_a_model_that_may_have_key_points_may_be_fewer():
    with pytest.raises(ModelError, match=r'expected 52 class names \(or 1, if it is a pose model\)'):
        resolve(tensor('output0', 1, 56, 8400), class_names=('a', 'b'))


def test_where_only_another_number_of_classes_fits_pose_is_not_spoken_of():
    with pytest.raises(ModelError, match=r'expected 80 class names, as the model has classes, got 2'):
        resolve(tensor('output', 1, 8400, 85), decoder='yolox', class_names=('a', 'b'))


def test_a_model_that_another_task_can_read_is_told_as_one():
    with pytest.raises(ModelError) as error:
        resolve(tensor('logits', 1, 21, 257, 257))
    said = str(error.value)
    assert 'for detection, but for segmentation (semantic): take segmentation_node; on the command' in said
    assert 'logits' in said and 'yolov5' not in said


def test_a_decoder_of_another_task_is_told_as_one():
    with pytest.raises(ModelError, match="no decoder 'semantic' for detection; it is one for segmentation: "):
        resolve(tensor('logits', 1, 21, 257, 257), decoder='semantic')


def test_a_model_that_names_key_points_is_none_for_pixels():
    maps, said = tensor('out', 1, 2, 160, 160), {'keypoints': ['left', 'right']}
    with pytest.raises(ModelError, match="made for the task 'pose', .* or take pose_node"):
        resolve(maps, metadata=said, task='segmentation')
    assert resolve(maps, metadata=said, task='segmentation', decoder='semantic').decoder == 'semantic'
    assert resolve(maps, metadata=said, task='pose').keypoints == ('left', 'right')


def test_a_model_made_for_another_task_is_told_which():
    with pytest.raises(ModelError, match="made for the task 'semantic', .* take segmentation_node"):
        resolve(tensor('output0', 1, 84, 8400), metadata={'task': 'semantic'})


@pytest.mark.parametrize('names', [(), ('a', 'b', 'c')])
def test_a_pose_model_is_sent_to_its_own_node_first_whatever_names_were_given(names):
    says = {'task': 'pose', 'kpt_shape': '[17, 3]', 'names': "{0: 'person'}"}
    with pytest.raises(ModelError, match="made for the task 'pose', .* take pose_node or detector_node;"):
        resolve(tensor('output0', 1, 56, 8400), metadata=says, class_names=names, task='segmentation')
