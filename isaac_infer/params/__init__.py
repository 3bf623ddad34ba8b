"""Every parameter of every node, declared once."""

from isaac_infer.params.declare import (
    INTEGER_BITS,
    TYPE_NAMES,
    Parameter,
    Params,
    Value,
    param,
    parameters,
)
from isaac_infer.params.executor import ExecutorParams
from isaac_infer.params.perception import (
    DetectionParams,
    DetectorParams,
    ImageSourceParams,
    ModelParams,
    PerceptionNodeParams,
    PerceptionParams,
    PersonParams,
    PoseNodeParams,
    PoseParams,
    RecorderParams,
    SegmentationNodeParams,
    SegmentationParams,
    TaskParams,
)
from isaac_infer.params.power import PowerManagerParams
from isaac_infer.params.robot import FAULTS, RobotSimulatorParams
from isaac_infer.params.validator import PARTS, ValidatorParams

__all__ = [
    'FAULTS',
    'INTEGER_BITS',
    'PARTS',
    'TYPE_NAMES',
    'DetectionParams',
    'DetectorParams',
    'ExecutorParams',
    'ImageSourceParams',
    'ModelParams',
    'Parameter',
    'Params',
    'PerceptionNodeParams',
    'PerceptionParams',
    'PersonParams',
    'PoseNodeParams',
    'PoseParams',
    'PowerManagerParams',
    'RecorderParams',
    'RobotSimulatorParams',
    'SegmentationNodeParams',
    'SegmentationParams',
    'TaskParams',
    'ValidatorParams',
    'Value',
    'param',
    'parameters',
]
