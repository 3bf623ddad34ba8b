"""Load: from the name of a model file to a session, and to a pipeline that is warmed up and checked."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from isaac_infer.core.build_options import EngineOptions
from isaac_infer.core.decode.document import SUFFIXES, read_document
from isaac_infer.core.decode.metadata import over_sidecar
from isaac_infer.core.decode.resolve import input_shapes, resolve_spec
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import IsaacInferError, ModelError, SessionError
from isaac_infer.core.fit import Fit
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.session import Session
from isaac_infer.core.spec import Limits, ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.engine.cuda import has_nvidia_gpu
from isaac_infer.engine.trial import try_model
from isaac_infer.engine.trt import RUNTIMES, TrtSession, find_tensorrt

BACKENDS = ('auto', 'onnxruntime', 'tensorrt')
ENGINE_SUFFIXES = ('.engine', '.plan', '.trt')
REPORT_KEYS = {'model', 'backend'}  # of what this package writes about a model, often beside it
ENGINE_KEYS = {'engine', 'digest', 'key', 'facts'}  # of what is written beside an engine
GREY = 114

# How files begin that are often given instead of an ONNX model -> what they are and the way out.
_OTHER_FILES = {
    b'version https://git-lfs': 'a Git LFS pointer; run "git lfs pull" where it comes from',
    b'<!doctype': 'a web page, not a model; download the raw file',
    b'<html': 'a web page, not a model; download the raw file',
    b'pk\x03\x04': 'a zip archive or PyTorch checkpoint; unpack it, or export it to ONNX',
    b'\x80\x02': 'a Python pickle or old PyTorch checkpoint; export it to ONNX',
    b'\x1f\x8b': 'a gzip archive; unpack it',
    b'ftrt': 'a TensorRT engine; name it .engine',
    b'\x89hdf': 'an HDF5 file such as a Keras model; export it to ONNX',
}


def open_session(
    path: str | Path,
    *,
    task: str = 'detection',
    overrides: Overrides = Overrides(),
    backend: str = 'auto',
    providers: Sequence[str] = (),
    num_threads: int = 0,
    engine: EngineOptions = EngineOptions(),
    say: Callable[[str], None] = lambda text: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Session:
    """Load a model onto a backend; slow, and where an engine has to be built, very slow.

    Args:
        path: see `find_model`.
        task: what the model is wanted for, a key of TASKS: engines are built for it.
        overrides: what the user knows better than the file.
        backend: `auto`, `onnxruntime` or `tensorrt`; with `auto`, ONNX models run on TensorRT where there is
            a GPU and the whole of TensorRT.
        providers: ONNX Runtime execution providers in order of preference; empty: the CPU.
        num_threads: of the CPU; 0: one per core.
        engine: how TensorRT engines are built, kept and fed.
        say: takes a sentence for the log, while an engine is built.
        is_cancelled: asked several times a second while a model is tried or an engine is built.

    Raises:
        ModelError: there is no such task, or the file is missing or cannot be loaded.
        SessionError: the backend is not available.
    """
    _check_task(task)
    path = find_model(path)
    if not runs_on_tensorrt(path, backend, providers):
        return _open_on_onnxruntime(path, providers, num_threads, is_cancelled)
    return _open_on_tensorrt(path, task, backend, engine, overrides, say, is_cancelled)[0]


def _open_on_onnxruntime(
    path: Path, providers: Sequence[str], num_threads: int, is_cancelled: Callable[[], bool]
) -> Session:
    _let_go_of_gpu()
    _refuse_other_files(path)
    try:
        from isaac_infer.engine.ort import OrtSession
    except ImportError as error:
        raise SessionError(
            f'onnxruntime cannot be imported ({error}); install it: pip install onnxruntime'
        ) from error
    try_model(path, is_cancelled=is_cancelled)
    return OrtSession(path, providers=providers, num_threads=num_threads)


def _let_go_of_gpu() -> None:
    """Give back what a node has woken at its start, where its model does not need it."""
    wake = sys.modules.get('isaac_infer.engine.wake')
    if wake is not None:
        wake.let_go()


def _open_on_tensorrt(
    path: Path,
    task: str,
    backend: str,
    engine: EngineOptions,
    overrides: Overrides,
    say: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> tuple[TrtSession, ModelSpec | None]:
    """Open an engine, or that of an ONNX model, and say how it is fed and read where its build knew."""
    if backend == 'onnxruntime':
        raise SessionError(f'{path}: a TensorRT engine cannot run on onnxruntime; give the ONNX model')
    from isaac_infer.engine.engines import open_engine, spec_of

    if engine.device:
        _let_go_of_gpu()  # the other one
    if is_engine(path):
        session = TrtSession(
            path, device=engine.device, profile=engine.profile, dla_core=engine.build.dla_core
        )
        spec = spec_of(path, overrides)
        return session, spec if spec and spec.task == task else None
    _refuse_other_files(path)
    find = partial(find_spec, task=task)
    return open_engine(path, engine, overrides, find, task=task, say=say, is_cancelled=is_cancelled)


def open_pipeline(
    path: str | Path,
    *,
    task: str = '',
    limits: Limits | Callable[[ModelSpec], Limits] = Limits(),
    overrides: Overrides = Overrides(),
    backend: str = 'auto',
    providers: Sequence[str] = (),
    num_threads: int = 0,
    engine: EngineOptions = EngineOptions(),
    say: Callable[[str], None] = lambda text: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Pipeline:
    """Load a model, find out how to feed and read it, and run it once to see that this is true; slow.

    Args:
        path: see `find_model`.
        task: what kind of answer is wanted, a key of TASKS; empty: what the model is for, see `task_of`.
        limits: what of the answers counts, or what gives it, now that the classes are known.
        overrides: what the user knows better than the file.
        backend, providers, num_threads, engine, say, is_cancelled: see `open_session`.

    Raises:
        ModelError: there is no such task; the file is missing, cannot be loaded, or cannot be understood
            without help.
        ParameterError: no task is given, and several can read it; or there is no such decoder.
        SessionError: the backend is not available, or the network fails or answers with NaN.
    """
    from isaac_infer.engine.task import task_of, task_of_file  # which need this module

    if task:
        _check_task(task)
    path = find_model(path)
    session: Session
    spec: ModelSpec | None = None
    if runs_on_tensorrt(path, backend, providers):
        task = task or task_of_file(path, overrides)[0]
        session, spec = _open_on_tensorrt(path, task, backend, engine, overrides, say, is_cancelled)
    else:
        session = _open_on_onnxruntime(path, providers, num_threads, is_cancelled)
        if backend == 'auto' and not providers and _expects_tensorrt():
            session.fallbacks += (f'running on the CPU: {tensorrt_problem()}',)  # type: ignore[misc]
    try:
        task = task or task_of(session, path, overrides)[0]
        spec = spec or find_spec(session, path, overrides, task=task)
        wanted = limits if isinstance(limits, Limits) else limits(spec)
    except BaseException:
        session.close()
        raise
    pipeline = make_pipeline(session, spec, wanted, engine)
    try:
        with _naming(path):
            for each in (pipeline, *pipeline.twins):
                each.warm_up()
    except BaseException:
        pipeline.close()
        raise
    return pipeline


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise ModelError(f'task: expected one of {", ".join(TASKS)}, got {task!r}')


def make_pipeline(session: Session, spec: ModelSpec, limits: Limits, engine: EngineOptions) -> Pipeline:
    """Put a pipeline around a session, with what feeds engines and with as many twins as were asked for.

    Raises:
        SessionError: there is not enough memory, or pictures cannot be prepared as was asked for; the session
            is closed then.
    """
    pipeline = _single_pipeline(session, spec, limits, engine)
    if isinstance(session, TrtSession):
        try:
            for _ in range(engine.pipeline_depth - 1):
                twin = _single_pipeline(session.twin(), spec, limits, engine)
                pipeline.twins = (*pipeline.twins, twin)
        except BaseException:
            pipeline.close()
            raise
    return pipeline


def _single_pipeline(session: Session, spec: ModelSpec, limits: Limits, engine: EngineOptions) -> Pipeline:
    try:
        return Pipeline(session, spec, limits, prepare=_preparer(session, spec, engine))
    except BaseException:
        session.close()
        raise


def _preparer(session: Session, spec: ModelSpec, engine: EngineOptions) -> Callable[[Frame], Fit] | None:
    """Who prepares pictures for a session on the GPU; None: the CPU, as everywhere."""
    if not isinstance(session, TrtSession):
        return None
    from isaac_infer.engine.device_prepare import ChosenPreparer

    preparer = ChosenPreparer(session, spec.image, way=engine.prepare)
    session.fallbacks += preparer.notes
    return preparer


def is_engine(path: Path) -> bool:
    """Tell by its name whether a file is a TensorRT engine."""
    return path.suffix.lower() in ENGINE_SUFFIXES


def runs_on_tensorrt(path: Path, backend: str, providers: Sequence[str] = ()) -> bool:
    """Tell whether a model goes to TensorRT: an engine does, an ONNX model where it is asked for or there."""
    if backend not in BACKENDS:
        raise SessionError(f'backend: expected one of {", ".join(BACKENDS)}, got {backend!r}')
    if is_engine(path) or backend == 'tensorrt':
        return True
    if backend != 'auto' or providers or not all(_installed()):
        return False
    return not tensorrt_problem()


def _installed() -> list[bool]:
    """Tell whether TensorRT and PyCUDA are installed, without importing them."""
    found = [importlib.util.find_spec(name) for name in ('tensorrt', 'pycuda')]
    return [spec is not None and spec.origin is not None for spec in found]  # a mere folder has none


def _expects_tensorrt() -> bool:
    """Tell whether whoever set up this machine will be surprised by a model that runs on its CPU."""
    return any(_installed()) or has_nvidia_gpu()


def tensorrt_problem() -> str:
    """Say why engines cannot be built although TensorRT and PyCUDA are installed; empty if they can."""
    try:
        name = find_tensorrt().__name__
    except SessionError as error:
        return str(error)
    return '' if name == RUNTIMES[0] else f'{name} only runs engines; the whole of TensorRT builds them'


def check_built(session: Session, backend: str) -> None:
    """See that there is an engine now, where nothing else was asked for.

    Raises:
        SessionError: the model runs on ONNX Runtime, which nobody chose.
    """
    if backend != 'onnxruntime' and not isinstance(session, TrtSession):
        reason = tensorrt_problem() or f'it runs on {session.backend}'
        raise SessionError(f'no engine was built: {reason}')


def unused_precision(precision: str | None, session: Session) -> str:
    """Say that a precision was given that nobody uses; empty where TensorRT does, or none was given."""
    if precision is None or isinstance(session, TrtSession):
        return ''
    return (
        f'precision {precision} concerns TensorRT and was not used: ONNX Runtime computes in what the model '
        'file says'
    )


def find_spec(
    session: Session, path: Path, overrides: Overrides = Overrides(), *, task: str = 'detection'
) -> ModelSpec:
    """Find out how to feed and read a model, by what it says of itself and by running it on a grey picture.

    Args:
        task: what kind of answer is wanted, a key of TASKS.

    Raises:
        ModelError: it cannot be understood without help.
        SessionError: it fails, or answers with NaN or Inf.
    """
    if isinstance(session, TrtSession):
        from isaac_infer.engine.engines import spec_of

        # What was done to the model before it was built is known to its build alone.
        spec = spec_of(session.path, overrides)
        if spec and spec.task == task:
            return spec
    metadata, notes = metadata_of(path, session.metadata, overrides)
    with _naming(path):
        spec = _find_spec(session, path.name, metadata, overrides, task)
    return replace(spec, notes=(*spec.notes, *notes))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the model's name before errors that do not have it."""
    try:
        yield
    except IsaacInferError as error:
        if path.name in str(error):
            raise
        raise type(error)(f'{path.name}: {error}') from error


def _find_spec(
    session: Session, file_name: str, metadata: Mapping[str, Any], overrides: Overrides, task: str
) -> ModelSpec:
    shapes = input_shapes(session.inputs, metadata, overrides, file_name=file_name)
    buffers = {name: session.input_buffer(name, shape) for name, shape in shapes.items()}
    outputs = session.outputs
    if any(output.is_dynamic or not output.shape for output in outputs):
        answers = session.run()
        outputs = tuple(
            _with_lengths(output, answers[output.name].shape) if output.name in answers else output
            for output in outputs
        )
    spec = resolve_spec(session.inputs, outputs, metadata, overrides, task=task, file_name=file_name)
    height, width = spec.image.size_hw
    Preparer(spec.image)(Frame(np.full((height, width, 3), GREY, np.uint8)), into=buffers[spec.image.name])
    if spec.size_input:
        buffers[spec.size_input][...] = width, height
    answers = session.run()
    for name in spec.outputs:
        if not np.isfinite(answers[name]).all():
            raise SessionError(
                f'output {name}: expected finite numbers for a grey picture, got NaN or Inf; '
                f'check how it is fed (scale, mean, std), or export it in float32'
            )
    return TASKS[task].probe(answers, spec)


def _with_lengths(output: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """Fill in the lengths that an answer had; one of 0 says nothing, it counts what was found."""
    is_open = output.is_dynamic or not output.shape  # no lengths: one number, or any number of axes
    return replace(output, shape=tuple(length or -1 for length in shape)) if is_open else output


def find_model(path: str | Path) -> Path:
    """Find a model file: a relative path in the working directory, then among the models of this package.

    Raises:
        ModelError: it is nowhere; says where it was looked for.
    """
    if not str(path):
        raise ModelError(
            'no model given: --ros-args -p model_file_path:=FILE, of launch files model:=FILE; beside a '
            '--params-file that has it too, the last one counts'
        )
    path = Path(os.path.expanduser(path))
    places = [path] if path.is_absolute() else [folder / path for folder in (Path.cwd(), *_model_folders())]
    for place in places:
        if os.path.isfile(place):
            return place
        if os.path.exists(place):
            raise ModelError(f'{place}: expected an ONNX file, got a folder, pipe or device')
    from isaac_infer.core.source import denial  # what it needs is slow to import

    for place in places:
        if why := denial(place):
            raise ModelError(f'{place}: cannot be read: {why}')
    looked = ', '.join(dict.fromkeys(str(place.parent) for place in places))
    raise ModelError(f'{path}: no such model file; looked in {looked}; give its full path')


def file_sha256(path: Path) -> str:
    """Hash a file, so that two robots can be compared; once, as long as it does not change."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_ctime_ns)  # which "cp -p" does not set back


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _model_folders() -> list[Path]:
    """Where this package's models are: installed by colcon or pip, or in the source tree."""
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]  # the last: pip's
    installed = [Path(prefix, 'share', 'isaac_infer', 'models') for prefix in prefixes if prefix]
    source = Path(__file__).resolve().parents[2] / 'models'
    return [folder for folder in (*installed, source) if folder.is_dir()]


def _refuse_other_files(path: Path) -> None:
    try:
        with path.open('rb') as file:
            head = file.read(256)
    except OSError as error:
        raise ModelError(f'{path}: cannot be read: {error.strerror}') from error
    if not head:
        raise ModelError(f'{path}: expected an ONNX model, got an empty file; copy or export it again')
    if head[4:8] == b'TFL3':
        raise ModelError(f'{path}: expected an ONNX model, got a TensorFlow Lite model; convert it to ONNX')
    for beginning, what in _OTHER_FILES.items():
        if head.lstrip().lower().startswith(beginning):
            raise ModelError(f'{path}: expected an ONNX model, got {what}')


def metadata_of(
    path: Path, own: Mapping[str, str], overrides: Overrides
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Give what a model says of itself, over what `<model>.json` or `.yaml` beside it says; and notes."""
    beside = next((file for suffix in SUFFIXES if (file := path.with_suffix(suffix)).is_file()), None)
    if beside is None:
        return own, ()
    try:
        content = read_document(beside)
    except ValueError as error:
        raise ModelError(f'{beside}: cannot be read as facts about the model: {error}') from error
    if not isinstance(content, dict):
        raise ModelError(
            f'{beside}: expected a mapping such as {{"decoder": "..."}}, got {type(content).__name__}'
        )
    if content.keys() >= ENGINE_KEYS:
        return own, ()
    if content.keys() >= REPORT_KEYS:
        return own, (f'{beside.name} is a report and says nothing of the model',)
    return over_sidecar(own, content, overrides, file_name=path.name, sidecar_name=beside.name)
