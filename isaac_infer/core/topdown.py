"""TopDown: somebody finds the persons, a second network the key points of each, in a crop of its own."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter_ns
from typing import Protocol

import cv2
import numpy as np

from isaac_infer.core.boxes import clip_boxes
from isaac_infer.core.decode.pose import DECODERS, PIXEL_CENTRE, no_poses, tensors_of
from isaac_infer.core.decode.pose_families import ONE_PERSON
from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.core.fit import Size
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline, StageTimes
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.results import Detections, Poses
from isaac_infer.core.session import Session, close_all
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.core.text import counted

LONGEST = 32766  # pixels along a side that OpenCV warps
PADDING = 1.25  # of a box, before it is cropped: what mmpose trains with


def crop_matrices(xyxy: np.ndarray, size_hw: Size, *, padding: float = PADDING) -> np.ndarray:
    """The maps from source pixels to the pixels of a crop around each box: (N, 2, 3) float64, as mmpose's.

    Both are counted from the corner of the first pixel, whose centre is at 0.5, 0.5.

    The centre of a box becomes that of the crop; its width and height, times the padding, are widened to
    the aspect ratio of the crop (`bbox_xyxy2cs`, `TopdownAffine._fix_aspect_ratio` and `get_warp_matrix` of
    mmpose 1.x, without rotation).

    Args:
        xyxy: (N, 4) boxes, source pixels, with width and height above 0.
        size_hw: of the crop.
        padding: how much larger than its box a crop is.
    """
    height, width = size_hw
    boxes = xyxy.astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    size = (boxes[:, 2:] - boxes[:, :2]) * padding
    scale = width / np.maximum(size[:, 0], size[:, 1] * width / height)  # crop pixels per source pixel
    matrices = np.zeros((len(boxes), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, :, 2] = np.array((width, height)) * 0.5 - centre * scale[:, None]
    return matrices


def crops_to_source(points_xy: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Map (N, K, 2) points from the pixels of each crop to source pixels: (N, K, 2) float32."""
    scale = matrices[:, None, [0, 1], [0, 1]]
    return np.asarray((points_xy - matrices[:, None, :, 2]) / scale, np.float32)


class Cropper:
    """Warp and normalise crops into a batch; keeps its scratch picture."""

    def __init__(self, spec: ImageSpec) -> None:
        self._preparer = Preparer(spec)
        self._wh = spec.size_hw[::-1]
        self._crop = np.empty((*spec.size_hw, 3), np.uint8)

    def __call__(self, frame: Frame, matrices: np.ndarray, into: np.ndarray) -> None:
        """Write a crop per matrix (N, 2, 3) into a buffer of N pictures; black beyond the source."""
        centred = matrices.copy()  # OpenCV counts from the centre of the first pixel
        centred[:, :, 2] += PIXEL_CENTRE * (matrices[:, [0, 1], [0, 1]] - 1)
        for at, matrix in enumerate(centred):
            image, matrix = _part(frame.image, matrix, self._wh)
            cv2.warpAffine(image, matrix, self._wh, dst=self._crop, flags=cv2.INTER_LINEAR)
            self._preparer(Frame(self._crop, frame.channel_order), into=into[at : at + 1])


def _part(image: np.ndarray, matrix: np.ndarray, wh: Size) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture that a crop shows, and its matrix: OpenCV takes no picture that is very long."""
    if max(image.shape[:2]) <= LONGEST:
        return image, matrix
    scale, shift = matrix[[0, 1], [0, 1]], matrix[:, 2]
    low = np.floor(-shift / scale).astype(int) - 1
    high = np.ceil((wh - shift) / scale).astype(int) + 2
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, image.shape[1::-1])
    step = -(-max(bottom - top, right - left, 1) // LONGEST)  # such a crop leaves out far more than that
    part = image[top : max(bottom, top + 1) : step, left : max(right, left + 1) : step]
    return np.ascontiguousarray(part), np.column_stack((matrix[:, :2] * step, shift + scale * (left, top)))


class TopDown:
    """A session that finds the key points of persons, in a batch of crops. It is not closed here."""

    def __init__(
        self,
        session: Session,
        spec: ModelSpec,
        *,
        max_batch: int = 8,
        padding: float = PADDING,
    ) -> None:
        """See that the network can do it.

        Args:
            session: of the pose network.
            spec: of the pose network, its decoder one for one person per picture.
            max_batch: crops in one run, where the network leaves that open.
            padding: how much larger than its box a crop is.

        Raises:
            ModelError: the decoder is for whole pictures.
        """
        points = DECODERS[spec.decoder].points
        if points is None:
            able = [name for name, decoder in DECODERS.items() if decoder.points]
            raise ModelError(
                f'decoder {spec.decoder}: finds persons by itself, expected one that is given the picture of '
                f'one person: {", ".join(able)}; leave the person detector out'
            )
        self._points = points
        self.session, self.spec = session, spec
        self.padding = padding
        image = next((one for one in session.inputs if one.name == spec.image.name), None)
        if image is None:
            raise TensorError(f'{spec.image.name}: expected among the inputs, got {list(session.inputs)}')
        self.batch = max(max_batch, 1) if image.shape[0] < 0 else image.shape[0]
        self._is_fixed = image.shape[0] > 0
        self._crop = Cropper(spec.image)
        self.times = StageTimes()  # of the last frame

    def __call__(self, frame: Frame, persons: Detections) -> Poses:
        """Find the key points of persons, whose boxes are not empty; in a run for every batch.

        Raises:
            SessionError: the network failed, or answered with something that is not finite.
            TensorError: the outputs do not have the shape that the decoder asks for.
        """
        begun_ns = perf_counter_ns()
        self.times = StageTimes()
        if not len(persons):
            return no_poses(self.spec)
        matrices = crop_matrices(persons.xyxy, self.spec.image.size_hw, padding=self.padding)
        found = [
            self._run(frame, matrices[first : first + self.batch])
            for first in range(0, len(matrices), self.batch)
        ]
        xy, score = (np.concatenate(arrays) for arrays in zip(*found))
        poses = Poses(persons, crops_to_source(xy + PIXEL_CENTRE, matrices), score)
        others_ms = self.times.prepare_ms + self.times.run_ms
        self.times = replace(self.times, decode_ms=(perf_counter_ns() - begun_ns) / 1e6 - others_ms)
        return poses

    def _run(self, frame: Frame, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points in the pixels of each crop, and their scores."""
        size = self.batch if self._is_fixed else len(matrices)
        begun_ns = perf_counter_ns()
        buffer = self.session.input_buffer(self.spec.image.name, (size, *self.spec.image.shape[1:]))
        self._crop(frame, matrices, buffer)
        buffer[len(matrices) :] = 0  # what nobody asks about must be finite, too
        prepared_ns = perf_counter_ns()
        outputs = self.session.run()
        self.times = StageTimes(
            self.times.prepare_ms + (prepared_ns - begun_ns) / 1e6,
            self.times.run_ms + (perf_counter_ns() - prepared_ns) / 1e6,
        )
        xy, score = self._points(tensors_of(outputs, self.spec), self.spec)
        if len(xy) != size:
            raise SessionError(
                f'{", ".join(self.spec.outputs)}: expected answers for {counted(size, "crop")}, '
                f'got {len(xy)}; export the model with a dynamic batch, or with batch size 1'
            )
        return xy[: len(matrices)], score[: len(matrices)]


def usable(persons: Detections, size_hw: Size, limits: Limits) -> Detections:
    """The persons that can be looked at and count, best-scored first, within the picture, all of class 0."""
    is_finite = np.isfinite(persons.xyxy).all(axis=1) & np.isfinite(persons.score)
    persons = persons[is_finite]
    xyxy = clip_boxes(persons.xyxy, size_hw)
    score = np.clip(persons.score, 0, 1)
    counts = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & (score >= limits.confidence_threshold)
    if limits.class_ids and 0 not in limits.class_ids:
        counts[:] = False
    rows = np.flatnonzero(counts)
    rows = rows[np.argsort(-score[rows], kind='stable')][: limits.max_detections]
    return Detections(xyxy[rows], score[rows], np.zeros(len(rows), np.int32))


class Persons(Protocol):
    """Whoever finds the persons of a picture, such as a Pipeline with a detector."""

    def begin(self, frame: Frame) -> None: ...

    def end(self) -> Detections: ...

    @property
    def fallbacks(self) -> tuple[str, ...]: ...

    def close(self) -> None: ...


class TopDownPipeline:
    """Persons of one, key points of another network, used like the Pipeline of one network."""

    twins: tuple[Pipeline, ...] = ()  # crops wait for the persons: nothing can be begun beforehand

    def __init__(
        self, persons: Persons, pose: Pipeline, *, max_batch: int = 8, padding: float = PADDING
    ) -> None:
        """Put the two together; both are closed with it.

        Raises:
            ModelError: the pose network finds persons by itself.
        """
        self._persons, self._pose = persons, pose
        self._top_down = TopDown(pose.session, pose.spec, max_batch=max_batch, padding=padding)
        # Whatever the detector calls them, what is found here is one class: that of the pose network.
        names = pose.spec.class_names or ('person',)
        notes = tuple(note for note in pose.spec.notes if note != ONE_PERSON)  # its pictures are such crops
        self.spec = replace(pose.spec, class_names=names, num_classes=len(names), notes=notes)
        self.session, self.limits = pose.session, pose.limits
        self.times = StageTimes()
        self._frame: Frame
        self._begun_ns = 0

    def __call__(self, frame: Frame) -> Poses:
        """Find the persons in a frame and their key points; see `TopDown`."""
        self.begin(frame)
        return self.end()

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What was asked for and is not in use, of both networks."""
        return (*self._pose.fallbacks, *(f'persons: {text}' for text in self._persons.fallbacks))

    def begin(self, frame: Frame) -> None:
        """Begin to look for persons."""
        self._frame, self._begun_ns = frame, perf_counter_ns()
        self._persons.begin(frame)

    def end(self) -> Poses:
        """Give the persons of the frame that was begun, and their key points."""
        persons = usable(self._persons.end(), self._frame.size_hw, self.limits)
        persons_ms = (perf_counter_ns() - self._begun_ns) / 1e6
        found = self._top_down(self._frame, persons)
        self.times = replace(self._top_down.times, persons_ms=persons_ms)
        return found

    def close(self) -> None:
        """Close both; safe to call twice."""
        close_all([self._persons.close, self._pose.close])
