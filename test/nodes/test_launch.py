"""The launch files: what they say without ROS 2's launch, which is not on PyPI, and what it makes of them."""

import importlib.util
import runpy
import xml.etree.ElementTree as ElementTree
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import pytest

from isaac_infer.nodes.detector_node import DETECTOR as DETECTOR_NODE
from isaac_infer.nodes.pose_node import POSE as POSE_NODE
from isaac_infer.nodes.segmentation_node import SEGMENTER as SEGMENTATION_NODE
from isaac_infer.params import ImageSourceParams
from isaac_infer.ros.launching import (
    DETECTOR,
    KINDS,
    POSE,
    SEGMENTATION,
    arguments_of,
    file_of,
    name_of,
    nodes_of,
    number_of,
    overrides_of,
    remappings_of,
)

FOLDER = Path(__file__).parents[2] / 'launch'
CONFIG = FOLDER.parent / 'config'
FILES = {'detector': (DETECTOR,), 'segmentation': (SEGMENTATION,), 'pose': (POSE,), 'perception': KINDS}
NODES = {node.name: node for node in (DETECTOR_NODE, SEGMENTATION_NODE, POSE_NODE)}
WORDS = {'autostart': 'maybe', 'use_image_source': '1', 'transport': 'shared', 'log_level': 'loud'}
SHARE = '$(find-pkg-share isaac_infer)'

# Of launch_ros: the folder of launch files here could pass for an empty package `launch`.
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec('launch_ros') is None,
    reason='launch_ros is not installed; it comes with ROS 2, not from PyPI',
)


def xml_of(name):
    return ElementTree.parse(FOLDER / f'{name}.launch.xml').getroot()


def values_of(*kinds, **given):
    """Give the values that the arguments of a launch file have."""
    defaults = {each.name: '/p.yaml' if each.is_config else each.default for each in arguments_of(*kinds)}
    assert set(given) <= set(defaults)
    return {**defaults, **given}


# --- without launch -----------------------------------------------------------------------------------------


def test_every_file_that_starts_something_is_there_as_python_and_as_xml():
    names = {*FILES, 'jetson'}  # jetson: test_launch_jetson.py
    assert {path.name.partition('.')[0] for path in FOLDER.glob('*.launch.xml')} == names
    assert {path.name.partition('.')[0] for path in FOLDER.glob('*.launch.py')} == {
        *names,
        'check_arguments',
        'dds_profile',
    }


@pytest.mark.parametrize('name', FILES)
def test_every_argument_is_documented_once_and_its_default_is_among_its_choices(name):
    arguments = arguments_of(*FILES[name])
    assert len({argument.name for argument in arguments}) == len(arguments)
    for argument in arguments:
        assert argument.about.endswith('.')
        assert not argument.choices or argument.default in argument.choices
        if argument.is_config:
            assert (FOLDER.parent / 'config' / argument.default).is_file()


def test_the_detector_keeps_its_arguments():
    names = (
        'model image transport autostart params_file name namespace log_level use_image_source source rate'
    )
    assert {argument.name for argument in arguments_of(DETECTOR)} == set(names.split())


@pytest.mark.parametrize('name', FILES)
def test_xml_has_the_arguments_that_python_has(name):
    found = [
        (
            element.get('name'),
            element.get('default'),
            element.get('description'),
            tuple(choice.get('value') for choice in element),
        )
        for element in xml_of(name).findall('arg')
    ]
    wanted = [
        (
            argument.name,
            f'{SHARE}/config/{argument.default}' if argument.is_config else argument.default,
            argument.about,
            argument.choices,
        )
        for argument in arguments_of(*FILES[name])
    ]
    assert found == wanted


@pytest.mark.parametrize('name', FILES)
def test_xml_sets_the_dds_profile_before_it_starts_anything(name):
    _, second, *others = (element for element in xml_of(name) if element.tag != 'arg')
    assert (second.tag, second.get('file')) == ('include', f'{SHARE}/launch/dds_profile.launch.py')
    assert {element.tag for element in others} == {'group', 'node'}


@pytest.mark.parametrize('name', FILES)
def test_xml_starts_each_node_with_its_parameters_and_topics(name):
    kinds = FILES[name]
    groups = list(xml_of(name).iter('group'))
    assert len(groups) == len(kinds)
    for group, kind in zip(groups, kinds):
        prefix = f'{kind.noun}_' if len(kinds) > 1 else ''
        assert group.get('if') == (f'$(var use_{kind.noun})' if prefix else None)
        (node,) = group.iter('node')
        assert (node.get('exec'), node.get('name')) == (kind.executable, f'$(var {prefix}name)')
        (file,) = group.iter('set_parameters_from_file')
        assert file.get('filename') == f'$(var {prefix}params_file)'
        names = {'model_file_path': f'{prefix}model', 'transport': 'transport', 'autostart': 'autostart'}
        names |= {parameter: argument.name for argument, parameter in kind.more}
        for parameter in group.iter('set_parameter'):
            argument = names.pop(parameter.get('name'))
            assert parameter.get('value') == f'$(var {argument})'
            assert parameter.get('if') == f'$(eval "\\"$(var {argument})\\" != \\"\\"")'
        assert not names
        remapped = {element.get('from'): element.get('to') for element in node.iter('remap')}
        assert remapped.pop('image') == '$(var image)'
        assert remapped == ({topic: f'{kind.noun}/{topic}' for topic in kind.outputs} if prefix else {})


@pytest.mark.parametrize('name', FILES)
def test_xml_starts_the_image_source_on_request(name):
    (node,) = xml_of(name).findall('node')
    assert (node.get('exec'), node.get('if')) == ('image_source', '$(var use_image_source)')
    given = {parameter.get('name') for parameter in node.iter('param')}
    assert given == {'source', 'rate'} <= {field.name for field in fields(ImageSourceParams)}


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.noun)
def test_a_kind_is_the_node_that_it_starts(kind):
    node = NODES[kind.executable]
    assert kind.outputs == (*(output.topic for output in node.outputs), 'label_info')
    names = {field.name for field in fields(node.params)}
    assert {'model_file_path', 'transport', 'autostart', *(name for _, name in kind.more)} <= names


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.noun)
def test_topics_of_a_node_keep_their_names_where_it_is_the_only_one(kind):
    given = values_of(kind, image='/camera/image')
    assert remappings_of(given, kind, kind) == [('image', '/camera/image')]


def test_topics_of_several_nodes_do_not_collide():
    given = values_of(*KINDS)
    topics = [
        topic for kind in KINDS for source, topic in remappings_of(given, kind, *KINDS) if source != 'image'
    ]
    assert {'detector/detections', 'segmentation/mask', 'pose/persons'} < set(topics)
    assert len(topics) == len(set(topics)) == sum(len(kind.outputs) for kind in KINDS)


def test_arguments_that_are_not_given_leave_the_parameter_file_alone():
    assert overrides_of(values_of(POSE), POSE, POSE) == {}


def test_arguments_that_are_given_win_over_the_parameter_file():
    given = values_of(
        *KINDS,
        pose_model='p.onnx',
        persons_topic='detector/detections',
        transport='compressed',
        autostart='False',
    )
    shared = {'transport': 'compressed', 'autostart': False}
    assert overrides_of(given, DETECTOR, *KINDS) == shared
    assert overrides_of(given, POSE, *KINDS) == {
        'model_file_path': 'p.onnx',
        'persons_topic': 'detector/detections',
        **shared,
    }


def test_a_parameter_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match='params_file: expected a file, got'):
        file_of({'params_file': str(tmp_path / 'no.yaml')}, 'params_file')


def test_a_rate_that_is_no_number_is_refused_by_name():
    with pytest.raises(ValueError, match="rate: expected a number, got 'abc'"):
        number_of({'rate': 'abc'}, 'rate')


@pytest.mark.parametrize('word', ['', 'a b', '1st', 'a/b'])
def test_a_name_that_ros_does_not_allow_is_refused_by_name(word):
    with pytest.raises(ValueError, match=f"pose_name: expected letters, digits and _, .* got '{word}'"):
        name_of({'pose_name': word}, 'pose_name')
    assert name_of({'name': '_front2'}, 'name') == '_front2'


@pytest.mark.parametrize('name', FILES)
def test_xml_checks_its_arguments_before_it_starts_anything(name):
    first = next(element for element in xml_of(name) if element.tag != 'arg')
    assert (first.tag, first.get('file')) == ('include', f'{SHARE}/launch/check_arguments.launch.py')
    (nouns,) = first
    assert (nouns.get('name'), nouns.get('value')) == ('nouns', ' '.join(kind.noun for kind in FILES[name]))


# --- with launch --------------------------------------------------------------------------------------------


@pytest.fixture
def unset(monkeypatch):
    """The user has chosen neither middleware nor profile."""
    for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE', 'RMW_IMPLEMENTATION'):
        monkeypatch.delenv(variable, raising=False)


def description_of(file):
    """Load a launch file as `ros2 launch` does."""
    if file.suffix == '.py':
        return runpy.run_path(str(file))['generate_launch_description']()
    from launch.frontend import Parser

    entity, parser = Parser.load(str(file))
    return parser.parse_description(entity)


@needs_launch
@pytest.mark.parametrize('suffix', ['py', 'xml'])
@pytest.mark.parametrize('name', FILES)
def test_launch_reads_every_file_and_its_arguments(name, suffix, unset):
    if suffix == 'xml':
        pytest.importorskip('launch_xml')
    found = description_of(FOLDER / f'{name}.launch.{suffix}').get_launch_arguments()
    assert [each.name for each in found] == [argument.name for argument in arguments_of(*FILES[name])]
    assert all(argument.description and argument.default_value is not None for argument in found)


@needs_launch
@pytest.mark.parametrize('name', [*FILES, 'dds_profile'])
def test_every_process_gets_the_dds_profile(name, unset):
    import launch

    names = [
        entity.name[0].text
        for entity in description_of(FOLDER / f'{name}.launch.py').entities
        if isinstance(entity, launch.actions.SetEnvironmentVariable)
    ]
    assert sorted(names) == ['FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE']


@needs_launch
def test_a_profile_of_the_user_stays(unset, monkeypatch):
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '/mine.xml')
    assert description_of(FOLDER / 'dds_profile.launch.py').entities == []


@needs_launch
@pytest.mark.parametrize(
    ('given', 'executables'),
    [
        ({f'use_{kind.noun}': 'false' for kind in KINDS}, []),
        ({'use_segmentation': 'False', 'use_pose': 'false'}, ['detector_node']),
        (
            {'use_detector': 'false', 'use_image_source': 'true'},
            ['segmentation_node', 'pose_node', 'image_source'],
        ),
    ],
)
def test_what_is_switched_off_is_not_started(given, executables):
    files = {f'{kind.noun}_params_file': str(CONFIG / f'{kind.noun}.yaml') for kind in KINDS}
    nodes = nodes_of(values_of(*KINDS, **files, **given), *KINDS)
    assert [node.node_executable for node in nodes] == executables


@needs_launch
@pytest.mark.parametrize(
    ('given', 'says'),
    [
        ({}, None),
        ({'pose_name': 'bad name'}, "pose_name: expected letters, digits and _, .* got 'bad name'"),
        ({'pose_name': 'bad name', 'use_pose': 'false'}, None),
        ({'pose_params_file': '/no.yaml'}, 'pose_params_file: expected a file'),
        ({'rate': 'abc', 'use_image_source': 'true'}, 'rate: expected a number'),
    ],
)
def test_what_xml_includes_checks_the_arguments_as_python_does(given, says):
    from launch import LaunchContext

    files = {f'{kind.noun}_params_file': str(CONFIG / f'{kind.noun}.yaml') for kind in KINDS}
    context = LaunchContext()
    nouns = ' '.join(kind.noun for kind in KINDS)
    context.launch_configurations.update(values_of(*KINDS, **{**files, **given}), nouns=nouns)
    (check,) = description_of(FOLDER / 'check_arguments.launch.py').entities
    with pytest.raises(ValueError, match=says) if says else nullcontext():
        assert check.execute(context) is None


@needs_launch
@pytest.mark.parametrize('name', WORDS)
def test_a_word_that_means_nothing_is_refused_by_name(name, unset):
    from launch import LaunchContext

    arguments = description_of(FOLDER / 'detector.launch.py').get_launch_arguments()
    (argument,) = [argument for argument in arguments if argument.name == name]
    context = LaunchContext()
    context.launch_configurations[name] = WORDS[name]
    with pytest.raises(RuntimeError, match=name):
        argument.execute(context)
