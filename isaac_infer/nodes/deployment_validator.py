"""deployment_validator: checks whether what runs here is the deployment that a manifest describes."""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import String

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.finite import finite
from isaac_infer.core.text import loggable
from isaac_infer.deploy.checks import (
    FAILED,
    OUTCOMES,
    PASSED,
    Result,
    is_busy,
    is_passed,
    line_of,
    report_of,
    run_checks,
    skipped,
    unfinished_report,
    verdict,
)
from isaac_infer.deploy.manifest import read_manifest
from isaac_infer.deploy.parts import checks_of
from isaac_infer.engine.files import check_place, is_report, write_whole
from isaac_infer.params import ValidatorParams
from isaac_infer.ros.checks import ros_checks
from isaac_infer.ros.diagnostics import ERROR, OK, WARN, diagnostics_msg, wait_until_heard
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.process import run_node

NAME = 'deployment_validator'
STATUS = 'deployment_validation_status'
# Latched: whoever comes later hears all lines of a validation, its report last.
STATUS_QOS = QoSProfile(depth=200, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
CLOSE_TIMEOUT_S = 5.0  # for the check that is under way
REPORT_KEY = 'deployment'


class DeploymentValidator(Node):
    """Publishes what comes of each check, and a report; one thread checks while the node answers."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """Read the manifest and begin; `stop` is called after the only validation.

        Raises:
            ParameterError: a parameter or the manifest is wrong.
        """
        super().__init__(NAME)
        self.exit_code = 1  # until all required checks passed
        self._stop = stop
        self._closing = threading.Event()
        self._cancelled = threading.Event()  # of the validation under way
        self._results: list[Result] = []  # of the validation under way
        self._last: tuple[list[Result], float] | None = None  # of the last one, and how long it took
        try:
            self._params: ValidatorParams = NodeParameters(
                self, ValidatorParams, refusal=lambda: 'while it runs; start it again'
            ).value
            if not self._params.manifest:
                raise ParameterError('manifest: none given: --ros-args -p manifest:=FILE')
            self._manifest = read_manifest(self._params.manifest)
            if self._params.report:
                place = Path(self._params.report)
                check_place(place, 'report:', lambda path: is_report(path, key=REPORT_KEY), 'report')
            checks_of(self._manifest, (), cancelled=self._closing)  # what it calls optional is there
            if self._params.report and place.is_file():
                self._write(json.dumps(unfinished_report(self._params.manifest)))
        except ParameterError:
            self.destroy_node()
            raise
        self._status = self.create_publisher(String, STATUS, STATUS_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread = threading.Thread(target=self._work, name='validator', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the checks; safe to call twice.

        Raises:
            TimeoutError: one of them does not end.
        """
        self._closing.set()
        self._cancelled.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive() or is_busy(CLOSE_TIMEOUT_S):
            raise TimeoutError('a check does not end; leaving without it')
        self._publish_diagnostics()
        for publisher in (self._status, self._diagnostics):
            wait_until_heard(publisher)

    def _work(self) -> None:
        """Validate once, or again and again, and end the process after the only or a broken one."""
        try:
            while not self._closing.is_set():
                self._validate()
                if not self._params.period or self._closing.wait(self._params.period):
                    break
        except Exception:  # of rclpy, say: the process ends, and has not passed
            self.exit_code = 1
            self.get_logger().fatal(traceback.format_exc())
        finally:
            self._stop()

    def _validate(self) -> None:
        params, manifest = self._params, self._manifest
        begun_s = monotonic()
        cancelled = self._cancelled = threading.Event()
        if self._closing.is_set():  # which has set the one before
            return
        self.exit_code = 1  # until this one has passed, too
        groups, others = checks_of(
            manifest,
            params.parts,
            ros=ros_checks(manifest, self, cancelled),
            model_directory=params.model_directory,
            cancelled=cancelled,
        )
        self._results = []
        results = run_checks(groups, timeout_s=params.validation_timeout, cancelled=cancelled)
        if is_busy(0):  # it holds what the same check would need again
            results = iter(skipped(groups, 'a check of the last validation has not ended yet'))
        for result in results:
            self._results = [*self._results, result]
            self._say(line_of(result), is_bad=result.is_required and result.outcome != PASSED)
        for result in others:
            self._say(line_of(result))
        results = [*self._results, *others]
        took_s = monotonic() - begun_s
        self._last = results, took_s
        passed = is_passed(results)
        self.exit_code = 0 if passed else 1
        self._say(f'{verdict(results)} ({took_s:.1f} s)', is_bad=not passed)
        report = {**report_of(params.manifest, results), 'seconds': took_s}
        text = json.dumps(finite(report), default=str, allow_nan=False)
        self._status.publish(String(data=text))
        if params.report:
            self._write(text)
        self._publish_diagnostics()

    def _say(self, line: str, *, is_bad: bool = False) -> None:
        """Publish a line, and put it into the log."""
        line = loggable(line)
        self._status.publish(String(data=line))
        # Not one function by name: rclpy tells callers apart by their line.
        if is_bad:
            self.get_logger().error(line)
        else:
            self.get_logger().info(line)

    def _write(self, text: str) -> None:
        try:
            write_whole(Path(self._params.report), f'{text}\n'.encode(), sync=False)
        except OSError as error:
            self.exit_code = 1
            self.get_logger().error(f'{self._params.report}: cannot be written: {error.strerror}')

    def _publish_diagnostics(self) -> None:
        results, last = self._results, self._last
        level, message = WARN, f'validating: {len(results)} checks done'
        values = {'manifest': self._params.manifest}
        if last is not None:
            results, took_s = last
            level, message = (OK if is_passed(results) else ERROR), verdict(results)
            values['seconds'] = f'{took_s:.3f}'
        counts = Counter(result.outcome for result in results)
        values |= {outcome.replace(' ', '_'): str(counts[outcome]) for outcome in OUTCOMES}
        bad = [result.name for result in results if result.outcome == FAILED]
        values['failed_checks'] = ', '.join(bad)
        name = f'{self.get_fully_qualified_name().lstrip("/")}: deployment'
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics_msg(name, level, message, values, stamp=stamp))


def main(args: list[str] | None = None) -> int:
    """Validate once or periodically; the exit code is 0 only if all required checks passed."""
    return run_node(NAME, ValidatorParams, DeploymentValidator, args)


if __name__ == '__main__':
    sys.exit(main())
