"""Messages: results as ROS messages, with the header of the picture they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections, Poses
from isaac_infer.core.spec import ModelSpec
from isaac_infer.core.text import class_number
from isaac_infer.ros.images import SECOND_NS


def header_of(frame: Frame) -> Header:
    """The header of the picture that a frame came from."""
    sec, nanosec = divmod(frame.stamp_ns, SECOND_NS)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame.frame_id)


@dataclass(frozen=True)
class Entries:
    """What a Detection2DArray holds; row i of everything speaks of the same entry."""

    score: np.ndarray  # (N,) float
    boxes: np.ndarray  # (N, 5) float64: centre x, y, width, height in source pixels, radians
    texts: list[str]  # `class_id` of each
    ids: list[str]  # `id` of each; '': it has none


def entries_of_detections(
    found: Detections, spec: ModelSpec, *, class_ids: str = 'name', ids: Sequence[int] = ()
) -> Entries:
    """Give detections as entries, best score first.

    Args:
        class_ids: what `class_id` carries: the class `name` (its number where it has none), or its `index`.
        ids: of the objects; empty: they have none.
    """
    text_of = spec.class_name if class_ids == 'name' else str
    texts = {class_id: text_of(class_id) for class_id in set(found.class_id.tolist())}
    names = [str(number) for number in ids] if len(ids) else [''] * len(found)
    return Entries(
        found.score, boxes_of(found), [texts[class_id] for class_id in found.class_id.tolist()], names
    )


def entries_of_keypoints(
    poses: Poses, names: Sequence[str], *, threshold: float, ids: Sequence[int]
) -> Entries:
    """Give every key point that was found as an entry: a box without size, its person as `id`.

    Args:
        names: of the key points.
        threshold: those that score less were not found, and neither were those that score 0.
        ids: of the persons.
    """
    person, point = np.nonzero((poses.score >= threshold) & (poses.score > 0))
    boxes = np.zeros((len(person), 5))
    boxes[:, :2] = poses.xy[person, point]
    persons = [str(number) for number in ids]
    return Entries(
        poses.score[person, point],
        boxes,
        [names[at] for at in point.tolist()],
        [persons[at] for at in person.tolist()],
    )


def entries_to_msg(entries: Entries, frame: Frame) -> Detection2DArray:
    """Give entries as a message with the header of a frame; also when there are none."""
    header = header_of(frame)
    rows = zip(entries.texts, entries.score.tolist(), entries.boxes.tolist(), entries.ids)
    return Detection2DArray(header=header, detections=[_detection(header, *row) for row in rows])


def boxes_of(found: Detections) -> np.ndarray:
    """Centre x, y, width, height and angle, as messages have them: (N, 5) float64."""
    if found.rotated is not None:
        return found.rotated.astype(np.float64)
    boxes = np.zeros((len(found), 5))
    left_top, right_bottom = found.xyxy[:, :2].astype(np.float64), found.xyxy[:, 2:]
    np.add(left_top, right_bottom, out=boxes[:, :2])
    boxes[:, :2] *= 0.5
    np.subtract(right_bottom, left_top, out=boxes[:, 2:4])
    return boxes


def _detection(header: Header, class_id: str, score: float, box: list[float], number: str) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = class_id
    hypothesis.hypothesis.score = score
    detection = Detection2D(id=number)
    detection.header = header
    detection.results = [hypothesis]
    bbox = detection.bbox
    bbox.center.position.x, bbox.center.position.y, bbox.size_x, bbox.size_y, bbox.center.theta = box
    return detection


def detections_from_msg(message: Detection2DArray, class_names: list[str]) -> tuple[Detections, list[str]]:
    """Read a message back: the detections that have a class, and what their `class_id` texts say.

    Args:
        class_names: of the model, as `label_info` has them; what is neither a name nor a number is class -1.
    """
    entries = [entry for entry in message.detections if entry.results]
    best = [entry.results[0].hypothesis for entry in entries]
    texts = [hypothesis.class_id for hypothesis in best]
    boxes = [entry.bbox for entry in entries]
    rows = [(b.center.position.x, b.center.position.y, b.size_x, b.size_y, b.center.theta) for b in boxes]
    with np.errstate(over='ignore', invalid='ignore'):  # others send what they like
        rotated = np.array(rows, np.float32).reshape(-1, 5)
        half = rotated[:, 2:4] / 2
        xyxy = np.hstack((rotated[:, :2] - half, rotated[:, :2] + half))
    found = Detections(
        xyxy,
        np.array([hypothesis.score for hypothesis in best], np.float32),
        np.array([_class_id(text, class_names) for text in texts], np.int32),
        rotated if rotated[:, 4].any() else None,
    )
    return found, texts


def _class_id(text: str, class_names: list[str]) -> int:
    if text in class_names:
        return class_names.index(text)
    number = class_number(text)
    return -1 if number is None else number


def label_info_msg(spec: ModelSpec, *, stamp: Time, threshold: float) -> LabelInfo:
    """Give the classes of a model, so that subscribers can turn numbers into names and back."""
    classes = [
        VisionClass(class_id=class_id, class_name=spec.class_name(class_id))
        for class_id in range(spec.num_classes)
    ]
    return LabelInfo(header=Header(stamp=stamp), class_map=classes, threshold=threshold)
