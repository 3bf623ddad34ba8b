"""A disk without room, for a few lines of a test."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

ROOM = 200  # bytes


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file become longer than a few bytes; those of pytest's own output neither, so not for long."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
