"""Start the detector; with use_image_source:=true also a source of pictures for it."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from isaac_infer.ros.transport import profile_environment

CONFIG = PathJoinSubstitution([FindPackageShare('isaac_infer'), 'config', 'detector.yaml'])
ARGUMENTS = [
    ('model', '', 'The ONNX model: a path, or the name of one of this package. Empty: as in params_file.'),
    ('image', 'image', 'Topic of the pictures.'),
    ('transport', '', 'raw, or compressed for <topic>/compressed. Empty: as in params_file.'),
    ('autostart', '', 'true, or false where a lifecycle manager starts it. Empty: as in params_file.'),
    ('params_file', CONFIG, 'YAML file with the parameters of the detector.'),
    ('name', 'detector_node', 'Name of the node.'),
    ('namespace', '', 'Namespace of the nodes and of their topics.'),
    ('log_level', 'info', 'Least severe messages to show: debug, info, warn, error or fatal.'),
    ('use_image_source', 'false', 'Whether to start an image source too.'),
    ('source', 'synthetic', 'Of the image source: a picture, folder, video, camera, stream, or synthetic.'),
    ('rate', '30', 'Of the image source: pictures per second.'),
]
BOOLEANS = ['true', 'false', 'True', 'False']
CHOICES = {  # '' leaves it to params_file
    'transport': ['', 'raw', 'compressed'],
    'autostart': ['', *BOOLEANS],
    'log_level': ['debug', 'info', 'warn', 'error', 'fatal'],
    'use_image_source': BOOLEANS,
}


def generate_launch_description():
    """Describe the processes and what they are given."""
    # The DDS profile that lets large pictures through, unless the user has chosen another.
    variables, warning = profile_environment(os.environ)
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name, default_value=default, description=about, choices=CHOICES.get(name)
                )
                for name, default, about in ARGUMENTS
            ),
            *(SetEnvironmentVariable(name, path) for name, path in variables.items()),
            *([LogInfo(msg=warning)] if warning else []),
            OpaqueFunction(function=describe_nodes),
        ]
    )


def describe_nodes(context):
    """Give the nodes, now that the arguments have their values."""
    given = context.launch_configurations
    overrides = {}
    if given['model']:
        overrides['model_file_path'] = given['model']
    if given['transport']:
        overrides['transport'] = given['transport']
    if given['autostart']:
        overrides['autostart'] = given['autostart'].lower() == 'true'
    shared = {
        'package': 'isaac_infer',
        'namespace': given['namespace'],
        'remappings': [('image', given['image'])],
        'ros_arguments': ['--log-level', given['log_level']],
        'output': 'screen',
    }
    nodes = [
        Node(
            executable='detector_node',
            name=given['name'],
            parameters=[given['params_file'], *([overrides] if overrides else [])],
            **shared,
        )
    ]
    if given['use_image_source'].lower() == 'true':
        source = {'source': given['source'], 'rate': number_of(given, 'rate')}
        nodes.append(Node(executable='image_source', parameters=[source], **shared))
    return nodes


def number_of(given, name):
    """Give the number in an argument."""
    try:
        return float(given[name])
    except ValueError:
        raise ValueError(f'{name}: expected a number, got {given[name]!r}') from None
