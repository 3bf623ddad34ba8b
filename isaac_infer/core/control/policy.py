"""Policy: a network that steers, by a document that binds its inputs to sensors and its outputs to a Twist.

inputs:
  picture: {image: {resize: stretch, mean: [0.5], std: [0.5]}}
  observation: [scan: {beams: 36, sector_deg: [-90, 90], max_m: 5}, imu, command, last_action]
outputs:
  linear.x: {index: 0, scale: 0.5, limits: [-0.1, 0.5]}
  angular.z: {index: 1}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isaac_infer.core.control.command import COMPONENTS, Command
from isaac_infer.core.control.inputs import bind_inputs
from isaac_infer.core.control.observation import Sources
from isaac_infer.core.control.options import Options
from isaac_infer.core.decode.document import read_document
from isaac_infer.core.errors import ModelError, ParameterError, SessionError
from isaac_infer.core.session import Session
from isaac_infer.core.tensor import TensorSpec, listed


@dataclass(frozen=True)
class _Axis:
    """Which number of an output is a component of the command: value * scale + offset, then limited."""

    field: str  # of Command
    output: str
    index: int  # in the output, row by row
    scale: float
    offset: float
    limits: tuple[float, ...]  # low, high; empty: none

    def of(self, values: np.ndarray) -> float:
        value = float(values[self.index]) * self.scale + self.offset
        return min(max(value, self.limits[0]), self.limits[1]) if self.limits else value


def read_bindings(path: Path) -> Any:
    """Read the document of a policy.

    Raises:
        ParameterError: it cannot be read.
    """
    try:
        document = read_document(path)
    except ValueError as error:
        raise ParameterError(f'{path}: the bindings of a policy cannot be read: {error}') from error
    parts = document.values() if isinstance(document, dict) else ()
    if any(isinstance(part, dict) and 'ros__parameters' in part for part in parts):
        raise ParameterError(
            f'{path}: expected the bindings of a policy (inputs, outputs), got a parameter file of nodes'
        )
    return document


class Policy:
    """Feeds a session and reads its answers: `fill`, then `session.run()`, then `command_of`.

    Whoever opened the session closes it. One thread at a time.
    """

    def __init__(self, session: Session, bindings: Any) -> None:
        """Check the bindings against the model.

        Args:
            session: of the policy.
            bindings: what the document says: see above. Numbers may be text, as `read_bindings` gives them.

        Raises:
            ParameterError: something in the document is unknown, missing or cannot be.
            ModelError: the model has no such input or output, or one of another size or type, or an input
                that is bound to nothing.
        """
        document = Options('policy', bindings)
        inputs, outputs = document.take('inputs'), document.take('outputs')
        document.close()
        self._axes = _read_axes(Options('outputs', outputs), session.outputs)
        bound = {axis.output for axis in self._axes}
        self._sizes = {spec.name: _size_of(spec) for spec in session.outputs if spec.name in bound}
        self._last_action = np.zeros(sum(self._sizes.values()))
        self._writers, kinds = bind_inputs(session, Options('inputs', inputs), self._last_action)
        self.needs = frozenset(kinds) - {'last_action'}  # names of the Sources that have to be there

    def fill(self, sources: Sources) -> None:
        """Write into the inputs of the session.

        Raises:
            TensorError: a source that is needed is missing, or has a value that is no finite number.
        """
        for write in self._writers:
            write(sources)

    def command_of(self, outputs: Mapping[str, np.ndarray]) -> Command:
        """Read the command, and keep the answer as the last action.

        Raises:
            SessionError: the network answers with NaN or infinite numbers, or with another number of them.
        """
        values = {}
        for name, size in self._sizes.items():
            values[name] = outputs[name].reshape(-1)
            if len(values[name]) != size:
                raise SessionError(f'{name}: expected {size} numbers, got {len(values[name])}')
            if not np.isfinite(values[name]).all():
                bad = int(np.flatnonzero(~np.isfinite(values[name]))[0])
                raise SessionError(
                    f'{name}: expected finite numbers, got {values[name][bad]} as number {bad}'
                )
        command = Command(**{axis.field: axis.of(values[axis.output]) for axis in self._axes})
        if not command.is_finite:
            raise SessionError(f'outputs: expected a finite command, got {command}; see scale and offset')
        np.concatenate(list(values.values()), out=self._last_action)
        return command

    def reset(self) -> None:
        """Forget the last action, as before a first step: when the robot was stopped, or starts anew."""
        self._last_action[...] = 0


def _read_axes(given: Options, specs: tuple[TensorSpec, ...]) -> tuple[_Axis, ...]:
    axes = []
    for component, field in COMPONENTS.items():
        value = given.take(component)
        if value is None:
            continue
        options = value if isinstance(value, dict) else {'index': value}
        axes.append(_read_axis(Options(f'outputs: {component}', options), field, specs))
    given.close()
    if not axes:
        raise ParameterError(f'outputs: expected some of {", ".join(COMPONENTS)}, got none')
    return tuple(axes)


def _read_axis(given: Options, field: str, specs: tuple[TensorSpec, ...]) -> _Axis:
    name = given.take('output')
    spec = next((spec for spec in specs if spec.name == name), None)
    if name is None and len(specs) == 1:
        spec = specs[0]
    if spec is None:
        got = 'none is named' if name is None else f'there is no {name}'
        raise ModelError(f'{given.where}: expected an output of the model, {got}; it has {listed(specs)}')
    index = given.whole('index', None)
    if index is None or index >= _size_of(spec):
        raise ModelError(
            f'{given.where}: index: expected 0 to {_size_of(spec) - 1} in {spec}, '
            f'got {"none" if index is None else index}'
        )
    scale, offset = given.number('scale', 1.0), given.number('offset', 0.0)
    limits = given.numbers('limits', (), counts=(2,))
    if limits and not limits[0] <= limits[1]:
        raise ParameterError(f'{given.where}: limits: expected the lower number first, got {list(limits)}')
    given.close()
    return _Axis(field, spec.name, index, scale, offset, limits)


def _size_of(spec: TensorSpec) -> int:
    """How many numbers an output has, for one step: a first length that is open is 1."""
    shape = tuple(1 if axis == 0 and length < 0 else length for axis, length in enumerate(spec.shape))
    if spec.dtype.kind not in 'fiu' or any(length < 0 for length in shape):
        raise ModelError(
            f'{spec}: expected numbers of a fixed shape; export the policy so, or read another output'
        )
    return math.prod(shape)
