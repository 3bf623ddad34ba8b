"""A parameter set becomes the parameters of a node."""

import math

import pytest
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter

from isaac_infer.core.errors import ParameterError
from isaac_infer.params import DetectorParams, parameters
from isaac_infer.ros.parameters import NodeParameters


class Example(Node):
    """A node with the parameters of the detector."""

    def __init__(self, *arguments, refusal='', apply=lambda value: None):
        super().__init__('example', cli_args=['--ros-args', *arguments])
        try:
            self.ours = NodeParameters(self, DetectorParams, refusal=lambda: self.refusal, apply=apply)
        except ParameterError:
            self.destroy_node()
            raise
        self.refusal = refusal

    def change(self, **values):
        """Set parameters as a client would, all at once."""
        service = next(each for each in self.services if each.srv_type is SetParametersAtomically)
        given = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=given)
        return service.callback(request, SetParametersAtomically.Response()).result

    def change_one_by_one(self, **values):
        """Set parameters as a client would, each for itself; give why each was refused, '' for none."""
        service = next(each for each in self.services if each.srv_type is SetParameters)
        given = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        response = service.callback(SetParameters.Request(parameters=given), SetParameters.Response())
        return [result.reason for result in response.results]


@pytest.fixture
def example(ros):
    made = []

    def make(*arguments, **options):
        made.append(Example(*arguments, **options))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()


def yaml_arguments(tmp_path, text):
    path = tmp_path / 'params.yaml'
    path.write_text('/**:\n  ros__parameters:\n' + ''.join(f'    {line}\n' for line in text.splitlines()))
    return '--params-file', str(path)


def test_without_a_file_every_parameter_has_its_default(example):
    node = example()
    assert node.ours.value == DetectorParams()
    for parameter in parameters(DetectorParams):
        value = node.get_parameter(parameter.name).value
        assert (list(value) if isinstance(parameter.default, list) else value) == parameter.default


def test_descriptors_carry_type_description_and_range(example):
    node = example()
    described = {
        name: node.describe_parameter(name) for name in ('confidence_threshold', 'max_detections', 'std')
    }
    threshold, detections, std = described.values()
    assert threshold.type == ParameterType.PARAMETER_DOUBLE and threshold.description
    assert (threshold.floating_point_range[0].from_value, threshold.floating_point_range[0].to_value) == (
        0,
        1,
    )
    assert (detections.integer_range[0].from_value, detections.integer_range[0].to_value) == (1, 10000)
    assert std.type == ParameterType.PARAMETER_DOUBLE_ARRAY
    assert not threshold.additional_constraints and std.additional_constraints.startswith('Cannot change')


def test_a_file_is_read_with_whole_numbers_and_empty_lists(example, tmp_path):
    text = (
        'confidence_threshold: 1\nmean: [1, 2, 3]\nclass_filter: [0, 2]\nproviders: []\nuse_sim_time: false\n'
        'decoder: 7'
    )
    node = example(*yaml_arguments(tmp_path, text))
    expected = DetectorParams(
        confidence_threshold=1.0, mean=[1.0, 2.0, 3.0], class_filter=['0', '2'], decoder='7'
    )
    assert node.ours.value == expected
    assert node.get_parameter('mean').type_ == Parameter.Type.DOUBLE_ARRAY


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('confidence_treshold: 0.5', 'unknown parameter confidence_treshold; expected confidence_threshold'),
        ('zzz: 1', 'unknown parameter zzz'),
        ('confidence_threshold: high', "confidence_threshold: expected float from 0 to 1, got 'high'"),
        ('confidence_threshold: 1.5', 'confidence_threshold: expected float from 0 to 1, got 1.5'),
        ('confidence_threshold: .nan', 'confidence_threshold: expected'),
        ('max_detections: 3.0', 'max_detections: expected int from 1 to 10000, got 3.0'),
        ('max_detections: []', 'max_detections: expected int'),
        ('autostart: 1', 'autostart: expected bool, got 1'),
        ('mean: [1.0, 2.0]', 'mean: expected 1 or 3 values'),
        ('mean: 1.0', 'mean: expected float'),
        ('resize: squeeze', 'resize: expected one of'),
    ],
)
def test_a_wrong_file_is_one_clear_error(example, tmp_path, text, says):
    with pytest.raises(ParameterError) as caught:
        example(*yaml_arguments(tmp_path, text))
    assert says in str(caught.value)


def test_a_good_value_is_applied_and_kept(example):
    applied = []
    node = example(apply=applied.append)
    assert node.change(confidence_threshold=0.5, nms_mode='class_agnostic').successful
    assert node.ours.value == DetectorParams(confidence_threshold=0.5, nms_mode='class_agnostic')
    assert applied == [node.ours.value]


@pytest.mark.parametrize(
    'values',
    [
        {'confidence_threshold': 1.5},
        {'confidence_threshold': math.nan},
        {'confidence_threshold': 'high'},
        {'nms_mode': 'none'},
        {'max_detections': 0},
        {'mean': [1.0, 2.0]},
        {'confidence_threshold': 0.5, 'nms_mode': 'none'},
    ],
)
def test_a_bad_value_is_refused_with_a_reason_and_changes_nothing(example, values):
    applied = []
    node = example(apply=applied.append)
    result = node.change(**values)
    assert not result.successful and result.reason
    assert node.ours.value == DetectorParams() and not applied
    assert node.get_parameter('confidence_threshold').value == 0.25


def test_what_cannot_be_applied_is_refused(example):
    def apply(value):
        raise ParameterError('class_filter: expected classes of the model')

    node = example(apply=apply)
    result = node.change(class_filter=['dragon'])
    assert (result.successful, result.reason) == (False, 'class_filter: expected classes of the model')
    assert node.ours.value == DetectorParams()


def test_an_error_nobody_thought_of_refuses_a_value_and_the_node_lives_on(example):
    def apply(value):
        raise OverflowError('too large')

    node = example(apply=apply)
    result = node.change(confidence_threshold=0.5)
    assert (result.successful, result.reason) == (False, 'OverflowError: too large')
    assert node.ours.value == DetectorParams()


def test_values_are_taken_in_the_declared_type_where_nothing_is_lost(example):
    node = example()
    assert node.change(confidence_threshold=1).successful
    assert node.change(class_filter=[1, 2]).successful
    assert node.get_parameter('confidence_threshold').type_ == Parameter.Type.DOUBLE
    assert node.ours.value.class_filter == ['1', '2']
    assert node.change(class_filter=[]).successful
    assert node.ours.value.class_filter == []


def test_only_live_parameters_change_while_that_is_refused(example):
    node = example(refusal='while the node is active; deactivate it first')
    assert node.change(confidence_threshold=0.5).successful
    result = node.change(decoder='yolox')
    assert not result.successful
    assert result.reason == 'decoder: cannot change while the node is active; deactivate it first'
    assert node.change(decoder='').successful  # as it is: no change
    node.refusal = ''
    assert node.change(decoder='yolox').successful


def test_of_several_parameters_each_unknown_one_is_refused_with_what_may_be_meant(example):
    node = example()
    refusals = node.change_one_by_one(confidence_treshold=0.5, nms_threshold=1, use_sim_time=False)
    assert refusals == ['unknown parameter confidence_treshold; expected confidence_threshold', '', '']
    assert node.ours.value.nms_threshold == 1.0
    result = node.change(nms_threshold=0.5, confidence_treshold=0.5)
    assert not result.successful and result.reason == refusals[0]
    assert node.ours.value.nms_threshold == 1.0


@pytest.mark.parametrize(('given', 'said'), [(2, 'out of range'), (2.0, 'out of range'), ('2', 'type')])
def test_a_number_out_of_range_is_refused_for_that_whatever_its_type(example, given, said):
    (refusal,) = example().change_one_by_one(confidence_threshold=given)
    assert said in refusal


@pytest.mark.parametrize('name', ['class_filter', 'confidence_threshold'])
def test_a_parameter_is_not_removed(example, name):
    node = example()
    (refusal,) = node.change_one_by_one(**{name: None})
    assert refusal.startswith(f'{name}: expected ') and refusal.endswith(', got nothing')
    assert node.ours.value == DetectorParams()
