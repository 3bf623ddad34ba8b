"""Truth: what is in the pictures of a comparison, from COCO's JSON, from class maps, or from drawn scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from isaac_infer.cli.answers import MAPS, file_name
from isaac_infer.cli.precision import coco_entries
from isaac_infer.core.decode.document import read_text
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.fit import Size
from isaac_infer.core.results import mask_box
from isaac_infer.core.scenes import Scene, draw_scene
from isaac_infer.core.shapes import CLASS_NAMES, KEYPOINT_NAMES
from isaac_infer.core.text import counted, printable

MAX_TRUTH_BYTES = 1 << 30
TRUTH_KEYS = 'images', 'annotations', 'categories'
VALUE_KEYS = 'bbox', 'area', 'iscrowd'
LONGEST_VALUE = 100  # characters of one in an error
MAP_SUFFIX = '.png'
TRUE_COLOUR = slice(25, 26), b'\2'  # where a PNG tells its colour type, and the one of red, green and blue
NOT_KNOWN = 255  # in class maps: what the pixel is does not count
BACKGROUND = 'background'
FIGURINE = 'figurine'  # the class of drawn objects that has key points
MAX_SHOWN = 3  # names in an error
FEWEST_CORNERS = 3  # of a polygon
LONGEST_OUTLINE = 1 << 22  # pixels, of an object

Object = dict[str, Any]  # of the truth or of an answer, in COCO's form


@dataclass(frozen=True)
class Known:
    """What is in one picture."""

    number: int  # of the picture, the image_id of its objects
    size_hw: Size
    objects: Sequence[Object] = ()
    class_map: np.ndarray | None = None  # (H, W) uint8; NOT_KNOWN where nobody knows


@dataclass(frozen=True)
class Truth:
    """What is in all pictures: objects, or class maps."""

    class_names: tuple[str, ...]  # by category_id of the objects; of class maps: empty, the model's own
    objects: Mapping[str, Sequence[Object]] = field(default_factory=dict)  # by file name; without image_id
    keypoints: tuple[str, ...] = ()  # of persons; empty: nobody named them
    num_keypoints: int = 0
    sizes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)  # by file name: width, height, if said
    maps: Mapping[str, Path] | None = None  # class maps by stem; None: there are objects
    num_classes: int = 0  # of class maps; 0: any number

    def names(self, picture: str) -> bool:
        """Whether the truth knows of a picture, by its file name."""
        name = Path(picture).name
        return name in self.objects if self.maps is None else Path(name).stem in self.maps

    def known(self, picture: str, number: int, size_hw: Size) -> Known | None:
        """What is in a picture; None: nobody knows.

        Raises:
            ParameterError: that does not fit the picture.
        """
        if not self.names(picture):
            return None
        name = Path(picture).name
        if self.maps is not None:
            place = self.maps[Path(name).stem]
            return Known(number, size_hw, class_map=_read_map(place, size_hw, self.num_classes))
        height, width = size_hw
        if any(said not in (None, side) for said, side in zip(self.sizes.get(name, ()), (width, height))):
            said = 'x'.join(_brief(side) for side in self.sizes[name])
            raise ParameterError(f'truth of {name}: expected a picture of {said}, got {width}x{height}')
        return Known(
            number, size_hw, [_of_picture(entry, name, number, size_hw) for entry in self.objects[name]]
        )


# ---- drawn scenes --------------------------------------------------------------------------------


def scenes_truth(kind: str) -> Truth:
    """The classes of drawn scenes; what is in each is known when it is drawn, see `draw_known`.

    Args:
        kind: `boxes`, `masks`, `pixels` or `poses`.
    """
    if kind == 'poses':
        return Truth((FIGURINE,), keypoints=KEYPOINT_NAMES, num_keypoints=len(KEYPOINT_NAMES))
    return Truth((BACKGROUND, *CLASS_NAMES) if kind == 'pixels' else CLASS_NAMES)


def draw_known(seed: int, number: int, kind: str, *, size_hw: Size = (480, 640)) -> tuple[np.ndarray, Known]:
    """Draw a scene for a kind of answer, one of humanoids for `poses`; give its picture and what is in it."""
    scene = draw_scene(seed, size_hw=size_hw, humanoids=kind == 'poses')
    return scene.image, known_of_scene(scene, number, kind)


def known_of_scene(scene: Scene, number: int, kind: str) -> Known:
    """What is in a drawn scene, with the classes of `scenes_truth`."""
    height, width = scene.image.shape[:2]
    size_hw = height, width
    if kind == 'pixels':
        table = np.array([0, *(scene.class_id + 1)], np.uint8)
        return Known(number, size_hw, class_map=table[scene.instance_map])
    entries = coco_entries(number, scene.class_id, scene.boxes_xyxy)
    if kind == 'boxes':
        return Known(number, size_hw, entries)
    for instance, entry in enumerate(entries, 1):
        left, top, right, bottom = mask_box(scene.boxes_xyxy[instance - 1])
        mask = scene.instance_map[top:bottom, left:right] == instance
        entry['area'] = int(np.count_nonzero(mask))
        if kind == 'masks':
            entry['segmentation'] = rle_of(mask, (left, top), size_hw)
        else:
            entry.update(category_id=0, **_with_keypoints(scene.keypoints[instance - 1].reshape(-1).tolist()))
    if kind == 'poses':
        figurine = CLASS_NAMES.index(FIGURINE)
        entries = [entry for entry, class_id in zip(entries, scene.class_id) if class_id == figurine]
    return Known(number, size_hw, entries)


# ---- class maps ----------------------------------------------------------------------------------


def read_maps(folder: Path, pictures: Sequence[Path]) -> Truth:
    """Find the class map of every picture in a folder: NAME.png, or NAME.labels.png of `run --save`.

    Raises:
        ParameterError: the folder cannot be read, or lacks one of them.
        OSError: a file cannot be read.
    """
    try:
        found = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == MAP_SUFFIX}
    except OSError as error:
        raise ParameterError(f'truth {folder}: cannot be read: {error.strerror}') from error
    maps = {path.stem: place for path in pictures if (place := _map_of(path, found))}
    lacking = [path.name for path in pictures if path.stem not in maps]
    if lacking:
        more = f' and {len(lacking) - MAX_SHOWN} more' if len(lacking) > MAX_SHOWN else ''
        raise ParameterError(
            f'truth {folder}: expected a class map named as each picture, such as '
            f'{Path(lacking[0]).stem}{MAP_SUFFIX}, or {_saved_stem(lacking[0])}{MAP_SUFFIX} as run --save '
            f'writes it; none for {", ".join(lacking[:MAX_SHOWN])}{more}'
        )
    stems = [path.stem for path in pictures]
    if len(set(stems)) < len(stems):
        raise ParameterError(f'truth {folder}: expected pictures of different names, got one of them twice')
    return Truth((), maps=maps)


def _map_of(picture: Path, found: Mapping[str, Path]) -> Path | None:
    """The class map of a picture among PNG files by their stems; None: there is none."""
    own, saved = found.get(picture.stem), found.get(_saved_stem(picture.name))
    if own is None or saved is None:
        return own or saved
    with own.open('rb') as file:  # which is the annotated picture where `run --save` wrote both
        where, colour = TRUE_COLOUR
        return saved if file.read(where.stop)[where] == colour else own


def _saved_stem(picture: str) -> str:
    """The stem of a picture's class map, as `run --save` names it."""
    return f'{Path(file_name(picture)).stem}.{MAPS["label_map"]}'


def _read_map(path: Path, size_hw: Size, num_classes: int) -> np.ndarray:
    try:
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # as of more pixels than OpenCV reads
        labels = None
    if labels is None:
        raise ParameterError(f'truth {path}: cannot be read as a picture')
    if labels.ndim == 2 and labels.dtype == np.uint16:
        # As `run --save` writes them where classes have no names.
        is_known = labels != np.iinfo(np.uint16).max
        if labels[is_known].max(initial=0) < NOT_KNOWN:
            labels = np.where(is_known, labels, NOT_KNOWN).astype(np.uint8)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        got = counted(labels.shape[2], 'channel') if labels.ndim == 3 else str(labels.dtype)
        raise ParameterError(
            f'truth {path}: expected grey, the number of the class in each pixel, below {NOT_KNOWN}, got '
            f'{got}; save pictures with a palette as grey numbers'
        )
    if labels.shape != size_hw:
        height, width = labels.shape
        raise ParameterError(
            f'truth {path}: expected the size of its picture, {size_hw[1]}x{size_hw[0]}, got {width}x{height}'
        )
    known = labels[labels != NOT_KNOWN]
    if num_classes and known.size and known.max() >= num_classes:
        raise ParameterError(
            f'truth {path}: expected classes from 0 to {num_classes - 1}, or {NOT_KNOWN} where it does not '
            f'count, got {known.max()}'
        )
    return labels


# ---- COCO's JSON ---------------------------------------------------------------------------------


def read_truth(path: Path, *, task: str = 'detection') -> Truth:
    """Read objects in the form of COCO.

    Args:
        path: the JSON file.
        task: what the models are for: `detection` wants boxes, `segmentation` masks, `pose` key points.

    Raises:
        ParameterError: the file cannot be read, has another form, or lacks what the task wants.
    """
    try:
        text = read_text(path, max_bytes=MAX_TRUTH_BYTES)
    except ValueError as error:
        raise ParameterError(f'truth {path}: cannot be read: {error}') from error
    try:
        content = json.loads(text)
        missing = [key for key in TRUTH_KEYS if not isinstance(content[key], list)]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ParameterError(
            f'truth {path}: expected JSON with lists of {", ".join(TRUTH_KEYS)}, as COCO has: {error}'
        ) from error
    if missing:
        raise ParameterError(f'truth {path}: expected a list of {missing[0]}, as COCO has')
    try:
        return _read_coco(content, path, task)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ParameterError(
            f'truth {path}: expected entries as COCO has them: {type(error).__name__} {error}'
        ) from error


def _read_coco(content: Mapping[str, Any], path: Path, task: str) -> Truth:
    # COCO's numbers have gaps: classes are known by their place in the order of these numbers.
    categories = sorted(content['categories'], key=lambda category: int(category['id']))
    keypoints: tuple[str, ...] = ()
    annotations = content['annotations']
    if task == 'pose':
        categories, annotations, keypoints = _persons(categories, annotations, path)
    class_number = {category['id']: number for number, category in enumerate(categories)}
    class_names = tuple(str(category['name']) for category in categories)
    names = {image['id']: Path(image['file_name']).name for image in content['images']}
    for what, expected, found in (
        ('ids of images', len(content['images']), len(names)),
        ('file names', len(names), len(set(names.values()))),
        ('ids of categories', len(categories), len(class_number)),
        ('names of categories', len(categories), len(set(class_names))),
    ):
        if found < expected:
            raise ParameterError(f'truth {path}: expected different {what}, got one of them twice')
    sizes = {names[image['id']]: (image.get('width'), image.get('height')) for image in content['images']}
    objects: dict[str, list[Object]] = {name: [] for name in names.values()}
    num_keypoints = len(keypoints)
    for number, entry in enumerate(annotations, 1):
        for key, known in (('category_id', class_number), ('image_id', names)):
            if entry[key] not in known:
                raise ParameterError(
                    f'truth {path}: annotation {number}: expected {key} as one of the ids there, '
                    f'got {_brief(entry[key])}'
                )
        object_ = _object(entry, class_number[entry['category_id']])
        if object_ is None:
            values = ', '.join(f'{key} {_brief(entry[key])}' for key in VALUE_KEYS if key in entry)
            raise ParameterError(
                f'truth {path}: annotation {number}: expected bbox [left, top, width, height] and area, '
                f'finite, sizes at least 0, and iscrowd 0 or 1; got {values}'
            )
        try:
            if task == 'segmentation':
                object_['segmentation'] = _outline(entry['segmentation'])
            elif task == 'pose':
                object_.update(_keypoints(entry['keypoints'], num_keypoints))
                num_keypoints = len(object_['keypoints']) // 3
        except (KeyError, ValueError) as error:
            lacking = f'expected {error}' if isinstance(error, KeyError) else str(error)
            raise ParameterError(f'truth {path}: annotation {number}: {lacking}') from error
        objects[names[entry['image_id']]].append(object_)
    return Truth(class_names, objects, keypoints, num_keypoints, sizes)


def _object(entry: Mapping[str, Any], class_number: int) -> Object | None:
    """Read one annotation; None where a number is none, or one that no object has."""
    bbox, is_crowd = entry['bbox'], entry.get('iscrowd', 0)
    if not (isinstance(bbox, list) and len(bbox) == 4 and is_crowd in (0, 1)):
        return None
    values = [*bbox, entry.get('area', 0)]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    left, top, width, height = bbox = [float(value) for value in bbox]
    area = float(entry.get('area', width * height))
    if not (np.isfinite([*bbox, left + width, top + height, area]).all() and min(width, height, area) >= 0):
        return None
    return {'category_id': class_number, 'bbox': bbox, 'area': area, 'iscrowd': int(is_crowd)}


def _brief(value: object) -> str:
    return printable(json.dumps(value)[:LONGEST_VALUE])


# ---- key points ----------------------------------------------------------------------------------


def _persons(
    categories: Sequence[Any], annotations: Sequence[Any], path: Path
) -> tuple[list[Any], list[Any], tuple[str, ...]]:
    """The categories that have key points, their annotations, and the names of the key points."""
    annotated = {entry['category_id'] for entry in annotations if 'keypoints' in entry}
    persons = [each for each in categories if 'keypoints' in each or each['id'] in annotated]
    if not persons:
        raise ParameterError(f'truth {path}: expected keypoints in a category or annotation, got none')
    names = {tuple(map(str, each.get('keypoints', ()))) for each in persons}
    if len(names) > 1:
        raise ParameterError(f'truth {path}: expected the same keypoints in all categories that have some')
    numbers = {each['id'] for each in persons}
    return persons, [entry for entry in annotations if entry['category_id'] in numbers], names.pop()


def _keypoints(values: Any, count: int) -> Object:
    """Read x, y, visibility, ...; of any number of key points where the count is 0."""
    wanted = f'expected keypoints as x, y and 0, 1 or 2 of {count or "all"} key points, finite'
    if not isinstance(values, list) or len(values) not in ([3 * count] if count else range(3, 1 << 16, 3)):
        raise ValueError(f'{wanted}, got {_brief(values)}')
    numbers = _numbers(values)
    if numbers is None or not np.isin(numbers[2::3], (0, 1, 2)).all():
        raise ValueError(f'{wanted}, got {_brief(values)}')
    return _with_keypoints(numbers.tolist())


def _with_keypoints(values: list[float]) -> Object:
    return {'keypoints': values, 'num_keypoints': sum(visible > 0 for visible in values[2::3])}


def _numbers(values: Sequence[Any]) -> np.ndarray | None:
    """Make an array of numbers from JSON; None where one is none, or not finite."""
    if not all(type(value) in (int, float) for value in values):
        return None
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        return None
    return numbers if np.isfinite(numbers).all() else None


# ---- masks ---------------------------------------------------------------------------------------


def _outline(segmentation: Any) -> Any:
    """Check the form of polygons or of run lengths; those that are compressed are taken apart."""
    wanted = 'expected segmentation as polygons of x, y, ..., or as size and counts'
    if isinstance(segmentation, list) and segmentation:
        if all(
            isinstance(polygon, list)
            and len(polygon) >= 2 * FEWEST_CORNERS
            and len(polygon) % 2 == 0
            and _numbers(polygon) is not None
            for polygon in segmentation
        ):
            return segmentation
    elif isinstance(segmentation, dict):
        size, counts = segmentation.get('size'), segmentation.get('counts')
        if isinstance(counts, str):
            counts = _counts_of(counts)
        if isinstance(size, list) and len(size) == 2 and isinstance(counts, list):
            if all(type(count) is int and count >= 0 for count in (*size, *counts)):
                return {'size': size, 'counts': counts}
    raise ValueError(f'{wanted}, got {_brief(segmentation)}')


def _counts_of(text: str) -> list[int] | None:
    """Take compressed run lengths apart, as COCO's API compresses them; None: they are broken."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode('latin-1', 'replace'):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)  # told by how much it grew
            value = shift = 0
    return None if shift else counts


def _of_picture(entry: Object, picture: str, number: int, size_hw: Size) -> Object:
    """Give an object the number of its picture, and its mask the form that is compared."""
    object_ = {**entry, 'image_id': number}
    outline = entry.get('segmentation')
    if outline is None:
        return object_
    from pycocotools import mask as masks

    height, width = size_hw
    if isinstance(outline, list):
        polygons = [np.reshape(polygon, (-1, 2)) for polygon in outline]
        corners = np.concatenate(polygons)
        if (corners < (-width, -height)).any() or (corners > (2 * width, 2 * height)).any():
            raise ParameterError(
                f'truth of {picture}: a polygon is far outside the picture, {width}x{height}'
            )
        # What is drawn takes memory by its length.
        length = sum(np.abs(np.diff(polygon, axis=0)).sum() for polygon in polygons)
        if length > LONGEST_OUTLINE:
            raise ParameterError(
                f'truth of {picture}: expected outlines of at most {LONGEST_OUTLINE} pixels, got {length:.0f}'
            )
        object_['segmentation'] = masks.merge(masks.frPyObjects(outline, height, width))
        return object_
    if outline['size'] != [height, width] or sum(outline['counts']) != height * width:
        raise ParameterError(
            f'truth of {picture}: expected a mask of size {[height, width]} and counts of all its pixels, '
            f'got size {_brief(outline["size"])} and counts of {sum(outline["counts"])} pixels'
        )
    object_['segmentation'] = masks.frPyObjects(outline, height, width)
    return object_


def rle_of(mask: np.ndarray, left_top: tuple[int, int], size_hw: Size) -> Object:
    """Put a mask (h, w) bool at its place in a picture, as run lengths, compressed as COCO's API does."""
    from pycocotools import mask as masks

    left, top = left_top
    height, width = size_hw
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)  # with a border above and below
    columns[:, 1:-1] = mask.T
    change = np.diff(columns, axis=1)
    begins, ends = (np.argwhere(change == sign) @ (height, 1) + left * height + top for sign in (1, -1))
    # What fills its column goes on in the next one.
    goes_on = np.zeros(len(begins), bool)
    goes_on[1:] = begins[1:] == ends[:-1]
    begins, ends = begins[~goes_on], ends[~np.roll(goes_on, -1)]
    edges = np.column_stack((begins, ends)).reshape(-1)
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    runs = {'size': [height, width], 'counts': counts if counts[-1] else counts[:-1]}
    return dict(masks.frPyObjects(runs, height, width))
