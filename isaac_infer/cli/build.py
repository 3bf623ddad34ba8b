"""`isaac-infer build`: the TensorRT engine of an ONNX model, built once and kept."""

from __future__ import annotations

import argparse
from time import monotonic
from typing import Any

from rich.console import Console

from isaac_infer.cli.models import add_model_argument, model_path, take_model_argument
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import STANDARD_OUTPUT, add_json_option, check_report, write_report
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.text import without_commands
from isaac_infer.engine.cache import read_sidecar
from isaac_infer.engine.load import find_model, find_spec, is_engine
from isaac_infer.params import ModelParams


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `build` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'build',
        help='build the TensorRT engine of an ONNX model',
        description='Builds the engine that nodes and commands with the same parameters then find in the '
        'cache. Nothing is built where it is there already.',
    )
    add_model_argument(parser)
    add_json_option(parser)
    add_options(parser, ModelParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Build an engine, or find it."""
    take_model_argument(args)
    params = params_from(args, ModelParams)
    path = find_model(model_path(params))
    if is_engine(path):
        raise ParameterError(f'{path}: expected an ONNX model, got an engine')
    check_report(args.json, params)
    options, overrides = params.engine_options(), params.overrides(read_class_names(params.class_names))
    from isaac_infer.engine.engines import open_engine

    out = Console(stderr=True)
    begin = monotonic()
    with out.status('looking for the engine'):

        def say(text: str) -> None:
            out.print(
                f'{monotonic() - begin:6.1f} s  {without_commands(text)}', markup=False, highlight=False
            )

        session, _ = open_engine(path, options, overrides, find_spec, say=say)
        session.close()
    engine = session.path
    sidecar = dict(read_sidecar(engine) or {})
    if args.json:
        write_report(
            args.json, {'model': str(path), 'backend': session.backend, 'path': str(engine), **sidecar}
        )
    if args.json != STANDARD_OUTPUT:
        print(engine)
    return 0
