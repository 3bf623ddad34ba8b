import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from isaac_infer.core.decode.metadata import read_metadata
from isaac_infer.core.errors import ModelError
from isaac_infer.engine.plan import Plan, check_version, plan_bytes, read_plan

BODY = b'layers and weights'


def header(*version: int, serialization: int = 0) -> bytes:
    return b'ftrt' + serialization.to_bytes(4, 'little') + bytes(range(16)) + bytes(version)


PLAN = header(10, 3, 0, 30) + BODY


def with_metadata(metadata: object, plan: bytes = PLAN, *, length: int | None = None) -> bytes:
    """An engine as Ultralytics writes it; metadata may be bytes that are no JSON."""
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return (len(text) if length is None else length).to_bytes(4, 'little') + text + plan


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def plan_by(*version: int) -> Plan:
    return Plan(Path('yolo.engine'), version, {}, 0, 1)


def test_a_plain_plan_tells_the_version_that_built_it(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path / 'a.engine', PLAN))
    assert plan == Plan(tmp_path / 'a.engine', (10, 3, 0, 30), {}, 0, len(PLAN))
    assert plan_bytes(plan) == PLAN


def test_a_plan_of_ultralytics_tells_its_metadata_as_an_onnx_file_does(tmp_path: Path) -> None:
    metadata = {
        'task': 'detect',
        'stride': 32,
        'imgsz': [320, 320],
        'names': {0: 'cup', 1: "cook's knife", 10: 'bowl'},
        'args': {'nms': False, 'fraction': 1.0, 'name': None},
        'kpt_names': {0: ['nose']},
        'end2end': False,
        'empty': {},
    }
    plan = read_plan(written(tmp_path / 'a.engine', with_metadata(metadata)))
    # What Ultralytics writes into an ONNX file is str() of each value.
    assert plan.metadata == {key: str(value) for key, value in metadata.items()}
    assert plan.version == (10, 3, 0, 30)
    assert plan_bytes(plan) == PLAN
    understood = read_metadata(plan.metadata, file_name='a.engine')
    assert (understood.size_hw, understood.stride, understood.end2end) == ((320, 320), 32, False)


def test_the_metadata_may_be_larger_than_a_short_length(tmp_path: Path) -> None:
    names = {number: f'class {number}' for number in range(20_000)}
    plan = read_plan(written(tmp_path / 'a.engine', with_metadata({'names': names})))
    assert plan.metadata['names'] == str(names)


BAD_FILES = {
    'empty': (b'', 'expected a TensorRT engine, got an empty file'),
    'one byte': (b'f', 'at least 28 bytes, got 1: it was cut short'),
    'cut header': (PLAN[:27], 'at least 28 bytes, got 27: it was cut short'),
    'text': (b'hello, I am text', r"begins with b'ftrt' .*, got b'hello'; give an engine or an ONNX model"),
    'zeros': (bytes(100), 'expected a TensorRT engine'),
    'other serialization': (header(9, 9, 9, 9, serialization=7), 'serialization version 0, got 7'),
    'length far beyond the file': (with_metadata({}, length=0x7FFFFFFF), 'speaks of 2147483647 bytes'),
    'length beyond the plan': (with_metadata({}, length=3 + len(BODY)), 'was cut short'),
    'length too short': (with_metadata({'a': 'b'}, length=3), 'expected metadata in JSON'),
    'length of zero': (with_metadata({'a': 'b'}, length=0), 'speaks of 0 bytes'),
    'cut metadata': (with_metadata({'a': 'b' * 100})[:50], 'speaks of 109 bytes of metadata'),
    'no plan behind': (with_metadata({'a': 'b'}, b''), 'a plan after it'),
    'another plan behind': (with_metadata({}, b'x' * 40), "begins with b'ftrt', got b'xxxxxxxx'"),
    'not utf-8': (with_metadata(b'{"a": "\xff\xfe"}'), 'utf-8'),
    'not json': (with_metadata(b'{\x1b[31m}'), 'property name'),
    'a list': (with_metadata([1, 2]), 'expected a TensorRT engine'),
    'two values': (with_metadata(b'{} {}'), 'Extra data'),
    'nested': (with_metadata(b'{"a":' + b'[' * 100_000 + b']' * 100_000 + b'}'), 'nested too deeply'),
    'long number': (with_metadata(b'{"a":' + b'1' * 100_000 + b'}'), 'integer'),
    'huge': (with_metadata({'a': 'b' * (1 << 20)}), '1 to 1048576 bytes'),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    content, expected = BAD_FILES[name]
    with pytest.raises(ModelError, match=expected) as caught:
        read_plan(written(tmp_path / 'bad.engine', content))
    assert 'bad.engine' in str(caught.value)
    assert '; ' in str(caught.value), 'it says no way out'
    assert str(caught.value).isprintable()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')  # reading it would wait for ever
    for path in (tmp_path, tmp_path / 'pipe', Path('/dev/zero')):
        with pytest.raises(ModelError, match='got a folder, pipe or device'):
            read_plan(path)
    for path in (tmp_path / 'missing.engine', tmp_path / ('x' * 5000), Path('a\0b')):
        with pytest.raises(ModelError, match='cannot be read: '):
            read_plan(path)


@pytest.mark.parametrize('content', [PLAN, with_metadata({'names': {0: 'a'}, 'task': 'detect'})])
def test_a_file_cut_anywhere_is_an_error_or_a_plan(content: bytes, tmp_path: Path) -> None:
    shortest = content.index(b'ftrt') + 28
    for length in range(65):
        path = written(tmp_path / 'cut.engine', content[:length])
        if length < shortest:
            with pytest.raises(ModelError):
                read_plan(path)
        else:
            assert read_plan(path).version == (10, 3, 0, 30)


BYTES = some.binary(max_size=64)
ANY_JSON = some.recursive(
    some.none() | some.booleans() | some.floats() | some.integers() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
)


@given(
    BYTES
    | BYTES.map(lambda tail: b'ftrt' + tail)
    | some.builds(with_metadata, BYTES.map(lambda text: b'{' + text), length=some.integers(0, 70))
    | some.builds(
        with_metadata, some.dictionaries(some.text(), ANY_JSON), BYTES.map(lambda tail: PLAN[:28] + tail)
    )
)
def test_any_bytes_are_an_error_or_a_plan(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp() / 'any.engine', content)
    try:
        plan = read_plan(path)
    except ModelError:
        return
    assert plan.offset + plan.size == len(content)
    assert plan_bytes(plan) == content[plan.offset :]
    assert all(isinstance(value, str) for value in plan.metadata.values())
    with suppress(ModelError):  # of one of this package's own keys
        read_metadata(plan.metadata, file_name=path.name)


@pytest.mark.parametrize('after', [b'', PLAN[:-1], PLAN + b'x', header(10, 3, 0, 31) + BODY])
def test_a_plan_that_changes_while_it_is_read_is_an_error(after: bytes, tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path / 'a.engine', PLAN))
    plan.path.write_bytes(after)
    with pytest.raises(ModelError, match=r'a\.engine'):
        plan_bytes(plan)


def test_a_plan_that_is_gone_is_an_error(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path / 'a.engine', PLAN))
    plan.path.unlink()
    with pytest.raises(ModelError, match='cannot be read: No such file'):
        plan_bytes(plan)


@pytest.mark.parametrize(
    ('built', 'installed', 'is_lean', 'loads'),
    [
        ((8, 6, 1, 6), (8, 6, 1), False, True),
        ((10, 3, 0, 30), (10, 3, 0, 26), False, True),  # the same release, packed again
        ((8, 6, 1, 6), (8, 6), False, True),
        ((8, 6, 1, 6), (8, 6, 2), False, False),
        ((8, 6, 2, 3), (8, 6, 1), False, False),
        ((8, 5, 2, 2), (10, 3, 0), False, False),
        ((8, 6, 1, 6), (10, 16, 0), True, True),
        ((10, 3, 0, 30), (10, 3, 0), True, True),
        ((10, 16, 1, 0), (10, 16, 0), True, False),
        ((11, 0, 0, 0), (10, 16, 0), True, False),
        ((8, 6, 1, 6), (11, 4, 0), True, False),
        ((10, 3, 0, 30), (11, 4, 0), True, True),
        ((8, 5, 2, 2), (10, 16, 0), True, False),  # no plan was version-compatible then
    ],
)
def test_a_plan_of_another_version_is_refused(
    built: tuple[int, ...], installed: tuple[int, ...], is_lean: bool, loads: bool
) -> None:
    if loads:
        check_version(plan_by(*built), installed, is_lean=is_lean, model='yolo')
    else:
        with pytest.raises(ModelError, match='yolo.engine: built by TensorRT .*, this machine has '):
            check_version(plan_by(*built), installed, is_lean=is_lean, model='yolo')


@pytest.mark.parametrize('model', ['yolo', 'yolo.onnx'])
def test_a_wrong_version_names_both_and_the_command(model: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_version(plan_by(8, 6, 2, 3), (10, 3, 0, 30), is_lean=False, model=model)
    assert str(caught.value) == (
        'yolo.engine: built by TensorRT 8.6.2, this machine has 10.3.0; run "isaac-infer build yolo.onnx"'
    )
    with pytest.raises(ModelError, match='this machine has lean TensorRT 8.6.1; run'):
        check_version(plan_by(8, 6, 2, 3), (8, 6, 1), is_lean=True, model=model)
