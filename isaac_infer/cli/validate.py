"""`isaac-infer validate`: whether what is here is the deployment that a manifest describes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.console import PLAIN, unfolded
from isaac_infer.cli.report import (
    STANDARD_OUTPUT,
    add_json_option,
    check_place_of_report,
    console_beside,
    show_written,
    write_report,
)
from isaac_infer.core.child import main_of, python_command, python_environment
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import IsaacInferError, ParameterError
from isaac_infer.core.text import printable, without_commands
from isaac_infer.deploy.checks import (
    FAILED,
    NOT_RUN,
    PASSED,
    Result,
    is_busy,
    report_of,
    results_of,
    run_checks,
    unfinished_report,
    values_of,
)
from isaac_infer.deploy.manifest import (
    DEFAULT_MANIFEST,
    POLICY,
    STAGES,
    Manifest,
    how_to_write,
    read_manifest,
    ros_names,
)
from isaac_infer.deploy.parts import checks_of
from isaac_infer.deploy.register import manifest_text, register
from isaac_infer.engine.files import working_folder, write_whole
from isaac_infer.params import ValidatorParams

START_S = 30.0  # that a node may take to begin and to end, beside its checks
STOP_TIMEOUT_S = 15.0  # from Ctrl-C to its end
PATIENCE_S = 2.0  # with a check that is under way at the end
INTERRUPTED = 130  # the exit code after Ctrl-C
STYLES = {PASSED: 'green', FAILED: 'red', NOT_RUN: 'yellow'}
OFFLINE = '--offline was given'


class ValidateError(IsaacInferError):
    """The node that checks over ROS could not be run."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `validate` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'validate',
        help='check models, board, topics and nodes against a manifest',
        description='Checks whether what is here is the deployment that a manifest describes: its models, '
        'the board, and over ROS its topics, nodes and outputs. Exit code 0 only if all required checks '
        'passed.',
    )
    parser.add_argument(
        'files',
        metavar='MANIFEST',
        nargs='*',
        help=f'YAML or JSON file (default: {DEFAULT_MANIFEST}); with --write the models',
    )
    parser.add_argument('--offline', action='store_true', help='leave out what needs ROS')
    parser.add_argument(
        '--model-directory', metavar='FOLDER', default='', help='where models are looked up first'
    )
    parser.add_argument(
        '--timeout',
        metavar='SECONDS',
        type=float,
        default=ValidatorParams().validation_timeout,
        help='for all checks; those that are left then are not run (default: %(default)g)',
    )
    parser.add_argument(
        '--namespace', metavar='NAME', default='', help='of the nodes and topics of the manifest'
    )
    add_json_option(parser)
    parser.add_argument(
        '--write',
        metavar='MANIFEST',
        type=Path,
        help='write a manifest of models, with their hashes and outputs as they are here, to begin with',
    )
    parser.add_argument(
        '--task',
        metavar='[MODEL=]TASK',
        action='append',
        default=[],
        help=f'of one model of --write, or of all others: {", ".join((*TASKS, POLICY))} (default: found)',
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Validate, or write a manifest."""
    if args.write is not None:
        return _write(args)
    if len(args.files) > 1:
        raise ParameterError(f'expected one manifest, got {len(args.files)}; with --write they are models')
    path = Path(args.files[0] if args.files else DEFAULT_MANIFEST)
    if not args.files and not path.exists():
        raise ParameterError(
            f'expected a manifest, got none, and there is no {path}, which is the default; write one: '
            f'{how_to_write(path)}'
        )
    # The same bounds as those of the node.
    params = ValidatorParams(validation_timeout=args.timeout, model_directory=args.model_directory)
    manifest = read_manifest(path)
    check_place_of_report(args.json)
    if args.json != STANDARD_OUTPUT and Path(args.json).is_file():
        write_report(args.json, unfinished_report(str(path)))
    console = unfolded(console_beside(args.json))
    begun_s = monotonic()
    results, is_stuck = _local_results(manifest, params, console, is_offline=args.offline)
    if not args.offline and ros_names(manifest):
        left_s = max(params.validation_timeout - (monotonic() - begun_s), 0.1)
        results += _ros_results(path, manifest, left_s, args.namespace, console)
    took_s = monotonic() - begun_s
    report = report_of(str(path), results)
    console.print(results_table(results), highlight=False)
    for table in budget_tables(results):
        console.print(table, highlight=False)
    style = 'green' if report['passed'] else 'red'
    console.print(f'{without_commands(report["verdict"])} ({took_s:.1f} s)', style=style, **PLAIN)
    write_report(args.json, {**report, 'seconds': took_s})
    if args.json not in ('', STANDARD_OUTPUT):
        show_written(args.json, console)
    code = 0 if report['passed'] else 1
    if is_stuck:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """End the process while a thread is still inside a library, without unloading that."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _local_results(
    manifest: Manifest, params: ValidatorParams, console: Console, *, is_offline: bool
) -> tuple[list[Result], bool]:
    """What comes of the checks without ROS, and whether one of them does not end."""
    cancelled = threading.Event()
    groups, others = checks_of(
        manifest,
        ('models', 'board'),
        model_directory=params.model_directory,
        cancelled=cancelled,
        why_not=OFFLINE,
    )
    count = sum(len(group.checks) for group in groups)
    results: list[Result] = []
    names = [check.name for group in groups for check in group.checks]
    try:
        with console.status('') as status:
            status.update(f'checking {printable(names[0])}' if names else '')
            for result in run_checks(groups, timeout_s=params.validation_timeout, cancelled=cancelled):
                results.append(result)
                if len(results) < count:
                    status.update(f'checking {printable(names[len(results)])}')
    except (KeyboardInterrupt, SystemExit) as end:
        cancelled.set()
        if is_busy(PATIENCE_S):
            _leave(INTERRUPTED if isinstance(end, KeyboardInterrupt) else int(end.code or 0))
        raise
    return [*results, *(others if is_offline else [])], is_busy(PATIENCE_S)


def _ros_results(
    path: Path, manifest: Manifest, timeout_s: float, namespace: str, console: Console
) -> list[Result]:
    """What a node, run once as a child, says of the checks over ROS."""
    names = set(ros_names(manifest))
    with working_folder('validate') as folder, console.status('checking over ROS'):
        report = folder / 'report.json'
        values = {
            'manifest': str(path.absolute()),
            'parts': ['ros'],
            'validation_timeout': timeout_s,
            'report': str(report),
        }
        parameters = folder / 'parameters.yaml'
        parameters.write_text(json.dumps({'/**': {'ros__parameters': values}}))
        options = ['--ros-args', '--params-file', str(parameters)]
        options += ['-r', f'__ns:=/{namespace.strip("/")}'] if namespace.strip('/') else []
        log = folder / 'log'
        with _running(options, log) as process:
            try:
                code = process.wait(timeout_s + START_S)
            except subprocess.TimeoutExpired:
                raise ValidateError(
                    f'deployment_validator does not end after {timeout_s + START_S:.0f} s'
                ) from None
        if not report.exists():
            said = without_commands(log.read_text(errors='replace').strip())
            raise ValidateError(f'deployment_validator ended with code {code}:\n{said or "it said nothing"}')
        found = results_of(json.loads(report.read_text()))
    if missing := sorted(names - {result.name for result in found}):
        raise ValidateError(
            f'deployment_validator says nothing of {missing[0]}; was {path} changed meanwhile?'
        )
    # Also what is not in the manifest: that something could not be let go of.
    return [result for result in found if result.name in names or result.name.startswith('closing')]


@contextlib.contextmanager
def _running(options: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the node as a process; it is not left at the end."""
    with log.open('wb') as file:
        process = subprocess.Popen(
            python_command(
                main_of('isaac_infer.nodes.deployment_validator'), *options, at_parents_end=signal.SIGTERM
            ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=python_environment(),
            start_new_session=True,  # the terminal's Ctrl-C is for the command
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def results_table(results: Sequence[Result]) -> Table:
    """Make the table of all checks."""
    table = Table('check', 'outcome', 'measured, or why not', box=SIMPLE_HEAD)
    table.columns[2].overflow = 'fold'
    for result in results:
        weight = '' if result.is_required else ' (optional)'
        told = '' if _is_budget(result) else values_of(result)  # it has a table of its own
        table.add_row(
            Text(printable(result.name)),
            Text(f'{result.outcome}{weight}', style=STYLES[result.outcome]),
            Text(printable('; '.join(filter(None, (result.reason, told))))),
        )
    return table


def budget_tables(results: Sequence[Result]) -> list[Table]:
    """Make the tables of milliseconds by stage, of the budget and what was measured."""
    tables = []
    for result in results:
        if not (_is_budget(result) and result.values):
            continue
        table = Table('stage', 'p95 ms', 'budget ms', '', box=SIMPLE_HEAD)
        for stage in STAGES:
            budget, took = (result.values.get(f'{stage}_{what}') for what in ('budget_ms', 'ms_p95'))
            if budget is None:
                continue
            is_over = took is not None and took > budget
            said = '' if took is not None and not is_over else 'not measured' if took is None else 'over'
            table.add_row(
                stage, 'unknown' if took is None else f'{took:.2f}', f'{budget:g}', Text(said, style='red')
            )
        tables.append(table)
    return tables


def _is_budget(result: Result) -> bool:
    return result.name == 'latency: budget'


def _write(args: argparse.Namespace) -> int:
    """Write a manifest of models, and their outputs beside it."""
    manifest: Path = args.write
    if not args.files:
        raise ParameterError('--write: expected models after the manifest, got none')
    tasks: dict[str, str] = {}  # '': of the models that are not named
    for given in args.task:
        model, _, task = given.rpartition('=')
        if task not in (*TASKS, POLICY):
            raise ParameterError(f'--task: expected one of {", ".join((*TASKS, POLICY))}, got {task!r}')
        tasks[model] = task
    console = unfolded(Console())
    registered = register(args.files, manifest, task=tasks.pop('', ''), tasks=tasks)
    files = {manifest.with_name(each.entry.reference): each.outputs for each in registered}
    files[manifest] = manifest_text(registered).encode()
    for place in files:
        if place.exists():
            raise ParameterError(
                f'--write {manifest}: {place} exists already; give another file, or remove it'
            )
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        for place, content in files.items():
            write_whole(place, content)
            show_written(place, console)
    except OSError as error:
        raise ParameterError(f'--write {error.filename}: cannot be written: {error.strerror}') from error
    return 0
