"""Class names as people keep them."""

from __future__ import annotations

import pytest

from isaac_infer.core.decode.names import names_by_index, read_class_names
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
        ('deep.yaml', b'[' * 5000, 'nested too deeply'),
        ('recursive.yaml', b'&a [*a]', 'alias'),
        ('bomb.yaml', b'a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n', 'alias'),
        ('long.yaml', b'# ' + b'x' * (1 << 20), 'expected at most'),
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


def test_names_in_yaml_stay_the_text_that_they_are(tmp_path):
    (tmp_path / 'names.yaml').write_text('names: [yes, no, on, off, 1.50, null, 2020-01-01]\n')
    names = ('yes', 'no', 'on', 'off', '1.50', 'null', '2020-01-01')
    assert read_class_names([str(tmp_path / 'names.yaml')]) == names


@pytest.mark.parametrize('name', ['\ud800', '\x1b[31mcup', 'a\nb', '\x9b', '\x00'])
@pytest.mark.parametrize(
    'read', [lambda names: read_class_names(names), names_by_index], ids=['given', 'read']
)
def test_what_nobody_can_print_is_replaced_in_names(name, read):
    cleaned, plain = read([name, 'größe 模型'])
    assert cleaned.isprintable() and '\ufffd' in cleaned
    assert plain == 'größe 模型'


def test_a_home_that_does_not_exist_and_a_name_too_long_for_a_file_are_no_surprise():
    with pytest.raises(ModelError, match='cannot be read'):
        read_class_names(['~nosuchuser/names.txt'])
    assert read_class_names(['x' * 5000]) == ('x' * 5000,)
