"""Answers: what was found in one picture, as JSON, as a table, and as pictures in a folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from isaac_infer.core.draw import draw_detections, draw_poses, draw_segmentation
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.fit import Size
from isaac_infer.core.maps import background_classes, class_map_of, instance_map_of
from isaac_infer.core.results import Detections, Poses, Segmentation
from isaac_infer.core.skeleton import Skeleton
from isaac_infer.core.source import Picture
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.core.text import without_commands
from isaac_infer.engine.files import replace_file, write_whole

MAPS = {'label_map': 'labels', 'instance_masks': 'instances'}  # of a segmentation: key in JSON, kind of file
WRITTEN_SUFFIXES = ('.jpg', '.jpeg', '.png')
Found = Detections | Segmentation | Poses


class Places:
    """Where pictures are written: in a folder, each under a name of its own, none over one that is read."""

    def __init__(self, folder: Path, read: Sequence[Path], *, maps: Sequence[str] = ()) -> None:
        """Make the folder, and settle the names of the files that are read.

        Args:
            maps: the kinds of maps that are made of every picture, which are named as it is.

        Raises:
            ParameterError: one would be written over a file that is read.
            OSError: the folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._kinds = folder, ('', *maps)
        self._read = {_identity(path): path for path in read if path.exists()}
        self._places: dict[str, dict[str, Path]] = {}  # by picture and kind
        self._taken: set[Path] = set()
        for path in read:
            self(str(path))

    def __call__(self, picture: str, kind: str = '') -> Path:
        """Find the place of a picture, or of a map of some kind that was made of it.

        Raises:
            ParameterError: it would be written over a file that is read.
        """
        if picture not in self._places:
            own = self._folder / file_name(Path(picture).name)
            for number in count(1):
                stem = own.stem if number == 1 else f'{own.stem}-{number}'
                places = {
                    kind: own.with_name(f'{stem}.{kind}.png' if kind else stem + own.suffix)
                    for kind in self._kinds
                }
                if self._taken.isdisjoint(places.values()):
                    break
            for place in places.values():
                if os.path.exists(place) and _identity(place) in self._read:
                    overwritten = self._read[_identity(place)]
                    raise ParameterError(
                        f'--save {self._folder}: would overwrite {overwritten}; give another folder'
                    )
            self._taken.update(places.values())
            self._places[picture] = places
        return self._places[picture][kind]


def answer_of(picture: Picture, found: Found, spec: ModelSpec) -> dict[str, Any]:
    """What was found, for a JSON file."""
    height, width = picture.image.shape[:2]
    objects = objects_of(found)
    rows = zip(objects.class_id.tolist(), objects.score.tolist(), objects.xyxy.tolist(), strict=True)
    entries: list[dict[str, Any]] = [
        {
            'class_id': class_id,
            'class_name': spec.class_name(class_id),
            'score': round(score, 5),
            'box_xyxy': [round(side, 3) for side in box],
        }
        for class_id, score, box in rows
    ]
    for row, entry in enumerate(entries):
        if objects.rotated is not None:
            entry['rotated_xywhr'] = objects.rotated[row].tolist()
        if isinstance(found, Poses):
            points = np.column_stack((found.xy[row], found.score[row]))
            entry['keypoints'] = [
                [round(x, 3), round(y, 3), round(score, 5)] for x, y, score in points.tolist()
            ]
    return {'source': picture.name, 'size_wh': [width, height], 'detections': entries}


def objects_of(found: Found) -> Detections:
    """The boxes of what was found."""
    if isinstance(found, Segmentation):
        return found.objects
    return found.persons if isinstance(found, Poses) else found


def answer_table(answer: dict[str, Any], limits: Limits) -> Table:
    """What was found, for people."""
    width, height = answer['size_wh']
    title = Text(f'{without_commands(answer["source"])}  {width}x{height}', style='bold')
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD)
    table.add_column('class')
    for heading in ('score', 'left', 'top', 'right', 'bottom'):
        table.add_column(heading, justify='right')
    has_points = any('keypoints' in one for one in answer['detections'])
    if has_points:
        table.add_column('key points', justify='right')
    for one in answer['detections']:
        cells = [f'{side:.1f}' for side in one['box_xyxy']]
        if has_points:
            found = sum(score >= max(limits.keypoint_threshold, 1e-9) for _, _, score in one['keypoints'])
            cells.append(f'{found} of {len(one["keypoints"])}')
        table.add_row(Text(one['class_name']), f'{one["score"]:.3f}', *cells)
    if not answer['detections']:
        table.add_row('nothing found')
    return table


def answer_line(answer: dict[str, Any]) -> str:
    """How many objects of which class were found, for people."""
    found = Counter(one['class_name'] for one in answer['detections'])
    said = ', '.join(f'{number} {name}' for name, number in found.most_common()) or 'nothing found'
    return f'{without_commands(answer["source"])}: {without_commands(said)}'


def save_answer(
    picture: Picture,
    found: Found,
    spec: ModelSpec,
    limits: Limits,
    places: Places,
    skeleton: Skeleton,
) -> dict[str, str]:
    """Write the annotated picture and, of a segmentation, its maps; give where they are.

    Raises:
        OSError: a file cannot be written, or its format has no such sizes.
        cv2.error: OpenCV cannot encode it.
        ParameterError: a file that is read would be overwritten.
    """
    annotated = _write(places(picture.name), _drawn(picture.image, found, spec, limits, skeleton))
    maps = {
        key: str(_write(places(picture.name, MAPS[key]), image))
        for key, image in _maps(found, spec, (picture.image.shape[0], picture.image.shape[1]))
    }
    return {'annotated': str(annotated), **maps}


def _maps(found: Found, spec: ModelSpec, size_hw: Size) -> list[tuple[str, np.ndarray]]:
    if not isinstance(found, Segmentation):
        return []
    return [
        ('label_map', class_map_of(found, size_hw, spec.num_classes)),
        ('instance_masks', instance_map_of(found, size_hw)),
    ]


def _drawn(
    image: np.ndarray, found: Found, spec: ModelSpec, limits: Limits, skeleton: Skeleton
) -> np.ndarray:
    if isinstance(found, Segmentation):
        hidden = background_classes(spec.class_names) if found.class_map is not None else ()
        return draw_segmentation(image, found, spec.class_names, hidden=hidden)
    if isinstance(found, Poses):
        return draw_poses(image, found, skeleton, threshold=limits.keypoint_threshold)
    return draw_detections(image, found, spec.class_names)


def _write(place: Path, image: np.ndarray) -> Path:
    # Not imwrite, which crashes where a path is not valid Unicode, and does not say why it fails.
    is_encoded, data = cv2.imencode(place.suffix, image)
    if not is_encoded:
        raise OSError(f'{place.suffix} files cannot hold {image.shape[1]} x {image.shape[0]} pixels')
    # What a link points to is not in the folder, and nobody has asked for it to be written.
    (replace_file if place.is_symlink() else write_whole)(place, data.tobytes(), sync=False)
    return place


def _identity(path: Path) -> tuple[int, int]:
    """What links to the same file share."""
    status = path.stat()
    return status.st_dev, status.st_ino


def file_name(name: str) -> str:
    """A picture's own name as that of a file; what has no picture's name becomes a PNG."""
    # Pictures of a video in the order of their numbers.
    name = re.sub(r'#(\d+)$', lambda match: f'_{int(match[1]):06d}', Path(name).name)
    plain = re.sub(r'[^\w.-]+', '_', name)
    return plain if plain.lower().endswith(WRITTEN_SUFFIXES) else f'{plain}.png'
