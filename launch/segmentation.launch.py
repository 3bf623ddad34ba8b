"""Start the segmentation; with use_image_source:=true also a source of pictures for it."""

from isaac_infer.ros.launching import SEGMENTATION, describe


def generate_launch_description():
    """Describe the processes and what they are given."""
    return describe(SEGMENTATION)
