"""Graph: who publishes which topics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

LABELS = 'vision_msgs/msg/LabelInfo'  # what all our nodes that answer pictures publish, and no camera
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
    return [
        f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        for info in node.get_publishers_info_by_topic(topic)
    ]


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
