"""Gpu: load and clocks of the board's GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isaac_infer.jetson.sysfs import Tree, read_number, read_text, to_number

# By JetPack: 6, 5, and 6 and 7 on other boards. A Thor has none of them.
_LOADS = (
    'sys/devices/platform/gpu.0/load',
    'sys/devices/gpu.0/load',
    'sys/devices/platform/bus@0/17000000.gpu/load',
    'sys/devices/platform/17000000.gpu/load',
)
_CLOCKS = ('17000000.*', '*.ga10b', '*.gv11b', '*.gpu', 'gpu-gpc-*')  # of JetPack 5 to 7; the last a Thor's


@dataclass(frozen=True)
class Gpu:
    """A GPU; None: unknown."""

    name: str | None
    load_percent: float | None
    clock_hz: int | None
    min_clock_hz: int | None
    max_clock_hz: int | None
    governor: str | None
    # Of a card alone: the GPU of a Jetson has its thermal zone, and the RAM of the CPU.
    celsius: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    fastest_clock_hz: int | None = None  # of a Jetson: in the power mode that allows most


def read_gpu(tree: Tree) -> Gpu:
    """Read load and clocks of the GPU."""
    found = [place for pattern in _CLOCKS for place in tree.find('sys/class/devfreq', pattern)]
    clocks = found[0] if found else None
    loads = [tree.root / name for name in _LOADS] + [place / 'device/load' for place in found]
    return Gpu(
        name=clocks.name if clocks else None,
        load_percent=_read_load(loads),
        clock_hz=read_number(clocks / 'cur_freq') if clocks else None,
        min_clock_hz=read_number(clocks / 'min_freq') if clocks else None,
        max_clock_hz=read_number(clocks / 'max_freq') if clocks else None,
        governor=(read_text(clocks / 'governor') or None) if clocks else None,
        fastest_clock_hz=_fastest(tree.seldom(clocks / 'available_frequencies')) if clocks else None,
    )


def _fastest(text: str | None) -> int | None:
    """Give the highest of a list of clocks."""
    return max(filter(None, map(to_number, (text or '').split())), default=None)


def _read_load(places: list[Path]) -> float | None:
    """Give the first load that can be read, which is in thousandths."""
    for place in places:
        number = read_number(place)
        if number is not None and 0 <= number <= 1000:
            return number / 10
    return None
