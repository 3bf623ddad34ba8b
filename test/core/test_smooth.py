"""Key points tremble less, and follow what moves."""

import numpy as np
import pytest

from isaac_infer.core.decode.pose import no_poses
from isaac_infer.core.results import Detections, Poses
from isaac_infer.core.smooth import Smoother, Smoothing
from isaac_infer.core.spec import ImageSpec, ModelSpec

FRAME_NS = 33_333_333
THRESHOLD = 0.3
SMOOTHING = Smoothing()


def one_person(xy, score=0.9):
    xy = np.array(xy, np.float32).reshape(1, -1, 2)
    persons = Detections(
        np.array([[0, 0, 100, 200]], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int32)
    )
    return Poses(persons, xy, np.full(xy.shape[:2], score, np.float32))


def run(stream, smoothing=SMOOTHING):
    smoother = Smoother()
    return [smoother(poses, at * FRAME_NS, smoothing, threshold=THRESHOLD) for at, poses in enumerate(stream)]


def test_nobody_stays_nobody():
    spec = ModelSpec('pose', '', ImageSpec('', (8, 8)), (), (), 1, keypoints=('a', 'b'))
    (found,) = run([no_poses(spec)])
    assert len(found) == 0 and found.ids.tolist() == []


def test_the_first_picture_is_as_it_was_found():
    (found,) = run([one_person([(10, 20)])])
    assert found.xy.tolist() == [[[10, 20]]] and found.ids.tolist() == [1]


def test_what_trembles_is_calmer():
    noise = np.random.default_rng(0).normal(0, 2, (200, 2))
    found = run([one_person([(50, 80) + shake]) for shake in noise])
    still = np.array([poses.xy[0, 0] for poses in found[20:]])
    assert (still.std(axis=0) < 0.5 * noise[20:].std(axis=0)).all()
    assert np.abs(still.mean(axis=0) - (50, 80)).max() < 1


def test_what_moves_fast_is_followed_more_closely_with_a_higher_beta():
    stream = [one_person([(10 * at, 80)]) for at in range(30)]
    lags = [10 * 29 - run(stream, Smoothing(beta=beta))[-1].xy[0, 0, 0] for beta in (0.0, 1.0, 10.0)]
    assert lags[0] > lags[1] > lags[2] >= 0


def test_a_point_that_was_not_found_begins_anew():
    stream = [one_person([(10, 10)]), one_person([(90, 90)], score=0.1), one_person([(60, 60)])]
    found = run(stream)
    assert found[1].xy[0, 0].tolist() == [90, 90]  # as it came: nobody draws it
    assert found[2].xy[0, 0].tolist() == [60, 60]


def test_equal_stamps_and_time_that_goes_back_do_no_harm():
    smoother = Smoother()
    for stamp_ns in (FRAME_NS, FRAME_NS, 0):
        found = smoother(one_person([(10, 20)]), stamp_ns, SMOOTHING, threshold=THRESHOLD)
        assert found.xy[0, 0] == pytest.approx((10, 20))


def test_smoothing_that_is_switched_on_begins_anew_and_persons_keep_their_numbers():
    smoother = Smoother()
    smoother(one_person([(10, 10)]), 0, SMOOTHING, threshold=THRESHOLD)
    plain = smoother.number(one_person([(30, 30)]), FRAME_NS, SMOOTHING)
    first, second = (
        smoother(one_person([xy]), at * FRAME_NS, SMOOTHING, threshold=THRESHOLD)
        for at, xy in ((2, (60, 60)), (3, (70, 70)))
    )
    assert plain.xy.tolist() == [[[30, 30]]] and first.xy.tolist() == [[[60, 60]]]
    assert 60 < second.xy[0, 0, 0] < 70
    assert plain.ids.tolist() == first.ids.tolist() == second.ids.tolist() == [1]
