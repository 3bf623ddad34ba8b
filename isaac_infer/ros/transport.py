"""Transport: what a process needs so that large pictures reach it: a DDS profile and a tuned allocator."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

SHARED_MEMORY = Path('/dev/shm')
OWN_SOURCE = 'image_source'  # the node that always has our profile, where there is one
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')  # new and old name
SEGMENT_BYTES = 64 << 20  # of shared memory, per process; as in config/fastdds.xml
USUAL_SEGMENT_BYTES = 512 << 10  # of Fast DDS without a profile
LARGEST_PICTURE_BYTES = SEGMENT_BYTES // 2  # the next picture is written while one is being read

SLOWER = 'try a lower rate, smaller pictures or a faster receiver'  # where it is no buffer alone

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


# Cyclone DDS asks for 1 MiB however large the system's limit is.
CYCLONE_BUFFER = (
    '<CycloneDDS><Domain><Internal><SocketReceiveBufferSize min="4MB"/></Internal></Domain></CycloneDDS>'
)


def remedy_of_losses(environment: Mapping[str, str] = os.environ, *, has_profile: bool = False) -> str:
    """Say what a user can do where pictures are lost: a buffer of the middleware is too small.

    With Fast DDS it is the shared memory of the writer, with Cyclone DDS the socket of the reader.

    Args:
        has_profile: whether the publisher has our DDS profile, or its pictures are so small that they need
            none: then they come faster than they are taken.
    """
    if 'cyclonedds' in environment.get('RMW_IMPLEMENTATION', ''):
        return (
            f'raise net.core.rmem_max (sysctl) to 4 MiB or more and start this process with CYCLONEDDS_URI '
            f'set to {CYCLONE_BUFFER}, or let the camera publish image/compressed'
        )
    if has_profile:
        return SLOWER
    variables = ' and '.join(PROFILE_VARIABLES)
    return (
        f'start the process that publishes them with {variables} set to {profile_path()} (for pictures of '
        f'more than {LARGEST_PICTURE_BYTES >> 20} MiB: to a copy with a larger segment_size), or let it '
        f'publish image/compressed; where it has that, {SLOWER}'
    )


def warning_of_size(picture_bytes: int, environment: Mapping[str, str] = os.environ) -> str:
    """Say that a picture is too large to be published with our DDS profile, or '' where it is not."""
    if picture_bytes <= LARGEST_PICTURE_BYTES:
        return ''
    if all(environment.get(variable) != str(profile_path()) for variable in PROFILE_VARIABLES):
        return ''  # another profile or middleware: its limits are not known here
    fate = 'do not arrive' if picture_bytes > SEGMENT_BYTES else 'may be lost'
    return (
        f'pictures of {picture_bytes >> 20} MiB {fate}: the shared memory of {profile_path()} holds '
        f'{SEGMENT_BYTES >> 20}, enough for pictures of {LARGEST_PICTURE_BYTES >> 20}; publish smaller '
        f'ones, or set {" and ".join(PROFILE_VARIABLES)} to a copy with a larger segment_size'
    )


def profile_environment(
    environment: Mapping[str, str], *, shm: Path = SHARED_MEMORY
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
    remove_dead_segments()
    variables, warning = profile_environment(environment)
    environment.update(variables)
    keep_large_buffers()
    return warning


_LOCK = re.compile('fastrtps_[0-9a-f]{16}_el')  # of a segment; its owner holds it while it lives
_YOUNG_S = 10.0  # a lock is made before it is taken


def remove_dead_segments(*, shm: Path = SHARED_MEMORY) -> int:
    """Remove shared memory that Fast DDS processes left when they were killed; give how many segments.

    Fast DDS itself never does, and with large segments a robot would run out of memory after some crashes.
    """
    removed = 0
    for lock in shm.glob('fastrtps_*_el') if shm.is_dir() else ():
        try:
            if not _LOCK.fullmatch(lock.name) or time.time() - lock.stat().st_mtime < _YOUNG_S:
                continue
            with lock.open('rb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its owner is dead if this works
                lock.with_name(lock.name[: -len('_el')]).unlink(missing_ok=True)
                lock.unlink()
                removed += 1
        except OSError:  # in use, of another user, or removed meanwhile
            continue
    return removed


def keep_large_buffers() -> bool:
    """Have glibc keep large buffers: otherwise every picture costs thousands of page faults, several times.

    False where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(mallopt(number, value) for number, value in _MALLOC.items())
