"""power_manager, as a process of its own, over DDS, on trees of boards and with a stand-in of nvpmodel."""

import os
import re
import signal
import time
from math import isnan
from pathlib import Path

import nvpmodel_tool
import pytest
from boards import (
    agx_orin,
    coolers,
    limits,
    orin_nano,
    orin_nx,
    over_currents,
    plant,
    stat,
    thor,
    zones,
)
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from processes import wait_until
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from isaac_infer.ros.figures import figures_of

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
QUICK = {'dwell_s': 0.0, 'min_switch_interval_s': 1.0}


class Manager:
    """The node on a tree, and what it says."""

    def __init__(self, start, peer, root, **parameters):
        self.root, self._peer = root, peer
        peer.listen(String, 'power_status')
        peer.listen(Float64MultiArray, 'power_metrics')
        peer.listen(String, 'load_level', LATCHED)
        peer.listen(DiagnosticArray, '/diagnostics')
        values = {'root': root, 'nvpmodel_command': f"['{root}/usr/sbin/nvpmodel']", **parameters}
        words = [word for name, value in values.items() for word in ('-p', f'{name}:={value}')]
        self.process = start('power_manager', '--ros-args', *words)

    @property
    def statuses(self):
        messages = list(self._peer.got['/diagnostics'])
        return [
            each for message in messages for each in message.status if each.name == 'power_manager: power'
        ]

    def again(self, start, *more, **parameters):
        """Start another one on the same tree."""
        values = {
            'root': self.root,
            'nvpmodel_command': f"['{self.root}/usr/sbin/nvpmodel']",
            'dry_run': 'false',
            **parameters,
        }
        words = [word for name, value in values.items() for word in ('-p', f'{name}:={value}')]
        return start('power_manager', '--ros-args', *words, *more)

    @property
    def level(self):
        levels = self._peer.got['load_level']
        return levels[-1].data if levels else None

    def figures(self):
        return figures_of(self._peer.wait_for('power_metrics', 1)[-1])

    def wait_for(self, text, level=None, timeout_s=30):
        """Wait for a status whose message, or one of whose values, has a text; give its values."""
        found = []

        def has_come():
            found[:] = [
                each
                for each in self.statuses
                if (level is None or each.level == level)
                and (text in each.message or any(text in pair.value for pair in each.values))
            ]
            return bool(found)

        assert wait_until(has_come, timeout_s), [(each.level, each.message) for each in self.statuses[-3:]]
        return {pair.key: pair.value for pair in found[-1].values}

    def call(self, service):
        return self._peer.call(Trigger, f'power_manager/{service}', Trigger.Request())

    def set(self, **values):
        return self._peer.set('power_manager', **values)[0]


@pytest.fixture
def manage(start, make_peer, tmp_path):
    peer = make_peer()
    return lambda family, **parameters: Manager(start, peer, family(tmp_path / 'board'), **parameters)


def test_a_board_is_told_in_numbers_with_units_and_in_a_line(manage, make_peer):
    manager = manage(orin_nano)
    values = manager.wait_for('power mode 25W (ID 1)', OK)
    figures = manager.figures()
    assert figures['gpu_percent'] == 99.9 and figures['memory_percent'] == pytest.approx(25)
    assert figures['power_w'] == pytest.approx(7.55136) and figures['hottest_celsius'] == 50.468
    assert figures['margin_celsius'] == pytest.approx(99 - 50.468) and figures['power_mode_id'] == 1
    assert figures['rail_VDD_SOC_w'] == pytest.approx(2.46016) and figures['temperature_tj_celsius'] == 50.468
    assert figures['over_currents_oc3'] == 37 and figures['fan_rpm'] == 1350
    assert isnan(figures['cpu_percent'])  # the counters of the tree stand still
    assert (values['power_mode'], values['load_level'], values['cpu_percent']) == (
        '25W (ID 1)',
        'normal',
        'unknown',
    )
    assert float(values['power_w']) == pytest.approx(7.55, abs=0.01)
    assert set(figures) <= set(values)
    assert manager.level == 'normal'
    assert 'reads the board 5 times per second, says which power mode it would' in manager.process.log
    late = make_peer('late')
    late.listen(String, 'load_level', LATCHED)
    assert late.wait_for('load_level', 1)[0].data == 'normal'
    begin, came = time.monotonic(), len(manager._peer.got['power_metrics'])
    time.sleep(2)
    rate_hz = (len(manager._peer.got['power_metrics']) - came) / (time.monotonic() - begin)
    assert 2 <= rate_hz <= 6
    assert 'degrees to throttling, power 7.6 W' in manager._peer.wait_for('power_status', 1)[-1].data
    assert manager.process.stop() == 0
    assert 'Traceback' not in manager.process.log


def test_in_a_dry_run_it_says_what_it_would_do_and_asks_nvpmodel_nothing(manage):
    manager = manage(orin_nano, **QUICK)
    nvpmodel_tool.install(manager.root, 'switches')
    values = manager.wait_for('dry run: would switch to MAXN_SUPER: GPU 100%', OK)
    assert values['dry_run'] == 'true'
    assert nvpmodel_tool.asked(manager.root) == []


def test_a_busy_board_gets_a_higher_mode_and_an_idle_one_a_lower_one(manage):
    manager = manage(orin_nano, dry_run='false', **QUICK)
    nvpmodel_tool.install(manager.root, 'switches')
    manager.wait_for('power mode MAXN_SUPER (ID 2)')
    plant(manager.root, {'sys/devices/platform/gpu.0/load': 10})
    busy = 0

    def rest():
        nonlocal busy
        busy += 1
        plant(manager.root, {'proc/stat': stat((0, 100 + busy, 900 + 100 * busy))})
        return any('power mode 15W (ID 0)' in status.message for status in manager.statuses)

    assert wait_until(rest, timeout_s=30)
    assert nvpmodel_tool.asked(manager.root) == ['-m 2', '-m 1', '-m 0']  # 7W needs a reboot


def test_a_profile_bounds_what_is_chosen(manage):
    manager = manage(orin_nano, high_power_profile='25W', **QUICK)
    manager.wait_for('GPU 100%, but no higher mode can be had')


def test_deadlines_that_nodes_miss_ask_for_a_higher_mode(manage):
    manager = manage(orin_nano, **QUICK)
    plant(manager.root, {'sys/devices/platform/gpu.0/load': 600})
    publisher = manager._peer.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    manager.wait_for('neither busy nor idle')
    dropped = 0

    def drop():
        nonlocal dropped
        dropped += 1
        values = [KeyValue(key='dropped_busy', value=str(dropped))]
        publisher.publish(DiagnosticArray(status=[DiagnosticStatus(name='detector: image', values=values)]))
        time.sleep(0.2)
        return 'deadlines missed' in manager.statuses[-1].message + str(manager.statuses[-1].values)

    assert wait_until(drop)
    assert manager.figures()['deadlines_missed'] >= 1


def test_a_hot_board_gets_a_lower_mode_and_less_work_and_both_come_back(manage):
    manager = manage(orin_nano, dry_run='false', **QUICK)
    nvpmodel_tool.install(manager.root, 'switches')
    plant(manager.root, zones(('tj-thermal', 96000)))
    manager.wait_for('15W (ID 0)', WARN)  # although the GPU is busy
    assert manager.level == 'reduced'
    plant(manager.root, zones(('tj-thermal', 98000)))
    assert wait_until(lambda: manager.level == 'minimal')
    manager.wait_for('load level minimal', WARN)
    plant(manager.root, zones(('tj-thermal', 60000)))
    assert wait_until(lambda: manager.level == 'normal')
    manager.wait_for('power mode MAXN_SUPER (ID 2)')


def test_throttling_and_alarms_are_warnings_with_numbers(manage):
    manager = manage(orin_nano)
    manager.wait_for('power mode 25W', OK)
    plant(manager.root, coolers(('pwm-fan', 2, 10), ('cpu-throttle-alert', 1, 2)))
    manager.wait_for('throttling: cpu-throttle-alert 1 of 2', WARN)
    assert wait_until(lambda: manager.level == 'minimal')
    plant(manager.root, limits('1-0040', 1, max_ma=1500, crit_ma=5000, alarms=(1, 0)))
    manager.wait_for('over-current on average: VDD_IN 1.52 A of 1.50 A', WARN)
    plant(manager.root, over_currents(0, 2, 39))
    manager.wait_for(
        'the supply did not keep up a moment ago; times since the start: oc1 0, oc2 2, oc3 39', WARN
    )
    manager.process.wait_for('throttling: cpu-throttle-alert 1 of 2')


def test_a_mode_is_pinned_by_its_name_or_as_it_is_and_handed_back(manage):
    manager = manage(orin_nano, dry_run='false', dwell_s=1000.0)
    nvpmodel_tool.install(manager.root, 'switches')
    manager.wait_for('power mode 25W')
    answer = manager.set(pinned_mode='MAXN')
    assert not answer.successful
    assert answer.reason == "pinned_mode: power mode 'MAXN': expected one of 15W, 25W, MAXN_SUPER, 7W"
    assert manager.set(pinned_mode='15W').successful
    manager.wait_for('15W is pinned')
    assert nvpmodel_tool.asked(manager.root) == ['-m 0']
    answer = manager.call('automatic')
    assert answer.success and answer.message == 'the mode is chosen by the load'
    manager.wait_for('GPU 100%, not yet for 1000 s')
    answer = manager.call('pin')
    assert answer.success and answer.message == '15W is pinned'
    manager.wait_for('15W is pinned')


def test_a_pinned_mode_that_needs_a_reboot_is_told_and_not_made(manage):
    manager = manage(orin_nano, dry_run='false', **QUICK)
    nvpmodel_tool.install(manager.root, 'switches')
    manager.wait_for('power mode')
    assert manager.set(pinned_mode='7W').successful
    manager.wait_for('7W is pinned, but needs a reboot: sudo nvpmodel -m 7', WARN)
    assert '-m 7' not in nvpmodel_tool.asked(manager.root)


@pytest.mark.parametrize(
    ('way', 'level', 'says'),
    [
        ('reboot', WARN, 'MAXN_SUPER needs a reboot, which is for you to do: sudo nvpmodel -m 2'),
        ('refuses', ERROR, 'refused: sudo: a password is required; see Power in README.md'),
        ('lies', ERROR, 'expected MAXN_SUPER (ID 2) after it, but the board is in 25W (ID 1)'),
        ('hangs', ERROR, 'not done after 1 s'),
        (None, ERROR, 'cannot be started: No such file or directory'),
    ],
)
def test_a_switch_that_fails_is_told_and_the_node_lives_on(manage, way, level, says):
    manager = manage(orin_nano, dry_run='false', nvpmodel_timeout_s=1.0, **QUICK)
    if way:
        nvpmodel_tool.install(manager.root, way)
    manager.wait_for(says, level)
    came = len(manager._peer.got['power_metrics'])
    manager._peer.wait_for('power_metrics', came + 5)
    assert manager.set(pinned_mode='25W').successful
    manager.wait_for('25W is pinned', OK)
    assert manager.process.stop() == 0


def test_while_nvpmodel_hangs_the_board_is_watched_and_the_node_answers_and_ends(manage):
    manager = manage(orin_nano, dry_run='false', nvpmodel_timeout_s=60.0, **QUICK)
    nvpmodel_tool.install(manager.root, 'hangs')
    manager.wait_for('waiting for nvpmodel')
    plant(manager.root, zones(('tj-thermal', 98500)))
    assert wait_until(lambda: manager.level == 'minimal')
    begin = time.monotonic()
    assert manager.call('automatic').success
    assert time.monotonic() - begin < 5
    assert manager.process.stop() == 0
    assert 'nvpmodel does not answer; leaving without it' in manager.process.log


@pytest.mark.parametrize('family', [orin_nx, agx_orin, thor])
def test_boards_that_tell_less_are_watched_too(manage, family):
    manager = manage(family)
    assert wait_until(lambda: manager.level == 'normal')
    assert manager.figures()['power_w'] > 0
    assert wait_until(lambda: manager.statuses)
    assert 'Traceback' not in manager.process.log


def test_modes_that_nothing_tells_apart_are_chosen_in_the_order_of_the_user(manage):
    manager = manage(thor)
    manager.wait_for(
        'nothing tells which of MAXN and 120W can do more: name the modes in allowed_modes', ERROR
    )


def test_a_profile_that_the_board_does_not_have_is_an_error_that_names_those_there_are(manage):
    manager = manage(orin_nano, low_power_profile='MIN_POWER')
    manager.wait_for("power mode 'MIN_POWER': expected one of 15W, 25W, MAXN_SUPER, 7W", ERROR)


def test_where_no_file_has_the_mode_the_tool_is_asked(manage):
    def family(root):
        orin_nano(root)
        (root / 'var/lib/nvpmodel/status').unlink()
        nvpmodel_tool.install(root, 'tells')
        return root

    manager = manage(family)
    manager.wait_for('power mode MAXN_SUPER (ID 2)')
    assert set(nvpmodel_tool.asked(manager.root)) == {'-q'}


def test_files_that_vanish_one_after_the_other_and_come_back_end_nothing(manage):
    manager = manage(orin_nano, **QUICK)
    manager.wait_for('power mode 25W')
    files = [path for path in manager.root.rglob('*') if path.is_file() and path.name != 'asked']
    contents = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
        time.sleep(0.02)
    manager.wait_for('power mode unknown, CPU unknown, GPU unknown, memory unknown, unknown to throttling')
    for path, content in contents.items():
        path.write_bytes(content)
    seen = len(manager.statuses)
    assert wait_until(lambda: any('25W' in status.message for status in manager.statuses[seen + 1 :]))
    assert manager.process.is_alive and 'Traceback' not in manager.process.log


def test_a_pc_has_no_power_modes_and_that_is_no_error(manage):
    manager = manage(lambda root: plant(root, {'proc/meminfo': 'MemTotal: 100 kB'}))
    manager.wait_for('the power mode of the board is unknown', OK)
    assert 'no power modes are known of this board: there is nothing to switch' in manager.process.log


def test_a_root_that_is_not_there_is_refused(start, tmp_path):
    process = start('power_manager', '--ros-args', '-p', f'root:={tmp_path}/nowhere')
    assert process.wait() == 1
    assert f'root: expected the folder that has the files of a board, got {tmp_path}/nowhere' in process.log


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(manage, number):
    manager = manage(orin_nano)
    manager.wait_for('power mode')
    assert manager.process.stop(number) == 0
    assert 'Traceback' not in manager.process.log


def test_a_message_in_diagnostics_that_cannot_be_read_is_passed_over(manage, make_peer):
    manager = manage(orin_nano)
    manager.wait_for('power mode 25W (ID 1)', OK)
    node = make_peer('hostile').node
    publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    assert wait_until(lambda: publisher.get_subscription_count() >= 2)
    publisher.publish(bytes(4) + b'\xff' * 40 + b'deadline_missed')
    assert wait_until(lambda: 'a message that cannot be read is passed over' in manager.process.log)
    manager._peer.got['/diagnostics'].clear()
    manager.wait_for('power mode 25W (ID 1)', OK)


def test_a_pinned_mode_that_takes_a_reboot_is_said_again_where_it_is_pinned_again(manage):
    manager = manage(orin_nano, dry_run='false', **QUICK, allowed_modes="['25W']")
    nvpmodel_tool.install(manager.root, 'reboot')
    for _ in range(2):
        assert manager.set(pinned_mode='MAXN_SUPER').successful
        values = manager.wait_for('MAXN_SUPER is pinned, but needs a reboot: sudo nvpmodel -m 2', WARN)
        assert values['power_mode'] == '25W (ID 1)'
        assert manager.set(pinned_mode='').successful
        manager._peer.got['/diagnostics'].clear()
    assert nvpmodel_tool.asked(manager.root) == ['-m 2']


def test_a_pinned_mode_that_there_is_not_keeps_no_hot_board_from_a_lower_one(manage):
    manager = manage(orin_nano, dry_run='false', **QUICK, pinned_mode='99W')
    nvpmodel_tool.install(manager.root, 'switches')
    manager.wait_for("pinned_mode: power mode '99W': expected one of", ERROR)
    assert nvpmodel_tool.asked(manager.root) == []
    plant(manager.root, zones(('tj-thermal', 96000)))
    manager.wait_for('15W (ID 0)', ERROR)
    assert nvpmodel_tool.asked(manager.root) == ['-m 0']


def one_boot(root):
    """An Orin Nano that all who run on it know by its boot."""
    return plant(orin_nano(root), {'proc/sys/kernel/random/boot_id': '0b0f0c1e-5d6a-4d52-8f6b-3f3a5a3d7e11'})


@pytest.mark.parametrize(
    ('more', 'rival'),
    [
        (('-r', '__ns:=/other'), '/other/power_manager, switches'),
        ((), '/power_manager, of the same name, switches'),
    ],
)
def test_two_that_switch_one_board_say_so_and_neither_does(start, manage, more, rival):
    manager = manage(one_boot, dry_run='false', **QUICK, pinned_mode='15W')
    nvpmodel_tool.install(manager.root, 'switches')
    other = manager.again(start, *more, **QUICK, pinned_mode='MAXN_SUPER')
    manager.wait_for(rival, ERROR)
    other.wait_for('switches the power mode of this board, too: neither does by itself')
    switched = nvpmodel_tool.asked(manager.root)  # before the other one was there
    assert switched in ([], ['-m 0'])
    time.sleep(5)
    assert nvpmodel_tool.asked(manager.root) == switched
    other.kill()
    manager.wait_for('15W is pinned', OK)
    assert nvpmodel_tool.asked(manager.root) == ['-m 0']


def test_one_that_only_says_what_it_would_do_or_is_of_another_board_is_no_rival(start, manage, tmp_path):
    manager = manage(one_boot, dry_run='false', **QUICK, pinned_mode='15W')
    nvpmodel_tool.install(manager.root, 'switches')
    manager.again(start, '-r', '__ns:=/dry', dry_run='true')
    root = plant(one_boot(tmp_path / 'another'), {'proc/sys/kernel/random/boot_id': 'another'})
    manager.again(start, '-r', '__ns:=/another', root=root)
    manager.wait_for('15W is pinned', OK)
    time.sleep(6)
    assert not any('too: neither' in status.message for status in manager.statuses)


def test_in_a_dry_run_nothing_is_switched_or_written_killed_and_ended_too(start, manage):
    def contents():
        return {path: path.read_bytes() for path in manager.root.rglob('*') if path.is_file()}

    manager = manage(orin_nano, **QUICK)
    nvpmodel_tool.install(manager.root, 'switches')
    before = contents()
    manager.wait_for('dry run: would switch to MAXN_SUPER')
    manager.process.kill()
    another = manager.again(start, dry_run='true', **QUICK)
    another.wait_for('dry run: would switch to MAXN_SUPER')
    assert another.stop() == 0
    assert contents() == before  # the calls of the tool are among them


def test_while_nvpmodel_cannot_be_ended_it_is_not_run_again(manage, tmp_path, monkeypatch):
    # What the kernel says of a process of root's, which is what sudo makes of it.
    denied = 'import os\ndef deny(*_): raise PermissionError(1, "Operation not permitted")\nos.killpg = deny'
    plant(tmp_path / 'path', {'sitecustomize.py': denied})
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'path'), prepend=os.pathsep)
    manager = manage(orin_nano, dry_run='false', nvpmodel_timeout_s=1.0, **QUICK)
    nvpmodel_tool.install(manager.root, 'hangs')
    error = manager.wait_for('this user cannot end it, and it runs on (process ', ERROR)['last_error']
    time.sleep(3)
    assert nvpmodel_tool.asked(manager.root) == ['-m 2']
    nvpmodel_tool.install(manager.root, 'switches')
    os.kill(int(re.search(r'process (\d+)', error)[1]), signal.SIGKILL)
    manager.wait_for('power mode MAXN_SUPER', OK)
    assert nvpmodel_tool.asked(manager.root) == ['-m 2', '-m 2']


def test_killed_while_it_switches_the_next_one_waits_for_that_and_reads_the_mode_back(start, manage):
    manager = manage(orin_nano, dry_run='false', **QUICK, pinned_mode='15W')
    nvpmodel_tool.install(manager.root, 'slow')
    assert wait_until(lambda: nvpmodel_tool.asked(manager.root))
    nvpmodel_tool.install(manager.root, 'switches')
    (under_way,) = [
        path.parent
        for path in Path('/proc').glob('[0-9]*/cmdline')
        if f'{manager.root}/usr/sbin/nvpmodel\0-m'.encode() in read(path)
    ]
    manager.process.kill()
    (manager.root / 'proc' / under_way.name).symlink_to(under_way)
    another = manager.again(start, **QUICK)
    another.wait_for('switches the power mode; none is pinned')
    manager.wait_for('a switch is under way: ', WARN)
    assert nvpmodel_tool.asked(manager.root) == ['-m 0']
    another.wait_for('switched to 25W')  # from 15W, which it was killed in: by the load, as nothing is pinned
    assert nvpmodel_tool.asked(manager.root)[:2] == ['-m 0', '-m 1']


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b''


def test_a_first_reading_that_does_not_end_is_an_error(start, make_peer, tmp_path, monkeypatch):
    plant(
        tmp_path / 'path',
        {'pynvml.py': 'import time\nNVMLError = OSError\nnvmlInit = lambda: time.sleep(600)'},
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'path'), prepend=os.pathsep)
    peer = make_peer()
    manager = Manager(start, peer, '/')
    manager.wait_for('no reading for ', ERROR)
    assert manager.process.stop() == 0
    assert 'the board cannot be read to an end; leaving without it' in manager.process.log
