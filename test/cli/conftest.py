"""Fixtures for commands that run nodes."""

import os
import random

import pytest


@pytest.fixture
def environment(tmp_path):
    domain = str(random.randrange(101, 200))
    # What is killed leaves its files behind: here they go with the test.
    folders = {'TMPDIR': str(tmp_path), 'ROS_LOG_DIR': str(tmp_path / 'log')}
    return {**os.environ, **folders, 'ROS_DOMAIN_ID': domain, 'COLUMNS': '120'}
