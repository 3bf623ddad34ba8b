"""Figures: named numbers as one message, for machines: the names are in its layout."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import nan

from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout

from isaac_infer.core.errors import MessageError

SEPARATOR = ','


def figures_msg(values: Mapping[str, float | None]) -> Float64MultiArray:
    """Give named numbers as a message; what is None, unknown, is NaN in it.

    Raises:
        ValueError: a name has a comma, which separates names.
    """
    for name in values:
        if SEPARATOR in name:
            raise ValueError(f'{name!r}: expected a name without {SEPARATOR!r}')
    count = len(values)
    dimension = MultiArrayDimension(label=SEPARATOR.join(values), size=count, stride=count)
    data = array('d', (nan if value is None else value for value in values.values()))
    return Float64MultiArray(layout=MultiArrayLayout(dim=[dimension]), data=data)


def figures_of(msg: Float64MultiArray) -> dict[str, float]:
    """Give the numbers of a message by their names; unknown ones are NaN.

    Raises:
        MessageError: it has no names, or not one for every number.
    """
    dimensions, data = msg.layout.dim, msg.data
    if len(dimensions) != 1:
        raise MessageError(
            f'figures: expected one dimension whose label has the names, got {len(dimensions)}'
        )
    label, offset = dimensions[0].label, msg.layout.data_offset
    names = label.split(SEPARATOR) if label else []
    if not len(names) == len(set(names)) == dimensions[0].size == len(data) - offset:
        raise MessageError(
            f'figures: expected a name for every number, each once, got {len(names)} names, '
            f'{len(set(names))} of them different, {len(data) - offset} numbers and size {dimensions[0].size}'
        )
    return dict(zip(names, data[offset:]))
