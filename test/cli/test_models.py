import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from isaac_infer.cli.main import main
from isaac_infer.cli.models import DEFAULT_MODEL, readable_task
from isaac_infer.engine.load import open_pipeline
from isaac_infer.params import TaskParams, parameters
from models import save_constant_detector

KEYPOINTS = [f'kp{number}' for number in range(17)]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    place = tmp_path / 'picture.png'
    assert cv2.imwrite(str(place), np.zeros((64, 64, 3), np.uint8))
    return place


@pytest.fixture
def pose(tmp_path: Path) -> Path:
    """A model without metadata that finds a person in the middle: rows of a box, a score, 17 key points."""
    rows = np.zeros((1, 4 + 1 + 17 * 3, 84), np.float32)
    rows[0, :4] = np.array([[32], [32], [16], [16]])
    rows[0, 4, 0] = 0.9
    rows[0, 5:] = np.tile([[32], [32], [0.8]], (17, 1))
    return save_constant_detector(tmp_path / 'pose.onnx', {'output0': rows})


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """A model without metadata: rows of a box, 3 scores, 32 coefficients, beside prototypes of masks."""
    rows = np.full((1, 4 + 3 + 32, 84), 0.1, np.float32)
    rows[0, :4] = 32
    rows[0, 7:] = -0.5
    prototypes = np.full((1, 32, 16, 16), 0.5, np.float32)  # which might be heat maps, too
    return save_constant_detector(tmp_path / 'seg.onnx', {'output0': rows, 'output1': prototypes})


@pytest.fixture
def semantic(tmp_path: Path) -> Path:
    """A model that tells 21 classes of pixels apart."""
    logits = np.zeros((1, 21, 33, 33), np.float32)
    logits[:, 0] = 5
    return save_constant_detector(tmp_path / 'semantic.onnx', {'logits': logits}, image_shape=(1, 3, 65, 65))


def run(*arguments: object) -> int:
    return main(['run', *map(str, arguments)])


@pytest.mark.parametrize('in_sidecar', [False, True])
def test_whoever_names_key_points_has_a_pose_model(
    in_sidecar: bool, pose: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--keypoints', 'a', 'b', 'c']
    if in_sidecar:
        pose.with_suffix('.yaml').write_text('keypoints: [a, b, c]\n')
        options = []
    assert run(pose, '--source', picture, *options) == 1
    said = capsys.readouterr().err
    assert 'expected 17 names of key points, as the model has key points, got 3' in said


def test_whoever_gives_a_skeleton_has_a_pose_model(picture: Path, tmp_path: Path) -> None:
    both = save_constant_detector(tmp_path / 'maps.onnx', {'maps': np.zeros((1, 17, 64, 64), np.float32)})
    assert run(both, '--source', picture) == 2
    out = tmp_path / 'out.json'
    assert run(both, '--source', picture, '--skeleton', 'coco17', '--json', out) == 0
    assert json.loads(out.read_text())['task'] == 'pose'


@pytest.mark.parametrize('in_sidecar', [False, True])
def test_a_wrong_number_of_class_names_does_not_make_another_task(
    in_sidecar: bool, semantic: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--class-names', 'a', 'b']
    if in_sidecar:
        semantic.with_suffix('.yaml').write_text('class_names: [a, b]\n')
        options = []
    assert run(semantic, '--source', picture, *options) == 1
    assert 'expected 21 class names, as the model has classes, got 2' in capsys.readouterr().err


@pytest.mark.parametrize('in_sidecar', [False, True])
def test_a_decoder_that_nobody_knows_is_told_with_those_of_all_tasks(
    in_sidecar: bool, semantic: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--decoder', 'semantik']
    if in_sidecar:
        semantic.with_suffix('.yaml').write_text('decoder: semantik\n')
        options = []
    assert run(semantic, '--source', picture, *options) == 2
    said = capsys.readouterr().err
    assert "there is no decoder 'semantik'" in said and 'for detection' not in said
    for decoders in ('detection: ultralytics,', 'segmentation: ultralytics_seg,', 'pose: ultralytics_pose,'):
        assert decoders in said


def test_key_points_that_are_named_are_not_taken_for_others_and_leave_persons_what_they_are(
    pose: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    assert run(pose, '--source', picture, '--json', out) == 0
    assert 'taken for those of coco17' in ' '.join(capsys.readouterr().out.split())
    assert run(pose, '--source', picture, '--json', out, '--keypoints', *KEYPOINTS) == 0
    assert 'set keypoints' not in ' '.join(capsys.readouterr().out.split())
    report = json.loads(out.read_text())
    assert report['keypoints'] == KEYPOINTS
    assert [found['class_name'] for found in report['images'][0]['detections']] == ['person']


def test_the_boxes_of_a_pose_model_are_those_of_persons_too(
    pose: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'out.json'
    for options, name in (((), 'person'), (('--class-names', 'robot'), 'robot')):
        assert run(pose, '--source', picture, '--json', out, '--task', 'detection', *options) == 0
        (found,) = json.loads(out.read_text())['images'][0]['detections']
        assert found['class_name'] == name


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (['--keypoint-threshold', 0.5], 'keypoint_threshold: expected a model for pose, got'),
        (['--person-model-file-path', 'x.onnx'], 'person_model_file_path: expected a model for pose, got'),
        (['--skeleton', 'coco17'], 'skeleton: expected a model for pose, got'),
        (['--task', 'segmentation', '--keypoints', 'a'], 'task segmentation: it was asked for'),
        (['--keypoints', 'a', '--max-batch', 2], 'keypoints, max_batch: expected a model for pose, got'),
        (
            ['--task', 'pose', '--mask-threshold', 0.5],
            'mask_threshold: expected a model for seg',
        ),
    ],
)
@pytest.mark.parametrize('command', ['run', 'bench', 'demo'])
def test_options_that_only_models_of_another_task_have_are_refused(
    command: str,
    options: list[object],
    told: str,
    semantic: Path,
    picture: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [command, semantic, '--source', picture, *options]
    assert main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert told in said and str(semantic) in said
    if '--task' not in options:
        assert 'task segmentation: no other one can read what it answers' in said


def test_a_model_of_boxes_and_prototypes_is_a_segmentation_model(
    instances: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    assert run(instances, '--source', picture, '--json', out, '--task', 'pose') == 0  # it might be one
    assert run(instances, '--source', picture, '--json', out) == 0
    assert json.loads(out.read_text())['task'] == 'segmentation'
    assert open_pipeline(instances).spec.decoder == 'ultralytics_seg'
    capsys.readouterr()
    assert run(instances, '--source', picture, '--task', 'detection') == 0
    assert 'its masks are not; segmentation_node, on the command line --task seg' in capsys.readouterr().out


def test_it_is_said_where_a_model_can_be_read_for_several_tasks_and_nobody_says_one(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {'boxes': np.full((1, 7, 84), 0.1, np.float32), 'maps': np.full((1, 17, 8, 8), 0.5, np.float32)}
    model = save_constant_detector(tmp_path / 'both.onnx', both)
    told = 'task detection: it can be read for segmentation and pose too; --task says what it is for'
    assert run(model, '--source', picture) == 0
    assert f'note: {told}\n' in capsys.readouterr().out
    args = SimpleNamespace(task=None, source=None, **dict.fromkeys(given_names()))
    task, (note, unnamed) = readable_task(args, TaskParams(model_file_path=str(model)))
    assert (task, note) == ('detection', told) and 'does not name its classes' in unnamed
    assert run(model, '--source', picture, '--task', 'detection') == 0
    assert told not in capsys.readouterr().out


def given_names() -> list[str]:
    return [parameter.name for parameter in parameters(TaskParams)]


@pytest.mark.parametrize(('source', 'is_told'), [(None, False), ('synthetic', False), ('photos/', True)])
def test_models_of_drawn_scenes_are_told_where_they_get_other_pictures(source: str, is_told: bool) -> None:
    args = SimpleNamespace(task=None, source=source, **dict.fromkeys(given_names()))
    _, notes = readable_task(args, TaskParams(model_file_path=DEFAULT_MODEL))
    assert [note for note in notes if 'knows drawn scenes only' in note] == list(notes)
    assert bool(notes) == is_told


@pytest.mark.parametrize(
    ('name', 'task'),
    [
        ('heatmaps', 'pose'),
        ('upscaled_confs/BiasAdd:0', 'pose'),
        ('stage2/outHeatMaps', 'pose'),
        ('POSES', 'pose'),
        ('kpts2d', 'pose'),
        ('out.keypoints', 'pose'),
        ('segmentation', 'segmentation'),
        ('outMasks', 'segmentation'),
        ('class_scores', 'segmentation'),
        ('purpose', ''),
        ('composed', ''),
        ('transpose_12', ''),
        ('cheating', ''),
        ('disjoint', ''),
        ('unmasked', ''),
        ('subclass', ''),
        ('heat_mask', ''),  # both
    ],
)
def test_parts_of_the_names_of_outputs_tell_the_task_and_letters_within_them_do_not(
    name: str, task: str, picture: Path, tmp_path: Path
) -> None:
    maps = save_constant_detector(tmp_path / 'maps.onnx', {name: np.zeros((1, 17, 16, 16), np.float32)})
    out = tmp_path / 'out.json'
    assert run(maps, '--source', picture, '--json', out) == (0 if task else 2)
    assert not task or json.loads(out.read_text())['task'] == task


def test_options_of_the_task_of_a_model_are_taken(semantic: Path, pose: Path, picture: Path) -> None:
    assert run(semantic, '--source', picture, '--min-region-area', 0) == 0
    assert run(pose, '--source', picture, '--keypoint-threshold', 0.5) == 0


@pytest.mark.parametrize(
    ('options', 'names'),
    [
        ([], [str(number) for number in range(21)]),
        (['--class-names', *(f'class {number}' for number in range(21))], [f'class {n}' for n in range(21)]),
    ],
)
def test_the_report_of_a_segmentation_names_the_numbers_of_its_class_maps(
    options: list[str], names: list[str], semantic: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'out.json'
    assert run(semantic, '--source', picture, '--json', out, *options) == 0
    assert json.loads(out.read_text())['class_names'] == names


@pytest.mark.parametrize('command', ['run', 'compare', 'inspect'])
def test_what_a_warning_of_heat_maps_says_works_where_it_is_said(
    command: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = np.full((1, 17, 16, 16), 0.01, np.float32)
    maps[..., 5, 5] = 0.45
    model = save_constant_detector(tmp_path / 'maps.onnx', {'seg': maps})
    models = [model, model] if command == 'compare' else [model]
    pictures = [] if command == 'inspect' else ['--source', picture]
    asked = [command, *map(str, [*models, *pictures])]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert 'more like heat maps' in ' '.join((said.out + said.err).split())
    for way in (['--task', 'pose'], ['--decoder', 'semantic'], ['--class-names', *KEYPOINTS]):
        assert main([*asked, *way]) == 0
        said = capsys.readouterr()
        assert 'more like heat maps' not in ' '.join((said.out + said.err).split())
