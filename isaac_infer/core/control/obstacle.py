"""Obstacle rule: how a robot without a policy follows a command: it slows down, turns away and stops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.control.scan import Scan, nearest_in_path, resample
from isaac_infer.core.errors import ParameterError

SIDES = {'left': 1, 'right': -1}  # the sign of turning there
SIDE_RAD = math.pi / 2  # from where it drives to, to where a side ends
SIDE_SLICES = 9
REACH = 2.0  # slow distances: what is farther does not make a side freer


@dataclass(frozen=True)
class AvoidanceRule:
    """How far from an obstacle the robot does what; distances are those of `nearest_in_path`."""

    slow_distance_m: float  # from here it drives the slower and turns away the faster, the nearer it comes
    stop_distance_m: float  # from here it only turns; more than that at which the safety layer stops it
    half_width_m: float  # of the way that it needs
    turn_radps: float  # how fast it turns away
    hysteresis_m: float = 0.1  # so much more than `slow_distance_m` has to be free before a side is given up
    cruise_mps: float = 0.0  # driven ahead where nobody commands; 0: then it stands

    def __post_init__(self) -> None:
        for name in ('half_width_m', 'turn_radps', 'hysteresis_m', 'cruise_mps'):
            value = getattr(self, name)
            if not 0 <= value < math.inf:  # written so that NaN fails too
                raise ParameterError(f'{name}: expected a number of at least 0, got {value!r}')
        if not 0 <= self.stop_distance_m < self.slow_distance_m < math.inf:
            raise ParameterError(
                f'stop_distance_m: expected a number from 0 on and below slow_distance_m '
                f'({self.slow_distance_m!r}), got {self.stop_distance_m!r}'
            )


def avoid(scan: Scan | None, wanted: Command | None, rule: AvoidanceRule, side: str) -> tuple[Command, str]:
    """Give the command that follows the wanted one around obstacles.

    It turns to the side that is freer and keeps to it until the way is free again, so that it does not waver
    between two. Where it cannot see its way it stands, as before a way that is closed all around it turns.

    Args:
        scan: None: none that can be read.
        wanted: None: nobody commands.
        rule: how.
        side: a key of SIDES to which it turns already; empty: none.

    Returns:
        The command, and the side for the next call.
    """
    wanted = Command(rule.cruise_mps) if wanted is None else wanted
    nearest_m = nearest_in_path(scan, wanted, half_width_m=rule.half_width_m)
    if scan is None or nearest_m is None:
        return STOP, side
    if nearest_m > rule.slow_distance_m + (rule.hysteresis_m if side else 0):
        return wanted, ''
    side = side or _freer_side(scan, wanted, rule)
    share = (nearest_m - rule.stop_distance_m) / (rule.slow_distance_m - rule.stop_distance_m)
    share = min(max(share, 0.0), 1.0)  # of the wanted command; the rest is turning away
    turn = SIDES[side] * rule.turn_radps
    return Command(
        share * wanted.linear_x, share * wanted.linear_y, share * wanted.angular_z + (1 - share) * turn
    ), side


def _freer_side(scan: Scan, wanted: Command, rule: AvoidanceRule) -> str:
    heading = math.atan2(wanted.linear_y, wanted.linear_x)
    left = _openness(scan, (heading, heading + SIDE_RAD), rule)
    right = _openness(scan, (heading - SIDE_RAD, heading), rule)
    return 'left' if left >= right else 'right'


def _openness(scan: Scan, sector_rad: tuple[float, float], rule: AvoidanceRule) -> float:
    """How far it sees in a sector, in the mean; nowhere where nothing was measured."""
    ranges = resample(scan, sector_rad, into=np.empty(SIDE_SLICES))
    return float(np.nan_to_num(np.minimum(ranges, REACH * rule.slow_distance_m)).mean())
