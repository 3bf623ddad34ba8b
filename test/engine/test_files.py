"""Files are written in one step, or not at all."""

import os
from pathlib import Path

import pytest

from isaac_infer.engine.files import replace_file


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
