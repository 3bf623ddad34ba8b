"""Persons: those that another node has found in the same pictures."""

from __future__ import annotations

import numpy as np
from vision_msgs.msg import Detection2DArray

from isaac_infer.core.errors import FrameError, SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Detections, no_detections
from isaac_infer.core.text import printable
from isaac_infer.params import PoseNodeParams
from isaac_infer.ros.images import stamp_ns_of
from isaac_infer.ros.messages import detections_from_msg

MOST_TOLD = 10  # classes in a message
LONGEST_NAME = 60  # characters of them, which anybody may have sent


class PersonsOfTopic:
    """The persons that somebody else has found in a picture: the partner of that picture, see `Partner`."""

    message = Detection2DArray

    def __init__(self, params: PoseNodeParams) -> None:
        self.topic, self.timeout_s = params.persons_topic, params.persons_timeout_ms / 1e3
        self._classes, self._threshold = frozenset(params.person_classes), params.person_threshold
        self._newest_ns: int | None = None
        self._has_matched, self._others = False, set[str]()
        self._given = no_detections()

    def read(self, message: Detection2DArray) -> tuple[int, Detections]:
        """Give the stamp of a message, and the persons among what was found."""
        try:
            self._newest_ns = stamp_ns_of(message.header)
        except FrameError as error:
            raise FrameError(f'{self.topic}: {str(error).removeprefix("image: ")}') from error
        found, classes = detections_from_msg(message, [])
        untold = classes[: MOST_TOLD - len(self._others)]
        self._others.update(printable(text[:LONGEST_NAME]) for text in untold)
        self._has_matched |= not self._classes.isdisjoint(classes)
        is_person = np.array([text in self._classes for text in classes], bool)
        return self._newest_ns, found[is_person & (found.score >= self._threshold)]

    def missing(self, stamp_ns: int) -> SessionError:
        """Say that nothing came for a picture in time."""
        came = 'nothing came there at all'
        if self._newest_ns is not None:
            apart_s = (self._newest_ns - stamp_ns) / 1e9
            came = f'the newest there is {abs(apart_s):.3f} s {"younger" if apart_s > 0 else "older"}'
        return SessionError(
            f'{self.topic}: expected detections with the stamp of the picture within '
            f'{self.timeout_s * 1e3:g} ms, but {came}; have them made of the same pictures, or raise '
            'persons_timeout_ms'
        )

    def give(self, found: Detections) -> None:
        """Take the persons of the picture that is begun next."""
        self._given = found

    def begin(self, frame: Frame) -> None:
        """Nothing to look for: they were given."""

    def end(self) -> Detections:
        """Give the persons of the picture."""
        return self._given

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """That nobody there is a person, as far as is known; whoever finds them tells its own."""
        if self._has_matched or not self._others:
            return ()
        there, wanted = (', '.join(sorted(names)) for names in (self._others, self._classes))
        return (f'{self.topic} has objects of {there} only, and none of person_classes, {wanted}',)

    def close(self) -> None:
        """Nothing to release."""
