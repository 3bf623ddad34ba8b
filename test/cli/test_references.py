"""The command on real networks and photographs gives what plain float32 NumPy post-processing gives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

DATA = Path(os.environ.get('ISAAC_INFER_TEST_DATA') or '/nowhere')


def cases(kind: str) -> list[tuple[Path, Path]]:
    """Models of a kind, and the reference of each picture."""
    return [
        (info.parent, file)
        for info in sorted(DATA.glob('models/*/info.json'))
        if json.loads(info.read_text())['task'] == kind
        for file in sorted(info.parent.glob('refs/*.json'))
    ]


KINDS = sorted({json.loads(info.read_text())['task'] for info in DATA.glob('models/*/info.json')})
needs_data = pytest.mark.skipif(not KINDS, reason='ISAAC_INFER_TEST_DATA names no folder of references')

LOWEST_OVERLAP = 0.98
LARGEST_SCORE_DIFFERENCE = 0.01


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def run(folder: Path, reference: dict[str, Any], out: Path, *options: str) -> dict[str, Any]:
    """Run a model on the picture of a reference; gives the report."""
    subprocess.run(
        [sys.executable, '-m', 'isaac_infer.cli.main', 'run', '--model', str(folder / 'model.onnx')]
        + ['--source', str(DATA / 'images' / reference['image']), '--json', str(out / 'out.json'), *options],
        check=True,
    )
    report: dict[str, Any] = json.loads((out / 'out.json').read_text())
    assert report['images'][0]['size_wh'] == reference['image_size_wh']
    return report


def best_match(wanted: dict[str, Any], found: list[dict[str, Any]]) -> int:
    """Which object is the wanted one."""
    matching = [
        row
        for row, one in enumerate(found)
        if one['class_id'] == wanted['class_id']
        and abs(one['score'] - wanted['score']) <= LARGEST_SCORE_DIFFERENCE
        and overlap(one['box_xyxy'], wanted['box_xyxy']) >= LOWEST_OVERLAP
    ]
    assert matching, f'{wanted} is missing in {found}'
    return matching[0]


@needs_data
@pytest.mark.parametrize(('folder', 'file'), cases('detection'), ids=lambda path: getattr(path, 'stem', None))
def test_a_real_detector_finds_what_the_reference_found(folder: Path, file: Path, tmp_path: Path) -> None:
    reference = json.loads(file.read_text())
    found = run(folder, reference, tmp_path)['images'][0]['detections']
    assert len(found) == len(reference['detections'])
    assert len({best_match(wanted, found) for wanted in reference['detections']}) == len(found)


@needs_data
@pytest.mark.parametrize(
    ('folder', 'file'),
    [case for kind in KINDS if 'instance' in kind for case in cases(kind)],
    ids=lambda path: getattr(path, 'stem', None),
)
def test_masks_are_those_of_the_reference(folder: Path, file: Path, tmp_path: Path) -> None:
    reference = json.loads(file.read_text())
    (image,) = run(folder, reference, tmp_path, '--save', str(tmp_path))['images']
    found = image['detections']
    assert len(found) == len(reference['detections'])
    stored = np.load(file.with_suffix('.masks.npz'))
    _, height, width = stored['shape']
    masks = np.unpackbits(stored['masks'], axis=1)[:, : height * width].reshape(-1, height, width) > 0
    instances = cv2.imread(image['instance_masks'], cv2.IMREAD_UNCHANGED)
    labels = cv2.imread(image['label_map'], cv2.IMREAD_UNCHANGED)
    assert instances.shape == labels.shape == (height, width)
    for wanted, mask in zip(reference['detections'], masks, strict=True):
        row = best_match(wanted, found)
        is_hidden = (instances > 0) & (instances < row + 1)  # where objects overlap, the best one is seen
        mine = instances == row + 1
        assert (mine & mask).sum() / ((mine | mask) & ~is_hidden).sum() >= 0.95
        assert (labels[mine] == wanted['class_id']).all()


@needs_data
@pytest.mark.parametrize(
    ('folder', 'file'),
    [case for kind in KINDS if 'semantic' in kind for case in cases(kind)],
    ids=lambda path: getattr(path, 'stem', None),
)
def test_labels_are_those_of_the_reference(folder: Path, file: Path, tmp_path: Path) -> None:
    reference = json.loads(file.read_text())
    (image,) = run(folder, reference, tmp_path, '--save', str(tmp_path))['images']
    expected = cv2.imread(str(file.with_suffix('.labels.png')), cv2.IMREAD_UNCHANGED)
    labels = cv2.imread(image['label_map'], cv2.IMREAD_UNCHANGED)
    width, height = reference['image_size_wh']
    large = cv2.resize(expected, (width, height), interpolation=cv2.INTER_NEAREST)
    assert labels.shape == large.shape and (labels == large).mean() >= 0.99


@needs_data
@pytest.mark.parametrize(
    ('folder', 'file'),
    [case for kind in KINDS if 'pose' in kind or 'keypoint' in kind for case in cases(kind)],
    ids=lambda path: getattr(path, 'stem', None),
)
def test_key_points_are_those_of_the_reference(folder: Path, file: Path, tmp_path: Path) -> None:
    reference = json.loads(file.read_text())
    report = run(folder, reference, tmp_path)
    found = report['images'][0]['detections']
    if 'keypoints_xy_conf' in reference:  # of a network for one person
        (person,) = found
        for name, point in zip(report['keypoints'], person['keypoints'], strict=True):
            assert np.abs(np.subtract(point[:2], reference['keypoints_xy_conf'][name][:2])).max() <= 2
        return
    assert len(found) == len(reference['detections'])
    for wanted in reference['detections']:
        points = np.array(found[best_match(wanted, found)]['keypoints'])
        expected = np.array(wanted['keypoints_xyv'])
        assert np.abs(points[:, :2] - expected[:, :2]).max() <= 2
        assert np.abs(points[:, 2] - expected[:, 2]).max() <= LARGEST_SCORE_DIFFERENCE
