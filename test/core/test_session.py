"""What is closed together: nothing stays open because something else could not be closed."""

import pytest

from isaac_infer.core.session import close_all


@pytest.mark.parametrize(
    ('failing', 'told'),
    [((), None), (('a',), 'a'), (('c',), 'c'), (('a', 'b', 'c'), 'a')],
)
def test_all_are_closed_and_the_first_error_is_told(failing, told):
    closed = []

    def closing(name):
        def close():
            closed.append(name)
            if name in failing:
                raise ValueError(name)

        return close

    closings = [closing(name) for name in 'abc']
    if told is None:
        close_all(closings)
    else:
        with pytest.raises(ValueError, match=told):
            close_all(closings)
    assert closed == ['a', 'b', 'c']
