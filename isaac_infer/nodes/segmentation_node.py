"""segmentation_node: pictures in, masks and class maps out."""

from __future__ import annotations

import isaac_infer.engine.wake  # noqa: F401 - it works while the rest is imported

# isort: split
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial

import numpy as np
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.decode.segmentation import kind_of_masks
from isaac_infer.core.draw import colour_segmentation, draw_segmentation
from isaac_infer.core.maps import background_classes, class_map_of, class_shares, instance_map_of
from isaac_infer.nodes._opening import limits_of, open_model
from isaac_infer.params import SegmentationNodeParams
from isaac_infer.ros.cdr import write_entries
from isaac_infer.ros.images import picture_of
from isaac_infer.ros.messages import entries_of_detections
from isaac_infer.ros.perception import Answer, Output, Perception
from isaac_infer.ros.perception_node import PerceptionNode
from isaac_infer.ros.process import run_node

NAME = 'segmentation_node'


def detections(answer: Answer) -> Detection2DArray | bytes:
    """One entry per object, or per connected region of a class."""
    entries = entries_of_detections(answer.found.objects, answer.spec, class_ids=answer.params.class_ids)
    return write_entries(entries, answer.frame)


def mask(answer: Answer) -> bytearray:
    """The class of every pixel."""
    return picture_of(_class_map(answer), answer.frame)


def instance_mask(answer: Answer) -> bytearray:
    """The number of the object that every pixel belongs to, as in `detections`, from 1."""
    return picture_of(instance_map_of(answer.found, answer.frame.size_hw), answer.frame)


def mask_color(answer: Answer) -> bytearray:
    """The colour of the class of every pixel; black where there is none."""
    image = np.zeros((*answer.frame.size_hw, 3), np.uint8)
    return picture_of(colour_segmentation(image, answer.found, palette=answer.params.colours()), answer.frame)


def overlay(answer: Answer) -> bytearray:
    """The picture with its masks and the boxes of its objects."""
    params, spec = answer.params, answer.spec
    image = draw_segmentation(
        answer.frame.bgr(),
        answer.found,
        spec.class_names,
        opacity=params.overlay_opacity,
        hidden=background_classes(spec.class_names) if answer.found.class_map is not None else (),
        line_width=params.overlay_line_width,
        labels=params.overlay_labels,
        scores=params.overlay_scores,
        palette=params.colours(),
    )
    return picture_of(image, answer.frame)


def shares(answer: Answer) -> Mapping[str, str]:
    """How much of the picture each class has; `share_none` of what has no class, or was not seen.

    Classes whose names do not tell them apart have their numbers behind them.
    """
    class_map, spec = _class_map(answer), answer.spec
    highest = np.iinfo(class_map.dtype).max
    named = Counter(('none', *spec.class_names))

    def name(class_id: int) -> str:
        if class_id == highest:
            return 'none'
        name = spec.class_name(class_id)
        return f'{name}_{class_id}' if named[name] > 1 else name

    return {f'share_{name(class_id)}': f'{share:.1%}' for class_id, share in class_shares(class_map).items()}


def _class_map(answer: Answer) -> np.ndarray:
    return class_map_of(answer.found, answer.frame.size_hw, answer.spec.num_classes)


SEGMENTER = Perception(
    name=NAME,
    params=SegmentationNodeParams,
    load=partial(open_model, 'segmentation'),
    limits=limits_of,
    outputs=(
        Output('detections', Detection2DArray, detections),
        Output('mask', Image, mask),
        Output('instance_mask', Image, instance_mask),
        Output('mask_color', Image, mask_color),
        Output('overlay', Image, overlay),
    ),
    tell=shares,
    kind=kind_of_masks,
)


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C; the exit code is 1 where its parameters are wrong."""
    return run_node(NAME, SegmentationNodeParams, lambda stop: PerceptionNode(SEGMENTER, stop), args)


if __name__ == '__main__':
    sys.exit(main())
