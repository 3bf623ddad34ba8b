"""Scene: a drawn table top with its ground truth, for demos without a camera and for training.

The meshes of `shapes` stand in a world of 10 cm units (z up, the table is z = 0), are seen by a pinhole
camera and painted far to near, so that boxes, masks, key points and shadows all follow from one geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from isaac_infer.core.shapes import (
    BUILDERS,
    CLASS_NAMES,
    DISTRACTORS,
    KEYPOINT_NAMES,
    Body,
    Rng,
    build_figurine,
    cross,
    random_colour,
    turn_z,
    unit,
)

MIN_VISIBLE_FRACTION = 0.35  # what shows less of itself than this is taken off the table
MIN_SIDE_FRACTION = 0.025  # and so is what looks narrower than this share of the picture's long side
HUMANOID_SCALE = 0.9, 1.9  # how much larger than other figurines those of humanoid scenes are
HUMANOID_ROOM = 0.4  # of the room that objects otherwise have: humanoids partly hide one another
HUMANOID_TOP = (
    0.42  # of the picture's height, where they stand at most, so that most heads are in the picture
)

_SHIFT = 4  # fractional bits in the coordinates given to OpenCV
_SUPERSAMPLE = 2  # objects are painted this much larger and shrunk, which smooths their edges
_FIGURINE = CLASS_NAMES.index('figurine')
_NO_CLASS = -1


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it; all coordinates are pixels of `image`."""

    image: np.ndarray  # (H, W, 3) uint8, BGR
    boxes_xyxy: np.ndarray  # (N, 4) float32: left, top, right, bottom of the visible part
    class_id: np.ndarray  # (N,) int32, index into CLASS_NAMES
    instance_map: np.ndarray  # (H, W) uint16: 0 = background, i + 1 = instance i
    keypoints: np.ndarray  # (N, 17, 3) float32: x, y, visibility 0 unlabelled, 1 hidden, 2 visible


def draw_scene(
    seed: int,
    *,
    size_hw: tuple[int, int] = (480, 640),
    time_s: float = 0.0,
    camera_effects: bool = True,
    humanoids: bool = False,
) -> Scene:
    """Draw the scene that belongs to a seed.

    Args:
        seed: the same seed, size and time give the same scene again.
        size_hw: height and width of the picture in pixels.
        time_s: camera and objects drift smoothly with it, so that one seed over time is a video.
        camera_effects: False leaves out blur and sensor noise.
        humanoids: True puts several large figurines, close to one another, and fewer other objects onto the
            same table.
    """
    plan = _plan(seed, size_hw, humanoids)
    camera = _camera(plan.view, size_hw, time_s)
    sprites = [_sprite(thing, plan.look, camera, time_s) for thing in plan.things]
    kept = None if time_s == 0.0 else _kept_at_start(seed, size_hw, humanoids)
    shown, owner = _occlude(sprites, size_hw, kept)

    image = _background(plan, camera)
    image = cv2.multiply(image, _shadows(shown, plan.look, camera), scale=1 / 255)
    for sprite in sorted(shown, key=lambda sprite: sprite.order, reverse=True):
        _blend(image, sprite)
    image = _expose(image, plan.look)
    if camera_effects:
        image = _degrade(image, plan.look, time_s)
    return _with_truth(image, shown, owner, camera)


class Cutout(NamedTuple):
    """One object on its own, to be pasted into pictures."""

    colour: np.ndarray  # (h, w, 3) uint8, BGR, multiplied by alpha
    alpha: np.ndarray  # (h, w) uint8
    foot_xy: tuple[float, float]  # where it stands, in pixels from the upper left corner
    pixels_per_unit: float  # at the place where it stands


def draw_object(name: str, seed: int, *, pixels_per_unit: float, elevation: float, look_seed: int) -> Cutout:
    """Draw one member of a class as a camera sees it from afar.

    Args:
        name: of CLASS_NAMES.
        seed: which one of its class; the figurines of most seeds look at the camera.
        elevation: of the camera above it, radians.
        look_seed: of the light, which should be one for all that stands in one picture.
    """
    distance = 12.0
    size = round(6 * pixels_per_unit)  # the tallest of them has 3 units
    view = _View(
        0.0, elevation, distance, 0.0, np.array([0.0, 0.0, 1.0]), pixels_per_unit * distance / size, 0.0
    )
    camera = _camera(view, (size, size), 0.0)
    key = np.random.default_rng(seed)
    body = BUILDERS[name](key, int(np.clip(pixels_per_unit / 2, 20, 48)))
    yaw = key.normal(-np.pi / 2, 0.6) if name == 'figurine' else key.uniform(0, 2 * np.pi)
    thing = _Thing(CLASS_NAMES.index(name), (seed, 0), 0, 1.0, body, np.zeros(2), yaw, phase=0.0, flat=False)
    sprite = _sprite(thing, _draw_look(np.random.default_rng(look_seed)), camera, 0.0)
    assert sprite is not None  # it stands in the middle of the picture
    foot, depth = camera.project(np.zeros(3))
    x, y = (foot - (sprite.left, sprite.top)).tolist()
    return Cutout(sprite.colour, sprite.alpha, (x, y), camera.focal / float(depth))


def paste(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Put a cutout, its colour multiplied by its alpha, onto a picture of the same size, in place."""
    rest = cv2.merge([255 - alpha] * 3)
    image[:] = cv2.add(cv2.multiply(image, rest, scale=1 / 255), colour)


# --- plan: everything random about a scene, drawn once per seed ---------------------------------------------


class _Look(NamedTuple):
    """Light, exposure and camera faults of one scene."""

    to_light: np.ndarray  # (3,) unit vector from the table towards the lamp
    ambient: float
    lamp: float
    shadow: float  # 0..1, how dark cast shadows are
    softness: float  # 0..1, how blurred
    cast_bgr: np.ndarray  # (3,) gain per channel
    gamma: float
    gradient: np.ndarray  # (3, 4) brightness over the picture at low resolution
    vignette: float
    defocus: float  # sigma in thousandths of the picture's long side
    motion: np.ndarray  # (2,) blur in thousandths of the picture's long side
    noise: float  # sigma in grey levels
    noise_offset: int


class _View(NamedTuple):
    """Where the camera is and how it drifts."""

    azimuth: float
    elevation: float
    distance: float
    roll: float
    target: np.ndarray  # (3,)
    zoom: float  # focal length over the picture's long side
    phase: float


class _Thing(NamedTuple):
    """One object of the plan."""

    class_id: int
    seed: tuple[int, int]
    segments: int  # corners of what is round
    scale: float  # how much larger it is than its builder makes it
    body: Body  # as it is at time 0
    xy: np.ndarray  # (2,) place on the table
    yaw: float
    phase: float
    flat: bool  # lies under everything else, like paper


class _Plan(NamedTuple):
    look: _Look
    view: _View
    things: tuple[_Thing, ...]
    wall: np.ndarray  # (h, w, 3), low resolution
    table: np.ndarray  # (t, t, 3) texture
    table_tone: np.ndarray  # (3,) mean colour
    table_corners: np.ndarray  # (4, 3) world


@lru_cache(maxsize=2)
def _plan(seed: int, size_hw: tuple[int, int], humanoids: bool) -> _Plan:
    rng = np.random.default_rng(seed)
    look = _draw_look(rng)
    view = _draw_view(rng)
    camera = _camera(view, size_hw, 0.0)
    corners = _draw_table(rng, camera)
    table = table_texture(rng)
    wall = wall_texture(rng)
    tone = np.array(cv2.mean(table)[:3])
    wanted = _wanted_humanoids(rng) if humanoids else _wanted_objects(rng)
    return _Plan(look, view, _place(rng, wanted, seed, camera, corners), wall, table, tone, corners)


def _draw_look(rng: Rng) -> _Look:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 1.3)
    to_light = np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    warm = rng.normal(0, 0.07)
    return _Look(
        to_light=to_light,
        ambient=rng.uniform(0.5, 0.75),
        lamp=rng.uniform(0.4, 0.7),
        shadow=rng.uniform(0.25, 0.65),
        softness=rng.uniform(0.1, 1.0),
        cast_bgr=np.clip([1 - warm, 1 + rng.normal(0, 0.025), 1 + warm], 0.75, 1.25),
        gamma=float(np.exp(rng.normal(-0.08, 0.16))),
        gradient=np.clip(rng.normal(1.0, 0.1, (3, 4)), 0.7, 1.25),
        vignette=rng.uniform(0, 0.25),
        defocus=rng.uniform(0.4, 2.2) if rng.random() < 0.35 else 0.0,
        motion=rng.normal(0, 5.0, 2) if rng.random() < 0.15 else np.zeros(2),
        noise=max(0.0, rng.normal(2.5, 3.0)),
        noise_offset=int(rng.integers(1 << 16)),
    )


def _draw_view(rng: Rng) -> _View:
    return _View(
        azimuth=rng.uniform(-0.4, 0.4),
        elevation=rng.uniform(0.3, 1.05),
        distance=rng.uniform(7.0, 13.0),
        roll=rng.normal(0, 0.05),
        target=np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), 0.5]),
        zoom=rng.uniform(0.95, 1.5),
        phase=rng.uniform(0, 2 * np.pi),
    )


def _draw_table(rng: Rng, camera: _Camera) -> np.ndarray:
    reach = float(np.linalg.norm(camera.position))
    if rng.random() < 0.65:  # the table fills the lower part of the picture
        half_x, near, far, turn = (
            1.1 * reach,
            -0.7 * reach,
            rng.uniform(0.35, 1.1) * reach,
            rng.uniform(-0.1, 0.1),
        )
    else:
        half_x, far, turn = (
            rng.uniform(0.3, 0.55) * reach,
            rng.uniform(0.25, 0.4) * reach,
            rng.uniform(-0.5, 0.5),
        )
        near = -far
    corners = np.array([[-half_x, near], [half_x, near], [half_x, far], [-half_x, far]])
    corners = np.column_stack([corners @ turn_z(turn)[:2, :2].T, np.zeros(4)])
    while camera.project(corners)[1].min() < 0.1 * reach:
        corners = corners * 0.9
    return corners


class _Wish(NamedTuple):
    """One object that a scene should have, if there is room."""

    class_id: int
    scale: float = 1.0
    room: float = 1.0  # of what it would need to touch nothing
    top: float = 0.22  # of the picture's height, where it stands at most


def _wanted_objects(rng: Rng) -> list[_Wish]:
    wanted = [int(c) for c in rng.permutation(len(CLASS_NAMES))][: int(rng.integers(3, 9))]
    wanted += [int(rng.integers(len(CLASS_NAMES))) for _ in range(int(rng.integers(0, 4)))]
    wanted += [_NO_CLASS] * int(rng.integers(0, 5))
    return [_Wish(class_id) for class_id in wanted]


def _wanted_humanoids(rng: Rng) -> list[_Wish]:
    """One to six figurines, about as large as one another, and up to four other things."""
    usual = rng.uniform(*HUMANOID_SCALE)
    scales = np.clip(usual * rng.uniform(0.8, 1.25, int(rng.integers(1, 7))), *HUMANOID_SCALE)
    wanted = [_Wish(_FIGURINE, scale, HUMANOID_ROOM, HUMANOID_TOP) for scale in scales.tolist()]
    others = rng.integers(_NO_CLASS, _FIGURINE, int(rng.integers(0, 5)))
    return wanted + [_Wish(class_id) for class_id in others.tolist()]


def _place(
    rng: Rng, wanted: list[_Wish], seed: int, camera: _Camera, table: np.ndarray
) -> tuple[_Thing, ...]:
    """Spread objects over the picture where the table is, with the room that they want on the table."""
    height, width = camera.size_hw
    pixels_per_unit = camera.focal / float(np.linalg.norm(camera.position))
    segments = int(np.clip(pixels_per_unit / 2, 20, 48))
    things: list[_Thing] = []
    taken: list[tuple[np.ndarray, float]] = []
    for index, (class_id, scale, room, top) in enumerate(wanted):
        if class_id == _NO_CLASS:
            build, flat = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        else:
            build, flat = BUILDERS[CLASS_NAMES[class_id]], False
        key = (seed, index + 1)
        body = _scaled(build(np.random.default_rng(key), segments), scale)
        radius = room * 0.9 * float(np.linalg.norm(body.quads[..., :2], axis=-1).max()) + 0.06
        yaw, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        if class_id == _FIGURINE and rng.random() < 0.75:  # most figurines look roughly at the camera
            yaw = float(np.arctan2(camera.position[1], camera.position[0])) + rng.normal(0, 0.6)
        for u, v in rng.uniform((0.05, top), (0.95, 0.97), (8, 2)):
            xy = camera.on_table(u * width, v * height)
            if xy is None or not _inside(xy, table, margin=0.5 * radius):
                continue
            if not flat and any(np.linalg.norm(xy - other) < radius + needed for other, needed in taken):
                continue
            if not flat:
                taken.append((xy, radius))
            things.append(_Thing(class_id, key, segments, scale, body, xy, yaw, phase, flat))
            break
    return tuple(things)


def _scaled(body: Body, scale: float) -> Body:
    joints = None if body.joints is None else body.joints * scale
    return body._replace(quads=body.quads * scale, joints=joints)


def _inside(xy: np.ndarray, corners: np.ndarray, *, margin: float) -> bool:
    edges = np.roll(corners[:, :2], -1, axis=0) - corners[:, :2]
    inward = np.c_[-edges[:, 1], edges[:, 0]] / np.linalg.norm(edges, axis=1, keepdims=True)
    return bool((((xy - corners[:, :2]) * inward).sum(axis=1) > margin).all())


@lru_cache(maxsize=8)
def _kept_at_start(seed: int, size_hw: tuple[int, int], humanoids: bool) -> frozenset[tuple[int, int]]:
    """Keys of the things shown at time 0: a video neither loses nor gains objects later."""
    plan = _plan(seed, size_hw, humanoids)
    camera = _camera(plan.view, size_hw, 0.0)
    shown, _ = _occlude([_sprite(thing, plan.look, camera, 0.0) for thing in plan.things], size_hw, None)
    return frozenset(sprite.thing.seed for sprite in shown)


# --- camera -------------------------------------------------------------------------------------------------


class _Camera(NamedTuple):
    position: np.ndarray  # (3,) world
    rotation: np.ndarray  # (3, 3) world to camera; rows: right, down, forward
    focal: float  # pixels
    size_hw: tuple[int, int]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (..., 2) and depths (...) of world points (..., 3)."""
        seen = (points - self.position) @ self.rotation.T
        depth = seen[..., 2]
        centre = np.array([self.size_hw[1] / 2, self.size_hw[0] / 2])
        return seen[..., :2] * (self.focal / np.maximum(depth, 1e-6))[..., None] + centre, depth

    def on_table(self, x: float, y: float) -> np.ndarray | None:
        """Return the table point (2,) under a pixel; None above the horizon or far away."""
        ray = np.array([x - self.size_hw[1] / 2, y - self.size_hw[0] / 2, self.focal]) @ self.rotation
        steps = -self.position[2] / min(ray[2], -1e-9)
        if steps * self.focal > 2.2 * float(np.linalg.norm(self.position)):
            return None
        point: np.ndarray = self.position + steps * ray
        return point[:2]


def _camera(view: _View, size_hw: tuple[int, int], time_s: float) -> _Camera:
    azimuth = view.azimuth - np.pi / 2 + 0.22 * (np.sin(0.35 * time_s + view.phase) - np.sin(view.phase))
    elevation = view.elevation + 0.05 * (np.sin(0.23 * time_s + view.phase) - np.sin(view.phase))
    forward = -np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    right = cross(forward, np.array([0.0, 0.0, 1.0]))
    right /= np.linalg.norm(right)
    down = cross(forward, right)
    right, down = (
        np.cos(view.roll) * right + np.sin(view.roll) * down,
        np.cos(view.roll) * down - np.sin(view.roll) * right,
    )
    position = view.target - forward * view.distance
    return _Camera(position, np.stack([right, down, forward]), view.zoom * max(size_hw), size_hw)


# --- sprites: one object painted on its own, then occluded and blended --------------------------------------


class _Sprite(NamedTuple):
    thing: _Thing
    order: tuple[bool, float]  # sorts near to far, what lies flat last
    left: int
    top: int
    colour: np.ndarray  # (h, w, 3) uint8, multiplied by alpha
    alpha: np.ndarray  # (h, w) uint8
    area: int  # pixels of the whole object, also outside the picture
    parts: list[np.ndarray]  # world points of every part, for its shadow
    joints: np.ndarray | None  # (17, 3) world
    facing: np.ndarray | None  # (17,) bool-like: 1 where the joint's side of the head looks at the camera


def _sprite(thing: _Thing, look: _Look, camera: _Camera, time_s: float) -> _Sprite | None:
    """Paint one object; None if it is behind the camera or larger than the picture."""
    body = thing.body
    if thing.class_id == _FIGURINE and time_s:
        body = build_figurine(np.random.default_rng(thing.seed), thing.segments, time_s)
        body = _scaled(body, thing.scale)
    sway = np.sin(0.6 * time_s + thing.phase) - np.sin(thing.phase)
    place = np.array([*thing.xy, 0.0])
    if not thing.flat:
        place[:2] += 0.12 * sway * np.array([np.cos(thing.phase), np.sin(thing.phase)])
    turn = turn_z(thing.yaw + 0.25 * sway)
    quads = body.quads @ turn.T + place
    pixels, depth = camera.project(quads)
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    height, width = camera.size_hw
    if depth.min() < 0.5 or (high < 0).any() or (low > (width, height)).any():
        return None
    if (high - low > 1.5 * np.array([width, height])).any():
        return None
    left, top = np.floor(low).astype(int) - 2
    wide, tall = np.ceil(high).astype(int) + 3 - (left, top)

    normal = unit(cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]))
    to_camera = camera.position - quads.mean(axis=1)
    colours = _shade(normal, unit(to_camera), body, look)
    away = np.sqrt((to_camera**2).sum(axis=1))
    part_away = np.bincount(body.part, away) / np.bincount(body.part)
    seen = (to_camera * normal).sum(axis=1) > 0
    order = np.lexsort((-away, body.layer, -part_away[body.part]))
    order = order[seen[order]]

    scale = _SUPERSAMPLE
    canvas = np.zeros((tall * scale, wide * scale, 4), np.uint8)
    corners = _fixed((pixels[order] - (left, top)) * scale)
    for corner, colour in zip(corners, colours[order].tolist(), strict=True):
        cv2.fillConvexPoly(canvas, corner, colour, shift=_SHIFT)
    small = cv2.resize(canvas, (wide, tall), interpolation=cv2.INTER_AREA)
    colour, alpha = small[..., :3], small[..., 3]
    if body.smooth:  # blurs the facets away, yet not the outline
        size = 2 * max(1, round(0.016 * camera.focal / part_away.mean())) + 1
        soft = cv2.blur(small, (size, size))
        cover = np.maximum(soft[..., 3], 1).astype(np.float32)
        gain = alpha.astype(np.float32) / cover
        colour = cv2.multiply(soft[..., :3], cv2.merge([gain] * 3), dtype=cv2.CV_8U)
    parts = [quads[body.part == part].reshape(-1, 3) for part in range(int(body.part.max()) + 1)]
    joints = facing_joint = None
    if body.joints is not None and body.joint_normals is not None:
        joints = body.joints @ turn.T + place
        facing_joint = ((camera.position - joints) * (body.joint_normals @ turn.T)).sum(axis=1) > -1e-9
    distance = float(np.linalg.norm(place - camera.position))
    return _Sprite(
        thing=thing,
        order=(thing.flat, distance),
        left=int(left),
        top=int(top),
        colour=colour,
        alpha=alpha,
        area=int((alpha > 127).sum()),
        parts=parts,
        joints=joints,
        facing=facing_joint,
    )


def _shade(normal: np.ndarray, view: np.ndarray, body: Body, look: _Look) -> np.ndarray:
    """Return one BGRA colour per quad: daylight from above, one lamp, one highlight."""
    half = unit(view + look.to_light)
    lit = np.maximum((normal @ look.to_light + 0.15) / 1.15, 0)
    shine = np.maximum((normal * half).sum(axis=1), 0) ** 24 * body.gloss
    light = look.ambient * (0.72 + 0.28 * normal[:, 2]) + look.lamp * lit
    colour = body.colour * light[:, None] + 255 * shine[:, None]
    return np.column_stack([np.minimum(colour, 255), np.full(len(normal), 255)])


def _occlude(
    sprites: list[_Sprite | None], size_hw: tuple[int, int], kept: frozenset[tuple[int, int]] | None
) -> tuple[list[_Sprite], np.ndarray]:
    """Sort near to far; return what is shown and, per pixel, 1 + the index of the sprite that owns it.

    Without `kept`, an object that is mostly hidden or tiny is left out: from near to far nothing decided
    later can hide it further.
    """
    owner = np.zeros(size_hw, np.uint16)
    shown: list[_Sprite] = []
    for sprite in sorted((sprite for sprite in sprites if sprite), key=lambda sprite: sprite.order):
        if kept is not None and sprite.thing.seed not in kept:
            continue
        here, cut = _overlap(sprite, size_hw)
        own = (sprite.alpha[cut] > 127) & (owner[here] == 0)
        if kept is None and sprite.thing.class_id != _NO_CLASS and not _is_plain(own, sprite, size_hw):
            continue
        shown.append(sprite)
        owner[here][own] = len(shown)
    return shown, owner


def _is_plain(own: np.ndarray, sprite: _Sprite, size_hw: tuple[int, int]) -> bool:
    """Return whether enough of an object is seen to ask a detector for it."""
    if own.sum() < max(1.0, MIN_VISIBLE_FRACTION * sprite.area):
        return False
    left, top, right, bottom = _tight_box(own)
    return min(right - left, bottom - top) >= MIN_SIDE_FRACTION * max(size_hw)


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _overlap(sprite: _Sprite, size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a sprite lies in the picture, and which part of the sprite that is."""
    tall, wide = sprite.alpha.shape
    top, bottom = (min(max(y, 0), size_hw[0]) for y in (sprite.top, sprite.top + tall))
    left, right = (min(max(x, 0), size_hw[1]) for x in (sprite.left, sprite.left + wide))
    inside = slice(top - sprite.top, bottom - sprite.top), slice(left - sprite.left, right - sprite.left)
    return (slice(top, bottom), slice(left, right)), inside


def _blend(image: np.ndarray, sprite: _Sprite) -> None:
    here, cut = _overlap(sprite, (image.shape[0], image.shape[1]))
    if image[here].size:
        paste(image[here], sprite.colour[cut], sprite.alpha[cut])


def _with_truth(image: np.ndarray, shown: list[_Sprite], owner: np.ndarray, camera: _Camera) -> Scene:
    label = np.zeros(len(shown) + 1, np.uint16)
    boxes: list[tuple[int, int, int, int]] = []
    class_id: list[int] = []
    keypoints: list[np.ndarray] = []
    for index, sprite in enumerate(shown):
        (rows, columns), _ = _overlap(sprite, camera.size_hw)
        own = owner[rows, columns] == index + 1
        if sprite.thing.class_id == _NO_CLASS or not _is_plain(own, sprite, camera.size_hw):
            continue
        left, top, right, bottom = _tight_box(own)
        x, y = columns.start, rows.start
        boxes.append((left + x, top + y, right + x, bottom + y))
        class_id.append(sprite.thing.class_id)
        keypoints.append(_keypoints(sprite, owner, index + 1, camera))
        label[index + 1] = len(boxes)
    return Scene(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(class_id, np.int32),
        label[owner],
        np.array(keypoints, np.float32).reshape(-1, len(KEYPOINT_NAMES), 3),
    )


def _keypoints(sprite: _Sprite, owner: np.ndarray, own: int, camera: _Camera) -> np.ndarray:
    points = np.zeros((len(KEYPOINT_NAMES), 3), np.float32)
    if sprite.joints is None or sprite.facing is None:
        return points
    pixels, _ = camera.project(sprite.joints)
    height, width = camera.size_hw
    for point, (x, y), facing in zip(points, pixels.tolist(), sprite.facing, strict=True):
        if 0 <= x < width and 0 <= y < height:
            point[:] = x, y, 2 if facing and owner[int(y), int(x)] == own else 1
    return points


# --- background and light -----------------------------------------------------------------------------------


def _background(plan: _Plan, camera: _Camera) -> np.ndarray:
    height, width = camera.size_hw
    shrink = 0.8 * plan.wall.shape[1] / max(width, height)
    drift = 0.4 * plan.wall.shape[1] * np.arctan2(*camera.rotation[2, :2])
    to_wall = np.array([[shrink, 0, 0.1 * plan.wall.shape[1] + drift], [0, shrink, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(plan.wall, to_wall, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)

    corners, _ = camera.project(plan.table_corners)
    below, _ = camera.project(plan.table_corners - (0, 0, 0.35))
    for a in range(4):
        side = np.array([corners[a], corners[a - 1], below[a - 1], below[a]])
        cv2.fillConvexPoly(image, _fixed(side), (plan.table_tone * 0.45).tolist(), cv2.LINE_AA, _SHIFT)
    size = plan.table.shape[0]
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    warp = cv2.getPerspectiveTransform(square, corners.astype(np.float32))
    cv2.warpPerspective(plan.table, warp, (width, height), image, borderMode=cv2.BORDER_TRANSPARENT)
    cv2.polylines(image, [_fixed(corners)], True, (plan.table_tone * 0.8).tolist(), 1, cv2.LINE_AA, _SHIFT)
    return image


def _fixed(points: np.ndarray) -> np.ndarray:
    """Return points in OpenCV's fixed-point drawing coordinates."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _shadows(shown: list[_Sprite], look: _Look, camera: _Camera) -> np.ndarray:
    """Return (H, W, 3) uint8 brightness: what the objects leave of the light on the table, 255 = all."""
    height, width = camera.size_hw
    scale = 192 / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    cast, contact = np.zeros((2, size[1], size[0]), np.uint8)
    for sprite in shown:
        if sprite.thing.flat:
            continue
        for points in sprite.parts:
            low = points[points[:, 2] < 0.12]
            lamp = points - look.to_light * (points[:, 2:] / look.to_light[2])
            for layer, spots in ((cast, lamp), (contact, low * (1.0, 1.0, 0.0))):
                if len(spots) > 2:
                    pixels, depth = camera.project(spots)
                    if depth.min() > 0.5:
                        pixels = np.clip(pixels * scale, -1e3, 1e4)
                        hull = cv2.convexHull(_fixed(pixels))
                        cv2.fillConvexPoly(layer, hull, 255, shift=_SHIFT)
    soft_cast = cv2.GaussianBlur(cast, (0, 0), 0.7 + 2.5 * look.softness)
    left = 255 - look.shadow * soft_cast - 0.3 * cv2.GaussianBlur(contact, (0, 0), 1.6)
    return cv2.merge([cv2.resize(np.clip(left, 0, 255).astype(np.uint8), (width, height))] * 3)


def _expose(image: np.ndarray, look: _Look) -> np.ndarray:
    """Apply uneven light, vignette, colour cast and gamma."""
    height, width = image.shape[:2]
    small = cv2.resize(look.gradient, (64, 48), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[-1:1:48j, -1:1:64j]
    small = (small * (1 - look.vignette * (x * x + y * y) / 2)).astype(np.float32)
    gain = cv2.resize(np.round(small * 160).astype(np.uint8), (width, height))
    image = cv2.multiply(image, cv2.merge([gain] * 3), scale=1 / 160)
    levels = 255 * (np.arange(256) / 255) ** look.gamma
    curve = np.clip(levels[:, None] * look.cast_bgr, 0, 255).round().astype(np.uint8)
    return cv2.LUT(image, curve[:, None])


def _degrade(image: np.ndarray, look: _Look, time_s: float) -> np.ndarray:
    """Apply defocus, motion blur and sensor noise."""
    height, width = image.shape[:2]
    pixel = max(height, width) / 1000
    if look.defocus:
        image = cv2.GaussianBlur(image, (0, 0), look.defocus * pixel)
    length = float(np.linalg.norm(look.motion)) * pixel
    if length > 1.5:
        reach = int(np.ceil(length / 2))
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        end = look.motion * pixel / 2 * (1 << _SHIFT)
        ends = [
            tuple((np.array([reach, reach]) * (1 << _SHIFT) + s * end).round().astype(int).tolist())
            for s in (-1, 1)
        ]
        cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, _SHIFT)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if look.noise > 0.3:
        tile = _noise_tile()
        shift = (look.noise_offset + round(time_s * 7919)) % (tile.shape[0] * tile.shape[1])
        tile = np.roll(tile, (shift // tile.shape[1], shift % tile.shape[1]), axis=(0, 1))
        tile = np.round(tile * look.noise).astype(np.int16)
        repeat = -(-height // tile.shape[0]), -(-width // tile.shape[1]), 1
        image = cv2.add(image, np.tile(tile, repeat)[:height, :width], dtype=cv2.CV_8U)
    return image


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """Return a patch of unit Gaussian noise; a fresh one per picture would cost more than the picture."""
    return np.random.default_rng(0).standard_normal((256, 256, 3), np.float32)


# --- textures -----------------------------------------------------------------------------------------------


def _field(rng: Rng, rows: int, columns: int, size: int) -> np.ndarray:
    """Return smooth noise (size, size), about -1..1."""
    cells = rng.random((rows, columns), np.float32) * 2 - 1
    return cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)


def table_texture(rng: Rng) -> np.ndarray:
    """Return a table top (1024, 1024, 3): one texture and its mirror images."""
    size = 512
    x = np.arange(size, dtype=np.float32)[None] / size
    y = x.T
    style = rng.choice(
        ['wood', 'plain', 'stone', 'cloth', 'tiles', 'dots'], p=[0.4, 0.2, 0.16, 0.08, 0.08, 0.08]
    )
    grain = 0.1 * _field(rng, size // 2, size // 2, size)
    if style == 'wood':
        planks = int(rng.integers(3, 9))
        tone = np.repeat(rng.uniform(-0.16, 0.16, planks), -(-size // planks))[:size, None]
        rings = np.sin(
            rng.uniform(8, 25) * (y + 0.06 * _field(rng, 8, 3, size)) + 3 * _field(rng, 12, 2, size)
        )
        level = 0.55 + tone + 0.12 * rings + 0.1 * _field(rng, 160, 8, size) + grain
        level -= 0.25 * ((y * planks) % 1 < 0.015)
        dark = random_colour(rng, (0.45, 0.75), (0.2, 0.45))
        dark = np.array([0.25, 0.45, 0.7]) * dark.max() if rng.random() < 0.8 else dark
        light = np.minimum(dark * rng.uniform(1.8, 2.4) + 25, 245)
    else:
        dark = random_colour(rng, (0.05, 0.5), (0.25, 0.8))
        light = random_colour(rng, (0.0, 0.3), (0.55, 0.97))
        count = int(rng.integers(5, 16))
        if style == 'plain':
            level = 0.6 + 0.1 * _field(rng, 5, 5, size) + grain
        elif style == 'stone':
            veins = (
                _field(rng, 5, 5, size) + 0.5 * _field(rng, 12, 12, size) + 0.25 * _field(rng, 40, 40, size)
            )
            level = 0.75 - 0.5 * np.exp(-((6 * np.abs(veins)) ** 2)) + 2 * grain
        elif style == 'cloth':
            level = 0.2 + 0.35 * ((x * count) % 1 < 0.5) + 0.35 * ((y * count) % 1 < 0.5) + grain
        elif style == 'tiles':
            joint = ((x * count) % 1 < 0.04) | ((y * count) % 1 < 0.04)
            shade = np.kron(rng.uniform(-0.1, 0.1, (count, count)), np.ones((size // count + 1,) * 2))
            level = np.where(joint, 0.1, 0.75 + shade[:size, :size]) + grain
        else:
            spot = ((x * count) % 1 - 0.5) ** 2 + ((y * count) % 1 - 0.5) ** 2
            level = np.where(spot < rng.uniform(0.01, 0.08), 0.9, 0.25) + grain
    steps = np.linspace(0, 1, 256)[:, None]
    palette = np.round(dark * (1 - steps) + light * steps).astype(np.uint8)[:, None]
    index = np.clip(level * 255, 0, 255).astype(np.uint8)
    texture = cv2.LUT(cv2.merge([index] * 3), palette)
    return cv2.copyMakeBorder(texture, 0, size, 0, size, cv2.BORDER_REFLECT)


def wall_texture(rng: Rng) -> np.ndarray:
    """Return a room out of focus, (80, 128, 3)."""
    height, width = 80, 128
    top, bottom = random_colour(rng, (0.02, 0.35), (0.35, 0.97)), random_colour(rng, (0.02, 0.35), (0.3, 0.8))
    steps = np.linspace(0, 1, height)[:, None, None]
    wall = np.broadcast_to(top * (1 - steps) + bottom * steps, (height, width, 3)).astype(np.uint8)
    wall = np.ascontiguousarray(wall)
    for _ in range(int(rng.integers(0, 12))):
        x, y, w, h = rng.uniform((0, 0, 4, 4), (width, height, 40, 40)).astype(int).tolist()
        colour = (0.5 * random_colour(rng, (0.0, 0.7)) + 0.5 * top).tolist()
        if rng.random() < 0.7:
            cv2.rectangle(wall, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(wall, (x, y), w // 3, colour, -1)
    return cv2.GaussianBlur(wall, (0, 0), rng.uniform(0.6, 4.0))
