"""`isaac-infer inspect`: what engines and ONNX models are made of."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from isaac_infer.cli import inspect as module
from isaac_infer.cli.main import main
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.layers import read_layers
from models import (
    save_colour_detector,
    save_constant_detector,
    save_model,
    ultralytics_metadata,
    ultralytics_output,
)

PLAN = b'ftrt' + (0).to_bytes(4, 'little') + bytes(range(16)) + bytes((10, 3, 0, 30)) + b'layers and weights'
NO_GPU = pytest.mark.skipif(not device_problem(), reason='there is a GPU')


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_colour_detector(tmp_path / 'colours.onnx')


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / 'a.engine'
    path.write_bytes(PLAN)
    return path


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(['inspect', str(path), '--json', '-']) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_an_onnx_model_tells_what_it_is_made_of(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = inspected(model, capsys)['network']
    assert network['nodes'] == 4
    assert network['operators'] == {'ReduceMean': 1, 'Unsqueeze': 1, 'Expand': 1, 'Concat': 1}
    assert (network['quantize'], network['dequantize']) == (0, 0)
    assert network['weights']['fp32'] == 4 * 84
    assert [layer['kind'] for layer in network['layers']] == ['ReduceMean', 'Unsqueeze', 'Expand', 'Concat']


def test_people_see_the_counts_and_every_layer_where_they_ask(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['inspect', str(model)]) == 0
    brief = capsys.readouterr().out
    assert 'operators' in brief and '336 fp32' in brief and '0 QuantizeLinear' in brief
    assert main(['inspect', str(model), '--layers']) == 0
    full = capsys.readouterr().out
    assert len(full.splitlines()) >= len(brief.splitlines()) + 4
    assert 'column' in full and 'column' not in brief
    assert 'only an engine tells' in ' '.join(full.split())
    assert re.search(r'name +kind +weights', full)


def test_what_no_terminal_shows_is_not_broken_into_lines(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('COLUMNS', raising=False)
    report = inspected(model, capsys)
    assert main(['inspect', str(model)]) == 0
    shown = capsys.readouterr().out
    assert report['sha256'] in shown and str(model) in shown
    assert all(note in shown for note in report['spec']['notes'])
    monkeypatch.setenv('COLUMNS', '40')  # as somebody wants it
    assert main(['inspect', str(model)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


@NO_GPU
def test_an_engine_is_shown_without_a_gpu_and_what_needs_one_is_said(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['inspect', str(engine), '--layers']) == 0
    shown = ' '.join(capsys.readouterr().out.split())
    assert '10.3.0.30' in shown
    assert 'not shown tensors, memory and layers' in shown and 'TensorRT cannot be used' in shown


@NO_GPU
def test_programs_are_told_too_what_is_not_shown(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = inspected(engine, capsys)
    assert report['built by TensorRT'] == '10.3.0.30'
    assert 'TensorRT cannot be used' in report['not shown']
    assert 'layers' not in report


def inside(*layers: object) -> dict[str, Any]:
    """What a loaded engine tells, with these layers."""
    told = read_layers(json.dumps({'Layers': layers}))
    return {
        'inputs': [
            {
                'name': 'images',
                'shape': [-1, 3, 64, 64],
                'dtype': 'uint8',
                'profiles': [[[1, 3, 64, 64], [2, 3, 64, 64], [4, 3, 64, 64]]],
            }
        ],
        'outputs': [{'name': 'output0', 'shape': [-1, 84], 'dtype': 'float32'}],
        'num_layers': len(layers),
        'device_bytes': 3 << 20,
        'precisions': module.count_precisions(told),
        'kinds': module.count_kinds(told),
        'layers': [module.asdict(layer) for layer in told],
    }


def conv(kind: str) -> dict[str, Any]:
    return {'Name': f'conv {kind}', 'LayerType': 'CaskConvolution', 'Inputs': [{'Format/Datatype': kind}]}


def test_a_loaded_engine_answers_whether_it_runs_in_what_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module._show_engine(inside(conv('Half'), conv('Half'), conv('Float')), 'fp16', with_layers=True)
    shown = ' '.join(capsys.readouterr().out.split())
    assert 'fp16 2, fp32 1 of 3 layers that compute; asked for was fp16' in shown
    assert 'uint8[?, 3, 64, 64]; profile 0: [1, 3, 64, 64], [2, 3, 64, 64], [4, 3, 64, 64]' in shown
    assert '3.0 MiB' in shown
    assert 'conv Float' in shown


def test_an_engine_of_names_alone_says_that_it_does_not_tell(capsys: pytest.CaptureFixture[str]) -> None:
    module._show_engine(inside('a', 'b'), '', with_layers=True)
    shown = ' '.join(capsys.readouterr().out.split())
    assert 'not told: it was built without the details of its layers' in shown


# ---- what a model is for --------------------------------------------------------------------------


def save_maps(path: Path, *, name: str = 'output', **metadata: str) -> Path:
    return save_constant_detector(
        path, {name: np.zeros((1, 16, 64, 64), np.float32)}, metadata=dict(metadata)
    )


def save_poser(path: Path, **metadata: str) -> Path:
    boxes = ultralytics_output([(32, 32, 40, 40, 0, 0.9)], classes=1)
    points = np.full((1, 3 * 17, boxes.shape[2]), 20, np.float32)
    points[:, 2::3] = 0.9
    output = np.concatenate((boxes, points), axis=1)
    return save_constant_detector(path, {'output0': output}, metadata=dict(metadata))


def test_what_a_model_is_for_is_said_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ultralytics_metadata(['person'])
    said = {**named, 'task': 'pose', 'kpt_shape': '[17, 3]'}
    boxes_alone = 'for detection only its boxes are read, as detector_node does (--task detection)'
    for model, task, decoder, reason in (
        (save_colour_detector(tmp_path / 'a.onnx'), 'detection', 'ultralytics', "its metadata says 'detect'"),
        (
            save_poser(tmp_path / 'b.onnx', **said),
            'pose',
            'ultralytics_pose',
            f"its metadata says 'pose'; {boxes_alone}",
        ),
        (save_poser(tmp_path / 'c.onnx'), 'pose', 'ultralytics_pose', boxes_alone),
        (
            save_maps(tmp_path / 'd.onnx', decoder='semantic'),
            'segmentation',
            'semantic',
            'its decoder is semantic',
        ),
    ):
        spec = inspected(model, capsys)['spec']
        assert (spec['task'], spec['decoder']) == (task, decoder)
        assert spec['notes'][0] == f'task {task}: {reason}'
        assert main(['inspect', str(model)]) == 0
        assert f'task {task} decoder {decoder}' in ' '.join(capsys.readouterr().out.split())


def test_a_model_is_shown_for_the_task_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_poser(tmp_path / 'poser.onnx')
    assert main(['inspect', str(model), '--task', 'detection', '--json', '-']) == 0
    spec = json.loads(capsys.readouterr().out)['spec']
    assert (spec['task'], spec['decoder']) == ('detection', 'ultralytics')
    assert main(['inspect', str(model), '--task', 'depth']) == 2
    assert 'task: expected one of detection, segmentation, pose, got depth' in capsys.readouterr().err


def test_a_model_of_which_the_task_is_not_clear_shows_its_tensors_and_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_maps(tmp_path / 'maps.onnx')
    assert main(['inspect', str(model)]) == 2
    said = capsys.readouterr()
    assert 'float32[1, 16, 64, 64]' in said.out
    assert 'maps.onnx can be read for segmentation and pose; say what it is for: --task' in said.err
    assert '"task: segmentation" in maps.yaml beside it' in said.err
    (tmp_path / 'maps.yaml').write_text('task: segmentation')
    assert main(['inspect', str(model)]) == 0
    capsys.readouterr()
    (tmp_path / 'maps.yaml').unlink()
    assert main(['inspect', str(model), '--task', 'segmentation']) == 0
    assert 'semantic' in capsys.readouterr().out


@pytest.mark.parametrize(('name', 'task'), [('heatmaps', 'pose'), ('mask_logits', 'segmentation')])
def test_names_of_outputs_decide_between_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, task: str
) -> None:
    assert main(['inspect', str(save_maps(tmp_path / 'maps.onnx', name=name)), '--json', '-']) == 0
    assert json.loads(capsys.readouterr().out)['spec']['task'] == task


@pytest.mark.parametrize(
    ('word', 'task', 'decoder'),
    [
        ('segmentation', 'segmentation', 'semantic'),
        ('segment', 'segmentation', 'semantic'),
        ('semantic', 'segmentation', 'semantic'),
        ('pose', 'pose', 'heatmaps'),
    ],
)
def test_a_sidecar_says_what_a_model_is_for_without_making_it_one_of_ultralytics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, task: str, decoder: str
) -> None:
    model = save_maps(tmp_path / 'maps.onnx')
    model.with_suffix('.yaml').write_text(f'task: {word}\n')
    spec = inspected(model, capsys)['spec']
    assert (spec['task'], spec['decoder']) == (task, decoder)
    assert spec['notes'][0] == f'task {task}: its metadata or its sidecar say so'
    assert 'maps.yaml: task taken from it' in spec['notes']


@pytest.mark.parametrize('word', ['detect', 'detection'])
def test_a_task_in_a_sidecar_leaves_a_detector_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    rows = np.zeros((1, 84, 5 + 3), np.float32)
    model = save_constant_detector(tmp_path / 'rows.onnx', {'output': rows})
    alone = inspected(model, capsys)['spec']
    model.with_suffix('.yaml').write_text(f'task: {word}\n')
    beside = inspected(model, capsys)['spec']
    assert beside['decoder'] == alone['decoder'] == 'yolox'
    told = {'notes': (), 'unsettled': ()}  # that it is for detection is no matter of doubt any more
    assert {**beside, **told} == {**alone, **told}


def test_a_sidecar_tells_the_key_points_of_a_model_that_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = np.zeros((1, 4 + 1 + 4 * 3, 84), np.float32)
    model = save_constant_detector(tmp_path / 'pallet.onnx', {'output0': output})
    model.with_suffix('.yaml').write_text('task: pose\nnames: [pallet]\nkpt_shape: [4, 3]\n')
    for arguments, decoder in (((), 'ultralytics_pose'), (('--task', 'detection'), 'ultralytics')):
        assert main(['inspect', str(model), *arguments, '--json', '-']) == 0
        assert json.loads(capsys.readouterr().out)['spec']['decoder'] == decoder


def test_a_sidecar_that_says_another_task_than_the_one_that_is_asked_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_maps(tmp_path / 'maps.onnx')
    model.with_suffix('.yaml').write_text('task: pose\n')
    assert main(['inspect', str(model), '--task', 'segmentation']) == 1
    assert "it was made for the task 'pose', which gives no segmentation" in capsys.readouterr().err


# ---- which model ----------------------------------------------------------------------------------


@pytest.mark.parametrize('command', ['inspect', 'bench', 'build'])
def test_several_files_are_too_many(
    command: str, model: Path, engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(model), str(engine)]) == 2
    said = capsys.readouterr().err
    assert said == f'isaac-infer: error: MODEL: expected one file, got 2: {model}, {engine}\n'


def test_a_pattern_is_called_one(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['inspect', str(tmp_path / 'x-*.engine')]) == 1
    said = capsys.readouterr().err
    assert 'x-*.engine: expected a file, got a pattern that matches none; isaac-infer build makes' in said
    assert main(['inspect', str(tmp_path / 'col*')]) == 1
    assert f'got a pattern, which matches 1; give one of them, such as {model}' in capsys.readouterr().err
    odd = model.rename(tmp_path / 'a[1].onnx')
    assert inspected(odd, capsys)['model'] == str(odd)


def test_a_model_that_takes_no_picture_is_shown_as_what_a_control_policy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_model(
        tmp_path / 'policy.onnx',
        [helper.make_node('MatMul', ['scan', 'weights'], ['action'])],
        {'scan': (TensorProto.FLOAT, (1, 36))},
        {'action': (TensorProto.FLOAT, (1, 2))},
        constants={'weights': np.zeros((36, 2), np.float32)},
    )
    assert main(['inspect', str(path)]) == 0
    told = capsys.readouterr().out
    assert 'scan' in told and 'float32[1, 2]' in told and 'control_config' in told
    found = inspected(path, capsys)
    assert found['spec'] is None and found['inputs'][0]['name'] == 'scan'
    assert main(['inspect', str(path), '--task', 'detection']) == 1
    assert 'expected one picture as input' in capsys.readouterr().err
