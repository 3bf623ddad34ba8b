"""TensorSpec: what a network says about its inputs and outputs."""

import numpy as np
import pytest

from isaac_infer.core.errors import TensorError
from isaac_infer.core.tensor import TensorSpec

IMAGES = TensorSpec('images', (1, 3, -1, -1), np.dtype(np.float32))


def test_a_fitting_array_passes_through():
    array = np.zeros((1, 3, 4, 5), np.float32)
    assert IMAGES.check(array) is array


@pytest.mark.parametrize(
    ('array', 'got'),
    [
        (np.zeros((1, 3, 4), np.float32), r'float32\[1, 3, 4\]'),
        (np.zeros((2, 3, 4, 5), np.float32), r'float32\[2, 3, 4, 5\]'),
        (np.zeros((1, 3, 4, 5), np.uint8), r'uint8\[1, 3, 4, 5\]'),
    ],
)
def test_a_misfit_is_refused_with_what_was_expected_and_what_came(array, got):
    with pytest.raises(TensorError, match=r'images: expected float32\[1, 3, \?, \?\], got ' + got):
        IMAGES.check(array)


def test_only_open_lengths_make_a_tensor_dynamic():
    assert IMAGES.is_dynamic
    assert not TensorSpec('x', (1, 0), np.dtype(np.int64)).is_dynamic
