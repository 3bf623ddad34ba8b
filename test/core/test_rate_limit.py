import numpy as np
import pytest

from isaac_infer.core.rate_limit import RateLimit


def taken_of(times_s: np.ndarray, rate_hz: float) -> list[int]:
    limit = RateLimit()
    return [number for number, at_s in enumerate(times_s.tolist()) if limit.is_due(at_s, rate_hz)]


def test_every_third_of_thirty_is_ten_per_second_although_they_jitter() -> None:
    jitter = np.random.default_rng(1).uniform(-0.003, 0.003, 300)
    taken = taken_of(5 + np.arange(300) / 30 + jitter, 10.0)
    assert taken == list(range(0, 300, 3))


@pytest.mark.parametrize('rate_hz', [0.5, 2.0, 7.0, 12.0, 20.0, 29.0])
def test_no_more_come_through_than_may_and_hardly_fewer(rate_hz: float) -> None:
    jitter = np.random.default_rng(2).uniform(-0.01, 0.01, 1800)
    taken = taken_of(np.arange(1800) / 30 + jitter, rate_hz)
    assert 0.95 * 60 * rate_hz - 1 <= len(taken) <= 60 * rate_hz + 1


def test_what_comes_more_slowly_comes_through_whole() -> None:
    assert len(taken_of(np.arange(50) / 5, 10.0)) == 50


def test_a_pause_is_not_made_up_for() -> None:
    limit = RateLimit()
    assert limit.is_due(0.0, 10.0)
    times = 100 + np.arange(30) / 30
    assert sum(limit.is_due(at_s, 10.0) for at_s in times.tolist()) == 10


def test_a_higher_rate_takes_effect_at_once() -> None:
    limit = RateLimit()
    assert limit.is_due(0.0, 0.1)  # the next one in 10 s
    assert not limit.is_due(1.0, 0.1)
    assert limit.is_due(1.1, 20.0)
