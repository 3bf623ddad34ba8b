from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from isaac_infer.cli.main import main
from isaac_infer.cli.precision import average_precision
from isaac_infer.core.fit import fit_picture
from isaac_infer.core.scenes import Scene, draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.shapes import CLASS_NAMES, KEYPOINT_NAMES
from models import save_constant_detector, ultralytics_metadata, ultralytics_output

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
    (score,) = average_precision([1, 2], [entry(1, 0, [10, 10, 100, 100])], answers, class_names=CLASS_NAMES)
    assert (score.name, score.objects) == (CLASS_NAMES[0], 1)
    assert (score.ap50, score.ap50_95) == pytest.approx((ap50, ap50_95))


# ---- what a model answers ------------------------------------------------------------------------

SIZE = 320  # of the networks made here


def evaluate(model: Path, folder: Path, *arguments: object) -> dict[str, Any]:
    file = folder / 'report.json'
    assert main(['evaluate', '--model', str(model), '--json', str(file), *map(str, arguments)]) == 0
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def rows_of(scene: Scene, objects: np.ndarray, *, classes: int) -> np.ndarray:
    """The rows of a network that finds some objects of a scene, the first cells first."""
    fit = fit_picture(scene.image.shape[:2], (SIZE, SIZE), resize='letterbox')
    found = []
    for index in objects.tolist():
        left, top, right, bottom = fit.to_network(scene.boxes_xyxy[index]).tolist()
        class_id = int(scene.class_id[index]) if classes > 1 else 0
        found.append(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, class_id, 0.9))
    return ultralytics_output(found, classes=classes, size=SIZE)


def save(path: Path, outputs: dict[str, np.ndarray], metadata: dict[str, str]) -> Path:
    return save_constant_detector(path, outputs, image_shape=(1, 3, SIZE, SIZE), metadata=metadata)


def test_a_semantic_model_is_measured_by_the_iou_of_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ['background', *CLASS_NAMES]
    scores = np.zeros((1, len(names), 40, 40), np.float32)
    scores[:, 0] = 9  # everything is background
    metadata = {**ultralytics_metadata(names, SIZE), 'task': 'semantic'}
    model = save(tmp_path / 'painter.onnx', {'output0': scores}, metadata)
    report = evaluate(model, tmp_path, '--scenes', 2)
    scenes = [draw_scene(FIRST_HELD_OUT_SEED + number) for number in range(2)]
    background = np.mean([scene.instance_map == 0 for scene in scenes])
    there = {CLASS_NAMES[class_id] for scene in scenes for class_id in scene.class_id}
    assert (report['task'], report['measured']) == ('segmentation', 'pixels')
    assert report['accuracy'] == pytest.approx(background)
    assert report['miou'] == pytest.approx(background / (1 + len(there)))
    ious = {each['name']: each['iou'] for each in report['classes']}
    assert ious == {'background': pytest.approx(background), **dict.fromkeys(there, 0)}
    assert sum(each['pixels'] for each in report['classes']) == 2 * 480 * 640
    assert 'confidence_threshold' not in report  # of which classes of pixels know nothing
    assert 'mIoU' in capsys.readouterr().out


def test_instances_are_measured_by_their_masks(tmp_path: Path) -> None:
    scene = draw_scene(FIRST_HELD_OUT_SEED)
    count = len(scene.class_id)
    rows = rows_of(scene, np.arange(count), classes=len(CLASS_NAMES))
    coefficients = np.zeros((1, count, rows.shape[2]), np.float32)
    coefficients[0, :, :count] = np.eye(count)
    prototypes = np.full((1, count, SIZE // 4, SIZE // 4), -9, np.float32)
    small = cv2.resize(
        scene.instance_map, (SIZE // 4, SIZE // 4 * 480 // 640), interpolation=cv2.INTER_NEAREST
    )
    above = (SIZE // 4 - len(small)) // 2
    for number in range(count):
        prototypes[0, number, above : above + len(small)][small == number + 1] = 9
    metadata = {**ultralytics_metadata(CLASS_NAMES, SIZE), 'task': 'segment'}
    outputs = {'output0': np.concatenate((rows, coefficients), axis=1), 'output1': prototypes}
    model = save(tmp_path / 'segmenter.onnx', outputs, metadata)
    report = evaluate(model, tmp_path, '--scenes', 1)
    assert (report['task'], report['measured']) == ('segmentation', 'masks')
    assert report['ap50'] == pytest.approx(1)
    assert 0.5 < report['ap50_95'] < 1  # a mask on a grid of 8 pixels is no better
    assert sum(each['objects'] for each in report['classes']) == count
    assert evaluate(model, tmp_path, '--scenes', 1, '--task', 'detection')['ap50_95'] == pytest.approx(1)


def test_key_points_are_measured_on_humanoids(tmp_path: Path) -> None:
    scene = draw_scene(FIRST_HELD_OUT_SEED, humanoids=True)
    figurines = np.flatnonzero(scene.class_id == CLASS_NAMES.index('figurine'))
    assert len(figurines)
    rows = rows_of(scene, figurines, classes=1)
    fit = fit_picture(scene.image.shape[:2], (SIZE, SIZE), resize='letterbox')
    points = scene.keypoints[figurines]
    values = np.zeros((1, 3 * len(KEYPOINT_NAMES), rows.shape[2]), np.float32)
    placed = np.concatenate((fit.to_network(points[..., :2]), points[..., 2:] > 0), axis=2)
    values[0, :, : len(figurines)] = placed.reshape(len(figurines), -1).T
    metadata = {
        **ultralytics_metadata(['humanoid'], SIZE),
        'task': 'pose',
        'kpt_shape': str([len(KEYPOINT_NAMES), 3]),
        'kpt_names': str({0: list(KEYPOINT_NAMES)}),
    }
    model = save(tmp_path / 'poser.onnx', {'output0': np.concatenate((rows, values), axis=1)}, metadata)
    report = evaluate(model, tmp_path, '--scenes', 1)
    assert (report['task'], report['measured']) == ('pose', 'poses')
    assert (report['ap50'], report['ap50_95']) == pytest.approx((1, 1))
    assert [(each['name'], each['persons']) for each in report['classes']] == [('figurine', len(figurines))]
    values[0, 0::3] += SIZE / 2  # all of them half a picture to the right
    model = save(tmp_path / 'poser.onnx', {'output0': np.concatenate((rows, values), axis=1)}, metadata)
    assert evaluate(model, tmp_path, '--scenes', 1)['ap50'] == 0


def test_a_model_of_other_things_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ultralytics_output([], classes=2, size=SIZE)
    model = save(tmp_path / 'pets.onnx', {'output0': rows}, ultralytics_metadata(['cat', 'dog'], SIZE))
    assert main(['evaluate', '--model', str(model), '--scenes', '1']) == 2
    assert 'class_names: expected some of mug, ' in capsys.readouterr().err


# ---- the shipped models --------------------------------------------------------------------------


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
        (['--class-filter', 'mug'], 'class_filter: expected none'),
        (['--seed', '-1'], 'seed: expected int of at least 0, got -1'),
        (
            ['--width', '0'],
            'width: expected int from 1 to 8192, got 0',
        ),
        (['--height', '0'], 'height: expected int from 1 to 8192, got 0'),
        (['--width', '8193'], 'width: expected int from 1 to 8192, got 8193'),
        (['--json', '/'], '--json /: expected a file, got a folder'),
        (['--task', 'depth'], 'task: expected one of detection, segmentation, pose, got depth'),
        (['--source', 'photos'], f'isaac-infer compare {MODEL} --source DIR --truth DIR|JSON takes'),
        (['--truth', 'truth.json'], f'isaac-infer compare {MODEL} --source DIR'),
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


@pytest.mark.parametrize(
    ('model', 'measured', 'least'),
    [
        ('tabletop_detector', 'mAP50', 0.95),
        ('tabletop_segmentation', 'mIoU', 0.93),
        ('tabletop_instances', 'mask mAP50', 0.95),
        ('humanoid_pose', 'OKS mAP50', 0.85),
    ],
)
def test_the_models_of_this_package_know_the_scenes_that_it_draws(
    capsys: pytest.CaptureFixture[str], model: str, measured: str, least: float
) -> None:
    assert main(['evaluate', str(MODEL.with_name(f'{model}.onnx')), '--scenes', '20']) == 0
    (score,) = re.findall(rf'(?:^|, ){measured} ([01]\.[0-9]+)', capsys.readouterr().out, re.MULTILINE)
    assert float(score) >= least
