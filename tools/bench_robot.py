"""Bench of the robot's nodes.

How steadily jetson_executor commands with a control model of 5 ms, also while it changes from one perception
model to another; how much of a core power_manager takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import onnx
import psutil
import rclpy
from geometry_msgs.msg import Twist
from onnx import TensorProto, helper, numpy_helper
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Float64MultiArray, String
from vision_msgs.msg import LabelInfo

from isaac_infer.core.stats import percentile
from isaac_infer.engine.load import open_session
from isaac_infer.ros.figures import figures_of
from isaac_infer.ros.images import image_to_cdr
from isaac_infer.ros.perception import LATCHED_QOS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test'))
from boards import agx_orin
from policies import save_moody_detector

MODEL_MS = 5.0
PICTURES_HZ = 20.0
CHANGE_S = 1.0  # from one perception model to the other
SETTLED_S = 6.0  # until a node has started and been discovered
SIDE = 128  # of the matrices that take the time
BINDINGS = """
inputs: {wish: {command: {fields: [linear.x, angular.z]}}}
outputs: {linear.x: {index: 0}, angular.z: {index: 1}}
"""


def save_model(path: Path, products: int) -> None:
    """Write a policy that does what is commanded, after so many products of matrices."""
    rng = np.random.default_rng(0)
    constants = {
        'spread': rng.normal(0, 1, (2, SIDE * SIDE)).astype(np.float32),
        'square': np.array([SIDE, SIDE]),
        'matrix': rng.normal(0, 1e-2, (SIDE, SIDE)).astype(np.float32),
        'line': np.array([1, SIDE * SIDE]),
        'gather': np.zeros((SIDE * SIDE, 2), np.float32),
    }
    nodes = [
        helper.make_node('MatMul', ['wish', 'spread'], ['first']),
        helper.make_node('Reshape', ['first', 'square'], ['state0']),
        *(
            helper.make_node('MatMul', [f'state{number}', 'matrix'], [f'state{number + 1}'])
            for number in range(products)
        ),
        helper.make_node('Reshape', [f'state{products}', 'line'], ['last']),
        helper.make_node('MatMul', ['last', 'gather'], ['nothing']),
        helper.make_node('Add', ['wish', 'nothing'], ['action']),
    ]
    graph = helper.make_graph(
        nodes,
        'policy',
        [helper.make_tensor_value_info('wish', TensorProto.FLOAT, (1, 2))],
        [helper.make_tensor_value_info('action', TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8), path)


def run_ms(path: Path, rounds: int = 40) -> float:
    """How long the model takes on one thread, undisturbed."""
    times_ms = []
    with open_session(path, backend='onnxruntime', num_threads=1) as session:
        session.input_buffer('wish', (1, 2))[...] = 0.1
        for _ in range(rounds):
            begin = time.perf_counter()
            session.run()
            times_ms.append((time.perf_counter() - begin) * 1e3)
    return percentile(times_ms, 20)  # others may use the machine, too


def save_model_of(path: Path, wanted_ms: float) -> float:
    """Write a model that takes so long on this machine; give how long it really takes."""
    products = 20
    for _ in range(4):
        save_model(path, products)
        ms = run_ms(path)
        if abs(ms - wanted_ms) < 0.1 * wanted_ms:
            break
        products = max(round(products * wanted_ms / ms), 1)
    return ms


class Changes:
    """Sends pictures, and load levels that change the perception model again and again."""

    def __init__(self, folder: Path) -> None:
        heavy, light = (save_moody_detector(folder / f'{name}.onnx', name) for name in ('heavy', 'light'))
        self.values = {
            'perception_model_path': heavy,
            'perception_variants': f'[{light}]',
            'obey_load_level': True,
            'variant_hold_s': 0.2,
            'load_variants': 'start',
        }
        self.count = 0
        self._levels = cycle(('minimal', 'normal'))
        self._picture = np.full((480, 640, 3), 110, np.uint8)

    def join(self, node: Node) -> None:
        """Begin, by the timers of a node."""
        images = node.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
        levels = node.create_publisher(String, 'load_level', LATCHED_QOS)
        node.create_subscription(LabelInfo, 'label_info', self._note, LATCHED_QOS)  # of the model in use

        def send() -> None:
            stamp_ns = node.get_clock().now().nanoseconds
            images.publish(bytes(image_to_cdr(self._picture, stamp_ns=stamp_ns, frame_id='camera')))

        node.create_timer(1 / PICTURES_HZ, send)
        node.create_timer(CHANGE_S, lambda: levels.publish(String(data=next(self._levels))))

    def _note(self, _: LabelInfo) -> None:
        self.count += 1


def measure(
    folder: Path, rate_hz: float, seconds: float, options: list[str], changes: Changes | None = None
) -> dict[str, float]:
    """Run the executor and say how steadily its commands come, here and as it says itself."""
    values = {
        'control_model_path': folder / 'policy.onnx',
        'control_config': folder / 'policy.yaml',
        'execution_frequency': rate_hz,
        'stop_distance_m': 0.0,
        'enabled_at_start': True,
        'backend': 'onnxruntime',
        **(changes.values if changes else {}),
    }
    command = [sys.executable, '-m', 'isaac_infer.nodes.jetson_executor']
    command += ['--ros-args', '--log-level', 'error']
    for name, value in values.items():
        command += ['-p', f'{name}:={value}']
    node = rclpy.create_node('bench_robot')
    arrivals_s: list[float] = []
    stats: list[Float64MultiArray] = []

    def take(twist: Twist) -> None:
        if arrivals_s or twist.linear.x:  # from when it drives
            arrivals_s.append(time.monotonic())

    node.create_subscription(Twist, 'control_output', take, 10)
    node.create_subscription(Float64MultiArray, 'model_inference_stats', stats.append, 10)
    wishes, wish = node.create_publisher(Twist, 'ai_commands', 1), Twist()
    wish.linear.x = 0.2
    node.create_timer(0.05, lambda: wishes.publish(wish))
    if changes:
        changes.join(node)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        while len(arrivals_s) < 2 * rate_hz:
            time.sleep(0.1)
            if process.poll() is not None:
                raise SystemExit(f'bench: jetson_executor ended with {process.returncode}')
        before, changes_before = figures_of(stats[-1]), changes.count if changes else 0
        begin = len(arrivals_s)
        time.sleep(seconds)
        periods_ms = np.diff(arrivals_s[begin:]) * 1e3
        after = figures_of(stats[-1])
    finally:
        process.terminate()
        process.wait()
        executor.shutdown()
        thread.join()
        node.destroy_node()
    jitter_ms = np.abs(periods_ms - 1e3 / rate_hz).tolist()
    return {
        'rate_hz': 1e3 / float(np.mean(periods_ms)),
        'jitter_ms_p50': percentile(jitter_ms, 50),
        'jitter_ms_p99': percentile(jitter_ms, 99),
        'own_jitter_ms_p50': after['control_jitter_p50_ms'],
        'own_jitter_ms_p99': after['control_jitter_p99_ms'],
        'overruns': after['control_overruns'] - before['control_overruns'],
        'deadline_missed': after['control_deadline_missed'] - before['control_deadline_missed'],
        'model_ms_p50': after['planning_p50_ms'],
        'model_ms_p99': after['planning_p99_ms'],
        **({'changes': float(changes.count - changes_before)} if changes else {}),
    }


def cpu_share(root: Path, rate_hz: float, seconds: float) -> float:
    """How much of one core power_manager takes once it runs, in percent."""
    values = {'monitoring_frequency': rate_hz, 'root': root}
    command = [sys.executable, '-m', 'isaac_infer.nodes.power_manager', '--ros-args', '--log-level', 'error']
    for name, value in values.items():
        command += ['-p', f'{name}:={value}']
    process = psutil.Popen(command)
    try:
        time.sleep(SETTLED_S)
        before, begin = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        if process.poll() is not None:
            raise SystemExit(f'bench: power_manager ended with {process.returncode}')
        return 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begin)
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Measure the executor at 30 and at 100 Hz and while models change, and the power manager at 5 Hz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=20.0, help='how long each rate is measured')
    parser.add_argument('--out', type=Path, default=Path('out/bench_robot.json'), help='where it is written')
    parser.add_argument('--thread-priority', type=int, default=0, help='of the control thread')
    args = parser.parse_args()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'policy.yaml').write_text(BINDINGS)
        ms = save_model_of(folder / 'policy.onnx', MODEL_MS)
        print(f'control model: {ms:.1f} ms on one thread; load of the machine: {os.getloadavg()[0]:.1f}')
        for rate_hz in (30.0, 100.0):
            options = ['-p', f'thread_priority:={args.thread_priority}']
            found[f'{rate_hz:g} Hz'] = figures = measure(folder, rate_hz, args.seconds, options)
            print(f'{rate_hz:g} Hz: ' + ', '.join(f'{key} {value:.2f}' for key, value in figures.items()))
        found['30 Hz, models change'] = figures = measure(folder, 30.0, args.seconds, [], Changes(folder))
        print('30 Hz, models change: ' + ', '.join(f'{key} {value:.2f}' for key, value in figures.items()))
        for what, root in (('this machine', Path('/')), ('files of an AGX Orin', agx_orin(folder / 'orin'))):
            found[f'power_manager, {what}'] = {'cpu_percent': cpu_share(root, 5.0, args.seconds)}
            percent = found[f'power_manager, {what}']['cpu_percent']
            print(f'power_manager at 5 Hz, {what}: {percent:.2f} % of one core, goal 1')
    rclpy.try_shutdown()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + '\n', 'utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
