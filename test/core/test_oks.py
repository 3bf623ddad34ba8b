"""Object key point similarity, beside the one that COCO is measured by."""

from __future__ import annotations

import numpy as np
import pytest

from isaac_infer.core.oks import object_keypoint_similarity, sigmas_of
from isaac_infer.core.skeleton import SKELETONS

COCO = sigmas_of(SKELETONS['coco17'].keypoints)
ANYTHING = np.random.default_rng(7)


def coco_oks(found, truth, visible, area, xyxy):
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    measure = cocoeval.COCOeval(iouType='keypoints')
    measure._gts[1, 1] = [
        {
            'keypoints': np.column_stack((truth[row], visible[row])).reshape(-1).tolist(),
            'bbox': [*xyxy[row, :2], *(xyxy[row, 2:] - xyxy[row, :2])],
            'area': area[row],
            'ignore': 0,
        }
        for row in range(len(truth))
    ]
    measure._dts[1, 1] = [
        {'keypoints': np.column_stack((one, np.ones(17))).reshape(-1).tolist(), 'score': -row}
        for row, one in enumerate(found)
    ]
    return np.array(measure.computeOks(1, 1))


@pytest.mark.parametrize('seed', range(8))
def test_it_is_what_pycocotools_reckons(seed):
    random = np.random.default_rng(seed)
    truth = random.uniform(0, 300, (4, 17, 2))
    found = truth[[0, 1, 2]] + random.normal(0, 6, (3, 17, 2)) * random.uniform(0.2, 3, (3, 1, 1))
    visible = random.integers(0, 3, (4, 17))
    visible[3] = 0  # compared by its box instead
    xyxy = np.concatenate((truth.min(axis=1), truth.max(axis=1)), axis=1)
    xyxy[3] = 100, 100, 140, 160
    area = random.uniform(900, 40000, 4)
    got = object_keypoint_similarity(found, truth, visible, area, sigmas=COCO, reference_xyxy=xyxy)
    np.testing.assert_allclose(got, coco_oks(found, truth, visible, area, xyxy), atol=1e-9)


def test_points_in_place_score_one_and_points_far_off_nothing():
    truth = ANYTHING.uniform(0, 100, (2, 17, 2))
    visible, area = np.full((2, 17), 2), np.array([2000.0, 3000.0])
    same = object_keypoint_similarity(truth, truth, visible, area, sigmas=COCO)
    np.testing.assert_allclose(np.diag(same), 1)
    assert object_keypoint_similarity(truth + 1e4, truth, visible, area, sigmas=COCO).max() < 1e-9


def test_nobody_compares_to_nothing():
    nobody = np.empty((0, 17, 2))
    truth = np.zeros((2, 17, 2))
    visible, area = np.ones((2, 17)), np.ones(2)
    assert object_keypoint_similarity(nobody, truth, visible, area, sigmas=COCO).shape == (0, 2)
    none = object_keypoint_similarity(truth, nobody, np.ones((0, 17)), np.ones(0), sigmas=COCO)
    assert none.shape == (2, 0)


def test_a_person_without_annotations_and_box_is_like_nobody():
    points = np.zeros((1, 17, 2))
    assert object_keypoint_similarity(points, points, np.zeros((1, 17)), np.ones(1), sigmas=COCO).item() == 0


@pytest.mark.parametrize('name', SKELETONS)
def test_every_known_key_point_has_its_own_spread(name):
    sigmas = sigmas_of(SKELETONS[name].keypoints)
    assert len(sigmas) == len(SKELETONS[name]) and ((sigmas > 0.02) & (sigmas < 0.2)).all()


def test_sigmas_go_by_the_joint_whatever_the_side():
    assert sigmas_of(['left_knee', 'RIGHT-KNEE', 'knee_l', 'antenna']).tolist() == [
        0.087,
        0.087,
        0.087,
        0.072,
    ]
