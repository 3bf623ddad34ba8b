"""Scan: what a laser scanner saw around the robot, read by the rules of REP 117.

A range is an obstacle, free as far as the scanner sees (inf), or not measured (NaN). What was not measured is
never taken for free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isaac_infer.core.control.command import Command
from isaac_infer.core.errors import ScanError

STRAY_BEAMS = 2  # by which scanners miscount their ranges: the angle of a full turn once or twice, say
BOUNDARY_RAD = 1e-4  # scans have their angles in float32: a beam this near to a boundary is on it
FINEST_RAD = 1e-6  # between two beams
MOST_RANGES = 100_000  # more take longer to read than a period of the control has
WIDEST_RAD = math.radians(10)  # between two beams that see: a leg fits between them before the robot stops
TOUCHING_M = 1e-3  # from the scanner to what is so near that it could not be measured
LOOK_RAD = math.radians(30)  # to both sides of where the robot drives to: there the scan has to see
SEEN_SHARE = 0.5  # of what lies there has to be measured


@dataclass(frozen=True)
class Mounting:
    """Where the scanner sits on the robot."""

    x_m: float = 0.0  # of the robot's frame: forward
    y_m: float = 0.0  # left
    yaw_rad: float = 0.0  # of the scanner's x axis, turned left from the robot's
    is_upside_down: bool = False


@dataclass(frozen=True)
class Scan:
    """One turn of the scanner, in the axes of the robot; at least one range of it was measured."""

    angle_rad: np.ndarray  # (N,) float64, from the robot's x axis to the left, in equal steps, not wrapped
    range_m: np.ndarray  # (N,) float64 from the scanner; inf: free as far as it sees, NaN: not measured
    step_rad: float  # between two beams; negative: they go to the right
    range_max_m: float  # how far it sees
    origin_xy: tuple[float, float]  # where the scanner is, metres in the robot's frame
    ray_xy: np.ndarray  # (N, 2) float64, the unit vector of every beam
    obstacle_xy: np.ndarray  # (M, 2) float64 metres in the robot's frame, what the beams hit


def read_scan(
    ranges: Sequence[float] | np.ndarray,
    *,
    angle_min: float,
    angle_increment: float,
    range_min: float,
    range_max: float,
    angle_max: float | None = None,
    mounting: Mounting = Mounting(),
    zero_is_unknown: bool = False,
) -> Scan:
    """Read the fields of a LaserScan.

    -inf, 0 and what is nearer than `range_min` is an obstacle at `range_min`; inf and what is farther than
    `range_max` is free; NaN was not measured. In `obstacle_xy` what is too near is where it was measured, and
    at the scanner where it was not: it may be anywhere before `range_min`.

    Args:
        ranges: (N,) metres.
        angle_min: of the first beam, radians; `angle_increment` is the step to the next, of either sign.
        range_min, range_max: what the scanner can measure, metres; `range_max` may be infinite.
        angle_max: of the last beam, where it is known: the number of ranges has to agree.
        mounting: of the scanner on the robot.
        zero_is_unknown: whether a range of 0 was not measured, as some drivers have it. Otherwise it is
            nearer than `range_min`.

    Raises:
        ScanError: angles or limits cannot be, the number of ranges is another, or nothing was measured.
    """
    measured = np.array(ranges, np.float64)
    _check(measured, angle_min, angle_increment, angle_max, range_min, range_max)
    if zero_is_unknown:
        measured[measured == 0] = np.nan
    hit_m = np.where(measured > 0, measured, TOUCHING_M)
    measured[measured < range_min] = range_min
    measured[measured > range_max] = np.inf
    if np.isnan(measured).all():
        raise ScanError(f'scan: expected ranges, got {len(measured)} of which none was measured')
    turn = -1 if mounting.is_upside_down else 1
    angle = mounting.yaw_rad + turn * (angle_min + np.arange(len(measured)) * angle_increment)
    ray_xy = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    is_hit = np.isfinite(measured)
    origin_xy = (mounting.x_m, mounting.y_m)
    hit_xy = origin_xy + hit_m[is_hit, None] * ray_xy[is_hit]
    return Scan(angle, measured, turn * angle_increment, range_max, origin_xy, ray_xy, hit_xy)


def _check(
    ranges: np.ndarray,
    angle_min: float,
    increment: float,
    angle_max: float | None,
    range_min: float,
    range_max: float,
) -> None:
    if ranges.ndim != 1 or not len(ranges):
        raise ScanError(f'scan: expected a row of ranges, got shape {list(ranges.shape)}')
    if len(ranges) > MOST_RANGES:
        raise ScanError(f'scan: expected at most {MOST_RANGES} ranges, got {len(ranges)}; thin it out')
    # Written so that NaN fails too.
    if not abs(angle_min) <= 2 * math.tau or not FINEST_RAD <= abs(increment) <= math.tau:
        raise ScanError(
            f'scan: expected angles in radians, in steps of up to a full turn, got angle_min {angle_min}, '
            f'angle_increment {increment}'
        )
    if not 0 <= range_min < range_max:
        raise ScanError(
            f'scan: expected range_min from 0 on and below range_max, got {range_min} and {range_max}'
        )
    most = math.tau / abs(increment) + STRAY_BEAMS
    if len(ranges) > most:
        raise ScanError(
            f'scan: expected at most {most:.0f} ranges, a full turn in steps of {abs(increment):g} rad, '
            f'got {len(ranges)}'
        )
    if angle_max is not None:
        expected = (angle_max - angle_min) / increment + 1
        if not abs(len(ranges) - expected) <= STRAY_BEAMS:
            raise ScanError(
                f'scan: expected {expected:.0f} ranges from angle_min {angle_min:g} to angle_max '
                f'{angle_max:g} in steps of {increment:g} rad, got {len(ranges)}'
            )


def resample(scan: Scan, sector_rad: tuple[float, float], *, into: np.ndarray) -> np.ndarray:
    """Give the nearest range in each of some equal slices of a sector.

    A slice between two beams has the range of the nearer one. Inf: free, NaN: nothing was measured there.

    Args:
        scan: the scan.
        sector_rad: from where to where, to the left, in the robot's axes; at most a full turn.
        into: (beams,) floats that are written, the first at the begin of the sector; returned.
    """
    start, end = sector_rad
    width = (end - start) / len(into)
    along = np.mod(scan.angle_rad - start + BOUNDARY_RAD, math.tau)
    is_inside = along <= end - start + 2 * BOUNDARY_RAD
    slices = np.minimum((along[is_inside] / width).astype(np.int64), len(into) - 1)
    into[...] = np.nan
    np.fmin.at(into, slices, scan.range_m[is_inside].astype(into.dtype))  # NaN only where all are
    is_empty = np.bincount(slices, minlength=len(into)) == 0
    if is_empty.any():
        middles = start + (np.flatnonzero(is_empty) + 0.5) * width
        into[is_empty] = _range_at(scan, middles)
    return into


def _range_at(scan: Scan, angle_rad: np.ndarray) -> np.ndarray:
    """The range of the beam nearest to each angle; NaN where the scanner does not look."""
    step = abs(scan.step_rad)
    along = math.copysign(1, scan.step_rad) * (angle_rad - scan.angle_rad[0])
    beams = (np.mod(along + step / 2, math.tau) / step).astype(np.int64)
    ranges = scan.range_m[np.minimum(beams, len(scan.range_m) - 1)]
    return np.where(beams < len(scan.range_m), ranges, np.nan)


def nearest_in_path(
    scan: Scan | None, command: Command, *, half_width_m: float, reach_m: float = 0.0
) -> float | None:
    """Metres to the nearest obstacle in the way of a command, measured along it from the robot's origin.

    The way is a straight corridor in the direction in which the command drives; what turning adds is left to
    the next scan. inf: free, or it does not drive. None: there is no scan, it does not see `reach_m` far, or
    too little was measured where the robot drives to, such as behind a scanner that looks ahead: less than
    SEEN_SHARE, or nothing over more than WIDEST_RAD.
    """
    if scan is None:
        return None
    fastest = max(abs(command.linear_x), abs(command.linear_y))
    if fastest == 0:
        return math.inf
    x, y = command.linear_x / fastest, command.linear_y / fastest  # so that no length is infinite, or 0
    heading = np.array((x, y)) / math.hypot(x, y)
    off_rad = np.mod(scan.angle_rad - math.atan2(y, x) + math.pi, math.tau) - math.pi
    is_ahead = np.abs(off_rad) <= LOOK_RAD
    ahead = scan.obstacle_xy @ heading
    is_seen = ~np.isnan(scan.range_m)
    is_seen[np.isfinite(scan.range_m)] = ahead > 0  # what ends before the robot's origin tells of no way
    seen_rad = np.count_nonzero(is_ahead & is_seen) * min(abs(scan.step_rad), WIDEST_RAD)
    seen_at = np.sort(np.concatenate(((-LOOK_RAD, LOOK_RAD), off_rad[is_ahead & is_seen])))
    widest_rad = float(np.diff(seen_at).max())
    if seen_rad < SEEN_SHARE * 2 * LOOK_RAD or widest_rad > WIDEST_RAD + BOUNDARY_RAD:
        return None
    aside = scan.obstacle_xy @ np.array((-heading[1], heading[0]))
    in_way = ahead[(ahead > 0) & (np.abs(aside) <= half_width_m)]
    if not len(in_way) and scan.range_max_m + float(scan.origin_xy @ heading) < reach_m:
        return None
    return float(in_way.min(initial=math.inf))
