"""`isaac-infer demo` as a process, and the processes that it starts."""

import subprocess
from pathlib import Path

from isaac_infer.core.child import main_of, python_command

COMMAND = python_command(main_of('isaac_infer.cli.main'), 'demo')


def demo(environment, *arguments, cwd=None):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def processes_of(environment):
    """The processes that carry this environment's domain and belong to the demo."""
    mark = f'ROS_DOMAIN_ID={environment["ROS_DOMAIN_ID"]}'.encode()
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if mark in (folder / 'environ').read_bytes().split(b'\0'):
                command = (folder / 'cmdline').read_bytes()
                if b'isaac_infer.nodes' in command:
                    found.append(command)
        except OSError:  # it has ended meanwhile, or is not ours to read
            continue
    return found
