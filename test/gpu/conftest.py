"""What runs on a real GPU with real TensorRT; elsewhere these tests are skipped, with the reason."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from isaac_infer.core.build_options import BuildOptions, EngineOptions
from isaac_infer.core.spec import Limits
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.load import open_pipeline

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
# Where cuBLAS and cuDNN are not installed: EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS.
TACTICS = tuple(filter(None, os.environ.get('ISAAC_INFER_TACTIC_SOURCES', '').split(',')))
QUICK = BuildOptions(optimization_level=0, tactic_sources=TACTICS)


def pytest_collection_modifyitems(items):
    problem = device_problem()
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.gpu)
            if problem:
                item.add_marker(pytest.mark.skip(reason=f'needs a GPU: {problem}'))


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Where engines are kept; with timing caches of earlier runs, where there are some, it is soon full."""
    folder = tmp_path_factory.mktemp('engines')
    for kept in Path(os.environ.get('ISAAC_INFER_TIMING_CACHES', folder)).glob('timing-*.cache'):
        if kept.parent != folder:
            shutil.copy(kept, folder)
    return folder


@pytest.fixture
def detector(folder):
    """Open a model on TensorRT, a detector where no task is given; gives the pipeline, and what was said."""
    opened = []

    def open_it(
        model=MODEL, *, task='detection', prepare='auto', cache=folder, calibration_path='', **options
    ):
        said = []
        engine = EngineOptions(
            replace(QUICK, **options),
            cache_folder=str(cache),
            calibration=calibration_path,
            prepare=prepare,
        )
        pipeline = open_pipeline(
            model,
            task=task,
            backend='tensorrt',
            limits=lambda spec: Limits(),
            engine=engine,
            say=said.append,
        )
        opened.append(pipeline)
        return pipeline, said

    yield open_it
    for pipeline in opened:
        pipeline.close()
