"""DemoNodes: the nodes of a demo as processes in a namespace of their own, and where results go."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from isaac_infer.core.child import main_of, python_command, python_environment
from isaac_infer.core.errors import IsaacInferError
from isaac_infer.engine.files import is_report, write_whole

STOP_TIMEOUT_S = 15.0  # nodes allow themselves ten: how long a node may take to end before it is killed
REPORT = 'report.json'  # in the folder for the results


class DemoError(IsaacInferError):
    """The demo cannot go on; the message says which node failed and with what."""


@dataclass(frozen=True)
class Nodes:
    """The nodes that run, in the order of their start."""

    folder: Path  # for their parameter files and logs
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(
        self, name: str, values: Mapping[str, Any], *, remapped: Mapping[str, str] | None = None
    ) -> None:
        """Start a node with parameters; `remapped` are topics by the names that it knows."""
        is_humble = (
            os.environ.get('ROS_DISTRO') == 'humble'
        )  # later ones replaced its variable, and warn of it
        localhost = (
            {'ROS_LOCALHOST_ONLY': '1'} if is_humble else {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
        )
        parameters = self.folder / f'{name}.yaml'
        parameters.write_text(yaml_of({'/**': {'ros__parameters': values}}))
        namespace = f'/isaac_infer_demo_{os.getpid()}'
        options = ['--ros-args', '-r', f'__ns:={namespace}', '--params-file', str(parameters)]
        options += [word for topic, other in (remapped or {}).items() for word in ('-r', f'{topic}:={other}')]
        with (self.folder / f'{name}.log').open('w') as log:
            self.processes[name] = subprocess.Popen(
                python_command(main_of(f'isaac_infer.nodes.{name}'), *options, at_parents_end=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**localhost, **python_environment()},
                start_new_session=True,  # the terminal's Ctrl-C is for the demo, which ends them in order
            )

    def stop(self, name: str) -> None:
        """End a node the way Ctrl-C does, and by force where it does not listen."""
        process = self.processes[name]
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def last_words(self, lines: int = 8) -> str:
        """The end of every node's log."""
        return '\n'.join(
            f'{log.stem}: {line}'
            for log in sorted(self.folder.glob('*.log'))
            for line in log.read_text().splitlines()[-lines:]
        )

    def warnings(self) -> list[str]:
        """What the nodes warned of, each only once."""
        lines = [
            line
            for log in sorted(self.folder.glob('*.log'))
            for line in log.read_text(errors='replace').split('\n')
        ]
        said = [
            line.split(']: ', 1)[-1] for line in lines if line.startswith(('[WARN]', '[ERROR]', '[FATAL]'))
        ]
        return list(dict.fromkeys(said))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Nodes]:
    """Have nodes run as processes, on this machine only; none is left at the end."""
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        for process in nodes.processes.values():
            process.send_signal(signal.SIGINT)
        for name in nodes.processes:
            nodes.stop(name)


def ignore_interrupts() -> None:
    """Let nothing interrupt what follows: now, one would lose what is about to be written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def yaml_of(values: Mapping[str, Any]) -> str:
    """Write values as JSON that is YAML too, which wants characters in one escape and not in two halves."""
    text = json.dumps(values, ensure_ascii=False)
    return re.sub('[^ -~]', lambda match: f'\\U{ord(match[0]):08x}', text)


def progress(console: Console) -> Progress:
    """Make a bar that counts."""
    count = TextColumn('{task.completed:.0f}/{task.total:.0f}')  # Ubuntu 22.04's rich has no column for it
    columns = TextColumn('{task.description}'), BarColumn(), count, TimeElapsedColumn()
    return Progress(*columns, console=console)


def read_report(report_path: Path) -> dict[str, Any]:
    """Read what the recorder wrote so far; {} where it has only just started."""
    try:
        report: dict[str, Any] = json.loads(report_path.read_text())
    except FileNotFoundError:
        return {}
    return report


def check_replaceable(folder: Path, pictures: Sequence[str], *, key: str) -> None:
    """Make the folder for results, and refuse to replace what is none of the demo's.

    Args:
        pictures: that will be written there.
        key: that reports have which the demo writes.

    Raises:
        DemoError: they cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*pictures, REPORT):
            if (folder / name).is_dir():
                raise DemoError(f'--out {folder}: {name} is a folder there; give another one')
        if (folder / REPORT).exists() and not is_report(folder / REPORT, key=key):
            raise DemoError(f'--out {folder}: {REPORT} there is none of the demo; give another folder')
    except OSError as error:
        raise DemoError(
            f'--out {folder}: expected a folder that can be written to: {error.strerror}'
        ) from error


def write_result(place: Path, content: bytes) -> None:
    """Put a result where an earlier one may be, which goes where there is none."""
    try:
        if content:
            write_whole(place, content)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise DemoError(f'{place}: cannot be written: {error.strerror}') from error
