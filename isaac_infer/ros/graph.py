"""Graph: who publishes which topics, and who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from isaac_infer.core.text import listed

LABELS = 'vision_msgs/msg/LabelInfo'  # what all our nodes that answer pictures publish, and no camera
GONE_AFTER_S = 25.0  # DDS forgets a process that was killed after 20 s
PICTURES = {'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'}

Topics = Mapping[str, Sequence[str]]  # their types by their full names
Who = tuple[str, str]  # its name and namespace


def published(node: Node, kind: str) -> list[str]:
    """Give the full names of the topics of a type, such as sensor_msgs/msg/Image, that somebody publishes."""
    return _of_kinds({kind}, _by_node(node, node.get_publisher_names_and_types_by_node).values())


def published_by_others(node: Node, kind: str) -> list[str]:
    """Give those alone that somebody publishes who is no node of ours that answers pictures.

    A player of recordings may publish such labels, too, but it looks at no pictures.
    """
    publishing = _by_node(node, node.get_publisher_names_and_types_by_node)
    looking = _by_node(node, node.get_subscriber_names_and_types_by_node)
    return _of_kinds(
        {kind},
        [
            topics
            for who, topics in publishing.items()
            if not (_of_kinds({LABELS}, [topics]) and _of_kinds(PICTURES, [looking.get(who, {})]))
        ],
    )


def publishers_of(node: Node, topic: str) -> list[str]:
    """Give the full names of the nodes that publish a topic, each as often as it has a publisher there."""
    return list(map(_full_name, node.get_publishers_info_by_topic(topic)))


def subscribers_of(node: Node, topic: str) -> list[str]:
    """Give the full names of the nodes that subscribe to a topic, each as often as it does."""
    return list(map(_full_name, node.get_subscriptions_info_by_topic(topic)))


class MixedInputs:
    """Topics on which the messages of several nodes are taken for those of one, which nobody wants."""

    def __init__(self, node: Node, topics: Sequence[str]) -> None:
        self._node, self._topics = node, topics
        self._since_s: dict[str, float] = {}  # by topic

    def told(self) -> tuple[str, ...]:
        """A sentence about each of them."""
        return tuple(filter(None, map(self._told_of, self._topics)))

    def _told_of(self, topic: str) -> str:
        names = publishers_of(self._node, topic)
        if len(names) < 2:
            self._since_s.pop(topic, None)
            return ''
        since_s = self._since_s.setdefault(topic, monotonic())
        if len(set(names)) < 2 and monotonic() - since_s < GONE_AFTER_S:
            return ''  # one that was killed and is started again is there twice for a while
        shown = listed(sorted(set(names)), most=5)
        return f'{len(names)} publishers on {topic}: {shown}; the newest message counts'


class Namesakes:
    """Nodes of one name, of which parameters and services reach one alone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since_s: float | None = None

    def told(self) -> str:
        """A sentence about them; empty where there are none."""
        own = self._node.get_name(), self._node.get_namespace()
        count = self._node.get_node_names_and_namespaces().count(own)
        if count < 2:
            self._since_s = None
            return ''
        self._since_s = self._since_s or monotonic()
        if monotonic() - self._since_s < GONE_AFTER_S:
            return ''  # as in MixedInputs
        name = self._node.get_fully_qualified_name()
        return f'{count} nodes are called {name}: give each a name or a namespace of its own'


def _full_name(info: TopicEndpointInfo) -> str:
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


def _of_kinds(kinds: set[str], found: Iterable[Topics]) -> list[str]:
    return sorted({name for topics in found for name, types in topics.items() if kinds.intersection(types)})


def _by_node(node: Node, ask: Callable[[str, str], list[tuple[str, list[str]]]]) -> dict[Who, Topics]:
    """What each node says when it is asked for its topics."""
    # Not by topics: rclpy would apply the remappings of this node to their names.
    found: dict[Who, Topics] = {}
    for name, namespace in node.get_node_names_and_namespaces():
        try:
            found[name, namespace] = dict(ask(name, namespace))
        except rclpy_implementation.NodeNameNonExistentError:  # it is gone meanwhile
            continue
    return found
