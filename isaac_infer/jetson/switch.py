"""Switch: bring a board into a power mode by nvpmodel, and see whether it is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from isaac_infer.core.errors import PowerModeError, RebootError
from isaac_infer.core.text import printable
from isaac_infer.jetson.nvpmodel import TOOL, PowerMode
from isaac_infer.jetson.sysfs import in_order, read_text
from isaac_infer.jetson.tool import run_tool

_REBOOT = re.compile(r'reboot required|do you want to reboot', re.IGNORECASE)
_REFUSED = re.compile(
    r'sudo: .*(password|terminal) is required|is not allowed to|may not run sudo|not in the sudoers'
    r'|no new privileges|permission denied|operation not permitted|: 13$',  # 13: EACCES, as nvpmodel has it
    re.IGNORECASE | re.MULTILINE,
)


def switch_mode(
    target: PowerMode,
    *,
    command: Sequence[str],
    read_back: Callable[[], PowerMode | None],
    timeout_s: float,
) -> None:
    """Switch, wait until it is done, and read back.

    Args:
        command: nvpmodel and what comes before it, such as sudo; `-m` and the ID come after.
        read_back: tells which mode the board is in.
        timeout_s: for the tool.

    Raises:
        RebootError: the tool says that this mode takes a reboot.
        RunsOnError: it does not end, and cannot be ended.
        PowerModeError: it cannot be started, does not end, prints without end, refuses, or the
            board is in another mode after.
    """
    words = [*command, '-m', str(target.id)]
    what = ' '.join(words)
    try:
        done = run_tool(words, timeout_s=timeout_s)
    except OSError as error:
        raise PowerModeError(
            f'{what}: cannot be started: {error.strerror or error}; nvpmodel_command says what is run'
        ) from error
    code, told = done.code, done.told
    said = _said(told)
    if _REBOOT.search(told):
        raise RebootError(
            f'{target.name} needs a reboot, which is for you to do: sudo nvpmodel -m {target.id}'
        )
    is_now = read_back()
    is_there = is_now is not None and is_now.id == target.id
    if is_there and code == 0:
        return
    if _REFUSED.search(told):
        raise PowerModeError(f'{what}: refused: {said}; see Power in README.md for the rights it takes')
    if code != 0:
        raise PowerModeError(f'{what}: ended with {code}{": " if said else ""}{said}')
    now = 'in an unknown mode' if is_now is None else f'in {is_now.name} (ID {is_now.id})'
    raise PowerModeError(
        f'{what}: expected {target.name} (ID {target.id}) after it, but the board is {now}'
        f'{": " if said else ""}{said}'
    )


def find_switch(root: Path) -> str:
    """Find a switch that is under way, whoever began it, a node that is dead by now too; empty: none.

    Two at a time leave a board with the clocks of one mode and the cores of another.
    """
    for place in in_order((root / 'proc').glob('[0-9]*')):
        words = (read_text(place / 'cmdline') or '').split('\0')
        names = [os.path.basename(word) for word in words]
        if os.path.basename(TOOL) in names and '-m' in names[names.index(os.path.basename(TOOL)) :]:
            return f'{printable(" ".join(words))} (process {place.name})'
    return ''


def _said(told: str) -> str:
    """Give what matters of what the tool printed, in one line: its errors, else the last line."""
    lines = [printable(line.strip()) for line in told.splitlines() if line.strip()]
    return ' | '.join([line for line in lines if 'ERROR' in line] or lines[-1:])
