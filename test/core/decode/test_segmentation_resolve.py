"""Recognition of segmentation models: from tensors, metadata and what the user says, or a clear error."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isaac_infer.core.decode.instances import InstanceDecoder
from isaac_infer.core.decode.names import names_by_index
from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.decode.segmentation import DECODERS, probe
from isaac_infer.core.decode.segmentation_families import FAMILIES, NAMED
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import IsaacInferError, ModelError
from isaac_infer.core.fit import fit_picture
from isaac_infer.core.spec import Limits, ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec
from models import exported_metadata as ultralytics

F32, F16, I32, I64, U8 = (np.dtype(name) for name in ('f4', 'f2', 'i4', 'i8', 'u1'))


def tensor(name: str, *shape: int, dtype: np.dtype = F32) -> TensorSpec:
    return TensorSpec(name, shape, dtype)


def resolve(
    *outputs: TensorSpec, image: tuple[int, ...] = (1, 3, 640, 640), metadata: Any = None, **said: Any
) -> ModelSpec:
    inputs = [tensor('images', *image)]
    overrides = Overrides(**said)
    return resolve_spec(inputs, outputs, metadata or {}, overrides, task='segmentation', file_name='net.onnx')


PROTOS = tensor('output1', 1, 32, 160, 160)
OLD_PROTOS = tensor('output1', 1, 32, 120, 160)
RFDETR = (tensor('dets', 1, 300, 4), tensor('labels', 1, 300, 91), tensor('masks', 1, 300, 108, 108))
MASK_RCNN = (
    tensor('boxes', -1, 4),
    tensor('labels', -1, dtype=I64),
    tensor('scores', -1),
    tensor('masks', -1, 1, 640, 640),
)


def test_every_decoder_belongs_to_a_family_and_no_name_to_two_tasks():
    assert list(FAMILIES) == list(DECODERS) and set(NAMED) < set(FAMILIES)
    names = [name for task in TASKS.values() for name in task.decoders]
    assert len(names) == len(set(names))
    for decoder in DECODERS.values():
        assert not isinstance(decoder, InstanceDecoder) or decoder.boxes in TASKS['detection'].decoders


@pytest.mark.parametrize('shape', [(1, 2, 2, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize('image', [(1, 3, 64, 64), (1, 64, 64, 3)])
def test_one_score_on_a_grid_of_two_by_two_is_no_pair_of_classes(shape, image):
    spec = resolve(tensor('out', *shape), image=image)
    assert (spec.decoder, spec.num_classes) == ('semantic_binary', 0)


@pytest.mark.parametrize(
    ('decoder', 'classes', 'outputs'),
    [
        ('ultralytics_seg', 80, [tensor('output0', 1, 116, 8400), PROTOS]),
        ('ultralytics_seg', 1, [PROTOS, tensor('output0', 1, 37, 8400)]),
        ('ultralytics_seg', 80, [tensor('output0', 1, 116, 8400, dtype=F16), PROTOS]),
        ('ultralytics_seg_end2end', 0, [tensor('output0', 1, 300, 38), PROTOS]),
        ('yolov5_seg', 80, [tensor('output0', 1, 25200, 117), PROTOS]),
        ('rfdetr_seg', 91, RFDETR),
        ('mask_rcnn', 0, MASK_RCNN),
        ('mask_rcnn', 0, [*MASK_RCNN[:3], tensor('masks', -1, 1, 28, 28)]),
        ('semantic', 21, [tensor('out', 1, 21, 640, 640), tensor('aux', 1, 21, 640, 640)]),
        ('semantic', 150, [tensor('logits', 1, 150, 160, 160)]),
        ('semantic', 21, [tensor('output_0', 1, 21, 20, 20)]),
        ('semantic', 19, [tensor('softmax', 1, 640, 640, 19)]),
        ('semantic', 2, [tensor('out', -1, 2, 640, 640, dtype=F16)]),
        ('semantic', 4, [tensor('out', 1, 4, 640, 640), tensor('map', 1, 640, 640, dtype=I64)]),
        ('semantic', 5, [tensor('logits', 1, 5, 160, 160), tensor('argmax', 1, 640, 640, dtype=I64)]),
        ('semantic', 5, [tensor('logits', 1, 5, 160, 160), tensor('best', 1, 640, 640)]),
        ('semantic_map', 0, [tensor('output', 1, 1, 640, 640, dtype=I64)]),
        ('semantic_map', 0, [tensor('output0', 1, 640, 640, dtype=U8)]),
        ('semantic_map', 0, [tensor('output', 640, 640, dtype=I32)]),
        ('semantic_map', 0, [tensor('output', 1, 160, 160, 1, dtype=I32)]),
        ('semantic_binary', 0, [tensor('mask', 1, 1, 640, 640)]),
        ('semantic_binary', 0, [tensor('mask', 1, 640, 640, 1)]),
        ('semantic_binary', 0, [tensor('mask', 1, 320, 320)]),
        ('semantic_symmetric', 0, [tensor('argmax_1', 1, 640, 640, 1, dtype=I32)]),
        ('semantic_symmetric', 2, [tensor('softmax_1', 1, 640, 640, 2)]),
    ],
)
def test_outputs_are_recognised_by_their_names_and_shapes(decoder, classes, outputs):
    spec = resolve(*outputs)
    assert (spec.task, spec.decoder, spec.num_classes) == ('segmentation', decoder, classes)


@pytest.mark.parametrize(
    ('decoder', 'metadata', 'outputs'),
    [
        ('ultralytics_seg', ultralytics('segment'), [tensor('output0', 1, 116, 8400), PROTOS]),
        ('ultralytics_seg', ultralytics('segment', 2), [tensor('output0', 1, 38, 8400), PROTOS]),
        (
            'ultralytics_seg_end2end',
            ultralytics('segment', end2end='True'),
            [tensor('output0', 1, 300, 38), PROTOS],
        ),
        (
            'ultralytics_seg_end2end',
            ultralytics('segment', args="{'nms': True}", end2end='False'),
            [tensor('output0', 1, 300, 38), PROTOS],
        ),
        ('ultralytics_semantic', ultralytics('semantic', 19), [tensor('output0', 1, 640, 640, dtype=U8)]),
        ('ultralytics_semantic', ultralytics('semantic', 19), [tensor('output0', 1, 19, 640, 640)]),
        ('yolov5_seg', {'stride': '32', 'names': "['a', 'b']"}, [tensor('output0', 1, 25200, 39), PROTOS]),
    ],
)
def test_metadata_tells_the_layout(decoder, metadata, outputs):
    spec = resolve(*outputs, metadata=metadata)
    assert spec.decoder == decoder
    assert (spec.image.resize, spec.image.scale, spec.image.mean) == ('letterbox', 1 / 255, (0.0,))


def test_oblong_inputs_have_oblong_prototypes():
    spec = resolve(tensor('output0', 1, 116, 6300), OLD_PROTOS, image=(1, 3, 480, 640))
    assert (spec.decoder, spec.outputs) == ('ultralytics_seg', ('output0', 'output1'))


@pytest.mark.parametrize('side', [257, 321, 513])
def test_deeplab_of_tensorflow_is_known_by_its_input_size(side):
    spec = resolve(tensor('logits', 1, 21, side, side), image=(1, 3, side, side))
    assert spec.decoder == 'semantic_symmetric'
    assert (spec.image.scale, spec.image.mean, spec.image.std) == (1 / 127.5, (1.0,), (1.0,))
    assert spec.image.resize == 'stretch'
    assert any('assumed: RGB from -1 to 1' in note for note in spec.notes)


def test_others_are_fed_as_those_who_train_on_imagenet_do_and_it_is_said():
    spec = resolve(tensor('logits', 1, 150, 128, 128), image=(1, 3, 512, 512))
    assert (spec.image.mean, spec.image.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert any('assumed: RGB minus the mean of ImageNet' in note for note in spec.notes)


@pytest.mark.parametrize(
    ('said', 'left'),
    [
        ({}, ['assumed: RGB minus the mean of ImageNet, stretched; set scale, mean, std, resize if not']),
        ({'mean': (0.0,), 'std': (1.0,)}, ['assumed: stretched; set resize if not']),
        ({'resize': 'stretch'}, ['assumed: RGB minus the mean of ImageNet; set scale, mean, std if not']),
        ({'mean': (0.0,), 'std': (1.0,), 'resize': 'letterbox'}, []),
        (
            {'scale': 1.0},
            ['assumed: RGB minus the mean of ImageNet, stretched; set mean, std, resize if not'],
        ),
    ],
)
def test_nothing_is_called_assumed_that_was_said(said, left):
    for way in ({'metadata': said}, said):
        spec = resolve(tensor('logits', 1, 150, 128, 128), image=(1, 3, 512, 512), **way)
        assert [note for note in spec.notes if 'assumed' in note] == left


def test_what_the_user_says_wins():
    spec = resolve(
        tensor('logits', 1, 21, 257, 257),
        image=(1, 3, 257, 257),
        decoder='semantic',
        resize='letterbox',
        score_unit='probabilities',
    )
    assert (spec.decoder, spec.image.resize, spec.score_unit) == ('semantic', 'letterbox', 'probabilities')
    own = resolve(tensor('mask', 1, 1, 640, 640), metadata={'score_unit': 'logits'})
    assert own.score_unit == 'logits'
    with pytest.raises(ModelError, match="metadata 'score_unit' cannot be 'percent'"):
        resolve(tensor('mask', 1, 1, 640, 640), metadata={'score_unit': 'percent'})


@pytest.mark.parametrize(
    ('outputs', 'said', 'taken'),
    [
        (['drivable', 'lane'], {'output_names': ('lane',)}, ('lane',)),
        (['out', 'aux'], {'output_names': ('aux',)}, ('aux',)),
    ],
)
def test_one_of_several_heads_is_taken_where_the_user_names_it(outputs, said, taken):
    assert resolve(*(tensor(name, 1, 2, 640, 640) for name in outputs), **said).outputs == taken


def test_two_heads_that_fit_are_not_chosen_between():
    with pytest.raises(ModelError, match='both drivable and lane can be read .* set output_tensor_names'):
        resolve(tensor('drivable', 1, 2, 640, 640), tensor('lane', 1, 2, 640, 640))


@pytest.mark.parametrize(
    'outputs',
    [
        [],
        [tensor('features', 1, 32, 7, 9)],
        [tensor('out', 1, 5000, 640, 640)],
    ],
)
def test_where_no_decoder_fits_outputs_and_decoders_are_listed(outputs):
    with pytest.raises(ModelError, match='no decoder fits its outputs') as error:
        resolve(*outputs)
    assert all(str(output) in str(error.value) for output in outputs)
    assert f': {", ".join(DECODERS)}' in str(error.value)


def test_there_are_as_many_coefficients_as_prototypes():
    assert resolve(tensor('output0', 1, 116, 8400), tensor('output1', 1, 16, 160, 160)).num_classes == 96


@pytest.mark.parametrize('row', [6, 37, 57])
def test_rows_without_room_for_the_coefficients_are_refused(row):
    with pytest.raises(ModelError, match="do not have the layout of decoder 'ultralytics_seg_end2end'"):
        resolve(tensor('output0', 1, 300, row), PROTOS, decoder='ultralytics_seg_end2end')


_LENGTHS = st.sampled_from([-1, 1, 2, 3, 4, 8, 16, 24, 28, 38, 64, 84, 96, 126, 300])
_NAMES = ['output0', 'output1', 'out', 'boxes', 'scores', 'labels', 'dets', 'masks', 'argmax_1']
_TENSORS = st.builds(
    TensorSpec,
    st.sampled_from(_NAMES),
    st.lists(_LENGTHS, max_size=5).map(tuple),
    st.sampled_from([F32, F16, I64, U8, np.dtype(bool)]),
).filter(lambda output: abs(math.prod(output.shape)) < 50_000)


@given(
    st.lists(_TENSORS, max_size=4, unique_by=lambda output: output.name),
    st.sampled_from(
        [{}, *({'decoder': name} for name in DECODERS), {'task': 'segment'}, {'task': 'semantic'}]
    ),
    st.integers(0, 99),
)
@settings(max_examples=300)
def test_any_shapes_are_understood_or_refused(outputs, metadata, seed):
    message = ''
    try:
        spec = resolve(*outputs, image=(1, 3, 64, 96), metadata=metadata)
    except ModelError as error:
        message = str(error)
    else:
        random = np.random.default_rng(seed)
        answers = {
            output.name: random.uniform(-1, 2, [abs(length) for length in output.shape]).astype(output.dtype)
            for output in outputs
        }
        with contextlib.suppress(IsaacInferError):
            spec = probe(answers, spec)
            fit = fit_picture((201, 333), (64, 96), resize='letterbox')
            found = DECODERS[spec.decoder](answers, fit, spec, Limits(min_region_area=5))
            assert found.class_map is None or found.class_map.shape == (201, 333)
    assert all(str(output) in message for output in outputs if 'decoders:' in message)


def test_an_instance_model_by_metadata_without_prototypes_is_refused():
    with pytest.raises(ModelError, match='no decoder fits its outputs'):
        resolve(tensor('output0', 1, 116, 8400), metadata=ultralytics('segment'))


@pytest.mark.parametrize('task', ['detect', 'pose', 'obb', 'classify'])
def test_models_made_for_another_task_are_refused(task):
    with pytest.raises(ModelError, match=f"made for the task '{task}', which gives no segmentation"):
        resolve(tensor('output0', 1, 84, 8400), metadata=ultralytics(task))


def test_a_detector_is_refused_as_a_decoder():
    with pytest.raises(
        ModelError, match="there is no decoder 'ultralytics' for segmentation; it is one for detec"
    ):
        resolve(tensor('output0', 1, 116, 8400), PROTOS, decoder='ultralytics')
    with pytest.raises(ModelError, match="do not have the layout of decoder 'semantic_map'"):
        resolve(tensor('output0', 1, 21, 640, 640), decoder='semantic_map')


@pytest.mark.parametrize('count', [20, 22])
def test_names_that_are_too_many_or_too_few_are_refused(count):
    names = tuple(f'class {index}' for index in range(count))
    with pytest.raises(ModelError, match=f'expected 21 class names, as the model has classes, got {count}'):
        resolve(tensor('out', 1, 21, 640, 640), class_names=names)


NO_FILE = (
    ' was taken for a class name, as there is no such file; files have one name a line, or with the endings '
    '.json, .yaml, .yml a list or a mapping'
)


@pytest.mark.parametrize(
    ('names', 'told'),
    [
        (('readme.md',), f'got 1; readme.md{NO_FILE}'),
        (('lists/voc',), f'got 1; lists/voc{NO_FILE}'),
        (('person',), 'got 1'),
        (('{0: background', '15: person}'), 'got 2; a mapping is read from a JSON or YAML file alone'),
        (
            names_by_index({0: 'background', 15: 'person'}),
            'got 16: 2 names, and 14 numbers without one, from 1 on',
        ),
        (tuple('0123'), 'got 4'),  # each is called by its number
    ],
)
def test_names_that_do_not_fit_tell_how_they_may_have_come_about(names, told):
    with pytest.raises(ModelError) as raised:
        resolve(tensor('out', 1, 21, 640, 640), class_names=names)
    assert str(raised.value).endswith(f'as the model has classes, {told}')


def test_boxes_of_an_instance_model_are_checked_by_a_first_run():
    spec = resolve(tensor('output0', 1, 116, 8400), PROTOS)
    answers = {
        'output0': np.full((1, 116, 8400), 7, np.float32),
        'output1': np.zeros((1, 32, 160, 160), np.float32),
    }
    with pytest.raises(ModelError, match='expects scores from 0 to 1'):
        probe(answers, spec)
