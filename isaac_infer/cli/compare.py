"""`isaac-infer compare`: speed and accuracy of several variants of one model, and whether they are enough."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.evaluate import CUSTOMARY, average_precision, coco_entries
from isaac_infer.cli.models import model_path, open_detector
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import STANDARD_OUTPUT, add_json_option, check_report, write_report
from isaac_infer.core.decode.document import read_text
from isaac_infer.core.draw import class_colour
from isaac_infer.core.errors import IsaacInferError, ParameterError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import Agreement, agreement
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.results import Detections
from isaac_infer.core.scenes import FIRST_HELD_OUT_SEED, draw_scene
from isaac_infer.core.shapes import CLASS_NAMES
from isaac_infer.core.source import SYNTHETIC, Source, open_source
from isaac_infer.core.text import without_commands
from isaac_infer.core.timing import Timings, summarise
from isaac_infer.engine.load import file_sha256, find_model
from isaac_infer.params import DetectionParams

PLOT_SUFFIX = '.png'
MAX_TRUTH_BYTES = 1 << 30
TRUTH_KEYS = 'images', 'annotations', 'categories'

Object = dict[str, Any]  # of the truth or of an answer, in COCO's form


@dataclass(frozen=True)
class Truth:
    """What is in the pictures."""

    class_names: tuple[str, ...]  # by category_id of the objects
    objects: Mapping[str, Sequence[Object]]  # by file name; their image_id is still to be given


@dataclass(frozen=True)
class Sample:
    """One picture of the comparison."""

    name: str
    frame: Frame
    objects: Sequence[Object] | None  # None where nobody knows what is in it


@dataclass(frozen=True)
class Score:
    """Mean average precision, by COCO's metric."""

    ap50: float
    ap50_95: float


@dataclass(frozen=True)
class Check:
    """One threshold, and what was measured."""

    model: str
    what: str
    wanted: str
    measured: str
    holds: bool


class Variant:
    """One variant at work: what it found so far, and how long that took."""

    def __init__(self, path: str, pipeline: Pipeline | None, failure: str = '') -> None:
        self.path, self.pipeline = path, pipeline
        self.failure = failure  # why it is out; empty: it is not
        self.found: list[Detections] = []  # picture by picture
        self.answers: list[Object] = []  # where truth is known
        self.run_ms: list[float] = []
        self.picture_ms: list[float] = []  # from the picture to what is found


class Pictures:
    """Which pictures were compared so far."""

    def __init__(self) -> None:
        self.count = 0
        self.unread = 0
        self.with_truth: list[int] = []  # their numbers, which are the image_id of their objects
        self.objects: list[Object] = []  # of the truth


@dataclass(frozen=True)
class Row:
    """What is said of one variant; None: not measured, because it failed or because nobody can know."""

    model: str
    sha256: str
    failure: str
    backend: str
    precision: str  # as the file tells it; empty where it does not
    run_ms: Timings | None
    picture_ms: Timings | None
    speed_up: float | None  # of the median from picture to detections
    agreement: Agreement | None  # of the reference with itself: perfect
    score: Score | None


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `compare` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'compare',
        help='measure how precisions and backends of one model agree',
        description='Runs variants of one detector on the same pictures, in turns, and prints how fast they '
        'are and how well they agree with the first one; with ground truth also how right they are. '
        'Exit code 1: a variant misses a threshold, or fails.',
    )
    parser.add_argument(
        'models', metavar='MODEL', nargs='+', help='the first is the reference, usually ONNX in float32'
    )
    parser.add_argument(
        '--source', required=True, metavar='FOLDER', help=f'folder of pictures, picture, video or {SYNTHETIC}'
    )
    parser.add_argument(
        '--scenes', metavar='N', type=int, default=50, help='how many of synthetic (default: %(default)s)'
    )
    parser.add_argument(
        '--truth', metavar='FILE', help='what is in the pictures, as JSON in the form of COCO'
    )
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
        help='overlap from which two objects of one class are the same (default: %(default)s)',
    )
    limits.add_argument(
        '--min-agreement',
        metavar='X',
        type=float,
        default=0.95,
        help="share of the reference's objects found again (default: %(default)s)",
    )
    limits.add_argument(
        '--max-extra',
        metavar='X',
        type=float,
        default=0.05,
        help='objects that the reference lacks, per object of its (default: %(default)s)',
    )
    limits.add_argument('--min-iou', metavar='X', type=float, help='overlap of the worst pair')
    limits.add_argument(
        '--max-score-difference', metavar='X', type=float, help='difference of scores of the worst pair'
    )
    limits.add_argument(
        '--max-map-loss',
        metavar='X',
        type=float,
        default=0.02,
        help='loss of mAP50-95, where truth is known (default: %(default)s)',
    )
    limits.add_argument(
        '--min-speed-up', metavar='X', type=float, help='how many times faster from picture to detections'
    )
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Compare the variants; 0 where all thresholds hold."""
    if args.model_file_path or args.engine_file_path:
        raise ParameterError('compare: expected the models as arguments without an option, got --model too')
    _check_numbers(args)
    params = params_from(args, DetectionParams)
    variants = [params.changed(model_file_path=model) for model in args.models]
    for variant in variants:
        find_model(model_path(variant))
    cv2.setNumThreads(1)  # as the nodes do: OpenCV's threads take cores from those of the network
    out = Console(stderr=args.json == STANDARD_OUTPUT)
    truth = _truth(args, params)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(args.source))
        if source.is_live:
            raise ParameterError(f'source: expected pictures that come to an end, got {args.source}')
        read = [*source.paths, *([Path(args.truth)] if args.truth else [])]
        read += [find_model(model_path(variant)) for variant in variants]
        for variant in variants:
            check_report(args.json, variant, read)
        known = truth.objects if truth and args.truth else None
        if known is not None and not any(path.name in known for path in source.paths):
            raise ParameterError(f'truth {args.truth}: names none of the pictures of {args.source}')
        if args.plot:
            _check_plot(args.plot, args.source, [*read, Path(args.json)] if args.json else read)
        at_work = [_open(variant, stack, is_reference=number == 0) for number, variant in enumerate(variants)]
        pictures = _work(at_work, args, source, truth, out)
        rows = _rows(at_work, truth, pictures, args)
    checks = _checks(rows, args)
    holds = all(check.holds for check in checks)
    code = 0 if holds and not pictures.unread else 1
    report = {
        'model': rows[0].model,  # these two tell a report from facts about a model
        'backend': rows[0].backend,
        'source': args.source,
        'pictures': pictures.count,
        'unread': pictures.unread,
        'truth': args.truth or (SYNTHETIC if truth else None),
        'pictures_with_truth': len(pictures.with_truth),
        'iou': args.iou,
        'variants': [_as_dict(row) for row in rows],
        'checks': [asdict(check) for check in checks],
        'holds': holds,
    }
    write_report(args.json, report)
    _show(rows, checks, pictures, out)
    if args.plot:
        args.plot.write_bytes(cv2.imencode(PLOT_SUFFIX, draw_plot(rows))[1].tobytes())
        out.print(f'written: {without_commands(str(args.plot))}', markup=False, highlight=False)
    return code


# ---- what is asked for ---------------------------------------------------------------------------


def _check_numbers(args: argparse.Namespace) -> None:
    if args.scenes < 1:
        raise ParameterError(f'scenes: expected at least 1, got {args.scenes}')
    most = {
        'iou': 1.0,
        'min_agreement': 1.0,
        'min_iou': 1.0,
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


def _check_plot(plot: Path, source: str, read: Sequence[Path]) -> None:
    """See before the work that the plot can and may be written, and will be nobody's picture.

    Raises:
        ParameterError: it cannot.
        OSError: its folder cannot be made.
    """
    if plot.suffix.lower() != PLOT_SUFFIX:
        raise ParameterError(f'--plot {plot}: expected a name that ends in {PLOT_SUFFIX}')
    if plot.is_dir():
        raise ParameterError(f'--plot {plot}: expected a file, got a folder')
    is_read = any(plot.exists() and path.exists() and plot.samefile(path) for path in read)
    if is_read or plot.parent.resolve() == Path(source).resolve():
        raise ParameterError(
            f'--plot {plot}: would be one of the pictures that are compared; give another folder'
        )
    plot.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(plot if plot.exists() else plot.parent, os.W_OK):
        raise ParameterError(f'--plot {plot}: may not be written by this user; give another file')


def _truth(args: argparse.Namespace, params: DetectionParams) -> Truth | None:
    """Find out what is known of the pictures; of drawn scenes it is known when they are drawn."""
    if args.source != SYNTHETIC and not args.truth:
        return None
    if args.source == SYNTHETIC and args.truth:
        raise ParameterError('truth: drawn scenes bring their own; give no --truth with --source synthetic')
    if params.class_filter:
        raise ParameterError('class_filter: expected none where truth is known, which holds all classes')
    if importlib.util.find_spec('pycocotools') is None:
        raise ParameterError('truth needs pycocotools; install it: pip install pycocotools')
    return read_truth(Path(args.truth)) if args.truth else Truth(CLASS_NAMES, {})


def read_truth(path: Path) -> Truth:
    """Read boxes in the form of COCO.

    Raises:
        ParameterError: the file cannot be read, or has another form.
    """
    try:
        text = read_text(path, max_bytes=MAX_TRUTH_BYTES)
    except ValueError as error:
        raise ParameterError(f'truth {path}: cannot be read: {error}') from error
    try:
        content = json.loads(text)
        missing = [key for key in TRUTH_KEYS if not isinstance(content[key], list)]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ParameterError(
            f'truth {path}: expected JSON with lists of {", ".join(TRUTH_KEYS)}, as COCO has: {error}'
        ) from error
    if missing:
        raise ParameterError(f'truth {path}: expected a list of {missing[0]}, as COCO has')
    try:
        # COCO's numbers have gaps: classes are known by their place in the order of these numbers.
        categories = sorted(content['categories'], key=lambda category: int(category['id']))
        class_number = {category['id']: number for number, category in enumerate(categories)}
        names = {image['id']: Path(image['file_name']).name for image in content['images']}
        if len(set(names.values())) < len(names):
            raise ParameterError(f'truth {path}: expected different file names, got one of them twice')
        objects: dict[str, list[Object]] = {name: [] for name in names.values()}
        for entry in content['annotations']:
            left, top, width, height = map(float, entry['bbox'])
            if not np.isfinite([left, top, width, height]).all():
                raise ValueError(f'bbox {entry["bbox"]}')
            objects[names[entry['image_id']]].append(
                {
                    'category_id': class_number[entry['category_id']],
                    'bbox': [left, top, width, height],
                    'area': float(entry.get('area', width * height)),
                    'iscrowd': int(entry.get('iscrowd', 0)),
                }
            )
        return Truth(tuple(str(category['name']) for category in categories), objects)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ParameterError(
            f'truth {path}: expected entries as COCO has them: {type(error).__name__} {error}'
        ) from error


# ---- the work ------------------------------------------------------------------------------------


def _open(params: DetectionParams, stack: contextlib.ExitStack, *, is_reference: bool) -> Variant:
    """Open a variant; one that does not open is out, but nothing can be compared without the reference."""
    path = model_path(params)
    try:
        return Variant(path, stack.enter_context(contextlib.closing(open_detector(params))))
    except ParameterError:
        raise
    except IsaacInferError as error:
        if is_reference:
            raise
        return Variant(path, None, _failed(path, error))


def _failed(path: str, error: Exception) -> str:
    """Say that a variant is out; gives the reason."""
    reason = str(error).splitlines()[0]
    print(f'isaac-infer: error: {without_commands(f"{path}: {reason}")}', file=sys.stderr)
    return reason


def _work(
    variants: Sequence[Variant], args: argparse.Namespace, source: Source, truth: Truth | None, out: Console
) -> Pictures:
    """Answer all pictures with all variants, in turns, so that a slow moment of the machine hits all."""
    pictures = Pictures()
    classes = [_truth_classes(variant, variants[0], truth) if truth else {} for variant in variants]
    progress = out.status('comparing')
    with progress:
        for sample in _samples(args, source, truth, pictures):
            number = pictures.count
            progress.update(f'comparing: picture {number + 1}')
            if sample.objects is not None:
                pictures.with_truth.append(number)
                pictures.objects += [{**entry, 'image_id': number} for entry in sample.objects]
            # Each comes first once, because what runs after another finds its caches cold.
            turn = number % len(variants)
            for index in [*range(turn, len(variants)), *range(turn)]:
                variant = variants[index]
                if variant.failure:
                    continue
                try:
                    _answer(variant, sample, number, classes[index])
                except IsaacInferError as error:
                    if index == 0:
                        raise type(error)(f'{variant.path}: {sample.name}: {error}') from error
                    variant.failure = _failed(variant.path, type(error)(f'{sample.name}: {error}'))
            pictures.count += 1
    if not pictures.count:
        raise SourceError(f'{args.source}: expected pictures, got none that can be read')
    return pictures


def _samples(
    args: argparse.Namespace, source: Source, truth: Truth | None, pictures: Pictures
) -> Iterator[Sample]:
    """Give the pictures one by one, with what is in them; those that cannot be read are reported."""
    if args.source == SYNTHETIC:
        for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + args.scenes):
            scene = draw_scene(seed)
            objects = coco_entries(pictures.count, scene.class_id, scene.boxes_xyxy)
            yield Sample(f'{SYNTHETIC} {seed}', Frame(scene.image), objects)
        return
    while True:
        try:
            picture = source.read()
        except SourceError as error:
            pictures.unread += 1
            print(f'isaac-infer: error: {without_commands(str(error))}', file=sys.stderr)
            continue
        if picture is None:
            return
        known = truth.objects.get(Path(picture.name).name) if truth else None
        yield Sample(picture.name, Frame(picture.image), known)


def _answer(variant: Variant, sample: Sample, number: int, classes: Mapping[int, int]) -> None:
    """Let a variant answer one picture, as a node would; where truth is known, once more for the metric."""
    pipeline = variant.pipeline
    assert pipeline is not None  # or it would have failed
    if not variant.found:
        pipeline(sample.frame)  # the first picture of a size takes longer
    found = pipeline(sample.frame)
    times = pipeline.times
    variant.found.append(found)
    variant.run_ms.append(times.run_ms)
    variant.picture_ms.append(times.prepare_ms + times.run_ms + times.decode_ms)
    if sample.objects is None:
        return
    usual, customary = pipeline.limits, cast(dict[str, Any], CUSTOMARY)
    pipeline.limits = replace(usual, **customary)  # nearly every answer counts, which takes longer
    try:
        found = pipeline(sample.frame)
    finally:
        pipeline.limits = usual
    numbers = np.array([classes.get(class_id, -1) for class_id in found.class_id.tolist()], np.int32)
    variant.answers += coco_entries(number, numbers, found.xyxy, found.score)


def _truth_classes(variant: Variant, reference: Variant, truth: Truth) -> dict[int, int]:
    """Which class of the truth each class of a variant is: by name, or by number where nobody named them.

    Raises:
        ParameterError: they have none in common.
    """
    if variant.pipeline is None or reference.pipeline is None:
        return {}
    spec = variant.pipeline.spec
    names = spec.class_names or reference.pipeline.spec.class_names
    if not names and spec.num_classes == len(truth.class_names):
        return {number: number for number in range(spec.num_classes)}
    known = {name: number for number, name in enumerate(truth.class_names)}
    shared = {index: known[name] for index, name in enumerate(names) if name in known}
    if not shared:
        raise ParameterError(
            f'class_names: expected some of {", ".join(truth.class_names)}, '
            f'got {", ".join(names) or "none"} from {variant.path}'
        )
    return shared


# ---- what came of it -----------------------------------------------------------------------------


def mean_average_precision(
    pictures: Sequence[int], truth: Sequence[Object], answers: Sequence[Object]
) -> Score | None:
    """Score answers with COCO's metric; None where the truth has no object.

    Args:
        pictures: image_id of all pictures.
        truth: what is in them.
        answers: what was found in them, with scores.
    """
    scores = []
    for number in sorted({entry['category_id'] for entry in truth if not entry['iscrowd']}):
        # Classes do not meddle with one another, so that each may be the first of the scenes' classes.
        wanted, given = (
            [{**entry, 'category_id': 0} for entry in entries if entry['category_id'] == number]
            for entries in (truth, answers)
        )
        scores += average_precision(pictures, wanted, given)
    if not scores:
        return None
    return Score(
        float(np.mean([score.ap50 for score in scores])), float(np.mean([score.ap50_95 for score in scores]))
    )


def _rows(
    variants: Sequence[Variant], truth: Truth | None, pictures: Pictures, args: argparse.Namespace
) -> list[Row]:
    reference = variants[0]
    usual_ms = summarise(reference.picture_ms).median
    rows = []
    for variant in variants:
        path = find_model(variant.path)
        row = Row(str(path), file_sha256(path), variant.failure, '', '', None, None, None, None, None)
        if variant.pipeline:
            session = variant.pipeline.session
            precision = str(session.metadata.get('precision', ''))
            row = replace(row, backend=session.backend, precision=precision)
        if not variant.failure:
            picture_ms = summarise(variant.picture_ms)
            pairs = zip(reference.found, variant.found, strict=True)
            row = replace(
                row,
                run_ms=summarise(variant.run_ms),
                picture_ms=picture_ms,
                speed_up=usual_ms / picture_ms.median,
                agreement=agreement(pairs, iou_threshold=args.iou),
                score=mean_average_precision(pictures.with_truth, pictures.objects, variant.answers)
                if truth
                else None,
            )
        rows.append(row)
    return rows


def _checks(rows: Sequence[Row], args: argparse.Namespace) -> list[Check]:
    """Compare every variant but the reference with the thresholds; what cannot be measured does not hold."""
    checks = []
    for row, name in list(zip(rows, _short_names(rows), strict=True))[1:]:
        if row.failure:
            checks.append(Check(name, 'runs', 'without an error', row.failure, False))
            continue
        agreed = row.agreement
        assert agreed is not None
        at_least = {
            'found again': (agreed.share, args.min_agreement),
            'overlap of the worst pair': (agreed.worst_iou, args.min_iou),
            'speed-up': (row.speed_up, args.min_speed_up),
        }
        at_most = {
            'extra objects': (agreed.extra_share, args.max_extra),
            'score difference of the worst pair': (agreed.worst_score_difference, args.max_score_difference),
        }
        if row.score and rows[0].score:
            loss = rows[0].score.ap50_95 - row.score.ap50_95
            at_most['loss of mAP50-95'] = loss, args.max_map_loss
        for sign, thresholds in (('>=', at_least), ('<=', at_most)):
            for what, (value, limit) in thresholds.items():
                if limit is None:
                    continue
                holds = value is not None and (value >= limit if sign == '>=' else value <= limit)
                checks.append(Check(name, what, f'{sign} {limit:g}', _number(value, 4), holds))
    return checks


def _as_dict(row: Row) -> dict[str, Any]:
    content = asdict(row)
    if row.agreement:
        content['agreement'].update(share=row.agreement.share, extra_share=row.agreement.extra_share)
    return content


def _short_names(rows: Sequence[Row]) -> list[str]:
    """The variants' file names, or their paths where two have the same name."""
    names = [Path(row.model).name for row in rows]
    return names if len(set(names)) == len(names) else [row.model for row in rows]


def _number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _show(rows: Sequence[Row], checks: Sequence[Check], pictures: Pictures, out: Console) -> None:
    names = [Text(without_commands(name)) for name in _short_names(rows)]
    times = 'run', 'picture', 'faster'
    title = f'speed, {pictures.count} pictures, median milliseconds of the network and of all'
    speed = _table(title, 'variant', 'backend', 'precision', *times)
    pairs = 'IoU', 'worst', 'score', 'worst'
    scores = ['mAP50', 'mAP50-95'] if pictures.with_truth else []
    title = 'agreement with the first: overlap and difference of scores, mean and worst'
    accuracy = _table(title, 'variant', 'found', 'extra', *pairs, *scores)
    for name, row in zip(names, rows, strict=True):
        medians = [times.median if times else None for times in (row.run_ms, row.picture_ms)]
        numbers = [_number(value, 2) for value in (*medians, row.speed_up)]
        speed.add_row(name, Text(row.backend or '-'), Text(without_commands(row.precision) or '-'), *numbers)
        one = row.agreement
        if one is None:
            accuracy.add_row(name, 'failed')
            continue
        values = [one.mean_iou, one.worst_iou, one.mean_score_difference, one.worst_score_difference]
        if pictures.with_truth:
            values += [row.score.ap50, row.score.ap50_95] if row.score else [None, None]
        accuracy.add_row(name, f'{one.found}/{one.expected}', str(one.extra), *map(_number, values))
    out.print(speed, accuracy)
    if pictures.unread:
        out.print(f'verdict: {pictures.unread} pictures could not be read', style='bold red')
    if not checks:
        out.print('verdict: nothing to compare, give a second model', style='bold')
        return
    verdict = _table('thresholds', 'variant', 'what', 'wanted', 'measured', '')
    for check in checks:
        texts = (check.model, check.what, check.wanted, check.measured, 'holds' if check.holds else 'missed')
        verdict.add_row(
            *(Text(without_commands(text)) for text in texts), style=None if check.holds else 'red'
        )
    out.print(verdict)
    missed = sum(not check.holds for check in checks)
    words = f'{missed} of {len(checks)} thresholds missed' if missed else 'all thresholds hold'
    words += ' for the other pictures' if pictures.unread else ''
    out.print(f'verdict: {words}', style='bold', highlight=False)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=Text(title, style='bold'), title_justify='left', box=SIMPLE_HEAD)
    for heading in headings:
        is_text = heading in ('variant', 'backend', 'precision', 'what')
        table.add_column(heading, justify='left' if is_text else 'right', overflow='fold')
    return table


# ---- the plot ------------------------------------------------------------------------------------

PLOT_HW = 480, 960
PLOT_BORDER = 64  # pixels for the numbers and titles
PLOT_LEGEND = 300  # and for the names at the right
MARGIN = 0.15  # of the range of the values, left free around them
STEPS = 1, 2, 5, 10  # between two numbers on an axis, times a power of ten
DARK, GREY = (40, 40, 40), (200, 200, 200)  # blue, green, red


def draw_plot(rows: Sequence[Row]) -> np.ndarray:
    """Draw pictures per second against accuracy, a dot for each variant: (H, W, 3) uint8, BGR."""
    done = [(row, name) for row, name in zip(rows, _short_names(rows), strict=True) if row.picture_ms]
    scores = [row.score for row, _ in done]
    speeds = [1e3 / row.picture_ms.median for row, _ in done if row.picture_ms]
    if None in scores:
        title = 'share of the objects of the first found again'
        accuracies = [(row.agreement.share if row.agreement else None) or 0.0 for row, _ in done]
    else:
        title, accuracies = 'mAP50-95', [score.ap50_95 for score in scores if score]
    height, width = PLOT_HW
    left, top, right, bottom = PLOT_BORDER, PLOT_BORDER, width - PLOT_LEGEND, height - PLOT_BORDER
    plot = np.full((height, width, 3), 255, np.uint8)
    across, up = _axis(speeds, left, right), _axis(accuracies, bottom, top)
    for value in across.ticks:
        x = across.place(value)
        cv2.line(plot, (x, top), (x, bottom), GREY)
        _write(plot, f'{value:g}', (x - 10, bottom + 18))
    for value in up.ticks:
        y = up.place(value)
        cv2.line(plot, (left, y), (right, y), GREY)
        _write(plot, f'{value:g}', (8, y + 4))
    cv2.rectangle(plot, (left, top), (right, bottom), DARK)
    _write(plot, title, (left, top - 16))
    _write(plot, 'pictures per second, from picture to detections', (left, height - 16))
    for number, ((_, name), speed, accuracy) in enumerate(zip(done, speeds, accuracies, strict=True)):
        legend = right + 20, top + 10 + 24 * number
        for centre in ((across.place(speed), up.place(accuracy)), legend):
            cv2.circle(plot, centre, 6, class_colour(number), -1, cv2.LINE_AA)
        label = Path(name).name.encode('ascii', 'replace').decode()  # OpenCV's fonts know no more
        _write(plot, label, (legend[0] + 14, legend[1] + 4))
    return plot


@dataclass(frozen=True)
class Axis:
    """From a value to its place in pixels."""

    low: float
    high: float
    first: int  # pixel of `low`
    last: int  # pixel of `high`
    ticks: tuple[float, ...]

    def place(self, value: float) -> int:
        return round(self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first))


def _axis(values: Sequence[float], first: int, last: int) -> Axis:
    """Choose the range of an axis, with round numbers on it."""
    spread = max(values) - min(values) or abs(values[0]) or 1.0
    low, high = min(values) - MARGIN * spread, max(values) + MARGIN * spread
    power = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * power for step in STEPS if step * power >= (high - low) / 5)
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return Axis(low, high, first, last, tuple(number * step for number in numbers))


def _write(plot: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(plot, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, DARK, 1, cv2.LINE_AA)
