"""Graph: who publishes which topics."""

from __future__ import annotations

from rclpy.node import Node

LABELS = 'vision_msgs/msg/LabelInfo'  # what all our nodes that answer pictures publish, and no camera


def published(node: Node, kind: str) -> list[str]:
    """Give the full names of the topics of a type, such as sensor_msgs/msg/Image, that somebody publishes."""
    return [name for name, kinds in node.get_topic_names_and_types() if kind in kinds and _who(node, name)]


def published_by_others(node: Node, kind: str) -> list[str]:
    """Give those alone that somebody publishes who is no node of ours that answers pictures."""
    ours = {who for name in published(node, LABELS) for who in _who(node, name)}
    return [name for name in published(node, kind) if not _who(node, name) <= ours]


def _who(node: Node, topic: str) -> set[tuple[str, str]]:
    """The nodes that publish a topic: the namespace and the name of each."""
    return {(info.node_namespace, info.node_name) for info in node.get_publishers_info_by_topic(topic)}
