"""Graph: what is said of nodes that get in one another's way."""

import pytest
from processes import wait_until

rclpy = pytest.importorskip('rclpy', reason='nodes need ROS 2')

from isaac_infer.ros import graph  # noqa: E402


@pytest.fixture
def make_node(ros):
    nodes = []

    def make(name, namespace='/'):
        nodes.append(rclpy.create_node(name, namespace=namespace))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_nodes_of_one_name_are_told_once_they_are_no_rest_of_one_that_was_killed(make_node, monkeypatch):
    node, _ = make_node('twin'), make_node('twin', '/elsewhere')
    namesakes = graph.Namesakes(node)
    make_node('twin')
    assert wait_until(lambda: node.get_node_names_and_namespaces().count(('twin', '/')) == 2)
    assert namesakes.told() == ''
    monkeypatch.setattr(graph, 'GONE_AFTER_S', 0.0)
    assert namesakes.told() == '2 nodes are called /twin: give each a name or a namespace of its own'


def test_a_node_of_its_own_name_is_nothing_to_tell(make_node, monkeypatch):
    monkeypatch.setattr(graph, 'GONE_AFTER_S', 0.0)
    node, _ = make_node('single'), make_node('single', '/elsewhere')
    assert graph.Namesakes(node).told() == ''
