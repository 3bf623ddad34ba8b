"""Sensors: temperatures, what they throttle, power rails and their alarms, fans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from isaac_infer.jetson.sysfs import Tree, read_number, read_thousandths, to_number

_GATED_C = -256.0  # what some drivers say of a part that is off
_MOST_C = 300.0  # what says more is no measurement, such as INT_MAX of a sensor that is broken
_TOTALS = ('VDD_IN', 'VIN')  # rails that all others hang on
_AGX_ORIN = ('VDD_GPU_SOC', 'VDD_CPU_CV', 'VIN_SYS_5V0', 'VDDQ_VDD2_1V8AO')  # has none, these are all
_NOT_CONNECTED = 'NC'
_CHANNELS = (1, 2, 3)  # of an INA3221 with a load; what comes after are sums and shunts
_FULL_PWM = 255
_THERMAL = 'sys/class/thermal'
_PASSIVE = 'passive'  # a trip point where something is slowed down; at active ones fans turn faster
_SLOWING = re.compile(r'-throttle-alert$|^(thermal-)?(cpufreq|devfreq)-')  # fans are cooling devices, too


@dataclass(frozen=True)
class Temperature:
    """A temperature; None: its part is off, or it cannot be read."""

    name: str  # as tegrastats has it: cpu, gpu, tj, ...
    celsius: float | None
    throttle_celsius: float | None = None  # from where on the kernel slows the board down


@dataclass(frozen=True)
class Rail:
    """A power rail; None: unknown."""

    name: str
    voltage_v: float | None
    current_a: float | None
    power_w: float | None
    max_a: float | None = None  # above it for a while, and far above it for a moment: the two alarms
    crit_a: float | None = None
    is_above_max: bool | None = None
    is_above_crit: bool | None = None


@dataclass(frozen=True)
class Power:
    """The rails, and what the board draws in all; None: unknown."""

    total_w: float | None
    rails: tuple[Rail, ...]


@dataclass(frozen=True)
class OverCurrent:
    """How often a circuit has slowed the board down since it started, as its supply could not keep up."""

    name: str  # of an Orin: oc1 under voltage, oc2 over-current on average, oc3 at a moment
    events: int | None  # None: unknown


@dataclass(frozen=True)
class Throttle:
    """What the kernel slows down to cool the board; None: unknown."""

    name: str
    state: int | None  # 0: not slowed down
    max_state: int | None


@dataclass(frozen=True)
class Fan:
    """A fan; None: unknown."""

    speed_percent: float | None  # what it is told
    rpm: int | None  # what it does


def read_temperatures(tree: Tree) -> tuple[Temperature, ...]:
    """Read all thermal zones, in their order."""
    return tuple(
        Temperature(
            _zone_name(tree.seldom(f'{zone}/type') or zone.name),
            _read_celsius(f'{zone}/temp'),
            _throttle_celsius(tree, zone),
        )
        for zone in tree.find(_THERMAL, 'thermal_zone*')
    )


def _zone_name(kind: str) -> str:
    """Give the one name of a zone that is CPU-therm in JetPack 5, and cpu-thermal since."""
    return re.sub(r'-therm(al)?$', '', kind.lower())


def _read_celsius(path: str) -> float | None:
    celsius = read_thousandths(path)
    return celsius if celsius is not None and _GATED_C < celsius <= _MOST_C else None


def _throttle_celsius(tree: Tree, zone: Path) -> float | None:
    """Give the lowest temperature from which on a zone slows something down; None where it has none."""
    trips = [
        number / 1000
        for kind in tree.find(zone, 'trip_point_*_type')
        if tree.seldom(kind) == _PASSIVE
        and (number := to_number(tree.seldom(kind.with_name(kind.name.replace('_type', '_temp')))))
    ]
    return min((celsius for celsius in trips if 0 < celsius <= _MOST_C), default=None)


def read_throttles(tree: Tree) -> tuple[Throttle, ...]:
    """Read what the kernel may slow down where the board is hot, and by how much it does."""
    devices = tree.find(_THERMAL, 'cooling_device*')
    named = [(device, tree.seldom(f'{device}/type') or '') for device in devices]
    return tuple(
        Throttle(
            name,
            read_number(f'{device}/cur_state'),
            to_number(tree.seldom(f'{device}/max_state')),
        )
        for device, name in named
        if _SLOWING.search(name)
    )


def read_power(tree: Tree) -> Power:
    """Read the rails, and what the board draws."""
    rails = []
    for place in tree.find('sys/bus/i2c/drivers/ina3221', '*/hwmon/hwmon*'):
        for channel in _CHANNELS:
            name = tree.seldom(f'{place}/in{channel}_label')
            if name and name != _NOT_CONNECTED:
                current = f'{place}/curr{channel}'
                voltage_v = read_thousandths(f'{place}/in{channel}_input')
                current_a = read_thousandths(f'{current}_input')
                power_w = None
                if voltage_v is not None and current_a is not None:
                    power_w = round(voltage_v * current_a, 6)
                rails.append(
                    Rail(
                        name,
                        voltage_v,
                        current_a,
                        power_w,
                        max_a=_amperes(tree.seldom(f'{current}_max')),
                        crit_a=_amperes(tree.seldom(f'{current}_crit')),
                        is_above_max=_read_flag(f'{current}_max_alarm'),
                        is_above_crit=_read_flag(f'{current}_crit_alarm'),
                    )
                )
    return Power(_total_w(rails), tuple(rails))


def _total_w(rails: Sequence[Rail]) -> float | None:
    """Give the power of the rail that has all, or of all rails; None where one of them is unknown."""
    power_w = {rail.name: rail.power_w for rail in rails}
    for name in _TOTALS:
        if name in power_w:
            return power_w[name]
    known = [watts for name in _AGX_ORIN if (watts := power_w.get(name)) is not None]
    return round(sum(known), 6) if len(known) == len(_AGX_ORIN) else None


def _amperes(text: str | None) -> float | None:
    number = to_number(text)
    return None if number is None else number / 1000


def _read_flag(path: str) -> bool | None:
    number = read_number(path)
    return bool(number) if number in (0, 1) else None


def read_over_currents(tree: Tree) -> tuple[OverCurrent, ...]:
    """Read how often the supply could not keep up."""
    counters = [
        counter for folder in _hwmon(tree, 'soctherm_oc') for counter in tree.find(folder, 'oc*_event_cnt')
    ]
    return tuple(OverCurrent(path.name.removesuffix('_event_cnt'), read_number(path)) for path in counters)


def _hwmon(tree: Tree, name: str) -> list[Path]:
    """Find the devices of a name among those that measure and drive."""
    folders = tree.find('sys/class/hwmon', 'hwmon*')
    return [folder for folder in folders if tree.seldom(f'{folder}/name') == name]


def read_fans(tree: Tree) -> tuple[Fan, ...]:
    """Read the fans: what drives them and what counts their turns are two devices."""
    drivers, counters = _hwmon(tree, 'pwmfan'), _hwmon(tree, 'pwm_tach')
    return tuple(
        Fan(
            speed_percent=_read_pwm(driver / 'pwm1') if driver else None,
            rpm=read_number(counter / 'rpm') if counter else None,
        )
        for driver, counter in zip_longest(drivers, counters)
    )


def _read_pwm(path: Path) -> float | None:
    number = read_number(path)
    return round(100 * number / _FULL_PWM, 1) if number is not None and 0 <= number <= _FULL_PWM else None
