"""Cuda: the device's primary context, graphs, kernels, and host buffers paired with device buffers."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from isaac_infer.core.errors import SessionError, TensorError
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.engine.files import replace_file

ALIGNMENT = 256  # bytes, as cudaMalloc aligns
MIB = 1 << 20
# The first is that of cards, the others are those of a Jetson.
DEVICE_FILES = ('/dev/nvidiactl', '/dev/nvhost-gpu', '/dev/nvgpu')
LIBCUDA = 'libcuda.so.1'  # of the driver

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING

FORKED = (
    'CUDA cannot be used in a process that was forked after CUDA had started; open the model in the process '
    'that uses it, or start that one with "spawn"'
)

_process: int | None = None  # in which CUDA was started
_allocations = 0
_held_bytes: dict[str, int] = {}  # device memory that this process' arenas hold, by their owner


def has_nvidia_gpu() -> bool:
    """Tell by the driver's device files whether a GPU of NVIDIA is there, without touching CUDA."""
    return any(os.path.exists(path) for path in DEVICE_FILES)


def _has_driver() -> bool:
    """Tell whether the driver's library is there: in WSL it is, without device files."""
    try:
        ctypes.CDLL(LIBCUDA)
    except OSError:
        return False
    return True


def device_problem() -> str:
    """Say why there is no usable GPU, and the way out; empty where there is one.

    Ask before TensorRT is touched: without a device it ends the process instead of raising.
    """
    problem = _cuda_problem()
    if not problem or has_nvidia_gpu() or _has_driver():
        return problem
    # Nobody should compile PyCUDA to hear this.
    said = f'there is no NVIDIA GPU, or no driver of it (none of {", ".join((*DEVICE_FILES, LIBCUDA))})'
    is_installed = importlib.util.find_spec('pycuda')
    return said if is_installed else f'{said}; PyCUDA is not installed either (pip install pycuda)'


def _cuda_problem() -> str:
    global _process
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        return f'{error}; install it with "pip install pycuda", with nvcc in PATH (/usr/local/cuda/bin)'
    except Exception as error:  # of libcuda.so.1, or of what the module does on import
        return f"pycuda cannot be imported ({error}); a GPU with its driver is needed, on a Jetson JetPack's"
    if _process not in (None, os.getpid()):
        return FORKED
    try:
        driver.init()
        _process = os.getpid()
        count = driver.Device.count()
    except Exception as error:  # of several kinds
        return f'CUDA does not start ({error}); check the driver, with "nvidia-smi" where there is one'
    return '' if count else 'CUDA finds no GPU; check the driver with "nvidia-smi"'


@dataclass(frozen=True)
class DeviceFacts:
    """What an engine depends on, and what decides how memory is used."""

    name: str
    compute_capability: tuple[int, int]
    is_integrated: bool  # shares its memory with the CPU, as on a Jetson
    total_bytes: int


class Gpu:
    """The primary context of one device: what PyTorch, OpenCV and other sessions of the process use too.

    It is pushed for each block of calls and popped after it, so that any thread may be the next one, and no
    thread is left with a context at exit, which would abort the process.
    """

    def __init__(self, index: int = 0) -> None:
        """Retain the context.

        Raises:
            SessionError: there is no such device, or no driver.
        """
        problem = device_problem()
        if problem:
            raise SessionError(problem)
        import pycuda.driver as driver

        if not 0 <= index < driver.Device.count():
            raise SessionError(f'device: expected 0 to {driver.Device.count() - 1}, got {index}')
        self.driver: Any = driver
        self._process = os.getpid()
        self._device = driver.Device(index)
        try:
            self._context: Any = self._device.retain_primary_context()
        except driver.Error as error:
            raise SessionError(
                f'{self._device.name()}: CUDA does not start: {error}; if the memory of the GPU is full, '
                'close other programs'
            ) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for a block.

        Raises:
            SessionError: what CUDA refuses in the block, or this process is a fork of the one that began.
        """
        if self.is_of_parent:
            raise SessionError(FORKED)
        self._context.push()
        try:
            yield
        except self.driver.MemoryError as error:
            raise SessionError(
                f'out of GPU memory: {error}; {self.free_bytes() / MIB:.1f} of '
                f'{self.facts.total_bytes / MIB:.0f} MiB free; close other programs or models'
            ) from error
        except self.driver.Error as error:
            raise SessionError(f'CUDA failed: {error}') from error
        finally:
            self.driver.Context.pop()

    @property
    def is_of_parent(self) -> bool:
        """Whether this process is a fork of the one that began, with which CUDA is of no use."""
        return os.getpid() != self._process

    @property
    def is_lost(self) -> bool:
        """Whether the context is of no use any more: a fault of anybody in the process ends it for all."""
        try:
            with self.current():
                self.free_bytes()
        except (SessionError, self.driver.Error):
            return True
        return False

    @property
    def facts(self) -> DeviceFacts:
        attribute = self.driver.device_attribute
        return DeviceFacts(
            name=self._device.name(),
            compute_capability=self._device.compute_capability(),
            is_integrated=bool(self._device.get_attribute(attribute.INTEGRATED)),
            total_bytes=self._device.total_memory(),
        )

    def new_stream(self) -> Any:
        """Make a stream that does not wait for the default one: what other threads do there, such as loading
        a model, would end the recording of a graph."""
        return self.driver.Stream(_NON_BLOCKING)

    def free_bytes(self) -> int:
        """Device memory that nobody holds."""
        free, _ = self.driver.mem_get_info()
        return int(free)

    def out_of_memory(self, needed: int, what: str) -> SessionError:
        """Say how much was needed, how much is free, and how much our other models hold."""
        held = sum(_held_bytes.values())
        others = f', of which our other models hold {held / MIB:.0f}' if held else ''
        total = self.facts.total_bytes
        used = (total - self.free_bytes()) / MIB
        return SessionError(
            f'{what}: out of GPU memory: {needed / MIB:.1f} MiB needed, {self.free_bytes() / MIB:.1f} of '
            f'{total / MIB:.0f} MiB free, {used:.0f} in use{others}; close other programs or models, or '
            'build with a smaller input or batch'
        )


@dataclass
class Buffer:
    """A pinned or mapped host array and the device memory that belongs to it."""

    host: np.ndarray  # (nbytes,) uint8
    address: int  # on the device
    is_mapped: bool  # host and device are the same memory: nothing is copied

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """The host's array of a shape, as a view of the beginning.

        Raises:
            TensorError: it does not fit.
        """
        needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if needed > self.host.nbytes:
            layout = TensorSpec('', shape, dtype).layout
            raise TensorError(
                f'expected an array of at most {self.host.nbytes} bytes, got {layout} of {needed} bytes; '
                'take a larger buffer'
            )
        return self.host[:needed].view(dtype).reshape(shape)

    def on_host(self) -> Buffer:
        """The same for what is read and written on the host alone, by the host's address."""
        return Buffer(self.host, self.host.ctypes.data, is_mapped=True)


def leak(owner: object) -> None:
    """Have an object, and all that it holds, never be freed, not even at exit.

    For what lies on a lost context: there TensorRT's destructors fail and report it, at exit to a logger that
    may be gone already, and the process ends by a signal.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


class Arena:
    """All buffers of one session in one block of pinned host memory and one of device memory."""

    def __init__(self, gpu: Gpu, sizes: Sequence[int], *, owner: str, mapped: bool | None = None) -> None:
        """Allocate; with the context current.

        Args:
            sizes: of the buffers, in bytes.
            owner: for messages.
            mapped: whether the device reads and writes host memory; None: where it is integrated.

        Raises:
            SessionError: there is not enough memory.
        """
        global _allocations
        driver = gpu.driver
        starts = np.cumsum([0, *(-(-max(size, 1) // ALIGNMENT) * ALIGNMENT for size in sizes)]).tolist()
        total = starts[-1]
        is_mapped = gpu.facts.is_integrated if mapped is None else mapped
        flags = driver.host_alloc_flags.DEVICEMAP if is_mapped else 0
        self._driver, self._owner = driver, owner
        self._device: Any = None
        try:
            if not is_mapped:  # before the host's, which may take long to pin
                self._device = driver.mem_alloc(total)
            self._host: Any = driver.pagelocked_zeros(total, np.uint8, mem_flags=flags)
            base = int(self._host.base.get_device_pointer() if is_mapped else self._device)
        except driver.MemoryError as error:
            problem = gpu.out_of_memory(total, owner)
            if self._device is not None:
                self._device.free()
            raise problem from error
        _allocations += 2
        self._key = f'{owner} {id(self)}'
        _held_bytes[self._key] = total
        self.buffers = tuple(
            Buffer(self._host[start : start + size], base + start, is_mapped)
            for start, size in zip(starts, sizes)
        )

    def close(self) -> None:
        """Free the device's memory, with the context current, and the host's when its last view is gone."""
        self.buffers = ()
        _held_bytes.pop(self._key, None)
        device, self._device, self._host = self._device, None, None
        if device is not None:
            device.free()


def allocations() -> int:
    """How often this process has allocated through here: does not grow while frames are answered."""
    return _allocations


# ---- graphs: PyCUDA has none, so these few calls go to the driver itself ----------------------------

_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate meanwhile


@lru_cache(maxsize=1)
def _libcuda() -> ctypes.CDLL:
    return ctypes.CDLL('libcuda.so.1')


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_libcuda(), name)(*arguments)
    if code:
        raise SessionError(f'{name} failed with CUDA error {code}')


class Graph:
    """What a function enqueues on a stream, recorded once and launched with one call."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        """Record; with the context current.

        Raises:
            SessionError: something in it cannot be recorded.
            pycuda.driver.Error: as `enqueue` raises it.
        """
        self._stream = ctypes.c_void_p(stream.handle)
        graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        _call('cuStreamBeginCapture_v2', self._stream, _RELAXED)
        try:
            try:
                enqueue()
            finally:
                # Also where recording failed: or the stream would stay in this mode.
                code = _libcuda().cuStreamEndCapture(self._stream, ctypes.byref(graph))
            if code or not graph:
                raise SessionError(f'cuStreamEndCapture failed with CUDA error {code}')
            _call('cuGraphInstantiateWithFlags', ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                _call('cuGraphDestroy', graph)
        self._launch = _libcuda().cuGraphLaunch

    def launch(self) -> None:
        """Enqueue everything that was recorded."""
        code = self._launch(self._executable, self._stream)
        if code:
            raise SessionError(f'cuGraphLaunch failed with CUDA error {code}')

    def close(self) -> None:
        """Release it; safe to call twice."""
        executable, self._executable = self._executable, ctypes.c_void_p()
        if executable:
            _call('cuGraphExecDestroy', executable)


# ---- kernels ----------------------------------------------------------------------------------------


def compile_kernel(source: str, name: str, folder: Path, *, gpu: Gpu) -> Any:
    """Load a kernel that was compiled before, or compile it with nvcc; with the context current.

    Args:
        source: CUDA C++ with the kernel as `extern "C"`.
        name: of the kernel.
        folder: where compiled kernels are kept: to import PyCUDA's compiler alone takes 0.2 s.

    Raises:
        SessionError: there is no compiler, or it refuses.
    """
    architecture = 'sm_{}{}'.format(*gpu.facts.compute_capability)
    digest = hashlib.sha256(f'{source}\n{architecture}'.encode()).hexdigest()[:16]
    kept = folder / f'{name}-{architecture}-{digest}.cubin'
    binary = _kept(kept)
    if binary is None:
        binary = _compiled(source, architecture)
        # Where nothing can be kept, the next start compiles again.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(kept, hashlib.sha256(binary).digest() + binary)
    return gpu.driver.module_from_buffer(binary).get_function(name)


def _kept(path: Path) -> bytes | None:
    """What was compiled before; None where there is nothing, or something damaged: no driver would tell."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    length = hashlib.sha256().digest_size
    digest, binary = content[:length], content[length:]
    return binary if hashlib.sha256(binary).digest() == digest else None


def _compiled(source: str, architecture: str) -> bytes:
    try:
        from pycuda.compiler import compile as compile_cubin

        # Without a folder it keeps nothing itself.
        return bytes(
            compile_cubin(source, arch=architecture, no_extern_c=True, options=['-O3'], cache_dir=False)
        )
    except Exception as error:  # of several kinds: no nvcc, no host compiler, a refusal
        reason = str(error).strip().splitlines()
        raise SessionError(f'nvcc cannot be used: {reason[0] if reason else type(error).__name__}') from error


class Upload:
    """Device copies of host arrays by name, as TensorRT's calibrators want them; with the context current."""

    def __init__(self) -> None:
        self._memory: dict[str, Any] = {}

    def __call__(self, name: str, array: np.ndarray) -> int:
        """Copy an array and return its address; the next one of that name takes its place."""
        import pycuda.driver as driver

        if name not in self._memory:
            self._memory[name] = driver.mem_alloc(array.nbytes)
        driver.memcpy_htod(self._memory[name], np.ascontiguousarray(array))
        return int(self._memory[name])
