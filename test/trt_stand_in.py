"""Stand-ins for PyCUDA's driver, libcuda and TensorRT: a session runs through them as it does on a GPU.

Host and device memory are apart: what is given to the wrong side, or is used after its end, is an error here
where it would end the process there.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType, SimpleNamespace

import numpy as np

VERSION = (8, 6, 1)
PLAN = b'ftrt' + bytes(20) + bytes((*VERSION, 0))


class DriverError(Exception):
    """As PyCUDA raises them."""


class OutOfMemoryError(DriverError):
    """The one that is told apart."""


class Driver:
    """`pycuda.driver`, of one GPU; `fault` is raised by every call from the moment that it is set."""

    Error, MemoryError = DriverError, OutOfMemoryError
    device_attribute = SimpleNamespace(INTEGRATED='integrated')
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)

    def __init__(self):
        self.fault = ''
        self.calls = []  # what was done, in order
        self.depth = 0  # of the stack of contexts
        self.device, self.host = {}, {}  # bytes by address
        self.graphs = set()  # and what is made of them
        self.is_recording = False
        driver = self

        class Context:
            def push(self):
                driver.depth += 1

            @staticmethod
            def pop():
                driver.depth -= 1

        class Device:
            def __init__(self, index):
                self.index = index

            count = staticmethod(lambda: 1)
            name = compute_capability = lambda self: 'stand-in'
            get_attribute = staticmethod(lambda attribute: 0)
            total_memory = staticmethod(lambda: 1 << 40)
            retain_primary_context = staticmethod(Context)

        class Stream:
            handle = 1

            def __init__(self, flags):
                driver.check()

            def synchronize(self):
                driver.calls.append('synchronize')
                driver.check()

        class Event:
            def record(self, stream):
                driver.check()

            def time_till(self, other):
                return 0.0

        class Memory:
            def __init__(self, size):
                driver.check()
                self.bytes = np.zeros(size, np.uint8)
                self.address = self.bytes.ctypes.data
                driver.device[self.address] = self.bytes

            def __int__(self):
                return self.address

            def free(self):
                driver.calls.append('free')
                del driver.device[self.address]

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.mem_alloc = Memory

    def init(self):
        pass

    def check(self):
        assert self.depth, 'no context is current'
        if self.fault:
            raise DriverError(self.fault)

    def mem_get_info(self):
        self.check()
        return 1 << 39, 1 << 40

    def pagelocked_zeros(self, size, dtype, *, mem_flags):
        memory = np.zeros(size, dtype)
        self.host[memory.ctypes.data] = memory
        return memory

    def at(self, kind, address, size):
        """The bytes at an address, which have to be on that side."""
        for start, memory in getattr(self, kind).items():
            if start <= address and address + size <= start + memory.nbytes:
                return memory[address - start :][:size]
        raise AssertionError(f'{size} bytes at {address:#x} are no memory of the {kind}')

    def memcpy_htod_async(self, address, array, stream):
        self.calls.append('copy in')
        self.check()
        self.at('device', address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def memcpy_dtoh_async(self, array, address, stream):
        self.calls.append('copy out')
        self.check()
        array.reshape(-1).view(np.uint8)[:] = self.at('device', address, array.nbytes)


def libcuda(driver):
    """The calls for graphs; a launch moves nothing."""

    def make(pointer, value):
        pointer._obj.value = value
        driver.graphs.add(value)
        return 0

    def end(handle):
        driver.graphs.remove(handle.value)
        return 0

    def begin_capture(stream, mode):
        driver.is_recording = True
        return 0

    def end_capture(stream, graph):
        driver.is_recording = False
        return make(graph, 7)

    def launch(executable, stream):
        driver.calls.append('launch')
        return 0

    return SimpleNamespace(
        cuStreamBeginCapture_v2=begin_capture,
        cuStreamEndCapture=end_capture,
        cuGraphInstantiateWithFlags=lambda executable, graph, flags: make(executable, 8),
        cuGraphLaunch=launch,
        cuGraphDestroy=end,
        cuGraphExecDestroy=end,
    )


class TensorFormat(Enum):
    LINEAR = 0
    CHW16 = 4
    HWC = 8


WORDS = {
    TensorFormat.LINEAR: 'Row major linear FP32 format (kLINEAR)',
    TensorFormat.CHW16: 'Sixteen wide channel vectorized row major FP16 format (kCHW16)',
    TensorFormat.HWC: 'Channel major FP32 format',
}


@dataclass
class Tensor:
    """An input or output of a network."""

    shape: tuple = ()
    dtype: str = 'FLOAT'
    layout: TensorFormat = TensorFormat.LINEAR
    is_on_host: bool = False
    profile: tuple = ()  # smallest, usual and largest shape


@dataclass
class Network:
    """A network, as a function of its inputs; of what it needs values for its shapes, `shapes` is asked."""

    inputs: dict
    outputs: dict
    compute: Callable  # inputs by name -> outputs by name
    shapes: Callable = None  # shapes of inputs, and values of those on the host -> shapes of outputs
    driver: Driver = None
    freed: list = field(default_factory=list)  # what was freed, with whether the context was current


class Engine:
    """An `ICudaEngine`."""

    def __init__(self, network):
        self.network, self.tensors = network, {**network.inputs, **network.outputs}
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), 1

    def __del__(self):
        self.network.freed.append(('engine', self.network.driver.depth > 0))

    def create_execution_context(self):
        return Context(self)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return 'input' if name in self.network.inputs else 'output'

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.tensors[name].dtype)

    def get_tensor_shape(self, name):
        return self.tensors[name].shape

    def get_tensor_profile_shape(self, name, profile):
        return self.tensors[name].profile

    def get_tensor_format(self, name):
        return self.tensors[name].layout

    def get_tensor_format_desc(self, name):
        return WORDS[self.tensors[name].layout]

    def get_tensor_location(self, name):
        return 'host' if self.tensors[name].is_on_host else 'device'

    def is_shape_inference_io(self, name):
        return self.tensors[name].is_on_host


class Context:
    """An `IExecutionContext`; each dtype that is used has four bytes."""

    active_optimization_profile = 0

    def __init__(self, engine):
        self.engine, self.network = engine, engine.network
        self.shapes = {name: tensor.shape for name, tensor in self.network.inputs.items()}
        self.inferred = {name: tensor.shape for name, tensor in self.network.outputs.items()}
        self.addresses, self.allocators = {}, {}
        self.fails = False

    def __del__(self):
        self.network.freed.append(('context', self.network.driver.depth > 0))

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name, allocator):
        self.allocators[name] = allocator

    def array(self, name, shape):
        tensor = self.engine.tensors[name]
        kind = 'host' if tensor.is_on_host else 'device'
        size = 4 * int(np.prod(shape))
        dtype = {'FLOAT': np.float32, 'INT32': np.int32}[tensor.dtype]
        return self.network.driver.at(kind, self.addresses[name], size).view(dtype).reshape(shape)

    def infer_shapes(self):
        on_host = [name for name, tensor in self.network.inputs.items() if tensor.is_on_host]
        missing = [name for name in on_host if name not in self.addresses]
        if not missing and self.network.shapes is not None:
            values = {name: self.array(name, self.shapes[name]) for name in on_host}
            self.inferred = self.network.shapes({**self.shapes, **values})
        return missing

    def get_tensor_shape(self, name):
        return self.inferred[name]

    def execute_async_v3(self, stream):
        self.network.driver.calls.append('execute')
        if self.fails:
            return False
        inputs = {name: self.array(name, shape) for name, shape in self.shapes.items()}
        for name, value in self.network.compute(inputs).items():
            allocator = self.allocators.get(name)
            if allocator is not None:
                size = max(4 * value.size, 1)
                self.addresses[name] = allocator.reallocate_output(name, self.addresses[name], size, 256)
                allocator.notify_shape(name, value.shape)
            self.array(name, value.shape)[...] = value
        return True


def tensorrt(network):
    """TensorRT itself, which knows one plan only, that of a network."""

    class Logger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            assert plan == PLAN
            return Engine(network)

    return SimpleNamespace(
        __name__='tensorrt',
        __version__='.'.join(map(str, VERSION)),
        ILogger=Logger,
        IOutputAllocator=type('IOutputAllocator', (), {}),
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT='input'),
        TensorLocation=SimpleNamespace(HOST='host'),
        TensorFormat=TensorFormat,
    )


def install(monkeypatch, network):
    """Have the package find the stand-ins; returns TensorRT's."""
    from isaac_infer.engine import cuda, trt

    network.driver, module = Driver(), tensorrt(network)
    calls = libcuda(network.driver)
    pycuda = ModuleType('pycuda')
    pycuda.driver = network.driver
    monkeypatch.setitem(sys.modules, 'pycuda', pycuda)
    monkeypatch.setitem(sys.modules, 'pycuda.driver', network.driver)
    monkeypatch.setattr(cuda, '_process', None)
    monkeypatch.setattr(cuda, '_libcuda', lambda: calls)
    monkeypatch.setattr(trt, 'find_tensorrt', lambda: module)
    monkeypatch.setattr(trt, 'installed_version', lambda tensorrt: VERSION)
    return module
