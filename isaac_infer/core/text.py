"""Text: what strangers wrote, made safe for terminals, logs and drawings."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

# Control characters command terminals, and halves of surrogate pairs are no text for those who draw or send.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_MOST_DECIMALS = 18  # of a float that says anything
_LONGEST_NUMBER = 9  # digits; fits int32
# To a terminal; line ends and tabs are none.
_COMMANDS = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f]')
_HALVES = re.compile('[\ud800-\udfff]')  # of surrogate pairs


def printable(text: str) -> str:
    """Give a name with a replacement character for everything that cannot be shown; one line."""
    return _UNPRINTABLE.sub('\ufffd', text)


def without_commands(text: str) -> str:
    """Give a message of any number of lines, without what a terminal would take for a command."""
    return _COMMANDS.sub('\ufffd', text)


def loggable(text: str) -> str:
    """Give a message of any number of lines, for the log of a node, which takes no halves of characters."""
    return _HALVES.sub('\ufffd', without_commands(text))


def counted(number: int, noun: str) -> str:
    """Say how many there are of something: `1 picture`, `2 pictures`, `3 classes`."""
    ending = 'es' if noun.endswith('s') else 's'
    return f'{number} {noun}' if number == 1 else f'{number} {noun}{ending}'


def listed(names: Sequence[str], *, most: int = 20) -> str:
    """Join names for people, the first of them where there are many."""
    more = f', and {len(names) - most} more' if len(names) > most else ''
    return f'{", ".join(names[:most])}{more}' if names else 'none'


def beside(value: float, limit: float, decimals: int) -> str:
    """Give a number with so many decimals, or as many more as it takes to see its side of a limit."""

    def side(number: float) -> tuple[bool, bool]:
        return number < limit, number > limit

    texts = [f'{value:.{count}f}' for count in range(decimals, _MOST_DECIMALS)]
    return next((text for text in texts if side(float(text)) == side(value)), texts[0])


def class_number(text: str) -> int | None:
    """Give the class that a text names by its number; None where it is none, or too long for one."""
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else None


def signal_name(number: int) -> str:
    """Name a signal; those for real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
