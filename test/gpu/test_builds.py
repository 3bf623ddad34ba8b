"""Builds of real engines: killed, raced for, calibrated, and those that others made."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from gpu.conftest import MODEL, TACTICS
from gpu.test_trt import FLOAT, doubler, network

from isaac_infer.core.errors import SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import agreement
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.spec import Limits
from isaac_infer.engine.cuda import Gpu
from isaac_infer.engine.load import open_pipeline
from isaac_infer.engine.trt import Messages, TrtSession, find_tensorrt

ROOT = Path(__file__).resolve().parents[2]


def start_build(model, folder):
    """Start `isaac-infer build` as a process."""
    command = [sys.executable, '-m', 'isaac_infer.cli.main', 'build', '--model', str(model)]
    command += ['--engine-cache-path', str(folder), '--optimization-level', '0', '--precision', 'fp32']
    command += ['--task', 'segmentation']  # the small network could be of others too
    if TACTICS:
        command += ['--tactic-sources', *TACTICS]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def children_of(process):
    return Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()


@pytest.fixture
def small_model(tmp_path):
    onnx.save(doubler(), tmp_path / 'small.onnx')
    return tmp_path / 'small.onnx'


def test_a_build_that_is_killed_leaves_no_engine_and_no_process_and_the_next_one_builds(
    small_model, tmp_path
):
    folder = tmp_path / 'engines'
    killed = start_build(small_model, folder)
    deadline = time.monotonic() + 60
    while not (builders := children_of(killed)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert builders
    time.sleep(1.5)  # TensorRT is at work
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    while any(Path('/proc', number).exists() for number in builders) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path('/proc', number).exists() for number in builders)
    assert list(folder.glob('*.engine')) == []
    next_one = start_build(small_model, folder)
    out, err = next_one.communicate(timeout=100)
    assert next_one.returncode == 0, err
    assert Path(out.strip()).is_file() and not list(folder.glob('.*.partial*'))


def test_two_processes_that_want_one_engine_build_it_once(small_model, tmp_path):
    both = [start_build(small_model, tmp_path / 'engines') for _ in range(2)]
    (first, first_said), (second, second_said) = (each.communicate(timeout=100) for each in both)
    assert [each.returncode for each in both] == [0, 0], first_said + second_said
    assert first == second and len(list((tmp_path / 'engines').glob('*.engine'))) == 1
    said = first_said + second_said
    assert said.count('built in') == 1 and 'wait' in said


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    import cv2

    folder = tmp_path_factory.mktemp('scenes')
    for seed in range(100):
        cv2.imwrite(str(folder / f'{seed}.png'), draw_scene(seed).image)
    return folder


@pytest.mark.parametrize('calibration', ['qdq', 'entropy', 'minmax'])
def test_int8_finds_what_float32_finds(detector, folder, scenes, calibration):
    frames = [Frame(draw_scene(FIRST_HELD_OUT_SEED + seed).image) for seed in range(30)]
    reference = open_pipeline(MODEL, backend='onnxruntime', limits=lambda spec: Limits())
    pipeline, said = detector(precision='int8', calibration=calibration, calibration_path=str(scenes))
    found = agreement([(reference(frame), pipeline(frame)) for frame in frames], iou_threshold=0.5)
    reference.close()
    assert found.share >= 0.95 and found.extra_share <= 0.05, found
    assert any('int8 finds' in text for text in said)
    if calibration != 'qdq':
        assert list(folder.glob('calibration-*.cache'))


def build_by_hand(model, into, profiles=()):
    """Build as trtexec does: without a sidecar, a spec or any surgery."""
    trt, gpu = find_tensorrt(), Gpu()
    messages = Messages(trt)
    with gpu.current():
        builder = trt.Builder(messages.logger)
        definition = builder.create_network(1)
        parser = trt.OnnxParser(definition, messages.logger)
        assert parser.parse(model.SerializeToString())
        config = builder.create_builder_config()
        config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in TACTICS))
        for shapes in profiles:
            profile = builder.create_optimization_profile()
            profile.set_shape('x', *shapes)
            config.add_optimization_profile(profile)
        into.write_bytes(builder.build_serialized_network(definition, config))


def test_each_of_several_profiles_can_be_run(tmp_path):
    engine = tmp_path / 'two.engine'
    small, large = ((1, 3, 8, 8),) * 3, ((1, 3, 16, 16), (1, 3, 32, 32), (4, 3, 32, 32))
    build_by_hand(doubler((-1, 3, -1, -1)), engine, (small, large))
    for profile, shape in ((0, (1, 3, 8, 8)), (1, (4, 3, 32, 32)), (1, (1, 3, 16, 16))):
        with TrtSession(engine, profile=profile) as session:
            for value in range(4):
                session.input_buffer('x', shape)[...] = value
                answer = session.run()['y']
                assert answer.shape == shape and (answer == 2 * value).all()
    with pytest.raises(SessionError, match='expected 0 to 1, got 2'):
        TrtSession(engine, profile=2)


def test_more_memory_than_there_is_is_an_error_with_numbers(tmp_path):
    names = [f'y{index}' for index in range(20)]  # of 8.6 GB each
    factors = [onnx.numpy_helper.from_array(np.float32(index), f'c{index}') for index in range(20)]
    model = network(
        [('Mul', ['x', f'c{index}'], [name]) for index, name in enumerate(names)],
        [('x', FLOAT, ('n',))],
        [(name, FLOAT, ('n',)) for name in names],
        factors,
    )
    engine = tmp_path / 'huge.engine'
    build_by_hand(model, engine, [((1,), (1,), (2**31 - 1,))])
    with pytest.raises(SessionError, match=r'out of GPU memory: \d+\.\d MiB needed, \d+\.\d of \d+ MiB free'):
        TrtSession(engine)
    with TrtSession(engine_of(tmp_path)) as session:  # and the next one is opened as ever
        session.input_buffer('x', (1, 3, 8, 8))[...] = 1
        assert (session.run()['y'] == 2).all()


def engine_of(folder):
    build_by_hand(doubler(), folder / 'next.engine')
    return folder / 'next.engine'
