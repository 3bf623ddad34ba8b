"""Files: written in one step, so that nobody finds a part; and folders that are needed only for a while."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isaac_infer.core.errors import ParameterError

FOLDER_PREFIX = 'isaac_infer.'  # of working folders
MARKER = '.isaac_infer_working_folder'  # a file in each of them, locked by who uses it; others are let alone
YOUNG_S = 60.0  # one that was made just now may not be locked yet


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file beside its place, sync it, and put it there; leaves nothing behind where it fails.

    What is replaced hands on its mode. Without sync a failing disk, or power, may leave an empty file.

    Raises:
        OSError: it cannot be written; what was there is there still.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name[:40]}.', delete=False) as file:
        try:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
            # Temporary files are for their owner alone.
            os.chmod(file.name, path.stat().st_mode if path.exists() else 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def write_whole(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write what a user asked for so that, where that fails, what was there stays, and nothing half.

    Raises:
        OSError: the file cannot be written.
    """
    place = Path(os.path.realpath(path))  # a link stays one
    is_there = path.exists()
    if is_there and not (place.is_file() and os.access(place.parent, os.W_OK)):
        path.write_bytes(data)  # a pipe or device, or a file that none can be put beside
        return
    try:
        replace_file(place, data, sync=sync)
    except OSError as error:
        if error.errno != errno.EBUSY:  # as of one file that is mounted into a container
            raise
        place.write_bytes(data)


def check_place(path: Path, option: str, is_ours: Callable[[Path], bool], kind: str) -> None:
    """Make the folder of a file, and see before the work that the file can and may be written there.

    Args:
        option: that names the file, for errors.
        is_ours: tells whether a file is of the kind that is written, and may be replaced.
        kind: of file, for errors.

    Raises:
        ParameterError: it is a folder, may not be written, or is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise ParameterError(f'{option} {path}: expected a file, got a folder')
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ParameterError(f'{option} {path}: may not be written by this user; give another file')
        if path.is_file() and not is_ours(path):
            raise ParameterError(f'{option} {path}: exists and is no {kind}; give another file')
    except OSError as error:
        why = f'cannot be written: {error.strerror}; give another file'
        raise ParameterError(f'{option} {path}: {why}') from error


def is_report(path: Path, *, key: str) -> bool:
    """Tell whether a file is empty, or JSON with a key that such reports have; weights have none."""
    if not path.stat().st_size:
        return True
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and key in content


@contextmanager
def working_folder(purpose: str) -> Iterator[Path]:
    """Make a folder for temporary files; what a killed process left in its own, the next one removes."""
    _remove_left_folders(Path(tempfile.gettempdir()))
    place = tempfile.TemporaryDirectory(prefix=f'{FOLDER_PREFIX}{purpose}.')
    with place as folder, Path(folder, MARKER).open('x') as lock:
        with suppress(OSError):  # where files cannot be locked, nobody removes any
            fcntl.flock(lock, fcntl.LOCK_EX)  # ends with this process, however that ends
        yield Path(folder)


def _remove_left_folders(parent: Path) -> None:
    for marker in parent.glob(f'{FOLDER_PREFIX}*.*/{MARKER}'):
        with suppress(OSError), _opened(marker) as lock:  # gone meanwhile, in use, or not ours: it stays
            facts = os.fstat(lock)
            is_ours = facts.st_uid == os.geteuid() and not marker.parent.is_symlink()
            if is_ours and time.time() - facts.st_mtime > YOUNG_S:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(marker.parent)


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    # Not to wait for a writer, should it be a pipe.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _umask() -> int:
    # Asked from /proc, since os.umask changes it for all threads.
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('Umask:'):
            return int(line.split()[1], 8)
    return 0o022
