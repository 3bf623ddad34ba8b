"""Bag: the pictures of one topic of a ROS 2 recording (rosbag2), read without ROS."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from isaac_infer.core.encodings import (
    compressed_view_from_cdr,
    frame_from_compressed_view,
    frame_from_view,
    view_from_cdr,
)
from isaac_infer.core.errors import FrameError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.text import counted, printable

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader

METADATA = 'metadata.yaml'
METADATA_KEY = b'rosbag2_bagfile_information'  # the only one at the top: others write files of this name too
METADATA_HEAD = 4096  # bytes; the key comes before everything but comments
STORED_SUFFIXES = ('.mcap', '.db3')
MOST_NAMED = 10  # topics in an error
LONGEST_REASON = 200  # characters of what others say of damage
SQLITE_MAGIC = b'SQLite format 3\0'
LOG_SUFFIX = '-wal'  # of what SQLite has written, but not yet into its file

# Of zstd, as RFC 8878 has it.
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
ZSTD_FAMILY = (b'\xb5\x2f\xfd', b'\x2a\x4d\x18')  # behind the first byte: every version, and frames to skip
ZSTD_BLOCK = 128 << 10  # bytes, at most
MOST_UNPACKED = 1 << 30  # bytes of a message, or a chunk, or a file
MOST_TIMES = 100  # a large file may unpack to so many times its size


def frame_from_image_cdr(cdr: bytes) -> Frame:
    """Give a recorded sensor_msgs/Image as a frame; raises FrameError."""
    view = view_from_cdr(cdr)
    if view is None:
        raise _other_representation(cdr)
    return frame_from_view(view)


def frame_from_compressed_cdr(cdr: bytes) -> Frame:
    """Give a recorded sensor_msgs/CompressedImage as a frame; raises FrameError."""
    view = compressed_view_from_cdr(cdr)
    if view is None:
        raise _other_representation(cdr)
    return frame_from_compressed_view(view)


READERS = {
    'sensor_msgs/msg/Image': frame_from_image_cdr,
    'sensor_msgs/msg/CompressedImage': frame_from_compressed_cdr,
}


class Bag:
    """An open recording, and the topic of it whose pictures are read; whoever opens it closes it."""

    def __init__(
        self,
        path: Path,
        reader: Reader,
        topic: str,
        connections: Sequence[Connection],
        *,
        unpack: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.topic = topic
        self.length = sum(int(each.msgcount) for each in connections)  # as the recording says it
        self.paths = _files(path)  # that are read
        self._path = path
        self._reader = reader
        self._connections = connections
        self._unpack = unpack  # a message

    def frames(self) -> Iterator[Callable[[], Frame]]:
        """Give what decodes each picture, from the first one; pictures that are not asked for cost little.

        Raises:
            SourceError: the recording is damaged, or ends early; after the pictures that could be read.
            FrameError: from what is given: a message is no picture that is known here. The next one may be.
        """
        number = 0
        with _in_words(self._path):
            messages = self._reader.messages(self._connections)
        while True:
            with _in_words(self._path):
                message = next(messages, None)
            if message is None:
                break
            number += 1
            connection, _, data = message
            yield partial(_decode, connection.msgtype, data, self._unpack)
        if number < self.length:
            raise SourceError(
                f'{self._path}: {printable(self.topic)} ended after {number} of '
                f'{counted(self.length, "picture")}; is it damaged?'
            )

    def close(self) -> None:
        """Close the files; safe to call twice."""
        if self._reader.is_open:
            self._reader.close()


def is_bag(path: Path) -> bool:
    """Tell whether a path is a recording: a folder as `ros2 bag record` makes it, or one of its files."""
    if not os.path.isdir(path):
        return path.suffix in STORED_SUFFIXES and os.path.isfile(path)
    metadata = path / METADATA
    if not os.path.isfile(metadata):  # unlike Path.is_file, no error where the folder may not be entered
        return False
    try:
        with metadata.open('rb') as file:
            return METADATA_KEY in file.read(METADATA_HEAD)
    except OSError as error:
        raise SourceError(f'{metadata}: cannot be read: {error.strerror}') from error


def split_topic(text: str) -> tuple[str, str]:
    """Split PATH::TOPIC; what exists as it stands is a path and no topic."""
    path, separator, topic = text.rpartition('::')
    if not separator or os.path.exists(os.path.expanduser(text)):
        return text, ''
    return path, topic


def open_bag(path: Path, topic: str = '') -> Bag:
    """Open a recording.

    Args:
        path: what `is_bag` says yes to.
        topic: of sensor_msgs/Image or CompressedImage; empty: the only one that has messages.

    Raises:
        SourceError: it is damaged, rosbags is missing, or there is no such topic, or none, or several.
    """
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise SourceError(
            f'{path}: to read a recording, the package rosbags is needed: "pip install rosbags" ({error})'
        ) from error
    _check_files(path)
    with _in_words(path):
        unpack = _bound_unpacking()
        reader = Reader(path)
        reader.open()
    try:
        with _in_words(path):
            _check_named_once(path, reader)
            said = reader.storage.metadata
            is_packed = said.compression_mode == 'message'
            if is_packed:  # rosbags would unpack whatever comes, also of pictures that nobody asks for
                reader.storage.metadata = said._replace(compression_mode=None)
            topics = sorted({(str(each.topic), str(each.msgtype)) for each in reader.connections})
            filled = [
                each for each in reader.connections if each.msgtype in READERS and int(each.msgcount) > 0
            ]
            chosen = _choose(path, topic, topics, {each.topic for each in filled})
            connections = [each for each in filled if each.topic == chosen]
            return Bag(path, reader, chosen, connections, unpack=unpack if is_packed else bytes)
    except BaseException:
        reader.close()
        raise


def _choose(path: Path, topic: str, topics: Sequence[tuple[str, str]], filled: Set[str]) -> str:
    """Choose the topic that is read, of those with their types; `filled` are those that have messages."""
    pictures = sorted({name for name, kind in topics if kind in READERS})
    kinds = ' or '.join(READERS)
    if topic:
        asked = [(name, kind) for name, kind in topics if name.strip('/') == topic.strip('/')]
        if not asked:
            raise SourceError(f'{path}: has no topic {topic}; of pictures it has {_named(pictures)}')
        others = [kind for _, kind in asked if kind not in READERS]
        if others:
            raise SourceError(
                f'{path}: expected pictures on {topic} ({kinds}), got {_named(others)}; '
                f'of pictures it has {_named(pictures)}'
            )
        pictures = [asked[0][0]]
    if not pictures:
        there = _named([f'{name} ({kind})' for name, kind in topics])
        raise SourceError(f'{path}: expected a topic of pictures ({kinds}), it has {there}')
    found = [name for name in pictures if name in filled]
    if not found:
        raise SourceError(f'{path}: expected pictures, got no message on {_named(pictures)}')
    if len(found) > 1:
        raise SourceError(
            f'{path}: expected one topic of pictures, got {_named(found)}; '
            f'say which, as in {path}::{printable(found[0])}'
        )
    return found[0]


def _named(names: Sequence[str]) -> str:
    more = [f'{len(names) - MOST_NAMED} more'] if len(names) > MOST_NAMED else []
    return ', '.join([*(printable(name[:LONGEST_REASON]) for name in names[:MOST_NAMED]), *more]) or 'none'


def _decode(kind: str, data: object, unpack: Callable[[bytes], bytes]) -> Frame:
    if not isinstance(data, bytes):  # a database may hold anything
        raise FrameError(f'image: expected the bytes of a message, got {type(data).__name__}')
    try:
        cdr = unpack(data)
    except Exception as error:  # of whichever package unpacks
        raise FrameError(f'image: cannot be unpacked: {printable(str(error))[:LONGEST_REASON]}') from error
    return READERS[kind](cdr)


def _other_representation(cdr: bytes) -> FrameError:
    return FrameError(
        f'image: expected a message in plain CDR, got {len(cdr)} bytes that begin with '
        f'{cdr[:4].hex(" ") or "nothing"}'
    )


def _files(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    stored = (entry for entry in path.iterdir() if set(STORED_SUFFIXES) & set(entry.suffixes))
    return (path / METADATA, *sorted(stored))  # with those that are packed: .db3.zstd


def _check_files(path: Path) -> None:
    """Refuse what would be opened wrongly, or block, or fill the disk.

    A folder's metadata may name any file of it, whatever its suffix, so each is looked at.
    """
    try:
        expected = _files(path)
        for file in sorted({*expected, *path.iterdir()}) if path.is_dir() else expected:
            if file.is_file():
                _check_file(file)
            elif file.exists() and (file in expected or not file.is_dir()):
                raise SourceError(f'{file}: expected a file of a recording, got a folder, pipe or device')
    except OSError as error:
        raise SourceError(f'{error.filename or path}: cannot be read: {error.strerror}') from error


def _check_file(file: Path) -> None:
    if not os.access(file, os.R_OK):
        return  # whoever opens it says so
    with file.open('rb', buffering=0) as content:
        head = content.read(len(SQLITE_MAGIC))
        content.seek(0)
        if head[1:4] in ZSTD_FAMILY:
            _check_packed_file(file, content)
    if not ('.db3' in file.suffixes or head == SQLITE_MAGIC):
        return
    if set('?#%') & set(str(file)):  # it is opened as a URI
        raise SourceError(f'{file}: expected a path without ?, # and %; rename it')
    log = file.with_name(file.name + LOG_SUFFIX)
    if log.is_file() and log.stat().st_size:  # which is not read
        raise SourceError(
            f'{file}: was not closed, {log.name} beside it holds more; '
            f"sqlite3 {shlex.quote(str(file))} 'PRAGMA wal_checkpoint(TRUNCATE)' brings that into the file"
        )


def _check_packed_file(file: Path, content: BinaryIO) -> None:
    packed = file.stat().st_size
    most = max(MOST_UNPACKED, MOST_TIMES * packed)
    try:
        is_too_large = _most_unpacked(content, enough=most) > most
    except ValueError as error:
        raise SourceError(f'{file}: {error}') from error
    if is_too_large:
        raise SourceError(
            f'{file}: expected a file that unpacks to at most {most} bytes, got more in {packed} bytes; '
            'if you trust it, give the file that "zstd -d" makes of it'
        )


def _check_named_once(path: Path, reader: Reader) -> None:
    """Refuse a folder whose metadata names a file twice: its pictures would be given twice."""
    storages = getattr(reader.storage, 'storages', ())  # of a folder
    paths = [os.path.realpath(each.path) for each in storages]
    if len(set(paths)) < len(paths):
        twice = next(each for each in paths if paths.count(each) > 1)
        name = printable(os.path.basename(twice))
        raise SourceError(f'{path / METADATA}: expected to name each file once, got {name} twice')


# --- unpacking ---------------------------------------------------------------------------------------------


@cache
def _bound_unpacking() -> Callable[[bytes], bytes]:
    """Bound what a chunk may unpack to, once for all, in the table that rosbags looks it up in.

    Returns:
        What unpacks a message.
    """
    from lz4.frame import LZ4FrameDecompressor
    from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

    unpack_any = DECOMPRESSORS['zstd']

    def unpack(data: bytes, size: int) -> bytes:
        if _most_unpacked(BytesIO(data), enough=MOST_UNPACKED) > MOST_UNPACKED:
            raise ValueError(f'{len(data)} bytes would unpack to more than {MOST_UNPACKED}')
        return unpack_any(data, size)

    def unpack_lz4(data: bytes, size: int) -> bytes:
        unpacked = bytes(LZ4FrameDecompressor().decompress(data, max_length=MOST_UNPACKED + 1))
        if len(unpacked) > MOST_UNPACKED:
            raise ValueError(f'{len(data)} bytes would unpack to more than {MOST_UNPACKED}')
        return unpacked

    DECOMPRESSORS.update(zstd=unpack, lz4=unpack_lz4)
    return partial(unpack, size=0)


def _most_unpacked(file: BinaryIO, *, enough: int) -> int:
    """Tell at most how many bytes zstd may unpack a file to; counts no further than `enough`.

    Blocks are counted: what frames say of their sizes may be missing, or untrue, which only shows at the end.

    Raises:
        ValueError: it holds something else.
    """
    most = 0
    while most <= enough and len(head := file.read(5)) == 5:
        if head[1:4] == ZSTD_FAMILY[1]:
            file.seek(int.from_bytes(head[4:] + file.read(3), 'little'), os.SEEK_CUR)
            most += ZSTD_BLOCK  # nothing, in truth; so that there are not millions of them
            continue
        if head[:4] != ZSTD_MAGIC:
            raise ValueError(f'expected what zstd has packed, got bytes that begin with {head[:4].hex(" ")}')
        flags = head[4]
        is_single, has_checksum = flags >> 5 & 1, flags >> 2 & 1
        of_window, of_dictionary = 1 - is_single, (0, 1, 2, 4)[flags & 3]
        of_content = (is_single, 2, 4, 8)[flags >> 6]
        file.seek(of_window + of_dictionary + of_content, os.SEEK_CUR)
        is_last = 0
        while most <= enough and not is_last:
            if len(block := file.read(3)) < 3:
                return most  # cut off
            number = int.from_bytes(block, 'little')
            is_last, is_repeated, size = number & 1, number >> 1 & 3 == 1, number >> 3
            file.seek(1 if is_repeated else size, os.SEEK_CUR)  # of what is repeated, there is one byte
            most += ZSTD_BLOCK
        file.seek(4 * has_checksum, os.SEEK_CUR)
    return most


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Say in the words of this package what is wrong with a recording."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # damage comes as errors of rosbags, SQLite, zstd, struct, UTF-8 and more
        why = error.strerror if isinstance(error, OSError) else None
        why = ' '.join(str(why or error or type(error).__name__).split())[:LONGEST_REASON]
        raise SourceError(
            f'{path}: cannot be read as a recording: {printable(why)}; "ros2 bag reindex" or "mcap recover" '
            'may repair one that was cut off'
        ) from error
