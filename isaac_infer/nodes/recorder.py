"""recorder: matches pictures with what a detector said of them; writes a report and a contact sheet."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from isaac_infer.core.draw import contact_sheet, draw_detections
from isaac_infer.core.errors import FrameError, ParameterError
from isaac_infer.core.record import Record
from isaac_infer.params import RecorderParams
from isaac_infer.ros.diagnostics import LEVEL_NAMES
from isaac_infer.ros.images import frame_from_image_cdr, stamp_ns_of
from isaac_infer.ros.messages import detections_from_msg
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.process import run_node

PERIOD_S = 0.5  # of the report
LATCHED_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


class Recorder(Node):
    """Listens to `image`, `detections`, `label_info` and the diagnostics of the nodes in its namespace."""

    def __init__(self) -> None:
        super().__init__('recorder')
        self.exit_code = 0
        self._params: RecorderParams = NodeParameters(
            self, RecorderParams, refusal=lambda: 'while it runs', apply=lambda _: None
        ).value
        _check_writable(self._params)
        if not (self._params.report or self._params.contact_sheet):
            self.get_logger().warning('writes nothing: neither report nor contact_sheet names a file')
        self._record = Record(samples=self._params.samples)
        self._class_names: list[str] = []
        self._nodes: dict[str, dict[str, Any]] = {}
        self.create_subscription(Image, 'image', self._on_image, qos_profile_sensor_data, raw=True)
        self.create_subscription(Detection2DArray, 'detections', self._on_detections, 100)
        self.create_subscription(LabelInfo, 'label_info', self._on_labels, LATCHED_QOS)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)
        if self._params.report:
            self.create_timer(PERIOD_S, self._write_report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Write what was recorded, and say where; safe to call twice."""
        params, log = self._params, self.get_logger()
        if params.contact_sheet and not self._record.samples():
            why = 'no answer came with its picture' if self._record.answered else 'no answers came'
            log.warning(f'no contact sheet: {why}')
        elif params.contact_sheet and self._write(Path(params.contact_sheet), self._contact_sheet()):
            log.info(f'written: {params.contact_sheet}')
        if params.report and self._write_report():
            log.info(f'written: {params.report}')

    def _on_image(self, cdr: bytes) -> None:
        try:
            frame = frame_from_image_cdr(cdr)
        except FrameError as error:
            self.get_logger().error(str(error), throttle_duration_sec=10.0)
            return
        self._record.add_picture(frame.stamp_ns, frame.bgr())

    def _on_detections(self, message: Detection2DArray) -> None:
        try:
            stamp_ns = stamp_ns_of(message.header)
        except FrameError as error:
            self.get_logger().error(str(error), throttle_duration_sec=10.0)
            return
        latency_ms = (self.get_clock().now().nanoseconds - stamp_ns) / 1e6
        found, names = detections_from_msg(message, self._class_names)
        self._record.add_answer(stamp_ns, found, names, latency_ms)

    def _on_labels(self, message: LabelInfo) -> None:
        self._class_names = [entry.class_name for entry in message.class_map]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        namespace = f'{self.get_namespace()}/'.lstrip('/')  # nothing in the root namespace
        for status in message.status:
            full_name = status.name.split(':')[0]
            if full_name.startswith(namespace):
                values = {pair.key: pair.value for pair in status.values}
                level = LEVEL_NAMES.get(status.level, 'unknown')
                self._nodes[full_name.removeprefix(namespace)] = {
                    'level': level, 'message': status.message, 'values': values
                }  # fmt: skip

    def _write_report(self) -> bool:
        p50, p95, p99 = self._record.latency_ms()
        report = {
            'pictures': self._record.pictures,
            'answered': self._record.answered,
            'without_picture': self._record.unmatched,
            'classes': dict(self._record.classes.most_common()),
            'latency_ms': {'p50': p50, 'p95': p95, 'p99': p99} if self._record.answered else None,
            'nodes': self._nodes,
        }
        return self._write(Path(self._params.report), json.dumps(report, indent=1).encode())

    def _write(self, path: Path, data: bytes) -> bool:
        """Write a file, and tell whether that went well; where not, the reason is in the log."""
        unfinished = path.with_name(path.name + '.part')
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, path)  # so that a reader never sees half of it
        except OSError as error:
            self.get_logger().error(
                f'{path}: cannot be written: {error.strerror}', throttle_duration_sec=10.0
            )
            self.exit_code = 1
            return False
        return True

    def _contact_sheet(self) -> bytes:
        """The samples with what was said of them, as a file."""
        samples = self._record.samples()
        images = [
            draw_detections(sample.image.copy(), sample.answer, self._class_names) for sample in samples
        ]
        captions = [
            f'{len(sample.answer)} found, {sample.latency_ms:.1f} ms after the picture' for sample in samples
        ]
        sheet = contact_sheet(images, captions=captions)
        return bytes(cv2.imencode(Path(self._params.contact_sheet).suffix, sheet)[1])


def _check_writable(params: RecorderParams) -> None:
    """Find out at the start, not after the run, that a file cannot be written."""
    for name, suffixes in (('report', ()), ('contact_sheet', ('.png', '.jpg', '.jpeg'))):
        path = Path(getattr(params, name))
        if not path.name:
            continue
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(f'{name}: {path.parent}: cannot be made: {error.strerror}') from error
        if path.is_dir():
            raise ParameterError(f'{name}: expected a file, got the folder {str(path)!r}')
        if suffixes and path.suffix.lower() not in suffixes:
            raise ParameterError(
                f'{name}: expected a file name with {", ".join(suffixes)}, got {str(path)!r}'
            )


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C."""
    return run_node('recorder', RecorderParams, lambda stop: Recorder(), args)


if __name__ == '__main__':
    sys.exit(main())
