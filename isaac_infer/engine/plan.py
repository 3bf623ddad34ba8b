"""Plan: the header of a TensorRT engine file, read without TensorRT and without a GPU."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isaac_infer.core.errors import ModelError
from isaac_infer.core.text import printable

TAG = b'ftrt'
HEADER_BYTES = 28  # tag, serialization version, 16 bytes that say nothing here, and the version of TensorRT
LENGTH_BYTES = 4  # of the number before Ultralytics' metadata
MAX_METADATA_BYTES = 1 << 20
FIRST_VERSION_COMPATIBLE = (8, 6)  # no plan of an older TensorRT runs on another version
OLDEST_FOR_11 = (10, 0)  # that TensorRT 11's runtimes load
_INDEX = re.compile('0|[1-9][0-9]{0,8}')


@dataclass(frozen=True)
class Plan:
    """What an engine file says before anything of it is deserialised."""

    path: Path
    version: tuple[int, int, int, int]  # of the TensorRT that built it: major, minor, patch, build
    metadata: Mapping[str, str]  # as Ultralytics' ONNX files have it; empty where the file says nothing
    offset: int  # bytes before the plan itself
    size: int  # bytes of the plan itself


def read_plan(path: Path) -> Plan:
    """Read the header of an engine, plain or with the JSON that Ultralytics writes before it.

    Raises:
        ModelError: the file cannot be read, is no engine, or was cut short.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(f'{path}: expected a TensorRT engine, got a folder, pipe or device; give a file')
        with path.open('rb') as file:
            return _read_plan(path, file, facts.st_size)
    except (OSError, ValueError) as error:  # the latter: a path that cannot be
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelError(f'{path}: cannot be read: {said}; check its path and permissions') from error


def plan_bytes(plan: Plan) -> bytes:
    """Read the part that TensorRT wants; slow.

    A copy and no memory map: a map of a file that somebody cuts short meanwhile ends the process.

    Raises:
        ModelError: the file cannot be read, or is not the one that it was.
    """
    try:
        with plan.path.open('rb') as file:
            file.seek(plan.offset)
            content = file.read()
    except OSError as error:
        raise ModelError(
            f'{plan.path}: cannot be read: {error.strerror}; check its path and permissions'
        ) from error
    if len(content) != plan.size or _version(plan.path, content) != plan.version:
        raise ModelError(
            f'{plan.path}: expected a plan of {plan.size} bytes by TensorRT {_words(plan.version)}, '
            f'got another one of {len(content)} bytes: it was changed while it was read; open it again'
        )
    return content


def check_version(plan: Plan, installed: tuple[int, ...], *, is_lean: bool, model: str) -> None:
    """Refuse a plan that the installed TensorRT cannot load.

    Whether a plan is version-compatible its header does not tell, so a runtime that loads such plans gets
    every plan that might be one.

    Args:
        plan: the plan.
        installed: version of the TensorRT that is to load it, major first.
        is_lean: whether that is the lean or dispatch runtime.
        model: of the ONNX file that the plan was made of, the name for the command that makes it anew.

    Raises:
        ModelError: names both versions and the command.
    """
    length = min(len(installed), 3)  # a build number decides nothing
    built, here = plan.version[:length], installed[:length]
    oldest = OLDEST_FOR_11 if here >= (11,) else FIRST_VERSION_COMPATIBLE
    if built == here or is_lean and oldest <= built < here:
        return
    kind = 'lean TensorRT ' if is_lean else ''
    raise ModelError(
        f'{plan.path}: built by TensorRT {_words(plan.version)}, this machine has {kind}{_words(installed)}; '
        f'run "isaac-infer build {model.removesuffix(".onnx")}.onnx"'
    )


def _read_plan(path: Path, file: BinaryIO, size: int) -> Plan:
    head = file.read(LENGTH_BYTES)
    if not head:
        raise ModelError(f'{path}: expected a TensorRT engine, got an empty file; copy or build it again')
    metadata: Mapping[str, str] = {}
    offset = 0
    if head != TAG[: len(head)]:
        metadata, offset = _read_metadata(path, file, int.from_bytes(head, 'little'), size)
    file.seek(offset)
    return Plan(path, _version(path, file.read(HEADER_BYTES)), metadata, offset, size - offset)


def _version(path: Path, header: bytes) -> tuple[int, int, int, int]:
    """The version of the TensorRT that wrote a plan, which begins with these bytes."""
    if header[: len(TAG)] != TAG[: len(header)]:
        raise ModelError(
            f'{path}: expected a plan that begins with {TAG!r}, got {header[:8]!r}; copy or build it again'
        )
    if len(header) < HEADER_BYTES:
        raise ModelError(
            f'{path}: expected a plan of at least {HEADER_BYTES} bytes, got {len(header)}: it was cut short; '
            f'copy or build it again'
        )
    if serialization := int.from_bytes(header[4:8], 'little'):
        raise ModelError(
            f'{path}: expected a plan of serialization version 0, got {serialization}; build it again'
        )
    major, minor, patch, build = header[24:28]
    return major, minor, patch, build


def _read_metadata(path: Path, file: BinaryIO, length: int, size: int) -> tuple[dict[str, str], int]:
    """Read the JSON of this many bytes that comes next; returns also where the plan begins."""
    start = file.read(1)
    if start != b'{':
        raise ModelError(
            f'{path}: expected a TensorRT engine, which begins with {TAG!r} or with the metadata of '
            f'Ultralytics, got {(length.to_bytes(LENGTH_BYTES, "little") + start)!r}; '
            f'give an engine or an ONNX model'
        )
    offset = LENGTH_BYTES + length
    if not 0 < length <= MAX_METADATA_BYTES or offset + HEADER_BYTES > size:
        raise ModelError(
            f'{path}: expected metadata of 1 to {MAX_METADATA_BYTES} bytes and a plan after it, '
            f'got a file of {size} bytes that speaks of {length} bytes of metadata: it is no engine or was '
            f'cut short; copy or export it again'
        )
    try:
        content = json.loads((start + file.read(length - 1)).decode())
        if not isinstance(content, dict):
            raise ValueError(f'expected an object, got {type(content).__name__}')
        return {key: _text(value) for key, value in content.items()}, offset
    except (RecursionError, ValueError) as error:
        said = 'it is nested too deeply' if isinstance(error, RecursionError) else printable(str(error))
        raise ModelError(
            f'{path}: expected metadata in JSON before the plan, as Ultralytics writes it, got something '
            f'else: {said}; copy or export it again'
        ) from error


def _text(value: Any) -> str:
    """Write a value as Ultralytics does in the metadata of an ONNX file."""
    return value if isinstance(value, str) else str(_with_numbers(value))


def _with_numbers(value: Any) -> Any:
    """Turn the keys of every table by number back into numbers; JSON knows only text there."""
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_by_number = all(_INDEX.fullmatch(key) for key in value)
    return {int(key) if is_by_number else key: _with_numbers(item) for key, item in value.items()}


def _words(version: tuple[int, ...]) -> str:
    return '.'.join(map(str, version[:3]))
