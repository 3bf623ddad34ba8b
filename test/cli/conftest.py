"""Fixtures for commands that run nodes."""

import os

import pytest
from domains import own_domain


@pytest.fixture
def environment(tmp_path):
    # What is killed leaves its files behind: here they go with the test.
    folders = {'TMPDIR': str(tmp_path), 'ROS_LOG_DIR': str(tmp_path / 'log')}
    return {**os.environ, **folders, 'ROS_DOMAIN_ID': own_domain(), 'COLUMNS': '120'}
