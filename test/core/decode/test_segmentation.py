"""Segmentation decoders, on outputs written by hand, on pictures passed through, and on real networks."""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from core.decode.layouts import tensor_specs
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiling import spoil

from isaac_infer.core.decode import masks, regions, semantic
from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.decode.segmentation import DECODERS, probe
from isaac_infer.core.decode.semantic import class_axis
from isaac_infer.core.errors import IsaacInferError, ModelError, NamesError, SessionError, TensorError
from isaac_infer.core.fit import RESIZE_MODES, Fit, fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.maps import background_classes, class_map_of
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.results import Segmentation, mask_box
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec

Outputs = dict[str, np.ndarray]
Found = tuple[
    tuple[int, int, int, int], float, int
]  # left, top, right, bottom in network pixels; score, class

SIZE_HW = (64, 96)
GRID_HW = (16, 24)  # of prototypes
IMAGE = TensorSpec('images', (1, 3, *SIZE_HW), np.dtype(np.float32))
SOURCE_HW = (201, 333)
CELLS, CLASSES, COEFFICIENTS = 126, 3, 8
USUAL = Limits()
REGIONS = Limits(min_region_area=1)
DATA = os.environ.get('ISAAC_INFER_TEST_DATA', '')


# ---- objects with masks --------------------------------------------------------------------------


def prototypes(*found: Found) -> np.ndarray:
    """Plane k is high where the left half of object k is, low elsewhere."""
    planes = np.full((1, COEFFICIENTS, *GRID_HW), -8, np.float32)
    for plane, ((left, top, right, bottom), _, _) in zip(planes[0], found):
        plane[top // 4 : bottom // 4, left // 4 : (left + right) // 8] = 8
    return planes


def coefficients(number: int) -> np.ndarray:
    return np.eye(COEFFICIENTS, dtype=np.float32)[number]


def centred(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def raw(*found: Found, objectness: bool = False) -> Outputs:
    cells = CELLS * 3 if objectness else CELLS
    first = 5 if objectness else 4
    rows = np.zeros((cells, first + CLASSES + COEFFICIENTS), np.float32)
    rows[:, :4] = np.random.default_rng(0).uniform(8, 60, (cells, 4))
    for at, (box, score, class_id) in enumerate(found):
        rows[at, :4] = centred(box)
        rows[at, 4] = 1 if objectness else rows[at, 4]
        rows[at, first + class_id] = score
        rows[at, first + CLASSES :] = coefficients(at)
    return {'output0': (rows if objectness else rows.T)[None].copy(), 'output1': prototypes(*found)}


def final(*found: Found) -> Outputs:
    rows = np.zeros((1, 20, 6 + COEFFICIENTS), np.float32)
    for at, (box, score, class_id) in enumerate(found):
        rows[0, at] = (*box, score, class_id, *coefficients(at))
    return {'output0': rows, 'output1': prototypes(*found)}


def queries(*found: Found) -> Outputs:
    boxes, logits = np.full((1, 20, 4), 0.5, np.float32), np.full((1, 20, CLASSES), -9, np.float32)
    planes = np.full((1, 20, *GRID_HW), -8, np.float32)
    for at, (box, score, class_id) in enumerate(found):
        boxes[0, at + 5] = np.array(centred(box)) / (*SIZE_HW[::-1], *SIZE_HW[::-1])
        logits[0, at + 5, class_id] = np.log(score / (1 - score))
        planes[0, at + 5] = prototypes(*found)[0, at]
    return {'dets': boxes, 'labels': logits, 'masks': planes}


def pasted(*found: Found, of_box: bool = False) -> Outputs:
    """Masks as probabilities, of the whole picture or of the box alone."""
    planes = []
    for at, ((left, top, right, bottom), _, _) in enumerate(found):
        whole = cv2.resize(prototypes(*found)[0, at], SIZE_HW[::-1], interpolation=cv2.INTER_NEAREST)
        whole = (whole > 0).astype(np.float32)
        planes.append(cv2.resize(whole[top:bottom, left:right], (28, 28)) if of_box else whole)
    side = (28, 28) if of_box else SIZE_HW
    return {
        'boxes': np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        'labels': np.array([class_id + 1 for _, _, class_id in found], np.int64),
        'scores': np.array([score for _, score, _ in found], np.float32),
        'masks': np.array(planes, np.float32).reshape(-1, 1, *side),
    }


LAYOUTS: dict[str, Callable[..., Outputs]] = {
    'ultralytics_seg': raw,
    'ultralytics_seg_end2end': final,
    'yolov5_seg': lambda *found: raw(*found, objectness=True),
    'rfdetr_seg': queries,
    'mask_rcnn': pasted,
    'mask_rcnn of boxes': lambda *found: pasted(*found, of_box=True),
}
CUP: Found = ((8, 16, 40, 48), 0.875, 0)
BALL: Found = ((48, 20, 80, 44), 0.625, 2)
METADATA = {'ultralytics_seg': {'task': 'segment', 'stride': '32'}}


def instance_spec(name: str) -> ModelSpec:
    encode, decoder = LAYOUTS[name], name.split()[0]
    specs = tensor_specs(encode(CUP, BALL))
    names = Overrides(class_names=('cup', 'spoon', 'ball')) if decoder != 'mask_rcnn' else Overrides()
    spec = resolve_spec([IMAGE], specs, METADATA.get(decoder, {}), names, task='segmentation')
    assert spec.decoder == decoder
    return probe(encode(CUP, BALL), spec)


def decode_objects(name: str, *found: Found, fit: Fit | None = None, limits: Limits = USUAL) -> Segmentation:
    spec = instance_spec(name)
    fit = fit or fit_picture(SOURCE_HW, SIZE_HW, resize=spec.image.resize)
    return DECODERS[spec.decoder](LAYOUTS[name](*found), fit, spec, limits)


def painted(found: Segmentation, row: int, size_hw: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(size_hw, bool)
    left, top, right, bottom = mask_box(found.objects.xyxy[row])
    whole[top:bottom, left:right] = found.masks[row]
    return whole


@pytest.mark.parametrize('name', LAYOUTS)
@pytest.mark.parametrize('objects', [(), (CUP,), (CUP, BALL)], ids=['none', 'one', 'two'])
@pytest.mark.parametrize('resize', ['letterbox', 'stretch', 'letterbox_top_left'])
def test_masks_come_back_in_source_pixels(name, objects, resize):
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize=resize)
    found = decode_objects(name, *objects, fit=fit)
    assert found.objects.class_id.tolist() == [class_id for _, _, class_id in objects]
    assert found.class_map is None
    for row, ((left, top, right, bottom), _, _) in enumerate(objects):
        x0, y0, x1, y1 = fit.to_source(np.array([left, top, (left + right) / 2, bottom], np.float64))
        y, x = np.mgrid[: SOURCE_HW[0], : SOURCE_HW[1]] + 0.5
        expected = (x > x0) & (x < x1) & (y > y0) & (y < y1)
        mask = painted(found, row, SOURCE_HW)
        assert (mask & expected).sum() / (mask | expected).sum() > 0.95


@pytest.mark.parametrize('name', LAYOUTS)
def test_results_do_not_change_when_the_outputs_are_used_again(name):
    spec, outputs = instance_spec(name), LAYOUTS[name](CUP, BALL)
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize=spec.image.resize)
    found = DECODERS[spec.decoder](outputs, fit, spec, Limits())
    before = [mask.copy() for mask in found.masks]
    for array in outputs.values():
        array[...] = 0
    assert all((mask == old).all() for mask, old in zip(found.masks, before)) and before[0].any()


def test_a_higher_mask_threshold_gives_a_smaller_mask():
    few, usual, many = (
        decode_objects('ultralytics_seg', CUP, limits=Limits(mask_threshold=value)).masks[0].sum()
        for value in (0.9, 0.5, 0.1)
    )
    assert 0 < few < usual < many
    assert decode_objects('ultralytics_seg', CUP, limits=Limits(mask_threshold=0.0)).masks[0].mean() > 0.95


def test_pixels_whose_middle_lies_outside_the_box_are_no_part_of_the_mask():
    spec, outputs = instance_spec('ultralytics_seg_end2end'), final(((8, 16, 40, 48), 0.9, 0))
    outputs['output1'][...] = 8
    same = fit_picture(SIZE_HW, SIZE_HW, resize='stretch')
    for shift, edges in ((0.4, (1, 0)), (0.6, (0, 1))):
        outputs['output0'][0, 0, :4] = np.array((8, 16, 40, 48)) + shift
        (mask,) = DECODERS[spec.decoder](outputs, same, spec, Limits()).masks
        assert mask.shape == (33, 33) and mask[1:-1, 1:-1].all()
        assert mask[0, 1:-1].tolist() == mask[1:-1, 0].tolist() == [edges[0]] * 31
        assert mask[-1, 1:-1].tolist() == mask[1:-1, -1].tolist() == [edges[1]] * 31


def test_masks_of_boxes_fade_to_zero_beyond_their_outermost_cells():
    """As OpenCV resizes the mask with a zero cell around it, which is how torchvision pads it."""
    plane = np.random.default_rng(3).uniform(0.3, 1, (28, 28)).astype(np.float32)
    outputs = pasted(((16, 8, 72, 36), 0.875, 0), of_box=True) | {'masks': plane[None, None]}
    spec = probe(outputs, resolve_spec([IMAGE], tensor_specs(outputs), {}, task='segmentation'))
    fit = fit_picture((4 * SIZE_HW[0], 4 * SIZE_HW[1]), SIZE_HW, resize='stretch')
    (mask,) = DECODERS[spec.decoder](outputs, fit, spec, USUAL).masks
    padded = cv2.resize(np.pad(plane, 1), (30 * 8, 30 * 4))  # a cell is 8x4 pixels of the picture
    np.testing.assert_array_equal(mask, padded[4:-4, 8:-8] > USUAL.mask_threshold)


@pytest.mark.parametrize('box', [(2, 10, 50, 40), (60, 8, 94, 36), (1, 16, 95, 50)])
def test_the_mask_of_a_box_that_reaches_into_the_padding_is_cut_not_squeezed(box):
    plane = np.random.default_rng(4).uniform(0, 1, (28, 28)).astype(np.float32)
    outputs = pasted((box, 0.875, 0), of_box=True) | {'masks': plane[None, None]}
    spec = probe(outputs, resolve_spec([IMAGE], tensor_specs(outputs), {}, task='segmentation'))
    whole, narrow = SIZE_HW, (SIZE_HW[0], SIZE_HW[1] - 16)  # 8 columns of padding on each side
    masks = [
        DECODERS[spec.decoder](outputs, fit_picture(size, SIZE_HW, resize='letterbox'), spec, USUAL).masks[0]
        for size in (whole, narrow)
    ]
    left, right = max(box[0], 8), min(box[2], 88)
    np.testing.assert_array_equal(masks[1], masks[0][:, left - box[0] : right - box[0]])


def test_half_precision_gives_the_same_masks():
    spec, fit = instance_spec('ultralytics_seg'), fit_picture(SOURCE_HW, SIZE_HW, resize='letterbox')
    half = {name: array.astype(np.float16) for name, array in raw(CUP, BALL).items()}
    found = DECODERS[spec.decoder](half, fit, spec, Limits())
    for row, mask in enumerate(decode_objects('ultralytics_seg', CUP, BALL).masks):
        assert (found.masks[row] == mask).mean() > 0.99


def test_prototypes_that_are_not_finite_are_refused():
    outputs = raw(CUP)
    outputs['output1'][0, 0, 5, 4] = np.nan
    spec, fit = instance_spec('ultralytics_seg'), fit_picture(SOURCE_HW, SIZE_HW, resize='letterbox')
    with pytest.raises(SessionError, match='output1: expected finite masks'):
        DECODERS[spec.decoder](outputs, fit, spec, Limits())


def test_coefficients_without_their_prototypes_are_refused():
    outputs = raw(CUP)
    spec, fit = instance_spec('ultralytics_seg'), fit_picture(SOURCE_HW, SIZE_HW, resize='letterbox')
    with pytest.raises(TensorError, match=r'output1: expected shape \[1, 8, \?, \?\], got \[1, 4, 16, 24\]'):
        DECODERS[spec.decoder]({**outputs, 'output1': outputs['output1'][:, :4]}, fit, spec, Limits())
    with pytest.raises(TensorError, match="output 'output1': expected among the outputs"):
        DECODERS[spec.decoder]({'output0': outputs['output0']}, fit, spec, Limits())


def test_masks_larger_than_memory_are_refused_before_they_are_made():
    everywhere = [((0, 0, 96, 64), 0.9, class_id) for class_id in range(3)]
    fit = fit_picture((16384, 16384), SIZE_HW, resize='stretch')
    tracemalloc.start()
    with pytest.raises(SessionError, match='3 objects of 805306368 pixels together are more than the limit'):
        decode_objects('ultralytics_seg', *everywhere, fit=fit)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_many_objects_cost_no_more_memory_than_their_boxes():
    boxes = [((x, y, x + 8, y + 8), 0.9, 0) for y in range(0, 56, 8) for x in range(0, 88, 8)]
    spec, outputs = instance_spec('ultralytics_seg'), raw(*[(box, score, c) for box, score, c in boxes[:8]])
    outputs['output0'][0, :4, : len(boxes)] = np.array([centred(box) for box, _, _ in boxes]).T
    outputs['output0'][0, 4, : len(boxes)] = 0.9
    fit = fit_picture((1080, 1920), SIZE_HW, resize='stretch')
    tracemalloc.start()
    found = DECODERS[spec.decoder](outputs, fit, spec, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == len(boxes)
    assert peak < 3 * 1080 * 1920  # where whole masks would take 77 times the picture


def objects_of_class(number: int, *names: str) -> tuple[ModelSpec, Segmentation]:
    outputs = final((*CUP[:2], number))
    spec = resolve_spec([IMAGE], tensor_specs(outputs), {}, Overrides(class_names=names), task='segmentation')
    spec = probe(final(CUP), spec)
    fit = fit_picture(SIZE_HW, SIZE_HW, resize='stretch')
    return spec, DECODERS[spec.decoder](outputs, fit, spec, USUAL)


@pytest.mark.parametrize('number', [3, 255, 256, 300, 1202])
def test_objects_of_classes_without_names_keep_their_numbers_in_the_class_map(number):
    spec, found = objects_of_class(number)
    class_map = class_map_of(found, SIZE_HW, spec.num_classes)
    assert class_map.dtype == np.uint16 and np.unique(class_map).tolist() == [number, 65535]
    assert any('class maps have 16 bits; set class_names for 8' in note for note in spec.notes)


def test_objects_of_classes_that_no_class_map_holds_are_refused():
    with pytest.raises(SessionError, match='output0: expected class numbers below 65535, got 70000$'):
        objects_of_class(70000)
    with pytest.raises(SessionError, match='below 255, got 300; class_names has 2: name all of them'):
        objects_of_class(300, 'cup', 'ball')
    spec, found = objects_of_class(1, 'cup', 'ball')
    assert class_map_of(found, SIZE_HW, spec.num_classes).dtype == np.uint8


# ---- what every pixel is -------------------------------------------------------------------------


def semantic_spec(
    output: np.ndarray, *, size_hw: tuple[int, int] = SIZE_HW, layout: str = 'nchw', **said: Any
) -> ModelSpec:
    shape = (1, 3, *size_hw) if layout == 'nchw' else (1, *size_hw, 3)
    inputs = (TensorSpec('images', shape, np.dtype(np.float32)),)
    outputs = {'out': output}
    spec = resolve_spec(inputs, tensor_specs(outputs), {}, Overrides(**said), task='segmentation')
    return probe(outputs, spec)


def faint_maps(*grid_hw: int) -> np.ndarray:
    """17 channels as heat maps of key points are in a grey picture."""
    maps = np.full((1, 17, *grid_hw), 0.01, np.float32)
    maps[..., grid_hw[0] // 2, grid_hw[1] // 2] = 0.2
    return maps


def test_what_looks_like_heat_maps_is_a_warning_whose_ways_out_end_it():
    maps = faint_maps(16, 24)
    (warning,) = semantic_spec(maps).warnings
    assert '--task pose; if not, set decoder to semantic, or class_names' in warning
    assert resolve_spec([IMAGE], tensor_specs({'out': maps}), {}, task='pose').decoder == 'heatmaps'
    assert semantic_spec(maps, decoder='semantic').warnings == ()
    assert semantic_spec(maps, class_names=tuple(map(str, range(17)))).warnings == ()


def test_what_no_pose_decoder_reads_is_not_taken_for_heat_maps():
    maps = faint_maps(13, 20)  # a cell is not a whole number of pixels of 64x96
    assert semantic_spec(maps).warnings == ()
    with pytest.raises(ModelError, match='no decoder fits its outputs for pose'):
        resolve_spec([IMAGE], tensor_specs({'out': maps}), {}, task='pose')


def test_who_says_that_it_is_for_segmentation_is_not_asked_whether_it_is_for_poses():
    maps = {'out': faint_maps(16, 24)}
    spec = resolve_spec([IMAGE], tensor_specs(maps), {'task': 'segmentation'}, task='segmentation')
    assert probe(maps, spec).warnings == ()


def decode_pixels(
    output: np.ndarray, spec: ModelSpec, *, fit: Fit | None = None, limits: Limits = USUAL
) -> Segmentation:
    fit = fit or fit_picture(spec.image.size_hw, spec.image.size_hw, resize='stretch')
    return DECODERS[spec.decoder]({'out': output}, fit, spec, limits)


def smooth_scores(classes: int, size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).normal(size=(classes, 5, 6)).astype(np.float32) * 4
    return np.stack([cv2.resize(plane, size_hw[::-1], interpolation=cv2.INTER_CUBIC) for plane in coarse])


@pytest.mark.parametrize('classes', [2, 3, 21, 300])
@pytest.mark.parametrize('grid_hw', [(64, 96), (16, 24), (8, 12)])
def test_scores_are_interpolated_before_the_best_class_is_chosen(classes, grid_hw):
    scores = smooth_scores(classes, grid_hw)
    spec = semantic_spec(scores[None])
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize='stretch')
    expected = np.stack([cv2.resize(plane, SOURCE_HW[::-1]) for plane in scores]).argmax(axis=0)
    found = decode_pixels(scores[None], spec, fit=fit).class_map
    assert found.dtype == (np.uint8 if classes <= 256 else np.uint16)
    assert (found == expected).mean() > 0.9999  # rounding decides between equals
    coarse = decode_pixels(scores[None], spec, fit=fit, limits=Limits(interpolate_scores=False)).class_map
    assert 0.5 < (coarse == expected).mean() < 1


def test_scores_that_may_be_heat_maps_of_key_points_are_a_warning_until_it_is_decided():
    maps = np.full((1, 17, 16, 24), 0.01, np.float32)
    maps[0, 3, 4:6, 4:6] = 0.2
    spec = semantic_spec(maps)
    (warning,) = spec.warnings
    assert (spec.decoder, spec.num_classes) == ('semantic', 17)
    assert 'out: 17 channels from 0.01 to 0.2 ' in warning and 'take pose_node' in warning
    for said in ({'decoder': 'semantic'}, {'class_names': tuple(map(str, range(17)))}):
        assert next(iter(said)) in warning
        assert semantic_spec(maps, **said).warnings == ()


def test_scores_of_classes_are_no_heat_maps():
    logits = smooth_scores(17, (16, 24))[None]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    unsure = np.full_like(shares, 1 / 17)
    each = 1 / (1 + np.exp(-2 * logits))  # a sigmoid per class, which need not add up
    for scores in (logits, shares, unsure, unsure.astype(np.float16), np.log(shares), each):
        assert semantic_spec(scores).warnings == ()


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_classes_may_come_first_or_last(dtype):
    scores = smooth_scores(5, SIZE_HW).astype(dtype)
    last = np.ascontiguousarray(np.moveaxis(scores, 0, -1))[None]
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize='letterbox')
    maps = [
        decode_pixels(output, semantic_spec(output, layout=layout), fit=fit).class_map
        for output, layout in ((scores[None], 'nchw'), (last, 'nhwc'), (last, 'nchw'), (scores[None], 'nhwc'))
    ]
    assert all((each == maps[0]).all() for each in maps)
    assert len(np.unique(maps[0])) == 5


def test_the_class_axis_is_the_one_of_the_picture_where_both_are_as_long():
    nchw = semantic_spec(smooth_scores(24, GRID_HW)[None])
    nhwc = replace(nchw, image=replace(nchw.image, layout='nhwc'))
    assert class_axis((1, 24, 16, 24), nchw) == 1
    assert class_axis((1, 24, 16, 24), nhwc) == 3
    assert class_axis((1, 16, 12, 24), nchw) == 3
    assert class_axis((1, 16, 12, 5), nchw) == 0


@pytest.mark.parametrize('decoder', ['', 'semantic_symmetric', 'ultralytics_semantic'])
@pytest.mark.parametrize('names', [(), ('cup',), ('table', 'cup')])
@pytest.mark.parametrize(
    ('shape', 'grid_hw', 'layout'),
    [
        ((1, 1, 4, 2), (4, 2), 'nchw'),
        ((1, 1, 2, 4), (2, 4), 'nchw'),
        ((1, 4, 2, 1), (4, 2), 'nhwc'),
        ((1, 2, 4, 1), (2, 4), 'nhwc'),
        ((1, 4, 2), (4, 2), 'nchw'),
    ],
)
def test_one_score_on_a_grid_of_two_columns_or_rows_is_no_pair_of_classes(
    shape, grid_hw, layout, names, decoder
):
    size_hw = (grid_hw[0] * 16, grid_hw[1] * 16)
    scores = np.where(np.indices(grid_hw).sum(axis=0) % 3 == 0, 3, -3).astype(np.float32)
    output = scores.reshape(shape)
    spec = semantic_spec(output, size_hw=size_hw, layout=layout, class_names=names, decoder=decoder)
    found = decode_pixels(output, spec, limits=replace(USUAL, interpolate_scores=False))
    assert (found.class_map[8::16, 8::16] == (scores > 0)).all() and spec.num_classes == 2


def plainly_interpolated(planes: np.ndarray, fit: Fit) -> np.ndarray:
    """Scores (C, h, w) at the middle of every source pixel, as a textbook has it: (C, H, W) float64."""
    values = planes.astype(np.float64)
    for axis in (0, 1):  # rows, then columns
        start, end = fit.source_box[1 - axis], fit.source_box[3 - axis]
        to_start, to_end = fit.network_box[1 - axis], fit.network_box[3 - axis]
        network = (np.arange(fit.source_hw[axis]) + 0.5 - start) / (end - start) * (
            to_end - to_start
        ) + to_start
        cells = planes.shape[1 + axis]
        at = np.arange(cells) + 0.5
        shares = [np.interp(network / fit.network_hw[axis] * cells, at, row) for row in np.eye(cells)]
        values = np.moveaxis(np.tensordot(values, np.stack(shares), (1 + axis, 0)), -1, 1 + axis)
    return values


_GRID = st.integers(1, 40)
_ANY_SIDE = st.integers(1, 90)


@given(
    grid_hw=st.tuples(_GRID, _GRID),
    source_hw=st.tuples(_ANY_SIDE, _ANY_SIDE),
    network_hw=st.tuples(_ANY_SIDE, _ANY_SIDE),
    resize=st.sampled_from(RESIZE_MODES),
    classes=st.sampled_from([2, 3, 9, 40, 260]),
    has_classes_last=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float16]),
    blur=st.sampled_from([0, 2, 6]),
    block=st.sampled_from([1, 1 << 12, masks.BLOCK]),
    tile_values=st.sampled_from([1, 1 << 12, masks.TILES]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_labels_are_those_of_the_highest_interpolated_scores(
    grid_hw, source_hw, network_hw, resize, classes, has_classes_last, dtype, blur, block, tile_values, seed
):
    """From noise, where every cell is mixed, to few borders; in one block and in many."""
    scores = np.random.default_rng(seed).normal(size=(classes, *grid_hw)).astype(np.float32)
    if blur:
        scores = np.stack([cv2.GaussianBlur(plane, (0, 0), blur) for plane in scores])
    scores = scores.astype(dtype)
    output = scores[None]
    if has_classes_last:
        output = np.ascontiguousarray(np.moveaxis(output, 1, -1))
    layout = 'nhwc' if has_classes_last else 'nchw'
    image = ImageSpec('images', network_hw, layout=layout)
    spec = ModelSpec('segmentation', 'semantic', image, ('out',), (), classes)
    fit = fit_picture(source_hw, network_hw, resize=resize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, 'COARSE', 0)
        patch.setattr(masks, 'BLOCK', block)
        patch.setattr(masks, 'TILES', tile_values)
        patch.setattr(masks, 'LEAST_TILES', 8)
        found = decode_pixels(output, spec, fit=fit).class_map
    left, top, right, bottom = fit.source_box
    is_seen = np.zeros(source_hw, bool)
    is_seen[top:bottom, left:right] = True
    assert (found[~is_seen] == np.iinfo(found.dtype).max).all()
    expected = plainly_interpolated(scores, fit)[:, is_seen]
    taken = expected[found[is_seen], np.arange(is_seen.sum())]
    assert (expected.max(axis=0) - taken).max() < 1e-5  # rounding decides between equals


@given(
    grid_hw=st.tuples(_GRID, st.integers(3, 40)),  # two could be the scores of two classes
    source_hw=st.tuples(_ANY_SIDE, _ANY_SIDE),
    network_hw=st.tuples(_ANY_SIDE, _ANY_SIDE),
    resize=st.sampled_from(RESIZE_MODES),
    seed=st.integers(0, 10_000),
)
def test_one_interpolated_score_is_compared_with_the_threshold(grid_hw, source_hw, network_hw, resize, seed):
    logits = np.random.default_rng(seed).normal(size=(1, *grid_hw)).astype(np.float32)
    spec = ModelSpec(
        'segmentation',
        'semantic_binary',
        ImageSpec('images', network_hw),
        ('out',),
        (),
        2,
        score_unit='logits',
    )
    fit = fit_picture(source_hw, network_hw, resize=resize)
    found = decode_pixels(logits[None], spec, fit=fit, limits=Limits(mask_threshold=0.6)).class_map
    left, top, right, bottom = fit.source_box
    above = (plainly_interpolated(logits, fit)[0] - np.log(0.6 / 0.4))[top:bottom, left:right]
    is_clear = np.abs(above) > 1e-5
    assert (found[top:bottom, left:right] == (above > 0))[is_clear].all()


@pytest.mark.parametrize('classes', [2, 9, 40, 260])
@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_the_first_of_equal_classes_is_the_best(classes, dtype):
    scores = np.random.default_rng(0).integers(0, 4, (classes, *SIZE_HW)).astype(dtype)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(scores, 0, -1)), -1, 0)
    for layout in (scores, last, scores[:, 3:40, 5:7]):
        label, best = masks.best_class(layout, np.uint16)
        assert (label == layout.argmax(axis=0)).all() and (best == layout.max(axis=0)).all()


@pytest.mark.parametrize('classes', [1, 3, 150])
@pytest.mark.parametrize('blur', [1, 6])
@pytest.mark.parametrize('resize', RESIZE_MODES)
def test_memory_for_a_class_map_is_bounded_as_said(classes, blur, resize):
    noise = np.random.default_rng(0).normal(size=(classes, 60, 80)).astype(np.float32)
    output = np.stack([cv2.GaussianBlur(plane, (0, 0), blur) for plane in noise])[None]
    image = ImageSpec('images', (480, 640))
    decoder = 'semantic_binary' if classes == 1 else 'semantic'
    spec = ModelSpec('segmentation', decoder, image, ('out',), (), max(classes, 2), score_unit='logits')
    fit = fit_picture((800, 900), (480, 640), resize=resize)
    decode_pixels(output, spec, fit=fit)  # what it keeps for the next picture does not count
    tracemalloc.start()
    decode_pixels(output, spec, fit=fit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (24 if classes == 1 else 4) * 800 * 900 + 128 * 60 * 80 + (classes << 18) + (16 << 20)


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_a_score_of_minus_infinity_rules_a_class_out(dtype):
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize='stretch')
    maps = []
    for never in (-1e4, -np.inf):
        scores = smooth_scores(4, GRID_HW).astype(dtype)
        scores[0, :, ::3] = scores[2, ::4] = never
        maps.append(decode_pixels(scores[None], semantic_spec(scores[None]), fit=fit).class_map)
    assert (maps[0] == maps[1]).mean() > 0.999


@pytest.mark.parametrize('limit', ['MOST_PIXELS', 'MOST_SCORES', 'MOST_VALUES'])
def test_a_map_of_nothing_but_borders_is_not_interpolated(monkeypatch, limit):
    monkeypatch.setattr(masks, limit, 100)
    scores = np.random.default_rng(1).normal(size=(1, 4, *GRID_HW)).astype(np.float32)
    spec, fit = semantic_spec(scores), fit_picture(SOURCE_HW, SIZE_HW, resize='stretch')
    coarse = decode_pixels(scores, spec, fit=fit, limits=Limits(interpolate_scores=False))
    assert (decode_pixels(scores, spec, fit=fit).class_map == coarse.class_map).all()


DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.uint32, np.uint64]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('shape', [(1, 1, 16, 24), (1, 16, 24, 1), (1, 16, 24), (16, 24)])
def test_class_maps_of_any_integer_type_keep_their_labels(dtype, shape):
    labels = np.random.default_rng(0).choice([0, 3, 19, 77], (16, 24)).astype(dtype)
    output = labels.reshape(shape)
    spec = semantic_spec(output)
    assert spec.decoder == 'semantic_map'
    fit = fit_picture((64, 96), SIZE_HW, resize='stretch')
    found = decode_pixels(output, spec, fit=fit)
    assert found.class_map.dtype == (np.uint8 if labels.itemsize == 1 else np.uint16)
    assert (found.class_map == np.kron(labels, np.ones((4, 4), int))).all()
    assert not np.shares_memory(found.class_map, output)
    assert len(found) == 0


def test_labels_are_never_interpolated():
    labels = np.zeros((1, *SIZE_HW), np.int64)
    labels[:, :, 48:] = 200
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize='letterbox')
    assert np.unique(decode_pixels(labels, semantic_spec(labels), fit=fit).class_map).tolist() == [0, 200]


@pytest.mark.parametrize('highest', [0, 100, 254, 255])
@pytest.mark.parametrize(
    ('written', 'classes', 'dtype'),
    [
        (np.int32, 0, np.uint16),
        (np.int64, 21, np.uint8),
        (np.int64, 255, np.uint8),
        (np.int32, 256, np.uint16),
        (np.uint8, 0, np.uint8),
        (np.uint8, 256, np.uint16),
    ],
)
def test_the_class_map_is_as_wide_whatever_is_in_the_picture(written, highest, classes, dtype):
    labels = np.zeros((1, *SIZE_HW), written)
    labels[0, 0, 0] = highest
    found = decode_pixels(labels, replace(semantic_spec(labels), num_classes=classes)).class_map
    assert (found.dtype, found[0, 0]) == (dtype, highest)


def test_parameters_of_the_other_kind_of_model_are_said_to_have_no_effect():
    pixels, objects = semantic_spec(np.zeros((1, 5, *SIZE_HW), np.float32)), instance_spec('ultralytics_seg')
    assert any('nms_threshold and max_candidates have no effect' in note for note in pixels.notes)
    assert any('min_region_area and interpolate_scores have no effect' in note for note in objects.notes)


def test_class_255_is_a_class_where_the_number_of_classes_is_not_known():
    labels = np.full((1, *SIZE_HW), 100, np.int64)
    labels[0, :20] = 255
    spec = semantic_spec(labels)
    assert any('class maps have 16 bits; set class_names for 8' in note for note in spec.notes)
    for numbers in ([100, 255], [100, 255, 289]):
        labels[0, -20:] = numbers[-1]
        found = decode_pixels(labels, spec, limits=REGIONS)
        assert found.class_map.dtype == np.uint16
        assert set(found.objects.class_id.tolist()) == set(numbers)


def test_more_classes_than_have_names_do_not_widen_the_class_map():
    labels = np.zeros((1, *SIZE_HW), np.int64)
    spec = semantic_spec(labels, class_names=('road', 'car'))
    assert not any('16 bits' in note for note in spec.notes)
    labels[0, 3, 3] = 300
    with pytest.raises(
        SessionError, match='from 0 to 255, -1 for none, got 0 to 300; class_names has 2: name all of them'
    ):
        decode_pixels(labels, spec)


def test_what_has_no_class_is_no_object():
    labels = np.zeros((1, *SIZE_HW), np.uint8)
    labels[0, :20], labels[0, 30:] = 255, 3
    objects = decode_pixels(labels, semantic_spec(labels), limits=Limits(min_region_area=1)).objects
    assert objects.class_id.tolist() == [3]


@pytest.mark.parametrize('dtype', [np.int8, np.int16, np.int64, np.float32])
@pytest.mark.parametrize(('classes', 'none'), [(21, 255), (300, 65535)])
def test_minus_one_is_no_class(dtype, classes, none):
    labels = np.zeros((1, 1, *SIZE_HW), dtype)
    labels[..., :20, :], labels[..., 30:, :] = -1, 3
    spec = replace(semantic_spec(labels, decoder='semantic_map'), num_classes=classes)
    found = decode_pixels(labels, spec, limits=Limits(min_region_area=1))
    assert np.unique(found.class_map[:20]) == none and np.unique(found.class_map[20:]).tolist() == [0, 3]
    assert found.objects.class_id.tolist() == [3]


@pytest.mark.parametrize('value', [-2, 65536, 1 << 40])
def test_numbers_that_no_class_has_are_refused(value):
    labels = np.zeros((1, *SIZE_HW), np.int64)
    spec = semantic_spec(labels)
    labels[0, 3, 3] = value
    with pytest.raises(
        SessionError, match=f'out: expected class numbers from 0 to 65535, -1 for none, got .*{value}'
    ):
        decode_pixels(labels, spec)


def test_a_truth_value_per_pixel_is_a_map_of_two_classes():
    truth = np.zeros((1, *SIZE_HW), bool)
    truth[:, 10:20] = True
    assert decode_pixels(truth, semantic_spec(truth)).class_map.sum() == 10 * SIZE_HW[1]


@pytest.mark.parametrize('shape', [(1, 1, *SIZE_HW), (1, *SIZE_HW, 1), (1, *SIZE_HW)])
@pytest.mark.parametrize(
    ('low', 'high', 'unit', 'said', 'pixels'),
    [
        (-3.0, 2.0, 'logits', '', 100),
        (0.2, 0.9, '', '', 100),
        (0.2, 0.4, '', '', 0),
        (0.2, 0.4, 'logits', 'logits', 64 * 96),
        (0.2, 7.0, 'probabilities', 'probabilities', 100),
    ],
)
def test_one_score_per_pixel_is_a_logit_or_a_probability(shape, low, high, unit, said, pixels):
    plane = np.full(SIZE_HW, low, np.float32)
    plane[20:30, 40:50] = high
    output = plane.reshape(shape)
    spec = semantic_spec(output, score_unit=said)
    assert (spec.decoder, spec.score_unit, spec.num_classes) == ('semantic_binary', unit, 2)
    found = decode_pixels(output, spec).class_map
    assert found.dtype == np.uint8 and found.sum() == pixels


@pytest.mark.parametrize('dtype', [np.float32, bool])
def test_what_tells_one_object_has_no_third_name(dtype):
    with pytest.raises(
        NamesError, match='the name of one object, or of the background and the object, got 3'
    ):
        semantic_spec(np.zeros((1, 1, *SIZE_HW), dtype), class_names=('a', 'b', 'c'))


@pytest.mark.parametrize(('dtype', 'value'), [(bool, 1), (np.uint8, 1), (np.int64, 1), (np.uint8, 255)])
def test_the_one_name_of_a_class_map_is_that_of_the_object(dtype, value):
    labels = np.zeros((1, *SIZE_HW), dtype)
    labels[0, 20:30, 40:50] = value
    spec = semantic_spec(labels, class_names=('person',))
    assert spec.class_names == ('background', 'person')
    assert not any('go by number' in note for note in spec.notes)
    found = decode_pixels(labels, spec, limits=Limits(min_region_area=1))
    assert found.objects.class_id.tolist() == [1] and found.objects.xyxy.tolist() == [[40, 20, 50, 30]]
    assert found.class_map.dtype == np.uint8 and found.class_map.sum() == 100
    empty = decode_pixels(np.zeros_like(labels), spec, limits=Limits(min_region_area=1))
    assert not len(empty) and not empty.class_map.any()


@pytest.mark.parametrize('names', [(), ('background', 'road'), ('road',)])
def test_what_255_means_does_not_change_from_picture_to_picture(names):
    labels = np.zeros((1, *SIZE_HW), np.uint8)
    spec = semantic_spec(labels, class_names=names)
    is_object = len(names) == 1
    assert any('255 is taken for no class' in note for note in spec.notes) != is_object
    labels[0, :20] = 255
    for value in (0, 1):  # without any other pixel of the object, and with some
        labels[0, 40:50] = value
        found = decode_pixels(labels, spec, limits=Limits(min_region_area=1))
        assert np.unique(found.class_map[:20]) == (1 if is_object else 255)
        assert len(found) == is_object + value


def test_the_one_name_of_a_model_with_one_score_is_that_of_the_object():
    output = np.full((1, 1, *SIZE_HW), -2, np.float32)
    assert semantic_spec(output, class_names=('road',)).class_names == ('background', 'road')


def test_classes_written_as_floats_are_told_from_scores():
    labels = np.zeros((1, 1, *SIZE_HW), np.float32)
    labels[..., 4:20] = 7
    with pytest.raises(ModelError, match='whole numbers only, which are probably classes; set decoder'):
        semantic_spec(labels)
    assert set(np.unique(decode_pixels(labels, semantic_spec(labels, decoder='semantic_map')).class_map)) == {
        0,
        7,
    }


def picture_with(box: tuple[int, int, int, int], size_hw: tuple[int, int]) -> np.ndarray:
    picture = np.zeros((*size_hw, 3), np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    return picture


_SIDE = st.integers(24, 160)


@given(st.tuples(_SIDE, _SIDE), st.tuples(_SIDE, _SIDE), st.sampled_from(RESIZE_MODES), st.data())
@settings(max_examples=120)
def test_padding_is_undone_for_any_way_of_fitting(source_hw, network_hw, resize, data):
    """A network that answers with its own input marks the bright part of the picture, where it was."""
    left, top = (data.draw(st.integers(0, length - 8)) for length in source_hw[::-1])
    right = data.draw(st.integers(left + 8, source_hw[1]))
    bottom = data.draw(st.integers(top + 8, source_hw[0]))
    picture = picture_with((left, top, right, bottom), source_hw)
    image = ImageSpec('images', network_hw, resize=resize)
    seen = np.empty(image.shape, np.float32)
    fit = Preparer(image)(Frame(picture), seen)
    spec = ModelSpec('segmentation', 'semantic_binary', image, ('out',), (), 2)
    found = decode_pixels(seen[:, :1], spec, fit=fit).class_map
    assert found.shape == source_hw
    x0, y0, x1, y1 = fit.source_box
    scale_x, scale_y = fit.scale_xy
    far_x, far_y = int(0.5 + 0.5 / min(scale_x, 1)) + 1, int(0.5 + 0.5 / min(scale_y, 1)) + 1
    inside = found[
        max(top, y0) + far_y : min(bottom, y1) - far_y, max(left, x0) + far_x : min(right, x1) - far_x
    ]
    assert (inside == 1).all()
    outside = np.ones(source_hw, bool)
    outside[max(top - far_y, 0) : bottom + far_y, max(left - far_x, 0) : right + far_x] = False
    shown = np.zeros(source_hw, bool)
    shown[y0:y1, x0:x1] = True
    assert (found[outside & shown] == 0).all()
    assert (found[~shown] == 255).all()  # nobody has looked there


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    for channels in (1, 4):
        output = smooth_scores(channels, SIZE_HW)[None] - 20
        spec = semantic_spec(output)
        output[0, 0, 9, 9] = value
        with pytest.raises(SessionError, match='out: expected finite scores, got NaN or Inf'):
            decode_pixels(output, spec)


@pytest.mark.parametrize('shape', [(1, 5, 64, 96), (2, 4, 64, 96), (1, 4, 0, 96), (4, 64, 96), ()])
def test_other_shapes_than_those_of_the_model_are_refused(shape):
    spec = semantic_spec(smooth_scores(4, SIZE_HW)[None])
    with pytest.raises(TensorError, match='out: expected'):
        decode_pixels(np.zeros(shape, np.float32), spec)


# ---- regions -------------------------------------------------------------------------------------


def blobs() -> np.ndarray:
    """Logits of background, and of two classes: one region of the first, two of the second."""
    scores = np.zeros((1, 3, *SIZE_HW), np.float32)
    scores[0, 1, 5:15, 10:30] = 2
    scores[0, 2, 40:60, 50:80] = 4
    scores[0, 2, 2:6, 90:94] = 3
    return scores


def test_regions_are_looked_for_only_where_they_are_asked_for():
    assert len(decode_pixels(blobs(), semantic_spec(blobs()))) == 0
    empty = np.zeros((1, 3, *SIZE_HW), np.float32)
    assert len(decode_pixels(empty, semantic_spec(empty), limits=REGIONS)) == 0


def test_a_region_is_an_object_with_its_mask_and_its_mean_probability():
    found = decode_pixels(blobs(), semantic_spec(blobs()), limits=REGIONS)
    assert found.objects.class_id.tolist() == [2, 2, 1]
    assert found.objects.xyxy.tolist() == [[50, 40, 80, 60], [90, 2, 94, 6], [10, 5, 30, 15]]
    likely = [np.exp(score) / (np.exp(score) + 2) for score in (4, 3, 2)]
    np.testing.assert_allclose(found.objects.score, likely, atol=1e-5)
    assert all(mask.all() for mask in found.masks)
    assert [mask.shape for mask in found.masks] == [(20, 30), (4, 4), (10, 20)]


@pytest.mark.parametrize(
    ('limits', 'areas'),
    [
        (replace(REGIONS, min_region_area=10_000), []),
        (replace(REGIONS, min_region_area=17), [600, 200]),
        (replace(REGIONS, min_region_area=16), [600, 16, 200]),
        (replace(REGIONS, max_detections=1), [600]),
        (replace(REGIONS, class_ids=frozenset({1})), [200]),
        (replace(REGIONS, confidence_threshold=0.9), [600, 16]),
    ],
)
def test_limits_choose_among_the_regions(limits, areas):
    found = decode_pixels(blobs(), semantic_spec(blobs()), limits=limits)
    assert [int(mask.sum()) for mask in found.masks] == areas


@pytest.mark.parametrize('classes', [3, 300])
@pytest.mark.parametrize('least', [0, 16], ids=['pixels', 'regions'])
def test_classes_that_are_filtered_out_are_in_no_class_map(classes, least):
    scores = np.zeros((1, classes, *SIZE_HW), np.float32)
    scores[:, :3] = blobs()
    everything = decode_pixels(scores, semantic_spec(scores)).class_map
    limits = replace(REGIONS, min_region_area=least, class_ids=frozenset({2, 0}))
    found = decode_pixels(scores, semantic_spec(scores), limits=limits)
    none = np.iinfo(everything.dtype).max
    assert set(np.unique(everything)) == {0, 1, 2} and set(np.unique(found.class_map)) == {0, 2, none}
    np.testing.assert_array_equal(found.class_map == none, everything == 1)
    assert found.class_map.dtype == everything.dtype == (np.uint8 if classes == 3 else np.uint16)


def test_a_filter_of_the_number_of_no_class_finds_nothing():
    labels = blobs().argmax(axis=1).astype(np.uint8)
    for class_ids in ({255}, {255, 300}):
        limits = replace(REGIONS, class_ids=frozenset(class_ids))
        found = decode_pixels(labels, semantic_spec(labels), limits=limits)
        assert len(found) == 0 and (found.class_map == 255).all()


def test_the_last_of_256_classes_can_be_filtered():
    scores = np.zeros((1, 256, *SIZE_HW), np.float32)
    scores[0, 255, :8] = 1
    limits = replace(REGIONS, class_ids=frozenset({255}))
    found = decode_pixels(scores, semantic_spec(scores), limits=limits)
    assert found.objects.class_id.tolist() == [255]
    assert set(np.unique(found.class_map)) == {255, 65535}


def test_regions_have_a_hole_where_their_class_has():
    scores = blobs()
    scores[0, 0, 45:50, 60:70] = 9
    found = decode_pixels(scores, semantic_spec(scores), limits=replace(REGIONS, class_ids=frozenset({2})))
    assert found.masks[0].sum() == 550 and not found.masks[0][5:10, 10:20].any()


def test_the_background_is_a_region_only_where_it_is_asked_for():
    assert background_classes(()) == {0}
    assert background_classes(('road', 'Background', 'car')) == {1}
    assert background_classes(('road', 'car')) == frozenset()
    assert background_classes(('unlabelled', 'ignore', 'nothing at all')) == {0, 1}
    found = decode_pixels(blobs(), semantic_spec(blobs()), limits=replace(REGIONS, class_ids=frozenset({0})))
    assert found.objects.class_id.tolist() == [0]


def test_regions_of_a_class_map_score_one_because_nothing_is_known():
    labels = blobs().argmax(axis=1)
    spec = semantic_spec(labels)
    assert any('without probabilities' in note for note in spec.notes)
    assert decode_pixels(labels, spec, limits=REGIONS).objects.score.tolist() == [1, 1, 1]


def test_regions_of_one_class_score_its_probability():
    output = np.full((1, 1, *SIZE_HW), 0.1, np.float32)
    output[..., 10:20, 10:20] = 0.75
    found = decode_pixels(output, semantic_spec(output), limits=REGIONS)
    assert found.objects.class_id.tolist() == [1]
    assert found.objects.score.tolist() == [0.75]


def test_what_is_unlikely_to_be_the_object_is_likely_not_to_be():
    output = np.full((1, 1, *SIZE_HW), 0.125, np.float32)
    both = replace(REGIONS, class_ids=frozenset({0, 1}))
    found = decode_pixels(output, semantic_spec(output), limits=both)
    assert (found.objects.class_id.tolist(), found.objects.score.tolist()) == ([0], [0.875])


def test_probabilities_are_taken_in_the_middle_of_the_cells_that_the_picture_shows():
    fit = fit_picture((32, 96), (64, 96), resize='letterbox')  # 16 rows of padding above
    (rows, y), (columns, x) = masks.grid_in_source(fit, GRID_HW, 1)
    assert (rows, columns) == (slice(4, 12, 1), slice(0, 24, 1))
    assert y.tolist() == list(range(2, 32, 4)) and x.tolist() == list(range(2, 96, 4))
    assert masks.grid_in_source(fit, GRID_HW, 3)[0][1].tolist() == [2, 14, 26]


def test_a_region_between_the_samples_scores_its_own_probability(monkeypatch):
    monkeypatch.setattr(regions, 'SAMPLES', 64)  # every ninth row and column of the grid
    scores = np.zeros((1, 3, *SIZE_HW), np.float32)
    scores[0, 0] = 5
    scores[0, 1, 30:60, 20:50] = 12
    scores[0, 1, 5:60, 85:87] = 5.2
    found = decode_pixels(scores, semantic_spec(scores), limits=REGIONS).objects
    assert found.xyxy.tolist() == [[20, 30, 50, 60], [85, 5, 87, 60]]
    likely = [np.exp(score) / (np.exp(score) + np.exp(5) + 1) for score in (12, 5.2)]
    np.testing.assert_allclose(found.score, likely, atol=1e-5)


def test_regions_that_nobody_has_time_to_look_at_score_as_all_of_their_class(monkeypatch):
    monkeypatch.setattr(regions, 'SAMPLES', 64)
    monkeypatch.setattr(regions, 'MAX_LOOKING', regions.LOOKING + 12)
    output = np.full((1, 1, *SIZE_HW), 0.1, np.float32)
    output[..., 30:60, 20:50], output[..., 5:60, 85:87], output[..., 10:14, 29:32] = 0.9, 0.6, 0.7
    found = decode_pixels(output, semantic_spec(output), limits=REGIONS).objects
    np.testing.assert_allclose(found.score, [0.9, 0.9, 0.7], atol=1e-6)
    assert found.xyxy[2].tolist() == [29, 10, 32, 14]


def test_regions_of_pictures_larger_than_memory_are_refused(monkeypatch):
    monkeypatch.setattr(regions, 'MAX_REGION_PIXELS', 1000)
    with pytest.raises(SessionError, match='6144 pixels is above the limit of 1000'):
        decode_pixels(blobs(), semantic_spec(blobs()), limits=REGIONS)


def scattered(classes: int) -> np.ndarray:
    """Many classes all over the picture, and the background at the top."""
    labels = np.random.default_rng(0).integers(1, classes, (1, *SIZE_HW))
    labels[0, :4] = 0
    return labels


def test_where_all_regions_score_the_same_no_more_are_looked_for_than_are_wanted(monkeypatch):
    labels = scattered(500)
    limits = replace(REGIONS, max_detections=3)
    expected = decode_pixels(labels, semantic_spec(labels), limits=REGIONS).objects[:3]
    looked = []
    connected = regions._connected
    monkeypatch.setattr(regions, '_connected', lambda part: looked.append(part) or connected(part))
    found = decode_pixels(labels, semantic_spec(labels), limits=limits).objects
    assert found.xyxy.tolist() == expected.xyxy.tolist()
    assert found.class_id.tolist() == expected.class_id.tolist()
    assert len(looked) <= 3


def test_more_scattered_classes_than_there_is_time_for_are_refused(monkeypatch):
    labels = scattered(500)
    spec = semantic_spec(labels)
    monkeypatch.setattr(regions, 'MAX_REGION_WORK', 100_000)
    with pytest.raises(SessionError, match='499 classes have 1 pixels or more, .*; raise min_region_area'):
        decode_pixels(labels, spec, limits=replace(REGIONS, max_detections=10_000))
    decode_pixels(labels, spec, limits=replace(REGIONS, min_region_area=100))


def test_a_score_is_that_of_the_region_s_class_where_the_grid_is_finer_than_the_picture():
    grid_hw, source_hw = (128, 192), (32, 48)  # four grid points to a pixel, along each axis
    shares = np.full((1, 3, *grid_hw), 0.05, np.float32)
    shares[:, 2] = 0.9
    shares[0, :, 2::4, 2::4] = np.array([0.2, 0.45, 0.35], np.float32)[:, None, None]  # what a pixel meets
    spec = semantic_spec(shares, size_hw=grid_hw, class_names=('background', 'cup', 'table'))
    fit = fit_picture(source_hw, spec.image.size_hw, resize='stretch')
    limits = replace(REGIONS, interpolate_scores=False, confidence_threshold=0.0)
    found = decode_pixels(shares, spec, fit=fit, limits=limits).objects
    assert found.class_id.tolist() == [1]
    assert found.score[0] == pytest.approx(0.45, abs=1e-3)


def test_that_each_class_is_looked_for_in_the_whole_picture_counts_too(monkeypatch):
    labels = np.zeros((1, *SIZE_HW), np.int64)
    labels[0, 8, :90] = np.arange(90)  # a pixel each
    spec = semantic_spec(labels)
    assert len(decode_pixels(labels, spec, limits=replace(REGIONS, max_detections=100)).objects) == 89
    monkeypatch.setattr(regions, 'MAX_REGION_WORK', 80 * labels.size // 8)
    with pytest.raises(SessionError, match='89 classes have 1 pixels or more'):
        decode_pixels(labels, spec, limits=replace(REGIONS, max_detections=100))


# ---- whatever a network answers ------------------------------------------------------------------

PIXELS: dict[str, Outputs] = {
    'scores': {'out': smooth_scores(4, GRID_HW)[None]},
    'map': {'out': np.zeros((1, *GRID_HW), np.int64)},
    'binary': {'out': np.zeros((1, 1, *GRID_HW), np.float32)},
}


@pytest.mark.parametrize('name', [*LAYOUTS, *PIXELS])
@given(data=st.data())
@settings(max_examples=25)
def test_any_answer_gives_a_sound_segmentation_or_one_of_our_errors(name, data):
    outputs: Mapping[str, np.ndarray]
    if name in PIXELS:
        spec = semantic_spec(PIXELS[name]['out'])
        outputs = {'out': PIXELS[name]['out'].copy()}
    else:
        spec, outputs = instance_spec(name), LAYOUTS[name](CUP, BALL)
    spoil(outputs, data)
    limits = Limits(
        confidence_threshold=data.draw(st.sampled_from([0.0, 0.25, 1.0])),
        mask_threshold=data.draw(st.sampled_from([0.0, 0.5, 1.0])),
        min_region_area=data.draw(st.sampled_from([0, 1, 50])),
        interpolate_scores=data.draw(st.booleans()),
    )
    fit = fit_picture(SOURCE_HW, SIZE_HW, resize=data.draw(st.sampled_from(RESIZE_MODES)))
    with contextlib.suppress(IsaacInferError):
        found = DECODERS[spec.decoder](outputs, fit, spec, limits)
        for row, mask in enumerate(found.masks):
            left, top, right, bottom = mask_box(found.objects.xyxy[row])
            assert mask.shape == (bottom - top, right - left) and mask.dtype == bool
            assert 0 <= left < right <= SOURCE_HW[1] and 0 <= top < bottom <= SOURCE_HW[0]
        assert (found.class_map is None) == (name in LAYOUTS)
        assert found.class_map is None or found.class_map.shape == SOURCE_HW


# ---- real networks -------------------------------------------------------------------------------

needs_data = pytest.mark.skipif(
    not DATA, reason='needs real networks: set ISAAC_INFER_TEST_DATA to the folder that has them'
)


def real(name: str) -> Any:
    from isaac_infer.engine.load import open_pipeline

    return open_pipeline(
        Path(DATA, 'models', name, 'model.onnx'),
        task='segmentation',
        limits=lambda spec: Limits(),
        backend='onnxruntime',
    )


def reference(model: str, picture: str) -> Path:
    return Path(DATA, 'models', model, 'refs', picture)


@needs_data
def test_a_real_instance_network_gives_the_masks_of_its_reference():
    with contextlib.closing(real('yolov8n_seg_320_coco')) as pipeline:
        assert pipeline.spec.decoder == 'ultralytics_seg'
        for picture in ('bus', 'coco_000000000785', 'dog', 'jetson_humans_4'):
            found = pipeline(Frame(cv2.imread(str(Path(DATA, 'images', f'{picture}.jpg')))))
            said = json.loads(reference('yolov8n_seg_320_coco', f'{picture}.json').read_text())['detections']
            stored = np.load(reference('yolov8n_seg_320_coco', f'{picture}.masks.npz'))
            count, height, width = stored['shape']
            expected = np.unpackbits(stored['masks'], axis=1)[:, : height * width].astype(bool)
            assert len(found) == count
            for row, one in enumerate(said):
                near = np.abs(found.objects.xyxy - one['box_xyxy']).max(axis=1).argmin()
                assert found.objects.class_id[near] == one['class_id']
                mask = painted(found, near, (height, width)).reshape(-1)
                assert (mask & expected[row]).sum() / (mask | expected[row]).sum() > 0.98


@needs_data
def test_real_heat_maps_are_not_taken_for_classes_without_a_word():
    with contextlib.closing(real('efficientpose_rt_224')) as pipeline:
        (warning,) = pipeline.fallbacks
        assert 'heat maps of key points' in warning and 'set decoder to semantic' in warning


@needs_data
def test_a_real_semantic_network_gives_the_labels_of_its_reference_without_being_told_how_it_is_fed():
    with contextlib.closing(real('deeplab_v3_mnv2_257_voc')) as pipeline:
        assert pipeline.spec.decoder == 'semantic_symmetric' and pipeline.fallbacks == ()
        for picture in ('bus', 'coco_000000000785', 'dog'):
            image = cv2.imread(str(Path(DATA, 'images', f'{picture}.jpg')))
            expected = cv2.imread(str(reference('deeplab_v3_mnv2_257_voc', f'{picture}.labels.png')), -1)
            found = pipeline(Frame(image))
            assert found.class_map.shape == image.shape[:2]
            own = fit_picture((257, 257), (257, 257), resize='stretch')
            on_grid = DECODERS[pipeline.spec.decoder](pipeline.session.run(), own, pipeline.spec, Limits())
            assert (on_grid.class_map == expected).mean() > 0.995
            large = cv2.resize(expected, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            assert (found.class_map == large).mean() > 0.99


@pytest.mark.parametrize('grain', [3, 40])  # some borders, and too many to interpolate
@pytest.mark.parametrize('size', [(1, 90), (2, 90), (61, 90), (150, 31)])
def test_two_threads_find_what_one_finds(monkeypatch, grain, size):
    rng = np.random.default_rng(grain)
    coarse = rng.normal(size=(grain, grain, 5)).astype(np.float32)
    scores = np.ascontiguousarray(cv2.resize(coarse, size[::-1]).transpose(2, 0, 1))
    rows, columns = masks.taps(fit_picture((200, 300), (60, 90), resize='stretch'), size)
    monkeypatch.setattr(masks, 'BLOCK', 20 * size[1])  # several blocks for each
    found = []
    for shared in (1 << 60, 1):
        monkeypatch.setattr(masks, 'SHARED', shared)
        found.append(masks.interpolated_labels(scores, rows, columns, np.uint8))
    (labels, best), (other_labels, other_best) = found
    assert np.array_equal(labels, other_labels) and np.array_equal(best, other_best)
    assert np.array_equal(best, scores.max(axis=0)[rows.within[0], columns.within[0]])


def test_regions_of_noise_are_found_where_short_numbers_do_not_suffice():
    noise = (np.random.default_rng(0).uniform(size=(1440, 2560)) < 0.5).view(np.uint8)
    count, labels, stats = regions._connected(noise)
    assert count == len(stats) == labels.max() + 1
    assert stats[1:, cv2.CC_STAT_AREA].sum() == noise.sum()


def test_a_thin_region_keeps_its_score_among_thousands_of_specks():
    size_hw, rng = (1080, 1920), np.random.default_rng(0)
    scores = np.full(size_hw, 0.02, np.float32)
    y, x = rng.integers(0, 95, 6000) * 5 + 1, rng.integers(0, 380, 6000) * 5 + 1
    scores[y, x] = scores[y, x + 1] = scores[y + 1, x] = 0.55
    scores[504, 300:1500] = 0.97  # between the samples
    image = ImageSpec('images', size_hw, resize='stretch')
    spec = ModelSpec('segmentation', 'semantic_binary', image, ('output',), (), 2)
    fit = fit_picture(size_hw, size_hw, resize='stretch')
    limits = Limits(min_region_area=1, confidence_threshold=0.0, max_detections=10_000)
    found = DECODERS['semantic_binary']({'output': scores[None, None]}, fit, spec, limits)
    widest = max(range(len(found)), key=lambda row: found.masks[row].shape[1])
    assert found.objects.score[widest] == pytest.approx(0.97)


def test_the_pixels_of_a_region_that_are_looked_at_are_all_over_it():
    for high, wide in ((7, 15), (3, 46), (40, 64), (64, 64), (1, 500)):
        labels = np.ones((high, wide), np.int32)
        _, x = regions._some_pixels(labels, np.array((0, 0, wide, high, high * wide)), 1)
        shares = np.bincount(x * 4 // wide, minlength=4) / len(x)
        assert shares == pytest.approx(0.25, abs=0.1)
