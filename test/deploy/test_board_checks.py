"""Board checks, over the files of boards."""

import shutil

import pytest
from boards import cpus, gpu, orin_nano, orin_nx, plant

from isaac_infer.deploy.board_checks import (
    _clock_state,
    board_checks,
    check_clock,
    check_clocks,
    check_disk,
    check_mode,
)
from isaac_infer.deploy.checks import FAILED, NOT_RUN, PASSED, CheckError, NotRunError, run_checks
from isaac_infer.deploy.manifest import BoardEntry, Manifest


def in_order(root):
    """An Orin Nano whose GPU keeps to its mode."""
    orin_nano(root)
    return plant(root, gpu('17000000.gpu', 918000000, 306000000, 918000000))


def test_the_mode_is_compared_by_its_name(tmp_path):
    assert check_mode(orin_nano(tmp_path), '25W') == {'mode': '25W', 'id': 1}


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        ('MAXN_SUPER', r'expected power mode MAXN_SUPER, got 25W \(ID 1\); run "sudo nvpmodel -m 2"'),
        ('MAXN', 'this board has 15W, 25W, MAXN_SUPER, 7W'),
    ],
)
def test_another_mode_has_failed_with_the_way_out(tmp_path, wanted, message):
    with pytest.raises(CheckError, match=message):
        check_mode(orin_nano(tmp_path), wanted)


def test_an_unknown_mode_is_not_run(tmp_path):
    with pytest.raises(NotRunError, match='the power mode is unknown'):
        check_mode(tmp_path, 'MAXN')
    with pytest.raises(NotRunError, match='the power mode is unknown'):
        check_clocks(tmp_path, is_fixed=False)


def test_clocks_are_those_of_the_mode(tmp_path):
    values = check_clocks(in_order(tmp_path), is_fixed=False)
    assert values == {'gpu_max_mhz': 918.0, 'cpu_max_mhz': 1344.0, 'cores': 2, 'are_fixed': False}


def test_a_clock_above_that_of_the_mode_has_failed(tmp_path):
    with pytest.raises(CheckError, match='GPU: expected clocks up to 918 MHz in 25W, got 1020'):
        check_clocks(orin_nano(tmp_path), is_fixed=False)


def test_what_a_mode_does_not_cap_has_to_run_as_fast_as_the_board_can(tmp_path):
    root = plant(orin_nano(tmp_path), {'var/lib/nvpmodel/status': 'pmode:0002'})  # MAXN_SUPER caps nothing
    plant(root, gpu('17000000.gpu', 306000000, 306000000, 624750000))
    plant(root, cpus('0,2', (0, 729600, 1984000), (2, 729600, 1984000)))
    with pytest.raises(CheckError, match='GPU: expected clocks up to 918 MHz in MAXN_SUPER, got 625'):
        check_clocks(root, is_fixed=False)
    (root / 'sys/class/devfreq/17000000.gpu/available_frequencies').unlink()
    with pytest.raises(
        NotRunError, match='MAXN_SUPER does not cap the GPU, and how fast it can be is unknown'
    ):
        check_clocks(root, is_fixed=False)
    plant(root, gpu('17000000.gpu', 306000000, 306000000, 918000000))
    assert check_clocks(root, is_fixed=False)['gpu_max_mhz'] == 918.0


def test_cores_that_may_be_off_are_not_counted(tmp_path):
    (in_order(tmp_path) / 'sys/devices/system/cpu/online').unlink()
    shutil.rmtree(tmp_path / 'sys/devices/system/cpu/cpu1')
    with pytest.raises(NotRunError, match='which cores are online is unknown'):
        check_clocks(tmp_path, is_fixed=False)


def test_another_number_of_cores_has_failed(tmp_path):
    plant(in_order(tmp_path), {'sys/devices/system/cpu/online': '0'})
    with pytest.raises(CheckError, match='expected 2 cores online in 25W, got 1'):
        check_clocks(tmp_path, is_fixed=False)


def test_a_clock_that_nobody_tells_is_not_run(tmp_path):
    in_order(tmp_path)
    (tmp_path / 'sys/class/devfreq/17000000.gpu/max_freq').unlink()
    with pytest.raises(NotRunError, match='the highest clock of the GPU is unknown'):
        check_clocks(tmp_path, is_fixed=False)


def test_fixed_clocks_are_asked_for(tmp_path):
    with pytest.raises(CheckError, match='expected fixed clocks, got changing ones'):
        check_clocks(in_order(tmp_path / 'nano'), is_fixed=True)
    root = orin_nx(tmp_path / 'nx')
    plant(
        root, {'etc/nvpmodel.conf': '< POWER_MODEL ID=0 NAME=MAXN >', 'var/lib/nvpmodel/status': 'pmode:0000'}
    )
    assert check_clocks(root, is_fixed=True)['are_fixed'] is True
    (root / 'sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq').unlink()
    with pytest.raises(NotRunError, match='whether clocks are fixed is unknown'):
        check_clocks(root, is_fixed=True)


def test_disk_space_is_that_of_the_fullest_place(tmp_path):
    values = check_disk([tmp_path, tmp_path / 'not' / 'there'], 0.001)
    assert values['free_mb'] > 0.001
    assert values['folder'] == str(tmp_path)
    with pytest.raises(CheckError, match=r'expected 1e\+12 MB free, got'):
        check_disk([tmp_path], 1e12)


def test_the_clock_is_kept_by_whom_the_system_tells(tmp_path):
    assert check_clock(tmp_path, lambda: 0) == {'by': 'the kernel', 'kernel_state': 0}
    with pytest.raises(CheckError, match='not kept in time'):
        check_clock(tmp_path, lambda: 5)
    with pytest.raises(NotRunError, match='is unknown'):
        check_clock(tmp_path, lambda: None)
    with pytest.raises(NotRunError, match='is unknown'):
        check_clock(tmp_path)  # the kernel is that of this machine
    plant(tmp_path, {'run/systemd/timesync/synchronized': ''})
    assert check_clock(tmp_path, lambda: 5) == {'by': 'systemd-timesyncd'}


def test_the_kernel_of_this_machine_says_one_of_its_states_or_nothing():
    assert _clock_state() in (None, 0, 1, 2, 3, 4, 5)


def test_a_manifest_has_the_checks_that_it_names(tmp_path):
    assert board_checks(Manifest(nodes=('a',))) == []
    manifest = Manifest(
        board=BoardEntry(mode='25W', clocks='mode'), disk_free_mb=1e12, clock_sync=True, folder=tmp_path
    )
    results = run_checks(board_checks(manifest, root=in_order(tmp_path)), timeout_s=20)
    assert {result.name: result.outcome for result in results} == {
        'board: mode': PASSED,
        'board: clocks': PASSED,
        'system: disk': FAILED,
        'system: clock': NOT_RUN,
    }


def test_clocks_of_a_mode_that_nvpmodel_conf_does_not_have_are_not_run(tmp_path):
    plant(in_order(tmp_path), {'var/lib/nvpmodel/status': 'pmode:0009'})
    with pytest.raises(NotRunError, match=r'does not have the power mode \(ID 9\)'):
        check_clocks(tmp_path, is_fixed=False)
