"""PerceptionNode: the lifecycle of every node that answers pictures; what differs is a Perception."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from math import inf
from pathlib import Path
from time import monotonic, perf_counter_ns, sleep
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import (
    QoSHistoryPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_policy_name_from_kind,
)
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from vision_msgs.msg import LabelInfo

from isaac_infer.core.encodings import stamp_ns_from_cdr
from isaac_infer.core.errors import (
    FrameError,
    IsaacInferError,
    ParameterError,
    SessionError,
    describe,
    traced,
)
from isaac_infer.core.frame import Frame
from isaac_infer.core.load_level import LEVELS, MINIMAL, NORMAL, REDUCED
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.rate_limit import RateLimit
from isaac_infer.core.text import counted, printable
from isaac_infer.ros.diagnostics import (
    BAD_IMAGE,
    BUSY,
    ERROR,
    FAILED,
    INACTIVE,
    LOAD_LEVEL,
    LOST,
    OK,
    UNPAIRED,
    WARN,
    Health,
    Report,
    clock_problem,
    diagnostics_msg,
    report_values,
    wait_until_heard,
)
from isaac_infer.ros.graph import Namesakes, published, published_by_others
from isaac_infer.ros.images import (
    frame_from_compressed_cdr,
    frame_from_image_cdr,
    publish_cdr,
)
from isaac_infer.ros.messages import label_info_msg
from isaac_infer.ros.pairs import Pairs
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.perception import (
    COMPANION_QOS,
    LATCHED_QOS,
    PICTURE_QOS,
    RESULT_QOS,
    Answer,
    Companion,
    Loaded,
    Partner,
    Perception,
    as_it_is,
    check_alike,
)
from isaac_infer.ros.reminders import Reminders
from isaac_infer.ros.transport import OWN_SOURCE, USUAL_SEGMENT_BYTES, remedy_of_losses
from isaac_infer.ros.worker import Worker

RCLError = rclpy_implementation.RCLError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

PERIOD_S = 1.0  # of /diagnostics
CLOSE_TIMEOUT_S = 10.0  # for the frame, or the opening of a model, that is under way at Ctrl-C
PARAMETER_RULE = 'Cannot change while the node is configured: deactivate and clean it up first.'


@dataclass(frozen=True)
class _Arrival:
    """A picture as it came."""

    cdr: bytes
    received_ns: int  # of perf_counter
    subscription: Any  # it came through; another one is there after a deactivation
    give: Callable[[], None] = lambda: None  # hands the pipeline what a partner says of it


_Begun = tuple[Pipeline, _Arrival, Frame, tuple[int, int]]  # ... and when it was begun and converted, ns


def _transition(function: Callable[[Any], None]) -> Callable[[Any, LifecycleState], TransitionCallbackReturn]:
    """Say why a transition failed; rclpy swallows what these callbacks raise without a word."""

    @wraps(function)
    def callback(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            function(node)
        except IsaacInferError as error:
            node.note_failure(describe(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            node.note_failure(f'{describe(error)}\n{traced(error)}')
            return TransitionCallbackReturn.ERROR
        if function.__name__ != 'on_error':
            node.note_failure('')
        return TransitionCallbackReturn.SUCCESS

    return callback


class PerceptionNode(LifecycleNode):
    """A lifecycle node that answers every picture with a message.

    The model lives in a thread of its own, which also publishes the answers: parameters, lifecycle services
    and diagnostics are served by the executor meanwhile. A picture that still waits when a newer one comes is
    dropped. Only a `configure` request blocks the executor, until the model is open; `autostart` does not.
    A transition never waits for a picture that is being worked on: its answer comes too late and is dropped.
    """

    def __init__(self, perception: Perception, stop: Callable[[], None] = lambda: None) -> None:
        """Declare the parameters and begin; `stop` ends the process, which `build_only` asks for."""
        super().__init__(perception.name)
        self.exit_code = 0
        self._perception, self._stop = perception, stop
        self._health, self._reminders = Health(), Reminders()
        self._namesakes = Namesakes(self)
        self._models: tuple[Loaded, ...] = ()  # the lightest last; while configured
        self._refine = as_it_is
        self._companions: tuple[Companion, ...] = ()
        self._extra: Any = None
        self._partner: Partner | None = None
        self._pairs: Pairs[_Arrival, Any] = Pairs(0.0)  # used where there is a partner
        self._late = 0  # pictures whose partner came too late or not at all, since the last report
        self._companion_subscriptions: list[Any] = []
        self._last_answer: Answer | None = None
        self._problem = ''  # with an output of the last answer
        self._loading: Future[tuple[Loaded, ...]] | None = None
        self._is_unwanted = threading.Event()  # what is being opened
        self._progress = ''  # of that
        self._is_starting = False  # by itself: configured and activated in one go
        self._failure = ''
        self._topic = ''
        self._told: tuple[str, ...] = ()  # fallbacks that were known when the model was opened
        self._has_answered = False  # a picture, since this process began
        self._last_image_s = monotonic()
        self._lost = 0
        self._picture_bytes = 0  # of the last one
        self._begun: deque[_Begun] = deque()  # used by the thread of the model only
        self._subscription: Any = None  # while the node is active
        self._load_level, self._rate_limit = NORMAL, RateLimit()
        self._publishing = threading.Lock()  # held by who publishes answers, and by who ends that
        self._output_publishers: tuple[Any, ...] = ()  # one for each of the outputs, while configured
        self._label_publisher: Any = None
        try:
            self._parameters_of_node: NodeParameters[Any] = NodeParameters(
                self, perception.params, refusal=self._refusal, apply=self._apply, rule=PARAMETER_RULE
            )
        except ParameterError:
            self.destroy_node()
            raise
        self._worker: Worker[_Arrival] = Worker(self._on_frame)
        for service in self.services:
            if service.srv_name.endswith('/change_state'):
                service.callback = partial(self._on_change_state, service.callback)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_subscription(String, 'load_level', self._on_load_level, LATCHED_QOS)
        self.create_timer(PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self.params.autostart:
            # The model opens before the transition begins, so that the node answers while it is loaded.
            opened = self.create_guard_condition(self._start)
            self._loading = self._load()
            self._loading.add_done_callback(lambda _: opened.trigger())

    @property
    def params(self) -> Any:
        """The parameters in force."""
        return self._parameters_of_node.value

    def note_failure(self, text: str) -> None:
        """Log why a transition failed, and keep it for diagnostics until one succeeds; '' forgets it."""
        self._failure = text.split('\n')[0]
        if text:
            self._health.error(self._failure)
            self.get_logger().error(text)

    def close(self) -> None:
        """Say how it went, and release everything; safe to call twice.

        Raises:
            TimeoutError: the model does not return from what it is doing.
        """
        self._publish_diagnostics(is_last=True)
        wait_until_heard(self._diagnostics)
        self._deactivate()
        self._release()
        self._worker.close(CLOSE_TIMEOUT_S)

    # --- lifecycle -----------------------------------------------------------------------------------------

    @_transition
    def on_configure(self) -> None:
        """Open the model and create the publishers."""
        try:
            self._configure()
        except BaseException:
            self._release()
            raise

    def _configure(self) -> None:
        loading, self._loading = self._loading or self._load(), None
        self._models = loading.result()
        loaded = self._models[0]  # a lighter one only has another pipeline
        self._refine, self._companions, self._extra = loaded.refine, loaded.companions, loaded.extra
        self._partner, self._last_answer = loaded.partner, None
        partner = loaded.partner
        if partner is not None:
            self._pairs = Pairs(partner.timeout_s)
            self._companions += (Companion(partner.topic, partner.message, self._on_partner),)
        self._check_companions()
        self._health.restart()
        self._limit(self.params)
        self._output_publishers = tuple(
            self.create_publisher(
                output.message, output.topic, PICTURE_QOS if output.message is Image else RESULT_QOS
            )
            for output in self._perception.outputs
        )
        self._label_publisher = self.create_publisher(LabelInfo, 'label_info', LATCHED_QOS)
        self._publish_labels()
        log = self.get_logger()
        for model in self._models:
            spec, backend = model.pipeline.spec, model.pipeline.session.backend
            log.info(f'{model.facts["model"]}: decoder {spec.decoder}, {spec.extent}, {backend}')
            for note in spec.notes:
                log.info(note)
        fallbacks = (fallback for model in self._models for fallback in model.pipeline.fallbacks)
        self._told = tuple(dict.fromkeys(fallbacks))
        for fallback in self._told:
            log.warning(fallback)
        if not self._is_starting:
            log.info('configured; activate it (lifecycle) to begin')

    @_transition
    def on_activate(self) -> None:
        """Subscribe."""
        self._reminders = Reminders()  # whoever activates it again wants to hear what is still wrong
        self._last_image_s = monotonic()
        self._lost = 0  # as the subscription counts
        for companion in self._companions:
            self._companion_subscriptions.append(self._subscribe_to(companion))
        self._subscription = self._subscribe()
        self._topic = self._subscription.topic_name
        self.get_logger().info(f'waiting for pictures on {self._topic}')

    @_transition
    def on_deactivate(self) -> None:
        """Unsubscribe; the answer to a picture that is being worked on is not published."""
        self._deactivate()

    @_transition
    def on_cleanup(self) -> None:
        """Have the model closed, as soon as it is done with the picture that is being worked on."""
        self._release()

    @_transition
    def on_shutdown(self) -> None:
        """Release everything."""
        self._deactivate()
        self._release()

    @_transition
    def on_error(self) -> None:
        """Release everything, so that the node can be configured again."""
        self._deactivate()
        self._release()

    def _start(self) -> None:
        """Configure and activate, once the model is open or could not be opened."""
        if self._loading is None:
            return  # somebody else has led the node on meanwhile
        self._is_starting = True
        try:
            self.trigger_configure()
        finally:
            self._is_starting = False
        if self.params.build_only:
            self.exit_code = 1 if self._failure else 0
            self._stop()
        elif self._state() == State.PRIMARY_STATE_INACTIVE:
            self.trigger_activate()

    def _on_change_state(self, change_state: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """Refuse what the present state has no transition for; rclpy raises, which would end the node."""
        try:
            return change_state(request, response)
        except RCLError:
            wanted = printable(request.transition.label[:40]) or request.transition.id
            state = self._state_machine.current_state[1]
            self.get_logger().warning(
                f'transition {wanted} refused: the node is {state}, which has none such'
            )
            response.success = False
            return response

    @property
    def _is_active(self) -> bool:
        return self._subscription is not None

    def _state(self) -> int:
        return int(self._state_machine.current_state[0])

    def _load(self) -> Future[tuple[Loaded, ...]]:
        self._is_unwanted = threading.Event()
        self._progress = ''
        return self._worker.call(partial(self._open, self.params, self._is_unwanted.is_set))

    def _open(self, params: Any, is_unwanted: Callable[[], bool]) -> tuple[Loaded, ...]:
        """Open the model and the lighter ones, in the thread of the model."""
        models: list[Loaded] = []
        with ExitStack() as stack:
            for each in (params, *map(params.lighter, params.model_variants)):
                models.append(self._perception.load(each, self._note_progress, is_unwanted))
                stack.callback(models[-1].pipeline.close)
                check_alike(models[0], models[-1], self._perception.kind)
            stack.pop_all()
        return tuple(models)

    @property
    def _model(self) -> Loaded | None:
        """The model for the load level that is obeyed; None while the node is not configured."""
        models = self._models
        return models[self._index_at(self._load_level, len(models))] if models else None

    def _index_at(self, load_level: str, count: int) -> int:
        steps = {REDUCED: min(1, count - 1), MINIMAL: count - 1}
        return steps.get(load_level, 0) if self.params.obey_load_level else 0

    def _note_progress(self, text: str) -> None:
        """Say how far the opening of a model is: in the log, and in diagnostics meanwhile."""
        self._progress = text
        self.get_logger().info(text)

    def _deactivate(self) -> None:
        """Unsubscribe; no answer is published any more from here on."""
        with self._publishing:
            subscription, self._subscription = self._subscription, None
        if subscription is not None:
            for output, publisher in zip(self._perception.outputs, self._output_publishers):
                if output.blank:
                    publisher.publish(output.blank())
        self._health.dropped(INACTIVE, count=self._worker.forget() + self._pairs.clear())
        if subscription is not None:
            self.destroy_subscription(subscription)
            self._worker.call(self._end_begun)
        while self._companion_subscriptions:
            self.destroy_subscription(self._companion_subscriptions.pop())

    def _end_begun(self) -> None:
        """Let pictures come to their end that were begun, and that nobody wants any more."""
        while self._begun:
            with self._living_on():
                self._answer(*self._begun.popleft())

    def _release(self) -> None:
        self._is_unwanted.set()
        loading, self._loading = self._loading, None
        models, self._models, self._last_answer = self._models, (), None
        self._refine, self._companions, self._extra, self._problem = as_it_is, (), None, ''
        self._partner = None

        def close_models() -> None:
            self._end_begun()
            opened = loading.result() if loading is not None and loading.exception() is None else ()
            with ExitStack() as stack:  # all of them, also where closing one fails
                for model in (*models, *opened):
                    stack.callback(model.pipeline.close)

        # Their own thread closes models, after what it is busy with and before it opens others.
        if models or loading is not None:
            self._worker.call(close_models).add_done_callback(self._note_closing)
        publishers = (*self._output_publishers, self._label_publisher)
        self._output_publishers, self._label_publisher = (), None
        for publisher in publishers:
            if publisher is not None:
                self.destroy_publisher(publisher)

    def _note_closing(self, closing: Future[None]) -> None:
        error = closing.exception()
        if error is not None:
            self.note_failure(f'closing the model: {describe(error)}')

    # --- pictures ------------------------------------------------------------------------------------------

    def _subscribe(self) -> Any:
        params = self.params
        kind, topic = Image, self.resolve_topic_name('image')
        if params.transport == 'compressed':
            kind, topic = CompressedImage, f'{topic}/compressed'
        reliability = {
            'reliable': QoSReliabilityPolicy.RELIABLE,
            'best_effort': QoSReliabilityPolicy.BEST_EFFORT,
        }[params.image_reliability]
        qos = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=reliability)
        # Raw: the bytes as they came. Deserialising them would copy the picture and keep the executor busy.
        subscribe = partial(self.create_subscription, kind, topic, self._on_image, qos, raw=True)
        try:
            events = SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible_qos, message_lost=self._on_message_lost
            )
            return subscribe(event_callbacks=events)
        except UnsupportedEventTypeError:  # not every middleware tells of lost messages
            events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos)
            return subscribe(event_callbacks=events)

    def _check_companions(self) -> None:
        """See that none is a topic of this node's own: it would wait for itself."""
        used = ('image', *(output.topic for output in self._perception.outputs))
        own = {self.resolve_topic_name(topic): topic for topic in used}
        for companion in self._companions:
            if topic := own.get(self.resolve_topic_name(companion.topic)):
                raise ParameterError(
                    f"{companion.topic}: expected a topic of another node, got this node's own {topic}"
                )

    def _subscribe_to(self, companion: Companion) -> Any:
        def take(message: Any) -> None:
            try:
                companion.take(message)
            except Exception as error:  # no message may end the node
                self._note_error(error)

        kind, topic = companion.message, companion.topic
        try:
            return self.create_subscription(kind, topic, take, COMPANION_QOS, raw=companion.is_raw)
        except RCLError as error:  # of all things "invalid allocator", for a topic of another type in here
            name = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'
            raise ParameterError(
                f'{topic}: expected a topic of {name}, cannot be subscribed to as one: '
                f'{str(error).splitlines()[0]}'
            ) from error

    def _on_image(self, cdr: bytes) -> None:
        self._last_image_s, self._picture_bytes = monotonic(), len(cdr)
        self._health.received()
        if not self._rate_limit.is_due(self._last_image_s, self.params.rate_limit_hz(self._load_level)):
            self._health.dropped(LOAD_LEVEL)
            return
        arrival = _Arrival(cdr, perf_counter_ns(), self._subscription)
        if self._partner is None:
            self._offer(arrival)
        else:
            with self._living_on():
                self._work_on(self._pairs.add_picture(stamp_ns_from_cdr(cdr), arrival))
                self._expire()
        sleep(0)  # hands the interpreter to the worker now; the executor would keep it for a third of a ms

    def _on_load_level(self, message: String) -> None:
        level = message.data
        if level not in LEVELS:
            expected = f'load_level: expected one of {", ".join(LEVELS)}, got {printable(level[:40])!r}'
            self._note_error(ParameterError(f'{expected}; it stays {self._load_level}'))
            return
        if level != self._load_level and self.params.obey_load_level:
            self.get_logger().info(f'load_level {level}{self._effect_of(level)}')
        self._load_level = level

    def _effect_of(self, load_level: str) -> str:
        """Say what a load level changes; empty where it changes nothing."""
        rate_hz = self.params.rate_limit_hz(load_level)
        effects = [] if rate_hz == inf else [f'{rate_hz:g} pictures per second at most']
        if index := self._index_at(load_level, len(self._models)) if self._models else 0:
            effects.append(f'by {Path(self._models[index].facts["model"]).name}')
        return f': {", ".join(effects)}' if effects else ''

    def _on_partner(self, message: Any) -> None:
        if self._partner is not None:
            self._work_on(self._pairs.add_found(*self._partner.read(message)))
            self._expire()  # after it: this may have waited for the executor

    def _work_on(self, pair: tuple[_Arrival, Any] | None) -> None:
        """Hand a picture over with what its partner says of it, once both are there."""
        self._health.dropped(UNPAIRED, count=self._pairs.take_given_up())
        if pair is not None and self._partner is not None:
            arrival, found = pair
            self._offer(replace(arrival, give=partial(self._partner.give, found)))

    def _expire(self) -> None:
        """Say which pictures have waited for their partner for too long."""
        for stamp_ns in self._pairs.expire() if self._partner is not None else ():
            self._health.dropped(UNPAIRED)
            self._late += 1
            self._note_error(self._why_no_partner() or self._partner.missing(stamp_ns))

    def _why_no_partner(self) -> IsaacInferError | None:
        """Name the topic of the partner where nobody publishes it, and those that it may be meant for."""
        assert self._partner is not None
        message, topic = self._partner.message, self.resolve_topic_name(self._partner.topic)
        if self.count_publishers(topic):
            return None
        ours = {self.resolve_topic_name(output.topic) for output in self._perception.outputs}
        kind = f'{message.__module__.split(".")[0]}/msg/{message.__name__}'
        others = [name for name in published(self, kind) if name not in ours]
        hint = f'; there is {", ".join(others)}' if others else ''
        return SessionError(f'nobody publishes {topic}{hint}')

    def _offer(self, arrival: _Arrival) -> None:
        if self._worker.offer(arrival):
            self._health.dropped(BUSY)

    def _on_frame(self, arrival: _Arrival) -> None:
        """Answer one picture, in the thread of the model; no picture may end the node."""
        model = self._model  # read first: it is there as long as the subscription is
        if self._subscription is not arrival.subscription or model is None:
            self._health.dropped(INACTIVE)
            return
        pipeline = model.pipeline
        busy = [begun[0] for begun in self._begun]
        free = next(each for each in (pipeline, *pipeline.twins) if each not in busy)
        with self._living_on():
            self._begun.append(self._begin(free, arrival))
        # Where a picture waits, it is begun before this one is done; where none does, nothing is held back.
        while self._begun and (len(self._begun) > len(pipeline.twins) or not self._worker.is_waited_for):
            with self._living_on():
                self._answer(*self._begun.popleft())

    @contextmanager
    def _living_on(self) -> Iterator[None]:
        """Report what goes wrong with one picture: of it, the model, the messages, the middleware."""
        try:
            yield
        except Exception as error:
            self._health.dropped(BAD_IMAGE if isinstance(error, FrameError) else FAILED)
            self._note_error(error)

    def _begin(self, pipeline: Pipeline, arrival: _Arrival) -> _Begun:
        begun_ns = perf_counter_ns()
        if self.params.transport == 'compressed':
            frame = frame_from_compressed_cdr(arrival.cdr)
        else:
            frame = frame_from_image_cdr(arrival.cdr)
        converted_ns = perf_counter_ns()
        arrival.give()
        pipeline.begin(frame)
        return pipeline, arrival, frame, (begun_ns, converted_ns)

    def _answer(self, pipeline: Pipeline, arrival: _Arrival, frame: Frame, times_ns: tuple[int, int]) -> None:
        perception, params = self._perception, self.params
        begun_ns, converted_ns = times_ns
        found = self._refine(pipeline.end(), frame, params)
        found_ns = perf_counter_ns()
        answer = Answer(found, frame, pipeline.spec, params, self._extra)
        if not self._publish(arrival, 0, perception.outputs[0].make(answer)):
            self._health.dropped(INACTIVE)
            return
        published_ns = perf_counter_ns()
        stages_ms = {
            'convert': (converted_ns - begun_ns) / 1e6,
            **pipeline.times.by_stage(),
            'publish': (published_ns - found_ns) / 1e6,
        }
        total_ms = (published_ns - begun_ns) / 1e6
        age_ms = (self.get_clock().now().nanoseconds - frame.stamp_ns) / 1e6
        wait_ms = (begun_ns - arrival.received_ns) / 1e6
        self._health.answered({'wait': wait_ms, **stages_ms, 'total': total_ms, 'age': age_ms})
        if not self._has_answered:  # not the logger's `once`, which looks at the call stack every time
            self._has_answered = True
            self.get_logger().info(f'first picture answered after {total_ms:.1f} ms')
        if total_ms > params.slow_frame_ms:
            slowest = max(stages_ms, key=stages_ms.__getitem__)
            if self._reminders.is_due(f'slow: {slowest}'):
                self.get_logger().warning(
                    f'a frame took {total_ms:.0f} ms, more than slow_frame_ms {params.slow_frame_ms:g}; '
                    f'the slowest stage is {slowest} with {stages_ms[slowest]:.0f} ms'
                )
        problem = ''
        for number in range(1, len(perception.outputs)):
            try:
                self._show(arrival, number, answer)
            except Exception as error:  # the picture has its answer: it is not a dropped one
                self._note_error(error)
                output = perception.outputs[number]
                problem = f'{output.topic} is not published: {str(error).removeprefix(f"{output.topic}: ")}'
                if output.blank:
                    self._publish(arrival, number, output.blank())
        self._problem = problem
        self._last_answer = answer

    def _show(self, arrival: _Arrival, number: int, answer: Answer) -> None:
        """Publish one of the further outputs if somebody looks at it."""
        with self._publishing:
            is_active = self._subscription is arrival.subscription
            if not (is_active and self._output_publishers[number].get_subscription_count()):
                return
        output, begun_ns = self._perception.outputs[number], perf_counter_ns()
        self._publish(arrival, number, output.make(answer))
        self._health.took(output.topic, (perf_counter_ns() - begun_ns) / 1e6)

    def _publish(self, arrival: _Arrival, number: int, message: Any) -> bool:
        """Publish on one of the outputs; False where the node was deactivated meanwhile."""
        with self._publishing:
            if self._subscription is not arrival.subscription:
                return False
            publisher = self._output_publishers[number]
            if isinstance(message, bytearray):
                publish_cdr(publisher, message)
            else:
                publisher.publish(message)
            return True

    def _note_error(self, error: Exception) -> None:
        """Put what went wrong with a picture into log and diagnostics."""
        self._health.error(describe(error))
        text = traced(error)
        if self._reminders.is_due(text):
            self.get_logger().error(text)

    def _on_incompatible_qos(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        remedy = f'change the {policy.lower()} of the publisher'
        if policy == 'RELIABILITY':
            remedy = 'set image_reliability to best_effort, or make the camera publish reliably'
        text = (
            f'{self._topic}: a publisher offers incompatible QoS ({policy}), none of its '
            f'pictures arrive; {remedy}'
        )
        self._health.error(text)
        if self._reminders.is_due(text):
            self.get_logger().warning(text)

    def _on_message_lost(self, event: Any) -> None:
        # Not total_count_change, in which Fast DDS was seen to give 2^31 - 1.
        self._health.dropped(LOST, count=max(event.total_count - self._lost, 0))
        self._lost = event.total_count
        if self._reminders.is_due('lost'):
            self.get_logger().warning(
                f'pictures lost on the way here: {event.total_count}; {self._remedy_of_losses()}'
            )

    def _remedy_of_losses(self) -> str:
        """What helps where pictures are lost, by who sends them and how large they are."""
        senders = {info.node_name for info in self.get_publishers_info_by_topic(self._topic)}
        is_small = 0 < self._picture_bytes < USUAL_SEGMENT_BYTES
        return remedy_of_losses(has_profile=senders == {OWN_SOURCE} or is_small)

    # --- parameters ----------------------------------------------------------------------------------------

    def _refusal(self) -> str:
        if self._loading is not None:
            return 'while the model is being opened'
        if not self._models:
            return ''
        ways = 'deactivate and clean up' if self._is_active else 'clean up'
        return f'while the node is configured; {ways} first (lifecycle), then configure it again'

    def _apply(self, params: Any) -> None:
        if self._models:
            limits = self._models[0].pipeline.limits
            self._limit(params)
            if self._models[0].pipeline.limits.confidence_threshold != limits.confidence_threshold:
                self._publish_labels()

    def _limit(self, params: Any) -> None:
        # A pipeline reads its limits once per frame, so this takes effect between two frames.
        for pipeline in (model.pipeline for model in self._models):
            for each in (pipeline, *pipeline.twins):
                each.limits = self._perception.limits(params, pipeline.spec)

    def _publish_labels(self) -> None:
        pipeline = self._models[0].pipeline
        self._label_publisher.publish(
            label_info_msg(
                pipeline.spec,
                stamp=self.get_clock().now().to_msg(),
                threshold=pipeline.limits.confidence_threshold,
            )
        )

    # --- diagnostics ---------------------------------------------------------------------------------------

    def _publish_diagnostics(self, *, is_last: bool = False) -> None:
        self._expire()
        report = self._health.report()
        level, message = self._judge(report)
        if is_last:  # a rate of what came by chance since the last report would say nothing of the run
            rate_hz, input_rate_hz = self._health.rates_hz()
            report = replace(report, rate_hz=rate_hz, input_rate_hz=input_rate_hz)
        model = self._model
        values = {'state': self._state_machine.current_state[1], **(model.facts if model else {})}
        if self.params.obey_load_level:
            values['load_level'] = self._load_level
        backend = ''
        if model is not None:
            backend, fallbacks = model.pipeline.session.backend, model.pipeline.fallbacks
            for fallback in fallbacks:  # some show only in what comes
                if fallback not in self._told and self._reminders.is_due(fallback):
                    self.get_logger().warning(fallback)
            values |= {
                'backend': backend,
                'fallbacks': ' '.join(fallbacks),
                'decoder': model.pipeline.spec.decoder,
            }
        answer = self._last_answer
        values |= {**(self._perception.tell(answer) if answer else {}), **report_values(report)}
        name = f'{self.get_fully_qualified_name().lstrip("/")}: {self._perception.outputs[0].topic}'
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(
            diagnostics_msg(name, level, message, values, stamp=stamp, hardware_id=backend)
        )

    def _judge(self, report: Report) -> tuple[bytes, str]:
        """Give the level of the node's health, and why."""
        late, self._late = self._late, 0
        if self._loading is not None:
            return OK, f'opening the model: {self._progress}' if self._progress else 'opening the model'
        if not self._is_active:
            return (ERROR, self._failure) if self._failure else (OK, self._state_machine.current_state[1])
        recent, params = report.recent, self.params
        missing_s = monotonic() - self._last_image_s
        bad = recent.dropped[BAD_IMAGE] + recent.dropped[FAILED] + late
        rate = f'{report.rate_hz:.1f} pictures per second'
        if not recent.received:
            rate = f'{counted(report.total.answered, "picture")} answered, none came since the last report'
        # As it should be where the camera is faster, but nobody should have to guess.
        if busy := recent.dropped[BUSY]:
            rate += f' of {report.done_rate_hz:.1f}; {busy} came while the model was busy'
            if self._reminders.is_due(rate):
                self.get_logger().warning(rate)
        if effect := self._effect_of(self._load_level):
            rate += f'; load_level {self._load_level}{effect}'
        if (unpaired := recent.dropped[UNPAIRED] - late) and self._partner is not None:
            topic = self._partner.topic
            gone = f'{unpaired} given up for newer ones: what {topic} says of them did not come in time'
            rate += f'; {gone}'
            if self._reminders.is_due(gone):
                self.get_logger().warning(gone)
        if missing_s > params.image_timeout_s:
            why = self._why_no_image()
            text = f'no picture for {missing_s:.0f} s: {why}'
            if self._reminders.is_due(text):
                self.get_logger().warning(text)
            return WARN, text
        if bad:
            level = WARN if recent.answered else ERROR
            return level, f'{bad} of {counted(bad + recent.answered, "picture")} failed: {report.last_error}'
        if problem := clock_problem(self.get_clock()):
            if self._reminders.is_due(problem):
                self.get_logger().warning(problem)
            return WARN, problem
        if twins := self._namesakes.told():
            if self._reminders.is_due(twins):
                self.get_logger().warning(twins)
            return WARN, twins
        if self._problem:
            return WARN, self._problem
        if recent.dropped[LOST]:
            return WARN, f'{counted(recent.dropped[LOST], "picture")} lost in transport'
        slow_ms = report.percentiles_ms['total'][1] if 'total' in report.percentiles_ms else 0.0
        if slow_ms > params.slow_frame_ms:
            return WARN, f'slow: one frame of twenty takes {slow_ms:.0f} ms or more'
        if (model := self._model) is not None and model.pipeline.fallbacks:
            return WARN, ' '.join(model.pipeline.fallbacks)
        return OK, rate

    def _why_no_image(self) -> str:
        """Name the topic, and who publishes there."""
        topic, wanted = self._topic, self._wanted_type()
        publishers = self.get_publishers_info_by_topic(topic)
        if not publishers:
            is_compressed = self.params.transport == 'compressed'
            twin = topic.removesuffix('/compressed') if is_compressed else f'{topic}/compressed'
            if any(name == twin for name, _ in self.get_topic_names_and_types()):
                other = 'raw' if is_compressed else 'compressed'
                return f'nobody publishes {topic}, but {twin} is there; set transport to {other}'
            others = published_by_others(self, wanted)
            hint = f'; remap it to one of {", ".join(others)}' if others else ''
            return f'nobody publishes {topic}{hint}'
        said = '; '.join(
            f'{info.node_name} publishes {info.topic_type}, {info.qos_profile.reliability.name.lower()}'
            for info in publishers
        )
        if all(info.topic_type != wanted for info in publishers):
            return f'{topic} has another type ({said}; expected {wanted}); remap image to one that has it'
        return (
            f'{topic} is silent ({said}; expected {wanted}, {self.params.image_reliability}); if these agree '
            f'and pictures are sent, they are lost on the way: {self._remedy_of_losses()}'
        )

    def _wanted_type(self) -> str:
        return f'sensor_msgs/msg/{"CompressedImage" if self.params.transport == "compressed" else "Image"}'
