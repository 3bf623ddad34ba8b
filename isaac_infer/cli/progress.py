"""Progress: what the building of an engine says: lines, and in a terminal a bar below them."""

from __future__ import annotations

import math
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from isaac_infer.core.text import without_commands


class BuildProgress:
    """Takes sentences and shares, see `core.progress.ShareSay`, beside what the command prints.

    The bar appears with the first sentence, and stays empty until somebody knows how far it is.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.fields[share]}'),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # which may be somebody's JSON
        )
        # Both: rich also calls a file a terminal, where FORCE_COLOR is set.
        self._bar.disable = not (self._bar.console.is_terminal and self._bar.console.file.isatty())
        # Ubuntu 22.04's rich knows neither a total of None nor a column for the share.
        self._task = self._bar.add_task('building', total=math.inf, share='')
        self._is_shown = False
        self._begin = monotonic()

    def __call__(self, text: str) -> None:
        """Pass a sentence on."""
        self._show()
        line = f'isaac-infer: {monotonic() - self._begin:.1f} s: {without_commands(text)}'
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show_share(self, share: float) -> None:
        """Take how much is done, 0 to 1."""
        self._show()
        self._bar.update(self._task, total=1.0, completed=share, share=f'{share:.0%}')

    def _show(self) -> None:
        if not self._is_shown:
            self._is_shown = True
            self._bar.reset(self._task)  # its time begins now
            self._bar.start()

    def close(self) -> None:
        """Take the bar away; safe to call twice."""
        if not self._bar.disable:  # rich before 14 prints an empty line even then
            self._bar.stop()

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
