"""Sensors: temperatures, power rails and fans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from isaac_infer.jetson.sysfs import in_order, read_number, read_text, read_thousandths

_GATED_C = -256.0  # what some drivers say of a part that is off
_TOTALS = ('VDD_IN', 'VIN')  # rails that all others hang on
_AGX_ORIN = ('VDD_GPU_SOC', 'VDD_CPU_CV', 'VIN_SYS_5V0', 'VDDQ_VDD2_1V8AO')  # has none, these are all
_NOT_CONNECTED = 'NC'
_CHANNELS = (1, 2, 3)  # of an INA3221 with a load; what comes after are sums and shunts
_FULL_PWM = 255


@dataclass(frozen=True)
class Temperature:
    """A temperature; None: its part is off, or it cannot be read."""

    name: str  # as tegrastats has it: cpu, gpu, tj, ...
    celsius: float | None


@dataclass(frozen=True)
class Rail:
    """A power rail; None: unknown."""

    name: str
    voltage_v: float | None
    current_a: float | None
    power_w: float | None


@dataclass(frozen=True)
class Power:
    """The rails, and what the board draws in all; None: unknown."""

    total_w: float | None
    rails: tuple[Rail, ...]


@dataclass(frozen=True)
class Fan:
    """A fan; None: unknown."""

    speed_percent: float | None  # what it is told
    rpm: int | None  # what it does


def read_temperatures(root: Path) -> tuple[Temperature, ...]:
    """Read all thermal zones, in their order."""
    return tuple(
        Temperature(_zone_name(read_text(zone / 'type') or zone.name), _read_celsius(zone / 'temp'))
        for zone in in_order((root / 'sys/class/thermal').glob('thermal_zone*'))
    )


def _zone_name(kind: str) -> str:
    """Give the one name of a zone that is CPU-therm in JetPack 5, and cpu-thermal since."""
    return re.sub(r'-therm(al)?$', '', kind.lower())


def _read_celsius(path: Path) -> float | None:
    celsius = read_thousandths(path)
    return None if celsius is None or celsius <= _GATED_C else celsius


def read_power(root: Path) -> Power:
    """Read the rails, and what the board draws."""
    rails = []
    for place in in_order((root / 'sys/bus/i2c/drivers/ina3221').glob('*/hwmon/hwmon*')):
        for channel in _CHANNELS:
            name = read_text(place / f'in{channel}_label')
            if name and name != _NOT_CONNECTED:
                voltage_v = read_thousandths(place / f'in{channel}_input')
                current_a = read_thousandths(place / f'curr{channel}_input')
                power_w = None
                if voltage_v is not None and current_a is not None:
                    power_w = round(voltage_v * current_a, 6)
                rails.append(Rail(name, voltage_v, current_a, power_w))
    return Power(_total_w(rails), tuple(rails))


def _total_w(rails: Sequence[Rail]) -> float | None:
    """Give the power of the rail that has all, or of all rails; None where one of them is unknown."""
    power_w = {rail.name: rail.power_w for rail in rails}
    for name in _TOTALS:
        if name in power_w:
            return power_w[name]
    known = [watts for name in _AGX_ORIN if (watts := power_w.get(name)) is not None]
    return round(sum(known), 6) if len(known) == len(_AGX_ORIN) else None


def read_fans(root: Path) -> tuple[Fan, ...]:
    """Read the fans: what drives them and what counts their turns are two devices."""
    folders = in_order((root / 'sys/class/hwmon').glob('hwmon*'))
    names = {folder: read_text(folder / 'name') for folder in folders}
    drivers = [folder for folder in folders if names[folder] == 'pwmfan']
    counters = [folder for folder in folders if names[folder] == 'pwm_tach']
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
