"""Every pose decoder, on outputs written by hand for a picture of odd size."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from core.decode.pose_layouts import (
    COCO_METADATA,
    LAYOUTS,
    SIZE_HW,
    SOURCE_HW,
    Layout,
    Person,
    end2end,
    fit_for,
    standing,
    tensor_specs,
    ultralytics,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiling import spoil

from isaac_infer.core.decode import heatmaps
from isaac_infer.core.decode.heatmaps import Peaks
from isaac_infer.core.decode.pose import DECODERS, probe
from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.errors import IsaacInferError, ModelError, SessionError, TensorError
from isaac_infer.core.results import Detections, Poses
from isaac_infer.core.spec import Limits, ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec

NAMES = sorted(LAYOUTS)
MANY = [name for name in NAMES if LAYOUTS[name].many]
SCORED = [name for name in NAMES if LAYOUTS[name].has_scores]
TALL, WIDE = (60.0, 20.0, 190.0, 310.0), (300.0, 40.0, 440.0, 300.0)  # source pixels
PLAIN = Limits()
DATA = Path(os.environ.get('ISAAC_INFER_TEST_DATA', ''))


def settled(name: str) -> ModelSpec:
    return probe(LAYOUTS[name].encode(()), LAYOUTS[name].spec())


def seen(person: Person, spec: ModelSpec) -> Person:
    """The same person in network pixels."""
    return replace(person, xy=fit_for(spec).to_network(person.xy))


def decode(name: str, *persons: Person, limits: Limits = PLAIN) -> Poses:
    spec = settled(name)
    outputs = LAYOUTS[name].encode([seen(person, spec) for person in persons])
    return DECODERS[spec.decoder](outputs, fit_for(spec), spec, limits)


def source_tolerance(name: str) -> float:
    spec = settled(name)
    return LAYOUTS[name].tolerance / min(fit_for(spec).scale_xy)


def some_person(name: str, box: tuple[float, ...] = TALL, score: float = 0.75) -> Person:
    return standing(box, settled(name).keypoints, score)


def test_every_decoder_has_a_layout_here():
    assert {name.split()[0] for name in LAYOUTS} == set(DECODERS)


@pytest.mark.parametrize('name', NAMES)
def test_every_layout_is_recognised_without_help(name):
    spec = settled(name)
    assert spec.decoder == name.split()[0]
    assert len(spec.keypoints) == LAYOUTS[name].keypoints
    assert spec.keypoint_values == (3 if LAYOUTS[name].has_scores else 2)
    assert spec.box_unit == ('normalised' if 'normalised' in name or 'movenet' in name else 'pixels')


def spread(keypoints: int) -> Person:
    generator = np.random.default_rng(keypoints)
    return Person(generator.uniform(20, 200, (keypoints, 2)), generator.uniform(0.1, 0.9, keypoints))


@pytest.mark.parametrize(
    ('keypoints', 'values'), [(12, 3), (18, 2), (14, 3), (21, 2), (16, 3), (24, 2), (18, 3), (27, 2)]
)
def test_whether_key_points_have_two_or_three_numbers_is_seen_in_them(keypoints, values):
    layout = Layout(ultralytics(keypoints, values), keypoints)
    spec = probe(layout.encode([spread(keypoints)]), layout.spec())
    assert (len(spec.keypoints), spec.keypoint_values) == (keypoints, values)
    assert sum('; set keypoints' in note for note in spec.notes) == 1
    assert any(str(keypoints) in note for note in spec.notes)
    np.testing.assert_allclose(
        DECODERS[spec.decoder](layout.encode([spread(keypoints)]), fit_for(spec), spec, PLAIN).xy[0],
        fit_for(spec).to_source(spread(keypoints).xy),
        atol=1e-3,
    )


@pytest.mark.parametrize('encode', [ultralytics, end2end])
@pytest.mark.parametrize(('keypoints', 'values'), [(16, 3), (18, 3), (21, 2), (18, 2)])
def test_where_they_do_not_show_it_the_usual_is_taken_with_a_warning(encode, keypoints, values):
    layout = Layout(encode(keypoints, values), keypoints)
    spec = probe(layout.encode(()), layout.spec())
    assert (len(spec.keypoints), spec.keypoint_values) == (keypoints, values)
    (warning,) = spec.warnings
    assert f'; taken for {keypoints} of {values}; set keypoints to their names if they are not' in warning
    told = replace(layout, overrides=Overrides(keypoints=tuple(map(str, range(keypoints)))))
    assert probe(told.encode(()), told.spec()).warnings == ()


def test_coordinates_from_0_to_1_do_not_show_it_either():
    layout = Layout(ultralytics(16, 3, SIZE_HW[0]), 16)
    spec = probe(layout.encode([spread(16)]), layout.spec())
    assert (len(spec.keypoints), spec.keypoint_values, len(spec.warnings)) == (16, 3, 1)


def test_a_few_scores_that_are_none_change_nothing():
    layout = Layout(ultralytics(18, 3), 18)
    outputs = layout.encode([spread(18)])
    outputs['output0'][0, 7, 500] = 1.3
    assert probe(outputs, layout.spec()).keypoint_values == 3


def test_of_unusual_key_points_the_names_are_asked_for():
    with pytest.raises(ModelError, match='if these are its key points, set keypoints to their names; else '):
        Layout(ultralytics(33, 3), 33).spec()


@pytest.mark.parametrize('name', NAMES)
def test_nobody_there_gives_nobody(name):
    found = decode(name)
    assert len(found) == 0
    assert found.xy.shape == (0, LAYOUTS[name].keypoints, 2)


@pytest.mark.parametrize('name', NAMES)
def test_key_points_come_back_in_source_pixels(name):
    person = some_person(name)
    found = decode(name, person)
    assert len(found) == 1
    np.testing.assert_allclose(found.xy[0], person.xy, atol=source_tolerance(name))
    np.testing.assert_allclose(found.score[0], 0.75, atol=0.12)
    tolerance = 1.5 * source_tolerance(name)
    corners = np.concatenate((person.xy.min(axis=0), person.xy.max(axis=0)))
    np.testing.assert_allclose(found.persons.xyxy[0], corners, atol=tolerance)
    assert (found.xy.dtype, found.score.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize('name', ['trt_pose', 'openpose_coco', 'openpose_body25'])
@pytest.mark.parametrize('box', [(60.0, 20.0, 84.0, 310.0), (60.0, 20.0, 110.0, 120.0)])
def test_a_person_whose_parts_share_cells_stays_one(name, box):
    person = some_person(name, box)
    found = decode(name, person)
    assert len(found) == 1 and (found.score[0] > 0).all()
    # Parts that share a cell are refined as one: within one.
    assert np.abs(found.xy[0] - person.xy).max() < 12


@pytest.mark.parametrize('name', MANY)
def test_two_persons_are_told_apart_and_the_better_comes_first(name):
    first, second = some_person(name, TALL, 0.6), some_person(name, WIDE, 0.9)
    found = decode(name, first, second)
    assert len(found) == 2
    np.testing.assert_allclose(found.xy, np.stack((second.xy, first.xy)), atol=source_tolerance(name))


@pytest.mark.parametrize('name', ['trt_pose', 'openpose_coco', 'openpose_body25'])
def test_where_fewer_persons_are_wanted_than_there_are_the_best_one_is_whole(name):
    persons = some_person(name, TALL), some_person(name, WIDE)
    is_even = np.arange(len(persons[0].xy)) % 2 == 0  # each is the better one in every other part
    persons = [
        replace(person, score=np.where(is_even == is_first, 0.95, 0.75))
        for person, is_first in zip(persons, (True, False))
    ]
    found = decode(name, *persons, limits=replace(PLAIN, max_detections=1))
    assert len(found) == 1
    off = min(np.abs(found.xy[0] - person.xy).max() for person in persons)
    assert off <= source_tolerance(name)


ULTRALYTICS = [name for name in NAMES if name.startswith('ultralytics_pose') and 'end2end' not in name]


@pytest.mark.parametrize('name', ULTRALYTICS)
@pytest.mark.parametrize(
    ('blend', 'behind', 'share'),
    [
        (0.0, 0.0, 0),
        (0.02, 0.0, 1 / 2),
        (0.02, 0.01, 1 / 3),
        (0.02, 0.02, 0),
        (0.02, 0.1, 0),
        (0.5, 0.1, 4 / 9),
    ],
)
@pytest.mark.parametrize('limits', [PLAIN, Limits(class_agnostic_nms=True), Limits(nms_threshold=0.95)])
def test_boxes_that_score_nearly_the_same_share_in_the_key_points(name, blend, behind, share, limits):
    spec = replace(settled(name), box_blend=blend)
    best = replace(seen(some_person(name), spec), certainty=0.8)
    other = replace(best, xy=best.xy + np.float32(3), certainty=0.8 - behind)
    elsewhere = replace(seen(some_person(name, WIDE), spec), certainty=0.8)
    outputs = LAYOUTS[name].encode([best, other, elsewhere])
    found = DECODERS[spec.decoder](outputs, fit_for(spec), spec, limits)
    if limits.nms_threshold == 0.95:  # two persons
        share = 0
        assert len(found) == 3
    else:
        assert len(found) == 2
    expected = fit_for(spec).to_source(np.stack((best.xy + 3 * share, elsewhere.xy)))
    order = np.argsort(found.xy[:, 0, 0])[[0, -1]]
    np.testing.assert_allclose(found.xy[order], expected, atol=source_tolerance(name))
    boxes = np.concatenate((expected.min(axis=1), expected.max(axis=1)), axis=1)
    np.testing.assert_allclose(found.persons.xyxy[order], boxes, atol=1.5 * source_tolerance(name))


def test_a_key_point_that_one_of_the_boxes_has_not_seen_is_where_the_other_saw_it():
    name = 'ultralytics_pose flat'
    spec = replace(settled(name), box_blend=0.02)
    best = replace(seen(some_person(name), spec), certainty=0.8)
    blind = replace(best, xy=best.xy.copy())
    blind.xy[3] = 0
    for others in ([blind], [blind, replace(best, xy=best.xy + np.float32(2))]):
        found = DECODERS[spec.decoder](LAYOUTS[name].encode([best, *others]), fit_for(spec), spec, PLAIN)
        apart = np.abs(found.xy[0] - fit_for(spec).to_source(best.xy)).max(axis=1)
        assert apart[3] <= (0.1 if len(others) == 1 else 1.5 / min(fit_for(spec).scale_xy))


def test_a_sure_key_point_outweighs_one_that_is_not():
    name = 'ultralytics_pose'
    spec = replace(settled(name), box_blend=0.02)
    best = replace(seen(some_person(name), spec), certainty=0.8)
    unsure = replace(best, xy=best.xy + np.float32(3), score=np.full_like(best.score, 0.01))
    found = DECODERS[spec.decoder](LAYOUTS[name].encode([best, unsure]), fit_for(spec), spec, PLAIN)
    np.testing.assert_allclose(found.xy[0], fit_for(spec).to_source(best.xy), atol=0.1)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_box_that_loses_has_no_part_where_it_says_what_is_no_number(value):
    name = 'ultralytics_pose'
    spec = replace(settled(name), box_blend=0.02)
    best = replace(seen(some_person(name), spec), certainty=0.8)
    broken = replace(best, xy=best.xy + np.float32(1), score=np.full_like(best.score, value), certainty=0.799)
    found = DECODERS[spec.decoder](LAYOUTS[name].encode([best, broken]), fit_for(spec), spec, PLAIN)
    np.testing.assert_allclose(found.xy[0], fit_for(spec).to_source(best.xy), atol=source_tolerance(name))


@pytest.mark.parametrize('key', ['0.02', 0.02, 1, 0])
def test_a_model_says_how_far_its_boxes_share(key):
    metadata = {**LAYOUTS['ultralytics_pose'].metadata, 'box_blend': key}
    layout = replace(LAYOUTS['ultralytics_pose'], metadata=metadata)
    assert layout.spec().box_blend == float(key)
    for said in (0.0, 0.3):
        assert replace(layout, overrides=Overrides(box_blend=said)).spec().box_blend == said


@pytest.mark.parametrize('key', ['-0.1', 1.1, float('nan'), 'often', [0.1, 0.2], True, 'true'])
def test_a_model_that_has_them_share_in_no_known_way_is_refused(key):
    metadata = {**LAYOUTS['ultralytics_pose'].metadata, 'box_blend': key}
    with pytest.raises(ModelError, match="metadata 'box_blend' cannot be"):
        replace(LAYOUTS['ultralytics_pose'], metadata=metadata).spec()


@pytest.mark.parametrize('name', [name for name in SCORED if 'simcc' not in name])
def test_a_key_point_that_is_not_there_scores_nothing_to_speak_of(name):
    person = some_person(name)
    gone = person.score.copy()
    wrist = settled(name).keypoints.index('right_wrist')
    gone[wrist] = 0
    found = decode(name, replace(person, score=gone))
    assert len(found) == 1 and found.score[0, wrist] < 0.1
    assert (np.delete(found.score[0], wrist) > 0.5).all()


def test_key_points_without_scores_are_as_sure_as_their_person_but_for_those_left_at_zero():
    name = 'ultralytics_pose flat'
    spec = settled(name)
    person = replace(seen(some_person(name), spec), certainty=0.625)
    person.xy[2] = 0
    found = DECODERS[spec.decoder](LAYOUTS[name].encode([person]), fit_for(spec), spec, Limits())
    np.testing.assert_allclose(found.score[0], [0.625, 0.625, 0, 0.625])


@pytest.mark.parametrize('name', ['ultralytics_pose', 'ultralytics_pose_end2end', 'movenet_multi'])
def test_key_points_may_lie_outside_the_picture_while_boxes_may_not(name):
    person = some_person(name, (-60.0, 20.0, 80.0, 310.0))
    found = decode(name, person)
    np.testing.assert_allclose(found.xy[0], person.xy, atol=source_tolerance(name))
    assert found.persons.xyxy[0, 0] == 0


@pytest.mark.parametrize('name', NAMES)
def test_thresholds_and_classes_leave_out_persons(name):
    person = some_person(name)
    assert len(decode(name, person, limits=Limits(confidence_threshold=0.95))) == 0
    assert len(decode(name, person, limits=Limits(class_ids=frozenset({3})))) == 0
    assert len(decode(name, person, limits=Limits(class_ids=frozenset({0})))) == 1


@pytest.mark.parametrize('name', MANY)
def test_no_more_than_max_detections_are_reported(name):
    persons = some_person(name, TALL, 0.6), some_person(name, WIDE, 0.9)
    limits = Limits(max_detections=1)
    if name.split()[0] in ('trt_pose', 'openpose_coco', 'openpose_body25'):
        assert len(decode(name, *persons, limits=limits)) <= 1
    else:
        found = decode(name, *persons, limits=limits)
        np.testing.assert_allclose(found.xy[0], persons[1].xy, atol=source_tolerance(name))


def test_a_person_needs_some_key_points_where_no_box_says_that_there_is_one():
    person = some_person('movenet')
    few = np.where(np.arange(17) < 2, 0.9, 0.1)
    assert len(decode('movenet', replace(person, score=few))) == 0
    some = np.where(np.arange(17) < 4, 0.9, 0.1)
    found = decode('movenet', replace(person, score=some))
    assert found.persons.score[0] == pytest.approx(0.9, abs=1e-5)
    corners = np.concatenate((person.xy[:4].min(axis=0), person.xy[:4].max(axis=0)))
    np.testing.assert_allclose(found.persons.xyxy[0], corners, atol=0.1)


@pytest.mark.parametrize('name', NAMES)
def test_results_are_no_views_of_the_outputs(name):
    spec = settled(name)
    outputs = LAYOUTS[name].encode([seen(some_person(name), spec)])
    found = DECODERS[spec.decoder](outputs, fit_for(spec), spec, Limits())
    before = found.xy.copy(), found.score.copy(), found.persons.xyxy.copy()
    for array in outputs.values():
        array[...] = 0
    for was, now in zip(before, (found.xy, found.score, found.persons.xyxy)):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize('name', NAMES)
def test_half_precision_says_the_same(name):
    spec = settled(name)
    outputs = LAYOUTS[name].encode([seen(some_person(name), spec)])
    halves = {key: array.astype(np.float16) for key, array in outputs.items()}
    full, half = (DECODERS[spec.decoder](each, fit_for(spec), spec, Limits()) for each in (outputs, halves))
    np.testing.assert_allclose(half.xy, full.xy, atol=1.0)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_an_answer_that_is_not_finite_is_refused(name, value):
    spec = settled(name)
    outputs = {key: np.full_like(array, value) for key, array in LAYOUTS[name].encode(()).items()}
    with pytest.raises(SessionError):
        DECODERS[spec.decoder](outputs, fit_for(spec), spec, Limits())


@pytest.mark.parametrize('name', NAMES)
def test_missing_and_misshapen_outputs_are_refused(name):
    spec = settled(name)
    outputs = LAYOUTS[name].encode(())
    with pytest.raises(TensorError, match='expected among the outputs'):
        DECODERS[spec.decoder]({}, fit_for(spec), spec, Limits())
    for shape in ((1, 2), (1, 3, 5), (1, 2, 3, 4), (0,)):
        wrong = {key: np.zeros(shape, np.float32) for key in outputs}
        with pytest.raises(TensorError):
            DECODERS[spec.decoder](wrong, fit_for(spec), spec, Limits())


@pytest.mark.parametrize('name', NAMES)
@given(data=st.data())
@settings(max_examples=10)
def test_any_answer_gives_sound_poses_or_one_of_our_errors(name, data):
    spec = replace(settled(name), box_blend=data.draw(st.sampled_from([0.0, 0.02, 1.0])))
    outputs = LAYOUTS[name].encode([seen(some_person(name), spec)])
    spoil(outputs, data)
    limits = Limits(
        confidence_threshold=data.draw(st.sampled_from([0.0, 0.25, 1.0])),
        keypoint_threshold=data.draw(st.sampled_from([0.0, 0.3, 1.0])),
    )
    with contextlib.suppress(IsaacInferError):
        found = DECODERS[spec.decoder](outputs, fit_for(spec), spec, limits)
        height, width = SOURCE_HW
        assert np.isfinite(found.xy).all() and ((found.score >= 0) & (found.score <= 1)).all()
        left, top, right, bottom = found.persons.xyxy.T
        assert ((left >= 0) & (top >= 0) & (right <= width) & (bottom <= height)).all()
        assert ((right > left) & (bottom > top)).all() and (np.diff(found.persons.score) <= 0).all()


@pytest.mark.parametrize('name', [name for name in MANY if 'pose_' not in name and 'ultra' not in name])
def test_maps_full_of_noise_take_bounded_time(name):
    random = np.random.default_rng(3)
    spec = settled(name)
    outputs = {
        key: random.uniform(0, 1, array.shape).astype(np.float32)
        for key, array in LAYOUTS[name].encode(()).items()
    }
    found = DECODERS[spec.decoder](outputs, fit_for(spec), spec, Limits(confidence_threshold=0.0))
    assert len(found) <= Limits().max_detections


# ---- peaks ----------------------------------------------------------------------------------------


def one_map(x: float, y: float, sigma: float = 2.0) -> np.ndarray:
    rows, columns = np.mgrid[:48, :40]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)[None]


@given(st.floats(8, 30), st.floats(8, 38))
def test_dark_finds_the_top_of_a_gaussian_between_the_cells(x, y):
    for blur in (heatmaps.BLUR, 1):
        maps = one_map(x, y)
        xy = heatmaps.refine(maps, heatmaps.highest(maps), how='dark', blur=blur)
        np.testing.assert_allclose(xy[0], (x, y), atol=0.05)


@given(st.floats(8, 30), st.floats(8, 38))
def test_a_quarter_of_a_cell_is_nearer_than_the_cell(x, y):
    maps = one_map(x, y)
    xy = heatmaps.refine(maps, heatmaps.highest(maps), how='quarter')
    assert np.abs(xy[0] - (x, y)).max() <= 0.26


@pytest.mark.parametrize('how', ['none', 'quarter', 'dark'])
def test_a_peak_alone_among_what_is_ruled_out_stays_where_it_is(how):
    maps = np.full((1, 48, 40), -np.inf, np.float32)
    maps[0, 9, 7] = 0.9
    assert heatmaps.refine(maps, heatmaps.highest(maps), how=how).tolist() == [[7, 9]]


@pytest.mark.parametrize('how', ['none', 'quarter', 'dark'])
@pytest.mark.parametrize('cell', [(0, 0), (39, 47), (0, 47), (1, 1), (38, 46)])
def test_a_peak_at_the_border_stays_in_its_cell_or_beside_it(how, cell):
    maps = one_map(*cell, sigma=1.0)
    xy = heatmaps.refine(maps, heatmaps.highest(maps), how=how)
    assert np.abs(xy[0] - cell).max() <= 1


@pytest.mark.parametrize(
    ('places', 'expected'),
    [
        ((), []),
        (((5, 6, 0.5),), [(5, 6)]),
        (((5, 6, 0.5), (20, 9, 0.9)), [(20, 9), (5, 6)]),
        (((5, 6, 0.5), (6, 6, 0.5), (5, 7, 0.5)), [(5, 6)]),
        (((0, 0, 0.5), (39, 47, 0.4)), [(0, 0), (39, 47)]),
    ],
    ids=['none', 'one', 'best first', 'equal neighbours', 'corners'],
)
def test_peaks_are_found_once_each(places, expected):
    maps = np.zeros((2, 48, 40), np.float32)
    for x, y, value in places:
        maps[1, y, x] = value
    found = heatmaps.find_peaks(maps, threshold=0.1, window=3, most=10)
    assert list(zip(found.column.tolist(), found.row.tolist())) == expected
    assert (found.at == 1).all()


def test_no_more_than_most_peaks_are_found_in_a_map():
    random = np.random.default_rng(1).uniform(0.2, 1, (3, 48, 40)).astype(np.float32)
    found = heatmaps.find_peaks(random, threshold=0.1, window=3, most=7)
    assert np.bincount(found.at).tolist() == [7, 7, 7]


def test_nothing_is_refined_where_there_is_nothing():
    nothing = np.empty(0, np.intp)
    peaks = Peaks(nothing, nothing, nothing, np.empty(0, np.float32))
    assert heatmaps.refine(np.zeros((1, 4, 4), 'f4'), peaks, how='dark').shape == (0, 2)


# ---- recognition ----------------------------------------------------------------------------------

IMAGE = (TensorSpec('images', (1, 3, *SIZE_HW), np.dtype(np.float32)),)


def resolve(outputs, metadata=None, overrides=Overrides()):
    specs = tuple(TensorSpec(name, shape, np.dtype(np.float32)) for name, shape in outputs.items())
    return resolve_spec(IMAGE, specs, metadata or {}, overrides, task='pose')


@pytest.mark.parametrize(
    'outputs',
    [
        {},
        {'output0': (1, 84, 2016)},
        {'output0': (1, 300, 6)},
        {'boxes': (1, 100, 4), 'scores': (1, 100)},
        {'maps': (1, 17, 63, 96)},
        {'cmap': (1, 18, 32, 48), 'paf': (1, 30, 32, 40)},
    ],
)
def test_what_is_no_pose_model_is_refused_with_the_ways_out(outputs):
    if 'paf' in outputs:
        outputs = {**outputs, 'cmap': (1, 18, 31, 47)}
    with pytest.raises(ModelError, match='set (decoder|--task)') as error:
        resolve(outputs)
    told = str(error.value)
    assert all(name in told for name in (*outputs, *([] if 'set --task' in told else DECODERS)))


def test_two_outputs_that_could_be_heat_maps_are_an_error_that_names_both():
    with pytest.raises(ModelError, match='a and b'):
        resolve({'a': (1, 17, 64, 96), 'b': (1, 16, 64, 96)})
    spec = resolve({'a': (1, 17, 64, 96), 'b': (1, 16, 64, 96)}, overrides=Overrides(output_names=('b',)))
    assert spec.outputs == ('b',)


def test_a_model_of_another_task_is_refused():
    with pytest.raises(ModelError, match='gives no pose'):
        resolve({'output0': (1, 84, 2016)}, {'task': 'detect'})


@pytest.mark.parametrize(
    ('metadata', 'overrides', 'names'),
    [
        ({}, Overrides(), ('0', '1', '2', '3')),
        ({'kpt_names': "{0: ['a', 'b', 'c', 'd']}"}, Overrides(), ('a', 'b', 'c', 'd')),
        ({'keypoints': ['e', 'f', 'g', 'h']}, Overrides(), ('e', 'f', 'g', 'h')),
        ({'kpt_names': 'nonsense'}, Overrides(), ('0', '1', '2', '3')),
        ({}, Overrides(keypoints=('q', 'r', 's', 't')), ('q', 'r', 's', 't')),
    ],
    ids=['none', 'Ultralytics', 'sidecar', 'not understood', 'user'],
)
def test_key_points_are_named_by_the_user_then_by_the_model(metadata, overrides, names):
    said = {'task': 'pose', 'names': "{0: 'pallet'}", 'kpt_shape': '[4, 3]', **metadata}
    assert resolve({'output0': (1, 17, 2016)}, said, overrides).keypoints == names


def test_a_wrong_number_of_names_is_an_error():
    with pytest.raises(ModelError, match='expected 17 names of key points'):
        resolve({'output0': (1, 56, 2016)}, overrides=Overrides(keypoints=('a', 'b')))


def test_two_key_points_of_one_name_are_refused_before_anything_is_found():
    with pytest.raises(ModelError, match='for every key point, got a, b more than once'):
        resolve({'output0': (1, 56, 2016)}, overrides=Overrides(keypoints=(*'aabbcdefghijklmno',)))


def test_a_number_of_values_that_is_two_kinds_of_key_points_needs_to_be_told():
    with pytest.raises(ModelError, match='no decoder fits'):
        resolve({'output0': (1, 5 + 12, 2016)})
    spec = resolve({'output0': (1, 5 + 12, 2016)}, {'kpt_shape': '[6, 2]'})
    assert (len(spec.keypoints), spec.keypoint_values) == (6, 2)


def test_several_classes_have_key_points_too():
    said = {'task': 'pose', 'names': "{0: 'person', 1: 'robot'}", 'kpt_shape': '[17, 3]'}
    spec = resolve({'output0': (1, 6 + 51, 2016)}, said)
    assert (spec.num_classes, spec.row_length) == (2, 57)


def test_logits_in_place_of_scores_are_refused():
    spec = settled('ultralytics_pose_end2end')
    person = seen(some_person('ultralytics_pose_end2end'), spec)
    outputs = end2end(17, 3)([replace(person, score=np.full(17, 4.0), certainty=0.9)])
    with pytest.raises(SessionError, match='probabilities.*--task segmentation'):
        DECODERS[spec.decoder](outputs, fit_for(spec), spec, Limits())


def test_boxes_in_another_unit_than_expected_are_refused_where_a_first_run_told_nothing():
    layout = Layout(end2end(17, 3), 17)
    spec = probe(layout.encode(()), layout.spec())
    small = Person(np.full((17, 2), 0.5) + np.eye(17, 2) * 0.2, np.full(17, 0.8))
    with pytest.raises(SessionError, match='set box_unit to normalised'):
        DECODERS[spec.decoder](layout.encode([small]), fit_for(spec), spec, Limits())


def test_boxes_in_0_to_1_are_told_by_a_first_run():
    outputs = ultralytics(17, 3, 0)(())
    spec = probe(outputs, resolve_spec(IMAGE, tensor_specs(outputs), {}, task='pose'))
    assert spec.box_unit == 'normalised'


@pytest.mark.parametrize('divided', ['boxes', 'key points'])
def test_boxes_and_key_points_in_two_units_are_told_by_a_first_run(divided):
    name = 'ultralytics_pose'
    width_height = np.array((SIZE_HW[1], SIZE_HW[0]))

    def divide(outputs):
        rows = outputs['output0'][0].T  # a view
        if divided == 'boxes':
            rows[:, :4] /= (*width_height, *width_height)
        else:
            rows[:, 5:].reshape(len(rows), 17, 3)[..., :2] /= width_height
        return outputs

    blank = LAYOUTS[name].encode(())
    blank['output0'][0, 5:].reshape(17, 3, -1)[:, :2] = [[200], [100]]  # real heads always say something
    spec = probe(divide(blank), LAYOUTS[name].spec())
    person = some_person(name)
    outputs = divide(LAYOUTS[name].encode([seen(person, spec)]))
    found = DECODERS[spec.decoder](outputs, fit_for(spec), spec, Limits())
    np.testing.assert_allclose(found.xy[0], person.xy, atol=0.1)


# ---- real networks --------------------------------------------------------------------------------

needs_data = pytest.mark.skipif(not DATA.name, reason='needs the folder of networks: ISAAC_INFER_TEST_DATA')


def run_real(model: str, picture: str) -> tuple[ModelSpec, Poses, dict]:
    from isaac_infer.core.frame import Frame
    from isaac_infer.engine.load import open_pipeline

    folder = DATA / 'models' / model
    if not (folder / 'model.onnx').is_file():
        pytest.skip(f'{folder} is not there')
    reference = json.loads((folder / 'refs' / f'{picture}.json').read_text())
    pipeline = open_pipeline(
        folder / 'model.onnx', task='pose', limits=lambda spec: Limits(), backend='onnxruntime', num_threads=1
    )
    try:
        found = pipeline(Frame(cv2.imread(str(DATA / 'images' / f'{picture}.jpg'))))
        return pipeline.spec, found, reference
    finally:
        pipeline.close()


@needs_data
@pytest.mark.parametrize('picture', ['bus', 'coco_000000000785', 'jetson_humans_4'])
def test_a_real_network_finds_the_key_points_of_its_reference(picture):
    _, found, reference = run_real('yolov8n_pose_320', picture)
    expected = np.array([person['keypoints_xyv'] for person in reference['detections']])
    np.testing.assert_allclose(found.xy, expected[..., :2], atol=0.5)
    np.testing.assert_allclose(found.score, expected[..., 2], atol=0.01)
    np.testing.assert_allclose(
        found.persons.score, [person['score'] for person in reference['detections']], atol=0.01
    )


@needs_data
def test_real_heat_maps_give_the_key_points_of_their_reference():
    spec, found, reference = run_real('efficientpose_rt_224', 'coco_000000000785')
    expected = np.array([reference['keypoints_xy_conf'][name] for name in spec.keypoints])
    np.testing.assert_allclose(found.xy[0], expected[:, :2], atol=0.5)
    np.testing.assert_allclose(found.score[0], expected[:, 2], atol=0.01)


# ---- through a session ----------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['movenet', 'movenet_multi', 'heatmaps last'])
def test_a_model_that_takes_whole_numbers_last_channel_first_is_fed_and_read(name, tmp_path):
    models = pytest.importorskip('models')
    from onnx import TensorProto

    from isaac_infer.core.frame import Frame
    from isaac_infer.engine.load import open_pipeline

    layout, spec = LAYOUTS[name], settled(name)
    person = some_person(name)
    file = models.save_constant_detector(
        tmp_path / 'pose.onnx',
        layout.encode([seen(person, spec)]),
        image_shape=(1, *SIZE_HW, 3),
        image_type=TensorProto.INT32 if layout.dtype is np.int32 else TensorProto.FLOAT,
    )
    with contextlib.closing(
        open_pipeline(file, task='pose', limits=lambda spec: Limits(), backend='onnxruntime')
    ) as pipeline:
        found = pipeline(Frame(np.zeros((*SOURCE_HW, 3), np.uint8)))
    np.testing.assert_allclose(found.xy[0], person.xy, atol=source_tolerance(name))


@pytest.mark.parametrize('name', ['movenet', 'heatmaps coarse', 'heatmaps last', 'simcc'])
def test_a_batch_of_pictures_gives_the_points_of_each(name):
    spec = settled(name)
    points = DECODERS[spec.decoder].points
    persons = [seen(some_person(name, box), spec) for box in (TALL, WIDE, TALL)]
    one_by_one = [LAYOUTS[name].encode([person]) for person in persons]
    batch = [np.concatenate([outputs[key] for outputs in one_by_one]) for key in spec.outputs]
    xy, score = points(batch, spec)
    assert score.shape == (3, len(spec.keypoints))
    for row, person in enumerate(persons):
        np.testing.assert_allclose(xy[row] + 0.5, person.xy, atol=LAYOUTS[name].tolerance)


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_not_finite_along_one_axis_is_refused(axis, value):
    spec = settled('simcc')
    outputs = LAYOUTS['simcc'].encode([seen(some_person('simcc', TALL), spec)])
    outputs[spec.outputs[axis]][0, 2, 7] = value
    with pytest.raises(SessionError, match='expected finite values, got NaN or Inf'):
        DECODERS[spec.decoder](outputs, fit_for(spec), spec, PLAIN)


_LENGTHS = st.sampled_from([-1, 1, 2, 3, 4, 6, 16, 17, 18, 19, 24, 38, 42, 56, 57, 64, 78, 96, 300, 768, 512])
_TENSORS = st.builds(
    TensorSpec,
    st.sampled_from(['output0', 'cmap', 'paf', 'simcc_x', 'simcc_y', 'maps', 'x']),
    st.lists(_LENGTHS, max_size=4).map(tuple),
    st.sampled_from([np.dtype(np.float32), np.dtype(np.float16)]),
).filter(lambda output: np.abs(np.prod(output.shape)) < 500_000)


@given(
    st.lists(_TENSORS, max_size=3, unique_by=lambda output: output.name),
    st.sampled_from(
        [
            {},
            *({'decoder': name} for name in DECODERS),
            {'task': 'pose', 'names': "['a', 'b']"},
            COCO_METADATA,
        ]
    ),
    st.integers(0, 99),
)
@settings(max_examples=300)
def test_any_shapes_are_understood_or_refused(outputs, metadata, seed):
    with contextlib.suppress(IsaacInferError):
        spec = resolve_spec(IMAGE, outputs, metadata, task='pose')
        random = np.random.default_rng(seed)
        answers = {
            output.name: random.uniform(-1, 1, [abs(length) for length in output.shape]).astype(output.dtype)
            for output in outputs
        }
        found = DECODERS[spec.decoder](answers, fit_for(spec), probe(answers, spec), Limits())
        assert np.isfinite(found.xy).all()


def save_brightest(path: Path, batch: int) -> Path:
    """A network of a fixed batch whose two heat maps are the red of each picture, 64 high and 48 wide."""
    models = pytest.importorskip('models')
    from onnx import TensorProto, helper

    shape = (batch, 3, 64, 48)
    return models.save_model(
        path,
        [
            helper.make_node('Slice', ['images', 'from', 'to', 'axis'], ['red']),
            helper.make_node('Concat', ['red', 'red'], ['heatmaps'], axis=1),
        ],
        {'images': (TensorProto.FLOAT, shape)},
        {'heatmaps': (TensorProto.FLOAT, (batch, 2, *shape[2:]))},
        constants={'from': np.array([0]), 'to': np.array([1]), 'axis': np.array([1])},
    )


def test_a_network_of_a_fixed_batch_looks_at_a_picture_and_at_any_number_of_persons(tmp_path):
    from isaac_infer.core.frame import Frame
    from isaac_infer.core.topdown import TopDown
    from isaac_infer.engine.load import open_pipeline

    places = np.array([(x, y) for y in (20, 60) for x in (20, 60, 100, 140, 180)])
    image = np.zeros((80, 200, 3), np.uint8)
    image[places[:, 1], places[:, 0]] = 255
    boxes = np.concatenate((places - (10, 15), places + (14, 12)), axis=1).astype(np.float32)
    file = save_brightest(tmp_path / 'pose.onnx', batch=4)
    with contextlib.closing(
        open_pipeline(file, task='pose', overrides=Overrides(mean=(0.0,), std=(1.0,)), backend='onnxruntime')
    ) as pipeline:
        assert len(pipeline(Frame(image[:40, :40]))) == 1
        top_down = TopDown(pipeline.session, pipeline.spec)
        for count in (1, 4, 10):
            persons = Detections(boxes[:count], np.ones(count, np.float32), np.zeros(count, np.int32))
            found = top_down(Frame(image), persons)
            np.testing.assert_allclose(found.xy[:, 0], places[:count] + 0.5, atol=0.6)
            assert (found.score > 0.5).all()
