"""Start the pose estimation; with use_image_source:=true also a source of pictures for it.

A top-down model, one that expects the picture of a single person, needs to know where the persons are: give
person_model, a detector that this node runs too, or persons_topic, the detections of another node.
"""

from isaac_infer.ros.launching import POSE, describe


def generate_launch_description():
    """Describe the processes and what they are given."""
    return describe(POSE)
