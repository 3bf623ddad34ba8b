"""Switching by a stand-in of nvpmodel that prints what the tool prints."""

import time

import pytest
from boards import ORIN_NANO_CONF, orin_nano, plant
from nvpmodel_tool import asked, install

from isaac_infer.core.errors import PowerModeError, RebootError
from isaac_infer.jetson.nvpmodel import parse_conf, read_mode
from isaac_infer.jetson.switch import find_switch, switch_mode

MODES = parse_conf(ORIN_NANO_CONF)
MAXN = MODES.modes[2]


def switch(root, tool, *, timeout_s=30.0):
    switch_mode(MAXN, command=[str(tool)], read_back=lambda: read_mode(root, MODES), timeout_s=timeout_s)


def test_a_mode_is_switched_to_by_its_id_and_read_back(tmp_path):
    root = orin_nano(tmp_path)
    switch(root, install(root, 'switches'))
    assert read_mode(root, MODES) == MAXN
    assert asked(root) == ['-m 2']


@pytest.mark.parametrize(
    ('way', 'kind', 'says'),
    [
        ('reboot', RebootError, 'MAXN_SUPER needs a reboot, which is for you to do: sudo nvpmodel -m 2'),
        (
            'fails',
            PowerModeError,
            r'nvpmodel -m 2: ended with 1: .* \| NVPM ERROR: failed to set power mode!',
        ),
        ('refuses', PowerModeError, 'refused: sudo: a password is required; see Power in README.md'),
        ('denied', PowerModeError, 'refused: NVPM ERROR: Error opening .*emc_iso_cap: 13; see Power'),
        ('lies', PowerModeError, r'expected MAXN_SUPER \(ID 2\) after it, but the board is in 25W \(ID 1\)$'),
        ('elsewhere', PowerModeError, r'but the board is in 7W \(ID 7\)'),
        ('rubbish', PowerModeError, 'ended with 3: '),
    ],
)
def test_what_goes_wrong_is_told(tmp_path, way, kind, says):
    root = orin_nano(tmp_path)
    with pytest.raises(PowerModeError, match=says) as error:
        switch(root, install(root, way))
    assert type(error.value) is kind
    assert str(error.value).isprintable()


def test_a_tool_that_hangs_is_given_up(tmp_path):
    root, begin = orin_nano(tmp_path), time.monotonic()
    with pytest.raises(PowerModeError, match='not done after 0.5 s'):
        switch(root, install(root, 'hangs'), timeout_s=0.5)
    assert time.monotonic() - begin < 20


def test_what_sudo_says_is_understood_whatever_language_the_user_has(tmp_path, monkeypatch):
    monkeypatch.setenv('LC_ALL', 'de_DE.UTF-8')
    with pytest.raises(PowerModeError, match='refused: sudo: a password is required; see Power in README.md'):
        switch(tmp_path, install(orin_nano(tmp_path), 'translates'))


def test_a_switch_that_is_under_way_is_found_whoever_began_it(tmp_path):
    assert find_switch(tmp_path) == ''
    plant(
        tmp_path,
        {
            'proc/7/cmdline': '',  # a thread of the kernel, or gone meanwhile
            'proc/8/cmdline': 'grep\0-m\x001\0nvpmodel\0',
            'proc/9/cmdline': '/usr/sbin/nvpmodel\0-q\0',
            'proc/self/cmdline': '/usr/sbin/nvpmodel\0-m\x002\0',
        },
    )
    assert find_switch(tmp_path) == ''
    plant(tmp_path, {'proc/10/cmdline': 'sudo\0-n\0/usr/sbin/nvpmodel\0-m\x002\0'})
    assert find_switch(tmp_path) == 'sudo -n /usr/sbin/nvpmodel -m 2 (process 10)'


def test_a_tool_that_is_not_there_or_no_program_is_told_with_the_parameter(tmp_path):
    root = orin_nano(tmp_path)
    with pytest.raises(PowerModeError, match='cannot be started: No such file .*nvpmodel_command'):
        switch(root, root / 'nowhere')
    with pytest.raises(PowerModeError, match='cannot be started: Permission denied; nvpmodel_command'):
        switch(root, root / 'etc/nvpmodel.conf')


def test_a_board_that_does_not_tell_its_mode_after_is_no_success(tmp_path):
    root = orin_nano(tmp_path)
    tool = install(root, 'lies')
    (root / 'var/lib/nvpmodel/status').unlink()
    with pytest.raises(PowerModeError, match='but the board is in an unknown mode'):
        switch(root, tool)
