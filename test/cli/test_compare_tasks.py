"""`compare` of models that answer masks, class maps or key points."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from compare_command import compare, report_of
from onnx import numpy_helper

from isaac_infer.cli.main import main
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from models import save_constant_detector, ultralytics_metadata, ultralytics_output

coco_masks = pytest.importorskip('pycocotools.mask')

DATA = Path(os.environ.get('ISAAC_INFER_TEST_DATA', ''))
needs_data = pytest.mark.skipif(
    not DATA.name or not DATA.is_dir(), reason='ISAAC_INFER_TEST_DATA names no folder with real networks'
)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
PHOTO = 'coco_000000000785'


def missed(report: dict[str, Any]) -> list[str]:
    return [check['what'] for check in report['checks'] if not check['holds']]


# ---- small networks made here --------------------------------------------------------------------


def save_painter(path: Path, labels: np.ndarray, *, classes: int = 3) -> Path:
    """Write a semantic network that says of every picture what is in a class map."""
    scores = 10 * np.eye(classes, dtype=np.float32)[labels].transpose(2, 0, 1)[None]
    names = ['background', 'cat', 'dog'][:classes]
    metadata = {'class_names': json.dumps(names), 'decoder': 'semantic', 'resize': 'stretch'}
    return save_constant_detector(path, {'output': scores}, metadata=metadata)


def save_poser(
    path: Path,
    *,
    off: float = 0.0,
    score: float = 0.9,
    points: int = 17,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a pose network that finds one person in every picture, with key points some pixels off."""
    boxes = ultralytics_output([(32, 32, 40, 40, 0, score)], classes=1)
    values = np.zeros((1, 3 * points, boxes.shape[2]), np.float32)
    values[0, 0::3], values[0, 1::3], values[0, 2::3] = 20 + off, 30, 0.9
    if metadata is None:
        metadata = {**ultralytics_metadata(['person']), 'task': 'pose', 'kpt_shape': f'[{points}, 3]'}
    return save_constant_detector(
        path, {'output0': np.concatenate((boxes, values), axis=1)}, metadata=metadata
    )


HALVES = np.repeat(np.uint8([[0, 1]]), 32, axis=1).repeat(64, axis=0)  # background, and cats at the right


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name in ('one.jpg', 'two.png'):
        assert cv2.imwrite(str(folder / name), np.full((64, 64, 3), 90, np.uint8))
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Class maps: a picture as the painter of halves paints it, and one of which half is not known."""
    folder = tmp_path / 'labels'
    folder.mkdir()
    for name, right in (('one.png', 1), ('two.png', 255)):
        assert cv2.imwrite(str(folder / name), np.where(HALVES, np.uint8(right), np.uint8(0)))
    return folder


def test_semantic_models_are_measured_by_equal_pixels_and_miou(
    pictures: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = save_painter(tmp_path / 'right.onnx', HALVES)
    mixed = HALVES.copy()
    mixed[:16, 32:] = 2  # a quarter of the cats are taken for dogs
    wrong = save_painter(tmp_path / 'wrong.onnx', mixed)
    report = report_of(1, tmp_path, right, right, wrong, '--source', pictures, '--truth', labels)
    assert (report['task'], report['measured'], report['pictures_with_truth']) == (
        'segmentation',
        'pixels',
        2,
    )
    usual, same, other = report['variants']
    assert usual['score'] == same['score'] == {'accuracy': 1, 'miou': 1}
    assert same['agreement']['share'] == same['agreement']['mean_iou'] == 1
    # 512 of 4096 pixels of each picture; background 1, cats 1536 of 2048, dogs 0 of 512.
    assert other['agreement']['share'] == 7 / 8
    assert other['agreement']['mean_iou'] == pytest.approx((1 + 3 / 4 + 0) / 3)
    assert other['agreement']['worst_iou'] == 0
    # Half of the second picture does not count: 512 of 6144.
    assert other['score'] == pytest.approx({'accuracy': 11 / 12, 'miou': (1 + 3 / 4 + 0) / 3})
    assert missed(report) == ['equal', 'class IoU, mean', 'loss of mIoU']
    assert not any(check['what'] == 'extra objects' for check in report['checks'])
    shown = capsys.readouterr().out
    for text in ('mIoU', 'equal', 'class'):
        assert text in shown


@pytest.mark.parametrize(
    ('option', 'limit', 'what'),
    [
        ('--min-iou', 0.8, 'class IoU of the worst class'),
        ('--min-mean-iou', 0.8, 'class IoU, mean'),
        ('--max-score-difference', 1, 'score difference of the worst pair'),  # nobody measured it
    ],
)
def test_thresholds_that_are_asked_for_of_semantic_models_are_checked(
    option: str, limit: float, what: str, pictures: Path, tmp_path: Path
) -> None:
    shifted = np.roll(HALVES, 8, axis=1)
    models = [save_painter(tmp_path / f'{at}.onnx', each) for at, each in enumerate((HALVES, shifted))]
    anything = '--min-agreement', 0, '--min-mean-iou', 0, option, limit
    assert missed(report_of(1, tmp_path, *models, '--source', pictures, *anything)) == [what]


def test_pixels_of_the_background_do_not_hide_that_the_rest_is_lost(pictures: Path, tmp_path: Path) -> None:
    cat, half_of_it = np.zeros((2, 64, 64), np.uint8)
    cat[:10, :10] = 1
    half_of_it[:10, :5] = 1
    models = [save_painter(tmp_path / f'{at}.onnx', each) for at, each in enumerate((cat, half_of_it))]
    report = report_of(1, tmp_path, *models, '--source', pictures)
    assert report['variants'][1]['agreement']['share'] > 0.98
    assert missed(report) == ['class IoU, mean']
    assert report_of(0, tmp_path, *models, '--source', pictures, '--min-mean-iou', 0.7)['holds']


def test_class_maps_are_compared_whole(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [save_painter(tmp_path / f'{at}.onnx', each) for at, each in enumerate((HALVES, HALVES | 1))]
    report = report_of(1, tmp_path, *models, '--source', pictures)
    assert report['variants'][1]['agreement']['share'] == 0.5
    assert compare(*models, '--source', pictures, '--class-filter', 'cat') == 2
    assert (
        'class_filter: expected none, because class maps are compared as a whole' in capsys.readouterr().err
    )


def test_a_model_for_another_task_is_out_with_one_error(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painter, poser = save_painter(tmp_path / 'painter.onnx', HALVES), save_poser(tmp_path / 'poser.onnx')
    assert compare(painter, poser, poser, '--source', pictures) == 1
    printed = capsys.readouterr()
    why = "it was made for the task 'pose', which gives no segmentation"
    first, second = printed.err.splitlines()
    assert first.startswith(f'isaac-infer: error: {poser}: {why}; expected a model for ')
    assert second == f'isaac-infer: error: {poser}: {why}'  # what helps is the same
    assert why not in printed.out and 'failed' in printed.out


def test_a_model_of_which_a_detector_reads_the_boxes_alone_is_what_it_is(
    pictures: Path, tmp_path: Path
) -> None:
    poser = save_poser(tmp_path / 'poser.onnx', metadata={})
    report = report_of(0, tmp_path, poser, '--source', pictures)
    assert (report['task'], report['measured']) == ('pose', 'poses')
    assert 'task pose: for detection only its boxes are read' in report['notes'][0]


def test_the_class_maps_that_a_run_saved_are_the_truth_of_a_comparison(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / 'one.jpg').rename(pictures / 'picture one.jpg')  # saved without its space
    painter = save_painter(tmp_path / 'painter.onnx', HALVES)
    saved = tmp_path / 'saved'
    assert main(['run', str(painter), '--source', str(pictures), '--save', str(saved)]) == 0
    shifted = save_painter(tmp_path / 'shifted.onnx', np.roll(HALVES, 8, axis=1))
    for model, accuracy in ((painter, 1), (shifted, 0.75)):
        report = report_of(0, tmp_path, model, '--source', pictures, '--truth', saved)
        assert report['pictures_with_truth'] == 2
        assert report['variants'][0]['score']['accuracy'] == accuracy
    # A class map under the picture's own name is no annotated picture, and comes first.
    cv2.imwrite(str(saved / 'two.png'), 1 - HALVES)
    report = report_of(0, tmp_path, painter, '--source', pictures / 'two.png', '--truth', saved)
    assert report['variants'][0]['score']['accuracy'] == 0


def test_what_was_asked_of_class_maps_and_is_not_there_is_refused(
    pictures: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painter = save_painter(tmp_path / 'painter.onnx', HALVES)
    poser = save_poser(tmp_path / 'poser.onnx')
    usual = '--source', pictures, '--truth'
    coco = tmp_path / 'truth.json'
    image = {'id': 1, 'file_name': 'one.jpg'}
    coco.write_text(json.dumps({'images': [image], 'annotations': [], 'categories': []}))
    for arguments, complaint in (
        ((painter, *usual, coco), 'expected a folder of class maps'),
        ((poser, *usual, labels), 'expected a file, got a folder'),
        ((poser, *usual, coco), 'expected keypoints in a category or annotation, got none'),
        ((painter, '--task', 'depth', '--source', pictures), 'task: expected one of detection, segmentation'),
        ((painter, '--source', 'synthetic', '--scenes', 1), 'class_names: expected some of background, mug'),
    ):
        assert compare(*arguments) == 2
        assert complaint in capsys.readouterr().err
    assert cv2.imwrite(str(labels / 'two.png'), np.full((64, 64), 3, np.uint8))
    assert compare(painter, *usual, labels) == 2
    assert 'expected classes from 0 to 2, or 255 where it does not count, got 3' in capsys.readouterr().err
    (labels / 'two.png').unlink()
    assert compare(painter, *usual, labels) == 2
    assert (
        'such as two.png, or two.labels.png as run --save writes it; none for two.png'
        in capsys.readouterr().err
    )


def test_a_model_that_several_tasks_can_read_asks_which(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = np.zeros((1, 16, 64, 64), np.float32)
    model = save_constant_detector(tmp_path / 'maps.onnx', {'output': maps})
    assert compare(model, '--source', pictures) == 2
    assert 'can be read for segmentation and pose; say what it is for' in capsys.readouterr().err
    for option, measured in (
        (('--task', 'segmentation'), 'pixels'),
        (('--decoder', 'semantic'), 'pixels'),
        (('--decoder', 'heatmaps', '--confidence-threshold', 0), 'poses'),
    ):
        assert report_of(0, tmp_path, model, '--source', pictures, *option)['measured'] == measured


def test_poses_are_paired_by_their_key_points(pictures: Path, tmp_path: Path) -> None:
    usual, near, far = (
        save_poser(tmp_path / f'{off:g}.onnx', off=off, score=0.9 - off / 100) for off in (0.0, 1.0, 40.0)
    )
    report = report_of(1, tmp_path, usual, near, far, '--source', pictures)
    assert (report['task'], report['measured']) == ('pose', 'poses')
    _, close, wrong = (variant['agreement'] for variant in report['variants'])
    assert (close['found'], close['extra']) == (2, 0)
    assert 0.9 < close['mean_iou'] < 1
    assert close['worst_score_difference'] == pytest.approx(0.01, abs=1e-6)
    assert (wrong['found'], wrong['extra']) == (0, 2)
    assert missed(report) == ['found again', 'extra objects']


@pytest.mark.parametrize('source', ['synthetic', 'synthetic:humanoids'])
def test_drawn_scenes_bring_key_points(source: str, tmp_path: Path) -> None:
    seeds = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + 12)
    scenes = [draw_scene(seed, humanoids=True) for seed in seeds]
    assert sum(int((scene.keypoints[..., 2] > 0).any(axis=1).sum()) for scene in scenes) > 24
    model = save_poser(tmp_path / 'poser.onnx')
    report = report_of(0, tmp_path, model, '--source', source, '--scenes', 12)
    assert report['pictures_with_truth'] == 12
    assert report['variants'][0]['score'] == {'ap50': 0, 'ap50_95': 0}  # it says the same of all


def test_models_that_answer_different_things_are_not_compared(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painter = save_painter(tmp_path / 'painter.onnx', HALVES)
    boxes = np.concatenate((ultralytics_output([], classes=1), np.zeros((1, 4, 84), np.float32)), axis=1)
    metadata = {**ultralytics_metadata(['thing']), 'task': 'segment'}
    outputs = {'output0': boxes, 'output1': np.zeros((1, 4, 16, 16), np.float32)}
    segmenter = save_constant_detector(tmp_path / 'segmenter.onnx', outputs, metadata=metadata)
    assert compare(painter, segmenter, '--source', pictures) == 2
    assert 'expected pixels, as the first' in capsys.readouterr().err
    posers = [save_poser(tmp_path / f'{points}.onnx', points=points) for points in (17, 5)]
    assert compare(*posers, '--source', pictures) == 2
    assert 'keypoints: expected those of the first model, nose, ' in capsys.readouterr().err


# ---- real networks -------------------------------------------------------------------------------


def human() -> dict[str, Any]:
    annotation: dict[str, Any] = json.loads((DATA / 'images' / f'{PHOTO}.json').read_text())['objects'][0]
    return annotation


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    folder = tmp_path / 'photo'
    folder.mkdir()
    (folder / f'{PHOTO}.jpg').symlink_to(DATA / 'images' / f'{PHOTO}.jpg')
    return folder


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    known = human()
    annotation = {
        'image_id': 785,
        'category_id': 1,
        'bbox': known['box_xywh'],
        'area': known['area'],
        'segmentation': known['polygon'],
        'keypoints': known['keypoints_coco17_xyv'],
    }
    place = tmp_path / 'truth.json'
    image = {'id': 785, 'file_name': f'{PHOTO}.jpg', 'width': 640, 'height': 425}
    person = {'id': 1, 'name': 'person'}
    place.write_text(json.dumps({'images': [image], 'categories': [person], 'annotations': [annotation]}))
    return place


def network(name: str) -> Path:
    return DATA / 'models' / name / 'model.onnx'


def truth_mask() -> np.ndarray:
    outlines = coco_masks.frPyObjects(human()['polygon'], 425, 640)
    return np.asarray(coco_masks.decode(outlines)).max(axis=2)


def save_perturbed(name: str, path: Path, *, noise: float) -> Path:
    random = np.random.default_rng(0)
    model = onnx.load(network(name))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            wrong = values * (1 + noise * random.standard_normal(values.shape))
            tensor.CopyFrom(numpy_helper.from_array(wrong.astype(values.dtype), tensor.name))
    onnx.save(model, path)
    return path


@needs_data
def test_the_masks_of_a_real_network_score_what_their_overlap_with_the_human_s_is(
    photo: Path, annotated: Path, tmp_path: Path
) -> None:
    name = 'yolov8n_seg_320_coco'
    broken = save_perturbed(name, tmp_path / 'broken.onnx', noise=0.5)
    report = report_of(1, tmp_path, network(name), broken, '--source', photo, '--truth', annotated)
    assert (report['task'], report['measured']) == ('segmentation', 'masks')
    reference = DATA / 'models' / name / 'refs'
    (person,) = (
        at
        for at, found in enumerate(json.loads((reference / f'{PHOTO}.json').read_text())['detections'])
        if found['class_id'] == 0
    )
    stored = np.load(reference / f'{PHOTO}.masks.npz')
    _, height, width = stored['shape']
    found = np.unpackbits(stored['masks'], axis=1)[person, : height * width].reshape(height, width) > 0
    known = truth_mask() > 0
    iou = (found & known).sum() / (found | known).sum()
    score = report['variants'][0]['score']
    assert score == pytest.approx({'ap50': 1, 'ap50_95': (iou >= THRESHOLDS).mean()})
    assert report['variants'][1]['score']['ap50_95'] < score['ap50_95']
    assert 'found again' in missed(report) and 'loss of mask mAP50-95' in missed(report)


@needs_data
def test_the_key_points_of_a_real_network_score_what_their_similarity_to_the_human_s_is(
    photo: Path, annotated: Path, tmp_path: Path
) -> None:
    from pycocotools.cocoeval import Params

    name = 'yolov8n_pose_320'
    broken = save_perturbed(name, tmp_path / 'broken.onnx', noise=0.5)
    usual = network(name), broken, '--task', 'pose'
    report = report_of(1, tmp_path, *usual, '--source', photo, '--truth', annotated)
    reference = json.loads((DATA / 'models' / name / 'refs' / f'{PHOTO}.json').read_text())['detections'][0]
    known = np.reshape(human()['keypoints_coco17_xyv'], (-1, 3))
    off = np.square(np.array(reference['keypoints_xyv'])[:, :2] - known[:, :2]).sum(axis=1)
    variance = (2 * Params(iouType='keypoints').kpt_oks_sigmas) ** 2
    oks = np.exp(-off / (2 * human()['area'] * variance))[known[:, 2] > 0].mean()
    score = report['variants'][0]['score']
    assert score == pytest.approx({'ap50': 1, 'ap50_95': (oks >= THRESHOLDS).mean()})
    assert 'loss of OKS mAP50-95' in missed(report)


@needs_data
def test_the_class_maps_of_a_real_network_score_what_their_overlap_with_the_human_s_is(
    photo: Path, tmp_path: Path
) -> None:
    name = 'deeplab_v3_mnv2_257_voc'
    labels = tmp_path / 'labels'
    labels.mkdir()
    known = 15 * truth_mask()  # VOC's person
    assert cv2.imwrite(str(labels / f'{PHOTO}.png'), known)
    several = '--precisions', 'fp16', '--backends', 'onnxruntime'
    report = report_of(0, tmp_path, network(name), *several, '--source', photo, '--truth', labels)
    assert (report['task'], report['measured']) == ('segmentation', 'pixels')
    found = cv2.imread(str(DATA / 'models' / name / 'refs' / f'{PHOTO}.labels.png'), cv2.IMREAD_UNCHANGED)
    found = cv2.resize(found, (640, 425), interpolation=cv2.INTER_NEAREST)
    classes = np.union1d(found, known)
    overlaps = [
        ((found == at) & (known == at)).sum() / ((found == at) | (known == at)).sum() for at in classes
    ]
    usual, half = report['variants']
    # The reference results were interpolated in other steps.
    assert usual['score']['miou'] == pytest.approx(np.mean(overlaps), abs=0.01)
    assert usual['score']['accuracy'] == pytest.approx((found == known).mean(), abs=0.005)
    assert 0.999 < half['agreement']['share'] < 1


@needs_data
def test_the_other_precisions_of_a_real_segmenter_are_fed_as_it_is(photo: Path, tmp_path: Path) -> None:
    several = '--precisions', 'fp32,int8', '--backends', 'onnxruntime', '--calibration-path', photo
    anything = '--min-agreement', 0, '--min-mean-iou', 0
    model = network('deeplab_v3_mnv2_257_voc')
    report = report_of(0, tmp_path, model, *several, '--source', photo, *anything)
    assert not report['variants'][1]['failure']
    assert 0.5 < report['variants'][1]['agreement']['share'] < 1
