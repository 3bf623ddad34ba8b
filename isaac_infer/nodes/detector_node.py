"""detector_node: pictures in, detections out."""

from __future__ import annotations

import isaac_infer.engine.wake  # noqa: F401 - it works while the rest is imported

# isort: split
import sys
from collections.abc import Callable

import numpy as np
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.draw import draw_detections
from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.engine.load import check_built, file_sha256, find_model, open_pipeline, unused_precision
from isaac_infer.params import DetectorParams
from isaac_infer.ros.cdr import detections_to_cdr, fits_message
from isaac_infer.ros.messages import detections_to_msg
from isaac_infer.ros.perception_node import Loaded, Perception, PerceptionNode
from isaac_infer.ros.process import run_node

NAME = 'detector_node'
CDR_FITS = fits_message()


def load(params: DetectorParams, say: Callable[[str], None], is_cancelled: Callable[[], bool]) -> Loaded:
    """Open the model that the parameters name."""
    path = find_model(params.engine_file_path or params.model_file_path)
    pipeline = open_pipeline(
        path,
        limits=lambda spec: limits(params, spec),
        overrides=params.overrides(read_class_names(params.class_names)),
        backend=params.backend,
        providers=params.providers,
        num_threads=params.num_threads,
        engine=params.engine_options(),
        say=say,
        is_cancelled=is_cancelled,
    )
    if params.build_only:
        check_built(pipeline.session, params.backend)
    is_asked_for = params.precision != DetectorParams().precision
    if is_asked_for and (note := unused_precision(params.precision, pipeline.session)):
        say(note)
    # rclpy's own way is slower; it is taken where the installed vision_msgs has other fields.
    writer = 'cdr' if CDR_FITS else 'rclpy'
    return Loaded(pipeline, {'model': str(path), 'sha256': file_sha256(path), 'messages': writer})


def limits(params: DetectorParams, spec: ModelSpec) -> Limits:
    return params.limits(spec.class_names, spec.num_classes)


def to_message(
    found: Detections, frame: Frame, spec: ModelSpec, params: DetectorParams
) -> Detection2DArray | bytes:
    write = detections_to_cdr if CDR_FITS else detections_to_msg
    return write(found, frame, spec, class_ids=params.class_ids)


def draw(found: Detections, frame: Frame, spec: ModelSpec, params: DetectorParams) -> np.ndarray:
    """Give the picture with its boxes, BGR."""
    return draw_detections(
        frame.bgr(),
        found,
        spec.class_names,
        line_width=params.overlay_line_width,
        labels=params.overlay_labels,
        scores=params.overlay_scores,
    )


DETECTOR = Perception(
    name=NAME,
    params=DetectorParams,
    load=load,
    limits=limits,
    topic='detections',
    message=Detection2DArray,
    to_message=to_message,
    draw=draw,
)


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C; the exit code is 1 where its parameters are wrong."""
    return run_node(NAME, DetectorParams, lambda stop: PerceptionNode(DETECTOR, stop), args)


if __name__ == '__main__':
    sys.exit(main())
