"""Perception: what makes a node a detector, a segmenter, ...: its parameters, its model, its messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from isaac_infer.core.errors import IsaacInferError, ModelError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.text import listed

# Depth 1 for pictures: an old one is worth nothing. Results are small, and none of them should be missing.
RESULT_QOS = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
PICTURE_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
# Whoever publishes them, reliably or not.
COMPANION_QOS = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
LATCHED_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def as_it_is(found: Any, frame: Frame, params: Any) -> Any:
    """Refine nothing."""
    return found


@dataclass(frozen=True)
class Companion:
    """A topic beside that of the pictures, while the node is active."""

    topic: str
    message: type[Any]
    take: Callable[[Any], None]  # a message, in the thread of the executor
    is_raw: bool = False  # whether it takes the bytes of a message


class Partner(Protocol):
    """Another node that says something of every picture, by its stamp, before the model works on that."""

    topic: str
    message: type[Any]
    timeout_s: float  # how long a picture waits for it

    def read(self, message: Any) -> tuple[int, Any]:
        """Give the stamp of a message and what it says, in the thread of the executor."""
        ...

    def missing(self, stamp_ns: int) -> IsaacInferError:
        """Say that nothing came for a picture."""
        ...

    def give(self, found: Any) -> None:
        """Take what was said of the picture that is begun next, in the thread of the model."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, and what diagnostics should say of it."""

    pipeline: Pipeline
    facts: Mapping[str, str]
    # What is made of a result before it is published, such as a smoother one; in the order of the pictures.
    refine: Callable[[Any, Frame, Any], Any] = as_it_is
    companions: tuple[Companion, ...] = ()
    extra: Any = None  # what messages need of the model besides its spec
    partner: Partner | None = None  # that every picture waits for


@dataclass(frozen=True)
class Answer:
    """What was found in one picture: all that a message may be made of."""

    found: Any  # Detections, Segmentation or Poses
    frame: Frame
    spec: ModelSpec
    params: Any
    extra: Any = None  # of Loaded


@dataclass(frozen=True)
class Output:
    """One topic of a node."""

    topic: str
    message: type[Any]
    make: Callable[[Answer], Any]  # a message, or the bytes of one
    # A message that takes back what was shown, where that would stay though nothing is known any more.
    blank: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Perception:
    """What makes a perception node a detector, a segmenter, ...: its parameters, its model, its messages."""

    name: str  # of the node
    params: type[Any]  # a set that includes PerceptionNodeParams
    # Of the parameters, of what takes a sentence about it, and of what tells that it is not wanted any more.
    load: Callable[[Any, Callable[[str], None], Callable[[], bool]], Loaded]  # slow; in the model's thread
    limits: Callable[[Any, ModelSpec], Limits]
    # The first one answers every picture; the others are made only while somebody subscribes.
    outputs: tuple[Output, ...]
    tell: Callable[[Answer], Mapping[str, str]] = lambda answer: {}  # for diagnostics, once a second
    kind: Callable[[ModelSpec], str] = lambda spec: ''  # of models that differ in what their answers mean


def check_alike(first: Loaded, lighter: Loaded, kind: Callable[[ModelSpec], str]) -> None:
    """See that a lighter model finds what the first one does: its messages are read in the same way.

    Raises:
        ModelError: it is of another kind, or has other classes or key points.
    """
    wanted, got = first.pipeline.spec, lighter.pipeline.spec
    name, named = (Path(model.facts['model']).name for model in (lighter, first))
    if kind(wanted) != kind(got):
        raise ModelError(
            f'model_variants: {name}: expected the kind of {named}, which is {kind(wanted)}, got {kind(got)}'
        )
    for what, ours, theirs in (
        ('classes', _classes(wanted), _classes(got)),
        ('key points', wanted.keypoints, got.keypoints),
    ):
        if ours != theirs:
            alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs))))
            raise ModelError(
                f'model_variants: {name}: expected the {what} of {named}, which are, from number {alike} on, '
                f'{listed(ours[alike:])}; got {listed(theirs[alike:])}'
            )


def _classes(spec: ModelSpec) -> tuple[str, ...]:
    return spec.class_names or tuple(map(str, range(spec.num_classes)))
