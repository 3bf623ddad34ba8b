"""Params: declared once, checked everywhere."""

from dataclasses import dataclass

import pytest

from isaac_infer.core.errors import ParameterError
from isaac_infer.params import (
    TYPE_NAMES,
    DetectorParams,
    ImageSourceParams,
    Params,
    PoseNodeParams,
    PowerManagerParams,
    SegmentationNodeParams,
    param,
    parameters,
)

KINDS = [DetectorParams, ImageSourceParams, PowerManagerParams]


@pytest.mark.parametrize('kind', KINDS)
def test_every_parameter_has_a_known_type_a_valid_default_and_a_description(kind):
    assert parameters(kind)
    for parameter in parameters(kind):
        assert parameter.type in TYPE_NAMES
        assert parameter.check(parameter.default) == parameter.default
        assert parameter.description.endswith('.')


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'confidence_threshold': 1.5}, 'confidence_threshold: expected float from 0 to 1, got 1.5'),
        ({'confidence_threshold': float('nan')}, 'got nan'),
        ({'confidence_threshold': '0.5'}, "got '0.5'"),
        ({'confidence_threshold': True}, 'got True'),
        ({'max_detections': 1.0}, 'expected int from 1 to 10000, got 1.0'),
        ({'nms_mode': 'soft'}, "expected one of 'class_aware', 'class_agnostic', got 'soft'"),
        ({'class_filter': 'cup'}, "expected string\\[\\], got 'cup'"),
        ({'class_filter': [1]}, r'expected string\[\], got \[1\]'),
        ({'scale': 10**400}, 'scale: expected float of at least 0, got a number of 1329 bits'),
        ({'mean': [10**400]}, r'mean: expected float\[\], got a number of 1329 bits'),
        ({'max_detections': 10**5000}, 'got a number of 16610 bits'),
        ({'input_size': [640]}, 'expected height and width'),
        ({'mean': [0.1, 0.2]}, 'expected 1 or 3 values'),
        ({'std': [0.0]}, 'std: expected'),
        ({'model_variants': ['']}, r"reduced and for minimal, got \[''\]"),
        ({'model_variants': ['a', 'b', 'c']}, 'model_variants: expected one or two models'),
        ({'confidense': 1}, 'unknown parameter confidense'),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected(values, message):
    with pytest.raises(ParameterError, match=message):
        DetectorParams().changed(**values)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'critical_margin_celsius': 9}, 'expected at most hot_margin_celsius, which is 8, got 9'),
        ({'minimal_margin_celsius': 6}, 'minimal_margin_celsius: expected at most reduced_'),
        ({'nvpmodel_command': []}, 'nvpmodel_command: expected a program and its arguments'),
        ({'nvpmodel_command': ['']}, 'nvpmodel_command: expected a program and its arguments'),
    ],
)  # fmt: skip
def test_limits_of_the_power_manager_that_contradict_one_another_are_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        PowerManagerParams().changed(**values)


def test_a_whole_number_is_welcome_where_a_float_is_declared():
    assert DetectorParams(scale=1).scale == 1.0
    assert type(DetectorParams(scale=1).scale) is float


def test_changed_leaves_the_original_alone():
    before = DetectorParams()
    assert before.changed(confidence_threshold=0.5).confidence_threshold == 0.5
    assert before.confidence_threshold == 0.25


@pytest.mark.parametrize(
    'params',
    [
        DetectorParams(box_unit='normalised'),
        SegmentationNodeParams(score_unit='logits'),
        PoseNodeParams(keypoint_refinement='dark'),
    ],
)
def test_what_describes_the_first_model_does_not_describe_a_lighter_one(params):
    assert params.lighter('light.onnx') == type(params)(model_file_path='light.onnx')


def test_the_class_filter_takes_names_and_numbers():
    params = DetectorParams(class_filter=['cup', '0'])
    assert params.limits(('ball', 'box', 'cup'), 3).class_ids == {0, 2}


@pytest.mark.parametrize('text', ['plate', '3', '-1', '', '9' * 5000])
def test_a_filter_for_a_class_the_model_does_not_have_is_refused(text):
    with pytest.raises(ParameterError, match='expected classes of the model'):
        DetectorParams(class_filter=[text]).limits(('ball', 'box', 'cup'), 3)


def test_names_of_classes_of_a_model_that_names_none_are_refused_with_the_ways_out():
    beside = 'write class_names into a YAML file of its name beside it'
    for params, ways in (
        (DetectorParams(class_filter=['cup']), f'give numbers, set class_names, or {beside}'),
        (PoseNodeParams(person_classes=['cup']).person_params(), f'give numbers, or {beside}'),
    ):
        with pytest.raises(ParameterError) as error:
            params.limits((), 3)
        assert str(error.value).endswith(f"(0 to 2), got 'cup'; the model names none: {ways}")
    assert DetectorParams(class_filter=['2']).limits((), 3).class_ids == {2}


def test_whether_pictures_are_enlarged_is_said_only_where_the_user_says_it():
    said = [DetectorParams(scale_up=text).overrides(()).scale_up for text in ('', 'always', 'never')]
    assert said == [None, True, False]


def test_shapes_of_engine_inputs_are_read_from_text() -> None:
    text = 'images=1x3x320x320,1x3x640x640,2x3x640x640'
    options = DetectorParams(engine_shapes=[text], precision='fp32').engine_options()
    assert options.build.shapes == {'images': ((1, 3, 320, 320), (1, 3, 640, 640), (2, 3, 640, 640))}
    assert options.build.precision == 'fp32'
    with pytest.raises(ParameterError, match='engine_shapes: expected the smallest, usual and largest'):
        DetectorParams(engine_shapes=['images=1x3']).engine_options()


@dataclass(frozen=True)
class Grouped(Params):
    thresholds__least_hz: float = param(10.0, 'A rate.', low=0.0)


def test_parameters_of_a_group_have_a_dot_in_ros_and_underscores_in_python():
    (parameter,) = parameters(Grouped)
    assert (parameter.name, parameter.field) == ('thresholds.least_hz', 'thresholds__least_hz')
    assert Grouped().changed(**{'thresholds.least_hz': 5}).thresholds__least_hz == 5.0
    with pytest.raises(ParameterError, match=r'thresholds\.least_hz: expected float of at least 0, got -1'):
        Grouped(thresholds__least_hz=-1.0)
