"""Draw: results painted onto pictures, and a contact sheet of pictures."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from isaac_infer.core.results import Detections, Poses, Segmentation, mask_box
from isaac_infer.core.skeleton import Skeleton

Colour = tuple[int, int, int]  # blue, green, red
Palette = tuple[Colour, ...]  # by class index
Plate = tuple[int, int, int, int]  # left, top, right, bottom of a label

FONT = cv2.FONT_HERSHEY_DUPLEX
GOLDEN_RATIO = 0.618033988749895  # steps of this much around the colour wheel never meet
# Six in turn: after 3, 5, 8, 13 or 21 such steps, which nearly meet, it is another one.
LIGHTNESS = (0.55, 0.38, 0.7, 0.42, 0.64, 0.34)
DARK, LIGHT = (24, 24, 24), (255, 255, 255)
MIDDLE_BRIGHTNESS = 120  # 0..255: text on anything brighter is dark
LINES, TEXT_LINES = 500, 92  # so many line widths, and text heights, go into width plus height of a picture
FAR = 1e6  # pixels: corners further away are drawn there, in numbers that OpenCV can count with
_SHIFT = 4  # fractional bits in the coordinates given to OpenCV


def draw_detections(
    image_bgr: np.ndarray,
    detections: Detections,
    class_names: Sequence[str],
    *,
    line_width: int = 0,
    labels: bool = True,
    scores: bool = True,
    palette: Palette = (),
) -> np.ndarray:
    """Draw boxes and labels onto a picture, in place, and return it.

    Args:
        image_bgr: (H, W, 3) uint8.
        class_names: by class index; a class without a name is labelled by its number, and so is one whose
            name has no letter or digit that OpenCV's fonts can draw: they know ASCII, accents are left out.
        line_width: of the boxes in pixels; 0: fitting the picture.
        labels: whether to write class names.
        scores: whether to write scores.
        palette: see `class_colour`.

    Boxes that lie nowhere, since they are not finite, are left out.
    """
    sides = detections.xyxy if detections.rotated is None else detections.rotated
    detections = detections[np.isfinite(sides).all(axis=1)]
    size = sum(image_bgr.shape[:2])
    width = line_width or max(round(size / LINES), 1)
    text_height = max(round(size / TEXT_LINES), 8)
    outlines = [_outline(detections, row) for row in range(len(detections))]
    best_on_top = range(len(detections) - 1, -1, -1)
    for row in best_on_top:
        own = class_colour(int(detections.class_id[row]), palette)
        for colour, thickness in ((DARK, width + 2), (own, width)):
            _draw_closed(image_bgr, outlines[row], colour, thickness)
    labelled: list[tuple[str, Plate, Colour]] = []
    for row in range(len(detections)):
        class_id = int(detections.class_id[row])
        name = _ascii(class_names[class_id]) if 0 <= class_id < len(class_names) else ''
        if not any(character.isalnum() for character in name):
            name = str(class_id)
        parts = [name] * labels + [f'{detections.score[row]:.2f}'] * scores
        if parts:
            text = ' '.join(parts)
            taken = [plate for _, plate, _ in labelled]  # the best one chooses first
            plate = _place_label(image_bgr.shape[:2], text, outlines[row], text_height, taken)
            labelled.append((text, plate, class_colour(class_id, palette)))
    for text, plate, colour in reversed(labelled):  # and lies on top where there was no room
        _draw_label(image_bgr, text, plate, colour, text_height)
    return image_bgr


def draw_poses(
    image_bgr: np.ndarray,
    poses: Poses,
    skeleton: Skeleton,
    *,
    threshold: float = 0.3,
    boxes: bool = True,
    line_width: int = 0,
    labels: bool = True,
    scores: bool = True,
) -> np.ndarray:
    """Draw persons, their key points and the links between them onto a picture, in place, and return it.

    Args:
        image_bgr: (H, W, 3) uint8.
        poses: K key points each, as many as the skeleton has.
        skeleton: the links and the colours.
        threshold: key points that score less are left out like those of the skeleton, and so are their links.
        boxes: whether to draw the boxes and labels of the persons, each in a colour of its own.
        line_width: of the links in pixels, those of boxes are thinner; 0: fitting the picture.
        labels: whether to write the numbers of the persons, where they have some.
        scores: whether to write the scores of the persons.
    """
    height, width = image_bgr.shape[:2]
    thickness = line_width or max(round((height + width) / LINES), 1)
    near = (poses.xy > (-width, -height)).all(axis=2) & (poses.xy < (2 * width, 2 * height)).all(axis=2)
    is_drawn = near & (poses.score >= threshold) & (poses.score > 0)  # 0: not found, whatever the threshold
    is_drawn[:, sorted(skeleton.left_out)] = False
    points = np.where(is_drawn[..., None], (poses.xy - 0.5) * (1 << _SHIFT), 0)
    points = np.rint(points).astype(np.int32)
    for row in range(len(poses) - 1, -1, -1):  # the best on top
        links = [link for link in skeleton.links if is_drawn[row, link].all()]
        joints = np.flatnonzero(is_drawn[row]).tolist()
        for is_rim in (True, False):  # dark around everything, so that it is seen on any ground
            for start, end in links:
                colour = DARK if is_rim else skeleton.link_colour((start, end))
                ends = tuple(points[row, start].tolist()), tuple(points[row, end].tolist())
                cv2.line(image_bgr, *ends, colour, thickness + 2 * is_rim, cv2.LINE_AA, _SHIFT)
            for joint in joints:
                colour = DARK if is_rim else skeleton.colour(joint)
                radius = round((1.5 * thickness + is_rim) * (1 << _SHIFT))
                centre = tuple(points[row, joint].tolist())
                cv2.circle(image_bgr, centre, radius, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    if not boxes:
        return image_bgr
    # A number has its colour and is written as that of a class without a name.
    numbers = np.arange(len(poses)) if poses.ids is None else poses.ids
    persons = replace(poses.persons, class_id=numbers)
    has_labels = labels and poses.ids is not None
    thin = (thickness + 1) // 2
    return draw_detections(image_bgr, persons, (), line_width=thin, labels=has_labels, scores=scores)


def draw_segmentation(
    image_bgr: np.ndarray,
    segmentation: Segmentation,
    class_names: Sequence[str],
    *,
    opacity: float = 0.5,
    hidden: Collection[int] = (),
    boxes: bool = True,
    line_width: int = 0,
    labels: bool = True,
    scores: bool = True,
    palette: Palette = (),
) -> np.ndarray:
    """Blend classes or masks into a picture, in place, then draw boxes and labels on it, and return it.

    Args:
        image_bgr: (H, W, 3) uint8, the picture that was segmented.
        opacity: of the colours, 0..1.
        hidden: classes whose pixels stay as they are, such as the background.
        boxes: whether to draw the boxes and labels of the objects, and the outlines of their masks.
        class_names, line_width, labels, scores, palette: see `draw_detections`.
    """
    coloured = image_bgr.copy()
    colour_segmentation(coloured, segmentation, hidden=hidden, palette=palette)
    cv2.addWeighted(coloured, opacity, image_bgr, 1 - opacity, 0, dst=image_bgr)
    if not boxes:
        return image_bgr
    _outline_masks(image_bgr, segmentation, hidden, palette)
    return draw_detections(
        image_bgr,
        segmentation.objects,
        class_names,
        line_width=line_width,
        labels=labels,
        scores=scores,
        palette=palette,
    )


def colour_segmentation(
    image_bgr: np.ndarray, segmentation: Segmentation, *, hidden: Collection[int] = (), palette: Palette = ()
) -> np.ndarray:
    """Give every pixel of a class or an object its colour, in place, and return the picture.

    Args:
        image_bgr: (H, W, 3) uint8.
        hidden: classes whose pixels stay as they are.
        palette: see `class_colour`.
    """
    if segmentation.class_map is not None:
        _colour_classes(image_bgr, segmentation.class_map, hidden, palette)
        return image_bgr
    objects = segmentation.objects
    for row in range(len(objects) - 1, -1, -1):  # the best one on top
        class_id = int(objects.class_id[row])
        if class_id not in hidden:
            left, top, right, bottom = mask_box(objects.xyxy[row])
            image_bgr[top:bottom, left:right][segmentation.masks[row]] = class_colour(class_id, palette)
    return image_bgr


def _outline_masks(
    image: np.ndarray, segmentation: Segmentation, hidden: Collection[int], palette: Palette
) -> None:
    """Draw around every mask, in place, so that objects of one class can be told apart."""
    objects = segmentation.objects
    width = max(round(sum(image.shape[:2]) / LINES / 2), 1)
    around = np.ones((2 * width + 1,) * 2, np.uint8)
    for row in range(len(objects) - 1, -1, -1):  # the best one on top
        class_id, mask = int(objects.class_id[row]), segmentation.masks[row]
        if class_id not in hidden and mask.size:
            left, top, right, bottom = mask_box(objects.xyxy[row])
            # Not its contours, which take a third of a second where it is scattered.
            inner = cv2.erode(mask.astype(np.uint8), around, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            shade = [part // 2 for part in class_colour(class_id, palette)]
            image[top:bottom, left:right][mask & (inner == 0)] = shade


def _colour_classes(
    image: np.ndarray, class_map: np.ndarray, hidden: Collection[int], palette: Palette
) -> None:
    """Give every pixel the colour of its class, in place, but for those of hidden classes and of none."""
    none = np.iinfo(class_map.dtype).max  # see maps.class_map_of
    highest = int(class_map.max(initial=0))
    if highest == none:
        highest = int(class_map[class_map < none].max(initial=0))
    numbers = highest + 1
    colours = np.array([class_colour(class_id, palette) for class_id in range(numbers)], np.uint8)
    shown = np.ones(numbers, np.uint8)
    shown[[class_id for class_id in hidden if 0 <= class_id < numbers]] = 0
    if class_map.dtype == np.uint8:
        fill = 256 - numbers
        table = np.pad(colours, ((0, fill), (0, 0)))[None]
        coloured = cv2.LUT(cv2.cvtColor(class_map, cv2.COLOR_GRAY2BGR), table)
        is_shown = cv2.LUT(class_map, np.pad(shown, (0, fill)))
    else:
        # What has no class is shown as little as what is hidden.
        index = np.minimum(class_map, numbers)
        coloured, is_shown = np.pad(colours, ((0, 1), (0, 0)))[index], np.pad(shown, (0, 1))[index]
    cv2.copyTo(coloured, is_shown, image)


def class_colour(class_id: int, palette: Palette = ()) -> Colour:
    """The colour of a class: that of the palette or, beyond its end, one unlike those of its neighbours."""
    return palette[class_id] if 0 <= class_id < len(palette) else _own_colour(class_id)


@lru_cache(1024)  # numbers of persons go on and on
def _own_colour(class_id: int) -> Colour:
    hue = (0.58 + class_id * GOLDEN_RATIO) % 1.0
    lightness = LIGHTNESS[class_id % len(LIGHTNESS)]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def contact_sheet(
    images_bgr: Sequence[np.ndarray],
    *,
    captions: Sequence[str] = (),
    columns: int = 0,
    cell_wh: tuple[int, int] = (480, 360),
    background: Colour = (32, 28, 26),
) -> np.ndarray:
    """Lay pictures out in a grid, each fitted into a cell, with a caption below it.

    Args:
        images_bgr: at least one (H, W, 3) uint8; they may differ in size.
        captions: one per picture, or none at all.
        columns: of the grid; 0: about as many as rows, rather more.
        cell_wh: width and height of a cell in pixels.
    """
    columns = columns or min(max(round(len(images_bgr) ** 0.5 + 0.3), 1), len(images_bgr))
    rows = -(-len(images_bgr) // columns)
    width, height = cell_wh
    gap = max(width // 40, 4)
    text_height = gap * 2 if captions else 0
    step_x, step_y = width + gap, height + text_height + gap
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), background, np.uint8)
    for number, image in enumerate(images_bgr):
        left, top = gap + number % columns * step_x, gap + number // columns * step_y
        ratio = min(width / image.shape[1], height / image.shape[0])
        size_wh = max(round(image.shape[1] * ratio), 1), max(round(image.shape[0] * ratio), 1)
        small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
        x, y = left + (width - size_wh[0]) // 2, top + (height - size_wh[1]) // 2
        sheet[y : y + size_wh[1], x : x + size_wh[0]] = small
        if captions:
            baseline = top + height + round(text_height * 0.75)
            scale = _text_scale(gap)
            text = _ascii(captions[number])
            cv2.putText(sheet, text, (left, baseline), FONT, scale, (190, 190, 190), 1, cv2.LINE_AA)
    return sheet


def _outline(detections: Detections, row: int) -> np.ndarray:
    """Corners of a box, in order: (4, 2) float, source pixels."""
    if detections.rotated is None:
        left, top, right, bottom = detections.xyxy[row]
        outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    else:
        x, y, width, height, angle = detections.rotated[row]
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
        cos, sin = np.cos(angle), np.sin(angle)
        outline = corners @ np.array([(cos, sin), (-sin, cos)]) + (x, y)
    near: np.ndarray = np.clip(outline, -FAR, FAR)
    return near


def _draw_closed(image: np.ndarray, corners: np.ndarray, colour: Colour, thickness: int) -> None:
    # Pixel centres are at half-integers in box coordinates, at integers in OpenCV's.
    points = np.rint((corners - 0.5) * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(image, [points], True, colour, thickness, cv2.LINE_AA, _SHIFT)


def _place_label(
    size_hw: tuple[int, int], text: str, outline: np.ndarray, text_height: int, taken: Sequence[Plate]
) -> Plate:
    """Find a place inside the picture: above the box, in it, below it, whichever no other label takes."""
    (text_width, _), below = cv2.getTextSize(text, FONT, _text_scale(text_height), 1)
    margin = _margin(text_height)
    width, height = text_width + 2 * margin, text_height + below // 2 + 2 * margin
    top_x, top_y = (round(float(side)) for side in outline[outline[:, 1].argmin()])
    bottom_y = round(float(outline[:, 1].max()))
    left = max(min(top_x - margin // 2, size_hw[1] - width), 0)
    tops = (top_y - height, top_y, bottom_y, bottom_y - height, top_y + height)
    fitting = [top for top in tops if 0 <= top <= size_hw[0] - height]
    plates = [(left, top, left + width, top + height) for top in fitting or [0]]
    return next((plate for plate in plates if not any(_overlap(plate, other) for other in taken)), plates[0])


def _overlap(a: Plate, b: Plate) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _margin(text_height: int) -> int:
    return max(text_height // 3, 2)


def _draw_label(image: np.ndarray, text: str, plate: Plate, colour: Colour, text_height: int) -> None:
    left, top, right, bottom = plate
    margin = _margin(text_height)
    cv2.rectangle(image, (left, top), (right - 1, bottom - 1), colour, cv2.FILLED)
    brightness = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
    ink = DARK if brightness > MIDDLE_BRIGHTNESS else LIGHT
    baseline = left + margin, top + margin + text_height
    cv2.putText(image, text, baseline, FONT, _text_scale(text_height), ink, 1, cv2.LINE_AA)


def _ascii(text: str) -> str:
    """Give text as OpenCV's fonts can draw it: without accents, and ? for what is not ASCII even so.

    OpenCV crashes where text is not valid Unicode.
    """
    parts = unicodedata.normalize('NFKD', text)
    bare = ''.join(part for part in parts if not unicodedata.combining(part))
    return bare.encode('ascii', 'replace').decode()


def _text_scale(height: int) -> float:
    """The font scale whose capitals are so many pixels high."""
    return cv2.getFontScaleFromHeight(FONT, height, 1)
