"""Source: pictures one after the other, from a file, folder, video, camera, stream, or drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from isaac_infer.core.errors import SourceError

PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.jp2', '.gif')
SYNTHETIC = 'synthetic'
OPEN_TIMEOUT_MS = 10000  # of streams; OpenCV's own is three times as long


@dataclass(frozen=True)
class Picture:
    """One picture of a source."""

    name: str  # for people: the path, with the number of the picture where one path gives several
    image: np.ndarray  # (H, W, 3) uint8, BGR


class Source:
    """Pictures one after the other; a context manager that lets go of the camera or file.

    A picture of a folder that cannot be read raises SourceError once; the next `read` goes on after it.
    """

    def __init__(
        self,
        pictures: Iterator[Callable[[], Picture]],
        *,
        length: int | None = None,
        is_live: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.length = length  # how many pictures there are; None where nobody knows or it never ends
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


def open_source(
    text: str, *, loop: bool = False, size_hw: tuple[int, int] = (480, 640), seed: int = 0
) -> Source:
    """Open what a text names.

    Args:
        text: a picture, a folder of pictures, a video, a camera (`/dev/video0` or `0`), a stream
            (`rtsp://...`), a GStreamer pipeline (`... ! appsink`), or `synthetic`.
        loop: start again at the end of files, folders and videos.
        size_hw: height and width of drawn pictures.
        seed: which scene is drawn first.

    Raises:
        SourceError: it does not exist, is empty, or is nothing of this.
    """
    if text == SYNTHETIC:
        return Source(partial(_draw, number, size_hw) for number in count(seed))
    if text.isdecimal() or text.startswith('/dev/video') or '!' in text or '://' in text:
        return _open_video(text, loop=loop)
    path = Path(text).expanduser()
    if text and path.is_dir():
        found = (entry for entry in path.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES)
        paths = sorted(found, key=lambda entry: _natural_order(entry.name))
        if not paths:
            raise SourceError(
                f'{text}: expected pictures ({" ".join(PICTURE_SUFFIXES)}), the folder has none'
            )
        return _open_files(paths, loop=loop)
    if not text or not path.exists():
        raise SourceError(f'{text!r}: no such file, folder or device; give a picture, folder, video, camera, '
                          f'stream or "{SYNTHETIC}"')  # fmt: skip
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _open_files([path], loop=loop)
    return _open_video(str(path), loop=loop)


def read_picture(path: Path) -> Picture:
    """Read a picture of any depth, grey or with transparency as 8-bit BGR, turned as its camera was held.

    Raises:
        SourceError: the file cannot be read or is no picture.
    """
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, cv2.error) as error:
        raise SourceError(f'{path}: cannot be read: {error}') from error
    if image is None:
        what = f'{len(data)} bytes that are none' if len(data) else 'an empty file'
        raise SourceError(f'{path}: expected a picture, got {what}')
    return Picture(str(path), image)


def _open_files(paths: list[Path], *, loop: bool) -> Source:
    loads = [partial(read_picture, path) for path in paths]
    return Source(cycle(loads), length=None) if loop else Source(iter(loads), length=len(loads))


def _draw(seed: int, size_hw: tuple[int, int]) -> Picture:
    from isaac_infer.core.scenes import draw_scene

    return Picture(f'{SYNTHETIC} {seed}', draw_scene(seed, size_hw=size_hw).image)


def _natural_order(name: str) -> list[tuple[int, int, str]]:
    """Order 2.jpg before 10.jpg."""
    parts = re.split(r'([0-9]+)', name.lower())
    return [(0, int(part), '') if part.isdecimal() else (1, 0, part) for part in parts]


def _open_video(text: str, *, loop: bool) -> Source:
    is_live = text.isdecimal() or text.startswith('/dev/video') or '!' in text or text.startswith('rtsp')
    capture = _capture(text)
    if not capture.isOpened():
        capture.release()
        if is_live or '://' in text:
            raise SourceError(f'{text}: cannot be opened; is it connected, free, and may this user read it?')
        raise SourceError(f'{text}: expected a picture or video, got a file that is neither')
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Source(
        _frames(capture, text, loop=loop and not is_live, is_live=is_live),
        length=frames if frames > 0 and not loop and not is_live else None,
        is_live=is_live,
        close=capture.release,
    )


def _capture(text: str) -> cv2.VideoCapture:
    if text.isdecimal():
        return cv2.VideoCapture(int(text))
    if '!' in text:
        return cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
    if '://' in text:
        return cv2.VideoCapture(text, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS])
    return cv2.VideoCapture(text)


def _frames(
    capture: cv2.VideoCapture, text: str, *, loop: bool, is_live: bool
) -> Iterator[Callable[[], Picture]]:
    number = 0
    while True:
        number += 1
        is_there, image = capture.read()
        if is_there:
            yield partial(Picture, f'{text}#{number}', _as_bgr(image))
            continue
        if number == 1:
            raise SourceError(f'{text}: expected pictures, got none')
        if is_live:
            raise SourceError(f'{text}: delivers no more pictures; was it disconnected?')
        if not loop:
            return
        number = 0
        capture.set(cv2.CAP_PROP_POS_FRAMES, 0)


def _as_bgr(image: np.ndarray) -> np.ndarray:
    """Grey cameras give one channel."""
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
