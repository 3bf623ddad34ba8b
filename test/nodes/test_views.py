"""The views for RViz and Foxglove show what perception.launch.py publishes."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesis, ObjectHypothesisWithPose

from isaac_infer.params.perception import PoseNodeParams
from isaac_infer.ros.launching import KINDS

FOLDER = Path(__file__).parents[2] / 'config'
PUBLISHED = {f'/{kind.noun}/{topic}' for kind in KINDS for topic in kind.outputs} | {'/image', '/diagnostics'}
SHOWN = {
    '/image',
    '/detector/overlay',
    '/segmentation/overlay',
    '/segmentation/mask_color',
    '/pose/overlay',
    '/pose/markers',
}
# Of RViz and of Foxglove, in every supported version.
DISPLAYS = {'rviz_default_plugins/Image', 'rviz_default_plugins/MarkerArray'}
PANELS = {'3D', 'DiagnosticSummary', 'Image', 'RawMessages'}
RVIZ_FOVY = 45  # degrees, fixed


def assert_in_view(distance: float, fovy: float, *, size: tuple[int, int]) -> None:
    """See that markers without depth stay in a 3D view of 4:3 or wider, whatever key point is at the edge."""
    width, height = (pixels * PoseNodeParams().marker_pixel_m for pixels in size)
    seen = 2 * distance * math.tan(math.radians(fovy / 2))
    assert height <= seen
    assert width <= seen * 4 / 3


@pytest.fixture
def rviz():
    return yaml.safe_load((FOLDER / 'perception.rviz').read_text())


@pytest.fixture
def foxglove():
    return json.loads((FOLDER / 'perception_foxglove.json').read_text())


def test_rviz_shows_what_is_published(rviz):
    displays = rviz['Visualization Manager']['Displays']
    assert {display['Class'] for display in displays} == DISPLAYS
    assert {display['Topic']['Value'] for display in displays} == SHOWN <= PUBLISHED


def test_rviz_takes_pictures_from_cameras_that_send_best_effort(rviz):
    for display in rviz['Visualization Manager']['Displays']:
        if display['Class'].endswith('/Image'):
            assert display['Topic']['Reliability Policy'] == 'Best Effort'


def test_rviz_has_a_place_for_every_picture(rviz):
    # Qt writes the names of the docks in UTF-16.
    said = bytes.fromhex(rviz['Window Geometry']['QMainWindow State']).decode('utf-16-be', 'replace')
    said += bytes.fromhex(rviz['Window Geometry']['QMainWindow State'])[1:].decode('utf-16-be', 'replace')
    displays = rviz['Visualization Manager']['Displays']
    pictures = [display['Name'] for display in displays if display['Class'].endswith('/Image')]
    assert len(set(pictures)) == len(pictures)
    assert all(name in said for name in ['Displays', *pictures])


def test_rviz_shows_the_markers_of_a_full_hd_picture(rviz):
    view = rviz['Visualization Manager']['Views']['Current']
    assert_in_view(view['Distance'], RVIZ_FOVY, size=(1920, 1080))


def test_rviz_fits_on_a_screen_1600_wide(rviz):
    window = rviz['Window Geometry']
    assert window['X'] + window['Width'] <= 1600


def test_foxglove_shows_what_is_published(foxglove):
    text = json.dumps(foxglove['configById'])
    topics = set(re.findall(r'"(/[\w/]+)', text))
    assert SHOWN | {'/detector/detections', '/diagnostics'} == topics <= PUBLISHED


def test_foxglove_lists_what_was_detected(foxglove):
    topic, *fields = foxglove['configById']['RawMessages!detections']['topicPath'].split('.')
    message = Detection2DArray(detections=[Detection2D(results=[ObjectHypothesisWithPose()])])
    for field in fields:
        name, of_all, _ = field.partition('[:]')
        message = getattr(message, name)[0] if of_all else getattr(message, name)
    assert topic == '/detector/detections'
    assert isinstance(message, ObjectHypothesis)


def test_foxglove_shows_the_markers_of_a_full_hd_picture(foxglove):
    camera = foxglove['configById']['3D!persons']['cameraState']
    assert_in_view(camera['distance'], camera['fovy'], size=(1920, 1080))


def test_foxglove_has_a_place_for_every_panel(foxglove):
    def leaves(layout):
        if isinstance(layout, str):
            return [layout]
        assert layout['direction'] in ('row', 'column')
        return leaves(layout['first']) + leaves(layout['second'])

    panels = leaves(foxglove['layout'])
    assert sorted(panels) == sorted(foxglove['configById'])
    assert {panel.partition('!')[0] for panel in panels} == PANELS
