"""One ROS context for the tests of this folder, in a domain of its own."""

import os
import random

import pytest


@pytest.fixture(scope='module')
def ros():
    """rclpy, initialised."""
    import rclpy

    os.environ['ROS_DOMAIN_ID'] = str(random.randrange(1, 100))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()
