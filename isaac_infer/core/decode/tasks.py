"""Tasks: for each kind of answer the decoders that give it, and how models that give it are recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isaac_infer.core.decode import (
    detection,
    families,
    pose,
    pose_families,
    segmentation,
    segmentation_families,
)
from isaac_infer.core.decode.families import Family, Model
from isaac_infer.core.decode.probe import probe
from isaac_infer.core.fit import Fit
from isaac_infer.core.spec import Limits, ModelSpec


class Decoder(Protocol):
    """One output layout: called with a network's outputs, it gives what is in the picture."""

    @property
    def description(self) -> str:
        """One line for people."""

    def __call__(self, outputs: Mapping[str, np.ndarray], fit: Fit, spec: ModelSpec, limits: Limits) -> Any:
        """Decode one picture: Detections, Segmentation or Poses."""


@dataclass(frozen=True)
class Task:
    """One kind of answer."""

    decoders: Mapping[str, Decoder]
    families: Mapping[str, Family]  # by decoder, in the order in which they are tried
    named: tuple[str, ...]  # told by names or by pairs of tensors; tried before the others
    by_metadata: Callable[[Model], tuple[str, ...]]  # the decoders that Ultralytics' metadata leaves open
    says: tuple[str, ...]  # what metadata call tasks whose models give such answers
    probe: Callable[[Mapping[str, np.ndarray], ModelSpec], ModelSpec]  # settles by a first run what is open


TASKS: dict[str, Task] = {
    'detection': Task(
        detection.DECODERS,
        families.FAMILIES,
        families.NAMED,
        families.by_metadata,
        ('detect', 'segment', 'pose', 'obb'),
        probe,
    ),
    'segmentation': Task(
        segmentation.DECODERS,
        segmentation_families.FAMILIES,
        segmentation_families.NAMED,
        segmentation_families.by_metadata,
        ('segment', 'semantic'),
        segmentation.probe,
    ),
    'pose': Task(
        pose.DECODERS,
        pose_families.FAMILIES,
        pose_families.NAMED,
        pose_families.by_metadata,
        ('pose',),
        pose.probe,
    ),
}


def describe_decoders(decoders: Mapping[str, Decoder]) -> str:
    """Every decoder and its layout, one a line."""
    width = max(map(len, decoders))
    return '\n'.join(f'    {name:{width}}  {decoder.description}' for name, decoder in decoders.items())
