"""Part affinity fields: which of the key points in a picture belong to one person (Cao et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isaac_infer.core.decode.heatmaps import Peaks

SAMPLES = 10  # of the field along a link, as OpenPose
ALONG = 0.05  # a sample speaks for a link where the field points so far along it
TOGETHER = 1e-3  # what a link scores whose ends are in one cell
MOST = 0.8  # share of the samples that must


@dataclass(frozen=True)
class Topology:
    """The links that a network's fields speak of, in the order in which persons grow along them."""

    links: tuple[tuple[int, int], ...]  # the parts at start and end
    fields: tuple[tuple[int, int], ...]  # per link: channels with the x and the y part of its field
    joining: frozenset[int] = frozenset()  # links that add to persons, but never begin one


def find_persons(peaks: Peaks, fields: np.ndarray, topology: Topology, *, parts: int) -> np.ndarray:
    """Deal the peaks of the parts' heat maps to persons.

    Args:
        peaks: of the parts, in order of part.
        fields: (C, h, w) float32, finite, of the size of the heat maps.
        topology: what the fields speak of.
        parts: how many key points a person has.

    Returns:
        (N, parts) intp: per person and part a row of the peaks, or -1. No peak belongs to two persons.
    """
    first = np.searchsorted(peaks.at, np.arange(parts + 1))
    link, start, end = _candidates(first, topology)
    score = _line_integrals(peaks, fields, topology, link, start, end)
    likely = np.flatnonzero(score > 0)
    order = likely[np.lexsort((-score[likely], link[likely]))]
    persons: list[list[int]] = []
    taken = [-1] * len(peaks.at)  # by which person
    used: set[tuple[int, int, int]] = set()  # link, which end, peak
    for number, a, b in zip(link[order].tolist(), start[order].tolist(), end[order].tolist()):
        if (number, 0, a) not in used and (number, 1, b) not in used:
            used |= {(number, 0, a), (number, 1, b)}
            parts_ab = topology.links[number]
            _connect(persons, taken, (a, b), parts_ab, parts, begins=number not in topology.joining)
    grown = [person for person in persons if person]
    return np.array(grown, np.intp).reshape(-1, parts)


def _candidates(first: np.ndarray, topology: Topology) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every start with every end of every link: link, and the peaks at both ends, each (L,)."""
    found = [np.empty((3, 0), np.intp)]
    for number, (a, b) in enumerate(topology.links):
        starts, ends = np.arange(first[a], first[a + 1]), np.arange(first[b], first[b + 1])
        pairs = np.array(np.meshgrid(starts, ends, indexing='ij')).reshape(2, -1)
        found.append(np.vstack((np.full(pairs.shape[1], number), pairs)))
    link, start, end = np.concatenate(found, axis=1)
    return link, start, end


def _line_integrals(
    peaks: Peaks,
    fields: np.ndarray,
    topology: Topology,
    link: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
) -> np.ndarray:
    """How far the field points along each candidate, on the average: (L,); 0 where it does not.

    Both ends in one cell have no way between them along which it could point: such a link comes after all
    others of its kind. OpenPose enlarges the maps before it looks for peaks, so that this is rare there.
    """
    points = np.column_stack((peaks.column, peaks.row)).astype(np.float32)
    way = points[end] - points[start]  # (L, 2)
    length = np.maximum(np.hypot(way[:, 0], way[:, 1]), np.float32(1e-3))
    direction = way / length[:, None]
    steps = np.linspace(0, 1, SAMPLES, dtype=np.float32)
    cells = np.rint(points[start][:, None] + way[:, None] * steps[None, :, None]).astype(np.intp)  # (L, S, 2)
    channels = np.array(topology.fields, np.intp).reshape(-1, 2)[link]
    column, row = cells[..., 0], cells[..., 1]
    along = fields[channels[:, :1], row, column] * direction[:, :1]
    along += fields[channels[:, 1:], row, column] * direction[:, 1:]
    # OpenPose's prior: a link longer than half the map is no link.
    too_long = np.minimum(0.5 * fields.shape[1] / length - 1, 0)
    score = along.mean(axis=1) + too_long
    score = np.where((along > ALONG).mean(axis=1) >= MOST, score, 0)
    return np.where(way.any(axis=1), score, TOGETHER)


def _connect(
    persons: list[list[int]],
    taken: list[int],
    peaks_ab: tuple[int, int],
    parts_ab: tuple[int, int],
    parts: int,
    *,
    begins: bool,
) -> None:
    """Let a link begin a person, add to one, or join two; one that contradicts what is there is left out."""
    (a, b), (part_a, part_b) = peaks_ab, parts_ab
    of_a, of_b = taken[a], taken[b]
    if of_a < 0 and of_b < 0:
        if begins:
            person = [-1] * parts
            person[part_a], person[part_b] = a, b
            taken[a] = taken[b] = len(persons)
            persons.append(person)
    elif of_a < 0 or of_b < 0:
        owner, part, peak = (of_b, part_a, a) if of_a < 0 else (of_a, part_b, b)
        if persons[owner][part] < 0:
            persons[owner][part] = peak
            taken[peak] = owner
    elif of_a != of_b and not any(min(pair) >= 0 for pair in zip(persons[of_a], persons[of_b])):
        for part, peak in enumerate(persons[of_b]):
            if peak >= 0:
                persons[of_a][part] = peak
                taken[peak] = of_a
        persons[of_b] = []


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    numbers = [int(number) for number in text.replace('-', ' ').split()]
    return tuple(zip(numbers[0::2], numbers[1::2]))


# trt_pose's human_pose.json; its fields begin with the component along the rows
TRT_POSE = Topology(
    links=_pairs(
        '15-13 13-11 16-14 14-12 11-12 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6 '
        '17-0 17-5 17-6 17-11 17-12'
    ),
    fields=tuple((2 * link + 1, 2 * link) for link in range(21)),
)
# poseParameters.cpp of OpenPose: POSE_COCO_PAIRS and POSE_COCO_MAP_IDX, counted from the first field
OPENPOSE_COCO = Topology(
    links=_pairs('1-2 1-5 2-3 3-4 5-6 6-7 1-8 8-9 9-10 1-11 11-12 12-13 1-0 0-14 14-16 0-15 15-17 2-16 5-17'),
    fields=_pairs(
        '12-13 20-21 14-15 16-17 22-23 24-25 0-1 2-3 4-5 6-7 8-9 10-11 28-29 30-31 34-35 '
        '32-33 36-37 18-19 26-27'
    ),
    joining=frozenset({17, 18}),
)
# the same for BODY_25, whose fields are in the order of its pairs
OPENPOSE_BODY_25 = Topology(
    links=_pairs(
        '1-8 9-10 10-11 8-9 8-12 12-13 13-14 1-2 2-3 3-4 2-17 1-5 5-6 6-7 5-18 1-0 0-15 0-16 15-17 16-18 '
        '14-19 19-20 14-21 11-22 22-23 11-24'
    ),
    fields=tuple((2 * link, 2 * link + 1) for link in range(26)),
    joining=frozenset({10, 14}),
)
