import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.core.errors import ModelError, SessionError
from isaac_infer.engine import cache
from isaac_infer.engine.cache import (
    BuildKey,
    CachedPlan,
    cached_plan,
    default_folder,
    last_build_s,
    model_digest,
    pictures_digest,
    read_sidecar,
)
from isaac_infer.engine.load import file_sha256
from models import save_colour_detector, save_model

KEY = BuildKey({'model': 'a' * 64, 'tensorrt': '8.6.1', 'precision': 'fp16'})
OTHER_KEY = BuildKey({'model': 'a' * 64, 'tensorrt': '8.6.1', 'precision': 'fp32'})
FACTS = {'names': {'0': 'cup'}, 'build_s': 1.5}


class Builds:
    """A builder whose engines are a few bytes; counts, and may do something in between."""

    def __init__(
        self, content: bytes = b'engine', *, then: Callable[[Path], None] = lambda path: None
    ) -> None:
        self.content, self.then, self.count = content, then, 0

    def __call__(self, path: Path) -> Mapping[str, object]:
        self.count += 1
        path.write_bytes(self.content)
        self.then(path)
        return {'names': {0: 'cup'}, 'build_s': 1.5}


def accept(path: Path) -> None:
    assert path.read_bytes()


def accept_only(content: bytes) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if path.read_bytes() != content:
            raise ModelError('it does not load')

    return check


def get(
    folder: Path,
    key: BuildKey = KEY,
    *,
    build: Callable[[Path], Mapping[str, object]],
    check: Callable[[Path], None] = accept,
    said: list[str] | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    name: str = 'yolo',
) -> CachedPlan:
    say = [].append if said is None else said.append
    return cached_plan(folder, name, key, build=build, check=check, say=say, is_cancelled=is_cancelled)


def refuse_to_build(path: Path) -> Mapping[str, object]:
    raise AssertionError('a build although there is an engine')


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def engine_files(key: BuildKey = KEY) -> list[str]:
    return [f'yolo-{key.digest}.engine', f'yolo-{key.digest}.json']


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < end, 'it did not come to pass'
        time.sleep(0.01)


# ---- the key ----------------------------------------------------------------------------------------


def test_a_key_has_the_same_digest_in_any_order_and_another_for_any_change() -> None:
    assert KEY.digest == BuildKey(dict(reversed(KEY.parts.items()))).digest
    changed = [{**KEY.parts, 'precision': ''}, {**KEY.parts, 'dla': '0'}, {'model': 'a' * 64}, {}]
    digests = {KEY.digest, OTHER_KEY.digest, *(BuildKey(parts).digest for parts in changed)}
    assert len(digests) == 6
    assert all(len(digest) == 16 for digest in digests)


@pytest.mark.parametrize(
    ('now', 'before', 'expected'),
    [
        ({}, {}, ()),
        ({'a': '1'}, {'a': '1'}, ()),
        ({'precision': 'fp16'}, {'precision': 'fp32'}, ('precision: fp16, was fp32',)),
        ({'a': '1', 'dla': '0'}, {'a': '1'}, ('dla: 0, was not set',)),
        ({}, {'calibration': 'x'}, ('calibration: not set, was x',)),
        ({'b': '1', 'a': '1'}, {'a': '2', 'b': '2'}, ('b: 1, was 2', 'a: 1, was 2')),
        ({'model': 'a' * 64}, {'model': 'b' * 64}, ('model: aaaaaaaaaaaa, was bbbbbbbbbbbb',)),
    ],
)
def test_differences_are_said_in_words(
    now: dict[str, str], before: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert BuildKey(now).differences(BuildKey(before)) == expected


# ---- one process ------------------------------------------------------------------------------------


def test_an_engine_is_built_once_and_found_ever_after(tmp_path: Path) -> None:
    build = Builds()
    made = get(tmp_path / 'a' / 'b', build=build)
    found = get(tmp_path / 'a' / 'b', build=refuse_to_build)
    assert (made.was_built, found.was_built, build.count) == (True, False, 1)
    assert made.path == found.path == tmp_path / 'a' / 'b' / f'yolo-{KEY.digest}.engine'
    assert made.facts == found.facts == FACTS
    assert files(tmp_path / 'a' / 'b') == engine_files()


def test_the_sidecar_tells_people_what_the_engine_is_made_of(tmp_path: Path) -> None:
    made = get(tmp_path, build=Builds())
    text = made.path.with_suffix('.json').read_text()
    assert '\n "key": {\n  "model": "aaa' in text
    assert '\n  "tensorrt": "8.6.1",\n  "precision": "fp16"\n' in text
    sidecar = read_sidecar(made.path)
    assert sidecar == json.loads(text)
    assert (sidecar['key'], sidecar['facts'], sidecar['bytes']) == (KEY.parts, FACTS, 6)


def test_where_all_is_well_nothing_is_written(tmp_path: Path) -> None:
    get(tmp_path, build=Builds())
    before = tmp_path.stat().st_mtime_ns
    get(tmp_path, build=refuse_to_build)
    assert tmp_path.stat().st_mtime_ns == before


def test_another_key_is_another_engine_and_says_what_differs(tmp_path: Path) -> None:
    said: list[str] = []
    get(tmp_path, OTHER_KEY, build=Builds(), said=said)
    get(tmp_path, KEY, build=Builds(), said=said)
    assert 'has no engine of yolo yet' in said[0]
    assert len(said) == 2
    assert said[1] == (
        f'yolo-{KEY.digest}.engine: building it, since yolo-{OTHER_KEY.digest}.engine differs: '
        f'precision: fp16, was fp32'
    )
    assert files(tmp_path) == sorted([*engine_files(KEY), *engine_files(OTHER_KEY)])


def test_differences_are_to_the_newest_engine_of_that_name_that_is_known(tmp_path: Path) -> None:
    keys = [BuildKey({'number': str(number)}) for number in range(5)]
    for age, key in enumerate(keys[:4]):
        made = get(tmp_path, key, build=Builds(), name='yolo' if age else 'yolo-x')
        os.utime(made.path, ns=(0, 10**9 * (10 - age)))
    made.path.with_suffix('.json').write_text('{')
    os.utime(made.path, ns=(0, 10**18))  # the newest, of which nothing is known
    said: list[str] = []
    get(tmp_path, keys[4], build=Builds(), said=said)
    assert len(said) == 1 and said[0].endswith('number: 4, was 1')


@pytest.mark.parametrize('name', ['', '../../etc/x', 'a b\n\x1b[31m', 'é' * 300, '.', '*'])
def test_any_name_is_a_file_in_the_folder(name: str, tmp_path: Path) -> None:
    made = get(tmp_path / 'engines', build=Builds(), name=name)
    assert made.path.parent == tmp_path / 'engines'
    assert made.path.name.isascii() and made.path.name.isprintable()
    assert len(files(tmp_path / 'engines')) == 2
    assert files(tmp_path) == ['engines']
    get(tmp_path / 'engines', build=refuse_to_build, name=name)


def fail_with(error: BaseException) -> Callable[[Path], None]:
    def fail(path: Path) -> None:
        path.with_name(f'{path.name}.onnx').touch()  # some builders need more than one file
        raise error

    return fail


@pytest.mark.parametrize(
    'error',
    [SessionError('cancelled'), ModelError('no'), KeyboardInterrupt(), FileNotFoundError(2, 'no', 'x')],
)
def test_a_build_that_fails_or_is_cancelled_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        get(tmp_path, build=Builds(then=fail_with(error)))
    assert caught.value is error
    assert files(tmp_path) == []
    assert get(tmp_path, build=Builds()).was_built


def test_facts_that_json_cannot_hold_leave_nothing(tmp_path: Path) -> None:
    def build(path: Path) -> Mapping[str, object]:
        path.write_bytes(b'engine')
        return {'latency_ms': np.float32(1)}

    with pytest.raises(TypeError):
        get(tmp_path, build=build)
    assert files(tmp_path) == []


@pytest.mark.parametrize('then', [lambda path: path.unlink(), lambda path: path.write_bytes(b'')])
def test_a_build_that_writes_nothing_is_an_error(then: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='expected an engine from its build, got no byte'):
        get(tmp_path, build=Builds(then=then))
    assert files(tmp_path) == []


def test_an_engine_that_does_not_load_is_set_aside_with_its_reason_and_built_again(tmp_path: Path) -> None:
    said: list[str] = []
    broken = get(tmp_path, build=Builds(b'old')).path
    made = get(tmp_path, build=Builds(b'new'), check=accept_only(b'new'), said=said)
    assert made.was_built and made.path.read_bytes() == b'new'
    aside = broken.with_name(f'{broken.name}.broken')
    assert aside.read_bytes() == b'old'
    assert Path(f'{aside}.reason.txt').read_text() == 'it does not load\n'
    assert json.loads(Path(f'{aside}.json').read_text())['key'] == KEY.parts
    assert len(said) == 1 and 'set aside as' in said[0] and said[0].endswith('it does not load')
    get(tmp_path, build=refuse_to_build, check=accept_only(b'new'))


def test_a_new_engine_that_does_not_load_is_an_error_and_never_used(tmp_path: Path) -> None:
    build = Builds(b'bad')
    with pytest.raises(
        ModelError, match=r'built just now .* it does not load; it lies in .*\.engine\.broken'
    ):
        get(tmp_path, build=build, check=accept_only(b'good'))
    assert build.count == 1
    engine = engine_files()[0]
    assert files(tmp_path) == [f'{engine}.broken', f'{engine}.broken.json', f'{engine}.broken.reason.txt']


def test_starts_that_always_fail_do_not_fill_the_disk(tmp_path: Path) -> None:
    for number in range(5):
        with pytest.raises(ModelError):
            get(tmp_path, build=Builds(b'%d' % number), check=accept_only(b'good'))
        for path in tmp_path.glob('*.broken*'):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    broken = [path.read_bytes() for path in tmp_path.iterdir() if path.suffix not in ('.json', '.txt')]
    assert sorted(broken) == [b'2', b'3', b'4']


def test_an_error_that_says_nothing_of_the_engine_sets_nothing_aside(tmp_path: Path) -> None:
    get(tmp_path, build=Builds())

    def check(path: Path) -> None:
        raise SessionError('no memory left')

    with pytest.raises(SessionError, match='no memory left'):
        get(tmp_path, build=refuse_to_build, check=check)
    assert files(tmp_path) == engine_files()


def test_an_engine_that_somebody_removes_while_it_is_checked_is_built_again(tmp_path: Path) -> None:
    made = get(tmp_path, build=Builds())

    def check(path: Path) -> None:
        if path.stat().st_ino == inode:
            path.unlink()
            raise ModelError('it is gone')

    inode = made.path.stat().st_ino
    held = made.path.open('rb')  # or the new file might get the number of the old one
    with held:
        assert get(tmp_path, build=Builds(), check=check).was_built
    assert files(tmp_path) == engine_files()


def replaced(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


BAD_SIDECARS = {
    'missing': lambda path: path.unlink(),
    'empty': lambda path: path.write_bytes(b''),
    'cut': lambda path: path.write_bytes(path.read_bytes()[:-20]),
    'cut to a mapping': lambda path: path.write_text('{}'),
    'list': lambda path: path.write_text('[]'),
    'nested': lambda path: path.write_text('[' * 100_000),
    'bytes': lambda path: path.write_bytes(b'\xff\xfe\x00'),
    'folder': lambda path: path.unlink() or path.mkdir(),
    'pipe': lambda path: path.unlink() or os.mkfifo(path),
    'digest': replaced(digest='0' * 16),
    'key': replaced(key=dict(OTHER_KEY.parts)),
    'key of numbers': replaced(key={'a': 1}),
    'key of another engine': replaced(key=dict(OTHER_KEY.parts), digest=OTHER_KEY.digest),
    'facts': replaced(facts=[1]),
    'size': replaced(bytes=7),
    'cut engine': lambda path: path.with_suffix('.engine').write_bytes(b'engin'),
}


@pytest.mark.parametrize('name', BAD_SIDECARS)
def test_an_engine_of_which_nothing_is_known_is_set_aside_and_built_again(name: str, tmp_path: Path) -> None:
    made = get(tmp_path, build=Builds())
    BAD_SIDECARS[name](made.path.with_suffix('.json'))
    is_of_another = name == 'key of another engine'
    assert (read_sidecar(made.path) is None) != is_of_another
    said: list[str] = []
    assert get(tmp_path, build=Builds(), said=said).was_built
    assert len(said) == 1 and 'built again: it cannot be used: ' in said[0] and '.json' in said[0]
    assert Path(f'{made.path}.broken').exists()
    assert Path(f'{made.path}.broken.reason.txt').read_text().strip() in said[0]
    get(tmp_path, build=refuse_to_build)


@given(
    content=some.binary(max_size=60) | some.text(alphabet='{}[]":,keyfactsdig0', max_size=60).map(str.encode)
)
def test_any_bytes_for_a_sidecar_are_no_sidecar(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    engine = tmp_path_factory.getbasetemp() / 'any.engine'
    engine.write_bytes(b'engine')
    engine.with_suffix('.json').write_bytes(content)
    assert read_sidecar(engine) is None


def test_a_sidecar_without_its_engine_is_none(tmp_path: Path) -> None:
    made = get(tmp_path, build=Builds())
    made.path.unlink()
    assert read_sidecar(made.path) is None
    assert get(tmp_path, build=Builds()).was_built


def test_a_folder_that_cannot_be_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below', tmp_path / ('x' * 300)):
        with pytest.raises(ModelError, match='expected a folder that .* set ISAAC_INFER_CACHE'):
            get(folder, build=refuse_to_build)


def test_a_folder_that_is_removed_during_the_build_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    def build(path: Path) -> Mapping[str, object]:
        shutil.rmtree(path.parent)
        path.write_bytes(b'engine')
        return {}

    with pytest.raises(ModelError, match='engines: expected a folder .* No such file .* ISAAC_INFER_CACHE'):
        get(tmp_path / 'engines', build=build)


def test_what_a_builder_misses_elsewhere_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='elsewhere'):
        get(tmp_path, build=lambda path: {'bytes': (tmp_path / 'elsewhere').stat().st_size})
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ('make', 'kind'),
    [
        (Path.mkdir, 'a folder'),
        (lambda path: path.symlink_to('nowhere'), 'a link'),
        (os.mkfifo, 'a pipe or device'),
    ],
)
def test_a_lock_that_is_no_file_is_named(make: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    lock = tmp_path / f'.yolo-{KEY.digest}.lock'
    make(lock)
    with pytest.raises(ModelError, match=rf'{lock.name}: expected a lock, .* got {kind}; remove it'):
        get(tmp_path, build=refuse_to_build)
    assert get(tmp_path, OTHER_KEY, build=Builds()).was_built, 'other engines have nothing to do with it'


def test_a_damaged_engine_is_named_where_no_other_can_be_built(tmp_path: Path) -> None:
    engine = get(tmp_path, build=Builds()).path
    engine.write_bytes(b'damaged')
    engine.with_name(f'.{engine.stem}.lock').mkdir()  # as little as in a read-only folder can be locked
    with pytest.raises(ModelError, match=f'{engine.name}: cannot be used: .*; and not built again: .*a lock'):
        get(tmp_path, build=refuse_to_build)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_read_only_folder_gives_engines_and_takes_none(tmp_path: Path) -> None:
    get(tmp_path, build=Builds())
    tmp_path.chmod(0o555)
    try:
        get(tmp_path, build=refuse_to_build)
        with pytest.raises(ModelError, match='Permission denied; make it writable'):
            get(tmp_path, OTHER_KEY, build=refuse_to_build)
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_is_an_error_with_the_way_out_and_leaves_nothing(tmp_path: Path) -> None:
    def build(path: Path) -> Mapping[str, object]:
        path.symlink_to('/dev/full')
        path.write_bytes(b'engine')
        return {}

    with pytest.raises(ModelError, match='No space left on device; .* make room in it'):
        get(tmp_path, build=build)
    assert files(tmp_path) == []


def test_a_sidecar_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def build(path: Path) -> Mapping[str, object]:
        path.write_bytes(b'engine')
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        return {}

    try:
        with pytest.raises(ModelError, match='File too large'):
            get(tmp_path, build=build)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == []


# ---- several processes ------------------------------------------------------------------------------

# Builds byte by byte, and goes on only when the test lets it: folder, name of the file that ends the build.
BUILDER = """
import sys, time
from pathlib import Path
from isaac_infer.engine.cache import BuildKey, cached_plan

folder, go = Path(sys.argv[1]), Path(sys.argv[2])
key = BuildKey({'model': 'a' * 64, 'tensorrt': '8.6.1', 'precision': sys.argv[3]})

def build(path):
    print('building', flush=True)
    with path.open('wb', buffering=0) as file:
        file.write(b'eng')
        while not go.exists():
            time.sleep(0.01)
        file.write(b'ine')
    return {'by': str(path)}

def check(path):
    assert path.read_bytes() == b'engine', path.read_bytes()

made = cached_plan(folder, 'yolo', key, build=build, check=check, say=lambda text: print(text, flush=True))
print('built' if made.was_built else 'found', made.facts['by'], flush=True)
"""


class Process:
    """A process that wants an engine."""

    def __init__(self, folder: Path, log: Path, precision: str = 'fp16') -> None:
        self.go, self.log = folder.parent / 'go', log
        command = [sys.executable, '-c', BUILDER, str(folder), str(self.go), precision]
        with log.open('wb') as file:
            self.popen = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.log.read_text() or self.popen.poll() is not None)
        assert text in self.log.read_text()

    def end(self) -> str:
        assert self.popen.wait(30) == 0, self.log.read_text()
        return self.log.read_text()


@pytest.fixture
def start(tmp_path: Path):
    """Start processes that want an engine in one folder; none of them outlives the test."""
    started: list[Process] = []

    def start_one(precision: str = 'fp16') -> Process:
        started.append(Process(tmp_path / 'engines', tmp_path / f'log{len(started)}', precision))
        return started[-1]

    yield start_one
    for process in started:
        process.popen.kill()
        process.popen.wait()


def test_of_processes_that_want_one_engine_one_builds_and_the_others_wait_and_say_so(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    processes = [start() for _ in range(3)]
    wait_until(lambda: sum('waiting for' in process.log.read_text() for process in processes) == 2)
    processes[0].go.touch()
    logs = [process.end() for process in processes]
    assert sorted(log.split()[-2] for log in logs) == ['built', 'found', 'found']
    assert sum('building\n' in log for log in logs) == 1
    assert len({log.split()[-1] for log in logs}) == 1, 'they use different engines'
    builder = next(process for process, log in zip(processes, logs) if 'building\n' in log)
    for log in logs:
        if 'found' in log:
            assert f'waiting for process {builder.popen.pid} on ' in log
            assert ', which has been building it since 2' in log
    assert files(tmp_path / 'engines') == engine_files()


def test_when_the_builder_is_killed_in_mid_write_the_one_that_waits_builds(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    first = start()
    first.wait_for('building\n')
    second = start()
    second.wait_for('waiting for')
    first.popen.kill()
    second.wait_for('building\n')
    second.go.touch()
    assert 'built' in second.end().split()
    assert files(tmp_path / 'engines') == engine_files()


def test_what_a_killed_builder_left_is_never_used_and_removed_by_the_next(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    killed = start()
    wait_until(lambda: any(path.read_bytes() == b'eng' for path in tmp_path.glob('engines/.*.partial')))
    killed.popen.kill()
    killed.popen.wait()
    left = files(tmp_path / 'engines')
    assert len(left) == 2 and not any(name.endswith(('.engine', '.json')) for name in left)
    assert get(tmp_path / 'engines', build=Builds()).was_built
    assert files(tmp_path / 'engines') == engine_files()


def test_a_killed_builder_s_left_overs_go_also_when_another_engine_is_built_but_those_of_the_living_stay(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    killed, living = start('fp16'), start('fp32')
    for process in (killed, living):
        process.wait_for('building\n')
    wait_until(lambda: len(list(tmp_path.glob('engines/.*.partial'))) == 2)
    killed.popen.kill()
    killed.popen.wait()
    int8 = BuildKey({'precision': 'int8'})
    get(tmp_path / 'engines', int8, build=Builds())
    assert len(list(tmp_path.glob('engines/.*.partial'))) == 1
    living.go.touch()
    assert 'built' in living.end().split()
    assert files(tmp_path / 'engines') == sorted([*engine_files(int8), *engine_files(OTHER_KEY)])


def test_a_kill_between_the_two_names_is_a_build_that_never_was(tmp_path: Path) -> None:
    made = get(tmp_path, build=Builds())
    made.path.rename(tmp_path / f'.yolo-{KEY.digest}.1234-abcdef01.partial')
    assert get(tmp_path, build=Builds()).was_built
    assert files(tmp_path) == engine_files()


def test_waiting_can_be_cancelled(start: Callable[..., Process], tmp_path: Path) -> None:
    builder = start()
    builder.wait_for('building\n')
    said: list[str] = []
    with pytest.raises(SessionError, match=f'cancelled while waiting for process {builder.popen.pid}'):
        get(tmp_path / 'engines', build=refuse_to_build, said=said, is_cancelled=lambda: bool(said))
    builder.go.touch()
    assert 'built' in builder.end().split()


def test_threads_of_one_process_build_once_too(tmp_path: Path) -> None:
    said: list[str] = []
    build = Builds(then=lambda path: wait_until(lambda: sum('waiting' in text for text in said) == 3))
    threads = [
        threading.Thread(target=get, args=[tmp_path], kwargs={'build': build, 'said': said}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.count == 1
    assert files(tmp_path) == engine_files()


def test_a_lock_whose_file_was_taken_away_counts_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / 'lock'
    lock = cache._try_lock(path)
    assert lock is not None and cache._try_lock(path) is None
    path.unlink()
    other = cache._try_lock(path)
    assert other is not None
    cache._unlock(path, other)
    os.close(lock)


# ---- the model and the folder -----------------------------------------------------------------------


def save_with_weights(folder: Path, *, location: str = 'weights.bin') -> Path:
    """Write a model whose weights are in a file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = save_colour_detector(folder / 'model.onnx')
    onnx.save(onnx.load(path), path, save_as_external_data=True, location='weights.bin', size_threshold=0)
    if location != 'weights.bin':
        path.write_bytes(path.read_bytes().replace(b'weights.bin', location.encode()))
        assert len(location) == len('weights.bin'), 'or the file is broken'
    return path


def test_a_model_in_one_file_has_the_hash_of_that_file(tmp_path: Path) -> None:
    path = save_colour_detector(tmp_path / 'model.onnx')
    assert model_digest(path) == file_sha256(path)


def test_weights_in_another_file_are_part_of_the_model(tmp_path: Path) -> None:
    path = save_with_weights(tmp_path)
    before = model_digest(path)
    assert before == model_digest(save_with_weights(tmp_path / 'again'))
    weights = bytearray((tmp_path / 'weights.bin').read_bytes())
    weights[-1] ^= 1
    (tmp_path / 'weights.bin').write_bytes(weights)
    assert model_digest(path) != before != file_sha256(path)


def test_weights_of_every_tensor_of_a_model_count(tmp_path: Path) -> None:
    def outside(name: str) -> TensorProto:
        tensor = numpy_helper.from_array(np.zeros(1, np.float32), name)
        tensor.ClearField('raw_data')
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key='location', value=name)
        (tmp_path / name).write_bytes(bytes(4))
        return tensor

    out = helper.make_tensor_value_info('out', TensorProto.FLOAT, [1])
    constant = helper.make_node('Constant', [], ['out'], value=outside('of_a_branch'))
    branch = helper.make_graph([constant], 'branch', [], [out])
    node = helper.make_node('If', ['x'], ['y'], then_branch=branch, else_branch=branch)
    kinds = {'x': (TensorProto.BOOL, [])}, {'y': (TensorProto.FLOAT, [1])}
    path = save_model(tmp_path / 'model.onnx', [node], *kinds)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.append(outside('of_the_graph'))
    constant = helper.make_node('Constant', [], ['out'], value=outside('of_a_function'))
    opsets = [helper.make_opsetid('', 13)]
    model.functions.append(helper.make_function('here', 'F', [], ['out'], [constant], opsets))
    path.write_bytes(model.SerializeToString())
    digests = {model_digest(path)}
    for name in ('of_a_branch', 'of_the_graph', 'of_a_function'):
        (tmp_path / name).write_bytes(b'else')
        digests.add(model_digest(path))
    assert len(digests) == 4


@pytest.mark.parametrize(
    'location', ['/etc/passwd', '../../hosts', '../model/xx', 'sub/../../x', 'outside_dir']
)
def test_weights_outside_the_model_s_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / 'secret').write_bytes(b'secret')
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'outside_dir').symlink_to(tmp_path / 'secret')
    path = save_with_weights(tmp_path / 'model', location=location)
    with pytest.raises(ModelError, match='expected weights in its own folder, got .*; export it again'):
        model_digest(path)


@pytest.mark.parametrize('location', ['not_there.x', './/.//.//./', 'a_folder///', './///a_pipe'])
def test_weights_that_are_missing_or_no_file_are_an_error(location: str, tmp_path: Path) -> None:
    path = save_with_weights(tmp_path, location=location)
    (tmp_path / 'a_folder').mkdir()
    os.mkfifo(tmp_path / 'a_pipe')
    with pytest.raises(ModelError, match=r'model\.onnx: expected its weights in .*, got no such file; keep'):
        model_digest(path)


@pytest.mark.parametrize('location', ['\0\0\0\0\0\0\0\0\0\0\0', '\ufffd\ufffd\ufffda\n'])
def test_locations_that_are_no_names_are_an_error(location: str, tmp_path: Path) -> None:
    path = save_with_weights(tmp_path)
    name = location.encode() if '\0' in location else b'\xff\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xff'
    path.write_bytes(path.read_bytes().replace(b'weights.bin', name))
    with pytest.raises(ModelError, match=r'model\.onnx'):
        model_digest(path)


def test_a_model_that_is_a_link_into_a_store_keeps_its_weights(tmp_path: Path) -> None:
    real = save_with_weights(tmp_path / 'store')
    (tmp_path / 'view').mkdir()
    for name in ('model.onnx', 'weights.bin'):
        (tmp_path / 'view' / name).symlink_to(tmp_path / 'store' / name)
    assert model_digest(tmp_path / 'view' / 'model.onnx') == model_digest(real)


def test_without_the_package_onnx_there_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(SessionError, match='pip install onnx'):
        model_digest(save_with_weights(tmp_path))


def test_what_is_no_model_has_no_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'text').write_text('location\n' * 9)
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'cut').write_bytes(save_with_weights(tmp_path / 'weights').read_bytes()[:-3])
    for name in ('', 'missing', 'pipe', 'text', 'cut'):
        with pytest.raises(ModelError, match=f'{tmp_path / name}: expected an ONNX '):
            model_digest(tmp_path / name)


@pytest.mark.parametrize(
    ('environment', 'expected'),
    [
        ({}, '/home/me/.cache/isaac_infer/engines'),
        ({'XDG_CACHE_HOME': '/var/cache/me'}, '/var/cache/me/isaac_infer/engines'),
        ({'XDG_CACHE_HOME': 'relative'}, '/home/me/.cache/isaac_infer/engines'),
        ({'ISAAC_INFER_CACHE': '/data/engines', 'XDG_CACHE_HOME': '/x'}, '/data/engines'),
        ({'ISAAC_INFER_CACHE': '~/engines'}, '/home/me/engines'),
        ({'ISAAC_INFER_CACHE': ''}, '/home/me/.cache/isaac_infer/engines'),
        ({'HOME': '~'}, '/models/engines'),
    ],
)
def test_the_environment_says_where_engines_are_kept(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('ISAAC_INFER_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in {'HOME': '/home/me', **environment}.items():
        monkeypatch.setenv(name, value)
    assert default_folder(Path('/models/yolo.onnx')) == Path(expected)


def test_a_model_without_weight_files_is_hashed_without_the_package_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    path = save_colour_detector(tmp_path / 'model.onnx')
    assert model_digest(path) == file_sha256(path)


def test_the_digest_of_pictures_follows_contents_not_names(tmp_path: Path) -> None:
    for name, content in {'a': b'1', 'b': b'2', 'c': b'1'}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / name for name in 'abc')
    assert pictures_digest([a, b]) == pictures_digest([c, b])
    assert len({pictures_digest(paths) for paths in ([], [a], [b], [a, b], [b, a], [a, a])}) == 6
    with pytest.raises(ModelError, match='nowhere: cannot be read for calibration'):
        pictures_digest([tmp_path / 'nowhere'])
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ModelError, match='pipe: cannot be read for calibration: it is a folder'):
        pictures_digest([tmp_path / 'pipe'])


def test_an_engine_whose_content_has_changed_is_built_again(tmp_path: Path) -> None:
    made, said = [], []

    def build(into: Path) -> dict[str, object]:
        made.append(into)
        into.write_bytes(b'engine' * 1000)
        return {}

    def get() -> Path:
        return cached_plan(
            tmp_path, 'yolo', BuildKey({'model': 'x'}), build=build, check=lambda path: None, say=said.append
        ).path

    engine = get()
    content = bytearray(engine.read_bytes())
    content[2000] ^= 1  # one bit, which TensorRT would not notice
    engine.write_bytes(content)
    assert get().read_bytes() == b'engine' * 1000
    assert len(made) == 2 and any('set aside' in text for text in said)


def test_how_long_the_last_build_took_is_known(tmp_path: Path) -> None:
    assert last_build_s(tmp_path, 'yolo') == 0

    def build(into: Path) -> dict[str, object]:
        into.write_bytes(b'engine')
        return {'build_s': 42.0}

    key = BuildKey({'model': 'x'})
    cached_plan(tmp_path, 'yolo', key, build=build, check=lambda path: None, say=lambda text: None)
    assert last_build_s(tmp_path, 'yolo') == 42
    assert last_build_s(tmp_path, 'yo') == last_build_s(tmp_path / 'nowhere', 'yolo') == 0


def test_how_long_a_build_took_is_asked_of_this_model_only(tmp_path: Path) -> None:
    for name, took in (('yolov8n', 10.0), ('yolov8n-seg', 99.0), ('yolov8m', 10**400)):

        def build(into: Path, took: float = took) -> dict[str, object]:
            into.write_bytes(b'engine')
            return {'build_s': took}

        cached_plan(tmp_path, name, KEY, build=build, check=accept, say=lambda text: None)
    assert last_build_s(tmp_path, 'yolov8n') == 10.0
    assert last_build_s(tmp_path, 'yolov8m') == 0
