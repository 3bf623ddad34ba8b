"""Small ONNX models built on the spot, for tests that want a real backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 8  # the newest that the oldest supported ONNX Runtime reads is 9


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str]]],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, str] | None = None,
    opsets: Mapping[str, int] | None = None,
    ir_version: int = IR_VERSION,
) -> Path:
    """Write a model; inputs and outputs are element type and shape by name."""
    graph = helper.make_graph(
        list(nodes),
        'test',
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    versions = [helper.make_opsetid(domain, number) for domain, number in (opsets or {'': OPSET}).items()]
    model = helper.make_model(graph, opset_imports=versions, ir_version=ir_version)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def save_constant_detector(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    *,
    image_shape: Sequence[int | str] = (1, 3, 64, 64),
    image_type: int = TensorProto.FLOAT,
    dynamic_outputs: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a model that answers every picture with these arrays."""
    nodes = [helper.make_node('Identity', [f'{name}_value'], [name]) for name in outputs]
    kinds = {
        name: (
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [None] * value.ndim if dynamic_outputs else value.shape,
        )
        for name, value in outputs.items()
    }
    return save_model(
        path,
        nodes,
        {'images': (image_type, image_shape)},
        kinds,
        constants={f'{name}_value': value for name, value in outputs.items()},
        metadata=metadata,
    )


def save_colour_detector(path: Path, *, size: int = 64, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a model that answers one box in the middle, with mean red, green and blue as class scores."""
    boxes = ultralytics_output([], classes=3, size=size)[:, :4]
    return save_model(
        path,
        [
            helper.make_node('ReduceMean', ['images'], ['mean'], axes=[2, 3], keepdims=0),
            helper.make_node('Unsqueeze', ['mean', 'last'], ['column']),
            helper.make_node('Expand', ['column', 'scores_shape'], ['scores']),
            helper.make_node('Concat', ['boxes', 'scores'], ['output0'], axis=1),
        ],
        {'images': (TensorProto.FLOAT, (1, 3, size, size))},
        {'output0': (TensorProto.FLOAT, (1, 7, boxes.shape[2]))},
        constants={
            'boxes': boxes,
            'last': np.array([2]),
            'scores_shape': np.array([1, 3, boxes.shape[2]]),
        },
        metadata=ultralytics_metadata(['red', 'green', 'blue'], size) if metadata is None else metadata,
    )


def ultralytics_metadata(names: Sequence[str], size: int = 64) -> dict[str, str]:
    """Metadata as Ultralytics writes it."""
    return {
        'task': 'detect',
        'head': 'Detect',
        'version': '8.4.0',
        'stride': '32',
        'batch': '1',
        'imgsz': f'[{size}, {size}]',
        'names': str(dict(enumerate(names))),
        'args': "{'nms': False}",
        'end2end': 'False',
    }


def ultralytics_output(
    found: Sequence[tuple[float, float, float, float, int, float]], *, classes: int, size: int = 64
) -> np.ndarray:
    """[1, 4 + classes, boxes] for a square input: centre x, y, width, height, class, score of each object."""
    boxes = sum((size // stride) ** 2 for stride in (8, 16, 32))
    output = np.zeros((1, 4 + classes, boxes), np.float32)
    output[0, :4] = np.array([[size / 2], [size / 2], [8], [8]])
    for row, (x, y, width, height, class_id, score) in enumerate(found):
        output[0, :4, row] = x, y, width, height
        output[0, 4 + class_id, row] = score
    return output


def exported_metadata(task: str, names: int = 80, **more: str) -> dict[str, str]:
    """What Ultralytics writes into a model that it exports at 640x640."""
    return {
        'task': task,
        'stride': '32',
        'imgsz': '[640, 640]',
        'names': str({i: f'class {i}' for i in range(names)}),
        'args': "{'batch': 1, 'nms': False}",
        'version': '8.4.190',
        **more,
    }
