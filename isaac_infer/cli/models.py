"""Models: opened as the command line says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from isaac_infer.core.decode.document import SUFFIXES
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.session import Session
from isaac_infer.engine.load import find_model, open_pipeline, open_session
from isaac_infer.params import DetectionParams, ModelParams


def open_detector(params: DetectionParams) -> Pipeline:
    """Load, understand and warm up the detector that the parameters describe; see `open_pipeline`."""
    return open_pipeline(
        model_path(params),
        limits=lambda spec: params.limits(spec.class_names, spec.num_classes),
        overrides=params.overrides(read_class_names(params.class_names)),
        backend=params.backend,
        providers=params.providers,
        num_threads=params.num_threads,
    )


def open_network(params: ModelParams) -> Session:
    """Load the network alone, without finding out what it is for; see `open_session`."""
    return open_session(
        model_path(params),
        backend=params.backend,
        providers=params.providers,
        num_threads=params.num_threads,
    )


def model_path(params: ModelParams) -> str:
    """The file that the parameters name: the engine, where there is one.

    Raises:
        ModelError: its name is of another encoding, which the backends do not open.
    """
    path = params.engine_file_path or params.model_file_path
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f'{path!r}: expected a name that is UTF-8 text; rename it') from error
    return path


def check_report(report: Path, params: ModelParams, sources: Iterable[Path] = ()) -> None:
    """Make the folder of a report, and see before the work that the report can and may be written there.

    Raises:
        ModelError: there is no such model.
        ParameterError: it is a folder, may not be written, is read, is something else than a report, or would
            be the model's sidecar.
        OSError: its folder cannot be made.
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    if report.is_dir():
        raise ParameterError(f'--json {report}: expected a file, got a folder')
    if not os.access(report if report.exists() else report.parent, os.W_OK):
        raise ParameterError(f'--json {report}: may not be written by this user; give another file')
    model = find_model(model_path(params))
    for path in (model, *map(Path, params.class_names), *sources):
        if report.exists() and os.path.exists(path) and report.samefile(path):
            raise ParameterError(f'--json {report}: would overwrite {path}, which is read; give another file')
    if report.is_file() and not _is_json_object(report):
        raise ParameterError(f'--json {report}: exists and is no report; give another file')
    sidecars = [os.path.realpath(model.with_suffix(suffix)) for suffix in SUFFIXES]
    if os.path.realpath(report) in sidecars:
        raise ParameterError(
            f'--json {report}: would be read as facts about {model.name}; give another name or folder'
        )


def _is_json_object(path: Path) -> bool:
    """Tell whether a file is empty or begins as reports do: weights and pictures, above all, do not."""
    with path.open('rb') as file:
        head = file.read(64).lstrip()
    return not head or head.startswith(b'{')
