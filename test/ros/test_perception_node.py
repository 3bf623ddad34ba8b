"""The lifecycle base node, with a model that is only pretended."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from processes import wait_until
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Empty

from isaac_infer.core.errors import ModelError
from isaac_infer.core.pipeline import StageTimes
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.params import DetectorParams
from isaac_infer.ros import perception_node
from isaac_infer.ros.diagnostics import ERROR, OK, WARN
from isaac_infer.ros.images import image_to_cdr
from isaac_infer.ros.perception import Companion, Loaded, Output, Perception
from isaac_infer.ros.perception_node import PerceptionNode
from isaac_infer.ros.reminders import Reminders

SPEC = ModelSpec('detection', 'ultralytics', ImageSpec('images', (8, 8)), ('output0',), ('mug',), 1)


class PretendedPipeline:
    """Counts how often it is closed, and by whom."""

    def __init__(self):
        self.spec, self.limits, self.closed_by = SPEC, Limits(), []
        self.session, self.fallbacks = SimpleNamespace(backend='pretended'), ()
        self.times, self.twins = StageTimes(), ()
        self.begun, self.proceed = threading.Semaphore(0), threading.Semaphore(0)

    def begin(self, frame):
        """Begin a frame."""
        self.begun.release()

    def end(self):
        """Work on it until the test lets go of it."""
        assert self.proceed.acquire(timeout=10)
        return []

    def close(self):
        self.closed_by.append(threading.current_thread().name)


@pytest.fixture
def make(ros):
    """Make a node and the pipelines that it opened."""
    nodes = []

    def make(load=None):
        opened = []

        def pretend(params, say, is_cancelled):
            opened.append(PretendedPipeline())
            return Loaded(opened[-1], {'model': 'pretended'})

        perception = Perception(
            name='pretended',
            params=DetectorParams,
            load=load or pretend,
            limits=lambda params, spec: Limits(confidence_threshold=params.confidence_threshold),
            outputs=tuple(Output(topic, Empty, lambda answer: Empty()) for topic in ('results', 'more')),
        )
        nodes.append(PerceptionNode(replace(perception)))
        return nodes[-1], opened

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()


def state(node):
    return node._state_machine.current_state[1]


def show(node, stamp_ns=1):
    """Hand a picture to the node, as its subscription does."""
    node._on_image(image_to_cdr(np.zeros((4, 4, 3), np.uint8), stamp_ns=stamp_ns, frame_id='camera'))


def counts(node):
    """What was received and answered, and what was dropped and why."""
    total = node._health.report().total
    return total.received, total.answered, {cause: n for cause, n in total.dropped.items() if n}


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
    node.close()  # waits for the thread
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
    def load(params, say, is_cancelled):
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

    def load(params, say, is_cancelled):
        release.wait(20)
        raise ModelError('too late')

    node, _ = make(load)
    with pytest.raises(TimeoutError, match='busy'):
        node.close()
    release.set()


def test_a_picture_of_an_earlier_activation_is_not_answered_and_is_counted(make):
    node, opened = make()
    node.trigger_configure()
    node.trigger_activate()
    show(node)
    assert opened[0].begun.acquire(timeout=10)
    show(node)  # waits behind the first
    node.trigger_deactivate()
    node.trigger_activate()
    show(node)
    opened[0].proceed.release()
    assert opened[0].begun.acquire(timeout=10)  # the third: the second was forgotten
    opened[0].proceed.release()
    wait_until(lambda: counts(node)[1] == 1)
    assert counts(node) == (3, 1, {'inactive': 2})


def test_what_was_received_is_answered_or_dropped_whatever_happened(make):
    node, opened = make()
    node.trigger_configure()
    node.trigger_activate()
    (pipeline,) = opened
    show(node)
    assert pipeline.begun.acquire(timeout=10)
    for _ in range(3):
        show(node)
    pipeline.proceed.release(2)
    assert pipeline.begun.acquire(timeout=10)
    assert wait_until(lambda: counts(node)[1] == 2)
    node._on_image(b'no picture')
    assert wait_until(lambda: counts(node) == (5, 2, {'busy': 2, 'bad_image': 1}))
    show(node)
    assert pipeline.begun.acquire(timeout=10)
    show(node)
    node.trigger_deactivate()
    pipeline.proceed.release()
    node.close()
    assert counts(node) == (7, 2, {'busy': 2, 'bad_image': 1, 'inactive': 2})


def test_an_overlay_that_fails_does_not_make_an_answered_picture_a_dropped_one(make, monkeypatch):
    node, opened = make()
    node.trigger_configure()
    node.trigger_activate()

    def fail(*arguments):
        raise ValueError('cannot draw')

    monkeypatch.setattr(node, '_show', fail)
    opened[0].proceed.release()
    show(node)
    assert opened[0].begun.acquire(timeout=10)
    node._worker.call(lambda: None).result(10)
    assert counts(node) == (1, 1, {})
    assert 'cannot draw' in node._health.report().last_error


def test_cleaning_up_does_not_wait_for_the_picture_that_is_worked_on(make):
    node, opened = make()
    node.trigger_configure()
    node.trigger_activate()
    show(node)
    assert opened[0].begun.acquire(timeout=10)
    node.trigger_deactivate()
    node.trigger_cleanup()  # would hang: only this thread lets the picture go on
    assert state(node) == 'unconfigured' and not opened[0].closed_by
    opened[0].proceed.release()
    node.trigger_configure()
    assert opened[0].closed_by == ['inference']  # before the next one was opened


def test_a_node_that_was_configured_by_request_while_it_starts_is_not_activated(make):
    node, opened = make()
    node.trigger_configure()  # takes the model that autostart opens
    node._start()
    assert state(node) == 'inactive' and len(opened) == 1


def test_autostart_configures_and_activates(make):
    node, _ = make()
    node._start()
    assert state(node) == 'active'


def test_simulated_time_that_nobody_tells_is_a_warning(make):
    node, _ = make()
    node._start()
    assert node._judge(node._health.report())[0] == OK
    assert node.set_parameters([Parameter('use_sim_time', value=True)])[0].successful
    level, text = node._judge(node._health.report())
    assert level == WARN and 'no /clock came' in text


def test_a_camera_that_does_not_come_is_said_at_growing_distances_and_always_in_diagnostics(
    make, monkeypatch
):
    now_s, said = [0.0], []
    monkeypatch.setattr(perception_node, 'monotonic', lambda: now_s[0])
    monkeypatch.setattr(perception_node, 'Reminders', lambda: Reminders(lambda: now_s[0]))
    node, _ = make()
    node._start()
    log = SimpleNamespace(warning=lambda text: said.append((now_s[0], text)), info=lambda text: None)
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    for now_s[0] in range(6, 100):
        level, text = node._judge(node._health.report())
        assert level == WARN and text.startswith(f'no picture for {now_s[0]} s: nobody publishes /image')
    assert [at_s for at_s, _ in said] == [6, 16, 36, 76]
    node.trigger_deactivate()
    node.trigger_activate()
    now_s[0] = 106
    node._judge(node._health.report())
    assert said[-1][0] == 106  # whoever activates it again hears what is still wrong


@pytest.mark.parametrize('topic', ['image', 'results'])
def test_a_node_that_would_wait_for_itself_is_not_configured(make, topic):
    def load(params, say, is_cancelled):
        companion = Companion(topic, Empty, lambda message: None)
        return Loaded(PretendedPipeline(), {'model': 'pretended'}, companions=(companion,))

    node, _ = make(load)
    node._start()
    assert state(node) == 'unconfigured'
    assert f"{topic}: expected a topic of another node, got this node's own {topic}" in node._failure


def test_a_topic_that_has_another_type_in_this_process_is_said(make):
    def load(params, say, is_cancelled):
        companion = Companion('/diagnostics', Empty, lambda message: None)
        return Loaded(PretendedPipeline(), {'model': 'pretended'}, companions=(companion,))

    node, _ = make(load)
    node._start()
    assert state(node) == 'inactive'
    assert '/diagnostics: expected a topic of std_msgs/msg/Empty, cannot be subscribed to' in node._failure


def test_a_fallback_that_shows_only_while_the_node_runs_is_in_the_log_too(make, monkeypatch):
    node, opened = make()
    said = []
    log = SimpleNamespace(warning=lambda text, **_: said.append(text), info=lambda text, **_: None)
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    node._loading.result()[0].pipeline.fallbacks = ('known from the start',)
    node._start()
    opened[0].fallbacks += ('found out later',)
    for _ in range(3):
        node._publish_diagnostics()
    assert said == ['known from the start', 'found out later']


def test_where_no_pictures_come_those_of_cameras_are_named_and_none_of_nodes_that_answer(make, ros):
    node, _ = make()
    node._start()
    node.create_publisher(Image, 'pose/overlay', 1)
    camera = ros.create_node('camera')
    camera.create_publisher(Image, 'front/image', 1)
    why = 'nobody publishes /image; remap it to one of /front/image'
    assert wait_until(lambda: node._why_no_image() == why)
    camera.destroy_node()


@pytest.mark.parametrize(
    ('sender', 'is_large', 'names_profile'),
    [('camera', True, True), ('camera', False, False), ('image_source', True, False)],
)
def test_what_helps_against_losses_is_no_profile_where_it_is_there_or_not_needed(
    make, ros, sender, is_large, names_profile
):
    node, opened = make()
    node._start()
    other = ros.create_node(sender)
    other.create_publisher(Image, 'image', 1)
    assert wait_until(lambda: node.count_publishers('image') == 1)
    image = np.zeros((480, 640, 3) if is_large else (4, 4, 3), np.uint8)
    node._on_image(image_to_cdr(image, stamp_ns=1, frame_id='camera'))
    opened[-1].proceed.release()
    assert ('FASTDDS_DEFAULT_PROFILES_FILE' in node._remedy_of_losses()) == names_profile
    assert 'try a lower rate' in node._remedy_of_losses()
    other.destroy_node()


def test_parameters_of_the_model_change_only_while_none_is_loaded(make):
    node, _ = make()

    def change(name, value):
        return node.set_parameters([Parameter(name, value=value)])[0]

    assert not change('decoder', 'yolox').successful  # it is being opened
    for transit, ways in (
        (node.trigger_configure, 'clean up first'),
        (node.trigger_activate, 'deactivate and clean up first'),
        (node.trigger_deactivate, 'clean up first'),
    ):
        transit()
        result = change('decoder', 'yolox')
        assert not result.successful and f'configured; {ways}' in result.reason
        assert change('confidence_threshold', 0.5).successful
    node.trigger_cleanup()
    assert change('decoder', 'yolox').successful
    assert 'clean' in node.describe_parameter('decoder').additional_constraints


class PretendedPartner:
    """Says of a picture what its message has, which is its stamp."""

    topic, message, timeout_s = 'partner', Empty, 10.0

    def __init__(self):
        self.given = []

    def read(self, message):
        return message, f'found in {message}'

    def missing(self, stamp_ns):
        return ModelError(f'nothing came for {stamp_ns}')

    def give(self, found):
        self.given.append(found)


def test_pictures_wait_for_their_partner_while_the_model_is_free_and_none_is_lost_count_of(make):
    partner, pipeline = PretendedPartner(), PretendedPipeline()
    node, _ = make(lambda *_: Loaded(pipeline, {'model': 'pretended'}, partner=partner))
    node._start()
    for stamp_ns in (1, 2, 3):
        show(node, stamp_ns)
    node._on_image(b'no picture')
    node._worker.call(lambda: None).result(10)  # it is not kept waiting
    assert partner.given == []
    node._on_partner(2)
    assert pipeline.begun.acquire(timeout=10) and partner.given == ['found in 2']
    pipeline.proceed.release()
    assert wait_until(lambda: counts(node) == (4, 1, {'unpaired': 1, 'bad_image': 1}))
    partner.timeout_s = 0.0
    node.trigger_deactivate()
    assert counts(node) == (4, 1, {'unpaired': 1, 'bad_image': 1, 'inactive': 1})
    for transit in (node.trigger_cleanup, node.trigger_configure, node.trigger_activate):
        transit()
    publisher = node.create_publisher(Empty, partner.topic, 1)
    show(node, 4)
    node._publish_diagnostics()
    assert counts(node) == (5, 1, {'unpaired': 2, 'bad_image': 1, 'inactive': 1})
    assert node._health.report().last_error == 'nothing came for 4'
    node.destroy_publisher(publisher)
    node.create_publisher(Empty, 'elsewhere', 1)
    show(node, 5)
    node._expire()
    level, text = node._judge(node._health.report())
    assert level == ERROR and text.startswith('1 of 1 picture failed: nobody publishes /partner')
    assert node._health.report().last_error == 'nobody publishes /partner; there is /elsewhere'


def test_no_more_pictures_are_answered_than_there_were(make):
    partner, pipeline = PretendedPartner(), PretendedPipeline()
    node, _ = make(lambda *_: Loaded(pipeline, {'model': 'pretended'}, partner=partner))
    node._start()
    for stamp_ns in (1, 2, 3):
        show(node, stamp_ns)
    node._judge(node._health.report())  # they came before, and what is said of them comes after it
    show(node, 4)
    for stamp_ns in (1, 2, 3):
        node._on_partner(stamp_ns)
        if stamp_ns == 1:
            assert pipeline.begun.acquire(timeout=10)
    pipeline.proceed.release(2)
    assert wait_until(lambda: node._health._answered == 2)
    report = node._health.report()
    assert report.input_rate_hz < report.rate_hz < report.done_rate_hz
    _, text = node._judge(report)
    rate, of = (float(text.split(' ')[at].rstrip(';')) for at in (0, 5))
    assert rate < of and '; 1 came while the model was busy' in text


def test_a_picture_that_waits_is_begun_by_the_twin(make):
    node, opened = make()
    node._start()
    first, twin = opened[0], PretendedPipeline()
    first.twins = (twin,)

    def begin(frame):
        first.begun.release()
        show(node)  # while it is begun, the next one comes
        first.begin = lambda frame: first.begun.release()

    first.begin = begin
    show(node)
    assert first.begun.acquire(timeout=5) and twin.begun.acquire(timeout=5)
    first.proceed.release()
    twin.proceed.release()
    assert wait_until(lambda: counts(node)[1] == 2)
    assert counts(node) == (2, 2, {})


def test_what_is_being_opened_is_told_when_nobody_wants_it_any_more(make):
    asked = []

    def load(params, say, is_cancelled):
        assert wait_until(is_cancelled)
        asked.append(True)
        raise ModelError('the build was cancelled')

    node, _ = make(load)
    node.trigger_shutdown()
    assert wait_until(lambda: asked)
