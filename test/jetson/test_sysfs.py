"""Reading what may vanish, be gated, or be something else."""

import os
from pathlib import Path

import pytest
from boards import gate

from isaac_infer.jetson.sysfs import LOOKUP_S, Tree, in_order, read_number, read_text


def test_what_is_not_there_is_unknown(tmp_path):
    assert read_text(tmp_path / 'temp') is None
    assert read_text(tmp_path) is None


def test_a_gated_sensor_is_unknown_and_not_waited_for(tmp_path):
    sensor = tmp_path / 'temp'
    sensor.write_text('1')
    writer = gate(sensor)
    try:
        assert read_text(sensor) is None
        assert read_number(sensor) is None
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ('content', 'number'),
    [
        (b'', None),
        (b'0\n', 0),
        (b'-256000\n', -256000),
        (b'77\0', 77),
        (b'N/A\n', None),
        (b'1_000', None),
        (b'1 2', None),
        ('\u0661'.encode(), None),
        (b'\xff\xfe', None),
        (b'9' * 5000, None),  # Python itself refuses such
    ],
)
def test_only_one_whole_number_is_a_number(tmp_path, content, number):
    (tmp_path / 'temp').write_bytes(content)
    assert read_number(tmp_path / 'temp') == number


def test_a_device_that_comes_is_found_at_the_next_look_and_one_that_went_is_unknown(tmp_path):
    now_s = [0.0]
    tree = Tree(tmp_path, clock=lambda: now_s[0])
    (tmp_path / 'hwmon0').write_text('a')
    assert [path.name for path in tree.find('', 'hwmon*')] == ['hwmon0']
    assert tree.seldom(tmp_path / 'hwmon0') == 'a'
    (tmp_path / 'hwmon0').write_text('b')
    (tmp_path / 'hwmon1').write_text('c')
    assert tree.seldom(tmp_path / 'hwmon0') == 'a' and len(tree.find('', 'hwmon*')) == 1
    now_s[0] = LOOKUP_S
    assert tree.seldom(tmp_path / 'hwmon0') == 'b' and len(tree.find('', 'hwmon*')) == 2
    (tmp_path / 'hwmon0').unlink()
    assert read_text(tree.find('', 'hwmon*')[0]) is None


def test_paths_are_sorted_by_their_numbers():
    names = ['cpu10', 'cpu2', 'cpu', 'cpu1']
    assert [path.name for path in in_order(map(Path, names))] == ['cpu', 'cpu1', 'cpu2', 'cpu10']
