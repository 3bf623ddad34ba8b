"""Manifest: read strictly; what is wrong in it is named with its place."""

import json

import pytest

from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.deploy.manifest import BudgetEntry, Manifest, ModelEntry, place_of, read_manifest


def written(tmp_path, text, name='robot.yaml'):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_manifest_says_what_a_deployment_is(tmp_path):
    text = """
models:
  - {path: a.onnx, task: detection, tolerance: 0.01, latency_budget_ms: 20}
topics:
  - {name: camera/image_raw, type: sensor_msgs/msg/Image}
  - {name: scan, type: sensor_msgs/msg/LaserScan, min_rate_hz: 9.5, frame_id: laser, reliability: reliable}
nodes: [detector_node]
outputs:
  - {topic: detections, type: vision_msgs/msg/Detection2DArray, stamps_of: camera/image_raw, max_age_ms: 150}
board: {mode: MAXN_SUPER, clocks: fixed}
disk_free_mb: 500
clock_sync: true
budget: {nodes: [detector_node], inference: 12}
optional: ['system: clock']
"""
    manifest = read_manifest(written(tmp_path, text))
    assert manifest.models == (
        ModelEntry(path='a.onnx', task='detection', tolerance=0.01, latency_budget_ms=20.0),
    )
    assert manifest.topics[1].min_rate_hz == 9.5
    assert manifest.budget == BudgetEntry(nodes=('detector_node',), inference=12.0)
    assert manifest.budget.limits_ms() == {'inference': 12.0}
    assert manifest.clock_sync is True
    assert manifest.listen_s == Manifest().listen_s
    assert manifest.folder == tmp_path


def test_json_says_the_same_with_its_own_numbers(tmp_path):
    content = {'disk_free_mb': 5, 'clock_sync': False}
    assert read_manifest(written(tmp_path, json.dumps(content), 'robot.json')).disk_free_mb == 5.0


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'manifest: expected a mapping, got nothing'),
        ('- a', 'manifest: expected a mapping, got a list'),
        ('{}', 'expected something to check'),
        ('model: []', 'model: unknown; expected models'),
        ('models: {path: a.onnx}', 'models: expected a list, got a mapping'),
        ('models: [a.onnx]', r"models\[0\]: expected a mapping, got 'a.onnx'"),
        ('models: [{sha256: ab}]', r'models\[0\].path: expected a value, got none'),
        ('models: [{path: a.onnx, sha265: ab}]', r'models\[0\].sha265: unknown; expected sha256'),
        ('models: [{path: a.onnx, sha256: AB}]', 'sha256: expected 64 digits'),
        ('models: [{path: a.onnx, task: detect}]', 'task: expected one of detection, segmentation, pose'),
        ('models: [{path: a.onnx, tolerance: .nan}]', 'tolerance: expected a number of at least 0'),
        ('models: [{path: a.onnx, tolerance: -1}]', 'tolerance: expected a number of at least 0'),
        ('models: [{path: a.onnx}, {path: b/a.onnx}]', "models: expected each name once, got 'a.onnx'"),
        ('topics: [{name: scan, type: LaserScan}]', 'expected one such as sensor_msgs/msg/Image'),
        ('topics: [{name: a, type: b/msg/C, min_rate_hz: fast}]', r"min_rate_hz: .*got 'fast'"),
        (
            'outputs: [{topic: a, type: b/msg/C, stamps_of: scan}]',
            r"outputs: a: stamps_of: expected one of topics \(none\), got 'scan'",
        ),
        ('nodes: detector_node', "nodes: expected a list, got 'detector_node'"),
        ('nodes: [[a]]', r'nodes\[0\]: expected a text, got a list'),
        ('clock_sync: 1', 'clock_sync: expected true or false'),
        ('board: {}', 'board: expected mode or clocks, got neither'),
        ('board: {clocks: max}', 'board.clocks: expected one of mode, fixed'),
        ('budget: {inference: 3}', 'budget.nodes: expected a value'),
        ('budget: {nodes: [a]}', 'budget: expected milliseconds of a stage'),
        ('budget: {nodes: [a], infer: 3}', 'budget.infer: unknown'),
        ('disk_free_mb: ~', 'disk_free_mb: expected a number of at least 0, got nothing'),
        ('folder: /', 'folder: unknown'),
        ('a: [', 'cannot be read as a manifest'),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, text, message):
    with pytest.raises(ParameterError, match=message) as error:
        read_manifest(written(tmp_path, text))
    assert 'robot.yaml: ' in str(error.value)


@pytest.mark.parametrize('value', ['true', '[1]', '"x"', '1e999', 'null', '{}'])
def test_json_of_another_type_is_refused(tmp_path, value):
    path = written(tmp_path, f'{{"disk_free_mb": {value}}}', 'robot.json')
    with pytest.raises(ParameterError, match='disk_free_mb: expected a number'):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ParameterError, match='No such file'):
        read_manifest(tmp_path / 'robot.yaml')


def test_files_are_looked_up_in_the_folder_of_models_then_beside_the_manifest_then_elsewhere(tmp_path):
    first, second = tmp_path / 'models', tmp_path / 'robot'
    for folder in (first, second):
        folder.mkdir()
        (folder / 'a.onnx').touch()
    (second / 'b.onnx').touch()
    assert place_of('a.onnx', folder=second, model_directory=str(first)) == first / 'a.onnx'
    assert place_of('a.onnx', folder=second) == second / 'a.onnx'
    assert place_of('b.onnx', folder=second, model_directory=str(first)) == second / 'b.onnx'
    assert place_of('tabletop_detector.onnx', folder=second).parent.name == 'models'
    with pytest.raises(ModelError, match='no such model file'):
        place_of('c.onnx', folder=second)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('robot.yaml', 'nodes: [a]\nclock_sync: true\nnodes: [b]\n'),
        ('robot.yaml', 'models:\n- {path: a.onnx, tolerance: 0.001, tolerance: 1000}\n'),
        ('robot.json', '{"nodes": ["a"], "nodes": ["b"]}'),
    ],
)
def test_what_is_there_twice_is_refused_and_not_the_last_one_taken(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ParameterError, match="expected each key once, got '(nodes|tolerance)' twice"):
        read_manifest(tmp_path / name)


def test_an_agreement_is_a_share_and_no_percentage(tmp_path):
    (tmp_path / 'robot.yaml').write_text('models: [{path: a.onnx, min_agreement: 95}]')
    with pytest.raises(ParameterError, match="min_agreement: expected a number from 0 to 1, got '95'"):
        read_manifest(tmp_path / 'robot.yaml')
