"""Quantise: INT8 by explicit Q/DQ, calibrated on pictures through the package's own prepare step."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.core.errors import IsaacInferError, ModelError
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.spec import ModelSpec
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.engine.files import working_folder
from isaac_infer.engine.surgery import load_model, note_surgery, save_model

QUANTISED = ('Conv', 'Gemm', 'MatMul')  # the operators that TensorRT runs in INT8 with a gain
# How far the values of a tensor reach: on the average picture, or on any; ours -> ONNX Runtime's.
# Its histograms (entropy, percentile) would hold all tensors of all pictures in memory.
METHODS: dict[str, dict[str, Any]] = {'average': {'CalibMovingAverage': True}, 'minmax': {}}
PER_CHANNEL_OPSET = 13  # the first whose DequantizeLinear has an axis
LARGEST_EXPECTATION = 64  # weights of a convolution that only takes the mean of a distribution (DFL has 16)
_PREPROCESSED_KEY = 'onnx.quant.pre_process'
# What passes a distribution on as it is, from its softmax to its mean.
_SHAPERS = ('Transpose', 'Reshape', 'Squeeze', 'Unsqueeze', 'Flatten', 'Split', 'Slice', 'Identity', 'Cast')


def calibration_batches(frames: Iterable[Frame], spec: ModelSpec) -> Iterator[dict[str, np.ndarray]]:
    """Prepare pictures as the pipeline does: what `quantise` feeds the network, by input name."""
    prepare = Preparer(spec.image)
    for frame in frames:
        array = np.zeros(spec.image.shape, spec.image.dtype)
        prepare(frame, into=array)
        yield {spec.image.name: array, **spec.sizes()}


def quantise(
    model_path: Path,
    out: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    exclude: Sequence[str] | None = None,
    method: str = 'average',
) -> None:
    """Write a copy of a model that computes in INT8 where TensorRT gains by it; takes a minute.

    Args:
        model_path: the model in float32.
        out: where the copy goes; replaced in one step.
        batches: what to calibrate on, see `calibration_batches`; hundreds of pictures as the robot sees them.
        exclude: names of nodes that stay as they are; None: `sensitive_nodes`.
        method: one of METHODS. `minmax` covers all values that were seen, `average` leaves out rare ones.

    Small networks may lose everything by it, and the differences of their outputs do not tell: compare what
    both models find on pictures before the copy is used.

    Raises:
        ModelError: there are no batches, they have other inputs than the model, or it cannot be quantised.
        TensorError: a batch has another shape or dtype than the model takes.
    """
    if method not in METHODS:
        raise ModelError(f'calibration: expected one of {", ".join(METHODS)}, got {method!r}')
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ModelError(
            f'{model_path}: INT8 needs pictures to calibrate on, got none; give a folder of some hundred '
            'pictures as the robot sees them'
        )
    model = _prepared(load_model(model_path), model_path)
    names = [node.name for node in model.graph.node]
    unknown = sorted(set(exclude or ()) - set(names))
    if unknown:
        raise ModelError(f'{model_path}: no node named {", ".join(unknown)} to exclude; see sensitive_nodes')
    excluded = list(sensitive_nodes(model) if exclude is None else exclude)
    if not any(node.op_type in QUANTISED and node.name not in excluded for node in model.graph.node):
        raise ModelError(
            f'{model_path}: expected {", ".join(QUANTISED)} nodes to quantise, got none but those that stay '
            'as they are (see sensitive_nodes); build it in fp16'
        )
    feeds = _fitting(chain([first], batches), _inputs(model), model_path)
    with working_folder('quantise') as folder:
        source, target = folder / 'float.onnx', folder / 'int8.onnx'
        save_model(model, source)
        try:
            # It prints on standard output, which may be somebody's JSON.
            with contextlib.redirect_stdout(sys.stderr):
                _quantise_static(source, target, feeds, excluded, METHODS[method])
        except (IsaacInferError, MemoryError):
            raise
        except Exception as error:  # ONNX Runtime's quantiser has no exceptions of its own
            raise ModelError(f'{model_path}: cannot be quantised: {error}') from error
        result = load_model(target)
    _check(result, model_path)
    metadata = {entry.key: entry.value for entry in load_model(model_path).metadata_props}
    helper.set_model_props(result, metadata)
    note_surgery(result, 'int8_qdq')
    save_model(result, out)


def sensitive_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the nodes that stay in floating point: INT8 would cost much accuracy there and save little time.

    These are the first layers and all after the last ones, and depthwise convolutions, whose channels differ
    in range while their time goes into memory: YOLOX-nano finds nothing with these in INT8.
    """
    return tuple(dict.fromkeys((*stem_nodes(model), *depthwise_nodes(model), *head_nodes(model))))


def depthwise_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the convolutions of which each output reads one channel, or a few of many."""
    return tuple(
        name
        for node, name in zip(model.graph.node, _node_names(model))
        if node.op_type == 'Conv' and any(part.name == 'group' and part.i > 1 for part in node.attribute)
    )


def head_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the nodes after the last convolutions: there boxes and scores share tensors, but no scale.

    The mean of a box distribution (DFL) counts as one of them even where it is written as a convolution.
    Nodes without a name go by the one that `quantise` gives them.
    """
    nodes, names = model.graph.node, _node_names(model)
    values = _constants(model)
    producer = {output: node for node in nodes for output in node.output if output}
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for tensor in _reads(node):
            readers.setdefault(tensor, []).append(index)
    # Whether a layer with weights is at a node or after it; a graph lists readers after what they read.
    body = [False] * len(nodes)
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        body[index] = _is_layer(node, values, producer) or any(
            body[reader] for output in node.output for reader in readers.get(output, ())
        )
    return tuple(name for name, is_body in zip(names, body) if not is_body)


def stem_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the first layers, which read the picture.

    TensorRT 8.6 moreover cannot build a scaled picture, as `surgery.take_uint8` makes it, in front of them.
    """
    nodes, names = model.graph.node, _node_names(model)
    values = _constants(model)
    producer = {output: node for node in nodes for output in node.output if output}
    learned: set[str] = set()  # tensors that come out of a layer, or of what follows one
    stem = []
    for node, name in zip(nodes, names):
        is_after = any(tensor in learned for tensor in _reads(node))
        is_layer = _is_layer(node, values, producer)
        if is_layer and not is_after:
            stem.append(name)
        if is_layer or is_after:
            learned.update(node.output)
    return tuple(stem)


def _is_layer(
    node: onnx.NodeProto, values: Mapping[str, int], producer: Mapping[str, onnx.NodeProto]
) -> bool:
    """Tell whether a node applies learned weights, other than to take the mean of a distribution."""
    if node.op_type not in (*QUANTISED, 'ConvTranspose'):
        return False
    sizes = [values[name] for name in node.input if name in values]
    if not sizes:
        return node.op_type != 'MatMul'  # a product of two tensors is no layer; weights may be computed
    if sizes[0] > LARGEST_EXPECTATION:
        return True
    source = next((producer.get(name) for name in node.input if name not in values), None)
    while source is not None and source.op_type in _SHAPERS:
        source = producer.get(source.input[0])
    return source is None or source.op_type != 'Softmax'


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The constant tensors of a model."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == 'Constant':
            yield from (attribute.t for attribute in node.attribute if attribute.name == 'value')


def _constants(model: onnx.ModelProto) -> dict[str, int]:
    """How many numbers each constant tensor holds."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == 'Constant':
            sizes.update(
                (node.output[0], int(np.prod(attribute.t.dims)))
                for attribute in node.attribute
                if attribute.name == 'value'
            )
        elif node.op_type == 'Identity' and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    return sizes


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, through the graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for part in inner.node:
                yield from _reads(part)


def _node_names(model: onnx.ModelProto) -> list[str]:
    """A name for every node that no other has; its own where it can be."""
    own = {node.name for node in model.graph.node}
    taken: set[str] = set()
    names = []
    for index, node in enumerate(model.graph.node):
        name = node.name
        if not name or name in taken:
            name = f'{node.op_type}_{index}'
            while name in taken or name in own:
                name += '_'
        taken.add(name)
        names.append(name)
    return names


def _prepared(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Give every node a name, and the model an opset that has what Q/DQ needs."""
    if any(node.op_type in ('QuantizeLinear', 'DequantizeLinear') for node in model.graph.node):
        raise ModelError(f'{path}: it is quantised already; give the model in float32')
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in _tensors(model)):
        raise ModelError(f'{path}: it is in half precision; give the model in float32')
    version = next((opset.version for opset in model.opset_import if opset.domain in ('', 'ai.onnx')), 0)
    names = _node_names(model)
    for node, name in zip(model.graph.node, names):
        node.name = name
    if version < PER_CHANNEL_OPSET:
        from onnx import version_converter

        try:
            model = version_converter.convert_version(model, PER_CHANNEL_OPSET)
        except Exception as error:  # the converter's exceptions have no common base
            raise ModelError(
                f'{path}: is of opset {version}; export it with {PER_CHANNEL_OPSET} or newer: {error}'
            ) from error
        for node, name in zip(model.graph.node, _node_names(model)):
            node.name = name
    # Else its quantiser says on the root logger, which is the user's, that it would like to do more.
    model.metadata_props.add(key=_PREPROCESSED_KEY, value='onnxruntime.quant')
    return model


def _inputs(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    constants = {tensor.name for tensor in model.graph.initializer}
    specs = {}
    for info in model.graph.input:
        if info.name not in constants:
            tensor = info.type.tensor_type
            shape = tuple(dim.dim_value or -1 for dim in tensor.shape.dim)
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            specs[info.name] = TensorSpec(info.name, shape, dtype)
    return specs


def _fitting(
    batches: Iterable[Mapping[str, np.ndarray]], inputs: Mapping[str, TensorSpec], path: Path
) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        if batch.keys() != inputs.keys():
            raise ModelError(
                f'{path}: calibration: expected {", ".join(inputs)} in every batch, got {", ".join(batch)}'
            )
        yield {name: inputs[name].check(array) for name, array in batch.items()}


def _quantise_static(
    source: Path,
    target: Path,
    feeds: Iterator[dict[str, np.ndarray]],
    exclude: Sequence[str],
    extra: Mapping[str, Any],
) -> None:
    # Imported here: it takes long.
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    # What TensorRT's parser takes: symmetric, weights as Q/DQ pairs per channel, biases left in float32.
    quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(QUANTISED),
        nodes_to_exclude=list(exclude),
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            'ActivationSymmetric': True,
            'WeightSymmetric': True,
            'QuantizeBias': False,
            'AddQDQPairToWeight': True,
            'DedicatedQDQPair': True,
            **extra,
        },
    )


def _check(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what TensorRT's parser would: INT32 DequantizeLinear, and zero points that are not 0."""
    constants: dict[str, Any] = {tensor.name: tensor for tensor in model.graph.initializer}
    quantised = 0
    for node in model.graph.node:
        if node.op_type not in ('QuantizeLinear', 'DequantizeLinear'):
            continue
        quantised += 1
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        source = constants.get(node.input[0])
        if source is not None and source.data_type == TensorProto.INT32:
            raise ModelError(
                f'{path}: {node.name} dequantises INT32, which TensorRT refuses; update onnxruntime'
            )
        if zero_point is None or numpy_helper.to_array(zero_point).any():
            raise ModelError(f'{path}: {node.name} has a zero point other than 0; update onnxruntime')
    if not quantised:
        raise ModelError(f'{path}: nothing was quantised; see sensitive_nodes for what was left out')
