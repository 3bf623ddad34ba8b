"""recorder: matches pictures with what a detector said of them; writes a report and a contact sheet."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo

from isaac_infer.core.draw import contact_sheet, draw_detections
from isaac_infer.core.errors import ParameterError, describe
from isaac_infer.core.record import Record
from isaac_infer.core.signed import SUFFIXES, is_signed, signed
from isaac_infer.core.text import class_number, counted, loggable
from isaac_infer.engine.files import check_place, is_report, write_whole
from isaac_infer.params import RecorderParams
from isaac_infer.ros.diagnostics import LEVEL_NAMES, clock_problem
from isaac_infer.ros.graph import published
from isaac_infer.ros.images import frame_from_image_cdr, stamp_ns_of
from isaac_infer.ros.messages import detections_from_msg
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.process import run_node
from isaac_infer.ros.reminders import Reminders, kind_of

NAME = 'recorder'
PERIOD_S = 0.5  # of the report
MOST_TEXTS = 1000  # of one topic
MOST_NAMES = 1000  # that answers tell
PATIENCE_S = 5.0  # without an answer, before that is said
LATCHED_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


class Recorder(Node):
    """Listens to `image`, `detections`, `label_info` and the diagnostics of the nodes in its namespace."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.exit_code = 0
        self._params: RecorderParams = NodeParameters(
            self, RecorderParams, refusal=lambda: 'while it runs', apply=lambda _: None
        ).value
        _check_writable(self._params)
        self._check_topics()
        if not (self._params.report or self._params.contact_sheet):
            self.get_logger().warning('writes nothing: neither report nor contact_sheet names a file')
        self._record = Record(samples=self._params.samples)
        self._reminders = Reminders()
        self._class_names: list[str] = []
        self._told_names: dict[str, None] = {}  # by answers, in their order
        self._numbers = 0  # that answers tell instead of names: below that
        self._nodes: dict[str, dict[str, Any]] = {}
        self._statuses: dict[str, dict[str, Any]] = {}  # where a node has several
        self._texts: dict[str, Counter[str]] = {topic: Counter() for topic in self._params.text_topics}
        self._first_texts: dict[str, dict[str, str]] = {topic: {} for topic in self._texts}  # of each kind
        self._last_kinds: dict[str, str] = {}  # by topic
        for kind, topic, callback, qos, is_raw in (
            (Image, 'image', self._on_image, qos_profile_sensor_data, True),
            (Detection2DArray, 'detections', self._on_detections, 100, False),
            (LabelInfo, 'label_info', self._on_labels, LATCHED_QOS, False),
            (DiagnosticArray, '/diagnostics', self._on_diagnostics, 100, False),
        ):
            self.create_subscription(kind, topic, partial(self._hear, topic, callback), qos, raw=is_raw)
        for topic in self._texts:
            hear = partial(self._hear, topic, partial(self._on_text, topic))
            self.create_subscription(String, topic, hear, 100)
        if self._params.use_overlay:
            hear = partial(self._hear, 'overlay', self._on_overlay)
            self.create_subscription(Image, 'overlay', hear, qos_profile_sensor_data, raw=True)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        if self._params.report:
            self.create_timer(PERIOD_S, self._write_report, clock=clock)
        self.create_timer(PATIENCE_S, self._remind, clock=clock)

    def _check_topics(self) -> None:
        for topic in self._params.text_topics:
            try:
                self.resolve_topic_name(topic)
                validate_topic_name(topic)
            except (InvalidTopicNameException, ValueError, rclpy_implementation.RCLError) as error:
                raise ParameterError(f'text_topics: {error}') from error

    def close(self) -> None:
        """Write what was recorded, and say where; safe to call twice."""
        params, log = self._params, self.get_logger()
        if params.contact_sheet and not self._record.samples():
            why = f'no answers came{self._why_no_answers()}'
            if self._record.answered:
                why = 'no answer came with its picture'
            log.warning(f'no contact sheet: {why}')
        elif params.contact_sheet and self._write(Path(params.contact_sheet), self._contact_sheet):
            log.info(loggable(f'written: {params.contact_sheet}'))
        if params.report and self._write_report():
            log.info(loggable(f'written: {params.report}'))

    def _why_no_answers(self) -> str:
        """Name the topic where nobody publishes it, and those that it may be meant for."""
        topic = self.resolve_topic_name('detections')
        others = published(self, 'vision_msgs/msg/Detection2DArray')
        if self.count_publishers(topic) or not others:
            return ''
        return f': nobody publishes {topic}; remap detections to one of {", ".join(others)}'

    def _remind(self) -> None:
        """Say that it waits, as long as it does."""
        if self._record.answered:
            return
        came, topic = counted(self._record.pictures, 'picture'), self.resolve_topic_name('detections')
        text = f'no answers yet on {topic}, {came} on {self.resolve_topic_name("image")}'
        if self._reminders.is_due(text):
            self.get_logger().info(f'{text}{self._why_no_answers()}')

    def _hear(self, topic: str, callback: Callable[[Any], None], message: Any) -> None:
        """Take a message; one that cannot be used is told, and ends nothing: anybody may have sent it."""
        try:
            callback(message)
        except Exception as error:
            text = f'{topic}: {describe(error)}'
            if self._reminders.is_due(text):
                self.get_logger().error(text)

    def _on_image(self, cdr: bytes) -> None:
        frame = frame_from_image_cdr(cdr)
        self._record.add_picture(frame.stamp_ns, frame.bgr())

    def _on_overlay(self, cdr: bytes) -> None:
        frame = frame_from_image_cdr(cdr)
        self._record.add_drawn(frame.stamp_ns, frame.bgr())

    def _on_detections(self, message: Detection2DArray) -> None:
        stamp_ns = stamp_ns_of(message.header)
        if problem := clock_problem(self.get_clock()):
            if self._reminders.is_due(problem):
                self.get_logger().warning(problem)
        latency_ms = (self.get_clock().now().nanoseconds - stamp_ns) / 1e6
        _, names = detections_from_msg(message, [])
        for name in names:  # as far as `label_info` has not come, or does not have it
            if (number := class_number(name)) is not None:
                self._numbers = max(self._numbers, min(number + 1, MOST_NAMES))
            elif len(self._told_names) < MOST_NAMES:
                self._told_names.setdefault(name)
        self._record.add_answer(stamp_ns, message, names, latency_ms)

    def _on_labels(self, message: LabelInfo) -> None:
        self._class_names = [entry.class_name for entry in message.class_map]

    def _on_text(self, topic: str, message: String) -> None:
        """Count a text that says something else than the one before; of those of a kind the first is kept."""
        kind, firsts = kind_of(message.data), self._first_texts[topic]
        if kind != self._last_kinds.get(topic) and (kind in firsts or len(firsts) < MOST_TEXTS):
            self._texts[topic][firsts.setdefault(kind, message.data)] += 1
        self._last_kinds[topic] = kind

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        namespace = f'{self.get_namespace()}/'.lstrip('/')  # nothing in the root namespace
        for status in message.status:
            full_name = status.name.split(':')[0]
            if full_name.startswith(namespace):
                values = {pair.key: pair.value for pair in status.values}
                level = LEVEL_NAMES.get(status.level, 'unknown')
                said = {'level': level, 'message': status.message, 'values': values}
                self._nodes[full_name.removeprefix(namespace)] = said
                self._statuses[status.name.removeprefix(namespace)] = said

    def _write_report(self) -> bool:
        p50, p95, p99 = self._record.latency_ms()
        report = {
            'pictures': self._record.pictures,
            'answered': self._record.answered,
            'without_picture': self._record.unmatched,
            'classes': dict(self._record.classes.most_common()),
            'latency_ms': {'p50': p50, 'p95': p95, 'p99': p99} if self._record.answered else None,
            'nodes': self._nodes,
            'statuses': self._statuses,
            'texts': {topic: dict(texts.most_common()) for topic, texts in self._texts.items()},
        }
        return self._write(Path(self._params.report), lambda: json.dumps(report, indent=1).encode())

    def _write(self, path: Path, make: Callable[[], bytes]) -> bool:
        """Write a file, and tell whether that went well; where not, the reason is in the log."""
        try:
            write_whole(path, make(), sync=False)  # which would hold up what comes in
        except OSError as error:
            text = loggable(f'{path}: cannot be written: {error.strerror}')
            if self._reminders.is_due(text):
                self.get_logger().error(text)
            self.exit_code = 1
        except Exception as error:  # the other file may still be written
            self.get_logger().error(loggable(f'{path}: cannot be made: {describe(error)}'))
            self.exit_code = 1
        else:
            return True
        return False

    def _contact_sheet(self) -> bytes:
        """The samples with what was said of them, as a file."""
        samples = self._record.samples()
        names = [*self._class_names, *[''] * (self._numbers - len(self._class_names))]  # '': its number
        names += [name for name in self._told_names if name not in self._class_names]
        answers = [detections_from_msg(sample.answer, names)[0] for sample in samples]
        images = [
            sample.image if sample.is_drawn else draw_detections(sample.image.copy(), found, names)
            for sample, found in zip(samples, answers)
        ]
        captions = [
            f'{len(found)} found, {sample.latency_ms:.1f} ms after the picture'
            for sample, found in zip(samples, answers)
        ]
        sheet = contact_sheet(images, captions=captions)
        return signed(bytes(cv2.imencode(Path(self._params.contact_sheet).suffix, sheet)[1]), by=NAME)


def _check_writable(params: RecorderParams) -> None:
    """Find out at the start, not after the run, that a file cannot or may not be written."""
    report, sheet = params.report, params.contact_sheet
    if sheet and Path(sheet).suffix.lower() not in SUFFIXES and not Path(sheet).is_dir():
        expected = ', '.join(SUFFIXES)
        raise ParameterError(f'contact_sheet: expected a file name with {expected}, got {sheet!r}')
    if report and sheet and os.path.realpath(report) == os.path.realpath(sheet):
        raise ParameterError(f'contact_sheet: {sheet} is the file of report, too; give another')
    if report:
        check_place(Path(report), 'report:', lambda path: is_report(path, key='answered'), 'report')
    if sheet:
        check_place(Path(sheet), 'contact_sheet:', partial(is_signed, by=NAME), 'contact sheet')


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C."""
    return run_node(NAME, RecorderParams, lambda stop: Recorder(), args)


if __name__ == '__main__':
    sys.exit(main())
