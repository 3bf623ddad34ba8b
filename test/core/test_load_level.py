"""Load levels: their order is that of the work."""

from isaac_infer.core.load_level import LEVELS, MINIMAL, NORMAL, REDUCED


def test_levels_go_from_the_most_work_to_the_least():
    assert LEVELS == (NORMAL, REDUCED, MINIMAL) == ('normal', 'reduced', 'minimal')
