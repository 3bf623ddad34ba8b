"""Export: what a trained network says for one task as ONNX, with metadata by which it is recognised."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from isaac_infer.core.shapes import CLASS_NAMES, KEYPOINT_NAMES
from training.network import STRIDES, Conv, Network
from training.scenes import INPUT_SIZE

OPSET = 17
NEWEST_IR = 9  # that the oldest supported ONNX Runtime reads
HUMANOID = 'humanoid'
STEADY = {'box_blend': '0.02'}  # half precision finds the same boxes


@dataclass(frozen=True)
class Product:
    """A model file, and what it says of itself."""

    file_name: str
    description: str
    task: str  # Ultralytics' word
    names: tuple[str, ...]
    outputs: tuple[str, ...] = ('output0',)
    metadata: dict[str, str] = field(default_factory=dict)


PRODUCTS = {
    'detection': Product(
        'tabletop_detector.onnx', 'Detector of drawn table-top objects', 'detect', CLASS_NAMES,
        metadata={'head': 'Detect', **STEADY},
    ),
    'segmentation': Product(
        'tabletop_segmentation.onnx', 'Semantic segmentation of drawn table-top objects', 'semantic',
        ('background', *CLASS_NAMES),
        metadata={'score_unit': 'logits'},
    ),
    'instances': Product(
        'tabletop_instances.onnx', 'Instance segmentation of drawn table-top objects', 'segment', CLASS_NAMES,
        ('output0', 'output1'),
        metadata={'head': 'Segment', **STEADY},
    ),
    'pose': Product(
        'humanoid_pose.onnx', 'Key points of drawn humanoid robots and people', 'pose', (HUMANOID,),
        metadata={
            'head': 'Pose',
            **STEADY,
            'kpt_shape': str([len(KEYPOINT_NAMES), 3]),
            'kpt_names': str({0: list(KEYPOINT_NAMES)}),
        },
    ),
}  # fmt: skip


class Exported(nn.Module):
    """A network that answers for one task, laid out as Ultralytics' networks lay it out."""

    def __init__(self, network: Network, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Give `pixels`, or rows of centre, size, scores and what belongs to a box, and prototypes."""
        answer = self.network(images, (self.task,))
        if self.task == 'segmentation':
            return (answer.pixels,)
        low, high = self.network.sides(answer.boxes).split(2, 1)
        centre = self.network.points + (high - low) / 2
        boxes = torch.cat([centre, low + high], 1) * self.network.strides
        rows = [boxes, answer.scores.sigmoid()]
        if self.task == 'instances':
            return torch.cat([*rows, answer.further], 1), answer.prototypes
        if self.task == 'pose':
            xy, logits = self.network.keypoints(answer.further)
            rows.append(torch.cat([xy, logits.sigmoid()[:, :, None]], 2).flatten(1, 2))
        return (torch.cat(rows, 1),)


def export(network: Network, task: str, folder: Path) -> Path:
    """Write the model of a task into a folder."""
    product = PRODUCTS[task]
    network = deepcopy(network).cpu().float().eval().to(memory_format=torch.contiguous_format)
    for module in list(network.modules()):
        if isinstance(module, Conv):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    images = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / product.file_name
    torch.onnx.export(
        Exported(network, task).eval(), (images,), str(path), input_names=['images'],
        output_names=list(product.outputs), opset_version=OPSET, do_constant_folding=True, dynamo=False,
    )  # fmt: skip
    graph = onnx.load(str(path))
    graph.ir_version = min(graph.ir_version, NEWEST_IR)
    metadata = {
        'description': f'{product.description}, trained from scratch on the scenes of isaac_infer',
        'author': 'the isaac_infer project',
        'license': 'Apache-2.0',
        'version': '1.0.0',
        'stride': str(max(STRIDES)),
        'task': product.task,
        'batch': '1',
        'channels': '3',
        'imgsz': str([INPUT_SIZE, INPUT_SIZE]),
        'names': str(dict(enumerate(product.names))),
        'args': str({'batch': 1, 'half': False, 'dynamic': False, 'nms': False}),
        'end2end': 'False',
        **product.metadata,
    }
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    return path
