"""Choose: which power mode a board should be in, and how much work it can take; pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

from isaac_infer.core.errors import PowerModeError
from isaac_infer.core.load_level import LEVELS, MINIMAL, NORMAL, REDUCED
from isaac_infer.jetson.nvpmodel import PowerMode, find_mode, needs_reboot

_TPCS = 8  # parts of an Orin's GPU that a mask can have off


@dataclass(frozen=True)
class Demand:
    """What is asked of a board, and how hot it is; None: unknown."""

    cpu_percent: float | None = None
    gpu_percent: float | None = None
    memory_percent: float | None = None
    deadlines_missed: int = 0  # by our nodes, in the last seconds
    margin_celsius: float | None = None  # how far the hottest sensor is from throttling
    is_throttling: bool | None = None


@dataclass(frozen=True)
class Thresholds:
    """What counts as busy, idle and hot, and how long it has to last."""

    cpu_percent: float = 80.0  # from here on a board is busy, whatever the others say
    gpu_percent: float = 80.0
    memory_percent: float = 90.0
    deadlines_missed: int = 1
    hysteresis_percent: float = 30.0  # so far below all of them it is idle
    hot_margin_celsius: float = 8.0  # nearer to throttling than this: a lower mode
    critical_margin_celsius: float = 2.0  # the lowest one, at once
    hysteresis_celsius: float = 4.0  # so much cooler than hot before a higher mode is chosen
    dwell_s: float = 10.0  # for so long it has to be busy, or idle
    min_interval_s: float = 30.0  # between two switches


@dataclass(frozen=True)
class State:
    """What `choose_mode` has to remember from one call to the next; times as `now_s` is."""

    busy_since_s: float | None = None
    idle_since_s: float | None = None
    switched_s: float | None = None  # when a switch was chosen last, whether or not it succeeded
    switched_to: int | None = None  # the ID
    was_upwards: bool = False
    pinned_id: int | None = None


@dataclass(frozen=True)
class Choice:
    """A power mode to switch to, or none, and why."""

    mode: PowerMode | None
    reason: str
    state: State


def order_modes(
    modes: Iterable[PowerMode], *, allowed: Sequence[str] = (), lowest: str = '', highest: str = ''
) -> tuple[PowerMode, ...]:
    """Put the modes that may be chosen in order, from the one that can do least to the one that can do most.

    That is told by their caps: neither IDs nor watts are ranks. What the GPU can do, cores times clock,
    comes first, then the CPU, then the memory.

    Args:
        allowed: their names; of those that the caps do not tell apart, the weaker first; empty: all.
        lowest, highest: names of the modes between which to stay; empty: no bound.

    Raises:
        PowerModeError: a name is unknown, or nothing tells which of two modes can do more.
    """
    known = tuple(modes)
    usable = [find_mode(known, name) for name in dict.fromkeys(allowed)] or known
    ordered = sorted(usable, key=_abilities)
    for weaker, stronger in pairwise(ordered):
        if not allowed and _abilities(weaker) == _abilities(stronger):
            raise PowerModeError(
                f'nothing tells which of {weaker.name} and {stronger.name} can do more: '
                'name the modes in allowed_modes, the weakest first'
            )
    first = ordered.index(_among(ordered, lowest, known)) if lowest else 0
    last = ordered.index(_among(ordered, highest, known)) if highest else len(ordered) - 1
    if lowest and highest and first > last:
        raise PowerModeError(f'{lowest} can do more than {highest}: it cannot be the lower one of both')
    return tuple(ordered[first : last + 1])


def _among(ordered: Sequence[PowerMode], name: str, known: Sequence[PowerMode]) -> PowerMode:
    mode = find_mode(known, name)
    if mode not in ordered:
        raise PowerModeError(f'{name} is not among the allowed modes: {", ".join(_names(ordered))}')
    return mode


def _names(modes: Iterable[PowerMode]) -> list[str]:
    return [str(mode.name) for mode in modes]


def _abilities(mode: PowerMode) -> tuple[float, ...]:
    """Give what a mode can do, to be compared with others of the same board; no cap is more than any."""
    tpcs = _TPCS - ((mode.tpc_mask or 0) & ((1 << _TPCS) - 1)).bit_count()
    cores = mode.cores_online or inf
    cpu_hz, gpu_hz = mode.cpu_max_hz or inf, mode.gpu_max_hz or inf
    return (gpu_hz * tpcs if tpcs else 0, tpcs, cpu_hz * cores, cores, cpu_hz, mode.emc_max_hz or inf)


def choose_mode(
    ordered: Sequence[PowerMode],
    current: PowerMode | None,
    demand: Demand,
    thresholds: Thresholds,
    state: State,
    now_s: float,
    *,
    pinned: PowerMode | None = None,
    rebooting: Collection[int] = (),
) -> Choice:
    """Choose a power mode; a mode that needs a reboot is never chosen.

    Heat comes first: where the board is hot a lower mode is chosen whatever its load, and where its heat is
    unknown no higher one. Then what is pinned, then the load.

    Args:
        ordered: the modes that may be chosen, as `order_modes` gives them.
        pinned: the mode that the user wants, whatever the load.
        rebooting: IDs of modes that need a reboot although their masks do not tell.
    """
    state = _follow(demand, thresholds, state, now_s)
    pinned_id = None if pinned is None else pinned.id
    if pinned_id != state.pinned_id:  # the user's word counts at once
        state = replace(state, pinned_id=pinned_id, switched_s=None)
    if current is None:
        return Choice(None, 'the power mode of the board is unknown', state)
    lower, higher = _beside(ordered, current)
    lower, higher = ([mode for mode in part if mode.id not in rebooting] for part in (lower, higher))
    has_waited = state.switched_s is None or now_s - state.switched_s >= thresholds.min_interval_s
    margin = demand.margin_celsius

    def switch(mode: PowerMode, reason: str) -> Choice:
        chosen = State(
            switched_s=now_s,
            switched_to=mode.id,
            was_upwards=mode not in lower,
            pinned_id=state.pinned_id,
        )
        return Choice(mode, reason, chosen)

    def stay(reason: str) -> Choice:
        return Choice(None, reason, state)

    heat = _heat(demand, thresholds)
    if heat and lower:
        is_critical = margin is not None and margin < thresholds.critical_margin_celsius
        target = lower[0] if is_critical else lower[-1]
        is_tried = state.switched_to == target.id
        if has_waited or (is_critical and not is_tried) or state.was_upwards:
            return switch(target, heat)
        return stay(f'{heat}; it was switched a moment ago')
    if heat:
        is_lowest = bool(ordered) and ordered[0].id == current.id
        why = 'it is in the lowest mode' if is_lowest else 'no lower mode can be had without a reboot'
        return stay(f'{heat}, and {why}')
    ceiling = ''
    if margin is None:
        ceiling = 'no temperature is known'
    elif margin < thresholds.hot_margin_celsius + thresholds.hysteresis_celsius:
        ceiling = f'{margin:.1f} degrees to throttling'

    if pinned is not None:
        if pinned.id == current.id:
            return stay(f'{pinned.name} is pinned')
        if needs_reboot(current, pinned) or pinned.id in rebooting:
            return stay(f'{pinned.name} is pinned, but needs a reboot: sudo nvpmodel -m {pinned.id}')
        if ceiling and _abilities(pinned) >= _abilities(current):
            return stay(f'{pinned.name} is pinned, but has to wait: {ceiling}')
        return switch(pinned, 'it is pinned') if has_waited else stay(f'{pinned.name} is pinned; waiting')

    if not has_waited:
        return stay('it was switched a moment ago')
    if current.id not in {mode.id for mode in ordered}:
        if lower:
            return switch(lower[-1], f'{current.name} is not allowed')
        if higher and not ceiling:
            return switch(higher[0], f'{current.name} is not allowed')
        return stay(f'{current.name} is not allowed, and nothing else can be had{_why(ceiling)}')
    if state.busy_since_s is not None:
        busy = ', '.join(_busy(demand, thresholds))
        if now_s - state.busy_since_s < thresholds.dwell_s:
            return stay(f'{busy}, not yet for {thresholds.dwell_s:g} s')
        if higher and not ceiling:
            return switch(higher[0], busy)
        return stay(f'{busy}, but no higher mode can be had{_why(ceiling)}')
    if state.idle_since_s is not None:
        if now_s - state.idle_since_s < thresholds.dwell_s:
            return stay(f'idle, not yet for {thresholds.dwell_s:g} s')
        return switch(lower[-1], 'idle') if lower else stay('idle, in the lowest mode that can be had')
    return stay('neither busy nor idle')


def _why(ceiling: str) -> str:
    return f': {ceiling}' if ceiling else ' without a reboot'


def _beside(ordered: Sequence[PowerMode], current: PowerMode) -> tuple[list[PowerMode], list[PowerMode]]:
    """Give the modes below and above the current one that can be had without a reboot, in their order."""
    ids = [mode.id for mode in ordered]
    if current.id in ids:
        place = ids.index(current.id)
        below, above = ordered[:place], ordered[place + 1 :]
    else:
        below = [mode for mode in ordered if _abilities(mode) < _abilities(current)]
        above = [mode for mode in ordered if _abilities(mode) >= _abilities(current)]
    reachable = [[mode for mode in part if not needs_reboot(current, mode)] for part in (below, above)]
    return reachable[0], reachable[1]


def _heat(demand: Demand, thresholds: Thresholds) -> str:
    """Say how hot it is; empty where it is not, or nobody knows."""
    margin = demand.margin_celsius
    if demand.is_throttling:
        return 'throttling' if margin is None else f'throttling, {margin:.1f} degrees to its begin'
    if margin is not None and margin < thresholds.hot_margin_celsius:
        return f'hot: {margin:.1f} degrees to throttling'
    return ''


def _shares(demand: Demand, thresholds: Thresholds) -> list[tuple[str, float | None, float]]:
    return [
        ('CPU', demand.cpu_percent, thresholds.cpu_percent),
        ('GPU', demand.gpu_percent, thresholds.gpu_percent),
        ('memory', demand.memory_percent, thresholds.memory_percent),
    ]


def _busy(demand: Demand, thresholds: Thresholds) -> list[str]:
    """Say what is busy, with numbers."""
    shares = _shares(demand, thresholds)
    busy = [f'{name} {share:.0f}%' for name, share, most in shares if share is not None and share >= most]
    if demand.deadlines_missed >= thresholds.deadlines_missed:
        busy.append(f'{demand.deadlines_missed} deadlines missed')
    return busy


def _is_idle(demand: Demand, thresholds: Thresholds) -> bool:
    """Tell whether nothing is asked for; what is unknown may be busy, except for the memory."""
    if demand.deadlines_missed or demand.cpu_percent is None or demand.gpu_percent is None:
        return False
    return all(
        share is None or share < most - thresholds.hysteresis_percent
        for _, share, most in _shares(demand, thresholds)
    )


def _follow(demand: Demand, thresholds: Thresholds, state: State, now_s: float) -> State:
    """Remember since when the board is busy, or idle, without a break."""
    is_busy, is_idle = bool(_busy(demand, thresholds)), _is_idle(demand, thresholds)
    busy_since_s = state.busy_since_s if state.busy_since_s is not None else now_s
    idle_since_s = state.idle_since_s if state.idle_since_s is not None else now_s
    return replace(
        state,
        busy_since_s=busy_since_s if is_busy else None,
        idle_since_s=idle_since_s if is_idle else None,
    )


@dataclass(frozen=True)
class LoadMargins:
    """How near to throttling, in degrees, work is reduced."""

    reduced_celsius: float = 5.0
    minimal_celsius: float = 2.0
    hysteresis_celsius: float = 4.0  # so much cooler before there is more work again


def load_level_of(
    before: str, margin_celsius: float | None, is_throttling: bool | None, margins: LoadMargins
) -> str:
    """Give how much work a board can take: one of LEVELS.

    Args:
        before: what it could take until now; stays where neither heat nor throttling is known.
        margin_celsius: how far the hottest sensor is from throttling.
    """
    if is_throttling:
        return MINIMAL
    if margin_celsius is None:
        return before if is_throttling is None else NORMAL

    def place(degrees: float) -> int:
        if degrees < margins.minimal_celsius:
            return LEVELS.index(MINIMAL)
        return LEVELS.index(REDUCED if degrees < margins.reduced_celsius else NORMAL)

    # Less work at once, more only where it would still be right a few degrees hotter.
    eased = place(margin_celsius - margins.hysteresis_celsius)
    return LEVELS[max(place(margin_celsius), min(LEVELS.index(before), eased))]
