"""Which power mode is chosen, and how much work is allowed: tables, with modes as the boards have them."""

from dataclasses import replace

import pytest
from boards import AGX_ORIN_CONF, ORIN_NANO_CONF
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.core.errors import PowerModeError
from isaac_infer.core.load_level import LEVELS
from isaac_infer.jetson.choose import (
    Demand,
    LoadMargins,
    State,
    Thresholds,
    choose_mode,
    load_level_of,
    order_modes,
)
from isaac_infer.jetson.nvpmodel import PowerMode, needs_reboot, parse_conf

NANO = parse_conf(ORIN_NANO_CONF).modes  # 7W (needs a reboot), 15W, 25W, MAXN_SUPER
MHZ = 1_000_000
ORIN_NX = [
    PowerMode(0, 'MAXN_SUPER', tpc_mask=240),
    PowerMode(1, '10W', 4, 1190 * MHZ, 612 * MHZ, 2133 * MHZ, tpc_mask=252),
    PowerMode(2, '15W', 4, 1651 * MHZ, 612 * MHZ, tpc_mask=252),
    PowerMode(3, '25W', 8, 1497 * MHZ, 408 * MHZ, tpc_mask=240),
    PowerMode(4, '40W', 8, None, 1173 * MHZ, tpc_mask=240),
]
AGX_ORIN = [
    PowerMode(0, 'MAXN', 12, tpc_mask=0),
    PowerMode(1, 'MODE_15W', 4, 1113 * MHZ, 408 * MHZ, 2133 * MHZ, tpc_mask=248),
    PowerMode(2, 'MODE_30W', 8, 1728 * MHZ, 612 * MHZ, tpc_mask=240),
    PowerMode(3, 'MODE_50W', 12, 1497 * MHZ, 816 * MHZ, tpc_mask=0),
]
THOR = [PowerMode(0, 'MAXN'), PowerMode(1, '120W'), PowerMode(2, '90W'), PowerMode(3, '70W')]

COOL = 40.0  # degrees to throttling
BUSY = Demand(cpu_percent=20, gpu_percent=95, memory_percent=30, margin_celsius=COOL)
IDLE = Demand(cpu_percent=20, gpu_percent=5, memory_percent=30, margin_celsius=COOL)
BETWEEN = replace(IDLE, gpu_percent=60)
THRESHOLDS = Thresholds()  # 80% busy, below 50% idle, 10 s; hot within 8 degrees, critical within 2; 30 s
NOW = 1000.0
LONG = State(busy_since_s=0.0, idle_since_s=0.0)


def names(modes):
    return [mode.name for mode in modes]


@pytest.mark.parametrize(
    ('modes', 'order'),
    [
        ([], []),
        (NANO.values(), ['7W', '15W', '25W', 'MAXN_SUPER']),
        (ORIN_NX, ['10W', '15W', '25W', '40W', 'MAXN_SUPER']),
        (AGX_ORIN, ['MODE_15W', 'MODE_30W', 'MODE_50W', 'MAXN']),
        (parse_conf(AGX_ORIN_CONF).modes.values(), ['MODE_30W', 'MAXN']),
    ],
)
def test_modes_are_in_the_order_of_what_they_can_do_and_not_of_ids_or_clocks(modes, order):
    assert names(order_modes(modes)) == order


@pytest.mark.parametrize(
    ('options', 'order'),
    [
        ({'allowed': ['40W', '15W']}, ['15W', '40W']),
        ({'lowest': '15W', 'highest': '40W'}, ['15W', '25W', '40W']),
        ({'allowed': ['10W', '15W', '25W'], 'highest': '15W'}, ['10W', '15W']),
        ({'lowest': '25W', 'highest': '25W'}, ['25W']),
    ],
)
def test_only_modes_that_are_allowed_and_between_the_bounds_are_in_the_order(options, order):
    assert names(order_modes(ORIN_NX, **options)) == order


def test_what_the_caps_do_not_tell_apart_is_in_the_order_of_the_user():
    with pytest.raises(PowerModeError, match='nothing tells which of MAXN and 120W can do more'):
        order_modes(THOR)
    assert names(order_modes(THOR, allowed=['70W', '120W', 'MAXN'])) == ['70W', '120W', 'MAXN']


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (
            {'allowed': ['MIN_POWER']},
            "power mode 'MIN_POWER': expected one of MAXN_SUPER, 10W, 15W, 25W, 40W",
        ),
        ({'highest': 'MAXN'}, "power mode 'MAXN': expected one of"),
        ({'allowed': ['15W'], 'lowest': '10W'}, '10W is not among the allowed modes: 15W'),
        ({'lowest': '40W', 'highest': '15W'}, '40W can do more than 15W'),
    ],
)
def test_names_that_cannot_be_meant_are_refused(options, says):
    with pytest.raises(PowerModeError, match=says):
        order_modes(ORIN_NX, **options)


def test_a_name_on_a_board_without_modes_is_refused_as_such():
    with pytest.raises(PowerModeError, match="'15W': expected a board with modes, but there is no etc/nvpm"):
        order_modes([], allowed=['15W'])


def choose(current, demand, *, state=LONG, pinned=None, ordered=None, thresholds=THRESHOLDS, now_s=NOW):
    mode = None if current is None else NANO[current]
    return choose_mode(
        order_modes(NANO.values()) if ordered is None else ordered,
        mode,
        demand,
        thresholds,
        state,
        now_s,
        pinned=None if pinned is None else NANO[pinned],
    )


def at(margin, demand=BUSY, **changed):
    return replace(demand, margin_celsius=margin, **changed)


JUST = State(0.0, 0.0, switched_s=NOW - 29, switched_to=1, was_upwards=False)
JUST_UP = replace(JUST, was_upwards=True)


@pytest.mark.parametrize(
    ('current', 'demand', 'state', 'target', 'reason'),
    [
        # nothing is known
        (None, BUSY, LONG, None, 'the power mode of the board is unknown'),
        (1, Demand(), LONG, None, 'neither busy nor idle'),
        # busy
        (1, BUSY, LONG, 'MAXN_SUPER', 'GPU 95%'),
        (0, BUSY, LONG, '25W', 'GPU 95%'),
        (2, BUSY, LONG, None, 'GPU 95%, but no higher mode can be had without a reboot'),
        (1, replace(BETWEEN, cpu_percent=80), LONG, 'MAXN_SUPER', 'CPU 80%'),
        (1, replace(IDLE, memory_percent=91), LONG, 'MAXN_SUPER', 'memory 91%'),
        (1, replace(IDLE, deadlines_missed=3), LONG, 'MAXN_SUPER', '3 deadlines missed'),
        (1, Demand(None, 95, None, 0, COOL), LONG, 'MAXN_SUPER', 'GPU 95%'),
        # idle
        (1, IDLE, LONG, '15W', 'idle'),
        (0, IDLE, LONG, None, 'idle, in the lowest mode that can be had'),  # 7W needs a reboot
        (1, replace(IDLE, gpu_percent=None), LONG, None, 'neither busy nor idle'),  # it may be at work
        (1, replace(IDLE, cpu_percent=None), LONG, None, 'neither busy nor idle'),
        (1, replace(IDLE, memory_percent=None), LONG, '15W', 'idle'),
        # between both thresholds
        (1, BETWEEN, LONG, None, 'neither busy nor idle'),
        (1, replace(IDLE, gpu_percent=50), LONG, None, 'neither busy nor idle'),
        (1, replace(IDLE, gpu_percent=49.9), LONG, '15W', 'idle'),
        # not for long enough
        (1, BUSY, State(), None, 'GPU 95%, not yet for 10 s'),
        (1, BUSY, State(busy_since_s=NOW - 9.9), None, 'GPU 95%, not yet for 10 s'),
        (1, BUSY, State(busy_since_s=NOW - 10), 'MAXN_SUPER', 'GPU 95%'),
        (1, IDLE, State(idle_since_s=NOW - 9.9), None, 'idle, not yet for 10 s'),
        # switched a moment ago
        (1, BUSY, JUST, None, 'it was switched a moment ago'),
        (1, IDLE, JUST, None, 'it was switched a moment ago'),
        (1, BUSY, replace(JUST, switched_s=NOW - 30), 'MAXN_SUPER', 'GPU 95%'),
        # hot: lower, whatever the load and however short it has been so
        (1, at(7.9), State(), '15W', 'hot: 7.9 degrees to throttling'),
        (2, at(7.9), LONG, '25W', 'hot: 7.9 degrees to throttling'),
        (2, at(7.9), JUST, None, 'hot: 7.9 degrees to throttling; it was switched a moment ago'),
        (2, at(7.9), JUST_UP, '25W', 'hot: 7.9 degrees to throttling'),
        (0, at(7.9), LONG, None, 'to throttling, and no lower mode can be had without a reboot'),
        (2, at(COOL, is_throttling=True), LONG, '25W', 'throttling, 40.0 degrees to its begin'),
        (2, at(None, is_throttling=True), LONG, '25W', 'throttling'),
        # critical: the lowest, at once, but not again and again where that fails
        (2, at(1.9), JUST, '15W', 'hot: 1.9 degrees to throttling'),
        (2, at(-3), JUST, '15W', 'hot: -3.0 degrees to throttling'),
        (2, at(1.9), replace(JUST, switched_to=0), None, 'hot: 1.9 degrees to throttling; it was switched'),
        # warm, or of unknown heat: no higher
        (1, at(8), LONG, None, 'GPU 95%, but no higher mode can be had: 8.0 degrees to throttling'),
        (1, at(11.9), LONG, None, 'no higher mode can be had: 11.9 degrees to throttling'),
        (1, at(12), LONG, 'MAXN_SUPER', 'GPU 95%'),
        (1, at(None), LONG, None, 'no higher mode can be had: no temperature is known'),
        (1, at(None, IDLE), LONG, '15W', 'idle'),
        # a reboot is never made
        (7, BUSY, LONG, None, 'GPU 95%, but no higher mode can be had without a reboot'),
        (7, at(1), LONG, None, 'hot: 1.0 degrees to throttling, and it is in the lowest mode'),
    ],
)  # fmt: skip
def test_the_mode_that_is_chosen(current, demand, state, target, reason):
    choice = choose(current, demand, state=state)
    assert (choice.mode and choice.mode.name) == target
    assert reason in choice.reason


@pytest.mark.parametrize(
    ('current', 'pinned', 'demand', 'state', 'target', 'reason'),
    [
        (1, 0, BUSY, JUST, '15W', 'it is pinned'),  # the user's word counts at once
        (0, 2, IDLE, LONG, 'MAXN_SUPER', 'it is pinned'),
        (0, 0, BUSY, LONG, None, '15W is pinned'),
        (1, 7, IDLE, LONG, None, '7W is pinned, but needs a reboot: sudo nvpmodel -m 7'),
        (2, 2, at(7), LONG, '25W', 'hot: 7.0'),  # heat comes first
        (1, 2, at(9), LONG, None, 'MAXN_SUPER is pinned, but has to wait: 9.0 degrees to throttling'),
        (2, 0, at(9), LONG, '15W', 'it is pinned'),
        (1, 2, IDLE, replace(JUST, pinned_id=2), None, 'MAXN_SUPER is pinned; waiting'),
    ],
)
def test_a_pinned_mode_is_switched_to_whatever_the_load(current, pinned, demand, state, target, reason):
    choice = choose(current, demand, state=state, pinned=pinned)
    assert (choice.mode and choice.mode.name) == target
    assert reason in choice.reason


@pytest.mark.parametrize(
    ('current', 'allowed', 'demand', 'target', 'reason'),
    [
        (2, ['15W', '25W'], BETWEEN, '25W', 'MAXN_SUPER is not allowed'),
        (0, ['25W'], BETWEEN, '25W', '15W is not allowed'),
        (0, ['25W'], at(9, BETWEEN), None, '15W is not allowed, and nothing else can be had: 9.0 degrees'),
        (1, ['7W'], BETWEEN, None, '25W is not allowed, and nothing else can be had without a reboot'),
    ],
)
def test_a_mode_that_is_not_allowed_is_left(current, allowed, demand, target, reason):
    choice = choose(current, demand, ordered=order_modes(NANO.values(), allowed=allowed))
    assert (choice.mode and choice.mode.name) == target
    assert reason in choice.reason


def test_a_load_that_lasts_is_followed_step_by_step_and_back():
    """Simulates minutes: busy goes up a mode at a time, idle down, never faster than allowed."""
    current, state, switches = 0, State(), []
    for second in range(240):
        demand = BUSY if second < 120 else IDLE
        choice = choose(current, demand, state=state, now_s=float(second))
        state = choice.state
        if choice.mode is not None:
            current = choice.mode.id
            switches.append((second, choice.mode.name))
    assert switches == [(10, '25W'), (40, 'MAXN_SUPER'), (130, '25W'), (160, '15W')]


def test_a_break_begins_the_dwell_anew():
    state = choose(1, BUSY, state=State(), now_s=0.0).state
    state = choose(1, BETWEEN, state=state, now_s=9.0).state
    assert choose(1, BUSY, state=state, now_s=11.0).mode is None


percents = some.none() | some.floats(0, 100)
demands = some.builds(
    Demand,
    percents,
    percents,
    percents,
    some.integers(0, 5),
    some.none() | some.floats(-20, 100),
    some.none() | some.booleans(),
)
seconds = some.none() | some.floats(0, NOW)
states = some.builds(State, seconds, seconds, seconds, some.sampled_from([None, 0, 1, 2, 7]), some.booleans())


@given(demands, states, some.sampled_from([0, 1, 2, 7]), some.sampled_from([None, 0, 1, 2, 7]))
def test_whatever_comes_no_reboot_is_chosen_and_a_hot_board_gets_no_higher_mode(
    demand, state, current, pinned
):
    ordered = order_modes(NANO.values())
    mode = choose(current, demand, state=state, pinned=pinned).mode
    if mode is None:
        return
    assert mode.id != current and not needs_reboot(NANO[current], mode)
    margin = demand.margin_celsius
    if margin is None or margin < THRESHOLDS.hot_margin_celsius or demand.is_throttling:
        assert ordered.index(mode) < ordered.index(NANO[current])


@pytest.mark.parametrize(
    ('before', 'margin', 'is_throttling', 'after'),
    [
        ('normal', None, None, 'normal'),
        ('minimal', None, None, 'minimal'),  # nobody knows that it is better
        ('minimal', None, False, 'normal'),
        ('normal', None, True, 'minimal'),
        ('normal', 40, True, 'minimal'),
        ('normal', 5, False, 'normal'),
        ('normal', 4.9, False, 'reduced'),
        ('normal', 1.9, False, 'minimal'),
        ('normal', -3, None, 'minimal'),
        ('reduced', 1.9, False, 'minimal'),
        ('reduced', 8.9, False, 'reduced'),
        ('reduced', 9, False, 'normal'),
        ('minimal', 5.9, False, 'minimal'),
        ('minimal', 6, False, 'reduced'),
        ('minimal', 8.9, False, 'reduced'),
        ('minimal', 9, False, 'normal'),
    ],
)
def test_work_is_reduced_near_throttling_and_comes_back_where_it_is_cooler(
    before, margin, is_throttling, after
):
    assert load_level_of(before, margin, is_throttling, LoadMargins()) == after


@given(some.sampled_from(LEVELS), some.floats(-20, 60), some.booleans())
def test_at_one_temperature_the_level_stays(before, margin, is_throttling):
    level = load_level_of(before, margin, is_throttling, LoadMargins())
    assert load_level_of(level, margin, is_throttling, LoadMargins()) == level


def test_a_mode_that_is_allowed_twice_is_no_higher_one_than_itself():
    ordered = order_modes(NANO.values(), allowed=['25W', '15W', '25W'])
    assert names(ordered) == ['15W', '25W']
    assert choose_mode(ordered, NANO[1], BUSY, THRESHOLDS, LONG, NOW).mode is None


def test_a_mode_that_the_tool_says_needs_a_reboot_is_not_chosen_and_pinned_it_is_said_each_time():
    state = LONG
    for now_s in (NOW, NOW + 100):
        choice = choose_mode(
            order_modes(NANO.values()), NANO[1], BUSY, THRESHOLDS, state, now_s, pinned=NANO[2], rebooting={2}
        )
        assert choice.mode is None
        assert choice.reason == 'MAXN_SUPER is pinned, but needs a reboot: sudo nvpmodel -m 2'
        state = choice.state
    choice = choose_mode(order_modes(NANO.values()), NANO[1], BUSY, THRESHOLDS, LONG, NOW, rebooting={2})
    assert (choice.mode, 'no higher mode can be had' in choice.reason) == (None, True)
    hot = replace(BUSY, margin_celsius=5.0)
    choice = choose_mode(order_modes(NANO.values()), NANO[2], hot, THRESHOLDS, LONG, NOW, rebooting={1, 2})
    assert choice.mode == NANO[0]
