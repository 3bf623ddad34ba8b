"""Skeleton: which key points a body has, and what links them, as data."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from isaac_infer.core.decode.document import read_document
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.text import counted, printable

Colour = tuple[int, int, int]  # blue, green, red

MAX_KEYPOINTS = 1024  # a face has 468
MAX_LINKS = 4096
LONGEST_NAME = 200  # characters; names are published with every picture
MAX_SHOWN = 8  # names in a message
LEFT, RIGHT, MIDDLE = (60, 180, 255), (220, 90, 210), (120, 220, 120)  # the sides, where no colour is said


@dataclass(frozen=True)
class Skeleton:
    """K key points by name, in the order in which a network answers, and the links that are drawn."""

    name: str
    keypoints: tuple[str, ...]
    links: tuple[tuple[int, int], ...] = ()  # pairs of key points, by index
    left: frozenset[int] = frozenset()  # key points on the body's own left side
    right: frozenset[int] = frozenset()
    colours: tuple[Colour, ...] = ()  # by key point; empty: by side
    left_out: frozenset[int] = frozenset()  # key points that count as not found

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if len(set(self.keypoints)) != count:
            raise ParameterError(f'skeleton {self.name}: expected every key point once, {self._twice()}')
        pairs = {index for link in self.links for index in link}
        if not all(0 <= index < count for index in {*pairs, *self.left, *self.right, *self.left_out}):
            raise ParameterError(f'skeleton {self.name}: expected indices from 0 to {count - 1}')
        if any(start == end for start, end in self.links):
            raise ParameterError(f'skeleton {self.name}: a link needs two different key points')
        if len(self.colours) not in (0, count):
            raise ParameterError(
                f'skeleton {self.name}: expected {counted(count, "colour")}, one per key point, '
                f'got {len(self.colours)}'
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def colour(self, index: int) -> Colour:
        """The colour of a key point."""
        if self.colours:
            return self.colours[index]
        return LEFT if index in self.left else RIGHT if index in self.right else MIDDLE

    def link_colour(self, link: tuple[int, int]) -> Colour:
        """The colour of a link: of its end, or of the side that it belongs to."""
        start, end = link
        if self.colours:
            return self.colours[end]
        sides = {start, end}
        is_left, is_right = bool(sides & self.left), bool(sides & self.right)
        return MIDDLE if is_left == is_right else LEFT if is_left else RIGHT

    def _twice(self) -> str:
        twice = sorted({name for name in self.keypoints if self.keypoints.count(name) > 1})
        return f'got {_listed(twice)} more than once'


def skeleton_for(keypoints: Sequence[str]) -> Skeleton:
    """The skeleton of a model with these key points: a known one, or what known links they have.

    Key points in another order, or some of a known skeleton, get the links whose ends are both there; names
    that nobody knows get none.
    """
    names = tuple(keypoints)
    best = max(SKELETONS.values(), key=lambda known: (known.keypoints == names, _common(known, names)))
    if best.keypoints == names:
        return best
    return _with_sides(best.name if _common(best, names) else 'unknown', names, _links_among(best, names))


def choose_skeleton(wanted: str, keypoints: Sequence[str]) -> Skeleton:
    """The skeleton that is wanted, for a model with these key points.

    Args:
        wanted: the name of a known one, or a file; empty: see `skeleton_for`.
        keypoints: in the order in which the model answers.

    Raises:
        ParameterError: there is no such skeleton, or it names key points that the model does not have.
    """
    if not wanted:
        return skeleton_for(keypoints)
    file = Path(os.path.expanduser(wanted))  # which leaves a user as it is who is not there
    if wanted not in SKELETONS and not os.path.exists(file):  # False for a name that is too long
        raise ParameterError(f'skeleton: expected a file, or one of {", ".join(SKELETONS)}, got {wanted!r}')
    return fit_skeleton(SKELETONS.get(wanted) or read_skeleton(file), keypoints)


def fit_skeleton(skeleton: Skeleton, keypoints: Sequence[str]) -> Skeleton:
    """Put the user's skeleton into the order of a model's key points; those it does not name are left out.

    Raises:
        ParameterError: the skeleton names key points that the model does not have.
    """
    unknown = [name for name in skeleton.keypoints if name not in keypoints]
    if unknown:
        raise ParameterError(
            f'skeleton {skeleton.name}: the model has no key point {_listed(unknown)}; it has '
            f'{_listed(keypoints, everything=True)}; name these in the skeleton, or rename those of the '
            'model by keypoints'
        )
    at = {name: index for index, name in enumerate(keypoints)}
    moved = [at[name] for name in skeleton.keypoints]
    colours = [skeleton.colour(skeleton.keypoints.index(name)) if name in skeleton.keypoints else MIDDLE
               for name in keypoints] if skeleton.colours else []  # fmt: skip
    return Skeleton(
        skeleton.name,
        tuple(keypoints),
        tuple((moved[start], moved[end]) for start, end in skeleton.links),
        frozenset(moved[index] for index in skeleton.left),
        frozenset(moved[index] for index in skeleton.right),
        tuple(colours),
        frozenset(index for index, name in enumerate(keypoints) if name not in skeleton.keypoints),
    )


def read_skeleton(path: Path) -> Skeleton:
    """Read a skeleton from a YAML or JSON file.

    Raises:
        ParameterError: the file cannot be read, or holds no skeleton.
    """
    try:
        content = read_document(path)
    except ValueError as error:
        raise ParameterError(f'{path}: cannot be read as a skeleton: {error}') from error
    if not isinstance(content, Mapping):
        raise ParameterError(
            f'{path}: expected a mapping with keypoints and links, got {type(content).__name__}'
        )
    return skeleton_from(content, name=path.stem)


def skeleton_from(mapping: Mapping[str, Any], *, name: str = 'own') -> Skeleton:
    """Make a skeleton of a mapping.

    Args:
        mapping: `keypoints`, a list of names; `links`, pairs of names or of indices from 0. If wanted:
            `name`; `left` and `right`, lists of names or indices, otherwise told by names that begin or end
            with the word or its letter; `colours`, a mapping from names to red, green, blue or `#ff8800`.
        name: where the mapping has none.

    Raises:
        ParameterError: something is missing, or is not what is expected.
    """
    name = str(mapping.get('name') or name)
    known = ('name', 'keypoints', 'links', 'left', 'right', 'colours')
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        raise ParameterError(f'skeleton {name}: unknown {_listed(unknown)}; there are {", ".join(known)}')
    keypoints: Any = mapping.get('keypoints')
    if not _is_list(keypoints) or not 1 <= len(keypoints) <= MAX_KEYPOINTS:
        raise ParameterError(f'skeleton {name}: expected keypoints as a list of 1 to {MAX_KEYPOINTS} names')
    names = tuple(str(keypoint) for keypoint in keypoints)
    if max(map(len, (name, *names))) > LONGEST_NAME:
        raise ParameterError(
            f'skeleton {printable(name[:LONGEST_NAME])}: expected names of at most {LONGEST_NAME} characters'
        )
    if not all(text.isprintable() for text in (name, *names)):  # half a character is not, either
        raise ParameterError(f'skeleton {printable(name)}: expected names of printable characters')
    pairs = mapping.get('links') or []
    if not _is_list(pairs) or not all(_is_list(pair) and len(pair) == 2 for pair in pairs):
        raise ParameterError(f'skeleton {name}: expected links as a list of pairs of names or indices')
    if len(pairs) > MAX_LINKS:
        raise ParameterError(f'skeleton {name}: expected {MAX_LINKS} links at most, got {len(pairs)}')
    links = tuple((_index(pair[0], names, name), _index(pair[1], names, name)) for pair in pairs)
    sided = _with_sides(name, names, links)
    sides = []
    for side, by_name in (('left', sided.left), ('right', sided.right)):
        said = mapping.get(side)
        if said is not None and not _is_list(said):
            raise ParameterError(f'skeleton {name}: expected {side} as a list of names or indices')
        sides.append(
            by_name if said is None else frozenset(_index(keypoint, names, name) for keypoint in said)
        )
    return Skeleton(name, names, links, sides[0], sides[1], _colours(mapping.get('colours'), sided, sides))


def _colours(said: Any, skeleton: Skeleton, sides: Sequence[frozenset[int]]) -> tuple[Colour, ...]:
    if not said:
        return ()
    if not isinstance(said, Mapping):
        raise ParameterError(f'skeleton {skeleton.name}: expected colours as a mapping of names')
    usual = Skeleton(skeleton.name, skeleton.keypoints, (), sides[0], sides[1])
    colours = [usual.colour(index) for index in range(len(skeleton))]
    for keypoint, value in said.items():
        if isinstance(value, str) and re.fullmatch('#[0-9a-fA-F]{6}', value):
            value = list(bytes.fromhex(value[1:]))
        parts = [part for part in value if type(part) is int and 0 <= part <= 255] if _is_list(value) else []
        if len(parts) != 3 or len(value) != 3:
            raise ParameterError(
                f'skeleton {skeleton.name}: expected the colour of {keypoint} as #ff8800 or as red, green, '
                f'blue from 0 to 255, got {str(value)[:40]!r}'
            )
        red, green, blue = parts
        colours[_index(keypoint, skeleton.keypoints, skeleton.name)] = blue, green, red
    return tuple(colours)


def _index(keypoint: Any, names: Sequence[str], skeleton: str) -> int:
    """A key point by its name, or by its number where no name is that number."""
    if str(keypoint) in names:
        return names.index(str(keypoint))
    text = str(keypoint)
    if not isinstance(keypoint, bool) and text.isdecimal() and len(text) < 6 and int(text) < len(names):
        return int(text)
    raise ParameterError(
        f'skeleton {skeleton}: there is no key point {text[:40]!r}; there are '
        f'{_listed(names, everything=True)}'
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _listed(names: Sequence[str], *, everything: bool = False) -> str:
    shown = names if everything and len(names) < 40 else names[:MAX_SHOWN]
    more = f' and {len(names) - len(shown)} more' if len(names) > len(shown) else ''
    return ', '.join(name[:40] for name in shown) + more


def _common(known: Skeleton, names: Sequence[str]) -> int:
    return len(_links_among(known, names))


def _links_among(known: Skeleton, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    at = {name: index for index, name in enumerate(names)}
    pairs = ((known.keypoints[start], known.keypoints[end]) for start, end in known.links)
    return tuple((at[start], at[end]) for start, end in pairs if start in at and end in at)


def _side(name: str) -> str:
    """Left or right, as the names of key points tell it: left_knee, l_knee, knee_left, LKnee."""
    parts = name.lower().replace('-', '_').replace(' ', '_').split('_')
    for side in ('left', 'right'):
        if side in parts or parts[0] == side[0] or parts[-1] == side[0]:
            return side
        if name[:1] == side[0].upper() and name[1:2].isupper():
            return side
    return ''


def _with_sides(name: str, keypoints: Sequence[str], links: Sequence[tuple[int, int]]) -> Skeleton:
    sides = [_side(keypoint) for keypoint in keypoints]
    left, right = (
        frozenset(index for index, side in enumerate(sides) if side == wanted) for wanted in ('left', 'right')
    )
    return Skeleton(name, tuple(keypoints), tuple(links), left, right)


# ---- the skeletons of published data sets --------------------------------------------------------


def _known(name: str, keypoints: str, links: str) -> Skeleton:
    """A skeleton from its names, and from chains of indices such as `5-7-9`."""
    chains = [[int(index) for index in chain.split('-')] for chain in links.split()]
    pairs = [pair for chain in chains for pair in pairwise(chain)]
    return _with_sides(name, keypoints.split(), pairs)


_COCO = """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow
    left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"""
_FINGERS = ('thumb', 'index_finger', 'middle_finger', 'ring_finger', 'little_finger')
_HAND = ' '.join(('wrist', *(f'{finger}{joint}' for finger in _FINGERS for joint in range(1, 5))))

SKELETONS: dict[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        _known('coco17', _COCO, '5-7-9 6-8-10 11-13-15 12-14-16 5-6 5-11 6-12 11-12 0-1-3-5 0-2-4-6 1-2'),
        # trt_pose's: COCO's own order, the neck last
        _known(
            'coco17_neck',
            _COCO + ' neck',
            '17-5-7-9 17-6-8-10 17-11-13-15 17-12-14-16 11-12 17-0 0-1-3-5 0-2-4-6 1-2',
        ),
        # OpenPose's order
        _known(
            'coco18',
            """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip
            right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear""",
            '1-2-3-4 1-5-6-7 1-8-9-10 1-11-12-13 1-0 0-14-16 0-15-17',
        ),
        _known(
            'body25',
            """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip
            right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear
            left_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel""",
            '1-2-3-4 1-5-6-7 1-8 8-9-10-11 8-12-13-14 1-0 0-15-17 0-16-18 14-19-20 14-21 11-22-23 11-24',
        ),
        _known(
            'mpii16',
            """right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck
            head_top right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist""",
            '6-2-1-0 6-3-4-5 6-7-8-9 7-12-11-10 7-13-14-15',
        ),
        # the same, in the order of EfficientPose
        _known(
            'efficientpose16',
            """head_top upper_neck right_shoulder right_elbow right_wrist thorax left_shoulder left_elbow
            left_wrist pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle""",
            '9-10-11-12 9-13-14-15 9-5-1-0 5-2-3-4 5-6-7-8',
        ),
        _known('hand21', _HAND, '0-1-2-3-4 0-5-6-7-8 0-9-10-11-12 0-13-14-15-16 0-17-18-19-20 5-9-13-17'),
    )
}
