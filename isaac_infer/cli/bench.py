"""`isaac-infer bench`: how fast a model runs, in the words and statistics of trtexec."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.build import add_build_only_option, build_only, with_finder
from isaac_infer.cli.models import (
    ASKED,
    add_model_argument,
    add_task_option,
    check_special_options,
    check_task,
    find_task,
    model_file,
    open_network,
    take_model_argument,
    with_persons,
)
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import add_json_option, check_report, console_beside, failure_in, write_report
from isaac_infer.cli.run import show_model, show_note
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.decode.resolve import input_shapes
from isaac_infer.core.errors import (
    IsaacInferError,
    ModelError,
    ParameterError,
    SessionError,
    SourceError,
    TensorError,
)
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.session import Session, TimedSession
from isaac_infer.core.source import HUMANOIDS, SYNTHETIC, open_source
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.core.text import counted
from isaac_infer.core.timing import Timings, coefficient_of_variation, summarise
from isaac_infer.core.topdown import TopDownPipeline
from isaac_infer.engine.load import (
    file_sha256,
    find_spec,
    is_engine,
    make_pipeline,
    runs_on_tensorrt,
    unused_precision,
)
from isaac_infer.engine.task import FIRST_TASK
from isaac_infer.params import ImageSourceParams, TaskParams

ANSWERS = {'detection': 'detections', 'segmentation': 'masks', 'pose': 'key points'}  # by task
MOST_PICTURES = 32  # of a source, which are held in memory and measured in turn
LONGEST_S = 3600.0
MOST_AT_ONCE = 1024  # pictures of a batch
UNSTABLE = 0.025  # coefficient of variation above which trtexec warns
BOUND_BY_ENQUEUE = 0.8  # median of enqueue time over that of compute time above which trtexec warns

# What a session may tell of a run -> what trtexec calls it.
QUANTITIES = {
    'total': 'latency',
    'enqueue': 'enqueue time',
    'h2d': 'H2D latency',
    'compute': 'GPU compute time',
    'd2h': 'D2H latency',
}


@dataclass(frozen=True)
class Measured:
    """What came of running something again and again."""

    times_ms: Mapping[str, Sequence[float]]  # by quantity, run by run
    walltime_s: float  # of all runs, by the clock of this machine

    @property
    def rate(self) -> float:
        """Runs per second."""
        return len(next(iter(self.times_ms.values()))) / self.walltime_s

    def timings(self) -> dict[str, Timings]:
        return {name: summarise(times) for name, times in self.times_ms.items()}


@dataclass(frozen=True)
class Plan:
    """For how long something is run: what of duration and iterations takes longer."""

    warm_up_ms: float
    duration_s: float
    iterations: int


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `bench` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'bench',
        help='measure how fast a model runs',
        description='Runs a network again and again, one run after the other, and prints throughput and '
        'latency as trtexec does; then, of models for detection, segmentation and pose, the whole way from '
        'the picture to what is found.',
    )
    add_model_argument(parser)
    parser.add_argument(
        '--source',
        metavar='PICTURES',
        default=SYNTHETIC,
        help=f'picture, folder, video or {HUMANOIDS}; the first {MOST_PICTURES} pictures (default: one drawn '
        'scene)',
    )
    size = ImageSourceParams(width=1920, height=1080)
    parser.add_argument(
        '--width', metavar='N', type=int, default=size.width, help='of the drawn scene (default: %(default)s)'
    )
    parser.add_argument(
        '--height',
        metavar='N',
        type=int,
        default=size.height,
        help='of the drawn scene (default: %(default)s)',
    )
    parser.add_argument(
        '--duration',
        metavar='S',
        type=float,
        default=3.0,
        help='seconds that each of the two is measured for at least (default: %(default)g)',
    )
    parser.add_argument(
        '--iterations', metavar='N', type=int, default=10, help='runs at least (default: %(default)s)'
    )
    parser.add_argument(
        '--warm-up',
        metavar='MS',
        type=float,
        default=200.0,
        help='milliseconds of running before the measurement (default: %(default)g)',
    )
    parser.add_argument(
        '--batch',
        metavar='N[,N...]',
        type=_batches,
        default=[],
        help='measure the network with so many pictures at once, too; the model must leave this open',
    )
    add_build_only_option(parser)
    add_json_option(parser)
    add_task_option(parser)
    add_options(parser, TaskParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure a network, and the pipeline around it where it is understood."""
    take_model_argument(args)
    check_task(args.task)
    params = params_from(args, TaskParams)
    with failure_in(args.json, params):
        return _bench(args, params)


def _bench(args: argparse.Namespace, params: TaskParams) -> int:
    plan = _plan(args)
    cv2.setNumThreads(1)  # as the nodes do: OpenCV's threads take cores from those of the network
    ImageSourceParams(width=args.width, height=args.height)
    out = console_beside(args.json)
    path = model_file(params)
    _check_batches(args.batch, path, params)
    task = _task(args, params)
    if args.build_only:
        return build_only(with_finder(params, task), args.json)
    frames = _frames(args, params)
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(open_network(params, task=task))
        _check_open_batch(session, args.batch)
        pipeline, notes = _pipeline(session, params, task)
        if pipeline:
            stack.callback(pipeline.close)  # its twins too
            answering = _top_down(pipeline, params, task)
            if answering is not pipeline:
                stack.callback(answering.close)
                if not len(answering(frames[0])):
                    notes.append('no persons are in the first picture; give pictures of some: --source')
            show_model(answering, out)
            pipeline(frames[0])  # so that the network is measured on a picture
            whole = {'way': f'picture to {ANSWERS[task]}'}
            if answering is not pipeline:
                whole['person_model'] = params.person_model_file_path
        else:
            out.print(session.backend, highlight=False)
            _feed_noise(session)
            whole = {}
        with out.status('measuring'):
            network = _measure_network(session, plan)
            stages = _measure_pipeline(answering, frames, plan) if pipeline else None
            # Last, because it changes the shapes of the session's buffers.
            fed = _fed(session, pipeline, frames[0]) if args.batch else {}
            batches = {number: _measure_batch(session, fed, number, plan) for number in args.batch}
        notes += filter(None, [unused_precision(args.precision, session)])
        notes += _warnings(network)
        report: dict[str, Any] = {
            'model': str(path),
            'sha256': file_sha256(path),
            'backend': session.backend,
            'fallbacks': list(session.fallbacks),
            **asdict(plan),
            'transfers': _transfers(session, network),
            'throughput_qps': network.rate,
            'walltime_s': network.walltime_s,
            'network_ms': _as_dict(network),
            'batches': [
                {
                    'batch': number,
                    'pictures_per_s': number * measured.rate,
                    'throughput_qps': measured.rate,
                    'walltime_s': measured.walltime_s,
                    'network_ms': _as_dict(measured),
                }
                for number, measured in batches.items()
            ],
            'pipeline': None
            if stages is None
            else {
                **whole,
                'source': args.source,
                'pictures': len(frames),
                'sizes_wh': sorted({frame.size_hw[::-1] for frame in frames}),
                'fps': stages.rate,
                'stages_ms': _as_dict(stages),
            },
            'notes': notes,
        }
    write_report(args.json, report)
    _show(report, network, batches, stages, out)
    return 0


def _batches(text: str) -> list[int]:
    """Read `1,4,8`; each once, in this order."""
    try:
        numbers = [int(part) for part in text.split(',')]
    except ValueError:
        numbers = [0]
    if not 1 <= min(numbers) <= max(numbers) <= MOST_AT_ONCE:
        raise argparse.ArgumentTypeError(
            f'expected numbers of pictures up to {MOST_AT_ONCE}, such as 1,4,8, got {text[:40]!r}'
        )
    return list(dict.fromkeys(numbers))


def _plan(args: argparse.Namespace) -> Plan:
    # Written so that NaN fails too.
    if not 0 <= args.duration <= LONGEST_S:
        raise ParameterError(f'duration: expected 0 to {LONGEST_S:g} s, got {args.duration:g}')
    if args.iterations < 1:
        raise ParameterError(f'iterations: expected at least 1, got {args.iterations}')
    if not 0 <= args.warm_up <= LONGEST_S * 1e3:
        raise ParameterError(f'warm-up: expected 0 to {LONGEST_S * 1e3:g} ms, got {args.warm_up:g}')
    return Plan(args.warm_up, args.duration, args.iterations)


def _frames(args: argparse.Namespace, params: TaskParams) -> list[Frame]:
    """Read the pictures that are measured.

    Raises:
        SourceError: there are none, or one cannot be read.
        ParameterError: the report may not be written.
    """
    size_hw = args.height, args.width
    with open_source(args.source, size_hw=size_hw, seed=FIRST_HELD_OUT_SEED) as source:
        check_report(args.json, params, source.paths)
        most = 1 if args.source == SYNTHETIC else MOST_PICTURES
        frames = [Frame(picture.image) for picture in islice(source, most)]
    if not frames:
        raise SourceError(f'{args.source}: expected pictures, got none')
    return frames


def _task(args: argparse.Namespace, params: TaskParams) -> str:
    """What a model is for; where that is not clear, it is looked at as a detector."""
    try:
        task, why = (args.task, ASKED) if args.task else find_task(params)
    except ParameterError:
        return FIRST_TASK
    check_special_options(args, params, task, why)
    return task


def _pipeline(session: Session, params: TaskParams, task: str) -> tuple[Pipeline | None, list[str]]:
    """Make the pipeline around a network; or None, and a note that says why it is not understood."""
    path = model_file(params)
    overrides = params.overrides(read_class_names(params.class_names))
    try:
        spec = find_spec(session, path, overrides, task=task)
    except (ModelError, SessionError) as error:
        return None, [
            f'the network alone is measured, it is not understood (task {task}): {_first_line(error)}'
        ]
    limits = params.limits(spec.class_names, spec.num_classes)
    return make_pipeline(session, spec, limits, params.engine_options()), []


def _top_down(pipeline: Pipeline, params: TaskParams, task: str) -> Pipeline | TopDownPipeline:
    """The pipeline that is measured: with what finds the persons before it, where that is named."""
    return with_persons(pipeline, params) if task == 'pose' and params.person_model_file_path else pipeline


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _noise(spec: TensorSpec) -> np.ndarray:
    """What trtexec fills inputs with: numbers from 0 to 1, and whole ones with 0."""
    array = np.zeros([max(length, 1) for length in spec.shape], spec.dtype)
    if array.dtype.kind == 'f':
        array[...] = np.random.default_rng(0).random(array.shape)
    return array


def _feed_noise(session: Session) -> None:
    for spec in session.inputs:
        array = _noise(spec)
        try:
            session.input_buffer(spec.name, array.shape)[...] = array
        except IsaacInferError as error:
            raise ModelError(f'{spec}: cannot be fed: {error}; give --input-size') from error


# ---- batches -------------------------------------------------------------------------------------


def _check_batches(batches: Sequence[int], path: Path, params: TaskParams) -> None:
    """See before an engine is built that it can take these batches.

    Raises:
        ParameterError: the engine's shapes do not hold them; says which do.
    """
    if not batches or is_engine(path) or not runs_on_tensorrt(path, params.backend, params.providers):
        return
    with open_network(params.changed(backend='onnxruntime', providers=[])) as session:
        _check_open_batch(session, batches)
        overrides = params.overrides(read_class_names(params.class_names))
        known = input_shapes(session.inputs, session.metadata, overrides, file_name=path.name)
        wanted = []
        for spec in session.inputs:
            if spec.shape[:1] != (-1,):
                continue
            rest = known.get(spec.name, tuple(max(length, 1) for length in spec.shape))[1:]
            # One picture too: the whole way from picture to detections is measured with one.
            wanted.append((spec.name, (1, *rest), (max(batches), *rest)))
    given = params.engine_options().build.shapes
    if all(
        name in given and _fits_between(low, given[name]) and _fits_between(high, given[name])
        for name, low, high in wanted
    ):
        return
    texts = [f'{name}={_by(low)},{_by(high)},{_by(high)}' for name, low, high in wanted]
    raise ParameterError(
        f'batch: an engine takes the shapes that it is built for; give --engine-shapes {" ".join(texts)}'
    )


def _fits_between(shape: Sequence[int], shapes: tuple[Sequence[int], ...]) -> bool:
    """Tell whether a shape lies between the smallest and the largest of a profile."""
    low, _, high = shapes
    return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))


def _by(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape))


def _check_open_batch(session: Session, batches: Sequence[int]) -> None:
    """See that the first axis of an input is open, or that no other length is asked for than it has.

    Raises:
        ParameterError: it is not.
    """
    lengths = {spec.shape[0] for spec in session.inputs if spec.shape}
    if -1 not in lengths and not set(batches) <= lengths:
        inputs = ', '.join(str(spec) for spec in session.inputs)
        raise ParameterError(
            f'batch: expected a model that leaves the number of pictures open, got {inputs}; export it with '
            'a dynamic batch'
        )


def _fed(session: Session, pipeline: Pipeline | None, frame: Frame) -> dict[str, np.ndarray]:
    """What one picture's inputs hold, by name: a picture where the network is understood, else noise."""
    fed = {spec.name: _noise(spec) for spec in session.inputs}
    if pipeline:
        image = pipeline.spec.image
        fed[image.name] = np.zeros(image.shape, image.dtype)
        Preparer(image)(frame, into=fed[image.name])
        if pipeline.spec.size_input:
            sizes = fed[pipeline.spec.size_input]
            fed[pipeline.spec.size_input] = np.broadcast_to(image.size_hw[::-1], (1, 2)).astype(sizes.dtype)
    return fed


def _measure_batch(session: Session, fed: Mapping[str, np.ndarray], batch: int, plan: Plan) -> Measured:
    """Run the network on so many pictures at once, all the same one."""
    try:
        for spec in session.inputs:
            array = fed[spec.name]
            is_open = spec.shape[:1] == (-1,)
            shape = (batch, *array.shape[1:]) if is_open else array.shape
            session.input_buffer(spec.name, shape)[...] = array
        return _measure_network(session, plan)
    except TensorError as error:
        raise ParameterError(f'batch {batch}: {error}') from error
    except SessionError as error:
        raise SessionError(f'batch {batch}: {error}; was it exported with a dynamic batch?') from error


def _measure_network(session: Session, plan: Plan) -> Measured:
    """Run the network: by the clocks of its device where it tells them, else by that of this machine."""
    if not isinstance(session, TimedSession):
        return measure(lambda: {QUANTITIES['total']: _timed(session.run)}, plan)

    def run() -> Mapping[str, float]:
        told: dict[str, float] = {}
        host_ms = _timed(lambda: told.update(session.run_timed()))
        told = {'total': host_ms, **told}
        return {name: told[key] for key, name in QUANTITIES.items() if key in told}

    return measure(run, plan)


def _measure_pipeline(pipeline: Pipeline | TopDownPipeline, frames: Sequence[Frame], plan: Plan) -> Measured:
    """Answer the pictures in turn, stage by stage."""
    turn = 0

    def answer() -> Mapping[str, float]:
        nonlocal turn
        frame = frames[turn % len(frames)]
        turn += 1
        total_ms = _timed(lambda: pipeline(frame))
        return {**pipeline.times.by_stage(), 'total': total_ms}

    return measure(answer, plan)


def measure(once: Callable[[], Mapping[str, float]], plan: Plan) -> Measured:
    """Run something, which tells its times in milliseconds, for as long as planned."""
    start = perf_counter()
    while (perf_counter() - start) * 1e3 < plan.warm_up_ms:
        once()
    runs: list[Mapping[str, float]] = []
    start = perf_counter()
    while len(runs) < plan.iterations or perf_counter() - start < plan.duration_s:
        runs.append(once())
    walltime_s = perf_counter() - start
    return Measured({name: [run[name] for run in runs] for name in runs[0]}, walltime_s)


def _as_dict(measured: Measured) -> dict[str, dict[str, float]]:
    return {name: asdict(timings) for name, timings in measured.timings().items()}


def _timed(function: Callable[[], object]) -> float:
    """Run a function and give its milliseconds."""
    start = perf_counter()
    function()
    return (perf_counter() - start) * 1e3


def _transfers(session: Session, network: Measured) -> str:
    """Say whether the latency holds what numbers without it hide."""
    if QUANTITIES['h2d'] in network.times_ms and QUANTITIES['d2h'] in network.times_ms:
        return 'latency includes the transfers between host and device'
    if 'CPUExecutionProvider' in session.backend:
        return 'host and device are one, there are no transfers; latency is the time of a run'
    return 'latency includes the transfers between host and device; the backend does not tell them apart'


def _warnings(network: Measured) -> list[str]:
    """What trtexec warns of."""
    times = network.times_ms
    medians = {key: summarise(times[name]).median for key, name in QUANTITIES.items() if name in times}
    compute_ms = medians.get('compute', math.inf)
    notes = []
    if medians.get('enqueue', 0.0) > BOUND_BY_ENQUEUE * compute_ms:
        notes.append(
            f'enqueue time ({medians["enqueue"]:.3f} ms) is more than {BOUND_BY_ENQUEUE:.0%} of the GPU '
            f'compute time ({compute_ms:.3f} ms): the host may be what limits these runs, which are measured '
            'without a CUDA graph; nodes, and the way from picture to detections, replay one where they can'
        )
    for key in ('h2d', 'd2h'):
        if medians.get(key, 0.0) >= compute_ms:
            notes.append(
                f'{QUANTITIES[key]} ({medians[key]:.3f} ms) is not below the GPU compute time '
                f'({compute_ms:.3f} ms): transfers limit; smaller types such as uint8 pictures help'
            )
    name = QUANTITIES['compute' if 'compute' in medians else 'total']
    variation = coefficient_of_variation(times[name])
    if variation > UNSTABLE:
        notes.append(
            f'{name} is unstable: its coefficient of variation is {variation:.1%}, above {UNSTABLE:.1%}; '
            f'lock the clocks, or end what else runs'
        )
    return notes


def _show(
    report: Mapping[str, Any],
    network: Measured,
    batches: Mapping[int, Measured],
    stages: Measured | None,
    out: Console,
) -> None:
    out.print(_table('network, milliseconds', network))
    out.print(f'throughput: {network.rate:.1f} queries per second, one after the other', highlight=False)
    out.print(report['transfers'], highlight=False)
    if batches:
        out.print(_batch_table(batches))
    if stages:
        pipeline = report['pipeline']
        sizes = [f'{width}x{height}' for width, height in pipeline['sizes_wh']]
        what = sizes[0] if len(sizes) == 1 else f'{len(sizes)} sizes of picture'
        out.print(_table(f'{pipeline["way"]}, {what}, milliseconds', stages))
        out.print(f'{stages.rate:.1f} frames per second, one after the other', highlight=False)
    for note in report['notes']:
        show_note(note, out)


def _batch_table(batches: Mapping[int, Measured]) -> Table:
    """Throughput, and the medians of all quantities, by the number of pictures at once."""
    title = Text('batches of the network, median milliseconds', style='bold')
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD)
    quantities = list(next(iter(batches.values())).times_ms)
    for heading in ('batch', 'pictures/s', 'queries/s', *quantities, 'runs'):
        table.add_column(heading, justify='right')
    for number, measured in batches.items():
        timings = measured.timings()
        medians = [f'{timings[name].median:.3f}' for name in quantities]
        runs = timings[quantities[0]].count
        rates = f'{number * measured.rate:.1f}', f'{measured.rate:.1f}'
        table.add_row(str(number), *rates, *medians, str(runs))
    return table


def _table(title: str, measured: Measured) -> Table:
    timings = measured.timings()
    runs = next(iter(timings.values())).count
    table = Table(
        title=Text(f'{title}, {counted(runs, "run")}', style='bold'), title_justify='left', box=SIMPLE_HEAD
    )
    table.add_column('')
    statistics = [field.name for field in fields(Timings) if field.name != 'count']
    for heading in statistics:
        table.add_column(heading, justify='right')
    for name, one in timings.items():
        table.add_row(name, *(f'{getattr(one, statistic):.3f}' for statistic in statistics))
    return table
