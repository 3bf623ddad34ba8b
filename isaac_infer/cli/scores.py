"""Scores: how results agree with those of a reference and with the truth, for each kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from isaac_infer.cli.precision import average_precision, coco_entries
from isaac_infer.cli.truth import BACKGROUND, NOT_KNOWN, Known, Object, Truth, rle_of
from isaac_infer.core.agreeing import AGREEING, Agreeing, kind_of
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.maps import background_classes
from isaac_infer.core.metrics import ClassCounts, is_seen
from isaac_infer.core.oks import sigmas_of
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.results import Detections, Poses, Segmentation, mask_box
from isaac_infer.core.spec import ModelSpec
from isaac_infer.core.text import counted

MOST_CLASSES = 1 << 16  # of a class map

Score = dict[str, float]


@dataclass(frozen=True)
class ClassScore:
    """How right one class is."""

    name: str
    count: int  # of its objects or pixels in the truth
    score: Score  # by key of Measure.of_class


class Scoring(Protocol):
    """Takes what was found in one picture after the other, and what is in it."""

    def add(self, known: Known, found: Any) -> None:
        """Keep what was found in a picture."""

    def classes(self) -> list[ClassScore]:
        """Score all pictures, class by class; classes that do not occur are left out."""

    def score(self) -> Score | None:
        """Score all pictures; None where the truth has no object and no pixel that counts."""


@dataclass(frozen=True)
class Measure:
    """How one kind of answer is measured; what of it is said in tables and thresholds."""

    kind: str  # of answer and of truth, one of AGREEING
    things: str  # what is counted
    again: str  # what those are that the reference has too
    overlap: str  # how alike two of them are
    worst: str  # whose overlap is the worst
    scores: Mapping[str, str]  # headings by key of a Score; the last is the one of thresholds and plot
    of_class: Mapping[str, str]  # headings by key of a ClassScore
    scoring: Callable[[ModelSpec, ModelSpec, Truth], Scoring]  # of variant, reference and truth

    @property
    def has_objects(self) -> bool:
        """Whether there are objects, which have scores, and may be too many or too few."""
        return self.kind != 'pixels'

    @property
    def agreeing(self) -> Callable[[Pipeline, Pipeline, float], Agreeing]:
        """Begins to compare: of reference, other and threshold of overlap."""
        return AGREEING[self.kind]

    @property
    def main_score(self) -> str:
        return list(self.scores)[-1]


def measure_of(spec: ModelSpec) -> Measure:
    """How what a model answers is measured."""
    return {each.kind: each for each in (BOXES, MASKS, PIXELS, POSES)}[kind_of(spec)]


def check_kinds(truth: Truth, measure: Measure, given: str) -> None:
    """See that a truth from a file is of the kind that a model answers.

    Raises:
        ParameterError: it is not.
    """
    if (truth.maps is not None) == (measure.kind == 'pixels'):
        return
    if measure.kind == 'pixels':
        wanted = 'a folder of class maps, because the model says what every pixel is'
    else:
        wanted = f'JSON in the form of COCO, because the model answers {measure.kind}'
    raise ParameterError(f'truth {given}: expected {wanted}')


# ---- truth ---------------------------------------------------------------------------------------


class _Coco:
    """Collects objects, which COCO's metric scores."""

    def __init__(
        self,
        class_names: Sequence[str],
        entries: Callable[[Known, Any], list[Object]],
        iou_type: str,
        sigmas: np.ndarray | None = None,
        prepared: Callable[[Object], Object] = lambda entry: entry,
    ) -> None:
        self._class_names, self._iou_type, self._sigmas = class_names, iou_type, sigmas
        self._entries, self._prepared = entries, prepared
        self._pictures: list[int] = []
        self._truth: list[Object] = []
        self._answers: list[Object] = []
        self._classes: list[ClassScore] | None = None  # of these; None: not worked out yet

    def add(self, known: Known, found: Any) -> None:
        self._classes = None
        self._pictures.append(known.number)
        self._truth += [self._prepared(entry) for entry in known.objects]
        self._answers += self._entries(known, found)

    def classes(self) -> list[ClassScore]:
        if self._classes is None:
            self._classes = self._work_out()
        return self._classes

    def _work_out(self) -> list[ClassScore]:
        precisions = average_precision(
            self._pictures,
            self._truth,
            self._answers,
            class_names=self._class_names,
            iou_type=self._iou_type,
            sigmas=self._sigmas,
        )
        return [
            ClassScore(each.name, each.objects, {'ap50': each.ap50, 'ap50_95': each.ap50_95})
            for each in precisions
        ]

    def score(self) -> Score | None:
        scores = [each.score for each in self.classes()]
        return (
            {key: float(np.mean([score[key] for score in scores])) for key in scores[0]} if scores else None
        )


class _ClassMaps:
    """Counts pixels by class."""

    def __init__(self, spec: ModelSpec, reference: ModelSpec, truth: Truth) -> None:
        self._num_classes = spec.num_classes
        self._names = truth.class_names or reference.class_names
        self._table = np.full(MOST_CLASSES, -1, np.int32)  # class of the truth by class of the model
        if truth.maps is not None and spec.class_names in ((), reference.class_names):
            self._table[:] = np.arange(MOST_CLASSES)  # the truth has the model's own numbers
        else:
            for number, known in truth_classes(spec, reference, truth).items():
                self._table[number] = known
        self._counts = ClassCounts()

    def add(self, known: Known, found: Segmentation) -> None:
        labels, truth = found.class_map, known.class_map
        assert labels is not None and truth is not None
        numbers = self._table[labels]
        answered = is_seen(labels, self._num_classes) & (numbers >= 0)
        answers = np.where(answered, numbers, 0).astype(np.uint16)
        is_known = truth != NOT_KNOWN
        self._counts.add(truth.astype(np.uint16), answers, known=is_known, answered=answered)

    def classes(self) -> list[ClassScore]:
        counted = zip(
            self._counts.classes().tolist(), self._counts.known().tolist(), self._counts.iou().tolist()
        )
        names = dict(enumerate(self._names))
        return [
            ClassScore(names.get(number, str(number)), count, {'iou': iou}) for number, count, iou in counted
        ]

    def score(self) -> Score | None:
        iou = self._counts.iou()
        if not self._counts.pixels:
            return None
        return {'accuracy': self._counts.equal / self._counts.pixels, 'miou': float(iou.mean())}


def truth_classes(spec: ModelSpec, reference: ModelSpec, truth: Truth) -> dict[int, int]:
    """Which class of the truth each class of a model is: by name, or by number where nobody named them.

    Raises:
        ParameterError: they have none in common.
    """
    names = spec.class_names or reference.class_names
    wanted = truth.class_names if truth.maps is None else reference.class_names
    if not names and spec.num_classes == len(wanted):
        return {number: number for number in range(spec.num_classes)}
    known = {name: number for number, name in enumerate(wanted)}
    things = {index: known[name] for index, name in enumerate(names) if name in known and name != BACKGROUND}
    if not things:
        got = ', '.join(names) or (
            f'{counted(spec.num_classes, "class")} without names; name them, or say by --task what the '
            'model is for'
        )
        raise ParameterError(f'class_names: expected some of {", ".join(wanted)}, got {got}')
    if BACKGROUND in known:
        things.update(dict.fromkeys(background_classes(names), known[BACKGROUND]))
    return things


def _person_classes(spec: ModelSpec, reference: ModelSpec, truth: Truth) -> dict[int, int]:
    """As `truth_classes`; where both have one class, that has key points, it is the same."""
    if len(truth.class_names) == 1 and spec.num_classes <= 1:
        return {0: 0}
    return truth_classes(spec, reference, truth)


def _scoring_boxes(spec: ModelSpec, reference: ModelSpec, truth: Truth) -> Scoring:
    entries = partial(_box_entries, classes=truth_classes(spec, reference, truth))
    return _Coco(truth.class_names, entries, 'bbox')


def _scoring_masks(spec: ModelSpec, reference: ModelSpec, truth: Truth) -> Scoring:
    entries = partial(_mask_entries, classes=truth_classes(spec, reference, truth))
    return _Coco(truth.class_names, entries, 'segm')


def _scoring_poses(spec: ModelSpec, reference: ModelSpec, truth: Truth) -> Scoring:
    ours, theirs = shared_keypoints(spec.keypoints, truth)
    classes = _person_classes(spec, reference, truth)
    entries = partial(_pose_entries, classes=classes, keypoints=ours)
    sigmas = sigmas_of([(truth.keypoints or spec.keypoints)[at] for at in theirs])
    prepared = partial(_only_keypoints, keypoints=theirs)
    return _Coco(truth.class_names, entries, 'keypoints', sigmas, prepared)


def shared_keypoints(names: Sequence[str], truth: Truth) -> tuple[list[int], list[int]]:
    """Which key points of a model are which of the truth, by name, or by number where nobody named them.

    Raises:
        ParameterError: they have none in common.
    """
    at = {name: index for index, name in enumerate(names)}
    shared = [(at[name], index) for index, name in enumerate(truth.keypoints) if name in at]
    is_named = bool(truth.keypoints) and tuple(names) != tuple(map(str, range(len(names))))
    if not shared and not is_named and truth.num_keypoints == len(names):
        shared = [(index, index) for index in range(len(names))]
    if not shared:
        got = _listed(truth.keypoints) if truth.keypoints else f'{truth.num_keypoints} without names'
        raise ParameterError(f'keypoints: expected some of {_listed(names)} in the truth, got {got}')
    return [ours for ours, _ in shared], [theirs for _, theirs in shared]


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names) or 'none'


def _numbers(objects: Detections, classes: Mapping[int, int]) -> np.ndarray:
    return np.array([classes.get(class_id, -1) for class_id in objects.class_id.tolist()], np.int32)


def _box_entries(known: Known, found: Detections, *, classes: Mapping[int, int]) -> list[Object]:
    return coco_entries(known.number, _numbers(found, classes), found.xyxy, found.score)


def _mask_entries(known: Known, found: Segmentation, *, classes: Mapping[int, int]) -> list[Object]:
    numbers = _numbers(found.objects, classes)
    rows = np.flatnonzero(numbers >= 0)
    entries = _box_entries(known, found.objects[rows], classes=classes)
    for entry, row in zip(entries, rows.tolist()):
        left_top = mask_box(found.objects.xyxy[row])[:2]
        entry['segmentation'] = rle_of(found.masks[row], left_top, known.size_hw)
        entry['area'] = int(np.count_nonzero(found.masks[row]))
    return entries


def _pose_entries(
    known: Known, found: Poses, *, classes: Mapping[int, int], keypoints: Sequence[int]
) -> list[Object]:
    rows = np.flatnonzero(_numbers(found.persons, classes) >= 0)
    entries = _box_entries(known, found.persons[rows], classes=classes)
    for entry, xy in zip(entries, found.xy[rows][:, keypoints]):
        entry['keypoints'] = np.pad(xy, ((0, 0), (0, 1)), constant_values=1).reshape(-1).tolist()
        entry['num_keypoints'] = len(keypoints)
    return entries


def _only_keypoints(entry: Object, *, keypoints: Sequence[int]) -> Object:
    """An object of the truth with some of its key points."""
    points = np.reshape(entry['keypoints'], (-1, 3))[keypoints]
    return {
        **entry,
        'keypoints': points.reshape(-1).tolist(),
        'num_keypoints': int(np.count_nonzero(points[:, 2] > 0)),
    }


def _precision(of: str) -> dict[str, str]:
    return {'ap50': f'{of}mAP50', 'ap50_95': f'{of}mAP50-95'}


BOXES = Measure(
    kind='boxes',
    things='objects',
    again='found again',
    overlap='IoU',
    worst='pair',
    scores=_precision(''),
    of_class={'ap50': 'AP50', 'ap50_95': 'AP50-95'},
    scoring=_scoring_boxes,
)
MASKS = replace(
    BOXES,
    kind='masks',
    overlap='mask IoU',
    scores=_precision('mask '),
    scoring=_scoring_masks,
)
POSES = replace(
    BOXES,
    kind='poses',
    things='persons',
    overlap='OKS',
    scores=_precision('OKS '),
    scoring=_scoring_poses,
)
PIXELS = Measure(
    kind='pixels',
    things='pixels',
    again='equal',
    overlap='class IoU',
    worst='class',
    scores={'accuracy': 'pixels right', 'miou': 'mIoU'},
    of_class={'iou': 'IoU'},
    scoring=_ClassMaps,
)
