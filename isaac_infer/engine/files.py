"""Files: written in one step, so that nobody finds a part; and folders that are needed only for a while."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER_PREFIX = 'isaac_infer.'  # of working folders
MARKER = '.isaac_infer_working_folder'  # a file in each of them, locked by who uses it; others are let alone
YOUNG_S = 60.0  # one that was made just now may not be locked yet


def replace_file(path: Path, content: bytes) -> None:
    """Write a file beside its place, sync it, and put it there; leaves nothing behind where it fails.

    What is replaced hands on its mode.

    Raises:
        OSError: it cannot be written; what was there is there still.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.', delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # Temporary files are for their owner alone.
            os.chmod(file.name, path.stat().st_mode if path.exists() else 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


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
