"""Words about what strangers wrote, and about numbers."""

import pytest

from isaac_infer.core.text import counted


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
