"""See that the arguments of a launch file can be used, before it starts anything.

Included by those in XML: launch leaves behind what runs when it stumbles.
"""

from launch import LaunchDescription

from isaac_infer.ros.launching import check_actions


def generate_launch_description():
    """Describe the check of the arguments of whoever includes this."""
    return LaunchDescription(check_actions())
