"""Metadata: what a model file, or the sidecar beside it, says of the model, parsed and never trusted."""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isaac_infer.core.decode.names import FILE_SUFFIXES, names_by_index
from isaac_infer.core.errors import ModelError
from isaac_infer.core.fit import RESIZE_MODES, Size
from isaac_infer.core.spec import (
    BOX_UNITS,
    KEYPOINT_REFINEMENTS,
    NETWORK_CHANNEL_ORDERS,
    PIXEL_LAYOUTS,
    SCALE_UP,
    SCORE_UNITS,
    Overrides,
)

MAX_LITERAL_CHARACTERS = 1 << 20
MAX_LITERAL_DEPTH = 16
MAX_SIDE = 1 << 14
MAX_NOTED = 8
MAX_SHOWN = 120  # characters of what somebody wrote, in a message


@dataclass(frozen=True)
class Metadata:
    """What is said of a model; empty or None where nothing is, or nothing that can be understood."""

    task: str = ''  # of a model that Ultralytics made: detect, segment, pose, obb, classify, ...
    purpose: str = ''  # of any other: what somebody says that it is for, in these words too
    head: str = ''  # class of Ultralytics' head
    version: tuple[int, ...] = ()  # of Ultralytics
    end2end: bool | None = None
    embedded_nms: bool = False
    names: tuple[str, ...] = ()
    size_hw: Size | None = None
    stride: int = 0  # the largest
    keypoint_values: int = 0  # numbers per box that describe key points
    keypoint_shape: tuple[int, int] = (0, 0)  # key points per box, numbers per key point
    keypoints: tuple[str, ...] = ()  # their names
    own: Mapping[str, Any] = field(
        default_factory=dict
    )  # the keys of _OWN that are there, with values of the right type
    notes: tuple[str, ...] = ()


def read_metadata(metadata: Mapping[str, Any], *, file_name: str) -> Metadata:
    """Read Ultralytics' keys and this package's own; values are text, or what JSON and YAML have.

    Keys of other tools are not looked at. What Ultralytics' keys hold beyond understanding is left out, with
    a note; this package's own keys were written for it, so there it is an error.

    Raises:
        ModelError: one of this package's own keys holds a value that it cannot have.
    """
    notes = []
    values = {str(key): _value(value) for key, value in metadata.items()}

    def understood(key: str, read: Any, otherwise: Any) -> Any:
        if values.get(key) in (None, ''):
            return otherwise
        try:
            return read(values[key])
        except (TypeError, ValueError, OverflowError, AttributeError, LookupError):
            notes.append(
                f'metadata {key!r} cannot be understood and is ignored: {_shortened(str(values[key]))!r}'
            )
            return otherwise

    own = {key: _own(key, values[key], file_name) for key in _OWN if values.get(key) not in (None, '')}
    task, purpose = (str(values.get(key) or '').strip().lower() for key in ('task', _PURPOSE))
    if task in _TASK_WORDS:
        task, purpose = '', task
    keypoints = understood('kpt_shape', lambda shape: (_whole(shape[0]), _whole(shape[1])), (0, 0))
    return Metadata(
        task=task,
        purpose=_TASK_WORDS.get(purpose, purpose),
        head=str(values.get('head') or '').strip(),
        version=understood('version', _version, ()) if 'task' in values else (),
        end2end=understood('end2end', _boolean, None),
        embedded_nms=bool(understood('args', lambda args: _boolean(args.get('nms', False)), False)),
        names=own.get('class_names') or understood('names', names_by_index, ()),
        size_hw=own.get('input_size') or understood('imgsz', _size, None),
        stride=understood('stride', _whole, 0),
        keypoint_values=keypoints[0] * keypoints[1],
        keypoint_shape=keypoints,
        keypoints=own.get('keypoints') or understood('kpt_names', _keypoint_names, ()),
        own=own,
        notes=tuple(notes),
    )


def _value(value: Any) -> Any:
    """Turn text that is a Python or JSON literal into what it says; other text stays text."""
    if not isinstance(value, str) or not value[:1].strip() or value[0] not in '{[(-.0123456789TFNtfn"\'':
        return value
    if len(value) > MAX_LITERAL_CHARACTERS or not _is_shallow(value):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return value


def _is_shallow(text: str) -> bool:
    """Tell whether text holds plain literals: deep nesting and chains of operators overflow the parser."""
    bare = re.sub(_STRING, '', text, flags=re.DOTALL)
    depth = deepest = 0
    for bracket in re.findall(r'[\[\](){}]', bare):
        depth += 1 if bracket in '[({' else -1
        deepest = max(deepest, depth)
    bare = re.sub(r'(?<=[\d.])[eE][-+]?(?=\d)', '', bare)
    words = set(re.findall(r'[^\W\d]\w*', bare))
    signs = re.search(r'[^\w\s\[\](){},:.-]|[\w\])}.]\s*-|-\s*-|(?<!\d)\d{300}', bare)
    return deepest <= MAX_LITERAL_DEPTH and words <= _LITERAL_WORDS and not signs


# A string in quotes, or one that never ends: else every further quote would be searched to the end again.
_STRING = r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\'(?:[^\'\\]|\\.)*(?:\'|\\?\Z)'
_LITERAL_WORDS = {'True', 'False', 'None', 'true', 'false', 'null'}


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    raise ValueError('true or false')


# As Python, JSON and YAML write them.
_BOOLEANS = {
    **dict.fromkeys(('true', '1', 'yes', 'on'), True),
    **dict.fromkeys(('false', '0', 'no', 'off'), False),
}


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or number != float(value) or not 1 <= number <= MAX_SIDE:
        raise ValueError(f'a whole number from 1 to {MAX_SIDE}')
    return number


def _size(value: Any) -> Size:
    """Height and width from one number or two."""
    sides = value if isinstance(value, (list, tuple)) else (value, value)
    if len(sides) != 2:
        raise ValueError('height and width')
    return _whole(sides[0]), _whole(sides[1])


def _keypoint_names(value: Any) -> tuple[str, ...]:
    """Names from a list, or from a mapping that has such a list for every class: that of the first."""
    return _texts(next(iter(value.values())) if isinstance(value, dict) else value)


def _version(value: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r'\d{1,6}', str(value))[:3])


def _numbers(value: Any) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in (value if isinstance(value, (list, tuple)) else (value,)))
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError('finite numbers')
    return numbers


def _flat_numbers(value: Any) -> tuple[float, ...]:
    """Numbers in one list, or in lists of lists."""
    if isinstance(value, (list, tuple)):
        return tuple(number for item in value for number in _flat_numbers(item))
    return _numbers(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise ValueError('a list of texts')
    return tuple(value)


def _choice(*choices: str) -> Any:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f'one of {", ".join(choices)}')
        return str(value)

    return read


def _pad_value(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value) or not 0 <= int(value) <= 255:
        raise ValueError('a whole number from 0 to 255')
    return int(value)


def _scale(value: Any) -> float:
    (number,) = _numbers(value)
    if number <= 0:
        raise ValueError('a number above 0')
    return number


def _share(value: Any) -> float:
    (number,) = _numbers(value)
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError('a number from 0 to 1')
    return number


def _std(value: Any) -> tuple[float, ...]:
    numbers = _numbers(value)
    if min(numbers) <= 0:
        raise ValueError('numbers above 0')
    return numbers


def _names_here(value: Any) -> tuple[str, ...]:
    entries = [value] if isinstance(value, str) else value
    if isinstance(entries, list) and len(entries) == 1 and str(entries[0]).lower().endswith(FILE_SUFFIXES):
        raise ValueError('expected the names themselves; it is the parameter class_names that takes a file')
    return names_by_index(value)


# This package's own keys, for sidecars and for models made for it: named as the parameters are.
_OWN: dict[str, Any] = {
    'decoder': str,
    'class_names': _names_here,
    'input_tensor_names': _texts,
    'output_tensor_names': _texts,
    'input_size': _size,
    'input_layout': _choice(*PIXEL_LAYOUTS),
    'channel_order': _choice(*NETWORK_CHANNEL_ORDERS),
    'resize': _choice(*RESIZE_MODES),
    'scale_up': lambda value: SCALE_UP[value] if value in SCALE_UP else _boolean(value),
    'pad_value': _pad_value,
    'scale': _scale,
    'mean': _numbers,
    'std': _std,
    'strides': lambda value: tuple(_whole(stride) for stride in value),
    'anchors': _flat_numbers,
    'box_unit': _choice(*BOX_UNITS),
    'score_unit': _choice(*SCORE_UNITS),
    'keypoints': _texts,
    'keypoint_refinement': _choice(*KEYPOINT_REFINEMENTS),
    'box_blend': _share,
}
_PURPOSE = 'isaac_infer_purpose'  # the task in a sidecar, which need not be that of a model of Ultralytics
_TASK_WORDS = {'detection': 'detect', 'segmentation': 'segment'}  # this package's own -> Ultralytics'
# What Ultralytics writes: the keys that are read above, and those that are not.
_ULTRALYTICS = (
    *('task', 'head', 'version', 'end2end', 'args', 'names', 'imgsz', 'stride', 'kpt_shape'),
    *('author', 'batch', 'channels', 'date', 'description', 'docs', 'kpt_names', 'license'),
)

# The fields of Overrides that are not named as the keys are.
_OVERRIDDEN_BY = {
    **{'names': 'class_names', 'stride': 'strides', 'kpt_names': 'keypoints'},
    **{'imgsz': 'input_size_hw', 'input_size': 'input_size_hw', 'input_layout': 'layout'},
    **{'input_tensor_names': 'input_names', 'output_tensor_names': 'output_names'},
}


def note_unknown_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Name the keys of a sidecar that nothing reads, and what may have been meant; no notes where all are."""
    said = []
    for key in keys:
        if key not in _OWN and key not in _ULTRALYTICS:
            close = difflib.get_close_matches(key, _OWN, n=1)
            said.append(f'{key[:60]!r}' + (f' (did you mean {close[0]}?)' if close else ''))
    more = f' and {len(said) - MAX_NOTED} more' if len(said) > MAX_NOTED else ''
    named = ', '.join(said[:MAX_NOTED]) + more
    return (f'ignores what is no parameter of the model: {named}',) if said else ()


def over_sidecar(
    metadata: Mapping[str, Any],
    sidecar: Mapping[str, Any],
    overrides: Overrides,
    *,
    file_name: str,
    sidecar_name: str,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Lay what a model says of itself over its sidecar; notes name what counts of it and what does not.

    Args:
        overrides: what wins over both.

    Raises:
        ModelError: one of this package's own keys holds a value that it cannot have.
    """
    own = read_metadata(metadata, file_name=file_name)
    beside = read_metadata(sidecar, file_name=sidecar_name)
    merged, notes = {**sidecar, **metadata}, list(note_unknown_keys(sidecar))
    for key, theirs, wins, loses in (
        ('class_names', 'names', own.names, beside.names),
        ('input_size', 'imgsz', own.size_hw, beside.size_hw),
    ):
        if wins and key not in metadata:
            merged.pop(key, None)
            if loses and loses != wins:
                said = key if key in sidecar else theirs
                notes.append(f'{said} is not used, the model itself says otherwise; set the parameter {key}')
    if taken := [key for key in merged if key not in metadata and _counts(key, merged, overrides)]:
        notes.insert(0, f'{", ".join(taken)} taken from it')
    # Only Ultralytics' models have obb, and it stays theirs.
    if 'task' not in metadata and merged.get('task') not in (None, 'obb'):
        merged[_PURPOSE] = merged.pop('task')
    return merged, tuple(f'{sidecar_name}: {note}' for note in notes)


def _counts(key: str, metadata: Mapping[str, Any], overrides: Overrides) -> bool:
    """Tell whether a key says something of the model that nothing else says, neither a key nor the user."""
    is_read = key in _OWN or key in _ULTRALYTICS
    if not is_read or getattr(overrides, _OVERRIDDEN_BY.get(key, key), None) not in (None, '', ()):
        return False
    without = {name: value for name, value in metadata.items() if name != key}
    return read_metadata(metadata, file_name='') != read_metadata(without, file_name='')


def _own(key: str, value: Any, file_name: str) -> Any:
    try:
        return _OWN[key](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f'{file_name}: metadata {key!r} cannot be {_shortened(repr(value))}: {_shortened(str(error))}'
        ) from error


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f'{text[:MAX_SHOWN]}...'
