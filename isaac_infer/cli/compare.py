"""`isaac-infer compare`: speed and accuracy of several variants of one model, and whether they are enough."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import cv2
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.build import add_build_only_option, build_only
from isaac_infer.cli.models import (
    add_task_option,
    check_task,
    find_task,
    model_file,
    model_path,
    open_detector,
)
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.precision import CUSTOMARY, require_pycocotools
from isaac_infer.cli.progress import BuildProgress
from isaac_infer.cli.report import STANDARD_OUTPUT, add_json_option, check_report, write_report
from isaac_infer.cli.run import show_note
from isaac_infer.cli.scores import Agreeing, Measure, Score, Scoring, check_kinds, measure_of
from isaac_infer.cli.truth import Known, Truth, draw_known, read_maps, read_truth, scenes_truth
from isaac_infer.core.build_options import PRECISIONS
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import IsaacInferError, ParameterError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import Agreement
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.source import HUMANOIDS, SYNTHETIC, Source, open_source, open_sources
from isaac_infer.core.text import without_commands
from isaac_infer.core.timing import Timings, summarise
from isaac_infer.engine.engines import calibration_frames
from isaac_infer.engine.files import check_place, working_folder, write_whole
from isaac_infer.engine.load import (
    BACKENDS,
    file_sha256,
    find_spec,
    is_engine,
    runs_on_tensorrt,
    unused_precision,
)
from isaac_infer.engine.variants import ONNX_PRECISIONS, save_variant
from isaac_infer.params import DetectionParams

PLOT_SUFFIX = '.png'
PLOT_SOFTWARE = 'isaac-infer compare'  # in the file, so that no other picture is overwritten
PLOT_HEAD = 1024  # bytes; texts come before the pixels
LONGEST_LABEL = 40  # letters; with more, the legend leaves no room for the dots
FEW_OBJECTS = 100  # of the reference, with which shares are coarse


MAP_LOSS = 0.02
MEAN_CLASS_IOU = 0.9  # on average over the classes; semantic models differ by more than by rounding below it

REFERENCE_BACKEND, REFERENCE_PRECISION = 'onnxruntime', 'fp32'  # where one model is compared with itself


@dataclass(frozen=True)
class Sample:
    """One picture of the comparison."""

    name: str
    frame: Frame
    known: Known | None  # None where nobody knows what is in it


@dataclass(frozen=True)
class Check:
    """One threshold, and what was measured."""

    model: str
    what: str
    wanted: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Wanted:
    """One variant that is asked for."""

    params: DetectionParams
    precision: str = ''  # of a model that is given in several; empty: as its file is

    @property
    def path(self) -> str:
        return model_path(self.params)

    @property
    def file(self) -> Path:
        return model_file(self.params)


class Variant:
    """One variant at work: how what it found so far is measured, and how long that took."""

    def __init__(self, wanted: Wanted, pipeline: Pipeline | None, failure: str = '') -> None:
        self.wanted, self.path, self.pipeline = wanted, wanted.path, pipeline
        self.failure = failure  # why it is out; empty: it is not
        self.agreeing: Agreeing  # with the reference
        self.scoring: Scoring | None = None  # where truth is known
        self.run_ms: list[float] = []
        self.picture_ms: list[float] = []  # from the picture to what is found


class Pictures:
    """Which pictures were compared so far."""

    def __init__(self) -> None:
        self.count = 0
        self.unread = 0
        self.with_truth = 0


@dataclass(frozen=True)
class Row:
    """What is said of one variant; None: not measured, because it failed or because nobody can know."""

    model: str
    sha256: str
    failure: str
    backend: str
    precision: str  # as it was asked for, or as the file tells it; empty where it does not
    run_ms: Timings | None
    picture_ms: Timings | None
    speed_up: float | None  # of the median from picture to result
    agreement: Agreement | None  # of the reference with itself: perfect
    score: Score | None


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
        'compared; for semantic models a folder of class maps, 8-bit grey PNG named as the pictures, 255 '
        'where a pixel does not count',
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
    variants = _wanted(args, params)
    task, why = (args.task, '') if args.task else find_task(variants[0].params)
    if args.build_only:
        return build_only(_to_build(variants, args, params), args.json, task=task)
    if not args.source:
        raise ParameterError('source: expected pictures, got none; give --source')
    cv2.setNumThreads(1)  # as the nodes do: OpenCV's threads take cores from those of the network
    out = Console(stderr=args.json == STANDARD_OUTPUT)
    sources = ', '.join(args.source)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_sources(args.source))
        if source.is_live or HUMANOIDS in args.source:
            raise ParameterError(f'source: expected pictures that come to an end, got {sources}')
        truth = _truth(args, params, task, source)
        read = [*source.paths, *([Path(args.truth)] if args.truth else [])]
        read += truth.maps.values() if truth and truth.maps else []
        read += [variant.file for variant in variants]
        for variant in variants:
            check_report(args.json, variant.params, read)
        if args.plot:
            _check_plot(args.plot, args.source, read, args.json)
        at_work = [
            _open(variant, task, stack, is_reference=number == 0) for number, variant in enumerate(variants)
        ]
        measure, truth = _begin(at_work, truth, args)
        pictures = _work(at_work, args, source, truth, measure, out)
        rows = _rows(at_work)
        notes = [f'task {task}: {why}'] if why else []
        notes += [*_notes(rows, measure), *_notes_of_precision(at_work, rows, args, params, source)]
    checks = _checks(rows, measure, args)
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
        'variants': [_as_dict(row) for row in rows],
        'checks': [asdict(check) for check in checks],
        'holds': holds,
        'notes': notes,
    }
    write_report(args.json, report)
    _show(rows, checks, measure, pictures, notes, out)
    if args.plot:
        write_plot(rows, measure, args.plot, title=_title(rows, pictures))
        out.print(f'written: {without_commands(str(args.plot))}', markup=False, highlight=False)
    return code


# ---- what is asked for ---------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    """Read `fp32,fp16`; each once, in this order."""
    return list(dict.fromkeys(word.strip() for word in text.split(',') if word.strip()))


def _wanted(args: argparse.Namespace, params: DetectionParams) -> list[Wanted]:
    """List the variants: the models as they are, or each ONNX model in all precisions on all backends.

    Raises:
        ModelError: a model is not there.
        ParameterError: a precision or a backend is unknown or lacks something, or the first model is no ONNX
            model.
    """
    first = [model_path(params)] if params.model_file_path or params.engine_file_path else []
    if not (first or args.models):
        raise ParameterError('MODEL: expected at least one model, got none; name them first, before --source')
    models = [params.changed(model_file_path=model, engine_file_path='') for model in (*first, *args.models)]
    paths = [model_file(model) for model in models]
    if not (args.precisions or args.backends):
        return [Wanted(model) for model in models]
    for option, known in (('precisions', PRECISIONS), ('backends', BACKENDS)):
        unknown = [word for word in getattr(args, option) if word not in known]
        if unknown:
            raise ParameterError(f'{option}: expected some of {", ".join(known)}, got {", ".join(unknown)}')
    if is_engine(paths[0]):
        raise ParameterError(f'precisions, backends: expected an ONNX model first, got {paths[0]}')
    reference = Wanted(models[0].changed(backend=REFERENCE_BACKEND), REFERENCE_PRECISION)
    variants = [reference]
    for model, path in zip(models, paths, strict=True):
        if is_engine(path):
            variants.append(Wanted(model))
            continue
        for backend in args.backends or [params.backend]:
            on_tensorrt = runs_on_tensorrt(path, backend, params.providers)
            named = model.changed(backend='tensorrt' if on_tensorrt else 'onnxruntime')
            # Without a list: what TensorRT is asked for, and the file as it is on ONNX Runtime.
            for precision in args.precisions or [params.precision if on_tensorrt else REFERENCE_PRECISION]:
                variants.append(Wanted(named.changed(precision=precision), precision))
    once: dict[tuple[str, str, str], Wanted] = {}
    for each in variants:
        once.setdefault((each.path, each.params.backend, each.precision), each)
    for each in once.values():
        _check_precision(each)
    return list(once.values())


def _check_precision(wanted: Wanted) -> None:
    """See before the work that a precision can be given, as far as that can be known.

    Raises:
        ParameterError: ONNX Runtime does not have it, or there are no pictures to calibrate it on.
    """
    precision, params = wanted.precision, wanted.params
    is_on_onnxruntime = params.backend == 'onnxruntime'
    if is_on_onnxruntime and precision and precision not in ONNX_PRECISIONS:
        raise ParameterError(
            f'precisions: expected some of {", ".join(ONNX_PRECISIONS)} on ONNX Runtime, got {precision}; '
            'leave it out, or give --backends tensorrt'
        )
    path = params.calibration_path
    # TensorRT may find an engine although its pictures are gone.
    if precision == 'int8' and (is_on_onnxruntime or not path or os.path.isdir(os.path.expanduser(path))):
        next(calibration_frames(params.engine_options()))  # one that can be read is enough


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


def _check_plot(plot: Path, sources: Sequence[str], read: Sequence[Path], report: str) -> None:
    """See before the work that the plot can and may be written, and will be nobody's picture.

    Raises:
        ParameterError: it cannot.
    """
    if importlib.util.find_spec('matplotlib') is None:
        raise ParameterError('--plot needs matplotlib; install it: pip install matplotlib')
    if plot.suffix.lower() != PLOT_SUFFIX:
        raise ParameterError(f'--plot {plot}: expected a name that ends in {PLOT_SUFFIX}')
    if plot.exists() and not plot.is_file():
        raise ParameterError(f'--plot {plot}: expected a file, got a folder, pipe or device')
    if report and os.path.realpath(plot) == os.path.realpath(report):
        raise ParameterError(f'--plot {plot}: is the file of --json, too; give another')
    is_read = any(plot.exists() and path.exists() and plot.samefile(path) for path in read)
    if is_read or plot.parent.resolve() in [Path(source).resolve() for source in sources]:
        raise ParameterError(
            f'--plot {plot}: would be one of the pictures that are compared; give another folder'
        )
    check_place(plot, '--plot', _is_plot, 'such plot')


def _is_plot(path: Path) -> bool:
    """Tell whether a file is empty, or a plot that was written here."""
    with path.open('rb') as file:
        head = file.read(PLOT_HEAD)
    return not head or f'tEXtSoftware\0{PLOT_SOFTWARE}'.encode() in head


def _to_build(
    variants: Sequence[Wanted], args: argparse.Namespace, params: DetectionParams
) -> list[DetectionParams]:
    """What `--build-only` opens: all, or of one model in several precisions those of TensorRT."""
    built = [each.params for each in variants if each.params.backend != REFERENCE_BACKEND]
    if built:
        return built
    # As it was asked for: that nothing is built is fine only where ONNX Runtime was.
    asked = next((each for each in args.backends or [params.backend] if each != 'onnxruntime'), 'onnxruntime')
    return [variants[0].params.changed(backend=asked)]


def _truth(args: argparse.Namespace, params: DetectionParams, task: str, source: Source) -> Truth | None:
    """Find out what is known of the pictures; of drawn scenes it is known when they are drawn."""
    is_drawn = _is_drawn(args)
    if not is_drawn and not args.truth:
        if args.max_map_loss is not None:
            raise ParameterError('max-map-loss: nobody knows what is in the pictures; give --truth')
        return None
    if is_drawn and args.truth:
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


def _is_drawn(args: argparse.Namespace) -> bool:
    return bool(args.source == [SYNTHETIC])


# ---- the work ------------------------------------------------------------------------------------


def _open(wanted: Wanted, task: str, stack: contextlib.ExitStack, *, is_reference: bool) -> Variant:
    """Open a variant; one that does not open is out, but nothing can be compared without the reference."""
    try:
        params = wanted.params
        if wanted.precision and params.backend == 'onnxruntime':
            folder = stack.enter_context(working_folder('compare'))
            with BuildProgress() as say:
                place = save_variant(
                    wanted.file,
                    folder,
                    precision=wanted.precision,
                    options=params.engine_options(),
                    overrides=params.overrides(read_class_names(params.class_names)),
                    find_spec=partial(find_spec, task=task),
                    say=say,
                )
            params = params.changed(model_file_path=str(place))
        return Variant(wanted, stack.enter_context(contextlib.closing(open_detector(params, task=task))))
    except IsaacInferError as error:
        # What is asked for wrongly is wrong for all variants; a precision may lack something of its own.
        if is_reference or (isinstance(error, ParameterError) and not wanted.precision):
            raise
        return Variant(wanted, None, _failed(wanted, error))


def _failed(wanted: Wanted, error: Exception) -> str:
    """Say that a variant is out; gives the reason."""
    reason = str(error).splitlines()[0]
    for told in (wanted.path, Path(wanted.path).name):
        reason = reason.removeprefix(f'{told}: ')
    name = ' '.join([wanted.path, *([wanted.precision, wanted.params.backend] if wanted.precision else [])])
    print(f'isaac-infer: error: {without_commands(f"{name}: {reason}")}', file=sys.stderr)
    return reason


def _begin(
    variants: Sequence[Variant], truth: Truth | None, args: argparse.Namespace
) -> tuple[Measure, Truth | None]:
    """Find out how what the variants answer is measured, now that they are open, and begin to.

    Raises:
        ParameterError: they answer different things, or others than are in the truth.
    """
    reference = variants[0].pipeline
    assert reference is not None  # or it would not be there
    measure = measure_of(reference.spec)
    if truth and _is_drawn(args):
        truth = scenes_truth(measure.kind)
    elif truth:
        check_kinds(truth, measure, args.truth)
        truth = replace(truth, num_classes=reference.spec.num_classes)
    for variant in variants:
        if variant.pipeline is None:
            continue
        spec = variant.pipeline.spec
        try:
            if measure_of(spec) is not measure:
                raise ParameterError(
                    f'expected {measure.kind}, as the first gives, got {measure_of(spec).kind}'
                )
            variant.agreeing = measure.agreeing(reference, variant.pipeline, args.iou)
            variant.scoring = measure.scoring(spec, reference.spec, truth) if truth else None
        except ParameterError as error:
            raise ParameterError(f'{variant.path}: {error}') from error
    return measure, truth


def _work(
    variants: Sequence[Variant],
    args: argparse.Namespace,
    source: Source,
    truth: Truth | None,
    measure: Measure,
    out: Console,
) -> Pictures:
    """Answer all pictures with all variants, in turns, so that a slow moment of the machine hits all."""
    pictures = Pictures()
    progress = out.status('comparing')
    with progress:
        for sample in _samples(args, source, truth, measure, pictures):
            number = pictures.count
            progress.update(f'comparing: picture {number + 1}')
            pictures.with_truth += sample.known is not None
            found: dict[int, Any] = {}
            # Each comes first once, because what runs after another finds its caches cold.
            turn = number % len(variants)
            for index in [*range(turn, len(variants)), *range(turn)]:
                variant = variants[index]
                if variant.failure:
                    continue
                try:
                    found[index] = _answer(variant, sample, measure)
                except IsaacInferError as error:
                    if index == 0:
                        raise type(error)(f'{variant.path}: {sample.name}: {error}') from error
                    variant.failure = _failed(variant.wanted, type(error)(f'{sample.name}: {error}'))
            for index, result in found.items():  # at once, because masks take much memory
                variants[index].agreeing.add(found[0], result)
            pictures.count += 1
    if not pictures.count:
        raise SourceError(f'{", ".join(args.source)}: expected pictures, got none that can be read')
    return pictures


def _samples(
    args: argparse.Namespace, source: Source, truth: Truth | None, measure: Measure, pictures: Pictures
) -> Iterator[Sample]:
    """Give the pictures one by one, with what is in them; those that cannot be read are reported."""
    if _is_drawn(args):
        for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + args.scenes):
            image, known = draw_known(seed, pictures.count, measure.kind)
            yield Sample(f'{SYNTHETIC} {seed}', Frame(image), known if truth else None)
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
        height, width = picture.image.shape[:2]
        known = truth.known(picture.name, pictures.count, (height, width)) if truth else None
        yield Sample(picture.name, Frame(picture.image), known)


def _answer(variant: Variant, sample: Sample, measure: Measure) -> Any:
    """Let a variant answer one picture, as a node would; where truth is known, once more for the metric."""
    pipeline = variant.pipeline
    assert pipeline is not None  # or it would have failed
    if not variant.run_ms:
        pipeline(sample.frame)  # the first picture of a size takes longer
    found = pipeline(sample.frame)
    times = pipeline.times
    variant.run_ms.append(times.run_ms)
    variant.picture_ms.append(times.prepare_ms + times.run_ms + times.decode_ms)
    if sample.known is None or variant.scoring is None:
        return found
    if not measure.has_objects:
        variant.scoring.add(sample.known, found)
        return found
    usual, customary = pipeline.limits, cast(dict[str, Any], CUSTOMARY)
    pipeline.limits = replace(usual, **customary)  # nearly every answer counts, which takes longer
    try:
        variant.scoring.add(sample.known, pipeline(sample.frame))
    finally:
        pipeline.limits = usual
    return found


# ---- what came of it -----------------------------------------------------------------------------


def _rows(variants: Sequence[Variant]) -> list[Row]:
    usual_ms = summarise(variants[0].picture_ms).median
    rows = []
    for variant in variants:
        wanted, path = variant.wanted, variant.wanted.file
        backend = wanted.params.backend if wanted.precision else ''
        row = Row(str(path), file_sha256(path), variant.failure, backend, wanted.precision, *([None] * 5))
        if variant.pipeline:
            session = variant.pipeline.session
            precision = wanted.precision or str(session.metadata.get('precision', ''))
            row = replace(row, backend=session.backend, precision=precision)
        if not variant.failure:
            picture_ms = summarise(variant.picture_ms)
            row = replace(
                row,
                run_ms=summarise(variant.run_ms),
                picture_ms=picture_ms,
                speed_up=usual_ms / picture_ms.median,
                agreement=variant.agreeing.agreement(),
                score=variant.scoring.score() if variant.scoring else None,
            )
        rows.append(row)
    return rows


def _checks(rows: Sequence[Row], measure: Measure, args: argparse.Namespace) -> list[Check]:
    """Compare every variant but the reference with the thresholds; what cannot be measured does not hold."""
    checks = []
    least_mean_iou = args.min_mean_iou
    if least_mean_iou is None and not measure.has_objects:
        least_mean_iou = MEAN_CLASS_IOU
    for row, name in list(zip(rows, _short_names(rows), strict=True))[1:]:
        if row.failure:
            checks.append(Check(name, 'runs', 'without an error', 'failed', False))
            continue
        agreed = row.agreement
        assert agreed is not None
        at_least = {
            measure.again: (agreed.share, args.min_agreement),
            f'{measure.overlap}, mean': (agreed.mean_iou, least_mean_iou),
            f'{measure.overlap} of the worst {measure.worst}': (agreed.worst_iou, args.min_iou),
            'speed-up': (row.speed_up, args.min_speed_up),
        }
        at_most = {
            'extra objects': (agreed.extra_share, args.max_extra if measure.has_objects else None),
            'score difference of the worst pair': (agreed.worst_score_difference, args.max_score_difference),
        }
        if row.score and rows[0].score:
            most_lost = MAP_LOSS if args.max_map_loss is None else args.max_map_loss
            loss = rows[0].score[measure.main_score] - row.score[measure.main_score]
            at_most[f'loss of {measure.scores[measure.main_score]}'] = loss, most_lost
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
    """The variants' file names, or what tells them apart: paths, or precision and backend of one model."""
    names = [Path(row.model).name for row in rows]
    models = {row.model for row in rows}
    if len(set(names)) == len(names):
        return names
    if len(models) == len(rows):
        return [row.model for row in rows]
    parts = [(name, row.precision, row.backend.partition(' ')[0]) for name, row in zip(names, rows)]
    is_one = len(models) == 1 and all(row.precision for row in rows)
    return [' '.join(filter(None, each[1:] if is_one else each)) for each in parts]


def _number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _show(
    rows: Sequence[Row],
    checks: Sequence[Check],
    measure: Measure,
    pictures: Pictures,
    notes: Sequence[str],
    out: Console,
) -> None:
    names = [Text(without_commands(name)) for name in _short_names(rows)]
    times = 'run', 'picture', 'faster'
    if len({row.model for row in rows}) == 1:
        model = without_commands(rows[0].model)
        out.print(f'model: {model}', markup=False, highlight=False, soft_wrap=True)
    title = f'speed, {pictures.count} pictures, median milliseconds of the network and of all'
    speed = _table(title, 'variant', *times)
    scores = measure.scores.values() if pictures.with_truth else []
    if measure.has_objects:
        title = f'agreement with the first: {measure.overlap} and difference of scores, mean and worst'
        pairs = ['found', 'extra', measure.overlap, 'worst', 'score', 'worst']
    else:
        title = f'agreement with the first: equal {measure.things}; {measure.overlap}, mean and worst'
        pairs = ['equal', measure.overlap, 'worst']
    accuracy = _table(title, 'variant', *pairs, *scores)
    for name, row in zip(names, rows, strict=True):
        medians = [times.median if times else None for times in (row.run_ms, row.picture_ms)]
        numbers = [_number(value, 2) for value in (*medians, row.speed_up)]
        one = row.agreement
        if one is None:
            speed.add_row(name, 'failed')
            continue
        speed.add_row(name, *numbers)
        counted = [_number(one.share, 4)]
        values = [one.mean_iou, one.worst_iou]
        if measure.has_objects:
            counted = [f'{one.found}/{one.expected}', str(one.extra)]
            values += [one.mean_score_difference, one.worst_score_difference]
        if pictures.with_truth:
            values += [row.score[key] if row.score else None for key in measure.scores]
        accuracy.add_row(name, *counted, *map(_number, values))
    out.print(speed, accuracy)
    for name, row in zip(names, rows, strict=True):
        said = row.failure or ', '.join(filter(None, (row.backend, row.precision)))
        text = Text.assemble(name, ': ', without_commands(said))
        out.print(text, style='red' if row.failure else 'dim', highlight=False, soft_wrap=True)
    for note in notes:
        show_note(note, out)
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


def _notes(rows: Sequence[Row], measure: Measure) -> list[str]:
    """What the numbers do not say."""
    notes = []
    expected = rows[0].agreement.expected if rows[0].agreement else 0
    if measure.has_objects and 0 < expected < FEW_OBJECTS:
        share = f'one more or less is {100 / expected:.0f} %'
        notes.append(f'the first finds {expected} {measure.things} in all: {share}')
    if any(row.precision in ('fp16', 'int8') and 'CPUExecutionProvider' in row.backend for row in rows):
        notes.append('how fast fp16 and int8 are on the CPU says nothing of a GPU')
    return notes


def _notes_of_precision(
    variants: Sequence[Variant],
    rows: Sequence[Row],
    args: argparse.Namespace,
    params: DetectionParams,
    source: Source,
) -> list[str]:
    """What was asked for and makes no difference, and what flatters INT8."""
    sessions = [variant.pipeline.session for variant in variants if variant.pipeline]
    unused = [unused_precision(args.precision, session) for session in sessions]
    notes = unused[:1] if all(unused) and not args.precisions else []
    quantised = [row for row in rows if row.precision == 'int8' and not row.failure]
    if params.calibration != 'qdq' and any(row.backend.startswith('onnxruntime') for row in quantised):
        notes.append(
            f'calibration {params.calibration} is one of TensorRT; on ONNX Runtime int8 is calibrated as qdq'
        )
    seen = _calibrated_on(params, source) if quantised else 0
    if seen:
        notes.append(
            f'int8 is calibrated on {seen} of the {len(source.paths)} files of {", ".join(args.source)}: '
            'of pictures that it has not seen it may be worse'
        )
    return notes


def _calibrated_on(params: DetectionParams, source: Source) -> int:
    """How many of the files that are compared are those of the calibration."""
    try:
        with open_source(params.calibration_path) as calibration:
            paths = {os.path.realpath(path) for path in calibration.paths}
    except SourceError:
        return 0  # an engine may be there although its pictures are gone
    return sum(os.path.realpath(path) in paths for path in source.paths)


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=Text(title, style='bold'),
        title_justify='left',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in headings:
        is_text = heading in ('variant', 'what')
        # In two lines, or a table of masks would be wider than 80 columns.
        table.add_column(
            heading if is_text else heading.replace(' ', '\n'),
            justify='left' if is_text else 'right',
            overflow='fold',
        )
    return table


# ---- the plot ------------------------------------------------------------------------------------


def write_plot(rows: Sequence[Row], measure: Measure, place: Path, *, title: str) -> None:
    """Write the plot as a PNG file.

    Raises:
        ParameterError: the file cannot be written; what was there is still there.
    """
    try:
        write_whole(place, draw_plot(rows, measure, title=title))
    except OSError as error:
        raise ParameterError(f'--plot {place}: cannot be written: {error.strerror}') from error


def draw_plot(rows: Sequence[Row], measure: Measure, *, title: str) -> bytes:
    """Draw pictures per second against accuracy, a dot for each variant, as PNG; what failed is named."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = list(zip(rows, _short_names(rows), strict=True))
    done = [(row, name) for row, name in named if row.picture_ms]
    scores = [row.score for row, _ in done]
    has_scores = None not in scores
    figure = Figure(figsize=(9.6, 4.8), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlabel('pictures per second, from picture to result')
    agreed = f'{measure.things} of the first: {measure.again}, %'
    axes.set_ylabel(measure.scores[measure.main_score] if has_scores else agreed)
    axes.set_title(title)
    for (row, name), score in zip(done, scores, strict=True):
        assert row.picture_ms and row.agreement
        accuracy = 100 * (row.agreement.share or 0.0)
        if score is not None and has_scores:
            accuracy = score[measure.main_score]
        dot = axes.plot(1e3 / row.picture_ms.median, accuracy, 'o', markersize=9, label=_label(name))
        dot[0].set_clip_on(False)  # half of one at the very top is outside the axes
    for row, name in named:
        if row.failure:
            axes.plot([], [], 'x', markersize=9, color='black', label=f'{_label(name)}: failed')
    axes.margins(0.15)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0 if has_scores else 100.0))
    axes.grid(visible=True, alpha=0.4)
    figure.legend(loc='outside right upper')
    plot = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of letters that the font lacks, which become boxes
        figure.savefig(plot, format='png', dpi=100, metadata={'Software': PLOT_SOFTWARE})
    return plot.getvalue()


def _title(rows: Sequence[Row], pictures: Pictures) -> str:
    models = dict.fromkeys(Path(row.model).name for row in rows)
    of = next(iter(models)) if len(models) == 1 else f'{len(models)} models'
    return f'{_label(of)}, {pictures.count} pictures'


def _label(name: str) -> str:
    label = without_commands(name.rpartition('/')[2])
    if len(label) > LONGEST_LABEL:
        label = f'{label[: LONGEST_LABEL // 2]}...{label[-LONGEST_LABEL // 2 :]}'
    # A dollar sign would begin a formula, and what begins with an underscore would not be in the legend.
    label = label.replace('$', r'\$')
    return f' {label}' if label.startswith('_') else label
