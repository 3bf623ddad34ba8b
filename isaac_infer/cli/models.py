"""Models: opened as the command line says."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isaac_infer.cli.progress import BuildProgress
from isaac_infer.core.decode.families import BOXES_ONLY
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import ModelError, ParameterError, SessionError
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.session import Session
from isaac_infer.core.source import COUNTED_SUFFIXES, DRAWN, PICTURE_SUFFIXES
from isaac_infer.core.spec import ModelSpec
from isaac_infer.core.text import listed
from isaac_infer.core.topdown import TopDownPipeline
from isaac_infer.engine.load import (
    ENGINE_SUFFIXES,
    find_model,
    find_spec,
    is_engine,
    open_pipeline,
    open_session,
)
from isaac_infer.engine.task import UNCLEAR, UNKNOWN, task_of, task_of_file
from isaac_infer.params import (
    DetectionParams,
    ModelParams,
    PoseParams,
    SegmentationParams,
    TaskParams,
    parameters,
)

ASKED = 'it was asked for'  # why a model is for a task
SPECIAL = {'segmentation': SegmentationParams, 'pose': PoseParams}  # what detectors do not have, by task
OF_SCENES = 'the scenes of isaac_infer'  # so end the descriptions of models that were trained on them
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
        is_lost = 'source' in args and not args.source and is_source(models[1])
        hint = '; pictures go after --source' if is_lost else ''
        raise ParameterError(f'MODEL: expected one file, got {len(models)}: {listed(models, most=5)}{hint}')
    if args.model and (args.model_file_path or args.engine_file_path):
        raise ParameterError(f'got two models: {args.model} and that of an option; give one of them')
    args.model_file_path = args.model_file_path or args.model


def is_source(text: str) -> bool:
    """Tell whether what is given as a model is rather a picture, a folder or a video."""
    path = Path(os.path.expanduser(text))
    return os.path.isdir(path) or (
        os.path.isfile(path) and path.suffix.lower() in (*PICTURE_SUFFIXES, *COUNTED_SUFFIXES)
    )


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


def check_task(task: str | None, *others: str) -> None:
    """See that a task that was asked for is one of those of models, or of the others.

    Raises:
        ParameterError: it is none.
    """
    if task not in (None, *TASKS, *others):
        raise ParameterError(f'task: expected one of {", ".join((*TASKS, *others))}, got {task}')


def chosen_task(args: argparse.Namespace, params: TaskParams) -> tuple[str, str]:
    """The task that `--task` says, or that of the model, and why; see `find_task`.

    Raises:
        ModelError: there is no such model.
        ParameterError: an option was given that only models of another task have; or see `find_task`.
    """
    task, why = (args.task, ASKED) if args.task else find_task(params)
    check_special_options(args, params, task, why)
    return task, why


def task_note(task: str, why: str) -> tuple[str, ...]:
    """What a user should know of a task that nobody decided; nothing where it is clear."""
    return (f'task {task}: {why}',) if why.endswith(UNCLEAR) else ()


def names_note(spec: ModelSpec) -> tuple[str, ...]:
    """What a user should know who sees numbers instead of names; nothing where one class says it all."""
    if spec.class_names or spec.num_classes == 1 or spec.task == 'pose':
        return ()
    told = (
        'the model does not name its classes, which are shown by their numbers; name them with --class-names'
    )
    return (f'{told} names.txt, a file of one name a line',)


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
    """What a model is for, and why; see `task_of_file`.

    Raises:
        ModelError: there is no such model, or its class names cannot be read.
        ParameterError: it is not for detection, and several others can read it; or there is no such decoder.
    """
    overrides = params.overrides(read_class_names(params.class_names))
    return task_of_file(find_model(model_path(params)), overrides, is_posed=_is_posed(params))


def readable_task(args: argparse.Namespace, params: TaskParams) -> tuple[str, tuple[str, ...]]:
    """See `chosen_task`; and see before others open the model that it can be read for that, at one opening.

    Engines tell it when they are opened, as does every model where there is no ONNX Runtime.

    Returns:
        The task, and what a user should know who has this model answer the pictures of `--source`.

    Raises:
        ModelError: there is no such model, or it cannot be read.
        ParameterError: see `chosen_task`.
    """
    path = find_model(model_path(params))
    session = None
    if not is_engine(path):
        with contextlib.suppress(SessionError):
            session = open_session(path, backend='onnxruntime')
    if session is None:
        task, why = chosen_task(args, params)
        return task, task_note(task, why)
    with contextlib.closing(session):
        overrides = params.overrides(read_class_names(params.class_names))
        is_posed = _is_posed(params)
        task, why = (args.task, ASKED) if args.task else task_of(session, path, overrides, is_posed=is_posed)
        check_special_options(args, params, task, why)
        spec = find_spec(session, path, overrides, task=task)
        notes = [*task_note(task, why), *(note for note in spec.notes if note in BOXES_ONLY)]
        notes += names_note(spec)
        if args.source:
            notes += scenes_note(path.name, session.metadata, [args.source])
    return task, tuple(notes)


def scenes_note(name: str, metadata: Mapping[str, str], sources: Sequence[str]) -> tuple[str, ...]:
    """What a user should know who has a model of drawn scenes answer other pictures; else nothing."""
    if OF_SCENES not in metadata.get('description', '') or set(sources) <= {*DRAWN}:
        return ()
    return (f'{name} knows drawn scenes only, and little of what is in other pictures',)


def _is_posed(params: ModelParams) -> bool:
    """Tell whether something is said of the model that only pose models have."""
    if not isinstance(params, PoseParams):
        return False
    return bool(params.keypoints or params.skeleton or params.person_model_file_path)


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
