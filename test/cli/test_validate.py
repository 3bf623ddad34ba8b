"""`isaac-infer validate`: the table, the file, the exit code, and a manifest to begin with."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from domains import own_domain
from onnx import TensorProto, helper

from isaac_infer.cli import validate as module
from isaac_infer.cli.main import main
from isaac_infer.deploy.checks import Check, Group
from models import save_model

ROOT = Path(__file__).parents[2]
DETECTOR = 'tabletop_detector.onnx'


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody else's nodes are validated."""
    monkeypatch.setenv('ROS_DOMAIN_ID', own_domain())
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if os.environ.get('ROS_DISTRO') == 'humble':
        monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')


@pytest.fixture
def manifest(tmp_path):
    def write(**content):
        path = tmp_path / 'robot.json'
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_models_that_are_as_they_were_written_down_pass_and_others_do_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('a.onnx').write_bytes((ROOT / 'models' / DETECTOR).read_bytes())
    assert main(['validate', '--write', 'deployment.yaml', 'a.onnx', 'humanoid_pose.onnx']) == 0
    written = yaml.safe_load(Path('deployment.yaml').read_text())
    assert [model['task'] for model in written['models']] == ['detection', 'pose']
    assert [model['path'] for model in written['models']] == ['a.onnx', 'humanoid_pose.onnx']
    assert main(['validate']) == 0  # deployment.yaml
    assert 'deployment passed: 10 passed, 0 failed, 0 not run' in capsys.readouterr().out

    content = Path('a.onnx').read_bytes()
    Path('a.onnx').write_bytes(content + b' ')
    assert main(['validate']) == 1
    assert re.search('a.onnx: hash +failed', capsys.readouterr().out)

    Path('a.onnx').write_bytes(content)
    with np.load('deployment.a.onnx.npz') as stored:
        spoiled = {name: value + 1 for name, value in stored.items()}
    np.savez('deployment.a.onnx.npz', **spoiled)
    assert main(['validate']) == 1
    out = capsys.readouterr().out
    assert re.search('a.onnx: sample +failed', out)
    assert 'expected the reference within 0.001' in out


def test_every_commented_line_of_a_written_manifest_is_one_of_a_manifest(tmp_path, capsys):
    path = tmp_path / 'robot.yaml'
    assert main(['validate', '--write', str(path), DETECTOR]) == 0
    text = path.read_text()
    path.write_text(re.sub('^( *)# (?=[a-z ] ?.*[:{])', r'\1', text, flags=re.MULTILINE))
    report = tmp_path / 'report.json'
    main(['validate', str(path), '--offline', '--json', str(report)])
    names = {check['name'] for check in json.loads(report.read_text())['checks']}
    assert {'camera/image_raw: topic', 'detections: output', 'latency: budget', 'board: clocks'} <= names
    assert f'{DETECTOR}: latency' in names


def test_models_whose_names_differ_in_their_suffix_have_outputs_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, model in (('a.onnx', DETECTOR), ('a.ONNX', 'tabletop_segmentation.onnx')):
        Path(name).write_bytes((ROOT / 'models' / model).read_bytes())
    assert main(['validate', '--write', 'deployment.yaml', 'a.onnx', 'a.ONNX']) == 0
    assert main(['validate']) == 0


def test_each_model_of_a_manifest_has_a_task_of_its_own_found_or_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kinds = {'scan': (TensorProto.FLOAT, (1, 8))}, {'command': (TensorProto.FLOAT, (1, 1))}
    node = helper.make_node('ReduceMean', ['scan'], ['command'], axes=[1], keepdims=1)
    save_model(tmp_path / 'policy.onnx', [node], *kinds)
    kinds = {'picture': (TensorProto.FLOAT, (1, 3, 8, 8))}, {'command': (TensorProto.FLOAT, (1, 1, 1, 1))}
    node = helper.make_node('ReduceMean', ['picture'], ['command'], axes=[1, 2, 3], keepdims=1)
    save_model(tmp_path / 'seeing.onnx', [node], *kinds)
    models = [DETECTOR, 'policy.onnx', 'seeing.onnx']
    write = ['validate', '--write', 'deployment.yaml', *models]
    assert main([*write, '--task', 'gone.onnx=policy']) == 2
    assert f"task: expected a model of {', '.join(models)}, got 'gone.onnx'" in capsys.readouterr().err
    assert main([*write, '--task', 'seeing.onnx=policy']) == 0
    written = yaml.safe_load(Path('deployment.yaml').read_text())
    assert [model['task'] for model in written['models']] == ['detection', 'policy', 'policy']
    assert main(['validate']) == 0


def test_a_manifest_that_is_there_is_not_written_over(tmp_path, capsys):
    path = tmp_path / 'robot.yaml'
    path.write_text('mine')
    assert main(['validate', '--write', str(path), DETECTOR]) == 2
    assert 'exists already' in capsys.readouterr().err
    assert path.read_text() == 'mine'


def test_the_file_has_what_the_table_has(manifest, tmp_path, capsys):
    report = tmp_path / 'report.json'
    path = manifest(disk_free_mb=1e12, models=[{'path': DETECTOR, 'backend': 'onnxruntime'}])
    assert main(['validate', path, '--json', str(report)]) == 1
    assert f'written: {report}' in capsys.readouterr().out
    content = json.loads(report.read_text())
    assert (content['passed'], content['deployment']) == (False, path)
    assert {check['name']: check['outcome'] for check in content['checks']} == {
        f'{DETECTOR}: file': 'passed',
        f'{DETECTOR}: load': 'passed',
        f'{DETECTOR}: zeros': 'passed',
        f'{DETECTOR}: sample': 'passed',
        'system: disk': 'failed',
    }
    assert main(['validate', path, '--json', '-']) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)['checks'][-1]['name'] == 'system: disk'
    assert 'deployment not passed' in captured.err


def test_offline_what_needs_ros_is_not_run_and_does_not_decide(manifest, tmp_path, capsys):
    report = tmp_path / 'report.json'
    path = manifest(disk_free_mb=1, nodes=['detector_node'])
    assert main(['validate', path, '--offline', '--json', str(report)]) == 0
    (_, node) = json.loads(report.read_text())['checks']
    assert (node['outcome'], node['reason']) == ('not run', '--offline was given')
    assert main(['validate', manifest(nodes=['detector_node']), '--offline']) == 1  # nothing is known
    assert 'no required check' in capsys.readouterr().out


def test_over_ros_a_node_is_started_that_checks(manifest, tmp_path, capsys):
    pytest.importorskip('rclpy', reason='there is no ROS')
    report = tmp_path / 'report.json'
    path = manifest(
        disk_free_mb=1, nodes=['nobody'], listen_s=0.1, budget={'nodes': ['nobody'], 'inference': 5}
    )
    assert main(['validate', path, '--json', str(report), '--namespace', 'robot1']) == 1
    checks = {check['name']: check for check in json.loads(report.read_text())['checks']}
    assert list(checks) == ['system: disk', 'nobody: node', 'latency: budget']
    assert checks['nobody: node']['reason'] == 'expected one node /robot1/nobody, got none'
    out = capsys.readouterr().out
    assert re.search('inference +unknown +5 +not measured', out)
    assert 'first: nobody: node: expected one node' in out


def test_a_manifest_that_is_changed_meanwhile_is_no_pass_with_fewer_checks(manifest, capsys, monkeypatch):
    pytest.importorskip('rclpy', reason='there is no ROS')
    path, check = manifest(disk_free_mb=1, nodes=['nobody']), module._local_results

    def change_after(*given, **options):
        results = check(*given, **options)
        manifest(disk_free_mb=1)
        return results

    monkeypatch.setattr(module, '_local_results', change_after)
    assert main(['validate', path]) == 1
    assert f'says nothing of nobody: node; was {path} changed meanwhile?' in capsys.readouterr().err


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_model_runs_ends_it_in_order_and_an_old_report_says_no_pass(tmp_path, number, code):
    (tmp_path / 'robot.yaml').write_text(f'models: [{{path: {DETECTOR}, latency_budget_ms: 1000}}]')
    report = tmp_path / 'report.json'
    report.write_text('{"deployment": "robot.yaml", "passed": true, "checks": []}')
    words = ['validate', str(tmp_path / 'robot.yaml'), '--json', str(report)]
    process = subprocess.Popen(
        [sys.executable, '-m', 'isaac_infer.cli.main', *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(_slow_latency(tmp_path))},
    )
    assert process.stderr.readline() == b'measuring\n'
    process.send_signal(number)
    assert (process.wait(20), process.stderr.read()) == (code, b'')
    content = json.loads(report.read_text())
    assert (content['passed'], content['verdict']) == (
        False,
        'deployment not passed: the validation has not ended',
    )


def test_under_nohup_it_outlives_its_terminal(tmp_path):
    (tmp_path / 'robot.yaml').write_text(f'models: [{{path: {DETECTOR}, latency_budget_ms: 1000}}]')
    words = [sys.executable, '-m', 'isaac_infer.cli.main', 'validate', str(tmp_path / 'robot.yaml')]
    process = subprocess.Popen(
        ['nohup', *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(_slow_latency(tmp_path))},
    )
    assert process.stderr.readline() == b'measuring\n'
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert (process.wait(20), process.stderr.read()) == (143, b'')


def _slow_latency(folder):
    """A folder for PYTHONPATH, with which a latency takes long and its begin is told."""
    (folder / 'sitecustomize.py').write_text(
        'import sys\n'
        'from isaac_infer.deploy import model_checks\n'
        'once = model_checks.ModelUnderTest._once\n'
        'def told(self):\n'
        '    print("measuring", file=sys.stderr, flush=True)\n'
        '    return once(self)\n'
        'model_checks.ModelUnderTest._once = told\n'
        'model_checks.MOST_RUNS, model_checks.MEASURED_S = 10**9, 99\n'
    )
    return folder


def test_a_node_that_cannot_be_run_is_told_with_its_last_words(manifest, capsys, monkeypatch):
    monkeypatch.setattr(module, 'main_of', lambda name: 'sys.exit("no rclpy here")')
    assert main(['validate', manifest(nodes=['a'])]) == 1
    assert 'deployment_validator ended with code 1:\nno rclpy here' in capsys.readouterr().err


def test_a_check_that_does_not_end_ends_the_command_all_the_same(manifest, monkeypatch, capsys):
    release, left = threading.Event(), []
    stuck = [Group((Check('stuck', lambda: release.wait() and {}),))]
    monkeypatch.setattr(module, 'checks_of', lambda *_, **__: (stuck, []))
    monkeypatch.setattr(module, 'PATIENCE_S', 0.0)
    monkeypatch.setattr(module.os, '_exit', left.append)
    assert main(['validate', manifest(disk_free_mb=1), '--timeout', '0.3']) == 1
    release.set()
    assert left == [1]
    assert 'not done when the time for all checks, 0.3 s, was over' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            [],
            'no deployment.yaml, which is the default; write one: isaac-infer validate --write deployment.y',
        ),
        (
            ['gone.yaml'],
            'No such file or directory; write one: isaac-infer validate --write gone.yaml MODEL ...',
        ),
        (
            [DETECTOR],
            f'got a model; write one of it first: isaac-infer validate --write deployment.yaml {DETECTOR}',
        ),
        (['a.ENGINE'], 'a.ENGINE: expected a manifest, got a model'),
        (['a.yaml', 'b.yaml'], 'expected one manifest, got 2'),
        (['--write', 'a.yaml'], '--write: expected models'),
        (['--write', 'a.yaml', DETECTOR, '--task', 'poses'], '--task: expected one of detection'),
        (['--timeout', '0', 'gone.yaml'], 'validation_timeout: expected float from 0.1'),
    ],
)
def test_what_is_impossible_is_told(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(['validate', *arguments]) == 2
    assert message in capsys.readouterr().err


def test_names_of_a_manifest_command_no_terminal(manifest, capsys):
    main(['validate', manifest(models=[{'path': '\033[2J\nx.onnx'}])])
    captured = capsys.readouterr()
    assert '\033[2J' not in captured.out + captured.err


def test_the_manifest_of_the_readme_is_understood(tmp_path, capsys):
    chapter = (ROOT / 'README.md').read_text().partition('### Validate a deployment')[2]
    (tmp_path / 'robot.yaml').write_text(re.search('```yaml\n(.*?)```', chapter, re.DOTALL)[1])
    report = tmp_path / 'report.json'
    main(['validate', str(tmp_path / 'robot.yaml'), '--offline', '--json', str(report)])
    checks = json.loads(report.read_text())['checks']
    assert len({check['name'] for check in checks}) == len(checks) == 15
