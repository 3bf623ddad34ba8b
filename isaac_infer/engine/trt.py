"""TrtSession: an engine run by TensorRT 8.5 to 11, full, lean or dispatch, by named tensors only."""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.util
import re
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.core.session import close_all
from isaac_infer.core.tensor import TensorSpec, fits
from isaac_infer.engine.cache import read_sidecar
from isaac_infer.engine.cuda import Arena, Buffer, Gpu, Graph, device_problem, leak
from isaac_infer.engine.plan import Plan, check_version, plan_bytes, read_plan

# The full one also builds; the others only run what is version compatible.
RUNTIMES = ('tensorrt', 'tensorrt_lean', 'tensorrt_dispatch')
WITHOUT = 'without it ONNX models run on ONNX Runtime (backend: onnxruntime)'
GROWTH = 2  # of the memory for an output that is larger than it could be known

# By TensorRT's names, because its own table breaks with new versions of NumPy.
_DTYPES: dict[str, Any] = {
    'FLOAT': np.float32,
    'HALF': np.float16,
    'INT8': np.int8,
    'INT32': np.int32,
    'INT64': np.int64,
    'UINT8': np.uint8,
    'BOOL': np.bool_,
}

# How TensorRT describes what is not linear; by its own words, "where" some length or stride is a multiple.
_OTHER_ORDER = re.compile('vectorized|channel major|where', re.IGNORECASE)


@lru_cache(maxsize=1)
def find_tensorrt() -> ModuleType:
    """Import TensorRT, or one of its runtimes.

    Raises:
        SessionError: there is no usable GPU, with which TensorRT would crash; or none of them is installed.
    """
    problem = device_problem()
    if problem:
        missing = '' if any(map(importlib.util.find_spec, RUNTIMES)) else '; TensorRT is not installed either'
        raise SessionError(f'TensorRT cannot be used: {problem}{missing}; {WITHOUT}')
    reasons = []
    for name in RUNTIMES:
        try:
            module = importlib.import_module(name)
            if hasattr(module, 'Runtime'):
                return module
            reasons.append(f'{module.__file__} is not {name}')
        except Exception as error:  # of the module, or of what it does on import
            reasons.append(f'{name}: {error}')
    raise SessionError(
        f'TensorRT cannot be imported ({"; ".join(reasons)}); on a Jetson install python3-libnvinfer, '
        f'elsewhere "pip install tensorrt"; {WITHOUT}'
    )


def installed_version(tensorrt: ModuleType) -> tuple[int, ...]:
    """The version of a runtime's library, (10, 3, 0); that of its Python module may differ a little."""
    library = 'libnvinfer' + tensorrt.__name__.removeprefix('tensorrt').removesuffix('_bindings') + '.so'
    for line in Path('/proc/self/maps').read_text().splitlines():
        path = line.rsplit(maxsplit=1)[-1]
        if Path(path).name.startswith(library):
            number = int(ctypes.CDLL(path).getInferLibVersion())
            base = 10000 if number >= 100000 else 1000  # from version 10 on, and before
            return number // base, number % base // 100, number % 100
    return tuple(int(part) for part in re.findall(r'\d+', tensorrt.__version__)[:3])


class Messages:
    """What TensorRT says: errors are kept for the exception to come, a warning is passed on once."""

    def __init__(self, tensorrt: ModuleType) -> None:
        self.errors: list[str] = []
        self.warnings: dict[str, None] = {}
        severity = tensorrt.ILogger
        keep = self

        class Logger(tensorrt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                tensorrt.ILogger.__init__(self)

            def log(self, level: Any, text: str) -> None:
                if level in (severity.INTERNAL_ERROR, severity.ERROR):
                    keep.errors.append(text)
                elif level == severity.WARNING:
                    keep.warnings[text] = None

        self.logger = Logger()

    def reason(self) -> str:
        """Why the last call failed, in TensorRT's words; forgets them."""
        said = ' / '.join(dict.fromkeys(self.errors)) or 'TensorRT gives no reason'
        self.errors.clear()
        return said


class _Engine:
    """A deserialised engine, shared by the sessions that run it; freed with the last of them."""

    def __init__(self, gpu: Gpu, tensorrt: ModuleType, plan: Plan, *, dla_core: int) -> None:
        self.gpu, self.tensorrt, self.plan = gpu, tensorrt, plan
        before = gpu.free_bytes()  # fails on a lost context, where nothing of TensorRT must be begun
        self.messages = Messages(tensorrt)
        check_version(
            plan,
            installed_version(tensorrt),
            is_lean=tensorrt.__name__ != RUNTIMES[0],
            model=plan.path.stem,
        )
        if hasattr(tensorrt, 'init_libnvinfer_plugins'):
            tensorrt.init_libnvinfer_plugins(self.messages.logger, '')
        runtime = tensorrt.Runtime(self.messages.logger)
        if hasattr(runtime, 'engine_host_code_allowed'):
            runtime.engine_host_code_allowed = True  # version-compatible plans carry some
        if dla_core >= 0:
            runtime.DLA_core = dla_core
        self.cuda_engine = runtime.deserialize_cuda_engine(plan_bytes(plan))
        if self.cuda_engine is None:
            reason = self.messages.reason()
            if 'memory' in reason.lower() and before < 2 * plan.size:
                raise gpu.out_of_memory(plan.size, plan.path.name)
            raise ModelError(
                f'{plan.path}: TensorRT {tensorrt.__version__} cannot load this engine: {reason}; build it '
                f'on this machine: isaac-infer build {plan.path.stem}.onnx'
            )
        self._runtime = runtime  # freed after the engine


class TrtSession:
    """A network loaded by TensorRT: write into its input buffers, run, read its outputs.

    All memory is taken when the session is opened; that of an output which is not largest with the largest
    inputs grows when a shape needs it. A run copies in, computes and copies out on one stream and
    synchronises once; where the shapes are fixed, it is one launch of a recorded graph.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: int = 0,
        profile: int = 0,
        dla_core: int = -1,
        use_graph: bool = True,
    ) -> None:
        """Load an engine.

        Args:
            path: a plan, also with Ultralytics' JSON in front.
            device: index of the GPU.
            profile: index of the optimisation profile.
            dla_core: which deep-learning accelerator runs it; -1: none.
            use_graph: whether runs with fixed shapes are recorded and replayed.

        Raises:
            ModelError: the file is no engine, or not one for this TensorRT or this GPU.
            SessionError: there is no GPU, no TensorRT, or not enough memory.
        """
        plan = read_plan(path)
        tensorrt = find_tensorrt()
        gpu = Gpu(device)
        with gpu.current():
            self._open(_Engine(gpu, tensorrt, plan, dla_core=dla_core), profile, use_graph)

    def twin(self) -> TrtSession:
        """Open another session on the same engine, with buffers and a stream of its own."""
        twin = object.__new__(TrtSession)
        engine = self._engine
        if engine is None:
            raise SessionError(f'{self.backend}: the session is closed; open the model again')
        with engine.gpu.current():
            twin._open(engine, self._profile, self._use_graph)
        return twin

    def _open(self, engine: _Engine, profile: int, use_graph: bool) -> None:
        self._engine: _Engine | None = engine
        _sessions.add(self)
        gpu, trt, cuda_engine = engine.gpu, engine.tensorrt, engine.cuda_engine
        self.fallbacks: tuple[str, ...] = ()
        self.backend = f'{trt.__name__} {trt.__version__} {gpu.facts.name}'
        self.path = engine.plan.path
        sidecar = read_sidecar(engine.plan.path) or {'facts': {}, 'key': {}}
        self.metadata: Mapping[str, str] = {
            **_texts(sidecar['facts'].get('metadata')),
            **engine.plan.metadata,
            **({'precision': sidecar['key']['precision']} if 'precision' in sidecar['key'] else {}),
        }
        names = [cuda_engine.get_tensor_name(index) for index in range(cuda_engine.num_io_tensors)]
        specs = {name: _tensor_spec(engine, name) for name in names}
        self._profile = profile
        self._stream: Any = gpu.new_stream()
        before = gpu.free_bytes()
        self._context: Any = cuda_engine.create_execution_context()
        if self._context is None:
            needed, reason = working_bytes(cuda_engine), engine.messages.reason()
            if needed > before or 'memory' in reason.lower():
                raise gpu.out_of_memory(needed, engine.plan.path.name)
            raise SessionError(f'{engine.plan.path}: TensorRT cannot run this engine: {reason}')
        self._select_profile()
        self._on_host = {name for name in names if _is_on_host(engine, name)}
        # What TensorRT reads and writes on the host, a graph does not.
        self._use_graph = use_graph and not self._on_host
        is_input = {name: cuda_engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        # Those whose shape has to be told, even where the profile leaves it no choice.
        self._open_inputs = {name for name in names if is_input[name] and specs[name].is_dynamic}
        self.inputs = tuple(self._within_profile(specs[name]) for name in names if is_input[name])
        self.outputs = tuple(specs[name] for name in names if not is_input[name])
        self._largest = {spec.name: self._largest_input(spec) for spec in self.inputs}
        sizes = [_bytes_of(self._largest[spec.name], spec) for spec in self.inputs]
        sizes += self._output_sizes()
        self._arena = Arena(gpu, sizes, owner=engine.plan.path.name)
        self._memory: dict[str, Buffer] = dict(
            zip((spec.name for spec in (*self.inputs, *self.outputs)), self._arena.buffers)
        )
        for name in self._on_host:
            self._memory[name] = self._memory[name].on_host()
        self._grown: dict[str, Arena] = {}  # the memory of outputs that did not fit theirs
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._buffers: dict[str, np.ndarray] = {}
        self._results: dict[str, np.ndarray] = {}
        self._allocators: dict[str, Any] = {}
        self._copies_in: list[tuple[Buffer, np.ndarray]] = []
        self._copies_out: list[tuple[np.ndarray, Buffer]] = []
        self._at_close: list[Callable[[], None]] = []
        self._is_bound = False
        self._bound_values: dict[str, bytes] = {}  # of the inputs that the shapes of outputs depend on
        self._runs = 0  # since the shapes changed
        self._graph: Graph | None = None
        self._graphs: dict[frozenset[str], Graph] = {}  # by the inputs that are not copied
        self._on_device: set[str] = set()  # inputs that something else than the host has filled
        for spec in (*self.inputs, *self.outputs):
            self._tell_address(engine, spec)

    def _tell_address(self, engine: _Engine, spec: TensorSpec) -> None:
        if not self._context.set_tensor_address(spec.name, self._memory[spec.name].address):
            raise SessionError(f'{spec}: TensorRT refuses its memory: {engine.messages.reason()}')

    def _select_profile(self) -> None:
        engine = self._engine
        assert engine is not None
        count = engine.cuda_engine.num_optimization_profiles
        if not 0 <= self._profile < count:
            raise SessionError(f'profile: expected 0 to {count - 1}, got {self._profile}')
        if self._context.active_optimization_profile == self._profile:
            return
        # Where another session runs it, TensorRT before 10 has selected none, and the first run would crash.
        if not self._context.set_optimization_profile_async(self._profile, self._stream.handle):
            raise SessionError(
                f'{engine.plan.path}: TensorRT refuses profile {self._profile}: {engine.messages.reason()}; '
                'if another session runs it already: set pipeline_depth to 1, or build the engine with '
                'isaac-infer'
            )
        self._stream.synchronize()

    def _profile_shapes(self, name: str) -> tuple[tuple[int, ...], ...]:
        """The smallest, usual and largest shape of an input."""
        assert self._engine is not None
        shapes = self._engine.cuda_engine.get_tensor_profile_shape(name, self._profile)
        return tuple(tuple(shape) for shape in shapes)

    def _within_profile(self, spec: TensorSpec) -> TensorSpec:
        """What an input takes: an axis for which the profile has one length is not open."""
        if spec.name not in self._open_inputs:
            return spec
        low, _, high = self._profile_shapes(spec.name)
        return replace(spec, shape=tuple(a if a == b else -1 for a, b in zip(low, high)))

    def _largest_input(self, spec: TensorSpec) -> tuple[int, ...]:
        return self._profile_shapes(spec.name)[2] if spec.is_dynamic else spec.shape

    def usual_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of an input that the engine is fastest for."""
        return self._profile_shapes(spec.name)[1] if spec.is_dynamic else spec.shape

    def _output_sizes(self) -> list[int]:
        """Bytes that each output needs with the largest inputs; of what only a run tells, an upper bound."""
        for spec in self.inputs:
            if spec.name in self._open_inputs and not self._context.set_input_shape(
                spec.name, self._largest[spec.name]
            ):
                raise SessionError(f'{spec}: TensorRT refuses the largest shape of its own profile')
        # Values that shapes depend on are not there yet: TensorRT leaves those shapes open.
        is_known = not any(spec.name in self._on_host for spec in self.inputs)
        if is_known:
            self._infer_shapes()
        sizes = []
        for spec in self.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            if -1 in shape:
                # Where even the bound is unknown: a start, from which it grows.
                bound = getattr(self._context, 'get_max_output_size', lambda _: 0)
                size = int(bound(spec.name)) if is_known else 0
                sizes.append(size if 0 < size < 1 << 28 else 1 << 16)
            else:
                sizes.append(_bytes_of(shape, spec))
        return sizes

    def _infer_shapes(self) -> list[str]:
        """Have the shapes of outputs worked out; gives the inputs whose shape or values are still missing."""
        assert self._engine is not None
        try:
            return list(self._context.infer_shapes())
        except RuntimeError as error:
            raise SessionError(
                f'{self.backend}: TensorRT cannot work out the shapes of the outputs: '
                f'{self._engine.messages.reason()}'
            ) from error

    # --- the protocol --------------------------------------------------------------------------------------

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Give the array that the next `run` reads; the same array for the same shape, every time."""
        spec = next((spec for spec in self.inputs if spec.name == name), None)
        if spec is None:
            known = ', '.join(str(spec) for spec in self.inputs)
            raise TensorError(f'{name}: the model has no such input; it has {known}')
        engine = self._check_open()
        if self._shapes.get(name) == shape:
            return self._buffers[name]
        if not fits(shape, spec.shape):
            raise TensorError(f'{name}: expected {spec.layout}, got shape {list(shape)}')
        with engine.gpu.current():
            if name in self._open_inputs and not self._context.set_input_shape(name, shape):
                low, _, high = self._profile_shapes(name)
                engine.messages.reason()
                raise TensorError(
                    f'{name}: expected a shape from {list(low)} to {list(high)}, which the engine was built '
                    f'for, got {list(shape)}; build it with other shapes'
                )
            self._forget_graphs()
        self._shapes[name] = shape
        self._buffers[name] = self._memory[name].view(shape, spec.dtype)
        self._is_bound, self._runs = False, 0
        return self._buffers[name]

    def run(self) -> Mapping[str, np.ndarray]:
        """Run the network on what its input buffers hold; the outputs are valid until the next run."""
        self.start()
        return self.finish()

    def start(self) -> None:
        """Begin a run; its input buffers must not change before `finish`."""
        engine = self._check_open()
        with engine.gpu.current():
            try:
                self._bind(engine)
                if self._graph is None and self._use_graph and self._runs and not self._allocators:
                    self._graph = self._record(engine)
                if self._graph is not None:
                    self._graph.launch()
                else:
                    self._enqueue()  # the first run after a change sets things up, which no graph may record
                    self._runs += 1
            except (SessionError, engine.gpu.driver.Error):
                self._settle(engine)
                raise

    def finish(self) -> Mapping[str, np.ndarray]:
        """Wait for the run that was begun and give its outputs, valid until the next one."""
        engine = self._check_open()
        with engine.gpu.current():
            try:
                self._stream.synchronize()
            except engine.gpu.driver.Error as error:
                raise SessionError(f'{self.backend}: the network failed: {error}') from error
            for name, allocator in self._allocators.items():
                self._results[name] = allocator.fetch(self._stream)
        return self._results

    @property
    def gpu(self) -> Gpu:
        """Where it runs, for those who fill its inputs there."""
        return self._check_open().gpu

    @property
    def cuda_engine(self) -> Any:
        """TensorRT's own engine, for those who inspect it; to be used with the context of `gpu` current."""
        return self._check_open().cuda_engine

    @property
    def execution_context(self) -> Any:
        """TensorRT's own execution context, for those who inspect it."""
        self._check_open()
        return self._context

    @property
    def stream(self) -> Any:
        """The stream of its runs."""
        return self._stream

    def at_close(self, release: Callable[[], None]) -> None:
        """Have something called when the session is closed, with the context current."""
        self._at_close.append(release)

    def device_address(self, name: str) -> int:
        """Where an input lies on the device."""
        return self._memory[name].address

    def feed_from_device(self, name: str, is_fed: bool) -> None:
        """Tell whether an input is filled on the device, by work on `stream`: then it is not copied there."""
        if is_fed != (name in self._on_device):
            self._on_device ^= {name}
            self._keep_graph()
            self._is_bound = False

    def run_timed(self) -> Mapping[str, float]:
        """Run without a graph and give milliseconds: h2d, compute and d2h on the device, enqueue, total."""
        engine = self._check_open()
        with engine.gpu.current():
            self._bind(engine)
            for name in self._on_device:  # so that the run reads again what lies there already
                memory = self._memory[name]
                if not memory.is_mapped:
                    copy = engine.gpu.driver.memcpy_dtoh_async
                    copy(self._buffers[name], memory.address, self._stream)
            self._stream.synchronize()
            events = [engine.gpu.driver.Event() for _ in range(4)]
            begin = perf_counter_ns()
            try:
                events[0].record(self._stream)
                self._copy_all_in()
                events[1].record(self._stream)
                before = perf_counter_ns()
                self._execute()
                enqueued = perf_counter_ns()
                events[2].record(self._stream)
                self._copy_out()
                events[3].record(self._stream)
            except (SessionError, engine.gpu.driver.Error):
                self._settle(engine)
                raise
            self._stream.synchronize()
            end = perf_counter_ns()
            h2d, compute, d2h = (a.time_till(b) for a, b in pairwise(events))
        return {
            'h2d': h2d,
            'compute': compute,
            'd2h': d2h,
            'enqueue': (enqueued - before) / 1e6,
            'total': (end - begin) / 1e6,
        }

    def close(self) -> None:
        """Release everything; safe to call twice.

        Raises:
            SessionError: the last run or a release failed; what can be released is released all the same.
        """
        engine = self._engine
        if engine is None or engine.gpu.is_of_parent:
            return
        gpu = engine.gpu
        del engine  # it is freed with the last session, and not with this call
        # All of it with the context current: what PyCUDA frees later, in another thread, it cannot free.
        with gpu.current():
            close_all([self._stream.synchronize, self._release])

    def _release(self) -> None:
        if self.gpu.is_lost:
            self._abandon()
            return
        arenas = (self._arena, *self._grown.values())
        close_all([*self._at_close, self._forget_graphs, self._let_go, *(arena.close for arena in arenas)])

    def _abandon(self) -> None:
        """Let go of everything without freeing it: the context that it belongs to is lost."""
        leak(vars(self).copy())
        self._let_go()

    def _let_go(self) -> None:
        """Forget all that is freed when nobody holds it any more, in this order."""
        self._at_close, self._allocators = [], {}
        self._context = None
        self._buffers, self._results, self._memory = {}, {}, {}
        self._copies_in, self._copies_out = [], []
        self._stream = None
        self._engine = None  # after its context

    def __enter__(self) -> TrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- a run ---------------------------------------------------------------------------------------------

    def _check_open(self) -> _Engine:
        if self._engine is None:
            raise SessionError(f'{self.backend}: the session is closed; open the model again')
        return self._engine

    def _bind(self, engine: _Engine) -> None:
        """Settle the shapes of the outputs, where what they depend on has changed."""
        if self._is_bound and not (self._on_host and self._values() != self._bound_values):
            return
        missing = [str(spec) for spec in self.inputs if spec.name not in self._shapes]
        if missing:
            raise SessionError(
                f'{", ".join(missing)}: no input buffer yet; ask for it and fill it before run'
            )
        self._is_bound, self._bound_values = False, self._values()
        unknown = self._infer_shapes()
        if unknown:
            raise SessionError(f'{", ".join(unknown)}: TensorRT cannot tell its shape')
        self._results, self._allocators = {}, {}
        for spec in self.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            if -1 in shape:
                allocator = _output_allocator(engine, spec, self._memory[spec.name])
                self._allocators[spec.name] = allocator
                self._context.set_output_allocator(spec.name, allocator)
                continue
            needed = _bytes_of(shape, spec)
            if needed > self._memory[spec.name].host.nbytes:
                self._grow(engine, spec, needed * GROWTH)
            self._results[spec.name] = self._memory[spec.name].view(shape, spec.dtype)
        self._copies_in = [
            (self._memory[spec.name], self._buffers[spec.name])
            for spec in self.inputs
            if spec.name not in self._on_device and not self._memory[spec.name].is_mapped
        ]
        self._copies_out = [
            (array, self._memory[name])
            for name, array in self._results.items()
            if not self._memory[name].is_mapped
        ]
        self._is_bound = True

    def _values(self) -> dict[str, bytes]:
        """What the inputs hold that TensorRT reads on the host."""
        names = [spec.name for spec in self.inputs if spec.name in self._on_host]
        return {name: self._buffers[name].tobytes() for name in names}

    def _grow(self, engine: _Engine, spec: TensorSpec, size: int) -> None:
        """Give an output more memory; where there is none, it keeps what it has."""
        larger = Arena(engine.gpu, [size], owner=engine.plan.path.name)
        smaller = self._grown.pop(spec.name, None)
        (memory,) = larger.buffers
        self._grown[spec.name] = larger
        self._memory[spec.name] = memory.on_host() if spec.name in self._on_host else memory
        self._tell_address(engine, spec)
        if smaller is not None:
            smaller.close()

    def _enqueue(self) -> None:
        self._copy_in()
        self._execute()
        self._copy_out()

    def _copy_in(self) -> None:
        assert self._engine is not None
        copy = self._engine.gpu.driver.memcpy_htod_async
        for memory, array in self._copies_in:
            copy(memory.address, array, self._stream)

    def _copy_all_in(self) -> None:
        """Copy also what is filled on the device otherwise: its time is asked for."""
        assert self._engine is not None
        for spec in self.inputs:
            memory = self._memory[spec.name]
            if not memory.is_mapped:
                copy = self._engine.gpu.driver.memcpy_htod_async
                copy(memory.address, self._buffers[spec.name], self._stream)

    def _copy_out(self) -> None:
        assert self._engine is not None
        copy = self._engine.gpu.driver.memcpy_dtoh_async
        for array, memory in self._copies_out:
            copy(array, memory.address, self._stream)

    def _execute(self) -> None:
        assert self._engine is not None
        if not self._context.execute_async_v3(self._stream.handle):
            raise SessionError(f'{self.backend}: the network failed: {self._engine.messages.reason()}')

    def _settle(self, engine: _Engine) -> None:
        """Wait, after an error, for copies that are under way: what they read may be written from now on."""
        with suppress(engine.gpu.driver.Error):  # the first error counts
            self._stream.synchronize()

    def _record(self, engine: _Engine) -> Graph | None:
        """Record a run as a graph; where that cannot be done, runs stay as they are."""
        try:
            graph = self._graphs[frozenset(self._on_device)] = Graph(self._stream, self._enqueue)
        except (SessionError, engine.gpu.driver.Error) as error:
            self._use_graph = False
            self.fallbacks += (f'runs are not replayed as a CUDA graph: {error}',)
            return None
        return graph

    def _keep_graph(self) -> None:
        """Take the graph that belongs to the inputs that are copied now; one is kept for each such set."""
        self._graph = self._graphs.get(frozenset(self._on_device))

    def _forget_graphs(self) -> None:
        graphs, self._graphs, self._graph = self._graphs, {}, None
        close_all(graph.close for graph in graphs.values())


_sessions: weakref.WeakSet[TrtSession] = weakref.WeakSet()


@atexit.register
def _abandon_lost_sessions() -> None:
    """At exit, keep what nobody has closed from being freed where that may end the process, see `leak`."""
    for session in list(_sessions):
        if session._engine is not None and session._engine.gpu.is_lost:
            session._abandon()


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, Mapping) else {}


def _bytes_of(shape: tuple[int, ...], spec: TensorSpec) -> int:
    return int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize


def working_bytes(cuda_engine: Any) -> int:
    """Bytes of temporary memory that an execution context of an engine takes."""
    for name in ('device_memory_size_v2', 'device_memory_size'):
        if hasattr(cuda_engine, name):
            return int(getattr(cuda_engine, name))
    return 0


def _tensor_spec(engine: _Engine, name: str) -> TensorSpec:
    kind = engine.cuda_engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise ModelError(
            f'{engine.plan.path}: {name}: expected one of {", ".join(_DTYPES)}, got {kind}; build the engine '
            'with float32 inputs and outputs'
        )
    if not _is_linear(engine, name):
        raise ModelError(
            f'{engine.plan.path}: {name}: expected numbers in the order of its shape (LINEAR), got '
            f'"{engine.cuda_engine.get_tensor_format_desc(name)}"; build the engine with linear inputs and '
            'outputs: trtexec without --inputIOFormats and --outputIOFormats, or "isaac-infer build '
            f'{engine.plan.path.stem}.onnx"'
        )
    return TensorSpec(name, tuple(engine.cuda_engine.get_tensor_shape(name)), np.dtype(_DTYPES[kind]))


def _is_on_host(engine: _Engine, name: str) -> bool:
    """Whether TensorRT reads or writes a tensor on the host, as it does where shapes depend on its values."""
    if engine.cuda_engine.is_shape_inference_io(name):
        return True
    # The lean and dispatch runtimes of 8.6 have no such type.
    locations = getattr(engine.tensorrt, 'TensorLocation', None)
    return locations is not None and engine.cuda_engine.get_tensor_location(name) == locations.HOST


def _is_linear(engine: _Engine, name: str) -> bool:
    """Whether the numbers of a tensor lie in the order of its shape, with nothing between them."""
    formats = getattr(engine.tensorrt, 'TensorFormat', None)
    if formats is not None:
        return bool(engine.cuda_engine.get_tensor_format(name) == formats.LINEAR)
    # The lean and dispatch runtimes have no such type, only words.
    return not _OTHER_ORDER.search(engine.cuda_engine.get_tensor_format_desc(name))


def _output_allocator(engine: _Engine, spec: TensorSpec, memory: Buffer) -> Any:
    """Make what TensorRT asks for memory of an output whose size only a run tells."""
    # The class outlives the session until a garbage collection, so it holds neither engine nor memory.
    driver, base = engine.gpu.driver, engine.tensorrt.IOutputAllocator

    class OutputAllocator(base):  # type: ignore[misc, valid-type]
        def __init__(self, memory: Buffer) -> None:
            base.__init__(self)
            self.address, self.size = memory.address, memory.host.nbytes
            self.shape: tuple[int, ...] = ()
            self.more: Any = None  # device memory beyond the arena's

        def reallocate_output(self, name: str, current: int, size: int, alignment: int) -> int:
            if size > self.size:
                try:
                    self.more = driver.mem_alloc(size * GROWTH)
                except driver.MemoryError:
                    return 0  # TensorRT reports it
                self.address, self.size = int(self.more), size * GROWTH
            return self.address

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def fetch(self, stream: Any) -> np.ndarray:
            """Copy what the run has found; with the context current, after the run."""
            result = np.empty(self.shape, spec.dtype)
            if result.nbytes:
                driver.memcpy_dtoh_async(result, self.address, stream)
                stream.synchronize()
            return result

    return OutputAllocator(memory)
