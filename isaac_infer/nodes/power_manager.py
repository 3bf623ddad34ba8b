"""power_manager: watches a board, chooses its power mode, and says how much work it can take."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import monotonic
from uuid import uuid4

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from isaac_infer.core import missed
from isaac_infer.core.errors import ParameterError, PowerModeError, RebootError, describe
from isaac_infer.core.load_level import NORMAL
from isaac_infer.core.missed import MissedDeadlines
from isaac_infer.jetson.board import Board, BoardReader
from isaac_infer.jetson.choose import (
    Demand,
    LoadMargins,
    State,
    Thresholds,
    choose_mode,
    load_level_of,
    order_modes,
)
from isaac_infer.jetson.memory import used_percent
from isaac_infer.jetson.nvpmodel import PowerMode, PowerModes, find_mode, needs_reboot, read_mode
from isaac_infer.jetson.switch import find_switch, switch_mode
from isaac_infer.jetson.sysfs import read_text
from isaac_infer.jetson.tool import RunsOnError
from isaac_infer.nodes._power_report import (
    UNKNOWN,
    Seen,
    amperes_text,
    board_figures,
    celsius_text,
    mode_text,
    summary,
)
from isaac_infer.params import PowerManagerParams
from isaac_infer.ros.diagnostics import ERROR, OK, WARN, diagnostics_msg, wait_until_heard
from isaac_infer.ros.figures import figures_msg
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.process import run_node
from isaac_infer.ros.reminders import Reminders

NAME = 'power_manager'
LATCHED_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
LATE_S = 5.0  # without a reading, before that is an error
DECIDE_S = 1.0  # between two decisions on the power mode
SLOW_S = 1.0  # between two readings of rails, fans, memory and throttling
ASK_S = 30.0  # between two questions to nvpmodel itself, where no file has the mode
OVER_CURRENT_S = 10.0  # for so long over-currents that came are a warning
CLOSE_TIMEOUT_S = 3.0  # for a reading, and for a switch that is under way
RIVAL_S = 3.0  # in which another power_manager says once at least that it is there
BOOT_ID = 'proc/sys/kernel/random/boot_id'  # the same in all containers of a board, and on no other board

COUNTERS = tuple(name.encode() for name in missed.COUNTERS)


class PowerManager(Node):
    """One thread reads the board and decides; another one waits for nvpmodel, which may hang."""

    def __init__(self) -> None:
        """Begin to watch.

        Raises:
            ParameterError: a parameter is wrong.
        """
        super().__init__(NAME)
        self.exit_code = 0
        self._reminders = Reminders()
        self._closing = threading.Event()
        self._begun_s = monotonic()
        self._seen: Seen | None = None
        self._failure = ''  # of the last reading
        try:
            self._declared = NodeParameters(
                self, PowerManagerParams, refusal=lambda: 'while it runs; start it again', apply=self._apply
            )
            params = self._declared.value
            if not Path(params.root).is_dir():
                raise ParameterError(
                    f'root: expected the folder that has the files of a board, got {params.root}'
                )
        except ParameterError:
            self.destroy_node()
            raise
        self._root = Path(params.root)
        self._reader = BoardReader(self._root, asks_tool=False, slow_s=SLOW_S)
        self._missed = MissedDeadlines()
        self._state = State()
        self._load_level = ''
        self._over_currents: dict[str, int] = {}
        self._over_currents_s = -OVER_CURRENT_S  # when the last ones came
        self._ordered: tuple[PowerModes, tuple[PowerMode, ...]] | None = None  # of what, and the order
        self._decided_s = -DECIDE_S
        self._loads: list[tuple[float | None, float | None]] = []  # of CPU and GPU, since then
        self._reason = self._problem = ''
        self._boot_id = read_text(self._root / BOOT_ID) or ''
        self._instance = uuid4().hex  # another node may have this one's name
        self._rival = ('', -RIVAL_S)  # who else switches this board, and when that was heard last
        self._under_way = ''  # a switch that is not waited for, somebody else's say

        # Of the thread that waits for nvpmodel.
        self._tool: threading.Thread | None = None
        self._left: subprocess.Popen[bytes] | None = None  # nvpmodel that was given up and runs on
        self._asked_s = -ASK_S
        self._told_mode: PowerMode | None = None  # where no file has it
        self._rebooting: frozenset[int] = frozenset()  # IDs that take a reboot, as the tool says
        self._last_switch = self._switch_error = self._reboot = ''

        self._status = self.create_publisher(String, 'power_status', 10)
        self._metrics = self.create_publisher(Float64MultiArray, 'power_metrics', 10)
        self._level = self.create_publisher(String, 'load_level', LATCHED_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100, raw=True)
        self.create_service(Trigger, '~/pin', self._on_pin)
        self.create_service(Trigger, '~/automatic', self._on_automatic)
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread = threading.Thread(target=self._watch, name='watch', daemon=True)
        self._thread.start()
        does = 'says which power mode it would switch to' if params.dry_run else 'switches the power mode'
        pinned = f'{params.pinned_mode} is pinned' if params.pinned_mode else 'none is pinned'
        self.get_logger().info(
            f'reads the board {params.monitoring_frequency:g} times per second, {does}; {pinned}'
        )

    def close(self) -> None:
        """Stop watching, and let a switch that is under way end; safe to call twice.

        Raises:
            TimeoutError: a reading, or nvpmodel, does not end.
        """
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            raise TimeoutError('the board cannot be read to an end; leaving without it')
        tool = self._tool
        if tool is not None:
            tool.join(CLOSE_TIMEOUT_S)
            if tool.is_alive():
                raise TimeoutError('nvpmodel does not answer; leaving without it')
        self._publish_diagnostics()
        wait_until_heard(self._diagnostics)

    # --- what others say -----------------------------------------------------------------------------------

    def _on_diagnostics(self, cdr: bytes) -> None:
        # Most messages, our own among them, have nothing for us: those are not worth reading.
        is_of_board = bool(self._boot_id) and self._boot_id.encode() in cdr
        is_of_rival = is_of_board and self._instance.encode() not in cdr
        if not (is_of_rival or any(counter in cdr for counter in COUNTERS)):
            return
        now_s = monotonic()
        try:
            statuses = deserialize_message(cdr, DiagnosticArray).status
        except Exception as error:  # of several kinds: anybody may have sent it
            self._say(WARN, f'/diagnostics: a message that cannot be read is passed over: {error}')
            return
        for status in statuses:
            values = {pair.key: pair.value for pair in status.values}
            self._missed.add(status.name, values, now_s)
            if values.get('boot_id') == self._boot_id and values.get('dry_run') == 'false' and is_of_rival:
                self._rival = f'/{status.name.partition(":")[0]}', now_s

    def _apply(self, params: PowerManagerParams) -> None:
        """Take new values; the mode that is pinned has to be one of this board."""
        if params.pinned_mode and params.pinned_mode != self._declared.value.pinned_mode:
            try:
                find_mode(self._reader.modes.modes.values(), params.pinned_mode)
            except PowerModeError as error:
                raise ParameterError(f'pinned_mode: {error}') from error
        self._switch_error = self._reboot = ''

    def _on_pin(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Pin the mode that the board is in."""
        mode = self._seen.mode if self._seen else None
        if mode is None or mode.name is None:
            response.message = 'the power mode of the board is unknown; set pinned_mode to the one you want'
            return response
        return self._pin(mode.name, response)

    def _on_automatic(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Choose the mode by the load again."""
        return self._pin('', response)

    def _pin(self, name: str, response: Trigger.Response) -> Trigger.Response:
        (result,) = self.set_parameters([Parameter('pinned_mode', Parameter.Type.STRING, name)])
        response.success = result.successful
        response.message = result.reason or (
            f'{name} is pinned' if name else 'the mode is chosen by the load'
        )
        return response

    # --- watching ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Read and decide, again and again, whatever happens."""
        due_s = monotonic()
        while not self._closing.wait(max(due_s - monotonic(), 0)):
            # Due times lie on a grid; after a large delay it begins anew.
            due_s = max(due_s, monotonic() - 1) + 1 / self._declared.value.monitoring_frequency
            try:
                self._look()
                self._failure = ''
            except Exception as error:  # a board that cannot be read now may be in a moment
                self._failure = describe(error)
                self._say(ERROR, self._failure)

    def _look(self) -> None:
        params, now_s = self._declared.value, monotonic()
        board = self._reader.read()
        mode = board.power_mode or self._told_mode
        if board.power_mode is None and board.power_modes and now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            self._start(self._ask)
        margin = board.margin_celsius(params.throttle_celsius)
        self._loads.append((board.cpu.load_percent, board.gpu.load_percent))
        demand = Demand(
            cpu_percent=board.cpu.load_percent,
            gpu_percent=board.gpu.load_percent,
            memory_percent=used_percent(board.memory),
            deadlines_missed=self._missed.count(now_s),
            margin_celsius=margin,
            is_throttling=board.is_throttling,
        )
        margins = LoadMargins(
            params.reduced_margin_celsius, params.minimal_margin_celsius, params.thermal_hysteresis_celsius
        )
        level = load_level_of(self._load_level or NORMAL, margin, board.is_throttling, margins)
        if level != self._load_level:
            if self._load_level:
                self.get_logger().warning(f'load level {level}, {celsius_text(margin)} to throttling')
            self._load_level = level
            self._level.publish(String(data=level))
        if now_s - self._decided_s >= DECIDE_S:
            self._decided_s = now_s
            # A load is what it was on average: that of a GPU jumps from picture to picture.
            cpu_percent, gpu_percent = map(_mean, zip(*self._loads))
            self._loads.clear()
            wanted = replace(demand, cpu_percent=cpu_percent, gpu_percent=gpu_percent)
            self._reason, self._problem = self._decide(board, mode, wanted, now_s)
        if self._seen is None and not board.power_modes:
            self.get_logger().info('no power modes are known of this board: there is nothing to switch')
        figures = dict(board_figures(board, mode, demand))
        self._seen = Seen(
            now_s,
            board,
            mode,
            demand,
            level,
            self._reason,
            self._problem,
            tuple(self._warnings(board, now_s)),
            figures,
        )
        self._metrics.publish(figures_msg(figures))
        if self._status.get_subscription_count():
            self._status.publish(String(data=summary(self._seen)))

    def _decide(self, board: Board, mode: PowerMode | None, demand: Demand, now_s: float) -> tuple[str, str]:
        """Choose a mode and have it switched to; give the reason, and what has to be changed by somebody."""
        params = self._declared.value
        try:
            ordered = self._order()
        except PowerModeError as error:
            self._say(ERROR, str(error))
            return '', str(error)
        pinned, problem = None, ''
        try:
            pinned = find_mode(board.power_modes, params.pinned_mode) if params.pinned_mode else None
        except PowerModeError as error:
            problem = f'pinned_mode: {error}'
            self._say(ERROR, problem)
            # It is not known what is wanted, so the load is not followed; heat is.
            demand = Demand(margin_celsius=demand.margin_celsius, is_throttling=demand.is_throttling)
        if self._left is not None and self._left.poll() is not None:
            self.get_logger().info(f'process {self._left.pid}, which was given up, has ended')
            self._left, self._switch_error = None, ''
        self._under_way = '' if self._left is None else f'process {self._left.pid}, which was given up'
        rival, heard_s = self._rival
        if not params.dry_run and now_s - heard_s < RIVAL_S:
            alike = ', of the same name' if rival == self.get_fully_qualified_name() else ''
            problem = (
                f'{rival}{alike}, switches the power mode of this board, too: neither does by itself until '
                'one of them ends or gets dry_run'
            )
            self._say(ERROR, problem)
            return 'another node switches this board, too', problem
        if self._tool is not None and self._tool.is_alive():
            return 'waiting for nvpmodel', problem
        if pinned is not None and mode is not None and pinned.id != mode.id:
            if needs_reboot(mode, pinned) or pinned.id in self._rebooting:
                self._reboot = f'{pinned.name} is pinned, but needs a reboot: sudo nvpmodel -m {pinned.id}'
        choice = choose_mode(
            ordered,
            mode,
            demand,
            _thresholds(params),
            self._state,
            now_s,
            pinned=pinned,
            rebooting=self._rebooting,
        )
        if choice.mode is not None and not params.dry_run:
            # It is chosen again the next time, so what is chosen now is not remembered.
            if self._closing.is_set():
                return choice.reason, problem
            if self._boot_id and now_s - self._begun_s < RIVAL_S:
                return f'{choice.reason}; listening whether another node switches this board', problem
            self._under_way = self._under_way or find_switch(self._root)
            if self._under_way:
                return f'{choice.reason}; waiting for a switch that is under way', problem
        self._state = choice.state
        if choice.mode is None:
            return choice.reason, problem
        if params.dry_run:
            self._last_switch = f'dry run: would switch to {choice.mode.name}: {choice.reason}'
            self._say(OK, self._last_switch)
        else:
            target = choice.mode
            self.get_logger().info(f'switching to {target.name}: {choice.reason}')
            self._start(lambda: self._switch(target, self._reader.modes))
        return choice.reason, problem

    def _order(self) -> tuple[PowerMode, ...]:
        """Put the modes in order where they have changed."""
        modes, params = self._reader.modes, self._declared.value
        if self._ordered is None or self._ordered[0] is not modes:
            ordered = order_modes(
                modes.modes.values(),
                allowed=params.allowed_modes,
                lowest=params.low_power_profile,
                highest=params.high_power_profile,
            )
            self._ordered = modes, ordered
            self._rebooting = frozenset()
        return self._ordered[1]

    def _warnings(self, board: Board, now_s: float) -> Iterator[str]:
        """Say what limits the board, with numbers."""
        for throttle in board.throttles:
            if throttle.state:
                yield f'throttling: {throttle.name} {throttle.state} of {throttle.max_state}'
        for rail in board.power.rails:
            for is_on, limit_a, what in (
                (rail.is_above_crit, rail.crit_a, 'at a moment'),
                (rail.is_above_max, rail.max_a, 'on average'),
            ):
                if is_on:
                    amperes = f'{amperes_text(rail.current_a)} of {amperes_text(limit_a)}'
                    yield f'over-current {what}: {rail.name} {amperes}'
        counts = {each.name: each.events for each in board.over_currents if each.events is not None}
        came = {name: count - self._over_currents.get(name, count) for name, count in counts.items()}
        if any(more > 0 for more in came.values()):
            self._over_currents_s = now_s
        self._over_currents.update(counts)
        if now_s - self._over_currents_s < OVER_CURRENT_S:
            told = ', '.join(f'{name} {count}' for name, count in counts.items())
            yield f'the supply did not keep up a moment ago; times since the start: {told}'

    # --- nvpmodel ------------------------------------------------------------------------------------------

    def _start(self, job: Callable[[], None]) -> None:
        """Have a job done that waits for nvpmodel, unless one is under way."""
        if self._tool is None or not self._tool.is_alive():
            self._tool = threading.Thread(target=job, name='nvpmodel', daemon=True)
            self._tool.start()

    def _ask(self) -> None:
        self._told_mode = read_mode(self._root, self._reader.modes)

    def _switch(self, target: PowerMode, modes: PowerModes) -> None:
        params = self._declared.value

        def read_back() -> PowerMode | None:
            self._told_mode = read_mode(self._root, modes)
            return self._told_mode

        try:
            switch_mode(
                target,
                command=params.nvpmodel_command,
                read_back=read_back,
                timeout_s=params.nvpmodel_timeout_s,
            )
        except RebootError as error:
            self._rebooting |= {target.id}
            self._last_switch = self._reboot = str(error)
            self._switch_error = ''
        except PowerModeError as error:
            self._last_switch = str(error)
            self._left = error.tool if isinstance(error, RunsOnError) else None
            if self._declared.value is params:  # else somebody wants something else by now
                self._switch_error = str(error)
            self._say(ERROR, str(error))
        else:
            self._last_switch, self._switch_error, self._reboot = f'switched to {target.name}', '', ''
            self._rebooting = frozenset()
            self.get_logger().info(f'switched to {target.name} (ID {target.id})')

    # --- health --------------------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        name = f'{self.get_fully_qualified_name().lstrip("/")}: power'
        seen, params, stamp = self._seen, self._declared.value, self.get_clock().now().to_msg()
        if seen is None:
            level, text = (ERROR, self._failure) if self._failure else (OK, 'not read yet')
            if not self._failure and monotonic() - self._begun_s > LATE_S:
                level, text = ERROR, f'no reading for {monotonic() - self._begun_s:.0f} s'
            self._diagnostics.publish(diagnostics_msg(name, level, text, {}, stamp=stamp))
            return
        late_s = monotonic() - seen.at_s
        errors = [each for each in (self._failure, seen.problem, self._switch_error) if each]
        if late_s > LATE_S + 1 / params.monitoring_frequency and not self._closing.is_set():
            errors.append(f'no reading for {late_s:.0f} s')
        warnings = [*seen.warnings, *filter(None, [self._reboot])]
        if self._under_way:
            warnings.append(f'a switch is under way: {self._under_way}')
        for warning in warnings:
            self._say(WARN, warning)
        if seen.load_level != NORMAL:
            warnings.append(f'load level {seen.load_level}')  # the log has it from when it changed
        level = ERROR if errors else WARN if warnings else OK
        values = {
            'power_mode': mode_text(seen.mode),
            'pinned_mode': params.pinned_mode,
            'dry_run': str(params.dry_run).lower(),
            'boot_id': self._boot_id,
            'instance': self._instance,
            'load_level': seen.load_level,
            'reason': seen.reason,
            'last_switch': self._last_switch,
            'last_error': self._switch_error or seen.problem or self._failure,
            'fan_profile': seen.board.fan_profile or UNKNOWN,
            **{key: UNKNOWN if value is None else f'{value:g}' for key, value in seen.figures.items()},
        }
        text = '; '.join(errors or warnings) or summary(seen)
        self._diagnostics.publish(
            diagnostics_msg(name, level, text, values, stamp=stamp, hardware_id=seen.board.model or '')
        )

    def _say(self, level: bytes, text: str) -> None:
        if not self._reminders.is_due(text):
            return
        # A line each, as rclpy refuses a line that logs at several levels.
        if level == ERROR:
            self.get_logger().error(text)
        elif level == WARN:
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)


def _thresholds(params: PowerManagerParams) -> Thresholds:
    return Thresholds(
        cpu_percent=params.cpu_usage_threshold,
        gpu_percent=params.gpu_usage_threshold,
        memory_percent=params.memory_usage_threshold,
        deadlines_missed=params.missed_deadlines_threshold,
        hysteresis_percent=params.usage_hysteresis,
        hot_margin_celsius=params.hot_margin_celsius,
        critical_margin_celsius=params.critical_margin_celsius,
        hysteresis_celsius=params.thermal_hysteresis_celsius,
        dwell_s=params.dwell_s,
        min_interval_s=params.min_switch_interval_s,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C."""
    return run_node(NAME, PowerManagerParams, lambda stop: PowerManager(), args)


if __name__ == '__main__':
    sys.exit(main())
