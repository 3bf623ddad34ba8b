"""Memory: RAM and swap, of which CPU and GPU of a Jetson share the first, and how fast the RAM is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from isaac_infer.jetson.sysfs import read_number, read_text

_CLOCK = 'sys/kernel/debug/bpmp/debug/clk/emc/rate'  # Hz
_CAP = 'sys/kernel/nvpmodel_clk_cap/emc'  # Hz; 0: none


@dataclass(frozen=True)
class Memory:
    """RAM and swap; None: unknown."""

    ram_total_bytes: int | None
    ram_available_bytes: int | None  # what can be had without swapping
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    clock_hz: int | None = None  # told to root alone
    max_clock_hz: int | None = None  # of the power mode; None also where it has no cap


def parse_meminfo(text: str) -> Memory:
    """Read the text of /proc/meminfo."""
    lines = re.findall(r'^(\w+):[ \t]+(\d{1,19}) kB$', text, re.ASCII | re.MULTILINE)
    sizes = {name: int(size) * 1024 for name, size in lines}
    return Memory(
        ram_total_bytes=sizes.get('MemTotal'),
        ram_available_bytes=sizes.get('MemAvailable'),
        swap_total_bytes=sizes.get('SwapTotal'),
        swap_free_bytes=sizes.get('SwapFree'),
    )


def read_memory(root: Path) -> Memory:
    """Read RAM, swap and clocks of the memory."""
    memory = parse_meminfo(read_text(root / 'proc/meminfo') or '')
    clock_hz, cap_hz = read_number(root / _CLOCK), read_number(root / _CAP)
    return replace(memory, clock_hz=clock_hz, max_clock_hz=cap_hz or None)


def used_percent(memory: Memory) -> float | None:
    """Give how much of the RAM is used; None: unknown."""
    total, available = memory.ram_total_bytes, memory.ram_available_bytes
    if not total or available is None:
        return None
    return min(max(100 * (total - available) / total, 0.0), 100.0)
