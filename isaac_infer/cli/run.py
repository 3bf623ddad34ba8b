"""`isaac-infer run`: find objects in pictures, folders, videos or cameras."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.build import add_build_only_option, build_only
from isaac_infer.cli.models import add_model_argument, model_path, open_detector, take_model_argument
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import STANDARD_OUTPUT, add_json_option, check_report, write_report
from isaac_infer.core.bag import is_bag, split_topic
from isaac_infer.core.draw import draw_detections
from isaac_infer.core.errors import IsaacInferError, ParameterError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline, StageTimes
from isaac_infer.core.results import Detections
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.source import SYNTHETIC, Picture, Source, open_sources
from isaac_infer.core.spec import ModelSpec
from isaac_infer.core.stats import Window
from isaac_infer.core.text import without_commands
from isaac_infer.engine.files import write_whole
from isaac_infer.engine.load import unused_precision
from isaac_infer.params import DetectionParams

SYNTHETIC_PICTURES = 10  # drawn scenes never end; so many are enough unless --frames says otherwise
TIMED_PICTURES = 100_000  # the last so many enter the table of times
WRITTEN_SUFFIXES = ('.jpg', '.jpeg', '.png')


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `run` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'run',
        help='find objects in pictures, folders, videos or cameras',
        description='Finds objects in pictures. A picture that cannot be read, answered or saved is '
        'reported, the others are answered, and the exit code is 1. Ctrl-C ends a camera; what was found is '
        'written.',
    )
    add_model_argument(parser)
    parser.add_argument(
        '--source',
        nargs='+',
        help='pictures, folders, videos, rosbag2 recordings; or one of /dev/video0, rtsp://..., http://..., '
        'a GStreamer pipeline, synthetic',
    )
    add_build_only_option(parser)
    add_json_option(parser)
    parser.add_argument('--save', metavar='DIR', type=Path, help='write annotated pictures into this folder')
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
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the detector on every picture of the source."""
    take_model_argument(args)
    params = params_from(args, DetectionParams)
    for name in ('frames', 'seed'):
        if not 0 <= getattr(args, name) <= sys.maxsize:
            raise ParameterError(f'{name}: expected from 0 to {sys.maxsize}, got {getattr(args, name)}')
    if args.build_only:
        return build_only([params], args.json)
    if not args.source:
        raise ParameterError('source: expected pictures, got none; give --source')
    out = Console(stderr=args.json == STANDARD_OUTPUT)
    windows = {stage.name: Window(TIMED_PICTURES) for stage in fields(StageTimes)}
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_sources(args.source, seed=args.seed))
        check_report(args.json, params, source.paths)
        places = _places(source.paths, args.save) if args.save else {}
        if args.save:
            _check_save(args.save, args.source, source.paths)
        if args.save and args.json.lower().endswith(WRITTEN_SUFFIXES):
            raise ParameterError(f'--json {args.json}: is a name of pictures, as --save writes; give another')
        pipeline = stack.enter_context(contextlib.closing(open_detector(params)))
        show_model(pipeline, out)
        if note := unused_precision(args.precision, pipeline.session):
            show_note(note, out)
        report: dict[str, Any] = {
            'model': model_path(params),
            'backend': pipeline.session.backend,
            'decoder': pipeline.spec.decoder,
            'images': [],
        }
        saved: list[str] = []
        code = _detect(source, pipeline, args, places, report['images'], saved, windows, out)
    report['times_ms'] = {
        stage.removesuffix('_ms'): dict(zip(('p50', 'p95', 'p99'), window.percentiles()))
        for stage, window in windows.items()
        if len(window)
    }
    write_report(args.json, report)
    if report['images']:
        out.print(_times(windows, report['images']))
    for path in (args.json if args.json != STANDARD_OUTPUT else '', args.save if saved else ''):
        if path:
            out.print(f'written: {without_commands(str(path))}', markup=False, highlight=False)
    return code


def show_model(pipeline: Pipeline, out: Console) -> None:
    """Say what runs, on what, and everything about it that the user should know."""
    spec = pipeline.spec
    height, width = spec.image.size_hw
    out.print(
        f'{spec.decoder}, {spec.num_classes} classes, input {width}x{height}, {pipeline.session.backend}'
    )
    for fallback in pipeline.session.fallbacks:
        print(f'isaac-infer: warning: {fallback}', file=sys.stderr)
    for note in spec.notes:
        show_note(note, out)


def show_note(note: str, out: Console) -> None:
    """Say what the numbers do not."""
    out.print(f'note: {without_commands(note)}', highlight=False, markup=False, style='dim')


def _detect(
    source: Source,
    pipeline: Pipeline,
    args: argparse.Namespace,
    places: dict[str, Path],
    answers: list[dict[str, Any]],
    saved: list[str],
    windows: Mapping[str, Window],
    out: Console,
) -> int:
    """Answer picture after picture, into `answers`, files and on the screen; returns the exit code.

    The names of pictures that were written into a file go into `saved`.
    """
    most = args.frames or (SYNTHETIC_PICTURES if args.source == [SYNTHETIC] else None)
    code = 0
    try:
        for _ in islice(count(), most):
            try:
                picture = source.read()
            except SourceError as error:
                code = _failed(str(error))
                continue
            if picture is None:
                break
            try:
                found = pipeline(Frame(picture.image))
            except IsaacInferError as error:
                code = _failed(f'{picture.name}: {error}')
                continue
            for stage, window in windows.items():
                window.add(getattr(pipeline.times, stage))
            answers.append(_answer(picture, found, pipeline.spec))
            if not args.json:
                out.print(_table(answers[-1]))
            if args.save:
                try:
                    _save(picture, found, pipeline.spec, _place(picture.name, args.save, places))
                    saved.append(picture.name)
                except (OSError, cv2.error) as error:  # a disk is full, or the format has no such sizes
                    why = getattr(error, 'strerror', None) or str(error).strip()
                    code = _failed(f'{picture.name}: cannot be saved: {why}')
    except KeyboardInterrupt:
        code = 130
    return code


def _failed(message: str) -> int:
    """Say what went wrong with one picture; gives the exit code."""
    print(f'isaac-infer: error: {without_commands(message)}', file=sys.stderr)
    return 1


def _answer(picture: Picture, found: Detections, spec: ModelSpec) -> dict[str, Any]:
    height, width = picture.image.shape[:2]
    return {
        'source': picture.name,
        'size_wh': [width, height],
        'detections': [
            {
                'class_id': class_id,
                'class_name': spec.class_name(class_id),
                'score': round(score, 5),
                'box_xyxy': [round(side, 3) for side in box],
                **({} if found.rotated is None else {'rotated_xywhr': found.rotated[row].tolist()}),
            }
            for row, (class_id, score, box) in enumerate(
                zip(found.class_id.tolist(), found.score.tolist(), found.xyxy.tolist(), strict=True)
            )
        ],
    }


def _table(answer: dict[str, Any]) -> Table:
    width, height = answer['size_wh']
    title = Text(f'{without_commands(answer["source"])}  {width}x{height}', style='bold')
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD)
    table.add_column('class')
    for heading in ('score', 'left', 'top', 'right', 'bottom'):
        table.add_column(heading, justify='right')
    for one in answer['detections']:
        sides = [f'{side:.1f}' for side in one['box_xyxy']]
        table.add_row(Text(one['class_name']), f'{one["score"]:.3f}', *sides)
    if not answer['detections']:
        table.add_row('nothing found')
    return table


def _times(windows: dict[str, Window], answers: Sequence[dict[str, Any]]) -> Table:
    objects = sum(len(answer['detections']) for answer in answers)
    title = f'{_counted(len(answers), "picture")}, {_counted(objects, "object")}'
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    table.add_column('stage')
    for heading in ('p50 ms', 'p95 ms', 'p99 ms'):
        table.add_column(heading, justify='right')
    for stage, window in windows.items():
        table.add_row(stage.removesuffix('_ms'), *(f'{value:.2f}' for value in window.percentiles()))
    return table


def _counted(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def _places(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Where the annotated picture of each file is written, by the picture's name: different for each.

    Raises:
        ParameterError: it would be written over a file that is read.
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    read = {_identity(path): path for path in paths if path.exists()}
    places: dict[str, Path] = {}
    for path in paths:
        place = _place(str(path), folder, places)
        if os.path.exists(place) and _identity(place) in read:
            overwritten = read[_identity(place)]
            raise ParameterError(f'--save {folder}: would overwrite {overwritten}; give another folder')
    return places


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


def _place(picture: str, folder: Path, places: dict[str, Path]) -> Path:
    """Find the place of a picture, and keep it among the places: one that no other has."""
    if picture not in places:
        taken = set(places.values())
        place = own = folder / _file_name(Path(picture).name)
        for number in count(2):
            if place not in taken:
                break
            place = own.with_name(f'{own.stem}-{number}{own.suffix}')
        places[picture] = place
    return places[picture]


def _identity(path: Path) -> tuple[int, int]:
    """What links to the same file share."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _file_name(name: str) -> str:
    """A picture's own name as that of a file; what has no picture's name becomes a PNG."""
    # Pictures of a video in the order of their numbers.
    name = re.sub(r'#(\d+)$', lambda match: f'_{int(match[1]):06d}', Path(name).name)
    plain = re.sub(r'[^\w.-]+', '_', name)
    return plain if plain.lower().endswith(WRITTEN_SUFFIXES) else f'{plain}.png'


def _save(picture: Picture, found: Detections, spec: ModelSpec, place: Path) -> None:
    """Write the annotated picture."""
    image = draw_detections(picture.image, found, spec.class_names)
    # Not imwrite, which crashes where a path is not valid Unicode, and does not say why it fails.
    is_encoded, data = cv2.imencode(place.suffix, image)
    if not is_encoded:
        raise OSError(f'{place.suffix} files cannot hold {image.shape[1]} x {image.shape[0]} pixels')
    write_whole(place, data.tobytes(), sync=False)
