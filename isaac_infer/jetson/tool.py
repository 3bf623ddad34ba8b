"""Tool: run a program that may hang, leave children behind, or print without end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from time import monotonic

from isaac_infer.core.errors import PowerModeError

_LOOKED_AT = 1 << 16  # bytes of what a tool prints
_MOST = 1 << 22  # bytes after which it is ended
_LOOK_S = 0.05  # between two looks at how much there is
_END_S = 1.0  # for what was killed to be gone


class RunsOnError(PowerModeError):
    """A tool that was given up cannot be ended: it is root's, or waits in the kernel."""

    def __init__(self, reason: str, tool: subprocess.Popen[bytes]) -> None:
        super().__init__(f'{reason}; this user cannot end it, and it runs on (process {tool.pid})')
        self.tool = tool


@dataclass(frozen=True)
class Told:
    """How a tool ended, and the begin of what it printed, errors too."""

    code: int
    told: str


def run_tool(words: Sequence[str], *, timeout_s: float) -> Told:
    """Run a tool to its end; what it started may go on.

    Raises:
        OSError: it cannot be started.
        PowerModeError: it is not done in time, or prints without end, and was ended.
        RunsOnError: it could not be ended.
    """
    end_s = monotonic() + timeout_s
    # A file and no pipe: whoever writes after the tool was given up does not die of it, and a child that it
    # left behind holds nothing open. Words and no shell, no stdin: with one it would ask, and wait.
    with TemporaryFile() as output:
        tool = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'LC_ALL': 'C'},  # what sudo says is looked at
            start_new_session=True,
        )
        while True:
            try:
                code = tool.wait(min(max(end_s - monotonic(), 0), _LOOK_S))
                break
            except subprocess.TimeoutExpired:
                is_late = monotonic() >= end_s
                if not is_late and os.fstat(output.fileno()).st_size <= _MOST:
                    continue
            with contextlib.suppress(PermissionError, ProcessLookupError):  # it is root's, or has ended now
                os.killpg(tool.pid, signal.SIGKILL)  # its own session: its children, too
            why = f'not done after {timeout_s:g} s' if is_late else f'printed more than {_MOST} bytes'
            reason = f'{" ".join(words)}: {why}'
            try:
                tool.wait(_END_S)
            except subprocess.TimeoutExpired:
                raise RunsOnError(reason, tool) from None
            raise PowerModeError(reason)
        output.seek(0)
        return Told(code, output.read(_LOOKED_AT).decode(errors='replace'))
