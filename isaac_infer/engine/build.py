"""Build: an ONNX model to a TensorRT engine, in a child process that can be watched and cancelled."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from types import ModuleType
from typing import Any

import numpy as np

from isaac_infer.core.build_options import PRECISIONS, BuildOptions, Shape
from isaac_infer.core.child import main_of, python_command, python_environment
from isaac_infer.core.errors import IsaacInferError, ModelError, ParameterError, SessionError
from isaac_infer.core.progress import Phases, Say, estimated_share, tell_share
from isaac_infer.core.tensor import fits
from isaac_infer.core.text import signal_name
from isaac_infer.engine.files import replace_file, working_folder

MIB = 1 << 20
POLL_S = 0.2
OLD_OPSET = 17  # of ONNX: the newest that TensorRT 8.5 and 8.6 know
LEAVING_S = 30.0  # for the child's end after its answer, when TensorRT and CUDA put things away
SILENCE_S = 15.0  # without a word, after which the time is told
LATENCY_RUNS = 30
LEAST_PROGRESS = 0.01  # that is told
LAST_WORDS = 2000  # characters of what a crashed child printed
MOST_VALUES = (1 << 31) - 1  # of a tensor
BATCH_SUFFIX = '.batch'
# What TensorRT may have made of an input: before version 10 int32 of int64, and float32 of float64 always.
NARROWED: dict[str, Any] = {'INT32': np.int32, 'FLOAT': np.float32}


Tell = Callable[[Mapping[str, Any]], None]  # of the child: sends a message to its parent


@dataclass(frozen=True)
class Request:
    """What the child is to do; everything in it is JSON."""

    model: str
    into: str
    options: dict[str, Any]
    device: int = 0  # index of the GPU
    timing_cache: str = ''
    batches: str = ''  # the folder of calibration batches, for the calibrators; see `store_batches`
    calibration_cache: str = ''
    latency: bool = True  # measured once it is built
    expected_s: float = 0.0  # how long the last such build took; 0: unknown


def store_batches(batches: Iterable[Mapping[str, np.ndarray]], folder: Path) -> None:
    """Keep prepared pictures for TensorRT's own calibrators, one file per batch: all need much memory.

    Raises:
        ModelError: there is no room for them.
    """
    for number, batch in enumerate(batches):
        path = folder / f'{number:06}{BATCH_SUFFIX}'
        try:
            with path.open('wb') as file:
                for name, array in batch.items():
                    np.save(file, np.array(name))
                    np.save(file, array)
        except OSError as error:
            raise ModelError(
                f'{path}: calibration pictures cannot be kept: {error.strerror or error}; make room there, '
                'set TMPDIR to another folder, or give fewer'
            ) from error


def _stored_batches(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    for path in sorted(folder.glob(f'*{BATCH_SUFFIX}')):
        batch, size = {}, path.stat().st_size
        with path.open('rb') as file:
            while file.tell() < size:
                name = str(np.load(file))
                batch[name] = np.load(file)
        yield batch


def check_shapes(shapes: Mapping[str, tuple[Shape, Shape, Shape]], inputs: Mapping[str, Shape]) -> None:
    """See that the shapes given for inputs are ones that they can have.

    Args:
        shapes: smallest, usual and largest by input; see `BuildOptions`.
        inputs: the shape of each input of the model; -1: open.

    Raises:
        ParameterError: they are not.
    """
    if unknown := [name for name in shapes if name not in inputs]:
        raise ParameterError(
            f'shapes: the model has no input {", ".join(unknown)}; it has {", ".join(inputs)}'
        )
    for name, given in shapes.items():
        for shape in given:
            if not fits(shape, inputs[name]):
                wanted = ', '.join('?' if length < 0 else str(length) for length in inputs[name])
                raise ParameterError(f'shapes of {name}: expected shapes [{wanted}], got {list(shape)}')
            if math.prod(shape) > MOST_VALUES:
                got = list(shape)
                raise ParameterError(f'shapes of {name}: expected at most {MOST_VALUES} values, got {got}')


def build_plan(
    request: Request, *, say: Say, is_cancelled: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Build in a child process and return what it found out: build seconds, latency, warnings.

    TensorRT cannot be interrupted before version 10, and a fault in it would end this process: a child can be
    ended at any time, and gives back all its GPU memory.

    Raises:
        ModelError: TensorRT refuses the model, in its words.
        SessionError: it was cancelled, or ended by a signal.
    """
    with working_folder('build') as folder:
        path, log = folder / 'request.json', folder / 'log'
        path.write_text(json.dumps(asdict(request)))
        with _started(path, log) as (child, messages):
            answer = _follow(messages, request, say, is_cancelled)
            try:
                child.wait(LEAVING_S)  # it has said all it had to say
            except subprocess.TimeoutExpired:
                answer = None
        if answer is None:
            raise SessionError(
                f'{request.model}: the build ended {_how(child.returncode)}\n'
                f'{log.read_text(errors="replace")[-LAST_WORDS:]}'
            )
    if 'errno' in answer:
        raise OSError(answer['errno'], answer['error'], answer['file'])
    if 'error' in answer:
        raise ModelError(answer['error'])
    return answer


@contextmanager
def _started(request: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the child, and end it; gives it and the pipe of its messages.

    Whatever else it prints, as libraries and Python's own start may do, is for the log.
    """
    messages, its_end = os.pipe()
    with open(messages, 'rb', buffering=0), log.open('wb') as printed:
        try:
            child = subprocess.Popen(
                python_command(main_of(__name__), str(request), str(its_end)),
                env={**python_environment(), 'PYTHONUNBUFFERED': '1'},  # or a crash takes it along
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=[its_end],
            )
        finally:
            os.close(its_end)  # so that the pipe ends with the child
        try:
            yield child, messages
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


def _follow(
    messages: int, request: Request, say: Say, is_cancelled: Callable[[], bool]
) -> dict[str, Any] | None:
    """Pass on what the child says until its answer; None where it ended without one."""
    import selectors

    begin = last_word = monotonic()
    is_told = False  # how far it is
    rest = b''  # of a line
    expected = f' of about {request.expected_s:.0f} s' if request.expected_s else ''
    with selectors.DefaultSelector() as selector:
        selector.register(messages, selectors.EVENT_READ)
        while True:
            if is_cancelled():
                raise SessionError('the build was cancelled')
            # Before version 10 TensorRT does not say how far it is.
            share = None if is_told else estimated_share(monotonic() - begin, request.expected_s)
            if share is not None:
                tell_share(say, share)
            if monotonic() - last_word > SILENCE_S:
                last_word = monotonic()
                say(f'building for {last_word - begin:.0f} s{expected}')
            if not selector.select(POLL_S):
                continue
            chunk = os.read(messages, 1 << 16)
            if not chunk:
                return None
            *lines, rest = (rest + chunk).split(b'\n')
            for message in map(json.loads, lines):
                if 'share' in message:
                    is_told = True
                    tell_share(say, message['share'])
                elif 'say' in message:
                    last_word = monotonic()
                    say(message['say'])
                else:
                    answer: dict[str, Any] = message
                    return answer


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f'by {signal_name(-code)}: too little memory, or a fault of TensorRT'
    return f'with code {code}'


# ---- in the child -----------------------------------------------------------------------------------


def main() -> int:
    """Build what the request file says, and send the answer as one line of JSON through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends this process
    answers = os.fdopen(int(sys.argv[2]), 'w', buffering=1)
    os.set_inheritable(answers.fileno(), False)
    request = Request(**json.loads(Path(sys.argv[1]).read_text()))

    def tell(message: Mapping[str, Any]) -> None:
        print(json.dumps(message), file=answers)

    try:
        tell(_build(request, tell))
    except IsaacInferError as error:
        tell({'error': str(error)})
    except OSError as error:  # no room for the engine, for one
        facts = {'errno': error.errno or errno.EIO, 'file': str(error.filename or request.into)}
        tell({'error': error.strerror or str(error), **facts})
    return 0


def _build(request: Request, tell: Tell) -> dict[str, Any]:
    from isaac_infer.engine.cuda import Gpu
    from isaac_infer.engine.trt import RUNTIMES, Messages, find_tensorrt

    trt = find_tensorrt()
    if trt.__name__ != RUNTIMES[0]:
        raise SessionError(f'{trt.__name__} only runs engines; install the full TensorRT to build them')
    shapes = {name: tuple(tuple(shape) for shape in each) for name, each in request.options['shapes'].items()}
    options = BuildOptions(
        **{**request.options, 'shapes': shapes, 'tactic_sources': tuple(request.options['tactic_sources'])}
    )
    gpu, messages = Gpu(request.device), Messages(trt)
    with gpu.current():
        begin = monotonic()
        serialised = _serialise(trt, messages, request, options, tell)
        build_s = monotonic() - begin
        Path(request.into).write_bytes(serialised)
        del serialised
    facts: dict[str, Any] = {
        'build_s': round(build_s, 1),
        'bytes': Path(request.into).stat().st_size,
        'warnings': list(messages.warnings),
    }
    if request.latency:
        facts['latency_ms'] = round(_latency_ms(request, options), 3)
    return facts


def _serialise(trt: ModuleType, messages: Any, request: Request, options: BuildOptions, tell: Tell) -> Any:
    trt.init_libnvinfer_plugins(messages.logger, '')
    builder = trt.Builder(messages.logger)
    network = builder.create_network(_network_flags(trt, options))
    parser = trt.OnnxParser(network, messages.logger)
    # From its path, because external weights lie beside it.
    if not parser.parse_from_file(request.model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = ' / '.join(f'node {error.node()}: {error.desc()}' for error in errors) or messages.reason()
        raise ModelError(
            f'{request.model}: TensorRT {trt.__version__} cannot read this model: {said}{_of_opset(request)}'
        )
    config = builder.create_builder_config()
    _set_precision(trt, config, options)
    _set_options(trt, builder, config, options)
    if hasattr(trt, 'ProfilingVerbosity'):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that `inspect` can name precisions
    profile = _profile(builder, network, options)
    if profile is not None:
        config.add_optimization_profile(profile)
        _share_profile(trt, config)
    calibrator = _calibrator(trt, network, request, options, tell)
    if calibrator is not None:
        config.int8_calibrator = calibrator
        if profile is not None:
            config.set_calibration_profile(profile)
    timing_cache = _load_timing_cache(config, request.timing_cache, tell)
    if hasattr(trt, 'IProgressMonitor'):
        config.progress_monitor = _progress_monitor(trt, tell)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise ModelError(
            f'{request.model}: TensorRT {trt.__version__} cannot build it: {messages.reason()}; '
            'if it was changed before (uint8_input, best_class, int8), build it without'
        )
    _save_timing_cache(timing_cache, request.timing_cache)
    return serialised


def _of_opset(request: Request) -> str:
    """What may help with a model that is newer than the TensorRT."""
    import onnx

    model = onnx.load(request.model, load_external_data=False)
    opset = max((each.version for each in model.opset_import if each.domain in ('', 'ai.onnx')), default=0)
    if opset <= OLD_OPSET:
        return ''
    return f'; it is of opset {opset}: export it with opset {OLD_OPSET}, which every TensorRT reads'


def _share_profile(trt: ModuleType, config: Any) -> None:
    """Let several sessions run one profile at a time: TensorRT 8.6 does not by itself, later ones do."""
    feature = getattr(getattr(trt, 'PreviewFeature', None), 'PROFILE_SHARING_0806', None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def _network_flags(trt: ModuleType, options: BuildOptions) -> int:
    flags, names = 0, ['EXPLICIT_BATCH']  # which later versions do without
    if options.strongly_typed:
        names.append('STRONGLY_TYPED')
        has_it = hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')
        _require(has_it, trt, 'strongly_typed', '10.0')
    for name in names:
        if hasattr(trt.NetworkDefinitionCreationFlag, name):
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    return flags


def _set_precision(trt: ModuleType, config: Any, options: BuildOptions) -> None:
    """Set the flags that this TensorRT has; where it has none, the ONNX model itself says the types."""
    wanted = {'fp16': ['FP16'], 'bf16': ['BF16'], 'fp8': ['FP8', 'FP16'], 'int8': ['INT8', 'FP16']}
    flags = wanted.get(options.precision, [])
    if options.strongly_typed:
        return
    for name in flags:
        if hasattr(trt.BuilderFlag, name):
            config.set_flag(getattr(trt.BuilderFlag, name))
        elif hasattr(trt.BuilderFlag, 'FP16'):  # before 11: a precision that is too new for this version
            raise ParameterError(
                f'precision: TensorRT {trt.__version__} does not have {options.precision}; '
                f'use one of {", ".join(name for name in PRECISIONS if name != options.precision)}'
            )
    if options.precision == 'fp32' and hasattr(trt.BuilderFlag, 'TF32'):
        config.clear_flag(trt.BuilderFlag.TF32)  # it rounds to ten bits, which is not what was asked for


def _set_options(trt: ModuleType, builder: Any, config: Any, options: BuildOptions) -> None:
    if options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.optimization_level >= 0:
        _require(hasattr(config, 'builder_optimization_level'), trt, 'optimization_level', '8.6')
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        _require(hasattr(trt.BuilderFlag, 'VERSION_COMPATIBLE'), trt, 'version_compatible', '8.6')
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        _require(hasattr(trt, 'HardwareCompatibilityLevel'), trt, 'hardware_compatible', '8.6')
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.tactic_sources:
        mask = 0
        for name in options.tactic_sources:
            source = getattr(trt.TacticSource, name.upper(), None)
            if source is None:
                known = ', '.join(trt.TacticSource.__members__)
                raise ParameterError(f'tactic_sources: expected some of {known}, got {name!r}')
            mask |= 1 << int(source)
        config.set_tactic_sources(mask)
    if options.dla_core >= 0:
        if options.dla_core >= builder.num_DLA_cores:
            raise ParameterError(f'dla_core: this board has {builder.num_DLA_cores}, got {options.dla_core}')
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _require(is_there: bool, trt: ModuleType, option: str, since: str) -> None:
    if not is_there:
        raise ParameterError(f'{option}: TensorRT {trt.__version__} does not have it; {since} and newer do')


def _profile(builder: Any, network: Any, options: BuildOptions) -> Any:
    """Make the profile of the inputs whose size is open; None where all are fixed.

    Where the size of an output is known only after a run, TensorRT 8.6 makes no context for an engine without
    a profile: there the profile has the one shape of each input.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    told = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    if told:
        raise ModelError(
            f'{", ".join(told)}: expected inputs that hold data, got values that shapes are made of, for '
            'which no engine is built here; export the model with these fixed, or set backend to onnxruntime'
        )
    check_shapes(options.shapes, {tensor.name: tuple(tensor.shape) for tensor in inputs})
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    fixed = {}
    if all(-1 not in tuple(tensor.shape) for tensor in inputs):
        if all(-1 not in tuple(tensor.shape) for tensor in outputs):
            return None
        fixed = {tensor.name: tuple(tensor.shape) for tensor in inputs if tuple(tensor.shape)}
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        if tensor.name in fixed:
            shape = fixed[tensor.name]
            profile.set_shape(tensor.name, shape, shape, shape)
        elif -1 in tuple(tensor.shape):
            if tensor.name not in options.shapes:
                raise ParameterError(
                    f'shapes: input {tensor.name} is open ({list(tensor.shape)}): give its smallest, usual '
                    'and largest shape'
                )
            profile.set_shape(tensor.name, *options.shapes[tensor.name])
    return profile


def _calibrator(trt: ModuleType, network: Any, request: Request, options: BuildOptions, tell: Tell) -> Any:
    """Make TensorRT's own calibrator, where it still has one and it was asked for."""
    if options.precision != 'int8' or options.calibration == 'qdq':
        return None
    names = {'entropy': 'IInt8EntropyCalibrator2', 'minmax': 'IInt8MinMaxCalibrator'}
    base = getattr(trt, names[options.calibration], None)
    _require(base is not None, trt, f'calibration {options.calibration}', 'up to 10.x; use qdq: 8.5')
    from isaac_infer.engine.cuda import Upload

    cache = Path(request.calibration_cache) if request.calibration_cache else None
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    kinds = {tensor.name: tensor.dtype.name for tensor in inputs}

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self._left, self._upload = _stored_batches(Path(request.batches)), Upload()

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, wanted: list[str], *_: Any) -> list[int] | None:
            batch = next(self._left, None)
            if batch is None:
                return None
            return [self._upload(name, _as_kind(batch[name], kinds[name])) for name in wanted]

        def read_calibration_cache(self) -> bytes | None:
            return _kept(cache, tell) or None if cache else None

        def write_calibration_cache(self, content: Any) -> None:
            if cache:
                _keep(cache, bytes(content))

    return Calibrator()


def _as_kind(array: np.ndarray, kind: str) -> np.ndarray:
    """Give an array in what TensorRT made of its input, a name of trt.DataType."""
    return array.astype(NARROWED.get(kind, array.dtype), copy=False)


def _load_timing_cache(config: Any, path: str, tell: Tell) -> Any:
    cache = config.create_timing_cache(_kept(Path(path), tell) if path else b'')
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b'')  # that one is of another GPU or version
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _save_timing_cache(cache: Any, path: str) -> None:
    if path:
        _keep(Path(path), bytes(cache.serialize()))


def _keep(path: Path, content: bytes) -> None:
    """Keep what saves time the next time; the engine is worth more than a place for it."""
    with suppress(OSError):
        replace_file(path, gzip.compress(content, compresslevel=1))  # for its checksum


def _kept(path: Path, tell: Tell) -> bytes:
    """Give what was kept; nothing where there is none, or where it is damaged, which is said."""
    if not path.is_file():
        return b''
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        aside = path.with_name(f'{path.name}.broken')
        with suppress(OSError):  # it may be written anew where it cannot be moved
            path.replace(aside)
        tell({'say': f'{path.name}: set aside as {aside.name}, built without it: it is damaged: {error}'})
        return b''


def _progress_monitor(trt: ModuleType, tell: Tell) -> Any:
    phases, told = Phases(), [-1.0]

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            phases.start(name, parent, steps)
            if parent is None:
                tell({'say': name})

        def step_complete(self, name: str, step: int) -> bool:
            share = phases.step(name, step)
            if share >= told[0] + LEAST_PROGRESS:
                told[0] = share
                tell({'share': share})
            return True

        def phase_finish(self, name: str) -> None:
            phases.finish(name)

    return Monitor()


def _latency_ms(request: Request, options: BuildOptions) -> float:
    """Median of some runs with copies, at the usual shapes."""
    from isaac_infer.engine.trt import TrtSession

    with TrtSession(Path(request.into), device=request.device, dla_core=options.dla_core) as session:
        for spec in session.inputs:
            session.input_buffer(spec.name, session.usual_shape(spec))
        times = []
        for _ in range(LATENCY_RUNS):
            begin = perf_counter()
            session.run()
            times.append((perf_counter() - begin) * 1e3)
    return median(times[LATENCY_RUNS // 3 :])
