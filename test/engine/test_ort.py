from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.engine.ort import OrtSession
from models import save_constant_detector, save_model


@pytest.fixture
def adder(tmp_path: Path) -> Path:
    """y = x + 1, of any length."""
    return save_model(
        tmp_path / 'adder.onnx',
        [helper.make_node('Add', ['x', 'one'], ['y'])],
        {'x': (TensorProto.FLOAT, ['n'])},
        {'y': (TensorProto.FLOAT, ['n'])},
        constants={'one': np.ones(1, np.float32)},
        metadata={'task': 'detect', 'names': "{0: 'größe'}"},
    )


@pytest.fixture
def fixed_adder(tmp_path: Path) -> Path:
    """y = x + 1, of length 3."""
    return save_model(
        tmp_path / 'fixed_adder.onnx',
        [helper.make_node('Add', ['x', 'one'], ['y'])],
        {'x': (TensorProto.FLOAT, [3])},
        {'y': (TensorProto.FLOAT, [3])},
        constants={'one': np.ones(1, np.float32)},
    )


def test_tensors_metadata_and_backend_are_reported(adder: Path) -> None:
    with OrtSession(adder) as session:
        assert [str(spec) for spec in session.inputs] == ['x float32[?]']
        assert [str(spec) for spec in session.outputs] == ['y float32[?]']
        assert session.metadata == {'task': 'detect', 'names': "{0: 'größe'}"}
        assert session.backend == f'onnxruntime {onnxruntime.__version__} CPUExecutionProvider'
        assert session.fallbacks == ()


def test_a_run_reads_what_its_buffer_holds_now(fixed_adder: Path) -> None:
    with OrtSession(fixed_adder) as session:
        buffer = session.input_buffer('x', (3,))
        for values in ([1, 2, 3], [7, 8, 9]):
            buffer[...] = values
            np.testing.assert_array_equal(session.run()['y'], np.add(values, 1))


def test_the_same_shape_gives_the_same_buffer_and_another_shape_another(adder: Path) -> None:
    with OrtSession(adder) as session:
        short, long = session.input_buffer('x', (2,)), session.input_buffer('x', (5,))
        long[...] = 4
        assert session.run()['y'].shape == (5,)
        assert session.input_buffer('x', (5,)) is long
        assert session.input_buffer('x', (2,)) is short
        assert session.run()['y'].shape == (2,)


def test_outputs_may_differ_in_length_from_picture_to_picture(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / 'where.onnx',
        [helper.make_node('NonZero', ['x'], ['where'])]
        + [helper.make_node('Neg', ['x'], [name]) for name in ('first', 'last')],
        {'x': (TensorProto.FLOAT, [4])},
        {
            'first': (TensorProto.FLOAT, [4]),
            'where': (TensorProto.INT64, [1, 'found']),
            'last': (TensorProto.FLOAT, [4]),
        },
    )
    with OrtSession(path) as session:
        buffer = session.input_buffer('x', (4,))
        for values in ([0, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]):
            buffer[...] = values
            answers = session.run()
            assert answers['where'].tolist() == [np.flatnonzero(values).tolist()]
            assert answers['first'].tolist() == answers['last'].tolist() == np.negative(values).tolist()


def test_outputs_of_fixed_shape_are_written_to_the_same_array_every_time(fixed_adder: Path) -> None:
    with OrtSession(fixed_adder) as session:
        session.input_buffer('x', (3,))
        assert session.run()['y'] is session.run()['y']


@pytest.mark.parametrize('dtype', [np.float16, np.float64, np.uint8, np.int8, np.int32, np.int64, np.bool_])
def test_every_type_of_number_goes_in_and_out(tmp_path: Path, dtype: type) -> None:
    kind = (helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [1, 2])
    path = save_model(
        tmp_path / 'same.onnx', [helper.make_node('Identity', ['x'], ['y'])], {'x': kind}, {'y': kind}
    )
    with OrtSession(path) as session:
        session.input_buffer('x', (1, 2))[...] = [[0, 1]]
        answer = session.run()['y']
        assert answer.dtype == dtype
        assert answer.tolist() == [[0, 1]]


def test_a_wrong_name_or_shape_is_refused_in_words(fixed_adder: Path) -> None:
    with OrtSession(fixed_adder) as session:
        with pytest.raises(TensorError, match=r'z: the model has no such input; it has x float32\[3\]'):
            session.input_buffer('z', (3,))
        with pytest.raises(TensorError, match=r'x: expected float32\[3\], got shape \[4\]'):
            session.input_buffer('x', (4,))


def test_a_run_without_buffers_names_the_inputs_that_lack_one(fixed_adder: Path) -> None:
    with (
        OrtSession(fixed_adder) as session,
        pytest.raises(SessionError, match='x float32.3.: no input buffer'),
    ):
        session.run()


def test_a_closed_session_stays_closed_and_says_so(fixed_adder: Path) -> None:
    session = OrtSession(fixed_adder)
    session.input_buffer('x', (3,))
    session.close()
    session.close()
    with pytest.raises(SessionError, match='closed'):
        session.run()
    with pytest.raises(SessionError, match='closed'):
        session.input_buffer('x', (3,))


def test_a_provider_that_is_not_installed_is_a_fallback_that_says_so(fixed_adder: Path) -> None:
    missing = 'CUDAExecutionProvider'
    if missing in onnxruntime.get_available_providers():
        pytest.skip('this onnxruntime has CUDA')
    with OrtSession(fixed_adder, providers=[missing, 'CPUExecutionProvider']) as session:
        (fallback,) = session.fallbacks
        assert missing in fallback
        assert 'running on CPUExecutionProvider' in fallback
        assert session.backend.endswith('CPUExecutionProvider')


def test_a_device_that_nobody_asked_for_is_pointed_out(
    fixed_adder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = ['CUDAExecutionProvider', 'AzureExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: available)
    with OrtSession(fixed_adder) as session:
        (fallback,) = session.fallbacks
        assert 'running on the CPU although this onnxruntime has CUDAExecutionProvider;' in fallback
    with OrtSession(fixed_adder, providers=['CPUExecutionProvider']) as session:
        assert session.fallbacks == ()


def test_a_provider_that_does_not_start_is_a_fallback_with_the_reason(
    fixed_adder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnxruntime.InferenceSession

    def start(path: str, options: object, providers: list[str], **others: object) -> object:
        if providers != ['CPUExecutionProvider']:
            raise RuntimeError('no driver')
        return real(path, options, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, 'InferenceSession', start)
    monkeypatch.setattr(
        onnxruntime, 'get_available_providers', lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider']
    )
    with OrtSession(fixed_adder, providers=['CUDAExecutionProvider', 'CPUExecutionProvider']) as session:
        assert session.fallbacks == (
            'CUDAExecutionProvider did not start (no driver); running on CPUExecutionProvider',
        )


def test_an_unknown_provider_is_refused_with_the_known_ones(fixed_adder: Path) -> None:
    with pytest.raises(SessionError, match="CPUExecutionProvider, got 'cuda'"):
        OrtSession(fixed_adder, providers=['cuda'])


def test_a_network_that_fails_at_run_time_says_why(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / 'reshape.onnx',
        [helper.make_node('Reshape', ['x', 'shape'], ['y'])],
        {'x': (TensorProto.FLOAT, ['n'])},
        {'y': (TensorProto.FLOAT, [None, None])},
        constants={'shape': np.array([2, 3])},
    )
    with OrtSession(path) as session:
        session.input_buffer('x', (7,))
        with pytest.raises(
            SessionError, match=r'cannot be reshaped .* Input shape:\{7\}, requested shape:\{2,3\}'
        ):
            session.run()


def test_an_output_that_numpy_does_not_know_is_named_where_there_is_no_other(tmp_path: Path) -> None:
    path = tmp_path / 'bfloat16.onnx'
    cast = helper.make_node('Cast', ['x'], ['y'], to=TensorProto.BFLOAT16)
    save_model(path, [cast], {'x': (TensorProto.FLOAT, [3])}, {'y': (TensorProto.BFLOAT16, [3])})
    with pytest.raises(
        ModelError, match=r'output y: expected a tensor of numbers .*, got tensor\(bfloat16\)'
    ):
        OrtSession(path)


@pytest.mark.parametrize('kind', ['string', 'bfloat16'])
def test_tensors_that_numpy_cannot_hold_are_refused(tmp_path: Path, kind: str) -> None:
    element = {'string': TensorProto.STRING, 'bfloat16': TensorProto.BFLOAT16}[kind]
    path = save_model(
        tmp_path / 'odd.onnx',
        [helper.make_node('Identity', ['x'], ['y'])],
        {'x': (element, [1])},
        {'y': (element, [1])},
    )
    with pytest.raises(ModelError, match=rf'input x: expected .*, got tensor\({kind}\); export'):
        OrtSession(path)


def test_nothing_is_written_to_stderr_by_good_or_bad_models(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = save_constant_detector(tmp_path / 'good.onnx', {'y': np.zeros((1, 2), np.float32)})
    with OrtSession(good) as session:
        session.input_buffer('images', (1, 3, 64, 64))
        session.run()
    overflowing = onnx.load(good)
    overflowing.graph.initializer[0].dims[0] = 1 << 62
    bad = tmp_path / 'bad.onnx'
    bad.write_bytes(overflowing.SerializeToString())
    with pytest.raises(ModelError):
        OrtSession(bad)
    assert capfd.readouterr() == ('', '')
