"""Set the DDS profile that lets large pictures through, for all that is started after it.

Unless the user has chosen a profile or another middleware. Include it before the node of your camera.
"""

from launch import LaunchDescription

from isaac_infer.ros.launching import profile_actions


def generate_launch_description():
    """Describe the variables."""
    return LaunchDescription(profile_actions())
