"""jetson_executor: looks at pictures and commands a robot at a fixed rate; in doubt it stops the robot."""

from __future__ import annotations

import isaac_infer.engine.wake  # noqa: F401 - it works while the rest is imported

# isort: split
import sys
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image, Imu, LaserScan
from std_msgs.msg import Float32MultiArray, Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import LabelInfo

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.control.safety import (
    Readings,
    Reason,
    SafetyLimits,
    State,
    Verdict,
    govern,
    govern_without_sensors,
    reset,
    stop,
)
from isaac_infer.core.control.variants import VariantState, choose_variant
from isaac_infer.core.errors import ParameterError, describe, traced
from isaac_infer.core.load_level import LEVELS
from isaac_infer.core.stats import Window
from isaac_infer.core.text import printable
from isaac_infer.jetson.board import ROOT
from isaac_infer.jetson.sysfs import Tree
from isaac_infer.nodes._driving import (
    RuleDriver,
    command_of,
    imu_of,
    load_policy,
    nearest_in_way,
    needs_of,
    scan_of,
)
from isaac_infer.nodes._executor_report import (
    ORDERS,
    Doing,
    benchmark_text,
    control_values,
    figures,
    hottest_celsius,
    judge_control,
    judge_perception,
    perception_values,
    status_text,
)
from isaac_infer.nodes._perceiving import open_perception
from isaac_infer.params import ExecutorParams
from isaac_infer.params.executor import SERVICES
from isaac_infer.ros.control_loop import ControlLoop, bind_to_cores
from isaac_infer.ros.diagnostics import Report, clock_problem, diagnostics_msg, wait_until_heard
from isaac_infer.ros.figures import figures_msg
from isaac_infer.ros.graph import MixedInputs, published_by_others, publishers_of
from isaac_infer.ros.images import frame_from_image_cdr
from isaac_infer.ros.inputs import NEWEST_QOS, Newest, TakenInput
from isaac_infer.ros.messages import label_info_msg
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.perceiver import Opened, Perceiver, objects_msg
from isaac_infer.ros.perception import LATCHED_QOS, RESULT_QOS, Answer
from isaac_infer.ros.pilot import Pilot, Policy
from isaac_infer.ros.process import run_node
from isaac_infer.ros.reminders import Reminders

NAME = 'jetson_executor'
HEARTBEAT_S = 0.1
TYPES = {
    'image': 'sensor_msgs/msg/Image',
    'scan': 'sensor_msgs/msg/LaserScan',
    'imu': 'sensor_msgs/msg/Imu',
}
CLOSE_TIMEOUT_S = 2.0  # for a model that is busy at Ctrl-C; the robot stands before that


class JetsonExecutor(Node):
    """Commands a robot at a fixed rate, by what its newest sensor messages say.

    Four kinds of threads: the executor of rclpy serves pictures, services and diagnostics; every perception
    model has one, the control policy has one; and the control thread, which waits for none of them longer
    than its period allows, decides what is sent.
    """

    def __init__(self, stop_process: Callable[[], None]) -> None:
        """Begin to command, which is to stand, and to open the models.

        Raises:
            ParameterError: a parameter is wrong.
        """
        super().__init__(NAME)
        self.exit_code = 0
        self._reminders = Reminders()
        self._has_stood = False  # for a reason that the log has
        self._lock = threading.Lock()  # around the state, and what is sent because of it
        self._state, self._is_enabled, self._is_closed = State(), False, False
        self._pilot: Pilot | None = None
        self._rule = RuleDriver()  # used where there is no policy
        try:
            self._parameters_of_node = NodeParameters(
                self,
                ExecutorParams,
                refusal=lambda: 'while it runs; start it again',
                apply=self._apply,
            )
            params = self.params
            if params.cpu_affinity:
                bind_to_cores(params.cpu_affinity)
        except ParameterError:
            self.destroy_node()
            raise
        self._is_enabled = params.enabled_at_start
        self._heard_s = self._sent_s = self._due_s = monotonic()
        self._times: dict[str, Window] = {}  # ms, by stage of a period
        self._reasons: tuple[Reason, ...] = ()
        self._names: tuple[str, ...] | None = None  # of the reasons that were published last
        self._misses = 0
        self._others = ''  # who else publishes commands
        self._hints: dict[str, str] = {}  # by input: why it does not come
        self._notes: tuple[str, ...] = ()  # what is not as it should be with topics, and no reason to stand
        self._level, self._variant = '', VariantState(index=-1)  # none yet
        self._report: Report | None = None
        self._board = Tree(ROOT)
        self._celsius: float | None = None
        self._benchmark_s = monotonic()

        self._commands = self.create_publisher(Twist, 'control_output', RESULT_QOS)
        self._status = self.create_publisher(String, 'model_execution_status', RESULT_QOS)
        self._stats = self.create_publisher(Float64MultiArray, 'model_inference_stats', RESULT_QOS)
        self._objects = self.create_publisher(Float32MultiArray, 'perception_output', RESULT_QOS)
        self._labels = self.create_publisher(LabelInfo, 'label_info', LATCHED_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._results: dict[str, Any] = {}  # publishers of typed results, by topic

        self._scan = TakenInput(
            self, 'scan', LaserScan, partial(scan_of, params), name='scan', is_stamped=True
        )
        self._imu = TakenInput(self, 'imu', Imu, imu_of, name='imu', is_stamped=True)
        self._wanted = TakenInput(self, 'ai_commands', Twist, command_of, name='command', is_stamped=False)
        self._image = Newest('image', frame_from_image_cdr, is_stamped=True)
        self._newest = {
            'image': self._image,
            'scan': self._scan.newest,
            'imu': self._imu.newest,
            'command': self._wanted.newest,
        }
        self._topics = {each.newest.name: each.topic for each in (self._scan, self._imu, self._wanted)}
        if params.perception_model_path or params.control_model_path or 'image' in params.required_inputs:
            images = self.create_subscription(Image, 'camera/image_raw', self._on_image, NEWEST_QOS, raw=True)
            self._topics['image'] = images.topic_name
        self._mixed_inputs = MixedInputs(self, tuple(self._topics.values()))
        if params.obey_load_level:
            self.create_subscription(String, 'load_level', self._on_load_level, LATCHED_QOS)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(Trigger, '~/stop', self._on_stop)
        self.create_service(Trigger, '~/reset', self._on_reset)

        if params.control_model_path:
            self._pilot = Pilot(
                self._open_policy,
                self._note_error,
                priority=max(params.thread_priority - 1, 0),  # the control thread comes first
            )
        names = [params.perception_model_path, *params.perception_variants]
        self._perceiver = Perceiver(
            [(name, partial(open_perception, name, params)) for name in names if name],
            self._give,
            self.get_logger().info,
            self._note_error,
            waits_for_all=params.load_variants == 'start',
            now_ns=lambda: self.get_clock().now().nanoseconds,
        )
        self._limits_of = params, self._policy, params.safety_limits(self._required(params))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(HEARTBEAT_S, partial(self._try, self._on_heartbeat), clock=steady)
        self.create_timer(1.0, partial(self._try, self._publish_health), clock=steady)
        self._loop = ControlLoop(params.execution_frequency, self._tick, priority=params.thread_priority)
        self._loop.start()
        self.get_logger().info(
            f'{params.execution_frequency:g} commands per second on {self._commands.topic_name}, '
            + ('enabled' if self._is_enabled else 'standing until ~/enable is called')
        )

    @property
    def params(self) -> ExecutorParams:
        """The parameters in force."""
        return self._parameters_of_node.value

    def close(self) -> None:
        """Stop the robot, then let go of the models; safe to call twice.

        Raises:
            TimeoutError: a model does not return from what it is doing.
        """
        with self._lock:  # from here on the control thread sends nothing
            if not self._is_closed:
                self._is_closed = True
                self._commands.publish(Twist())
        wait_until_heard(self._commands)
        self._loop.close(CLOSE_TIMEOUT_S)
        if self._pilot is not None:
            self._pilot.close(CLOSE_TIMEOUT_S)
        self._perceiver.close(CLOSE_TIMEOUT_S)

    def _open_policy(self) -> Policy:
        params = self.params
        policy = load_policy(params, self._newest)
        needs = ', '.join(sorted(policy.needs))
        self.get_logger().info(f'control by {params.control_model_path}: {policy.backend}, from {needs}')
        return policy

    # --- control, in its own thread ------------------------------------------------------------------------

    def _tick(self, due_s: float) -> None:
        self._due_s = due_s
        try:
            self._command()
        except Exception as error:  # whatever it was: the robot stops, and the next period begins
            text = describe(error)
            # Where not even that can be sent, silence stops the robot until it can.
            self._try(lambda: self._send(lambda: self._stand(text)))
            self._note_error(traced(error))

    def _stand(self, error: str) -> Verdict:
        return govern_without_sensors(error, self._is_enabled, self._limits, self._state)

    def _command(self) -> None:
        now_s, params, pilot = monotonic(), self.params, self._pilot
        for each in (self._scan, self._imu, self._wanted):
            each.take(now_s)
        if pilot is None:
            wanted = self._rule.drive(params, self._scan.newest, self._wanted.newest, now_s)
            self._took('planning', now_s)
            self._send(lambda: self._judge(wanted))
            return
        # Where a fault is certain already, the stop does not wait for the policy.
        certain = self._judge(STOP, model_error=pilot.problem).reasons
        if any(reason.kind not in ORDERS for reason in certain):
            self._send(lambda: self._judge(STOP, model_error=pilot.problem))
            return
        share_s = params.deadline_share / params.execution_frequency
        decision = None
        if not pilot.is_busy:  # else with an earlier question: nobody waits for that again
            number = pilot.ask(is_anew=bool(self._reasons))
            decision = pilot.answer(number, now_s + share_s)
            self._took('planning', now_s)
        if decision is None:
            self._misses += 1
            missed = f'the control model did not answer within {share_s * 1e3:.1f} ms'
            self._send(lambda: self._judge(STOP, missed_deadline=missed))
            return
        self._send(lambda: self._judge(decision.wanted, model_error=decision.error))

    def _judge(self, wanted: Command | None, *, model_error: str = '', missed_deadline: str = '') -> Verdict:
        now_s, now_ns, params = monotonic(), self.get_clock().now().nanoseconds, self.params
        ages_s = {name: newest.age_s(now_s, now_ns) for name, newest in self._newest.items()}
        ages_s['perception'] = self._perceiver.age_s(now_s, now_ns)
        ages_s[SERVICES] = now_s - self._heard_s
        readings = Readings(
            is_enabled=self._is_enabled,
            age_s=ages_s,
            wanted=wanted,
            elapsed_s=now_s - self._sent_s,
            nearest_m=partial(nearest_in_way, self._scan.newest, params),
            model_error=model_error,
            missed_deadline=missed_deadline,
            other_authority=self._others,
            clock_problem=clock_problem(self.get_clock()),
        )
        return govern(readings, self._limits, self._state)

    def _send(self, judge: Callable[[], Verdict]) -> None:
        """Judge by what is known now, and send the command at once."""
        with self._lock:
            if self._is_closed:
                return
            verdict = judge()
            self._state, self._reasons = verdict.state, verdict.reasons
            self._commands.publish(_twist(verdict.command))
            self._sent_s = monotonic()
        self._took('control', self._due_s)
        names = tuple(reason.name for reason in verdict.reasons)
        if names != self._names:
            self._names = names
            self._publish_status()

    def _took(self, stage: str, since_s: float) -> None:
        """Remember how long a stage of this period took."""
        with self._lock:
            self._times.setdefault(stage, Window()).add((monotonic() - since_s) * 1e3)

    # --- perception, in the threads of its models ----------------------------------------------------------

    def _give(self, opened: Opened, answer: Answer) -> None:
        output = opened.perception.outputs[0]
        self._results[output.topic].publish(output.make(answer))
        self._objects.publish(objects_msg(answer.found))

    # --- the executor's thread -----------------------------------------------------------------------------

    def _on_image(self, cdr: bytes) -> None:
        self._image.arrived(cdr, monotonic())
        if self._perceiver.variants:
            self._perceiver.offer(cdr)
            sleep(0)  # hands the interpreter to the model's thread now

    def _on_load_level(self, message: String) -> None:
        level = message.data
        if level not in LEVELS:
            text = f'load_level: expected one of {", ".join(LEVELS)}, got {printable(level[:40])!r}'
            if self._reminders.is_due(text):
                self.get_logger().warning(text)
            return
        self._level = level
        self._choose_variant()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            self._is_enabled = request.data
            response.success, response.message = True, 'enabled' if request.data else 'not enabled'
            if request.data and self._state.latched:
                response.message += f', but stopped until ~/reset: {self._state.latched}'
        self.get_logger().info(response.message)
        return response

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._state = stop(self._state, 'asked to by ~/stop')
            if not self._is_closed:
                self._commands.publish(Twist())
        response.success, response.message = True, 'stopped until ~/reset'
        self.get_logger().warning(response.message)
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            was_latched = bool(self._state.latched)
            self._state = reset(self._state)
            response.success = not self._state.latched
            response.message = 'reset' if was_latched else 'there was nothing to reset'
            if self._state.latched:
                response.message = f'not reset: {self._state.latched}'
            elif not self._is_enabled:
                response.message += '; not enabled, see ~/enable'
        self.get_logger().info(response.message)
        return response

    def _try(self, work: Callable[[], None]) -> None:
        """Do what comes again and again: rclpy would end the process for an error in it."""
        try:
            work()
        except Exception as error:  # whatever it was: the next time comes
            self._note_error(traced(error))

    def _on_heartbeat(self) -> None:
        others = publishers_of(self, self._commands.topic_name)
        own = self.get_fully_qualified_name()
        if own in others:
            others.remove(own)
            self._others = ', '.join(sorted(set(others)))
        for variant in self._perceiver.variants:
            if variant.opened is not None and not variant.is_ready:
                output = variant.opened.perception.outputs[0]
                if output.topic not in self._results:
                    self._results[output.topic] = self.create_publisher(
                        output.message, output.topic, RESULT_QOS
                    )
                variant.is_ready = True
        self._choose_variant()
        self._heard_s = monotonic()  # last: where this fails, nobody knows who else commands the robot

    def _choose_variant(self) -> None:
        """Look at pictures with the variant that is to be used from now on."""
        perceiver, ready = self._perceiver, self._perceiver.choices
        if not ready:
            return
        state = self._variant
        if state.index not in ready:
            state = VariantState(min(ready), monotonic(), reason='the first that is open')
        report = self._report
        rates_hz = (report.rate_hz, report.input_rate_hz) if report else (0.0, 0.0)
        readings = perceiver.readings(
            rates_hz, celsius=self._celsius, load_level=self._level if self.params.obey_load_level else ''
        )
        state = choose_variant(state, readings, self.params.variant_limits(), ready)
        before, self._variant = self._variant, state
        if state.since_s == before.since_s:
            return
        perceiver.use(state.index)
        variant = perceiver.variants[state.index]
        assert variant.opened is not None
        pipeline = variant.opened.loaded.pipeline
        self._labels.publish(
            label_info_msg(
                pipeline.spec,
                stamp=self.get_clock().now().to_msg(),
                threshold=pipeline.limits.confidence_threshold,
            )
        )
        self.get_logger().info(f'pictures are looked at by {variant.name}: {state.reason}')

    @property
    def _policy(self) -> Policy | None:
        """The control policy, once it is open."""
        return self._pilot.policy if self._pilot else None

    @property
    def _limits(self) -> SafetyLimits:
        """Those of the parameters in force and of what the policy needs."""
        params, policy = self.params, self._policy
        if self._limits_of[0] is not params or self._limits_of[1] is not policy:
            self._limits_of = params, policy, params.safety_limits(self._required(params))
        return self._limits_of[2]

    def _required(self, params: ExecutorParams) -> tuple[str, ...]:
        """The inputs without which the robot stands."""
        required = {*params.required_inputs, *needs_of(params, self._policy)}
        if params.stop_distance_m:
            required.add('scan')
        return tuple(sorted(required))

    def _apply(self, params: ExecutorParams) -> None:
        params.safety_limits(self._required(params))  # it can be done; the next period does

    def _note_error(self, text: str) -> None:
        if self._reminders.is_due(text):
            self.get_logger().error(text)

    # --- health, once a second -----------------------------------------------------------------------------

    def _publish_health(self) -> None:
        self._report = report = self._perceiver.health.report()
        if self.params.performance_thresholds__max_temperature_c:
            self._celsius = hottest_celsius(self._board)
        self._notes = (*self._mixed_inputs.told(), *self._unheard())
        self._hints = {reason.source: self._hint_at(reason.source) for reason in self._reasons}
        self._publish_status()
        self._warn()
        doing = self._doing()
        self._stats.publish(figures_msg(figures(doing, report, self._perceiver)))
        stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip('/')
        level, text = judge_control(doing)
        values = {**control_values(doing, self._perceiver), **self._input_values()}
        backend = self._pilot.backend if self._pilot else ''
        self._diagnostics.publish(
            diagnostics_msg(f'{name}: control_output', level, text, values, stamp=stamp, hardware_id=backend)
        )
        if self._perceiver.variants:
            level, text = judge_perception(report, self._perceiver, self.params)
            values = perception_values(report, self._perceiver, doing)
            self._diagnostics.publish(
                diagnostics_msg(f'{name}: perception_output', level, text, values, stamp=stamp)
            )
        pause_s = self.params.benchmark_interval - HEARTBEAT_S  # this is called once a second, about
        if self.params.enable_benchmarking and monotonic() - self._benchmark_s > pause_s:
            self._benchmark_s = monotonic()
            self.get_logger().info(benchmark_text(doing, report))

    def _unheard(self) -> tuple[str, ...]:
        if not self._is_enabled or self._commands.get_subscription_count():
            return ()
        return (f'nobody subscribes to {self._commands.topic_name}',)

    def _hint_at(self, name: str) -> str:
        """Say that nobody publishes an input, where that is so, and the way out."""
        topic = self._topics.get(name, '')
        if not topic or self.count_publishers(topic):
            return ''
        if name == 'command':  # other topics of its type are for wheels
            rule = '' if self._pilot else ', or set cruise_speed_mps to drive without'
            return f'nobody publishes {topic}: publish there{rule}'
        others = published_by_others(self, TYPES[name])
        return f'nobody publishes {topic}' + (f'; remap it to one of {", ".join(others)}' if others else '')

    def _doing(self) -> Doing:
        with self._lock:
            times_ms = {stage: window.percentiles() for stage, window in self._times.items()}
        return Doing(
            params=self.params,
            pace=self._loop.pace(),
            state=self._state,
            reasons=self._reasons,
            hints=self._hints,
            is_enabled=self._is_enabled,
            misses=self._misses,
            times_ms=times_ms,
            variant=self._variant,
            load_level=self._level,
            celsius=self._celsius,
            notes=tuple(filter(None, (self._loop.note, *self._notes))),
        )

    def _warn(self) -> None:
        """Say in the log what is in diagnostics, too: why it stands, and what is not as it was asked for."""
        faults = [reason for reason in self._reasons if reason.kind not in ORDERS]
        texts = [status_text(self.params, self._reasons, self._hints)] if faults and self._is_enabled else []
        for text in (*texts, self._loop.note, *self._notes):
            if text and self._reminders.is_due(text):
                self.get_logger().warning(text)
        if not self._reasons and self._has_stood:
            self.get_logger().info(status_text(self.params, (), {}))
        self._has_stood = bool(texts)

    def _publish_status(self) -> None:
        self._status.publish(String(data=status_text(self.params, self._reasons, self._hints)))

    def _input_values(self) -> dict[str, str]:
        now_s, now_ns, values = monotonic(), self.get_clock().now().nanoseconds, {}
        for name, newest in self._newest.items():
            age_s = newest.age_s(now_s, now_ns)
            values[f'{name}_received'] = str(newest.count)
            values[f'{name}_age_ms'] = '' if age_s is None else f'{age_s * 1e3:.1f}'
            if newest.problem:
                values[f'{name}_problem'] = newest.problem
        return values


def _twist(command: Command) -> Twist:
    twist = Twist()
    twist.linear.x, twist.linear.y = command.linear_x, command.linear_y
    twist.angular.z = command.angular_z
    return twist


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C; the exit code is 1 where its parameters are wrong."""
    return run_node(NAME, ExecutorParams, JetsonExecutor, args)


if __name__ == '__main__':
    sys.exit(main())
