"""Files are written in one step, or not at all; working folders go with whoever works in them."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from isaac_infer.engine.files import FOLDER_PREFIX, YOUNG_S, replace_file, working_folder


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


def make_old(folder: Path) -> None:
    long_ago = folder.stat().st_mtime - 2 * YOUNG_S
    os.utime(folder, (long_ago, long_ago))


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
        make_old(theirs)
        with working_folder('test') as first, working_folder('test') as second:
            make_old(first)
            assert theirs.exists() and first != second
            with working_folder('test'):
                assert first.exists() and theirs.exists()
        worker.send_signal(signal.SIGKILL)
    with working_folder('test') as mine:
        assert list(temporary.iterdir()) == [mine]
    assert list(temporary.iterdir()) == []


def test_what_nobody_works_in_stays_where_it_is_young_or_no_folder_of_ours(temporary: Path) -> None:
    others = {temporary / f'{FOLDER_PREFIX}young', temporary / f'{FOLDER_PREFIX}link', temporary / 'other'}
    (temporary / f'{FOLDER_PREFIX}young').mkdir()
    (temporary / 'other').mkdir()
    make_old(temporary / 'other')
    (temporary / f'{FOLDER_PREFIX}link').symlink_to(temporary / 'other')
    with working_folder('test'):
        pass
    assert set(temporary.iterdir()) == others
