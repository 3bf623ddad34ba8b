"""ExecutorParams: what is refused, and what the robot may do by them."""

import pytest

from isaac_infer.core.errors import ParameterError
from isaac_infer.params import ExecutorParams


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'required_inputs': ['lidar']}, 'required_inputs: expected some of image, scan, .*, got lidar'),
        ({'required_inputs': ['perception']}, 'perception is required, but perception_model_path is empty'),
        ({'perception_variants': ['a.onnx']}, 'perception_variants: needs perception_model_path'),
        ({'control_model_path': 'a.onnx'}, 'control_model_path and control_config: expected both or neither'),
        ({'control_config': 'a.yaml'}, 'control_model_path and control_config: expected both or neither'),
        ({'latching_faults': ['thunder']}, 'latching: expected some of .*, got thunder'),
        ({'latching_faults': ['not_enabled']}, 'latching: expected some of'),
        ({'turn_distance_m': 0.3}, r'turn_distance_m: expected more than stop_distance_m \(0.35\)'),
        ({'slow_distance_m': 0.4}, 'expected a number from 0 on and below slow_distance_m'),
        ({'execution_frequency': 0.0}, 'execution_frequency: expected float from 1 to 1000'),
        ({'max_age_s.scan': 0.0}, 'max_age_s.scan: expected float from 0.001'),
        ({'max_linear_mps': float('nan')}, 'max_linear_mps: expected float'),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        ExecutorParams().changed(**values)


def test_with_a_policy_the_distances_of_the_rule_do_not_matter():
    ExecutorParams(control_model_path='a.onnx', control_config='a.yaml', stop_distance_m=0.6)


def test_only_the_inputs_that_are_required_have_to_be_fresh_and_the_services_always():
    params = ExecutorParams(max_age_s__scan=0.2, execution_frequency=50)
    limits = params.safety_limits(('scan',))
    assert limits.max_age_s == {'scan': 0.2, 'services': 2.0}
    assert limits.period_s == 0.02


def test_what_is_watched_of_the_variants_has_the_names_that_people_know():
    params = ExecutorParams().changed(
        **{'performance_thresholds.avg_inference_time_ms': 20, 'performance_thresholds.min_fps': 10}
    )
    limits = params.variant_limits()
    assert (limits.mean_ms, limits.least_hz, limits.max_celsius) == (20.0, 10.0, 0.0)
