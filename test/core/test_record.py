"""Record: answers and their pictures."""

import math

import numpy as np
import pytest

from isaac_infer.core.record import Record


def picture(value):
    return np.full((2, 2, 3), value % 256, np.uint8)


def run(count, **options):
    record = Record(**options)
    for stamp in range(count):
        record.add_picture(stamp, picture(stamp))
        record.add_answer(stamp, f'answer {stamp}', ['cup'], latency_ms=float(stamp))
    return record


def test_nothing_recorded_is_a_record_too():
    record = Record()
    assert record.samples() == []
    assert record.answered == 0
    assert all(math.isnan(value) for value in record.latency_ms())


def test_an_answer_finds_the_picture_of_its_stamp_whatever_the_order():
    record = Record()
    record.add_picture(1, picture(1))
    record.add_picture(2, picture(2))
    record.add_answer(2, 'second', [], 5.0)
    record.add_answer(1, 'first', [], 5.0)
    found = [(sample.answer, sample.image[0, 0, 0]) for sample in record.samples()]
    assert found == [('second', 2), ('first', 1)]
    assert record.unmatched == 0


def test_an_answer_without_its_picture_is_counted_and_said():
    record = Record()
    record.add_answer(9, 'what?', ['cup', 'cup'], 1.0)
    assert (record.answered, record.unmatched, record.classes['cup']) == (1, 1, 2)
    assert record.samples() == []


def test_of_pictures_with_the_same_stamp_none_is_paired():
    record = Record()
    for value in (1, 2, 3):
        record.add_picture(0, picture(value))
    for value in (1, 2, 3):
        record.add_answer(0, f'answer {value}', [], 1.0)
    record.add_picture(5, picture(5))
    record.add_answer(5, 'fifth', [], 1.0)
    assert [sample.answer for sample in record.samples()] == ['fifth']
    assert (record.answered, record.unmatched) == (4, 3)


def test_pictures_that_nobody_answers_do_not_pile_up():
    record = Record(pending=4)
    for stamp in range(100):
        record.add_picture(stamp, picture(stamp))
    assert len(record._waiting) == 4
    assert record.pictures == 100


@pytest.mark.parametrize('count', [1, 5, 6, 7, 100, 1000])
def test_samples_are_few_in_order_and_different(count):
    stamps = [int(sample.latency_ms) for sample in run(count, samples=6).samples()]
    assert len(stamps) == min(count, 6)
    assert stamps == sorted(set(stamps))


def test_samples_spread_over_the_whole_run():
    stamps = np.array([sample.latency_ms for sample in run(3000, samples=60).samples()])
    counts, _ = np.histogram(stamps, bins=3, range=(0, 3000))
    assert counts.min() >= 10


def test_a_circle_of_pictures_is_not_always_met_at_the_same_one():
    stamps = [int(sample.latency_ms) for sample in run(200, samples=12).samples()]
    assert {stamp % 4 for stamp in stamps} == {0, 1, 2, 3}


@pytest.mark.parametrize(('length', 'expected'), [(1, 1), (3, 3), (13, 12), (40, 12)])
def test_a_picture_that_comes_again_is_shown_once(length, expected):
    record = Record(samples=12)
    for stamp in range(100):
        record.add_picture(stamp, picture(stamp % length))
        record.add_answer(stamp, 'answer', [], latency_ms=1.0)
        record.add_drawn(stamp, picture(100 + stamp))
    numbers = [sample.stamp_ns % length for sample in record.samples()]
    assert len(numbers) == len(set(numbers)) == expected
    assert record.answered == 100
