"""What the executor reports of itself and its board."""

import pytest
from boards import plant, zones

from isaac_infer.jetson.sysfs import Tree
from isaac_infer.nodes._executor_report import hottest_celsius


@pytest.mark.parametrize(
    ('kinds', 'celsius'),
    [
        ([('cpu-thermal', 46000)], 46.0),
        ([('cpu-thermal', 46000), ('tj-thermal', 50500), ('gpu-thermal', -256000)], 50.5),
    ],
)
def test_the_hottest_part_of_a_board_counts(tmp_path, kinds, celsius):
    assert hottest_celsius(Tree(plant(tmp_path, zones(*kinds)))) == celsius
