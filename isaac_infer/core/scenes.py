"""Scene: a drawn table top with its ground truth, for demos without a camera and training without photographs.

Objects are small polygon meshes in a metric world (1 unit = 10 cm, z up, the table is z = 0), seen by a pinhole
camera and painted far to near, so that boxes, masks, key points, occlusion and shadows follow from one geometry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
Rng = np.random.Generator

CLASS_NAMES = ('mug', 'bottle', 'bowl', 'ball', 'block', 'book', 'phone', 'screwdriver', 'figurine')

KEYPOINT_NAMES = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder', 'left_elbow',
    'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
    'right_ankle',
)  # fmt: skip

# Every hundredth million belongs to nobody else: whoever trains stays below, whoever measures starts here.
HELD_OUT_SEED = 1_000_000

MIN_VISIBLE_FRACTION = 0.35  # what shows less of itself than this is taken off the table
MIN_SIDE_FRACTION = 0.025  # and so is what looks narrower than this share of the picture's long side

_SHIFT = 4  # fractional bits in the coordinates given to OpenCV
_SUPERSAMPLE = 2  # objects are painted this much larger and shrunk, which smooths their edges
_FIGURINE = CLASS_NAMES.index('figurine')
_NO_CLASS = -1


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it; all coordinates are pixels of `image`."""

    image: Picture  # (H, W, 3) uint8, BGR
    boxes_xyxy: npt.NDArray[np.float32]  # (N, 4) float32: left, top, right, bottom of the visible part
    class_id: npt.NDArray[np.int32]  # (N,) int32, index into CLASS_NAMES
    instance_map: npt.NDArray[np.uint16]  # (H, W) uint16: 0 = background, i + 1 = instance i
    keypoints: npt.NDArray[np.float32]  # (N, 17, 3) float32: x, y, visibility 0 unlabelled, 1 hidden, 2 visible


def draw_scene(
    seed: int,
    *,
    size_hw: tuple[int, int] = (480, 640),
    time_s: float = 0.0,
    camera_effects: bool = True,
) -> Scene:
    """Draw the scene that belongs to a seed.

    Args:
        seed: the same seed, size and time give the same scene again.
        size_hw: height and width of the picture in pixels.
        time_s: camera and objects drift smoothly with it, so that one seed over time is a video.
        camera_effects: False leaves out blur and sensor noise.
    """
    plan = _plan(seed, size_hw)
    camera = _camera(plan.view, size_hw, time_s)
    sprites = [_sprite(thing, plan.look, camera, time_s) for thing in plan.things]
    kept = None if time_s == 0.0 else _kept_at_start(seed, size_hw)
    shown, instance_map = _occlude(sprites, size_hw, kept)

    image = _background(plan, camera)
    image = cv2.multiply(image, _shadows(shown, plan.look, camera), scale=1 / 255)
    for sprite in sorted(shown, key=lambda sprite: sprite.order, reverse=True):
        _blend(image, sprite)
    image = _expose(image, plan.look)
    if camera_effects:
        image = _degrade(image, plan.look, time_s)
    return _with_truth(image, shown, instance_map, camera)


# --- plan: everything random about a scene, drawn once per seed -------------------------------------------------


class _Look(NamedTuple):
    """Light, exposure and camera faults of one scene."""

    to_light: Floats  # (3,) unit vector from the table towards the lamp
    ambient: float
    lamp: float
    shadow: float  # 0..1, how dark cast shadows are
    softness: float  # 0..1, how blurred
    cast_bgr: Floats  # (3,) gain per channel
    gamma: float
    gradient: Floats  # (3, 4) brightness over the picture at low resolution
    vignette: float
    defocus: float  # sigma in thousandths of the picture's long side
    motion: Floats  # (2,) blur in thousandths of the picture's long side
    noise: float  # sigma in grey levels
    noise_offset: int


class _View(NamedTuple):
    """Where the camera is and how it drifts."""

    azimuth: float
    elevation: float
    distance: float
    roll: float
    target: Floats  # (3,)
    zoom: float  # focal length over the picture's long side
    phase: float


class _Thing(NamedTuple):
    """One object of the plan."""

    class_id: int
    build: Callable[[Rng, int, float], _Body]
    seed: tuple[int, int]
    segments: int
    xy: Floats  # (2,) place on the table
    yaw: float
    phase: float
    flat: bool  # lies under everything else, like paper


class _Plan(NamedTuple):
    look: _Look
    view: _View
    things: tuple[_Thing, ...]
    wall: Picture  # (h, w, 3), low resolution
    table: Picture  # (t, t, 3) texture
    table_corners: Floats  # (4, 3) world


@lru_cache(maxsize=2)
def _plan(seed: int, size_hw: tuple[int, int]) -> _Plan:
    rng = np.random.default_rng(seed)
    look = _draw_look(rng)
    view = _draw_view(rng)
    camera = _camera(view, size_hw, 0.0)
    corners = _draw_table(rng, camera)
    table = _table_texture(rng)
    wall = _wall_texture(rng)
    return _Plan(look, view, _place(rng, seed, camera, corners), wall, table, corners)


def _draw_look(rng: Rng) -> _Look:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 1.3)
    to_light = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    warm = rng.normal(0, 0.07)
    return _Look(
        to_light=to_light,
        ambient=rng.uniform(0.45, 0.7),
        lamp=rng.uniform(0.4, 0.75),
        shadow=rng.uniform(0.25, 0.65),
        softness=rng.uniform(0.1, 1.0),
        cast_bgr=np.clip([1 - warm, 1 + rng.normal(0, 0.025), 1 + warm], 0.75, 1.25),
        gamma=float(np.exp(rng.normal(0, 0.16))),
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


def _draw_table(rng: Rng, camera: _Camera) -> Floats:
    reach = float(np.linalg.norm(camera.position))
    if rng.random() < 0.65:  # the table fills the lower part of the picture
        half_x, near, far, turn = 1.1 * reach, -0.7 * reach, rng.uniform(0.35, 1.1) * reach, rng.uniform(-0.1, 0.1)
    else:
        half_x, far, turn = rng.uniform(0.3, 0.55) * reach, rng.uniform(0.25, 0.4) * reach, rng.uniform(-0.5, 0.5)
        near = -far
    corners = np.array([[-half_x, near], [half_x, near], [half_x, far], [-half_x, far]])
    corners = np.c_[corners @ _turn(turn)[:2, :2].T, np.zeros(4)]
    while camera.project(corners)[1].min() < 0.1 * reach:
        corners = corners * 0.9
    return corners


def _place(rng: Rng, seed: int, camera: _Camera, table: Floats) -> tuple[_Thing, ...]:
    """Spread objects over the picture where the table is, without overlap on the table."""
    wanted = [int(c) for c in rng.permutation(len(CLASS_NAMES))][: int(rng.integers(3, 9))]
    wanted += [int(rng.integers(len(CLASS_NAMES))) for _ in range(int(rng.integers(0, 4)))]
    wanted += [_NO_CLASS] * int(rng.integers(0, 5))
    height, width = camera.size_hw
    pixels_per_unit = camera.focal / float(np.linalg.norm(camera.position))
    segments = int(np.clip(pixels_per_unit / 4, 12, 36))
    things: list[_Thing] = []
    taken: list[tuple[Floats, float]] = []
    for index, class_id in enumerate(wanted):
        if class_id == _NO_CLASS:
            build, flat = _DISTRACTORS[int(rng.integers(len(_DISTRACTORS)))]
        else:
            build, flat = _BUILDERS[CLASS_NAMES[class_id]], False
        key = (seed, index + 1)
        body = build(np.random.default_rng(key), 8, 0.0)
        radius = 0.9 * float(np.linalg.norm(body.quads[..., :2], axis=-1).max()) + 0.06
        yaw, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        if class_id == _FIGURINE and rng.random() < 0.75:  # most figurines look roughly at the camera
            yaw = float(np.arctan2(camera.position[1], camera.position[0])) + rng.normal(0, 0.6)
        for u, v in rng.uniform((0.05, 0.22), (0.95, 0.97), (8, 2)):
            xy = camera.on_table(u * width, v * height)
            if xy is None or not _inside(xy, table, margin=0.5 * radius):
                continue
            if not flat and any(np.linalg.norm(xy - other) < radius + room for other, room in taken):
                continue
            if not flat:
                taken.append((xy, radius))
            things.append(_Thing(class_id, build, key, segments, xy, yaw, phase, flat))
            break
    return tuple(things)


def _inside(xy: Floats, corners: Floats, *, margin: float) -> bool:
    edges = np.roll(corners[:, :2], -1, axis=0) - corners[:, :2]
    inward = np.c_[-edges[:, 1], edges[:, 0]] / np.linalg.norm(edges, axis=1, keepdims=True)
    return bool((((xy - corners[:, :2]) * inward).sum(axis=1) > margin).all())


@lru_cache(maxsize=8)
def _kept_at_start(seed: int, size_hw: tuple[int, int]) -> frozenset[tuple[int, int]]:
    """Keys of the things shown at time 0: a video neither loses nor gains objects later."""
    plan = _plan(seed, size_hw)
    camera = _camera(plan.view, size_hw, 0.0)
    shown, _ = _occlude([_sprite(thing, plan.look, camera, 0.0) for thing in plan.things], size_hw, None)
    return frozenset(sprite.thing.seed for sprite in shown)


# --- camera -----------------------------------------------------------------------------------------------------


class _Camera(NamedTuple):
    position: Floats  # (3,) world
    rotation: Floats  # (3, 3) world to camera; rows: right, down, forward
    focal: float  # pixels
    size_hw: tuple[int, int]

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Return pixels (..., 2) and depths (...) of world points (..., 3)."""
        seen = (points - self.position) @ self.rotation.T
        depth = seen[..., 2]
        centre = np.array([self.size_hw[1] / 2, self.size_hw[0] / 2])
        return seen[..., :2] * (self.focal / np.maximum(depth, 1e-6))[..., None] + centre, depth

    def on_table(self, x: float, y: float) -> Floats | None:
        """Return the table point (2,) under a pixel; None above the horizon or far away."""
        ray = np.array([x - self.size_hw[1] / 2, y - self.size_hw[0] / 2, self.focal]) @ self.rotation
        steps = -self.position[2] / min(ray[2], -1e-9)
        if steps * self.focal > 2.2 * float(np.linalg.norm(self.position)):
            return None
        return (self.position + steps * ray)[:2]


def _camera(view: _View, size_hw: tuple[int, int], time_s: float) -> _Camera:
    azimuth = view.azimuth - np.pi / 2 + 0.22 * (np.sin(0.35 * time_s + view.phase) - np.sin(view.phase))
    elevation = view.elevation + 0.05 * (np.sin(0.23 * time_s + view.phase) - np.sin(view.phase))
    forward = -np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = (
        np.cos(view.roll) * right + np.sin(view.roll) * down,
        np.cos(view.roll) * down - np.sin(view.roll) * right,
    )
    position = view.target - forward * view.distance
    return _Camera(position, np.stack([right, down, forward]), view.zoom * max(size_hw), size_hw)


# --- sprites: one object painted on its own, then occluded and blended ------------------------------------------


class _Sprite(NamedTuple):
    thing: _Thing
    order: tuple[bool, float]  # sorts near to far, what lies flat last
    left: int
    top: int
    colour: Picture  # (h, w, 3) uint8, multiplied by alpha
    alpha: Picture  # (h, w) uint8
    area: int  # pixels of the whole object, also outside the picture
    parts: list[Floats]  # world points of every part, for its shadow
    joints: Floats | None  # (17, 3) world
    facing: Floats | None  # (17,) bool-like: 1 where the joint's side of the head looks at the camera


def _sprite(thing: _Thing, look: _Look, camera: _Camera, time_s: float) -> _Sprite | None:
    """Paint one object; None if it is behind the camera or larger than the picture."""
    body = thing.build(np.random.default_rng(thing.seed), thing.segments, time_s)
    sway = np.sin(0.6 * time_s + thing.phase) - np.sin(thing.phase)
    place = np.array([*thing.xy, 0.0])
    if not thing.flat:
        place[:2] += 0.12 * sway * np.array([np.cos(thing.phase), np.sin(thing.phase)])
    turn = _turn(thing.yaw + 0.25 * sway)
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

    colours = _shade(quads, body, look, camera)
    facing = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    centre = quads.mean(axis=1)
    away = np.linalg.norm(centre - camera.position, axis=1)
    part_away = np.bincount(body.part, away) / np.bincount(body.part)
    seen = ((camera.position - centre) * facing).sum(axis=1) > 0
    order = np.lexsort((-away, body.layer, -part_away[body.part]))
    order = order[seen[order]]

    scale = _SUPERSAMPLE
    canvas = np.zeros((tall * scale, wide * scale, 4), np.uint8)
    corners = np.round((pixels[order] - (left, top)) * (scale << _SHIFT)).astype(np.int32)
    for corner, colour in zip(corners, colours[order].tolist()):
        cv2.fillConvexPoly(canvas, corner, colour, shift=_SHIFT)
    small = cv2.resize(canvas, (wide, tall), interpolation=cv2.INTER_AREA)
    colour, alpha = small[..., :3], small[..., 3]
    if body.smooth:  # blurs the facets away, yet not the outline
        size = 2 * max(1, round(0.012 * camera.focal / part_away.mean() * 4)) + 1
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
        thing, (thing.flat, distance), int(left), int(top), colour, alpha, int((alpha > 127).sum()), parts, joints,
        facing_joint,
    )  # fmt: skip
