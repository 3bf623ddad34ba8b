"""BuildOptions: how a TensorRT engine is built of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from isaac_infer.core.errors import ParameterError

PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8', 'fp8')
CALIBRATIONS = ('qdq', 'entropy', 'minmax')  # explicit Q/DQ nodes, or one of TensorRT's own calibrators
Shape = tuple[int, ...]


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built; every field is part of its key."""

    precision: str = 'fp16'  # one of PRECISIONS
    shapes: Mapping[str, tuple[Shape, Shape, Shape]] = field(default_factory=dict)  # min, opt, max by input
    workspace_mib: int = 0  # at most, for temporary memory; 0: as much as TensorRT asks for
    optimization_level: int = -1  # 0 (quick to build) to 5 (quick to run); -1: TensorRT's default
    dla_core: int = -1  # layers that it cannot run go to the GPU; -1: GPU only
    tactic_sources: tuple[str, ...] = ()  # names of trt.TacticSource; empty: the default ones
    version_compatible: bool = False  # also runs on newer TensorRT, with its lean runtime
    hardware_compatible: bool = False  # also runs on other GPUs since Ampere, slower
    strongly_typed: bool = False  # the types of the ONNX model are obeyed, precision is not
    uint8_input: bool = True  # pictures are normalised inside: a quarter of the bytes to send
    best_class: bool = True  # only the best class of each box leaves the engine, where the decoder allows it
    calibration: str = 'qdq'  # one of CALIBRATIONS; of int8

    def __post_init__(self) -> None:
        for name, choices in (('precision', PRECISIONS), ('calibration', CALIBRATIONS)):
            if getattr(self, name) not in choices:
                raise ParameterError(
                    f'{name}: expected one of {", ".join(choices)}, got {getattr(self, name)!r}'
                )
        for name, shapes in self.shapes.items():
            if len({len(shape) for shape in shapes}) != 1 or any(
                not 0 < low <= usual <= high for low, usual, high in zip(*shapes)
            ):
                got = list(map(list, shapes))
                raise ParameterError(f'shapes of {name}: expected min <= opt <= max on every axis, got {got}')

    def words(self) -> dict[str, str]:
        """The options as they stand in a key and a sidecar."""
        values = {name.replace('_', ' '): value for name, value in asdict(self).items()}
        if self.precision != 'int8':
            del values['calibration']
        return {
            name: json.dumps(value) if not isinstance(value, str) else value for name, value in values.items()
        }


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built, kept, and fed."""

    build: BuildOptions = field(default_factory=BuildOptions)
    cache_folder: str = ''  # for engines and timing caches; empty: the user's cache
    calibration: str = ''  # a folder of pictures or a recording, for int8
    prepare: str = 'auto'  # where pictures are prepared: auto, cpu, resize or gpu
    device: int = 0  # index of the GPU
    profile: int = 0  # index of the optimisation profile, of engines with several
    pipeline_depth: int = 1  # frames under way at once; more than one gives more frames per second, later
