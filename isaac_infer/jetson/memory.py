"""Memory: RAM and swap, of which CPU and GPU of a Jetson share the first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from isaac_infer.jetson.sysfs import read_text


@dataclass(frozen=True)
class Memory:
    """RAM and swap; None: unknown."""

    ram_total_bytes: int | None
    ram_available_bytes: int | None  # what can be had without swapping
    swap_total_bytes: int | None
    swap_free_bytes: int | None


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
    """Read RAM and swap."""
    return parse_meminfo(read_text(root / 'proc/meminfo') or '')
