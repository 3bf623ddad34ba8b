"""Crops around persons, and a pose network that looks at each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.errors import ModelError, SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.results import Detections, Poses, no_detections
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.core.topdown import TopDown, TopDownPipeline, crop_matrices, crops_to_source, usable

SIZE_HW = (64, 48)
SPEC = ModelSpec(
    task='pose',
    decoder='simcc',
    image=ImageSpec('input', SIZE_HW, resize='letterbox'),
    outputs=('simcc_x', 'simcc_y'),
    class_names=(),
    num_classes=0,
    keypoints=('dot', 'same dot'),
    keypoint_values=3,
)


class DotSession:
    """A network that finds the brightest pixel of each picture of its batch."""

    def __init__(
        self, batch: int = -1, answers: int | None = None, size_hw: tuple[int, int] = SIZE_HW
    ) -> None:
        self.inputs = (TensorSpec('input', (batch, 3, *size_hw), np.dtype(np.float32)),)
        self.outputs = ()
        self.metadata: Mapping[str, str] = {}
        self.backend, self.fallbacks = 'fake', ()
        self.buffers: dict[tuple[int, ...], np.ndarray] = {}
        self.runs: list[int] = []
        self.answers = answers

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        assert name == 'input'
        self.last = self.buffers.setdefault(shape, np.zeros(shape, np.float32))
        return self.last

    def run(self) -> Mapping[str, np.ndarray]:
        self.runs.append(len(self.last))
        pictures = self.last[: self.answers]
        along_x = np.repeat(pictures.mean(axis=1).max(axis=1), 2, axis=1)
        along_y = np.repeat(pictures.mean(axis=1).max(axis=2), 2, axis=1)
        return {name: np.stack((rows, rows), axis=1) for name, rows in
                (('simcc_x', along_x), ('simcc_y', along_y))}  # fmt: skip

    def close(self) -> None: ...

    def __enter__(self) -> DotSession:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...


def persons(*boxes: tuple[float, float, float, float]) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(count, 0.9, np.float32), np.zeros(count, np.int32)
    )


BOXES = ((20, 30, 80, 150), (150, 40, 260, 90), (10, 160, 40, 239), (200, 120, 300, 230), (90, 100, 140, 220))
DOTS = np.array([(45, 60), (170, 70), (30, 200), (280, 140), (100, 120)])


def dotted() -> Frame:
    image = np.zeros((240, 320, 3), np.uint8)
    for x, y in DOTS:
        cv2.circle(image, (int(x), int(y)), 4, (255, 255, 255), cv2.FILLED)
    return Frame(cv2.GaussianBlur(image, (0, 0), 2))


def make(session: DotSession, found: Detections, **options: int) -> Callable[[Frame], Poses]:
    top_down = TopDown(session, SPEC, **options)
    return lambda frame: top_down(frame, found)


def test_nobody_there_runs_nothing():
    session = DotSession()
    found = make(session, no_detections())(dotted())
    assert len(found) == 0 and found.xy.shape == (0, 2, 2) and session.runs == []


@pytest.mark.parametrize(
    ('batch', 'max_batch', 'runs'),
    [(-1, 8, [5]), (-1, 2, [2, 2, 1]), (1, 8, [1, 1, 1, 1, 1]), (3, 8, [3, 3])],
    ids=['all at once', 'in batches', 'one by one', 'a fixed batch'],
)
def test_key_points_are_found_in_the_crop_of_their_person(batch, max_batch, runs):
    session = DotSession(batch)
    boxes = persons(*BOXES)
    found = make(session, boxes, max_batch=max_batch)(dotted())
    assert session.runs == runs
    np.testing.assert_array_equal(found.persons.xyxy, boxes.xyxy)
    np.testing.assert_allclose(found.xy, np.repeat(DOTS[:, None], 2, axis=1), atol=3.5)
    assert (found.score > 0.5).all()


def test_the_surest_persons_that_lie_in_the_picture_are_looked_at():
    nan, huge = (float('nan'), 0, 1, 1), (0, 0, 1e30, 1e30)
    boxes = persons(*BOXES, nan, (5, 5, 5, 90), (9, 9, 5, 5), (900, 900, 990, 990), huge)
    score = np.array([0.5, 0.9, 0.45, 0.99, 0.2, 1, 1, 1, 1, 7], np.float32)
    found = usable(
        Detections(boxes.xyxy, score, np.full(10, 3, np.int32)), (240, 320), Limits(max_detections=3)
    )
    assert found.score.tolist() == pytest.approx([1, 0.99, 0.9])
    assert found.xyxy.tolist() == [[0, 0, 320, 240], list(BOXES[3]), list(BOXES[1])]
    assert found.class_id.tolist() == [0, 0, 0]
    nobody = usable(boxes, (240, 320), Limits(class_ids=frozenset({1})))
    assert len(nobody) == 0


@pytest.mark.parametrize('box', [(0, 0, 64, 64), (10, 5, 50, 45), (17.5, 9.25, 44.5, 36.25)])
def test_a_point_is_found_where_its_pixel_is_whatever_the_crop(box):
    image = np.zeros((64, 64, 3), np.uint8)
    image[20, 30] = 255

    spec = replace(SPEC, image=ImageSpec('input', (256, 256)))
    found = TopDown(DotSession(size_hw=(256, 256)), spec, padding=1.0)(Frame(image), persons(box))
    # Of the pixels of the crop that are brightest, the first is found.
    np.testing.assert_allclose(found.xy[0, 0], (30.5, 20.5), atol=0.5 * (box[2] - box[0]) / 256 + 0.02)


class KnownPersons:
    """A detector that knows what it will find."""

    def __init__(self, found: Detections) -> None:
        self.found, self.is_closed, self.fallbacks = found, False, ('slow',)

    def begin(self, frame: Frame) -> None: ...

    def end(self) -> Detections:
        return self.found

    def close(self) -> None:
        self.is_closed = True


def test_persons_of_one_network_get_key_points_of_another():
    known, session = KnownPersons(persons(*BOXES)), DotSession()
    pipeline = TopDownPipeline(known, Pipeline(session, SPEC, Limits(max_detections=3)))
    assert pipeline.spec.class_names == ('person',)
    found = pipeline(dotted())
    np.testing.assert_allclose(found.xy, np.repeat(DOTS[:3, None], 2, axis=1), atol=3.5)
    assert list(pipeline.times.by_stage()) == ['persons', 'prepare', 'run', 'decode']
    assert all(took_ms > 0 for took_ms in pipeline.times.by_stage().values())
    assert pipeline.fallbacks == ('persons: slow',)
    pipeline.close()
    assert known.is_closed


def test_a_box_at_the_border_is_cropped_with_black_beyond():
    found = make(DotSession(), persons((0, 0, 60, 90)))(dotted())
    np.testing.assert_allclose(found.xy[0, 0], DOTS[0], atol=3.5)


@pytest.mark.parametrize('size_hw', [(60, 40_000), (40_000, 60)])
def test_persons_are_found_in_pictures_longer_than_opencv_takes(size_hw):
    image, at = np.zeros((*size_hw, 3), np.uint8), np.array((39_000, 30))[:: 1 if size_hw[0] == 60 else -1]
    image[at[1], at[0]] = 255
    small, whole = (*at - 25, *at + 25), (0, 0, *size_hw[::-1])
    found = make(DotSession(), persons(small, whole))(Frame(image))
    np.testing.assert_allclose(found.xy[0, 0], at + 0.5, atol=1.5)
    assert len(found) == 2


def test_fewer_answers_than_crops_are_an_error():
    with pytest.raises(SessionError, match='expected answers for 5 crops, got 1'):
        make(DotSession(answers=1), persons(*BOXES))(dotted())


def test_a_decoder_for_whole_pictures_is_refused():
    with pytest.raises(ModelError, match='leave the person detector out'):
        TopDown(DotSession(), replace(SPEC, decoder='ultralytics_pose'))


def test_a_crop_is_the_box_widened_by_a_quarter_to_the_aspect_ratio_of_the_network():
    # By hand, as mmpose reckons: 60x120 times 1.25 is 75x150; at 3:4 that is 112.5x150.
    (matrix,) = crop_matrices(np.array([[20.0, 30.0, 80.0, 150.0]]), SIZE_HW)
    scale = 48 / 112.5
    np.testing.assert_allclose(matrix, [[scale, 0, 24 - 50 * scale], [0, scale, 32 - 90 * scale]])


_SIDE = st.floats(1, 500)


@given(st.floats(-100, 500), st.floats(-100, 500), _SIDE, _SIDE)
def test_points_of_a_crop_come_back_to_where_they_were(left, top, width, height):
    box = np.array([[left, top, left + width, top + height]])
    matrices = crop_matrices(box, SIZE_HW)
    points = box.reshape(1, 2, 2)
    inside = points @ matrices[0, :, :2].T + matrices[0, :, 2]
    assert (inside > -0.01).all() and (inside < np.array(SIZE_HW[::-1]) + 0.01).all()
    np.testing.assert_allclose(crops_to_source(inside, matrices), points, atol=1e-2)
