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

__all__ = [
    'INTEGER_BITS',
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
    'SegmentationNodeParams',
    'SegmentationParams',
    'TaskParams',
    'Value',
    'param',
    'parameters',
]
