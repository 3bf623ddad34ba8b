import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model, save

from isaac_infer.core.errors import FrameError, IsaacInferError, ModelError, ParameterError, SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.spec import Limits, Overrides
from isaac_infer.engine import cuda
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.load import file_sha256, find_model, open_pipeline, open_session
from models import (
    OPSET,
    save_colour_detector,
    save_constant_detector,
    save_model,
    ultralytics_metadata,
    ultralytics_output,
)

NAMES = ('red', 'green', 'blue')
NOTHING = ultralytics_output([], classes=3)


def picture(colour_bgr: tuple[int, int, int], *, size_hw: tuple[int, int] = (64, 64)) -> Frame:
    return Frame(np.full((*size_hw, 3), colour_bgr, np.uint8))


def open_detector(path: Path, **overrides: object):
    return open_pipeline(path, task='detection', overrides=Overrides(**overrides))


def with_relu(path: Path, **changes: object) -> Path:
    """A model of one operator, with something odd about it."""
    kind = (TensorProto.FLOAT, changes.pop('shape', (1, 3, 64, 64)))
    node = helper.make_node(changes.pop('operator', 'Relu'), ['x'], ['y'], domain=changes.pop('domain', ''))
    return save_model(path, [node], {'x': kind}, {'y': kind}, **changes)


def without_weights(path: Path) -> Path:
    save_colour_detector(path)
    save(load_model(path), path, save_as_external_data=True, location='weights', size_threshold=0)
    (path.parent / 'weights').unlink()
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BAD_MODELS = {
    'missing': (lambda path: path, 'no such model file; looked in'),
    'folder': (lambda path: path.mkdir() or path, 'expected an ONNX file, got a folder'),
    'empty': (lambda path: written(path, b''), 'expected an ONNX model, got an empty file'),
    'truncated': (
        lambda path: written(path, save_colour_detector(path).read_bytes()[:-100]),
        'Protobuf parsing failed; the file is no ONNX model or was cut short',
    ),
    'text': (lambda path: written(path, b'hello\n' * 9), 'the file is no ONNX model or was cut short'),
    'web page': (lambda path: written(path, b'\n<!DOCTYPE html><html>'), 'got a web page'),
    'git lfs': (lambda path: written(path, b'version https://git-lfs.github.com/spec/v1\n'), 'git lfs pull'),
    'checkpoint': (lambda path: written(path, b'PK\x03\x04archive/data.pkl'), 'PyTorch checkpoint'),
    'tflite': (lambda path: written(path, b'\x1c\x00\x00\x00TFL3....'), 'TensorFlow Lite'),
    'engine': (lambda path: written(path, b'ftrt\x00\x00'), 'got a TensorRT engine'),
    'new opset': (lambda path: with_relu(path, opsets={'': 999}), 'opset|Opset'),
    'new ir': (lambda path: with_relu(path, ir_version=99), 'IR version: 99.*; update onnxruntime'),
    'operator': (lambda path: with_relu(path, operator='Frobnicate'), 'Frobnicate.*; export without'),
    'domain': (
        lambda path: with_relu(path, domain='com.example', opsets={'': OPSET, 'com.example': 1}),
        'com.example.*; export without',
    ),
    'tensorrt operator': (lambda path: with_relu(path, operator='EfficientNMS_TRT'), 'only TensorRT has'),
    'zero': (lambda path: with_relu(path, shape=(1, 3, 0, 64)), r'\[1, 3, 0, 64\]: expected at least 1'),
    'weights': (without_weights, 'keep the weights file'),
    'no decoder': (with_relu, r'no decoder fits .*set --task seg(.|\n)*y float32\[1, 3, 64, 64\]'),
    'open size': (
        lambda path: save_constant_detector(
            path, {'output0': NOTHING}, image_shape=(1, 3, 'height', 'width')
        ),
        'input_size',
    ),
    'nan': (
        lambda path: save_constant_detector(
            path, {'output0': NOTHING * np.nan}, metadata=ultralytics_metadata(NAMES)
        ),
        'output0: expected finite numbers for a grey picture, got NaN or Inf',
    ),
    'infinity': (
        lambda path: save_constant_detector(
            path, {'output0': NOTHING + np.inf}, metadata=ultralytics_metadata(NAMES)
        ),
        'output0: expected finite numbers for a grey picture, got NaN or Inf',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD_MODELS)
def test_a_bad_model_gives_one_clear_error(name: str, tmp_path: Path) -> None:
    make, expected = BAD_MODELS[name]
    path = make(tmp_path / 'bad.onnx')
    with pytest.raises(IsaacInferError, match=expected) as caught:
        open_detector(path)
    assert isinstance(caught.value, (ModelError, SessionError))
    assert 'bad.onnx' in str(caught.value)


def test_a_model_with_metadata_needs_no_help(tmp_path: Path) -> None:
    pipeline = open_detector(save_colour_detector(tmp_path / 'colours.onnx'))
    assert pipeline.spec.decoder == 'ultralytics'
    found = pipeline(picture((255, 0, 0)))
    assert [pipeline.spec.class_name(number) for number in found.class_id] == ['blue']
    np.testing.assert_allclose(found.score, [1.0], atol=1e-6)
    np.testing.assert_allclose(found.xyxy, [[28, 28, 36, 36]])


def test_boxes_come_back_in_pixels_of_the_picture(tmp_path: Path) -> None:
    pipeline = open_detector(save_colour_detector(tmp_path / 'colours.onnx'))
    found = pipeline(picture((255, 255, 255), size_hw=(480, 640)))
    # A box 8 wide in a network input of 64, letterboxed from 640: ten times as large, in the middle.
    np.testing.assert_allclose(found.xyxy, [[280, 200, 360, 280]], atol=0.01)


def test_what_the_user_says_wins_over_the_metadata(tmp_path: Path) -> None:
    pipeline = open_detector(
        save_colour_detector(tmp_path / 'colours.onnx'), channel_order='bgr', class_names=('a', 'b', 'c')
    )
    found = pipeline(picture((255, 0, 0)))
    assert [pipeline.spec.class_name(number) for number in found.class_id] == ['a']


@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_a_sidecar_says_what_the_model_does_not(suffix: str, tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx', metadata={})
    text = {'class_names': ['r', 'g', 'b'], 'decoder': 'ultralytics'}
    model.with_suffix(suffix).write_text(json.dumps(text))  # JSON is YAML
    assert open_detector(model).spec.class_names == ('r', 'g', 'b')


def test_the_model_itself_wins_over_its_sidecar(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    model.with_suffix('.json').write_text(json.dumps({'names': ['r', 'g', 'b']}))
    assert open_detector(model).spec.class_names == NAMES


def test_a_sidecar_that_contradicts_the_model_s_names_is_noted_and_does_not_win(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    model.with_suffix('.json').write_text(json.dumps({'class_names': ['r', 'g', 'b']}))
    spec = open_detector(model).spec
    assert spec.class_names == NAMES
    assert any('colours.json: class_names is not used' in note for note in spec.notes)


def test_words_in_a_yaml_sidecar_are_names_and_numbers_are_numbers(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx', metadata={})
    model.with_suffix('.yaml').write_text(
        'decoder: ultralytics\nclass_names: [yes, no, off]\nresize:\n'
        'scale_up: false\nscale: .003\nmean: [0, 0.1, 2e-1]\n'
    )
    spec = open_detector(model).spec
    assert spec.class_names == ('yes', 'no', 'off')
    assert (spec.image.scale_up, spec.image.scale, spec.image.mean) == (False, 0.003, (0.0, 0.1, 0.2))


def test_unknown_keys_of_a_sidecar_are_noted(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    model.with_suffix('.yaml').write_text('chanel_order: bgr\nconfidence_threshold: 0.9\n')
    (note,) = (note for note in open_detector(model).spec.notes if 'colours.yaml' in note)
    assert note == (
        "colours.yaml: ignores what is no parameter of the model: 'chanel_order' (did you mean "
        "channel_order?), 'confidence_threshold'"
    )


@pytest.mark.parametrize(
    ('metadata', 'says', 'overrides', 'taken'),
    [
        (None, {}, {}, ''),
        (None, {'resize': '', 'names': ['r', 'g', 'b'], 'date': 'today', 'chanel_order': 'bgr'}, {}, ''),
        (None, {'resize': 'stretch', 'channel_order': 'bgr'}, {}, 'resize, channel_order'),
        (None, {'resize': 'stretch', 'channel_order': 'bgr'}, {'channel_order': 'rgb'}, 'resize'),
        ({}, {'names': ['a', 'b', 'c'], 'class_names': ['r', 'g', 'b']}, {}, 'class_names'),
        ({}, {'names': ['a', 'b', 'c'], 'imgsz': 64}, {'class_names': ('r', 'g', 'b')}, 'imgsz'),
        ({'resize': 'letterbox'}, {'resize': 'stretch'}, {}, ''),
    ],
)
def test_what_counts_of_a_sidecar_is_noted(
    metadata: dict[str, str] | None,
    says: dict[str, object],
    overrides: dict[str, Any],
    taken: str,
    tmp_path: Path,
) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx', metadata=metadata)
    model.with_suffix('.json').write_text(json.dumps(says))
    notes = open_detector(model, decoder='ultralytics', **overrides).spec.notes
    said = [note for note in notes if 'taken' in note]
    assert said == ([f'colours.json: {taken} taken from it'] if taken else [])


def test_a_value_that_a_sidecar_cannot_have_is_an_error_that_names_the_sidecar(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    model.with_suffix('.yaml').write_text('resize: squash\n')
    with pytest.raises(ModelError, match="^colours.yaml: metadata 'resize' cannot be 'squash': one of"):
        open_detector(model)


def test_a_report_beside_a_model_is_no_sidecar(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    report = {'model': 'colours.onnx', 'backend': 'onnxruntime', 'decoder': 'yolov5', 'images': []}
    model.with_suffix('.json').write_text(json.dumps(report))
    spec = open_detector(model).spec
    assert spec.decoder == 'ultralytics'
    assert any('colours.json is a report' in note for note in spec.notes)


@pytest.mark.parametrize('text', ['[1, 2]', '{', '{"scale": "much"}', '[' * 100_000])
def test_a_broken_sidecar_is_an_error(text: str, tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    model.with_suffix('.json').write_text(text)
    with pytest.raises(ModelError, match='colours'):
        open_detector(model)


def test_lengths_left_open_are_filled_in_by_a_run(tmp_path: Path) -> None:
    model = save_constant_detector(
        tmp_path / 'open.onnx',
        {'output0': ultralytics_output([(32, 32, 10, 20, 1, 0.9)], classes=3)},
        image_shape=('batch', 3, 'height', 'width'),
        dynamic_outputs=True,
    )
    pipeline = open_detector(model, input_size_hw=(64, 64))
    found = pipeline(picture((0, 0, 0)))
    assert pipeline.spec.image.shape == (1, 3, 64, 64)
    assert found.class_id.tolist() == [1]
    np.testing.assert_allclose(found.xyxy, [[27, 22, 37, 42]])


@pytest.mark.parametrize(
    'shape', [None, (1, 100, 6)], ids=['unknown number of axes', 'more rows than there are']
)
def test_a_shape_that_the_file_does_not_tell_or_tells_wrongly_is_taken_as_it_comes(
    shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    rows = np.zeros((1, 44, 6), np.float32)
    rows[0, :2] = (10, 10, 30, 30, 0.9, 1), (20, 20, 60, 60, 0.8, 2)
    branches = {}
    for name in ('likely', 'never'):  # of different numbers of axes: nobody knows the shape before it runs
        made = helper.make_tensor_value_info(f'from_{name}', TensorProto.FLOAT, None)
        nodes = [helper.make_node('Identity', [name], [f'from_{name}'])]
        branches[name] = helper.make_graph(nodes, name, [], [made])
    save_model(
        tmp_path / 'rows.onnx',
        [
            helper.make_node('ReduceMax', ['images'], ['highest'], keepdims=0),
            helper.make_node('Less', ['highest', 'two'], ['is_usual']),
            helper.make_node(
                'If', ['is_usual'], ['output0'], then_branch=branches['likely'], else_branch=branches['never']
            ),
        ],
        {'images': (TensorProto.FLOAT, (1, 3, 64, 64))},
        {'output0': (TensorProto.FLOAT, shape)},
        constants={'likely': rows, 'never': rows[0], 'two': np.float32(2)},
    )
    pipeline = open_detector(tmp_path / 'rows.onnx')
    assert pipeline.spec.decoder == 'ultralytics_end2end'
    for _ in range(2):
        assert pipeline(picture((0, 0, 0))).class_id.tolist() == [1, 2]


def test_an_unused_output_of_an_odd_type_blocks_no_model(tmp_path: Path) -> None:
    model = load_model(save_colour_detector(tmp_path / 'colours.onnx'))
    names = helper.make_tensor('text', TensorProto.STRING, [1], [b'cup'])
    nothing = helper.make_tensor('none', TensorProto.FLOAT, [1, 0, 4], [])
    model.graph.node.extend(
        [
            helper.make_node('Constant', [], ['labels'], value=names),
            helper.make_node('Constant', [], ['nothing'], value=nothing),
            helper.make_node('SequenceConstruct', ['boxes'], ['sequence']),
        ]
    )
    model.graph.output.insert(0, helper.make_tensor_value_info('labels', TensorProto.STRING, [1]))
    model.graph.output.insert(0, helper.make_tensor_value_info('nothing', TensorProto.FLOAT, [1, 0, 4]))
    model.graph.output.insert(0, helper.make_tensor_sequence_value_info('sequence', TensorProto.FLOAT, None))
    model.graph.node.append(helper.make_node('Cast', ['boxes'], ['half'], to=TensorProto.BFLOAT16))
    model.graph.output.append(helper.make_tensor_value_info('half', TensorProto.BFLOAT16, [1, 4]))
    save(model, tmp_path / 'colours.onnx')
    pipeline = open_detector(tmp_path / 'colours.onnx')
    assert len(pipeline(picture((255, 0, 0)))) == 1
    (note,) = [note for note in pipeline.spec.notes if 'left out' in note]
    assert all(text in note for text in ('sequence seq(tensor(float))', 'labels string[1]', 'half bfloat16['))
    with pytest.raises(ModelError, match='no output named labels; those that hold numbers are .*output0'):
        open_detector(tmp_path / 'colours.onnx', output_names=('labels',))


@pytest.mark.parametrize('name', ['~nosuchuser/a.onnx', 'x' * 5000 + '.onnx'])
def test_a_path_that_cannot_be_is_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(ModelError, match='no such model file'):
        find_model(name)


def test_the_session_is_closed_when_a_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isaac_infer.engine.ort import OrtSession

    closed = []
    close = OrtSession.close
    monkeypatch.setattr(OrtSession, 'close', lambda self: (closed.append(self), close(self)))
    with pytest.raises(ModelError):
        open_detector(with_relu(tmp_path / 'relu.onnx'))
    assert len(closed) == 1


def test_a_relative_path_is_looked_up_here_and_then_among_the_installed_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, installed = tmp_path / 'here', tmp_path / 'prefix' / 'share' / 'isaac_infer' / 'models'
    for folder in (here, installed):
        folder.mkdir(parents=True)
        (folder / 'both.onnx').touch()
    (installed / 'installed.onnx').touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path / "prefix"}')
    assert find_model('both.onnx') == here / 'both.onnx'
    assert find_model('installed.onnx') == installed / 'installed.onnx'
    with pytest.raises(ModelError, match=f'looked in {here}, {installed}'):
        find_model('neither.onnx')


def test_no_model_at_all_says_which_parameter_to_set() -> None:
    with pytest.raises(ModelError, match='no model given: --ros-args -p model_file_path:=FILE'):
        find_model('')


@pytest.mark.parametrize('backend', ['tensorrt', 'auto'])
def test_what_needs_tensorrt_is_refused_with_the_way_out_where_there_is_no_gpu(
    backend: str, tmp_path: Path
) -> None:
    if not device_problem():
        pytest.skip('there is a GPU')
    model = save_colour_detector(tmp_path / 'colours.onnx')
    plan = written(tmp_path / 'colours.engine', b'ftrt' + bytes(20) + bytes((8, 6, 1, 0)) + bytes(100))
    with pytest.raises(
        SessionError,
        match='TensorRT cannot be used: .*backend: onnxruntime',
    ):
        open_session(plan if backend == 'auto' else model, backend=backend)


@pytest.mark.parametrize(('installed', 'reason'), [('tensorrt', 'pycuda'), ('pycuda', 'CUDA finds no GPU')])
def test_a_machine_that_lacks_half_of_tensorrt_says_that_the_cpu_is_used(
    installed: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec('pycuda'):
        pytest.skip('all of it is installed')
    (tmp_path / installed).mkdir()
    (tmp_path / installed / '__init__.py').touch()
    driver = ['class Device:', '    count = staticmethod(lambda: 0)', 'init = lambda: None']
    (tmp_path / installed / 'driver.py').write_text('\n'.join(driver))
    model = save_colour_detector(tmp_path / 'colours.onnx')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cuda, 'DEVICE_FILES', (str(tmp_path),))  # there is a GPU
    for name in ('', '.driver'):
        monkeypatch.delitem(sys.modules, f'pycuda{name}', raising=False)
    with open_detector(model).session as session:
        (said,) = session.fallbacks
    assert 'running on the CPU: TensorRT cannot be used' in said and reason in said
    for name in ('pycuda', 'pycuda.driver'):
        sys.modules.pop(name, None)


def test_where_there_is_no_gpu_that_comes_before_all_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, 'DEVICE_FILES', ('/nowhere/nvidiactl',))
    monkeypatch.setattr(cuda, 'LIBCUDA', 'libnowhere.so.1')
    said = device_problem()
    assert said.startswith(
        'there is no NVIDIA GPU, or no driver of it (none of /nowhere/nvidiactl, libnowhere'
    )
    assert ('pip install pycuda' in said) != bool(importlib.util.find_spec('pycuda'))
    monkeypatch.setattr(cuda, 'DEVICE_FILES', (str(tmp_path),))
    assert 'no NVIDIA GPU' not in device_problem()


def test_a_gpu_that_is_not_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec('pycuda'):
        pytest.skip('it would be used')
    model = save_colour_detector(tmp_path / 'colours.onnx')
    monkeypatch.setattr(cuda, 'DEVICE_FILES', (str(tmp_path / 'nvidiactl'),))
    with open_detector(model).session as session:
        assert session.fallbacks == ()
    (tmp_path / 'nvidiactl').touch()
    with open_detector(model).session as session:
        assert 'running on the CPU' in session.fallbacks[0] and 'pip install pycuda' in session.fallbacks[0]


def test_an_engine_does_not_run_on_onnxruntime(tmp_path: Path) -> None:
    plan = written(tmp_path / 'colours.plan', b'ftrt' + bytes(100))
    with pytest.raises(SessionError, match='cannot run on onnxruntime; give the ONNX model'):
        open_session(plan, backend='onnxruntime')


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(SessionError, match="expected one of auto, onnxruntime, tensorrt, got 'openvino'"):
        open_session('tabletop_detector.onnx', backend='openvino')


def test_a_file_is_known_by_its_hash(tmp_path: Path) -> None:
    file = written(tmp_path / 'file', b'abc')
    assert file_sha256(file) == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may enter every folder')
def test_a_model_in_a_folder_that_may_not_be_entered_is_not_called_missing(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    tmp_path.chmod(0o444)
    try:
        with pytest.raises(ModelError, match='model.onnx: cannot be read: Permission denied'):
            find_model(model)
    finally:
        tmp_path.chmod(0o755)


def test_limits_are_given_as_they_are_or_by_the_classes_or_not_at_all(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    assert open_pipeline(model).limits == Limits()
    assert open_pipeline(model, limits=Limits(0.5)).limits == Limits(0.5)
    wanted = open_pipeline(model, limits=lambda spec: Limits(max_detections=spec.num_classes)).limits
    assert wanted == Limits(max_detections=3)


@pytest.mark.parametrize(
    ('output', 'shape', 'said', 'task'),
    [
        ('output0', (1, 7, 84), {}, 'detection'),
        ('logits', (1, 21, 33, 33), {}, 'segmentation'),
        ('heatmaps', (1, 17, 16, 16), {}, 'pose'),
        ('maps', (1, 17, 16, 16), {'decoder': 'semantic'}, 'segmentation'),
        ('maps', (1, 3, 16, 16), {'keypoints': ('a', 'b', 'c')}, 'pose'),
    ],
)
def test_where_no_task_is_given_it_is_that_of_the_model(
    output: str, shape: tuple[int, ...], said: dict[str, Any], task: str, tmp_path: Path
) -> None:
    model = save_constant_detector(tmp_path / 'model.onnx', {output: np.zeros(shape, np.float32)})
    with contextlib.closing(open_pipeline(model, overrides=Overrides(**said))) as pipeline:
        assert pipeline.spec.task == task


def test_a_model_that_several_tasks_can_read_wants_to_be_told_which(tmp_path: Path) -> None:
    maps = np.full((1, 17, 16, 16), 0.5, np.float32)
    model = save_constant_detector(tmp_path / 'model.onnx', {'maps': maps})
    with pytest.raises(ParameterError, match='for segmentation and pose; say what it is for: .* task'):
        open_pipeline(model)
    with contextlib.closing(open_pipeline(model, task='pose')) as pipeline:
        assert pipeline.spec.task == 'pose'


def test_a_task_that_there_is_not_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    for opened in (open_pipeline, open_session):
        with pytest.raises(ModelError, match="expected one of detection, segmentation, pose, got 'pos'"):
            opened(model, task='pos')


def test_an_array_is_no_frame_and_the_error_says_how_it_becomes_one(tmp_path: Path) -> None:
    pipeline = open_pipeline(save_colour_detector(tmp_path / 'colours.onnx'))
    with pytest.raises(FrameError, match=r'expected a Frame, got ndarray; wrap the picture: Frame\(array\)'):
        pipeline(np.zeros((4, 4, 3), np.uint8))
