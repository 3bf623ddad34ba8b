"""What is done to a model before it is built, and how its engine is read: on ONNX Runtime, without a GPU."""

import json
import subprocess
import sys
from dataclasses import asdict
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
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.spec import Limits, Overrides
from isaac_infer.engine import build, engines
from isaac_infer.engine.build import Request, build_plan
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.load import find_spec
from isaac_infer.engine.ort import OrtSession
from models import save_colour_detector

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
NO_GPU = pytest.mark.skipif(not device_problem(), reason='there is a GPU')


def changed(folder, *, has_fp16_flag=True, pictures=None, **options):
    return engines._changed(
        MODEL,
        folder,
        BuildOptions(**options),
        Overrides(),
        find_spec,
        pictures,
        lambda text: None,
        has_fp16_flag=has_fp16_flag,
    )


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


def test_a_model_that_nothing_is_done_to_stays_where_it_is(tmp_path):
    place, _, _ = changed(tmp_path, uint8_input=False, best_class=False)
    assert place == MODEL and not list(tmp_path.iterdir())


def test_a_change_that_is_not_true_to_the_model_is_refused(tmp_path):
    place, spec, _ = changed(tmp_path)
    with OrtSession(MODEL) as session:
        original = find_spec(session, MODEL, Overrides())
    wrong = engines.replace(spec, image=engines.replace(spec.image, channel_order='bgr'))
    frames = [Frame(draw_scene(seed).image) for seed in range(3)]
    with pytest.raises(ModelError, match='expected the same .* objects after it was changed'):
        engines._check_same(MODEL, original, place, wrong, frames, engines.SINGLE_CLOSE)


def test_how_an_engine_is_read_survives_json(tmp_path):
    _, spec, _ = changed(tmp_path)
    assert engines._spec_from(json.loads(json.dumps(engines._spec_to(spec)))) == spec
    assert spec.decoder in DECODERS


@pytest.mark.parametrize(
    'damage',
    [
        {'decoder': 'yolov99'},
        {'image': {}},
        {'surprise': 1},
    ],
)
def test_a_sidecar_that_says_something_impossible_is_an_error(tmp_path, damage):
    _, spec, _ = changed(tmp_path)
    with pytest.raises((KeyError, TypeError, ValueError)):
        engines._spec_from({**engines._spec_to(spec), **damage})


@pytest.mark.parametrize('folder', ['', 'nowhere', 'empty'])
def test_int8_without_pictures_to_calibrate_on_is_refused(tmp_path, folder):
    (tmp_path / 'empty').mkdir()
    options = EngineOptions(BuildOptions(precision='int8'), calibration=folder and str(tmp_path / folder))
    with pytest.raises(ParameterError, match='calibration: '):
        engines._calibration_pictures(options)


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
    facts = SimpleNamespace(name='some GPU', compute_capability=(9, 0))
    folder, bag = save_folder_and_bag(tmp_path, 2)

    def part(source):
        options = BuildOptions(precision='int8'), Overrides(), calibration(source)
        key = engines._key(MODEL, 'detection', *options, (10, 3), SimpleNamespace(facts=facts))
        return key.parts['calibration pictures']

    parts = [part(folder), part(bag), part(bag.replace('/camera', '/other'))]
    assert cv2.imwrite(str(folder / '1.png'), draw_scene(5).image)
    with (tmp_path / 'bag' / 'metadata.yaml').open('a') as metadata:
        metadata.write('# changed')
    parts += [part(folder), part(bag)]
    assert len(set(parts)) == len(parts)
    assert parts[1].endswith(' /camera')


@pytest.mark.parametrize(
    'source', ['bag', 'bag::/nothing', 'a.png', 'synthetic', '0', 'rtsp://127.0.0.1:1/a']
)
def test_int8_on_what_is_no_folder_and_no_topic_of_a_recording_is_refused(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    folder, _ = save_folder_and_bag(tmp_path, 1)
    (folder / '0.png').rename('a.png')
    with pytest.raises(ParameterError, match='calibration: '):
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
    with pytest.raises(ModelError, match='TensorRT needs a GPU'):
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
    assert 'isaac-infer: error: TensorRT needs a GPU' in done.stderr and 'Traceback' not in done.stderr


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
    ],
)
def test_a_picture_that_cannot_be_is_an_error(tmp_path, image):
    _, spec, _ = changed(tmp_path)
    values = engines._spec_to(spec)
    with pytest.raises((KeyError, TypeError, ValueError)):
        engines._spec_from({**values, 'image': {**values['image'], **image}})


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
    assert build._follow(child, request, said.append, lambda: False) == {'done': 1}
    assert said and all(text.endswith('of about 60 s') for text in said)
    child.wait()
