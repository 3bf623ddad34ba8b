"""Models in other precisions, for ONNX Runtime."""

from pathlib import Path

import pytest

from isaac_infer.core.build_options import EngineOptions
from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.core.spec import Overrides
from isaac_infer.engine.layers import onnx_facts
from isaac_infer.engine.load import find_spec
from isaac_infer.engine.variants import save_variant
from models import save_colour_detector


def variant(model: Path, folder: Path, precision: str) -> Path:
    return save_variant(
        model,
        folder,
        precision=precision,
        options=EngineOptions(),
        overrides=Overrides(),
        find_spec=find_spec,
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / 'models').mkdir()
    return save_colour_detector(tmp_path / 'models' / 'colours.onnx')


def test_fp32_is_the_model_itself(model: Path, tmp_path: Path) -> None:
    assert variant(model, tmp_path, 'fp32') == model


def test_fp16_has_half_the_weights_and_the_name_and_the_facts_beside_it(model: Path, tmp_path: Path) -> None:
    model.with_suffix('.yaml').write_text('decoder: ultralytics')
    half = variant(model, tmp_path, 'fp16')
    assert half == tmp_path / 'colours.onnx'
    assert onnx_facts(half).weights['fp16'] == onnx_facts(model).weights['fp32']
    assert half.with_suffix('.yaml').read_text() == 'decoder: ultralytics'


def test_int8_asks_for_pictures(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match='calibration_path: int8 needs'):
        variant(model, tmp_path, 'int8')


def test_what_only_tensorrt_has_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='not in fp8'):
        variant(model, tmp_path, 'fp8')
