"""Models: opened as the command line says."""

from __future__ import annotations

import argparse

from isaac_infer.cli.progress import BuildProgress
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.session import Session
from isaac_infer.engine.load import open_pipeline, open_session
from isaac_infer.params import DetectionParams, ModelParams

DEFAULT_MODEL = 'tabletop_detector.onnx'  # among the models of this package, which answers drawn scenes


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, which means the same as --model."""
    parser.add_argument('model', metavar='MODEL', nargs='?', help='the same as --model')


def take_model_argument(args: argparse.Namespace) -> None:
    """Put MODEL where the parameters are read from.

    Raises:
        ParameterError: an option names a model too.
    """
    if args.model and (args.model_file_path or args.engine_file_path):
        raise ParameterError(f'got two models: {args.model} and that of an option; give one of them')
    args.model_file_path = args.model_file_path or args.model


def open_detector(params: DetectionParams) -> Pipeline:
    """Load, understand and warm up the detector that the parameters describe; see `open_pipeline`."""
    with BuildProgress() as say:
        return open_pipeline(
            model_path(params),
            limits=lambda spec: params.limits(spec.class_names, spec.num_classes),
            overrides=params.overrides(read_class_names(params.class_names)),
            backend=params.backend,
            providers=params.providers,
            num_threads=params.num_threads,
            engine=params.engine_options(),
            say=say,
        )


def open_network(params: ModelParams) -> Session:
    """Load the network alone, without finding out what it is for; see `open_session`."""
    with BuildProgress() as say:
        return open_session(
            model_path(params),
            backend=params.backend,
            providers=params.providers,
            num_threads=params.num_threads,
            overrides=params.overrides(read_class_names(params.class_names)),
            engine=params.engine_options(),
            say=say,
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
