"""Files are written in one step, or not at all; working folders go with whoever works in them."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from isaac_infer.engine.files import FOLDER_PREFIX, MARKER, YOUNG_S, replace_file, working_folder


def test_a_file_is_replaced_with_the_rights_that_the_user_wants(tmp_path: Path) -> None:
    place = tmp_path / 'a.cache'
    place.write_bytes(b'old')
    replace_file(place, b'new')
    assert place.read_bytes() == b'new' and os.listdir(tmp_path) == ['a.cache']
    umask = os.umask(0)
    os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / 'a.cache'
    place.mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - which one is up to the system
        replace_file(place, b'new')
    assert os.listdir(tmp_path) == ['a.cache'] and os.listdir(place) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files, of this process and its children."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    return tmp_path


def make_old(path: Path) -> None:
    long_ago = path.stat().st_mtime - 2 * YOUNG_S
    os.utime(path, (long_ago, long_ago))


WORKER = """
import time
from isaac_infer.engine.files import working_folder
with working_folder('test') as folder:
    (folder / 'file').touch()
    print(folder, flush=True)
    time.sleep(30)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_stays(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, '-c', WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        theirs = Path(worker.stdout.readline().strip())
        make_old(theirs / MARKER)
        with working_folder('test') as first, working_folder('test') as second:
            make_old(first / MARKER)
            assert theirs.exists() and first != second
            with working_folder('test'):
                assert first.exists() and theirs.exists()
        worker.send_signal(signal.SIGKILL)
    with working_folder('test') as mine:
        assert list(temporary.iterdir()) == [mine]
    assert list(temporary.iterdir()) == []


def test_what_is_young_or_not_of_this_package_stays(temporary: Path) -> None:
    young, of_others = temporary / f'{FOLDER_PREFIX}a.young', temporary / f'{FOLDER_PREFIX}egg-info'
    elsewhere, link = temporary / 'elsewhere', temporary / f'{FOLDER_PREFIX}a.link'
    for folder in (young, of_others, elsewhere):
        folder.mkdir()
    for folder in (young, elsewhere):
        (folder / MARKER).touch()
    make_old(elsewhere / MARKER)
    make_old(of_others)
    link.symlink_to(elsewhere)
    with working_folder('test'):
        pass
    assert set(temporary.iterdir()) == {young, of_others, elsewhere, link}
