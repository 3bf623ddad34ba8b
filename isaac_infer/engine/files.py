"""Files: written in one step, so that a reader finds the old one or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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


def _umask() -> int:
    # Asked from /proc, since os.umask changes it for all threads.
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('Umask:'):
            return int(line.split()[1], 8)
    return 0o022
