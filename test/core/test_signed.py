from pathlib import Path

import cv2
import numpy as np
import pytest

from isaac_infer.core.signed import SUFFIXES, is_signed, signed


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_picture_is_known_again_by_who_wrote_it_and_stays_readable(tmp_path: Path, suffix: str) -> None:
    image = np.full((8, 8, 3), 90, np.uint8)
    plain = bytes(cv2.imencode(suffix, image)[1])
    file = tmp_path / f'picture{suffix}'
    file.write_bytes(signed(plain, by='recorder'))
    assert is_signed(file, by='recorder')
    assert not is_signed(file, by='simulator')
    np.testing.assert_array_equal(cv2.imread(str(file)), image)
    file.write_bytes(plain)
    assert not is_signed(file, by='recorder')


def test_an_empty_file_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / 'empty.png').touch()
    assert is_signed(tmp_path / 'empty.png', by='recorder')
