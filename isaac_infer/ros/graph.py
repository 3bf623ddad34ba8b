"""Graph: who publishes which topics."""

from __future__ import annotations

from rclpy.node import Node


def published(node: Node, kind: str) -> list[str]:
    """Give the full names of the topics of a type, such as sensor_msgs/msg/Image, that somebody publishes."""
    return [name for name, kinds in node.get_topic_names_and_types() if kind in kinds and _who(node, name)]


def _who(node: Node, topic: str) -> set[tuple[str, str]]:
    """The nodes that publish a topic: the namespace and the name of each."""
    return {(info.node_namespace, info.node_name) for info in node.get_publishers_info_by_topic(topic)}
