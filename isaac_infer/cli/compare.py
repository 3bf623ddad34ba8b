"""`isaac-infer compare`: speed and accuracy of several variants of one model, and whether they are enough."""

from __future__ import annotations

import argparse
import contextlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from isaac_infer.cli.build import add_build_only_option, build_only
from isaac_infer.cli.comparison import answer_all, begin, is_drawn
from isaac_infer.cli.console import show_note, unfolded
from isaac_infer.cli.models import add_task_option, check_task, find_task
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.plot import check_plot, title_of, write_plot
from isaac_infer.cli.precision import require_pycocotools
from isaac_infer.cli.report import (
    add_json_option,
    check_report,
    console_beside,
    failure_in,
    show_written,
    write_report,
)
from isaac_infer.cli.truth import Truth, read_maps, read_truth
from isaac_infer.cli.variants import open_variants, to_build, wanted_variants
from isaac_infer.cli.verdict import (
    MAP_LOSS,
    MEAN_CLASS_IOU,
    as_dict,
    checks_of,
    notes_of,
    notes_of_models,
    notes_of_precision,
    rows_of,
    show,
)
from isaac_infer.core.build_options import PRECISIONS
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.source import HUMANOIDS, SYNTHETIC, Source, open_sources
from isaac_infer.engine.load import BACKENDS
from isaac_infer.engine.variants import ONNX_PRECISIONS
from isaac_infer.params import DetectionParams


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `compare` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'compare',
        help='measure how precisions and backends of one model agree',
        description='Runs variants of one model on the same pictures, in turns, and prints how fast they '
        'are and how well they agree with the first one; with ground truth also how right they are: objects '
        'by mAP of boxes, masks (--task segmentation) or key points (OKS, --task pose), pixels of semantic '
        'models by mIoU. Exit code 1: a variant misses a threshold, or fails.',
    )
    parser.add_argument(
        'models',
        metavar='MODEL',
        nargs='*',
        help='the first is the reference, usually ONNX in float32; that of --model comes before them',
    )
    parser.add_argument(
        '--source',
        nargs='+',
        action='extend',
        help=f'pictures, folders, videos, rosbag2 recordings; or {SYNTHETIC}',
    )
    parser.add_argument(
        '--precisions',
        metavar='P[,P...]',
        type=_words,
        default=[],
        help=f'compare ONNX models in these: {", ".join(PRECISIONS)}; the reference is the first model as it '
        'is, which should be fp32, on ONNX Runtime',
    )
    parser.add_argument(
        '--backends',
        metavar='B[,B...]',
        type=_words,
        default=[],
        help=f'compare ONNX models on these: {", ".join(BACKENDS)}; onnxruntime only has '
        f'{", ".join(ONNX_PRECISIONS)}',
    )
    parser.add_argument(
        '--scenes', metavar='N', type=int, default=50, help='how many of synthetic (default: %(default)s)'
    )
    parser.add_argument(
        '--truth',
        metavar='PATH',
        help='what is in the pictures: JSON in the form of COCO, with masks or key points where they are '
        'compared; for semantic models a folder of class maps, grey PNG named as the pictures '
        '(.png, or .labels.png as run --save writes it), 255 where a pixel does not count',
    )
    add_task_option(parser)
    add_build_only_option(parser)
    add_json_option(parser)
    parser.add_argument(
        '--plot', metavar='FILE', type=Path, help='write speed against accuracy as a PNG picture'
    )
    limits = parser.add_argument_group('thresholds', 'of the verdict, for every variant but the reference')
    limits.add_argument(
        '--iou',
        metavar='X',
        type=float,
        default=0.5,
        help='overlap of boxes or masks, or OKS of key points, from which two objects of one class are the '
        'same; not of semantic models (default: %(default)s)',
    )
    limits.add_argument(
        '--min-agreement',
        metavar='X',
        type=float,
        default=0.95,
        help="share of the reference's objects found again, of semantic models: of equal pixels "
        '(default: %(default)s)',
    )
    limits.add_argument(
        '--max-extra',
        metavar='X',
        type=float,
        default=0.05,
        help='objects that the reference lacks, per object of its; not of semantic models '
        '(default: %(default)s)',
    )
    limits.add_argument(
        '--min-iou',
        metavar='X',
        type=float,
        help='overlap, or OKS, of the worst pair; of semantic models: of the worst class',
    )
    limits.add_argument(
        '--min-mean-iou',
        metavar='X',
        type=float,
        help='overlap, or OKS, of all pairs on average; of semantic models: of all classes '
        f'(default: {MEAN_CLASS_IOU:g} of semantic models, because most of their pixels are background)',
    )
    limits.add_argument(
        '--max-score-difference',
        metavar='X',
        type=float,
        help='difference of scores of the worst pair; semantic models have none',
    )
    limits.add_argument(
        '--max-map-loss',
        metavar='X',
        type=float,
        help=f'loss of mAP50-95, of semantic models: of mIoU, where truth is known (default: {MAP_LOSS:g})',
    )
    limits.add_argument(
        '--min-speed-up', metavar='X', type=float, help='how many times faster from picture to result'
    )
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Compare the variants; 0 where all thresholds hold."""
    _check_numbers(args)
    params = params_from(args, DetectionParams)
    is_named = params.model_file_path or params.engine_file_path or not args.models
    with failure_in(args.json, params if is_named else params.changed(model_file_path=args.models[0])):
        return _compare(args, params)


def _compare(args: argparse.Namespace, params: DetectionParams) -> int:
    variants = wanted_variants(args, params)
    task, why = (args.task, '') if args.task else find_task(variants[0].params)
    if args.build_only:
        return build_only([(each, task) for each in to_build(variants, args, params)], args.json)
    if not args.source:
        raise ParameterError('source: expected pictures, got none; give --source')
    if task == 'pose':  # whose synthetic scenes are those of humanoids anyway
        args.source = [SYNTHETIC if source == HUMANOIDS else source for source in args.source]
    cv2.setNumThreads(1)  # as the nodes do: OpenCV's threads take cores from those of the network
    out = unfolded(console_beside(args.json))
    sources = ', '.join(args.source)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_sources(args.source))
        if source.is_live or HUMANOIDS in args.source:
            way = f'; give {SYNTHETIC} alone, of which --scenes are drawn' if HUMANOIDS in args.source else ''
            raise ParameterError(f'source: expected pictures that come to an end, got {sources}{way}')
        truth = _truth(args, params, task, source)
        read = [*source.paths, *([Path(args.truth)] if args.truth else [])]
        read += truth.maps.values() if truth and truth.maps else []
        read += [variant.file for variant in variants]
        for variant in variants:
            check_report(args.json, variant.params, read)
        if args.plot:
            check_plot(args.plot, args.source, read, args.json)
        if len(variants) == 1 and truth is None:
            show_note('nothing to compare with: give a second model, --precisions or --backends', out)
        at_work = open_variants(variants, task, stack)
        measure, truth = begin(at_work, truth, args)
        pictures = answer_all(at_work, args, source, truth, measure, out)
        rows = rows_of(at_work)
        notes = [f'task {task}: {why}'] if why else []
        notes += notes_of_models(at_work)
        notes += [*notes_of(rows, measure), *notes_of_precision(at_work, rows, args, params, source)]
    checks = checks_of(rows, measure, args)
    holds = all(check.holds for check in checks)
    code = 0 if holds and not pictures.unread else 1
    report = {
        'model': rows[0].model,  # these two tell a report from facts about a model
        'backend': rows[0].backend,
        'task': task,
        'measured': measure.kind,
        'source': sources,
        'pictures': pictures.count,
        'unread': pictures.unread,
        'truth': args.truth or (SYNTHETIC if truth else None),
        'pictures_with_truth': pictures.with_truth,
        'iou': args.iou,
        'variants': [as_dict(row) for row in rows],
        'checks': [asdict(check) for check in checks],
        'holds': holds,
        'notes': notes,
    }
    write_report(args.json, report)
    show(rows, checks, measure, pictures, notes, out)
    if args.plot:
        write_plot(rows, measure, args.plot, title=title_of(rows, pictures))
        show_written(args.plot, out)
    return code


def _words(text: str) -> list[str]:
    """Read `fp32,fp16`; each once, in this order."""
    return list(dict.fromkeys(word.strip() for word in text.split(',') if word.strip()))


def _check_numbers(args: argparse.Namespace) -> None:
    if args.scenes < 1:
        raise ParameterError(f'scenes: expected at least 1, got {args.scenes}')
    most = {
        'iou': 1.0,
        'min_agreement': 1.0,
        'min_iou': 1.0,
        'min_mean_iou': 1.0,
        'max_score_difference': 1.0,
        'max_map_loss': 1.0,
    }
    for name in (*most, 'max_extra', 'min_speed_up'):
        value, limit = getattr(args, name), most.get(name, math.inf)
        if value is not None and not (0 <= value <= limit and math.isfinite(value)):  # so that NaN fails too
            expected = f'0 to {limit:g}' if name in most else 'a number of at least 0'
            raise ParameterError(f'{name.replace("_", "-")}: expected {expected}, got {value:g}')
    if args.iou == 0:
        raise ParameterError('iou: expected more than 0, got 0: then every object would be every other')
    check_task(args.task)


def _truth(args: argparse.Namespace, params: DetectionParams, task: str, source: Source) -> Truth | None:
    """Find out what is known of the pictures; of drawn scenes it is known when they are drawn."""
    if not is_drawn(args) and not args.truth:
        if args.max_map_loss is not None:
            raise ParameterError('max-map-loss: nobody knows what is in the pictures; give --truth')
        return None
    if is_drawn(args) and args.truth:
        raise ParameterError('truth: drawn scenes bring their own; give no --truth with --source synthetic')
    if params.class_filter:
        raise ParameterError('class_filter: expected none where truth is known, which holds all classes')
    has_maps = bool(args.truth) and task == 'segmentation' and Path(args.truth).is_dir()
    if not has_maps:
        require_pycocotools('truth')
    if not args.truth:
        return Truth(())  # until it is known of what kind
    path = Path(args.truth)
    truth = read_maps(path, source.paths) if has_maps else read_truth(path, task=task)
    if not any(truth.names(picture.name) for picture in source.paths):
        raise ParameterError(f'truth {path}: names none of the pictures of {", ".join(args.source)}')
    names = [picture.name for picture in source.paths]
    if len(set(names)) < len(names):
        raise ParameterError(f'truth {path}: expected pictures of different names, got one of them twice')
    return truth
