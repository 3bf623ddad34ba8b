"""Fixtures that start nodes and talk to them."""

import os

import pytest
from domains import own_domain
from processes import Peer, Process


@pytest.fixture(scope='session', autouse=True)
def environment():
    """A domain of its own, on this machine only."""
    os.environ['ROS_DOMAIN_ID'] = own_domain()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'


def _starter(folder):
    processes = []

    def start(module, *arguments):
        processes.append(Process(module, *arguments, log=folder / f'{module}_{len(processes)}.log'))
        return processes[-1]

    return start, processes


@pytest.fixture
def start(tmp_path):
    """Start nodes; whatever still runs at the end of the test is killed."""
    starter, processes = _starter(tmp_path)
    yield starter
    for process in processes:
        process.end()


@pytest.fixture(scope='module')
def start_once(tmp_path_factory):
    """The same for nodes that all tests of a file share."""
    starter, processes = _starter(tmp_path_factory.mktemp('nodes'))
    yield starter
    for process in processes:
        process.end()


@pytest.fixture(scope='module')
def ros(environment):
    """rclpy, initialised as our own processes do it."""
    import rclpy

    from isaac_infer.ros import transport

    transport.set_up()
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def make_peer(ros):
    peers = []

    def make(name='peer', namespace=''):
        peers.append(Peer(name, namespace))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
