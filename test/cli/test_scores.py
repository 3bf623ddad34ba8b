"""Scores and truth, beside pycocotools and numbers worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.cli.scores import (
    BOXES,
    MASKS,
    PIXELS,
    POSES,
    check_kinds,
    measure_of,
    shared_keypoints,
    truth_classes,
)
from isaac_infer.cli.truth import Known, Truth, known_of_scene, read_maps, read_truth, rle_of, scenes_truth
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.oks import sigmas_of
from isaac_infer.core.results import Detections, Poses, Segmentation, no_detections
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.skeleton import SKELETONS
from isaac_infer.core.spec import ImageSpec, ModelSpec

coco_masks = pytest.importorskip('pycocotools.mask')

SIZE_HW = 40, 50
FULL_MARKS = pytest.approx({'ap50': 1, 'ap50_95': 1})
COCO17 = SKELETONS['coco17'].keypoints


def spec_of(task: str, decoder: str, names: tuple[str, ...], keypoints: tuple[str, ...] = ()) -> ModelSpec:
    image = ImageSpec('image', (64, 64))
    return ModelSpec(task, decoder, image, ('out',), names, len(names), keypoints=keypoints)


SEGMENTER = spec_of('segmentation', 'ultralytics_seg', ('cat', 'dog'))
PAINTER = spec_of('segmentation', 'semantic', ('background', 'cat', 'dog'))
POSER = spec_of('pose', 'ultralytics_pose', ('person',), COCO17)


def one_object(left: float, top: float, right: float, bottom: float, class_id: int = 0) -> Detections:
    return Detections(
        np.array([[left, top, right, bottom]], np.float32),
        np.array([0.9], np.float32),
        np.array([class_id], np.int32),
    )


def score_of(measure: Any, spec: ModelSpec, truth: Truth, found: Any, known: Known) -> Any:
    scoring = measure.scoring(spec, spec, truth)
    scoring.add(known, found)
    return scoring.score()


# ---- which measure -------------------------------------------------------------------------------


def test_what_a_model_answers_says_how_it_is_measured() -> None:
    detector = spec_of('detection', 'ultralytics', ('cat',))
    specs = (detector, SEGMENTER, PAINTER, POSER)
    assert [measure_of(spec) for spec in specs] == [BOXES, MASKS, PIXELS, POSES]


@pytest.mark.parametrize(
    ('truth', 'measure', 'complaint'),
    [
        (Truth(()), PIXELS, 'a folder of class maps'),
        (Truth((), maps={}), MASKS, 'JSON in the form of COCO, because the model answers masks'),
        (Truth((), maps={}), POSES, 'JSON in the form of COCO, because the model answers poses'),
    ],
)
def test_truth_of_another_kind_is_refused(truth: Truth, measure: Any, complaint: str) -> None:
    with pytest.raises(ParameterError, match=complaint):
        check_kinds(truth, measure, 'x')


# ---- masks ---------------------------------------------------------------------------------------


@given(st.integers(0, 9999))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 12, 2).tolist()
    top, left = int(random.integers(height)), int(random.integers(width))
    shape = int(random.integers(1, height - top + 1)), int(random.integers(1, width - left + 1))
    mask = random.random(shape) < random.choice([0, 0.3, 0.9, 1])
    whole = np.zeros((height, width), np.uint8, order='F')
    whole[top : top + shape[0], left : left + shape[1]] = mask
    assert rle_of(mask, (left, top), (height, width)) == coco_masks.encode(whole)


def write(place: Path, **changed: Any) -> Path:
    annotation = {
        'image_id': 1,
        'category_id': 3,
        'bbox': [10, 10, 20, 20],
        'segmentation': [[10, 10, 30, 10, 30, 30, 10, 30]],
        'keypoints': [10, 20, 2] * 17,
        'area': 400,
    }
    document: dict[str, Any] = {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': SIZE_HW[0], 'width': SIZE_HW[1]}],
        'categories': [{'id': 3, 'name': 'cat'}],
    }
    for key, value in changed.items():
        part: Any = document if key in document else document['images'][0] if key == 'width' else annotation
        part[key] = value
        if value is None:
            del part[key]
    place.write_text(json.dumps({**document, 'annotations': [annotation]}))
    return place


def test_a_mask_that_covers_four_fifths_of_a_square_has_the_precision_of_an_overlap_of_0_8(
    tmp_path: Path,
) -> None:
    truth = read_truth(write(tmp_path / 'truth.json'), task='segmentation')
    known = truth.known('a.png', 0, SIZE_HW)
    assert known is not None
    found = Segmentation(one_object(10, 10, 30, 30), (np.arange(400).reshape(20, 20) < 320,))
    # Of the thresholds 0.50, 0.55, ..., 0.95 an overlap of 0.8 passes the first seven.
    assert score_of(MASKS, SEGMENTER, truth, found, known) == pytest.approx({'ap50': 1, 'ap50_95': 0.7})
    whole = Segmentation(one_object(10, 10, 30, 30), (np.ones((20, 20), bool),))
    assert score_of(MASKS, SEGMENTER, truth, whole, known) == FULL_MARKS
    dog = Segmentation(one_object(10, 10, 30, 30, class_id=1), (np.ones((20, 20), bool),))
    assert score_of(MASKS, SEGMENTER, truth, dog, known) == {'ap50': 0, 'ap50_95': 0}
    nothing = Segmentation(no_detections(), ())
    assert score_of(MASKS, SEGMENTER, truth, nothing, known) == {'ap50': 0, 'ap50_95': 0}


def test_polygons_and_run_lengths_of_any_form_are_one_mask(tmp_path: Path) -> None:
    mask = np.zeros(SIZE_HW, np.uint8, order='F')
    mask[10:30, 10:30] = 1
    random = np.random.default_rng(1).random(SIZE_HW) < 0.4  # many runs, that shrink and grow
    runs = coco_masks.encode(np.asfortranarray(random.astype(np.uint8)))
    changes = np.flatnonzero(np.diff(mask.reshape(-1, order='F'), prepend=0, append=0)).tolist()
    counts = np.diff([0, *changes, mask.size]).tolist()
    for segmentation, wanted in (
        ([[10, 10, 30, 10, 30, 30, 10, 30]], mask),
        ([[10, 10, 20, 10, 20, 30, 10, 30], [20, 10, 30, 10, 30, 30, 20, 30]], mask),
        ({'size': list(SIZE_HW), 'counts': counts}, mask),
        ({'size': list(SIZE_HW), 'counts': runs['counts'].decode()}, random),
    ):
        place = write(tmp_path / 'truth.json', segmentation=segmentation)
        known = read_truth(place, task='segmentation').known('a.png', 5, SIZE_HW)
        assert known is not None
        assert known.objects[0]['image_id'] == 5
        np.testing.assert_array_equal(coco_masks.decode(known.objects[0]['segmentation']), wanted)


@pytest.mark.parametrize(
    ('changed', 'complaint'),
    [
        ({'segmentation': None}, "annotation 1: expected 'segmentation'"),
        ({'segmentation': []}, 'annotation 1: expected segmentation as polygons'),
        ({'segmentation': [[1, 2, 3, 4]]}, 'got [[1, 2, 3, 4]]'),
        ({'segmentation': [[1, 2, 3, 4, 5, 6, 7]]}, 'expected segmentation as polygons'),
        ({'segmentation': [[1, 2, 3, 4, 5, math.nan]]}, 'NaN'),
        ({'segmentation': [[1, 2, 3, 4, 5, 10**400]]}, 'expected segmentation as polygons'),
        ({'segmentation': [[0, 0, 1e9, 0, 1e9, 1e9]]}, 'a polygon is far outside the picture, 50x40'),
        ({'segmentation': [[0, 0, 90, 70] * 40000]}, 'expected outlines of at most 4194304 pixels, got 12'),
        ({'segmentation': {'size': [40, 50], 'counts': [10, -1]}}, 'expected segmentation as polygons'),
        ({'segmentation': {'size': [40, 50], 'counts': 'ooooooooo'}}, 'expected segmentation as polygons'),
        ({'segmentation': {'size': [40, 50], 'counts': [10, 20]}}, 'counts of 30 pixels'),
        ({'segmentation': {'size': [50, 40], 'counts': [2000]}}, 'got size [50, 40]'),
        ({'segmentation': {'size': [1 << 40, 1 << 40], 'counts': [1 << 80]}}, 'expected a mask of size'),
        ({'width': 51}, 'expected a picture of 51x40, got 50x40'),
        ({'width': 'x' * 999}, 'expected a picture of "xxx'),
    ],
)
def test_masks_that_are_none_are_refused(changed: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as raised:
        read_truth(write(tmp_path / 'truth.json', **changed), task='segmentation').known('a.png', 0, SIZE_HW)
    assert complaint in str(raised.value)
    assert len(str(raised.value)) < 500


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=40))
def test_no_text_of_run_lengths_does_harm(text: str) -> None:
    from isaac_infer.cli.truth import _outline

    try:
        outline = _outline({'size': [4, 4], 'counts': text})
    except ValueError:
        return
    assert all(count >= 0 for count in outline['counts'])


# ---- key points ----------------------------------------------------------------------------------


def poses(xy: np.ndarray) -> Poses:
    return Poses(one_object(10, 10, 30, 30), xy[None].astype(np.float32), np.ones((1, len(xy)), np.float32))


def test_coco_s_sigmas_are_its_own() -> None:
    from pycocotools.cocoeval import Params

    np.testing.assert_allclose(sigmas_of(COCO17), Params(iouType='keypoints').kpt_oks_sigmas)


def test_key_points_that_are_off_have_the_precision_of_their_similarity(tmp_path: Path) -> None:
    truth = read_truth(write(tmp_path / 'truth.json', keypoints=[20, 20, 2] + [0, 0, 0] * 16), task='pose')
    known = truth.known('a.png', 0, SIZE_HW)
    assert known is not None
    points = np.full((17, 2), 20.0)
    assert score_of(POSES, POSER, truth, poses(points), known) == FULL_MARKS
    # The nose alone counts: OKS = exp(-d^2 / (2 area (2 sigma)^2)); 0.72 passes five of the ten thresholds.
    points[0, 0] += math.sqrt(-math.log(0.72) * 2 * 400 * (2 * 0.026) ** 2)
    assert score_of(POSES, POSER, truth, poses(points), known) == pytest.approx({'ap50': 1, 'ap50_95': 0.5})
    points[0] = 45, 5
    assert score_of(POSES, POSER, truth, poses(points), known) == {'ap50': 0, 'ap50_95': 0}


def test_other_key_points_than_coco_s_have_sigmas_of_their_joints() -> None:
    names = 'pelvis', 'right_heel'
    truth = Truth(('person',), keypoints=names, num_keypoints=2)
    points = np.array([(20.0, 20.0), (25.0, 25.0)])
    entry = {'category_id': 0, 'bbox': [10, 10, 20, 20], 'area': 400, 'iscrowd': 0, 'image_id': 0}
    keypoints = {'keypoints': [20, 20, 2, 0, 0, 0], 'num_keypoints': 1}
    known = Known(0, SIZE_HW, [{**entry, **keypoints}])
    # As above, with 0.107 of a hip, because nobody measured a pelvis.
    points[0, 1] += math.sqrt(-math.log(0.72) * 2 * 400 * (2 * 0.107) ** 2)
    score = score_of(POSES, replace(POSER, keypoints=names), truth, poses(points), known)
    assert score == pytest.approx({'ap50': 1, 'ap50_95': 0.5})


def test_persons_without_any_key_point_are_not_looked_for(tmp_path: Path) -> None:
    truth = read_truth(write(tmp_path / 'truth.json', keypoints=[0, 0, 0] * 17), task='pose')
    known = truth.known('a.png', 0, SIZE_HW)
    assert known is not None
    assert score_of(POSES, POSER, truth, poses(np.full((17, 2), 20.0)), known) is None


def test_key_points_are_known_by_their_names() -> None:
    truth = Truth(('person',), keypoints=('c', 'x', 'a'), num_keypoints=3)
    assert shared_keypoints(('a', 'b', 'c'), truth) == ([2, 0], [0, 2])
    nameless = replace(truth, keypoints=())
    assert shared_keypoints(('a', 'b', 'c'), nameless) == ([0, 1, 2], [0, 1, 2])
    assert shared_keypoints(('0', '1', '2'), truth) == ([0, 1, 2], [0, 1, 2])
    for names, other in ((('d', 'e', 'f'), truth), (('a', 'b'), nameless)):
        with pytest.raises(ParameterError, match='keypoints: expected some of'):
            shared_keypoints(names, other)


def test_the_truth_may_have_its_key_points_in_another_order(tmp_path: Path) -> None:
    order = list(reversed(range(17)))
    points = np.random.default_rng(3).uniform(10, 30, (17, 2))
    values = np.column_stack((points, np.full(17, 2)))[order].reshape(-1).tolist()
    categories = [{'id': 3, 'name': 'human', 'keypoints': [COCO17[at] for at in order]}]
    truth = read_truth(write(tmp_path / 'truth.json', keypoints=values, categories=categories), task='pose')
    known = truth.known('a.png', 0, SIZE_HW)
    assert known is not None
    assert score_of(POSES, POSER, truth, poses(points), known) == FULL_MARKS


def test_categories_without_key_points_are_left_out(tmp_path: Path) -> None:
    categories = [{'id': 1, 'name': 'bus'}, {'id': 3, 'name': 'person', 'keypoints': list(COCO17)}]
    truth = read_truth(write(tmp_path / 'truth.json', categories=categories), task='pose')
    assert truth.class_names == ('person',)
    assert [entry['category_id'] for entry in truth.objects['a.png']] == [0]


@pytest.mark.parametrize(
    ('changed', 'complaint'),
    [
        ({'keypoints': None}, 'expected keypoints in a category or annotation, got none'),
        ({'keypoints': []}, 'annotation 1: expected keypoints as x, y and 0, 1 or 2'),
        ({'keypoints': [1, 2]}, 'got [1, 2]'),
        ({'keypoints': [1, 2, 3]}, 'got [1, 2, 3]'),
        ({'keypoints': [1, math.inf, 2]}, 'got [1, Infinity, 2]'),
        ({'keypoints': [1, '2', 2]}, 'got [1, "2", 2]'),
        ({'categories': [{'id': 3, 'name': 'x', 'keypoints': ['a', 'b']}]}, 'of 2 key points, finite'),
        (
            {
                'categories': [
                    {'id': 3, 'name': 'x', 'keypoints': ['a']},
                    {'id': 4, 'name': 'y', 'keypoints': []},
                ]
            },
            'expected the same keypoints in all categories',
        ),
    ],
)
def test_key_points_that_are_none_are_refused(
    changed: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError) as raised:
        read_truth(write(tmp_path / 'truth.json', **changed), task='pose')
    assert complaint in str(raised.value)
    assert len(str(raised.value)) < 500


# ---- class maps ----------------------------------------------------------------------------------


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """The class map of a picture: a row of background, one of cats, one of dogs, one that nobody knows."""
    folder = tmp_path / 'labels'
    folder.mkdir()
    assert cv2.imwrite(str(folder / 'a.png'), np.repeat(np.uint8([[0], [1], [2], [255]]), 4, axis=1))
    return folder


def painted(rows: list[list[int]]) -> Segmentation:
    return Segmentation(no_detections(), (), np.array(rows, np.uint8))


def test_class_maps_are_scored_by_the_overlap_of_their_classes(labels: Path) -> None:
    truth = read_maps(labels, [Path('pictures/a.jpg')])
    known = truth.known('pictures/a.jpg', 0, (4, 4))
    assert known is not None
    right = painted([[0] * 4, [1] * 4, [2] * 4, [1] * 4])
    assert score_of(PIXELS, PAINTER, truth, right, known) == {'accuracy': 1, 'miou': 1}
    # Background 4 of 4; cats 2 of 4; dogs 4 of 6.
    wrong = painted([[0] * 4, [1, 1, 2, 2], [2] * 4, [0] * 4])
    score = score_of(PIXELS, PAINTER, truth, wrong, known)
    assert score == pytest.approx({'accuracy': 10 / 12, 'miou': (1 + 1 / 2 + 2 / 3) / 3})
    # What the network does not see is wrong, but no class of its own: background 4, cats 4, dogs 2 of 4.
    unseen = painted([[0] * 4, [1] * 4, [2, 2, 255, 255], [0] * 4])
    score = score_of(PIXELS, PAINTER, truth, unseen, known)
    assert score == pytest.approx({'accuracy': 10 / 12, 'miou': (1 + 1 + 1 / 2) / 3})


def test_a_variant_with_its_classes_in_another_order_is_judged_by_their_names(labels: Path) -> None:
    truth = read_maps(labels, [Path('a.jpg')])
    known = truth.known('a.jpg', 0, (4, 4))
    assert known is not None
    other = replace(PAINTER, class_names=('dog', 'cat', 'background'))
    scoring = PIXELS.scoring(other, PAINTER, truth)
    scoring.add(known, painted([[2] * 4, [1] * 4, [0] * 4, [1] * 4]))
    assert scoring.score() == {'accuracy': 1, 'miou': 1}


def test_nothing_that_counts_has_no_score(labels: Path) -> None:
    known = Known(0, (1, 2), class_map=np.full((1, 2), 255, np.uint8))
    assert score_of(PIXELS, PAINTER, Truth((), maps={}), painted([[0, 0]]), known) is None


def test_class_maps_of_two_bytes_are_read_where_their_numbers_fit_one(labels: Path) -> None:
    wide = np.array([[0, 1], [2, 65535]], np.uint16)
    cv2.imwrite(str(labels / 'a.png'), wide)
    truth = replace(read_maps(labels, [Path('a.jpg')]), num_classes=3)
    assert truth.known('a.jpg', 0, (2, 2)).class_map.tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize(
    ('picture', 'complaint'),
    [
        (None, 'cannot be read as a picture'),
        (
            np.zeros((4, 4, 3), np.uint8),
            'expected grey, the number of the class in each pixel, below 255, got 3 channels',
        ),
        (np.full((4, 4), 300, np.uint16), 'below 255, got uint16'),
        (np.zeros((3, 4), np.uint8), 'expected the size of its picture, 4x4, got 4x3'),
        (np.full((4, 4), 3, np.uint8), 'expected classes from 0 to 2, or 255 where it does not count, got 3'),
    ],
)
def test_class_maps_that_are_none_are_refused(
    picture: np.ndarray | None, complaint: str, labels: Path
) -> None:
    if picture is None:
        (labels / 'a.png').write_bytes(b'no picture')
    else:
        cv2.imwrite(str(labels / 'a.png'), picture)
    truth = replace(read_maps(labels, [Path('a.jpg')]), num_classes=3)
    with pytest.raises(ParameterError) as raised:
        truth.known('a.jpg', 0, (4, 4))
    assert complaint in str(raised.value)


def test_every_picture_needs_its_class_map(labels: Path) -> None:
    with pytest.raises(ParameterError, match=r'b.png, or b.labels.png .* for b.jpg, c.jpg, d.jpg and 1 more'):
        read_maps(labels, [Path(f'{name}.jpg') for name in 'abcde'])
    with pytest.raises(ParameterError, match='got one of them twice'):
        read_maps(labels, [Path('a.jpg'), Path('a.png')])
    with pytest.raises(ParameterError, match='cannot be read: No such file'):
        read_maps(labels / 'nowhere', [])


# ---- drawn scenes --------------------------------------------------------------------------------


def test_the_truth_of_a_scene_scores_full_marks() -> None:
    scene = draw_scene(3)
    count = len(scene.class_id)
    sure = np.linspace(0.9, 0.5, count).astype(np.float32)
    found = Detections(scene.boxes_xyxy, sure, scene.class_id)
    parts = [
        scene.instance_map[int(top) : int(bottom), int(left) : int(right)] == number
        for number, (left, top, right, bottom) in enumerate(scene.boxes_xyxy, 1)
    ]
    names = scenes_truth('masks').class_names
    painting = np.array([0, *scene.class_id + 1], np.uint8)[scene.instance_map]
    figurines = np.flatnonzero(scene.class_id == names.index('figurine'))
    assert len(figurines)
    statues = Poses(
        found[figurines], scene.keypoints[figurines, :, :2], np.ones((len(figurines), 17), np.float32)
    )
    person = known_of_scene(scene, 0, 'poses').objects[0]
    assert person['area'] == parts[figurines[0]].sum() < person['bbox'][2] * person['bbox'][3]
    for measure, spec, answer in (
        (BOXES, spec_of('detection', 'ultralytics', names), found),
        (MASKS, replace(SEGMENTER, class_names=names), Segmentation(found, tuple(parts))),
        (
            PIXELS,
            spec_of('segmentation', 'semantic', ('__background__', *names)),
            Segmentation(no_detections(), (), painting),
        ),
        (POSES, replace(POSER, class_names=('figurine', *names)), statues),
    ):
        known = known_of_scene(scene, 0, measure.kind)
        if measure is POSES:
            answer = Poses(
                replace(statues.persons, class_id=np.zeros(len(figurines), np.int32)),
                statues.xy,
                statues.score,
            )
        score = score_of(measure, spec, scenes_truth(measure.kind), answer, known)
        assert list(score.values()) == pytest.approx([1, 1])


def test_classes_are_known_by_name_or_by_number_and_have_to_be_some() -> None:
    truth = Truth(('dog', 'cow', 'cat'))
    assert truth_classes(SEGMENTER, SEGMENTER, truth) == {0: 2, 1: 0}
    nameless = replace(SEGMENTER, class_names=(), num_classes=3)
    assert truth_classes(nameless, nameless, truth) == {0: 0, 1: 1, 2: 2}
    with pytest.raises(ParameterError, match='expected some of bus, got cat, dog'):
        truth_classes(SEGMENTER, SEGMENTER, Truth(('bus',)))
