"""What segmentation_node tells of the shares of classes."""

import numpy as np
import pytest

from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.frame import Frame
from isaac_infer.core.results import Segmentation, no_detections
from isaac_infer.core.spec import Overrides
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.nodes.segmentation_node import shares
from isaac_infer.ros.perception import Answer


def shares_of(class_map, names):
    """Those of a picture of a network that scores so many classes."""
    spec = resolve_spec(
        [TensorSpec('images', (1, 3, 32, 32), np.dtype(np.float32))],
        [TensorSpec('scores', (1, len(names), 32, 32), np.dtype(np.float32))],
        {},
        Overrides(class_names=tuple(names), decoder='semantic'),
        task='segmentation',
    )
    frame = Frame(np.zeros((*class_map.shape, 3), np.uint8))
    return shares(Answer(Segmentation(no_detections(), (), class_map), frame, spec, None))


NAMES = [f'c{number}' for number in range(256)]


@pytest.mark.parametrize(
    ('names', 'dtype', 'pixels', 'expected'),
    [
        (NAMES[:3], np.uint8, [0, 1, 1, 255], {'c0': '25.0%', 'c1': '50.0%', 'none': '25.0%'}),
        (NAMES, np.uint16, [3, 255, 255, 65535], {'c3': '25.0%', 'c255': '50.0%', 'none': '25.0%'}),
        (
            ['none', 'bin', 'bin'],
            np.uint8,
            [0, 1, 2, 255],
            {'none_0': '25.0%', 'bin_1': '25.0%', 'bin_2': '25.0%', 'none': '25.0%'},
        ),
    ],
)
def test_every_class_of_a_picture_has_its_own_share(names, dtype, pixels, expected):
    found = shares_of(np.array([pixels], dtype), names)
    assert found == {f'share_{name}': share for name, share in expected.items()}
