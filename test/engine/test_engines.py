"""What is done to a model before it is built, and how its engine is read: on ONNX Runtime, without a GPU."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest

from isaac_infer.core.build_options import BuildOptions, EngineOptions
from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.errors import ModelError, ParameterError, SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.results import Detections, Poses, Segmentation
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.spec import Limits, Overrides
from isaac_infer.engine import build, engines, surgery
from isaac_infer.engine.build import Request, build_plan
from isaac_infer.engine.cache import cached_plan
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.load import find_spec
from isaac_infer.engine.ort import OrtSession
from models import save_colour_detector, save_constant_detector

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
NO_GPU = pytest.mark.skipif(not device_problem(), reason='there is a GPU')


def changed(folder, *, model=MODEL, has_fp16_flag=True, pictures=None, say=lambda text: None, **options):
    return engines._changed(
        model,
        folder,
        BuildOptions(**options),
        Overrides(),
        find_spec,
        pictures,
        say,
        has_fp16_flag=has_fp16_flag,
    )


@pytest.fixture(scope='module')
def spec(tmp_path_factory):
    return changed(tmp_path_factory.mktemp('changed'))[1]


def followed_by(model, kind, reads, shape=None, **attributes):
    """A copy of a model of one output that ends with one more node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (output,) = copy.graph.output
    for node in copy.graph.node:
        node.output[:] = ['before' if name == output.name else name for name in node.output]
    copy.graph.initializer.extend(onnx.numpy_helper.from_array(*constant[::-1]) for constant in reads.items())
    copy.graph.node.append(onnx.helper.make_node(kind, ['before', *reads], [output.name], **attributes))
    if shape:
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))
    return copy


def in_another_order(model):
    """As near ties in the choice of the best boxes would have it."""
    boxes = model.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    return followed_by(model, 'Gather', {'order': np.arange(boxes)[::-1].copy()}, axis=2)


def spoiled(model):
    return followed_by(model, 'Mul', {'factor': np.float32(1.05)})


@pytest.mark.parametrize(
    ('options', 'decoder', 'dtype'),
    [
        ({'uint8_input': False, 'best_class': False}, 'ultralytics', 'float32'),
        ({'best_class': False}, 'ultralytics', 'uint8'),
        ({'uint8_input': False}, 'ultralytics_best', 'float32'),
        ({}, 'ultralytics_best', 'uint8'),
    ],
)
def test_a_changed_model_says_the_same_of_pictures(tmp_path, options, decoder, dtype):
    place, spec, metadata = changed(tmp_path, **options)
    assert (spec.decoder, spec.image.dtype.name) == (decoder, dtype)
    assert 'mug' in metadata['names']
    with OrtSession(MODEL) as first, OrtSession(place) as second:
        original = find_spec(first, MODEL, Overrides())
        pipelines = Pipeline(first, original, Limits()), Pipeline(second, spec, Limits())
        for seed in range(100, 110):
            want, got = (pipeline(Frame(draw_scene(seed).image)) for pipeline in pipelines)
            np.testing.assert_array_equal(want.class_id, got.class_id)
            np.testing.assert_allclose(want.xyxy, got.xyxy, atol=0.01)
            np.testing.assert_allclose(want.score, got.score, atol=1e-4)


class PretendedSession(OrtSession):
    """Runs an engine of `machine`, which is the model that was to be built."""

    def __init__(self, path, **options):
        super().__init__(path)
        self.path = path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Open the engine of a model on a machine that seems to build some: `requests`, each by `build`."""
    gpu = SimpleNamespace(facts=SimpleNamespace(name='some GPU', compute_capability=(9, 0)))
    trt = SimpleNamespace(__name__='tensorrt', BuilderFlag=SimpleNamespace(FP16=1))
    requests = []

    def build_it(request, **_):
        requests.append(request)
        open_it.build(request)
        return {'build_s': 1.0, 'warnings': [], 'latency_ms': 1.0}

    monkeypatch.setattr(engines, 'find_tensorrt', lambda: trt)
    monkeypatch.setattr(engines, 'installed_version', lambda trt: (8, 6))
    monkeypatch.setattr(engines, 'Gpu', lambda device: gpu)
    monkeypatch.setattr(engines, 'build_plan', build_it)
    monkeypatch.setattr(engines, 'TrtSession', PretendedSession)

    def open_it(
        model=MODEL,
        overrides=Overrides(),
        *,
        task='detection',
        say=lambda text: None,
        calibration='',
        way='qdq',
        device=0,
        **more,
    ):
        build = BuildOptions(calibration=way, **more)
        options = EngineOptions(build, str(tmp_path / 'engines'), calibration=str(calibration), device=device)
        find = partial(find_spec, task=task)
        session, spec = engines.open_engine(model, options, overrides, find, task=task, say=say)
        session.close()
        return session.path, spec

    open_it.requests = requests
    open_it.build = lambda request: shutil.copy(request.model, request.into)
    return open_it


def test_how_boxes_share_needs_no_other_engine_and_is_not_kept(machine):
    engine, spec = machine()
    assert spec.box_blend == 0.02
    same, changed = machine(overrides=Overrides(box_blend=0.5))
    assert (same, changed.box_blend) == (engine, 0.5)
    assert machine()[1] == spec
    built_with = machine(overrides=Overrides(box_blend=0.0, resize='stretch'))[1]
    assert (built_with.box_blend, machine(overrides=Overrides(resize='stretch'))[1].box_blend) == (0.0, 0.02)


def test_class_names_that_were_given_once_are_not_those_of_later_starts(machine):
    own = machine()[1].class_names
    given = Overrides(class_names=tuple('ABCDEFGHI'))
    other = Overrides(class_names=tuple('AbcdefghI'))
    (engine, spec), (same, renamed) = machine(MODEL, given), machine(MODEL, other)
    assert (spec.class_names, renamed.class_names) == (given.class_names, other.class_names)
    assert engine == same and len(machine.requests) == 2
    assert machine()[1].class_names == own


def test_a_wrong_number_of_names_builds_nothing(machine):
    with pytest.raises(ModelError, match='expected 9 class names'):
        machine(MODEL, Overrides(class_names=('A', 'B')))
    assert not machine.requests


def test_the_only_name_of_a_model_with_one_output_per_pixel_is_that_of_its_second_class(machine, tmp_path):
    scores = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    model = save_constant_detector(tmp_path / 'road.onnx', {'seg': scores})
    road = Overrides(class_names=('road',))
    for _ in range(2):
        _, spec = machine(model, road, task='segmentation')
        assert spec.class_names == ('background', 'road')


def test_an_engine_is_built_on_the_gpu_that_it_is_for(machine):
    machine(device=1)
    assert [request.device for request in machine.requests] == [1]


def test_a_model_that_nothing_is_done_to_stays_where_it_is(tmp_path):
    place, _, _ = changed(tmp_path, uint8_input=False, best_class=False)
    assert place == MODEL and not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['uint8_input', 'best_class'])
def test_a_change_that_is_not_true_to_the_model_is_left_out_and_said(tmp_path, monkeypatch, option):
    name = {'uint8_input': 'take_uint8', 'best_class': 'to_best_class'}[option]
    change = getattr(surgery, name)
    monkeypatch.setattr(surgery, name, lambda *args, **more: spoiled(change(*args, **more)))
    said = []
    off = {'uint8_input': False, 'best_class': False, option: True}
    place, spec, _ = changed(tmp_path, say=said.append, **off)
    assert place == MODEL and (spec.decoder, spec.image.dtype.name) == ('ultralytics', 'float32')
    assert len(said) == 1 and said[0].startswith(f'tabletop_detector.onnx: built without {option}, ')


def test_a_network_that_answers_the_same_objects_in_another_order_is_the_same(tmp_path, monkeypatch):
    change = surgery.take_uint8
    monkeypatch.setattr(surgery, 'take_uint8', lambda *args: in_another_order(change(*args)))
    said = []
    _, spec, _ = changed(tmp_path, best_class=False, say=said.append)
    assert spec.image.dtype == np.uint8 and not said


def test_where_nothing_is_found_objects_prove_nothing(tmp_path, monkeypatch):
    change = surgery.take_uint8
    monkeypatch.setattr(surgery, 'take_uint8', lambda *args: in_another_order(change(*args)))
    black = SimpleNamespace(image=np.zeros((9, 9, 3), np.uint8))
    monkeypatch.setattr('isaac_infer.core.scenes.draw_scene', lambda seed: black)
    said = []
    _, spec, _ = changed(tmp_path, best_class=False, say=said.append)
    assert spec.image.dtype == np.float32 and 'differs from the original' in said[0]


@pytest.mark.parametrize(
    ('change', 'compared'),
    [
        ({}, (2, 0)),
        ({'order': [1, 0, 2]}, (2, 0)),
        ({'xyxy': 0.1}, (2, 4)),
        ({'score': 0.1}, (2, 4)),
        ({'class_id': 1}, (2, 4)),
        ({'order': [0, 2]}, (2, 1)),
        ({'order': [0, 1]}, (2, 0)),  # the third scores as the threshold does
    ],
)
@pytest.mark.parametrize('turn', [False, True])
def test_objects_are_the_same_in_any_order_and_near_the_threshold_by_half(change, compared, turn):
    xyxy = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 40, 40]], np.float32)
    want = Detections(xyxy, np.array([0.9, 0.8, 0.055], np.float32), np.array([0, 1, 1], np.int32))
    order = change.get('order', [0, 1, 2])
    got = Detections(
        (want.xyxy + np.float32(change.get('xyxy', 0)))[order],
        (want.score - np.float32(change.get('score', 0)))[order],
        (want.class_id + change.get('class_id', 0))[order].astype(np.int32),
    )
    if not turn:
        assert engines._compare_objects(want, got, engines.SINGLE_CLOSE) == compared
    else:
        assert engines._compare_objects(got, want, engines.SINGLE_CLOSE)[1] == compared[1]


def test_masks_and_key_points_of_the_same_boxes_are_compared():
    one = Detections(np.array([[0, 0, 8, 8]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    mask = np.zeros((8, 8), bool)
    masks = Segmentation(one, (mask,)), Segmentation(one, (~mask,))
    points = np.zeros((1, 2, 2), np.float32)
    scores = np.ones((1, 2), np.float32)
    poses = Poses(one, points, scores), Poses(one, points + 1, scores)
    for same, other in (masks, poses):
        assert engines._compare_objects(same, same, engines.SINGLE_CLOSE) == (1, 0)
        assert engines._compare_objects(same, other, engines.SINGLE_CLOSE) == (1, 2)


def test_a_model_that_puts_the_classes_last_is_built_without_best_class(tmp_path):
    model = onnx.load(MODEL)
    shape = [part.dim_value for part in model.graph.output[0].type.tensor_type.shape.dim]
    turned = followed_by(model, 'Transpose', {}, [shape[0], shape[2], shape[1]], perm=[0, 2, 1])
    onnx.save(turned, tmp_path / 'turned.onnx')
    said = []
    _, spec, _ = changed(tmp_path, model=tmp_path / 'turned.onnx', say=said.append)
    assert (spec.decoder, spec.image.dtype.name) == ('ultralytics', 'uint8')
    assert len(said) == 1 and said[0].startswith('turned.onnx: built without best_class, ')


def test_an_output_that_nobody_reads_may_hold_nan(tmp_path):
    model = onnx.load(MODEL)
    zero = onnx.numpy_helper.from_array(np.zeros(2, np.float32), 'zero')
    model.graph.initializer.append(zero)
    model.graph.node.append(onnx.helper.make_node('Div', ['zero', 'zero'], ['aux']))
    model.graph.output.append(onnx.helper.make_tensor_value_info('aux', onnx.TensorProto.FLOAT, [2]))
    onnx.save(model, tmp_path / 'aux.onnx')
    _, spec, _ = changed(tmp_path, model=tmp_path / 'aux.onnx')
    assert (spec.decoder, spec.image.dtype.name) == ('ultralytics_best', 'uint8')


def test_errors_name_the_model_and_not_its_versions_that_are_gone(tmp_path):
    (tmp_path / 'int8.onnx').write_bytes(b'nothing')
    with pytest.raises(ModelError) as caught:
        OrtSession(tmp_path / 'int8.onnx')
    said = engines._without_places(caught.value, Path('/models/m.onnx'), tmp_path)
    assert str(tmp_path) not in said and said.startswith('m.onnx: ')


def test_how_an_engine_is_read_survives_json(spec):
    assert engines._spec_from(json.loads(json.dumps(engines._spec_to(spec)))) == spec
    assert spec.decoder in DECODERS


@pytest.mark.parametrize(
    'damage',
    [
        {'decoder': 'yolov99'},
        {'image': {}},
        {'surprise': 1},
        {'num_classes': -1},
        {'num_classes': True},
        {'outputs': []},
        {'strides': [0]},
        {'anchors': [[1, 2]]},
        {'class_names': [1]},
        {'box_unit': 'inches'},
        {'score_unit': 'percent'},
    ],
)
def test_a_sidecar_that_says_something_impossible_is_an_error(spec, damage):
    with pytest.raises((KeyError, TypeError, ValueError)):
        engines._spec_from({**engines._spec_to(spec), **damage})


@pytest.mark.parametrize('folder', ['', 'nowhere', 'empty'])
def test_int8_without_pictures_to_calibrate_on_is_refused(tmp_path, folder):
    (tmp_path / 'empty').mkdir()
    options = EngineOptions(BuildOptions(precision='int8'), calibration=folder and str(tmp_path / folder))
    with pytest.raises(ParameterError, match='calibration_path: '):
        engines._calibration_pictures(options)


def test_a_calibration_folder_that_does_not_exist_is_called_so(tmp_path):
    with pytest.raises(ParameterError, match="^calibration_path: .*/nowhere', which does not exist$"):
        calibration(tmp_path / 'nowhere')


def calibration(source):
    options = EngineOptions(BuildOptions(precision='int8'), calibration=str(source))
    return engines._calibration_pictures(options)


def save_folder_and_bag(folder, count):
    """The same pictures as files and as a recording."""
    pytest.importorskip('rosbags')
    from bags import image, save_bag

    scenes = [draw_scene(seed).image for seed in range(count)]
    pictures = folder / 'pictures'
    pictures.mkdir(parents=True)
    for number, scene in enumerate(scenes):
        assert cv2.imwrite(str(pictures / f'{number}.png'), scene)
    swapped = [np.ascontiguousarray(scene[..., ::-1]) for scene in scenes]
    topics = {'/camera': [image(scene, 'rgb8') for scene in swapped], '/other': [image(swapped[0], 'rgb8')]}
    return pictures, f'{save_bag(folder / "bag", topics)}::/camera'


def test_int8_on_a_recording_and_on_the_same_pictures_in_a_folder_is_the_same_model(tmp_path):
    models = []
    for source in save_folder_and_bag(tmp_path, 4):
        folder = tmp_path / f'model {len(models)}'
        folder.mkdir()
        place, _, _ = changed(
            folder, pictures=calibration(source), precision='int8', uint8_input=False, best_class=False
        )
        models.append(onnx.load(place))
    assert any(node.op_type == 'QuantizeLinear' for node in models[0].graph.node)
    assert models[0].SerializeToString() == models[1].SerializeToString()


def test_pictures_to_calibrate_on_are_spread_over_a_folder_or_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, 'MOST_CALIBRATED', 3)
    for source in save_folder_and_bag(tmp_path, 11):
        pictures = calibration(source)
        assert pictures.numbers == (0, 3, 7)
        for seed, frame in zip((0, 3, 7), engines._frames(pictures), strict=True):
            np.testing.assert_array_equal(frame.image, draw_scene(seed).image)
    folder = calibration(tmp_path / 'pictures')
    assert [path.name for path in folder.paths] == ['0.png', '3.png', '7.png']


def test_the_key_of_an_int8_engine_covers_the_pictures_and_the_topic(tmp_path):
    folder, bag = save_folder_and_bag(tmp_path, 2)

    def part(source):
        return key_of(engines._calibrated_on(calibration(source), tmp_path)).parts['calibration pictures']

    parts = [part(folder), part(bag), part(bag.replace('/camera', '/other'))]
    assert cv2.imwrite(str(folder / '1.png'), draw_scene(5).image)
    with (tmp_path / 'bag' / 'metadata.yaml').open('a') as metadata:
        metadata.write('# changed')
    parts += [part(folder), part(bag)]
    assert len(set(parts)) == len(parts)
    assert parts[1].endswith(' /camera')


def key_of(calibrated_on, overrides=Overrides(), **options):
    gpu = SimpleNamespace(facts=SimpleNamespace(name='some GPU', compute_capability=(9, 0)))
    build = BuildOptions(precision='int8', **options)
    return engines._key(MODEL, 'detection', build, overrides, calibrated_on, (10, 3), gpu)


def test_what_a_calibrator_found_out_is_used_again_only_where_pictures_are_prepared_the_same_way():
    usual, quick, stretched = (
        engines._calibration_name(key)
        for key in (
            key_of('kitchen'),
            key_of('kitchen', optimization_level=0),
            key_of('kitchen', Overrides(resize='stretch')),
        )
    )
    assert usual == quick != stretched


def save_scenes(folder, count, **options):
    folder.mkdir()
    for number in range(count):
        assert cv2.imwrite(str(folder / f'{number}.png'), draw_scene(number, **options).image)
    return folder


@pytest.mark.parametrize(('memory', 'read'), [('kept', 1), ('damaged', 2), ('impossible', 2)])
def test_pictures_are_read_for_the_key_only_when_something_has_changed(tmp_path, monkeypatch, memory, read):
    reads, digest_of = [], engines.pictures_digest
    monkeypatch.setattr(engines, 'pictures_digest', lambda paths: reads.append(paths) or digest_of(paths))
    pictures = calibration(save_scenes(tmp_path / 'pictures', 2))
    cache = tmp_path / 'cache'
    if memory == 'impossible':
        cache.touch()
    before = engines._calibrated_on(pictures, cache)
    if memory == 'damaged':
        (remembered,) = cache.iterdir()
        remembered.write_text('nonsense')
    assert engines._calibrated_on(pictures, cache) == before and len(reads) == read
    path = pictures.paths[0]
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as "cp -p" does
    assert engines._calibrated_on(pictures, cache) != before


def save_engine(folder, key, name='m'):
    """An engine as a build leaves it, but for its content."""
    engine = cached_plan(
        folder,
        name,
        key,
        build=lambda into: {'bytes': into.write_bytes(b'engine')},
        check=lambda path: None,
        say=lambda text: None,
    )
    return engine.path


def test_an_engine_is_opened_without_the_pictures_that_it_was_calibrated_on(tmp_path):
    missing, said = ParameterError('calibration_path: ...'), []
    save_engine(tmp_path, key_of('', uint8_input=False))
    save_engine(tmp_path, key_of('older', uint8_input=False))
    with pytest.raises(ParameterError) as caught:
        engines._calibrated_key(tmp_path, key_of(''), '', missing, said.append)
    assert caught.value is missing and not said
    engine = save_engine(tmp_path, key_of('kitchen'))
    assert engines._calibrated_key(tmp_path, key_of(''), '', missing, said.append) == key_of('kitchen')
    assert len(said) == 1 and said[0].startswith(engine.name)


def test_of_several_calibrations_the_one_that_is_remembered_is_opened_and_none_is_guessed(tmp_path):
    missing = ParameterError('calibration_path: ...')
    for pictures in ('kitchen', 'night'):
        save_engine(tmp_path, key_of(pictures))
    found = engines._calibrated_key(tmp_path, key_of(''), 'kitchen', missing, lambda text: None)
    assert found == key_of('kitchen')
    with pytest.raises(ParameterError, match='engines of 2 calibrations are there'):
        engines._calibrated_key(tmp_path, key_of(''), '', missing, lambda text: None)
    with pytest.raises(ParameterError) as caught:
        engines._calibrated_key(tmp_path, key_of(''), 'garden', missing, lambda text: None)
    assert caught.value is missing


def test_an_engine_whose_key_names_no_pictures_is_none_of_those_that_are_remembered(tmp_path):
    missing = ParameterError('calibration_path: ...')
    save_engine(tmp_path, key_of(' '))
    with pytest.raises(ParameterError) as caught:
        engines._calibrated_key(tmp_path, key_of(''), 'kitchen', missing, lambda text: None)
    assert caught.value is missing


def test_a_robot_without_the_pictures_opens_its_engine_and_builds_nothing(tmp_path, monkeypatch):
    """The GPU and TensorRT are not real here; the pictures, the key and the cache are."""
    gpu = SimpleNamespace(facts=SimpleNamespace(name='some GPU', compute_capability=(9, 0)))
    monkeypatch.setattr(engines, 'find_tensorrt', lambda: None)
    monkeypatch.setattr(engines, 'installed_version', lambda trt: (10, 3))
    monkeypatch.setattr(engines, 'Gpu', lambda device: gpu)
    monkeypatch.setattr(engines, 'TrtSession', lambda path, **more: path)
    folder = save_scenes(tmp_path / 'pictures', 2)
    cache = tmp_path / 'cache'
    said = []

    def opened(source):
        options = EngineOptions(BuildOptions(precision='int8'), str(cache), calibration=source)
        return engines.open_engine(MODEL, options, Overrides(), find_spec, say=said.append)[0]

    with pytest.raises(ParameterError, match='nowhere.*does not exist'):
        opened(str(tmp_path / 'nowhere'))
    key = key_of(engines._calibrated_on(calibration(folder), cache))
    engine = save_engine(cache, key, name=MODEL.stem)
    said.clear()
    assert opened(str(folder)) == engine and not said
    (tmp_path / 'empty').mkdir()  # as what nothing is mounted on
    for source in (str(tmp_path / 'nowhere'), str(tmp_path / 'empty'), ''):
        assert opened(source) == engine
        assert 'its pictures are not here' in said.pop() and not said


def test_pictures_that_cannot_be_read_are_skipped_and_said(tmp_path):
    folder = save_scenes(tmp_path / 'pictures', 4)
    (folder / '0.png').write_bytes(b'')
    (folder / '2.png').write_bytes((folder / '2.png').read_bytes()[:40])
    (folder / '9.png').symlink_to('nowhere')
    os.mkfifo(folder / 'pipe.png')
    said = []
    pictures = calibration(folder)
    engines._calibrated_on(pictures, tmp_path)
    frames = list(engines._frames(pictures, said.append))
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[1].image, draw_scene(3).image)
    assert len(said) == 1 and 'skipped 4 of 6 pictures' in said[0] and '0.png' in said[0]


def test_pictures_of_which_none_can_be_read_are_refused(tmp_path):
    (tmp_path / '1.png').write_bytes(b'nothing')
    with pytest.raises(
        ParameterError, match='calibration_path: .* got 1 that cannot be read; first: .*1.png'
    ):
        list(engines._frames(calibration(tmp_path)))


def test_int8_says_on_how_few_pictures_and_that_it_was_compared_on_the_same(tmp_path):
    said = []
    pictures = calibration(save_scenes(tmp_path / 'pictures', 2))
    changed(tmp_path, pictures=pictures, precision='int8', say=said.append)
    assert said[0] == 'calibrating on 2 pictures; some hundred are wanted'
    assert 'on pictures of its calibration int8 finds' in said[1]


TASKS_AND_WORDS = [
    ('detection', 'detector', r'finds \d+ of the \d+ objects of float32 again'),
    ('segmentation', 'instances', r'finds \d+ of the \d+ objects of float32 again'),
    ('segmentation', 'segmentation', r'has \d+\.\d% of the pixels as float32; the mean IoU'),
    ('pose', 'pose', r'finds \d+ of the \d+ persons of float32 again'),
]


def model_of(name):
    return MODEL.with_name(f'humanoid_{name}.onnx' if name == 'pose' else f'tabletop_{name}.onnx')


def blinded(model):
    """A copy of a model that finds nothing: its first output is 0."""
    first = onnx.ModelProto()
    first.CopyFrom(model)
    del first.graph.output[1:]
    blind = followed_by(first, 'Mul', {'factor': np.float32(0)})
    blind.graph.output.extend(model.graph.output[1:])
    return blind


def save_blind(source, into, *_):
    onnx.save(blinded(onnx.load(source)), into)


@pytest.mark.parametrize(('task', 'name', 'words'), TASKS_AND_WORDS)
@pytest.mark.parametrize('way', ['qdq', 'entropy'])
def test_int8_is_compared_with_float32_whatever_the_task(
    machine, tmp_path, monkeypatch, way, task, name, words
):
    pictures = save_scenes(tmp_path / 'pictures', 2, humanoids=task == 'pose')
    options = {'task': task, 'precision': 'int8', 'calibration': pictures, 'way': way}
    said = []
    machine(model_of(name), say=said.append, **options)
    assert sum(bool(re.search(f'pictures of its calibration int8 {words}', text)) for text in said) == 1
    if way == 'qdq':
        monkeypatch.setattr('isaac_infer.engine.quantise.quantise', save_blind)
    else:
        machine.build = lambda request: save_blind(request.model, request.into)
    shutil.rmtree(tmp_path / 'engines')
    with pytest.raises(ModelError, match=f'int8 {words}.*; take fp16, another calibration'):
        machine(model_of(name), **options)
    assert not list((tmp_path / 'engines').glob('*.engine'))


@pytest.mark.parametrize(('task', 'name', 'words'), TASKS_AND_WORDS[1:])
def test_half_precision_in_the_model_is_compared_with_float32_whatever_the_task(
    tmp_path, monkeypatch, task, name, words
):
    scene = draw_scene
    humanoids = task == 'pose'
    monkeypatch.setattr('isaac_infer.core.scenes.draw_scene', lambda seed: scene(seed, humanoids=humanoids))
    find, said = partial(find_spec, task=task), []

    def change(folder):
        options = BuildOptions(precision='fp16')
        engines._changed(
            model_of(name), folder, options, Overrides(), find, None, said.append, has_fp16_flag=False
        )

    change(tmp_path)
    assert re.search(f'on drawn scenes float16 {words}', said[0])
    to_float16 = surgery.to_float16
    monkeypatch.setattr(surgery, 'to_float16', lambda model: blinded(to_float16(model)))
    with pytest.raises(ModelError, match=f'float16 {words}.*; take fp32'):
        change(tmp_path)


@pytest.mark.parametrize(
    'source', ['bag', 'bag::/nothing', 'a.png', 'synthetic', '0', 'rtsp://127.0.0.1:1/a']
)
def test_int8_on_what_is_no_folder_and_no_topic_of_a_recording_is_refused(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    folder, _ = save_folder_and_bag(tmp_path, 1)
    (folder / '0.png').rename('a.png')
    with pytest.raises(ParameterError, match='calibration_path: '):
        calibration(source)


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        ({'precision': 'fp12'}, 'precision: expected one of fp32, fp16'),
        ({'calibration': 'guess'}, 'calibration: expected one of qdq'),
        ({'shapes': {'x': ((1, 3), (1, 2), (1, 4))}}, 'shapes of x: expected min <= opt <= max'),
        ({'shapes': {'x': ((1,), (1, 2), (1, 4))}}, 'shapes of x: expected min <= opt <= max'),
    ],
)
def test_impossible_options_are_refused(options, complaint):
    with pytest.raises(ParameterError, match=complaint):
        BuildOptions(**options)


def test_every_option_is_a_part_of_the_key():
    assert len(BuildOptions(precision='int8').words()) == len(asdict(BuildOptions()))
    assert 'calibration' not in BuildOptions().words()


@NO_GPU
def test_a_build_without_a_gpu_is_one_clear_error(tmp_path):
    request = Request(model=str(MODEL), into=str(tmp_path / 'plan'), options=asdict(BuildOptions()))
    with pytest.raises(ModelError, match='TensorRT cannot be used'):
        build_plan(request, say=lambda text: None)
    assert not list(tmp_path.iterdir())


@NO_GPU
def test_a_cancelled_build_ends_its_child(tmp_path):
    request = Request(model=str(MODEL), into=str(tmp_path / 'plan'), options=asdict(BuildOptions()))
    with pytest.raises(SessionError, match='cancelled'):
        build_plan(request, say=lambda text: None, is_cancelled=lambda: True)


@NO_GPU
def test_the_build_command_without_a_gpu_is_one_clear_error(tmp_path):
    model = save_colour_detector(tmp_path / 'colours.onnx')
    command = [sys.executable, '-m', 'isaac_infer.cli.main', 'build', str(model)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'isaac-infer: error: TensorRT cannot be used' in done.stderr and 'Traceback' not in done.stderr


def test_shapes_given_for_the_model_are_those_of_its_changed_input(tmp_path):
    _, spec, _ = changed(tmp_path)
    given = ((1, 3, 320, 320), (1, 3, 320, 320), (2, 3, 320, 320))
    build = BuildOptions(shapes={spec.image.name: given})
    fed = ((1, 320, 320, 3), (1, 320, 320, 3), (2, 320, 320, 3))
    assert engines._fed_shapes(build, spec) == {spec.image.name: fed}
    as_it_is = engines.replace(spec, image=engines.replace(spec.image, layout='nchw'))
    assert engines._fed_shapes(build, as_it_is) == {spec.image.name: given}


@pytest.mark.parametrize(
    'image',
    [
        {'dtype': 'f4,('},
        {'dtype': None},
        {'size_hw': 5},
        {'size_hw': [1, 2, 3]},
        {'scale': 'x'},
        {'mean': ['x']},
        {'size_hw': [-1, -1]},
        {'size_hw': [1e9, 1e9]},
        {'size_hw': [10**9, 10**9]},
        {'pad_value': True},
        {'pad_value': 256},
        {'scale': 10**30},
        {'scale': float('nan')},
        {'scale': 0},
        {'mean': []},
        {'mean': [0.0, 0.0]},
        {'std': [0.0]},
        {'layout': 'chw'},
        {'resize': 'bend'},
    ],
)
def test_a_picture_that_cannot_be_is_an_error(spec, image):
    values = engines._spec_to(spec)
    with pytest.raises((KeyError, TypeError, ValueError)):
        engines._spec_from({**values, 'image': {**values['image'], **image}})


def test_shapes_that_the_model_cannot_have_are_refused_before_anything_is_built(machine):
    with pytest.raises(ParameterError, match='shapes of images: expected shapes'):
        machine(shapes={'images': ((1, 1, 320, 320),) * 3})
    assert not machine.requests


def test_half_precision_is_in_the_model_where_tensorrt_has_no_flag_for_it(tmp_path):
    place, spec, _ = changed(tmp_path, has_fp16_flag=False)
    model = onnx.load(place)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert (spec.decoder, spec.image.dtype.name) == ('ultralytics_best', 'uint8')
    (tmp_path / 'fp32').mkdir()
    place, _, _ = changed(tmp_path / 'fp32', has_fp16_flag=False, precision='fp32')
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in onnx.load(place).graph.initializer}


def test_a_build_that_says_nothing_tells_its_time(monkeypatch, tmp_path):
    program = 'import time; time.sleep(1.2); print(\'{"done": 1}\')'
    child = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(build, 'SILENCE_S', 0.3)
    said = []
    request = Request(model='m.onnx', into='m.engine', options={}, expected_s=60.0)
    assert build._follow(child.stdout.fileno(), request, said.append, lambda: False) == {'done': 1}
    assert said and all(text.endswith('of about 60 s') for text in said)
    child.wait()


def test_a_class_that_is_not_the_best_one_is_noticed():
    rows = np.zeros((1, 6, 3), np.float32)
    rows[0, 4:] = (0.9, 0.2, 0.5), (0.1, 0.8, 0.5)
    best = np.concatenate((rows[:, :4], [[[0.9, 0.8, 0.5]]], [[[0, 1, 1]]]), axis=1)
    engines._check_rows(MODEL, rows, best)
    for wrong in (1, 7, -1, 0.5, np.nan):
        best[0, 5, 0] = wrong
        with pytest.raises(ModelError, match='expected the best class of each box'):
            engines._check_rows(MODEL, rows, best)


def test_a_full_disk_does_not_make_a_slower_engine(tmp_path, monkeypatch):
    def save(model, path):
        raise ModelError('cannot be written: No space left on device') from OSError(28, 'No space left')

    monkeypatch.setattr('isaac_infer.engine.surgery.save_model', save)
    with pytest.raises(ModelError, match='No space left on device'):
        changed(tmp_path)
