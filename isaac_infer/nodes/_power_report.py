"""PowerReport: what power_manager says of a board, as numbers for machines and in a line for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isaac_infer.jetson.board import Board
from isaac_infer.jetson.choose import Demand
from isaac_infer.jetson.nvpmodel import PowerMode

UNKNOWN = 'unknown'


@dataclass(frozen=True)
class Seen:
    """What was seen and decided at the last reading."""

    at_s: float  # monotonic
    board: Board
    mode: PowerMode | None
    demand: Demand
    load_level: str
    reason: str  # for the mode that was chosen, or for none
    problem: str  # why none can be chosen, which somebody has to change
    warnings: tuple[str, ...]
    figures: Mapping[str, float | None]


def board_figures(board: Board, mode: PowerMode | None, demand: Demand) -> Iterator[tuple[str, float | None]]:
    """Give the numbers of a board, with their units in their names; those of its sensors last."""
    heat = [sensor.celsius for sensor in board.temperatures if sensor.celsius is not None]
    yield 'cpu_percent', demand.cpu_percent
    yield 'gpu_percent', demand.gpu_percent
    yield 'memory_percent', demand.memory_percent
    yield 'deadlines_missed', demand.deadlines_missed
    yield 'power_mode_id', None if mode is None else mode.id
    yield 'power_w', board.power.total_w
    yield 'hottest_celsius', max(heat, default=None)
    yield 'margin_celsius', demand.margin_celsius
    yield 'is_throttling', demand.is_throttling
    yield 'gpu_clock_mhz', _mhz(board.gpu.clock_hz)
    yield 'gpu_max_clock_mhz', _mhz(board.gpu.max_clock_hz)
    clocks = [core.clock_hz for core in board.cpu.cores if core.clock_hz is not None]
    yield 'cpu_clock_mhz', _mhz(max(clocks, default=None))
    yield 'fan_percent', board.fans[0].speed_percent if board.fans else None
    yield 'fan_rpm', board.fans[0].rpm if board.fans else None
    for sensor in board.temperatures:
        yield f'temperature_{_word(sensor.name)}_celsius', sensor.celsius
    for rail in board.power.rails:
        yield f'rail_{_word(rail.name)}_w', rail.power_w
    for each in board.over_currents:
        yield f'over_currents_{_word(each.name)}', each.events


def _word(name: str) -> str:
    """Make a word of a name that a board gives: it goes into a list with commas."""
    return re.sub(r'\W', '_', name)


def _mhz(hz: int | None) -> float | None:
    return None if hz is None else hz / 1e6


def mode_text(mode: PowerMode | None) -> str:
    return UNKNOWN if mode is None else f'{mode.name or UNKNOWN} (ID {mode.id})'


def celsius_text(degrees: float | None) -> str:
    return UNKNOWN if degrees is None else f'{degrees:.1f} degrees'


def amperes_text(amperes: float | None) -> str:
    return UNKNOWN if amperes is None else f'{amperes:.2f} A'


def summary(seen: Seen) -> str:
    """Say in a line how the board is, for people."""
    demand, power_w = seen.demand, seen.board.power.total_w
    shares = (('CPU', demand.cpu_percent), ('GPU', demand.gpu_percent), ('memory', demand.memory_percent))
    parts = [
        f'power mode {mode_text(seen.mode)}',
        *(f'{name} {UNKNOWN if share is None else f"{share:.0f}%"}' for name, share in shares),
        f'{celsius_text(demand.margin_celsius)} to throttling',
        f'power {UNKNOWN if power_w is None else f"{power_w:.1f} W"}',
        f'load level {seen.load_level}',
    ]
    return ', '.join(parts) + (f'; {seen.reason}' if seen.reason else '')
