from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from isaac_infer.cli.evaluate import average_precision
from isaac_infer.cli.main import main
from isaac_infer.core.shapes import CLASS_NAMES

pytest.importorskip('pycocotools', reason='the metric needs pycocotools')

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'


def entry(seed: int, category: int, box: list[float], score: float = 1.0) -> dict[str, object]:
    area = box[2] * box[3]
    return {
        'image_id': seed,
        'category_id': category,
        'bbox': box,
        'area': area,
        'iscrowd': 0,
        'score': score,
    }


@pytest.mark.parametrize(
    ('answers', 'ap50', 'ap50_95'),
    [
        ([], 0.0, 0.0),
        ([entry(1, 0, [10, 10, 100, 100])], 1.0, 1.0),
        ([entry(1, 1, [10, 10, 100, 100])], 0.0, 0.0),  # another class
        ([entry(2, 0, [10, 10, 100, 100])], 0.0, 0.0),  # another picture
        ([entry(1, 0, [10, 10, 100, 72])], 1.0, 0.5),  # overlaps by 0.72: enough for 5 of 10 thresholds
        (
            [entry(1, 0, [300, 300, 9, 9], 0.9), entry(1, 0, [10, 10, 100, 100], 0.8)],
            0.5,
            0.5,
        ),  # the surer is wrong
    ],
)
def test_average_precision_is_cocos(answers: list[dict[str, object]], ap50: float, ap50_95: float) -> None:
    (score,) = average_precision([1, 2], [entry(1, 0, [10, 10, 100, 100])], answers)
    assert (score.name, score.objects) == (CLASS_NAMES[0], 1)
    assert (score.ap50, score.ap50_95) == pytest.approx((ap50, ap50_95))


def test_the_shipped_detector_is_as_good_as_its_card_says(tmp_path: Path) -> None:
    report_file = tmp_path / 'folder' / 'report.json'
    assert main(['evaluate', '--model', str(MODEL), '--scenes', '60', '--json', str(report_file)]) == 0
    report = json.loads(report_file.read_text())
    assert report['scenes'] == 60
    assert {score['name'] for score in report['classes']} == set(CLASS_NAMES)
    assert report['ap50'] > 0.97
    assert report['ap50_95'] > 0.9


def test_the_shipped_detector_is_small() -> None:
    assert MODEL.stat().st_size <= 2_000_000


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['--scenes', '0'], 'scenes: expected from 1 to'),
        (['--scenes', '99999999999999999999'], 'scenes: expected from 1 to'),
        (['--seed', '-1'], 'seed: expected int of at least 0, got -1'),
        (
            ['--width', '0'],
            'width: expected int from 1 to 8192, got 0',
        ),
        (['--height', '0'], 'height: expected int from 1 to 8192, got 0'),
        (['--width', '8193'], 'width: expected int from 1 to 8192, got 8193'),
        (['--json', '/'], '--json /: expected a file, got a folder'),
    ],
)
def test_a_bad_option_is_refused_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['evaluate', '--model', str(MODEL), *arguments]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ('report', 'complaint'),
    [('copy.onnx', 'would overwrite'), ('copy.json', 'would be read as facts about copy.onnx')],
)
def test_a_report_does_not_harm_the_model(
    report: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(MODEL, tmp_path / 'copy.onnx')
    assert main(['evaluate', '--model', str(model), '--scenes', '1', '--json', str(tmp_path / report)]) == 2
    assert complaint in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['copy.onnx']
    assert model.read_bytes() == MODEL.read_bytes()
