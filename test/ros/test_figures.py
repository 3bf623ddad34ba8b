"""Named numbers as messages, and back from their bytes."""

from math import isnan

import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout

from isaac_infer.core.errors import MessageError
from isaac_infer.ros.figures import figures_msg, figures_of


def sent(values):
    return deserialize_message(serialize_message(figures_msg(values)), Float64MultiArray)


def message(label, data, *, size=None, offset=0):
    dimension = MultiArrayDimension(label=label, size=len(data) if size is None else size)
    return Float64MultiArray(layout=MultiArrayLayout(dim=[dimension], data_offset=offset), data=data)


@pytest.mark.parametrize('values', [{}, {'power_w': 7.5}, {'cpu_percent': 12, 'gpu_percent': 99.9}])
def test_numbers_come_back_by_their_names_in_their_order(values):
    assert list(figures_of(sent(values)).items()) == list(values.items())


def test_what_is_unknown_is_nan_and_nothing_else_is():
    figures = figures_of(sent({'cpu_percent': None, 'gpu_percent': 0.0}))
    assert isnan(figures['cpu_percent']) and figures['gpu_percent'] == 0


def test_the_layout_has_the_names_and_how_many_there_are():
    (dimension,) = sent({'a_w': 1, 'b_w': 2}).layout.dim
    assert (dimension.label, dimension.size, dimension.stride) == ('a_w,b_w', 2, 2)


def test_a_name_with_a_comma_would_be_two():
    with pytest.raises(ValueError, match="'a,b': expected a name without ','"):
        figures_msg({'a,b': 1})


def test_numbers_before_the_offset_of_the_data_have_no_names():
    assert figures_of(message('a', [7.0, 1.0], size=1, offset=1)) == {'a': 1}


@pytest.mark.parametrize(
    ('rubbish', 'says'),
    [
        (Float64MultiArray(data=[1.0]), 'expected one dimension whose label has the names, got 0'),
        (message('a', [1.0, 2.0]), '1 names, 1 of them different, 2 numbers and size 2'),
        (message('a,b', [1.0], size=2), '2 names, 2 of them different, 1 numbers and size 2'),
        (message('a,a', [1.0, 2.0]), '2 names, 1 of them different'),
        (message('a', [1.0], offset=5), '-4 numbers'),
        (message('', [1.0]), '0 names'),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(rubbish, says):
    with pytest.raises(MessageError, match=says):
        figures_of(rubbish)
