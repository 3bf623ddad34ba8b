"""Graph: who publishes which topics."""

from __future__ import annotations

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

LABELS = 'vision_msgs/msg/LabelInfo'  # what all our nodes that answer pictures publish, and no camera


def published(node: Node, kind: str) -> list[str]:
    """Give the full names of the topics of a type, such as sensor_msgs/msg/Image, that somebody publishes."""
    return _of_kind(kind, _topics_by_node(node))


def published_by_others(node: Node, kind: str) -> list[str]:
    """Give those alone that somebody publishes who is no node of ours that answers pictures."""
    return _of_kind(kind, [topics for topics in _topics_by_node(node) if not _of_kind(LABELS, [topics])])


def _of_kind(kind: str, topics_by_node: list[dict[str, list[str]]]) -> list[str]:
    return sorted({name for topics in topics_by_node for name, kinds in topics.items() if kind in kinds})


def _topics_by_node(node: Node) -> list[dict[str, list[str]]]:
    """The topics that each node publishes, with their types."""
    # Not by topics: rclpy would apply the remappings of this node to their names.
    found = []
    for name, namespace in node.get_node_names_and_namespaces():
        try:
            found.append(dict(node.get_publisher_names_and_types_by_node(name, namespace)))
        except rclpy_implementation.NodeNameNonExistentError:  # it is gone meanwhile
            continue
    return found
