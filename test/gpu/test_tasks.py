"""Real networks of every task answer on TensorRT as they do on ONNX Runtime."""

import os
from pathlib import Path

import pytest

from isaac_infer.cli.models import find_task
from isaac_infer.cli.scores import measure_of
from isaac_infer.core.frame import Frame
from isaac_infer.core.source import is_picture, read_picture
from isaac_infer.core.spec import Limits
from isaac_infer.engine.load import open_pipeline
from isaac_infer.params import DetectionParams

DATA = Path(os.environ.get('ISAAC_INFER_TEST_DATA', ''))
pytestmark = pytest.mark.skipif(
    not DATA.name or not DATA.is_dir(), reason='ISAAC_INFER_TEST_DATA names no folder with real networks'
)
NETWORKS = {
    'yolox_nano_coco': 'detection',
    'yolov8n_320_coco': 'detection',
    'yolov8n_seg_320_coco': 'segmentation',
    'deeplab_v3_mnv2_257_voc': 'segmentation',
    'yolov8n_pose_320': 'pose',
    'efficientpose_rt_224': 'pose',
}


@pytest.mark.parametrize(('precision', 'share', 'overlap'), [('fp32', 0.999, 0.995), ('fp16', 0.94, 0.95)])
@pytest.mark.parametrize('name', NETWORKS)
def test_every_task_answers_as_on_onnx_runtime(detector, name, precision, share, overlap):
    path = DATA / 'models' / name / 'model.onnx'
    task = NETWORKS[name]
    reference = open_pipeline(path, task=task, backend='onnxruntime', limits=lambda spec: Limits())
    pipeline, _ = detector(path, task=task, precision=precision)
    agreeing = measure_of(reference.spec).agreeing(reference, pipeline, 0.5)
    for file in filter(is_picture, sorted((DATA / 'images').iterdir())):
        frame = Frame(read_picture(file).image)
        agreeing.add(reference(frame), pipeline(frame))
    reference.close()
    found = agreeing.agreement()
    assert found.expected and found.share >= share and found.mean_iou >= overlap, found
    assert find_task(DetectionParams(model_file_path=str(pipeline.session.path)))[0] == task
