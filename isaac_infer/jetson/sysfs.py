"""Sysfs: small files of the kernel, which may vanish, be gated, or hold something else than expected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

_LONGEST = 1 << 20  # bytes; none of the files that are read here is near it
_CHUNK = 1 << 13  # bytes; most files need one, and buffers of it cost little
_NUMBER = re.compile(r'[+-]?\d{1,19}', re.ASCII)  # 64 bits
LOOKUP_S = 5.0  # for so long devices are taken to be where they were


def read_text(path: Path | str) -> str | None:
    """Read a file without waiting; None where it cannot be read, as the sensor of a part that is off.

    Where there are many, paths are given as text: to join those of pathlib takes as long as to read.
    """
    try:
        # O_NONBLOCK: a gated sensor says EAGAIN, and a pipe that nobody writes to does not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = b''
        # os.read, as those of io turn EAGAIN into None and '', or fail on it with a TypeError.
        while len(content) < _LONGEST and (part := os.read(descriptor, _CHUNK)):
            content += part
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # Texts of the device tree end with NUL.
    return content.decode(errors='replace').strip('\0 \t\r\n')


def read_number(path: Path | str) -> int | None:
    """Read the one whole number of a file; None where there is none."""
    return to_number(read_text(path))


def to_number(text: str | None) -> int | None:
    """Give the whole number that a text is; None where it is none, or there is no text."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def read_thousandths(path: Path | str) -> float | None:
    """Read a number that is in thousandths of a unit, as the kernel gives degrees, volts and amperes."""
    number = read_number(path)
    return None if number is None else number / 1000


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by the numbers in them: cpu2 before cpu10."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(number or 0), text) for number, text in re.findall(r'([0-9]*)([^0-9]*)', str(path))]

    return sorted(paths, key=key)


class Tree:
    """The files below a root: devices, and what seldom changes, are looked up every LOOKUP_S only."""

    def __init__(self, root: Path, clock: Callable[[], float] = monotonic) -> None:
        self.root = root
        self._clock = clock
        self._until_s = clock() + LOOKUP_S
        self._places: dict[tuple[str | Path, str], list[Path]] = {}
        self._texts: dict[Path | str, str | None] = {}
        self._real: dict[str, str] = {}

    def find(self, folder: str | Path, pattern: str) -> list[Path]:
        """Find what matches a pattern in a folder below the root, in order."""
        self._forget()
        key = folder, pattern
        if key not in self._places:
            self._places[key] = in_order((self.root / folder).glob(pattern))
        return self._places[key]

    def seldom(self, path: Path | str) -> str | None:
        """Read a text that changes seldom, such as the name of a sensor: as it was LOOKUP_S ago at most."""
        self._forget()
        if path not in self._texts:
            self._texts[path] = read_text(path)
        return self._texts[path]

    def real(self, path: str) -> str:
        """Give where a link leads: what several of them lead to has to be read once only."""
        self._forget()
        if path not in self._real:
            self._real[path] = os.path.realpath(path)
        return self._real[path]

    def _forget(self) -> None:
        if self._clock() >= self._until_s:
            self._places.clear()
            self._texts.clear()
            self._real.clear()
            self._until_s = self._clock() + LOOKUP_S
