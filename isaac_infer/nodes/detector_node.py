"""detector_node: pictures in, detections out."""

from __future__ import annotations

import isaac_infer.engine.wake  # noqa: F401 - it works while the rest is imported

# isort: split
import sys
from functools import partial

from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.draw import draw_detections
from isaac_infer.nodes._opening import limits_of, open_model
from isaac_infer.params import DetectorParams
from isaac_infer.ros.cdr import write_entries
from isaac_infer.ros.images import picture_of
from isaac_infer.ros.messages import entries_of_detections
from isaac_infer.ros.perception import Answer, Output, Perception
from isaac_infer.ros.perception_node import PerceptionNode
from isaac_infer.ros.process import run_node

NAME = 'detector_node'


def detections(answer: Answer) -> Detection2DArray | bytes:
    entries = entries_of_detections(answer.found, answer.spec, class_ids=answer.params.class_ids)
    return write_entries(entries, answer.frame)


def overlay(answer: Answer) -> bytearray:
    """Give the picture with its boxes."""
    params = answer.params
    image = draw_detections(
        answer.frame.bgr(),
        answer.found,
        answer.spec.class_names,
        line_width=params.overlay_line_width,
        labels=params.overlay_labels,
        scores=params.overlay_scores,
    )
    return picture_of(image, answer.frame)


DETECTOR = Perception(
    name=NAME,
    params=DetectorParams,
    load=partial(open_model, 'detection'),
    limits=limits_of,
    outputs=(
        Output('detections', Detection2DArray, detections),
        Output('overlay', Image, overlay),
    ),
)


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C; the exit code is 1 where its parameters are wrong."""
    return run_node(NAME, DetectorParams, lambda stop: PerceptionNode(DETECTOR, stop), args)


if __name__ == '__main__':
    sys.exit(main())
