"""The command on real networks and photographs gives what plain float32 NumPy post-processing gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(os.environ.get('ISAAC_INFER_TEST_DATA') or '/nowhere')
DETECTORS = [
    info.parent
    for info in sorted(DATA.glob('models/*/info.json'))
    if json.loads(info.read_text())['task'] == 'detection'
]
CASES = [(folder, file) for folder in DETECTORS for file in sorted(folder.glob('refs/*.json'))]

LOWEST_OVERLAP = 0.98
LARGEST_SCORE_DIFFERENCE = 0.01


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.skipif(not CASES, reason='ISAAC_INFER_TEST_DATA names no folder with reference results')
@pytest.mark.parametrize(('folder', 'file'), CASES, ids=lambda path: getattr(path, 'stem', None))
def test_a_real_detector_finds_what_the_reference_found(folder: Path, file: Path, tmp_path: Path) -> None:
    reference = json.loads(file.read_text())
    out = tmp_path / 'out.json'
    subprocess.run(
        [sys.executable, '-m', 'isaac_infer.cli.main', 'run', '--model', str(folder / 'model.onnx')]
        + ['--source', str(DATA / 'images' / reference['image']), '--json', str(out)],
        check=True,
    )
    (image,) = json.loads(out.read_text())['images']
    assert image['size_wh'] == reference['image_size_wh']
    found = image['detections']
    assert len(found) == len(reference['detections'])
    for wanted in reference['detections']:
        matching = [
            one
            for one in found
            if one['class_id'] == wanted['class_id']
            and abs(one['score'] - wanted['score']) <= LARGEST_SCORE_DIFFERENCE
            and overlap(one['box_xyxy'], wanted['box_xyxy']) >= LOWEST_OVERLAP
        ]
        assert matching, f'{wanted} is missing in {found}'
        found.remove(matching[0])
