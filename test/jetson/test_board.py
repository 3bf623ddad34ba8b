"""The state of a board, of trees of files as the families have them."""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from boards import (
    FAMILIES,
    agx_orin,
    coolers,
    cpus,
    gate,
    limits,
    orin_nano,
    orin_nx,
    plant,
    stat,
    thor,
    trips,
    zones,
)
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.jetson.board import BoardReader
from isaac_infer.jetson.cpu import Ticks, load_percent, parse_stat


def read(root):
    return BoardReader(root).read()


def celsius(board):
    return {sensor.name: sensor.celsius for sensor in board.temperatures}


def test_of_an_empty_tree_nothing_is_known(tmp_path):
    board = asdict(read(tmp_path))
    assert set(board.pop('gpu').values()) == {None}
    assert board.pop('cpu') == {'load_percent': None, 'cores': ()}
    assert set(board.pop('memory').values()) == {None}
    assert board.pop('power') == {'total_w': None, 'rails': ()}
    assert {board.pop(name) for name in ('temperatures', 'fans', 'throttles', 'over_currents')} == {()}
    assert board.pop('power_modes') == ()
    assert set(board.values()) == {None}


@pytest.mark.parametrize(
    ('family', 'model', 'soc', 'l4t', 'jetpack'),
    [
        (
            orin_nano,
            'NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super',
            'tegra234',
            '36.4.4',
            6,
        ),
        (orin_nx, 'NVIDIA Orin NX Developer Kit', 'tegra234', '35.4.1', 5),
        (agx_orin, 'NVIDIA Jetson AGX Orin Developer Kit', 'tegra234', '35.4.1', 5),
        (thor, 'NVIDIA Jetson AGX Thor Developer Kit', 'tegra264', '38.4.0', 7),
    ],
)
def test_a_board_and_its_release_are_known(tmp_path, family, model, soc, l4t, jetpack):
    board = read(family(tmp_path))
    assert (board.model, board.soc, board.l4t, board.jetpack) == (model, soc, l4t, jetpack)


def test_a_release_of_another_time_has_no_jetpack_that_we_know(tmp_path):
    board = read(plant(tmp_path, {'etc/nv_tegra_release': '# R44 (release), REVISION: 1.0, GCID: 1'}))
    assert (board.l4t, board.jetpack) == ('44.1.0', None)


@pytest.mark.parametrize(
    ('family', 'name', 'load', 'clock_mhz'),
    [
        (orin_nano, '17000000.gpu', 99.9, 1020),
        (orin_nx, '17000000.ga10b', 12.5, 918),
        (agx_orin, '17000000.ga10b', 0.0, 306),
        (thor, 'gpu-gpc-0', None, 314),
    ],
)
def test_the_gpu_is_found_where_each_family_has_it(tmp_path, family, name, load, clock_mhz):
    gpu = read(family(tmp_path)).gpu
    assert (gpu.name, gpu.load_percent, gpu.clock_hz) == (name, load, clock_mhz * 1_000_000)
    assert gpu.governor == 'nvhost_podgov'


def test_the_load_of_the_cpu_is_that_between_two_readings(tmp_path):
    reader = BoardReader(orin_nano(tmp_path))
    assert reader.read().cpu.load_percent is None
    plant(tmp_path, {'proc/stat': stat((0, 175, 925), (2, 0, 1100))})
    cpu = reader.read().cpu
    assert cpu.load_percent == 37.5
    assert [core.load_percent for core in cpu.cores] == [75, None, 0]
    assert [core.is_online for core in cpu.cores] == [True, False, True]
    assert cpu.cores[0].max_clock_hz == 1_344_000_000


def test_waiting_for_a_disk_is_idle_and_guests_are_counted_once():
    before, now = 'cpu0 0 0 0 0 0 0 0 0 0 0', 'cpu0 10 5 10 40 20 5 5 5 10 5'
    assert load_percent(parse_stat(before)['cpu0'], parse_stat(now)['cpu0']) == 40


def test_counters_that_go_back_give_no_load_beyond_its_range():
    assert load_percent(Ticks(10, 100), Ticks(30, 110)) == 100
    assert load_percent(Ticks(10, 100), Ticks(5, 110)) == 0
    assert load_percent(Ticks(10, 100), Ticks(10, 100)) is None
    assert load_percent(Ticks(10, 100), Ticks(1, 10)) is None


def test_ram_and_swap_are_in_bytes(tmp_path):
    memory = read(orin_nano(tmp_path)).memory
    assert (memory.ram_total_bytes, memory.ram_available_bytes) == (7802880 * 1024, 5852160 * 1024)
    assert (memory.swap_total_bytes, memory.swap_free_bytes) == (12290048 * 1024, 11962368 * 1024)


def test_zones_have_one_name_in_all_releases(tmp_path):
    assert celsius(read(orin_nx(tmp_path / 'nx'))) == {'cpu': 43.5, 'tj': 44}
    assert celsius(read(thor(tmp_path / 'thor'))) == {'cpu': 37.343, 'soc012': 37.468}


def test_gated_zones_are_unknown_and_the_others_are_read(tmp_path):
    root = orin_nano(tmp_path)
    writer = gate(root / 'sys/class/thermal/thermal_zone2/temp')
    try:
        assert celsius(read(root)) == {'cpu': 46.125, 'gpu': 50.468, 'cv0': None, 'tj': 50.468}
    finally:
        os.close(writer)


def test_a_zone_of_minus_256_is_unknown(tmp_path):
    assert celsius(read(agx_orin(tmp_path))) == {'cpu': 41.437, 'gpu': None}


@pytest.mark.parametrize(
    ('family', 'total_w', 'rails'),
    [
        (orin_nano, 7.55136, ['VDD_IN', 'VDD_CPU_GPU_CV', 'VDD_SOC']),
        (orin_nx, 5.0, ['VDD_IN', 'VDD_CPU_GPU_CV', 'VDD_SOC']),
        (
            agx_orin,
            3.57552 + 0.79456 + 3.5 + 0.9,
            ['VDD_GPU_SOC', 'VDD_CPU_CV', 'VIN_SYS_5V0', 'VDDQ_VDD2_1V8AO'],
        ),
        (thor, 19.78, ['VDD_GPU', 'VDD_CPU_SOC_MSS', 'VIN_SYS_5V0', 'VIN']),
    ],
)
def test_the_total_is_the_rail_of_all_or_their_sum(tmp_path, family, total_w, rails):
    power = read(family(tmp_path)).power
    assert power.total_w == pytest.approx(total_w, abs=1e-6)
    assert [rail.name for rail in power.rails] == rails


@pytest.mark.parametrize(
    ('family', 'lost'),
    [
        (orin_nano, '1-0040/hwmon/hwmon0/curr1_input'),
        (orin_nano, '1-0040/hwmon/hwmon0/in1_label'),
        (agx_orin, '1-0041/hwmon/hwmon1/curr2_input'),
        (agx_orin, '1-0041/hwmon/hwmon1/in2_label'),
        (thor, '2-0041/hwmon/hwmon1/in2_label'),
    ],
)
def test_a_total_that_lacks_something_is_unknown(tmp_path, family, lost):
    root = family(tmp_path)
    (root / 'sys/bus/i2c/drivers/ina3221' / lost).unlink()
    power = read(root).power
    assert power.total_w is None
    assert any(rail.power_w is not None for rail in power.rails)


def test_a_fan_has_what_it_is_told_and_what_it_does(tmp_path):
    (fan,) = read(orin_nano(tmp_path)).fans
    assert (fan.speed_percent, fan.rpm) == (30.2, 1350)


def test_rails_have_their_limits_and_alarms(tmp_path):
    root = orin_nano(tmp_path)
    rail, *others = read(root).power.rails
    assert (rail.max_a, rail.crit_a, rail.is_above_max, rail.is_above_crit) == (4, 5, False, False)
    assert {(other.max_a, other.is_above_max, other.is_above_crit) for other in others} == {(None,) * 3}
    plant(root, limits('1-0040', 1, max_ma=4000, crit_ma=5000, alarms=(1, 0)))
    rail = read(root).power.rails[0]
    assert (rail.is_above_max, rail.is_above_crit) == (True, False)


def test_over_currents_are_counted_by_their_circuit(tmp_path):
    over_currents = read(orin_nano(tmp_path)).over_currents
    assert [(each.name, each.events) for each in over_currents] == [('oc1', 0), ('oc2', 2), ('oc3', 37)]


def test_a_zone_throttles_from_its_lowest_passive_trip_point(tmp_path):
    root = plant(tmp_path, zones(('cpu-thermal', 46000), ('tj-thermal', 50000), ('gpu-thermal', 40000)))
    plant(root, trips(0, ('active', 50000), ('passive', 99000), ('passive', 95000), ('critical', 104500)))
    plant(root, trips(1, ('critical', 104500), ('passive', 0)))
    board = read(root)
    assert [sensor.throttle_celsius for sensor in board.temperatures] == [95, None, None]
    assert board.margin_celsius(99) == 49  # of cpu and tj, and of those the nearer
    assert board.margin_celsius(97) == 47
    assert read(tmp_path / 'empty').margin_celsius(99) is None


def test_what_is_slowed_down_is_no_fan(tmp_path):
    root = orin_nano(tmp_path)
    board = read(root)
    assert [throttle.name for throttle in board.throttles] == ['cpu-throttle-alert', 'gpu-throttle-alert']
    assert board.is_throttling is False
    plant(root, coolers(('pwm-fan', 9, 10), ('cpufreq-cpu0', 0, 24), ('gpu-throttle-alert', 1, 2)))
    board = read(root)
    assert [(each.name, each.state, each.max_state) for each in board.throttles] == [
        ('cpufreq-cpu0', 0, 24),
        ('gpu-throttle-alert', 1, 2),
    ]
    assert board.is_throttling is True
    assert read(tmp_path / 'empty').is_throttling is None


def test_the_clock_of_the_memory_is_read_where_root_asks_and_its_cap_always(tmp_path):
    root = orin_nano(tmp_path)
    assert (read(root).memory.clock_hz, read(root).memory.max_clock_hz) == (None, 3_199_000_000)
    plant(
        root, {'sys/kernel/debug/bpmp/debug/clk/emc/rate': 2133000000, 'sys/kernel/nvpmodel_clk_cap/emc': 0}
    )
    assert (read(root).memory.clock_hz, read(root).memory.max_clock_hz) == (2_133_000_000, None)


@pytest.mark.parametrize(
    ('status', 'profile'),
    [('pmode:0001 fmode:fan_mode_quiet', 'quiet'), ('pmode:0001 fmode:cool', 'cool'), ('pmode:0001', None)],
)
def test_the_fan_has_a_profile_where_nvpmodel_keeps_one(tmp_path, status, profile):
    assert read(plant(tmp_path, {'var/lib/nvpmodel/status': status})).fan_profile == profile


def test_what_changes_slowly_is_read_again_after_a_while_and_the_rest_each_time(tmp_path):
    root = orin_nano(tmp_path)
    reader, always = BoardReader(root, slow_s=1e6), BoardReader(root)
    before = reader.read()
    plant(root, coolers(('cpu-throttle-alert', 1, 2)))
    plant(root, zones(('cpu-thermal', 70000)))
    after = reader.read()
    assert (after.power, after.throttles) == (before.power, before.throttles)
    assert celsius(after)['cpu'] == 70
    assert always.read().is_throttling is True


def test_nvpmodel_conf_is_read_again_where_it_has_changed(tmp_path):
    root = orin_nano(tmp_path)
    reader = BoardReader(root)
    assert [mode.id for mode in reader.read().power_modes] == [0, 1, 2, 7]
    plant(root, {'etc/nvpmodel.conf': '< POWER_MODEL ID=5 NAME=NEW >'})
    assert [mode.name for mode in reader.read().power_modes] == ['NEW']
    (root / 'etc/nvpmodel.conf').unlink()
    assert reader.read().power_modes == ()


def test_the_power_mode_comes_with_its_caps_and_the_default(tmp_path):
    board = read(orin_nano(tmp_path / 'nano'))
    assert (board.power_mode.name, board.power_mode.gpu_max_hz) == ('25W', 918_000_000)
    board = read(thor(tmp_path / 'thor'))
    assert (board.power_mode.name, board.default_power_mode.name) == ('MAXN', '120W')


def test_clocks_are_fixed_where_those_of_all_that_is_on_are(tmp_path):
    root = orin_nx(tmp_path)
    assert read(root).are_clocks_fixed is True  # the core that is not is off
    plant(root, {'sys/class/devfreq/17000000.ga10b/min_freq': 306000000})
    assert read(root).are_clocks_fixed is False
    assert read(orin_nano(tmp_path / 'nano')).are_clocks_fixed is False


def test_whether_clocks_are_fixed_is_unknown_where_one_is_and_the_others_are_fixed(tmp_path):
    root = orin_nx(tmp_path)
    (root / 'sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq').unlink()
    assert read(root).are_clocks_fixed is None


def test_a_list_of_cores_that_is_none_leaves_them_unknown(tmp_path):
    plant(tmp_path, cpus('all', (0, 1, 2), (10, 1, 2), (2, 1, 2)))
    assert [(core.number, core.is_online) for core in read(tmp_path).cpu.cores] == [
        (0, None),
        (2, None),
        (10, None),
    ]


def files_of(root):
    return sorted(path.relative_to(root) for path in root.rglob('*') if path.is_file())


def measured(board):
    """Give what was measured, in an order that no file that is missing changes."""
    named = [
        (f'{part}.{name}', value) for part in ('gpu', 'memory') for name, value in asdict(board)[part].items()
    ]
    zones = [(number, sensor.celsius) for number, sensor in enumerate(board.temperatures)]
    cores = [((core.number, name), value) for core in board.cpu.cores for name, value in asdict(core).items()]
    return dict([*named, *zones, *cores, ('total_w', board.power.total_w)])


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_what_a_vanished_file_had_is_unknown_and_all_else_is_as_it_was(tmp_path, family):
    root = family(tmp_path)
    whole = measured(read(root))
    lost = set()
    for name in files_of(root):
        content = (root / name).read_bytes()
        (root / name).unlink()
        for key, value in measured(read(root)).items():
            assert value in (whole[key], None)
            lost |= {key} if value != whole[key] else set()
        (root / name).write_bytes(content)
    assert lost == {key for key, value in whole.items() if value is not None and key != 'gpu.name'} - ALWAYS


ALWAYS = {(number, 'number') for number in range(3)}  # the folder of a core has its number


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
@given(rubbish=some.binary(max_size=40) | some.integers().map(lambda number: str(number).encode()))
def test_rubbish_in_any_file_is_no_crash_and_no_load_beyond_its_range(family, rubbish):
    with tempfile.TemporaryDirectory() as folder:
        root = family(Path(folder))
        for name in files_of(root):
            (root / name).write_bytes(rubbish)
        board = read(root)
        json.dumps(asdict(board), allow_nan=False)
        assert board.gpu.load_percent is None or 0 <= board.gpu.load_percent <= 100
        assert all(fan.speed_percent is None or 0 <= fan.speed_percent <= 100 for fan in board.fans)


def test_a_temperature_and_a_trip_point_that_cannot_be_are_unknown(tmp_path):
    plant(
        tmp_path,
        {**zones(('cpu-thermal', 2**31 - 1), ('tj-thermal', 50000)), **trips(1, ('passive', 2**31 - 1))},
    )
    board = BoardReader(tmp_path).read()
    assert [(each.celsius, each.throttle_celsius) for each in board.temperatures] == [
        (None, None),
        (50, None),
    ]
    assert board.margin_celsius(99) == 49
