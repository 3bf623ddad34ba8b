"""Answers of networks, spoilt in places by what broken networks say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

NASTY = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e7, -1e7, -1.0, 0.0, 0.5, 1.0, 2.0, 300.0)


def spoil(outputs: Mapping[str, np.ndarray], data: Any) -> None:
    """Put up to twelve nasty numbers into each output, in place; hypothesis says which and where."""
    for array in outputs.values():
        places = st.tuples(st.integers(0, array.size - 1), st.sampled_from(NASTY))
        for at, value in data.draw(st.lists(places, max_size=12)):
            with np.errstate(invalid='ignore'):
                array.reshape(-1)[at] = np.array(value).astype(array.dtype)
