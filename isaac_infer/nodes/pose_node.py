"""pose_node: pictures in, persons and their key points out."""

from __future__ import annotations

import isaac_infer.engine.wake  # noqa: F401 - it works while the rest is imported

# isort: split
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import MarkerArray

from isaac_infer.core.draw import draw_poses
from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Poses
from isaac_infer.core.skeleton import Skeleton, choose_skeleton
from isaac_infer.core.smooth import Smoother
from isaac_infer.core.space import on_plane
from isaac_infer.core.topdown import TopDownPipeline
from isaac_infer.nodes._opening import limits_of, open_any, open_model
from isaac_infer.params import PoseNodeParams
from isaac_infer.ros.cdr import write_entries
from isaac_infer.ros.depths import Depths
from isaac_infer.ros.images import picture_of
from isaac_infer.ros.markers import no_markers, pose_markers
from isaac_infer.ros.messages import entries_of_detections, entries_of_keypoints
from isaac_infer.ros.perception import Answer, Companion, Loaded, Output, Perception
from isaac_infer.ros.perception_node import PerceptionNode
from isaac_infer.ros.persons import PersonsOfTopic
from isaac_infer.ros.process import run_node

NAME = 'pose_node'


class PoseMessages:
    """What the answers of one model become: its skeleton, and the persons of the picture before."""

    def __init__(self, skeleton: Skeleton, depths: Depths | None) -> None:
        self.skeleton, self.depths = skeleton, depths
        self._smoother = Smoother()

    def refine(self, found: Poses, frame: Frame, params: PoseNodeParams) -> Poses:
        """Number the persons, and smooth the key points of the skeleton, as the parameters want it."""
        if self.skeleton.left_out:
            score = found.score.copy()
            score[:, sorted(self.skeleton.left_out)] = 0
            found = replace(found, score=score)
        if not params.track:
            return replace(found, ids=np.arange(1, len(found) + 1))
        if not params.smooth:
            return self._smoother.number(found, frame.stamp_ns, params.smoothing())
        return self._smoother(found, frame.stamp_ns, params.smoothing(), threshold=params.keypoint_threshold)


def load(params: PoseNodeParams, say: Callable[[str], None], is_cancelled: Callable[[], bool]) -> Loaded:
    """Open the pose model and, for top-down ones, what finds the persons."""
    loaded = open_model('pose', params, say, is_cancelled)
    try:
        return _with_persons(loaded, params, say, is_cancelled)
    except BaseException:
        loaded.pipeline.close()
        raise


def _with_persons(
    loaded: Loaded, params: PoseNodeParams, say: Callable[[str], None], is_cancelled: Callable[[], bool]
) -> Loaded:
    pose, facts, companions = loaded.pipeline, dict(loaded.facts), []
    partner = None
    skeleton = choose_skeleton(params.skeleton, pose.spec.keypoints)
    facts['skeleton'] = skeleton.name
    options = {'max_batch': params.max_batch, 'padding': params.person_padding}
    pipeline = pose
    if params.person_model_file_path:
        try:
            finder = open_any(
                'detection', params.person_params(), say, is_cancelled, build_only=params.build_only
            )
        except ModelError as error:
            raise ModelError(
                f'person_model_file_path: expected the detector that finds the persons: {error}'
            ) from error
        try:
            pipeline = TopDownPipeline(finder.pipeline, pose, **options)
        except BaseException:
            finder.pipeline.close()
            raise
        backend = finder.pipeline.session.backend
        facts |= {'person_model': finder.facts['model'], 'person_backend': backend}
        say(f'persons are found by {finder.facts["model"]}, {backend}')
    elif params.persons_topic:
        try:
            validate_topic_name(params.persons_topic)
        except InvalidTopicNameException as error:
            raise ParameterError(f'persons_topic: {error}') from error
        partner = PersonsOfTopic(params)
        pipeline = TopDownPipeline(partner, pose, **options)
    depths = Depths() if params.use_depth else None
    if depths:
        companions.append(Companion('depth', Image, depths.take_depth, is_raw=True))
        companions.append(Companion('camera_info', CameraInfo, depths.take_camera_info))
    messages = PoseMessages(skeleton, depths)
    return Loaded(pipeline, facts, messages.refine, tuple(companions), messages, partner)


# ---- what is published -------------------------------------------------------------------------------------


def persons(answer: Answer) -> Detection2DArray | bytes:
    """The box of every person, with its number."""
    found: Poses = answer.found
    entries = entries_of_detections(
        found.persons, answer.spec, class_ids=answer.params.class_ids, ids=found.ids.tolist()
    )
    return write_entries(entries, answer.frame)


def keypoints(answer: Answer) -> Detection2DArray | bytes:
    """Every key point that was found."""
    found: Poses = answer.found
    entries = entries_of_keypoints(
        found, answer.spec.keypoints, threshold=answer.params.keypoint_threshold, ids=found.ids.tolist()
    )
    return write_entries(entries, answer.frame)


def markers(answer: Answer) -> MarkerArray:
    """Joints and links, in metres where the depth is known, else on a plane."""
    found, params, frame = answer.found, answer.params, answer.frame
    depths: Depths | None = answer.extra.depths
    if depths:
        points = depths.positions(found.xy, frame, params.depth_tolerance_ms)
    else:
        points = on_plane(found.xy, frame.size_hw, params.marker_pixel_m)
    is_found = (found.score >= params.keypoint_threshold) & (found.score > 0)
    points = np.where(is_found[..., None], points, np.nan)
    return pose_markers(
        points, answer.extra.skeleton, frame, ids=found.ids.tolist(), joint_m=params.marker_joint_m
    )


def overlay(answer: Answer) -> bytearray:
    """The picture with its persons."""
    params = answer.params
    image = draw_poses(
        answer.frame.bgr(),
        answer.found,
        answer.extra.skeleton,
        threshold=params.keypoint_threshold,
        line_width=params.overlay_line_width,
        labels=params.overlay_labels,
        scores=params.overlay_scores,
    )
    return picture_of(image, answer.frame)


POSE = Perception(
    name=NAME,
    params=PoseNodeParams,
    load=load,
    limits=limits_of,
    outputs=(
        Output('persons', Detection2DArray, persons),
        Output('keypoints', Detection2DArray, keypoints),
        Output('markers', MarkerArray, markers, blank=no_markers),
        Output('overlay', Image, overlay),
    ),
    tell=lambda answer: {'persons': str(len(answer.found))},
)


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C; the exit code is 1 where its parameters are wrong."""
    return run_node(NAME, PoseNodeParams, lambda stop: PerceptionNode(POSE, stop), args)


if __name__ == '__main__':
    sys.exit(main())
