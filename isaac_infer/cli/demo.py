"""`isaac-infer demo`: image source, model and recorder as processes over DDS, and what came of it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli import demo_robot
from isaac_infer.cli.console import PLAIN, show_note, unfolded
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
)
from isaac_infer.cli.models import (
    DEFAULT_MODEL,
    add_model_argument,
    add_task_option,
    check_task,
    model_path,
    readable_task,
    take_model_argument,
)
from isaac_infer.cli.options import add_options, given_values
from isaac_infer.cli.report import show_written
from isaac_infer.core.source import DRAWN, HUMANOIDS, SYNTHETIC, is_picture, is_stream, open_source
from isaac_infer.core.text import counted, without_commands
from isaac_infer.engine.files import working_folder
from isaac_infer.engine.task import FIRST_TASK
from isaac_infer.params import ImageSourceParams, TaskParams

FRAMES, RATE_HZ = 100, 30.0
STILLS_RATE_HZ = 5.0  # of picture files: slow enough for most models on most machines to answer each
START_TIMEOUT_S = 60.0  # from the start of the nodes to the first picture
SETTLE_S = 1.5  # without news after the last picture: the end, unless the detector is still busy
BUSY_TIMEOUT_S = 60.0  # how long a busy detector is waited for
# How nodes speak of pictures that did not come, and of those that they had no time for.
LOWEST_RATE = 0.01  # of image_source
LOST, BUSY = 'pictures lost on the way here: ', 'came while the model was busy'
# After they came.
DROPPED_HERE = (
    'dropped_busy',
    'dropped_unpaired',
    'dropped_bad_image',
    'dropped_failed',
    'dropped_inactive',
    'dropped_load_level',
)
# By task: the node, the topic of its answers, the model of this package, and the pictures that it knows.
NODES = {
    'detection': ('detector_node', 'detections', DEFAULT_MODEL, SYNTHETIC),
    'segmentation': ('segmentation_node', 'detections', 'tabletop_instances.onnx', SYNTHETIC),
    'pose': ('pose_node', 'persons', 'humanoid_pose.onnx', HUMANOIDS),
}
CONTACT_SHEET = 'contact_sheet.png'  # in the folder for the results


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `demo` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'demo',
        help='run a model on pictures, or a simulated robot, over ROS 2 and show what came of it',
        description='Runs the image source, the node of the task and a recorder as separate ROS 2 processes, '
        'then prints what came of it and writes a contact sheet of annotated pictures. With --task robot '
        'a simulated robot drives among obstacles, and a map of the drive is written too.',
    )
    add_model_argument(parser)
    parser.add_argument(
        '--source',
        help='picture, folder, video, rosbag2 recording, camera, stream, synthetic or synthetic:humanoids '
        '(default: the drawn scenes that the model of the task knows)',
    )
    parser.add_argument(
        '--frames',
        type=int,
        help=f'pictures to send (default: {FRAMES}, or each picture file once; of the robot '
        f'{demo_robot.SECONDS * RATE_HZ:g}, in {demo_robot.SECONDS:g} s)',
    )
    parser.add_argument(
        '--rate',
        type=float,
        help=f'pictures per second (default: {RATE_HZ:g}; {STILLS_RATE_HZ:g} of picture files)',
    )
    parser.add_argument('--width', type=int, default=640, help='of synthetic pictures (default: %(default)s)')
    parser.add_argument(
        '--height', type=int, default=480, help='of synthetic pictures (default: %(default)s)'
    )
    parser.add_argument(
        '--out',
        type=lambda text: Path(os.path.expanduser(text)),  # make hands it over as it was written
        default=Path('out/demo'),
        help='folder for the results (%(default)s)',
    )
    add_task_option(parser)
    add_options(parser, TaskParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if pictures were answered, and none could not be read."""
    if args.task == demo_robot.TASK:
        return demo_robot.run(args)
    take_model_argument(args)
    check_task(args.task, demo_robot.TASK)
    model = given_values(args, TaskParams)
    if not _names_model(model):
        model['model_file_path'] = NODES[args.task or FIRST_TASK][2]
    # The node would say only after seconds that it is not readable.
    task, notes = readable_task(args, TaskParams(**model))
    _, _, _, own_source = NODES[task]
    args.source = args.source or own_source
    _choose_pictures(args)
    ImageSourceParams(
        source=args.source, frames=args.frames, rate=args.rate, width=args.width, height=args.height
    )
    check_replaceable(args.out, [CONTACT_SHEET], key='answered')
    console = unfolded(Console())
    console.print(
        f'{model_path(TaskParams(**model))} on {args.source}: '
        f'{counted(args.frames, "picture")} at {args.rate:g} Hz',
        style='bold',
        **PLAIN,
    )
    for note in notes:
        show_note(note, console)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nodes first
    with working_folder('demo') as folder:
        try:
            report, is_interrupted = _play(args, task, model, folder, console)
        except KeyboardInterrupt:
            console.print('ended before the first picture was answered')
            raise
        _show(report, NODES[task][0], console)
        sheet = (folder / CONTACT_SHEET).read_bytes() if (folder / CONTACT_SHEET).exists() else b''
        results = {CONTACT_SHEET: sheet, REPORT: (json.dumps(report, indent=2) + '\n').encode()}
        for name, content in results.items():  # only now: what an earlier run wrote outlives one that fails
            write_result(args.out / name, content)
            if content:
                show_written(args.out / name, console)
    if is_interrupted:
        return 130
    # It reads ahead: what it could not read may be what nobody asked for.
    is_short = _count(report, 'image_source', 'sent') < args.frames
    is_broken = _count(report, 'image_source', 'unreadable') and is_short
    return 0 if report['answered'] and not is_broken else 1


def _choose_pictures(args: argparse.Namespace) -> None:
    """Settle how many pictures are sent, and how fast, where the user has not; each picture file once.

    As often as it takes where the user says how many.
    """
    if args.frames is not None and args.frames < 1:
        raise DemoError(f'--frames: expected at least 1, got {args.frames}')
    stills = 0
    args.loop = True
    if args.source not in DRAWN and not is_stream(args.source):
        with open_source(args.source) as source:
            stills = len(source.paths) if all(is_picture(path) for path in source.paths) else 0
    if args.frames is None:
        args.loop = not stills
        args.frames = min(stills, FRAMES) or FRAMES
    if args.rate is None:
        args.rate = STILLS_RATE_HZ if stills else RATE_HZ


def _names_model(values: dict[str, Any]) -> bool:
    return bool(values.get('model_file_path') or values.get('engine_file_path'))


def _play(
    args: argparse.Namespace, task: str, model: dict[str, Any], folder: Path, console: Console
) -> tuple[dict[str, Any], bool]:
    """Start the three nodes, follow the recorder until all is answered or the source has ended, stop all.

    Returns:
        The report, and whether it was Ctrl-C.

    Raises:
        KeyboardInterrupt: it was, before there was anything to report.
    """
    report_path = folder / REPORT
    names = ('source', 'frames', 'loop', 'rate', 'width', 'height')
    picture_values = {name: getattr(args, name) for name in names}
    node, answers, _, _ = NODES[task]
    recorded = {'report': str(report_path), 'contact_sheet': str(folder / CONTACT_SHEET)}
    nodes = {
        'recorder': {**recorded, 'use_overlay': task != 'detection'},  # boxes it draws itself, off the clock
        node: {**_usual_values(task, args.source), **model},
        'image_source': {**picture_values, 'wait_for_subscribers': 2},
    }
    with running(folder) as started, progress(console) as bar:
        for name, values in nodes.items():
            started.start(name, values, remapped={'detections': answers} if name == 'recorder' else None)
        processes = started.processes
        shown = bar.add_task('starting', total=args.frames)
        report: dict[str, Any] = {}
        last_news = time.monotonic()
        is_interrupted = False
        try:
            while True:
                time.sleep(0.1)
                before, report = report, read_report(report_path)
                _check(started, report)
                if _counts(report) != _counts(before):
                    last_news = time.monotonic()
                doing = 'answered' if report.get('answered') else _waiting_for(report)
                bar.update(shown, completed=report.get('answered', 0), description=doing)
                if report.get('answered') == args.frames:
                    break
                quiet_s = time.monotonic() - last_news
                patience_s = BUSY_TIMEOUT_S if _is_busy(report, node) else SETTLE_S
                if processes['image_source'].poll() is not None and quiet_s > patience_s:
                    break
                if not report.get('pictures') and quiet_s > START_TIMEOUT_S:
                    raise DemoError(f'no picture came within {START_TIMEOUT_S:g} s\n{started.last_words()}')
        except KeyboardInterrupt:
            is_interrupted = True
        ignore_interrupts()
        if is_interrupted and not report.get('answered'):
            raise KeyboardInterrupt
        # Each hears the last words of those before it; the recorder writes the contact sheet on its way out.
        for name in reversed(nodes):
            started.stop(name)
        report = read_report(report_path)
        return {**report, 'warnings': _warnings(started.warnings(), report, node)}, is_interrupted


def _usual_values(task: str, source: str) -> dict[str, Any]:
    """What a demo has a node do otherwise than by default."""
    values: dict[str, Any] = {'image_timeout_s': START_TIMEOUT_S}  # what is waited for is said here
    if task == 'pose' and source in DRAWN:
        values['track'] = False  # nobody walks from one drawn scene into the next
    return values


def _waiting_for(report: dict[str, Any]) -> str:
    """What the nodes are doing before the first answer."""
    said = [status['message'] for status in report.get('nodes', {}).values()]
    return ', '.join(text for text in said if text.startswith(('opening', 'drawing'))) or 'starting'


def _is_busy(report: dict[str, Any], node: str) -> bool:
    """Tell whether a node has pictures that it has neither answered nor dropped."""
    values = report.get('nodes', {}).get(node, {}).get('values', {})
    done = sum(int(count) for key, count in values.items() if key == 'answered' or key in DROPPED_HERE)
    return done < int(values.get('received', 0))


def _warnings(said: Sequence[str], report: dict[str, Any], node: str) -> list[str]:
    """What the nodes warned of; what they say of a part of the run in figures of all of it."""
    warnings = [text for text in said if not text.startswith(LOST) and BUSY not in text]
    if lost := _lost(report, node):
        remedies = [text.partition('; ')[2] for text in said if text.startswith(LOST)]
        remedy = remedies[0] if remedies else 'try a lower rate, smaller pictures or a faster receiver'
        sent = counted(_count(report, 'image_source', 'sent'), 'picture')
        warnings.append(f'{lost} of {sent} lost on the way; {remedy}')
    if busy := _count(report, node, 'dropped_busy'):
        values = report['nodes'][node]['values']
        rate, came = (float(values[key]) for key in ('rate_hz', 'input_rate_hz'))
        slower = f'{floor(rate) or floor(rate * 10) / 10 or LOWEST_RATE:g}'
        warnings.append(
            f'{rate:.1f} pictures per second of {came:.1f}; {busy} {BUSY}: a robot wants the newest alone; '
            f'for all of them --rate {slower}, with make RATE={slower}'
        )
    return warnings


def _count(report: dict[str, Any], node: str, key: str) -> int:
    """A number that a node counts; 0 where it has not said it."""
    return int(report['nodes'].get(node, {}).get('values', {}).get(key, 0))


def _lost(report: dict[str, Any], node: str) -> int:
    """How many pictures did not come: no counter of the middleware shows all of them."""
    return max(_count(report, 'image_source', 'sent') - _count(report, node, 'received'), 0)


def _counts(report: dict[str, Any]) -> tuple[int, int]:
    return report.get('pictures', 0), report.get('answered', 0)


def _check(nodes: Nodes, report: dict[str, Any]) -> None:
    """Raise DemoError where a node has ended too early or says that it cannot work."""
    for name, process in nodes.processes.items():
        code = process.poll()
        # A source that could not read some of its pictures ends with 1, and the others are answered.
        is_done = name == 'image_source' and (code == 0 or (code == 1 and report.get('pictures')))
        if code is not None and not is_done:
            raise DemoError(f'{name} ended with code {code}\n{nodes.last_words()}')
    for name, status in report.get('nodes', {}).items():
        is_source = name == 'image_source'  # it goes on after a picture that it could not read
        if status['level'] == 'ERROR' and not report['answered'] and not is_source:
            raise DemoError(f'{name}: {status["message"]}')


def _show(report: dict[str, Any], node: str, console: Console) -> None:
    """Print the tables: pictures, objects by class, times by stage."""
    values = {name: status['values'] for name, status in report['nodes'].items()}
    detector, source = values.get(node, {}), values.get('image_source', {})
    counts = Table('pictures', '', box=SIMPLE_HEAD)
    counts.add_row('sent', source.get('sent', 'unknown'))
    if unreadable := _count(report, 'image_source', 'unreadable'):
        counts.add_row('unreadable', str(unreadable))
    counts.add_row('answered', str(report['answered']))
    if lost := _lost(report, node):
        counts.add_row('lost on the way', str(lost))
    for key, count in detector.items():
        if key == 'dropped_lost_in_transport':
            continue
        if key.startswith('dropped_') and count != '0':
            counts.add_row(key.replace('_', ': ', 1).replace('_', ' '), count)
    classes = Table('found', 'times', box=SIMPLE_HEAD)
    for name, count in report['classes'].items():
        classes.add_row(Text(name), str(count))
    times = Table('milliseconds', 'p50', 'p95', 'p99', box=SIMPLE_HEAD)
    for stage in dict.fromkeys(key.rsplit('_ms_p', 1)[0] for key in detector if '_ms_p' in key):
        times.add_row(
            stage.replace('_', ' '), *(f'{float(detector[f"{stage}_ms_p{p}"]):.2f}' for p in (50, 95, 99))
        )
    if report['latency_ms']:
        times.add_row(
            'picture stamp to result here', *(f'{value:.2f}' for value in report['latency_ms'].values())
        )
    console.print(Columns([counts, classes, times]))
    console.print(f'{detector.get("decoder", "")} on {detector.get("backend", "")}', style='dim', **PLAIN)
    for warning in report['warnings']:
        console.print(f'warning: {without_commands(warning)}', style='yellow', **PLAIN)
