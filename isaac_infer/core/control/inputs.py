"""Inputs: what a policy is fed with, bound to pictures and observations by a document."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from isaac_infer.core.control.observation import KINDS, Part, Sources, read_part
from isaac_infer.core.control.options import Options
from isaac_infer.core.errors import ModelError, ParameterError, TensorError
from isaac_infer.core.fit import RESIZE_MODES
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.session import Session
from isaac_infer.core.spec import NETWORK_CHANNEL_ORDERS, PIXEL_LAYOUTS, ImageSpec, check_image
from isaac_infer.core.tensor import TensorSpec, fits, listed

IMAGE = 'image'
Write = Callable[[Sources], object]


def bind_inputs(session: Session, given: Options, last_action: np.ndarray) -> tuple[list[Write], set[str]]:
    """Give what writes every input, and the kinds of sources that it takes.

    Args:
        session: of the policy.
        given: of the document: sources by the name of the input.
        last_action: (A,) the array in which the policy keeps its last answer.

    Raises:
        ParameterError: something in the document is unknown or cannot be.
        ModelError: it does not fit the model.
    """
    writers: list[Write] = []
    kinds: set[str] = set()
    bindings = {spec: given.take(spec.name) for spec in session.inputs}
    if given.left:
        raise ModelError(f'inputs: the model has no {", ".join(given.left)}; it has {listed(session.inputs)}')
    unbound = tuple(spec for spec, value in bindings.items() if value is None)
    if unbound:
        raise ModelError(
            f'inputs: expected what feeds {listed(unbound)}, got nothing; bind it to some of '
            f'{", ".join((IMAGE, *KINDS))}'
        )
    for spec, value in bindings.items():
        parts = [_as_part(spec.name, part) for part in (value if isinstance(value, list) else [value])]
        kinds.update(kind for kind, _ in parts)
        if IMAGE not in dict(parts):
            writers += _vector_writers(session, spec, parts, last_action)
        elif len(parts) == 1:
            writers.append(_image_writer(session, spec, parts[0][1]))
        else:
            raise ParameterError(f'{spec.name}: expected an image alone, or none, got {len(parts)} sources')
    return writers, kinds


def _as_part(name: str, value: Any) -> tuple[str, Any]:
    """Split `scan` or `{scan: {beams: 36}}` into the kind of the source and its options."""
    kind, options = value, None
    if isinstance(value, dict) and len(value) == 1:
        ((kind, options),) = value.items()
    if not isinstance(kind, str) or kind not in (IMAGE, *KINDS):
        raise ParameterError(
            f'{name}: expected a source, one of {", ".join((IMAGE, *KINDS))}, alone or with its options, '
            f'got {value!r}'
        )
    return kind, options


def _vector_writers(
    session: Session, spec: TensorSpec, named: list[tuple[str, Any]], last_action: np.ndarray
) -> list[Write]:
    if spec.dtype.kind != 'f':
        raise ModelError(f'{spec}: expected an input of floats; export the policy with float32 inputs')
    wanted = _open_shape(spec)
    # A scan without `beams` takes what the others leave, so that it is read last.
    is_open = [kind == 'scan' and not (isinstance(given, dict) and 'beams' in given) for kind, given in named]
    parts: list[Part | None] = [None] * len(named)
    for at in sorted(range(len(named)), key=lambda at: is_open[at]):
        kind, options = named[at]
        taken = sum(part.size for part in parts if part)
        is_known = sum(is_open) == 1 and -1 not in wanted
        rest = math.prod(wanted) - taken if is_known else None
        parts[at] = read_part(
            f'{spec.name}: {kind}', kind, options, last_action=last_action, rest=rest if is_open[at] else None
        )
    found = [part for part in parts if part]
    size = sum(part.size for part in found)
    shape = tuple(size // math.prod(n for n in wanted if n > 0) if n < 0 else n for n in wanted)
    if math.prod(shape) != size:
        counts = ', '.join(f'{part.kind} {part.size}' for part in found)
        raise ModelError(
            f'{spec}: expected {math.prod(wanted)} numbers, got {size}: {counts}; change beams or fields'
        )
    row = session.input_buffer(spec.name, shape).reshape(-1)
    ends = np.cumsum([part.size for part in found]).tolist()
    return [partial(part.write, into=row[end - part.size : end]) for part, end in zip(found, ends)]


def _open_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape for one step: a first of several lengths that is open is 1; at most one other may be."""
    several = len(spec.shape) > 1
    shape = tuple(1 if several and axis == 0 and n < 0 else n for axis, n in enumerate(spec.shape))
    if shape.count(-1) > 1:
        raise ModelError(f'{spec}: expected at most one open length; export the policy with a fixed shape')
    return shape


def _image_writer(session: Session, spec: TensorSpec, options: Any) -> Write:
    image = _image_spec(spec, Options(f'{spec.name}: {IMAGE}', options))
    prepare, buffer = Preparer(image), session.input_buffer(spec.name, image.shape)

    def write(sources: Sources) -> None:
        if sources.image is None:
            raise TensorError('image: the policy needs one, none came that can be used')
        prepare(sources.image, buffer)

    return write


def _image_spec(spec: TensorSpec, given: Options) -> ImageSpec:
    layouts = {'nchw': 1, 'nhwc': 3}  # where the channels are
    fitting = [
        layout
        for layout, axis in layouts.items()
        if len(spec.shape) == 4 and spec.shape[axis] in (1, 3) and spec.shape[0] in (-1, 1)
    ]
    layout = given.word('layout', fitting[0] if len(fitting) == 1 else '', PIXEL_LAYOUTS)
    if layout not in fitting or spec.dtype.kind not in 'fiu':
        raise ModelError(
            f'{spec}: expected a picture, [1, channels, height, width] or [1, height, width, channels] with '
            f'1 or 3 channels; {"say layout" if len(fitting) > 1 else "bind another source"}'
        )
    height, width = spec.shape[2:] if layout == 'nchw' else spec.shape[1:3]
    size = given.numbers('size', (height, width), counts=(2,))
    if any(length < 1 or length != int(length) for length in size):
        raise ModelError(f'{spec}: size: expected height and width in pixels, got {list(size)}; say size')
    is_gray = spec.shape[layouts[layout]] == 1
    orders = [order for order in NETWORK_CHANNEL_ORDERS if (order == 'gray') == is_gray]
    channels = 1 if is_gray else 3
    image = ImageSpec(
        spec.name,
        (int(size[0]), int(size[1])),
        layout=layout,
        dtype=spec.dtype,
        channel_order=given.word('channel_order', orders[0], orders),
        resize=given.word('resize', 'stretch', RESIZE_MODES),
        pad_value=given.whole('pad_value', ImageSpec.pad_value) or 0,
        scale=given.number('scale', 1 / 255 if spec.dtype.kind == 'f' else 1.0),
        mean=given.numbers('mean', ImageSpec.mean, counts=(1, channels)),
        std=given.numbers('std', ImageSpec.std, counts=(1, channels)),
    )
    given.close()
    if not fits(image.shape, spec.shape):
        raise ModelError(f'{spec}: size: the model does not take {list(size)}; leave it out')
    try:
        check_image(image)
    except ValueError as error:
        raise ParameterError(f'{given.where}: {error}') from error
    return image
