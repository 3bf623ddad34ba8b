"""Class names: by index, from a list, a mapping, or a text, JSON or YAML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isaac_infer.core.errors import ModelError

FILE_SUFFIXES = ('.txt', '.names', '.labels', '.json', '.yaml', '.yml')
MAX_FILE_BYTES = 1 << 24  # a thousand times the longest list in use: more is not a list of names
MAX_CLASSES = 1 << 16


def read_class_names(entries: Sequence[str]) -> tuple[str, ...]:
    """Give class names as the user wrote them, or out of the one file that was named instead.

    A text file has one name a line. A JSON or YAML file has a list, a mapping from index to name, or either
    of them under `names` or `class_names`, as in the data files of YOLO training.

    Raises:
        ModelError: the file is missing, empty, too large, or holds something else.
    """
    if len(entries) == 1 and (entries[0].lower().endswith(FILE_SUFFIXES) or Path(entries[0]).is_file()):
        return _names_of_file(Path(entries[0]).expanduser())
    return tuple(entries)


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
        return tuple(by_index.get(index, str(index)) for index in range(max(by_index, default=-1) + 1))
    if isinstance(value, (list, tuple)) and len(value) <= MAX_CLASSES:
        if not any(isinstance(name, (list, tuple, dict)) for name in value):
            return tuple(str(name) for name in value)
    raise ValueError('expected a list of names, or a mapping from index to name')


def _names_of_file(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(f'{path}: expected class names, got a file of {path.stat().st_size} bytes')
        text = path.read_text('utf-8-sig')
    except (OSError, ValueError) as error:
        raise ModelError(f'{path}: class names cannot be read: {error}') from error
    names = _names_of_text(text, path)
    if not names:
        raise ModelError(f'{path}: expected class names, one a line, got none')
    return names


def _names_of_text(text: str, path: Path) -> tuple[str, ...]:
    suffix = path.suffix.lower()
    if suffix not in ('.json', '.yaml', '.yml'):
        return tuple(line.strip() for line in text.rstrip().splitlines())
    try:
        value = json.loads(text) if suffix == '.json' else _yaml(text)
        for key in ('names', 'class_names'):
            if isinstance(value, dict) and key in value:
                value = value[key]
        return names_by_index(value)
    except (ValueError, RecursionError) as error:
        raise ModelError(f'{path}: class names cannot be read: {error}') from error


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
