import os
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from isaac_infer.core import source
from isaac_infer.core.errors import SourceError
from isaac_infer.core.source import open_source, open_sources, read_picture

GRADIENT = np.linspace(0, 255, 16 * 12, dtype=np.uint8).reshape(12, 16)


def save_picture(path: Path, value: int = 0, *, size_hw: tuple[int, int] = (12, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), value, np.uint8))
    return path


def save_video(path: Path, values: list[int]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 24))
    for value in values:
        writer.write(np.full((24, 32, 3), value, np.uint8))
    writer.release()
    return path


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('no picture')
    with pytest.raises(SourceError, match=r'expected pictures \(\.jpg .*\), the folder has none'):
        open_source(str(tmp_path))


def test_a_pattern_is_told_that_nobody_expands_it(tmp_path: Path) -> None:
    save_picture(tmp_path / 'one.jpg')
    with pytest.raises(SourceError, match=r'no such file.*; \* is not expanded here: give the folder'):
        open_source(f'{tmp_path}/*.jpg')
    assert open_source(str(save_picture(tmp_path / '*.png'))).length == 1  # a file of that name


def test_one_picture_is_read_once(tmp_path: Path) -> None:
    path = save_picture(tmp_path / 'one.png', 7)
    with open_source(str(path)) as source:
        assert source.length == 1
        picture = source.read()
        assert picture is not None
        assert picture.name == str(path)
        assert picture.image.shape == (12, 16, 3)
        assert (picture.image == 7).all()
        assert source.read() is None


def test_a_folder_is_read_in_the_order_that_people_count(tmp_path: Path) -> None:
    for name in ('b10.png', 'b2.png', 'A1.png', 'b.txt.png', '3.png'):
        save_picture(tmp_path / name)
    (tmp_path / 'labels.txt').touch()
    with open_source(str(tmp_path)) as source:
        assert [Path(picture.name).name for picture in source] == [
            '3.png',
            'A1.png',
            'b2.png',
            'b10.png',
            'b.txt.png',
        ]


def test_a_broken_picture_of_a_folder_is_an_error_once_and_the_next_one_is_read(tmp_path: Path) -> None:
    save_picture(tmp_path / '1.png')
    (tmp_path / '2.png').write_bytes(b'no picture')
    (tmp_path / '3.png').touch()
    save_picture(tmp_path / '4.png')
    with open_source(str(tmp_path)) as source:
        assert source.read().name.endswith('1.png')
        with pytest.raises(SourceError, match='2.png: expected a picture, got a file of 10 bytes that'):
            source.read()
        with pytest.raises(SourceError, match='3.png: expected a picture, got an empty file'):
            source.read()
        assert source.read().name.endswith('4.png')
        assert source.read() is None


def test_a_looped_folder_starts_again(tmp_path: Path) -> None:
    for number in range(2):
        save_picture(tmp_path / f'{number}.png', number)
    with open_source(str(tmp_path), loop=True) as source:
        assert source.length is None
        assert [source.read().image[0, 0, 0] for _ in range(5)] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ('stored', 'expected'),
    [
        (GRADIENT, cv2.cvtColor(GRADIENT, cv2.COLOR_GRAY2BGR)),
        (GRADIENT.astype(np.uint16) * 257, cv2.cvtColor(GRADIENT, cv2.COLOR_GRAY2BGR)),
        (np.dstack([GRADIENT, GRADIENT.T.reshape(12, 16), GRADIENT // 2, GRADIENT]), None),
    ],
    ids=['grey', '16 bit', 'with transparency'],
)
def test_every_kind_of_picture_becomes_eight_bit_bgr(
    stored: np.ndarray, expected: np.ndarray | None, tmp_path: Path
) -> None:
    path = tmp_path / 'picture.png'
    assert cv2.imwrite(str(path), stored)
    image = read_picture(path).image
    np.testing.assert_array_equal(image, stored[..., :3] if expected is None else expected)


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    path = save_picture(tmp_path / 'plain.jpg', size_hw=(12, 16))
    jpeg = path.read_bytes()
    quarter_turn = 6
    exif = (
        b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01'
        + bytes([0, quarter_turn, 0, 0])
        + b'\0\0\0\0'
    )
    turned = tmp_path / 'turned.jpg'
    turned.write_bytes(jpeg[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + jpeg[2:])
    assert read_picture(turned).image.shape == (16, 12, 3)


def test_a_video_gives_its_pictures_in_order_with_their_numbers(tmp_path: Path) -> None:
    path = save_video(tmp_path / 'video.avi', [0, 100, 200])
    with open_source(str(path)) as source:
        assert source.length == 3
        pictures = list(source)
    assert [picture.name for picture in pictures] == [f'{path}#{number}' for number in (1, 2, 3)]
    np.testing.assert_allclose([picture.image.mean() for picture in pictures], [0, 100, 200], atol=3)


def test_a_looped_video_starts_again(tmp_path: Path) -> None:
    path = save_video(tmp_path / 'video.avi', [0, 200])
    with open_source(str(path), loop=True) as source:
        means = [source.read().image.mean() for _ in range(5)]
    np.testing.assert_allclose(means, [0, 200, 0, 200, 0], atol=3)


def test_a_looped_video_that_cannot_be_set_back_starts_again(tmp_path: Path) -> None:
    path = tmp_path / 'video.mjpeg'
    greys = [np.full((64, 64, 3), value, np.uint8) for value in (0, 200)]
    path.write_bytes(b''.join(cv2.imencode('.jpg', grey)[1].tobytes() for grey in greys))
    with open_source(str(path), loop=True) as source:
        means = [source.read().image.mean() for _ in range(5)]
    np.testing.assert_allclose(means, [0, 200, 0, 200, 0], atol=3)


def test_a_closed_source_gives_nothing_more_and_closes_twice(tmp_path: Path) -> None:
    source = open_source(str(save_video(tmp_path / 'video.avi', [0, 200])))
    source.close()
    source.close()
    assert source.read() is None


def test_drawn_scenes_never_end_and_the_seed_decides(tmp_path: Path) -> None:
    with open_source('synthetic', size_hw=(60, 80), seed=3) as source:
        assert source.length is None
        first, second = source.read(), source.read()
    assert (first.name, second.name) == ('synthetic 3', 'synthetic 4')
    assert first.image.shape == (60, 80, 3)
    with open_source('synthetic', size_hw=(60, 80), seed=4) as source:
        np.testing.assert_array_equal(source.read().image, second.image)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', 'no such file'),
        ('nowhere', 'no such file'),
        ('/dev/video987', 'cannot be opened; is it connected, free, and may this user read it'),
        ('987', 'cannot be opened'),
        (
            'rtsp://127.0.0.1:1/none',
            r'nobody answers at 127.0.0.1:1 \(Connection refused\)',
        ),
        ('rtsp://', 'cannot be opened; are its address and kind right'),
        ('rtsp://[1/none', 'cannot be opened; are its address and kind right'),
        ('rtsp://127.0.0.1:999999/none', 'cannot be opened; are its address and kind right'),
        ('nosuchsource ! appsink', 'cannot be opened'),
        ('99999999999', 'no such file'),
        ('~nosuchuser/a.png', 'no such file'),
        ('a' * 5000, 'no such file'),
        ('nosuchsource ! ' * 1000 + 'appsink', 'cannot be opened'),
        ('\udcff ! appsink', 'expected a name that is UTF-8 text'),
    ],
)
def test_what_cannot_be_opened_is_an_error(text: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected):
        open_source(text)


def test_a_stream_that_is_none_is_told_from_nobody_who_answers() -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        place = f'127.0.0.1:{server.getsockname()[1]}'
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()  # to OpenCV
        with pytest.raises(SourceError, match=f'cannot be opened; {place} answers; are path, user'):
            open_source(f'rtsp://{place}/none')


@pytest.mark.parametrize('built', ['NO', 'YES (1.20.3)'])
def test_an_opencv_without_gstreamer_is_told(built: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'getBuildInformation', lambda: f'  Video I/O:\n    GStreamer:       {built}\n')
    with pytest.raises(SourceError) as error:
        open_source('nosuchsource ! appsink')
    assert ('built without GStreamer' in str(error.value)) == (built == 'NO')


def test_a_file_that_is_neither_picture_nor_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / 'notes.txt'
    path.write_text('no video')
    with pytest.raises(SourceError, match='expected a picture or video, got a file that is neither'):
        open_source(str(path))


@pytest.mark.parametrize('folder', ['2024', 'ex!', 'rtsp:'])
def test_what_exists_is_a_file_or_folder_whatever_its_name(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / folder / 'a.png', 7)
    save_video(tmp_path / 'video.avi', [100])
    shutil.copy(tmp_path / 'video.avi', tmp_path / folder / '7')
    for text in (folder, f'{folder}/a.png'):
        with open_source(text) as source:
            assert (source.read().image == 7).all()
    with open_source(f'{folder}/7') as source:
        assert not source.is_live
        assert source.read().image.mean() == pytest.approx(100, abs=3)


def test_a_source_tells_which_files_it_reads(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / 'pictures' / f'{number}.png') for number in range(2)]
    video = save_video(tmp_path / 'video.avi', [0])
    assert open_source(str(tmp_path / 'pictures')).paths == tuple(paths)
    assert open_source(str(tmp_path / 'pictures'), loop=True).paths == tuple(paths)
    assert open_source(str(video)).paths == (video,)
    assert open_source('synthetic').paths == ()


def test_names_of_another_encoding_are_read_or_refused_in_words(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / 'plain.png', 7).rename(tmp_path / '\udcff.png')
    assert (read_picture(picture).image == 7).all()
    video = save_video(tmp_path / 'plain.avi', [0]).rename(tmp_path / '\udcff.avi')
    with pytest.raises(SourceError, match='expected a name that is UTF-8 text; rename it'):
        open_source(str(video))


def test_a_pipe_among_pictures_is_an_error_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.png')
    save_picture(tmp_path / 'b.png')
    with open_source(str(tmp_path)) as source:
        with pytest.raises(SourceError, match='a.png: expected a picture, got a folder, pipe or device'):
            source.read()
        assert source.read().name.endswith('b.png')


def test_a_picture_of_floats_says_what_is_supported(tmp_path: Path) -> None:
    path = tmp_path / 'depth.tiff'
    assert cv2.imwrite(str(path), np.ones((12, 16), np.float32))
    with pytest.raises(
        SourceError, match='float32 values, which is not supported; convert it to 8 or 16 bits'
    ):
        read_picture(path)


def test_a_video_that_is_cut_off_is_an_error_after_its_last_picture(tmp_path: Path) -> None:
    path = save_video(tmp_path / 'cut.avi', list(range(0, 250, 5)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(str(path)) as source:
        assert source.read() is not None
        with pytest.raises(SourceError, match=r'ended after [0-9]+ of 50 pictures'):
            list(source)


def test_several_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    names = [str(save_picture(tmp_path / name)) for name in ('b.png', 'a.png')]
    (tmp_path / 'more').mkdir()
    names.append(str(save_picture(tmp_path / 'more' / 'c.png')))
    with open_sources([*names[:2], str(tmp_path / 'more')]) as source:
        assert source.length == 3
        assert [str(path) for path in source.paths] == names
        assert [picture.name for picture in source] == names
    with pytest.raises(SourceError, match='synthetic: never ends'):
        open_sources([names[0], 'synthetic'])


def test_a_folder_named_like_a_picture_is_none(tmp_path: Path) -> None:
    (tmp_path / 'a.png').mkdir()
    path = save_picture(tmp_path / 'b.png')
    with open_source(str(tmp_path)) as source:
        assert [picture.name for picture in source] == [str(path)]


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.mp4')
    with pytest.raises(SourceError, match='got a pipe'):
        open_source(str(tmp_path / 'pipe.mp4'))


class Pipeline:
    """A GStreamer pipeline as OpenCV shows it."""

    def __init__(self, height: int) -> None:
        self._height = height

    def get(self, _: int) -> float:
        return float(self._height)


@pytest.mark.parametrize('shape', [(240, 320), (240, 320, 1), (240, 320, 3), (240, 320, 4)])
def test_pipelines_that_end_in_grey_or_bgrx_give_bgr(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 7, np.uint8)
    assert (source._as_bgr(image, Pipeline(240), 'x ! appsink') == np.full((240, 320, 3), 7)).all()


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((360, 320, 3), np.uint8),  # NV12
        np.zeros((1, 12635, 3), np.uint8),  # JPEG
        np.zeros((240, 320, 2), np.uint8),  # YUY2
        np.zeros((240, 320), np.uint16),  # GRAY16
    ],
)
def test_pipelines_that_end_in_something_else_are_refused_with_the_way_out(image: np.ndarray) -> None:
    with pytest.raises(SourceError, match=r'expected pictures in BGR.*videoconvert'):
        source._as_bgr(image, Pipeline(240), 'x ! appsink')


def test_a_stream_that_breaks_off_is_an_error_after_its_last_picture() -> None:
    picture = cv2.imencode('.jpg', np.full((48, 64, 3), 100, np.uint8))[1].tobytes()
    part = (
        b'--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n' % len(picture) + picture + b'\r\n'
    )

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=next')
            self.end_headers()
            for _ in range(12):
                self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            """Not on the terminal."""

    with ThreadingHTTPServer(('127.0.0.1', 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_source(f'http://127.0.0.1:{server.server_port}/stream') as stream:
                assert stream.is_live
                pictures = [stream.read() for _ in range(5)]
                assert all(picture and picture.image.shape == (48, 64, 3) for picture in pictures)
                with pytest.raises(SourceError, match='delivers no more pictures; was it disconnected'):
                    list(stream)
        finally:
            server.shutdown()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may enter every folder')
def test_a_folder_that_may_not_be_entered_is_one_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / 'locked'
    folder.mkdir()
    picture = save_picture(folder / 'a.png')
    folder.chmod(0o444)  # it can still be listed
    try:
        for path in (folder, picture):
            with pytest.raises(SourceError, match=f'{path}: cannot be read: Permission denied'):
                open_source(str(path))
        with pytest.raises(SourceError, match='cannot be read: .*Permission denied'):
            read_picture(picture)
    finally:
        folder.chmod(0o755)
