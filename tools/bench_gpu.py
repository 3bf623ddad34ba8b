"""Bench on a GPU: TensorRT through this package against the bare engine, one model, one run, one table."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from rich.console import Console
from rich.table import Table

from isaac_infer.core.build_options import BuildOptions, EngineOptions
from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import agreement
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.source import is_picture, read_picture
from isaac_infer.core.spec import Limits
from isaac_infer.core.timing import summarise
from isaac_infer.engine import cuda
from isaac_infer.engine.device_prepare import WAYS
from isaac_infer.engine.load import open_pipeline, open_session
from isaac_infer.engine.trt import TrtSession

ROOT = Path(__file__).resolve().parents[1]
SIZES_HW = {'640x480': (480, 640), '1920x1080': (1080, 1920), '3840x2160': (2160, 3840)}
WARM_UP = 50
AGREE_IOU = 0.5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    p99: float | None = None
    goal: str = ''
    is_met: bool | None = None


class Bench:
    """What all measurements share: the model, how engines are built, and the rows so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.rows = args, list[Row]()
        sources = tuple(filter(None, os.environ.get('ISAAC_INFER_TACTIC_SOURCES', '').split(',')))
        self.build = BuildOptions(optimization_level=args.level, tactic_sources=sources)
        self.cache = str(args.cache)
        self.bare_ms = self.bare_hz = float('nan')  # until it is measured

    def open(self, *, prepare: str = 'auto', depth: int = 1, **options: Any) -> Pipeline:
        engine = EngineOptions(
            replace(self.build, **options),
            cache_folder=self.cache,
            calibration=str(self.args.source),
            prepare=prepare,
            pipeline_depth=depth,
        )
        return open_pipeline(
            self.args.model,
            backend='tensorrt',
            limits=lambda spec: Limits(),
            engine=engine,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )

    def add(self, what: str, times_ms: Sequence[float], goal_ms: float | None = None, why: str = '') -> float:
        timings = summarise(times_ms)
        is_met = None if goal_ms is None else timings.median <= goal_ms
        goal = '' if goal_ms is None else f'{goal_ms:.3f} {why}'
        self.rows.append(Row(what, timings.median, 'ms', timings.p99, goal, is_met))
        return timings.median

    def add_rate(self, what: str, rate_hz: float, goal_hz: float | None = None, why: str = '') -> None:
        is_met = None if goal_hz is None else rate_hz >= goal_hz
        goal = '' if goal_hz is None else f'{goal_hz:.0f} {why}'
        self.rows.append(Row(what, rate_hz, 'per s', None, goal, is_met))


def times_of(function: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each call, after some that do not count."""
    times = []
    for number in range(WARM_UP + count):
        begin = perf_counter()
        function()
        if number >= WARM_UP:
            times.append((perf_counter() - begin) * 1e3)
    return times


def pictures(folder: Path) -> list[Frame]:
    return [Frame(read_picture(path).image) for path in sorted(folder.iterdir()) if is_picture(path)]


def sized(frame: Frame, size_hw: tuple[int, int]) -> Frame:
    return Frame(cv2.resize(frame.image, size_hw[::-1]))


def bench_bare(bench: Bench) -> tuple[float, float]:
    """Run the bare engine with PyCUDA and TensorRT alone; gives copy-run-copy ms and runs per second."""
    pipeline = bench.open(uint8_input=False, best_class=False, prepare='cpu')
    session = pipeline.session
    assert isinstance(session, TrtSession)
    engine, driver = session._engine.cuda_engine, session.gpu.driver  # type: ignore[union-attr]
    source, target = session.inputs[0], session.outputs[0]
    with session.gpu.current():
        bare, rate = _bare_loops(bench, engine, driver, source, target)
    session.input_buffer(source.name, source.shape)
    bench.add('session.run() with copies, same engine', times_of(session.run, 500), 1.1 * bare, 'bare + 10%')
    pipeline.close()
    return bare, rate


def _bare_loops(bench: Bench, engine: Any, driver: Any, source: Any, target: Any) -> tuple[float, float]:
    context, stream = engine.create_execution_context(), driver.Stream()
    pinned = [driver.pagelocked_zeros(spec.shape, spec.dtype) for spec in (source, target)]
    pageable = [np.zeros(spec.shape, spec.dtype) for spec in (source, target)]
    devices = [driver.mem_alloc(array.nbytes) for array in pinned]
    for spec, device in zip((source, target), devices):
        context.set_tensor_address(spec.name, int(device))

    def enqueue() -> None:
        context.execute_async_v3(stream.handle)

    def run() -> None:
        enqueue()
        stream.synchronize()

    def copy_run_copy(arrays: list[np.ndarray]) -> None:
        driver.memcpy_htod_async(devices[0], arrays[0], stream)
        enqueue()
        driver.memcpy_dtoh_async(arrays[1], devices[1], stream)
        stream.synchronize()

    def rate_of(function: Callable[[], None]) -> float:
        begin = perf_counter()
        for _ in range(2000):
            function()
        stream.synchronize()
        return 2000 / (perf_counter() - begin)

    bare = bench.add('bare engine: pinned copy, run, copy', times_of(partial(copy_run_copy, pinned), 500))
    bench.add('bare engine: pageable copy, run, copy', times_of(partial(copy_run_copy, pageable), 500))
    bench.add('bare engine: run alone', times_of(run, 500))
    rate = rate_of(enqueue)
    bench.add_rate('bare engine: runs back to back, enqueued', rate)
    graph = cuda.Graph(stream, enqueue)
    bench.add_rate('bare engine: runs back to back, as a CUDA graph', rate_of(graph.launch))
    graph.close()
    return bare, rate


def bench_inputs(bench: Bench) -> None:
    """Compare engines that take uint8 pictures or float32, and answer with all classes or the best."""
    frames = {name: sized(pictures(bench.args.source)[0], size_hw) for name, size_hw in SIZES_HW.items()}
    for options in (
        {'uint8_input': False, 'best_class': False},
        {'uint8_input': True, 'best_class': False},
        {'uint8_input': True, 'best_class': True},
    ):
        pipeline = bench.open(**options)
        named = ('uint8' if options['uint8_input'] else 'float32') + ' in, '
        named += 'best class out' if options['best_class'] else 'all classes out'
        bench.add(f'{named}: session.run()', times_of(pipeline.session.run, 500))
        if options['best_class']:
            ways: Any = pipeline.prepare
            for name, frame in frames.items():
                for way in (*WAYS, 'auto'):
                    ways._way = way
                    goal = bench.bare_ms + 0.5 if (way, name) == ('auto', '1920x1080') else None
                    times = times_of(partial(pipeline, frame), 200)
                    bench.add(f'{name} to detections, prepared {way}', times, goal, 'bare + 0.5')
            print(f'prepared by itself: {ways.chosen}', file=sys.stderr)
        pipeline.close()


def bench_depth(bench: Bench) -> None:
    """Count pictures per second with two under way."""
    frame = pictures(bench.args.source)[0]
    pipeline = bench.open(depth=2)
    both = (pipeline, *pipeline.twins)
    for name, size_hw in {'640x640': (640, 640), **SIZES_HW}.items():
        picture, begun = sized(frame, size_hw), list[Pipeline]()
        for each in both:
            each(picture)
        begin = perf_counter()
        for number in range(2000):
            if len(begun) == len(both):
                begun.pop(0).end()
            both[number % 2].begin(picture)
            begun.append(both[number % 2])
        while begun:
            begun.pop(0).end()
        goal = 0.85 * bench.bare_hz if name == '640x640' else None
        bench.add_rate(
            f'{name} to detections, pipeline_depth 2', 2000 / (perf_counter() - begin), goal, '85% of bare'
        )
    pipeline.close()


def bench_precisions(bench: Bench) -> None:
    """Compare precisions: speed, and agreement with ONNX Runtime on real pictures and drawn scenes."""
    frames = pictures(bench.args.source)
    reference = open_pipeline(bench.args.model, backend='onnxruntime', limits=lambda spec: Limits())
    want = [reference(frame) for frame in frames]
    reference.close()
    for precision, calibration in (('fp32', 'qdq'), ('fp16', 'qdq'), ('int8', 'qdq'), ('int8', 'entropy')):
        named = precision if precision != 'int8' else f'int8 ({calibration})'
        try:
            # TensorRT's own calibrators are fed what the model itself takes.
            options = {'uint8_input': calibration == 'qdq'}
            pipeline = bench.open(precision=precision, calibration=calibration, **options)
        except Exception as error:
            print(f'{named}: {error}', file=sys.stderr)
            bench.rows.append(Row(f'{named}: not built: {str(error)[:60]}', float('nan'), ''))
            continue
        bench.add(f'{named}: session.run()', times_of(pipeline.session.run, 500))
        found = agreement(list(zip(want, map(pipeline, frames))), iou_threshold=AGREE_IOU)
        bench.rows.append(Row(f'{named}: objects of ONNX Runtime found again', 100 * found.share, '%'))
        bench.rows.append(Row(f'{named}: mean overlap of these', found.mean_iou or 0.0, 'IoU'))
        pipeline.close()


def bench_start(bench: Bench) -> None:
    """Start a process that answers its first picture, with the engine in the cache."""
    program = (
        'import sys, time; begin = time.perf_counter(); import json; from pathlib import Path; '
        'import numpy as np; from isaac_infer.core.frame import Frame; '
        'from isaac_infer.core.spec import Limits; '
        'from isaac_infer.core.build_options import *; from isaac_infer.engine.load import open_pipeline; '
        'imported = time.perf_counter(); '
        'options = json.loads(sys.argv[1]); options["tactic_sources"] = tuple(options["tactic_sources"]); '
        'p = open_pipeline(sys.argv[2], backend="tensorrt", limits=lambda spec: Limits(), '
        'engine=EngineOptions(BuildOptions(**options), cache_folder=sys.argv[3], prepare="cpu")); '
        'opened = time.perf_counter(); p(Frame(np.zeros((480, 640, 3), np.uint8))); '
        'print(imported - begin, opened - imported, time.perf_counter() - opened); p.close()'
    )
    arguments = [json.dumps(asdict(bench.build)), str(bench.args.model), bench.cache]
    whole, parts = [], []
    for _ in range(5):
        begin = perf_counter()
        done = subprocess.run(
            [sys.executable, '-c', program, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
        )
        whole.append((perf_counter() - begin) * 1e3)
        parts.append([1e3 * float(value) for value in done.stdout.split()])
    bench.add('process start to first detections, engine in the cache', whole, 2000, 'ms')
    for name, values in zip(('imports', 'opening the engine', 'first picture'), zip(*parts)):
        bench.add(f'  of which {name}', values)


def bench_node_start(bench: Bench) -> None:
    """Start detector_node with its engine in the cache, until it waits for pictures."""
    values = {
        'model_file_path': bench.args.model.resolve(),
        'backend': 'tensorrt',
        'engine_cache_path': bench.cache,
        'optimization_level': bench.build.optimization_level,
    }
    if bench.build.tactic_sources:
        values['tactic_sources'] = f'[{", ".join(bench.build.tactic_sources)}]'
    command = [sys.executable, '-m', 'isaac_infer.nodes.detector_node', '--ros-args']
    for name, value in values.items():
        command += ['-p', f'{name}:={value}']
    times = []
    for _ in range(3):
        begin = perf_counter()
        node = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert node.stdout is not None
            said = []
            for line in node.stdout:
                said.append(line)
                if 'waiting for pictures' in line:
                    times.append((perf_counter() - begin) * 1e3)
                    break
            else:
                raise RuntimeError(''.join(said))
        finally:
            node.send_signal(signal.SIGINT)
            node.wait(30)
    bench.add('detector_node: process start to waiting for pictures', times, 2000, 'ms')


def bench_overlap(bench: Bench) -> None:
    """Perceive and decide, as the executor does in two threads, against one after the other."""
    frame, count = sized(pictures(bench.args.source)[0], SIZES_HW['1920x1080']), 1000
    perceive = partial(bench.open(), frame)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(policy_network(), Path(folder, 'policy.onnx'))
        options = replace(bench.build, uint8_input=False, best_class=False)
        policy = open_session(
            Path(folder, 'policy.onnx'),
            backend='tensorrt',
            engine=EngineOptions(options, cache_folder=bench.cache),
        )
    policy.input_buffer('observation', (1, OBSERVATION))[...] = 0.5
    bench.add('1920x1080 to detections, alone', times_of(perceive, count))
    bench.add('policy, alone', times_of(policy.run, count))
    begin = perf_counter()
    for _ in range(count):
        perceive()
        policy.run()
    in_sequence_ms = (perf_counter() - begin) * 1e3 / count
    bench.rows.append(Row('detections and policy, one after the other', in_sequence_ms, 'ms'))

    times: dict[str, list[float]] = {}
    begin = perf_counter()
    threads = [
        threading.Thread(target=lambda name=name, call=call: times.update({name: times_of(call, count)}))
        for name, call in (('detections', perceive), ('policy', policy.run))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    overlapped_ms = (perf_counter() - begin) * 1e3 / (WARM_UP + count)
    bench.rows.append(Row('detections and policy, in two threads', overlapped_ms, 'ms'))
    for name, values in times.items():
        bench.add(f'{name}, in two threads', values)
    perceive.func.close()
    policy.close()


OBSERVATION = 128


def policy_network() -> onnx.ModelProto:
    """A policy of usual size: three layers of 512, two numbers out."""
    generator = np.random.default_rng(0)
    nodes, weights, widths = [], [], (OBSERVATION, 512, 512, 512, 2)
    value = 'observation'
    for number, (width, into) in enumerate(itertools.pairwise(widths)):
        weight = (generator.standard_normal((width, into)) / np.sqrt(width)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(weight, f'weight{number}'))
        nodes.append(onnx.helper.make_node('MatMul', [value, f'weight{number}'], [f'sum{number}']))
        value = 'action' if number == len(widths) - 2 else f'value{number}'
        nodes.append(onnx.helper.make_node('Tanh', [f'sum{number}'], [value]))
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, width))
        for name, width in (('observation', OBSERVATION), ('action', 2))
    ]
    graph = onnx.helper.make_graph(nodes, 'policy', tensors[:1], tensors[1:], weights)
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_operatorsetid('', 17)])


def bench_node(bench: Bench, rate_hz: float, *, depth: int) -> None:
    """Run the real nodes over DDS: 1,000 pictures of 1080p."""
    gpu = cuda.Gpu()
    used: list[float] = []
    is_done = threading.Event()

    def watch() -> None:
        with gpu.current():
            while not is_done.wait(0.5):
                used.append((gpu.facts.total_bytes - gpu.free_bytes()) / cuda.MIB)

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'isaac_infer.cli.main', 'demo', '--model', str(bench.args.model)]
        command += ['--backend', 'tensorrt', '--engine-cache-path', bench.cache, '--out', folder]
        command += ['--frames', '1000', '--rate', str(rate_hz), '--width', '1920', '--height', '1080']
        command += ['--optimization-level', str(bench.build.optimization_level)]
        command += ['--pipeline-depth', str(depth)]
        if bench.build.tactic_sources:
            command += ['--tactic-sources', ','.join(bench.build.tactic_sources)]
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr, timeout=180)
        finally:
            is_done.set()
            watcher.join()
        report = json.loads(Path(folder, 'report.json').read_text())
    values = report['nodes']['detector_node']['values']
    name = f'node, 1920x1080 at {rate_hz:g} Hz, depth {depth}'
    sent = int(report['nodes']['image_source']['values']['sent'])
    bench.rows.append(Row(f'{name}: answered of {sent}', float(values['answered']), 'pictures'))
    for stage in ('wait', 'convert', 'prepare', 'run', 'decode', 'publish', 'total', 'age'):
        p50, p99 = (float(values[f'{stage}_ms_p{p}']) for p in (50, 99))
        bench.rows.append(Row(f'{name}: {stage}', p50, 'ms', p99))
    quarter = used[len(used) // 4 : len(used) // 2], used[-len(used) // 4 :]
    for when, samples in zip(('early', 'late'), quarter):
        bench.rows.append(Row(f'{name}: GPU memory in use, {when}', float(np.median(samples)), 'MiB'))


BENCHES: dict[str, Callable[[Bench], None]] = {
    'inputs': bench_inputs,
    'depth': bench_depth,
    'overlap': bench_overlap,
    'start': bench_start,
    'node-start': bench_node_start,
    'node': lambda bench: bench_node(bench, 60, depth=1),
    'overload': lambda bench: bench_node(bench, 500, depth=2),
    'precisions': bench_precisions,
}


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', type=Path, default=ROOT / 'models' / 'tabletop_detector.onnx')
    parser.add_argument('--source', type=Path, help='folder of pictures (default: drawn scenes)')
    parser.add_argument('--level', type=int, default=1, help='optimisation level of engines (%(default)s)')
    parser.add_argument('--cache', type=Path, default=ROOT / 'out' / 'engines')
    parser.add_argument('--json', type=Path, default=ROOT / 'out' / 'bench_gpu.json')
    parser.add_argument('--only', nargs='+', choices=BENCHES, help='measure these besides the bare engine')
    args = parser.parse_args()
    problem = cuda.device_problem()
    if problem:
        print(f'bench-gpu: {problem}', file=sys.stderr)
        return 1
    args.cache.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)  # as the nodes do
    drawn = tempfile.TemporaryDirectory()
    if args.source is None:
        args.source = Path(drawn.name)
        for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + 20):
            cv2.imwrite(str(args.source / f'{seed}.png'), draw_scene(seed).image)
    bench = Bench(args)
    bench.bare_ms, bench.bare_hz = bench_bare(bench)
    failed = 0
    for name in args.only or BENCHES:
        try:
            BENCHES[name](bench)
        except Exception as error:  # the others are still worth their time
            failed = 1
            print(f'bench-gpu: {type(error).__name__}: {error}', file=sys.stderr)
        show(bench, Console(width=132))
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([asdict(row) for row in bench.rows], indent=1) + '\n')
    return failed


def show(bench: Bench, console: Console) -> None:
    facts = cuda.Gpu().facts
    title = f'{Path(bench.args.model).name} on {facts.name}, {time.strftime("%Y-%m-%d %H:%M")}'
    table = Table(title=title, title_justify='left')
    for heading in ('what', 'p50', 'p99', 'unit', 'goal', ''):
        table.add_column(heading, justify='left' if heading in ('what', 'unit') else 'right', no_wrap=True)
    for row in bench.rows:
        met = '' if row.is_met is None else 'met' if row.is_met else '[red]missed[/]'
        p99 = '' if row.p99 is None else f'{row.p99:.3f}'
        table.add_row(row.what, f'{row.value:.3f}', p99, row.unit, row.goal, met)
    console.print(table)


if __name__ == '__main__':
    sys.exit(main())
