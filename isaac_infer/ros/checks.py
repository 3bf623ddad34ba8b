"""Checks over ROS: topics are alive, nodes are active, outputs belong to their inputs and are in time."""

from __future__ import annotations

import importlib
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, QoSReliabilityPolicy, qos_check_compatible
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.stats import percentile
from isaac_infer.deploy.checks import Check, CheckError, Group, NotRunError
from isaac_infer.deploy.manifest import BudgetEntry, Manifest, OutputEntry, TopicEntry, ros_names
from isaac_infer.ros.diagnostics import ERROR, LEVEL_NAMES, clock_problem
from isaac_infer.ros.graph import published
from isaac_infer.ros.images import stamp_ns_of

DISCOVERY_S = 5.0  # until all that is wanted has shown up, at most
CALL_S = 5.0  # for a node to say its state
DEPTH = 20  # messages that wait here at most
MATCH_S = 0.5  # from where a publisher is known until its messages come here, at most
MOST_HEARD = 200_000  # messages of a topic that are remembered
HEADER_BYTES = 1024  # of a message, in which its header ends
LOST_SHARE = 0.1  # of the inputs, which may be lost on the way here and whose outputs are not
RELIABILITY = {
    'best_effort': QoSReliabilityPolicy.BEST_EFFORT,
    'reliable': QoSReliabilityPolicy.RELIABLE,
}
LIFECYCLE = 'lifecycle_msgs/srv/GetState'
# What nodes say in /diagnostics of each stage; several are added up, of which the last one has to be there.
STAGE_KEYS = {
    'prepare': ('convert_ms_p95', 'prepare_ms_p95'),
    'inference': ('persons_ms_p95', 'run_ms_p95'),
    'decode': ('decode_ms_p95',),
    'publish': ('publish_ms_p95',),
    'planning': ('planning_ms_p95',),
    'control': ('control_ms_p95',),
}
RATE = 'rate_hz'  # of answers, of those nodes that tell it
AGE, OWN = 'age_ms_p95', 'total_ms_p95'  # their difference is the camera's, with all until a node begins


@dataclass(frozen=True)
class Message:
    """What is remembered of a message."""

    at_s: float  # monotonic
    stamp_ns: int | None = None  # None: it has no header
    age_ms: float | None = None
    frame_id: str = ''


@dataclass
class Heard:
    """What came on a topic until now."""

    has_header: bool
    messages: deque[Message] = field(default_factory=lambda: deque(maxlen=MOST_HEARD))
    problem: str = ''  # of the last message whose header could not be read


class Listener:
    """Listens to what a manifest names, once for all checks; its node is spun by somebody else."""

    def __init__(self, node: Node, manifest: Manifest, cancelled: threading.Event) -> None:
        self._node, self._manifest, self._cancelled = node, manifest, cancelled
        self._heard: dict[str, Heard] = {}
        self._problems: dict[str, str] = {}  # why a topic cannot be listened to
        self._statuses: dict[str, DiagnosticStatus] = {}  # the newest by their names
        self._working: set[str] = set()  # names of statuses that told of a rate since then
        self._telling: set[str] = set()  # full names of nodes that publish diagnostics
        self._subscriptions: list[Any] = []
        self._clients: list[Any] = []
        self._begin_s = 0.0  # monotonic, when everything had shown up
        self._end_s: float | None = None  # when all was heard

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        subscriptions, self._subscriptions = self._subscriptions, []
        clients, self._clients = self._clients, []
        self._heard, self._statuses, self._working, self._end_s = {}, {}, set(), None

        def destroy() -> None:
            for subscription in subscriptions:
                self._node.destroy_subscription(subscription)
            for client in clients:
                self._node.destroy_client(client)

        # In the thread that may be waiting for them; where that has ended, they end with the node.
        executor = self._node.executor
        if executor is not None and self._node in executor.get_nodes() and (subscriptions or clients):
            done = threading.Event()
            executor.create_task(destroy).add_done_callback(lambda _: done.set())
            done.wait(CALL_S)

    def listen(self) -> None:
        """Listen for as long as the manifest says, once everything has shown up; at once where that was done.

        Raises:
            NotRunError: it was ended.
        """
        if self._end_s is not None:
            return
        manifest, node = self._manifest, self._node
        wanted = [(topic.name, topic.type, topic.reliability) for topic in manifest.topics]
        wanted += [(output.topic, output.type, 'best_effort') for output in manifest.outputs]
        for name, kind, reliability in wanted:
            self._subscribe(node.resolve_topic_name(name), kind, reliability)
        self._subscriptions.append(
            node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)
        )
        topics = {node.resolve_topic_name(name) for name, _, _ in wanted}
        names = (*manifest.nodes, *(manifest.budget.nodes if manifest.budget is not None else ()))
        until_s = monotonic() + DISCOVERY_S
        while monotonic() < until_s and not (
            all(map(node.count_publishers, topics)) and all(map(self.instances, names))
        ):
            self._pause(0.05)
        self._begin_s = monotonic()
        self._pause(manifest.listen_s)
        self._end_s = monotonic()
        telling = [name for name in names if self._publishes_diagnostics(name)]
        until_s = monotonic() + DISCOVERY_S
        self._telling = set(map(self.full_name, telling))
        while monotonic() < until_s and not all(map(self.statuses, telling)):
            self._pause(0.05)

    def _pause(self, seconds: float) -> None:
        if self._cancelled.wait(seconds):
            raise NotRunError('the checks were ended')

    def _subscribe(self, topic: str, kind: str, reliability: str) -> None:
        if topic in self._heard:
            return
        try:
            message = message_class(kind)
        except ParameterError as error:
            self._problems[topic] = str(error)
            return
        fields = list(message.get_fields_and_field_types().items())
        heard = self._heard[topic] = Heard(fields[:1] == [('header', 'std_msgs/Header')])
        qos = QoSProfile(depth=DEPTH, reliability=RELIABILITY[reliability])
        # Raw: only the header is of interest, whatever the size.
        self._subscriptions.append(
            self._node.create_subscription(message, topic, partial(self._on_message, heard), qos, raw=True)
        )

    def _on_message(self, heard: Heard, cdr: bytes) -> None:
        at_s, now_ns = monotonic(), self._node.get_clock().now().nanoseconds
        if not heard.has_header:
            heard.messages.append(Message(at_s))
            return
        try:
            header = deserialize_message(bytes(cdr[:HEADER_BYTES]), Header)
            stamp_ns = stamp_ns_of(header)
        except Exception as error:  # of several kinds: anybody may have sent it
            heard.problem = f'a message has no header that can be read: {error}'
            heard.messages.append(Message(at_s))
            return
        heard.messages.append(Message(at_s, stamp_ns, (now_ns - stamp_ns) / 1e6, header.frame_id))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._statuses[status.name] = status
            rates = [_number(pair.value) for pair in status.values if pair.key == RATE]
            if not rates or any(rates):  # percentiles of who does nothing now are those of before
                self._working.add(status.name)

    # --- what was heard ------------------------------------------------------------------------------------

    def heard(self, topic: str, kind: str) -> Heard:
        """What came on a topic, by its full name.

        Raises:
            CheckError: nothing can come: nobody publishes it, or it has another type.
        """
        self.listen()
        if problem := self._problems.get(topic):
            raise CheckError(problem)
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            others = [name for name in published(self._node, kind) if name != topic]
            hint = f'; there is {", ".join(others)}' if others else ''
            raise CheckError(f'nobody publishes {topic}{hint}')
        if wrong := sorted({info.topic_type for info in publishers} - {kind}):
            who = ', '.join(sorted({info.node_name for info in publishers if info.topic_type != kind}))
            raise CheckError(f'{topic}: expected {kind}, got {", ".join(wrong)} of {who}')
        return self._heard[topic]

    def rate_hz(self, messages: list[Message], wanted_hz: float) -> float:
        """Messages per second from the first to the last one; silence around them counts, once it is one."""
        assert self._end_s is not None
        if len(messages) < 2:
            return 0.0
        allowed_s = 1 / wanted_hz if wanted_hz else math.inf
        end_s = max(messages[-1].at_s, self._end_s - allowed_s)
        begin_s = min(messages[0].at_s, self._begin_s + max(allowed_s, MATCH_S))
        return (len(messages) - 1) / max(end_s - begin_s, 1e-9)

    def full_name(self, name: str) -> str:
        """The full name of a node."""
        return name if name.startswith('/') else f'{self._node.get_namespace().rstrip("/")}/{name}'

    def instances(self, name: str) -> int:
        """How many nodes there are of a name."""
        found = self._node.get_node_names_and_namespaces()
        return Counter(f'{namespace.rstrip("/")}/{each}' for each, namespace in found)[self.full_name(name)]

    def statuses(self, name: str) -> list[DiagnosticStatus]:
        """What a node says in /diagnostics."""
        self.listen()
        full_name = self.full_name(name).lstrip('/')
        return [status for key, status in list(self._statuses.items()) if key.split(':')[0] == full_name]

    def _is_told_of(self, full_name: str) -> bool:
        """Whether there is a status by a node's name alone, as many name theirs in a namespace, too."""
        name = full_name.rpartition('/')[2]
        return any(key.split(':')[0].rpartition('/')[2] == name for key in list(self._statuses))

    def _publishes_diagnostics(self, name: str) -> bool:
        namespace, _, base = self.full_name(name).rpartition('/')
        try:
            topics = self._node.get_publisher_names_and_types_by_node(base, namespace or '/')
        except rclpy_implementation.NodeNameNonExistentError:
            return False
        return any(topic == '/diagnostics' for topic, _ in topics)

    def is_lifecycle(self, full_name: str) -> bool:
        namespace, _, name = full_name.rpartition('/')
        try:
            services = self._node.get_service_names_and_types_by_node(name, namespace or '/')
        except rclpy_implementation.NodeNameNonExistentError:
            return False
        return any(service == f'{full_name}/get_state' and LIFECYCLE in kinds for service, kinds in services)

    def state(self, full_name: str) -> str:
        """The state of a lifecycle node.

        Raises:
            CheckError: it does not answer.
        """
        client = self._node.create_client(GetState, f'{full_name}/get_state')
        self._clients.append(client)
        answered = threading.Event()
        if client.wait_for_service(CALL_S):
            future = client.call_async(GetState.Request())
            future.add_done_callback(lambda _: answered.set())
            if answered.wait(CALL_S):
                return str(future.result().current_state.label)
        raise CheckError(f'{full_name} does not say its state within {CALL_S:g} s')

    # --- checks --------------------------------------------------------------------------------------------

    def check_topic(self, entry: TopicEntry) -> Mapping[str, Any]:
        """It has the type, QoS, rate and frame that are expected."""
        topic = self._node.resolve_topic_name(entry.name)
        heard = self.heard(topic, entry.type)
        self._check_qos(topic, entry.reliability)
        messages = list(heard.messages)
        if not messages:
            raise CheckError(
                f'{topic} is silent: no message in {self._manifest.listen_s:g} s', {'messages': 0}
            )
        rate_hz = self.rate_hz(messages, entry.min_rate_hz)
        values: dict[str, Any] = {'messages': len(messages), 'rate_hz': rate_hz}
        if entry.min_rate_hz and rate_hz < entry.min_rate_hz:
            raise CheckError(
                f'{topic}: expected at least {entry.min_rate_hz:g} Hz, got {rate_hz:.2f}', values
            )
        if entry.frame_id is not None:
            if not heard.has_header:
                raise CheckError(f'{topic}: {entry.type} has no header, and so no frame_id', values)
            frames = sorted({message.frame_id for message in messages})
            values['frame_id'] = ', '.join(frames)
            if frames != [entry.frame_id]:
                raise CheckError(
                    f'{topic}: expected frame_id {entry.frame_id!r}, got {", ".join(map(repr, frames))}',
                    values,
                )
        return values

    def _check_qos(self, topic: str, reliability: str) -> None:
        """Every publisher offers what is asked for, to those who listen already, too."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        asked = [('the manifest', QoSProfile(depth=1, reliability=RELIABILITY[reliability]))]
        asked += [
            (info.node_name, info.qos_profile)
            for info in self._node.get_subscriptions_info_by_topic(topic)
            if not info.node_name.startswith('_')  # tools, such as ros2 topic
        ]
        for who, qos in asked:
            for publisher in publishers:
                compatibility, reason = qos_check_compatible(publisher.qos_profile, qos)
                if compatibility == QoSCompatibility.ERROR:
                    raise CheckError(
                        f'{topic}: what {publisher.node_name} offers does not fit what {who} asks for: '
                        f'{reason}'
                    )

    def check_node(self, name: str) -> Mapping[str, Any]:
        """It is there once, active where it has a lifecycle, and says of itself that it is well."""
        self.listen()
        full_name = self.full_name(name)
        count = self.instances(name)
        if count != 1:
            raise CheckError(f'expected one node {full_name}, got {count or "none"}')
        values: dict[str, Any] = {}
        if self.is_lifecycle(full_name):
            values['state'] = self.state(full_name)
            if values['state'] != 'active':
                raise CheckError(f'{full_name}: expected state active, got {values["state"]}', values)
        statuses = self.statuses(name)
        if not statuses and full_name in self._telling and not self._is_told_of(full_name):
            waited_s = monotonic() - self._begin_s
            raise CheckError(
                f'{full_name} publishes /diagnostics, but said nothing in {waited_s:.0f} s; does it hang?',
                values,
            )
        values['diagnostics'] = (
            ', '.join(LEVEL_NAMES.get(each.level, 'unknown') for each in statuses) or 'none'
        )
        for status in statuses:
            if status.level >= ERROR:
                level = LEVEL_NAMES.get(status.level, 'unknown')
                raise CheckError(f'{status.name}: {level}: {status.message}', values)
        return values

    def check_output(self, entry: OutputEntry) -> Mapping[str, Any]:
        """It really comes, carries stamps of its input, and is young enough when it comes."""
        node = self._node
        topic = node.resolve_topic_name(entry.topic)
        heard = self.heard(topic, entry.type)
        messages = list(heard.messages)
        values: dict[str, Any] = {'messages': len(messages)}
        if not messages:
            raise CheckError(f'{topic} is silent: no message in {self._manifest.listen_s:g} s', values)
        if not (entry.stamps_of or entry.max_age_ms is not None):
            return values
        if not heard.has_header:
            raise CheckError(f'{topic}: {entry.type} has no header, and so no stamp', values)
        if heard.problem:
            raise CheckError(f'{topic}: {heard.problem}', values)
        if entry.stamps_of:
            self._check_stamps(topic, node.resolve_topic_name(entry.stamps_of), messages, values)
        if entry.max_age_ms is not None:
            self._check_ages(topic, entry.max_age_ms, messages, values)
        return values

    def _check_stamps(self, topic: str, source: str, messages: list[Message], values: dict[str, Any]) -> None:
        inputs = {
            message.stamp_ns for message in self._heard[source].messages if message.stamp_ns is not None
        }
        if not inputs:
            raise NotRunError(f'nothing came on {source}, whose stamps {topic} has to carry', values)
        # Answers to inputs that came before this one listened are theirs, too: the first ones.
        stamps = [each.stamp_ns for each in messages if each.stamp_ns is not None]
        first = min(inputs)
        stamps = list(dropwhile(lambda stamp: stamp < first, stamps)) or stamps
        known = sum(stamp in inputs for stamp in stamps)
        values |= {'with_stamps_of_input': known, 'compared': len(stamps)}
        if not known or known < (1 - LOST_SHARE) * len(stamps):
            raise CheckError(
                f'{topic}: expected the stamps of {source}, got them in {known} of {len(stamps)} messages',
                values,
            )

    def _check_ages(
        self, topic: str, budget_ms: float, messages: list[Message], values: dict[str, Any]
    ) -> None:
        if problem := clock_problem(self._node.get_clock()):
            raise NotRunError(problem, values)
        ages_ms = [message.age_ms for message in messages if message.age_ms is not None]
        p95_ms, youngest_ms = percentile(ages_ms, 95), min(ages_ms)
        values |= {'age_p95_ms': p95_ms, 'max_age_ms': budget_ms}
        if youngest_ms < 0:
            raise CheckError(
                f'{topic}: a stamp is {-youngest_ms:.1f} ms from the future: clocks differ', values
            )
        if not p95_ms <= budget_ms:
            raise CheckError(
                f'{topic}: expected an age of at most {budget_ms:g} ms, got {p95_ms:.1f} (p95)', values
            )

    def check_budget(self, budget: BudgetEntry) -> Mapping[str, Any]:
        """No stage takes longer than it may; names the first that does."""
        told = [
            {pair.key: pair.value for pair in status.values}
            for name in budget.nodes
            for status in self.statuses(name)
            if status.name in self._working
        ]
        limits_ms = budget.limits_ms()
        measured_ms = {stage: stage_ms(stage, told) for stage in limits_ms}
        values = {f'{stage}_ms_p95': took for stage, took in measured_ms.items()}
        values |= {f'{stage}_budget_ms': limit for stage, limit in limits_ms.items()}
        for stage, took in measured_ms.items():
            if took is not None and took > limits_ms[stage]:
                raise CheckError(
                    f'{stage}: expected at most {limits_ms[stage]:g} ms, got {took:.3g} (p95)', values
                )
        if unknown := [stage for stage, took in measured_ms.items() if took is None]:
            raise NotRunError(
                f'{", ".join(unknown)}: not measured now by {", ".join(budget.nodes)} in /diagnostics',
                values,
            )
        return values


def stage_ms(stage: str, told: list[dict[str, str]]) -> float | None:
    """How long a stage takes (p95), in the node where it takes longest; None: nobody says.

    The camera's is the age of a picture when its answer leaves, less what the node took for it.
    """
    took_ms = []
    for values in told:
        if stage == 'camera':
            age, own = _number(values.get(AGE)), _number(values.get(OWN))
            if age is not None and own is not None:
                took_ms.append(max(age - own, 0.0))
            continue
        parts = [_number(values.get(key)) for key in STAGE_KEYS[stage]]
        known = [part for part in parts if part is not None]
        if known and parts[-1] is not None:
            took_ms.append(sum(known))
    return max(took_ms, default=None)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or '')
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def message_class(kind: str) -> Any:
    """Find a message by its name, such as sensor_msgs/msg/Image.

    Raises:
        ParameterError: it is not installed here.
    """
    package, _, name = kind.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise ParameterError(f'type: {kind} is not installed here: {error}') from error


def ros_checks(manifest: Manifest, node: Node, cancelled: threading.Event) -> list[Group]:
    """Give the checks over ROS; `node` is spun by another thread than that of the checks."""
    listener = Listener(node, manifest, cancelled)
    functions: list[Callable[[], Mapping[str, Any]]] = [
        *(partial(listener.check_topic, topic) for topic in manifest.topics),
        *(partial(listener.check_node, name) for name in manifest.nodes),
        *(partial(listener.check_output, output) for output in manifest.outputs),
        *(partial(listener.check_budget, budget) for budget in [manifest.budget] if budget is not None),
    ]
    checks = tuple(Check(*each) for each in zip(ros_names(manifest), functions, strict=True))
    return [Group(checks, listener.close)] if checks else []
