"""Report: what a command found, as JSON, into a file or onto standard output."""

from __future__ import annotations

import argparse
import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isaac_infer.cli.models import model_path
from isaac_infer.core.decode.document import SUFFIXES
from isaac_infer.core.errors import ParameterError
from isaac_infer.engine.files import replace_file
from isaac_infer.engine.load import find_model
from isaac_infer.params import ModelParams

STANDARD_OUTPUT = '-'
REPORT_KEYS = ('model', 'ultralytics')  # of what is written here: about a model, or the list of decoders


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`, the same for every command."""
    parser.add_argument(
        '--json', metavar='FILE', default='', help='write what was found as JSON; - is standard output'
    )


def check_report(report: str, params: ModelParams, sources: Iterable[Path] = ()) -> None:
    """Make the folder of a report, and see before the work that the report can and may be written there.

    Raises:
        ModelError: there is no such model.
        ParameterError: it is a folder, may not be written, is read, is something else than a report, or would
            be the model's sidecar.
    """
    if report in ('', STANDARD_OUTPUT):
        return
    path, model = Path(report), find_model(model_path(params))
    for read in (model, *map(Path, params.class_names), *sources):
        if os.path.exists(path) and os.path.exists(read) and os.path.samefile(path, read):
            raise ParameterError(f'--json {path}: would overwrite {read}, which is read; give another file')
    sidecars = [os.path.realpath(model.with_suffix(suffix)) for suffix in SUFFIXES]
    if os.path.realpath(path) in sidecars:
        raise ParameterError(
            f'--json {path}: would be read as facts about {model.name}; give another name or folder'
        )
    _check_writable(path)


def write_report(report: str, content: Any) -> None:
    """Write a report, or nothing where none was asked for.

    Raises:
        ParameterError: the file cannot be written.
    """
    text = json.dumps(content, indent=1, default=str)
    if report == STANDARD_OUTPUT:
        print(text)
    elif report:
        _check_writable(Path(report))
        try:
            write_whole(Path(report), (text + '\n').encode())
        except OSError as error:
            raise ParameterError(f'--json {report}: cannot be written: {error.strerror}') from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that, where that fails, what was there before stays, and nothing half.

    Raises:
        OSError: the file cannot be written.
    """
    place = Path(os.path.realpath(path))  # a link stays one
    is_there = path.exists()
    if is_there and not (place.is_file() and os.access(place.parent, os.W_OK)):
        path.write_bytes(data)  # a pipe or device, or a file that none can be put beside
        return
    try:
        replace_file(place, data)
    except OSError as error:
        if error.errno != errno.EBUSY:  # as of one file that is mounted into a container
            raise
        place.write_bytes(data)


def _check_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise ParameterError(f'--json {path}: expected a file, got a folder')
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ParameterError(f'--json {path}: may not be written by this user; give another file')
        if path.is_file() and not any(is_report(path, key=key) for key in REPORT_KEYS):
            raise ParameterError(f'--json {path}: exists and is no report; give another file')
    except OSError as error:
        why = f'cannot be written: {error.strerror}; give another file'
        raise ParameterError(f'--json {path}: {why}') from error


def is_report(path: Path, *, key: str) -> bool:
    """Tell whether a file is empty, or JSON with a key that such reports have; weights have none."""
    if not path.stat().st_size:
        return True
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and key in content
