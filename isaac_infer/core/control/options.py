"""Options: a part of a document that somebody wrote, read key by key, with errors that name the place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from isaac_infer.core.errors import ParameterError

MOST = 1 << 20  # of what is counted: memory is made for so many


class Options:
    """A mapping whose keys are taken one by one; what `close` still finds, nobody knows."""

    def __init__(self, where: str, values: Any) -> None:
        """Take a mapping, or None for an empty one; `where` is its place in the document, for errors."""
        if values is not None and not isinstance(values, dict):
            raise ParameterError(f'{where}: expected options by name, got {values!r}')
        self.where = where
        self._left = dict(values or {})
        self._known: list[str] = []

    def take(self, name: str) -> Any:
        """Give what stands there as it is; None where it does not."""
        self._known.append(name)
        return self._left.pop(name, None)

    def none_of(self, name: str) -> str:
        """Say that something is missing, and what stands there that may have been meant."""
        meant = get_close_matches(name, self.left, n=1)
        return f'none; did you mean {meant[0]!r} for it?' if meant else 'none'

    def number(self, name: str, default: float) -> float:
        value = self.take(name)
        return default if value is None else as_number(f'{self.where}: {name}', value)

    def whole(self, name: str, default: int | None, *, low: int = 0) -> int | None:
        """Give a number that counts something, up to MOST."""
        value = self.take(name)
        if value is None:
            return default
        number = as_number(f'{self.where}: {name}', value)
        if number != int(number) or not low <= number <= MOST:
            raise ParameterError(
                f'{self.where}: {name}: expected a whole number from {low} to {MOST}, got {value!r}'
            )
        return int(number)

    def numbers(self, name: str, default: Sequence[float], *, counts: Sequence[int]) -> tuple[float, ...]:
        """Give some numbers, as many as one of `counts`; one alone needs no list."""
        value = self.take(name)
        if value is None:
            return tuple(default)
        listed = value if isinstance(value, (list, tuple)) else [value]
        if len(listed) not in counts:
            expected = ' or '.join(map(str, sorted(set(counts))))
            raise ParameterError(f'{self.where}: {name}: expected {expected} numbers, got {len(listed)}')
        return tuple(as_number(f'{self.where}: {name}', each) for each in listed)

    def word(self, name: str, default: str, choices: Sequence[str]) -> str:
        value = self.take(name)
        if value is None:
            return default
        if value not in choices:
            raise ParameterError(f'{self.where}: {name}: expected one of {", ".join(choices)}, got {value!r}')
        return str(value)

    def words(self, name: str, default: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
        """Give some of the choices, in any order; one alone needs no list."""
        value = self.take(name)
        if value is None:
            return tuple(default)
        listed = value if isinstance(value, (list, tuple)) else [value]
        if not listed or any(each not in choices for each in listed):
            raise ParameterError(
                f'{self.where}: {name}: expected some of {", ".join(choices)}, got {value!r}'
            )
        return tuple(listed)

    @property
    def left(self) -> tuple[str, ...]:
        """What nobody has taken yet."""
        return tuple(map(str, self._left))

    def close(self) -> None:
        """Refuse what was not taken."""
        if self._left:
            known = ', '.join(self._known)
            raise ParameterError(f'{self.where}: there is no {", ".join(self.left)}; it has {known}')


def as_number(where: str, value: Any) -> float:
    """Give a finite number, written as one or as text, as documents have it."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ParameterError(f'{where}: expected a number, got {value!r}')
    return number
