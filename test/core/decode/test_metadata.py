"""Metadata is read where it can be understood, and can never do harm."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.decode.metadata import Metadata, note_unknown_keys, read_metadata
from isaac_infer.core.errors import ModelError
from isaac_infer.params import ModelParams, parameters


def read(**metadata: object) -> Metadata:
    return read_metadata(metadata, file_name='net.onnx')


def test_no_metadata_says_nothing():
    assert read() == Metadata()


def test_the_text_that_ultralytics_writes_is_understood():
    says = read(
        task='pose',
        head='Pose',
        version='8.4.33',
        stride='32',
        imgsz='[480, 640]',
        names="{0: 'person', 1: \"cat's\"}",
        kpt_shape='[17, 3]',
        end2end='False',
        args="{'batch': 1, 'nms': True, 'dynamic': False, 'opset': None}",
    )
    assert (says.task, says.head, says.version, says.stride) == ('pose', 'Pose', (8, 4, 33), 32)
    assert (says.size_hw, says.names, says.keypoint_values) == ((480, 640), ('person', "cat's"), 51)
    assert (says.end2end, says.embedded_nms, says.notes) == (False, True, ())


def test_values_of_json_and_yaml_are_understood_as_well():
    says = read(
        names=['cup', 'ball'], imgsz=320, end2end=True, mean=[0.5, 0.5, 0.5], anchors=[[1, 2], [3, 4]]
    )
    assert (says.names, says.size_hw, says.end2end) == (('cup', 'ball'), (320, 320), True)
    assert says.own == {'mean': (0.5, 0.5, 0.5), 'anchors': (1.0, 2.0, 3.0, 4.0)}


def test_a_class_number_that_is_left_out_is_its_own_name():
    assert read(names="{0: 'cup', 2: 'ball'}").names == ('cup', '1', 'ball')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('names', "{0: 'cup'"),
        ('names', '__import__("os").system("true")'),
        ('names', "{999999999999: 'x'}"),
        ('names', "{-1: 'x'}"),
        ('names', '[' * 100_000),
        ('names', '[' * 500 + ']' * 500),
        ('names', '-' * 100_000 + '1'),
        ('names', '1' + '-1' * 100_000),
        ('names', '(' + 'not ' * 100_000 + '1)'),
        ('names', '9' * 100_000),
        ('names', '"' * 99_999),
        ('imgsz', '[0, 0]'),
        ('imgsz', '[640, 640, 3]'),
        ('imgsz', 'nan'),
        ('imgsz', '[1e999, 640]'),
        ('imgsz', '[640.5, 640]'),
        ('stride', '-32'),
        ('stride', 'thirty-two'),
        ('end2end', 'perhaps'),
        ('args', '[1, 2]'),
        ('args', 'nms'),
        ('kpt_shape', '[17]'),
        ('kpt_shape', '17'),
    ],
)
def test_what_cannot_be_understood_is_left_out_with_a_note(key, value):
    says = read(task='detect', **{key: value})
    assert says == Metadata(task='detect', notes=says.notes)
    assert len(says.notes) == 1 and key in says.notes[0] and len(says.notes[0]) < 200


def test_metadata_made_to_take_long_does_not():
    for text in ('{"' + '\\"' * 400_000, "['" + "\\'" * 400_000, '[' + ('9' * 299 + ' ') * 3000):
        start = process_time()
        assert read(names=text).names == ()
        assert process_time() - start < 5  # the square of its length would be many minutes


def test_keys_of_a_sidecar_that_nothing_reads_are_named_with_what_may_have_been_meant():
    (note,) = note_unknown_keys(['chanel_order', 'confidence_threshold', 'decoder', 'names', 'task'])
    assert "'chanel_order' (did you mean channel_order?)" in note and "'confidence_threshold'" in note
    assert "'names'" not in note and "'decoder'" not in note
    assert note_unknown_keys(['output_tensor_names', 'scale']) == ()


def test_the_parameters_of_the_model_that_the_readme_names_may_stand_in_a_sidecar():
    names = [parameter.name for parameter in parameters(ModelParams)]
    of_the_model = names[names.index('decoder') : names.index('anchors') + 1]
    assert len(of_the_model) > 10 and note_unknown_keys(of_the_model) == ()


_KEYS = ['task', 'head', 'version', 'stride', 'imgsz', 'names', 'kpt_shape', 'end2end', 'args', 'batch']
_LITERAL_LIKE = st.text(alphabet='[](){},:\'"0123456789.-+eE \\ntrulfasxyz', max_size=60)


@given(st.dictionaries(st.sampled_from(_KEYS), st.text(max_size=60) | _LITERAL_LIKE))
def test_no_text_in_ultralytics_keys_raises(metadata):
    assert isinstance(read_metadata(metadata, file_name='net.onnx'), Metadata)


@given(
    st.sampled_from(['decoder', 'class_names', 'mean', 'scale', 'strides', 'anchors', 'scale_up']),
    _LITERAL_LIKE,
)
def test_text_in_our_own_keys_is_understood_or_refused_by_its_key(key, text):
    try:
        read_metadata({key: text}, file_name='net.onnx')
        complaint = key
    except ModelError as error:
        complaint = str(error)
    assert key in complaint


@pytest.mark.parametrize('value', [['voc.txt'], 'voc.txt', ['names.YAML']])
def test_a_sidecar_holds_the_names_themselves(value):
    with pytest.raises(
        ModelError, match="'class_names' cannot be .*: expected the names themselves; .* takes a"
    ):
        read(class_names=value)
    assert read(class_names=['cup.txt', 'ball']).names == ('cup.txt', 'ball')
