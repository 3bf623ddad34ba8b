"""Observation: what sensors say, as the numbers that an input of a control policy takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from isaac_infer.core.control.command import COMPONENTS, Command
from isaac_infer.core.control.options import Options
from isaac_infer.core.control.scan import Scan, resample
from isaac_infer.core.errors import ParameterError, TensorError
from isaac_infer.core.frame import Frame

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Imu:
    """What an inertial unit measures, in the robot's axes."""

    angular_velocity: Vector = (0.0, 0.0, 0.0)  # rad/s around x, y, z
    linear_acceleration: Vector = (0.0, 0.0, 0.0)  # m/s^2 along x, y, z, gravity included
    orientation: tuple[float, float, float, float] | None = None  # quaternion x, y, z, w; None: it tells none


@dataclass(frozen=True)
class Sources:
    """The newest of everything that a policy may be fed with; None: none came."""

    image: Frame | None = None
    scan: Scan | None = None
    imu: Imu | None = None
    command: Command | None = None  # what somebody wants the robot to do


IMU_FIELDS = (
    *(f'{vector}.{axis}' for vector in ('angular_velocity', 'linear_acceleration') for axis in 'xyz'),
    *(f'orientation.{axis}' for axis in 'xyzw'),
    'roll',
    'pitch',
    'yaw',
)
IMU_DEFAULT = IMU_FIELDS[:6]
COMMAND_DEFAULT = ('linear.x', 'angular.z')

Read = Callable[[Sources, np.ndarray], None]  # writes (size,) float64


@dataclass(frozen=True)
class Part:
    """A row of numbers of an input: (value * scale - mean) / std, then clipped."""

    where: str  # in the document, for errors
    kind: str  # a key of KINDS
    read: Read
    values: np.ndarray  # (size,) float64 of the last call
    scale: float
    mean: np.ndarray  # (size,) or (1,)
    std: np.ndarray  # the same
    clip: tuple[float, ...]  # low, high; empty: it is not

    @property
    def size(self) -> int:
        return len(self.values)

    def write(self, sources: Sources, into: np.ndarray) -> None:
        """Write the numbers in the dtype of the input.

        Raises:
            TensorError: the source is missing, or has a value that is no finite number there.
        """
        values = self.values
        self.read(sources, values)
        if not np.isfinite(values).all():
            raise self._refusal(values, into.dtype)
        values *= self.scale
        values -= self.mean
        values /= self.std
        if self.clip:
            np.clip(values, *self.clip, out=values)
        with np.errstate(over='ignore'):  # it is found right here
            into[...] = values
        if not np.isfinite(into).all():
            raise self._refusal(into, into.dtype)

    def _refusal(self, values: np.ndarray, dtype: np.dtype) -> TensorError:
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        return TensorError(f'{self.where}: expected finite {dtype}, got {values[bad]:g} as number {bad}')


def read_part(where: str, kind: str, options: Any, *, last_action: np.ndarray, rest: int | None) -> Part:
    """Read how a source becomes a row of numbers.

    Args:
        where: in the document, for errors.
        kind: a key of KINDS.
        options: of the document; None where it has none.
        last_action: (A,) the array in which the policy keeps its last answer.
        rest: how many numbers of the input the other parts leave; None where that is not known.

    Raises:
        ParameterError: an option is unknown or cannot be.
    """
    given = Options(where, options)
    read, size = KINDS[kind](given, last_action, rest)
    scale = given.number('scale', 1.0)
    mean = np.array(given.numbers('mean', (0.0,), counts=(1, size)))
    std = np.array(given.numbers('std', (1.0,), counts=(1, size)))
    if not (std > 0).all():
        raise ParameterError(f'{where}: std: expected numbers above 0, got {std.tolist()}')
    clip = given.numbers('clip', (), counts=(2,))
    if clip and not clip[0] < clip[1]:
        raise ParameterError(f'{where}: clip: expected the lower number first, got {list(clip)}')
    given.close()
    return Part(where, kind, read, np.zeros(size), scale, mean, std, clip)


def _scan(given: Options, last_action: np.ndarray, rest: int | None) -> tuple[Read, int]:
    beams = given.whole('beams', rest, low=1)
    if beams is None or beams < 1:
        raise ParameterError(f'{given.where}: beams: expected how many ranges the policy takes, got none')
    start, end = given.numbers('sector_deg', (-180.0, 180.0), counts=(2,))
    if not 0 < end - start <= 360 or abs(start) > 360:
        raise ParameterError(
            f'{given.where}: sector_deg: expected from where to where, to the left, at most a full turn, '
            f'got {start:g} to {end:g}'
        )
    low = given.number('min_m', 0.0)
    high = given.number('max_m', math.nan)
    if not 0 <= low < high:  # written so that NaN, where it is not given, fails too
        raise ParameterError(
            f'{given.where}: max_m: expected metres that stand for a free way, above min_m ({low:g}), '
            f'got {given.none_of("max_m") if math.isnan(high) else f"{high:g}"}'
        )
    unknown = given.number('unknown_m', low)
    sector = (math.radians(start), math.radians(end))
    return partial(_read_scan, sector=sector, low=low, high=high, unknown=unknown), beams


def _read_scan(
    sources: Sources,
    into: np.ndarray,
    *,
    sector: tuple[float, float],
    low: float,
    high: float,
    unknown: float,
) -> None:
    resample(_there('scan', sources.scan), sector, into=into)
    into[np.isnan(into)] = unknown
    np.clip(into, low, high, out=into)


def _imu(given: Options, last_action: np.ndarray, rest: int | None) -> tuple[Read, int]:
    fields = given.words('fields', IMU_DEFAULT, IMU_FIELDS)
    return partial(_read_imu, fields=fields), len(fields)


def _read_imu(sources: Sources, into: np.ndarray, *, fields: tuple[str, ...]) -> None:
    imu = _there('imu', sources.imu)
    for index, field in enumerate(fields):
        name, _, axis = field.partition('.')
        if name == 'angular_velocity':
            into[index] = imu.angular_velocity['xyz'.index(axis)]
        elif name == 'linear_acceleration':
            into[index] = imu.linear_acceleration['xyz'.index(axis)]
        elif name == 'orientation':
            into[index] = _orientation(imu)['xyzw'.index(axis)]
        else:
            into[index] = _ANGLES[name](*_orientation(imu))


def _orientation(imu: Imu) -> tuple[float, ...]:
    """The unit quaternion x, y, z, w."""
    length = math.hypot(*(imu.orientation or (0.0,)))
    if imu.orientation is None or not 0 < length < math.inf:  # drivers without one publish zeros
        raise TensorError(f'imu: the policy needs an orientation, this unit tells {imu.orientation}')
    return tuple(value / length for value in imu.orientation)


# Of a quaternion, about the fixed axes x, then y, then z, in radians, as in REP 103.
_ANGLES: dict[str, Callable[..., float]] = {
    'roll': lambda x, y, z, w: math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
    'pitch': lambda x, y, z, w: math.asin(min(max(2 * (w * y - z * x), -1.0), 1.0)),
    'yaw': lambda x, y, z, w: math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
}


def _command(given: Options, last_action: np.ndarray, rest: int | None) -> tuple[Read, int]:
    fields = given.words('fields', COMMAND_DEFAULT, tuple(COMPONENTS))
    return partial(_read_command, fields=tuple(COMPONENTS[field] for field in fields)), len(fields)


def _read_command(sources: Sources, into: np.ndarray, *, fields: tuple[str, ...]) -> None:
    command = _there('command', sources.command)
    for index, field in enumerate(fields):
        into[index] = getattr(command, field)


def _last_action(given: Options, last_action: np.ndarray, rest: int | None) -> tuple[Read, int]:
    return partial(_read_last_action, last_action=last_action), len(last_action)


def _read_last_action(sources: Sources, into: np.ndarray, *, last_action: np.ndarray) -> None:
    into[...] = last_action


def _there(name: str, source: Any) -> Any:
    if source is None:
        raise TensorError(f'{name}: the policy needs one, none came that can be used')
    return source


KINDS: Mapping[str, Callable[[Options, np.ndarray, int | None], tuple[Read, int]]] = {
    'scan': _scan,
    'imu': _imu,
    'command': _command,
    'last_action': _last_action,
}
