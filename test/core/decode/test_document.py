"""Documents that somebody wrote are read within bounds."""

import os

import pytest

from isaac_infer.core.decode.document import read_document, read_text


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / 'facts.yaml').write_text('')
    assert not read_document(tmp_path / 'facts.yaml')


@pytest.mark.parametrize('null', ['~', 'null', ''])
def test_a_key_without_a_value_has_none(null, tmp_path):
    (tmp_path / 'facts.yaml').write_text(f'decoder: {null}\nresize: stretch\n')
    content = read_document(tmp_path / 'facts.yaml')
    assert not content['decoder']
    assert content['resize'] == 'stretch'


def test_words_stay_words(tmp_path):
    (tmp_path / 'facts.yaml').write_text('class_names: [yes, no, null, 12]\n')
    assert read_document(tmp_path / 'facts.yaml') == {'class_names': ['yes', 'no', 'null', '12']}


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'names.txt')
    with pytest.raises(ValueError, match='expected a file, got a folder, pipe or device'):
        read_text(tmp_path / 'names.txt')


@pytest.mark.parametrize('text', ['a: &x [1]\nb: *x\n', '[' * 5000, 'a: [1', 'a: {'])
def test_what_is_no_sound_document_is_refused(text, tmp_path):
    (tmp_path / 'facts.yaml').write_text(text)
    with pytest.raises(ValueError, match='.'):
        read_document(tmp_path / 'facts.yaml')
