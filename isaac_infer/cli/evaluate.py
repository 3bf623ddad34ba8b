"""`isaac-infer evaluate`: measure a detector on scenes that it has never seen."""

from __future__ import annotations

import argparse
import contextlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from isaac_infer.cli.models import model_path, open_detector
from isaac_infer.cli.options import add_options, given_values
from isaac_infer.cli.run import show_model
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import StageTimes
from isaac_infer.core.scenes import FIRST_HELD_OUT_SEED, Scene, draw_scene
from isaac_infer.core.stats import percentile
from isaac_infer.engine.load import file_sha256, find_model
from isaac_infer.params import DetectionParams

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
    parser.add_argument('--scenes', metavar='N', type=int, default=1000, help='how many (default: 1000)')
    parser.add_argument(
        '--seed',
        metavar='N',
        type=int,
        default=FIRST_HELD_OUT_SEED,
        help=f'of the first scene (default: {FIRST_HELD_OUT_SEED})',
    )
    parser.add_argument(
        '--size', metavar='WxH', default='640x480', help='of the drawn pictures (default: 640x480)'
    )
    parser.add_argument('--json', metavar='FILE', type=Path, help='write the figures as JSON')
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure a detector."""
    for name, least in (('scenes', 1), ('seed', 0)):
        if getattr(args, name) < least:
            raise ParameterError(f'{name}: expected at least {least}, got {getattr(args, name)}')
    size_hw = _size_hw(args.size)
    params = DetectionParams().changed(**{**CUSTOMARY, **given_values(args, DetectionParams)})
    _require_pycocotools()
    out = Console()
    with contextlib.closing(open_detector(params)) as pipeline:
        show_model(pipeline, out)
        scenes, answers, times = [], [], []
        for seed in track(range(args.seed, args.seed + args.scenes), 'scenes', console=out, transient=True):
            scene = draw_scene(seed, size_hw=size_hw)
            answers.append(_in_scene_classes(pipeline(Frame(scene.image)), pipeline))
            scenes.append(Scene(scene.image[:0], *(getattr(scene, field.name) for field in fields(Scene)[1:])))
            times.append(pipeline.times)
        backend = pipeline.session.backend
    scores = score(scenes, answers)
    found = [entry for entry in scores if entry.objects]
    report = {
        'model': model_path(params),
        'sha256': file_sha256(find_model(model_path(params))),
        'backend': backend,
        'scenes': args.scenes,
        'first_seed': args.seed,
        'size_wh': [size_hw[1], size_hw[0]],
        **{name: getattr(params, name) for name in CUSTOMARY},
        'map50': float(np.mean([entry.ap50 for entry in found])) if found else None,
        'map50_95': float(np.mean([entry.ap50_95 for entry in found])) if found else None,
        'classes': {entry.name: {'objects': entry.objects, 'ap50': entry.ap50, 'ap50_95': entry.ap50_95} for entry in found},
        'p50_ms': {
            stage.name.removesuffix('_ms'): percentile([getattr(time, stage.name) for time in times], 50)
            for stage in fields(StageTimes)
        },
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    return 0
