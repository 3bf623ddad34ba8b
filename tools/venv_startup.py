"""Start of .venv's Python: makes .venv a ROS prefix that is found without activating anything.

tools/setup_env.py copies this file into the environment and imports it from a .pth file, which sorts before
that of the ROS wheels: theirs starts Python again, with the wheels' library path and with what is set here.
"""

import os
import sys
from pathlib import Path


def add(variable, folder):
    """Put a folder at the end of a path variable; tell whether it was missing."""
    folders = os.environ.get(variable, '').split(os.pathsep)
    if folder in folders:
        return False
    os.environ[variable] = os.pathsep.join(filter(None, [*folders, folder]))
    return True


add('AMENT_PREFIX_PATH', sys.prefix)  # at the end: a sourced workspace lies over this environment
# The loader reads its path only when a program starts, so Python starts once more: here, if not there.
wheels_start_again = Path(__file__).with_name('ros_wheels_bootstrapper.pth').exists()
if not wheels_start_again and add('LD_LIBRARY_PATH', f'{sys.prefix}/lib'):
    os.execve(sys.executable, sys.orig_argv, os.environ)
