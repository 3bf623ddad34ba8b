"""Start of .venv's Python: makes .venv a ROS prefix that is found without activating anything.

tools/setup_env.py copies this file into the environment and imports it from a .pth file, which sorts before
that of the ROS wheels: theirs starts Python again, with the wheels' library path and with what is set here.
"""

import os
import sys
from pathlib import Path


def put_first(variable, folder):
    """Put a folder at the front of a path variable; tell whether it was missing."""
    folders = os.environ.get(variable, '').split(os.pathsep)
    if folder in folders:
        return False
    os.environ[variable] = os.pathsep.join(filter(None, [folder, *folders]))
    return True


put_first('AMENT_PREFIX_PATH', sys.prefix)
# The loader reads its path only when a program starts, so Python starts once more: here, if not there.
wheels_start_again = Path(__file__).with_name('ros_wheels_bootstrapper.pth').exists()
if not wheels_start_again and put_first('LD_LIBRARY_PATH', f'{sys.prefix}/lib'):
    os.execve(sys.executable, sys.orig_argv, os.environ)
