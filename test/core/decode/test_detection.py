"""Every decoder, on outputs written by hand for a picture of odd size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core.decode.layouts import CELLS, LAYOUTS, SIZE_HW, SOURCE_HW, Found, Layout, fit_for, heads, ultralytics

from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.decode.probe import probe
from isaac_infer.core.errors import IsaacInferError, SessionError, TensorError
from isaac_infer.core.fit import fit_picture
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import Limits, ModelSpec, Overrides

# Objects by their boxes in source pixels, best first; far apart, off the grid's lines.
CUP = ((31.5, 40.25, 95.0, 99.5), 0.875, 0)
BALL = ((180.0, 101.0, 262.5, 160.75), 0.625, 1)
PLAIN = Limits()
OVERLAPPING = [name for name, decoder in DECODERS.items() if decoder.overlapping]
NAMES = sorted(DECODERS)


def settled(layout: Layout, *objects: tuple) -> tuple[ModelSpec, list[Found]]:
    """The spec after a first run, and the objects in the pixels of its network."""
    spec = probe(layout.encode(()), layout.spec())
    fit = fit_for(spec)
    seen = [Found(tuple(fit.to_network(np.array(box))), score, class_id) for box, score, class_id in objects]
    return spec, seen


def decode(layout: Layout, *objects: tuple, limits: Limits = PLAIN) -> Detections:
    spec, seen = settled(layout, *objects)
    return DECODERS[spec.decoder](layout.encode(seen), fit_for(spec), spec, limits)


def assert_found(found: Detections, *objects: tuple) -> None:
    assert found.class_id.tolist() == [class_id for _, _, class_id in objects]
    np.testing.assert_allclose(found.score, [score for _, score, _ in objects], atol=1e-4)
    np.testing.assert_allclose(found.xyxy, np.array([box for box, _, _ in objects]).reshape(-1, 4), atol=0.02)
    assert (found.xyxy.dtype, found.score.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int32)


def test_every_decoder_has_a_layout_here():
    assert sorted(LAYOUTS) == NAMES


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    'objects', [(), (CUP,), (CUP, BALL), (BALL, CUP)], ids=['none', 'one', 'two', 'worst first']
)
def test_objects_come_back_in_source_pixels_best_first(name, objects):
    spec, _ = settled(LAYOUTS[name])
    assert spec.decoder == name
    assert_found(decode(LAYOUTS[name], *objects), *sorted(objects, key=lambda one: -one[1]))


@pytest.mark.parametrize('name', NAMES)
def test_what_scores_below_the_threshold_is_dropped(name):
    assert_found(decode(LAYOUTS[name], CUP, BALL, limits=Limits(confidence_threshold=0.7)), CUP)
    assert len(decode(LAYOUTS[name], CUP, limits=Limits(confidence_threshold=1.0))) == 0


@pytest.mark.parametrize('name', NAMES)
def test_a_threshold_of_zero_lets_no_padding_through(name):
    found = decode(LAYOUTS[name], CUP, BALL, limits=Limits(confidence_threshold=0.0))
    assert_found(found[:2], CUP, BALL)
    assert (found.score > 0).all()


@pytest.mark.parametrize('name', NAMES)
def test_only_the_classes_asked_for_are_reported(name):
    assert_found(decode(LAYOUTS[name], CUP, BALL, limits=Limits(class_ids=frozenset({1}))), BALL)


@pytest.mark.parametrize('name', NAMES)
def test_no_more_than_max_detections_are_reported(name):
    assert_found(decode(LAYOUTS[name], CUP, BALL, limits=Limits(max_detections=1)), CUP)


@pytest.mark.parametrize('name', NAMES)
def test_boxes_are_clipped_to_the_picture_and_dropped_where_nothing_is_left(name):
    half_outside = ((-30.0, 120.0, 60.0, 180.0), 0.75, 2)
    spec, _ = settled(LAYOUTS[name])
    fit = fit_for(spec)
    found = decode(LAYOUTS[name], half_outside)
    assert_found(found, ((0.0, 120.0, 60.0, 180.0), 0.75, 2))
    in_padding = fit.to_source(np.array((2.0, SIZE_HW[0] - 2.5, 40.0, SIZE_HW[0] - 0.5)))
    if in_padding[1] >= SOURCE_HW[0]:
        assert len(decode(LAYOUTS[name], (tuple(in_padding), 0.9, 0))) == 0


@pytest.mark.parametrize('name', OVERLAPPING)
def test_of_two_boxes_of_one_class_that_overlap_the_better_stays(name):
    beside = ((33.5, 40.25, 97.0, 99.5), 0.8, CUP[2])
    if name.endswith('heads') or name == 'yolox':
        beside = ((5.5, 40.25, 104.5, 99.5), 0.8, CUP[2])  # a cell has one box here: centre it in the next
    limits = Limits(nms_threshold=0.3)
    assert_found(decode(LAYOUTS[name], CUP, beside, limits=limits), CUP)
    assert len(decode(LAYOUTS[name], CUP, beside, limits=Limits(nms_threshold=0.99))) in (1, 2)


@pytest.mark.parametrize(
    'name', [name for name in OVERLAPPING if name != 'yolox' and not name.endswith('heads')]
)
def test_boxes_of_two_classes_suppress_one_another_only_when_asked_to(name):
    same_place = (CUP[0], 0.8, 2)
    assert_found(decode(LAYOUTS[name], CUP, same_place), CUP, same_place)
    assert_found(decode(LAYOUTS[name], CUP, same_place, limits=Limits(class_agnostic_nms=True)), CUP)
    assert_found(decode(LAYOUTS[name], CUP, same_place, limits=Limits(max_candidates=1)), CUP)


BESIDE = ((63.5, 40.25, 127.0, 99.5), 0.874, 0)  # half of it in CUP


@pytest.mark.parametrize('between', [1, 5])
@pytest.mark.parametrize('limits', [PLAIN, Limits(class_agnostic_nms=True)])
def test_a_box_shares_in_the_one_that_suppressed_it_and_in_no_other(between, limits):
    middle = ((47.5, 40.25, 111.0, 99.5), 0.873, 0)
    spec, seen = settled(LAYOUTS['ultralytics'], CUP, BESIDE, *[middle] * between)
    spec = replace(spec, box_blend=0.02)
    found = DECODERS['ultralytics'](LAYOUTS['ultralytics'].encode(seen), fit_for(spec), spec, limits)
    assert len(found) == 2 and found.xyxy[0, 0] > CUP[0][0] + 5
    np.testing.assert_allclose(found.xyxy[1], BESIDE[0], atol=0.02)


@pytest.mark.parametrize(
    'limits', [Limits(class_ids=frozenset({0}), class_agnostic_nms=True), Limits(max_candidates=1), PLAIN]
)
def test_what_does_not_count_shares_in_nothing(limits):
    other = ((33.5, 40.25, 97.0, 99.5), 0.87, 0 if limits.max_candidates == 1 else 1)
    spec, seen = settled(LAYOUTS['ultralytics'], CUP, other)
    spec = replace(spec, box_blend=0.02)
    found = DECODERS['ultralytics'](LAYOUTS['ultralytics'].encode(seen), fit_for(spec), spec, limits)
    np.testing.assert_allclose(found.xyxy[0], CUP[0], atol=0.02)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_an_answer_that_is_not_finite_is_refused_by_the_tensor_s_name(name, value):
    spec, seen = settled(LAYOUTS[name], CUP, BALL)
    outputs = LAYOUTS[name].encode(seen)
    for output in spec.outputs:
        broken = {
            **outputs,
            output: np.full_like(outputs[output], value if outputs[output].dtype.kind == 'f' else 0),
        }
        if outputs[output].dtype.kind != 'f':
            continue
        with pytest.raises(SessionError, match=output):
            DECODERS[name](broken, fit_for(spec), spec, Limits())


@pytest.mark.parametrize('name', NAMES)
def test_one_nan_among_the_scores_is_noticed(name):
    spec, seen = settled(LAYOUTS[name], CUP)
    outputs = LAYOUTS[name].encode(seen)
    noticed = 0
    for output in spec.outputs:
        if outputs[output].dtype.kind != 'f':
            continue
        flat = outputs[output].reshape(-1)
        strongest = np.flatnonzero(np.isclose(flat, 0.875) | np.isclose(flat, 0.95))
        for at in strongest[:1]:
            flat[at] = np.nan
            with pytest.raises(SessionError):
                DECODERS[name](outputs, fit_for(spec), spec, Limits())
            noticed += 1
    if not name.endswith('heads') and 'detr' not in name:
        assert noticed


@pytest.mark.parametrize('name', NAMES)
def test_another_shape_is_refused_with_expected_and_got(name):
    spec, seen = settled(LAYOUTS[name], CUP)
    outputs = LAYOUTS[name].encode(seen)
    for output in spec.outputs:
        if outputs[output].size == 1:
            continue
        axis = 1 if name in ('ultralytics', 'ultralytics_best', 'ultralytics_obb') else -1
        broken = {**outputs, output: np.concatenate((outputs[output], outputs[output]), axis=axis)}
        with pytest.raises(TensorError, match=f'{output}.*expected shape .*got'):
            DECODERS[name](broken, fit_for(spec), spec, Limits())


def test_a_missing_output_is_named():
    spec = LAYOUTS['ultralytics'].spec()
    with pytest.raises(TensorError, match='output0'):
        DECODERS['ultralytics']({'other': np.zeros(1)}, fit_for(spec), spec, Limits())


@pytest.mark.parametrize('name', NAMES)
def test_half_precision_is_read_as_well(name):
    spec, seen = settled(LAYOUTS[name], CUP, BALL)
    outputs = {
        output: array.astype(np.float16) if array.dtype == np.float32 else array
        for output, array in LAYOUTS[name].encode(seen).items()
    }
    found = DECODERS[name](outputs, fit_for(spec), spec, Limits())
    assert found.class_id.tolist() == [0, 1]
    np.testing.assert_allclose(found.xyxy, [CUP[0], BALL[0]], atol=0.6)
    assert found.xyxy.dtype == np.float32


@pytest.mark.parametrize('name', NAMES)
def test_boxes_in_the_other_unit_are_refused_while_the_unit_is_not_settled(name):
    spec, seen = settled(LAYOUTS[name], CUP, BALL)
    other = 'pixels' if spec.box_unit == 'normalised' else 'normalised'
    wrong = replace(spec, box_unit=other, unsettled=frozenset({'box_unit'}))
    outputs = LAYOUTS[name].encode(seen)
    with pytest.raises(SessionError, match=f'box_unit to {spec.box_unit}'):
        DECODERS[name](outputs, fit_for(wrong), wrong, Limits())


@pytest.mark.parametrize('name', ['ultralytics', 'yolov5', 'yolo_nas_raw'])
def test_a_tiny_object_in_the_corner_is_found_once_a_first_run_has_shown_pixels(name):
    spec, _ = settled(LAYOUTS[name])
    corner = Found((0.2, 0.2, 1.4, 1.4), 0.9, 1)
    fit = fit_picture(SIZE_HW, SIZE_HW, resize='letterbox')
    found = DECODERS[name](LAYOUTS[name].encode([corner]), fit, spec, Limits())
    assert found.class_id.tolist() == [1]


@pytest.mark.parametrize('order', ['ahwr', 'hwar', '(ar)hw', 'hw(ar)'])
def test_anchor_heads_are_read_in_any_order_of_axes(order):
    layout = Layout(lambda found: heads(found, order=order), overrides=Overrides(decoder='yolov5_heads'))
    assert_found(decode(layout, CUP, BALL), CUP, BALL)


def test_transposed_rows_are_read_as_well():
    layout = Layout(
        lambda found: {'output0': ultralytics(found).transpose(0, 2, 1)},
        overrides=Overrides(decoder='ultralytics'),
    )
    assert_found(decode(layout, CUP, BALL), CUP, BALL)


def test_a_single_class_of_yolov7_scores_by_its_objectness_alone():
    rows = np.zeros((1, 3 * CELLS, 6), np.float32)
    rows[0, 5] = 40, 30, 20, 10, 0.8, 0.5
    fit = fit_picture(SIZE_HW, SIZE_HW, resize='letterbox')
    scores = {}
    for name in ('yolov5', 'yolov7'):
        spec = Layout(lambda found: {'output': rows}, overrides=Overrides(decoder=name)).spec()
        assert (spec.decoder, spec.num_classes) == (name, 1)
        scores[name] = DECODERS[name]({'output': rows}, fit, spec, Limits()).score.tolist()
    assert scores == {'yolov5': pytest.approx([0.4]), 'yolov7': pytest.approx([0.8])}


@pytest.mark.parametrize('count', [-5, 0, 1 << 30])
def test_a_count_that_lies_is_bounded_by_what_is_there(count):
    spec, seen = settled(LAYOUTS['efficient_nms'], CUP, BALL)
    outputs = LAYOUTS['efficient_nms'].encode(seen)
    outputs['det_boxes'][0, 2:] = 0
    outputs['num_dets'][...] = count
    found = DECODERS['efficient_nms'](outputs, fit_for(spec), spec, Limits())
    assert len(found) == (2 if count > 0 else 0)


def test_a_class_that_nobody_named_keeps_its_number_and_padding_has_none():
    spec, seen = settled(LAYOUTS['yolo_nas'], CUP, BALL)
    outputs = LAYOUTS['yolo_nas'].encode(seen)
    outputs['pred_classes'][0, :2] = 99, -1
    found = DECODERS['yolo_nas'](outputs, fit_for(spec), replace(spec, class_names=('cup',)), Limits())
    assert found.class_id.tolist() == [99]
    assert spec.class_name(99) == '99'


def test_flat_rows_in_the_wrong_order_are_refused():
    spec, seen = settled(LAYOUTS['yolo_nas_flat'], CUP)
    (rows,) = LAYOUTS['yolo_nas_flat'].encode(seen).values()
    swapped = {spec.outputs[0]: rows[:, [0, 1, 2, 3, 4, 6, 5]] + np.float32([0, 0, 0, 0, 0, 0.5, 0])}
    with pytest.raises(SessionError, match='yolo_nas_flat'):
        DECODERS['yolo_nas_flat'](swapped, fit_for(spec), spec, Limits())


def test_every_class_of_a_query_is_a_candidate_of_its_own():
    boxes, logits = np.full((1, 5, 4), 0.5, 'f4'), np.full((1, 5, 4), -9, 'f4')
    logits[0, 2, :2] = 3, 2
    layout = Layout(lambda found: {'dets': boxes, 'labels': logits})
    found = DECODERS['rfdetr'](layout.encode(()), fit_for(layout.spec()), layout.spec(), Limits())
    assert found.class_id.tolist() == [0, 1]


def test_scores_that_are_no_probabilities_are_refused():
    spec, seen = settled(LAYOUTS['ultralytics'], CUP)
    outputs = {'output0': LAYOUTS['ultralytics'].encode(seen)['output0']}
    outputs['output0'][0, 5, 9] = 4.5
    with pytest.raises(SessionError, match='from 0 to 1, got 4.5'):
        DECODERS['ultralytics'](outputs, fit_for(spec), spec, Limits())


# ---- rotated boxes -----------------------------------------------------------------------


def rotated(name: str, fit_mode: str, *objects: Found, limits: Limits = PLAIN) -> Detections:
    layout = LAYOUTS[name]
    spec = layout.spec()
    spec = replace(spec, image=replace(spec.image, resize=fit_mode))
    return DECODERS[name](layout.encode(objects), fit_for(spec), spec, limits)


@pytest.mark.parametrize('name', ['ultralytics_obb', 'ultralytics_obb_end2end'])
def test_a_rotated_box_keeps_its_angle_through_the_letterbox(name):
    found = rotated(name, 'letterbox', Found((30, 25, 60, 35), 0.9, 1, angle=0.5))
    scale = fit_picture(SOURCE_HW, SIZE_HW, resize='letterbox').scale_xy[0]
    x, y, width, height, angle = found.rotated[0]
    assert (width, height, angle) == pytest.approx((30 / scale, 10 / scale, 0.5), rel=1e-5)
    half = (
        (width * np.cos(angle) + height * np.sin(angle)) / 2,
        (width * np.sin(angle) + height * np.cos(angle)) / 2,
    )
    assert found.xyxy[0] == pytest.approx((x - half[0], y - half[1], x + half[0], y + half[1]), rel=1e-5)


def test_a_quarter_turn_through_a_stretched_picture_swaps_the_scales():
    found = rotated('ultralytics_obb', 'stretch', Found((40, 20, 60, 30), 0.9, 1, angle=np.pi / 2))
    scale_x, scale_y = fit_picture(SOURCE_HW, SIZE_HW, resize='stretch').scale_xy
    assert found.rotated[0, 2:] == pytest.approx((20 / scale_y, 10 / scale_x, np.pi / 2), rel=1e-5)


def test_crossed_rotated_boxes_stay_and_repeated_ones_go():
    bar = Found((20, 27, 70, 33), 0.9, 1)
    crossed = Found((20, 27, 70, 33), 0.8, 1, angle=np.pi / 2)
    repeated = Found((21, 27, 71, 33), 0.7, 1, angle=0.01)
    other = Found((21, 27, 71, 33), 0.6, 2)
    found = rotated('ultralytics_obb', 'letterbox', bar, crossed, repeated, other)
    assert found.score.tolist() == pytest.approx([0.9, 0.8, 0.6])
    agnostic = rotated(
        'ultralytics_obb', 'letterbox', bar, crossed, repeated, other, limits=Limits(class_agnostic_nms=True)
    )
    assert agnostic.score.tolist() == pytest.approx([0.9, 0.8])


def test_no_rotated_boxes_are_no_rows_of_five():
    assert rotated('ultralytics_obb', 'letterbox').rotated.shape == (0, 5)


def test_an_angle_that_is_not_finite_is_refused():
    with pytest.raises(IsaacInferError, match='output0'):
        rotated('ultralytics_obb', 'letterbox', Found((30, 25, 60, 35), 0.9, 1, angle=np.nan))
