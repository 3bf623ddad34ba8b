"""Policies: control models that follow the command, and hang or answer with NaN where it tells them to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from models import save_model, ultralytics_metadata, ultralytics_output

SIDE = 128  # of the matrices that keep a model busy
FOR_EVER = 10**9  # of their products
HANGS_ABOVE = 0.4  # m/s that are commanded: from there on the policy does not answer
BINDINGS = """
inputs:
  wish: {command: {fields: [linear.x, angular.z]}}
outputs:
  linear.x: {index: 0}
  angular.z: {index: 1}
"""


def save_policy(folder: Path, *, products: int = 0) -> tuple[Path, Path]:
    """Write a policy that does what is commanded, and its bindings.

    Args:
        folder: for the files.
        products: of two matrices, which it needs for every answer.
    """
    bindings = folder / 'policy.yaml'
    bindings.write_text(BINDINGS)
    nodes = [
        helper.make_node('Slice', ['wish', 'first', 'second', 'axis'], ['speed']),
        helper.make_node('Sub', ['speed', 'limit'], ['beyond']),
        helper.make_node('Greater', ['beyond', 'zero'], ['hangs']),
        helper.make_node('Cast', ['hangs'], ['hangs_number'], to=TensorProto.INT64),
        helper.make_node('Mul', ['hangs_number', 'for_ever'], ['more']),
        helper.make_node('Add', ['more', 'products'], ['trips_row']),
        helper.make_node('Reshape', ['trips_row', 'scalar'], ['trips']),
        *busy_nodes('trips'),
        helper.make_node('Sqrt', ['speed'], ['root']),  # NaN where it drives backwards
        helper.make_node('Mul', ['root', 'zero'], ['nothing']),
        helper.make_node('Mul', ['work_sum', 'zero'], ['nothing_of_work']),
        helper.make_node('Add', ['wish', 'nothing'], ['sum']),
        helper.make_node('Add', ['sum', 'nothing_of_work'], ['action']),
    ]
    constants = {
        'first': np.array([0]),
        'second': np.array([1]),
        'axis': np.array([1]),
        'limit': np.float32(HANGS_ABOVE),
        'zero': np.float32(0),
        'for_ever': np.int64(FOR_EVER),
        'products': np.int64(products),
        'scalar': np.array([], np.int64),
        **BUSY_CONSTANTS,
    }
    path = save_model(
        folder / 'policy.onnx',
        nodes,
        {'wish': (TensorProto.FLOAT, (1, 2))},
        {'action': (TensorProto.FLOAT, (1, 2))},
        constants=constants,
    )
    return path, bindings


BUSY_CONSTANTS = {
    'go': np.bool_(True),
    'matrix': np.full((SIDE, SIDE), 1 / SIDE, np.float32),
    'all_axes': np.array([0, 1]),
}


def busy_nodes(trips: str) -> list:
    """Give nodes that multiply matrices as often as a scalar int64 says; `work_sum` is their sum."""
    body = helper.make_graph(
        [
            helper.make_node('MatMul', ['state', 'matrix'], ['next_state']),
            helper.make_node('Identity', ['again'], ['again_out']),
        ],
        'body',
        [
            helper.make_tensor_value_info('trip', TensorProto.INT64, ()),
            helper.make_tensor_value_info('again', TensorProto.BOOL, ()),
            helper.make_tensor_value_info('state', TensorProto.FLOAT, (SIDE, SIDE)),
        ],
        [
            helper.make_tensor_value_info('again_out', TensorProto.BOOL, ()),
            helper.make_tensor_value_info('next_state', TensorProto.FLOAT, (SIDE, SIDE)),
        ],
    )
    return [
        helper.make_node('Loop', [trips, 'go', 'matrix'], ['work'], body=body),
        helper.make_node('ReduceSum', ['work', 'all_axes'], ['work_sum'], keepdims=0),
    ]


def save_moody_detector(path: Path, name: str, *, products: int = 0, size: int = 64) -> Path:
    """Write a detector that finds one object of a class of this name in the middle of every picture.

    With bright pictures it does not come back, with dark ones (not black) it fails.

    Args:
        path: the file.
        name: of the class.
        products: of two matrices, which it needs for every picture.
        size: of its input.
    """
    output = ultralytics_output([(size / 2, size / 2, 16, 8, 0, 0.9)], classes=1, size=size)
    nodes = [
        helper.make_node('Slice', ['images', 'first', 'second'], ['pixel']),
        helper.make_node('Reshape', ['pixel', 'scalar'], ['mood']),
        helper.make_node('Greater', ['mood', 'bright'], ['hangs']),
        helper.make_node('Cast', ['hangs'], ['hangs_number'], to=TensorProto.INT64),
        helper.make_node('Mul', ['hangs_number', 'for_ever'], ['more']),
        helper.make_node('Add', ['more', 'products'], ['trips']),
        *busy_nodes('trips'),
        helper.make_node('Sub', ['mood', 'dark'], ['from_dark']),
        helper.make_node('Abs', ['from_dark'], ['distance']),
        helper.make_node('Less', ['distance', 'near'], ['fails']),
        helper.make_node('Cast', ['fails'], ['index'], to=TensorProto.INT64),
        helper.make_node('Gather', ['zeros', 'index'], ['zero'], axis=0),  # there is one, number 0
        helper.make_node('Mul', ['work_sum', 'zero'], ['nothing']),
        helper.make_node('Add', ['answer', 'nothing'], ['output0']),
    ]
    return save_model(
        path,
        nodes,
        {'images': (TensorProto.FLOAT, (1, 3, size, size))},
        {'output0': (TensorProto.FLOAT, output.shape)},
        constants={
            'first': np.array([0, 0, size // 2, size // 2]),
            'second': np.array([1, 1, size // 2 + 1, size // 2 + 1]),
            'scalar': np.array([], np.int64),
            'bright': np.float32(0.8),
            'dark': np.float32(0.25),
            'near': np.float32(0.03),
            'zeros': np.zeros(1, np.float32),
            'for_ever': np.int64(FOR_EVER),
            'products': np.int64(products),
            'answer': output,
            **BUSY_CONSTANTS,
        },
        metadata=ultralytics_metadata([name], size),
    )
