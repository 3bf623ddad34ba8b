"""Launching: what the launch files of this package have in common: arguments, nodes, the DDS profile.

`launch` is imported where it is used: without it the arguments can still be read, and it is not on PyPI.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isaac_infer.ros.transport import profile_environment

PACKAGE = 'isaac_infer'
BOOLEANS = ('true', 'false', 'True', 'False')


@dataclass(frozen=True)
class Argument:
    """An argument of a launch file."""

    name: str
    default: str
    about: str
    choices: tuple[str, ...] = ()  # none: anything
    is_config: bool = False  # the default is a file in config/ of this package


@dataclass(frozen=True)
class Kind:
    """A perception node, as launch files start it."""

    noun: str  # its arguments and topics begin with it where several nodes are started
    executable: str
    outputs: tuple[str, ...]  # the topics that it publishes, besides /diagnostics
    more: tuple[tuple[Argument, str], ...] = ()  # further arguments, and the parameters that they set


DETECTOR = Kind('detector', 'detector_node', ('detections', 'overlay', 'label_info'))
SEGMENTATION = Kind(
    'segmentation',
    'segmentation_node',
    ('detections', 'mask', 'instance_mask', 'mask_color', 'overlay', 'label_info'),
)
POSE = Kind(
    'pose',
    'pose_node',
    ('persons', 'keypoints', 'markers', 'overlay', 'label_info'),
    more=(
        (
            Argument(
                'person_model',
                '',
                'Top-down: the ONNX detector that finds the persons for a pose model of one. '
                'Empty: as in the parameter file.',
            ),
            'person_model_file_path',
        ),
        (
            Argument(
                'persons_topic',
                '',
                'Top-down: the topic that has the persons of every picture. Empty: as in the parameter file.',
            ),
            'persons_topic',
        ),
    ),
)
KINDS = (DETECTOR, SEGMENTATION, POSE)

# '' leaves it to the parameter file.
INPUT = (
    Argument('image', 'image', 'Topic of the pictures.'),
    Argument(
        'transport',
        '',
        'raw, or compressed for <topic>/compressed. Empty: as in the parameter file.',
        choices=('', 'raw', 'compressed'),
    ),
    Argument(
        'autostart',
        '',
        'true, or false where a lifecycle manager starts it. Empty: as in the parameter file.',
        choices=('', *BOOLEANS),
    ),
)
PROCESSES = (
    Argument('namespace', '', 'Namespace of the nodes and of their topics.'),
    Argument(
        'log_level',
        'info',
        'Least severe messages to show: debug, info, warn, error or fatal.',
        choices=('debug', 'info', 'warn', 'error', 'fatal'),
    ),
    Argument('use_image_source', 'false', 'Whether to start an image source too.', choices=BOOLEANS),
    Argument(
        'source',
        'synthetic',
        'Of the image source: a picture, folder, video, recording, camera, stream, or synthetic.',
    ),
    Argument('rate', '30', 'Of the image source: pictures per second.'),
)


def arguments_of(*kinds: Kind) -> tuple[Argument, ...]:
    """The arguments of a launch file that starts nodes of these kinds."""
    own: list[Argument] = []
    for kind in kinds:
        prefix = _prefix(kind, kinds)
        if prefix:
            own.append(
                Argument(f'use_{kind.noun}', 'true', f'Whether to start the {kind.executable}.', BOOLEANS)
            )
        own += [
            Argument(
                f'{prefix}model',
                '',
                f'ONNX model of the {kind.executable}: a path, or the name of one of this package. '
                'Empty: as in the parameter file.',
            ),
            *(argument for argument, _ in kind.more),
            Argument(
                f'{prefix}params_file',
                f'{kind.noun}.yaml',
                f'YAML file with the parameters of the {kind.executable}.',
                is_config=True,
            ),
            Argument(f'{prefix}name', kind.executable, f'Name of the {kind.executable}.'),
        ]
    return (*own, *INPUT, *PROCESSES)


def describe(*kinds: Kind) -> Any:
    """Describe the processes of a launch file that starts nodes of these kinds, one of each."""
    from launch import LaunchDescription
    from launch.actions import OpaqueFunction

    return LaunchDescription(
        [
            *map(declare, arguments_of(*kinds)),
            *profile_actions(),
            OpaqueFunction(function=lambda context: list(nodes_of(context.launch_configurations, *kinds))),
        ]
    )


def profile_actions() -> list[Any]:
    """Set the DDS profile that lets large pictures through, unless the user has chosen another."""
    from launch.actions import LogInfo, SetEnvironmentVariable

    variables, warning = profile_environment(os.environ)
    actions = [SetEnvironmentVariable(name, path) for name, path in variables.items()]
    return [*actions, LogInfo(msg=warning)] if warning else actions


def check_actions() -> list[Any]:
    """See that nodes can be made of the arguments of a launch file in XML, whose kinds `nouns` names."""
    from launch.actions import OpaqueFunction

    def check(context: Any) -> None:
        given = context.launch_configurations
        kinds = [kind for kind in KINDS if kind.noun in given['nouns'].split()]
        for _ in nodes_of(given, *kinds):
            pass  # it is made, which checks its arguments

    return [OpaqueFunction(function=check)]


def nodes_of(given: Mapping[str, str], *kinds: Kind) -> Iterator[Any]:
    """Give the nodes, now that the arguments have their values.

    All are made, and checked, before the first one starts: launch leaves behind what runs when it stumbles.
    """
    from launch_ros.actions import Node

    shared = {
        'package': PACKAGE,
        'namespace': given['namespace'],
        'ros_arguments': ['--log-level', given['log_level']],
        'output': 'screen',
    }
    for kind in kinds:
        prefix = _prefix(kind, kinds)
        if prefix and not is_true(given[f'use_{kind.noun}']):
            continue
        overrides = overrides_of(given, kind, *kinds)
        yield Node(
            executable=kind.executable,
            name=name_of(given, f'{prefix}name'),
            parameters=[file_of(given, f'{prefix}params_file'), *([typed(overrides)] if overrides else [])],
            remappings=remappings_of(given, kind, *kinds),
            **shared,
        )
    if is_true(given['use_image_source']):
        source = typed({'source': given['source'], 'rate': number_of(given, 'rate')})
        remappings = [('image', given['image'])]
        yield Node(executable='image_source', parameters=[source], remappings=remappings, **shared)


def overrides_of(given: Mapping[str, str], kind: Kind, *kinds: Kind) -> dict[str, str | bool]:
    """Give the parameters that the arguments name; the others are as in the parameter file."""
    texts = {'model_file_path': f'{_prefix(kind, kinds)}model', 'transport': 'transport'}
    texts |= {parameter: argument.name for argument, parameter in kind.more}
    overrides: dict[str, str | bool] = {
        parameter: given[name] for parameter, name in texts.items() if given[name]
    }
    return overrides | ({'autostart': is_true(given['autostart'])} if given['autostart'] else {})


def remappings_of(given: Mapping[str, str], kind: Kind, *kinds: Kind) -> list[tuple[str, str]]:
    """Give the topics that are called otherwise: that of the pictures; those of one among several nodes."""
    apart = kind.outputs if len(kinds) > 1 else ()
    return [('image', given['image']), *((topic, f'{kind.noun}/{topic}') for topic in apart)]


def number_of(given: Mapping[str, str], name: str) -> float:
    """Give the number in an argument.

    Raises:
        ValueError: it is none.
    """
    try:
        return float(given[name])
    except ValueError:
        raise ValueError(f'{name}: expected a number, got {given[name]!r}') from None


def file_of(given: Mapping[str, str], name: str) -> str:
    """Give the file in an argument: without it, launch would start a node with its defaults.

    Raises:
        ValueError: there is none.
    """
    if not os.path.isfile(given[name]):
        raise ValueError(f'{name}: expected a file, got {given[name]!r}, which is not there')
    return given[name]


def name_of(given: Mapping[str, str], name: str) -> str:
    """Give the name of a node in an argument.

    Raises:
        ValueError: ROS does not allow it.
    """
    if not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', given[name], re.ASCII):
        raise ValueError(f'{name}: expected letters, digits and _, no digit first, got {given[name]!r}')
    return given[name]


def _prefix(kind: Kind, kinds: tuple[Kind, ...]) -> str:
    return f'{kind.noun}_' if len(kinds) > 1 else ''


def typed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give parameters whose texts stay texts, whatever they look like in YAML."""
    from launch_ros.parameter_descriptions import ParameterValue

    return {name: ParameterValue(value, value_type=type(value)) for name, value in parameters.items()}


def is_true(text: str) -> bool:
    """Tell which of BOOLEANS a text is."""
    return text.lower() == 'true'


def declare(argument: Argument) -> Any:
    """Declare an argument of a launch file."""
    from launch.actions import DeclareLaunchArgument
    from launch.substitutions import PathJoinSubstitution
    from launch_ros.substitutions import FindPackageShare

    default: Any = argument.default
    if argument.is_config:
        default = PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', default])
    return DeclareLaunchArgument(
        argument.name,
        default_value=default,
        description=argument.about,
        choices=list(argument.choices) or None,
    )
