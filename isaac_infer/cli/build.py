"""`isaac-infer build`: the TensorRT engine of an ONNX model, built once and kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from isaac_infer.cli.models import (
    add_model_argument,
    add_task_option,
    check_task,
    find_task,
    model_file,
    model_path,
    open_network,
    take_model_argument,
)
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.progress import BuildProgress
from isaac_infer.cli.report import (
    STANDARD_OUTPUT,
    add_json_option,
    check_report,
    failure_in,
    show_warnings,
    write_report,
)
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import IsaacInferError, ModelError, ParameterError, SessionError
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.text import without_commands
from isaac_infer.engine.cache import read_sidecar
from isaac_infer.engine.engines import open_engine, spec_of
from isaac_infer.engine.load import check_built, find_spec, is_engine, open_session
from isaac_infer.engine.trt import TrtSession
from isaac_infer.params import ModelParams, PoseParams


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `build` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'build',
        help='build the TensorRT engine of an ONNX model',
        description='Builds the engine that nodes and commands with the same parameters then find in the '
        'cache. Nothing is built where it is there already.',
    )
    add_model_argument(parser)
    add_task_option(parser)
    add_json_option(parser)
    add_options(parser, ModelParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Build an engine, or find it."""
    take_model_argument(args)
    params = params_from(args, ModelParams)
    with failure_in(args.json, params):
        return _build(args, params)


def _build(args: argparse.Namespace, params: ModelParams) -> int:
    path = model_file(params)
    if is_engine(path):
        raise ParameterError(f'{path}: expected an ONNX model, got an engine')
    check_task(args.task)
    check_report(args.json, params)
    task = args.task or find_task(params)[0]
    options, overrides = params.engine_options(), params.overrides(read_class_names(params.class_names))
    if args.task:
        _check_readable(path, overrides, task)
    with BuildProgress() as say:
        find = partial(find_spec, task=task)
        session, spec = open_engine(path, options, overrides, find, task=task, say=say)
        session.close()
    built = {'model': str(path), 'task': task, **_facts(session, spec)}
    show_warnings(built['warnings'])
    write_report(args.json, built)
    if args.json != STANDARD_OUTPUT:
        print(built['path'])
    return 0


def _check_readable(path: Path, overrides: Overrides, task: str) -> None:
    """See that a model can be read for the task that was asked for, before an engine is built that cannot.

    Raises:
        ModelError: it cannot be.
    """
    try:
        session = open_session(path, backend='onnxruntime')
    except (ModelError, SessionError):
        return  # TensorRT tells by itself whether it can
    with closing(session):
        find_spec(session, path, overrides, task=task)


def _facts(session: TrtSession, spec: ModelSpec | None) -> dict[str, Any]:
    """Where an engine is, what may be wrong with it, and what its build wrote beside it."""
    return {
        'backend': session.backend,
        'path': str(session.path),
        'warnings': [*session.fallbacks, *(spec.warnings if spec else ())],
        **(read_sidecar(session.path) or {}),
    }


# ---- of other commands -----------------------------------------------------------------------------


def add_build_only_option(parser: argparse.ArgumentParser) -> None:
    """Add `--build-only`, which means what the nodes' parameter of this name does."""
    parser.add_argument(
        '--build-only',
        action='store_true',
        help='open the model, which builds its engine where there is none, and end; exit code 1 where it has '
        'none and backend is not onnxruntime',
    )


def with_finder(params: PoseParams, task: str) -> list[tuple[ModelParams, str]]:
    """A model with its task and, where it is told the persons of a picture, what finds these."""
    if task != 'pose' or not params.person_model_file_path:
        return [(params, task)]
    return [(params, task), (params.person_params(), 'detection')]


def build_only(models: Sequence[tuple[ModelParams, str]], report: str) -> int:
    """Open models, so that engines that are not there are built; 1: one has none, the others were built.

    Args:
        models: each with its task.
        report: where what came of it is written.
    """
    for params, _ in models:
        check_report(report, params)
    opened: list[dict[str, Any]] = []
    for params, task in models:
        model = model_path(params)
        try:
            with open_network(params, task=task) as session:
                check_built(session, params.backend)
                facts: dict[str, Any] = {'backend': session.backend, 'warnings': list(session.fallbacks)}
                if isinstance(session, TrtSession):
                    overrides = params.overrides(read_class_names(params.class_names))
                    facts = _facts(session, spec_of(session.path, overrides))
            show_warnings(facts['warnings'])
        except ParameterError:
            raise
        except IsaacInferError as error:
            facts = {'failure': str(error)}
            print(f'isaac-infer: error: {without_commands(f"{model}: {error}")}', file=sys.stderr)
        opened.append({'model': model, **facts})
        if report != STANDARD_OUTPUT and 'failure' not in facts:
            what = facts.get('path') or f'{model}: nothing to build, it runs on {facts["backend"]}'
            print(without_commands(what))
    write_report(report, {**opened[0], 'opened': opened})
    return 1 if any('failure' in each for each in opened) else 0
