"""The lifecycle base node, with a model that is only pretended."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from std_msgs.msg import Empty

from isaac_infer.core.errors import ModelError
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.params import DetectorParams
from isaac_infer.ros import perception_node
from isaac_infer.ros.perception_node import Loaded, Perception, PerceptionNode

SPEC = ModelSpec('detection', 'ultralytics', ImageSpec('images', (8, 8)), ('output0',), ('mug',), 1)


class PretendedPipeline:
    """Counts how often it is closed, and by whom."""

    def __init__(self):
        self.spec, self.limits, self.closed_by = SPEC, Limits(), []
        self.session = SimpleNamespace(backend='pretended', fallbacks=())

    def close(self):
        self.closed_by.append(threading.current_thread().name)


@pytest.fixture
def make(ros):
    """Make a node and the pipelines that it opened."""
    nodes = []

    def make(load=None):
        opened = []

        def pretend(params):
            opened.append(PretendedPipeline())
            return Loaded(opened[-1], {'model': 'pretended'})

        perception = Perception(
            name='pretended',
            params=DetectorParams,
            load=load or pretend,
            limits=lambda params, spec: Limits(confidence_threshold=params.confidence_threshold),
            topic='results',
            message=Empty,
            to_message=lambda found, frame, spec, params: Empty(),
            draw=lambda found, frame, spec, params: frame.image,
        )
        nodes.append(PerceptionNode(replace(perception)))
        return nodes[-1], opened

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()


def state(node):
    return node._state_machine.current_state[1]


def test_what_was_opened_is_closed_once_by_the_thread_that_opened_it(make):
    node, opened = make()
    for transit in (
        node.trigger_configure,
        node.trigger_activate,
        node.trigger_deactivate,
        node.trigger_cleanup,
    ):
        transit()
    assert state(node) == 'unconfigured'
    assert [pipeline.closed_by for pipeline in opened] == [['inference']]


def test_closing_closes_the_model_and_may_be_done_twice(make):
    node, opened = make()
    node.trigger_configure()
    node.trigger_activate()
    node.close()
    node.close()
    assert [pipeline.closed_by for pipeline in opened] == [['inference']]


def test_a_model_that_was_opened_for_a_start_that_never_came_is_closed_too(make):
    node, opened = make()  # autostart opens it, but nobody spins
    node.close()
    assert [pipeline.closed_by for pipeline in opened] == [['inference']]


@pytest.mark.parametrize('error', [ModelError('no such model'), KeyError('a mistake in the code')])
def test_a_failed_start_leaves_the_node_unconfigured(make, error):
    def load(params):
        raise error

    node, _ = make(load)
    node.trigger_configure()
    assert state(node) == 'unconfigured'


def test_publishers_exist_only_while_configured(make):
    node, _ = make()
    assert node.count_publishers('results') == 0
    node.trigger_configure()
    assert node.count_publishers('results') == 1
    node.trigger_cleanup()
    assert node.count_publishers('results') == 0


def test_a_model_that_does_not_return_is_left_behind(make, monkeypatch):
    monkeypatch.setattr(perception_node, 'CLOSE_TIMEOUT_S', 0.2)
    release = threading.Event()

    def load(params):
        release.wait(20)
        raise ModelError('too late')

    node, _ = make(load)
    with pytest.raises(TimeoutError, match='busy'):
        node.close()
    release.set()
