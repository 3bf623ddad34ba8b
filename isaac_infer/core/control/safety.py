"""Safety: the last word on every command: a fault stops the robot at once, all else is limited.

Pure: what is known goes in, the command and the reasons of a stop come out. Whoever publishes the command
calls `govern` once per period and keeps the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.text import beside

# Kinds of reasons, in the order in which they are reported.
KINDS = (
    'not_enabled',
    'latched',
    'other_authority',
    'clock',
    'missing',
    'stale',
    'future',
    'model_error',
    'deadline',
    'no_command',
    'not_finite',
    'unreadable',
    'obstacle',
)
LATCHABLE = frozenset(KINDS) - {'not_enabled', 'latched'}

CLOCK_SKEW_S = 0.1  # that far from the future may a stamp be: clocks of two machines, steps of simulated time
LONGEST_STEP = 2.0  # periods: a command that comes later than that changes by no more than after these
SILENCE = 5.0  # periods without a command after which the base has stopped the robot by itself


@dataclass(frozen=True)
class SafetyLimits:
    """What a robot may do; a speed or acceleration of 0 allows no motion of that kind."""

    period_s: float  # between two commands
    max_age_s: Mapping[str, float]  # of every input that has to be fresh, by its name
    stop_distance_m: float  # to what is in the way, and no command leads nearer; 0: no scan is asked
    max_linear_mps: float
    max_angular_radps: float
    max_linear_mps2: float
    max_angular_radps2: float
    latching: frozenset[str] = frozenset()  # kinds, of LATCHABLE: they stop until `reset`

    def __post_init__(self) -> None:
        at_least_0 = ('stop_distance_m', 'max_linear_mps', 'max_angular_radps')
        for name in (*at_least_0, 'max_linear_mps2', 'max_angular_radps2'):
            value = getattr(self, name)
            if not 0 <= value < math.inf:  # written so that NaN fails too
                raise ParameterError(f'{name}: expected a number of at least 0, got {value!r}')
        periods = {'period_s': self.period_s, **{f'max_age_s of {k}': v for k, v in self.max_age_s.items()}}
        for name, value in periods.items():
            if not 0 < value < math.inf:
                raise ParameterError(f'{name}: expected seconds above 0, got {value!r}')
        unknown = sorted(self.latching - LATCHABLE)
        if unknown:
            known = ', '.join(kind for kind in KINDS if kind in LATCHABLE)
            raise ParameterError(f'latching: expected some of {known}, got {", ".join(unknown)}')


@dataclass(frozen=True)
class Readings:
    """All that is known when a command is due."""

    is_enabled: bool
    age_s: Mapping[str, float | None]  # of the newest of each input, by its name; None: none came yet
    wanted: Command | None  # of the policy or rule; None: it has none
    elapsed_s: float  # since the last command, by a steady clock
    # Metres to the nearest obstacle in the way of a command: inf: none; None: no scan tells.
    # Asked for what is wanted and for what would be sent: a robot that brakes still drives the other way.
    nearest_m: Callable[[Command], float | None]
    model_error: str = ''  # what went wrong, for people; empty: nothing
    missed_deadline: str = ''  # the same
    other_authority: str = ''  # who else publishes commands
    clock_problem: str = ''  # why stamps say nothing of ages


@dataclass(frozen=True)
class Reason:
    """Why the robot stands."""

    kind: str  # one of KINDS
    text: str  # for people, with numbers
    source: str = ''  # the name of the input, where one is the cause

    @property
    def name(self) -> str:
        """For machines and for telling a new reason from an old one: `obstacle`, `stale:scan`."""
        return f'{self.kind}:{self.source}' if self.source else self.kind


@dataclass(frozen=True)
class State:
    """What is kept from one command to the next."""

    last: Command = STOP
    latched: str = ''  # why it stopped for good; empty: it did not
    persisting: tuple[Reason, ...] = ()  # reasons that latch and that the last verdict found: no reset


@dataclass(frozen=True)
class Verdict:
    """The command to publish, and why it is STOP; without a reason it is what is wanted, limited."""

    command: Command
    reasons: tuple[Reason, ...]
    state: State


def age_of(by_stamp_s: float, by_arrival_s: float) -> float:
    """How old a message is: the older of both; by its stamp where that is too far from the future.

    A stamp that is a little ahead says nothing: with a clock that stands still, it would stay so for ever.
    """
    return by_stamp_s if by_stamp_s < -CLOCK_SKEW_S else max(by_stamp_s, by_arrival_s)


def govern(readings: Readings, limits: SafetyLimits, state: State) -> Verdict:
    """Decide what the robot does in this period.

    With any reason against motion the command is STOP at once, not after a ramp. Without, it is what is
    wanted within the limits of speed, then of acceleration, under which a vector keeps its direction.
    """
    is_usable = readings.wanted is not None and readings.wanted.is_finite
    has_time = 0 <= readings.elapsed_s < math.inf  # written so that NaN is none
    command = STOP
    if readings.wanted is not None and is_usable and has_time:
        is_standing = readings.elapsed_s > SILENCE * limits.period_s
        last = STOP if is_standing else state.last
        command = _limited(readings.wanted, last, limits, readings.elapsed_s)
    faults = (
        *_faults_of_inputs(readings, limits),
        *_faults_of_command(readings),
        *_faults_of_way(readings, limits, command),
    )
    persisting = tuple(fault for fault in faults if fault.kind in limits.latching)
    latched = state.latched
    if readings.is_enabled and not latched:  # before, nothing moves, and inputs are yet to come
        latched = '; '.join(fault.text for fault in persisting)
    reasons = (*_orders(readings, latched), *faults)
    if reasons:
        command = STOP
    return Verdict(command, reasons, State(command, latched, persisting))


def govern_without_sensors(error: str, is_enabled: bool, limits: SafetyLimits, state: State) -> Verdict:
    """Stop for an error of the program itself, which may be in what reads the sensors: they are not asked."""
    readings = Readings(
        is_enabled, {}, wanted=STOP, elapsed_s=0.0, nearest_m=lambda command: math.inf, model_error=error
    )
    return govern(readings, replace(limits, max_age_s={}, stop_distance_m=0.0), state)


def stop(state: State, why: str) -> State:
    """Stop for good, until `reset`; `why` is for people."""
    return replace(state, last=STOP, latched=state.latched or why or 'stopped')


def reset(state: State) -> State:
    """Let the robot move again; it stays `latched` as long as what stopped it persists."""
    return state if state.persisting else replace(state, latched='')


def _orders(readings: Readings, latched: str) -> Iterator[Reason]:
    if not readings.is_enabled:
        yield Reason('not_enabled', 'not enabled')
    if latched:
        yield Reason('latched', f'stopped until reset: {latched}')


def _faults_of_inputs(readings: Readings, limits: SafetyLimits) -> Iterator[Reason]:
    if readings.other_authority:
        yield Reason('other_authority', f'commands come from another node, too: {readings.other_authority}')
    if readings.clock_problem:
        yield Reason('clock', readings.clock_problem)
    if not 0 <= readings.elapsed_s < math.inf:
        yield Reason('clock', f'since the last command: expected seconds from 0 on, got {readings.elapsed_s}')
    found = [
        _fault_of_age(name, readings.age_s.get(name), max_age_s)
        for name, max_age_s in limits.max_age_s.items()
    ]
    yield from sorted((fault for fault in found if fault), key=lambda fault: KINDS.index(fault.kind))


def _fault_of_age(name: str, age_s: float | None, max_age_s: float) -> Reason | None:
    if age_s is None:
        return Reason('missing', f'{name}: none came yet', name)
    if age_s < -CLOCK_SKEW_S:
        return Reason('future', f'{name}: its stamp is {-age_s:.3f} s from the future', name)
    if not age_s <= max_age_s:  # written so that NaN fails too
        age = beside(age_s, max_age_s, 3)
        return Reason('stale', f'{name}: {age} s old, expected at most {max_age_s:g} s', name)
    return None


def _faults_of_command(readings: Readings) -> Iterator[Reason]:
    if readings.model_error:
        yield Reason('model_error', readings.model_error)
    if readings.missed_deadline:
        yield Reason('deadline', readings.missed_deadline)
    wanted = readings.wanted
    if wanted is None:
        yield Reason('no_command', 'no command is wanted')
    elif not wanted.is_finite:
        yield Reason('not_finite', f'the wanted command is not a number or infinite: {wanted}')


def _faults_of_way(readings: Readings, limits: SafetyLimits, command: Command) -> Iterator[Reason]:
    if not limits.stop_distance_m:
        return
    wanted = readings.wanted if readings.wanted is not None and readings.wanted.is_finite else STOP
    distances = [readings.nearest_m(wanted), readings.nearest_m(command)]
    if None in distances:
        yield Reason('unreadable', 'no scan that can be read and sees where it drives to')
        return
    # Until the next command it drives on, blindly.
    reach_m = limits.stop_distance_m + command.speed_mps * limits.period_s
    blocked = [m for m in distances if m is not None and not m > reach_m]  # NaN blocks, too
    if blocked:
        yield Reason(
            'obstacle', f'an obstacle in the way, {min(blocked):.2f} m ahead; stops at {reach_m:.2f} m'
        )


def _limited(wanted: Command, last: Command, limits: SafetyLimits, elapsed_s: float) -> Command:
    step_s = min(elapsed_s, LONGEST_STEP * limits.period_s)
    linear_x, linear_y = _approach(
        (wanted.linear_x, wanted.linear_y),
        (last.linear_x, last.linear_y),
        limits.max_linear_mps,
        limits.max_linear_mps2,
        step_s,
    )
    angular_z, _ = _approach(
        (wanted.angular_z, 0.0),
        (last.angular_z, 0.0),
        limits.max_angular_radps,
        limits.max_angular_radps2,
        step_s,
    )
    return Command(linear_x, linear_y, angular_z)


Vector = tuple[float, float]


def _approach(wanted: Vector, last: Vector, speed: float, acceleration: float, step_s: float) -> Vector:
    """Go from the last velocity towards the wanted one; both within the speed, so that all between is."""
    if not acceleration:
        return 0.0, 0.0  # not the last one for ever
    x, y = _shortened(wanted, speed)
    last_x, last_y = _shortened(last, speed)  # the limit may have been lowered since
    change_x, change_y = _shortened((x - last_x, y - last_y), acceleration * step_s)
    return last_x + change_x, last_y + change_y


def _shortened(vector: Vector, longest: float) -> Vector:
    """Give a vector of the same direction that is no longer than this."""
    largest = max(map(abs, vector))
    if largest == 0:
        return vector
    x, y = vector[0] / largest, vector[1] / largest  # lengths of huge numbers are infinite
    length = math.hypot(x, y)
    if length * largest <= longest:
        return vector
    return x / length * longest, y / length * longest
