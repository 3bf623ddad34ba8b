"""`isaac-infer board`: the state of the board that this runs on."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from itertools import count
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.console import PLAIN, unfolded
from isaac_infer.cli.report import add_json_option, write_report
from isaac_infer.core.text import printable
from isaac_infer.engine.cuda import has_nvidia_gpu
from isaac_infer.jetson.board import Board, BoardReader
from isaac_infer.jetson.cpu import Core
from isaac_infer.jetson.gpu import Gpu
from isaac_infer.jetson.nvpmodel import PowerMode, needs_reboot
from isaac_infer.jetson.sensors import Rail

MEASURED_S = 0.5  # over which the load of the CPU is taken, where it is asked for once
REFRESH_S = 1.0
UNKNOWN = 'unknown'
# Module -> what pip calls it.
LIBRARIES_OF_A_PC = {'psutil': 'psutil', 'pynvml': 'nvidia-ml-py (for its NVIDIA GPU)'}
# Rows that a PC has nothing for.
OF_A_JETSON = (
    'JetPack', 'power mode', 'default mode', 'clocks fixed', 'RAM clock', 'throttling', 'power', 'rails',
    'limits', 'over-currents', 'fans',
)  # fmt: skip


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `board` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'board',
        help='show load, clocks, memory, temperatures, power and power mode of this board',
        description='Shows the state of a Jetson, or what a PC tells of its own, without root and daemons.',
    )
    parser.add_argument('--watch', action='store_true', help='show it every second, until Ctrl-C')
    add_json_option(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Show the board, once or until Ctrl-C."""
    reader = BoardReader()
    time.sleep(MEASURED_S)
    if args.json:
        for board in _boards(reader, watch=args.watch):
            write_report(args.json, asdict(board))
            sys.stdout.flush()
        return 0
    console = unfolded(Console())
    if args.watch and console.file.isatty():
        with Live(console=console, auto_refresh=False) as live:
            for board in _boards(reader, watch=True):
                live.update(board_table(board), refresh=True)
    for board in _boards(reader, watch=args.watch):
        console.print(board_table(board), highlight=False)
        if board.model is None:
            console.print(_why_unknown(), **PLAIN)
        sys.stdout.flush()
    return 0


def _why_unknown() -> str:
    missing = [
        name
        for module, name in LIBRARIES_OF_A_PC.items()
        if find_spec(module) is None and (module != 'pynvml' or has_nvidia_gpu())
    ]
    without = f' without {" and ".join(missing)}' if missing else ''
    return f'no Jetson was found: a PC tells no more{without}'


def _boards(reader: BoardReader, *, watch: bool) -> Iterator[Board]:
    """Read the board once, or every second for ever."""
    for number in count() if watch else range(1):
        if number:
            time.sleep(REFRESH_S)
        yield reader.read()


def board_table(board: Board) -> Table:
    """Make the table of a board, with what is unknown as such."""
    table = Table(box=SIMPLE_HEAD, show_header=False)
    table.add_column()
    table.add_column(overflow='fold')
    for name, value in _rows(board):
        if board.model is None and name in OF_A_JETSON and UNKNOWN in value:
            continue
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def _rows(board: Board) -> Iterator[tuple[str, str]]:
    memory, power = board.memory, board.power
    yield 'model', board.model or UNKNOWN
    yield 'JetPack', f'{_or_unknown(board.jetpack)}, L4T {_or_unknown(board.l4t)}'
    yield 'power mode', _mode(board.power_mode)
    yield 'default mode', _mode(board.default_power_mode)
    for mode in board.power_modes:
        if mode != board.power_mode:
            yield 'other mode', _mode(mode) + _reboot(board.power_mode, mode)
    yield 'clocks fixed', {None: UNKNOWN, False: 'no', True: 'yes'}[board.are_clocks_fixed]
    yield 'GPU', f'{_percent(board.gpu.load_percent)}, {_clock(board.gpu)}'
    yield 'CPU', _percent(board.cpu.load_percent)
    for core in board.cpu.cores:
        is_off = core.is_online is False
        yield f'CPU {core.number}', 'off' if is_off else f'{_percent(core.load_percent)}, {_clock(core)}'
    if board.gpu.memory_total_bytes is not None:
        free = board.gpu.memory_total_bytes - (board.gpu.memory_used_bytes or 0)
        yield 'GPU memory', _used(board.gpu.memory_total_bytes, free)
    yield 'RAM', _used(memory.ram_total_bytes, memory.ram_available_bytes)
    yield 'RAM clock', f'{_mhz(memory.clock_hz)} of up to {_mhz(memory.max_clock_hz)} MHz'
    yield 'swap', _used(memory.swap_total_bytes, memory.swap_free_bytes)
    heat = [f'{sensor.name} {_number(sensor.celsius, "C", digits=1)}' for sensor in board.temperatures]
    if board.gpu.celsius is not None:
        heat.append(f'{board.gpu.name} {board.gpu.celsius:.1f} C')
    yield 'temperatures', ', '.join(heat) or UNKNOWN
    yield 'throttling', _throttling(board)
    yield 'power', _number(power.total_w, 'W', digits=2)
    rails = [f'{rail.name} {_number(rail.power_w, "W", digits=2)}' for rail in power.rails]
    yield 'rails', ', '.join(rails) or UNKNOWN
    yield 'limits', ', '.join(map(_limits, filter(_has_limits, power.rails))) or UNKNOWN
    counts = [f'{each.name} {_or_unknown(each.events)}' for each in board.over_currents]
    yield 'over-currents', ', '.join(counts) or UNKNOWN
    fans = [f'{_percent(fan.speed_percent, "speed")}, {_number(fan.rpm, "rpm")}' for fan in board.fans]
    profile = f', profile {board.fan_profile}' if board.fan_profile else ''
    yield 'fans', ('; '.join(fans) or UNKNOWN) + profile


def _throttling(board: Board) -> str:
    slowed = [throttle for throttle in board.throttles if throttle.state]
    named = [f'{each.name} {each.state} of {_or_unknown(each.max_state)}' for each in slowed]
    return ', '.join(named) or {None: UNKNOWN, False: 'no', True: 'yes'}[board.is_throttling]


def _has_limits(rail: Rail) -> bool:
    return rail.max_a is not None or rail.crit_a is not None


def _limits(rail: Rail) -> str:
    """Say what a rail draws, what it may draw on average and at a moment, and its alarms."""
    now, average, moment = (
        _number(value, 'A', digits=2) for value in (rail.current_a, rail.max_a, rail.crit_a)
    )
    alarms = [name for name, is_on in (('max', rail.is_above_max), ('crit', rail.is_above_crit)) if is_on]
    alarm = f', ALARM {" and ".join(alarms)}' if alarms else ''
    return f'{rail.name} {now}, max {average}, crit {moment}{alarm}'


def _or_unknown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _number(value: float | None, unit: str, *, digits: int = 0) -> str:
    return UNKNOWN if value is None else f'{value:.{digits}f} {unit}'


def _percent(value: float | None, of: str = 'load') -> str:
    return f'{of} {UNKNOWN}' if value is None else f'{value:.0f}%'


def _clock(part: Gpu | Core) -> str:
    clocks = (part.clock_hz, part.min_clock_hz, part.max_clock_hz)
    if clocks == (None, None, None):
        return f'clock {UNKNOWN}'
    now, low, high = map(_mhz, clocks)
    return f'{now} of {low} to {high} MHz' + (f', {part.governor}' if part.governor else '')


def _mhz(hz: int | None) -> str:
    return UNKNOWN if hz is None else f'{hz / 1e6:.0f}'


def _used(total_bytes: int | None, free_bytes: int | None) -> str:
    total = _gib(total_bytes)
    used = UNKNOWN if total_bytes is None or free_bytes is None else _gib(total_bytes - free_bytes)
    return f'{used} of {total} GiB'


def _gib(size_bytes: int | None) -> str:
    return UNKNOWN if size_bytes is None else f'{size_bytes / (1 << 30):.2f}'


def _reboot(current: PowerMode | None, target: PowerMode) -> str:
    return ', needs a reboot' if current is not None and needs_reboot(current, target) else ''


def _mode(mode: PowerMode | None) -> str:
    if mode is None:
        return UNKNOWN
    caps = (('CPU', mode.cpu_max_hz), ('GPU', mode.gpu_max_hz), ('memory', mode.emc_max_hz))
    told = [f'{_or_unknown(mode.name)} (ID {mode.id})']
    told += [] if mode.cores_online is None else [f'{mode.cores_online} cores']
    told += [f'{name} up to {_mhz(hz)} MHz' for name, hz in caps if hz is not None]
    return ', '.join(told)
