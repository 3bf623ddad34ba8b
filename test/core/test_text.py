"""Words about what strangers wrote, and about numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.core.text import beside, counted, listed, loggable, without_commands


@pytest.mark.parametrize(
    ('number', 'noun', 'said'),
    [
        (0, 'picture', '0 pictures'),
        (1, 'picture', '1 picture'),
        (2, 'picture', '2 pictures'),
        (1, 'class', '1 class'),
        (3, 'class', '3 classes'),
        (1, 'key point', '1 key point'),
    ],
)
def test_one_thing_is_in_the_singular(number, noun, said):
    assert counted(number, noun) == said


def test_of_many_names_the_first_are_listed():
    assert listed(()) == 'none'
    assert listed(['a', 'b'], most=2) == 'a, b'
    assert listed(['a', 'b', 'c', 'd'], most=2) == 'a, b, and 2 more'


def test_halves_of_characters_go_from_what_a_node_logs_and_stay_in_what_a_command_escapes():
    assert loggable('a\ud800\nb\x1b') == 'a\ufffd\nb\ufffd'
    assert without_commands('a\udcff\nb\x1b') == 'a\udcff\nb\ufffd'


@pytest.mark.parametrize(
    ('value', 'limit', 'decimals', 'said'),
    [
        (0.512, 0.05, 3, '0.512'),
        (0.0501, 0.05, 3, '0.0501'),
        (80.2, 80.0, 0, '80.2'),
        (29.96, 30.0, 1, '29.96'),
        (30.0, 30.0, 1, '30.0'),
        (float('nan'), 1.0, 1, 'nan'),
        (float('inf'), 1.0, 1, 'inf'),
    ],
)
def test_a_number_is_told_from_its_limit(value, limit, decimals, said):
    assert beside(value, limit, decimals) == said


@given(some.floats(1e-3, 1e6), some.floats(1e-3, 1e6))
def test_what_is_told_lies_on_the_side_of_the_limit_where_the_number_is(value, limit):
    said = float(beside(value, limit, 3))
    is_alike = abs(value - limit) <= 1e-12 * limit
    assert is_alike or (said < limit, said > limit) == (value < limit, value > limit)
