"""`isaac-infer evaluate`: measure a detector on scenes that it has never seen."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from isaac_infer.cli.models import (
    DEFAULT_MODEL,
    add_model_argument,
    model_path,
    open_detector,
    take_model_argument,
)
from isaac_infer.cli.options import add_options, given_values
from isaac_infer.cli.report import STANDARD_OUTPUT, add_json_option, check_report, write_report
from isaac_infer.cli.run import show_model
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import StageTimes
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.shapes import CLASS_NAMES
from isaac_infer.core.stats import percentile
from isaac_infer.engine.load import file_sha256, find_model
from isaac_infer.params import DetectionParams, ImageSourceParams

# What is customary for average precision: nearly every answer counts, down to the least sure one.
CUSTOMARY = {'confidence_threshold': 0.001, 'nms_threshold': 0.7, 'max_detections': 100}


@dataclass(frozen=True)
class ClassScore:
    """Average precision of one class."""

    name: str
    objects: int
    ap50: float
    ap50_95: float


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `evaluate` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'evaluate',
        help='measure a detector on drawn scenes',
        description='Draws scenes, runs the whole pipeline on them and prints mean average precision (COCO). '
        'The default scenes are those that no training may use.',
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
    add_json_option(parser)
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure a detector."""
    take_model_argument(args)
    if not 1 <= args.scenes <= sys.maxsize:
        raise ParameterError(f'scenes: expected from 1 to {sys.maxsize}, got {args.scenes}')
    ImageSourceParams(seed=args.seed, width=args.width, height=args.height)
    size_hw = args.height, args.width
    given = given_values(args, DetectionParams)
    if not given.get('engine_file_path'):
        given.setdefault('model_file_path', DEFAULT_MODEL)
    params = DetectionParams().changed(**{**CUSTOMARY, **given})
    require_pycocotools('evaluate')
    check_report(args.json, params)
    out = Console(stderr=args.json == STANDARD_OUTPUT)
    truth: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    times: list[StageTimes] = []
    with contextlib.closing(open_detector(params)) as pipeline:
        show_model(pipeline, out)
        scene_class = _scene_classes(pipeline.spec.class_names)
        unknown = sorted(set(CLASS_NAMES) - set(pipeline.spec.class_names))
        if unknown:
            out.print(f'note: the model has no class named {", ".join(unknown)}: these count as not found')
        seeds = range(args.seed, args.seed + args.scenes)
        for seed in track(seeds, 'scenes', console=out, transient=True):
            scene = draw_scene(seed, size_hw=size_hw)
            found = pipeline(Frame(scene.image))
            truth += coco_entries(seed, scene.class_id, scene.boxes_xyxy)
            classes = np.array([scene_class.get(index, -1) for index in found.class_id.tolist()], np.int32)
            answers += coco_entries(seed, classes, found.xyxy, found.score)
            times.append(pipeline.times)
        backend = pipeline.session.backend
    scores = average_precision(seeds, truth, answers)
    path = model_path(params)
    report = {
        'model': path,
        'sha256': file_sha256(find_model(path)),
        'backend': backend,
        'scenes': args.scenes,
        'first_seed': args.seed,
        'size_wh': [size_hw[1], size_hw[0]],
        **{name: getattr(params, name) for name in CUSTOMARY},
        'ap50': _mean([score.ap50 for score in scores]),
        'ap50_95': _mean([score.ap50_95 for score in scores]),
        'classes': [asdict(score) for score in scores],
        'p50': {
            stage.name: percentile([getattr(time, stage.name) for time in times], 50)
            for stage in fields(StageTimes)
        },
    }
    write_report(args.json, report)
    _show(report, scores, out)
    return 0


def average_precision(
    seeds: Sequence[int],
    truth: list[dict[str, Any]],
    answers: list[dict[str, Any]],
    *,
    iou_type: str = 'bbox',
    sigmas: np.ndarray | None = None,
) -> list[ClassScore]:
    """Score answers with COCO's metric, class by class; classes without any object are left out.

    Args:
        seeds: image_id of all pictures.
        truth: what is in them.
        answers: what was found in them, with scores.
        iou_type: what is compared: `bbox`, `segm` or `keypoints`.
        sigmas: (K,) how far each key point may be off, see `oks.sigmas_of`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        wanted = COCO()
        wanted.dataset = {
            'images': [{'id': seed, 'height': 0, 'width': 0} for seed in seeds],  # masks know their own
            'categories': [{'id': index, 'name': name} for index, name in enumerate(CLASS_NAMES)],
            'annotations': [{**entry, 'id': number} for number, entry in enumerate(truth, 1)],
        }
        wanted.createIndex()
        given = COCO()
        given.dataset = {
            **wanted.dataset,
            'annotations': [{**entry, 'id': number} for number, entry in enumerate(answers, 1)],
        }
        given.createIndex()
        judge = COCOeval(wanted, given, iou_type)
        if sigmas is not None:
            judge.params.kpt_oks_sigmas = sigmas
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval['precision'][:, :, :, 0, -1]  # (IoU, recall, class), of all sizes; -1: no objects
    counts = np.bincount([entry['category_id'] for entry in truth], minlength=len(CLASS_NAMES))
    return [
        ClassScore(
            name, int(count), float(precision[0, :, index].mean()), float(precision[:, :, index].mean())
        )
        for index, (name, count) in enumerate(zip(CLASS_NAMES, counts, strict=True))
        if count
    ]


def coco_entries(
    image_id: int, class_id: np.ndarray, xyxy: np.ndarray, score: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Boxes of one picture in COCO's form; those of a negative class are left out."""
    scores = np.ones(len(xyxy)) if score is None else score
    return [
        {
            'image_id': image_id,
            'category_id': category,
            'bbox': [left, top, right - left, bottom - top],
            'area': (right - left) * (bottom - top),
            'iscrowd': 0,
            'score': sure,
        }
        for category, (left, top, right, bottom), sure in zip(
            class_id.tolist(), xyxy.tolist(), scores.tolist(), strict=True
        )
        if category >= 0
    ]


def _scene_classes(model_names: tuple[str, ...]) -> dict[int, int]:
    """Which class of the scenes each class of the model is, by name.

    Raises:
        ParameterError: the model knows none of them.
    """
    known = {name: number for number, name in enumerate(CLASS_NAMES)}
    shared = {index: known[name] for index, name in enumerate(model_names) if name in known}
    if not shared:
        raise ParameterError(
            f'class_names: expected some of {", ".join(CLASS_NAMES)}, '
            f'got {", ".join(model_names) or "none"}; only a detector of drawn objects can be measured here'
        )
    return shared


def require_pycocotools(who: str) -> None:
    """See that average precisions can be computed.

    Raises:
        ParameterError: pycocotools is not there, or was built for another NumPy.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except (ImportError, ValueError) as error:
        raise ParameterError(
            f'{who} needs pycocotools ({error}); install it: pip install pycocotools'
        ) from error


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _show(report: dict[str, Any], scores: list[ClassScore], out: Console) -> None:
    width, height = report['size_wh']
    title = f'{report["scenes"]} scenes from seed {report["first_seed"]}, {width}x{height}'
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    table.add_column('class')
    for heading in ('objects', 'AP50', 'AP50-95'):
        table.add_column(heading, justify='right')
    for score in scores:
        table.add_row(score.name, str(score.objects), f'{score.ap50:.3f}', f'{score.ap50_95:.3f}')
    if scores:
        total = str(sum(score.objects for score in scores))
        table.add_section()
        table.add_row('mean', total, f'{report["ap50"]:.4f}', f'{report["ap50_95"]:.4f}', style='bold')
    out.print(table)
    stages = ', '.join(f'{name.removesuffix("_ms")} {value:.2f} ms' for name, value in report['p50'].items())
    out.print(f'p50 per picture: {stages}')
