"""Child: Python as this package starts it, which imports what its parent would and does not outlive it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_HOME = str(Path(__file__).parents[2])  # of this package
# Python puts the working directory first, where anybody's random.py may lie; its own option against that came
# with 3.11. Whoever dies before Linux was asked to end the child with it has left it to another parent.
_BEGIN = """\
import sys
sys.path[:] = filter(None, sys.path)
import ctypes, os
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, {signal:d})
if os.getppid() != {parent:d}:
    sys.exit(1)
"""


def python_command(
    program: str, *arguments: str, at_parents_end: signal.Signals = signal.SIGKILL
) -> list[str]:
    """Give the command line of a child that runs a program, without the working directory on its path.

    Args:
        program: text in Python, where `os` and `sys` are imported already.
        arguments: what it finds in sys.argv[1:].
        at_parents_end: what the child gets when this process, or the thread that starts it, is gone.
    """
    begin = _BEGIN.format(signal=at_parents_end, parent=os.getpid())
    return [sys.executable, '-c', begin + program, *arguments]


def main_of(module: str) -> str:
    """Give the program that runs what a module calls main()."""
    return f'from {module} import main\nsys.exit(main())'


def python_environment() -> dict[str, str]:
    """Give this process' environment, with which a child finds the same modules."""
    # This package last, for who has it from the working directory only.
    path = dict.fromkeys([*filter(None, sys.path), _HOME])
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(path)}
