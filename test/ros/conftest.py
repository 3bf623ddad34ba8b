"""One ROS context for the tests of this folder, in a domain of its own."""

import os

import pytest
from domains import own_domain


class Clock:
    """Seconds that pass where a test says so."""

    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope='module')
def ros():
    """rclpy, initialised as our own processes do it: Fast DDS reads its profile once in a process."""
    import rclpy

    from isaac_infer.ros import transport

    transport.set_up()
    os.environ['ROS_DOMAIN_ID'] = own_domain()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()
