"""Transport: what a process needs so that large pictures reach it: a DDS profile and a tuned allocator."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')  # new and old name
SEGMENT_BYTES = 64 << 20  # of shared memory, per process; as in config/fastdds.xml

# glibc's numbers for mallopt, and what keeps buffers of pictures instead of returning them after every one
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MALLOC = {_M_MMAP_THRESHOLD: 256 << 20, _M_TRIM_THRESHOLD: 512 << 20, _M_TOP_PAD: 64 << 20}


def profile_path() -> Path:
    """Where the DDS profile is: installed by colcon, or in the source tree."""
    try:
        installed = Path(get_package_share_directory('isaac_infer'), 'config', 'fastdds.xml')
        if installed.is_file():
            return installed
    except PackageNotFoundError:
        pass
    return Path(__file__).resolve().parents[2] / 'config' / 'fastdds.xml'


def remedy_of_losses() -> str:
    """Say what a user can do where pictures are lost: it is the writer's shared memory that is too small."""
    variables = ' and '.join(PROFILE_VARIABLES)
    return (
        f'start the process that publishes them with {variables} set to {profile_path()}, or let it publish '
        'image/compressed'
    )


def profile_environment(
    environment: Mapping[str, str], *, shm: Path = Path('/dev/shm')
) -> tuple[dict[str, str], str]:
    """Give the variables that select our DDS profile, and a warning for the user or ''.

    There are none where the user has chosen a profile or another middleware, or where it would not work.
    """
    middleware = environment.get('RMW_IMPLEMENTATION', '')
    if middleware and 'fastrtps' not in middleware:
        return {}, ''
    if any(environment.get(variable) for variable in PROFILE_VARIABLES):
        return {}, ''
    profile = profile_path()
    if not profile.is_file():
        return {}, f'{profile}: the DDS profile is missing, pictures will be lost; install the package again'
    if shm.is_dir():
        room = os.statvfs(shm)
        free = room.f_bavail * room.f_frsize
        if free < 2 * SEGMENT_BYTES:
            return {}, (
                f'{shm} has {free >> 20} MiB free, the DDS profile for large pictures needs '
                f'{2 * SEGMENT_BYTES >> 20}; pictures may be lost; in a container use --shm-size=512m'
            )
    return {variable: str(profile) for variable in PROFILE_VARIABLES}, ''


def set_up(environment: MutableMapping[str, str] = os.environ) -> str:
    """Prepare this process, before its first DDS participant is made; give a warning for the user or ''."""
    variables, warning = profile_environment(environment)
    environment.update(variables)
    keep_large_buffers()
    return warning


def keep_large_buffers() -> bool:
    """Have glibc keep large buffers: otherwise every picture costs thousands of page faults, several times.

    False where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(mallopt(number, value) for number, value in _MALLOC.items())
