"""Recordings are read as they were recorded, and whatever is wrong with them is said in words."""

import contextlib
import os
import random
import shlex
import sqlite3
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bags import START_NS, TYPES, compressed, header, image, save_bag, stored_file, text

from isaac_infer.core.bag import is_bag, split_topic
from isaac_infer.core.errors import SourceError
from isaac_infer.core.source import open_source, open_sources

TOPIC = '/camera/image'


def pixels(value: int, *, size_hw: tuple[int, int] = (6, 8)) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (*size_hw, 3), np.uint8)


def images(count: int) -> list:
    return [image(pixels(number), header=header(START_NS + number)) for number in range(count)]


@pytest.mark.parametrize(
    ('storage', 'packed'),
    [
        *(('mcap', packed) for packed in ('NONE', 'MESSAGE', 'FILE', 'STORAGE')),
        *(('sqlite3', packed) for packed in ('NONE', 'MESSAGE', 'FILE')),
    ],
)
def test_a_recording_gives_its_pictures_in_order_with_names_and_stamps(tmp_path, storage, packed):
    path = save_bag(
        tmp_path / 'bag', {'/chatter': [text('a')], TOPIC: images(3)}, storage=storage, packed=packed
    )
    with open_source(str(path)) as source:
        assert (source.length, source.topic, source.is_live) == (3, TOPIC, False)
        assert set(source.paths) == set(path.iterdir())
        pictures = list(source)
    assert [picture.name for picture in pictures] == [f'{path}/camera/image#{number}' for number in (1, 2, 3)]
    assert [picture.stamp_ns for picture in pictures] == [START_NS + number for number in range(3)]
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(picture.image, pixels(number))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_one_file_of_a_recording_is_read_without_the_others(tmp_path, storage):
    path = stored_file(save_bag(tmp_path / 'bag', {TOPIC: images(2)}, storage=storage))
    path = path.rename(tmp_path / path.name)
    with open_source(str(path)) as source:
        assert (source.length, source.paths) == (2, (path,))
        assert [picture.name for picture in source] == [f'{path}/camera/image#1', f'{path}/camera/image#2']


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_compressed_pictures_are_decoded(tmp_path, suffix):
    picture = np.full((16, 24, 3), (200, 120, 40), np.uint8)
    path = save_bag(tmp_path / 'bag', {'/camera/image/compressed': [compressed(picture, suffix)]})
    with open_source(str(path)) as source:
        found = source.read()
    assert (found.name, found.stamp_ns) == (f'{path}/camera/image/compressed#1', START_NS)
    assert np.abs(found.image.astype(int) - picture).max() <= 3


@pytest.mark.parametrize(
    ('stored', 'encoding', 'bgr'),
    [
        (np.array([[[1, 2, 3]]], np.uint8), 'rgb8', [3, 2, 1]),
        (np.array([[[1, 2, 3, 9]]], np.uint8), 'bgra8', [1, 2, 3]),
        (np.array([[7]], np.uint8), 'mono8', [7, 7, 7]),
        (np.array([[0xFFFF]], np.uint16), 'mono16', [255, 255, 255]),
        (np.array([[[128, 235], [128, 235]]], np.uint8), 'uyvy', [255, 255, 255]),
    ],
)
def test_every_encoding_becomes_bgr(tmp_path, stored, encoding, bgr):
    with open_source(str(save_bag(tmp_path / 'bag', {TOPIC: [image(stored, encoding)]}))) as source:
        picture = source.read()
    assert picture.image[0, 0].tolist() == bgr
    assert picture.image.flags['C_CONTIGUOUS'] and picture.image.flags['WRITEABLE']


# --- topics ------------------------------------------------------------------------------------------------


def test_several_topics_of_pictures_are_an_error_that_says_how_to_pick_one(tmp_path):
    path = save_bag(tmp_path / 'bag', {'/left': images(1), '/right': images(2), '/chatter': [text('a')]})
    expected = f'bag: expected one topic of pictures, got /left, /right; say which, as in {path}::/left'
    with pytest.raises(SourceError, match=expected):
        open_source(str(path))
    for name in ('/right', 'right'):
        with open_source(f'{path}::{name}') as source:
            assert (source.topic, source.length, len(list(source))) == ('/right', 2, 2)


def test_a_topic_without_messages_is_none_to_choose_from(tmp_path):
    with open_source(str(save_bag(tmp_path / 'bag', {'/left': [], '/right': images(1)}))) as source:
        assert source.topic == '/right'


@pytest.mark.parametrize(
    ('topics', 'asked', 'expected'),
    [
        ({}, '', r'expected a topic of pictures \(sensor_msgs/msg/Image or .*\), it has none'),
        ({'/chatter': [text('a')]}, '', r'it has /chatter \(std_msgs/msg/String\)'),
        ({TOPIC: []}, '', f'expected pictures, got no message on {TOPIC}'),
        ({TOPIC: []}, TOPIC, f'expected pictures, got no message on {TOPIC}'),
        ({TOPIC: [b'']}, '/other', f'has no topic /other; of pictures it has {TOPIC}'),
        (
            {TOPIC: [b''], '/chatter': [text('a')]},
            '/chatter',
            f'expected pictures on /chatter .*, got std_msgs/msg/String; of pictures it has {TOPIC}',
        ),
        ({f'/{number}': [b''] for number in range(30)}, '', 'got /0, /1, .*, 20 more; say which'),
    ],
)
@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_recording_without_such_pictures_says_what_it_has(tmp_path, topics, asked, expected, storage):
    path = save_bag(tmp_path / 'bag', topics, storage=storage)
    with pytest.raises(SourceError, match=expected):
        open_source(f'{path}::{asked}' if asked else str(path))


def test_a_path_that_looks_as_if_it_had_a_topic_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_bag(tmp_path / 'a::b', {TOPIC: images(1)})
    assert split_topic('a::b') == ('a::b', '')
    assert split_topic('a::b::/c') == ('a::b', '/c')
    assert open_source('a::b').topic == open_source('a::b::camera/image').topic == TOPIC
    (tmp_path / 'folder').mkdir()
    with pytest.raises(SourceError, match='expected a recording before "::", folder is none'):
        open_source('folder::/camera')
    with pytest.raises(SourceError, match='no such file'):
        open_source('nowhere::/camera')
    with pytest.raises(SourceError, match='cannot be opened'):
        open_source('rtsp://127.0.0.1:1/a::b')


# --- as a source -------------------------------------------------------------------------------------------


def test_a_looped_recording_starts_again(tmp_path):
    with open_source(str(save_bag(tmp_path / 'bag', {TOPIC: images(2)})), loop=True) as source:
        assert source.length is None
        assert [source.read().name[-2:] for _ in range(5)] == ['#1', '#2', '#1', '#2', '#1']


def test_a_recording_is_one_of_several_sources(tmp_path):
    picture = tmp_path / 'a.png'
    assert cv2.imwrite(str(picture), pixels(0))
    with open_sources([str(picture), str(save_bag(tmp_path / 'bag', {TOPIC: images(2)}))]) as source:
        assert source.length == len(list(source)) == 3


def test_a_closed_recording_gives_nothing_more_and_closes_twice(tmp_path):
    source = open_source(str(save_bag(tmp_path / 'bag', {TOPIC: images(2)}, storage='sqlite3')))
    source.read()
    source.close()
    source.close()
    assert source.read() is None


def test_a_folder_that_only_has_a_file_of_the_name_is_no_recording(tmp_path):
    (tmp_path / 'metadata.yaml').write_text('names: {0: mug}')
    assert not is_bag(tmp_path)
    assert cv2.imwrite(str(tmp_path / 'a.png'), pixels(0))
    with open_source(str(tmp_path)) as source:
        assert source.length == 1


# --- what is wrong -----------------------------------------------------------------------------------------


def test_pictures_that_cannot_be_read_are_errors_once_and_the_next_one_is_read(tmp_path):
    plain = TYPES.serialize_cdr(images(1)[0], 'sensor_msgs/msg/Image')
    messages = [
        images(1)[0],
        image(pixels(1), '32FC1'),
        image(pixels(1), height=7),
        b'',
        bytes(plain)[:30],
        b'\0\x07' + bytes(plain)[2:],
        images(1)[0],
    ]
    with open_source(str(save_bag(tmp_path / 'bag', {TOPIC: messages}))) as source:
        assert source.read() is not None
        for expected in (
            'bag/camera/image#2: image: expected one of the encodings bgr8',
            '#3: image: expected 168 bytes',
            '#4: image: expected a message in plain CDR, got 0 bytes',
            '#5: image: ',
            '#6: image: expected a message in plain CDR',
        ):
            with pytest.raises(SourceError, match=expected):
                source.read()
        assert source.read() is not None
        assert source.read() is None


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('part', [0, 0.1, 0.5, 0.99])
def test_a_recording_that_was_cut_off_says_so(tmp_path, storage, part):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(200)}, storage=storage)
    stored = stored_file(path)
    os.truncate(stored, int(stored.stat().st_size * part))
    for place in (path, stored):
        with pytest.raises(
            SourceError, match='bag.*: (cannot be read as a recording|expected|.* ended after)'
        ):
            list(open_source(str(place)))


def test_a_recording_with_fewer_pictures_than_it_says_is_an_error_after_them(tmp_path):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(3)}, storage='sqlite3')
    with sqlite3.connect(stored_file(path)) as database:
        database.execute('DELETE FROM messages WHERE id = 3')
    for loop in (False, True):
        with open_source(str(path), loop=loop) as source:
            assert [source.read().name[-2:] for _ in range(2)] == ['#1', '#2']
            with pytest.raises(SourceError, match=f'{TOPIC} ended after 2 of 3 pictures; is it damaged'):
                source.read()
            assert source.read() is None


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda path: stored_file(path).unlink(), 'Some database files are missing'),
        (lambda path: (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: 1'), 'cannot'),
        (lambda path: (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: {'), 'cannot'),
        (lambda path: (path / 'metadata.yaml').unlink(), r'bag.mcap in it is a recording that can be given'),
        (lambda path: (stored_file(path).unlink(), os.mkfifo(path / 'bag.mcap')), 'got a folder, pipe'),
        (lambda path: (stored_file(path).unlink(), (path / 'bag.mcap').mkdir()), 'got a folder, pipe'),
        (lambda path: os.mkfifo(path / 'pipe'), 'pipe: expected a file of a recording, got a folder, pipe'),
        (lambda path: stored_file(path).write_bytes(b''), 'seems to be empty'),
        (lambda path: stored_file(path).write_bytes(b'SQLite format 3\0'), 'magic is invalid'),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_as_it_was_recorded_is_an_error(tmp_path, change, expected):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(1)})
    change(path)
    with pytest.raises(SourceError, match=expected):
        open_source(str(path))


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('message_count: 2', 'message_count: .inf'),
        ('message_count: 2', 'message_count: many'),
        ('message_count: 2', 'message_count: 1.5'),
        ('message_count: 2', 'message_count: 0.5'),
        ('message_count: 2', 'message_count: 1000000000000000000'),
        ('message_count: 2', 'message_count: -2'),
        ('name: /camera/image', 'name: 5'),
        ('name: /camera/image', 'name: [a]'),
        ('type: sensor_msgs/msg/Image', 'type: {}'),
        ('bag.mcap', '../bag.mcap'),
        ('bag.mcap', 'metadata.yaml'),
    ],
)
def test_metadata_that_lie_give_pictures_or_an_error(tmp_path, old, new):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(2)})
    metadata = path / 'metadata.yaml'
    said = metadata.read_text()
    assert old in said
    metadata.write_text(said.replace(old, new))
    with contextlib.suppress(SourceError), open_source(str(path)) as source:
        assert type(source.length) is int
        assert len(list(source)) == 2


def test_a_folder_beside_the_files_harms_nothing(tmp_path):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(2)})
    (path / 'previews').mkdir()
    with open_source(str(path)) as source:
        assert len(list(source)) == 2


@pytest.mark.parametrize('named', ['pipe', 'folder/pipe'])
def test_a_pipe_that_metadata_name_is_not_waited_for(tmp_path, named):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(1)})
    os.mkfifo(path / 'pipe')
    metadata = path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('- bag.mcap', f'- {named}'))
    with pytest.raises(
        SourceError, match='pipe: expected a file of a recording, got a folder, pipe or device'
    ):
        open_source(str(path))


@pytest.mark.parametrize(
    ('packed', 'again'),
    [('NONE', 'bag.mcap'), ('NONE', './bag.mcap'), ('NONE', 'link.mcap'), ('FILE', 'bag.mcap.zstd')],
)
def test_a_file_that_metadata_name_twice_is_an_error(tmp_path, packed, again):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(2)}, packed=packed)
    stored, metadata = stored_file(path).name, path / 'metadata.yaml'
    (path / 'link.mcap').symlink_to(stored)
    metadata.write_text(metadata.read_text().replace(f'  - {stored}', f'  - {stored}\n  - {again}'))
    with pytest.raises(
        SourceError, match='metadata.yaml: expected to name each file once, got bag.mcap twice'
    ):
        open_source(str(path))


@pytest.mark.parametrize('named', ['bag.db3', "it's.db3", 'other'])
def test_a_database_that_was_not_closed_is_refused_and_read_after_what_the_error_says(tmp_path, named):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(2)}, storage='sqlite3')
    stored, metadata = stored_file(path).rename(path / named), path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('bag.db3', named).replace('count: 2', 'count: 4'))
    recorder = sqlite3.connect(stored)
    recorder.execute('PRAGMA journal_mode=WAL')
    recorder.execute('INSERT INTO messages SELECT id + 2, topic_id, timestamp, data FROM messages')
    recorder.commit()
    expected = f"{named}: was not closed, {named}-wal beside it holds more; sqlite3 (.*) '(PRAGMA wal_.*)'"
    with pytest.raises(SourceError, match=expected) as raised:
        open_source(str(path))
    if named.endswith('.db3'):
        with pytest.raises(SourceError, match='was not closed'):
            open_source(str(stored))
    _, file, command = shlex.split(str(raised.value).partition('; ')[2].partition(' brings')[0])
    with contextlib.closing(sqlite3.connect(file)) as repaired:
        assert repaired.execute(command).fetchone()[0] == 0
    with open_source(str(path)) as source:
        assert len(list(source)) == 4
    recorder.close()


# --- bombs -------------------------------------------------------------------------------------------------


def zeros(blocks: int, *, said: int | None = None, before: bytes = b'') -> bytes:
    """A zstd frame of blocks of 128 KiB of zeros, which may say another size."""
    flags, size = (0, b'') if said is None else (0b11 << 6, said.to_bytes(8, 'little'))
    repeated = 128 << 10 << 3 | 1 << 1
    headers = [(repeated | (number == blocks - 1)).to_bytes(3, 'little') for number in range(blocks)]
    window = b'\x38'  # 128 KiB
    return (
        before + b'\x28\xb5\x2f\xfd' + bytes([flags]) + window + size + b''.join(h + b'\0' for h in headers)
    )


SKIPPED = b'\x5a\x2a\x4d\x18\x03\0\0\0abc'  # a frame that says nothing
BOMBS = {
    'of a size that it does not tell': zeros(8193),
    'that tells its size': zeros(8193, said=8193 << 17),
    'that tells a small size': zeros(8193, said=100),
    'in several frames': zeros(4097) * 2,
    'behind what is skipped': zeros(8193, before=SKIPPED),
}


def test_the_bombs_are_what_they_seem():
    zstd = pytest.importorskip('backports.zstd')
    for small in (zeros(3), zeros(3, said=3 << 17), zeros(1) + zeros(2), zeros(3, before=SKIPPED)):
        assert zstd.decompress(small) == bytes(3 << 17)


@pytest.mark.parametrize('bomb', BOMBS)
@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_message_that_unpacks_to_more_than_any_picture_is_an_error_and_the_next_one_is_read(
    tmp_path, monkeypatch, storage, bomb
):
    zstd = pytest.importorskip('backports.zstd')
    pack = zstd.compress
    packed = iter([pack, lambda data: BOMBS[bomb], lambda data: b'not packed', pack])
    monkeypatch.setattr(zstd, 'compress', lambda data: next(packed)(data))
    path = save_bag(tmp_path / 'bag', {TOPIC: images(4)}, storage=storage, packed='MESSAGE')
    with open_source(str(path)) as source:
        assert source.read() is not None
        with pytest.raises(SourceError, match='#2: image: cannot be unpacked: .* would unpack to more than'):
            source.read()
        with pytest.raises(SourceError, match='#3: image: cannot be unpacked: expected what zstd has packed'):
            source.read()
        assert source.read() is not None
        assert source.read() is None


@pytest.mark.parametrize('bomb', BOMBS)
@pytest.mark.parametrize('name', ['bag.db3.zstd', 'bag'])
def test_a_file_that_would_fill_the_disk_is_not_unpacked(tmp_path, name, bomb):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(1)}, storage='sqlite3', packed='FILE')
    stored_file(path).unlink()
    (path / name).write_bytes(BOMBS[bomb])
    metadata = path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('bag.db3.zstd', name))
    with pytest.raises(SourceError, match=f'{name}: expected a file that unpacks to at most .* "zstd -d"'):
        open_source(str(path))


@pytest.mark.parametrize('bomb', BOMBS)
def test_a_chunk_that_unpacks_to_too_much_is_damage(tmp_path, monkeypatch, bomb):
    zstd = pytest.importorskip('backports.zstd')
    with monkeypatch.context() as patched:
        patched.setattr(zstd, 'compress', lambda data: BOMBS[bomb])
        path = save_bag(tmp_path / 'bag', {TOPIC: images(1)}, packed='STORAGE')
    with open_source(str(path)) as source:
        with pytest.raises(SourceError, match='cannot be read as a recording: .* would unpack to more than'):
            source.read()
        assert source.read() is None


def test_chunks_that_lz4_has_packed_are_bounded_too(tmp_path, monkeypatch):
    frame = pytest.importorskip('lz4.frame')
    with open_source(str(save_bag(tmp_path / 'bag', {TOPIC: images(1)}))):  # the writer packs by zstd only
        from rosbags.rosbag2.storage_mcap import DECOMPRESSORS
    packed = frame.compress(bytes(100_000))
    assert DECOMPRESSORS['lz4'](packed, 100_000) == bytes(100_000)
    monkeypatch.setattr('isaac_infer.core.bag.MOST_UNPACKED', 99_999)
    with pytest.raises(ValueError, match='would unpack to more than 99999'):
        DECOMPRESSORS['lz4'](packed, 100_000)


def test_a_file_that_is_long_when_packed_may_be_long_when_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr('isaac_infer.core.bag.MOST_UNPACKED', 100 << 10)
    path = save_bag(tmp_path / 'bag', {TOPIC: [image(pixels(1, size_hw=(200, 300)))]}, packed='FILE')
    with open_source(str(path)) as source:
        assert len(list(source)) == 1


def test_a_database_that_would_be_opened_under_another_name_is_refused(tmp_path):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(1)}, storage='sqlite3').rename(tmp_path / 'bag?mode=rw')
    with pytest.raises(SourceError, match='expected a path without'):
        open_source(str(path))


def test_a_database_may_hold_anything_in_place_of_a_message(tmp_path):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(4)}, storage='sqlite3')
    with sqlite3.connect(stored_file(path)) as database:
        for number, value in enumerate(('text', 5, 0.5), 1):
            database.execute('UPDATE messages SET data = ? WHERE id = ?', (value, number))
    with open_source(str(path)) as source:
        for kind in ('str', 'int', 'float'):
            with pytest.raises(SourceError, match=f'expected the bytes of a message, got {kind}'):
                source.read()
        assert source.read() is not None


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_hundreds_of_damaged_recordings_give_pictures_or_a_source_error(tmp_path, storage):
    rng = random.Random(14)
    messages = [image(pixels(number, size_hw=(2, 3))) for number in range(5)]
    original = save_bag(tmp_path / 'bag', {TOPIC: messages, '/chatter': [text('a')]}, storage=storage)
    stored, metadata = stored_file(original), original / 'metadata.yaml'
    whole = {file: file.read_bytes() for file in (stored, metadata)}
    outcomes, longest = {'read': 0, 'refused': 0}, 0
    for _ in range(120):
        for file, content in whole.items():
            file.write_bytes(content)
        file = rng.choice((stored, stored, metadata))
        content = bytearray(whole[file])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(content))
            kind = rng.randrange(8)
            if kind == 0:
                del content[at : at + rng.randint(1, 40)]
            elif kind == 1:
                content[at : at + 8] = rng.choice(
                    (0, 1, 255, 1 << 31, (1 << 63) - 1, (1 << 64) - 1)
                ).to_bytes(8, 'little')
            else:
                content[at] = rng.randrange(256)
            content = content or bytearray(1)
        file.write_bytes(content)
        for place in (original, stored):
            try:
                with open_source(str(place)) as source:
                    while source.read() is not None:
                        pass
                outcomes['read'] += 1
            except SourceError as error:
                longest = max(longest, len(str(error)))
                outcomes['refused'] += 1
    assert min(outcomes.values()) > 30, outcomes
    assert longest < 1000  # for the log


def test_without_rosbags_the_way_out_is_named(tmp_path):
    path = save_bag(tmp_path / 'bag', {TOPIC: images(1)})
    code = (
        'import sys; sys.modules["rosbags"] = None\n'
        'from isaac_infer.core.errors import SourceError\n'
        'from isaac_infer.core.source import open_source\n'
        'try:\n    open_source(sys.argv[1])\nexcept SourceError as error:\n    print(error)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert 'bag: to read a recording, the package rosbags is needed: "pip install rosbags"' in done.stdout
