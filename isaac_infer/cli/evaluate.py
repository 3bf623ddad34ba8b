"""`isaac-infer evaluate`: measure a model on scenes that it has never seen."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from isaac_infer.cli.console import unfolded
from isaac_infer.cli.models import (
    DEFAULT_MODEL,
    add_model_argument,
    add_task_option,
    check_task,
    find_task,
    model_path,
    open_detector,
    take_model_argument,
)
from isaac_infer.cli.options import add_options, given_values
from isaac_infer.cli.precision import CUSTOMARY, require_pycocotools
from isaac_infer.cli.report import add_json_option, check_report, console_beside, failure_in, write_report
from isaac_infer.cli.run import show_model
from isaac_infer.cli.scores import ClassScore, Measure, measure_of
from isaac_infer.cli.truth import BACKGROUND, draw_known, scenes_truth
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import StageTimes
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.stats import percentile
from isaac_infer.core.text import counted
from isaac_infer.engine.load import file_sha256, find_model
from isaac_infer.params import DetectionParams, ImageSourceParams


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `evaluate` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'evaluate',
        help='measure a model (detection, segmentation, pose) on drawn scenes',
        description='Draws scenes, runs the whole pipeline on them and prints mean average precision (COCO) '
        'of boxes, masks or key points (OKS), or mIoU, whichever the model answers. Models of key points '
        'get scenes of humanoids. The default scenes are those that no training may use.',
    )
    add_model_argument(parser)
    parser.add_argument('--scenes', metavar='N', type=int, default=1000, help='how many (default: 1000)')
    parser.add_argument(
        '--seed',
        metavar='N',
        type=int,
        default=FIRST_HELD_OUT_SEED,
        help=f'of the first scene (default: {FIRST_HELD_OUT_SEED})',
    )
    parser.add_argument(
        '--width', metavar='N', type=int, default=640, help='of the drawn pictures (default: %(default)s)'
    )
    parser.add_argument(
        '--height', metavar='N', type=int, default=480, help='of the drawn pictures (default: %(default)s)'
    )
    # To be refused in words.
    parser.add_argument('--source', '--truth', nargs='+', dest='own_pictures', help=argparse.SUPPRESS)
    add_task_option(parser)
    add_json_option(parser)
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure a model."""
    take_model_argument(args)
    if args.own_pictures:
        raise ParameterError(
            'evaluate draws its own pictures, with their truth; pictures and truth of your own are what '
            f'isaac-infer compare {args.model_file_path or "MODEL"} --source DIR --truth DIR|JSON takes'
        )
    if not 1 <= args.scenes <= sys.maxsize:
        raise ParameterError(f'scenes: expected from 1 to {sys.maxsize}, got {args.scenes}')
    check_task(args.task)
    ImageSourceParams(seed=args.seed, width=args.width, height=args.height)
    given = given_values(args, DetectionParams)
    if not given.get('engine_file_path'):
        given.setdefault('model_file_path', DEFAULT_MODEL)
    params = DetectionParams().changed(**{**CUSTOMARY, **given})
    if params.class_filter:
        raise ParameterError('class_filter: expected none, because what is in the scenes holds all classes')
    with failure_in(args.json, params):
        return _evaluate(args, params)


def _evaluate(args: argparse.Namespace, params: DetectionParams) -> int:
    check_report(args.json, params)
    size_hw = args.height, args.width
    out = unfolded(console_beside(args.json))
    task = args.task or find_task(params)[0]
    times: list[StageTimes] = []
    with contextlib.closing(open_detector(params, task=task)) as pipeline:
        show_model(pipeline, out)
        spec = pipeline.spec
        measure = measure_of(spec)
        if measure.has_objects:
            require_pycocotools('evaluate')
        truth = scenes_truth(measure.kind)
        scoring = measure.scoring(spec, spec, truth)
        unknown = sorted(set(truth.class_names) - {BACKGROUND, *spec.class_names})
        # Key points belong to one class, whatever its name.
        if unknown and spec.class_names and measure.kind != 'poses':
            out.print(f'note: the model has no class named {", ".join(unknown)}: these count as not found')
        seeds = range(args.seed, args.seed + args.scenes)
        for seed in track(seeds, 'scenes', console=out, transient=True):
            image, known = draw_known(seed, seed, measure.kind, size_hw=size_hw)
            scoring.add(known, pipeline(Frame(image)))
            times.append(pipeline.times)
        backend = pipeline.session.backend
    classes = scoring.classes()
    path = model_path(params)
    report = {
        'model': path,
        'sha256': file_sha256(find_model(path)),
        'backend': backend,
        'task': task,
        'measured': measure.kind,
        'scenes': args.scenes,
        'first_seed': args.seed,
        'size_wh': [size_hw[1], size_hw[0]],
        **({name: getattr(params, name) for name in CUSTOMARY} if measure.has_objects else {}),
        **(scoring.score() or dict.fromkeys(measure.scores)),
        'classes': [{'name': each.name, measure.things: each.count, **each.score} for each in classes],
        'p50': {
            f'{stage}_ms': percentile([time.by_stage()[stage] for time in times], 50)
            for stage in StageTimes().by_stage()
        },
    }
    write_report(args.json, report)
    _show(report, measure, classes, out)
    return 0


def _show(report: dict[str, Any], measure: Measure, classes: Sequence[ClassScore], out: Console) -> None:
    width, height = report['size_wh']
    title = f'{counted(report["scenes"], "scene")} from seed {report["first_seed"]}, {width}x{height}'
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    table.add_column('class')
    for heading in (measure.things, *measure.of_class.values()):
        table.add_column(heading, justify='right')
    for each in classes:
        table.add_row(each.name, str(each.count), *(f'{each.score[key]:.3f}' for key in measure.of_class))
    if classes:
        means = [float(np.mean([each.score[key] for each in classes])) for key in measure.of_class]
        table.add_section()
        total = str(sum(each.count for each in classes))
        table.add_row('mean', total, *(f'{mean:.4f}' for mean in means), style='bold')
    out.print(table)
    if classes:
        scores = ', '.join(f'{heading} {report[key]:.4f}' for key, heading in measure.scores.items())
        out.print(scores, style='bold', highlight=False)
    stages = ', '.join(f'{name.removesuffix("_ms")} {value:.2f} ms' for name, value in report['p50'].items())
    out.print(f'p50 per picture: {stages}')
