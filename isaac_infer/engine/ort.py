"""OrtSession: a network run by ONNX Runtime, with its buffers bound once."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnxruntime

from isaac_infer.core.errors import ModelError, SessionError, TensorError
from isaac_infer.core.tensor import TensorSpec, fits

CPU_PROVIDER = 'CPUExecutionProvider'
REMOTE_PROVIDER = 'AzureExecutionProvider'  # part of every build; it sends pictures to a cloud
SILENT = 4  # log severity: what is an error is raised; on stderr it would only be said twice

onnxruntime.set_default_logger_severity(SILENT)

_DTYPES = {
    'tensor(float)': np.float32,
    'tensor(float16)': np.float16,
    'tensor(double)': np.float64,
    'tensor(uint8)': np.uint8,
    'tensor(int8)': np.int8,
    'tensor(uint16)': np.uint16,
    'tensor(int16)': np.int16,
    'tensor(uint32)': np.uint32,
    'tensor(int32)': np.int32,
    'tensor(uint64)': np.uint64,
    'tensor(int64)': np.int64,
    'tensor(bool)': np.bool_,
}

# What ONNX Runtime says when it refuses a file -> the way out. The first that occurs in its message counts.
_WEIGHTS_MISSING = 'keep the weights file (often <model>.onnx.data) beside the model'
_BROKEN = 'the file is no ONNX model or was cut short; export or copy it again'
_UNKNOWN_OPERATOR = 'export without this operator, or update onnxruntime'
_WAYS_OUT = {
    '_trt': 'an operator that only TensorRT has; export without it (for EfficientNMS: without NMS)',
    'external data': _WEIGHTS_MISSING,
    'getfilelength': _WEIGHTS_MISSING,
    'protobuf': _BROKEN,
    'does not have a graph': _BROKEN,
    'ir version': 'update onnxruntime, or export the model with an older IR version',
    'no op registered': _UNKNOWN_OPERATOR,
    'no opset import': _UNKNOWN_OPERATOR,
    'not a registered': _UNKNOWN_OPERATOR,
    'could not find an implementation': 'export without this operator, or in float32',
    'opset': 'update onnxruntime, or export the model with an older opset',
    'bad_alloc': 'it asks for more memory than there is; export it again, or use a larger machine',
}
# What it says, newer and older, when an output does not have the shape that the file says.
_OTHER_SHAPE = ('computed output shape', 'shape verification failed')
# ONNX Runtime (1.31 at least) gives quantised models of opset 21 or newer nodes that it then refuses itself.
_SPOILER = 'QDQPropagationTransformer'
_SPOILED = 'does not match y_zero_point'
_ANY_WAY_OUT = 'check the file with "python3 -m onnx.checker" or export it again'


class OrtSession:
    """A model loaded by ONNX Runtime: write into its input buffers, run, read its outputs.

    Arrays for inputs and for outputs of fixed shape are bound once; a run allocates nothing but what ONNX
    Runtime itself does. One thread at a time.
    """

    def __init__(self, path: Path, *, providers: Sequence[str] = (), num_threads: int = 0) -> None:
        """Load a model.

        Args:
            path: the ONNX file; external weights are looked up beside it.
            providers: execution providers in order of preference; empty: the CPU.
            num_threads: of the CPU; 0: one per core that this process may use.

        Raises:
            ModelError: the file cannot be loaded, or has inputs that are no tensors of numbers.
            SessionError: a provider's name is unknown.
        """
        wanted = tuple(providers) or (CPU_PROVIDER,)
        usable, self.fallbacks = _usable_providers(wanted)
        if not providers:
            self.fallbacks += _unused_providers()
        self._session, reasons = _load(path, usable, num_threads)
        in_use = self._session.get_providers()
        # ONNX Runtime drops a provider that cannot start (no driver, no library) without an exception.
        lost = tuple(name for name in usable if name not in in_use)
        self.fallbacks += tuple(f'{name} did not start{reasons}; running on {in_use[0]}' for name in lost)
        self.backend = f'onnxruntime {onnxruntime.__version__} {in_use[0]}'
        # Other devices copy an input when it is bound, so there it is bound anew for every run.
        self._copies_inputs = in_use[0] != CPU_PROVIDER
        try:
            self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
            self.inputs = tuple(_input_spec(path, node) for node in self._session.get_inputs())
            self.outputs = _output_specs(path, self._session.get_outputs())
        except UnicodeDecodeError as error:
            raise ModelError(f'{path}: expected names and metadata in UTF-8, got {error.object!r}') from error
        self._buffers: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
        self._bound: dict[str, np.ndarray] = {}
        self._results: dict[str, np.ndarray] = {}
        self._binding = self._session.io_binding()
        # In this order, which is that of the binding's answers; what is not bound is not even computed.
        self._answered = [spec.name for spec in self.outputs if spec.dtype != object]
        for spec in self.outputs:
            if spec.name in self._answered:
                self._bind_output(path, spec)
        self._dynamic = [name for name in self._answered if name not in self._results]

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Give the array that the next `run` reads; the same array for the same shape, every time."""
        spec = next((spec for spec in self.inputs if spec.name == name), None)
        if spec is None:
            known = ', '.join(str(spec) for spec in self.inputs)
            raise TensorError(f'{name}: the model has no such input; it has {known}')
        if not fits(shape, spec.shape):
            raise TensorError(f'{name}: expected {spec.layout}, got shape {list(shape)}')
        self._check_open()
        buffer = self._buffers.get((name, shape))
        if buffer is None:
            try:
                buffer = self._buffers[name, shape] = np.zeros(shape, spec.dtype)
            except (MemoryError, ValueError) as error:
                raise TensorError(f'{name}: shape {list(shape)} does not fit into memory: {error}') from error
        if self._bound.get(name) is not buffer:
            self._binding.bind_cpu_input(name, buffer)
            self._bound[name] = buffer
        return buffer

    def run(self) -> Mapping[str, np.ndarray]:
        """Run the network on what its input buffers hold; the outputs are valid until the next run."""
        self._check_open()
        if len(self._bound) < len(self.inputs):
            missing = [str(spec) for spec in self.inputs if spec.name not in self._bound]
            raise SessionError(
                f'{", ".join(missing)}: no input buffer yet; ask for it and fill it before run'
            )
        if self._copies_inputs:
            for name, buffer in self._bound.items():
                self._binding.bind_cpu_input(name, buffer)
        self._compute()
        if self._dynamic:
            values = dict(zip(self._answered, self._binding.get_outputs()))
            for name in self._dynamic:
                self._results[name] = values[name].numpy()
        return self._results

    def _compute(self) -> None:
        for name in self._dynamic:  # or ONNX Runtime would insist on the lengths of the last run
            self._binding.bind_output(name, 'cpu')
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            is_other_shape = any(words in str(error) for words in _OTHER_SHAPE)
            if not is_other_shape or len(self._dynamic) == len(self._answered):
                raise SessionError(f'{self.backend}: the network failed: {_first_line(error)}') from error
            # The file says a shape that is not true: from now on outputs are taken as they come.
            self._dynamic = self._answered
            self._compute()

    def close(self) -> None:
        """Release everything; safe to call twice."""
        self._binding = self._session = None
        self._bound, self._buffers, self._results = {}, {}, {}

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._session is None:
            raise SessionError(f'{self.backend}: the session is closed; open the model again')

    def _bind_output(self, path: Path, spec: TensorSpec) -> None:
        # No lengths at all mean one number or any number of axes, a length of 0 is no size of anything.
        if spec.is_dynamic or not spec.shape or 0 in spec.shape:
            self._binding.bind_output(spec.name, 'cpu')
            return
        try:
            result = np.zeros(spec.shape, spec.dtype)
        except (MemoryError, ValueError) as error:
            raise ModelError(
                f'{path}: output {spec} does not fit into memory; is the file broken?'
            ) from error
        self._results[spec.name] = result
        self._binding.bind_output(spec.name, 'cpu', 0, spec.dtype.type, list(spec.shape), result.ctypes.data)


def _usable_providers(wanted: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split into the providers that this onnxruntime has, and a sentence for each one it has not."""
    known, available = onnxruntime.get_all_providers(), onnxruntime.get_available_providers()
    for name in wanted:
        if name not in known and name not in available:
            raise SessionError(f'providers: expected some of {", ".join(available)}, got {name!r}')
    usable = tuple(name for name in wanted if name in available) or (CPU_PROVIDER,)
    return usable, tuple(
        f'{name} is not part of this onnxruntime ({onnxruntime.__version__} with {", ".join(available)}); '
        f'running on {usable[0]}; install an onnxruntime build that has it'
        for name in wanted
        if name not in available
    )


def _unused_providers() -> tuple[str, ...]:
    """Say that the CPU is in use although there is something faster, since nobody chose it."""
    faster = [
        name for name in onnxruntime.get_available_providers() if name not in (CPU_PROVIDER, REMOTE_PROVIDER)
    ]
    if not faster:
        return ()
    return (f'running on the CPU although this onnxruntime has {", ".join(faster)}; set providers to use it',)


def _load(path: Path, providers: tuple[str, ...], num_threads: int) -> tuple[Any, str]:
    """Load on these providers, or on the CPU where they refuse; returns the reason of the refusal too."""
    try:
        return _inference_session(path, providers, num_threads), ''
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if providers == (CPU_PROVIDER,):
            raise _refusal(path, error) from error
        reason = f' ({_first_line(error)})'
    try:
        return _inference_session(path, (CPU_PROVIDER,), num_threads), reason
    except Exception as error:
        raise _refusal(path, error) from error


def _inference_session(path: Path, providers: tuple[str, ...], num_threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    # A number, because ONNX Runtime's own default pins its threads to cores that may not be ours.
    options.intra_op_num_threads = num_threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    # Threads may wait busily within a run, where it is faster; between two frames the cores belong to others.
    options.add_session_config_entry('session.force_spinning_stop', '1')

    def load(**more: Any) -> Any:
        # Versions that do not know enable_fallback print on standard output, which may be somebody's JSON.
        with contextlib.redirect_stdout(sys.stderr):
            return onnxruntime.InferenceSession(
                str(path), options, providers=list(providers), enable_fallback=0, **more
            )

    try:
        return load()
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if _SPOILED not in str(error):
            raise
        return load(disabled_optimizers=[_SPOILER])


def _input_spec(path: Path, node: Any) -> TensorSpec:
    spec = _tensor_spec(node)
    if spec.dtype == object:
        raise _no_numbers(path, 'input', node)
    if 0 in spec.shape:
        raise ModelError(
            f'{path}: input {spec}: expected at least 1 along every axis; export the model again'
        )
    return spec


def _output_specs(path: Path, nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    specs = tuple(map(_tensor_spec, nodes))
    if specs and all(spec.dtype == object for spec in specs):  # others may lie beside what is read
        raise _no_numbers(path, 'output', nodes[0])
    return specs


def _no_numbers(path: Path, kind: str, node: Any) -> ModelError:
    return ModelError(
        f'{path}: {kind} {node.name}: expected a tensor of numbers that NumPy knows, got {node.type}; '
        f'export the model with float32 inputs and outputs'
    )


def _tensor_spec(node: Any) -> TensorSpec:
    """What the file says of an input or output; of dtype object where it is no tensor of numbers."""
    # ONNX names or leaves open a length that is not fixed.
    shape = tuple(length if isinstance(length, int) and length >= 0 else -1 for length in node.shape)
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        return TensorSpec(node.name, shape, np.dtype(object), re.sub(r'^tensor\((\w+)\)$', r'\1', node.type))
    return TensorSpec(node.name, shape, np.dtype(dtype))


def _refusal(path: Path, error: Exception) -> ModelError:
    said = _first_line(error).replace(f'Load model from {path} failed:', '').rstrip('.')
    way_out = next((advice for words, advice in _WAYS_OUT.items() if words in said.lower()), _ANY_WAY_OUT)
    return ModelError(
        f'{path}: ONNX Runtime {onnxruntime.__version__} cannot load this model: {said}; {way_out}'
    )


def _first_line(error: Exception) -> str:
    """What an exception of ONNX Runtime says to its user, without codes and without C++ source lines."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = re.sub(r'^\[ONNXRuntimeError\] : \d+ : \w+ : ', '', lines[0])
    return re.sub(r'/onnxruntime_src/\S+:\d+ .*?\) ', '', said).strip()
