"""Parameters: a parameter set of this package as the parameters of a node, checked in one place."""

from __future__ import annotations

import math
import re
import traceback
from array import array
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.parameter import parameter_value_to_python

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.text import printable
from isaac_infer.params import INTEGER_BITS, Parameter, Params, nodes_with, parameters

P = TypeVar('P', bound=Params)

_ROS_TYPES = {
    bool: RosParameter.Type.BOOL,
    int: RosParameter.Type.INTEGER,
    float: RosParameter.Type.DOUBLE,
    str: RosParameter.Type.STRING,
    list[str]: RosParameter.Type.STRING_ARRAY,
    list[float]: RosParameter.Type.DOUBLE_ARRAY,
    list[int]: RosParameter.Type.INTEGER_ARRAY,
}
_INT64 = (1 << INTEGER_BITS) - 1
# What rclpy itself and its neighbours declare on any node.
_OF_ROS = re.compile(r'use_sim_time|start_type_description_service|(qos_overrides|diagnostic_updater)\..*')


class NodeParameters(Generic[P]):
    """The parameters of a node: declared from a parameter set, kept as one frozen value.

    `value` is replaced as a whole, so any thread may read it at any time.
    """

    def __init__(
        self,
        node: Node,
        kind: type[P],
        *,
        refusal: Callable[[], str],
        apply: Callable[[P], None] = lambda value: None,
        rule: str = 'Cannot change while the node runs: start it again.',
    ) -> None:
        """Declare everything.

        Args:
            refusal: says why parameters that are not live cannot change now; empty where they can.
            apply: puts new values into effect, or raises ParameterError and changes nothing.
            rule: when parameters that are not live can change, for descriptors.

        Raises:
            ParameterError: the user set an unknown parameter, or a wrong value.
        """
        self._node = node
        self._known = {parameter.name: parameter for parameter in parameters(kind)}
        self._refusal, self._apply = refusal, apply
        # rclpy ignores unknown names without a word and has no public way to see what the user has set.
        given = {
            name: ros_parameter.value
            for name, ros_parameter in node._parameter_overrides.items()
            if not _OF_ROS.fullmatch(name)
        }
        for name in sorted(set(given) - set(self._known)):
            raise ParameterError(self._unknown(name))
        self.value = kind(
            **{self._known[name].field: self._friendly(name, value) for name, value in given.items()}
        )
        for name, parameter in self._known.items():
            # Declared by type and then set: the type of an empty list cannot be told from its value.
            kind = _ROS_TYPES[parameter.type]
            node.declare_parameter(name, kind, _descriptor(parameter, rule), ignore_override=True)
            node.set_parameters([RosParameter(name, kind, getattr(self.value, parameter.field))])
        node.add_on_set_parameters_callback(self._on_set)
        for service in node.services:
            if service.srv_type in (SetParameters, SetParametersAtomically):
                service.callback = partial(self._on_request, service.callback)

    def _on_request(self, set_all: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """Answer a request to set parameters, in their declared types where that loses nothing: 1 for 1.0.

        rclpy would end the process for a type that it does not know, and refuse 1 for 1.0.
        """
        refusals = [self._refusal_of(given) for given in request.parameters]
        typed = [
            given if refusal else self._typed(given) for given, refusal in zip(request.parameters, refusals)
        ]
        if isinstance(request, SetParametersAtomically.Request):
            if any(refusals):
                response.result = SetParametersResult(reason='; '.join(filter(None, refusals)))
                return response
            return set_all(SetParametersAtomically.Request(parameters=typed), response)
        for given, refusal in zip(typed, refusals):
            if refusal:
                response.results.append(SetParametersResult(reason=refusal))
            else:
                set_all(SetParameters.Request(parameters=[given]), response)
        return response

    def _refusal_of(self, given: ParameterMessage) -> str:
        """Say why it cannot be, of a parameter that we have or of one that nobody has; else empty."""
        if given.value.type not in {kind.value for kind in RosParameter.Type}:
            return f'{printable(given.name[:80])}: there is no type {given.value.type}'
        if given.name in self._known and given.value.type == ParameterType.PARAMETER_NOT_SET:
            return f'{given.name}: expected {self._known[given.name].expected}, got nothing'
        is_known = given.name in self._known or self._node.has_parameter(given.name)
        return '' if is_known or _OF_ROS.fullmatch(given.name) else self._unknown(given.name)

    def _unknown(self, name: str) -> str:
        text = f'unknown parameter {printable(name[:80])}'
        if nodes := nodes_with(name):
            return f'{text}: it is one of {", ".join(nodes)}, not of this node'
        if alike := get_close_matches(name, self._known, n=1):
            return f'{text}; expected {alike[0]}'
        return f'{text}; expected {", ".join(sorted(self._known))}'

    def _typed(self, given: ParameterMessage) -> ParameterMessage:
        known = self._known.get(given.name)
        if known is None:
            return given
        try:
            value = known.typed(self._friendly(given.name, parameter_value_to_python(given.value)))
        except ParameterError:
            return given  # refused, with the reason, where all checks are made
        return RosParameter(given.name, _ROS_TYPES[known.type], value).to_parameter_msg()

    def _friendly(self, name: str, value: Any) -> Any:
        """Give arrays as lists, also an empty one that rclpy lost, and numbers as texts where wanted."""
        kind = self._known[name].type
        if kind is str and type(value) is int:
            return str(value)  # ROS takes 0 for a number wherever it is written, as in source:=0
        if kind in (bool, int, float, str):
            return value
        if value is None:
            return []  # what a YAML file's [] becomes
        if isinstance(value, (list, tuple, array)):
            return [str(entry) if kind == list[str] and type(entry) is int else entry for entry in value]
        return value

    def _on_set(self, given: list[RosParameter]) -> SetParametersResult:
        try:
            ours = {p.name: self._friendly(p.name, p.value) for p in given if p.name in self._known}
            value = self.value.changed(**ours)
            fixed = [name for name in ours if not self._known[name].live and self._is_changed(name, value)]
            reason = self._refusal()
            if fixed and reason:
                raise ParameterError(f'{", ".join(fixed)}: cannot change {reason}')
            if value != self.value:
                self._apply(value)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # one of ours, which would end the executor and with it the node
            reason = f'{type(error).__name__}: {error}'
            self._node.get_logger().error(f'parameters refused: {reason}\n{traceback.format_exc()}')
            return SetParametersResult(successful=False, reason=reason)
        self.value = value
        return SetParametersResult(successful=True)

    def _is_changed(self, name: str, value: P) -> bool:
        field = self._known[name].field
        return bool(getattr(value, field) != getattr(self.value, field))


def _descriptor(parameter: Parameter, rule: str) -> ParameterDescriptor:
    constraints = [] if parameter.live else [rule]
    if parameter.choices:
        constraints.append(f'Expected: {parameter.expected}.')
    descriptor = ParameterDescriptor(
        type=_ROS_TYPES[parameter.type].value,
        description=parameter.description,
        additional_constraints=' '.join(constraints),
    )
    low, high = parameter.low, parameter.high
    if low is None and high is None:
        return descriptor
    if parameter.type is int:
        descriptor.integer_range = [
            IntegerRange(
                from_value=-_INT64 if low is None else int(low),
                to_value=_INT64 if high is None else int(high),
            )
        ]
    elif parameter.type is float:
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=-math.inf if low is None else low, to_value=math.inf if high is None else high
            )
        ]
    return descriptor
