"""A detector on TensorRT answers as it does on ONNX Runtime, and its engine is built once."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from gpu.conftest import MODEL, QUICK

from isaac_infer.core.boxes import box_iou
from isaac_infer.core.build_options import EngineOptions
from isaac_infer.core.errors import ModelError, SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.spec import Limits, Overrides
from isaac_infer.engine.engines import open_engine
from isaac_infer.engine.load import find_spec, open_pipeline
from isaac_infer.engine.trt import TrtSession

SCENES = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + 20)


@pytest.fixture(scope='module')
def reference():
    pipeline = open_pipeline(MODEL, backend='onnxruntime', limits=lambda spec: Limits())
    yield pipeline
    pipeline.close()


@pytest.mark.parametrize(('precision', 'iou', 'score'), [('fp32', 0.99, 0.005), ('fp16', 0.97, 0.02)])
@pytest.mark.parametrize('prepare', ['cpu', 'resize', 'gpu'])
def test_the_answers_are_those_of_onnx_runtime(detector, reference, precision, iou, score, prepare):
    pipeline, _ = detector(precision=precision, prepare=prepare)
    for seed in SCENES:
        frame = Frame(draw_scene(seed, size_hw=(720, 1280)).image)
        want, got = reference(frame), pipeline(frame)
        sure = want.score > 0.3  # what lies at the threshold itself may fall to either side
        overlap = box_iou(want.xyxy[sure], got.xyxy)
        overlap[want.class_id[sure][:, None] != got.class_id[None]] = 0
        best = overlap.argmax(axis=1)
        assert (overlap.max(axis=1) >= iou).all()
        assert np.abs(got.score[best] - want.score[sure]).max() <= score
        assert abs(len(got) - len(want)) <= (~sure).sum()


def test_an_engine_is_built_once_and_a_different_one_says_what_differs(detector):
    detector(precision='fp32')
    _, said = detector(precision='fp32')
    assert said == []
    _, said = detector(precision='fp32', best_class=False)
    assert any('best class: false, was true' in text for text in said)


def test_without_best_class_and_uint8_the_answers_are_the_same(detector, reference):
    pipeline, _ = detector(precision='fp32', best_class=False, uint8_input=False, prepare='cpu')
    frame = Frame(draw_scene(SCENES[0]).image)
    want, got = reference(frame), pipeline(frame)
    assert np.allclose(want.xyxy, got.xyxy, atol=0.1) and (want.class_id == got.class_id).all()


def test_a_damaged_engine_is_set_aside_and_built_again(detector, folder, tmp_path):
    pipeline, _ = detector(precision='fp32')
    shutil.copytree(folder, tmp_path / 'engines')
    engine = tmp_path / 'engines' / pipeline.session.path.name
    content = bytearray(engine.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
    content[1000:1100] = bytes(100)
    engine.write_bytes(content)
    pipeline, said = detector(precision='fp32', cache=tmp_path / 'engines')
    assert any('set aside' in text for text in said)
    assert list((tmp_path / 'engines').glob('*.broken'))
    assert len(pipeline(Frame(draw_scene(SCENES[0]).image)))


def test_without_a_compiler_pictures_are_prepared_on_the_cpu_and_that_is_said(
    detector, folder, tmp_path, monkeypatch
):
    detector(precision='fp32')
    shutil.copytree(folder, tmp_path / 'engines', ignore=shutil.ignore_patterns('*.cubin'))
    monkeypatch.setenv('PATH', str(tmp_path))
    pipeline, _ = detector(precision='fp32', cache=tmp_path / 'engines')
    assert any('on the CPU: nvcc cannot be used' in text for text in pipeline.session.fallbacks)
    assert pipeline.prepare.chosen == 'cpu'
    assert len(pipeline(Frame(draw_scene(SCENES[0]).image)))


def test_a_cancelled_build_leaves_nothing(tmp_path):
    with pytest.raises(SessionError, match='cancelled'):
        open_engine(
            MODEL,
            EngineOptions(QUICK, cache_folder=str(tmp_path)),
            Overrides(),
            find_spec,
            say=lambda text: None,
            is_cancelled=iter([False] * 10 + [True] * 1000).__next__,
        )
    assert [path.name for path in tmp_path.iterdir() if 'timing' not in path.name] == []


def test_what_the_sidecar_says_names_everything(detector):
    pipeline, _ = detector(precision='fp32')
    sidecar = json.loads(pipeline.session.path.with_suffix('.json').read_text())
    assert sidecar['key']['precision'] == 'fp32' and sidecar['key']['gpu']
    assert sidecar['facts']['build_s'] > 0 and sidecar['facts']['latency_ms'] > 0
    assert sidecar['facts']['spec']['class_names'][0] == 'mug'


def test_an_engine_of_another_version_is_an_error_that_names_both(detector, tmp_path):
    pipeline, _ = detector(precision='fp32')
    content = bytearray(pipeline.session.path.read_bytes())
    content[24:28] = 7, 1, 3, 0
    other = tmp_path / 'old.engine'
    other.write_bytes(content)
    with pytest.raises(ModelError, match=r'7\.1\.3.*isaac-infer build'):
        TrtSession(other)


def test_an_engine_with_ultralytics_json_in_front_is_read(detector, tmp_path):
    pipeline, _ = detector(precision='fp32', best_class=False, uint8_input=False)
    names = dict(enumerate(pipeline.spec.class_names))
    metadata = json.dumps({'task': 'detect', 'names': names, 'imgsz': [320, 320], 'stride': 32}).encode()
    foreign = tmp_path / 'yolo.engine'
    foreign.write_bytes(len(metadata).to_bytes(4, 'little') + metadata + pipeline.session.path.read_bytes())
    # What of the model's own metadata Ultralytics' has no words for.
    ours = Overrides(box_blend=pipeline.spec.box_blend)
    other = open_pipeline(foreign, limits=lambda spec: Limits(), overrides=ours)
    frame = Frame(draw_scene(SCENES[0]).image)
    assert other.spec.class_names == pipeline.spec.class_names
    assert np.allclose(other(frame).xyxy, pipeline(frame).xyxy, atol=0.01)
    other.close()


def test_models_in_several_threads_do_not_disturb_one_another(detector):
    frames = [Frame(draw_scene(seed).image) for seed in SCENES[:4]]
    alone, _ = detector(precision='fp16')
    want = [alone(frame) for frame in frames]
    failures = []

    def work():
        try:
            pipeline, _ = detector(precision='fp16')
            for _ in range(50):
                for frame, expected in zip(frames, want):
                    assert np.array_equal(pipeline(frame).xyxy, expected.xyxy)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_pictures_of_changing_sizes_are_answered_right(detector, reference):
    pipeline, _ = detector(precision='fp32')
    for size_hw in ((480, 640), (1080, 1920), (37, 53), (480, 640), (1, 1), (2160, 3840)):
        picture = (
            draw_scene(SCENES[0], size_hw=size_hw).image
            if min(size_hw) > 30
            else np.zeros((*size_hw, 3), np.uint8)
        )
        want, got = reference(Frame(picture)), pipeline(Frame(picture))
        sure = want.score > 0.3
        assert sure.sum() <= len(got) <= len(want) + 2
    assert Path(pipeline.session.path).exists()
