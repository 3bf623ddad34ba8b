"""Perceiver: variants in threads of their own, and their answers as numbers."""

import threading
import time

import numpy as np
import pytest
from processes import wait_until

from isaac_infer.core.errors import FrameError, ModelError, SessionError
from isaac_infer.core.pipeline import StageTimes
from isaac_infer.core.results import Detections, Poses, Segmentation, no_detections
from isaac_infer.params import DetectorParams
from isaac_infer.ros import perceiver as perceiving
from isaac_infer.ros.images import image_to_cdr
from isaac_infer.ros.perceiver import FIELDS, Opened, Perceiver, objects_msg
from isaac_infer.ros.perception import Loaded

PICTURE = bytes(image_to_cdr(np.zeros((4, 6, 3), np.uint8), stamp_ns=5 * 10**9, frame_id='camera'))


class ByHand:
    """A pipeline that answers with its name, when it is let."""

    spec = session = None
    times = StageTimes()

    def __init__(self, name):
        self.name, self.go, self.is_closed, self.seen, self.error = name, threading.Event(), False, 0, None
        self.go.set()
        self.session = self
        self.backend = f'backend of {name}'

    def __call__(self, frame):
        self.seen += 1
        assert self.go.wait(10)
        if self.error:
            raise self.error
        return self.name

    def close(self):
        self.is_closed = True


class Scene:
    """A perceiver of several variants, and what it gives."""

    def __init__(self, names=('heavy', 'light'), *, waits_for_all=False, broken=()):
        self.pipelines = {name: ByHand(name) for name in names}
        self.opening = {name: threading.Event() for name in names}
        self.begun, self.given, self.said, self.errors, self.broken = [], [], [], [], broken
        self.perceiver = Perceiver(
            [(name, lambda say, is_cancelled, name=name: self._open(name)) for name in names],
            self._give,
            self.said.append,
            self.errors.append,
            waits_for_all=waits_for_all,
            now_ns=lambda: 6 * 10**9,  # a second after the stamp
        )

    def _give(self, opened, answer):
        assert opened.loaded.pipeline is self.pipelines[answer.found]
        self.given.append(answer.found)

    def _open(self, name):
        self.begun.append(name)
        assert self.opening[name].wait(10)
        if name in self.broken:
            raise ModelError(f'{name} is broken')
        return Opened(None, DetectorParams(), Loaded(self.pipelines[name], {}))

    def open(self, *names):
        for name in names:
            self.opening[name].set()
            variant = next(each for each in self.perceiver.variants if each.name == name)
            assert wait_until(lambda variant=variant: variant.opened or variant.problem)
            variant.is_ready = variant.opened is not None

    def look(self, expected):
        """Offer a picture and wait for its answer."""
        count = len(self.given)
        self.perceiver.offer(PICTURE)
        assert wait_until(lambda: len(self.given) > count)
        assert self.given[-1] == expected

    def close(self):
        for event in self.opening.values():
            event.set()
        for pipeline in self.pipelines.values():
            pipeline.go.set()
        self.perceiver.close(5)


@pytest.fixture
def make():
    scenes = []

    def make_scene(*args, **options):
        scenes.append(Scene(*args, **options))
        return scenes[-1]

    yield make_scene
    for scene in scenes:
        scene.close()


def test_without_a_model_there_is_nothing_to_do(make):
    perceiver = make(()).perceiver
    assert (list(perceiver.ready), perceiver.current, perceiver.is_opening) == ([], None, False)
    assert perceiver.age_s(10.0, 10) is None


def test_the_first_works_while_the_next_is_opened(make):
    scene = make()
    assert wait_until(lambda: scene.begun == ['heavy'])
    scene.perceiver.offer(PICTURE)  # nobody can look at it yet
    scene.open('heavy')
    assert wait_until(lambda: scene.begun == ['heavy', 'light'])
    assert list(scene.perceiver.ready) == [0]
    scene.look('heavy')
    assert scene.said == ['heavy: backend of heavy']


def test_asked_to_it_waits_for_all(make):
    scene = make(waits_for_all=True)
    assert wait_until(lambda: sorted(scene.begun) == ['heavy', 'light'])
    scene.open('heavy')
    assert list(scene.perceiver.ready) == []
    scene.open('light')
    assert list(scene.perceiver.ready) == [0, 1]


def test_one_that_cannot_be_opened_leaves_the_others(make):
    scene = make(broken=('heavy',))
    scene.open('heavy', 'light')
    assert list(scene.perceiver.ready) == [1]
    assert scene.perceiver.variants[0].problem == 'heavy is broken'
    assert scene.errors == ['heavy is broken']
    scene.perceiver.use(1)
    scene.look('light')


def test_a_change_waits_for_nobody_and_late_answers_are_not_given(make):
    scene = make()
    scene.open('heavy', 'light')
    scene.pipelines['heavy'].go.clear()
    scene.perceiver.offer(PICTURE)
    assert wait_until(lambda: scene.pipelines['heavy'].seen == 1)
    assert list(scene.perceiver.choices) == [0, 1]
    scene.perceiver.use(1)
    assert list(scene.perceiver.choices) == [1]  # as long as the other one is held up
    scene.look('light')
    scene.pipelines['heavy'].go.set()
    time.sleep(0.1)
    assert list(scene.perceiver.choices) == [0, 1]
    assert scene.given == ['light']
    report = scene.perceiver.health.report()
    assert (report.total.received, report.total.answered, report.total.dropped['busy']) == (2, 1, 1)


def test_a_picture_that_is_being_looked_at_is_answered_in_order_while_all_is_closed(make):
    scene = make()
    scene.open('heavy', 'light')
    scene.pipelines['heavy'].go.clear()
    scene.perceiver.offer(PICTURE)
    assert wait_until(lambda: scene.pipelines['heavy'].seen == 1)
    closing = threading.Thread(target=scene.perceiver.close, args=(10,))
    closing.start()
    assert wait_until(lambda: scene.perceiver.variants[0].opened is None)
    scene.pipelines['heavy'].go.set()
    closing.join(10)
    assert (scene.given, scene.errors) == (['heavy'], [])
    assert scene.pipelines['heavy'].is_closed


def test_the_times_of_a_variant_begin_anew_when_it_is_used(make):
    scene = make()
    scene.open('heavy', 'light')
    for _ in range(3):
        scene.look('heavy')
    assert wait_until(lambda: scene.perceiver.readings((3.0, 4.0)).answers == 3)
    readings = scene.perceiver.readings((3.0, 4.0), celsius=50.0, load_level='reduced')
    assert (readings.rate_hz, readings.input_rate_hz) == (3.0, 4.0)
    assert (readings.celsius, readings.load_level) == (50.0, 'reduced')
    assert readings.mean_ms > 0
    assert scene.perceiver.health.report().percentiles_ms['age'] == (1000.0, 1000.0, 1000.0)
    scene.perceiver.use(1)
    readings = scene.perceiver.readings((3.0, 4.0))
    assert (readings.answers, readings.mean_ms) == (0, 0.0)


def test_the_time_of_a_picture_counts_while_it_is_looked_at_as_it_may_never_come_to_its_end(make):
    scene = make()
    scene.open('heavy', 'light')
    for _ in range(3):
        scene.look('heavy')
    scene.pipelines['heavy'].go.clear()
    scene.perceiver.offer(PICTURE)
    assert wait_until(lambda: scene.perceiver.readings((0.0, 4.0)).mean_ms > 50)
    assert scene.perceiver.readings((0.0, 4.0)).answers == 3
    scene.pipelines['heavy'].go.set()
    assert wait_until(lambda: scene.perceiver.readings((0.0, 4.0)).answers == 4)
    assert wait_until(lambda: scene.perceiver.variants[0].begun_s is None)
    assert scene.perceiver.readings((0.0, 4.0)).mean_ms > 50  # it is one of the answers now


@pytest.mark.parametrize(
    ('error', 'cause'), [(SessionError('it failed'), 'failed'), (FrameError('it is none'), 'bad_image')]
)
def test_a_picture_that_fails_is_counted_and_the_next_one_is_answered(make, error, cause):
    scene = make()
    scene.open('heavy')
    scene.pipelines['heavy'].error = error
    scene.perceiver.offer(PICTURE)
    assert wait_until(lambda: scene.errors == [str(error)])
    scene.pipelines['heavy'].error = None
    scene.look('heavy')
    assert wait_until(lambda: scene.perceiver.health.report().total.answered == 1)
    assert scene.perceiver.health.report().total.dropped[cause] == 1


def test_its_age_is_that_of_the_picture_by_its_stamp_or_its_arrival(make):
    scene = make()
    scene.open('heavy')
    scene.look('heavy')
    assert wait_until(lambda: scene.perceiver.age_s(0.0, 0) is not None)
    now_s = time.monotonic()
    assert scene.perceiver.age_s(now_s, 8 * 10**9) == pytest.approx(3.0)
    assert scene.perceiver.age_s(now_s + 4, 5 * 10**9) == pytest.approx(4.0, abs=1.0)
    assert scene.perceiver.age_s(now_s, 3 * 10**9) == pytest.approx(-2.0)
    assert scene.perceiver.age_s(now_s + 4, round(4.95e9)) == pytest.approx(4.0, abs=1.0)


def test_what_a_model_took_counts_although_the_clock_of_the_stamps_stands_still(make):
    scene = make()
    scene.open('heavy')
    scene.pipelines['heavy'].go.clear()
    offered_s = time.monotonic()
    scene.perceiver.offer(PICTURE)
    time.sleep(0.3)
    scene.pipelines['heavy'].go.set()
    assert wait_until(lambda: scene.perceiver.age_s(0.0, 0) is not None)
    now_s = time.monotonic()
    assert scene.perceiver.age_s(now_s, 5 * 10**9) == pytest.approx(now_s - offered_s, abs=0.25)


def test_a_variant_that_only_fails_is_no_choice_for_a_while_and_counts_as_held_up(make, monkeypatch):
    scene = make()
    scene.open('heavy', 'light')
    perceiver = scene.perceiver
    perceiver.use(1)
    scene.pipelines['light'].error = SessionError('broken')
    for count in (1, 2):
        perceiver.offer(PICTURE)
        assert wait_until(lambda: len(scene.errors) == count)  # noqa: B023
        time.sleep(0.1)
    perceiver.offer(PICTURE)
    assert wait_until(lambda: len(scene.errors) == 3)
    assert perceiver.readings((0.0, 0.0)).held_up_s >= 0.2
    assert list(perceiver.choices) == [0, 1]  # the one in use always is
    perceiver.use(0)
    assert list(perceiver.choices) == [0]
    monkeypatch.setattr(perceiving, 'RETRY_S', 0.3)
    monkeypatch.setattr(perceiving, 'RETRY', 0.0)
    assert wait_until(lambda: list(perceiver.choices) == [0, 1])
    for _ in range(3):  # later each time: 0.3, 0.6, 1.2, 2.4 s
        perceiver.use(1)
        count = len(scene.errors)
        perceiver.offer(PICTURE)
        assert wait_until(lambda: len(scene.errors) > count)  # noqa: B023
        perceiver.use(0)
    time.sleep(1.3)
    assert list(perceiver.choices) == [0]
    assert wait_until(lambda: list(perceiver.choices) == [0, 1])
    scene.pipelines['light'].error = None
    perceiver.use(1)
    scene.look('light')
    assert perceiver.readings((0.0, 0.0)).held_up_s == 0


def test_pictures_that_cannot_be_read_are_no_time_in_which_a_model_fails(make):
    scene = make()
    scene.open('heavy')
    perceiver = scene.perceiver
    for error in (SessionError('broken'), FrameError('image: no picture'), SessionError('broken')):
        scene.pipelines['heavy'].error = error
        count = len(scene.errors)
        perceiver.offer(PICTURE)
        assert wait_until(lambda: len(scene.errors) > count)  # noqa: B023
        if isinstance(error, SessionError) and count == 0:
            time.sleep(0.5)
    assert perceiver.readings((0.0, 0.0)).held_up_s < 0.4


def test_all_are_closed_and_one_that_is_busy_is_told():
    scene = Scene()
    scene.open('heavy', 'light')
    scene.pipelines['heavy'].go.clear()
    scene.perceiver.offer(PICTURE)
    assert wait_until(lambda: scene.pipelines['heavy'].seen == 1)
    with pytest.raises(TimeoutError):
        scene.perceiver.close(0.05)
    scene.close()
    assert all(pipeline.is_closed for pipeline in scene.pipelines.values())


DETECTIONS = Detections(
    np.array([[10, 20, 30, 60], [0, 0, 5, 5]], np.float32),
    np.array([0.9, 0.5], np.float32),
    np.array([3, 1], np.int32),
)


@pytest.mark.parametrize(
    ('found', 'rows'),
    [
        (no_detections(), []),
        (DETECTIONS, [[20, 40, 20, 40, 0.9, 3], [2.5, 2.5, 5, 5, 0.5, 1]]),
        (Segmentation(DETECTIONS[:1], (np.ones((2, 2), bool),)), [[20, 40, 20, 40, 0.9, 3]]),
        (
            Poses(DETECTIONS[:1], np.zeros((1, 4, 2), np.float32), np.zeros((1, 4), np.float32)),
            [[20, 40, 20, 40, 0.9, 3]],
        ),
    ],
)
def test_objects_are_rows_of_numbers_whatever_the_task(found, rows):
    message = objects_msg(found)
    assert [(each.label, each.size, each.stride) for each in message.layout.dim] == [
        ('object', len(rows), 6 * len(rows)),
        (FIELDS, 6, 6),
    ]
    np.testing.assert_allclose(np.reshape(message.data, (-1, 6)), np.reshape(rows, (-1, 6)), rtol=1e-6)
