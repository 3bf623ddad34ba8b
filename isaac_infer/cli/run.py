"""`isaac-infer run`: find objects, masks or persons in pictures, folders, videos or cameras."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from isaac_infer.cli.answers import (
    MAPS,
    WRITTEN_SUFFIXES,
    Places,
    answer_line,
    answer_of,
    answer_table,
    save_answer,
)
from isaac_infer.cli.build import add_build_only_option, build_only, with_finder
from isaac_infer.cli.console import PLAIN, show_note, unfolded
from isaac_infer.cli.models import (
    add_model_argument,
    add_task_option,
    check_task,
    chosen_task,
    model_path,
    names_note,
    open_detector,
    scenes_note,
    take_model_argument,
    task_note,
)
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import (
    STANDARD_OUTPUT,
    add_json_option,
    check_report,
    console_beside,
    failure_in,
    show_warnings,
    show_written,
    write_report,
)
from isaac_infer.core.bag import is_bag, split_topic
from isaac_infer.core.errors import IsaacInferError, ParameterError, SourceError
from isaac_infer.core.fit import input_size_text
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.skeleton import Skeleton, choose_skeleton
from isaac_infer.core.source import DRAWN, PICTURE_SUFFIXES, Source, open_sources
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.stats import Window
from isaac_infer.core.text import counted, without_commands
from isaac_infer.core.topdown import TopDownPipeline
from isaac_infer.engine.load import unused_precision
from isaac_infer.params import TaskParams

SYNTHETIC_PICTURES = 10  # drawn scenes never end; so many are enough unless --frames says otherwise
MOST_TABLES = (
    20  # pictures that are told with every object; of further ones, as of a video, there is a line each
)
TIMED_PICTURES = 100_000  # the last so many enter the table of times


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `run` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'run',
        help="find objects, masks or persons' key points in pictures, folders, videos or cameras",
        description='Runs a model on pictures. A picture that cannot be read, answered or saved is '
        'reported, the others are answered, and the exit code is 1. Ctrl-C ends a camera; what was found is '
        'written.',
    )
    add_model_argument(parser)
    parser.add_argument(
        '--source',
        nargs='+',
        action='extend',
        help='pictures, folders, videos, rosbag2 recordings; or one of /dev/video0, rtsp://..., http://..., '
        'a GStreamer pipeline, synthetic (drawn table tops), synthetic:humanoids (drawn figures)',
    )
    add_build_only_option(parser)
    add_json_option(parser)
    parser.add_argument(
        '--save',
        metavar='DIR',
        type=Path,
        help='write annotated pictures into this folder; of segmentation models also two PNG files each: the '
        'class (.labels.png) and the object (.instances.png) of every pixel',
    )
    parser.add_argument(
        '--frames',
        metavar='N',
        type=int,
        default=0,
        help=f'stop after so many pictures (default: all; {SYNTHETIC_PICTURES} of synthetic)',
    )
    parser.add_argument(
        '--seed',
        metavar='N',
        type=int,
        default=FIRST_HELD_OUT_SEED,
        help='first synthetic scene (default: %(default)s, not trained on)',
    )
    add_task_option(parser)
    add_options(parser, TaskParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the model on every picture of the source."""
    take_model_argument(args)
    params = params_from(args, TaskParams)
    with failure_in(args.json, params):
        return _run(args, params)


def _run(args: argparse.Namespace, params: TaskParams) -> int:
    check_task(args.task)
    for name in ('frames', 'seed'):
        if not 0 <= getattr(args, name) <= sys.maxsize:
            raise ParameterError(f'{name}: expected from 0 to {sys.maxsize}, got {getattr(args, name)}')
    if args.build_only:
        return build_only(with_finder(params, chosen_task(args, params)[0]), args.json)
    if not args.source:
        raise ParameterError('source: expected pictures, got none; give --source')
    out = unfolded(console_beside(args.json))
    windows: dict[str, Window] = {}  # of the times of each stage
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_sources(args.source, seed=args.seed))
        check_report(args.json, params, source.paths)
        task, why = chosen_task(args, params)
        if args.save and args.save.suffix.lower() in PICTURE_SUFFIXES and not args.save.is_dir():
            raise ParameterError(
                f'--save {args.save}: expected a folder, got the name of a picture; give one such as '
                f'{args.save.parent}{os.sep}, in which each picture keeps its name'
            )
        if args.save and args.save.exists() and not args.save.is_dir():
            raise ParameterError(f'--save {args.save}: expected a folder, got a file; give another')
        maps = tuple(MAPS.values()) if task == 'segmentation' else ()
        places = Places(args.save, source.paths, maps=maps) if args.save else None
        if args.save:
            _check_save(args.save, args.source, source.paths)
        if args.save and args.json.lower().endswith(WRITTEN_SUFFIXES):
            raise ParameterError(f'--json {args.json}: is a name of pictures, as --save writes; give another')
        pipeline = stack.enter_context(contextlib.closing(open_detector(params, task=task)))
        skeleton = choose_skeleton(params.skeleton, pipeline.spec.keypoints)
        show_model(pipeline, out)
        metadata, name = pipeline.session.metadata, Path(model_path(params)).name
        of_scenes = scenes_note(name, metadata, args.source)
        for note in (*task_note(task, why), *names_note(pipeline.spec), *of_scenes):
            show_note(note, out)
        if note := unused_precision(args.precision, pipeline.session):
            show_note(note, out)
        names = _class_names(pipeline.spec)
        report: dict[str, Any] = {
            'model': model_path(params),
            **({'person_model': params.person_model_file_path} if params.person_model_file_path else {}),
            'backend': pipeline.session.backend,
            'task': task,
            'decoder': pipeline.spec.decoder,
            **({'class_names': names} if task == 'segmentation' and names else {}),
            **({'keypoints': list(pipeline.spec.keypoints)} if pipeline.spec.keypoints else {}),
            'images': [],
        }
        saved: list[str] = []
        errors: list[str] = []
        code = _detect(
            source, pipeline, args, places, skeleton, report['images'], saved, errors, windows, out
        )
    report['times_ms'] = {
        stage: dict(zip(('p50', 'p95', 'p99'), window.percentiles())) for stage, window in windows.items()
    }
    if errors:
        report['errors'] = errors
    write_report(args.json, report)
    if report['images']:
        out.print(_times(windows, report['images'], errors))
    for path in (args.json if args.json != STANDARD_OUTPUT else '', args.save if saved else ''):
        if path:
            show_written(path, out)
    return code


def _class_names(spec: ModelSpec) -> list[str]:
    """The classes by the numbers of a class map."""
    return [spec.class_name(number) for number in range(spec.num_classes)]


def show_model(pipeline: Pipeline | TopDownPipeline, out: Console) -> None:
    """Say what runs, on what, and everything about it that the user should know."""
    spec = pipeline.spec
    size = input_size_text(spec.image.size_hw)
    out.print(f'{spec.decoder}, {spec.extent}, input {size}, {pipeline.session.backend}', **PLAIN)
    show_warnings(pipeline.fallbacks)
    for note in spec.notes:
        show_note(note, out)


def _detect(
    source: Source,
    pipeline: Pipeline,
    args: argparse.Namespace,
    places: Places | None,
    skeleton: Skeleton,
    answers: list[dict[str, Any]],
    saved: list[str],
    errors: list[str],
    windows: dict[str, Window],
    out: Console,
) -> int:
    """Answer picture after picture, into `answers`, files and on the screen; returns the exit code.

    The names of pictures that were written into a file go into `saved`, what went wrong into `errors`.
    """
    is_drawn = args.source[0] in DRAWN
    most = args.frames or (SYNTHETIC_PICTURES if is_drawn else None)
    try:
        for _ in islice(count(), most):
            try:
                picture = source.read()
            except SourceError as error:
                _fail(str(error), errors)
                continue
            if picture is None:
                break
            try:
                found = pipeline(Frame(picture.image))
            except IsaacInferError as error:
                _fail(f'{picture.name}: {error}', errors)
                continue
            for stage, took_ms in pipeline.times.by_stage().items():
                windows.setdefault(stage, Window(TIMED_PICTURES)).add(took_ms)
            spec, limits = pipeline.spec, pipeline.limits
            answers.append(answer_of(picture, found, spec))
            if not args.json:
                _show(answers, limits, out)
            if places:
                try:
                    answers[-1] |= save_answer(picture, found, spec, limits, places, skeleton)
                    saved.append(picture.name)
                except (OSError, cv2.error, ParameterError) as error:  # a full disk, a size no format has
                    why = getattr(error, 'strerror', None) or str(error).strip()
                    _fail(f'{picture.name}: cannot be saved: {why}', errors)
    except KeyboardInterrupt:
        return 130
    return 1 if errors else 0


def _show(answers: Sequence[dict[str, Any]], limits: Limits, out: Console) -> None:
    if len(answers) <= MOST_TABLES:
        out.print(answer_table(answers[-1], limits))
    else:
        out.print(answer_line(answers[-1]), **PLAIN)


def _fail(message: str, errors: list[str]) -> None:
    """Say what went wrong with one picture, and keep it."""
    errors.append(without_commands(message))
    print(f'isaac-infer: error: {errors[-1]}', file=sys.stderr)


def _times(windows: dict[str, Window], answers: Sequence[dict[str, Any]], errors: Sequence[str]) -> Table:
    objects = sum(len(answer['detections']) for answer in answers)
    failed = f', {len(errors)} failed' if errors else ''
    title = f'{counted(len(answers), "picture")}, {counted(objects, "object")}{failed}'
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    table.add_column('stage')
    for heading in ('p50 ms', 'p95 ms', 'p99 ms'):
        table.add_column(heading, justify='right')
    for stage, window in windows.items():
        table.add_row(stage, *(f'{value:.2f}' for value in window.percentiles()))
    return table


def _check_save(folder: Path, sources: Sequence[str], paths: Sequence[Path]) -> None:
    """Refuse to write into a folder that is read: the next run would read what this one wrote.

    Raises:
        ParameterError: it is such a folder.
    """
    read = [Path(os.path.expanduser(split_topic(source)[0])) for source in sources]
    if is_bag(folder):  # of which single files may be read
        read += [path.parent for path in paths]
    if any(os.path.isdir(path) and os.path.samefile(path, folder) for path in read):
        raise ParameterError(f'--save {folder}: is the folder that is read; give another')
