"""`isaac-infer demo --task robot`: the executor drives a simulated robot; what came of it, and a map."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.console import PLAIN, unfolded
from isaac_infer.cli.demo_nodes import (
    REPORT,
    DemoError,
    Nodes,
    check_replaceable,
    ignore_interrupts,
    progress,
    read_report,
    running,
    write_result,
    yaml_of,
)
from isaac_infer.cli.options import ALIASES, given_values
from isaac_infer.cli.report import show_written
from isaac_infer.core.text import counted, without_commands
from isaac_infer.engine.files import working_folder
from isaac_infer.params import TaskParams

TASK = 'robot'
SECONDS, RATE_HZ = 60.0, 30.0
MODEL = 'tabletop_detector.onnx'
SEED = 28  # of an arena in which the way is not free
SPEED_MPS = 0.4
MISSED = 0.01  # of the periods, above which they are told
START_TIMEOUT_S = 60.0  # from the start of the nodes until the robot moves
VALIDATION_TIMEOUT_S = 60.0
MAP, CONTACT_SHEET, VALIDATION = 'map.png', 'contact_sheet.png', 'validation.json'
STATUS = 'model_execution_status'
NODES = ('recorder', 'robot_simulator', 'jetson_executor', 'power_manager')  # in the order of their start


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if the robot drove, into nothing, and the deployment passed its validation."""
    rate_hz = RATE_HZ if args.rate is None else args.rate
    if useless := _useless_options(args):
        raise DemoError(
            f'{", ".join(useless)}: expected none with --task {TASK}, whose simulated camera and models are '
            f'its own; leave {"it" if len(useless) == 1 else "them"} out, or take another task'
        )
    if not 1 <= rate_hz <= 1000:
        raise DemoError(f'--rate: expected 1 to 1000 pictures per second, got {rate_hz:g}')
    if args.frames is not None and args.frames < 1:
        raise DemoError(f'--frames: expected at least 1, got {args.frames}')
    seconds = SECONDS if args.frames is None else args.frames / rate_hz
    check_replaceable(args.out, [MAP, CONTACT_SHEET, VALIDATION], key='answered')
    console = unfolded(Console())
    console.print(f'{MODEL} on a simulated robot, {seconds:g} s of driving', style='bold', **PLAIN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nodes first
    with working_folder('demo') as folder:
        try:
            report, is_interrupted = _drive(args, seconds, rate_hz, folder, console)
        except KeyboardInterrupt:
            console.print('ended before the robot moved')
            raise
        _show(report, console)
        results = {name: _content(folder / name) for name in (MAP, CONTACT_SHEET, VALIDATION)}
        results[REPORT] = (json.dumps(report, indent=2) + '\n').encode()
        for name, content in results.items():
            write_result(args.out / name, content)
            if content:
                show_written(args.out / name, console)
    if is_interrupted:
        return 130
    return 0 if is_good(report) else 1


def _useless_options(args: argparse.Namespace) -> list[str]:
    """The options that were given, but say nothing to a robot."""
    given = {'--source': args.source, 'MODEL': args.model}
    options = [ALIASES.get(name, f'--{name.replace("_", "-")}') for name in given_values(args, TaskParams)]
    return [name for name, value in given.items() if value] + options


def is_good(report: dict[str, Any]) -> bool:
    """Tell whether the robot drove, into nothing, and the deployment passed."""
    robot = _values(report, 'robot_simulator: robot')
    is_clean = float(robot.get('distance_m', 0)) > 0 and int(robot.get('collisions', 1)) == 0
    return is_clean and bool(report['validation'].get('passed'))


def _drive(
    args: argparse.Namespace, seconds: float, rate_hz: float, folder: Path, console: Console
) -> tuple[dict[str, Any], bool]:
    """Start the nodes, follow the drive, validate the deployment meanwhile, stop all.

    Returns:
        The report, and whether it was Ctrl-C.

    Raises:
        KeyboardInterrupt: it was, before the robot moved.
    """
    report_path = folder / REPORT
    with running(folder) as nodes, progress(console) as bar:
        values = _values_of_nodes(args, rate_hz, folder)
        for name in NODES:
            remapped = {'image': 'camera/image_raw'} if name == 'recorder' else None
            nodes.start(name, values[name], remapped=remapped)
        shown, began_s = bar.add_task('starting', total=seconds), time.monotonic()
        report: dict[str, Any] = {}
        driven_s, validated_s, is_interrupted = 0.0, 0.0, False
        try:
            while True:
                time.sleep(0.1)
                report = read_report(report_path)
                _check(nodes)
                driven_s = float(_values(report, 'robot_simulator: robot').get('driven_s', 0))
                if not driven_s and time.monotonic() - began_s > START_TIMEOUT_S:
                    raise DemoError(f'nothing moved within {START_TIMEOUT_S:g} s\n{nodes.last_words()}')
                if driven_s and not validated_s:
                    validated_s = time.monotonic()
                    nodes.start('deployment_validator', values['deployment_validator'])
                is_validated = validated_s and nodes.processes['deployment_validator'].poll() is not None
                doing = 'driving' if driven_s else 'starting'
                bar.update(shown, completed=min(driven_s, seconds), description=doing)
                if driven_s >= seconds and is_validated:
                    break
        except KeyboardInterrupt:
            is_interrupted = True
        ignore_interrupts()
        if is_interrupted and not driven_s:
            raise KeyboardInterrupt
        # The executor first, whose last command is to stand; the recorder last, which hears all last words.
        for name in (*([] if not validated_s else ['deployment_validator']), *reversed(NODES)):
            nodes.stop(name)
        validation = json.loads(_content(folder / VALIDATION) or b'{}')
        report = {**read_report(report_path), 'validation': validation}
        report['warnings'] = [*nodes.warnings(), *_late(report)]
        return report, is_interrupted


def _values_of_nodes(args: argparse.Namespace, rate_hz: float, folder: Path) -> dict[str, dict[str, Any]]:
    """Give the parameters of every node."""
    manifest = folder / 'manifest.yaml'
    manifest.write_text(yaml_of(manifest_of(rate_hz)))
    return {
        'recorder': {
            'report': str(folder / REPORT),
            'contact_sheet': str(folder / CONTACT_SHEET),
            'text_topics': [STATUS, 'load_level'],
        },
        'robot_simulator': {
            'seed': SEED,
            'camera_rate': rate_hz,
            'width': args.width,
            'height': args.height,
            'wander_mps': SPEED_MPS,
            'map': str(folder / MAP),
        },
        'jetson_executor': {
            'perception_model_path': MODEL,
            'enabled_at_start': True,
            'max_linear_mps': SPEED_MPS,
            'obey_load_level': True,
        },
        'power_manager': {'dry_run': True},
        'deployment_validator': {
            'manifest': str(manifest),
            'validation_timeout': VALIDATION_TIMEOUT_S,
            'report': str(folder / VALIDATION),
        },
    }


def manifest_of(rate_hz: float) -> dict[str, Any]:
    """Give what the deployment of the demo is; half the rates, as this machine may be busy otherwise."""
    return {
        'models': [{'path': MODEL, 'task': 'detection', 'reference': 'onnxruntime'}],
        'topics': [
            {'name': 'camera/image_raw', 'type': 'sensor_msgs/msg/Image', 'min_rate_hz': rate_hz / 2},
            {'name': 'scan', 'type': 'sensor_msgs/msg/LaserScan', 'min_rate_hz': 7.5},
            {'name': 'imu', 'type': 'sensor_msgs/msg/Imu', 'min_rate_hz': 50.0},
        ],
        'nodes': ['jetson_executor', 'power_manager', 'robot_simulator'],
        'outputs': [
            {
                'topic': 'detections',
                'type': 'vision_msgs/msg/Detection2DArray',
                'stamps_of': 'camera/image_raw',
                'max_age_ms': 1000.0,
            },
            {'topic': 'control_output', 'type': 'geometry_msgs/msg/Twist'},
        ],
    }


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b''


def _check(nodes: Nodes) -> None:
    """Raise DemoError where a node has ended that should go on."""
    for name in NODES:
        code = nodes.processes[name].poll()
        if code is not None:
            raise DemoError(f'{name} ended with code {code}\n{nodes.last_words()}')


def _values(report: dict[str, Any], status: str) -> dict[str, str]:
    values: dict[str, str] = report.get('statuses', {}).get(status, {}).get('values', {})
    return values


def _late(report: dict[str, Any]) -> list[str]:
    """Say that commands came late, where many did: that is the machine's fault, not the robot's."""
    missed = int(_values(report, 'jetson_executor: control_output').get('overruns', 0))
    sent = int(_values(report, 'robot_simulator: robot').get('commands', 0))
    if missed <= MISSED * (missed + sent):
        return []
    return [f'{counted(missed, "period")} of {missed + sent} passed without a command: this machine was busy']


def _show(report: dict[str, Any], console: Console) -> None:
    """Print the tables: the drive, control, why the robot stood, the validation."""
    robot = _values(report, 'robot_simulator: robot')
    control = _values(report, 'jetson_executor: control_output')
    seen = _values(report, 'jetson_executor: perception_output')
    drive = Table('drive', '', box=SIMPLE_HEAD)
    for key, label in {
        'driven_s': 'seconds',
        'distance_m': 'metres',
        'collisions': 'collisions',
        'stops': 'stops, at goals and before obstacles',
        'nearest_m': 'nearest obstacle ever, from the hull to any side, m',
        'timeouts': 'stops of the base itself, since no command came',
    }.items():
        drive.add_row(label, robot.get(key, 'unknown'))
    pace = Table('control', '', box=SIMPLE_HEAD)
    for key, label in {
        'rate_hz': 'commands per second',
        'jitter_ms_p99': 'jitter p99, ms',
        'overruns': 'periods missed',
        'deadline_missed': 'deadlines missed',
    }.items():
        pace.add_row(label, control.get(key, 'unknown'))
    for key, label in {'answered': 'pictures answered', 'total_ms_p95': 'picture p95, ms'}.items():
        pace.add_row(label, seen.get(key, 'unknown'))
    reasons = Table('what the executor told', 'times', box=SIMPLE_HEAD)
    for text, count in report.get('texts', {}).get(STATUS, {}).items():
        reasons.add_row(Text(text), str(count))
    console.print(Columns([drive, pace, reasons]))
    checks = report['validation'].get('checks', [])
    passed = sum(check['outcome'] == 'passed' for check in checks)
    verdict = report['validation'].get('verdict', 'it did not come to its end')
    console.print(f'validation: {passed} of {counted(len(checks), "check")} passed: {verdict}', **PLAIN)
    for warning in report['warnings']:
        console.print(f'warning: {without_commands(warning)}', style='yellow', **PLAIN)
