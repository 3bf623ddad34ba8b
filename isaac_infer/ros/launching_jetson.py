"""LaunchingJetson: how jetson.launch.py starts a whole robot from one parameter file and keeps it running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from isaac_infer.ros.launching import (
    BOOLEANS,
    KINDS,
    PACKAGE,
    PROCESSES,
    Argument,
    Kind,
    declare,
    file_of,
    is_true,
    number_of,
    profile_actions,
    typed,
)
from isaac_infer.ros.param_files import SIMILAR

LONGEST_PAUSE_S = 60.0  # before a node that ends again and again is started once more
FIRST_PAUSE_S = 1.0  # after none at all
HEALTHY_S = 30.0  # who lived longer is started again as if for the first time


@dataclass(frozen=True)
class Role:
    """A node of the robot."""

    noun: str  # use_<noun> starts it
    executable: str  # also the name of the node, and of its section in the parameter file
    default: str
    topics: Mapping[
        str, str
    ]  # of the node: the topic that takes its place, or in {} the argument that has it
    is_kept: bool = True  # started again when it ends


def _perceiving(kind: Kind) -> Role:
    apart = {topic: f'{kind.noun}/{topic}' for topic in kind.outputs}
    default = 'true' if kind.noun == 'detector' else 'false'
    return Role(kind.noun, kind.executable, default, {'image': '{image}', **apart})


_ROBOT = {
    'camera/image_raw': '{image}',
    'scan': '{scan}',
    'imu': '{imu}',
    'ai_commands': '{ai_commands}',
    'control_output': '{control_output}',
}
# In the order in which they start; the validator comes last, when the others had time to become active.
ROLES = (
    Role('simulator', 'robot_simulator', 'false', _ROBOT),
    Role('power_manager', 'power_manager', 'true', {}),
    *map(_perceiving, KINDS),
    Role('executor', 'jetson_executor', 'true', _ROBOT),
    Role('validator', 'deployment_validator', 'true', _ROBOT, is_kept=False),
)
ARGUMENTS = (
    *(
        Argument(f'use_{role.noun}', role.default, f'Whether to start the {role.executable}.', BOOLEANS)
        for role in ROLES
    ),
    Argument(
        'params_file',
        'jetson.yaml',
        'YAML file with the parameters of all nodes, a section for each.',
        is_config=True,
    ),
    Argument(
        'manifest',
        'jetson_manifest.yaml',
        'Of the deployment_validator: the file that says what the deployment is.',
        is_config=True,
    ),
    Argument('validate_after', '10', 'Seconds until the deployment_validator is started.'),
    Argument('image', 'camera/image_raw', 'Topic of the pictures.'),
    Argument('scan', 'scan', 'Topic of the laser scans.'),
    Argument('imu', 'imu', 'Topic of the IMU.'),
    Argument('ai_commands', 'ai_commands', 'Topic of the commands that the executor follows.'),
    Argument('control_output', 'control_output', 'Topic of the commands that move the robot.'),
    Argument('respawn', 'true', 'Whether nodes that end are started again.', BOOLEANS),
    Argument(
        'respawn_delay',
        '1',
        f'Seconds before that; twice as many every time, {LONGEST_PAUSE_S:g} at most, for a node that ends '
        f'again within {HEALTHY_S:g}.',
    ),
    *(argument for argument in PROCESSES if argument.name in ('namespace', 'log_level')),
)


def describe() -> Any:
    """Describe the processes of jetson.launch.py."""
    from launch import LaunchDescription
    from launch.actions import OpaqueFunction

    return LaunchDescription(
        [
            *map(declare, ARGUMENTS),
            *profile_actions(),
            OpaqueFunction(function=lambda context: list(actions_of(context.launch_configurations))),
        ]
    )


def actions_of(given: Mapping[str, str]) -> Iterator[Any]:
    """Give what starts the nodes, now that the arguments have their values.

    Raises:
        ValueError: one of them is no number, or no file that can be read.
    """
    from launch.actions import TimerAction
    from launch.logging import get_logger

    for slip in slips_of(given):
        get_logger('launch').warning(slip)
    first_s, wait_s = (seconds_of(given, name) for name in ('respawn_delay', 'validate_after'))
    makers = [
        (role, partial(node_of, dict(given), role)) for role in ROLES if is_true(given[f'use_{role.noun}'])
    ]
    for _, make in makers:
        make()  # which checks its arguments: launch leaves behind what runs when it stumbles
    for role, make in makers:
        if not role.is_kept:
            yield TimerAction(period=wait_s, actions=[_lately(lambda make=make: [make()])])
        elif is_true(given['respawn']):
            yield _lately(partial(kept_alive, make, first_s=first_s, pause_s=first_s))
        else:
            yield make()


def seconds_of(given: Mapping[str, str], name: str) -> float:
    """Give the time in an argument; raises ValueError where it is none that can be waited for."""
    seconds = number_of(given, name)
    if not 0 <= seconds < inf:  # written so that NaN fails too
        raise ValueError(f'{name}: expected seconds from 0 on, got {given[name]}')
    return seconds


def slips_of(given: Mapping[str, str]) -> Iterator[str]:
    """Say which arguments and sections of the parameter file nobody reads, but nearly: launch says nothing.

    Raises:
        ValueError: the parameter file cannot be read.
    """
    known = [argument.name for argument in ARGUMENTS]
    for name in given:
        for meant in _alike(name, known):
            yield f'{name}: no argument of this launch file; did you mean {meant}?'
    path, nodes = file_of(given, 'params_file'), [role.executable for role in ROLES]
    try:
        sections = yaml.safe_load(Path(path).read_text('utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f'params_file: {path} cannot be read: {error}') from error
    for section in sections if isinstance(sections, dict) else ():
        for meant in _alike(str(section).rpartition('/')[2], nodes):
            yield f'params_file: no node here reads the section {section}; did you mean {meant}?'


def _alike(name: str, known: list[str]) -> list[str]:
    return [] if name in known else get_close_matches(name, known, n=1, cutoff=SIMILAR)


def _lately(make: Callable[[], list[Any]]) -> Any:
    """Give an action that makes others when it is its turn."""
    from launch.actions import OpaqueFunction

    return OpaqueFunction(function=lambda context: make())


def node_of(given: Mapping[str, str], role: Role) -> Any:
    """Make the action that starts a node."""
    from launch_ros.actions import Node

    parameters: list[Any] = [file_of(given, 'params_file')]
    if role.noun == 'validator':
        parameters.append(typed({'manifest': file_of(given, 'manifest')}))
    return Node(
        package=PACKAGE,
        executable=role.executable,
        name=role.executable,
        namespace=given['namespace'],
        parameters=parameters,
        remappings=remappings_of(given, role),
        ros_arguments=['--log-level', given['log_level']],
        output='screen',
    )


def remappings_of(given: Mapping[str, str], role: Role) -> list[tuple[str, str]]:
    """Give the topics that are called otherwise."""
    named = ((topic, name.format_map(given)) for topic, name in role.topics.items())
    return [(topic, name) for topic, name in named if name != topic]


def kept_alive(make: Callable[[], Any], *, first_s: float, pause_s: float) -> list[Any]:
    """Start a node and, whenever it ends, start it again after a while that grows if it ends soon.

    What launch has for that, `respawn`, always waits equally long, so that a node that cannot work keeps a
    core busy with starting it.
    """
    from launch.actions import LogInfo, RegisterEventHandler, TimerAction
    from launch.event_handlers import OnProcessExit

    began_s, node = monotonic(), make()

    def start_again(event: Any, context: Any) -> list[Any]:
        if context.is_shutdown:
            return []
        lived_s = monotonic() - began_s
        now_s = first_s if lived_s >= HEALTHY_S else pause_s
        said = f'{event.process_name}: ended with {event.returncode}; it is started again in {now_s:g} s'
        following = partial(kept_alive, make, first_s=first_s, pause_s=longer_pause_s(now_s))
        return [LogInfo(msg=said), TimerAction(period=now_s, actions=[_lately(following)])]

    handler = OnProcessExit(target_action=node, on_exit=start_again, handle_once=True)
    return [RegisterEventHandler(handler), node]  # the handler first: nothing that ends at once is missed


def longer_pause_s(pause_s: float) -> float:
    """Give the pause after one that was of no use."""
    return min(2 * pause_s or FIRST_PAUSE_S, max(pause_s, LONGEST_PAUSE_S))
