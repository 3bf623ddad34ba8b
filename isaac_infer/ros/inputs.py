"""Inputs: the newest message of each topic and how old it is, however many come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time_ns
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message

from isaac_infer.core.control.safety import age_of
from isaac_infer.core.encodings import stamp_ns_from_cdr
from isaac_infer.core.errors import FrameError, IsaacInferError

# Whoever publishes them, reliably or not; an old one is worth nothing.
NEWEST_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT
)
MOST_TAKEN = 4  # messages at once, of a middleware that keeps more than one


@dataclass(frozen=True)
class _Message:
    cdr: bytes
    arrived_s: float  # monotonic
    stamp_ns: int | None  # None: it has none
    read: list[Any] = field(default_factory=list)  # what it says, or why not, once somebody wants to know


class Newest:
    """The newest message of a topic, as bytes until somebody wants to know what it says; for several threads.

    Its age is that of its stamp, by ROS time, or of its arrival, by a steady clock, whichever is older.
    """

    def __init__(self, name: str, read: Callable[[bytes], Any], *, is_stamped: bool) -> None:
        """Begin with none.

        Args:
            name: of the input, for messages.
            read: gives what the bytes say, or raises IsaacInferError.
            is_stamped: whether the message begins with a header.
        """
        self.name = name
        self._read, self._is_stamped = read, is_stamped
        self._message: _Message | None = None
        self.count = 0
        self.problem = ''  # with the newest one; empty: none

    def arrived(self, cdr: bytes, at_s: float) -> None:
        """Keep a message; one that cannot be one counts as none."""
        self.count += 1
        try:
            stamp_ns = stamp_ns_from_cdr(cdr) if self._is_stamped else None
        except FrameError as error:
            self._message, self.problem = None, f'{self.name}: no such message: {error}'
            return
        self._message, self.problem = _Message(cdr, at_s, stamp_ns), ''

    def age_s(self, now_s: float, now_ns: int) -> float | None:
        """How old it is, as `age_of`; below 0 where its stamp is from the future, None while there is none.

        Args:
            now_s: by the steady clock.
            now_ns: by ROS time.
        """
        message = self._message
        if message is None:
            return None
        age_s = now_s - message.arrived_s
        if message.stamp_ns is None:
            return age_s
        return age_of((now_ns - message.stamp_ns) / 1e9, age_s)

    def value(self) -> Any:
        """What it says, or None while there is none; read once.

        Raises:
            IsaacInferError: it cannot be read.
        """
        message = self._message
        if message is None:
            return None
        if not message.read:
            try:
                message.read.append(self._read(message.cdr))
            except IsaacInferError as error:
                self.problem = str(error)
                message.read.append(error)
        value = message.read[0]
        if isinstance(value, IsaacInferError):
            raise value
        return value


class _Aside(CallbackGroup):
    """Keeps subscriptions away from the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        return


class TakenInput:
    """A subscription whose newest message is taken when it is needed, and never by the executor.

    So a flood of messages costs this process nothing but what the middleware does with them: it keeps the
    last one.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        kind: type[Any],
        read: Callable[[Any], Any],
        *,
        name: str,
        is_stamped: bool,
    ) -> None:
        """Subscribe; see Newest. `read` gives what a message says, or raises IsaacInferError."""
        self.newest = Newest(name, lambda cdr: read(_deserialised(cdr, kind)), is_stamped=is_stamped)
        self._subscription = node.create_subscription(
            kind, topic, _never, NEWEST_QOS, callback_group=_Aside(), raw=True
        )
        self.topic = self._subscription.topic_name
        self._taken_s: float | None = None  # when it was looked for messages last

    def take(self, now_s: float) -> None:
        """Take what came since the last time; one thread at a time.

        Args:
            now_s: by the steady clock.
        """
        subscription = self._subscription
        for _ in range(MOST_TAKEN):
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, True)
            if taken is None:
                break
            cdr, info = taken
            self.newest.arrived(cdr, self._arrival_s(now_s, info.get('received_timestamp', 0)))
        self._taken_s = now_s

    def _arrival_s(self, now_s: float, received_ns: int) -> float:
        """When a message arrived: the middleware says so by the system clock, which may have been set since.

        It came after the last look for messages, which bounds that.
        """
        arrived_s = now_s - max(time_ns() - received_ns, 0) / 1e9
        return arrived_s if self._taken_s is None else max(arrived_s, self._taken_s)


def _never(message: Any) -> None:
    raise AssertionError('this subscription is not for the executor')


def _deserialised(cdr: bytes, kind: type[Any]) -> Any:
    if len(cdr) < 4:  # no header: rmw_cyclonedds would end the process
        raise FrameError(f'{len(cdr)} bytes are not a {kind.__name__} message')
    try:
        return deserialize_message(cdr, kind)
    except Exception as error:  # whatever rclpy and the middleware make of damaged bytes
        raise FrameError(f'{len(cdr)} bytes are not a {kind.__name__} message: {error}') from error
