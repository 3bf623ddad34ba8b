"""The DDS profile is used unless the user has chosen otherwise, or it would not work."""

import fcntl
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest

from isaac_infer.ros import transport


def test_both_names_of_the_variable_point_to_the_profile():
    variables, warning = transport.profile_environment({})
    assert set(variables) == {'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'}
    assert {os.path.basename(path) for path in variables.values()} == {'fastdds.xml'}
    assert all(os.path.isfile(path) for path in variables.values()) and not warning


@pytest.mark.parametrize(
    'chosen',
    [
        {'FASTDDS_DEFAULT_PROFILES_FILE': '/mine.xml'},
        {'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml'},
        {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'},
    ],
)
def test_what_the_user_has_chosen_wins(chosen):
    assert transport.profile_environment(chosen) == ({}, '')


def test_too_little_shared_memory_is_said_and_the_profile_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(os, 'statvfs', lambda path: SimpleNamespace(f_bavail=1 << 10, f_frsize=1 << 14))
    variables, warning = transport.profile_environment({}, shm=tmp_path)
    assert not variables
    assert '16 MiB free' in warning and '--shm-size' in warning


def test_the_segment_of_the_profile_is_what_the_code_reckons_with():
    root = ElementTree.parse(transport.profile_path()).getroot()
    sizes = [int(node.text) for node in root.iter() if re.sub('{.*}', '', node.tag) == 'segment_size']
    assert sizes == [transport.SEGMENT_BYTES]


def test_large_buffers_are_kept_once_the_allocator_is_set():
    """In a process of its own, because it cannot be undone."""
    script = """
import ctypes, sys
from isaac_infer.ros.transport import keep_large_buffers
if sys.argv[1] == 'tuned' and not keep_large_buffers():
    sys.exit('another C library')
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in 'arena ordblks smblks mapped_blocks a b c d e f'.split()]
libc = ctypes.CDLL(None)
libc.mallinfo.restype, libc.malloc.restype = Info, ctypes.c_void_p
before = libc.mallinfo().mapped_blocks
assert libc.malloc(ctypes.c_size_t(8 << 20))
print(libc.mallinfo().mapped_blocks - before)
"""
    mapped = {}
    for how in ('tuned', 'plain'):
        done = subprocess.run([sys.executable, '-c', script, how], capture_output=True, text=True, timeout=60)
        if 'another C library' in done.stderr:
            pytest.skip('the C library is not glibc')
        mapped[how] = int(done.stdout)
    assert mapped == {'tuned': 0, 'plain': 1}  # a block that is mapped is returned to the system when freed


def test_only_segments_whose_owner_is_dead_are_removed(tmp_path):
    dead, alive, young = (f'fastrtps_{letter * 16}' for letter in 'abc')
    for name in (dead, alive, young, 'fastrtps_port7411', 'somebody_else'):
        (tmp_path / name).write_bytes(b'x')
        (tmp_path / f'{name}_el').touch()
        if name != young:
            os.utime(tmp_path / f'{name}_el', (0, 0))
    with (tmp_path / f'{alive}_el').open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert transport.remove_dead_segments(shm=tmp_path) == 1
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 8 and not {dead, f'{dead}_el'} & left


def test_without_shared_memory_nothing_is_removed(tmp_path):
    assert transport.remove_dead_segments(shm=tmp_path / 'missing') == 0


def test_pictures_that_the_shared_memory_cannot_carry_are_warned_of():
    ours, _ = transport.profile_environment({})
    assert transport.warning_of_size(1920 * 1080 * 3, ours) == ''
    assert 'may be lost' in transport.warning_of_size(transport.SEGMENT_BYTES * 3 // 4, ours)
    large = transport.warning_of_size(transport.SEGMENT_BYTES + 1, ours)
    assert 'do not arrive' in large and 'segment_size' in large
    theirs = {'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml'}
    assert transport.warning_of_size(transport.SEGMENT_BYTES + 1, theirs) == ''


def test_the_remedy_of_losses_names_the_limit_of_the_profile():
    assert 'more than 32 MiB' in transport.remedy_of_losses({})
    assert 'segment_size' in transport.remedy_of_losses({})


def test_the_remedy_of_losses_is_no_profile_where_the_publisher_has_it():
    remedy = transport.remedy_of_losses({}, has_profile=True)
    assert 'lower rate' in remedy and 'FASTDDS' not in remedy


def test_the_remedy_of_losses_is_that_of_the_middleware():
    remedy = transport.remedy_of_losses({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'})
    assert 'CYCLONEDDS_URI' in remedy
    assert 'FASTDDS' not in remedy
