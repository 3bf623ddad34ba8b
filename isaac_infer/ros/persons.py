"""Persons: those that another node has found in the same pictures."""

from __future__ import annotations

import numpy as np
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.errors import SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections
from isaac_infer.params import PoseNodeParams
from isaac_infer.ros.images import stamp_ns_of
from isaac_infer.ros.messages import detections_from_msg
from isaac_infer.ros.recent import Recent

MOST_TOLD = 10  # classes in a message
KEPT = 30  # messages, among which that of a picture is looked for


class PersonsOfTopic:
    """The persons that somebody else has found in a picture, by its stamp."""

    def __init__(self, params: PoseNodeParams) -> None:
        self._topic, self._timeout_s = params.persons_topic, params.persons_timeout_ms / 1e3
        self._classes, self._threshold = frozenset(params.person_classes), params.person_threshold
        self._recent: Recent[Detections] = Recent(KEPT)
        self._stamp_ns = 0
        self._newest_ns: int | None = None
        self._has_matched, self._others = False, set[str]()

    def take(self, message: Detection2DArray) -> None:
        """Keep a message."""
        found, classes = detections_from_msg(message, [])
        self._others.update(classes[: MOST_TOLD - len(self._others)])
        self._has_matched |= not self._classes.isdisjoint(classes)
        is_person = np.array([text in self._classes for text in classes], bool)
        self._newest_ns = stamp_ns_of(message.header)
        self._recent.add(self._newest_ns, found[is_person & (found.score >= self._threshold)])

    def begin(self, frame: Frame) -> None:
        self._stamp_ns = frame.stamp_ns

    def end(self) -> Detections:
        """Give the persons of the picture.

        Raises:
            SessionError: they do not come.
        """
        found = self._recent.take(self._stamp_ns, self._timeout_s)
        if found is None:
            newest_ns = self._newest_ns
            came = 'nothing came there at all'
            if newest_ns is not None:
                apart_s = (newest_ns - self._stamp_ns) / 1e9
                came = f'the newest there is {abs(apart_s):.3f} s {"younger" if apart_s > 0 else "older"}'
            raise SessionError(
                f'{self._topic}: expected detections with the stamp of the picture within '
                f'{self._timeout_s * 1e3:g} ms, but {came}; have them made of the same pictures, or raise '
                'persons_timeout_ms'
            )
        return found

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """That nobody there is a person, as far as is known; whoever finds them tells its own."""
        if self._has_matched or not self._others:
            return ()
        there, wanted = (', '.join(sorted(names)) for names in (self._others, self._classes))
        return (f'{self._topic} has objects of {there} only, and none of person_classes, {wanted}',)

    def close(self) -> None:
        """Nothing to release."""
