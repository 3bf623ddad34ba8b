"""Skeletons: the known ones, the user's own, and how they fit to a model."""

from __future__ import annotations

import re

import pytest

from isaac_infer.core.errors import ParameterError
from isaac_infer.core.skeleton import (
    SKELETONS,
    choose_skeleton,
    fit_skeleton,
    read_skeleton,
    skeleton_for,
    skeleton_from,
)

ARM = {'keypoints': ['shoulder', 'left_hand', 'right_hand'], 'links': [['shoulder', 'left_hand'], ['0', 2]]}


@pytest.mark.parametrize(
    ('name', 'count'),
    [('coco17', 17), ('coco17_neck', 18), ('coco18', 18), ('body25', 25), ('mpii16', 16), ('hand21', 21)],
)
def test_known_skeletons_are_whole(name, count):
    skeleton = SKELETONS[name]
    assert len(skeleton) == count
    linked = {index for link in skeleton.links for index in link}
    assert linked == set(range(count))
    reached = {skeleton.links[0][0]}
    for _ in range(count):
        reached |= {index for link in skeleton.links if set(link) & reached for index in link}
    assert reached == linked or name == 'coco17'  # COCO's head hangs in the air


@pytest.mark.parametrize('name', [name for name in SKELETONS if name != 'hand21'])
def test_left_and_right_mirror_one_another(name):
    skeleton = SKELETONS[name]
    left = {re.sub('left', '', skeleton.keypoints[index]) for index in skeleton.left}
    assert left == {re.sub('right', '', skeleton.keypoints[index]) for index in skeleton.right}
    swap = {'left': 'right', 'right': 'left'}
    pairs = {frozenset(skeleton.keypoints[index] for index in link) for link in skeleton.links}
    mirrored = {
        frozenset(re.sub('left|right', lambda word: swap[word[0]], part) for part in pair) for pair in pairs
    }
    assert mirrored == pairs


def test_a_model_gets_the_skeleton_of_its_key_points():
    assert skeleton_for(SKELETONS['coco17'].keypoints) is SKELETONS['coco17']
    turned = skeleton_for(SKELETONS['coco17'].keypoints[::-1])
    names = {frozenset(turned.keypoints[index] for index in link) for link in turned.links}
    coco = SKELETONS['coco17']
    assert names == {frozenset(coco.keypoints[index] for index in link) for link in coco.links}
    assert skeleton_for(['0', '1', '2']).links == ()
    assert skeleton_for([]).keypoints == ()


def test_a_skeleton_is_made_of_names_or_numbers():
    skeleton = skeleton_from(ARM)
    assert skeleton.links == ((0, 1), (0, 2))
    assert (skeleton.left, skeleton.right) == ({1}, {2})
    assert skeleton.colour(1) != skeleton.colour(2) != skeleton.colour(0)
    own = skeleton_from({**ARM, 'left': [], 'right': ['shoulder'], 'colours': {'left_hand': [255, 128, 0]}})
    assert (own.left, own.right, own.colour(1)) == (set(), {0}, (0, 128, 255))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'keypoints': None}, 'a list of 1 to'),
        ({'keypoints': []}, 'a list of 1 to'),
        ({'keypoints': ['a', 'a', 'b']}, "no key point 'shoulder'"),
        ({'keypoints': ['a', 'a', 'b'], 'links': []}, 'a more than once'),
        ({'links': [['shoulder', 'foot']]}, "no key point 'foot'"),
        ({'links': [['shoulder', 7]]}, "no key point '7'"),
        ({'links': [['shoulder', -1]]}, "no key point '-1'"),
        ({'links': [['shoulder', 'shoulder']]}, 'two different'),
        ({'links': ['shoulder']}, 'pairs'),
        ({'links': 'shoulder'}, 'pairs'),
        ({'left': 'shoulder'}, 'a list of names'),
        ({'colours': [1]}, 'a mapping of names'),
        ({'colours': {'shoulder': [1, 2]}}, 'red, green, blue'),
        ({'colours': {'shoulder': [1, 2, 300]}}, 'red, green, blue'),
        ({'colours': {'shoulder': '255'}}, 'red, green, blue'),
        ({'colours': {'shoulder': {1: 1, 2: 2, 3: 3}}}, 'red, green, blue'),
        ({'colours': {'shoulder': [1.5, 2, 3]}}, 'red, green, blue'),
        ({'colors': {}}, 'unknown colors'),
        ({'name': 'x' * 900_000}, 'names of at most 200 characters'),
        ({'links': [['shoulder', 'left_hand']] * 5000}, '4096 links at most, got 5000'),
    ],
)
def test_what_is_no_skeleton_is_an_error_that_says_why(change, words):
    with pytest.raises(ParameterError, match=words):
        skeleton_from({**ARM, **change})


def test_a_skeleton_is_read_from_a_file(tmp_path):
    file = tmp_path / 'gripper.yaml'
    file.write_text('keypoints: [palm, left_tip, right_tip]\nlinks: [[palm, left_tip], [0, 2]]\n')
    skeleton = read_skeleton(file)
    assert (skeleton.name, skeleton.links) == ('gripper', ((0, 1), (0, 2)))
    file.write_text('- palm\n')
    with pytest.raises(ParameterError, match='expected a mapping'):
        read_skeleton(file)
    with pytest.raises(ParameterError, match='cannot be read'):
        read_skeleton(tmp_path / 'none.yaml')


def test_a_skeleton_is_put_into_the_order_of_the_model():
    fitted = fit_skeleton(skeleton_from(ARM), ('right_hand', 'nose', 'shoulder', 'left_hand'))
    assert fitted.links == ((2, 3), (2, 0))
    assert (fitted.left, fitted.right, fitted.left_out) == ({3}, {0}, {1})
    coloured = skeleton_from({**ARM, 'colours': {'left_hand': [255, 128, 0]}})
    assert coloured == skeleton_from({**ARM, 'colours': {'left_hand': '#ff8000'}})
    assert fit_skeleton(coloured, ('left_hand', 'right_hand', 'shoulder')).colour(0) == (0, 128, 255)


def test_a_skeleton_that_names_what_the_model_does_not_have_is_an_error():
    with pytest.raises(ParameterError, match='has no key point left_hand, right_hand; it has shoulder, nose'):
        fit_skeleton(skeleton_from(ARM), ('shoulder', 'nose'))


@pytest.mark.parametrize('name', ['~nosuchuser/x', 'x' * 300, 'coco16', '\0'])
def test_what_is_neither_a_skeleton_nor_a_file_is_said_to_be_none(name):
    with pytest.raises(ParameterError, match='expected a file, or one of coco17'):
        choose_skeleton(name, ('nose',))


@pytest.mark.parametrize(
    'mapping',
    [
        {'name': '\ud800', 'keypoints': ['nose']},
        {'keypoints': ['\ud800']},
        {'keypoints': ['a\nb']},
        {'keypoints': ['nose'], 'colours': {'nose': [float('inf'), 1, 1]}},
    ],
)
def test_names_that_no_message_can_carry_and_endless_colours_are_refused(mapping):
    with pytest.raises(ParameterError):
        skeleton_from(mapping)
