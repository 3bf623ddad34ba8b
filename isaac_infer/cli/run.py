"""`isaac-infer run`: find objects in pictures, folders, videos or cameras."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.models import model_path, open_detector
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.core.draw import draw_detections
from isaac_infer.core.errors import FrameError, ParameterError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline, StageTimes
from isaac_infer.core.results import Detections
from isaac_infer.core.scenes import FIRST_HELD_OUT_SEED
from isaac_infer.core.source import SYNTHETIC, Picture, Source, open_source
from isaac_infer.core.spec import ModelSpec
from isaac_infer.core.stats import Window
from isaac_infer.params import DetectionParams

SYNTHETIC_PICTURES = 10  # drawn scenes never end; so many are enough unless --max-frames says otherwise
TIMED_PICTURES = 100_000  # the last so many enter the table of times
WRITTEN_SUFFIXES = ('.jpg', '.jpeg', '.png')
STANDARD_OUTPUT = '-'


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `run` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'run',
        help='find objects in pictures, folders, videos or cameras',
        description='Finds objects in pictures. A picture of a folder that cannot be read is reported, the '
        'others are answered, and the exit code is 1. Ctrl-C ends a camera; what was found is written.',
    )
    parser.add_argument(
        '--source',
        required=True,
        help='picture, folder, video, /dev/video0, rtsp://..., GStreamer pipeline or synthetic',
    )
    parser.add_argument(
        '--json', metavar='FILE', default='', help='write what was found as JSON; - is standard output'
    )
    parser.add_argument('--save', metavar='DIR', type=Path, help='write annotated pictures into this folder')
    parser.add_argument(
        '--max-frames',
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
    params = params_from(args, DetectionParams)
    for name in ('max_frames', 'seed'):
        if getattr(args, name) < 0:
            raise ParameterError(f'{name}: expected at least 0, got {getattr(args, name)}')
    for folder in (args.save, Path(args.json).parent):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    out = Console(stderr=args.json == STANDARD_OUTPUT)
    with (
        open_source(args.source, seed=args.seed) as source,
        contextlib.closing(open_detector(params)) as pipeline,
    ):
        show_model(pipeline, out)
        report: dict[str, Any] = {
            'model': model_path(params),
            'backend': pipeline.session.backend,
            'decoder': pipeline.spec.decoder,
            'images': [],
        }
        code = _detect(source, pipeline, args, report['images'], out)
    if args.json == STANDARD_OUTPUT:
        print(json.dumps(report, indent=1))
    elif args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n')
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
        out.print(f'note: {note}', highlight=False, markup=False, style='dim')


def _detect(
    source: Source, pipeline: Pipeline, args: argparse.Namespace, answers: list[dict[str, Any]], out: Console
) -> int:
    """Answer picture after picture, into `answers`, files and on the screen; returns the exit code."""
    most = args.max_frames or (SYNTHETIC_PICTURES if args.source == SYNTHETIC else None)
    windows = {stage.name: Window(TIMED_PICTURES) for stage in fields(StageTimes)}
    code = 0
    try:
        while most is None or len(answers) < most:
            try:
                picture = source.read()
                if picture is None:
                    break
                found = pipeline(Frame(picture.image))
            except (SourceError, FrameError) as error:
                print(f'isaac-infer: error: {error}', file=sys.stderr)
                code = 1
                continue
            for stage, window in windows.items():
                window.add(getattr(pipeline.times, stage))
            answers.append(_answer(picture, found, pipeline.spec))
            if not args.json:
                out.print(_table(answers[-1]))
            if args.save:
                _save(picture, found, pipeline.spec, args.save)
    except KeyboardInterrupt:
        code = 130
    if answers:
        out.print(_times(windows, len(answers)))
    return code


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
    title = Text(f'{answer["source"]}  {width}x{height}', style='bold')
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


def _times(windows: dict[str, Window], pictures: int) -> Table:
    title = f'{pictures} pictures' if pictures != 1 else '1 picture'
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    table.add_column('stage')
    for heading in ('p50 ms', 'p95 ms', 'p99 ms'):
        table.add_column(heading, justify='right')
    for stage, window in windows.items():
        table.add_row(stage.removesuffix('_ms'), *(f'{value:.2f}' for value in window.percentiles()))
    return table


def _save(picture: Picture, found: Detections, spec: ModelSpec, folder: Path) -> None:
    """Write the annotated picture under its own name; what has no picture's name becomes a PNG."""
    name = re.sub(r'[^\w.-]+', '_', Path(picture.name).name)
    if not name.lower().endswith(WRITTEN_SUFFIXES):
        name += '.png'
    path = folder / name
    if path.exists() and Path(picture.name).exists() and path.samefile(picture.name):
        raise ParameterError(f'--save {folder}: would overwrite {picture.name}; give another folder')
    image = draw_detections(picture.image, found, spec.class_names)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'{path}: the picture could not be written')
