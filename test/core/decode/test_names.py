"""Class names as people keep them."""

from __future__ import annotations

import pytest

from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import ModelError


@pytest.mark.parametrize('names', [(), ('cup',), ('cup', 'ball')])
def test_names_that_are_given_are_taken(names):
    assert read_class_names(names) == names


@pytest.mark.parametrize(
    ('file', 'text'),
    [
        ('names.txt', 'cup\nball\n'),
        ('names.txt', '\ufeffcup\r\n ball \r\n\r\n'),
        ('coco.names', 'cup\nball'),
        ('names.json', '["cup", "ball"]'),
        ('names.json', '{"1": "ball", "0": "cup"}'),
        ('names.json', '{"names": ["cup", "ball"], "nc": 2}'),
        ('data.yaml', 'path: x\nnames:\n  0: cup\n  1: ball\n'),
        ('data.yml', '- cup\n- ball\n'),
        ('labels', 'cup\nball\n'),
    ],
)
def test_names_are_read_from_a_file(tmp_path, file, text):
    (tmp_path / file).write_text(text, 'utf-8', newline='')
    assert read_class_names([str(tmp_path / file)]) == ('cup', 'ball')


@pytest.mark.parametrize(
    ('file', 'content', 'complaint'),
    [
        ('missing.txt', None, 'cannot be read'),
        ('empty.txt', b'', 'got none'),
        ('picture.txt', b'\x89PNG\xff\xfe', 'cannot be read'),
        ('broken.json', b'{"names": ', 'cannot be read'),
        ('broken.yaml', b'a: [b', 'cannot be read'),
        ('number.json', b'7', 'expected a list'),
        ('nested.json', b'[["cup"]]', 'expected a list'),
        ('keys.json', b'{"cup": 0}', 'whole numbers'),
        ('huge.json', b'{"99999999999": "cup"}', 'class numbers'),
        ('deep.json', b'[' * 100_000, 'cannot be read'),
    ],
)
def test_a_file_without_names_is_refused_by_its_path(tmp_path, file, content, complaint):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match=complaint) as error:
        read_class_names([str(tmp_path / file)])
    assert file in str(error.value)
