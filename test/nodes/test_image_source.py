"""image_source, as a process of its own, over DDS."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from processes import wait_until
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from isaac_infer.ros import transport


def parameters(**values):
    arguments = ['--ros-args']
    for name, value in values.items():
        arguments += ['-p', f'{name}:={value}']
    return arguments


@pytest.fixture
def peer(make_peer):
    peer = make_peer()
    peer.listen(Image, 'image', qos_profile_sensor_data)
    return peer


def stamps_of(images):
    return np.array([image.header.stamp.sec * 10**9 + image.header.stamp.nanosec for image in images])


def save_pictures(folder, greys):
    for number, grey in enumerate(greys):
        cv2.imwrite(str(folder / f'{number}.png'), np.full((6, 8, 3), grey, np.uint8))
    return folder


def test_drawn_scenes_come_at_a_steady_rate_and_the_process_ends_after_the_last(start, peer):
    arguments = parameters(
        frames=60, rate=50, width=160, height=120, wait_for_subscribers=1, frame_id='table'
    )
    source = start('image_source', *arguments)
    images = peer.wait_for('image', 60)
    assert source.wait() == 0
    assert '60 pictures' in source.log
    assert len(images) == 60
    assert {(image.width, image.height, image.encoding) for image in images} == {(160, 120, 'bgr8')}
    assert {image.header.frame_id for image in images} == {'table'}
    seconds = (stamps_of(images) - stamps_of(images)[0]) / 1e9
    assert seconds[-1] == pytest.approx(59 / 50, abs=0.3)  # no drift
    assert np.abs(np.median(np.diff(seconds)) - 1 / 50) < 0.003
    assert len({bytes(image.data) for image in images}) > 10  # scenes, not one picture


def test_how_many_were_sent_is_told_at_the_end_also_after_a_signal(start, peer):
    peer.listen(DiagnosticArray, '/diagnostics')
    source = start('image_source', *parameters(rate=25, width=64, height=48, wait_for_subscribers=1))
    peer.wait_for('image', 5)
    assert source.stop() == 0
    assert wait_until(lambda: f'{peer.diagnostics()["sent"]} pictures in' in source.log, timeout_s=2)
    assert 5 <= len(peer.got['image']) <= int(peer.diagnostics()['sent'])
    assert 'drawing 40 scenes' in source.log


def test_a_signal_during_the_imports_ends_it_without_a_word(start):
    source = start('image_source')
    time.sleep(0.15)
    assert source.stop() in (0, -signal.SIGINT)
    assert 'Traceback' not in source.log


CAMERA = """
import itertools, sys, time
import numpy as np
from isaac_infer.core.source import Picture, Source
from isaac_infer.nodes import image_source

def pictures():
    while True:
        time.sleep(0.01)
        now_ms = time.time_ns() // 10**6 % 2**24
        image = np.frombuffer(now_ms.to_bytes(3, 'big') * 4, np.uint8).reshape(2, 2, 3)
        yield lambda image=image: Picture('camera', image)

image_source.open_source = lambda *args, **options: Source(pictures(), is_live=True)
sys.exit(image_source.main())
"""


def test_of_a_camera_the_newest_picture_is_sent_with_the_time_it_was_taken(peer):
    arguments = parameters(source=0, frames=10, rate=5, wait_for_subscribers=1)
    ended = subprocess.run([sys.executable, '-c', CAMERA, *arguments], timeout=60)
    assert ended.returncode == 0
    images = peer.wait_for('image', 8)
    stamps_ms = stamps_of(images) // 10**6
    taken_ms = np.array([int.from_bytes(bytes(image.data[:3]), 'big') for image in images])
    assert np.median((stamps_ms - taken_ms) % 2**24) <= 20
    assert np.median(np.diff(stamps_ms)) >= 100  # a queue would give pictures 10 ms apart, older each time


BROKEN = """
import sys
import cv2
from isaac_infer.nodes import image_source

def fail(*args, **options):
    raise cv2.error('insufficient memory')

setattr(image_source, sys.argv.pop(1), fail)
sys.exit(image_source.main())
"""


@pytest.mark.parametrize('step', ['image_to_cdr', 'publish_cdr'])  # in the thread that reads, that publishes
def test_an_error_nobody_thought_of_is_told_and_ends_the_process(peer, step):
    peer.listen(DiagnosticArray, '/diagnostics')
    arguments = parameters(width=64, height=48, wait_for_subscribers=1)
    ended = subprocess.run(
        [sys.executable, '-c', BROKEN, step, *arguments], stderr=subprocess.PIPE, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert '[ERROR]' in ended.stderr and 'error: insufficient memory' in ended.stderr
    status = peer.wait_for('/diagnostics', 1)[-1].status[0]
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, 'error: insufficient memory')


def test_a_folder_is_published_in_order_and_again(start, peer, tmp_path):
    folder = save_pictures(tmp_path, (10, 20, 30))
    source = start('image_source', *parameters(source=folder, frames=7, rate=30, wait_for_subscribers=1))
    assert [image.data[0] for image in peer.wait_for('image', 7)] == [10, 20, 30, 10, 20, 30, 10]
    assert source.wait() == 0


def test_a_folder_that_is_not_looped_ends_after_its_last_picture(start, peer, tmp_path):
    folder = save_pictures(tmp_path, (10, 20))
    source = start('image_source', *parameters(source=folder, loop='false', rate=30, wait_for_subscribers=1))
    assert source.wait() == 0
    assert [image.data[0] for image in peer.got['image']] == [10, 20]


@pytest.mark.parametrize(('encoding', 'expected'), [('rgb8', [3, 2, 1]), ('mono8', [2])])
def test_pictures_are_published_in_the_encoding_that_was_asked_for(start, peer, tmp_path, encoding, expected):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((4, 4, 3), (1, 2, 3), np.uint8))
    start('image_source', *parameters(source=tmp_path / 'a.png', encoding=encoding, rate=20))
    image = peer.wait_for('image', 1)[0]
    assert (image.encoding, image.data[: len(expected)].tolist()) == (encoding, expected)
    assert image.step == 4 * len(expected)


@pytest.mark.parametrize('name', [b'1.png', b'1\xff\x1b[2J.png'])  # of any bytes, as Linux takes them
def test_an_unreadable_picture_is_reported_once_and_left_out(start, peer, tmp_path, name):
    save_pictures(tmp_path, (10, 20))
    (tmp_path / '1.png').rename(tmp_path / os.fsdecode(name))
    (tmp_path / os.fsdecode(name)).write_bytes(b'no picture')
    peer.listen(DiagnosticArray, '/diagnostics')
    source = start(
        'image_source', *parameters(source=tmp_path, loop='false', rate=30, wait_for_subscribers=1)
    )
    assert source.wait() == 1
    values = {pair.key: pair.value for pair in peer.got['/diagnostics'][-1].status[0].values}
    assert (values['sent'], values['unreadable']) == ('1', '1')
    assert [image.data[0] for image in peer.got['image']] == [10]
    said = os.fsdecode(name).replace('\udcff', '\ufffd').replace('\x1b', '\ufffd')
    assert source.log.count('[ERROR]') == 1 and said in source.log


def test_an_error_of_a_source_that_is_repeated_is_said_once(start, peer, tmp_path):
    bags = pytest.importorskip('bags', reason='without rosbags there are no recordings')
    good, bad = (np.full((6, 8, 3), 10, np.uint8), np.zeros((6, 8, 1), np.uint8))
    recorded = bags.save_bag(
        tmp_path / 'bag', {'/image': [bags.image(good), bags.image(bad, 'no encoding'), b'']}
    )
    folder = tmp_path / 'folder'
    folder.mkdir()
    save_pictures(folder, (10, 20))
    (folder / '1.png').write_bytes(b'no picture')
    for place, errors in ((recorded, 2), (folder, 1)):
        source = start('image_source', *parameters(source=place, frames=7, rate=50))
        assert source.wait() == 1
        assert '7 pictures' in source.log and source.log.count('[ERROR]') == errors


def test_a_folder_with_nothing_readable_ends_the_process(start, tmp_path):
    (tmp_path / '1.png').write_bytes(b'no picture')
    source = start('image_source', *parameters(source=tmp_path))
    assert source.wait() == 1
    assert source.log.count('[ERROR]') == 1


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (parameters(source='/nowhere.jpg'), 'no such file'),
        (parameters(rate=0.0), 'rate: expected float from 0.01 to 1000, got 0.0'),
        (parameters(source=0, width=9000), 'width: expected int from 1 to 8192, got 9000'),
        (parameters(source=63), '63: cannot be opened'),  # a camera by its number
        (parameters(ratte=1), 'unknown parameter ratte; expected rate'),
    ],
)
def test_what_cannot_be_published_is_one_clear_error(start, arguments, says):
    source = start('image_source', *arguments)
    assert source.wait() == 1
    assert says in source.log and 'Traceback' not in source.log


def test_pictures_larger_than_the_shared_memory_are_warned_of_once(start):
    source = start('image_source', *parameters(width=5000, height=5000, frames=2, rate=5))
    assert source.wait() == 0
    assert source.log.count('do not arrive') == 1 and 'segment_size' in source.log


def test_simulated_time_that_nobody_tells_is_warned_of(start, peer):
    peer.listen(DiagnosticArray, '/diagnostics')
    source = start('image_source', *parameters(width=64, height=48, use_sim_time='true'))
    statuses = [message.status[0] for message in peer.wait_for('/diagnostics', 1)]
    assert statuses[0].level == DiagnosticStatus.WARN and 'no /clock came' in statuses[0].message
    assert source.stop() == 0 and 'no /clock came' in source.log


def test_a_signal_ends_it_while_it_waits_for_subscribers(start):
    source = start('image_source', *parameters(width=64, height=48, wait_for_subscribers=5))
    source.wait_for('waiting for 5 subscribers on /image, 0 there')
    assert source.is_alive and source.stop() == 0
    assert 'ended before the first picture, waiting for 5 subscribers on /image, 0 there' in source.log
    assert 'Traceback' not in source.log and ' at 30 Hz' not in source.log and ' late' not in source.log


def test_who_is_there_already_is_named_while_it_waits_for_others(start, make_peer):
    make_peer('viewer').listen(Image, 'image', qos_profile_sensor_data)
    source = start('image_source', *parameters(width=64, height=48, wait_for_subscribers=2))
    source.wait_for('waiting for 2 subscribers on /image, 1 there (/viewer)')
    assert source.stop() == 0


def test_pictures_that_nobody_takes_are_told(start):
    source = start('image_source', *parameters(width=64, height=48))
    source.wait_for('nobody subscribes to /image')
    assert source.stop() == 0


def test_nothing_is_published_before_the_wanted_subscribers_are_there(start, make_peer):
    source = start('image_source', *parameters(width=64, height=48, wait_for_subscribers=2, frames=3))
    peers = [make_peer('a'), make_peer('b')]
    peers[0].listen(Image, 'image', qos_profile_sensor_data)
    assert wait_until(lambda: peers[0].node.count_publishers('image') == 1)
    time.sleep(0.5)
    assert not peers[0].got['image']
    peers[1].listen(Image, 'image', qos_profile_sensor_data)
    assert len(peers[0].wait_for('image', 3)) == 3
    assert source.wait() == 0


@pytest.mark.skipif(not transport.SHARED_MEMORY.is_dir(), reason='there is no /dev/shm')
def test_shared_memory_of_a_killed_process_is_removed_by_the_next_one(start, peer):
    def locks():
        return set(transport.SHARED_MEMORY.glob('fastrtps_????????????????_el'))

    source = start('image_source', *parameters(width=64, height=48))
    peer.wait_for('image', 1)
    # Only its own: other processes of this machine make and hold theirs meanwhile.
    made = locks() & {file.resolve() for file in Path(f'/proc/{source.pid}/fd').iterdir()}
    source.kill()
    for lock in made:
        os.utime(lock, (0, 0))
    transport.remove_dead_segments()
    assert made and not made & locks()
