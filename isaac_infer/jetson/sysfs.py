"""Sysfs: small files of the kernel, which may vanish, be gated, or hold something else than expected."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_LONGEST = 1 << 20  # bytes; none of the files that are read here is near it
_NUMBER = re.compile(r'[+-]?\d{1,19}', re.ASCII)  # 64 bits


def read_text(path: Path) -> str | None:
    """Read a file without waiting; None where it cannot be read, as the sensor of a part that is off."""
    try:
        # O_NONBLOCK: a gated sensor says EAGAIN, and a pipe that nobody writes to does not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = b''
        # os.read, as those of io turn EAGAIN into None and '', or fail on it with a TypeError.
        while len(content) < _LONGEST and (part := os.read(descriptor, _LONGEST)):
            content += part
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # Texts of the device tree end with NUL.
    return content.decode(errors='replace').strip('\0 \t\r\n')


def read_number(path: Path) -> int | None:
    """Read the one whole number of a file; None where there is none."""
    return to_number(read_text(path))


def to_number(text: str | None) -> int | None:
    """Give the whole number that a text is; None where it is none, or there is no text."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def read_thousandths(path: Path) -> float | None:
    """Read a number that is in thousandths of a unit, as the kernel gives degrees, volts and amperes."""
    number = read_number(path)
    return None if number is None else number / 1000


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by the numbers in them: cpu2 before cpu10."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(number or 0), text) for number, text in re.findall(r'([0-9]*)([^0-9]*)', str(path))]

    return sorted(paths, key=key)
