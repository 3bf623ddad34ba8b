"""Words about what strangers wrote, and about numbers."""

import pytest

from isaac_infer.core.text import counted, loggable, without_commands


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


def test_halves_of_characters_go_from_what_a_node_logs_and_stay_in_what_a_command_escapes():
    assert loggable('a\ud800\nb\x1b') == 'a\ufffd\nb\ufffd'
    assert without_commands('a\udcff\nb\x1b') == 'a\udcff\nb\ufffd'
