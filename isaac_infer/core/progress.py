"""Progress: how who waits for something slow is told how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

Say = Callable[[str], None]  # takes a sentence for the log
NEARLY = 0.99  # of what only an estimate calls done


@runtime_checkable
class ShareSay(Protocol):
    """A `Say` that is also told how far things are: whoever has a bar to draw. Plain functions are not."""

    def __call__(self, text: str) -> None: ...

    def show_share(self, share: float) -> None:
        """Take how much is done, 0 to 1; called often."""
        ...


def tell_share(say: Say, share: float) -> None:
    """Tell how much is done, 0 to 1, if somebody wants to know it."""
    if isinstance(say, ShareSay):
        say.show_share(share)


def estimated_share(elapsed_s: float, expected_s: float) -> float | None:
    """How much of what took so long the last time is likely done; None where there was no last time.

    Never all of it: what takes longer than expected stays at the end of the bar.
    """
    return min(elapsed_s / expected_s, NEARLY) if expected_s > 0 else None


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """How far nested phases are, such as those of TensorRT's progress monitor; the share never goes back."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._best = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of so many steps, one of which its parent is at."""
        self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, step: int) -> float:
        """Note that a phase has finished a step, counted from 0; gives the share of all."""
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = min(max(step + 1, 0), phase.steps)
            roots = [key for key, each in self._phases.items() if each.parent not in self._phases]
            self._best = max(self._best, min(map(self._share, roots), default=0.0))
        return self._best

    def finish(self, name: str) -> None:
        """End a phase."""
        self._phases.pop(name, None)

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        inner = [self._share(key) for key, each in self._phases.items() if each.parent == name]
        return min((phase.done + max(inner, default=0.0)) / phase.steps, 1.0)
