"""Start a robot: perception, executor, power manager and validator, from one parameter file.

use_executor:=false and the like leave one out; use_simulator:=true starts a simulated robot too. What ends is
started again. The executor does not move the robot before its service enable was called.
"""

from isaac_infer.ros.launching_jetson import describe


def generate_launch_description():
    """Describe the processes and what they are given."""
    return describe()
