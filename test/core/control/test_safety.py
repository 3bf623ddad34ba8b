"""The safety layer: whatever is wrong, the robot stands, and says why."""

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.control.safety import (
    CLOCK_SKEW_S,
    KINDS,
    LATCHABLE,
    LONGEST_STEP,
    SILENCE,
    Readings,
    SafetyLimits,
    State,
    govern,
    govern_without_sensors,
    reset,
    stop,
)
from isaac_infer.core.errors import ParameterError

AHEAD = Command(0.2, 0.0, 0.1)
LIMITS = SafetyLimits(
    period_s=0.1,
    max_age_s={'image': 0.5, 'scan': 0.3, 'imu': 0.2},
    stop_distance_m=0.4,
    max_linear_mps=0.5,
    max_angular_radps=1.0,
    max_linear_mps2=1.0,
    max_angular_radps2=2.0,
)
FRESH = {'image': 0.1, 'scan': 0.1, 'imu': 0.1}


def free(command):
    return math.inf


def blocked_ahead(command):
    """An obstacle 0.1 m in front and nothing elsewhere."""
    return 0.1 if command.linear_x > 0 else math.inf


def no_scan(command):
    return None


READY = Readings(is_enabled=True, age_s=FRESH, wanted=AHEAD, elapsed_s=0.1, nearest_m=free)
MOVING = State(last=Command(0.1, 0.0, 0.0))


def kinds(verdict):
    return [reason.kind for reason in verdict.reasons]


def decide(state=MOVING, limits=LIMITS, **changed):
    return govern(replace(READY, **changed), limits, state)


def test_without_a_fault_the_robot_follows():
    verdict = decide()
    assert verdict.reasons == () and verdict.command == Command(0.2, 0.0, 0.1)
    assert verdict.state == State(verdict.command)


# Each fault: its kind, and what it changes in the readings.
FAULTS = {
    'not_enabled': {'is_enabled': False},
    'other_authority': {'other_authority': '/teleop'},
    'clock': {'elapsed_s': math.nan},
    'missing': {'scan': None},
    'stale': {'image': 0.51},
    'future': {'imu': -0.5},
    'model_error': {'model_error': 'the network answers with NaN'},
    'deadline': {'missed_deadline': 'the policy took 140 ms of 100'},
    'no_command': {'wanted': None},
    'not_finite': {'wanted': Command(math.nan)},
    'unreadable': {'nearest_m': no_scan},
    'obstacle': {'nearest_m': blocked_ahead},
}
EXCLUSIVE = [('no_command', 'not_finite'), ('unreadable', 'obstacle'), ('no_command', 'obstacle')]
EXCLUSIVE += [('not_finite', 'obstacle')]  # what is not wanted leads nowhere


def test_the_table_has_every_kind_of_fault():
    assert {*FAULTS, 'latched'} == set(KINDS)


def subsets():
    for chosen in product((False, True), repeat=len(FAULTS)):
        found = [kind for kind, is_there in zip(FAULTS, chosen) if is_there]
        if not any(set(pair) <= set(found) for pair in EXCLUSIVE):
            yield found


def with_faults(found):
    changed = {name: value for kind in found for name, value in FAULTS[kind].items()}
    ages = {name: changed.pop(name, age) for name, age in FRESH.items()}
    return replace(READY, age_s=ages, **changed)


def test_every_set_of_faults_stops_at_once_for_exactly_these_reasons():
    tried = 0
    for found, latched in product(subsets(), ('', 'the button')):
        verdict = govern(with_faults(found), LIMITS, replace(MOVING, latched=latched))
        expected = sorted([*found, *(['latched'] if latched else [])], key=KINDS.index)
        assert kinds(verdict) == expected
        assert verdict.command == verdict.state.last == (STOP if expected else AHEAD)
        assert verdict.state.latched == latched
        tried += 1
    assert tried == 2 * 2**8 * (1 + 2 + 1 + 2 + 1)  # the command usable: 3 ways of the way; twice unusable: 2


def test_every_set_of_faults_latches_where_its_kinds_do():
    limits = replace(LIMITS, latching=LATCHABLE)
    for found in subsets():
        verdict = govern(with_faults(found), limits, MOVING)
        causes = [kind for kind in found if kind in LATCHABLE]
        assert [reason.kind for reason in verdict.state.persisting] == sorted(causes, key=KINDS.index)
        assert bool(verdict.state.latched) == (bool(causes) and 'not_enabled' not in found)
        assert reset(verdict.state).latched == ('' if not causes else verdict.state.latched)


AGES = {'': 0.1, 'missing': None, 'stale': 9.0, 'future': -9.0}


def test_every_input_is_looked_at_by_itself():
    for chosen in product(AGES, repeat=3):
        verdict = decide(age_s=dict(zip(FRESH, (AGES[kind] for kind in chosen))))
        expected = [
            f'{kind}:{name}'
            for kind in ('missing', 'stale', 'future')
            for name, its in zip(FRESH, chosen)
            if its == kind
        ]
        assert [reason.name for reason in verdict.reasons] == expected


@pytest.mark.parametrize(
    ('age_s', 'kind'),
    [
        (0.3, ''),
        (0.3001, 'stale'),
        (math.inf, 'stale'),
        (math.nan, 'stale'),
        (-CLOCK_SKEW_S, ''),
        (-CLOCK_SKEW_S - 1e-6, 'future'),
        (-math.inf, 'future'),
    ],
)
def test_an_input_counts_up_to_its_age_and_a_small_skew_of_clocks(age_s, kind):
    assert kinds(decide(age_s={**FRESH, 'scan': age_s})) == [kind] * bool(kind)


def test_an_input_that_nobody_told_of_is_missing():
    assert kinds(decide(age_s={})) == ['missing'] * 3


def test_an_input_that_is_not_required_may_be_as_old_as_it_likes():
    assert decide(age_s={**FRESH, 'joystick': 99.0, 'map': None}).reasons == ()


def test_reasons_tell_numbers_and_names():
    verdict = decide(age_s={**FRESH, 'scan': 0.512}, nearest_m=blocked_ahead)
    assert [reason.text for reason in verdict.reasons] == [
        'scan: 0.512 s old, expected at most 0.3 s',
        'an obstacle in the way, 0.10 m ahead; stops at 0.42 m',
    ]


def test_the_age_that_is_told_is_never_the_one_that_is_allowed():
    verdict = decide(age_s={**FRESH, 'scan': 0.3000004})
    assert [reason.text for reason in verdict.reasons] == ['scan: 0.3000004 s old, expected at most 0.3 s']


@pytest.mark.parametrize('nearest_m', [0.4, 0.0, -1.0, math.nan, -math.inf])
def test_at_the_stop_distance_it_stands_and_a_distance_that_is_no_number_is_none(nearest_m):
    assert kinds(decide(nearest_m=lambda command: nearest_m)) == ['obstacle']


def test_what_it_would_reach_before_the_next_command_stops_it():
    standing = State()
    assert decide(state=standing, wanted=Command(0.1), nearest_m=lambda command: 0.411).reasons == ()
    assert kinds(decide(state=standing, wanted=Command(0.1), nearest_m=lambda command: 0.409)) == ['obstacle']


@given(
    some.floats(1, 1000),
    some.floats(0.0, 5.0),
    some.floats(0.01, 20.0),
    some.floats(0.05, 2.0),
    some.floats(0, 20),
)
def test_at_any_rate_nothing_is_driven_nearer_than_the_stop_distance(rate_hz, speed, mps2, stop_m, begin_m):
    limits = replace(
        LIMITS, period_s=1 / rate_hz, stop_distance_m=stop_m, max_linear_mps=5.0, max_linear_mps2=mps2
    )
    state, left_m = State(), stop_m + begin_m
    for _ in range(40):
        verdict = decide(
            state,
            limits,
            wanted=Command(speed),
            elapsed_s=1 / rate_hz,
            nearest_m=lambda command, left_m=left_m: left_m,
        )
        state, left_m = verdict.state, left_m - verdict.command.linear_x / rate_hz
        assert left_m >= stop_m - 1e-9


@pytest.mark.parametrize('wanted', [Command(angular_z=0.1), Command(linear_x=-0.1), Command(linear_y=0.1)])
def test_before_an_obstacle_it_may_turn_and_drive_away(wanted):
    verdict = decide(state=State(), wanted=wanted, nearest_m=blocked_ahead)
    assert verdict.reasons == () and verdict.command == wanted


def test_a_robot_that_still_rolls_towards_an_obstacle_stands_although_it_wants_away():
    verdict = decide(state=State(Command(0.5)), wanted=Command(-0.5), nearest_m=blocked_ahead)
    assert kinds(verdict) == ['obstacle'] and verdict.command == STOP
    after = decide(state=verdict.state, wanted=Command(-0.5), nearest_m=blocked_ahead)
    assert after.reasons == () and after.command == Command(-0.1)


def test_without_a_stop_distance_no_scan_is_asked():
    def never(command):
        raise AssertionError('asked')

    assert decide(limits=replace(LIMITS, stop_distance_m=0.0), nearest_m=never).reasons == ()


def test_an_unreadable_scan_lets_it_not_even_turn():
    assert kinds(decide(wanted=Command(angular_z=0.1), nearest_m=no_scan)) == ['unreadable']


LATCHING = replace(LIMITS, latching=frozenset({'model_error'}))


def test_a_fault_that_latches_stops_until_reset():
    state = decide(limits=LATCHING, model_error='it crashed').state
    for _ in range(3):
        verdict = govern(READY, LATCHING, state)
        assert [reason.text for reason in verdict.reasons] == ['stopped until reset: it crashed']
        assert verdict.command == STOP
        state = verdict.state
    assert govern(READY, LATCHING, reset(state)).command == Command(0.1, 0.0, 0.1)  # from standing


def test_an_error_of_the_program_stops_and_latches_as_any_error_of_a_model():
    verdict = govern_without_sensors('no such field', True, LIMITS, MOVING)
    assert (verdict.command, kinds(verdict)) == (STOP, ['model_error'])
    assert verdict.state == State()
    limits = replace(LIMITS, latching=frozenset({'model_error', 'missing', 'unreadable'}))
    verdict = govern_without_sensors('no such field', True, limits, MOVING)
    assert kinds(verdict) == ['latched', 'model_error']
    assert reset(verdict.state).latched == 'no such field'
    assert decide(verdict.state, limits).reasons[0].kind == 'latched'
    assert not govern_without_sensors('no such field', False, limits, MOVING).state.latched


def test_a_reset_is_refused_as_long_as_the_cause_persists():
    state = decide(limits=LATCHING, model_error='it crashed').state
    assert reset(state) == state and [reason.text for reason in state.persisting] == ['it crashed']


def test_other_faults_do_not_latch_nor_hinder_a_reset():
    state = decide(limits=LATCHING, age_s={}).state
    assert state.latched == '' and decide(limits=LATCHING, state=state).reasons == ()
    state = decide(limits=LATCHING, state=stop(state, 'the button'), age_s={}).state
    assert state.latched and not reset(state).latched


def test_nothing_latches_before_it_was_enabled():
    state = decide(limits=LATCHING, is_enabled=False, model_error='not loaded yet').state
    assert state.latched == '' and decide(limits=LATCHING, state=state).reasons == ()


def test_disabling_does_not_reset():
    state = decide(limits=LATCHING, model_error='it crashed').state
    state = decide(limits=LATCHING, state=state, is_enabled=False).state
    assert kinds(decide(limits=LATCHING, state=state)) == ['latched']


@pytest.mark.parametrize('why', ['the button', ''])
def test_a_stop_on_demand_stops_until_reset(why):
    state = stop(MOVING, why)
    assert state.last == STOP
    assert kinds(govern(READY, LIMITS, state)) == ['latched']
    assert govern(READY, LIMITS, reset(state)).reasons == ()


def test_the_first_reason_of_a_latched_stop_is_kept():
    state = stop(decide(limits=LATCHING, model_error='it crashed').state, 'the button')
    assert state.latched == 'it crashed'


def test_speeds_are_limited_and_a_vector_keeps_its_direction():
    limits = replace(LIMITS, max_linear_mps2=100.0, max_angular_radps2=100.0)
    command = decide(limits=limits, wanted=Command(3.0, -4.0, -7.0)).command
    assert command.linear_x == pytest.approx(0.3) and command.linear_y == pytest.approx(-0.4)
    assert command.angular_z == -1.0


def test_accelerations_are_limited_and_a_vector_keeps_its_direction():
    command = decide(state=State(), wanted=Command(0.3, 0.4, 1.0)).command
    assert command.linear_x == pytest.approx(0.06) and command.linear_y == pytest.approx(0.08)
    assert command.angular_z == pytest.approx(0.2)


def test_accelerations_count_from_how_it_moves_now():
    state = State(Command(0.0, 0.4, -1.0))
    assert decide(state=state, wanted=Command(0.0, 0.35, -0.9)).command == Command(0.0, 0.35, -0.9)
    command = decide(state=state, wanted=Command(0.0, -0.4, 1.0)).command
    assert command.linear_y == pytest.approx(0.3) and command.angular_z == pytest.approx(-0.8)


def test_it_gets_where_it_wants_exactly_and_stays():
    state, seen = State(), []
    for _ in range(12):
        verdict = decide(state=state, wanted=Command(0.5, 0.0, 0.0))
        state = verdict.state
        seen.append(round(state.last.linear_x, 9))
    assert seen == [0.1, 0.2, 0.3, 0.4] + [0.5] * 8
    for _ in range(6):  # the last step is what rounding left over
        state = decide(state=state, wanted=STOP).state
    assert state.last == STOP


def test_a_late_command_makes_no_jump():
    late = decide(state=State(), wanted=Command(0.5), elapsed_s=60.0).command
    assert late.linear_x == pytest.approx(LONGEST_STEP * LIMITS.period_s * LIMITS.max_linear_mps2)


def test_after_a_silence_in_which_the_base_has_stopped_it_begins_from_standing():
    fast, silence_s = State(last=Command(0.5, 0.0, 1.0)), SILENCE * LIMITS.period_s
    assert decide(state=fast, wanted=fast.last, elapsed_s=silence_s).command == fast.last
    anew = decide(state=fast, wanted=fast.last, elapsed_s=silence_s + 0.001).command
    assert anew == decide(state=State(), wanted=fast.last, elapsed_s=silence_s).command
    assert anew.linear_x == pytest.approx(LONGEST_STEP * LIMITS.period_s * LIMITS.max_linear_mps2)


def test_no_time_gives_no_change():
    assert decide(elapsed_s=0.0).command == MOVING.last


@pytest.mark.parametrize('elapsed_s', [-0.001, math.nan, math.inf, -math.inf])
def test_a_time_that_cannot_be_is_a_fault(elapsed_s):
    assert kinds(decide(elapsed_s=elapsed_s)) == ['clock']


def test_a_clock_that_does_not_run_is_a_fault():
    verdict = decide(clock_problem='no /clock came')
    assert (verdict.command, kinds(verdict)) == (STOP, ['clock'])


@pytest.mark.parametrize('name', ['max_linear_mps', 'max_linear_mps2'])
def test_a_limit_of_0_allows_no_driving_and_still_turning(name):
    assert decide(limits=replace(LIMITS, **{name: 0.0})).command == Command(0.0, 0.0, 0.1)


@pytest.mark.parametrize('name', ['max_angular_radps', 'max_angular_radps2'])
def test_a_limit_of_0_allows_no_turning_and_still_driving(name):
    assert decide(limits=replace(LIMITS, **{name: 0.0})).command == Command(0.2, 0.0, 0.0)


def test_a_limit_that_was_lowered_holds_at_once():
    verdict = decide(state=State(Command(0.5)), limits=replace(LIMITS, max_linear_mps=0.1))
    assert verdict.command.linear_x == pytest.approx(0.1)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'max_linear_mps': -0.1}, 'max_linear_mps: expected a number of at least 0, got -0.1'),
        ({'max_angular_radps2': math.nan}, 'max_angular_radps2: expected a number'),
        ({'stop_distance_m': math.inf}, 'stop_distance_m: expected a number'),
        ({'period_s': 0.0}, 'period_s: expected seconds above 0, got 0.0'),
        ({'period_s': math.inf}, 'period_s: expected seconds above 0, got inf'),
        ({'max_age_s': {'scan': -1.0}}, 'max_age_s of scan: expected seconds above 0, got -1.0'),
        (
            {'latching': frozenset({'obstacles'})},
            'latching: expected some of other_authority, .*, obstacle,',
        ),
        ({'latching': frozenset({'not_enabled'})}, 'got not_enabled'),
    ],
)
def test_limits_that_cannot_be_are_refused(changed, message):
    with pytest.raises(ParameterError, match=message):
        replace(LIMITS, **changed)


anything = some.floats() | some.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, math.inf, math.nan])
commands = some.builds(Command, anything, anything, anything)
some_limits = some.sampled_from([0.0, 1e-9, 0.1, 0.5, 3.0, 1e6])
MOTION = ('max_linear_mps', 'max_angular_radps', 'max_linear_mps2', 'max_angular_radps2')
limits_of_motion = some.builds(
    lambda *values: replace(
        LIMITS,
        **dict(zip(['max_linear_mps', 'max_angular_radps', 'max_linear_mps2', 'max_angular_radps2'], values)),
    ),
    *[some_limits] * 4,
)
some_readings = some.builds(
    lambda distance, **changed: replace(READY, nearest_m=lambda command: distance, **changed),
    distance=some.none() | anything,
    is_enabled=some.sampled_from([True, True, False]),
    age_s=some.dictionaries(some.sampled_from(list(FRESH)), some.none() | anything) | some.just(FRESH),
    wanted=some.none() | commands,
    elapsed_s=anything | some.floats(0, 1),
    model_error=some.sampled_from(['', '', 'broken']),
)


@given(some.lists(some.tuples(some_readings, limits_of_motion), min_size=1, max_size=6))
def test_whatever_comes_the_command_is_finite_and_within_all_limits(steps):
    state = State()
    for readings, limits in steps:
        verdict = govern(readings, limits, state)
        is_standing = readings.elapsed_s > SILENCE * limits.period_s
        command, last = verdict.command, STOP if is_standing else state.last
        assert command.is_finite and verdict.state.last == command
        assert command.speed_mps <= limits.max_linear_mps * (1 + 1e-9)
        assert abs(command.angular_z) <= limits.max_angular_radps * (1 + 1e-9)
        if verdict.reasons:
            assert command == STOP
        elif last.speed_mps <= limits.max_linear_mps and abs(last.angular_z) <= limits.max_angular_radps:
            step_s = min(readings.elapsed_s, LONGEST_STEP * limits.period_s)
            change = math.hypot(command.linear_x - last.linear_x, command.linear_y - last.linear_y)
            turn = abs(command.angular_z - last.angular_z)
            is_braked = limits.max_linear_mps2 == 0 and command.speed_mps == 0
            assert change <= limits.max_linear_mps2 * step_s + 1e-9 * limits.max_linear_mps or is_braked
            is_braked = limits.max_angular_radps2 == 0 and command.angular_z == 0
            assert turn <= limits.max_angular_radps2 * step_s + 1e-9 * limits.max_angular_radps or is_braked
        state = verdict.state


@given(commands, some.sampled_from([0.1, 0.5, 3.0]))
def test_from_standing_it_drives_in_the_direction_that_is_wanted(wanted, speed):
    command = decide(state=State(), wanted=wanted, limits=replace(LIMITS, max_linear_mps=speed)).command
    if command.speed_mps > 1e-300:  # below, numbers have fewer digits
        angles = [math.atan2(each.linear_y, each.linear_x) for each in (command, wanted)]
        assert math.remainder(angles[0] - angles[1], math.tau) == pytest.approx(0, abs=1e-6)


@given(some_readings, limits_of_motion, some.sampled_from(sorted(FAULTS)))
def test_one_fault_is_enough_whatever_else_is_or_is_not(readings, limits, kind):
    changed = dict(FAULTS[kind])
    ages = {**readings.age_s, **{name: changed.pop(name) for name in FRESH if name in changed}}
    if kind == 'obstacle':
        changed = {'nearest_m': lambda command: 0.1}
    verdict = govern(replace(readings, age_s=ages, **changed), limits, MOVING)
    assert verdict.command == STOP and kind in kinds(verdict)


@given(some_readings, limits_of_motion)
def test_the_same_readings_give_the_same_verdict(readings, limits):
    assert govern(readings, limits, MOVING) == govern(readings, limits, MOVING)
