"""Changed models are real ONNX, run by ONNX Runtime and opened as a user would open them."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from keypoints_apart import keypoints_apart
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.core.errors import ModelError
from isaac_infer.core.frame import Frame
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.spec import ImageSpec, Limits
from isaac_infer.engine import surgery
from isaac_infer.engine.load import open_pipeline
from isaac_infer.engine.surgery import EXACT, Tolerance
from models import save_colour_detector, save_model

TABLETOP = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
TABLETOP_IMAGE = ImageSpec('images', (320, 320))
SCENES = [Frame(draw_scene(1_000_000 + seed).image) for seed in range(3)]
DATA = os.environ.get('ISAAC_INFER_TEST_DATA', '')


def conv_model(
    path: Path,
    *,
    shape: Sequence[int | str] = (1, 3, 16, 24),
    layout: str = 'nchw',
    element: int = TensorProto.FLOAT,
    opset: int = 13,
) -> onnx.ModelProto:
    """Logits of four classes per pixel by one convolution; with 'nhwc' the network transposes by itself."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    channels = shape[1] if layout == 'nchw' else shape[3]
    weight = np.random.default_rng(0).normal(size=(4, channels, 3, 3)).astype(dtype)
    nodes, tensor = [], 'images'
    if layout == 'nhwc':
        nodes.append(helper.make_node('Transpose', [tensor], ['planes'], perm=[0, 3, 1, 2]))
        tensor = 'planes'
    nodes.append(helper.make_node('Conv', [tensor, 'weight'], ['logits'], pads=[1, 1, 1, 1]))
    height, width = shape[2:] if layout == 'nchw' else shape[1:3]
    save_model(
        path,
        nodes,
        {'images': (element, shape)},
        {'logits': (element, [shape[0], 4, height, width])},
        constants={'weight': weight},
        metadata={'author': 'somebody'},
        opsets={'': opset},
    )
    return surgery.load_model(path)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def shape_of(info: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in info.type.tensor_type.shape.dim]


def noise(size_hw: tuple[int, int] = (30, 40)) -> list[Frame]:
    return [Frame(np.random.default_rng(1).integers(0, 256, (*size_hw, 3), np.uint8))]


# ---- uint8 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
@pytest.mark.parametrize('channel_order', ['rgb', 'bgr', 'gray'])
@pytest.mark.parametrize('resize', ['letterbox', 'stretch'])
def test_a_model_that_takes_pixels_answers_as_before(
    tmp_path: Path, layout: str, channel_order: str, resize: str
) -> None:
    channels = 1 if channel_order == 'gray' else 3
    shape = (1, channels, 16, 24) if layout == 'nchw' else (1, 16, 24, channels)
    model = conv_model(tmp_path / 'm.onnx', shape=shape, layout=layout)
    many = channels == 3
    image = ImageSpec(
        'images',
        (16, 24),
        layout=layout,
        channel_order=channel_order,
        resize=resize,
        mean=(0.485, 0.456, 0.406) if many else (0.4,),
        std=(0.229, 0.224, 0.225) if many else (0.3,),
    )
    done = surgery.checked(model, image, noise(), uint8_input=True)
    assert done.agreement.max_rel <= EXACT.max_rel
    (taken,) = done.model.graph.input
    assert taken.type.tensor_type.elem_type == TensorProto.UINT8
    assert tuple(shape_of(taken)) == done.image.shape == (1, 16, 24, channels)


def test_the_original_stays_as_it_is(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    before = model.SerializeToString()
    image = ImageSpec('images', (16, 24))
    surgery.checked(model, image, noise(), uint8_input=True, class_maps={'logits': 1}, float16=True)
    assert model.SerializeToString() == before


def test_pixels_meet_a_cast_to_float32_first_and_nothing_else(tmp_path: Path) -> None:
    changed = surgery.take_uint8(conv_model(tmp_path / 'm.onnx'), ImageSpec('images', (16, 24)))
    (reader,) = [node for node in changed.graph.node if 'images' in node.input]
    assert reader.op_type == 'Cast'
    assert [attribute.i for attribute in reader.attribute] == [TensorProto.FLOAT]
    onnx.checker.check_model(changed, full_check=True)


def test_what_does_nothing_is_not_added(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx', shape=(1, 16, 24, 3), layout='nhwc')
    changed = surgery.take_uint8(model, ImageSpec('images', (16, 24), layout='nhwc', scale=1.0))
    assert [node.op_type for node in changed.graph.node] == ['Cast', 'Transpose', 'Conv']


def test_lengths_that_are_open_stay_open_under_their_names(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx', shape=('batch', 3, 'height', 'width'))
    changed = surgery.take_uint8(model, ImageSpec('images', (16, 24)))
    assert shape_of(changed.graph.input[0]) == ['batch', 'height', 'width', 3]
    assert metadata_of(changed)['input_size'] == '[16, 24]'


def test_a_network_of_half_precision_is_given_half_precision(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx', element=TensorProto.FLOAT16)
    image = ImageSpec('images', (16, 24), dtype=np.dtype(np.float16), mean=(0.5,), std=(0.25,))
    done = surgery.checked(model, image, noise(), uint8_input=True, tolerance=Tolerance(0.02, 0.002))
    assert done.model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16


@pytest.mark.parametrize('opset', [7, 11, 17])
def test_the_opset_and_the_metadata_stay(tmp_path: Path, opset: int) -> None:
    model = conv_model(tmp_path / 'm.onnx', opset=opset)
    done = surgery.checked(model, ImageSpec('images', (16, 24)), noise(), uint8_input=True)
    assert [entry.version for entry in done.model.opset_import] == [opset]
    assert metadata_of(done.model)['author'] == 'somebody'
    assert surgery.surgeries(done.model) == ('uint8_input',)


def test_a_graph_inside_a_node_reads_the_normalised_picture_too(tmp_path: Path) -> None:
    out = helper.make_tensor_value_info('inner', TensorProto.FLOAT, [1, 3, 4, 4])
    branches = {
        name: helper.make_graph([helper.make_node(kind, ['images'], ['inner'])], name, [], [out])
        for name, kind in {'then_branch': 'Neg', 'else_branch': 'Abs'}.items()
    }
    save_model(
        tmp_path / 'if.onnx',
        [helper.make_node('If', ['yes'], ['y'], **branches)],
        {'images': (TensorProto.FLOAT, [1, 3, 4, 4])},
        {'y': (TensorProto.FLOAT, [1, 3, 4, 4])},
        constants={'yes': np.array(True)},
    )
    model = surgery.load_model(tmp_path / 'if.onnx')
    surgery.checked(model, ImageSpec('images', (4, 4)), noise(), uint8_input=True)


def test_a_model_that_takes_pixels_already_is_refused(tmp_path: Path) -> None:
    image = ImageSpec('images', (16, 24))
    changed = surgery.take_uint8(conv_model(tmp_path / 'm.onnx'), image)
    with pytest.raises(
        ModelError, match=r'expected .* float32 or float16 .* got images uint8\[1, 16, 24, 3\]'
    ):
        surgery.take_uint8(changed, image)
    with pytest.raises(ModelError, match='picture: the model has no such input; it has images uint8'):
        surgery.take_uint8(changed, ImageSpec('picture', (16, 24)))


def same_detections(original: Path, changed: Path, frames: Sequence[Frame]) -> int:
    """Compare two models through the whole pipeline, and return how many objects they found."""
    count = 0
    with (
        open_pipeline(original, limits=lambda _: Limits()).session as first,
        open_pipeline(changed, limits=lambda _: Limits()).session as second,
    ):
        assert first.inputs != second.inputs
    pipelines = [open_pipeline(path, limits=lambda _: Limits()) for path in (original, changed)]
    assert pipelines[1].spec.image == surgery.uint8_spec(pipelines[0].spec.image)
    for frame in frames:
        want, got = (pipeline(frame) for pipeline in pipelines)
        np.testing.assert_array_equal(got.class_id, want.class_id)
        np.testing.assert_allclose(got.score, want.score, atol=1e-4)
        np.testing.assert_allclose(got.xyxy, want.xyxy, atol=0.05)
        count += len(want)
    for pipeline in pipelines:
        pipeline.close()
    return count


def test_the_changed_detector_configures_itself_and_finds_the_same(tmp_path: Path) -> None:
    done = surgery.checked(surgery.load_model(TABLETOP), TABLETOP_IMAGE, SCENES[:1], uint8_input=True)
    surgery.save_model(done.model, tmp_path / 'uint8.onnx')
    assert same_detections(TABLETOP, tmp_path / 'uint8.onnx', SCENES) > 5


def test_colours_do_not_change_places(tmp_path: Path) -> None:
    path = save_colour_detector(tmp_path / 'colours.onnx')
    changed = surgery.take_uint8(surgery.load_model(path), ImageSpec('images', (64, 64)))
    surgery.save_model(changed, tmp_path / 'uint8.onnx')
    blue = Frame(np.full((64, 64, 3), (255, 0, 0), np.uint8), channel_order='bgr')
    assert same_detections(path, tmp_path / 'uint8.onnx', [blue]) > 0


def test_whatever_way_pictures_are_prepared_is_found_in_the_changed_model(tmp_path: Path) -> None:
    image = ImageSpec(
        'images',
        (64, 64),
        channel_order='bgr',
        resize='letterbox_top_left',
        scale_up=False,
        pad_value=7,
        mean=(0.1, 0.2, 0.3),
        std=(0.5,),
    )
    path = save_colour_detector(tmp_path / 'colours.onnx')
    done = surgery.checked(surgery.load_model(path), image, noise(), uint8_input=True)
    surgery.save_model(done.model, tmp_path / 'uint8.onnx')
    pipeline = open_pipeline(tmp_path / 'uint8.onnx', limits=lambda _: Limits())
    assert pipeline.spec.image == done.image
    pipeline.close()


@pytest.mark.skipif(not DATA, reason='ISAAC_INFER_TEST_DATA does not name a folder of models and pictures')
@pytest.mark.parametrize('name', ['yolox_nano_coco', 'yolov8n_320_coco'])
def test_published_detectors_find_the_same_in_photographs(tmp_path: Path, name: str) -> None:
    path = Path(DATA, 'models', name, 'model.onnx')
    pipeline = open_pipeline(path, limits=lambda _: Limits())
    pipeline.close()
    frames = [Frame(cv2.imread(str(file))) for file in sorted(Path(DATA, 'images').glob('*.jpg'))]
    done = surgery.checked(surgery.load_model(path), pipeline.spec.image, frames, uint8_input=True)
    surgery.save_model(done.model, tmp_path / 'uint8.onnx')
    assert same_detections(path, tmp_path / 'uint8.onnx', frames) > 5


# ---- class map -----------------------------------------------------------------------------------


def test_a_class_map_holds_the_best_class_of_each_pixel(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    changed = surgery.to_class_map(model, 'logits', axis=1)
    (info,) = changed.graph.output
    assert (info.name, shape_of(info)) == ('logits', [1, 16, 24])
    assert info.type.tensor_type.elem_type == TensorProto.INT32
    onnx.checker.check_model(changed, full_check=True)
    image = ImageSpec('images', (16, 24))
    feeds = list(surgery.feeds_from(noise(), image, image))
    agreement = surgery.check_equal(
        model, changed, feeds, tolerance=Tolerance(0, 0), class_maps={'logits': 1}
    )
    assert agreement.max_abs == 0


@pytest.mark.parametrize('axis', [3, -1])
def test_classes_may_come_last(tmp_path: Path, axis: int) -> None:
    shapes = {'images': (TensorProto.FLOAT, [1, 16, 24, 3])}
    nodes = [helper.make_node('Neg', ['images'], ['y'])]
    save_model(tmp_path / 'm.onnx', nodes, shapes, {'y': shapes['images']})
    model = surgery.load_model(tmp_path / 'm.onnx')
    image = ImageSpec('images', (16, 24), layout='nhwc')
    done = surgery.checked(model, image, noise(), class_maps={'y': axis})
    assert shape_of(done.model.graph.output[0]) == [1, 16, 24]


@pytest.mark.parametrize(
    ('output', 'axis', 'says'),
    [
        ('nothing', 1, r'no such output; it has logits float\[1, 4, 16, 24\]'),
        ('logits', 2, 'for axis 2'),
        ('logits', 0, 'for axis 0'),
        ('logits', 7, 'for axis 7'),
    ],
)
def test_what_holds_no_logits_gives_no_class_map(tmp_path: Path, output: str, axis: int, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        surgery.to_class_map(conv_model(tmp_path / 'm.onnx'), output, axis=axis)


def test_a_class_map_of_a_class_map_is_refused(tmp_path: Path) -> None:
    changed = surgery.to_class_map(conv_model(tmp_path / 'm.onnx'), 'logits', axis=1)
    with pytest.raises(ModelError, match=r'got logits int32\[1, 16, 24\]'):
        surgery.to_class_map(changed, 'logits', axis=1)


# ---- half precision ------------------------------------------------------------------------------


def test_half_precision_keeps_inputs_outputs_and_metadata() -> None:
    original = surgery.load_model(TABLETOP)
    done = surgery.checked(original, TABLETOP_IMAGE, SCENES[:1], float16=True)
    assert list(done.model.graph.input) == list(original.graph.input)
    assert list(done.model.graph.output) == list(original.graph.output)
    assert metadata_of(done.model).items() >= metadata_of(original).items()
    weights = [tensor for tensor in done.model.graph.initializer if len(tensor.dims) == 4]
    assert weights and {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    with pytest.raises(ModelError, match='converted already'):
        surgery.to_float16(done.model)


def test_key_points_in_half_precision_are_within_a_pixel(tmp_path: Path) -> None:
    model = TABLETOP.with_name('humanoid_pose.onnx')
    surgery.save_model(surgery.to_float16(surgery.load_model(model)), tmp_path / 'half.onnx')
    both = [
        open_pipeline(path, task='pose', backend='onnxruntime') for path in (model, tmp_path / 'half.onnx')
    ]
    frames = (Frame(draw_scene(1_000_000 + seed, humanoids=True).image) for seed in range(20))
    apart = keypoints_apart(*both, frames)
    assert len(apart) > 500 and 0 < apart.max() <= 1


def test_all_three_go_together_and_are_named_in_order(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    image = ImageSpec('images', (16, 24), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    done = surgery.checked(model, image, noise(), uint8_input=True, class_maps={'logits': 1}, float16=True)
    assert surgery.surgeries(done.model) == ('uint8_input', 'class_map', 'float16')
    factors = [node for node in done.model.graph.node if node.op_type == 'Constant']
    values = [numpy_helper.to_array(node.attribute[0].t) for node in factors]
    assert {value.dtype for value in values} == {np.dtype(np.float32)}


def test_a_quantised_model_is_not_made_half_precise(tmp_path: Path) -> None:
    save_model(
        tmp_path / 'm.onnx',
        [
            helper.make_node('QuantizeLinear', ['x', 'scale', 'zero'], ['q']),
            helper.make_node('DequantizeLinear', ['q', 'scale', 'zero'], ['y']),
        ],
        {'x': (TensorProto.FLOAT, [1])},
        {'y': (TensorProto.FLOAT, [1])},
        constants={'scale': np.float32(1), 'zero': np.int8(0)},
    )
    with pytest.raises(ModelError, match='the model is quantised'):
        surgery.to_float16(surgery.load_model(tmp_path / 'm.onnx'))


# ---- the check -----------------------------------------------------------------------------------


def spoiled(model: onnx.ModelProto, change: float) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (weight,) = copy.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(change), weight.name))
    return copy


@pytest.mark.parametrize('change', [0.1, np.nan, np.inf])
def test_a_model_that_answers_differently_is_refused_with_by_how_much(tmp_path: Path, change: float) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    image = ImageSpec('images', (16, 24))
    feeds = list(surgery.feeds_from(noise(), image, image))
    with pytest.raises(
        ModelError, match=r'output logits .* differs .* expected at most 0.0001 .* got .* absolute'
    ):
        surgery.check_equal(model, spoiled(model, change), feeds, tolerance=EXACT)


def test_a_class_map_of_other_classes_is_refused(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    image = ImageSpec('images', (16, 24))
    changed = surgery.to_class_map(surgery.load_model(tmp_path / 'm.onnx'), 'logits', axis=1)
    next(node for node in changed.graph.node if node.op_type == 'ArgMax').op_type = 'ArgMin'
    feeds = list(surgery.feeds_from(noise(), image, image))
    with pytest.raises(ModelError, match='output logits .* differs'):
        surgery.check_equal(model, changed, feeds, tolerance=EXACT, class_maps={'logits': 1})


def test_a_wrong_normalisation_is_found(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    image = ImageSpec('images', (16, 24))
    changed = surgery.take_uint8(model, ImageSpec('images', (16, 24), mean=(0.01,)))
    feeds = list(surgery.feeds_from(noise(), image, surgery.uint8_spec(image)))
    with pytest.raises(ModelError, match='differs from the original'):
        surgery.check_equal(model, changed, feeds, tolerance=EXACT)


@pytest.mark.parametrize(
    ('want', 'got', 'is_same'),
    [
        ([np.nan, 1], [np.nan, 1], True),
        ([np.inf, -np.inf], [np.inf, -np.inf], True),
        ([np.nan, 1], [np.nan, 2], False),
        ([np.nan, 1], [1, np.nan], False),
        ([np.inf, 1], [-np.inf, 1], False),
        ([np.inf, 1], [5, 1], False),
        ([5, 1], [np.inf, 1], False),
    ],
)
@pytest.mark.filterwarnings('error')
def test_what_is_not_finite_is_equal_only_to_itself(
    tmp_path: Path, want: list[float], got: list[float], is_same: bool
) -> None:
    image = ImageSpec('images', (16, 24))
    models = []
    for values in (want, got):
        model = conv_model(tmp_path / 'm.onnx')
        constant = numpy_helper.from_array(np.array(values, np.float32), 'constant')
        model.graph.initializer.append(constant)
        model.graph.node.append(helper.make_node('Identity', ['constant'], ['aux']))
        model.graph.output.append(helper.make_tensor_value_info('aux', TensorProto.FLOAT, [2]))
        models.append(model)
    feeds = list(surgery.feeds_from(noise(), image, image))
    if is_same:
        assert surgery.check_equal(*models, feeds, tolerance=EXACT) == surgery.Agreement()
    else:
        with pytest.raises(ModelError, match='output aux'):
            surgery.check_equal(*models, feeds, tolerance=EXACT)


def test_a_check_on_no_pictures_is_no_check(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='at least one picture, got none'):
        surgery.checked(conv_model(tmp_path / 'm.onnx'), ImageSpec('images', (16, 24)), [], float16=True)


# ---- files ---------------------------------------------------------------------------------------


def test_a_model_that_is_saved_can_be_loaded_and_leaves_nothing_else(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    surgery.save_model(model, tmp_path / 'copy.onnx')
    assert surgery.load_model(tmp_path / 'copy.onnx') == model
    assert sorted(path.name for path in tmp_path.iterdir()) == ['copy.onnx', 'm.onnx']
    plain = tmp_path / 'plain'
    plain.touch()
    assert (tmp_path / 'copy.onnx').stat().st_mode == plain.stat().st_mode


def test_where_nothing_can_be_written_the_error_names_the_file(tmp_path: Path) -> None:
    model = conv_model(tmp_path / 'm.onnx')
    with pytest.raises(ModelError, match=r'no/m.onnx: cannot be written: No such file'):
        surgery.save_model(model, tmp_path / 'no' / 'm.onnx')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ModelError, match='cannot be written'):
        surgery.save_model(model, tmp_path / 'folder')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder', 'm.onnx']


def test_what_is_no_model_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'nonsense')
    with pytest.raises(ModelError, match='bad.onnx: cannot be read as an ONNX model'):
        surgery.load_model(tmp_path / 'bad.onnx')
