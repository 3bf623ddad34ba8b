"""Declare: how a parameter is declared: default, meaning, range, and whether it is live."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from isaac_infer.core.errors import ParameterError

Value = bool | int | float | str | list[str] | list[float] | list[int]
TYPE_NAMES = {
    bool: 'bool',
    int: 'int',
    float: 'float',
    str: 'string',
    list[str]: 'string[]',
    list[float]: 'float[]',
    list[int]: 'int[]',
}
INTEGER_BITS = 63  # of the integers of ROS, without their sign
P = TypeVar('P', bound='Params')


@dataclass(frozen=True)
class Parameter:
    """One parameter as declared: `ros2 param`, YAML files, command line and README are made of these."""

    name: str  # in ROS; of a group with a dot, as in performance_thresholds.min_fps
    type: Any  # a key of TYPE_NAMES
    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False  # may change while the node is active; otherwise only before it is configured

    @property
    def field(self) -> str:
        """The name in Python, of a group with two underscores: performance_thresholds__min_fps."""
        return self.name.replace('.', '__')

    def check(self, value: Any) -> Value:
        """Return the value in the declared type, or raise ParameterError that says what was expected."""
        for entry in value if isinstance(value, (list, tuple)) else [value]:
            if type(entry) is int and entry.bit_length() > INTEGER_BITS:
                got = f'a number of {entry.bit_length()} bits'  # it may even be too long to be printed
                raise ParameterError(f'{self.name}: expected {self.expected}, got {got}')
        typed = self.typed(value)
        for number in typed if isinstance(typed, list) else [typed]:
            if isinstance(number, str):
                continue
            # written so that NaN, which compares as false, is refused too
            is_high_enough = self.low is None or number >= self.low
            is_low_enough = self.high is None or number <= self.high
            if not (math.isfinite(number) and is_high_enough and is_low_enough):
                raise self._refusal(value)
        if self.choices and typed not in self.choices:
            raise self._refusal(value)
        return typed

    @property
    def expected(self) -> str:
        """The accepted values, for people."""
        if self.choices:
            return 'one of ' + ', '.join(repr(choice) for choice in self.choices)
        text = TYPE_NAMES[self.type]
        if self.low is not None and self.high is not None:
            return f'{text} from {self.low:g} to {self.high:g}'
        if self.low is not None:
            return f'{text} of at least {self.low:g}'
        return text

    def typed(self, value: Any) -> Value:
        """Return the value in the declared type where that loses nothing, or raise ParameterError."""
        if self.type in (bool, int, str):
            if type(value) is self.type:
                return cast(Value, value)
        elif self.type is float:
            if type(value) in (int, float):
                return float(value)
        elif isinstance(value, (list, tuple)):
            item = {list[str]: str, list[float]: float, list[int]: int}[self.type]
            accepted = (int, float) if item is float else (item,)
            if all(type(entry) in accepted for entry in value):
                return [item(entry) for entry in value]
        raise self._refusal(value)

    def _refusal(self, value: Any) -> ParameterError:
        return ParameterError(f'{self.name}: expected {self.expected}, got {value!r}')


def param(default: Any, description: str, **facts: Any) -> Any:
    """Declare a parameter; `facts` are the further fields of Parameter."""
    metadata = {'description': description, **facts}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Params:
    """Base of the parameter sets: frozen, checked on creation."""

    def __post_init__(self) -> None:
        for parameter in parameters(type(self)):
            checked = parameter.check(getattr(self, parameter.field))
            object.__setattr__(self, parameter.field, checked)
        self.check()

    def check(self) -> None:
        """Check what concerns several parameters at once; raise ParameterError."""

    def changed(self: P, **values: Any) -> P:
        """Give a copy with other values, by their names in ROS, checked; unknown names are refused."""
        fields = {parameter.name: parameter.field for parameter in parameters(type(self))}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ParameterError(f'unknown parameter {", ".join(unknown)}; run with --help to see all')
        return replace(self, **{fields[name]: value for name, value in values.items()})


def parameters(kind: type[Params]) -> tuple[Parameter, ...]:
    """All parameters of a set, in the order of declaration."""
    return _declared(cast(Any, kind))  # mypy takes these classes for unhashable


@cache
def _declared(kind: Any) -> tuple[Parameter, ...]:
    hints = get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        default: Any = field.default
        if callable(field.default_factory):
            default = field.default_factory()
        name = field.name.replace('__', '.')
        found.append(Parameter(name, hints[field.name], default, **field.metadata))
    return tuple(found)
