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

NODES: dict[str, type[Params]] = {
    'detector_node': DetectorParams,
    'segmentation_node': SegmentationNodeParams,
    'pose_node': PoseNodeParams,
    'jetson_executor': ExecutorParams,
    'image_source': ImageSourceParams,
    'power_manager': PowerManagerParams,
    'recorder': RecorderParams,
    'robot_simulator': RobotSimulatorParams,
    'deployment_validator': ValidatorParams,
}


def nodes_with(parameter: str) -> list[str]:
    """The nodes that have a parameter of this name."""
    return [node for node, kind in NODES.items() if parameter in {each.name for each in parameters(kind)}]


__all__ = [
    'FAULTS',
    'INTEGER_BITS',
    'NODES',
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
    'nodes_with',
    'param',
    'parameters',
]
