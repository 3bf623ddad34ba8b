"""TensorSpec: name, shape and dtype of one network input or output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from isaac_infer.core.errors import TensorError


@dataclass(frozen=True)
class TensorSpec:
    """What the network says about one of its inputs or outputs."""

    name: str
    shape: tuple[int, ...]  # -1 = any length
    dtype: np.dtype  # object where NumPy has no such type
    other_type: str = ''  # what the file calls it there: bfloat16, string, ...

    @property
    def type_name(self) -> str:
        return self.other_type or str(self.dtype)

    @property
    def is_dynamic(self) -> bool:
        return any(length < 0 for length in self.shape)

    def check(self, array: np.ndarray) -> np.ndarray:
        """Return the array, or raise TensorError where dtype or shape differ from this spec."""
        if array.dtype != self.dtype or not fits(array.shape, self.shape):
            got = TensorSpec(self.name, array.shape, array.dtype)
            raise TensorError(f'{self.name}: expected {self.layout}, got {got.layout}')
        return array

    @property
    def layout(self) -> str:
        """Dtype and shape as people write them: `float32[1, 3, ?, ?]`."""
        lengths = ', '.join('?' if length < 0 else str(length) for length in self.shape)
        return f'{self.type_name}[{lengths}]'

    def __str__(self) -> str:
        return f'{self.name} {self.layout}'


def listed(specs: Iterable[TensorSpec]) -> str:
    """Name tensors for people: `images float32[1, 3, 640, 640], sizes int64[1, 2]`."""
    return ', '.join(map(str, specs))


def fits(shape: tuple[int, ...], pattern: tuple[int, ...]) -> bool:
    """Tell whether a concrete shape matches a pattern in which -1 stands for any length."""
    return len(shape) == len(pattern) and all(
        want < 0 or length == want for length, want in zip(shape, pattern)
    )
