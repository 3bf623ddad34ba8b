"""Power modes: the quirks of nvpmodel.conf, of the status file and of what the tool prints."""

import errno
from pathlib import Path
from time import monotonic, sleep

import pytest
from boards import AGX_ORIN_CONF, ORIN_NANO_CONF, plant
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.core.errors import PowerModeError
from isaac_infer.jetson.nvpmodel import (
    PowerMode,
    PowerModes,
    find_mode,
    needs_reboot,
    parse_conf,
    parse_query,
    parse_status,
    read_mode,
    read_modes,
)
from isaac_infer.jetson.switch import switch_mode


def test_an_empty_file_has_no_modes():
    assert parse_conf('') == PowerModes({}, None)
    assert parse_conf('').default is None


def test_modes_keep_their_ids_over_gaps_and_examples_in_comments_are_none():
    modes = parse_conf(ORIN_NANO_CONF).modes
    assert {id: mode.name for id, mode in modes.items()} == {0: '15W', 1: '25W', 2: 'MAXN_SUPER', 7: '7W'}


@pytest.mark.parametrize(('conf', 'name'), [(ORIN_NANO_CONF, '25W'), (AGX_ORIN_CONF, 'MODE_30W')])
def test_the_default_is_found_before_and_after_the_modes(conf, name):
    assert parse_conf(conf).default.name == name


def test_what_is_commented_out_is_not_there():
    conf = f'{ORIN_NANO_CONF}# < POWER_MODEL ID=9 NAME=OLD >\n#< PM_CONFIG DEFAULT=0 >\n'
    assert parse_conf(conf) == parse_conf(ORIN_NANO_CONF)


def test_a_mode_has_its_cores_masks_and_caps_in_hz():
    assert parse_conf(ORIN_NANO_CONF).modes[7] == PowerMode(
        id=7,
        name='7W',
        cores_online=1,
        cpu_max_hz=960_000_000,
        gpu_max_hz=408_000_000,
        emc_max_hz=2_133_000_000,
        tpc_mask=252,
        fbp_mask=2,
    )


def test_what_is_minus_one_zero_or_the_largest_int_is_no_cap():
    free = parse_conf(ORIN_NANO_CONF.replace('GPU MAX_FREQ -1', 'GPU MAX_FREQ 2147483647')).modes[2]
    assert (free.cpu_max_hz, free.gpu_max_hz, free.emc_max_hz) == (None, None, None)


def test_one_cluster_without_a_cap_leaves_the_cpu_without_one():
    conf = AGX_ORIN_CONF.replace('CPU_A78_1 MAX_FREQ 1728000', 'CPU_A78_1 MAX_FREQ -1')
    assert parse_conf(AGX_ORIN_CONF).modes[2].cpu_max_hz == 1_728_000_000
    assert parse_conf(conf).modes[2].cpu_max_hz is None


def test_a_default_that_is_no_mode_is_unknown():
    modes = parse_conf('< POWER_MODEL ID=0 NAME=MAXN >\n< PM_CONFIG DEFAULT=3 >')
    assert (modes.default_id, modes.default) == (3, None)


@pytest.mark.parametrize(('target', 'is_needed'), [(0, False), (1, False), (2, False), (7, True)])
def test_a_switch_reboots_where_the_masks_differ(target, is_needed):
    modes = parse_conf(ORIN_NANO_CONF).modes
    assert needs_reboot(modes[1], modes[target]) == is_needed
    assert needs_reboot(modes[target], modes[1]) == is_needed


def test_a_switch_reboots_where_only_the_fbp_masks_differ():
    assert needs_reboot(PowerMode(0, 'A', tpc_mask=0, fbp_mask=0), PowerMode(1, 'B', tpc_mask=0, fbp_mask=2))


@pytest.mark.parametrize(
    ('text', 'id'),
    [('', None), ('pmode:0002 fmode:fan_mode_quiet', 2), ('pmode:0000\n', 0), ('fmode:quiet', None)],
)
def test_the_status_file_has_the_id(text, id):
    assert parse_status(text) == id


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('', None),
        ('NV Power Mode: MAXN_SUPER\n2\n', ('MAXN_SUPER', 2)),
        ('NV Fan Mode:quiet\nNV Power Mode: MODE_15W\n2\n', ('MODE_15W', 2)),
        ('NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W\n2', ('MODE_30W', 2)),
        (
            'NV Power Mode: 5W\n1\nNVPM ERROR: Error opening /sys/kernel/nvpmodel_emc_cap/emc_iso_cap: 13\n',
            ('5W', 1),
        ),
        (
            'NV Fan Mode:quiet\nNVPM VERB: Current mode: NV Power Mode: MODE_15W_6CORE\n2\n',
            ('MODE_15W_6CORE', 2),
        ),
        ('NV Power Mode: 10W\nNVPM WARN: of 7 things\n3\n', ('10W', 3)),
        ('NV Power Mode: 10W\n', None),
    ],
)
def test_the_answer_of_the_tool_is_found_among_its_warnings(text, told):
    mode = parse_query(text)
    assert (mode and (mode.name, mode.id)) == told


def test_the_tool_is_asked_where_there_is_no_status_file(tmp_path):
    plant(tmp_path, {'etc/nvpmodel.conf': ORIN_NANO_CONF})
    modes = read_modes(tmp_path)
    assert read_mode(tmp_path, modes) is None
    plant(tmp_path, {'usr/sbin/nvpmodel': '#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: 7W\\n7\\n"'})
    (tmp_path / 'usr/sbin/nvpmodel').chmod(0o755)
    assert read_mode(tmp_path, modes) == modes.modes[7]


def test_a_mode_that_the_file_lacks_has_only_its_id(tmp_path):
    plant(tmp_path, {'var/lib/nvpmodel/status': 'pmode:0005'})
    assert read_mode(tmp_path, parse_conf(ORIN_NANO_CONF)) == PowerMode(5, None, is_gating_known=False)


@given(some.text() | some.text('<>#= \nIDPOWER_MODELCONFIG019-', max_size=200))
def test_rubbish_is_passed_over(text):
    modes = parse_conf(text + ORIN_NANO_CONF)
    assert modes.modes[7].name == '7W'
    parse_status(text)
    parse_query(text)


MASKED = """
< POWER_MODEL ID=0 NAME=A >
TPC_POWER_GATING TPC_PG_MASK {}
< POWER_MODEL ID=1 NAME=B >
TPC_POWER_GATING TPC_PG_MASK {}
"""


@pytest.mark.parametrize(
    ('masks', 'is_needed'),
    [
        (('240', '0xf0'), False),
        (('0xF0', '0x80'), True),
        (('~0', '~0'), True),  # that nobody can read may be any
        (('240', 'all'), True),
    ],
)
def test_masks_are_compared_however_they_are_written_and_unreadable_ones_may_differ(masks, is_needed):
    modes = parse_conf(MASKED.format(*masks)).modes
    assert needs_reboot(modes[0], modes[1]) == is_needed


def test_from_a_mode_that_the_file_lacks_every_switch_may_take_a_reboot(tmp_path):
    conf = '< POWER_MODEL ID=0 NAME=A >\nGPU MAX_FREQ 9\n< POWER_MODEL ID=1 NAME=B >\nGPU MAX_FREQ 8\n'
    plant(tmp_path, {'etc/nvpmodel.conf': conf, 'var/lib/nvpmodel/status': 'pmode:0007'})
    modes = read_modes(tmp_path)
    current = read_mode(tmp_path, modes)
    assert current.id == 7
    assert [needs_reboot(current, target) for target in modes.modes.values()] == [True, True]
    assert not needs_reboot(modes.modes[0], modes.modes[1])


def test_an_id_that_two_modes_have_may_be_either_of_them():
    again = (
        '< POWER_MODEL ID=2 NAME=OTHER >\nFBP_POWER_GATING FBP_PG_MASK 2\nTPC_POWER_GATING TPC_PG_MASK 240'
    )
    modes = parse_conf(f'{ORIN_NANO_CONF}\n{again}').modes
    assert needs_reboot(modes[1], modes[2]) and not needs_reboot(modes[1], modes[0])


def test_rubbish_of_the_tool_is_read_at_once():
    begun_s = monotonic()
    assert parse_query('NV Power Mode: A\n' * 10_000) is None
    assert monotonic() - begun_s < 5  # where every line is tried from every other: minutes


def test_a_name_that_two_modes_have_is_refused():
    with pytest.raises(PowerModeError, match='got IDs 0, 5'):
        find_mode([PowerMode(0, 'A'), PowerMode(1, 'B'), PowerMode(5, 'A')], 'A')


def test_a_line_of_many_begins_is_read_at_once():
    begun_s = monotonic()
    assert parse_conf('<PARAM ' * 100_000).modes == {}
    assert monotonic() - begun_s < 5


def test_a_tool_that_leaves_a_child_behind_has_answered(tmp_path):
    tool = _tool(tmp_path, 'echo "NV Power Mode: A"; echo 3; sleep 8 &')
    assert read_mode(tool, PowerModes()).id == 3


def test_a_tool_that_prints_without_end_is_ended_and_its_children_too(tmp_path):
    root = _tool(tmp_path, 'yes "NV Power Mode: A" & echo $! > "$0.child"; wait')
    begun_s = monotonic()
    assert read_mode(root, PowerModes()) is None
    assert monotonic() - begun_s < 3  # long before its time is over: gigabytes come in that
    child = int((root / 'usr/sbin/nvpmodel.child').read_text())
    end_s = monotonic() + 5
    while _runs(child) and monotonic() < end_s:
        sleep(0.05)
    assert not _runs(child)


def _runs(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def _tool(root, does):
    """A stand-in for nvpmodel: a shell script; gives the root that it is below."""
    tool = plant(root, {'usr/sbin/nvpmodel': f'#!/bin/sh\n{does}'}) / 'usr/sbin/nvpmodel'
    tool.chmod(0o755)
    return root


def test_a_switch_that_cannot_keep_what_the_tool_prints_says_so(monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('isaac_infer.jetson.tool.TemporaryFile', full)
    with pytest.raises(PowerModeError, match='No space left'):
        switch_mode(PowerMode(0, 'A'), command=['true'], read_back=lambda: None, timeout_s=1)
