"""Spec: which values limits can have."""

import math
from typing import Any

import pytest

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.spec import Limits


@pytest.mark.parametrize(
    'values',
    [
        {'confidence_threshold': 4},
        {'confidence_threshold': math.nan},
        {'nms_threshold': -0.1},
        {'max_detections': 0},
        {'max_candidates': 0},
        {'mask_threshold': 1.1},
        {'min_region_area': -1},
        {'keypoint_threshold': 30},
    ],
)
def test_limits_that_no_answer_can_keep_are_refused(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ParameterError, match=f'^{name}: expected a number from'):
        Limits(**values)


def test_thresholds_may_let_everything_or_only_what_is_certain_through() -> None:
    assert Limits(confidence_threshold=-1) and Limits(confidence_threshold=1, nms_threshold=0)
