"""Reports as JSON, and what a verdict says of what cannot be measured."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from isaac_infer.cli.report import write_report
from isaac_infer.cli.scores import BOXES
from isaac_infer.cli.verdict import Row, checks_of
from isaac_infer.core.matching import Agreement


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    file = tmp_path / 'report.json'
    write_report(str(file), {'backend': 'b', 'rows': [{'a': float('nan')}, (float('inf'), 1.5)]})
    assert json.loads(file.read_text(), parse_constant=pytest.fail) == {
        'backend': 'b',
        'rows': [{'a': None}, [None, 1.5]],
    }


@pytest.mark.parametrize(
    ('score', 'most', 'held'),
    [
        (None, None, []),
        (None, 0.5, [('-', False)]),
        (0.5, None, [('0.0000', True)]),
        (0.5, 0.0, [('0.0000', True)]),
    ],
)
def test_a_loss_that_was_limited_and_cannot_be_measured_does_not_hold(
    score: Any, most: Any, held: Any
) -> None:
    agreed = Agreement(1, 1, 0, 1.0, 1.0, 0.0, 0.0)
    score = score and dict.fromkeys(BOXES.scores, score)
    rows = [Row(model, '', '', 'onnxruntime', '', None, None, 1.0, agreed, score) for model in ('a', 'b')]
    limits = ('min_agreement', 'min_mean_iou', 'min_iou', 'min_speed_up', 'max_extra', 'max_score_difference')
    checks = checks_of(rows, BOXES, Namespace(max_map_loss=most, **dict.fromkeys(limits)))
    assert [(check.measured, check.holds) for check in checks] == held
    assert all(check.what == 'loss of mAP50-95' for check in checks)
