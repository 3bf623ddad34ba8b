"""Perceiving: how the executor opens models of any task, with what the perception nodes publish of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from isaac_infer.core.errors import ModelError
from isaac_infer.core.spec import Overrides
from isaac_infer.engine.load import find_model, runs_on_tensorrt
from isaac_infer.engine.task import task_of_file
from isaac_infer.nodes._reserve import reserved
from isaac_infer.nodes.detector_node import DETECTOR
from isaac_infer.nodes.pose_node import POSE
from isaac_infer.nodes.segmentation_node import SEGMENTER
from isaac_infer.params import ExecutorParams
from isaac_infer.ros.perceiver import Opened

PERCEPTIONS = {'detection': DETECTOR, 'segmentation': SEGMENTER, 'pose': POSE}


def locate(path: str, folder: str) -> Path:
    """Find a model: in the model directory, where there is one, then as everywhere.

    Raises:
        ModelError: it is nowhere.
    """
    if not folder:
        return find_model(path)
    place = Path(os.path.expanduser(folder), os.path.expanduser(path))
    if os.path.isfile(place):
        return place
    try:
        return find_model(path)
    except ModelError as error:
        raise ModelError(f'{error}; and model_directory {folder} has none') from error


def memory_of(path: Path, params: ExecutorParams) -> dict[str, int]:
    """How much memory has to stay free besides a model, as `reserved` takes it."""
    is_on_gpu = runs_on_tensorrt(path, params.backend, ())
    return {
        'memory_mb': params.memory_reservation_mb,
        'gpu_memory_mb': params.gpu_memory_reservation_mb if is_on_gpu else 0,
    }


def open_perception(
    name: str, params: ExecutorParams, say: Callable[[str], None], is_cancelled: Callable[[], bool]
) -> Opened:
    """Open a perception model; slow.

    Raises:
        IsaacInferError: it is not there, cannot be opened, or too little memory would be left.
    """
    path = locate(name, params.model_directory)
    task = params.perception_task or task_of_file(path, Overrides())[0]
    perception = PERCEPTIONS[task]
    model_params = perception.params(
        model_file_path=str(path),
        backend=params.backend,
        precision=params.precision,
        num_threads=params.num_threads,
        confidence_threshold=params.confidence_threshold,
        class_ids=params.class_ids,
    )
    loaded = None
    try:
        with reserved(path, **memory_of(path, params)):
            loaded = perception.load(model_params, say, is_cancelled)
    except BaseException:
        if loaded is not None:
            loaded.pipeline.close()
        raise
    return Opened(perception, model_params, loaded)
