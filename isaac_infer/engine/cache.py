"""Cache: engines kept beside what they were made of; same key, no rebuild."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isaac_infer.core.decode.document import read_document
from isaac_infer.core.errors import ModelError, SessionError
from isaac_infer.core.text import printable

FOLDER_VARIABLE = 'ISAAC_INFER_CACHE'
DIGEST_CHARACTERS = 16
MAX_NAME_CHARACTERS = 100  # of the model's name in the names of files, which have 255 at most
MAX_SET_ASIDE = 3  # broken engines kept per engine, or a start that always fails would fill the disk
POLL_S = 0.1
LONGEST_BUILD_S = 1e6  # that anybody would have waited for
# What a builder meets where there is no room for the engine; its other troubles with files are its own.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HASH = re.compile('[0-9a-f]{64}')
_DIGEST = f'[0-9a-f]{{{DIGEST_CHARACTERS}}}'
# Files of a build under way, or of one whose process died: `.<name>-<digest>.lock`, `...<anything>.partial`.
_UNFINISHED = re.compile(rf'\.(.+-{_DIGEST})\.(lock|.+\.partial.*)')


@dataclass(frozen=True)
class BuildKey:
    """Everything that an engine depends on, in words: `{'precision': 'fp16', 'tensorrt': '8.6.1', ...}`."""

    parts: Mapping[str, str]  # in the order in which people read them

    @property
    def digest(self) -> str:
        """The same for the same parts in any order."""
        canonical = json.dumps(dict(self.parts), sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_CHARACTERS]

    def differences(self, other: BuildKey) -> tuple[str, ...]:
        """Say where this key differs from an older one: `precision: fp16, was fp32`."""
        words = dict.fromkeys((*self.parts, *other.parts))
        return tuple(
            f'{word}: {_shown(self.parts.get(word))}, was {_shown(other.parts.get(word))}'
            for word in words
            if self.parts.get(word) != other.parts.get(word)
        )


@dataclass(frozen=True)
class CachedPlan:
    """An engine that was checked and can be used."""

    path: Path
    facts: Mapping[str, Any]  # what its build said of it
    was_built: bool  # now, and not some time ago


def default_folder(model: Path) -> Path:
    """Give the folder for engines: as the environment says, else the user's cache, else beside the model."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    caches = Path(os.environ.get('XDG_CACHE_HOME') or '.')
    if not caches.is_absolute():  # as its specification says
        caches = Path(os.path.expanduser('~'), '.cache')
    if not caches.is_absolute():  # a service whose user has no home
        return Path(os.path.abspath(model)).parent / 'engines'
    return caches / 'isaac_infer' / 'engines'


def model_digest(path: Path) -> str:
    """Hash an ONNX file and the files that hold its weights; a file without any has its plain SHA-256.

    Raises:
        ModelError: the file is no ONNX model, or one of its weight files is missing or outside its folder.
        SessionError: the package onnx is not installed.
    """

    from isaac_infer.engine.load import file_sha256

    if not os.path.isfile(path):
        raise ModelError(f'{path}: expected an ONNX file, got a folder, pipe or nothing; check its path')
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        locations = _locations(content)
        del content
        weights = [_weights_file(path, location) for location in locations]
        lines = [f'{file_sha256(file)}  {location}' for file, location in zip(weights, locations)]
    except OSError as error:
        raise ModelError(f'{error.filename}: cannot be read: {error.strerror}') from error
    except (ModelError, SessionError):
        raise
    except Exception as error:  # which ones protobuf raises depends on its implementation
        raise ModelError(
            f'{path}: expected an ONNX model, got something else or a part of one: {error}; '
            f'export or copy it again'
        ) from error
    return hashlib.sha256('\n'.join([digest, *lines]).encode()).hexdigest() if lines else digest


def pictures_digest(pictures: Iterable[Path]) -> str:
    """Hash what is calibrated on, by content and in order: a part of the key of what is built with it.

    Raises:
        ModelError: one of them cannot be read.
    """
    from isaac_infer.engine.load import file_sha256

    digest = hashlib.sha256()
    for picture in pictures:
        if os.path.exists(picture) and not os.path.isfile(picture):  # a pipe waits for its writer
            raise ModelError(f'{picture}: cannot be read for calibration: it is a folder, pipe or device')
        try:
            digest.update(bytes.fromhex(file_sha256(picture)))  # recordings are larger than memories
        except OSError as error:
            raise ModelError(f'{picture}: cannot be read for calibration: {error.strerror}') from error
    return digest.hexdigest()


def read_sidecar(engine: Path) -> Mapping[str, Any] | None:
    """Read what was written beside an engine when it was built: `key` and `facts`.

    None where nothing is there, or nothing that belongs to this engine.
    """
    try:
        return _read_sidecar(engine)
    except ValueError:
        return None


def last_build_s(folder: Path, name: str) -> float:
    """How long the newest engine of a model took to build, in seconds; 0 where nobody knows."""
    newest, seconds = 0, 0.0
    with suppress(OSError):
        stem = _file_stem(name)
        engines = re.compile(f'{re.escape(stem)}-{_DIGEST}.engine')  # not those of yolov8n-seg
        for path in folder.glob(f'{glob.escape(stem)}-*.engine'):
            if not engines.fullmatch(path.name):
                continue
            sidecar, written = read_sidecar(path), path.stat().st_mtime_ns
            took = sidecar['facts'].get('build_s') if sidecar else None
            if written > newest and isinstance(took, (int, float)) and 0 < took < LONGEST_BUILD_S:
                newest, seconds = written, float(took)
    return seconds


def _file_stem(name: str) -> str:
    return re.sub('[^A-Za-z0-9_.-]', '_', name)[:MAX_NAME_CHARACTERS] or 'model'


def cached_plan(
    folder: Path,
    name: str,
    key: BuildKey,
    *,
    build: Callable[[Path], Mapping[str, Any]],
    check: Callable[[Path], None],
    say: Callable[[str], None],
    is_cancelled: Callable[[], bool] = lambda: False,
) -> CachedPlan:
    """Give the engine of this key, built only if it is not there yet or cannot be used.

    Of several processes and threads that want the same engine, one builds and the others wait.

    Args:
        folder: where engines are kept; made if needed.
        name: of the model, for people and for the names of the files.
        key: everything that the engine depends on.
        build: writes the engine into this file and returns facts about it, which JSON can hold.
        check: raises ModelError where the engine in this file cannot be used; any other error says nothing
            about the engine and is passed on.
        say: takes a sentence for the log.
        is_cancelled: asked while another process builds; a build under way has to ask by itself.

    Raises:
        ModelError: the new engine cannot be used, or the folder cannot be written.
        SessionError: cancelled while another process was building.
    """
    name = _file_stem(name)
    stem = f'{name}-{key.digest}'
    engine = folder / f'{stem}.engine'
    why_broken = ''
    # Without the lock first: where all is well nothing is written, so a read-only folder will do.
    try:
        facts = _usable_facts(engine, key, check)
        if facts is not None:
            return CachedPlan(engine, facts, was_built=False)
    except ModelError as error:  # looked at again under the lock, and said there
        why_broken = str(error)
    with ExitStack() as stack:
        try:
            with _errors_of(folder):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder / f'.{stem}.lock', engine, say=say, is_cancelled=is_cancelled))
        except ModelError as error:
            if not why_broken:
                raise
            raise ModelError(
                f'{engine.name}: cannot be used: {why_broken}; and not built again: {error}'
            ) from error
        with _errors_of(folder):
            _remove_unfinished(folder, stem)
        try:
            facts = _usable_facts(engine, key, check)
        except ModelError as error:
            aside = _set_aside(engine, str(error))
            say(f'{engine.name}: set aside as {aside.name} and built again: it cannot be used: {error}')
        else:
            if facts is not None:
                return CachedPlan(engine, facts, was_built=False)
            with _errors_of(folder):
                why = _why(folder, name, key)
            say(f'{engine.name}: building it, {why}')
        facts = _build(engine, key, build)
        try:
            check(engine)
        except ModelError as error:
            aside = _set_aside(engine, str(error))
            raise ModelError(
                f'{engine}: it was built just now and still cannot be used: {error}; it lies in {aside.name}'
            ) from error
        return CachedPlan(engine, facts, was_built=True)


def _build(engine: Path, key: BuildKey, build: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Build into a temporary file, make it last, and only then give it its name; else leave nothing."""
    partial = engine.with_name(f'.{engine.stem}.{os.getpid()}-{secrets.token_hex(4)}.partial')
    partial_sidecar = partial.with_name(f'{partial.name}.json')
    try:
        try:
            facts = build(partial)
        except OSError as error:
            if _is_of(partial, error):
                raise _folder_error(engine.parent, error) from error
            raise
        with _errors_of(engine.parent):
            size = partial.stat().st_size if partial.exists() else 0
            if not size:
                raise ModelError(f'{engine}: expected an engine from its build, got no byte; build it again')
            # Of the content too: TensorRT runs an engine with damaged weights without a word.
            sidecar = {'engine': engine.name, 'bytes': size, 'crc32': _crc32(partial)}
            sidecar |= {'digest': key.digest, 'key': dict(key.parts)}
            text = json.dumps({**sidecar, 'facts': dict(facts)}, indent=1)
            partial_sidecar.write_text(text + '\n', 'utf-8')
            _sync(partial)
            _sync(partial_sidecar)
            # The engine last: once it has its name, everything that belongs to it is there.
            partial_sidecar.replace(engine.with_suffix('.json'))
            partial.replace(engine)
            _sync(engine.parent)
        made: Mapping[str, Any] = json.loads(text)['facts']  # exactly as a later start will read them
        return made
    finally:
        _remove(engine.parent.glob(f'{glob.escape(partial.name)}*'))


def _is_of(partial: Path, error: OSError) -> bool:
    """Tell whether it is the folder of engines that cannot be written to, and not that of other files."""
    if error.filename == str(partial):
        return True
    is_here = error.filename is None or Path(error.filename).parent == partial.parent
    return is_here and error.errno in _NO_ROOM


def _usable_facts(engine: Path, key: BuildKey, check: Callable[[Path], None]) -> Mapping[str, Any] | None:
    """Give the facts of an engine that can be used; None where there is no engine.

    Raises:
        ModelError: it cannot be used.
    """
    if not os.path.lexists(engine):
        return None
    try:
        facts = _known_facts(engine, key)
        check(engine)
    except ModelError:
        if not os.path.lexists(engine):  # somebody cleared the folder just now
            return None
        raise
    return facts


def _known_facts(engine: Path, key: BuildKey) -> Mapping[str, Any]:
    try:
        sidecar = _read_sidecar(engine)
    except ValueError as error:
        raise ModelError(f'what it was made of is unknown: {error}') from error
    if sidecar['digest'] != key.digest:
        raise ModelError(f'{engine.with_suffix(".json").name} belongs to another engine')
    try:
        is_same = sidecar.get('crc32') == _crc32(engine)
    except OSError as error:
        raise ModelError(f'it cannot be read: {error.strerror}') from error
    if not is_same:
        raise ModelError('its content is not what was built')
    facts: Mapping[str, Any] = sidecar['facts']
    return facts


def _crc32(path: Path) -> int:
    """Sum up a file: quicker than reading it from a disk."""
    total = 0
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            total = zlib.crc32(block, total)
    return total


def _read_sidecar(engine: Path) -> Mapping[str, Any]:
    """Read the sidecar of an engine; ValueError says why it is not one, or not of this engine."""
    path = engine.with_suffix('.json')
    try:
        content = read_document(path)
        if not isinstance(content, dict):
            raise ValueError(f'expected a mapping, got {type(content).__name__}')
        key, facts = content.get('key'), content.get('facts')
        if not isinstance(key, dict) or not all(isinstance(value, str) for value in key.values()):
            raise ValueError('expected a key of texts')
        if not isinstance(facts, dict):
            raise ValueError('expected facts')
        if content.get('digest') != BuildKey(key).digest:
            raise ValueError('its key was changed')
    except ValueError as error:
        raise ValueError(f'{path.name}: {printable(str(error))}') from error
    try:
        status = engine.stat()
    except OSError as error:
        raise ValueError(f'{engine.name}: {error.strerror}') from error
    size = status.st_size
    if not stat.S_ISREG(status.st_mode) or content.get('bytes') != size:
        raise ValueError(f'{path.name}: expected an engine of {content.get("bytes")!r} bytes, got {size}')
    return content


def _why(folder: Path, name: str, key: BuildKey) -> str:
    """Say what is different from the newest engine of this name, for somebody who expected no build."""
    engines = []
    for path in folder.iterdir():
        if re.fullmatch(rf'{re.escape(name)}-{_DIGEST}\.engine', path.name):
            with suppress(OSError):  # somebody took it away just now
                engines.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(engines, reverse=True):
        sidecar = read_sidecar(path)
        if sidecar and (differences := key.differences(BuildKey(sidecar['key']))):
            return f'since {path.name} differs: {"; ".join(differences)}'
    return f'since {folder} has no engine of {name} yet'


def _set_aside(engine: Path, reason: str) -> Path:
    """Give a broken engine and its sidecar other names, with the reason beside them; returns the new name."""
    names = ['broken', *(f'broken.{number}' for number in range(2, MAX_SET_ASIDE + 1))]
    places = [engine.with_name(f'{engine.name}.{name}') for name in names]
    free = [place for place in places if not os.path.lexists(place)]
    with _errors_of(engine.parent):
        place = free[0] if free else min(places, key=lambda place: place.lstat().st_mtime_ns)
        place.with_name(f'{place.name}.reason.txt').write_text(f'{printable(reason)}\n', 'utf-8')
        sidecar = place.with_name(f'{place.name}.json')
        _remove([sidecar])
        with suppress(FileNotFoundError):
            engine.with_suffix('.json').replace(sidecar)
        engine.replace(place)
    return place


@contextmanager
def _locked(
    path: Path, engine: Path, *, say: Callable[[str], None], is_cancelled: Callable[[], bool]
) -> Iterator[None]:
    """Hold the lock of an engine, which ends with the process that holds it, however that ends."""
    tries = 0
    while (lock := _try_lock(path)) is None:
        tries += 1
        if tries == 2:  # by then the holder has written who it is
            say(f'{engine.name}: waiting for {_holder(path)}')
        if is_cancelled():
            raise SessionError(f'{engine}: cancelled while waiting for {_holder(path)}')
        time.sleep(POLL_S)
    try:
        yield
    finally:
        _unlock(path, lock)


def _try_lock(path: Path) -> int | None:
    """Take a lock and write into it who has it; None where somebody else has it."""
    with _errors_of(path.parent):
        lock = _open_lock(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):  # else who had it has taken the file away
                holder = f'process {os.getpid()} on {socket.gethostname()}'
                text = f'{holder}, which has been building it since {time.strftime("%Y-%m-%d %H:%M:%S")}'
                os.ftruncate(lock, 0)
                os.write(lock, text.encode())
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass  # somebody else has it, or had it until now
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None


def _open_lock(path: Path) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        kinds = {errno.EISDIR: 'a folder', errno.ELOOP: 'a link', errno.EACCES: "another user's file"}
        if error.errno in kinds and os.path.lexists(path):
            raise _lock_error(path, kinds[error.errno]) from error
        raise  # of the folder
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise _lock_error(path, 'a pipe or device')
    return lock


def _lock_error(path: Path, got: str) -> ModelError:
    return ModelError(
        f'{path}: expected a lock, a file that can be written, got {got}; '
        f'remove it unless somebody builds, or set {FOLDER_VARIABLE} to another folder'
    )


def _unlock(path: Path, lock: int) -> None:
    _remove([path])  # before it is free: afterwards it may be somebody else's
    os.close(lock)


def _holder(path: Path) -> str:
    try:
        with path.open('rb') as file:
            said = printable(file.read(200).decode('utf-8', 'replace'))
    except OSError:
        said = ''
    return said or 'another process, which is building it'


def _remove_unfinished(folder: Path, locked_stem: str) -> None:
    """Remove what dead processes left, of every engine that nobody is building."""
    left: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if match := _UNFINISHED.fullmatch(path.name):
            left.setdefault(match[1], []).append(path)
    for stem, paths in left.items():
        lock_path = folder / f'.{stem}.lock'
        paths = [path for path in paths if path != lock_path]
        if stem == locked_stem:
            _remove(paths)
            continue
        with suppress(ModelError):  # another user's: theirs to remove
            lock = _try_lock(lock_path)
            if lock is not None:
                _remove(paths)
                _unlock(lock_path, lock)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # gone already, or not ours; what stays is hidden and never used
            path.unlink()


def _sync(path: Path) -> None:
    """Have a file or folder written to the disk, so that a power cut cannot take it back."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _folder_error(folder, error) from error


def _folder_error(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f'{folder}: expected a folder that engines can be written to, got: {error.strerror}; '
        f'make it writable or make room in it, or set {FOLDER_VARIABLE} to another folder'
    )


def _locations(content: bytes) -> list[str]:
    """The weight files of a model."""
    # The key under which a tensor names its file: where it is missing, importing onnx is not worth its time.
    if b'location' not in content:
        return []
    try:
        import onnx
    except ImportError as error:
        raise SessionError(f'onnx cannot be imported ({error}); install it: pip install onnx') from error
    return sorted(set(_weight_locations(onnx.ModelProto.FromString(content))))


def _weight_locations(message: Any) -> Iterator[str]:
    """Find the names of the files in which a protobuf message's tensors have their values."""
    import onnx

    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL:
            places = [entry.value for entry in message.external_data if entry.key == 'location']
            yield from places or ['']
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Iterable) else (value,):
                yield from _weight_locations(part)


def _weights_file(model: Path, location: Any) -> Path:
    """Find a weight file by what the model says, which may be anything."""
    where = 'keep the weights file (often <model>.onnx.data) beside the model'
    file = model.parent / location if isinstance(location, str) and '\0' not in location else model.parent
    # The model may be a link into a store of files, and then its weights are links into the same store.
    homes = [model.parent.resolve(), model.resolve().parent]
    is_inside = not os.path.isabs(location) and '..' not in Path(str(location)).parts
    if not is_inside or not any(file.resolve().is_relative_to(home) for home in homes):
        raise ModelError(
            f'{model}: expected weights in its own folder, got {location!r}, which is outside; '
            f'export it again and {where}'
        )
    if not file.is_file():
        raise ModelError(f'{model}: expected its weights in {location!r}, got no such file; {where}')
    return file


def _shown(value: str | None) -> str:
    if value is None:
        return 'not set'
    return printable(value[:12] if _HASH.fullmatch(value) else value)
