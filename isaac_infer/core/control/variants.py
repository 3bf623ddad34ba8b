"""Variants: which of several models, each lighter than the one before, is to be used now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from isaac_infer.core.load_level import MINIMAL, REDUCED
from isaac_infer.core.text import beside

LEAST_ANSWERS = 10  # of a variant, before its times tell anything
MOST_PATIENCE = 16  # times hold_s
ALMOST_ALL = 0.95  # of the pictures: where these are answered, a lighter one can do no more


@dataclass(frozen=True)
class VariantLimits:
    """What the variant in use has to keep; 0: not watched."""

    mean_ms: float = 0.0  # how long an answer takes
    least_hz: float = 0.0  # answers per second, where as many pictures come
    max_celsius: float = 0.0
    margin: float = 0.2  # a heavier one is tried again only this share inside the limits
    margin_celsius: float = 5.0
    settle_s: float = 2.0  # between two steps to lighter ones
    hold_s: float = 10.0  # in the limits until a heavier one is tried, the first time


@dataclass(frozen=True)
class VariantReadings:
    """What is known when a choice is due."""

    now_s: float  # steady clock
    answers: int = 0  # of the variant in use
    mean_ms: float = 0.0  # of its last answers, and of one that is under way for longer
    rate_hz: float = 0.0
    input_rate_hz: float = 0.0
    celsius: float | None = None  # None: unknown
    load_level: str = ''
    # How long the picture is under way that the variant in use looks at, or all have failed.
    held_up_s: float = 0.0


@dataclass(frozen=True)
class VariantState:
    """The variant in use, and what has to be remembered of the choices before."""

    index: int = 0  # 0: the heaviest
    since_s: float = 0.0
    calm_since_s: float | None = None  # inside the limits by the margins
    patience: int = 1  # times hold_s; doubled by a heavier one that could not be kept
    reason: str = ''  # of the last change


def choose_variant(
    state: VariantState, readings: VariantReadings, limits: VariantLimits, ready: Collection[int]
) -> VariantState:
    """Give the state with the variant that is to be used from now on.

    The load level is obeyed at once: `reduced` allows all but the heaviest, `minimal` the lightest alone.
    Time, rate and temperature beyond their limits lead to the next lighter one; all inside by their margins
    for `hold_s`, back to the next heavier one. Where that could not be kept, the next trial waits twice as
    long.

    Args:
        ready: the indices of the variants that can answer; the one in use is not changed to any other.
    """
    lightest = max(ready, default=state.index)
    level = readings.load_level
    first_allowed = {REDUCED: min(1, lightest), MINIMAL: lightest}.get(level, 0)
    lighter = sorted(index for index in ready if index > state.index)
    heavier = sorted(index for index in ready if first_allowed <= index < state.index)
    if state.index < first_allowed:
        allowed = [index for index in lighter if index >= first_allowed]
        if allowed:
            return _changed(state, allowed[0], readings, f'load level {level}')
    age_s = readings.now_s - state.since_s
    why, is_calm = _judge(readings, limits, age_s)
    if why:
        state = replace(state, calm_since_s=None)
        if lighter and age_s >= limits.settle_s:
            # One that hangs is known to only after hold_s.
            was_tried = state.reason.startswith(_BACK) and age_s < limits.hold_s * (state.patience + 1)
            patience = min(2 * state.patience, MOST_PATIENCE) if was_tried else state.patience
            return replace(_changed(state, lighter[0], readings, why), patience=patience)
        others = [index for index in ready if index < state.index]
        if others and not lighter and readings.held_up_s >= limits.hold_s:  # better a heavier one than none
            return _changed(state, max(others), readings, why)
        return state
    if not (is_calm and heavier):
        return replace(state, calm_since_s=None)
    calm_since_s = readings.now_s if state.calm_since_s is None else state.calm_since_s
    calm_s = readings.now_s - calm_since_s
    if calm_s >= limits.hold_s * state.patience:
        return _changed(state, heavier[-1], readings, f'{_BACK} inside the limits for {calm_s:.0f} s')
    return replace(state, calm_since_s=calm_since_s)


_BACK = 'back to a heavier one:'


def _changed(state: VariantState, index: int, readings: VariantReadings, reason: str) -> VariantState:
    return replace(state, index=index, since_s=readings.now_s, calm_since_s=None, reason=reason)


def _judge(readings: VariantReadings, limits: VariantLimits, age_s: float) -> tuple[str, bool]:
    """Say what is beyond its limit, and tell whether all is inside by the margins."""
    is_calm, inside = True, 1 - limits.margin
    if limits.max_celsius and readings.celsius is not None:
        if readings.celsius > limits.max_celsius:
            celsius = beside(readings.celsius, limits.max_celsius, 0)
            return f'{celsius} °C, more than {limits.max_celsius:g}', False
        is_calm = readings.celsius <= limits.max_celsius - limits.margin_celsius
    has_answered = readings.answers >= LEAST_ANSWERS
    # One that hangs, or takes seconds, does not come to so many.
    is_known = has_answered or age_s >= limits.hold_s
    if limits.least_hz and is_known:
        is_behind = readings.rate_hz < ALMOST_ALL * readings.input_rate_hz
        if readings.input_rate_hz >= limits.least_hz > readings.rate_hz and is_behind:
            rate = beside(readings.rate_hz, limits.least_hz, 1)
            return f'{rate} pictures per second, fewer than {limits.least_hz:g}', False
    if limits.mean_ms and is_known and readings.mean_ms > limits.mean_ms:
        mean = beside(readings.mean_ms, limits.mean_ms, 1)
        return f'{mean} ms per picture, more than {limits.mean_ms:g}', False
    if readings.held_up_s >= limits.hold_s:
        return f'no answer for {readings.held_up_s:.0f} s', False
    is_calm = is_calm and readings.held_up_s < limits.settle_s
    if not has_answered:
        return '', is_calm and not (limits.mean_ms or limits.least_hz)
    if limits.mean_ms:
        is_calm = is_calm and readings.mean_ms <= inside * limits.mean_ms
    return '', is_calm
