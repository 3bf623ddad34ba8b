"""Cpu: load and clocks of the cores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isaac_infer.jetson.sysfs import Tree, read_text, to_number

_FOLDER = 'sys/devices/system/cpu'
_ALL = 'cpu'  # the line of /proc/stat for all cores together
_COUNTED = 8  # user, nice, system, idle, iowait, irq, softirq, steal; guests, which come after, are in user
_IDLE = slice(3, 5)  # idle, iowait


@dataclass(frozen=True)
class Core:
    """A core; None: unknown."""

    number: int
    is_online: bool | None
    load_percent: float | None
    clock_hz: int | None
    min_clock_hz: int | None
    max_clock_hz: int | None
    governor: str | None
    fastest_clock_hz: int | None = None  # in the power mode that allows most


@dataclass(frozen=True)
class Cpu:
    """All cores, those that are offline too."""

    load_percent: float | None
    cores: tuple[Core, ...]


@dataclass(frozen=True)
class Ticks:
    """How long a core, or all, was busy and in all, in the kernel's ticks since the start."""

    busy: int
    total: int


def parse_stat(text: str) -> dict[str, Ticks]:
    """Read the text of /proc/stat: the ticks of `cpu`, which is all, `cpu0`, `cpu1`, ..."""
    ticks = {}
    for found in re.finditer(r'^(cpu\d{0,5})((?:[ \t]+\d{1,19}){5,})[ \t]*$', text, re.ASCII | re.MULTILINE):
        counts = [int(word) for word in found[2].split()[:_COUNTED]]
        ticks[found[1]] = Ticks(sum(counts) - sum(counts[_IDLE]), sum(counts))
    return ticks


def read_ticks(root: Path) -> dict[str, Ticks]:
    """Read the ticks of all cores that are online."""
    return parse_stat(read_text(root / 'proc/stat') or '')


def load_percent(before: Ticks | None, now: Ticks | None) -> float | None:
    """Give the share of time between two readings that was busy; None where none has passed."""
    if before is None or now is None or now.total <= before.total:
        return None
    # iowait can go back by a little.
    return min(max(100 * (now.busy - before.busy) / (now.total - before.total), 0.0), 100.0)


def read_cpu(tree: Tree, *, before: Mapping[str, Ticks], now: Mapping[str, Ticks]) -> Cpu:
    """Read the cores.

    Args:
        before, now: two readings of their ticks, for the load between them.
    """
    online = _parse_list(read_text(tree.root / _FOLDER / 'online'))
    cores = []
    now_hz: dict[str, int | None] = {}
    for place in tree.find(_FOLDER, 'cpu[0-9]*'):
        if not place.name[3:].isdecimal():
            continue
        number = int(place.name[3:])
        # The cores of a cluster share their clocks.
        clocks = tree.real(f'{place}/cpufreq')
        if clocks not in now_hz:
            now_hz[clocks] = _hz(read_text(f'{clocks}/scaling_cur_freq'))
        cores.append(
            Core(
                number=number,
                is_online=None if online is None else number in online,
                load_percent=load_percent(before.get(place.name), now.get(place.name)),
                clock_hz=now_hz[clocks],
                min_clock_hz=_hz(tree.seldom(f'{clocks}/scaling_min_freq')),
                max_clock_hz=_hz(tree.seldom(f'{clocks}/scaling_max_freq')),
                governor=tree.seldom(f'{clocks}/scaling_governor') or None,
                fastest_clock_hz=_hz(tree.seldom(f'{clocks}/cpuinfo_max_freq')),
            )
        )
    return Cpu(load_percent(before.get(_ALL), now.get(_ALL)), tuple(cores))


def _parse_list(text: str | None) -> set[int] | None:
    """Read a list of cores such as `0-3,6`; None where it is none."""
    if text is None or not re.fullmatch(r'\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*', text, re.ASCII):
        return None
    ranges = [list(map(int, part.split('-'))) for part in text.split(',')]
    return {number for each in ranges for number in range(each[0], each[-1] + 1)}


def _hz(text: str | None) -> int | None:
    number = to_number(text)
    return None if number is None else number * 1000
