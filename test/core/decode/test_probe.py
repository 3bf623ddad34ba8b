"""What a first run settles: decoded or not, pixels or 0..1, softmax or sigmoid; and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core.decode.layouts import (
    CELLS,
    CLASSES,
    LAYOUTS,
    NAMES,
    Found,
    Layout,
    background,
    counted,
    final,
    obb,
    objectness,
    queries,
    scaled,
    softmax_queries,
    ultralytics,
    yolox,
)

from isaac_infer.core.decode.probe import as_family, probe
from isaac_infer.core.errors import ModelError, TensorError
from isaac_infer.core.spec import ModelSpec, Overrides

SOMETHING = (Found((30, 20, 61, 42), 0.9, 1),)
RNG = np.random.default_rng(0)


def probed(layout: Layout, *found: Found) -> ModelSpec:
    return probe(layout.encode(found), layout.spec(found))


@pytest.mark.parametrize('found', [(), SOMETHING], ids=['nothing', 'something'])
@pytest.mark.parametrize('name', sorted(LAYOUTS))
def test_a_first_run_confirms_every_decoder(name, found):
    assert probed(LAYOUTS[name], *found).decoder == name


def test_undecoded_yolox_is_told_from_decoded_by_the_grid():
    def noisy(found):
        rows = yolox(found)['output']
        rows[..., :4] += RNG.normal(0, 1.5, rows[..., :4].shape)
        return {'output': rows}

    assert probed(Layout(noisy)).decoder == 'yolox'

    def decoded(found):
        rows = objectness(found, CELLS)
        rows[..., :4] += RNG.normal(0, 4, rows[..., :4].shape)
        return {'output': rows}

    spec = probed(Layout(decoded, overrides=Overrides(class_names=NAMES)))
    assert (spec.decoder, spec.box_unit, spec.image.channel_order) == ('yolox_decoded', 'pixels', 'bgr')
    assert 'first run' in spec.notes[-1]


def test_decoded_yolox_is_recognised_where_only_a_few_rows_are_filled():
    def sparse(found):
        rows = objectness(found, CELLS)
        rows[0, rows[0, :, 4] == 0] = 0
        return {'output': rows}

    named = Overrides(class_names=NAMES)
    assert probed(Layout(sparse, overrides=named), *SOMETHING).decoder == 'yolox_decoded'


def test_decoded_rows_without_class_names_may_be_ultralytics_too_and_are_asked_for():
    with pytest.raises(ModelError, match='give class_names, or set decoder to yolox_decoded or ultralytics'):
        probed(Layout(lambda found: {'output': objectness(found, CELLS)}))


def test_yolox_that_cannot_be_told_is_asked_for():
    def between(found):
        rows = background(CELLS, 5 + CLASSES)[None]
        rows[..., :2] /= 20
        rows[..., :2] += RNG.normal(0, 2, rows[..., :2].shape)
        return {'output': rows}

    with pytest.raises(ModelError, match='set decoder to yolox .*or yolox_decoded'):
        probed(Layout(between))
    assert probed(Layout(between, overrides=Overrides(decoder='yolox'))).decoder == 'yolox'


@pytest.mark.parametrize(
    'name', ['ultralytics', 'yolov5', 'yolox_decoded', 'ultralytics_obb', 'yolo_nas_raw']
)
def test_boxes_in_0_to_1_are_recognised_where_pixels_are_usual(name):
    layout = LAYOUTS[name]

    def normalised(found):
        outputs = layout.encode(found)
        boxes = next(iter(outputs.values()))
        axis = 1 if name.startswith('ultralytics') else 2
        np.moveaxis(boxes, axis, -1)[..., :4] = scaled(np.moveaxis(boxes, axis, -1)[..., :4], True)
        return outputs

    spec = probed(replace(layout, encode=normalised))
    assert (spec.decoder, spec.box_unit) == (name, 'normalised')
    assert 'box_unit normalised' in spec.notes[-1]
    told = replace(layout, encode=normalised, overrides=replace(layout.overrides, box_unit='pixels'))
    assert probed(told).box_unit == 'pixels'  # what the user says stays


def test_pixels_are_recognised_where_0_to_1_is_usual():
    def pixels(found):
        outputs = LAYOUTS['jetson_ssd'].encode(found)
        outputs['boxes'] *= np.float32([96, 64, 96, 64])
        return outputs

    assert probed(Layout(pixels)).box_unit == 'pixels'


def test_rows_of_six_in_0_to_1_are_rt_detr_s_where_corners_are_swapped_and_unclear_where_not():
    def centred(found):
        return {
            'output0': final(found, lambda one: (*scaled(one.centred, True), one.score, one.class_id))[None]
        }

    def corners(found):
        return {'output0': final(found, lambda one: (*scaled(one.box, True), one.score, one.class_id))[None]}

    spec = probed(Layout(centred), *SOMETHING)
    assert (spec.decoder, spec.box_unit, spec.image.resize) == (
        'ultralytics_rtdetr_end2end', 'normalised', 'stretch',
    )  # fmt: skip
    with pytest.raises(ModelError, match='ultralytics_rtdetr_end2end .*box_unit to normalised'):
        probed(Layout(corners), *SOMETHING)
    said = Layout(corners, overrides=Overrides(box_unit='normalised'))
    assert probed(said, *SOMETHING).decoder == 'ultralytics_end2end'


def test_logits_for_sigmoid_are_told_from_logits_for_softmax():
    def sigmoid(found):
        boxes, logits = queries(found, CLASSES + 1)
        return {'logits': logits, 'pred_boxes': boxes}

    spec = probed(Layout(sigmoid), *SOMETHING)
    assert (spec.decoder, spec.num_classes, spec.image.mean) == ('detr_sigmoid', CLASSES + 1, (0.0,))
    spec = probed(Layout(softmax_queries), *SOMETHING)
    assert (spec.decoder, spec.num_classes, len(spec.image.mean)) == ('detr', CLASSES, 3)
    with pytest.raises(ModelError, match='detr .softmax. or detr_sigmoid'):
        probed(Layout(lambda found: {name: array * 0 for name, array in sigmoid(found).items()}))


def test_key_points_behind_one_class_are_recognised_without_metadata():
    def pose(found):
        rows = background(CELLS, 4 + 1 + 51)
        rows[:, 5:] = RNG.uniform(-20, 90, (CELLS, 51))
        return {'output0': rows.T[None]}

    spec = probed(Layout(pose))
    assert (spec.decoder, spec.num_classes) == ('ultralytics', 1)
    assert any('pose' in note for note in spec.notes)
    named = Layout(pose, overrides=Overrides(class_names=('person',)))
    assert probed(named).num_classes == 1


def test_an_angle_behind_the_scores_is_recognised_without_metadata():
    def turned(found):
        rows = ultralytics(found, 1)
        rows[0, -1] = RNG.uniform(-0.7, 2.3, CELLS)
        return {'output0': rows}

    spec = probed(Layout(turned))
    assert (spec.decoder, spec.num_classes) == ('ultralytics_obb', CLASSES)


@pytest.mark.parametrize('name', ['ultralytics', 'yolov5', 'yolox'])
def test_heads_whose_scores_are_logits_or_distributions_are_refused(name):
    def logits(found):
        outputs = LAYOUTS[name].encode(found)
        for rows in outputs.values():
            np.moveaxis(rows, 1 if name == 'ultralytics' else 2, -1)[..., 5:] -= 9
        return outputs

    with pytest.raises(ModelError, match='scores from 0 to 1 in value'):
        probed(Layout(logits))


def test_metadata_is_not_doubted():
    spec = LAYOUTS['ultralytics_obb'].spec()
    assert 'decoder' not in spec.unsettled
    assert 'decoder' in LAYOUTS['ultralytics'].spec().unsettled


def test_a_missing_output_is_named():
    with pytest.raises(TensorError, match='output0'):
        probe({}, LAYOUTS['ultralytics'].spec())


def test_another_family_changes_only_what_its_own_ways_were():
    spec = Layout(yolox, overrides=Overrides(channel_order='rgb', class_names=NAMES)).spec()
    changed = as_family(spec, 'ultralytics', 'for a test')
    assert (changed.image.channel_order, changed.image.resize, changed.image.scale) == (
        'rgb',
        'letterbox',
        1 / 255,
    )


def test_an_objectness_of_always_one_is_yolov6_s():
    def yolov6(found):
        rows = objectness(found, CELLS)
        rows[0, :, 4] = 1
        return {'outputs': rows}

    spec = probed(Layout(yolov6, overrides=Overrides(class_names=NAMES)), *SOMETHING)
    assert (spec.decoder, spec.image.channel_order, spec.image.resize) == ('yolov5', 'rgb', 'letterbox')
    assert spec.image.scale == pytest.approx(1 / 255)


def test_an_angle_that_looks_like_a_score_is_asked_for_where_it_is_likely_everywhere():
    def turned(found):
        outputs = obb(found)
        outputs['output0'][0, -1] = RNG.uniform(0.2, 0.9, outputs['output0'].shape[2])
        return outputs

    with pytest.raises(ModelError, match='may be an angle; set decoder to ultralytics_obb'):
        probed(Layout(turned))
    assert probed(Layout(turned, overrides=Overrides(decoder='ultralytics'))).decoder == 'ultralytics'


def test_class_names_that_contradict_the_run_of_a_detr_are_refused():
    names = Overrides(class_names=(*NAMES, 'air'))
    with pytest.raises(ModelError, match='leave a name such as .no object. out'):
        probed(Layout(softmax_queries, overrides=names), *SOMETHING)


def test_boxes_in_0_to_1_under_the_names_of_tensorflow_and_the_plugin_are_asked_for():
    def plugin(found, *, normalised):
        names = ('num_detections', 'detection_boxes', 'detection_scores', 'detection_classes')
        return counted(found, names, normalised=normalised, first=0, dtype='i4')

    with pytest.raises(ModelError, match='set decoder to tf_ssd, or to efficient_nms'):
        probed(Layout(lambda found: plugin(found, normalised=True)), *SOMETHING)
    in_pixels = Layout(lambda found: plugin(found, normalised=False))
    assert probed(in_pixels, *SOMETHING).decoder == 'efficient_nms'
