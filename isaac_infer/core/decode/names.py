"""Class names: by index, from a list, a mapping, or a text, JSON or YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isaac_infer.core.decode import document
from isaac_infer.core.errors import ModelError
from isaac_infer.core.text import counted, printable

FILE_SUFFIXES = ('.txt', '.names', '.labels', *document.SUFFIXES)
MAX_CLASSES = 1 << 16


def read_class_names(entries: Sequence[str]) -> tuple[str, ...]:
    """Give class names as the user wrote them, or out of the one file that was named instead.

    A text file has one name a line. A JSON or YAML file has a list, a mapping from index to name, or either
    of them under `names` or `class_names`, as in the data files of YOLO training.

    Raises:
        ModelError: the file is missing, empty, too large, or holds something else.
    """
    if len(entries) == 1:
        path = os.path.expanduser(entries[0])
        if path.lower().endswith(FILE_SUFFIXES) or os.path.isfile(path):
            return _names_of_file(Path(path))
    return _printable(entries)


def names_by_index(value: Any) -> tuple[str, ...]:
    """Turn a list of names, or a mapping from index to name, into names; a missing one is its number.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, dict):
        try:
            by_index = {int(index): str(name) for index, name in value.items()}
        except (TypeError, ValueError):
            raise ValueError('expected whole numbers as keys of the class names') from None
        if by_index and not 0 <= min(by_index) <= max(by_index) < MAX_CLASSES:
            raise ValueError(f'expected class numbers from 0 to {MAX_CLASSES - 1}')
        return _printable([by_index.get(index, str(index)) for index in range(max(by_index, default=-1) + 1)])
    if isinstance(value, (list, tuple)) and len(value) <= MAX_CLASSES:
        if not any(isinstance(name, (list, tuple, dict)) for name in value):
            return _printable([str(name) for name in value])
    raise ValueError('expected a list of names, or a mapping from index to name')


def doubts_about(names: Sequence[str]) -> str:
    """Say why class names that do not fit a model may be others than was meant; empty where nothing tells."""
    first, *others = names
    if first.startswith('{'):
        return '; a mapping is read from a JSON or YAML file alone'
    if not others and re.search(r'/|\.\w+$', first):
        return (
            f'; {first} was taken for a class name, as there is no such file; files have one name a line, or '
            f'with the endings {", ".join(document.SUFFIXES)} a list or a mapping'
        )
    nameless = [index for index, name in enumerate(names) if name == str(index)]  # see names_by_index
    if nameless and len(nameless) < len(names):
        lacking = f'{counted(len(nameless), "number")} without one, from {nameless[0]} on'
        return f': {counted(len(names) - len(nameless), "name")}, and {lacking}'
    return ''


def _printable(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(name) for name in names)


def _names_of_file(path: Path) -> tuple[str, ...]:
    try:
        if path.suffix.lower() not in document.SUFFIXES:
            text = document.read_text(path)
            names = _printable([line.strip() for line in text.rstrip().splitlines()])
        else:
            value = document.read_document(path)
            for key in ('names', 'class_names'):
                if isinstance(value, dict) and key in value:
                    value = value[key]
            names = names_by_index(value)
    except ValueError as error:
        raise ModelError(f'{path}: class names cannot be read: {error}') from error
    if not names:
        raise ModelError(f'{path}: expected class names, one a line, got none')
    return names
