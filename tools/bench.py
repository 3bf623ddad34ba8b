"""Bench: what the package costs per frame, side by side with the usual way, medians of many, in one run."""

from __future__ import annotations

import argparse
import array
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import bench_tasks
import cv2
import numpy as np
import onnx
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from onnx import TensorProto, helper, numpy_helper
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from isaac_infer.cli.console import LONGEST_LINE
from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.fit import Fit, Size, fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.spec import Limits
from isaac_infer.core.stats import percentile
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.engine.load import open_session
from isaac_infer.nodes.detector_node import DETECTOR
from isaac_infer.params import DetectorParams
from isaac_infer.ros import transport
from isaac_infer.ros.images import frame_from_image, frame_from_image_cdr, image_to_cdr, view_from_cdr
from isaac_infer.ros.perception import Answer, Loaded
from isaac_infer.ros.perception_node import PerceptionNode

# The network that everything is measured with: the shapes of YOLOv8 with COCO's classes.
NETWORK_HW = (640, 640)
NUM_CLASSES = 80
STRIDES = (8, 16, 32)
ROWS = 4 + NUM_CLASSES
ANCHORS = sum((NETWORK_HW[0] // stride) * (NETWORK_HW[1] // stride) for stride in STRIDES)
INPUT = TensorSpec('images', (1, 3, *NETWORK_HW), np.dtype(np.float32))
OUTPUT = TensorSpec('output0', (1, ROWS, ANCHORS), np.dtype(np.float32))
SPEC = resolve_spec((INPUT,), (OUTPUT,), {})
LIMITS = Limits()

VGA, FULL_HD = (480, 640), (1080, 1920)
RATE_HZ = 30
USUAL_FRAMES, USUAL_PICTURES = 300, 20  # of the comparison
TURN = 20  # runs of one function before it is the other's turn
WARM_UP = 3  # runs at the beginning of a turn that do not count
OPENCV_THREADS = cv2.getNumThreads()


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    what: str
    ours_ms: float
    ours_p95_ms: float
    usual_ms: float | None = None  # the comparison, where there is one
    target_ms: float | None = None


def row(
    what: str, ours: list[float], usual: list[float] | None = None, *, target_ms: float | None = None
) -> Row:
    usual_ms = percentile(usual, 50) if usual else None
    return Row(what, percentile(ours, 50), percentile(ours, 95), usual_ms, target_ms)


def alternate(
    rounds: int, ours: Callable[[], object], usual: Callable[[], object]
) -> tuple[list[float], list[float]]:
    """Time two functions in turns of TURN, so that a slow moment of the machine hits both; milliseconds.

    OpenCV has one thread for ours, as in the nodes, and all for the usual way.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds // TURN + 1):
        for function, into, threads in zip((ours, usual), times, (1, OPENCV_THREADS), strict=True):
            cv2.setNumThreads(threads)
            for number in range(WARM_UP + TURN):
                start = perf_counter()
                function()
                if number >= WARM_UP:
                    into.append((perf_counter() - start) * 1e3)
    return times


def named(size_hw: Size) -> str:
    return f'{size_hw[1]}x{size_hw[0]}'


def usual_prepare(image: np.ndarray) -> np.ndarray:
    """Letterbox and normalise with OpenCV's own functions."""
    left, top, right, bottom = fit_picture(image.shape[:2], NETWORK_HW, resize='letterbox').network_box
    small = cv2.resize(image, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    borders = top, NETWORK_HW[0] - bottom, left, NETWORK_HW[1] - right
    padded = cv2.copyMakeBorder(small, *borders, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return cv2.dnn.blobFromImage(padded, 1 / 255, swapRB=True)


def usual_decode(output: np.ndarray, fit: Fit) -> list[tuple[np.ndarray, float, int]]:
    """Read an answer with plain NumPy and OpenCV's suppression: left, top, width, height; score; class."""
    rows = output[0].T
    scores, classes = rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
    keep = scores > LIMITS.confidence_threshold
    boxes, scores, classes = rows[keep, :4].copy(), scores[keep], classes[keep]
    boxes[:, :2] -= boxes[:, 2:] / 2
    thresholds = LIMITS.confidence_threshold, LIMITS.nms_threshold
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), *thresholds)
    left, top, _, _ = fit.network_box
    return [((boxes[i] - (left, top, 0, 0)) / fit.scale_xy[0], scores[i], classes[i]) for i in np.ravel(kept)]


def usual_message(found: list[tuple[np.ndarray, float, int]], header: Header) -> Detection2DArray:
    """Build the message from rclpy's classes."""
    message = Detection2DArray(header=header)
    for (left, top, width, height), score, class_id in found:
        detection = Detection2D(header=header)
        detection.bbox.center.position.x, detection.bbox.center.position.y = (
            left + width / 2,
            top + height / 2,
        )
        detection.bbox.size_x, detection.bbox.size_y = float(width), float(height)
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = str(class_id), float(score)
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message


def bench_prepare(rounds: int, size_hw: Size, *, target_ms: float | None = None) -> Row:
    """Resize, pad, normalise."""
    frame = Frame(draw_scene(1, size_hw=size_hw).image)
    preparer, buffer = Preparer(SPEC.image), np.empty(INPUT.shape, np.float32)
    preparer(frame, into=buffer)
    np.testing.assert_allclose(buffer, usual_prepare(frame.image), atol=1e-6)
    times = alternate(rounds, lambda: preparer(frame, into=buffer), lambda: usual_prepare(frame.image))
    return row(f'prepare {named(size_hw)} to {named(NETWORK_HW)}', *times, target_ms=target_ms)


def crowded_output(objects: int = 30, boxes_per_object: int = 12) -> np.ndarray:
    """An answer in which each of the objects was found several times, as networks do."""
    rng = np.random.default_rng(7)
    output = np.zeros(OUTPUT.shape, np.float32)
    output[0, 4:] = rng.random((NUM_CLASSES, ANCHORS)) * 0.05
    columns = rng.permutation(ANCHORS)[: objects * boxes_per_object]
    for index, column in enumerate(columns):
        place = index // boxes_per_object
        output[0, :2, column] = np.array((60 + 100 * (place % 6), 160 + 70 * (place // 6))) + rng.normal(
            size=2
        )
        output[0, 2:4, column] = 60 + rng.normal(size=2) * 2
        output[0, 4 + place, column] = 0.3 + 0.65 * rng.random()
    return output


def bench_decode(rounds: int, *, target_ms: float | None = None) -> Row:
    """Read the answer of a network."""
    output = crowded_output()
    fit = fit_picture(FULL_HD, NETWORK_HW, resize='letterbox')
    decode = partial(DECODERS[SPEC.decoder], {OUTPUT.name: output}, fit, SPEC, LIMITS)
    objects, usual_objects = len(decode()), len(usual_decode(output, fit))
    if objects != usual_objects:
        raise SystemExit(f'bench: the two ways to decode disagree: {objects} and {usual_objects} objects')
    times = alternate(rounds, decode, lambda: usual_decode(output, fit))
    return row(f'decode {list(OUTPUT.shape)}, {objects} objects', *times, target_ms=target_ms)


def bench_pair(rounds: int, pair: bench_tasks.Pair, size_hw: Size, *, target_ms: float | None = None) -> Row:
    """Read the answer of a network of another task."""
    times = alternate(rounds, pair.ours, pair.usual)
    return row(f'{pair.what}, {named(NETWORK_HW)} to {named(size_hw)}', *times, target_ms=target_ms)


def bench_message(rounds: int, size_hw: Size) -> Row:
    """Read an Image message as it came from the wire: as a view; against deserialising it."""
    cdr = bytes(image_to_cdr(draw_scene(1, size_hw=size_hw).image, frame_id='camera'))
    times = alternate(
        rounds, lambda: frame_from_image_cdr(cdr), lambda: frame_from_image(deserialize_message(cdr, Image))
    )
    return row(f'message to frame, {named(size_hw)}', *times)


def bench_session(rounds: int, *, share: float) -> Row:
    """Run a network of about 50 ms for real: how much of a frame is spent outside it."""
    frame = Frame(draw_scene(1, size_hw=FULL_HD).image)
    total, outside = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, 'slow.onnx')
        onnx.save(slow_model(), model)
        with open_session(model) as session:
            pipeline = Pipeline(session, SPEC, LIMITS)
            for turn in range(rounds + WARM_UP):
                start = perf_counter()
                pipeline(frame)
                if turn >= WARM_UP:
                    total.append((perf_counter() - start) * 1e3)
                    outside.append(total[-1] - pipeline.times.run_ms)
    total_ms = percentile(total, 50)
    percent = percentile(outside, 50) / total_ms
    what = f'outside the session, {named(FULL_HD)}: {percent:.1%} of {total_ms:.0f} ms'
    return row(what, outside, target_ms=share * total_ms)


def slow_model(*, channels: int = 96, layers: int = 12) -> onnx.ModelProto:
    """Make a network with YOLOv8's shapes and random weights; about 50 ms on two cores."""
    rng = np.random.default_rng(0)
    nodes = []
    weights = [numpy_helper.from_array(np.array([1, ROWS, -1], np.int64), 'flat')]

    def conv(source: str, target: str, shape: tuple[int, int], *, kernel: int = 3, stride: int = 1) -> str:
        values = rng.normal(0, 0.02, (shape[1], shape[0], kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f'{target}_weight'))
        size = {'kernel_shape': [kernel] * 2, 'strides': [stride] * 2, 'pads': [kernel // 2] * 4}
        nodes.append(helper.make_node('Conv', [source, f'{target}_weight'], [target], **size))
        return target

    heads = []
    features = conv('images', 'stem', (3, channels), kernel=5, stride=4)
    for level in range(len(STRIDES)):
        features = conv(features, f'down{level}', (channels, channels), stride=2)
        for layer in range(layers):
            features = conv(features, f'level{level}_{layer}', (channels, channels))
        head = conv(features, f'head{level}', (channels, ROWS), kernel=1)
        nodes.append(helper.make_node('Reshape', [head, 'flat'], [f'{head}_flat']))
        heads.append(f'{head}_flat')
    nodes.append(helper.make_node('Concat', heads, [OUTPUT.name], axis=2))
    inputs, outputs = (
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, spec.shape)] for spec in (INPUT, OUTPUT)
    )
    graph = helper.make_graph(nodes, 'slow', inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


class NullSession:
    """A network that only writes its answer, always the same: what is left is our own cost."""

    inputs, outputs = (INPUT,), (OUTPUT,)
    backend, fallbacks = 'null', ()

    def __init__(self, answer: np.ndarray) -> None:
        self.metadata: Mapping[str, str] = {}
        self._answer, self._outputs = answer, {OUTPUT.name: np.empty_like(answer)}
        self._buffer = np.zeros(INPUT.shape, INPUT.dtype)

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._buffer

    def run(self) -> Mapping[str, np.ndarray]:
        np.copyto(self._outputs[OUTPUT.name], self._answer)
        return self._outputs

    def close(self) -> None:
        """Nothing to release."""


def bench_path(rounds: int, size_hw: Size, *, target_ms: float | None = None) -> Row:
    """Do all that the node does with a picture, one after the other: from the message to its answer."""
    cdr = bytes(image_to_cdr(draw_scene(1, size_hw=size_hw).image, frame_id='camera'))
    answer = crowded_output()
    pipeline = Pipeline(NullSession(answer), SPEC, LIMITS)
    params, answer_of = DetectorParams(), DETECTOR.outputs[0].make
    rclpy.init()
    publisher = rclpy.create_node('bench').create_publisher(Detection2DArray, 'detections', 10)
    try:

        def ours() -> None:
            frame = frame_from_image_cdr(cdr)
            found = pipeline(frame)
            publisher.publish(answer_of(Answer(found, frame, SPEC, params)))

        def usual() -> None:
            message = deserialize_message(cdr, Image)
            image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
            usual_prepare(image)
            fit = fit_picture(image.shape[:2], NETWORK_HW, resize='letterbox')
            publisher.publish(usual_message(usual_decode(answer.copy(), fit), message.header))

        times = alternate(rounds, ours, usual)
    finally:
        rclpy.shutdown()
    return row(f'message to answer, {named(size_hw)}, back to back, no network', *times, target_ms=target_ms)


def bench_node(frames: int, size_hw: Size, *, target_ms: float | None = None) -> Row:
    """Run the real node with a network that answers at once, on pictures of another process."""
    pipeline = Pipeline(NullSession(crowded_output()), SPEC, LIMITS)
    detector = replace(
        DETECTOR, load=lambda params, say, is_cancelled: Loaded(pipeline, {'model': 'null', 'sha256': ''})
    )
    values = with_source(
        lambda: PerceptionNode(detector), lambda names: run_image_source(frames, size_hw, names)
    )
    stages = {name: float(values[name]) for name in values if '_ms_p' in name}
    p50, p95 = (stages[f'wait_ms_p{p}'] + stages[f'total_ms_p{p}'] - stages[f'run_ms_p{p}'] for p in (50, 95))
    answered = f'{values["answered"]} of {frames} answered'
    what = f'node, {named(size_hw)} at {RATE_HZ} Hz, without the network ({answered})'
    return Row(what, p50, p95, target_ms=target_ms)


def bench_transport(frames: int, *, target_ms: float | None = None) -> Row:
    """Receive 1080p pictures of another process: how late, and how many get lost; against typed messages."""

    def listen(is_raw: bool, start_source: Callable[[list[str]], None]) -> list[float]:
        latencies_ms: list[float] = []

        class Listener(Node):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__('listener')
                self.create_subscription(Image, 'image', self.on_image, qos_profile_sensor_data, raw=is_raw)

            def on_image(self, message: bytes | Image) -> None:
                now_ns = self.get_clock().now().nanoseconds
                if isinstance(message, bytes):
                    stamp_ns = view_from_cdr(message).stamp_ns
                else:
                    stamp_ns = Time.from_msg(message.header.stamp).nanoseconds
                latencies_ms.append((now_ns - stamp_ns) / 1e6)

            def close(self) -> None:
                """Nothing to release."""

        with_source(Listener, start_source)
        return latencies_ms

    ours = listen(True, lambda names: run_image_source(frames, FULL_HD, names))
    usual = listen(False, lambda names: run_usual_source(min(frames, USUAL_FRAMES), names))
    lost = frames - len(ours)
    what = f'transport, {named(FULL_HD)} at {RATE_HZ} Hz: publish to callback ({lost} of {frames} lost)'
    return row(what, ours, usual, target_ms=target_ms)


def run_usual_source(frames: int, names: list[str]) -> None:
    """Run a process that publishes typed messages."""
    process = multiprocessing.get_context('spawn').Process(target=publish_typed, args=(frames, names))
    process.start()
    process.join(60 + 2 * frames / RATE_HZ)
    if process.exitcode != 0:
        raise SystemExit(f'bench: the publisher of typed messages ended with {process.exitcode}')


def publish_typed(frames: int, names: list[str]) -> None:
    """Publish pictures as rclpy's users do: messages are filled beforehand, stamped and published."""
    transport.set_up()
    rclpy.init(args=names)
    node = rclpy.create_node('usual_source')
    publisher = node.create_publisher(Image, 'image', qos_profile_sensor_data)
    height, width = FULL_HD
    data = draw_scene(1, size_hw=FULL_HD).image.tobytes()
    messages = [
        Image(height=height, width=width, encoding='bgr8', step=3 * width, data=array.array('B', data))
        for _ in range(USUAL_PICTURES)  # as a camera has them: none of them lies in the cache any more
    ]
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    time.sleep(0.5)  # the subscriber may know the publisher a moment later
    due = time.monotonic()
    for message in islice(cycle(messages), frames):
        time.sleep(max(due - time.monotonic(), 0))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        due += 1 / RATE_HZ
    time.sleep(0.5)  # its memory holds the last picture
    rclpy.shutdown()


def run_image_source(frames: int, size_hw: Size, names: list[str]) -> None:
    """Run image_source until it has published so many pictures."""
    height, width = size_hw
    pictures = {'width': width, 'height': height, 'frames': frames, 'rate': float(RATE_HZ)}
    command = [sys.executable, '-m', 'isaac_infer.nodes.image_source', *names]
    for name, value in {**pictures, 'wait_for_subscribers': 1}.items():
        command += ['-p', f'{name}:={value}']
    subprocess.run(command, check=True, timeout=60 + 2 * frames / RATE_HZ)


def with_source(make_node: Callable[[], Any], run_source: Callable[[list[str]], None]) -> dict[str, str]:
    """Spin a node while a source runs as another process; give the node's last diagnostics."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    names = ['--ros-args', '-r', f'__ns:=/isaac_infer_bench_{os.getpid()}', '--log-level', 'warn']
    rclpy.init(args=names)
    node, watcher = make_node(), rclpy.create_node('watcher')
    ours = node.get_fully_qualified_name().lstrip('/') + ':'
    values: dict[str, str] = {}

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(ours):
                values.update({pair.key: pair.value for pair in status.values})

    watcher.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)
    executors = SingleThreadedExecutor(), SingleThreadedExecutor()
    threads = [threading.Thread(target=executor.spin) for executor in executors]
    for executor, each, thread in zip(executors, (node, watcher), threads, strict=True):
        executor.add_node(each)
        thread.start()
    try:
        run_source(names)
        time.sleep(1.2)  # one more round of diagnostics
    finally:
        for executor, thread in zip(executors, threads, strict=True):
            executor.shutdown()
            thread.join()
        node.close()
        rclpy.shutdown()
    return values


def main() -> int:
    """Run all benchmarks, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=300, help='of each comparison (default: %(default)s)')
    parser.add_argument(
        '--frames', type=int, default=1000, help='sent to measure transport (default: %(default)s)'
    )
    parser.add_argument('--json', type=Path, default=Path('out/bench.json'), help='default: %(default)s')
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the import of a node changed
    transport.set_up()  # as the nodes do; the comparisons profit from it too
    cv2.setNumThreads(1)  # as the nodes do
    fewer, some = max(args.rounds // 5, 5), min(args.frames, 300)
    benches: list[Callable[[], Row]] = [
        lambda: bench_prepare(args.rounds, VGA, target_ms=0.35),
        lambda: bench_prepare(args.rounds, FULL_HD, target_ms=0.65),
        lambda: bench_decode(args.rounds, target_ms=0.35),
        lambda: bench_pair(fewer, bench_tasks.instance_masks(FULL_HD), FULL_HD, target_ms=15.0),
        lambda: bench_pair(fewer, bench_tasks.class_map(FULL_HD), FULL_HD, target_ms=12.0),
        lambda: bench_pair(fewer, bench_tasks.class_map(FULL_HD, how='nearest'), FULL_HD, target_ms=12.0),
        lambda: bench_pair(args.rounds, bench_tasks.class_map(FULL_HD, how='map'), FULL_HD, target_ms=2.0),
        lambda: bench_pair(args.rounds, bench_tasks.keypoints(FULL_HD), FULL_HD, target_ms=0.5),
        lambda: bench_message(args.rounds, VGA),
        lambda: bench_message(args.rounds, FULL_HD),
        lambda: bench_session(fewer, share=0.05),
        lambda: bench_path(args.rounds, VGA, target_ms=1.0),
        lambda: bench_path(args.rounds, FULL_HD, target_ms=1.8),
        lambda: bench_node(some, VGA, target_ms=1.0),
        lambda: bench_node(some, FULL_HD, target_ms=1.8),
        lambda: bench_transport(args.frames, target_ms=3.5),
    ]
    console = Console()
    rows = []
    pictures = 2 * some + args.frames + min(args.frames, USUAL_FRAMES)
    with console.status(f'measuring; about {pictures / RATE_HZ + 20:.0f} s'):
        for bench in benches:
            rows.append(bench())
    cores, python = os.cpu_count(), platform.python_version()
    machine = f'{platform.machine()}, {cores} cores, Python {python}, OpenCV {cv2.__version__}'
    table = Table(title=f'milliseconds on {machine}', title_justify='left')
    for heading in ('what', 'p50', 'p95', 'usual way', 'times faster', 'goal', ''):
        table.add_column(heading, justify='left' if heading == 'what' else 'right', no_wrap=True)
    for one in rows:
        usual = f'{one.usual_ms:.3f}' if one.usual_ms else ''
        faster = f'{one.usual_ms / one.ours_ms:.1f}' if one.usual_ms else ''
        goal, missed = '', ''
        if one.target_ms:
            goal, missed = f'{one.target_ms:.2f}', '[red]missed[/]' if one.ours_ms > one.target_ms else 'met'
        table.add_row(one.what, f'{one.ours_ms:.3f}', f'{one.ours_p95_ms:.3f}', usual, faster, goal, missed)
    console.width = LONGEST_LINE  # a table that is cut into pieces says nothing
    console.print(table)
    report = {'machine': machine, 'rows': [asdict(one) for one in rows]}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + '\n')
    console.print(f'written to {args.json}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
