"""Diagnostics: how a perception node is doing, in numbers, as one status of /diagnostics."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from isaac_infer.core.stats import Window
from isaac_infer.ros.reminders import kind_of

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
LEVEL_NAMES = {OK: 'OK', WARN: 'WARN', ERROR: 'ERROR', DiagnosticStatus.STALE: 'STALE'}
PERCENTS = (50, 95, 99)
HEARD_TIMEOUT_S = 0.5
MOST_ERRORS = 20  # kinds in one report
OTHERS = 'errors of other kinds'

# Why a picture got no answer. LOST ones were never received; of the others and the answered ones, the sum is
# what was received. UNPAIRED: what is needed of another node came first for a newer one, or too late.
# INACTIVE: the node was deactivated before the answer was ready. LOAD_LEVEL: left out to spare the board.
BUSY, UNPAIRED, BAD_IMAGE, FAILED = 'busy', 'unpaired', 'bad_image', 'failed'
INACTIVE, LOAD_LEVEL, LOST = 'inactive', 'load_level', 'lost_in_transport'
CAUSES = (BUSY, UNPAIRED, BAD_IMAGE, FAILED, INACTIVE, LOAD_LEVEL, LOST)


@dataclass(frozen=True)
class Tally:
    """What was counted up to a moment."""

    at_s: float  # monotonic
    received: int = 0
    answered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)  # by cause


@dataclass(frozen=True)
class Report:
    """The numbers of the time since the last report, and the percentiles of the last frames."""

    rate_hz: float  # answers per second
    input_rate_hz: float
    done_rate_hz: float  # pictures answered or dropped here per second: those that waited came earlier
    total: Tally
    recent: Tally  # the difference to the last report
    percentiles_ms: Mapping[str, tuple[float, float, float]]  # 50th, 95th, 99th by stage
    last_error: str
    errors: Mapping[str, int]  # how many of each kind since the last report, by the first of each


@dataclass
class _Span:
    """From the first to the last time that something happened."""

    first_s: float = inf  # monotonic
    last_s: float = -inf

    def add(self, at_s: float) -> None:
        self.first_s, self.last_s = min(self.first_s, at_s), at_s

    def rate_hz(self, count: int) -> float:
        """How often it happened, so many times in all; 0 where that does not tell."""
        return (count - 1) / (self.last_s - self.first_s) if self.last_s > self.first_s else 0.0


class Health:
    """Counts and times of a node; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._answered = 0
        self._received_s, self._answered_s = _Span(), _Span()
        self._dropped: Counter[str] = Counter()
        self._windows: dict[str, Window] = {}
        self._last_error = ''
        self._errors: dict[str, tuple[str, int]] = {}  # since the last report, by kind: the first, how many
        self._last = Tally(monotonic())

    def received(self) -> None:
        with self._lock:
            self._received += 1
            self._received_s.add(monotonic())

    def answered(self, times_ms: Mapping[str, float]) -> None:
        """Count an answer and how long each of its stages took."""
        with self._lock:
            self._answered += 1
            self._answered_s.add(monotonic())
            for stage, time_ms in times_ms.items():
                self._windows.setdefault(stage, Window()).add(time_ms)

    def took(self, stage: str, time_ms: float) -> None:
        """Remember how long something took that not every picture needs."""
        with self._lock:
            self._windows.setdefault(stage, Window()).add(time_ms)

    def dropped(self, cause: str, *, count: int = 1) -> None:
        with self._lock:
            self._dropped[cause] += count

    def error(self, text: str) -> None:
        """Remember the last error, until another one or `restart`, and count those of its kind."""
        kind = kind_of(text)
        with self._lock:
            self._last_error = text
            if kind not in self._errors and len(self._errors) >= MOST_ERRORS:
                kind = text = OTHERS
            first, count = self._errors.get(kind, (text, 0))
            self._errors[kind] = first, count + 1

    def restart(self) -> None:
        """Forget times and errors, of a model that is gone; counts go on."""
        with self._lock:
            self._windows.clear()
            self._errors.clear()
            self._last_error = ''

    def rates_hz(self) -> tuple[float, float]:
        """Answered and received pictures per second, from the first to the last one."""
        with self._lock:
            return self._answered_s.rate_hz(self._answered), self._received_s.rate_hz(self._received)

    def report(self) -> Report:
        """Say what happened since the last report."""
        with self._lock:
            now = Tally(monotonic(), self._received, self._answered, dict(self._dropped))
            last, self._last = self._last, now
            percentiles = {stage: window.percentiles() for stage, window in self._windows.items()}
            error, errors = self._last_error, dict(self._errors.values())
            self._errors.clear()
        seconds = max(now.at_s - last.at_s, 1e-6)
        recent = Tally(
            seconds,
            now.received - last.received,
            now.answered - last.answered,
            {cause: now.dropped.get(cause, 0) - last.dropped.get(cause, 0) for cause in CAUSES},
        )
        done = recent.answered + sum(recent.dropped.values()) - recent.dropped[LOST]
        rates_hz = (count / seconds for count in (recent.answered, recent.received, done))
        return Report(*rates_hz, now, recent, percentiles, error, errors)


def report_values(report: Report) -> dict[str, str]:
    """Give a report as the key-value pairs of a status."""
    values = {
        'rate_hz': f'{report.rate_hz:.2f}',
        'input_rate_hz': f'{report.input_rate_hz:.2f}',
        'received': str(report.total.received),
        'answered': str(report.total.answered),
    }
    for cause in CAUSES:
        values[f'dropped_{cause}'] = str(report.total.dropped.get(cause, 0))
    for stage, percentiles in report.percentiles_ms.items():
        for percent, time_ms in zip(PERCENTS, percentiles):
            values[f'{stage}_ms_p{percent}'] = f'{time_ms:.3f}'
    values['last_error'] = report.last_error
    values['errors'] = ' | '.join(f'{count} x {text}' for text, count in report.errors.items())
    return values


def diagnostics_msg(
    name: str, level: bytes, message: str, values: Mapping[str, str], *, stamp: Time, hardware_id: str = ''
) -> DiagnosticArray:
    """Give one status as a message; half characters, which no message can carry, are replaced."""
    pairs = [KeyValue(key=_whole(key), value=_whole(value)) for key, value in values.items()]
    message, hardware_id = _whole(message), _whole(hardware_id)
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id, values=pairs)
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


def _whole(text: str) -> str:
    return text.encode('utf-8', 'replace').decode()


def clock_problem(clock: ROSClock) -> str:
    """Say that ROS time does not run, as it is simulated and nobody tells it; empty where it runs."""
    if not clock.ros_time_is_active or clock.now().nanoseconds:
        return ''
    return (
        'use_sim_time is set and no /clock came: stamps, ages and latencies mean nothing; start what '
        'publishes /clock, or set use_sim_time to false'
    )


def wait_until_heard(publisher: Publisher) -> None:
    """Wait until everybody who listens has what was published; before the end of a process, not for long."""
    publisher.wait_for_all_acked(Duration(seconds=HEARD_TIMEOUT_S))
