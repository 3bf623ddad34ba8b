import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from isaac_infer.cli import bench as module
from isaac_infer.cli.bench import TimedSession
from isaac_infer.cli.main import main
from isaac_infer.engine.cuda import device_problem
from isaac_infer.engine.load import open_session
from isaac_infer.engine.ort import OrtSession
from models import (
    save_colour_detector,
    save_constant_detector,
    save_model,
    ultralytics_metadata,
    ultralytics_output,
)

QUICK = ('--duration', '0', '--warm-up', '0', '--iterations', '12')
STATISTICS = ['min', 'max', 'mean', 'median', 'p90', 'p95', 'p99', 'count']


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_colour_detector(tmp_path / 'colours.onnx')


@pytest.fixture
def batched(tmp_path: Path) -> Path:
    """A colour detector that takes any number of pictures."""
    boxes = ultralytics_output([], classes=3)[:, :4]
    return save_model(
        tmp_path / 'batched.onnx',
        [
            helper.make_node('ReduceMean', ['images'], ['mean'], axes=[2, 3], keepdims=0),
            helper.make_node('Unsqueeze', ['mean', 'last'], ['column']),
            helper.make_node('Expand', ['column', 'scores_shape'], ['scores']),
            helper.make_node('ReduceMean', ['scores'], ['one'], axes=[1], keepdims=1),
            helper.make_node('Mul', ['one', 'zero'], ['nothing']),
            helper.make_node('Add', ['nothing', 'boxes'], ['all_boxes']),
            helper.make_node('Concat', ['all_boxes', 'scores'], ['output0'], axis=1),
        ],
        {'images': (TensorProto.FLOAT, ('batch', 3, 64, 64))},
        {'output0': (TensorProto.FLOAT, ('batch', 7, boxes.shape[2]))},
        constants={
            'boxes': boxes,
            'last': np.array([2]),
            'zero': np.array([0], np.float32),
            'scores_shape': np.array([1, 3, boxes.shape[2]]),
        },
        metadata=ultralytics_metadata(['red', 'green', 'blue']),
    )


def bench(*arguments: object) -> int:
    return main(['bench', *map(str, arguments)])


def report_of(path: Path, *arguments: object) -> dict[str, Any]:
    out = path.parent / 'out' / 'report.json'
    assert bench(path, *QUICK, '--json', out, *arguments) == 0
    report: dict[str, Any] = json.loads(out.read_text())
    return report


class DeviceSession(OrtSession):
    """A network that runs for real, with the clocks of a device."""

    times_ms: Mapping[str, float]

    def run_timed(self) -> Mapping[str, float]:
        self.run()
        return self.times_ms


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, model: Path) -> type[DeviceSession]:
    @contextmanager
    def open_network(params: object, *, task: str) -> Iterator[DeviceSession]:
        with DeviceSession(model) as session:
            yield session  # type: ignore[misc]

    monkeypatch.setattr(module, 'open_network', open_network)
    return DeviceSession


def test_the_report_of_a_detector_has_network_and_pipeline(model: Path) -> None:
    report = report_of(model)
    assert report['model'] == str(model)
    assert report['backend'].endswith('CPUExecutionProvider')
    assert list(report['network_ms']) == ['latency']
    assert list(report['network_ms']['latency']) == STATISTICS
    assert report['network_ms']['latency']['count'] == 12
    assert report['throughput_qps'] == pytest.approx(12 / report['walltime_s'])
    assert 'no transfers' in report['transfers']
    pipeline = report['pipeline']
    assert list(pipeline['stages_ms']) == ['prepare', 'run', 'decode', 'total']
    assert pipeline['sizes_wh'] == [[1920, 1080]]
    assert pipeline['fps'] > 0


def test_percentiles_are_in_order_and_the_stages_make_the_total(model: Path) -> None:
    stages = report_of(model)['pipeline']['stages_ms']
    for one in stages.values():
        shown = [one[name] for name in ('min', 'median', 'p90', 'p95', 'p99', 'max')]
        assert shown == sorted(shown)
    assert sum(stages[name]['mean'] for name in ('prepare', 'run', 'decode')) <= stages['total']['mean']


def test_people_get_tables_in_the_words_of_trtexec(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(model, *QUICK, '--width', 64, '--height', 48) == 0
    shown = capsys.readouterr().out
    for text in (
        'throughput',
        'queries per second',
        'latency',
        'median',
        'p99',
        'decode',
        '64x48',
        'frames per',
    ):
        assert text in shown


def test_json_on_standard_output_stands_there_alone(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(model, *QUICK, '--json', '-') == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)['model'] == str(model)
    assert 'throughput' in printed.err


def test_the_pictures_of_a_folder_are_measured_in_turn(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for size in (16, 32):
        assert cv2.imwrite(str(folder / f'{size}.png'), np.zeros((size, size, 3), np.uint8))
    pipeline = report_of(model, '--source', folder)['pipeline']
    assert (pipeline['pictures'], pipeline['sizes_wh']) == (2, [[16, 16], [32, 32]])


def test_a_network_that_is_no_detector_is_measured_alone(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / 'sum.onnx',
        [helper.make_node('Add', ['a', 'b'], ['c'])],
        {'a': (TensorProto.FLOAT, ('n', 8)), 'b': (TensorProto.FLOAT, (1, 8))},
        {'c': (TensorProto.FLOAT, ('n', 8))},
    )
    report = report_of(path)
    assert report['network_ms']['latency']['count'] == 12
    assert report['pipeline'] is None
    assert 'it is not understood (task detection)' in report['notes'][0]


def test_it_runs_for_the_duration_and_not_only_for_the_iterations(model: Path) -> None:
    report = report_of(model, '--duration', 0.2, '--iterations', 1)
    assert report['walltime_s'] >= 0.2
    assert report['network_ms']['latency']['count'] > 1


def test_a_device_s_clocks_are_shown_where_it_has_them(device: type[DeviceSession], model: Path) -> None:
    device.times_ms = {'d2h': 0.1, 'compute': 2.0, 'h2d': 0.5, 'enqueue': 0.3, 'total': 2.6}
    with device(model) as session:
        assert isinstance(session, TimedSession)
    report = report_of(model)
    medians = {name: timings['median'] for name, timings in report['network_ms'].items()}
    assert medians == {
        'latency': 2.6,
        'enqueue time': 0.3,
        'H2D latency': 0.5,
        'GPU compute time': 2.0,
        'D2H latency': 0.1,
    }
    assert 'includes the transfers' in report['transfers']
    assert report['notes'] == []


def test_a_device_that_tells_only_its_compute_time_has_the_host_s_latency(
    device: type[DeviceSession], model: Path
) -> None:
    device.times_ms = {'compute': 2.0}
    report = report_of(model)
    assert list(report['network_ms']) == ['latency', 'GPU compute time']


@pytest.mark.parametrize(
    ('times_ms', 'warning'),
    [
        (
            {'enqueue': 1.7, 'compute': 2.0},
            'measured without a CUDA graph; nodes, and the way from picture to detections, replay one',
        ),
        ({'h2d': 2.0, 'compute': 2.0, 'd2h': 0.1}, 'H2D latency (2.000 ms) is not below'),
        ({'h2d': 0.1, 'compute': 2.0, 'd2h': 3.0}, 'D2H latency (3.000 ms) is not below'),
    ],
)
def test_it_warns_where_trtexec_warns(
    device: type[DeviceSession], model: Path, times_ms: dict[str, float], warning: str
) -> None:
    device.times_ms = {**times_ms, 'total': 5.0}
    (note,) = report_of(model)['notes']
    assert warning in note


def test_a_precision_that_nobody_uses_is_said(model: Path) -> None:
    (note,) = (note for note in report_of(model, '--precision', 'int8')['notes'] if 'precision' in note)
    assert note.startswith('precision int8 concerns TensorRT and was not used')
    assert not any('precision' in note for note in report_of(model)['notes'])


def test_times_that_vary_are_called_unstable() -> None:
    measured = module.Measured({'latency': [1.0, 2.0]}, walltime_s=1.0)
    (note,) = module._warnings(measured)
    assert 'latency is unstable' in note and '33.3%' in note


def test_onnx_runtime_has_no_clocks_of_a_device(model: Path) -> None:
    with open_session(model) as session:
        assert not isinstance(session, TimedSession)


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['--duration', '-1'], 'duration: expected 0 to 3600 s, got -1'),
        (['--duration', 'nan'], 'duration: expected 0 to 3600 s, got nan'),
        (['--iterations', '0'], 'iterations: expected at least 1, got 0'),
        (['--warm-up', 'inf'], 'warm-up: expected 0 to 3.6e+06 ms, got inf'),
        (['--width', '0'], 'width: expected int from 1 to 8192, got 0'),
        (['--batch', '1,2'], 'images float32[1, 3, 64, 64]; export it with a dynamic batch'),
        (['--model', 'other.onnx'], 'got two models'),
        (['--json', '/'], '--json /: expected a file, got a folder'),
    ],
)
def test_a_bad_option_is_refused_in_one_line(
    model: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(model, *arguments) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count('\n') == 1


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['nowhere.onnx'], 'nowhere.onnx: no such model file'),
        ([], 'no model given: name it first, or by --model FILE'),
        (['tabletop_detector.onnx', '--source', 'nowhere'], "'nowhere': no such file"),
    ],
)
def test_what_is_not_there_is_an_error(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*arguments) == 1
    assert complaint in capsys.readouterr().err


def test_a_report_does_not_harm_the_model(model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(model, tmp_path / 'copy.onnx'))
    assert bench(copy, *QUICK, '--json', copy) == 2
    assert copy.read_bytes() == model.read_bytes()


def test_batches_are_measured_with_pictures_per_second(batched: Path) -> None:
    report = report_of(batched, '--batch', '1,4,2')
    assert [each['batch'] for each in report['batches']] == [1, 4, 2]
    for each in report['batches']:
        assert list(each['network_ms']) == ['latency']
        assert each['network_ms']['latency']['count'] == 12
        assert each['pictures_per_s'] == pytest.approx(each['batch'] * each['throughput_qps'])
    assert report['pipeline']['fps'] > 0
    assert report_of(batched)['batches'] == []


def test_people_see_batches_in_a_table(batched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(batched, *QUICK, '--batch', '8') == 0
    shown = capsys.readouterr().out
    assert 'batches of the network' in shown and 'pictures/s' in shown


def test_a_batch_holds_the_picture_that_often(batched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[np.ndarray] = []
    run = OrtSession.run

    def watched(session: OrtSession) -> Mapping[str, np.ndarray]:
        held.append(session._bound['images'].copy())
        return run(session)

    monkeypatch.setattr(OrtSession, 'run', watched)
    report_of(batched, '--batch', '3')
    assert held[-1].shape == (3, 3, 64, 64)
    assert held[-1].std() > 0 and (held[-1] == held[-1][0]).all()


def test_a_network_that_is_no_detector_has_batches_too(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / 'sum.onnx',
        [helper.make_node('Add', ['a', 'b'], ['c'])],
        {'a': (TensorProto.FLOAT, ('n', 8)), 'b': (TensorProto.FLOAT, (1, 8))},
        {'c': (TensorProto.FLOAT, ('n', 8))},
    )
    assert report_of(path, '--batch', '16')['batches'][0]['batch'] == 16


def test_the_batch_that_a_model_is_fixed_to_is_measured(model: Path) -> None:
    assert report_of(model, '--batch', '1')['batches'][0]['batch'] == 1


def test_a_batch_that_only_the_input_leaves_open_is_an_error_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_model(
        tmp_path / 'half.onnx',
        [helper.make_node('Reshape', ['a', 'shape'], ['c'])],
        {'a': (TensorProto.FLOAT, ('n', 8))},
        {'c': (TensorProto.FLOAT, (1, 8))},
        constants={'shape': np.array([1, 8])},
    )
    assert bench(path, *QUICK, '--batch', '2') == 1
    assert 'batch 2: ' in (said := capsys.readouterr().err) and 'dynamic batch' in said


@pytest.mark.parametrize(
    ('shapes', 'is_refused'),
    [
        ((), True),
        (('--engine-shapes', 'images=1x3x64x64,1x3x64x64,2x3x64x64'), True),
        (('--engine-shapes', 'images=2x3x64x64,2x3x64x64,4x3x64x64'), True),  # one picture is needed too
        (('--engine-shapes', 'images=1x3x64x64,1x3x64x64,4x3x64x64'), False),
    ],
)
def test_an_engine_needs_shapes_for_its_batches_and_the_error_says_which(
    batched: Path, shapes: tuple[str, ...], is_refused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if not device_problem():
        pytest.skip('there is a GPU, which would build')
    assert bench(batched, '--backend', 'tensorrt', '--batch', '2,4', *shapes) == (2 if is_refused else 1)
    said = capsys.readouterr().err
    assert ('--engine-shapes images=1x3x64x64,4x3x64x64,4x3x64x64' in said) == is_refused
    assert ('TensorRT cannot be used' in said) != is_refused


@pytest.mark.parametrize('text', ['0', 'x', '1,', '1,-2', ''])
def test_a_batch_that_is_no_number_is_refused(text: str, model: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        bench(model, f'--batch={text}')
    assert ended.value.code == 2


def test_build_only_measures_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(model, '--build-only', '--backend', 'onnxruntime') == 0
    shown = capsys.readouterr().out
    assert 'nothing to build, it runs on onnxruntime' in shown and 'throughput' not in shown


def test_top_down_is_measured_from_the_picture_to_the_key_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = np.zeros((1, 16, 16, 16), np.float32)
    pose = save_constant_detector(tmp_path / 'pose.onnx', {'heatmaps': maps})
    boxes = ultralytics_output([(16, 32, 16, 24, 0, 0.9)], classes=1)
    finder = save_constant_detector(
        tmp_path / 'finder.onnx', {'output0': boxes}, metadata=ultralytics_metadata(['person'])
    )
    report = report_of(pose, '--person-model-file-path', finder)
    assert report['pipeline']['way'] == 'picture to key points'
    assert report['pipeline']['person_model'] == str(finder)
    assert 'no persons' not in ' '.join(report['notes'])
    nobody = report_of(pose, '--person-model-file-path', finder, '--person-threshold', 0.95)
    assert any('no persons are in the first picture' in note for note in nobody['notes'])
    assert 'persons are found by' in ' '.join(capsys.readouterr().out.split())
