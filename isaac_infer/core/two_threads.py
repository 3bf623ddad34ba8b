"""Two threads: work that NumPy does without Python's lock, shared by the caller and a helper."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Part = TypeVar('Part')

_helper = ThreadPoolExecutor(1, thread_name_prefix='helper')  # its thread starts when it is first needed


def share(work: Callable[[Part], None], one: Part, other: Part) -> None:
    """Do one part of the work here and the other one on the helper, or here too while that is busy.

    When this returns or raises, nobody works on either part any more. Where both raise, it is the error of
    the first one.
    """
    helping = _helper.submit(work, other)
    try:
        work(one)
    except BaseException:
        if not helping.cancel():
            wait([helping])
        raise
    if helping.cancel():  # it has not begun
        work(other)
    else:
        helping.result()
