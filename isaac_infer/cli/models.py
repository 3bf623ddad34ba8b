"""Models: opened as the command line says."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from isaac_infer.cli.progress import BuildProgress
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import IsaacInferError, ModelError, ParameterError
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.session import Session
from isaac_infer.core.spec import Overrides
from isaac_infer.engine.load import find_model, find_spec, is_engine, open_pipeline, open_session
from isaac_infer.params import DetectionParams, ModelParams

FIRST_TASK = next(iter(TASKS))
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


def open_detector(params: DetectionParams, *, task: str = 'detection') -> Pipeline:
    """Load, understand and warm up the model that the parameters describe; see `open_pipeline`."""
    with BuildProgress() as say:
        return open_pipeline(
            model_path(params),
            task=task,
            limits=lambda spec: params.limits(spec.class_names, spec.num_classes),
            overrides=params.overrides(read_class_names(params.class_names)),
            backend=params.backend,
            providers=params.providers,
            num_threads=params.num_threads,
            engine=params.engine_options(),
            say=say,
        )


def open_network(params: ModelParams, *, task: str = 'detection') -> Session:
    """Load the network alone, without finding out what it is for; see `open_session`."""
    with BuildProgress() as say:
        return open_session(
            model_path(params),
            task=task,
            backend=params.backend,
            providers=params.providers,
            num_threads=params.num_threads,
            overrides=params.overrides(read_class_names(params.class_names)),
            engine=params.engine_options(),
            say=say,
        )


def find_task(params: ModelParams) -> str:
    """What a model is for: as it says itself, or the only task that can read it; else detection.

    Raises:
        ModelError: there is no such model.
        ParameterError: it is not for detection, and several others can read it.
    """
    named = [task for task in TASKS if params.decoder in TASKS[task].decoders]
    if named:
        return named[0]
    path = find_model(model_path(params))
    try:
        overrides = params.overrides(read_class_names(params.class_names))
        if is_engine(path):
            from isaac_infer.engine.engines import spec_of

            spec = spec_of(path, overrides)
            return spec.task if spec else FIRST_TASK
        with contextlib.closing(open_session(path, backend='onnxruntime')) as session:
            said = str(session.metadata.get('task', '')).strip().lower()
            # Such models can be read as detectors too: what only one task says comes first.
            for task in reversed(TASKS):
                if said in TASKS[task].says:
                    return task
            fitting = [task for task in TASKS if _fits(session, path, overrides, task)]
    except IsaacInferError:
        return FIRST_TASK  # why it does not open is said when it is opened
    if len(fitting) > 1 and FIRST_TASK not in fitting:
        raise ParameterError(f'task: {path.name} can be read for {" and ".join(fitting)}; say what it is for')
    return fitting[0] if len(fitting) == 1 else FIRST_TASK


def _fits(session: Session, path: Path, overrides: Overrides, task: str) -> bool:
    try:
        find_spec(session, path, overrides, task=task)
    except IsaacInferError:
        return False
    return True


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
