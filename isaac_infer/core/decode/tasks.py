"""Tasks: for each kind of answer the decoders that give it, and how models that give it are recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isaac_infer.core.decode.families import Family, Model
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
    words: tuple[str, ...]  # that parts of the names of outputs begin with; they decide between tasks
    probe: Callable[[Mapping[str, np.ndarray], ModelSpec], ModelSpec]  # settles by a first run what is open
    batched: frozenset[str] = frozenset()  # decoders that read the answers to several pictures, too


def _detection() -> Task:
    from isaac_infer.core.decode import detection, families, probe

    return Task(
        detection.DECODERS,
        families.FAMILIES,
        families.NAMED,
        families.by_metadata,
        ('detect', 'segment', 'pose', 'obb'),
        ('box', 'det'),
        probe.probe,
    )


def _segmentation() -> Task:
    from isaac_infer.core.decode import segmentation, segmentation_families

    return Task(
        segmentation.DECODERS,
        segmentation_families.FAMILIES,
        segmentation_families.NAMED,
        segmentation_families.by_metadata,
        ('segment', 'semantic'),
        ('seg', 'mask', 'label', 'class'),
        segmentation.probe,
    )


def _pose() -> Task:
    from isaac_infer.core.decode import pose, pose_families

    return Task(
        pose.DECODERS,
        pose_families.FAMILIES,
        pose_families.NAMED,
        pose_families.by_metadata,
        ('pose',),
        ('heat', 'keypoint', 'kpt', 'joint', 'pose', 'confs'),  # the last one is of EfficientPose
        pose.probe,
        frozenset(name for name, decoder in pose.DECODERS.items() if decoder.points),
    )


class _Tasks(Mapping[str, Task]):
    """Tasks by name. A node needs one of them, and would start later for importing the others."""

    def __init__(self, **makers: Callable[[], Task]) -> None:
        self._makers, self._made = makers, dict[str, Task]()

    def __getitem__(self, name: str) -> Task:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


TASKS = _Tasks(detection=_detection, segmentation=_segmentation, pose=_pose)
