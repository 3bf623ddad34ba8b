"""Source: pictures one after the other, from a file, folder, video, recording, camera, stream, or drawn."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, cycle
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from isaac_infer.core.bag import STORED_SUFFIXES, Bag, is_bag, open_bag, split_topic
from isaac_infer.core.errors import FrameError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.text import counted, printable

PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.jp2', '.gif')
SYNTHETIC, HUMANOIDS = 'synthetic', 'synthetic:humanoids'  # drawn scenes: of table tops, of figures on them
DRAWN = (SYNTHETIC, HUMANOIDS)
LIVE = re.compile(r'[0-9]{1,4}|/dev/video.*|rtsp.*://.*|.*!.*', re.DOTALL)  # what comes at its own pace
COUNTED_SUFFIXES = ('.avi', '.mp4', '.m4v', '.mov')  # videos that know how many pictures they have
COMPLETE = 0.9  # of the pictures that a video says it has
OPEN_TIMEOUT_MS = 10000  # of streams; OpenCV's own is three times as long
CONNECT_TIMEOUT_S = 3.0  # to find out why a stream could not be opened
PORTS = {'rtsp': 554, 'rtsps': 322, 'http': 80, 'https': 443, 'rtmp': 1935}  # where the address names none
READ_TIMEOUT_MS = 3000  # OpenCV tries three times
CONVERSIONS = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}  # by channels


@dataclass(frozen=True)
class Picture:
    """One picture of a source."""

    name: str  # for people: the path, with the number of the picture where one path gives several
    image: np.ndarray  # (H, W, 3) uint8, BGR
    stamp_ns: int = 0  # when it was taken, nanoseconds; only recordings tell


class Source:
    """Pictures one after the other; a context manager that lets go of the camera or file.

    A picture of a folder that cannot be read raises SourceError once; the next `read` goes on after it.
    """

    def __init__(
        self,
        pictures: Iterator[Callable[[], Picture]],
        *,
        length: int | None = None,
        paths: Sequence[Path] = (),
        topic: str = '',
        is_live: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.length = length  # how many pictures there are; None where nobody knows or it never ends
        self.paths = tuple(paths)  # the files that are read; of pictures in their order
        self.topic = topic  # of a recording
        self.is_live = is_live  # pictures come at the camera's pace, and are lost if nobody reads them
        self._pictures = pictures
        self._close = close

    def read(self) -> Picture | None:
        """Give the next picture, or None at the end.

        Raises:
            SourceError: the picture cannot be read, or a camera delivers no more.
        """
        load = next(self._pictures, None)
        return load() if load else None

    def unread(self) -> Iterator[Callable[[], Picture]]:
        """What `read` would call, picture by picture."""
        return self._pictures

    def __iter__(self) -> Iterator[Picture]:
        while picture := self.read():
            yield picture

    def close(self) -> None:
        """Release the camera or file; safe to call twice."""
        self._pictures = iter(())
        self._close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_stream(text: str) -> bool:
    """Tell whether a text names a camera or stream, and no file or folder."""
    is_there = os.path.exists(os.path.expanduser(split_topic(text)[0]))
    return not is_there and bool(LIVE.fullmatch(text) or '://' in text)


def open_source(
    text: str, *, loop: bool = False, size_hw: tuple[int, int] = (480, 640), seed: int = 0
) -> Source:
    """Open what a text names.

    Args:
        text: a picture, a folder of pictures, a video, a ROS 2 recording (a folder or file, with `::/topic`
            behind it where it has several of pictures), a camera (`/dev/video0` or `0`), a stream
            (`rtsp://...`), a GStreamer pipeline (`... ! appsink`), or one of DRAWN. A file or folder that
            exists is taken as such, whatever its name looks like; `./synthetic` is one of that name.
        loop: start again at the end of files, folders, videos and recordings.
        size_hw: height and width of drawn pictures.
        seed: which scene is drawn first.

    Raises:
        SourceError: it does not exist, is empty, or is nothing of this.
    """
    if text in DRAWN:
        return Source(partial(_draw, text, number, size_hw) for number in count(seed))
    place, topic = split_topic(text)
    path = Path(os.path.expanduser(place))
    if not place or not os.path.exists(path):  # unlike Path.exists, no error for a text too long to be a path
        if is_stream(text):
            return _open_video(text, loop=loop)
        if why := denial(path):
            raise SourceError(f'{text}: cannot be read: {why}')
        way_out = f'give a picture, folder, video, recording, camera, stream or "{SYNTHETIC}"'
        if '*' in text:  # quoted, or in a parameter, where no shell has expanded it
            way_out = '* is not expanded here: give the folder'
        raise SourceError(f'{text!r}: no such file, folder or device; {way_out}')
    if is_bag(path):
        return _open_bag(path, topic, loop=loop)
    if topic:
        raise SourceError(f'{text}: expected a recording before "::", {place} is none')
    if path.is_dir():
        try:
            found = list(path.iterdir())
            pictures = [entry for entry in found if is_picture(entry) and not entry.is_dir()]
        except OSError as error:
            raise SourceError(f'{text}: cannot be read: {error.strerror}') from error
        paths = sorted(pictures, key=lambda entry: _natural_order(entry.name))
        if not paths:
            recorded = sorted(entry.name for entry in found if entry.suffix in STORED_SUFFIXES)
            hint = f'; {recorded[0]} in it is a recording that can be given itself' if recorded else ''
            raise SourceError(
                f'{text}: expected pictures ({" ".join(PICTURE_SUFFIXES)}), the folder has none{hint}'
            )
        return _open_files(paths, loop=loop)
    if not (path.is_file() or path.is_char_device()):  # opening a pipe would wait for somebody to write
        raise SourceError(f'{text}: expected a picture, video or camera, got a pipe or another device')
    if is_picture(path):
        return _open_files([path], loop=loop)
    return _open_video(str(path), loop=loop)


def open_sources(texts: Sequence[str], *, seed: int = 0) -> Source:
    """Open one source, or several pictures, folders, videos and recordings to be read one after the other.

    Raises:
        SourceError: as `open_source`; or one of several never ends.
    """
    if len(texts) == 1:
        return open_source(texts[0], seed=seed)
    sources: list[Source] = []
    try:
        for text in texts:
            sources.append(open_source(text, seed=seed))
            if sources[-1].is_live or text in DRAWN:
                raise SourceError(f'{text}: never ends; give it as the only source')
    except SourceError:
        for source in sources:
            source.close()
        raise

    def close() -> None:
        for source in sources:
            source.close()

    lengths = [source.length for source in sources]
    return Source(
        chain.from_iterable(source.unread() for source in sources),
        length=None if None in lengths else sum(length or 0 for length in lengths),
        paths=[path for source in sources for path in source.paths],
        close=close,
    )


def denial(path: Path) -> str:
    """Say why a path may not be looked at; empty where it may, whether or not it is there."""
    try:
        os.stat(path)
    except PermissionError as error:
        return f'{error.strerror}; may this user enter its folder?'
    except (OSError, ValueError):
        pass
    return ''


def is_picture(path: Path) -> bool:
    """Tell by its name whether a file is a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def read_picture(path: Path) -> Picture:
    """Read a picture of 8 or 16 bits, grey or with transparency as 8-bit BGR, turned as its camera was held.

    Raises:
        SourceError: the file cannot be read or is no picture.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for somebody to write into it
            raise SourceError(f'{path}: expected a picture, got a folder, pipe or device')
        data = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise SourceError(f'{path}: expected a picture, got {_what_else(data)}')
    except (OSError, cv2.error) as error:
        raise SourceError(f'{path}: cannot be read: {error}') from error
    return Picture(str(path), image)


def _what_else(data: np.ndarray) -> str:
    """Say what a file holds that is no picture of 8 or 16 bits."""
    if not len(data):
        return 'an empty file'
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        return f'a file of {len(data)} bytes that cannot be read as one'
    return f'one of {image.dtype} values, which is not supported; convert it to 8 or 16 bits'


def _open_files(paths: list[Path], *, loop: bool) -> Source:
    loads = [partial(read_picture, path) for path in paths]
    if loop:
        return Source(cycle(loads), paths=paths)
    return Source(iter(loads), length=len(loads), paths=paths)


def _open_bag(path: Path, topic: str, *, loop: bool) -> Source:
    bag = open_bag(path, topic)
    return Source(
        _recorded(bag, path, loop=loop),
        length=None if loop else bag.length,
        paths=bag.paths,
        topic=bag.topic,
        close=bag.close,
    )


def _recorded(bag: Bag, path: Path, *, loop: bool) -> Iterator[Callable[[], Picture]]:
    name = f'{path}/{printable(bag.topic.strip("/"))}'
    while True:
        for number, load in enumerate(bag.frames(), 1):
            yield partial(_read_recorded, f'{name}#{number}', load)
        if not loop:
            return


def _read_recorded(name: str, load: Callable[[], Frame]) -> Picture:
    try:
        frame = load()
    except FrameError as error:
        raise SourceError(f'{name}: {error}') from error
    return Picture(name, frame.bgr(), frame.stamp_ns)


def _draw(kind: str, seed: int, size_hw: tuple[int, int]) -> Picture:
    from isaac_infer.core.scenes import draw_scene

    scene = draw_scene(seed, size_hw=size_hw, humanoids=kind == HUMANOIDS)
    return Picture(f'{kind} {seed}', scene.image)


def _natural_order(name: str) -> list[tuple[int, int, str]]:
    """Order 2.jpg before 10.jpg."""
    parts = re.split(r'([0-9]+)', name.lower())
    return [(0, int(part), '') if part.isdecimal() else (1, 0, part) for part in parts]


def _open_video(text: str, *, loop: bool) -> Source:
    is_file = os.path.isfile(text)
    arguments = _arguments(text, is_file=is_file)
    capture = cv2.VideoCapture(*arguments)
    # A stream over http, too, unless it knows its end.
    is_endless = '://' in text and capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    is_live = not is_file and (is_endless or LIVE.fullmatch(text) is not None)
    if not capture.isOpened():
        capture.release()
        if is_live or '://' in text:
            raise SourceError(f'{text}: cannot be opened; {_why_closed(text)}')
        raise SourceError(f'{text}: expected a picture or video, got a file that is neither')
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Source(
        _frames(capture, arguments, text, loop=loop and not is_live, is_live=is_live),
        length=frames if frames > 0 and not loop and not is_live else None,
        paths=[Path(text)] if is_file else [],
        is_live=is_live,
        close=capture.release,
    )


def _why_closed(text: str) -> str:
    """Say why a camera, stream or pipeline may not open, which OpenCV does not tell."""
    if '!' in text and re.search(r'GStreamer: +NO', cv2.getBuildInformation()):
        return (
            'this OpenCV was built without GStreamer, as that of pip is; use that of the system (apt install '
            'python3-opencv), or give the camera or stream itself'
        )
    if '://' not in text:
        return 'is it connected, free, and may this user read it?'
    unclear = 'are its address and kind right?'
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or PORTS.get(url.scheme)
        if not (host and port):
            return unclear
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except ValueError:  # of addresses that are none
        return unclear
    except OSError as error:
        return f'nobody answers at {host}:{port} ({error.strerror or error})'
    return f'{host}:{port} answers; are path, user and password right?'


def _arguments(text: str, *, is_file: bool) -> tuple[Any, ...]:
    """What cv2.VideoCapture is opened with."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a file name of another encoding: OpenCV would crash
        raise SourceError(f'{text!r}: expected a name that is UTF-8 text; rename it') from error
    if is_file:
        return (text,)
    if text.isdecimal():
        return (int(text),)
    if '!' in text:
        return text, cv2.CAP_GSTREAMER
    if '://' in text:
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
        timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
        return text, cv2.CAP_FFMPEG, timeouts
    return (text,)


def _frames(
    capture: cv2.VideoCapture, arguments: tuple[Any, ...], text: str, *, loop: bool, is_live: bool
) -> Iterator[Callable[[], Picture]]:
    number = 0
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while True:
        number += 1
        is_there, image = capture.read()
        if is_there:
            yield partial(Picture, f'{text}#{number}', _as_bgr(image, capture, text))
            continue
        if number == 1:
            raise SourceError(f'{text}: expected pictures, got none')
        if is_live:
            raise SourceError(f'{text}: delivers no more pictures; was it disconnected?')
        if not loop:
            # Other containers only estimate the number, by their length in seconds.
            if text.lower().endswith(COUNTED_SUFFIXES) and number - 1 < COMPLETE * length:
                raise SourceError(
                    f'{text}: ended after {number - 1} of {counted(length, "picture")}; is it damaged?'
                )
            return
        number = 0
        capture.open(*arguments)  # since not every video can be set back


def _as_bgr(image: np.ndarray, capture: cv2.VideoCapture, text: str) -> np.ndarray:
    """Grey cameras give one channel; GStreamer pipelines whatever their last element gives."""
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if image.dtype == np.uint8 and len(image) == (height or len(image)):  # NV12 and JPEG have other heights
        channels = image.shape[2] if image.ndim == 3 else 1
        if channels == 3:
            return image
        if channels in CONVERSIONS:
            return cv2.cvtColor(image, CONVERSIONS[channels])
    raise SourceError(
        f'{text}: expected pictures in BGR, got {image.dtype}{list(image.shape)}; '
        'let the pipeline end with "videoconvert ! video/x-raw,format=BGR ! appsink"'
    )
