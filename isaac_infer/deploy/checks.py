"""Checks: small functions that say whether a deployment is as it should be, run one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

from isaac_infer.core.errors import IsaacInferError, ParameterError, describe

THREAD = 'checks'
PASSED, FAILED, NOT_RUN = OUTCOMES = ('passed', 'failed', 'not run')


class CheckError(IsaacInferError):
    """Something is not as it should be; `values` is what was measured all the same."""

    def __init__(self, reason: str, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.values = dict(values or {})


class NotRunError(CheckError):
    """Whether something is as it should be could not be found out here, and why."""


@dataclass(frozen=True)
class Check:
    """A check: its function gives what it measured where all is well, and raises where it is not."""

    name: str
    function: Callable[[], Mapping[str, Any]]
    is_required: bool = True
    needs: tuple[str, ...] = ()  # names of checks that must have passed before


@dataclass(frozen=True)
class Group:
    """Checks that share something, and how that is let go of after the last one, in their thread."""

    checks: tuple[Check, ...]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    name: str
    is_required: bool
    outcome: str  # one of OUTCOMES
    reason: str = ''  # why it did not pass; empty where it did
    values: Mapping[str, Any] = field(default_factory=dict)  # what was measured, units in the names
    seconds: float = 0.0


def is_passed(results: Sequence[Result]) -> bool:
    """Tell whether all required checks passed; where there is none, nothing is known to be well."""
    required = [result for result in results if result.is_required]
    return bool(required) and all(result.outcome == PASSED for result in required)


def verdict(results: Sequence[Result]) -> str:
    """Say in a sentence what came of all checks."""
    counts = ', '.join(
        f'{sum(result.outcome == outcome for result in results)} {outcome}' for outcome in OUTCOMES
    )
    if is_passed(results):
        return f'deployment passed: {counts}'
    # What failed comes before what was not run for that reason.
    missing = sorted(
        (result for result in results if result.is_required and result.outcome != PASSED),
        key=lambda result: result.outcome != FAILED,
    )
    first = f'; first: {missing[0].name}: {missing[0].reason}' if missing else '; no required check'
    return f'deployment not passed: {counts}{first}'


def line_of(result: Result) -> str:
    """A result as a line for people."""
    text = '; '.join(filter(None, (result.reason, values_of(result))))
    weight = '' if result.is_required else ' (optional)'
    return f'{result.outcome}: {result.name}{weight}' + (f': {text}' if text else '')


def values_of(result: Result) -> str:
    """What was measured, for people."""
    return ', '.join(
        f'{name} {short(value) if name == "sha256" else _shown(value)}'
        for name, value in result.values.items()
    )


def short(digest: str) -> str:
    """As much of a hash as people compare."""
    return digest[:12]


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f'{value:.4g}' if abs(value) < 1000 else f'{value:.0f}'


def report_of(deployment: str, results: Sequence[Result]) -> dict[str, Any]:
    """The results as a report for machines; the keys are those of Result."""
    return {
        'deployment': deployment,
        'passed': is_passed(results),
        'verdict': verdict(results),
        'checks': [asdict(result) for result in results],
    }


def unfinished_report(deployment: str) -> dict[str, Any]:
    """What stands in the place of an old report until there is a new one: that one says nothing of now."""
    return {**report_of(deployment, []), 'verdict': 'deployment not passed: the validation has not ended'}


def results_of(report: Mapping[str, Any]) -> list[Result]:
    """Read the results out of a report of ours."""
    return [Result(**values) for values in report['checks']]


def with_optional(groups: Iterable[Group], optional: Sequence[str]) -> list[Group]:
    """Make checks optional by their names.

    Raises:
        ParameterError: there is no check of such a name.
    """
    groups = list(groups)
    known = [check.name for group in groups for check in group.checks]
    if unknown := sorted(set(optional) - set(known)):
        raise ParameterError(f'optional: expected names of checks ({", ".join(known)}), got {unknown[0]!r}')
    return [
        replace(
            group,
            checks=tuple(
                replace(check, is_required=check.is_required and check.name not in optional)
                for check in group.checks
            ),
        )
        for group in groups
    ]


def skipped(groups: Iterable[Group], reason: str) -> list[Result]:
    """The results of checks that are not run."""
    return [_not_run(check, reason) for group in groups for check in group.checks]


def _not_run(check: Check, reason: str) -> Result:
    return Result(check.name, check.is_required, NOT_RUN, reason)


def run_checks(
    groups: Sequence[Group], *, timeout_s: float, cancelled: threading.Event | None = None
) -> Iterator[Result]:
    """Run checks, all in one thread of their own, and give each result as it comes.

    At the end of the time the check under way has failed, and those after it are not run. The thread ends
    with that check, which may look at `cancelled`.

    Args:
        groups: the checks, in their order.
        timeout_s: for all of them.
        cancelled: set at the end of the time; who sets it before ends the checks.
    """
    cancelled = cancelled or threading.Event()
    results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
    checks = [check for group in groups for check in group.checks]
    end_s = monotonic() + timeout_s
    work = threading.Thread(target=_run_groups, args=(groups, results, cancelled), name=THREAD, daemon=True)
    work.start()
    done = 0
    try:
        while True:
            begun_s = monotonic()
            try:
                result = results.get(timeout=max(end_s - begun_s, 0))
            except queue.Empty:
                break
            if result is None:
                for check in checks[done:]:
                    yield _not_run(check, 'the checks were ended')
                return
            done += done < len(checks) and result.name == checks[done].name  # others are of closing
            yield result
    finally:
        cancelled.set()
    spent = f'the time for all checks, {timeout_s:g} s, was over'
    for check in checks[done : done + 1]:
        yield Result(check.name, check.is_required, FAILED, f'not done when {spent}')
    for check in checks[done + 1 :]:
        yield _not_run(check, spent)


def _run_groups(
    groups: Sequence[Group], results: queue.SimpleQueue[Result | None], cancelled: threading.Event
) -> None:
    passed: set[str] = set()
    try:
        for group in groups:
            try:
                for check in group.checks:
                    if cancelled.is_set():
                        return
                    result = _run(check, passed)
                    if result.outcome == PASSED:
                        passed.add(check.name)
                    results.put(result)
            finally:
                last = group.checks[-1].name if group.checks else 'no check'
                closing = _run(Check(f'closing after {last}', partial(_close, group)), passed)
                if closing.outcome != PASSED:
                    results.put(closing)
    finally:
        results.put(None)


def _close(group: Group) -> Mapping[str, Any]:
    group.close()
    return {}


def is_busy(patience_s: float) -> bool:
    """Tell whether a check is still under way after a while: a process that ends now cannot end in order."""
    end_s = monotonic() + patience_s
    threads = [thread for thread in threading.enumerate() if thread.name == THREAD]
    for thread in threads:
        thread.join(max(end_s - monotonic(), 0))
    return any(thread.is_alive() for thread in threads)


def _run(check: Check, passed: set[str]) -> Result:
    if missing := [name for name in check.needs if name not in passed]:
        return _not_run(check, f'{missing[0]} did not pass')
    begun_s = monotonic()
    outcome, reason = PASSED, ''
    values: Mapping[str, Any] = {}
    try:
        values = check.function()
    except CheckError as error:
        outcome, reason, values = FAILED, str(error), error.values
        if isinstance(error, NotRunError):
            outcome = NOT_RUN
    except Exception as error:  # whatever it is: a check that raises has failed
        outcome, reason = FAILED, describe(error)
    return Result(check.name, check.is_required, outcome, reason, values, monotonic() - begun_s)
