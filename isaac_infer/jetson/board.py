"""Board: all that is known of a board at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isaac_infer.jetson.cpu import Core, Cpu, Ticks, read_cpu, read_ticks
from isaac_infer.jetson.gpu import Gpu, read_gpu
from isaac_infer.jetson.identity import read_identity
from isaac_infer.jetson.memory import Memory, read_memory
from isaac_infer.jetson.nvpmodel import PowerMode, read_mode, read_modes
from isaac_infer.jetson.pc import add_nvml, add_psutil
from isaac_infer.jetson.sensors import (
    Fan,
    Power,
    Temperature,
    read_fans,
    read_power,
    read_temperatures,
)

ROOT = Path('/')


@dataclass(frozen=True)
class Board:
    """The state of a board; None: unknown."""

    model: str | None
    soc: str | None  # such as tegra234, an Orin; None also where this is no Jetson
    l4t: str | None  # such as 36.4.4
    jetpack: int | None
    power_mode: PowerMode | None
    default_power_mode: PowerMode | None
    are_clocks_fixed: bool | None  # as jetson_clocks does it
    gpu: Gpu
    cpu: Cpu
    memory: Memory
    temperatures: tuple[Temperature, ...]
    power: Power
    fans: tuple[Fan, ...]


class BoardReader:
    """Reads a board, without root and without daemons, as often as asked."""

    def __init__(self, root: Path = ROOT) -> None:
        """Args: root: the folder that stands for `/`; what only libraries know is known of `/` alone."""
        self._root = root
        self._ticks: Mapping[str, Ticks] = read_ticks(root)

    def read(self) -> Board:
        """Read the board as it is now; the load of the CPU is that since the reading before."""
        root = self._root
        before, self._ticks = self._ticks, read_ticks(root)
        identity = read_identity(root)
        modes = read_modes(root)
        gpu = read_gpu(root)
        cpu = read_cpu(root, before=before, now=self._ticks)
        temperatures, fans = read_temperatures(root), read_fans(root)
        if root == ROOT:
            gpu = add_nvml(gpu)
            if identity.soc is None:
                temperatures, fans = add_psutil(temperatures, fans)
        return Board(
            model=identity.model,
            soc=identity.soc,
            l4t=identity.l4t,
            jetpack=identity.jetpack,
            power_mode=read_mode(root, modes),
            default_power_mode=modes.default,
            are_clocks_fixed=are_clocks_fixed(gpu, cpu),
            gpu=gpu,
            cpu=cpu,
            memory=read_memory(root),
            temperatures=temperatures,
            power=read_power(root),
            fans=fans,
        )


def are_clocks_fixed(gpu: Gpu, cpu: Cpu) -> bool | None:
    """Tell whether neither GPU nor any core that is online may change its clock; None: not all is known."""
    online: list[Gpu | Core] = [core for core in cpu.cores if core.is_online is not False]
    ranges = [(part.min_clock_hz, part.max_clock_hz) for part in [gpu, *online]]
    known = [(low, high) for low, high in ranges if low is not None and high is not None]
    if any(low != high for low, high in known):
        return False
    return True if online and len(known) == len(ranges) else None
