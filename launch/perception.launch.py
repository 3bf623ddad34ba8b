"""Start detector, segmentation and pose on the pictures of one camera.

use_detector:=false and the like leave one out; use_image_source:=true starts a source of pictures too. The
topics of each begin with its name, those of the camera stay as they are:

    detector/       detections  overlay  label_info
    segmentation/   detections  mask  instance_mask  mask_color  overlay  label_info
    pose/           persons  keypoints  markers  overlay  label_info

So do the arguments that are for one of them, such as detector_model and pose_params_file. The others, such as
transport and autostart, are for all. A top-down pose model takes the persons of the detector beside it with
persons_topic:=detector/detections.
"""

from isaac_infer.ros.launching import KINDS, describe


def generate_launch_description():
    """Describe the processes and what they are given."""
    return describe(*KINDS)
