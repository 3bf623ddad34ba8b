"""Models: opened as the command line says."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from isaac_infer.cli.progress import BuildProgress
from isaac_infer.core.decode.families import BOXES_ONLY
from isaac_infer.core.decode.metadata import read_metadata
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import IsaacInferError, ModelError, NamesError, ParameterError, SessionError
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.session import Session
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.topdown import TopDownPipeline
from isaac_infer.engine.load import (
    ENGINE_SUFFIXES,
    find_model,
    find_spec,
    is_engine,
    metadata_of,
    open_pipeline,
    open_session,
)
from isaac_infer.params import (
    DetectionParams,
    ModelParams,
    PoseParams,
    SegmentationParams,
    TaskParams,
    parameters,
)

FIRST_TASK = next(iter(TASKS))
BOXES_ALONE = f'only its boxes are read, as detector_node does (--task {FIRST_TASK})'
ASKED = 'it was asked for'  # why a model is for a task
UNKNOWN = 'nobody says another one'  # why a model is taken for the first task
SPECIAL = {'segmentation': SegmentationParams, 'pose': PoseParams}  # what detectors do not have, by task
DEFAULT_MODEL = 'tabletop_detector.onnx'  # among the models of this package, which answers drawn scenes


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, which means the same as --model."""
    parser.add_argument('model', metavar='MODEL', nargs='?', help='the same as --model')
    parser.add_argument('more_models', nargs='*', help=argparse.SUPPRESS)  # to be refused in words


def take_model_argument(args: argparse.Namespace) -> None:
    """Put MODEL where the parameters are read from.

    Raises:
        ParameterError: there are several, or an option names one too.
    """
    if args.more_models:
        models = [args.model, *args.more_models]
        raise ParameterError(f'MODEL: expected one file, got {len(models)}: {", ".join(models)}')
    if args.model and (args.model_file_path or args.engine_file_path):
        raise ParameterError(f'got two models: {args.model} and that of an option; give one of them')
    args.model_file_path = args.model_file_path or args.model


def open_detector(params: DetectionParams, *, task: str = 'detection') -> Pipeline | TopDownPipeline:
    """Load, understand and warm up the model that the parameters describe; see `open_pipeline`.

    Top-down where they name a model that finds persons for a pose model.
    """
    with BuildProgress() as say:
        pipeline = open_pipeline(
            model_path(params),
            task=task,
            limits=lambda spec: params.limits(spec.class_names, spec.num_classes),
            overrides=params.overrides(read_class_names(params.class_names)),
            say=say,
            **params.run_options(),
        )
    if task != 'pose' or not isinstance(params, PoseParams) or not params.person_model_file_path:
        return pipeline
    return with_persons(pipeline, params)


def with_persons(pose: Pipeline, params: PoseParams) -> TopDownPipeline:
    """Have the persons of a pose model found by the detector that the parameters name.

    Both are closed with what is returned, the pose model where something goes wrong, too.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(pose.close)
        try:
            persons = open_detector(params.person_params())
        except (ModelError, SessionError) as error:
            raise type(error)(
                'person_model_file_path: expected the detector that finds the persons (task and decoder '
                f'concern the pose model): {error}'
            ) from error
        stack.callback(persons.close)
        both = TopDownPipeline(persons, pose, max_batch=params.max_batch, padding=params.person_padding)
        found_by = f'persons are found by {params.person_model_file_path}, {persons.session.backend}'
        both.spec = replace(both.spec, notes=(*both.spec.notes, found_by))
        stack.pop_all()
        return both


def open_network(params: ModelParams, *, task: str = 'detection') -> Session:
    """Load the network alone, without finding out what it is for; see `open_session`."""
    with BuildProgress() as say:
        return open_session(
            model_path(params),
            task=task,
            overrides=params.overrides(read_class_names(params.class_names)),
            say=say,
            **params.run_options(),
        )


def add_task_option(parser: argparse.ArgumentParser) -> None:
    """Add `--task`, see `find_task`."""
    parser.add_argument(
        '--task',
        metavar='|'.join(TASKS),
        type=str,
        help='what the (first) model is for (default: what it says, or the only one that reads all of it; '
        'else detection)',
    )


def check_task(task: str | None) -> None:
    """See that a task that was asked for is one.

    Raises:
        ParameterError: it is none.
    """
    if task not in (None, *TASKS):
        raise ParameterError(f'task: expected one of {", ".join(TASKS)}, got {task}')


def chosen_task(args: argparse.Namespace, params: TaskParams) -> str:
    """The task that `--task` says, or that of the model; see `find_task`.

    Raises:
        ModelError: there is no such model.
        ParameterError: an option was given that only models of another task have; or see `find_task`.
    """
    task, why = (args.task, ASKED) if args.task else find_task(params)
    check_special_options(args, params, task, why)
    return task


def check_special_options(args: argparse.Namespace, params: TaskParams, task: str, why: str) -> None:
    """Refuse options that would do nothing, because only models of another task have them.

    Args:
        why: the model is for this task.

    Raises:
        ParameterError: there is such an option.
    """
    common = {parameter.name for parameter in parameters(DetectionParams)}
    for other, kind in SPECIAL.items():
        own = [parameter.name for parameter in parameters(kind) if parameter.name not in common]
        useless = [name for name in own if getattr(args, name) is not None]
        # What cannot be read for any task says so itself, when it is opened.
        if useless and other != task and why != UNKNOWN:
            raise ParameterError(
                f'{", ".join(useless)}: expected a model for {other}, got {model_path(params)}, which is for '
                f'{task}; leave {"it" if len(useless) == 1 else "them"} out, or set --task {other} if it is '
                f'not\n  task {task}: {why}'
            )


def find_task(params: ModelParams) -> tuple[str, str]:
    """What a model is for, and why: see `task_of`; of an engine what it was built for.

    Raises:
        ModelError: there is no such model.
        ParameterError: it is not for detection, and several others can read it; or there is no such decoder.
    """
    path = find_model(model_path(params))
    if by_decoder := _task_by_decoder(params.decoder):
        return by_decoder
    try:
        overrides = params.overrides(read_class_names(params.class_names))
        if is_engine(path):
            from isaac_infer.engine.engines import spec_of

            spec = spec_of(path, overrides)
            return (spec.task, 'it was built for this') if spec else (FIRST_TASK, UNKNOWN)
        with contextlib.closing(open_session(path, backend='onnxruntime')) as session:
            return task_of(session, path, overrides, is_posed=_is_posed(params))
    except ParameterError:
        raise
    except IsaacInferError:
        return FIRST_TASK, UNKNOWN  # why it does not open is said when it is opened


def check_readable(params: ModelParams, task: str) -> None:
    """See before others open a model that it can be read for a task; engines tell it when they are opened.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    path = find_model(model_path(params))
    if is_engine(path):
        return
    try:
        session = open_session(path, backend='onnxruntime')
    except SessionError:
        return  # without ONNX Runtime only its own backend can tell
    with contextlib.closing(session):
        find_spec(session, path, params.overrides(read_class_names(params.class_names)), task=task)


def _is_posed(params: ModelParams) -> bool:
    """Tell whether something is said of the model that only pose models have."""
    if not isinstance(params, PoseParams):
        return False
    return bool(params.keypoints or params.skeleton or params.person_model_file_path)


def task_of(session: Session, path: Path, overrides: Overrides, *, is_posed: bool = False) -> tuple[str, str]:
    """What a model is for, and why: as it says itself, or the only task that reads all of it; else detection.

    Args:
        is_posed: whether it is used as only pose models can be: where it can be one, it is.

    Raises:
        ParameterError: it is not for detection, and several others can read it; or there is no such decoder.
    """
    says = read_metadata(metadata_of(path, session.metadata, overrides)[0], file_name=path.name)
    if by_decoder := _task_by_decoder(overrides.decoder or says.own.get('decoder', '')):
        return by_decoder
    # Such models can be read as detectors too: what only one task says comes first.
    for task in reversed(tuple(TASKS)):
        if says.task in TASKS[task].says:
            is_detector_too = task != FIRST_TASK and says.task in TASKS[FIRST_TASK].says
            boxes = f'; for {FIRST_TASK} {BOXES_ALONE}' if is_detector_too else ''
            return task, f'its metadata says {says.task!r}{boxes}'
        if says.purpose in TASKS[task].says:
            return task, 'its metadata or its sidecar say so'
    if says.keypoints:
        return 'pose', 'its metadata or its sidecar name key points'
    specs = _specs(session, path, overrides)
    if is_posed and 'pose' in specs:
        return 'pose', 'it is used with key points'
    if len(specs) == 1:
        return next(iter(specs)), 'no other one can read it'
    if not specs:
        return FIRST_TASK, UNKNOWN
    others = [task for task in specs if task != FIRST_TASK]
    if FIRST_TASK not in specs:
        told = {task: _names_with(session, TASKS[task].words) for task in others}
        told = {task: names for task, names in told.items() if names}
        if len(told) == 1:
            ((task, names),) = told.items()
            return task, f'its outputs are called {", ".join(names)}'
        raise ParameterError(
            f'task: {path.name} can be read for {" and ".join(others)}; say what it is for: --task'
        )
    spec = specs[FIRST_TASK]
    if spec and BOXES_ONLY in spec.notes and len(others) == 1:
        return others[0], f'for {FIRST_TASK} {BOXES_ALONE}'
    return FIRST_TASK, f'it can be read for {" and ".join(others)} too; --task says what it is for'


def _names_with(session: Session, words: Sequence[str]) -> list[str]:
    """The names of outputs that have one of these words in them."""
    names = [output.name for output in session.outputs]
    return [name for name in names if any(word in name.lower() for word in words)]


def _task_by_decoder(decoder: str) -> tuple[str, str] | None:
    """The task of a decoder, and why; None where none is asked for."""
    if not decoder:
        return None
    tasks = [task for task in TASKS if decoder in TASKS[task].decoders]
    if not tasks:
        known = ''.join(f'\n  {task}: {", ".join(TASKS[task].decoders)}' for task in TASKS)
        raise ParameterError(f'decoder: there is no decoder {decoder!r}; there are, by task{known}')
    return tasks[0], f'its decoder is {decoder}'


def _specs(session: Session, path: Path, overrides: Overrides) -> dict[str, ModelSpec | None]:
    """How a model is used, by the tasks that it can be used for; None: but for the number of names."""
    specs: dict[str, ModelSpec | None] = {}
    for task in TASKS:
        try:
            specs[task] = find_spec(session, path, overrides, task=task)
        except NamesError:
            specs[task] = None
        except IsaacInferError:
            continue
    return specs


def model_path(params: ModelParams) -> str:
    """The file that the parameters name: the engine, where there is one.

    Raises:
        ModelError: there is none, or its name is of another encoding, which the backends do not open.
    """
    path = params.engine_file_path or params.model_file_path
    if not path:
        raise ModelError('no model given: name it first, or by --model FILE')
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f'{path!r}: expected a name that is UTF-8 text; rename it') from error
    if glob.has_magic(path) and not os.path.exists(os.path.expanduser(path)):
        raise ModelError(f'{path}: expected a file, got a pattern{_of_pattern(path)}')
    return path


def _of_pattern(pattern: str) -> str:
    """What a pattern that reached us as such stands for; the shell puts what it finds in its place."""
    matched = glob.glob(os.path.expanduser(pattern))
    if matched:
        return f', which matches {len(matched)}; give one of them, such as {sorted(matched)[0]}'
    is_of_engines = pattern.lower().endswith(ENGINE_SUFFIXES)
    return ' that matches none' + ('; isaac-infer build makes engines' if is_of_engines else '')


def model_file(params: ModelParams) -> Path:
    """Find the file that the parameters name, without needless `..` in its path.

    Raises:
        ModelError: there is no such model.
    """
    path = find_model(model_path(params))
    plain = Path(os.path.normpath(path))
    return plain if plain.exists() and plain.samefile(path) else path  # `..` after a link is another folder
