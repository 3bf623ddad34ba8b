"""Report: what a command found, as JSON, into a file or onto standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from isaac_infer.cli.models import model_path
from isaac_infer.core.decode.document import SUFFIXES
from isaac_infer.core.errors import IsaacInferError, ModelError, ParameterError
from isaac_infer.core.finite import finite
from isaac_infer.core.text import without_commands
from isaac_infer.engine.files import check_place, is_report, write_whole
from isaac_infer.engine.load import find_model
from isaac_infer.params import ModelParams

STANDARD_OUTPUT = '-'
# Of what is written here: about a model, the list of decoders, about a deployment.
REPORT_KEYS = ('model', 'ultralytics', 'deployment')


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`, the same for every command."""
    parser.add_argument(
        '--json', metavar='FILE', default='', help='write what was found as JSON; - is standard output'
    )


def console_beside(report: str) -> Console:
    """Give where people are told what comes of it: standard error where the report has standard output."""
    return Console(stderr=report == STANDARD_OUTPUT)


def show_written(path: str | Path, out: Console) -> None:
    """Say where something lies now."""
    out.print(f'written: {without_commands(str(path))}', markup=False, highlight=False)


def show_warnings(warnings: Iterable[str]) -> None:
    """Say what was asked for and is not in use, and what may be wrong: beside what a command prints."""
    for warning in warnings:
        print(f'isaac-infer: warning: {warning}', file=sys.stderr)


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
    _check_place(path)


def write_report(report: str, content: Any) -> None:
    """Write a report, or nothing where none was asked for.

    Raises:
        ParameterError: the file cannot be written.
    """
    text = json.dumps(finite(content), indent=1, default=str, allow_nan=False)
    if report == STANDARD_OUTPUT:
        print(text)
    elif report:
        _check_place(Path(report))
        try:
            write_whole(Path(report), (text + '\n').encode())
        except OSError as error:
            raise ParameterError(f'--json {report}: cannot be written: {error.strerror}') from error


@contextmanager
def failure_in(report: str, params: ModelParams) -> Iterator[dict[str, Any]]:
    """Write why a command failed where its report would be; the error goes on.

    What the command knows until then it puts into the dict that is given here. Files are left alone where
    something was asked for wrongly: they may be what is wrong.
    """
    known: dict[str, Any] = {'model': params.engine_file_path or params.model_file_path}
    try:
        yield known
    except IsaacInferError as error:
        if report == STANDARD_OUTPUT or not isinstance(error, ParameterError):
            with suppress(IsaacInferError):  # the report may not be written there
                with suppress(ModelError):  # there is no such model, which is the failure
                    check_report(report, params)
                write_report(report, {**known, 'failure': str(error)})
        raise


def check_place_of_report(report: str) -> None:
    """Make the folder of a report that is about no model, and see that it can and may be written there.

    Raises:
        ParameterError: it is a folder, may not be written, or is something else than a report.
    """
    if report not in ('', STANDARD_OUTPUT):
        _check_place(Path(report))


def _check_place(path: Path) -> None:
    def is_ours(path: Path) -> bool:
        return any(is_report(path, key=key) for key in REPORT_KEYS)

    check_place(path, '--json', is_ours, 'report')
