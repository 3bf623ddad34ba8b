"""Lets every test import the helpers that lie here, with the pytest of each supported ROS 2."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # the setting `pythonpath` came with pytest 7, Humble has 6.2

# How long an example takes says something of the machine, which may be busy, and nothing of the code.
settings.register_profile('busy machine', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('busy machine')

# Started in the background, this process ignores Ctrl-C, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tables fold in a narrow terminal.
os.environ['COLUMNS'] = '120'

# Not the user's: thousands of broken models are tried here. Removed when this process ends.
_cache = tempfile.TemporaryDirectory(prefix='isaac_infer_cache_')
os.environ['ISAAC_INFER_CACHE'] = _cache.name


def pytest_configure(config):
    """Keep launch_testing of a sourced ROS 2 off our files: under it one importorskip ends all collecting."""
    for plugin in list(config.pluginmanager.get_plugins()):
        if getattr(plugin, '__name__', '') == 'launch_testing.pytest.hooks':
            config.pluginmanager.unregister(plugin)
