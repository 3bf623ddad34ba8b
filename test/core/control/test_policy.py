"""Policies: what they are fed with, how they are read, on real models that are worked out by hand."""

import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from onnx import TensorProto, helper

from isaac_infer.core.control.command import Command
from isaac_infer.core.control.observation import Imu, Sources
from isaac_infer.core.control.policy import Policy, read_bindings
from isaac_infer.core.control.scan import read_scan
from isaac_infer.core.errors import ModelError, ParameterError, SessionError, TensorError
from isaac_infer.core.fit import fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.spec import ImageSpec
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.engine.load import open_session
from models import save_model

FLOAT = TensorProto.FLOAT
TWO = {'linear.x': {'index': 0}, 'angular.z': {'index': 1}}
HALF = math.sqrt(0.5)
COMMAND = {'observation': 'command'}


def linear_policy(path, weights, *, type=FLOAT, shape=None):
    """A policy `action = observation @ weights`: (n, 2) by default 1 x n to 1 x 2."""
    dtype = helper.tensor_dtype_to_np_dtype(type)
    weights = np.asarray(weights, dtype)
    return save_model(
        path / 'policy.onnx',
        [helper.make_node('MatMul', ['observation', 'weights'], ['action'])],
        {'observation': (type, shape or (1, len(weights)))},
        {'action': (type, (1, weights.shape[1]))},
        constants={'weights': weights},
    )


def echo_policy(path, size, *, type=FLOAT, shape=None):
    """A policy that answers what it observes, so that this can be looked at."""
    shape = shape or (1, size)
    nodes = [helper.make_node('Identity', ['observation'], ['action'])]
    return save_model(path / 'echo.onnx', nodes, {'observation': (type, shape)}, {'action': (type, shape)})


@pytest.fixture
def session_of():
    sessions = []

    def open_one(path):
        sessions.append(open_session(path, backend='onnxruntime'))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


@pytest.fixture
def observed(session_of, tmp_path):
    """Give what an input of some size holds when it is bound like this and fed with these sources."""

    def observe(binding, sources, *, size):
        session = session_of(echo_policy(tmp_path, size))
        policy = Policy(session, {'inputs': {'observation': binding}, 'outputs': {'linear.x': 0}})
        policy.fill(sources)
        return session.run()['action'].ravel().tolist()

    return observe


def step(policy, session, sources):
    policy.fill(sources)
    return policy.command_of(session.run())


def four_beams(ranges):
    """A scan that looks back right, ahead right, ahead left and back left."""
    return read_scan(
        ranges, angle_min=-0.75 * math.pi, angle_increment=math.pi / 2, range_min=0.1, range_max=9
    )


SCAN = four_beams([1.0, 2.0, math.inf, math.nan])
IMU = Imu((0.1, 0.2, 0.3), (1.0, 2.0, 9.8), (0.0, 0.0, 2 * HALF, 2 * HALF))


def test_a_command_goes_through_a_linear_policy(session_of, tmp_path):
    session = session_of(linear_policy(tmp_path, [[1, 0], [0, 2]]))
    policy = Policy(session, {'inputs': {'observation': 'command'}, 'outputs': TWO})
    assert policy.needs == {'command'}
    command = step(policy, session, Sources(command=Command(0.25, 0.0, -0.5)))
    assert command == Command(0.25, 0.0, -1.0)


def test_several_sources_follow_each_other_in_one_input(session_of, tmp_path):
    # 2 of the scan, 1 of the unit, 2 of the command, 2 of the last action
    weights = np.array([[1, 0], [10, 0], [0, 1], [100, 0], [0, 100], [0, 0.5], [0.25, 0]])
    session = session_of(linear_policy(tmp_path, weights))
    scan = {'scan': {'beams': 2, 'sector_deg': [-90, 90], 'max_m': 4}}
    imu = {'imu': {'fields': ['angular_velocity.z']}}
    bindings = {'inputs': {'observation': [scan, imu, 'command', 'last_action']}, 'outputs': TWO}
    policy = Policy(session, bindings)
    assert policy.needs == {'scan', 'imu', 'command'}
    sources = Sources(scan=SCAN, imu=IMU, command=Command(0.5, 0.0, 0.25))
    first = step(policy, session, sources)
    assert first.linear_x == pytest.approx(2 + 40 + 50)
    assert first.angular_z == pytest.approx(0.3 + 25)
    second = step(policy, session, sources)
    assert second.linear_x == pytest.approx(first.linear_x + 0.25 * first.angular_z)
    assert second.angular_z == pytest.approx(first.angular_z + 0.5 * first.linear_x)
    policy.reset()
    assert step(policy, session, sources) == first


def test_a_scan_without_a_number_of_beams_takes_what_the_others_leave(observed):
    sources = Sources(scan=SCAN, command=Command(0.5, 0.0, 0.25))
    found = observed([{'scan': {'max_m': 4}}, 'command'], sources, size=6)
    assert found == [1, 2, 4, 0, 0.5, 0.25]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'max_m': 4}, [1, 2, 4, 0]),  # free: max_m; not measured: nothing is known to be free
        ({'max_m': 1.5}, [1, 1.5, 1.5, 0]),
        ({'max_m': 4, 'min_m': 1.25}, [1.25, 2, 4, 1.25]),
        ({'max_m': 4, 'unknown_m': 4}, [1, 2, 4, 4]),
        ({'max_m': 4, 'scale': 0.25}, [0.25, 0.5, 1, 0]),
        ({'max_m': 4, 'mean': 2, 'std': 2}, [-0.5, 0, 1, -1]),
        ({'max_m': 4, 'mean': 2, 'std': [1, 1, 2, 4]}, [-1, 0, 1, -0.5]),
        ({'max_m': 4, 'mean': 2, 'clip': [-1, 1.5]}, [-1, 0, 1.5, -1]),
        ({'max_m': '4', 'scale': '0.5'}, [0.5, 1, 2, 0]),  # as a document has it
    ],
)
def test_a_scan_is_clipped_and_normalised(observed, options, expected):
    assert observed({'scan': {'beams': 4, **options}}, Sources(scan=SCAN), size=4) == expected


@pytest.mark.parametrize(
    ('fields', 'expected'),
    [
        ('yaw', [math.pi / 2]),
        (['angular_velocity.x', 'linear_acceleration.z'], [0.1, 9.8]),
        (['orientation.x', 'orientation.y', 'orientation.z', 'orientation.w'], [0, 0, HALF, HALF]),
        (['roll', 'pitch'], [0, 0]),
    ],
)
def test_an_inertial_unit_tells_what_is_named(observed, fields, expected):
    found = observed({'imu': {'fields': fields}}, Sources(imu=IMU), size=len(expected))
    assert found == pytest.approx(expected)


def test_an_inertial_unit_tells_rates_and_accelerations_unasked(observed):
    assert observed('imu', Sources(imu=IMU), size=6) == pytest.approx([0.1, 0.2, 0.3, 1, 2, 9.8])


@pytest.mark.parametrize(
    ('orientation', 'angles'),
    [
        ((HALF, 0.0, 0.0, HALF), (math.pi / 2, 0, 0)),
        ((0.0, 0.5, 0.0, math.sqrt(0.75)), (0, math.pi / 3, 0)),
        ((0.0, 0.0, -HALF, HALF), (0, 0, -math.pi / 2)),
        ((0.5, 0.5, 0.5, 0.5), (math.pi / 2, 0, math.pi / 2)),
    ],
)
def test_an_orientation_is_told_in_angles_too(observed, orientation, angles):
    sources = Sources(imu=Imu(orientation=orientation))
    found = observed({'imu': {'fields': ['roll', 'pitch', 'yaw']}}, sources, size=3)
    assert found == pytest.approx(angles, abs=1e-3)


def test_the_sideward_part_of_a_command_is_told_where_it_is_named(observed):
    fields = {'command': {'fields': ['linear.y', 'linear.x'], 'scale': 2}}
    assert observed(fields, Sources(command=Command(0.1, 0.2)), size=2) == pytest.approx([0.4, 0.2])


@pytest.mark.parametrize('type', [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_policies_compute_in_other_floats(session_of, tmp_path, type):
    session = session_of(linear_policy(tmp_path, [[1, 0], [0, 2]], type=type))
    policy = Policy(session, {'inputs': {'observation': 'command'}, 'outputs': TWO})
    assert step(policy, session, Sources(command=Command(0.25, 0.0, -0.5))) == Command(0.25, 0.0, -1.0)


@pytest.mark.parametrize('shape', [('batch', 2), (1, 'n'), (1, 1, 2), ('n',), (2,), ('batch', 'n')])
def test_an_input_may_have_any_shape_of_its_size(session_of, tmp_path, shape):
    session = session_of(
        save_model(
            tmp_path / 'any.onnx',
            [helper.make_node('Reshape', ['observation', 'flat'], ['action'])],
            {'observation': (FLOAT, shape)},
            {'action': (FLOAT, (1, 2))},
            constants={'flat': np.array([1, 2])},
        )
    )
    policy = Policy(session, {'inputs': {'observation': 'command'}, 'outputs': TWO})
    assert step(policy, session, Sources(command=Command(0.25, 0.0, 0.5))) == Command(0.25, 0.0, 0.5)


def test_an_output_is_scaled_moved_and_limited(session_of, tmp_path):
    session = session_of(linear_policy(tmp_path, np.eye(2)))
    outputs = {
        'linear.x': {'index': 1, 'scale': 2, 'offset': 0.1, 'limits': [-0.5, 0.5]},
        'linear.y': {'output': 'action', 'index': '0', 'scale': '-1'},
    }
    policy = Policy(session, {'inputs': {'observation': 'command'}, 'outputs': outputs})
    assert step(policy, session, Sources(command=Command(0.3, 0.0, 0.15))).linear_x == pytest.approx(0.4)
    assert step(policy, session, Sources(command=Command(0.3, 0.0, 9.0))).linear_x == 0.5
    command = step(policy, session, Sources(command=Command(0.3, 0.0, -9.0)))
    assert command == Command(-0.5, pytest.approx(-0.3), 0.0)


def picture_policy(path, *, shape=(1, 3, 2, 4), type=FLOAT):
    """A policy that answers the mean of its picture, and the picture."""
    nodes = [
        helper.make_node('Identity', ['picture'], ['pixels']),
        helper.make_node('Cast', ['picture'], ['floats'], to=FLOAT),
        helper.make_node('ReduceMean', ['floats'], ['mean'], keepdims=0),
    ]
    outputs = {'pixels': (type, [1, *shape[1:]]), 'mean': (FLOAT, [])}
    return save_model(path / 'picture.onnx', nodes, {'picture': (type, shape)}, outputs)


def policy_of_picture(session, binding):
    outputs = {'linear.x': {'output': 'mean', 'index': 0}}
    return Policy(session, {'inputs': {'picture': binding}, 'outputs': outputs})


def fed_picture(session, binding, frame):
    policy = policy_of_picture(session, binding)
    assert policy.needs == {'image'}
    command = step(policy, session, Sources(image=frame))
    pixels = session.run()['pixels']
    assert command.linear_x == pytest.approx(pixels.mean(), abs=1e-3)
    return pixels


FRAME = Frame(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))


@pytest.mark.parametrize('resize', ['letterbox', 'stretch'])
def test_a_picture_is_prepared_as_for_a_perception_model(session_of, tmp_path, resize):
    options = {'resize': resize, 'mean': [0.1, 0.2, 0.3], 'std': [0.5], 'channel_order': 'bgr'}
    found = fed_picture(session_of(picture_policy(tmp_path)), {'image': options}, FRAME)
    spec = ImageSpec('', (2, 4), resize=resize, mean=(0.1, 0.2, 0.3), std=(0.5,), channel_order='bgr')
    expected = np.empty(spec.shape, np.float32)
    assert Preparer(spec)(FRAME, expected) == fit_picture((5, 7), (2, 4), resize=resize)
    assert np.array_equal(found, expected)


def test_a_picture_is_stretched_unasked_and_goes_from_0_to_1(session_of, tmp_path):
    blue = Frame(np.full((6, 6, 3), (255, 51, 0), np.uint8))
    found = fed_picture(session_of(picture_policy(tmp_path)), 'image', blue)
    assert found[0, :, 0, 0] == pytest.approx([0, 0.2, 1]) and (found == found[:, :, :1, :1]).all()


def test_a_picture_may_be_bytes_with_the_channels_last(session_of, tmp_path):
    session = session_of(picture_policy(tmp_path, shape=(1, 5, 7, 3), type=TensorProto.UINT8))
    assert np.array_equal(fed_picture(session, 'image', FRAME)[0], FRAME.image[..., ::-1])


def test_a_picture_may_be_grey_and_of_a_size_that_is_said(session_of, tmp_path):
    session = session_of(picture_policy(tmp_path, shape=('batch', 1, 'height', 'width')))
    found = fed_picture(session, {'image': {'size': [3, 4]}}, Frame(np.full((6, 8, 3), 51, np.uint8)))
    assert found.shape == (1, 1, 3, 4) and found == pytest.approx(0.2)


def two_inputs(path):
    return save_model(
        path / 'two.onnx',
        [
            helper.make_node('ReduceMean', ['picture'], ['mean'], axes=[1, 2, 3], keepdims=0),
            helper.make_node('Add', ['mean', 'observation'], ['action']),
        ],
        {'picture': (FLOAT, (1, 3, 4, 4)), 'observation': (FLOAT, (1, 2))},
        {'action': (FLOAT, (1, 2))},
    )


def test_pictures_and_numbers_go_into_inputs_of_their_own(session_of, tmp_path):
    session = session_of(two_inputs(tmp_path))
    policy = Policy(session, {'inputs': {'picture': 'image', 'observation': 'command'}, 'outputs': TWO})
    white = Frame(np.full((4, 4, 3), 255, np.uint8))
    command = step(policy, session, Sources(image=white, command=Command(0.5, 0.0, -0.25)))
    assert command == Command(1.5, 0.0, 0.75)


def test_nothing_is_allocated_where_the_network_reads(session_of, tmp_path):
    session = session_of(echo_policy(tmp_path, 2))
    policy = Policy(session, {'inputs': {'observation': 'command'}, 'outputs': {'linear.x': 0}})
    buffer = session.input_buffer('observation', (1, 2))
    for speed in (0.25, 0.5):
        policy.fill(Sources(command=Command(speed)))
        assert buffer.tolist() == [[speed, 0]]


SOURCES = Sources(scan=SCAN, imu=IMU, command=Command(0.5))


@pytest.mark.parametrize(
    ('sources', 'message'),
    [
        (Sources(), 'scan: the policy needs one, none came'),
        (Sources(scan=SCAN), 'imu: the policy needs one'),
        (Sources(scan=SCAN, imu=IMU), 'command: the policy needs one'),
        (
            Sources(None, SCAN, Imu((0.0, math.nan, 0.0)), Command()),
            'observation: imu: .* got nan as number 1',
        ),
        (Sources(None, SCAN, IMU, Command(0, 0, math.inf)), 'observation: command: .* got inf as number 1'),
        (Sources(None, SCAN, IMU, Command(1e300)), 'expected finite float32, got inf as number 0'),
    ],
)
def test_a_source_that_is_missing_or_not_finite_is_refused(session_of, tmp_path, sources, message):
    session = session_of(echo_policy(tmp_path, 12))
    binding = [{'scan': {'max_m': 4}}, {'imu': {'clip': [-1, 1]}}, 'command']
    policy = Policy(session, {'inputs': {'observation': binding}, 'outputs': {'linear.x': 0}})
    policy.fill(SOURCES)
    with pytest.raises(TensorError, match=message):
        policy.fill(sources)


def test_a_picture_that_is_missing_is_refused(session_of, tmp_path):
    policy = policy_of_picture(session_of(picture_policy(tmp_path)), 'image')
    with pytest.raises(TensorError, match='image: the policy needs one'):
        policy.fill(Sources())


@pytest.mark.parametrize('orientation', [None, (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, math.nan)])
def test_an_orientation_that_the_unit_does_not_tell_is_refused(observed, orientation):
    sources = Sources(imu=Imu(orientation=orientation))
    with pytest.raises(TensorError, match='imu: the policy needs an orientation'):
        observed({'imu': {'fields': 'yaw'}}, sources, size=1)


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_an_error_and_not_remembered(session_of, tmp_path, bad):
    session = session_of(linear_policy(tmp_path, np.eye(2)))
    policy = Policy(session, {'inputs': {'observation': 'last_action'}, 'outputs': {'linear.x': 0}})
    with pytest.raises(SessionError, match=f'action: expected finite numbers, got {bad} as number 1'):
        policy.command_of({'action': np.array([[0.5, bad]], np.float32)})
    assert step(policy, session, Sources()) == Command()


def test_a_command_that_is_scaled_beyond_all_numbers_is_an_error(session_of, tmp_path):
    session = session_of(linear_policy(tmp_path, np.eye(2)))
    policy = Policy(session, {'inputs': COMMAND, 'outputs': {'linear.x': {'index': 0, 'scale': 1e308}}})
    with pytest.raises(SessionError, match='expected a finite command, got .*inf.* see scale and offset'):
        policy.command_of({'action': np.full((1, 2), 10, np.float32)})


def test_an_answer_of_another_length_is_an_error(session_of, tmp_path):
    session = session_of(linear_policy(tmp_path, np.eye(2)))
    policy = Policy(session, {'inputs': {'observation': 'command'}, 'outputs': TWO})
    with pytest.raises(SessionError, match='action: expected 2 numbers, got 3'):
        policy.command_of({'action': np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    ('bindings', 'error', 'message'),
    [
        (None, ParameterError, 'outputs: expected some of linear.x, linear.y, angular.z, got none'),
        ({'inputs': None}, ModelError, r'expected what feeds observation float32\[1, 2\], got nothing'),
        ([], ParameterError, r'policy: expected options by name, got \[\]'),
        ({'input': {}}, ParameterError, 'policy: there is no input; it has inputs, outputs'),
        ({'inputs': {}, 'outputs': TWO}, ModelError, 'got nothing; bind it to some of image, scan, imu'),
        (
            {'inputs': {**COMMAND, 'lidar': 'scan'}, 'outputs': TWO},
            ModelError,
            r'inputs: the model has no lidar; it has observation float32\[1, 2\]',
        ),
        ({'inputs': {'observation': 'radar'}}, ParameterError, "one of image, scan, imu, .*, got 'radar'"),
        ({'inputs': {'observation': 3}}, ParameterError, 'observation: expected a source, .* got 3'),
        ({'inputs': {'observation': []}}, ModelError, 'expected 2 numbers, got 0'),
        ({'inputs': {'observation': [{'imu': None, 'scan': None}]}}, ParameterError, 'expected a source'),
        (
            {'inputs': {'observation': ['command', 'last_action']}},
            ModelError,
            'expected 2 numbers, got 4: command 2, last_action 2; change beams or fields',
        ),
        ({'inputs': {'observation': 'image'}}, ModelError, r'expected a picture, .* bind another source'),
        ({'inputs': {'observation': ['image', 'scan']}}, ParameterError, 'expected an image alone, or none'),
        ({'inputs': {'observation': {'scan': {'beams': 2}}}}, ParameterError, 'scan: max_m: .* got none'),
        (
            {'inputs': {'observation': {'scan': {'beams': 2, 'max': 4}}}},
            ParameterError,
            r"scan: max_m: .* got none; did you mean 'max' for it\?",
        ),
        ({'inputs': {'observation': ['command', 'scan']}}, ParameterError, 'observation: scan: beams: '),
        ({'inputs': {'observation': {'scan': {'beams': 1.5}}}}, ParameterError, 'whole number .* got 1.5'),
        ({'inputs': {'observation': {'scan': {'beams': 'many'}}}}, ParameterError, "number, got 'many'"),
        (
            {'inputs': {'observation': {'scan': {'max_m': 4, 'max': 4}}}},
            ParameterError,
            'there is no max; it has',
        ),
        (
            {'inputs': {'observation': {'scan': {'max_m': 4, 'sector_deg': [90, -90]}}}},
            ParameterError,
            'sector_deg: .* got 90 to -90',
        ),
        ({'inputs': {'observation': {'scan': {'max_m': 4, 'std': 0}}}}, ParameterError, 'std: .* above 0'),
        ({'inputs': {'observation': {'scan': {'max_m': 4, 'mean': [1, 2, 3]}}}}, ParameterError, 'got 3'),
        ({'inputs': {'observation': {'scan': {'max_m': math.nan}}}}, ParameterError, 'got nan'),
        ({'inputs': {'observation': {'imu': {'fields': 'heading'}}}}, ParameterError, "yaw, got 'heading'"),
        (
            {'inputs': {'observation': {'command': {'fields': []}}}},
            ParameterError,
            r'some of linear.x, .* got \[\]',
        ),
        (
            {'inputs': {'observation': {'command': {'clip': [1, -1]}}}},
            ParameterError,
            'the lower number first',
        ),
        ({'inputs': {'observation': {'command': ['scale']}}}, ParameterError, 'expected options by name'),
        (
            {'inputs': COMMAND, 'outputs': {}},
            ParameterError,
            'expected some of linear.x, linear.y, angular.z',
        ),
        ({'inputs': COMMAND, 'outputs': {'angular.x': 1}}, ParameterError, 'outputs: there is no angular.x'),
        (
            {'inputs': COMMAND, 'outputs': {'linear.x': 2}},
            ModelError,
            r'0 to 1 in action float32\[1, 2\], got 2',
        ),
        ({'inputs': COMMAND, 'outputs': {'linear.x': {}}}, ModelError, 'index: expected 0 to 1 .* got none'),
        (
            {'inputs': COMMAND, 'outputs': {'linear.x': -1}},
            ParameterError,
            'index: expected a whole number from 0 to .* got -1',
        ),
        (
            {'inputs': COMMAND, 'outputs': {'linear.x': {'output': 'actions', 'index': 0}}},
            ModelError,
            r'there is no actions; it has action float32\[1, 2\]',
        ),
        (
            {'inputs': COMMAND, 'outputs': {'linear.x': {'index': 0, 'limits': [1, -1]}}},
            ParameterError,
            'limits: expected the lower number first',
        ),
        (
            {'inputs': COMMAND, 'outputs': {'linear.x': {'index': 0, 'gain': 2}}},
            ParameterError,
            'outputs: linear.x: there is no gain; it has output, index, scale, offset, limits',
        ),
    ],
)
def test_bindings_that_do_not_fit_are_refused(session_of, tmp_path, bindings, error, message):
    session = session_of(linear_policy(tmp_path, np.eye(2)))
    if isinstance(bindings, dict) and 'inputs' in bindings:
        bindings = {'outputs': TWO, **bindings}
    with pytest.raises(error, match=message):
        Policy(session, bindings)


def test_an_input_of_whole_numbers_is_refused(session_of, tmp_path):
    session = session_of(echo_policy(tmp_path, 2, type=TensorProto.INT64))
    with pytest.raises(ModelError, match=r'observation int64\[1, 2\]: expected an input of floats'):
        Policy(session, {'inputs': COMMAND, 'outputs': {'linear.x': 0}})


@pytest.mark.parametrize(
    ('shape', 'options', 'message'),
    [
        ((1, 2, 4, 4), {}, 'with 1 or 3 channels; bind another source'),
        ((2, 3, 4, 4), {}, 'bind another source'),
        ((1, 3, 4, 3), {}, 'say layout'),
        (
            (1, 3, 'height', 'width'),
            {},
            r'size: expected height and width in pixels, got \[-1, -1\]; say size',
        ),
        ((1, 3, 4, 4), {'size': [8, 8]}, 'the model does not take'),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(session_of, tmp_path, shape, options, message):
    with pytest.raises(ModelError, match=message):
        fed_picture(session_of(picture_policy(tmp_path, shape=shape)), {'image': options}, FRAME)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'resize': 'shrink'}, "resize: expected one of letterbox, .* got 'shrink'"),
        ({'channel_order': 'gray'}, "channel_order: expected one of rgb, bgr, got 'gray'"),
        ({'std': [0.0]}, 'picture: image: std cannot be'),
        ({'pad_value': 300}, 'pad_value cannot be 300'),
        ({'beams': 3}, 'there is no beams'),
    ],
)
def test_options_of_a_picture_that_cannot_be_are_refused(session_of, tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        fed_picture(session_of(picture_policy(tmp_path)), {'image': options}, FRAME)


DOCUMENT = """
inputs:
  observation: [scan: {sector_deg: [-90, 90], max_m: 4.0, scale: 0.25}, command, last_action]
outputs:
  linear.x: {index: 0, scale: 0.5, limits: [-0.1, 0.5]}
  angular.z: 1
"""


def test_a_document_binds_a_policy(session_of, tmp_path):
    (tmp_path / 'policy.yaml').write_text(DOCUMENT)
    session = session_of(linear_policy(tmp_path, [[1, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]))
    policy = Policy(session, read_bindings(tmp_path / 'policy.yaml'))
    command = step(policy, session, Sources(scan=SCAN, command=Command()))
    assert command == Command(0.25, 0.0, 1.0)


def test_the_document_in_the_readme_binds_a_policy(session_of, tmp_path):
    readme = (Path(__file__).resolve().parents[3] / 'README.md').read_text()
    (document,) = [
        part for part in re.findall('```yaml\n(.*?)```', readme, re.DOTALL) if 'last_action' in part
    ]
    (tmp_path / 'policy.yaml').write_text(document)
    session = session_of(
        save_model(
            tmp_path / 'policy.onnx',
            [
                helper.make_node('ReduceMean', ['picture'], ['brightness'], axes=[1, 2, 3], keepdims=0),
                helper.make_node('Slice', ['observation', 'begin', 'end', 'axis'], ['command']),
                helper.make_node('Add', ['command', 'brightness'], ['action']),
            ],
            {'picture': (FLOAT, (1, 3, 8, 8)), 'observation': (FLOAT, (1, 36 + 3 + 2 + 2))},
            {'action': (FLOAT, (1, 2))},
            constants={'begin': np.array([39]), 'end': np.array([41]), 'axis': np.array([1])},
        )
    )
    policy = Policy(session, read_bindings(tmp_path / 'policy.yaml'))
    mean_colour = Frame(np.full((8, 8, 3), (104, 116, 124), np.uint8))  # what the normalisation makes 0 of
    command = step(policy, session, Sources(mean_colour, SCAN, IMU, Command(0.4, 0.0, 0.2)))
    assert command == Command(pytest.approx(0.2, abs=0.01), 0.0, pytest.approx(0.3, abs=0.01))


@pytest.mark.parametrize('text', [None, 'inputs: [', 'a: &a 1\nb: *a'])
def test_a_document_that_cannot_be_read_is_an_error(tmp_path: Path, text):
    path = tmp_path / 'policy.yaml'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParameterError, match='policy.yaml: the bindings of a policy cannot be read'):
        read_bindings(path)


class NoSession:
    """Takes shapes and computes nothing: thousands of documents are tried on it."""

    inputs = (
        TensorSpec('observation', (1, -1), np.dtype(np.float32)),
        TensorSpec('picture', (1, 3, 2, 4), np.dtype(np.float32)),
    )
    outputs = (TensorSpec('action', (1, 2), np.dtype(np.float32)),)

    def input_buffer(self, name, shape):
        assert math.prod(shape) < 1 << 28
        return np.zeros(shape, np.float32)


words = some.sampled_from(
    ['image', 'scan', 'imu', 'command', 'last_action', 'linear.x', 'action', 'yaw', 'rgb']
)
keys = words | some.sampled_from(
    'inputs outputs observation picture beams sector_deg max_m min_m unknown_m scale mean std clip fields '
    'index offset limits output resize size layout pad_value channel_order'.split()
)
scalars = words | some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=3)
scalars |= some.sampled_from([0, 1, 2, 8, -1, 10**400, '1e400', 1e308, [2, 3], [-90, 90]])
values = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


def of_kind(kind, *options, **fixed):
    """A source with some options that may be right, and at most one that is anything."""
    good = some.sampled_from([0, 1, 2, 8, 0.5, '0.25', [2, 3], [-90, 90], 'yaw', ['linear.x'], 'stretch'])
    often = some.dictionaries(some.sampled_from(options), good, max_size=2).map(
        lambda chosen: {**fixed, **chosen}
    )
    return some.fixed_dictionaries(
        {kind: often | some.dictionaries(some.sampled_from(options), values, max_size=3)}
    )


scan = of_kind('scan', 'beams', 'sector_deg', 'min_m', 'unknown_m', 'scale', 'mean', 'std', beams=2, max_m=4)
sources = scan | of_kind('imu', 'fields', 'scale') | of_kind('command', 'fields', 'mean', 'clip')
pictures = of_kind('image', 'resize', 'size', 'layout', 'pad_value', 'channel_order', 'scale', 'std')
axis = some.sampled_from([0, 1, {'index': 1, 'scale': 1e308}]) | some.fixed_dictionaries(
    {'index': some.just(0)}, optional=dict.fromkeys(('scale', 'offset', 'limits', 'output'), values)
)
documents = values | some.fixed_dictionaries(
    {
        'inputs': some.fixed_dictionaries(
            {
                'observation': some.lists(sources, min_size=1, max_size=3) | values,
                'picture': some.just('image') | pictures | values,
            }
        ),
        'outputs': some.dictionaries(some.sampled_from(['linear.x', 'angular.z']), axis | values, min_size=1),
    }
)


@given(documents)
def test_whatever_a_document_says_it_binds_or_is_refused(document):
    try:
        policy = Policy(NoSession(), document)
    except (ModelError, ParameterError):
        return
    # Numbers that are finite, but not in float32, or not as a command.
    with suppress(TensorError):
        policy.fill(Sources(FRAME, SCAN, IMU, Command(0.5)))
    with suppress(SessionError):
        assert policy.command_of({'action': np.array([[0.5, 1]], np.float32)}).is_finite


def test_a_parameter_file_is_no_bindings_and_named_as_what_it_is(tmp_path):
    path = tmp_path / 'jetson.yaml'
    path.write_text('/**:\n  ros__parameters: {rate: 1.0}\n')
    with pytest.raises(
        ParameterError, match=r'jetson\.yaml: expected the bindings of a policy .*, got a parameter'
    ):
        read_bindings(path)
