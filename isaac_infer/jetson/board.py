"""Board: all that is known of a board at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from isaac_infer.jetson.cpu import Core, Cpu, Ticks, read_cpu, read_ticks
from isaac_infer.jetson.gpu import Gpu, read_gpu
from isaac_infer.jetson.identity import Identity, read_identity
from isaac_infer.jetson.memory import Memory, read_memory
from isaac_infer.jetson.nvpmodel import (
    CONF,
    PowerMode,
    PowerModes,
    read_fan_profile,
    read_mode,
    read_modes,
)
from isaac_infer.jetson.pc import add_nvml, add_psutil
from isaac_infer.jetson.sensors import (
    Fan,
    OverCurrent,
    Power,
    Temperature,
    Throttle,
    read_fans,
    read_over_currents,
    read_power,
    read_temperatures,
    read_throttles,
)
from isaac_infer.jetson.sysfs import Tree

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
    power_modes: tuple[PowerMode, ...]  # all that there are, in the order of nvpmodel.conf
    are_clocks_fixed: bool | None  # as jetson_clocks does it
    gpu: Gpu
    cpu: Cpu
    memory: Memory
    temperatures: tuple[Temperature, ...]
    power: Power
    fans: tuple[Fan, ...]
    fan_profile: str | None  # such as quiet
    throttles: tuple[Throttle, ...]
    over_currents: tuple[OverCurrent, ...]

    @property
    def is_throttling(self) -> bool | None:
        """Whether anything is slowed down to cool the board; None where nothing tells."""
        states = [throttle.state for throttle in self.throttles if throttle.state is not None]
        return any(state > 0 for state in states) if states else None

    def margin_celsius(self, throttle_celsius: float) -> float | None:
        """Give how far the hottest sensor is from where throttling begins; None: no temperature is known.

        Args:
            throttle_celsius: where that is for sensors that do not say it themselves.
        """
        margins = [
            (sensor.throttle_celsius or throttle_celsius) - sensor.celsius
            for sensor in self.temperatures
            if sensor.celsius is not None
        ]
        return min(margins, default=None)


@dataclass(frozen=True)
class _Slow:
    """What need not be read several times a second."""

    at_s: float  # monotonic
    identity: Identity
    card: Gpu | None  # what NVML knows of the GPU; None: it was not asked
    memory: Memory
    temperatures: tuple[Temperature, ...]  # for want of thermal zones
    power: Power
    fans: tuple[Fan, ...]
    fan_profile: str | None
    throttles: tuple[Throttle, ...]
    over_currents: tuple[OverCurrent, ...]


class BoardReader:
    """Reads a board, without root and without daemons, as often as asked."""

    def __init__(self, root: Path = ROOT, *, asks_tool: bool = True, slow_s: float = 0.0) -> None:
        """Begin to measure.

        Args:
            root: the folder that stands for `/`; what only libraries know is known of `/` alone.
            asks_tool: whether nvpmodel itself, which may take seconds, is asked for a mode that no file has.
            slow_s: for so long memory, rails, fans, throttling, and what only libraries know, are taken to
                be as they were: for those who read several times a second.
        """
        self._root = root
        self._tree = Tree(root)
        self._asks_tool, self._slow_s = asks_tool, slow_s
        self._slow: _Slow | None = None
        self._conf: tuple[int, int, int] | None = None  # what it was like when it was read
        self._modes = PowerModes()
        self._ticks: Mapping[str, Ticks] = read_ticks(root)

    def read(self) -> Board:
        """Read the board as it is now; the load of the CPU is that since the reading before."""
        root, tree = self._root, self._tree
        before, self._ticks = self._ticks, read_ticks(root)
        if self._slow is None or monotonic() - self._slow.at_s >= self._slow_s:
            self._slow = self._read_slow()
        slow, modes = self._slow, self.modes
        gpu = read_gpu(tree)
        if gpu.load_percent is None:
            gpu = slow.card or gpu
        cpu = read_cpu(tree, before=before, now=self._ticks)
        return Board(
            model=slow.identity.model,
            soc=slow.identity.soc,
            l4t=slow.identity.l4t,
            jetpack=slow.identity.jetpack,
            power_mode=read_mode(root, modes, asks_tool=self._asks_tool),
            default_power_mode=modes.default,
            power_modes=tuple(modes.modes.values()),
            are_clocks_fixed=are_clocks_fixed(gpu, cpu),
            gpu=gpu,
            cpu=cpu,
            memory=slow.memory,
            temperatures=read_temperatures(tree) or slow.temperatures,
            power=slow.power,
            fans=slow.fans,
            fan_profile=slow.fan_profile,
            throttles=slow.throttles,
            over_currents=slow.over_currents,
        )

    def _read_slow(self) -> _Slow:
        root, tree = self._root, self._tree
        identity = read_identity(root)
        temperatures, fans = read_temperatures(tree), read_fans(tree)
        if root == ROOT and identity.soc is None:
            temperatures, fans = add_psutil(temperatures, fans)
        return _Slow(
            at_s=monotonic(),
            identity=identity,
            card=add_nvml(read_gpu(tree)) if root == ROOT else None,
            memory=read_memory(root),
            temperatures=temperatures,
            power=read_power(tree),
            fans=fans,
            fan_profile=read_fan_profile(root),
            throttles=read_throttles(tree),
            over_currents=read_over_currents(tree),
        )

    @property
    def modes(self) -> PowerModes:
        """The power modes of the board; read again where their file is not the one that was read before."""
        try:
            found = (self._root / CONF).stat()
            conf = found.st_mtime_ns, found.st_size, found.st_ino
        except OSError:
            conf = None
        if conf != self._conf:
            self._modes = read_modes(self._root)
            self._conf = conf
        return self._modes


def are_clocks_fixed(gpu: Gpu, cpu: Cpu) -> bool | None:
    """Tell whether neither GPU nor any core that is online may change its clock; None: not all is known."""
    online: list[Gpu | Core] = [core for core in cpu.cores if core.is_online is not False]
    ranges = [(part.min_clock_hz, part.max_clock_hz) for part in [gpu, *online]]
    known = [(low, high) for low, high in ranges if low is not None and high is not None]
    if any(low != high for low, high in known):
        return False
    return True if online and len(known) == len(ranges) else None
