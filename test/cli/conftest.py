"""Fixtures of several commands."""

import resource
from collections.abc import Iterator

import pytest

ROOM = 200  # bytes


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file become longer than a few bytes, as if there were no more room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
