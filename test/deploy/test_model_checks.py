"""Model checks, with real models: each passes, and each is made to fail."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import trt_stand_in
from boards import plant
from onnx import TensorProto, helper

from isaac_infer.core.errors import ParameterError
from isaac_infer.deploy import model_checks as module
from isaac_infer.deploy.checks import FAILED, NOT_RUN, PASSED, CheckError, NotRunError, line_of, run_checks
from isaac_infer.deploy.manifest import Manifest, ModelEntry
from isaac_infer.deploy.model_checks import ModelUnderTest, model_checks
from isaac_infer.deploy.register import register
from isaac_infer.engine.cache import BuildKey
from isaac_infer.engine.load import file_sha256
from models import save_model

MODELS = Path(__file__).parents[2] / 'models'
DETECTOR = MODELS / 'tabletop_detector.onnx'


def validated(tmp_path, **values):
    """The results of a model's checks by what they check."""
    entry = ModelEntry(**{'path': str(DETECTOR), 'backend': 'onnxruntime', **values})
    manifest = Manifest(models=(entry,), folder=tmp_path)
    results = run_checks(model_checks(manifest, root=tmp_path), timeout_s=60)
    return {result.name.rpartition(': ')[2]: result for result in results}


def outcomes(results):
    return {name: result.outcome for name, result in results.items()}


def policy(path, *, scale=2.0, metadata=None):
    """A model of a command from a scan: it answers its mean, times a scale."""
    nodes = [
        helper.make_node('ReduceMean', ['scan'], ['mean'], axes=[1], keepdims=1),
        helper.make_node('Mul', ['mean', 'scale'], ['command']),
    ]
    inputs = {'scan': (TensorProto.FLOAT, (1, 8))}
    outputs = {'command': (TensorProto.FLOAT, (1, 1))}
    return save_model(path, nodes, inputs, outputs, constants={'scale': np.array([scale], np.float32)})


def dividing(path):
    """A model that answers 0/0 where its input is 0."""
    nodes = [helper.make_node('Div', ['scan', 'scan'], ['command'])]
    kinds = {'scan': (TensorProto.FLOAT, (1, 8))}, {'command': (TensorProto.FLOAT, (1, 8))}
    return save_model(path, nodes, *kinds)


@pytest.mark.parametrize(
    'model',
    ['tabletop_detector.onnx', 'tabletop_instances.onnx', 'tabletop_segmentation.onnx', 'humanoid_pose.onnx'],
)
def test_the_models_of_this_package_pass_every_check(tmp_path, model):
    path = MODELS / model
    plant(tmp_path, {'proc/meminfo': 'MemAvailable:    5852160 kB'})
    begun_s = time.monotonic()
    results = validated(
        tmp_path,
        path=str(path),
        sha256=file_sha256(path),
        reference='onnxruntime',
        latency_budget_ms=5000.0,
        memory_mb=100.0,
    )
    print(f'\n{model}: {time.monotonic() - begun_s:.1f} s')
    assert outcomes(results) == dict.fromkeys(
        ('file', 'hash', 'memory', 'load', 'zeros', 'sample', 'latency'), PASSED
    ), results
    assert results['sample'].values['worst_difference'] == 0.0
    assert results['latency'].values['runs'] >= 20
    assert results['latency'].values['p95_ms'] > 0


def test_a_file_that_is_not_there_leaves_nothing_to_run(tmp_path):
    results = validated(tmp_path, path='gone.onnx', sha256='0' * 64)
    assert outcomes(results) == {
        'file': FAILED, 'hash': NOT_RUN, 'load': NOT_RUN, 'zeros': NOT_RUN, 'sample': NOT_RUN
    }  # fmt: skip


def test_another_file_than_the_registered_one_is_not_run(tmp_path):
    results = validated(tmp_path, sha256='0' * 64)
    assert results['hash'].outcome == FAILED
    got = file_sha256(DETECTOR)
    assert results['hash'].values == {'sha256': got}
    said = line_of(results['hash'])
    assert f'with SHA-256 {"0" * 12}..., got {got[:12]}...; copy it again' in said
    assert 'isaac-infer validate --write' in said and got[:13] not in said and '0' * 13 not in said
    assert results['load'].outcome == NOT_RUN


def test_models_of_one_name_are_both_named_with_the_way_out(tmp_path):
    one, two = tmp_path / 'a' / 'm.onnx', tmp_path / 'b' / 'm.onnx'
    for path in (one, two):
        path.parent.mkdir()
        policy(path)
    with pytest.raises(ParameterError, match=f'got {one} and {two}; give one of them another file name'):
        register([str(one), str(two)], tmp_path / 'robot.yaml')
    with pytest.raises(ParameterError, match=f'got {one} and {one}; leave one out'):
        register([str(one), str(one)], tmp_path / 'robot.yaml')


def test_a_model_whose_weights_lie_beside_it_is_not_run_with_others(tmp_path):
    path = policy(tmp_path / 'policy.onnx')
    onnx.save(onnx.load(path), path, save_as_external_data=True, location='weights', size_threshold=0)
    (registered,) = register([str(path)], tmp_path / 'robot.yaml')
    values = {'path': 'policy.onnx', 'task': 'policy', 'sha256': registered.entry.sha256}
    assert set(outcomes(validated(tmp_path, **values)).values()) == {PASSED}
    (tmp_path / 'weights').write_bytes(np.float32(3).tobytes())
    results = validated(tmp_path, **values)
    assert (results['hash'].outcome, results['load'].outcome) == (FAILED, NOT_RUN)
    (tmp_path / 'weights').unlink()
    assert (
        "expected its weights in 'weights', got no such file" in validated(tmp_path, **values)['hash'].reason
    )


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'ftrt' + bytes(9), 'was cut short'),
        (b'', 'empty file'),
        (b'no engine at all', 'expected a TensorRT engine'),
    ],
)
def test_an_engine_that_is_cut_short_has_failed_by_its_header(tmp_path, content, message):
    (tmp_path / 'a.engine').write_bytes(content)
    results = validated(tmp_path, path='a.engine', backend='tensorrt')
    assert results['plan'].outcome == FAILED
    assert message in results['plan'].reason
    assert results['load'].outcome == NOT_RUN


@pytest.fixture
def doubler(tmp_path, monkeypatch):
    """An engine of the stand-ins: twice what it is given."""
    network = trt_stand_in.Network(
        {'scan': trt_stand_in.Tensor((4,))},
        {'command': trt_stand_in.Tensor((4,))},
        lambda given: {'command': 2 * given['scan'] + 1},
    )
    tensorrt = trt_stand_in.install(monkeypatch, network)
    monkeypatch.setattr(module, 'find_tensorrt', lambda: tensorrt)
    monkeypatch.setattr(module, 'installed_version', lambda tensorrt: trt_stand_in.VERSION)
    path = tmp_path / 'policy.engine'
    path.write_bytes(trt_stand_in.PLAN)
    return path


ENGINE = {'path': 'policy.engine', 'backend': 'tensorrt', 'task': 'policy', 'memory_mb': 1.0}


def test_an_engine_passes_where_it_was_built(tmp_path, doubler):
    plant(tmp_path, {'proc/meminfo': 'MemAvailable:    5852160 kB'})
    np.savez(tmp_path / 'a.npz', **{f'{what}/command': np.ones(4) for what in ('zeros', 'sample')})
    results = validated(tmp_path, **ENGINE, reference='a.npz')
    assert outcomes(results) == dict.fromkeys(('file', 'plan', 'memory', 'load', 'zeros', 'sample'), PASSED)
    assert results['plan'].values == {'built_by': '8.6.1', 'tensorrt': '8.6.1', 'gpu': 'stand-in'}
    assert results['memory'].values['gpu_free_mb'] > 1000


def test_an_engine_of_another_tensorrt_has_failed(tmp_path, doubler, monkeypatch):
    monkeypatch.setattr(module, 'installed_version', lambda tensorrt: (10, 3, 0))
    results = validated(tmp_path, **ENGINE)
    assert 'built by TensorRT 8.6.1, this machine has 10.3.0' in results['plan'].reason
    assert results['load'].outcome == NOT_RUN


def test_an_engine_for_another_gpu_has_failed_unless_it_runs_on_others_too(tmp_path, doubler):
    def write(key):
        size = doubler.stat().st_size
        content = {'key': key, 'facts': {}, 'digest': BuildKey(key).digest, 'bytes': size}
        doubler.with_suffix('.json').write_text(json.dumps(content))

    write({'gpu': 'Orin', 'hardware compatible': 'false'})
    assert 'built for Orin, this machine has stand-in' in validated(tmp_path, **ENGINE)['plan'].reason
    write({'gpu': 'Orin', 'hardware compatible': 'true'})
    assert validated(tmp_path, **ENGINE)['plan'].outcome == PASSED
    write({'gpu': 'stand-in', 'hardware compatible': 'false'})
    assert validated(tmp_path, **ENGINE)['plan'].outcome == PASSED


def test_a_truncated_model_does_not_load(tmp_path):
    (tmp_path / 'a.onnx').write_bytes(DETECTOR.read_bytes()[:20_000])
    results = validated(tmp_path, path='a.onnx')
    assert outcomes(results) == {'file': PASSED, 'load': FAILED, 'zeros': NOT_RUN, 'sample': NOT_RUN}


@pytest.mark.parametrize(
    ('meminfo', 'message'),
    [('MemAvailable:    50000 kB', 'ram: expected 100 MB free, got 51 MB'), ('', 'got an unknown amount')],
)
def test_too_little_memory_has_failed_before_anything_is_loaded(tmp_path, meminfo, message):
    plant(tmp_path, {'proc/meminfo': meminfo})
    results = validated(tmp_path, memory_mb=100.0)
    assert results['memory'].outcome == FAILED
    assert message in results['memory'].reason
    assert results['load'].outcome == NOT_RUN


def test_a_budget_that_nothing_keeps_has_failed_with_what_was_measured(tmp_path):
    latency = validated(tmp_path, latency_budget_ms=0.001)['latency']
    assert latency.outcome == FAILED
    assert latency.values['p95_ms'] > 0.001
    assert 'expected at most 0.001 ms, got' in latency.reason


def test_stored_outputs_are_compared_for_zeros_and_for_a_picture_of_one_s_own(tmp_path):
    cv2.imwrite(str(tmp_path / 'desk.png'), np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    values = {'sample': 'desk.png', 'reference': 'a.npz'}
    entry = ModelEntry(path=str(DETECTOR), backend='onnxruntime', **values)
    model = ModelUnderTest(entry, folder=tmp_path)
    outputs = model.outputs()
    model.close()
    assert {name.partition('/')[0] for name in outputs} == {'zeros', 'sample'}
    np.savez(tmp_path / 'a.npz', **outputs)
    results = validated(tmp_path, **values)
    assert outcomes(results) == dict.fromkeys(('file', 'load', 'zeros', 'sample'), PASSED)

    name = next(name for name in outputs if name.startswith('sample/'))
    outputs[name].reshape(-1)[7] += 10
    np.savez(tmp_path / 'a.npz', **outputs)
    results = validated(tmp_path, **values)
    assert (results['zeros'].outcome, results['sample'].outcome) == (PASSED, FAILED)
    assert 'expected the reference within 0.001, got' in results['sample'].reason

    outputs[name][...] = np.nan
    np.savez(tmp_path / 'a.npz', **outputs)
    assert 'got inf beside it' in validated(tmp_path, **values)['sample'].reason

    np.savez(tmp_path / 'a.npz', **{'sample/other': np.zeros(3)})
    assert 'expected outputs as they are here' in validated(tmp_path, **values)['sample'].reason
    (tmp_path / 'a.npz').write_text('no arrays')
    assert 'cannot be read as an npz file' in validated(tmp_path, **values)['sample'].reason


def test_a_policy_is_fed_by_the_names_of_its_inputs(tmp_path):
    policy(tmp_path / 'policy.onnx')
    np.savez(tmp_path / 'inputs.npz', scan=np.full((1, 8), 3, np.float32))
    np.savez(
        tmp_path / 'outputs.npz', **{'zeros/command': np.zeros((1, 1)), 'sample/command': np.full((1, 1), 6)}
    )
    values = {
        'path': 'policy.onnx',
        'task': 'policy',
        'sample': 'inputs.npz',
        'reference': 'outputs.npz',
        'latency_budget_ms': 1000.0,
    }
    results = validated(tmp_path, **values)
    assert outcomes(results) == dict.fromkeys(('file', 'load', 'zeros', 'sample', 'latency'), PASSED), results
    assert validated(tmp_path, **{**values, 'reference': 'onnxruntime'})['sample'].outcome == PASSED

    policy(tmp_path / 'policy.onnx', scale=2.1)
    assert validated(tmp_path, **values)['sample'].outcome == FAILED
    np.savez(tmp_path / 'inputs.npz', imu=np.zeros(3, np.float32))
    assert "expected arrays for the inputs scan float32[1, 8], got 'imu'" in (
        validated(tmp_path, **values)['sample'].reason
    )


def test_outputs_that_are_not_finite_have_failed(tmp_path):
    dividing(tmp_path / 'policy.onnx')
    np.savez(tmp_path / 'inputs.npz', scan=np.ones((1, 8), np.float32))
    results = validated(tmp_path, path='policy.onnx', task='policy', sample='inputs.npz')
    assert (results['zeros'].outcome, results['sample'].outcome) == (FAILED, PASSED)
    assert results['zeros'].reason == 'output command: expected finite numbers for zeros, got NaN or Inf'


def test_an_engine_has_no_reference_on_onnxruntime_and_says_the_way_out(tmp_path):
    model = ModelUnderTest(ModelEntry(path='a.engine', reference='onnxruntime'), folder=tmp_path)
    (tmp_path / 'a.engine').touch()
    with pytest.raises(CheckError, match='give the ONNX model as path'):
        model._compare_with_onnxruntime('zeros', {})


def test_an_engine_with_other_outputs_than_its_model_is_compared_by_what_it_finds(tmp_path):
    model = ModelUnderTest(
        ModelEntry(path=str(DETECTOR), backend='onnxruntime', reference='a.npz'), folder=tmp_path
    )
    stored = {name.partition('/')[2]: value for name, value in model.outputs().items() if 'sample' in name}
    best = {'best': np.zeros((1, 6, 10), np.float32)}  # what the engine has instead
    values = model._compare_with_onnxruntime('sample', best, stored)
    assert values['objects_expected'] == values['found'] > 0
    assert values['extra'] == 0
    broken = {name: value + 1 for name, value in stored.items()}
    with pytest.raises(CheckError, match='expected the reference within 0.001'):
        model._compare_with_onnxruntime('sample', best, broken)
    model.close()


def test_a_sample_in_which_nothing_is_found_tells_nothing_of_an_engine(tmp_path):
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((240, 320, 3), 90, np.uint8))
    entry = ModelEntry(path=str(DETECTOR), backend='onnxruntime', reference='a.npz', sample='grey.png')
    model = ModelUnderTest(entry, folder=tmp_path)
    stored = {name.partition('/')[2]: value for name, value in model.outputs().items() if 'sample' in name}
    with pytest.raises(NotRunError, match='give another picture'):
        model._compare_with_onnxruntime('sample', {'best': np.zeros((1, 6, 10), np.float32)}, stored)
    model.close()


def test_a_latency_that_somebody_ends_is_not_measured(tmp_path):
    entry = ModelEntry(path=str(DETECTOR), backend='onnxruntime', latency_budget_ms=5000.0)
    runs = iter([False] * 8)
    model = ModelUnderTest(entry, folder=tmp_path)
    model.loads()
    model._is_cancelled = lambda: next(runs, True)
    try:
        with pytest.raises(NotRunError, match='ended after 8 runs'):
            model.is_in_time()
    finally:
        model.close()


@pytest.mark.parametrize('apart', [(np.nan, 1.0), (1.0, np.nan), (np.nan, np.nan), (np.inf, np.inf)])
def test_what_is_not_finite_is_near_nothing(apart):
    want, got = (np.array([value, 0.0]) for value in apart)
    assert module._difference(want, got) == np.inf
