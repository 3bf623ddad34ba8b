"""Real calibration, and INT8 models run by ONNX Runtime; what TensorRT wants is read off the graph."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.core.boxes import box_iou
from isaac_infer.core.errors import ModelError, TensorError
from isaac_infer.core.frame import Frame
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.engine.load import open_pipeline
from isaac_infer.engine.quantise import calibration_batches, head_nodes, quantise
from isaac_infer.engine.surgery import load_model, surgeries, to_float16
from models import save_model

TABLETOP = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
SPEC = ModelSpec('detection', 'ultralytics', ImageSpec('images', (320, 320)), ('output0',), (), 9)
SMALL = ModelSpec('detection', 'ultralytics', ImageSpec('images', (16, 16)), ('y',), (), 4)
DATA = os.environ.get('ISAAC_INFER_TEST_DATA', '')


def scenes(count: int, *, first: int = 0) -> list[Frame]:
    return [Frame(draw_scene(first + seed).image) for seed in range(count)]


@pytest.fixture(scope='module')
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('int8') / 'int8.onnx'
    quantise(TABLETOP, out, calibration_batches(scenes(8), SPEC))
    return out


def small_detector(path: Path, *, opset: int = 13, named: bool = True) -> Path:
    """A stem, two last convolutions, and a head: mean of a distribution (DFL), scores, concatenation."""
    rng = np.random.default_rng(0)

    def node(kind: str, reads: list[str], writes: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(kind, reads, [writes], name=writes if named else '', **attributes)

    nodes = [
        node('Conv', ['images', 'w1'], 'stem', pads=[1, 1, 1, 1]),
        node('Relu', ['stem'], 'relu'),
        node('Conv', ['relu', 'w2', 'b2'], 'boxes'),
        node('Conv', ['relu', 'w3'], 'classes'),
        node('Softmax', ['boxes'], 'softmax', axis=1),
        node('Transpose', ['softmax'], 'turned', perm=[0, 1, 3, 2]),
        node('Conv', ['turned', 'dfl'], 'mean'),
        node('Sigmoid', ['classes'], 'scores'),
        node('Concat', ['mean', 'scores'], 'y', axis=1),
    ]
    return save_model(
        path,
        nodes,
        {'images': (TensorProto.FLOAT, [1, 3, 16, 16])},
        {'y': (TensorProto.FLOAT, [1, 5, 16, 16])},
        constants={
            'w1': rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
            'w2': rng.normal(size=(16, 8, 1, 1)).astype(np.float32),
            'b2': rng.normal(size=16).astype(np.float32),
            'w3': rng.normal(size=(4, 8, 1, 1)).astype(np.float32),
            'dfl': np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1),
        },
        metadata={'author': 'somebody'},
        opsets={'': opset},
    )


def small_batches(count: int = 2) -> list[dict[str, np.ndarray]]:
    return list(calibration_batches(scenes(count), SMALL))


def values_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


# ---- what TensorRT's parser wants ----------------------------------------------------------------


def check_rules(model: onnx.ModelProto) -> None:
    values = values_of(model)
    pairs = [node for node in model.graph.node if node.op_type in ('QuantizeLinear', 'DequantizeLinear')]
    assert pairs
    for node in pairs:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert (values[node.input[1]] > 0).all()
        source = values.get(node.input[0])
        assert source is None or source.dtype == np.float32 and node.op_type == 'QuantizeLinear'


def test_all_zero_points_are_0_and_biases_stay_in_float32(quantised: Path) -> None:
    check_rules(load_model(quantised))


def test_weights_are_quantised_per_channel(quantised: Path) -> None:
    model = load_model(quantised)
    values = values_of(model)
    scales = [
        (values[node.input[0]].shape[0], values[node.input[1]].size)
        for node in model.graph.node
        if node.op_type == 'QuantizeLinear' and node.input[0] in values
    ]
    assert scales and all(channels == count for channels, count in scales)


def test_only_layers_with_weights_read_quantised_tensors(tmp_path: Path) -> None:
    quantise(small_detector(tmp_path / 'm.onnx'), tmp_path / 'q.onnx', small_batches())
    model = load_model(tmp_path / 'q.onnx')
    check_rules(model)
    written = {node.output[0]: node for node in model.graph.node}
    reads_int8 = {
        node.name: [written[name].op_type == 'DequantizeLinear' for name in node.input[:2] if name in written]
        for node in model.graph.node
        if node.op_type == 'Conv'
    }
    assert all(reads_int8['stem']) and all(reads_int8['boxes']) and all(reads_int8['classes'])
    assert not any(reads_int8['mean'])


def test_nothing_in_the_head_of_a_real_detector_is_quantised(quantised: Path) -> None:
    head = set(head_nodes(load_model(TABLETOP)))
    model = load_model(quantised)
    written = {name: node for node in model.graph.node for name in node.output}
    heads = [node for node in model.graph.node if node.name in head and node.op_type in ('Concat', 'Mul')]
    assert heads
    layers = ('Conv', 'Gemm', 'MatMul')
    for node in model.graph.node:
        if node.op_type == 'QuantizeLinear':
            source = written.get(node.input[0])
            assert source is None or source.name not in head
    assert not [node for node in model.graph.node if node.name in head and node.op_type in layers]


def test_metadata_stay_and_say_what_was_done(quantised: Path) -> None:
    before, after = (
        {entry.key: entry.value for entry in load_model(path).metadata_props}
        for path in (TABLETOP, quantised)
    )
    assert after == {**before, 'isaac_infer_surgery': 'int8_qdq'}
    assert surgeries(load_model(quantised)) == ('int8_qdq',)


@pytest.mark.parametrize('opset', [11, 13, 17])
@pytest.mark.parametrize('named', [True, False])
def test_old_models_and_nodes_without_names_are_quantised(tmp_path: Path, opset: int, named: bool) -> None:
    path = small_detector(tmp_path / 'm.onnx', opset=opset, named=named)
    quantise(path, tmp_path / 'q.onnx', small_batches())
    model = load_model(tmp_path / 'q.onnx')
    check_rules(model)
    assert {entry.version for entry in model.opset_import if not entry.domain} == {max(opset, 13)}


# ---- the head ------------------------------------------------------------------------------------


def test_the_head_is_what_follows_the_last_convolutions(tmp_path: Path) -> None:
    head = head_nodes(load_model(small_detector(tmp_path / 'm.onnx')))
    assert head == ('softmax', 'turned', 'mean', 'scores', 'y')


def test_nodes_without_names_are_told_apart(tmp_path: Path) -> None:
    head = head_nodes(load_model(small_detector(tmp_path / 'm.onnx', named=False)))
    assert head == ('Softmax_4', 'Transpose_5', 'Conv_6', 'Sigmoid_7', 'Concat_8')


def test_a_small_convolution_that_follows_no_softmax_is_a_layer(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / 'm.onnx',
        [
            helper.make_node('Conv', ['images', 'w'], ['a'], name='layer'),
            helper.make_node('Relu', ['a'], ['y'], name='relu'),
        ],
        {'images': (TensorProto.FLOAT, [1, 3, 4, 4])},
        {'y': (TensorProto.FLOAT, [1, 2, 4, 4])},
        constants={'w': np.ones((2, 3, 1, 1), np.float32)},
    )
    assert head_nodes(load_model(path)) == ('relu',)


# ---- accuracy ------------------------------------------------------------------------------------


def share_found_again(original: Path, changed: Path, frames: list[Frame]) -> float:
    def limits(_: ModelSpec) -> Limits:
        return Limits(confidence_threshold=0.5)

    first, second = (open_pipeline(path, limits=limits) for path in (original, changed))
    wanted = found = 0
    for frame in frames:
        want, got = first(frame), second(frame)
        same = (box_iou(want.xyxy, got.xyxy) >= 0.8) & (want.class_id[:, None] == got.class_id)
        wanted += len(want)
        found += int(same.any(axis=1).sum())
    first.close()
    second.close()
    assert wanted > 5
    return found / wanted


def test_the_quantised_detector_finds_the_same_objects(quantised: Path) -> None:
    assert share_found_again(TABLETOP, quantised, scenes(20, first=FIRST_HELD_OUT_SEED)) >= 0.95


@pytest.mark.parametrize('method', ['average', 'minmax'])
def test_both_methods_give_the_same_structure_and_say_nothing(
    tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = small_detector(tmp_path / 'm.onnx')
    with caplog.at_level(logging.WARNING):
        quantise(path, tmp_path / 'q.onnx', small_batches(), method=method)
    check_rules(load_model(tmp_path / 'q.onnx'))
    assert capfd.readouterr().out == ''
    assert caplog.messages == []


@pytest.mark.skipif(not DATA, reason='ISAAC_INFER_TEST_DATA does not name a folder of models and pictures')
def test_a_published_detector_is_quantised(tmp_path: Path) -> None:
    path = Path(DATA, 'models', 'yolov8n_320_coco', 'model.onnx')
    frames = [Frame(cv2.imread(str(file))) for file in sorted(Path(DATA, 'images').glob('*.jpg'))]
    pipeline = open_pipeline(path, limits=lambda _: Limits())
    pipeline.close()
    quantise(path, tmp_path / 'q.onnx', calibration_batches(frames, pipeline.spec))
    check_rules(load_model(tmp_path / 'q.onnx'))
    # Calibrated on these very pictures: this shows that it works, not how well.
    assert share_found_again(path, tmp_path / 'q.onnx', frames) >= 0.7


# ---- batches, and what is refused ----------------------------------------------------------------


def test_batches_are_what_the_pipeline_feeds(tmp_path: Path) -> None:
    pipeline = open_pipeline(TABLETOP, limits=lambda _: Limits())
    frames = scenes(2)
    batches = list(calibration_batches(frames, pipeline.spec))
    for frame, batch in zip(frames, batches):
        pipeline(frame)
        fed = pipeline.session.input_buffer('images', (1, 3, 320, 320))
        np.testing.assert_array_equal(batch['images'], fed)
    pipeline.close()
    assert not np.array_equal(batches[0]['images'], batches[1]['images'])


@pytest.mark.parametrize('dtype', ['int64', 'int32', 'float32'])
def test_a_size_input_is_fed_too_in_the_type_that_it_takes(dtype: str) -> None:
    spec = ModelSpec(
        'detection', 'rtdetr', ImageSpec('images', (32, 64)), (), (), 1, size_input='sizes', size_dtype=dtype
    )
    (batch,) = calibration_batches(scenes(1), spec)
    assert batch['sizes'].tolist() == [[64, 32]] and batch['sizes'].dtype == dtype


def test_no_pictures_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='needs pictures to calibrate on, got none'):
        quantise(TABLETOP, tmp_path / 'q.onnx', calibration_batches([], SPEC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'method': 'magic'}, 'expected one of average, minmax'),
        ({'exclude': ['nobody']}, 'no node named nobody'),
        ({'exclude': ['stem', 'boxes', 'classes', 'mean']}, 'expected Conv, Gemm, MatMul nodes'),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, object], says: str) -> None:
    path = small_detector(tmp_path / 'm.onnx')
    with pytest.raises(ModelError, match=says):
        quantise(path, tmp_path / 'q.onnx', small_batches(), **options)
    assert not (tmp_path / 'q.onnx').exists()


def test_batches_of_another_model_are_refused_in_words(tmp_path: Path) -> None:
    path = small_detector(tmp_path / 'm.onnx')
    with pytest.raises(TensorError, match=r'images: expected float32\[1, 3, 16, 16\], got'):
        quantise(path, tmp_path / 'q.onnx', [{'images': np.zeros((1, 3, 8, 8), np.float32)}])
    with pytest.raises(ModelError, match='expected images in every batch, got picture'):
        quantise(path, tmp_path / 'q.onnx', [{'picture': np.zeros((1, 3, 16, 16), np.float32)}])


def test_a_quantised_model_is_not_quantised_again(tmp_path: Path, quantised: Path) -> None:
    with pytest.raises(ModelError, match='quantised already'):
        quantise(quantised, tmp_path / 'q.onnx', calibration_batches(scenes(1), SPEC))


def test_a_model_in_half_precision_is_refused_with_the_way_out(tmp_path: Path) -> None:
    half = tmp_path / 'half.onnx'
    onnx.save(to_float16(load_model(small_detector(tmp_path / 'm.onnx'))), half)
    with pytest.raises(ModelError, match=f'{half}: it is in half precision; give the model in float32'):
        quantise(half, tmp_path / 'q.onnx', small_batches())
    assert not (tmp_path / 'q.onnx').exists()


def test_a_quantised_model_of_a_new_opset_runs_and_finds_the_same(tmp_path: Path) -> None:
    newer = onnx.version_converter.convert_version(load_model(TABLETOP), 21)
    metadata = {entry.key: entry.value for entry in load_model(TABLETOP).metadata_props}
    helper.set_model_props(newer, metadata)
    onnx.save(newer, tmp_path / 'newer.onnx')
    quantise(tmp_path / 'newer.onnx', tmp_path / 'q.onnx', calibration_batches(scenes(4), SPEC))
    assert share_found_again(TABLETOP, tmp_path / 'q.onnx', scenes(3, first=FIRST_HELD_OUT_SEED)) > 0.9
