"""`isaac-infer bench`: how fast a model runs, in the words and statistics of trtexec."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.models import add_model_argument, model_path, open_network, take_model_argument
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import STANDARD_OUTPUT, add_json_option, check_report, write_report
from isaac_infer.cli.run import show_model
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import IsaacInferError, ModelError, ParameterError, SessionError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline, StageTimes
from isaac_infer.core.scenes import FIRST_HELD_OUT_SEED
from isaac_infer.core.session import Session, TimedSession
from isaac_infer.core.source import SYNTHETIC, open_source
from isaac_infer.core.text import without_commands
from isaac_infer.core.timing import Timings, coefficient_of_variation, summarise
from isaac_infer.engine.load import file_sha256, find_model, find_spec, make_pipeline
from isaac_infer.params import DetectionParams, ImageSourceParams

MOST_PICTURES = 32  # of a source, which are held in memory and measured in turn
LONGEST_S = 3600.0
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
        'latency as trtexec does; then, of a detector, the whole way from the picture to what is found.',
    )
    add_model_argument(parser)
    parser.add_argument(
        '--source',
        metavar='PICTURES',
        default=SYNTHETIC,
        help=f'picture, folder or video; the first {MOST_PICTURES} pictures (default: one drawn scene)',
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
    add_json_option(parser)
    add_options(parser, DetectionParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure a network, and the pipeline around it where it is a detector."""
    take_model_argument(args)
    params = params_from(args, DetectionParams)
    plan = _plan(args)
    cv2.setNumThreads(1)  # as the nodes do: OpenCV's threads take cores from those of the network
    ImageSourceParams(width=args.width, height=args.height)
    out = Console(stderr=args.json == STANDARD_OUTPUT)
    path = find_model(model_path(params))
    frames = _frames(args, params)
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(open_network(params))
        pipeline, notes = _pipeline(session, params)
        if pipeline:
            stack.callback(pipeline.close)  # its twins too
            show_model(pipeline, out)
            pipeline(frames[0])  # so that the network is measured on a picture
            whole = {'way': 'picture to detections'}
        else:
            out.print(session.backend, highlight=False)
            _feed_noise(session)
            whole = {}
        with out.status('measuring'):
            network = _measure_network(session, plan)
            stages = _measure_pipeline(pipeline, frames, plan) if pipeline else None
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
            'network_ms': {name: asdict(timings) for name, timings in network.timings().items()},
            'pipeline': None
            if stages is None
            else {
                **whole,
                'source': args.source,
                'pictures': len(frames),
                'sizes_wh': sorted({frame.size_hw[::-1] for frame in frames}),
                'fps': stages.rate,
                'stages_ms': {name: asdict(timings) for name, timings in stages.timings().items()},
            },
            'notes': notes,
        }
    write_report(args.json, report)
    _show(report, network, stages, out)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    # Written so that NaN fails too.
    if not 0 <= args.duration <= LONGEST_S:
        raise ParameterError(f'duration: expected 0 to {LONGEST_S:g} s, got {args.duration:g}')
    if args.iterations < 1:
        raise ParameterError(f'iterations: expected at least 1, got {args.iterations}')
    if not 0 <= args.warm_up <= LONGEST_S * 1e3:
        raise ParameterError(f'warm-up: expected 0 to {LONGEST_S * 1e3:g} ms, got {args.warm_up:g}')
    return Plan(args.warm_up, args.duration, args.iterations)


def _frames(args: argparse.Namespace, params: DetectionParams) -> list[Frame]:
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


def _pipeline(session: Session, params: DetectionParams) -> tuple[Pipeline | None, list[str]]:
    """Make the pipeline of a detector; or None, and a note that says why it is not understood."""
    path = find_model(model_path(params))
    overrides = params.overrides(read_class_names(params.class_names))
    try:
        spec = find_spec(session, path, overrides)
    except (ModelError, SessionError) as error:
        return None, [
            f'the network alone is measured, it is not understood as a detector: {_first_line(error)}'
        ]
    limits = params.limits(spec.class_names, spec.num_classes)
    return make_pipeline(session, spec, limits, params.engine_options()), []


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _feed_noise(session: Session) -> None:
    """Fill all inputs, as trtexec does: numbers from 0 to 1, and whole ones with 0."""
    rng = np.random.default_rng(0)
    for spec in session.inputs:
        try:
            buffer = session.input_buffer(spec.name, tuple(max(length, 1) for length in spec.shape))
        except IsaacInferError as error:
            raise ModelError(f'{spec}: cannot be fed: {error}; give --input-size') from error
        buffer[...] = rng.random(buffer.shape) if buffer.dtype.kind == 'f' else 0


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


def _measure_pipeline(pipeline: Pipeline, frames: Sequence[Frame], plan: Plan) -> Measured:
    """Answer the pictures in turn, stage by stage."""
    turn = 0

    def answer() -> Mapping[str, float]:
        nonlocal turn
        frame = frames[turn % len(frames)]
        turn += 1
        total_ms = _timed(lambda: pipeline(frame))
        stages = {
            stage.name.removesuffix('_ms'): getattr(pipeline.times, stage.name)
            for stage in fields(StageTimes)
        }
        return {**stages, 'total': total_ms}

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
            f'compute time ({compute_ms:.3f} ms): the host may be what limits; a CUDA graph helps'
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


def _show(report: Mapping[str, Any], network: Measured, stages: Measured | None, out: Console) -> None:
    out.print(_table('network, milliseconds', network))
    out.print(f'throughput: {network.rate:.1f} queries per second, one after the other', highlight=False)
    out.print(report['transfers'], highlight=False)
    if stages:
        pipeline = report['pipeline']
        sizes = [f'{width}x{height}' for width, height in pipeline['sizes_wh']]
        what = sizes[0] if len(sizes) == 1 else f'{len(sizes)} sizes of picture'
        out.print(_table(f'picture to detections, {what}, milliseconds', stages))
        out.print(f'{stages.rate:.1f} frames per second, one after the other', highlight=False)
    for note in report['notes']:
        out.print(f'note: {without_commands(note)}', highlight=False, markup=False, style='dim')


def _table(title: str, measured: Measured) -> Table:
    timings = measured.timings()
    runs = next(iter(timings.values())).count
    table = Table(title=Text(f'{title}, {runs} runs', style='bold'), title_justify='left', box=SIMPLE_HEAD)
    table.add_column('')
    statistics = [field.name for field in fields(Timings) if field.name != 'count']
    for heading in statistics:
        table.add_column(heading, justify='right')
    for name, one in timings.items():
        table.add_row(name, *(f'{getattr(one, statistic):.3f}' for statistic in statistics))
    return table
