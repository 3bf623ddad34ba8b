"""Console: how commands speak to people: in a terminal as it is wide, into a pipe in whole lines."""

from __future__ import annotations

import os

from rich.console import Console

from isaac_infer.core.text import without_commands

PLAIN: dict[str, bool] = {'markup': False, 'highlight': False, 'soft_wrap': True}  # sentences, as they are
LONGEST_LINE = 1000  # of a table that no terminal shows


def unfolded(console: Console) -> Console:
    """Have a console break no words where no terminal shows them, unless COLUMNS says how wide it is."""
    if not console.file.isatty() and 'COLUMNS' not in os.environ:
        console.width = LONGEST_LINE
    return console


def show_note(note: str, out: Console) -> None:
    """Say what the numbers do not."""
    out.print(f'note: {without_commands(note)}', style='dim', **PLAIN)
