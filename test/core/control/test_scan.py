"""Laser scans: what is near is found, and what was not measured is never free."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.control.scan import Mounting, nearest_in_path, read_scan, resample
from isaac_infer.core.errors import ScanError

AHEAD, BACK, LEFT, RIGHT = Command(0.3), Command(-0.3), Command(0.0, 0.3), Command(0.0, -0.3)
INF, NAN = math.inf, math.nan


def full_turn(ranges, **changed):
    """A scan of equal steps from straight behind, to the left, once around."""
    step = math.tau / len(ranges)
    fields = {'angle_min': -math.pi, 'angle_increment': step, 'range_min': 0.1, 'range_max': 10.0}
    return read_scan(ranges, **{**fields, **changed})


def around(obstacles=(), beams=360, background=INF, **changed):
    """A scan with these ranges by angle in whole degrees, the robot's x axis is 0; `background` elsewhere."""
    ranges = np.full(beams, background, np.float32)
    for degrees, metres in dict(obstacles).items():
        ranges[round((degrees + 180) * beams / 360) % beams] = metres
    return full_turn(ranges, **changed)


def to(scan, command=AHEAD, half_width_m=0.2):
    return nearest_in_path(scan, command, half_width_m=half_width_m)


def slices(scan, beams, sector_deg=(-180, 180)):
    sector = tuple(map(math.radians, sector_deg))
    return resample(scan, sector, into=np.empty(beams, np.float32)).tolist()


@pytest.mark.parametrize(
    ('metres', 'read'),
    [
        (2.5, 2.5),
        (0.1, pytest.approx(0.1)),
        (0.05, 0.1),
        (0.0, 0.1),
        (-1.0, 0.1),
        (-INF, 0.1),
        (10.0, 10.0),
        (10.5, INF),
        (INF, INF),
    ],
)
def test_every_range_is_an_obstacle_or_free(metres, read):
    assert around({0: metres}).range_m[180] == read


def test_a_range_that_is_no_number_was_not_measured():
    assert math.isnan(around({0: NAN}).range_m[180])


def test_a_range_of_0_was_not_measured_where_the_driver_means_that():
    scan = around({0: 0.0, 1: 0.05}, zero_is_unknown=True)
    assert math.isnan(scan.range_m[180]) and scan.range_m[181] == 0.1


def test_the_message_is_not_written_into():
    ranges = np.full(360, 0.01, np.float64)
    full_turn(ranges)
    assert (ranges == 0.01).all()


@pytest.mark.parametrize(
    ('ranges', 'changed', 'message'),
    [
        ([], {'angle_increment': 0.1}, r'expected a row of ranges, got shape \[0\]'),
        ([[1.0]], {'angle_increment': 0.1}, r'got shape \[1, 1\]'),
        ([NAN] * 8, {}, 'got 8 of which none was measured'),
        ([1.0] * 100_001, {'angle_increment': 1e-5}, 'expected at most 100000 ranges, got 100001'),
        ([0.0] * 8, {'zero_is_unknown': True}, 'got 8 of which none was measured'),
        ([1.0] * 8, {'angle_increment': 0.0}, 'angle_increment 0.0'),
        ([1.0] * 8, {'angle_increment': NAN}, 'angle_increment nan'),
        ([1.0] * 8, {'angle_increment': INF}, 'angle_increment inf'),
        ([1.0] * 8, {'angle_increment': 1e-300}, 'angle_increment 1e-300'),
        ([1.0] * 8, {'angle_min': NAN}, 'angle_min nan'),
        ([1.0] * 8, {'angle_min': 180.0}, 'expected angles in radians, .* got angle_min 180.0'),
        ([1.0] * 8, {'range_min': NAN}, 'got nan and 10.0'),
        ([1.0] * 8, {'range_max': NAN}, 'got 0.1 and nan'),
        ([1.0] * 8, {'range_max': 0.0}, 'got 0.1 and 0.0'),
        ([1.0] * 8, {'range_min': 10.0}, 'expected range_min .* below range_max, got 10.0 and 10.0'),
        ([1.0] * 8, {'range_min': -1.0}, 'got -1.0 and 10.0'),
        ([1.0] * 80, {'angle_increment': 0.1}, 'expected at most 65 ranges, .* steps of 0.1 rad, got 80'),
        ([1.0] * 40, {'angle_increment': 0.1, 'angle_max': 0.0}, 'expected 32 ranges .* got 40'),
        ([1.0] * 8, {'angle_max': NAN}, 'expected nan ranges'),
    ],
)
def test_what_is_no_scan_is_an_error(ranges, changed, message):
    with pytest.raises(ScanError, match=message):
        read_scan(
            ranges,
            **{
                'angle_min': -math.pi,
                'angle_increment': math.tau / 8,
                'range_min': 0.1,
                'range_max': 10.0,
                **changed,
            },
        )


@pytest.mark.parametrize('number', [359, 360, 361])
def test_scanners_that_miscount_by_one_are_read(number):
    step = math.tau / 360
    fields = {'angle_min': 0.0, 'angle_max': math.tau, 'angle_increment': step, 'range_min': 0.1}
    assert len(read_scan([1.0] * number, range_max=INF, **fields).range_m) == number


def test_ranges_of_a_message_are_read_as_they_come():
    from array import array

    assert full_turn(array('f', [1.0] * 8)).range_m.tolist() == [1.0] * 8


def test_each_slice_has_its_nearest_range():
    scan = full_turn([5, 4, 3, INF, INF, INF, 7, NAN])
    assert slices(scan, 4) == [4, 3, INF, 7]


def test_a_slice_in_which_nothing_was_measured_is_neither_free_nor_blocked():
    found = slices(full_turn([NAN, NAN, 3, 4]), 2)
    assert math.isnan(found[0]) and found[1] == 3


def test_slices_finer_than_the_beams_have_the_nearest_beam():
    scan = full_turn([1, 2, 3, 4])  # at -180, -90, 0 and 90 degrees
    assert slices(scan, 8) == [1, 2, 2, 3, 3, 4, 4, 1]


def test_a_sector_may_cross_the_seam_of_the_scan():
    scan = full_turn([1, 2, 3, 4])
    assert slices(scan, 4, (45, 405)) == [4, 1, 2, 3]
    assert slices(scan, 1, (170, 190)) == [1]


def test_a_sector_may_be_where_the_scanner_does_not_look():
    scan = read_scan(
        [1.0] * 90, angle_min=-math.pi / 4, angle_increment=math.pi / 180, range_min=0, range_max=9
    )
    found = slices(scan, 4, (-90, 90))
    assert math.isnan(found[0]) and found[1:3] == [1, 1] and math.isnan(found[3])


def test_a_fine_slice_has_the_range_of_a_beam_up_to_half_a_step_away():
    half_turn = {'angle_min': 0.0, 'angle_increment': math.pi / 180}
    scan = read_scan([1.0] * 91, **half_turn, range_min=0, range_max=9)
    assert slices(scan, 1, (90.3, 90.5)) == slices(scan, 1, (-0.5, -0.3)) == [1]
    assert np.isnan([slices(scan, 1, (90.6, 90.8)), slices(scan, 1, (-0.8, -0.6))]).all()


def test_beams_on_the_edges_of_a_sector_are_inside_although_angles_are_float32():
    step = np.float32(math.pi / 180)
    scan = read_scan(
        np.arange(181) + 1,
        angle_min=float(np.float32(-math.pi / 2)),
        angle_increment=float(step),
        range_min=0,
        range_max=1000,
    )
    assert slices(scan, 10, (-90, 90)) == list(range(1, 181, 18))
    assert slices(scan, 1, (89.999, 89.9999)) == [181]
    assert slices(scan, 1, (-90, 90)) == [1]
    to_the_edge = read_scan(
        np.arange(181, 0, -1),
        angle_min=float(np.float32(-math.pi / 2)),
        angle_increment=float(step),
        range_min=0,
        range_max=1000,
    )
    assert slices(to_the_edge, 10, (-90, 90))[-1] == 1


def test_a_scan_to_the_right_is_the_same_scan():
    ranges = np.arange(1, 9, dtype=np.float32)
    step = math.tau / 8
    to_left = full_turn(ranges)
    to_right = full_turn(ranges[::-1], angle_min=math.pi - step, angle_increment=-step)
    for beams in (1, 3, 8, 20):
        assert slices(to_left, beams) == slices(to_right, beams)
    assert to(to_left) == pytest.approx(to(to_right))


def test_a_scanner_that_is_turned_or_upside_down_is_set_right():
    turned = around({0: 1.0}, mounting=Mounting(yaw_rad=math.pi))
    assert to(turned) == INF and to(turned, BACK) == pytest.approx(1.0)
    upside_down = around({90: 1.0}, mounting=Mounting(is_upside_down=True))
    assert to(upside_down, LEFT) == INF and to(upside_down, RIGHT) == pytest.approx(1.0)


def test_distances_count_from_the_origin_of_the_robot():
    assert to(around({0: 1.0}, mounting=Mounting(x_m=0.2))) == pytest.approx(1.2)
    assert to(around({0: 1.0}, mounting=Mounting(y_m=0.3))) == INF


@pytest.mark.parametrize(
    ('command', 'nearest'), [(AHEAD, 1.0), (BACK, 2.0), (LEFT, 3.0), (RIGHT, 4.0), (STOP, INF)]
)
def test_the_nearest_obstacle_is_that_where_it_drives_to(command, nearest):
    assert to(around({0: 1, 180: 2, 90: 3, -90: 4}), command) == pytest.approx(nearest)


def test_it_drives_in_any_direction():
    scan = around({45: 1.0})
    assert to(scan, Command(1e-200, 1e-200)) == to(scan, Command(1e300, 1e300)) == pytest.approx(1.0)
    assert to(scan, Command(0.3, -0.3)) == INF


def test_turning_on_the_spot_has_nothing_in_its_way():
    assert to(around(background=0.05), Command(angular_z=1.0)) == INF


def test_what_is_beside_the_corridor_is_not_in_the_way():
    scan = around({30: 1.0})  # 0.5 m to the left, 0.87 m ahead
    assert to(scan, half_width_m=0.49) == INF
    assert to(scan, half_width_m=0.51) == pytest.approx(math.cos(math.radians(30)))


@pytest.mark.parametrize('metres', [-INF, -1.0, 0.0])
@pytest.mark.parametrize('range_min', [0.0, 0.1, 2.0])
def test_what_is_too_near_to_be_measured_may_be_anywhere_before(metres, range_min):
    assert to(around({0: metres}, range_min=range_min)) == pytest.approx(0, abs=0.01)


def test_what_was_measured_nearer_than_the_scanner_can_is_where_it_was_measured():
    assert to(around({0: 0.3}, range_min=1.0)) == pytest.approx(0.3)


def test_beams_that_end_behind_the_middle_of_the_robot_see_nothing_ahead():
    at_the_back = Mounting(x_m=-0.3)
    assert to(around(background=0.0, mounting=at_the_back)) is None
    assert to(around({0: 0.0}, mounting=at_the_back)) == INF


def test_a_scanner_that_does_not_see_far_enough_tells_of_no_free_way():
    scan = around(background=0.5, range_min=0.1, range_max=0.3)
    assert nearest_in_path(scan, AHEAD, half_width_m=0.2, reach_m=0.3) == INF
    assert nearest_in_path(scan, AHEAD, half_width_m=0.2, reach_m=0.35) is None
    in_front = around(background=0.5, range_min=0.1, range_max=0.3, mounting=Mounting(x_m=0.1))
    assert nearest_in_path(in_front, AHEAD, half_width_m=0.2, reach_m=0.35) == INF
    assert nearest_in_path(in_front, BACK, half_width_m=0.2, reach_m=0.25) is None
    near = around({0: 0.2}, range_max=0.3)
    assert nearest_in_path(near, AHEAD, half_width_m=0.2, reach_m=1.0) == pytest.approx(0.2)


@pytest.mark.parametrize('step', [1.0, math.tau])
def test_a_single_beam_does_not_see_the_way(step):
    beam = {'angle_min': 0.0, 'angle_increment': step, 'angle_max': 0.0, 'range_min': 0.1, 'range_max': 10.0}
    assert to(read_scan([INF], **beam)) is None
    assert to(full_turn([INF] * 36)) == INF
    assert to(full_turn([INF] * 18)) is None


def test_without_a_scan_nothing_is_known():
    assert to(None) is None and to(None, STOP) is None


def test_where_the_scanner_does_not_look_nothing_is_known():
    half_turn = {'angle_min': -math.pi / 2, 'angle_increment': math.pi / 180}
    ahead_only = read_scan([INF] * 181, **half_turn, range_min=0, range_max=9)
    assert to(ahead_only) == INF and to(ahead_only, BACK) is None
    assert to(ahead_only, Command(angular_z=1.0)) == INF


def test_where_too_little_was_measured_nothing_is_known():
    every_other = range(-30, 31, 2)
    assert to(around(dict.fromkeys(every_other, NAN))) == INF
    assert to(around(dict.fromkeys([*every_other, 1, 7, 11], NAN))) is None


@pytest.mark.parametrize('middle', [0, 90, 176, 180])
@pytest.mark.parametrize('aside', [-18, 0, 12, 18])
def test_a_hole_in_which_a_leg_could_stand_is_no_free_way(middle, aside):
    command = Command(math.cos(math.radians(middle)), math.sin(math.radians(middle)))
    first = middle + aside - 4
    assert to(around(dict.fromkeys(range(first, first + 9), NAN)), command) == INF
    assert to(around(dict.fromkeys(range(first, first + 12), NAN)), command) is None


@given(some.floats(-math.pi, math.pi), some.integers(1, 60), some.floats(0, math.tau), some.floats(0.03, 0.2))
def test_what_is_wider_than_what_may_hide_between_two_beams_never_stands_in_a_free_way(
    turn, beams, way, radius
):
    # A pillar that touches the middle of the way at 0.35 m; each beam that meets it ends there.
    scan_step, distance = math.tau / beams, 0.35 + radius
    angles = turn + np.arange(beams) * scan_step
    off = np.mod(angles - way + math.pi, math.tau) - math.pi
    is_hit = np.abs(off) <= math.asin(radius / distance)
    scan = read_scan(
        np.where(is_hit, 0.35, INF), angle_min=turn, angle_increment=scan_step, range_min=0.1, range_max=10.0
    )
    found = to(scan, Command(math.cos(way), math.sin(way)), half_width_m=0.25)
    if 2 * math.asin(radius / distance) > math.radians(10) + 0.001:
        assert found != INF


ranges_of_any_kind = some.lists(
    some.floats(width=32) | some.sampled_from([NAN, INF, -INF, 0.0, 0.5]), min_size=1, max_size=50
)


@given(ranges_of_any_kind, some.integers(1, 40), some.floats(-7, 7), some.floats(0.01, math.tau))
def test_slices_tell_of_no_range_that_was_not_read(ranges, beams, start, span):
    try:
        scan = full_turn(ranges)
    except ScanError:
        assert np.isnan(ranges).all()
        return
    found = resample(scan, (start, start + span), into=np.empty(beams))
    known = found[~np.isnan(found)]
    assert np.isin(known, scan.range_m).all() and (known >= 0.1).all()
    whole = resample(scan, (start, start + math.tau), into=np.empty(1))
    assert whole[0] == np.nanmin(scan.range_m)


@given(ranges_of_any_kind, some.floats(-4, 4), some.floats(0.01, 2))
def test_a_distance_is_that_of_an_obstacle_and_one_more_obstacle_is_never_farther(ranges, angle, half_width):
    if np.isnan(ranges).all():
        return
    command = Command(math.cos(angle), math.sin(angle))
    nearest = to(full_turn(ranges), command, half_width)
    assert nearest is None or 0 < nearest <= 10 or nearest == INF
    nearer = to(full_turn([min(metres, 0.2) for metres in ranges]), command, half_width)
    if nearest is not None and nearer is not None:
        assert nearer <= nearest + 1e-9
