"""What engines and ONNX models are made of: literal words of TensorRT's engine inspector, and real models."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from isaac_infer.core.errors import ModelError
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.engine import layers as module
from isaac_infer.engine.layers import (
    Layer,
    count_kinds,
    count_precisions,
    engine_facts,
    onnx_facts,
    read_layers,
    type_in,
)
from models import save_model

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'


def tensor(kind: str) -> dict[str, Any]:
    return {'Name': 't', 'Location': 'Device', 'Dimensions': [1, 8], 'Format/Datatype': kind}


def layer(kind: str, takes: str, gives: str, **more: object) -> dict[str, Any]:
    return {'Name': 'x', 'LayerType': kind, 'Inputs': [tensor(takes)], 'Outputs': [tensor(gives)], **more}


def read_one(entry: object) -> Layer:
    (one,) = read_layers(json.dumps({'Layers': [entry]}))
    return one


def test_an_engine_built_for_names_tells_names() -> None:
    text = '{"Layers": ["Conv_0 + Relu_1", "MaxPool_2"\n],\n"Bindings": ["images"\n,"output0"\n]}'
    assert read_layers(text) == (Layer('Conv_0 + Relu_1'), Layer('MaxPool_2'))


@pytest.mark.parametrize('text', ['', '\n', '{"Layers": []}', '{"Layers": [], "Bindings": ["images"]}'])
def test_an_engine_that_tells_nothing_has_no_layers(text: str) -> None:
    assert read_layers(text) == ()


def test_a_detailed_layer_tells_what_it_takes_and_gives() -> None:
    half = 'Channel major FP16 format where channel % 8 == 0'
    one = read_one(layer('CaskConvolution', half, half, Weights={'Type': 'Half', 'Count': 9}, TacticName='k'))
    assert one == Layer('x', 'CaskConvolution', 'fp16', (half,), (half,), 'k')


@pytest.mark.parametrize(
    ('entry', 'precision'),
    [
        ({}, ''),
        (layer('CaskConvolution', 'Row major linear FP32', 'Row major linear FP32'), 'fp32'),
        (
            # What is written as fp32 but multiplied in TF32.
            layer(
                'CaskConvolution',
                'Channel major FP32 format',
                'Channel major FP32 format',
                Weights={'Type': 'Float', 'Count': 36864},
                TacticName='sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128x32',
            ),
            'tf32',
        ),
        (
            # From and to half precision, but INT8 inside.
            layer('CaskConvolution', 'Int8', 'Half', Weights={'Type': 'Int8', 'Count': 4}),
            'int8',
        ),
        (layer('gemm', 'Half', 'Float', TacticName='sm80_xmma_gemm_f16f16_f16f32_f32_tn'), 'fp16'),
        (layer('kgen', 'BFloat16', 'BFloat16'), 'bf16'),
        (layer('kgen', 'FP8', 'Half'), 'fp8'),
        (layer('Gather', 'Row major linear Int32', 'Row major linear FP16 format'), 'fp16'),
        (layer('PointWiseV2', 'Row major linear Int64 format', 'Row major linear BOOL'), 'int64'),
        (layer('NoOp', 'N/A due to dynamic shapes', 'N/A due to dynamic shapes'), ''),
        ({'Name': 'x', 'LayerType': 'kgen', 'Inputs': [{'Name': 'a', 'Datatype': 'Half'}]}, 'fp16'),
        ({'Name': 'x', 'Inputs': None, 'Outputs': 'y', 'Weights': 3, 'TacticName': None}, ''),
        ({'Name': 'x', 'Inputs': [1, {}, {'Format/Datatype': 7}]}, ''),
    ],
)
def test_the_precision_is_that_of_the_numbers_that_are_multiplied(
    entry: dict[str, Any], precision: str
) -> None:
    assert read_one(entry).precision == precision


@pytest.mark.parametrize(
    ('words', 'found'),
    [
        ('', ''),
        ('Unknown format', ''),
        ('Thirty-two wide channel vectorized row major Int8 format.', 'int8'),
        ('Row major INT8 format where column stride % 64 == 0', 'int8'),
        ('Channel major FP16 format where channel == 4 and column stride % 32 == 0', 'fp16'),
        ('Row major linear BFloat16 format', 'bf16'),
        ('Row major linear UInt8 format', 'uint8'),
        ('Float', 'fp32'),
        ('FLOAT16', 'fp16'),
    ],
)
def test_a_type_is_found_in_words_of_all_versions(words: str, found: str) -> None:
    assert type_in(words) == found


def test_what_only_moves_numbers_does_not_count_as_computing() -> None:
    half, single = 'Row major linear FP16 format', 'Row major linear FP32'
    entries = [
        layer('Reformat', single, half),
        layer('CaskConvolution', half, half),
        layer('CaskConvolution', half, half),
        layer('CaskSoftMaxV2', single, single),
        layer('Constant', half, half),
        layer('Gather', 'Int64', 'Int64'),
    ]
    layers = read_layers(json.dumps({'Layers': entries}))
    assert count_precisions(layers) == {'fp16': 2, 'fp32': 1}
    kinds = count_kinds(layers)
    assert next(iter(kinds)) == 'CaskConvolution'
    assert kinds['CaskConvolution'] == {'fp16': 2} and kinds['Reformat'] == {'fp32': 1}


def test_control_characters_in_names_do_no_harm() -> None:
    (one,) = read_layers('{"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: a]\x1f[ONNX Layer: b]"}]}')
    assert one.name == 'a'


@pytest.mark.parametrize('text', ['nothing', '[]', '{}', '{"Layers": 3}', '{"Layers": ['])
def test_what_is_no_list_of_layers_is_an_error(text: str) -> None:
    with pytest.raises(ModelError, match='engine inspector: expected'):
        read_layers(text)


class FakeEngine:
    """An engine of one dynamic input and two profiles, as TensorRT's Python module shows it."""

    num_layers, num_optimization_profiles, device_memory_size = 2, 2, 4096
    asked: SimpleNamespace

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return [[1, 3], [profile + 2, 3], [8, 3]]

    def create_engine_inspector(self) -> SimpleNamespace:
        self.asked = SimpleNamespace(
            execution_context=None,
            get_engine_information=lambda form: json.dumps({'Layers': [f'{form} a', 'b']}),
        )
        return self.asked


def session_of(engine: object) -> Any:
    return SimpleNamespace(
        cuda_engine=engine,
        execution_context='its context',
        gpu=SimpleNamespace(current=nullcontext),
        inputs=(TensorSpec('images', (-1, 3), np.dtype(np.float32)),),
    )


def test_an_engine_is_asked_with_a_context_whose_inputs_have_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON='json'))
    monkeypatch.setattr(module, 'find_tensorrt', lambda: tensorrt)
    engine = FakeEngine()
    facts = engine_facts(session_of(engine))
    assert engine.asked.execution_context == 'its context'
    assert [each.name for each in facts.layers] == ['json a', 'b']
    assert (facts.num_layers, facts.device_bytes) == (2, 4096)
    assert [each['images'][1] for each in facts.profiles] == [(2, 3), (3, 3)]


def test_a_runtime_without_an_inspector_tells_the_rest() -> None:
    engine = SimpleNamespace(
        num_layers=7, num_optimization_profiles=0, device_memory_size_v2=5, device_memory_size=4
    )
    facts = engine_facts(session_of(engine))
    assert (facts.layers, facts.num_layers, facts.device_bytes, facts.profiles) == ((), 7, 5, ())


def test_a_real_model_is_counted() -> None:
    facts = onnx_facts(MODEL)
    nodes = onnx.load(MODEL).graph.node
    kinds = count_kinds(facts.layers)
    assert len(facts.layers) == sum(node.op_type != 'Constant' for node in nodes)
    assert kinds['Conv'] == {'fp32': sum(node.op_type == 'Conv' for node in nodes)}
    assert next(iter(facts.weights)) == 'fp32'


def test_weights_and_nodes_of_subgraphs_and_constants_count(tmp_path: Path) -> None:
    def branch(name: str, value: float) -> onnx.GraphProto:
        constant = helper.make_tensor(f'{name}_value', TensorProto.FLOAT16, [2], [value, value])
        node = helper.make_node('Constant', [], [f'{name}_out'], value=constant)
        out = helper.make_tensor_value_info(f'{name}_out', TensorProto.FLOAT16, [2])
        twice = helper.make_node('Identity', [f'{name}_out'], [f'{name}_same'])
        return helper.make_graph([node, twice], name, [], [out])

    path = save_model(
        tmp_path / 'if.onnx',
        [helper.make_node('If', ['which'], ['y'], then_branch=branch('a', 1), else_branch=branch('b', 2))],
        {'which': (TensorProto.BOOL, ())},
        {'y': (TensorProto.FLOAT16, (2,))},
        constants={'unused': np.zeros((3, 5), np.int8)},
    )
    facts = onnx_facts(path)
    assert facts.weights == {'int8': 15, 'fp16': 4}
    assert [each.kind for each in facts.layers] == ['If', 'Identity', 'Identity']


def test_a_model_whose_external_weights_are_not_there_is_counted(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / 'external.onnx',
        [helper.make_node('Add', ['a', 'w'], ['b'])],
        {'a': (TensorProto.FLOAT, (1, 4096))},
        {'b': (TensorProto.FLOAT, (1, 4096))},
        constants={'w': np.ones((1, 4096), np.float32)},
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location='weights.data', size_threshold=0)
    (tmp_path / 'weights.data').unlink()
    assert onnx_facts(path).weights == {'fp32': 4096}


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / 'no.onnx'
    path.write_bytes(b'\xff no model')
    with pytest.raises(ModelError, match='cannot be read as ONNX'):
        onnx_facts(path)


def test_absurd_sizes_and_depths_are_refused(tmp_path: Path) -> None:
    weight = onnx.TensorProto(name='w', data_type=onnx.TensorProto.FLOAT, dims=[1 << 62] * 400)
    graph = onnx.helper.make_graph([], 'g', [], [], [weight])
    (tmp_path / 'm.onnx').write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match="'w': expected weights of a type and size"):
        onnx_facts(tmp_path / 'm.onnx')
    with pytest.raises(ModelError, match='expected JSON'):
        read_layers('[' * 100_000)
