"""Lets every test import the helpers that lie here, with the pytest of each supported ROS 2."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the setting `pythonpath` came with pytest 7, Humble has 6.2
