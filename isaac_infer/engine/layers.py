"""Layers: what a model computes, layer by layer: an engine as its inspector tells, an ONNX model as it is."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isaac_infer.core.errors import ModelError
from isaac_infer.engine.trt import TrtSession, find_tensorrt, working_bytes

if TYPE_CHECKING:
    import onnx

# The words for types in formats such as `Channel major FP16 format where channel % 8 == 0` -> ours.
_TYPES = {
    'fp32': 'fp32',
    'float': 'fp32',
    'float32': 'fp32',
    'fp16': 'fp16',
    'half': 'fp16',
    'float16': 'fp16',
    'bf16': 'bf16',
    'bfloat16': 'bf16',
    'fp8': 'fp8',
    'float8': 'fp8',
    'fp4': 'fp4',
    'float4': 'fp4',
    'double': 'fp64',
    'float64': 'fp64',
    **{name: name for name in ('int4', 'int8', 'uint8', 'int16', 'int32', 'int64', 'uint16', 'bool')},
}
COMPUTED_IN = ('fp64', 'fp32', 'tf32', 'bf16', 'fp16', 'fp8', 'int8', 'fp4', 'int4')  # the others count
# Kinds of layers, in lower case, that only bring numbers into place.
_MOVING = {
    *('constant', 'identity', 'move', 'noop', 'reformat', 'shapehosttodevice', 'shapedevicetohost'),
    *('shuffle', 'signal', 'slice', 'wait'),
    # and those of ONNX
    *('cast', 'concat', 'dequantizelinear', 'expand', 'flatten', 'gather', 'quantizelinear', 'reshape'),
    *('shape', 'split', 'squeeze', 'transpose', 'unsqueeze'),
}
_TF32 = 'tf32'  # in the name of a kernel: it rounds fp32 to ten bits


@dataclass(frozen=True)
class Layer:
    """One layer; what is not told is empty."""

    name: str
    kind: str = ''  # what it does, in the words of TensorRT or ONNX
    precision: str = ''  # what it computes in: one of COMPUTED_IN, or of the types that only count
    inputs: tuple[str, ...] = ()  # types, as TensorRT says them
    outputs: tuple[str, ...] = ()
    kernel: str = ''

    @property
    def is_computing(self) -> bool:
        """Whether it computes in a precision, and does not only move numbers, count or convert."""
        return self.precision in COMPUTED_IN and self.kind.lower() not in _MOVING


@dataclass(frozen=True)
class EngineFacts:
    """What only a loaded engine tells."""

    layers: tuple[Layer, ...]
    num_layers: int  # as the engine counts them; the list may be shorter, where it was built so
    device_bytes: int  # of temporary memory per execution context
    profiles: tuple[Mapping[str, tuple[tuple[int, ...], ...]], ...]  # min, opt, max by input


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX model is made of."""

    layers: tuple[Layer, ...]  # its nodes, those of subgraphs too
    weights: Mapping[str, int]  # how many numbers, by type


def count_kinds(layers: Sequence[Layer]) -> dict[str, dict[str, int]]:
    """Count layers by kind and precision, the most frequent kind first."""
    kinds: dict[str, Counter[str]] = {}
    for layer in layers:
        kinds.setdefault(layer.kind, Counter())[layer.precision] += 1
    ordered = sorted(kinds.items(), key=lambda item: -sum(item[1].values()))
    return {kind: dict(counts.most_common()) for kind, counts in ordered}


def count_precisions(layers: Sequence[Layer]) -> dict[str, int]:
    """Count the layers that compute by their precision, the most frequent first."""
    return dict(Counter(layer.precision for layer in layers if layer.is_computing).most_common())


# ---- engines ---------------------------------------------------------------------------------------


def engine_facts(session: TrtSession) -> EngineFacts:
    """Ask an engine what it is made of; its layers in detail only where it was built to tell them."""
    engine = session.cuda_engine
    with session.gpu.current():
        profiles = tuple(
            {
                spec.name: tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(spec.name, index))
                for spec in session.inputs
            }
            for index in range(engine.num_optimization_profiles)
        )
        text = _inspector_text(session)
        return EngineFacts(read_layers(text), int(engine.num_layers), working_bytes(engine), profiles)


def _inspector_text(session: TrtSession) -> str:
    """What the engine's inspector says as JSON; empty of a runtime that has none."""
    if not hasattr(session.cuda_engine, 'create_engine_inspector'):
        return ''
    inspector = session.cuda_engine.create_engine_inspector()
    # Types of dynamic shapes are told only with a context, whose inputs have a size.
    if hasattr(inspector, 'execution_context'):
        inspector.execution_context = session.execution_context
    return str(inspector.get_engine_information(find_tensorrt().LayerInformationFormat.JSON))


def read_layers(text: str) -> tuple[Layer, ...]:
    """Read what an engine inspector says as JSON: all about each layer, or its name; nothing of no text.

    Raises:
        ModelError: it is no JSON, or has no list of layers.
    """
    if not text.strip():
        return ()
    try:
        content = json.loads(text, strict=False)  # names of fused layers hold control characters
    except (ValueError, RecursionError) as error:
        raise ModelError(f'engine inspector: expected JSON, got {text[:60]!r}: {error}') from error
    layers = content.get('Layers') if isinstance(content, dict) else None
    if not isinstance(layers, list):
        raise ModelError(f'engine inspector: expected a list of Layers, got {text[:60]!r}')
    return tuple(_layer(entry) for entry in layers)


def _layer(entry: object) -> Layer:
    if not isinstance(entry, dict):
        return Layer(str(entry))
    inputs, outputs = (_formats(entry.get(key)) for key in ('Inputs', 'Outputs'))
    kernel = str(entry.get('TacticName', ''))
    return Layer(
        name=str(entry.get('Name', '')),
        kind=str(entry.get('LayerType', '')),
        precision=_precision(entry.get('Weights'), inputs, outputs, kernel),
        inputs=inputs,
        outputs=outputs,
        kernel=kernel,
    )


def _formats(tensors: object) -> tuple[str, ...]:
    if not isinstance(tensors, list):
        return ()
    return tuple(
        str(tensor.get('Format/Datatype', tensor.get('Datatype', ''))) if isinstance(tensor, dict) else ''
        for tensor in tensors
    )


def _precision(weights: object, inputs: Sequence[str], outputs: Sequence[str], kernel: str) -> str:
    """What a layer computes in: the type of its weights; else of its inputs, of its outputs."""
    own = [str(weights.get('Type', ''))] if isinstance(weights, dict) else []
    types = [found for text in (*own, *inputs, *outputs) if (found := type_in(text))]
    # A layer may also take indices and masks, which come first in some.
    told = next((found for found in types if found in COMPUTED_IN), types[0] if types else '')
    return _TF32 if told == 'fp32' and _TF32 in kernel.lower() else told


def type_in(text: str) -> str:
    """Find the type that TensorRT's words for a format name; empty where they name none."""
    words = re.findall(r'[a-z]+\d*', text.lower())
    return next((_TYPES[word] for word in words if word in _TYPES), '')


# ---- ONNX ------------------------------------------------------------------------------------------


def onnx_facts(path: Path) -> OnnxFacts:
    """Count what an ONNX model is made of, without reading external weights.

    Raises:
        ModelError: the file cannot be read.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's exceptions have no common base
        raise ModelError(f'{path}: cannot be read as ONNX: {error}') from error
    types: dict[str, str] = {}
    weights: Counter[str] = Counter()
    known = onnx.TensorProto.DataType.values()
    for name, tensor in _tensors(graph):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        numbers = math.prod(tensor.dims)
        if not 0 <= numbers < 1 << 63 or tensor.data_type not in known:
            raise ModelError(f'{path}: {name!r}: expected weights of a type and size that ONNX has')
        types[name] = type_in(kind) or kind.lower()
        weights[types[name]] += numbers
    layers = tuple(
        Layer(
            name=node.name or (node.output[0] if node.output else ''),
            kind=node.op_type,
            precision=next((types[name] for name in node.input if types.get(name) in COMPUTED_IN), ''),
        )
        for each in _graphs(graph)
        for node in each.node
        if node.op_type != 'Constant'
    )
    return OnnxFacts(layers, dict(weights.most_common()))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and the ones inside its conditions and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for each in _graphs(graph):
        for tensor in each.initializer:
            yield tensor.name, tensor
        for node in each.node:
            for attribute in node.attribute if node.op_type == 'Constant' else ():
                if attribute.name == 'value':
                    yield node.output[0], attribute.t
