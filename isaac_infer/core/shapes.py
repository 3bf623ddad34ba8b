"""Shape: the things that stand on a drawn table, as small polygon meshes.

Every mesh stands at the origin on z = 0; 1 unit = 10 cm. A builder draws one random member of its class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Rng = np.random.Generator

CLASS_NAMES = ('mug', 'bottle', 'bowl', 'ball', 'block', 'book', 'phone', 'screwdriver', 'figurine')

# COCO's 17, in COCO's order.
KEYPOINT_NAMES = (
    'nose',
    'left_eye',
    'right_eye',
    'left_ear',
    'right_ear',
    'left_shoulder',
    'right_shoulder',
    'left_elbow',
    'right_elbow',
    'left_wrist',
    'right_wrist',
    'left_hip',
    'right_hip',
    'left_knee',
    'right_knee',
    'left_ankle',
    'right_ankle',
)


def random_colour(
    rng: Rng, saturation: tuple[float, float] = (0.35, 0.9), value: tuple[float, float] = (0.4, 1.0)
) -> np.ndarray:
    """Return a random BGR colour (3,), 0..255; purples and greens are rarer."""
    hue = rng.choice([rng.normal(0.45, 0.4), rng.normal(3.3, 0.55), rng.uniform(0, 6)], p=[0.4, 0.4, 0.2])
    s, v = rng.uniform(*saturation), rng.uniform(*value)
    channel = (np.array([1.0, 3.0, 5.0]) + hue) % 6
    colour: np.ndarray = 255 * v * (1 - s * np.clip(np.minimum(channel, 4 - channel), 0, 1))
    return colour


class _Piece(NamedTuple):
    """Quads of one colour or of one colour each; a triangle repeats a corner."""

    quads: np.ndarray  # (F, 4, 3), counter-clockwise seen from outside
    colour: np.ndarray  # (3,) or (F, 3), BGR 0..255
    gloss: float = 0.25
    layer: int = 0  # what is printed onto another piece comes one layer later


class Body(NamedTuple):
    """A mesh ready to be painted."""

    quads: np.ndarray  # (F, 4, 3)
    colour: np.ndarray  # (F, 3)
    gloss: np.ndarray  # (F,)
    layer: np.ndarray  # (F,)
    part: np.ndarray  # (F,) nearly convex parts, painted far to near
    smooth: bool  # round, so that its facets should not show
    joints: np.ndarray | None = None  # (17, 3)
    joint_normals: np.ndarray | None = None  # (17, 3): zero where a joint is seen from all sides


def _body(*parts: list[_Piece], smooth: bool) -> Body:
    pieces = [(index, piece) for index, part in enumerate(parts) for piece in part]
    counts = [len(piece.quads) for _, piece in pieces]
    return Body(
        np.concatenate([piece.quads for _, piece in pieces]),
        np.concatenate([np.broadcast_to(piece.colour, (len(piece.quads), 3)) for _, piece in pieces]),
        np.repeat([piece.gloss for _, piece in pieces], counts),
        np.repeat([piece.layer for _, piece in pieces], counts),
        np.repeat([index for index, _ in pieces], counts),
        smooth,
    )


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross product along the last axis; np.cross takes several times as long on small arrays."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def unit(vectors: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return vectors / (length + 1e-12)


def turn_z(angle: float) -> np.ndarray:
    """Return the rotation (3, 3) about z."""
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


def _tip(angle: float) -> np.ndarray:
    """Return the rotation (3, 3) about x."""
    return np.array([[1.0, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def _lathe(profile: list[tuple[float, float]], segments: int) -> np.ndarray:
    """Turn a profile of (radius, z) about z, row by row: going up is outside, going down inside."""
    radius, z = np.array(profile).T
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    rings = np.stack(
        [
            radius[:, None] * np.cos(angle),
            radius[:, None] * np.sin(angle),
            np.repeat(z[:, None], segments + 1, 1),
        ],
        -1,
    )
    return np.stack([rings[:-1, :-1], rings[:-1, 1:], rings[1:, 1:], rings[1:, :-1]], 2).reshape(-1, 4, 3)


def _rows(colours: list[np.ndarray], segments: int) -> np.ndarray:
    """Return one colour per quad of a lathe from one colour per row."""
    return np.repeat(np.array(colours), segments, axis=0)


def _box(size: tuple[float, float, float], centre: tuple[float, float, float]) -> np.ndarray:
    """Return six quads: -x, +x, -y, +y, -z, +z."""
    x, y, z = np.array(size) / 2
    quads = [
        [(-x, y, -z), (-x, -y, -z), (-x, -y, z), (-x, y, z)],
        [(x, -y, -z), (x, y, -z), (x, y, z), (x, -y, z)],
        [(-x, -y, -z), (x, -y, -z), (x, -y, z), (-x, -y, z)],
        [(x, y, -z), (-x, y, -z), (-x, y, z), (x, y, z)],
        [(-x, y, -z), (x, y, -z), (x, -y, -z), (-x, -y, -z)],
        [(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)],
    ]
    return np.array(quads) + centre


def _patch(
    quad: np.ndarray, u: tuple[float, float], v: tuple[float, float], lift: float = 0.004
) -> np.ndarray:
    """Return a smaller quad (1, 4, 3) on a quad; u and v run 0..1 along its first and last edge."""
    origin, along, across = quad[0], quad[1] - quad[0], quad[3] - quad[0]
    normal = cross(along, across)
    origin = origin + normal * (lift / np.linalg.norm(normal))
    spots = [(u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1])]
    return np.array([[origin + a * along + b * across for a, b in spots]])


def _prism(outline: np.ndarray, low: float, high: float) -> np.ndarray:
    """Extrude a counter-clockwise outline (N, 2), whole as seen from its middle: N sides, N top, N bottom."""
    following = np.roll(outline, -1, axis=0)
    count = len(outline)

    def at(points: np.ndarray, z: float) -> np.ndarray:
        return np.column_stack([points, np.full(len(points), z)])

    middle = np.repeat(outline.mean(axis=0, keepdims=True), count, 0)
    sides = np.stack([at(outline, low), at(following, low), at(following, high), at(outline, high)], 1)
    top = np.stack([at(outline, high), at(following, high), at(middle, high), at(middle, high)], 1)
    bottom = np.stack([at(following, low), at(outline, low), at(middle, low), at(middle, low)], 1)
    return np.concatenate([sides, top, bottom])


def _round_rectangle(width: float, length: float, corner: float) -> np.ndarray:
    angle = np.linspace(0, np.pi / 2, 4)
    arc = np.c_[np.cos(angle), np.sin(angle)] * corner
    sides = [(1, 1, 0.0), (-1, 1, np.pi / 2), (-1, -1, np.pi), (1, -1, 1.5 * np.pi)]
    middle = np.array([width / 2 - corner, length / 2 - corner])
    return np.concatenate([arc @ turn_z(turn)[:2, :2].T + middle * (x, y) for x, y, turn in sides])


def _tube(path: np.ndarray, radius: float, segments: int) -> np.ndarray:
    """Return the skin of a round tube along a path (P, 3); the ends stay open."""
    tangent = np.gradient(path, axis=0)
    side = cross(
        tangent, np.array([0.03, 0.02, 1.0] if np.abs(tangent[:, 2]).max() < 1e-9 else [0.02, 1.0, 0.03])
    )
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = cross(tangent, side)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, segments + 1)[:, None]
    rings = path[:, None] + radius * (np.cos(angle) * side[:, None] + np.sin(angle) * other[:, None])
    return np.stack([rings[:-1, :-1], rings[:-1, 1:], rings[1:, 1:], rings[1:, :-1]], 2).reshape(-1, 4, 3)


def _limb(start: np.ndarray, end: np.ndarray, radius: tuple[float, float], segments: int) -> np.ndarray:
    """Return a rounded limb between two joints."""
    axis = end - start
    length = max(float(np.linalg.norm(axis)), 1e-6)
    up = axis / length
    side = cross(up, np.array([1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0]))
    side /= np.linalg.norm(side)
    frame = np.stack([side, cross(up, side), up])
    a, b = radius
    profile = [
        (0.0, -a),
        (0.7 * a, -0.7 * a),
        (a, 0.0),
        (b, length),
        (0.7 * b, length + 0.7 * b),
        (0.0, length + b),
    ]
    skin: np.ndarray = _lathe(profile, segments) @ frame + start
    return skin


def _ball_quads(radius: float, segments: int) -> np.ndarray:
    rows = max(6, segments // 2)
    angle = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    return _lathe([(radius * max(np.cos(a), 0.0), radius * np.sin(a)) for a in angle.tolist()], segments)


def _moved(body: Body, rotation: np.ndarray) -> Body:
    """Return a body turned, and put back onto the table."""
    quads = body.quads @ rotation.T
    return body._replace(quads=quads - (0, 0, quads[..., 2].min()))


def _build_mug(rng: Rng, segments: int) -> Body:
    radius, height = rng.uniform(0.36, 0.5), rng.uniform(0.8, 1.1)
    foot, wall = radius * rng.uniform(0.75, 1.0), 0.05
    colour = random_colour(rng, (0.05, 0.9), (0.45, 1.0))
    inside = np.array([235.0, 240, 242]) if rng.random() < 0.6 else colour * 0.9
    band = random_colour(rng) if rng.random() < 0.5 else colour
    fill = rng.uniform(0.55, 0.85) * height if rng.random() < 0.5 else wall
    drink = np.array([25.0, 45, 80]) if fill > wall else inside * 0.9
    levels = np.array([0, 0.12, 0.3, 0.5, 0.7, 0.88, 1.0]) * height
    outer = [(0.0, 0.0)] + [(foot + (radius - foot) * (z / height) ** 0.6, z) for z in levels.tolist()]
    inner_radius = radius - wall
    profile = [
        *outer,
        (inner_radius, height),
        (inner_radius, (height + fill) / 2),
        (inner_radius * 0.97, fill),
        (0.0, fill),
    ]
    colours = [colour, colour, colour, band, band, colour, colour, inside, inside, inside * 0.95, drink]
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 9)
    reach, middle, half = (
        rng.uniform(0.26, 0.4),
        rng.uniform(0.48, 0.56) * height,
        rng.uniform(0.26, 0.36) * height,
    )
    handle = np.c_[radius * 0.93 + reach * np.cos(angle), np.zeros(9), middle + half * np.sin(angle)]
    gloss = rng.uniform(0.1, 0.7)
    body = _body(
        [_Piece(_lathe(profile, segments), _rows(colours, segments), gloss)],
        [_Piece(_tube(handle, rng.uniform(0.05, 0.075), 8), colour, gloss)],
        smooth=True,
    )
    return (
        _moved(body, _tip(np.pi / 2) @ turn_z(rng.uniform(0.3, 2.8) - np.pi / 2))
        if rng.random() < 0.08
        else body
    )


def _build_bottle(rng: Rng, segments: int) -> Body:
    radius, height = rng.uniform(0.28, 0.4), rng.uniform(1.3, 1.8)
    neck, rise, tall = rng.uniform(0.1, 0.15), rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.6)
    colour = random_colour(rng, (0.1, 0.9), (0.25, 0.9))
    label = random_colour(rng, (0.0, 0.8), (0.5, 1.0)) if rng.random() < 0.7 else colour
    stripe = random_colour(rng) if rng.random() < 0.5 else label
    cap = random_colour(rng, (0.0, 0.9), (0.1, 0.95))
    shoulder = height + rise
    profile = [(0.0, 0.0), (0.9 * radius, 0.0), (radius, 0.06)]
    profile += [(radius, share * height) for share in (0.22, 0.42, 0.5, 0.72, 1.0)]
    profile += [(neck + (radius - neck) * np.cos(a), height + rise * np.sin(a)) for a in (0.5, 1.0, 1.4)]
    profile += [(neck, shoulder), (neck, shoulder + tall)]
    top = shoulder + tall
    profile += [(neck * 1.2, top), (neck * 1.2, top + 0.16), (0.0, top + 0.16)]
    colours = [colour, colour, colour, label, stripe, label, *[colour] * 6, cap, cap, cap]
    body = _body(
        [_Piece(_lathe(profile, segments), _rows(colours, segments), rng.uniform(0.3, 0.9))], smooth=True
    )
    return _moved(body, _tip(np.pi / 2)) if rng.random() < 0.2 else body


def _build_bowl(rng: Rng, segments: int) -> Body:
    radius, height, wall = rng.uniform(0.6, 0.95), rng.uniform(0.35, 0.6), 0.05
    colour = random_colour(rng, (0.05, 0.85), (0.4, 1.0))
    inside = random_colour(rng, (0.0, 0.5), (0.6, 1.0)) if rng.random() < 0.5 else colour
    rim = random_colour(rng) if rng.random() < 0.4 else colour
    foot = rng.uniform(0.35, 0.5) * radius
    curve = rng.uniform(0.4, 0.6)
    shares = [0.0, 0.15, 0.35, 0.6, 0.85, 1.0]
    outer = [(foot + (radius - foot) * share**curve, share * height) for share in shares]
    inner = [(r - wall, max(z, 0.04)) for r, z in outer[::-1]]
    profile = [(0.0, 0.0), *outer, *inner, (0.0, 0.04)]
    colours = [colour] * 5 + [rim, rim, *[inside] * 6]
    return _body(
        [_Piece(_lathe(profile, segments), _rows(colours, segments), rng.uniform(0.1, 0.7))], smooth=True
    )


def _build_ball(rng: Rng, segments: int) -> Body:
    radius = rng.uniform(0.22, 0.55)
    quads = _ball_quads(radius, segments)
    rows = len(quads) // segments
    row, column = np.divmod(np.arange(len(quads)), segments)
    first, second = random_colour(rng, (0.3, 0.95), (0.5, 1.0)), random_colour(rng, (0.0, 0.9), (0.6, 1.0))
    style = int(rng.integers(4))
    marked = np.array(
        [row < 0, column * 6 // segments % 2 == 0, np.abs(row - rows / 2 + 0.5) < rows / 7, row < rows / 2]
    )[style]
    colour = np.where(marked[:, None], second, first)
    tilt = turn_z(rng.uniform(0, 6.3)) @ _tip(rng.uniform(0, 3.1))
    return _moved(_body([_Piece(quads, colour, rng.uniform(0.1, 0.8))], smooth=True), tilt)


def _build_block(rng: Rng, segments: int) -> Body:
    side = rng.uniform(0.4, 0.8)
    size = (side, side * rng.uniform(0.8, 1.5), side * rng.uniform(0.75, 1.25))
    quads = _box(size, (0.0, 0.0, size[2] / 2))
    colour, mark = random_colour(rng, (0.4, 0.95), (0.45, 1.0)), random_colour(rng, (0.0, 0.9), (0.5, 1.0))
    pieces = [_Piece(quads, colour, 0.1)]
    style = int(rng.integers(4))
    if style == 1:
        pieces += [_Piece(_patch(quad, (0.15, 0.85), (0.15, 0.85)), mark, 0.1, 1) for quad in quads]
        pieces += [_Piece(_patch(quad, (0.3, 0.7), (0.3, 0.7)), colour, 0.1, 2) for quad in quads]
    if style == 2:  # a toy brick
        knob = _lathe(
            [(0.11 * side, size[2]), (0.11 * side, size[2] + 0.1 * side), (0.0, size[2] + 0.1 * side)], 10
        )
        spots = [(x, y) for y in (0.25, -0.25) for x in (-0.25, 0.25)]
        pieces += [_Piece(knob + (x * size[0], y * size[1], 0.0), colour, 0.2, 1) for x, y in spots]
    if style == 3:  # a die
        for quad, pips in zip(quads, rng.permutation(6), strict=True):
            spots = [[(0.5, 0.5)], [(0.25, 0.25), (0.75, 0.75)], [(0.25, 0.25), (0.5, 0.5), (0.75, 0.75)]][
                pips % 3
            ]
            for u, v in spots:
                pieces.append(_Piece(_patch(quad, (u - 0.09, u + 0.09), (v - 0.09, v + 0.09)), mark, 0.1, 1))
    return _body(pieces, smooth=False)


def _build_book(rng: Rng, segments: int) -> Body:
    width, length, thick = rng.uniform(1.05, 1.5), rng.uniform(1.5, 2.0), rng.uniform(0.16, 0.42)
    cover, paper = (
        random_colour(rng, (0.2, 0.95), (0.2, 0.9)),
        np.array([205.0, 226, 236]) * rng.uniform(0.85, 1.0),
    )
    ink = (
        random_colour(rng, (0.0, 0.8), (0.6, 1.0))
        if cover.mean() < 110
        else random_colour(rng, (0.0, 0.8), (0.1, 0.4))
    )
    quads = _box((width, length, thick), (0.0, 0.0, thick / 2))
    pieces = [_Piece(quads, np.array([cover] * 6), 0.15)]
    board = 0.035 / thick
    for face in (1, 2, 3):  # all sides but the spine show paper between the boards
        pieces.append(_Piece(_patch(quads[face], (0.0, 1.0), (board, 1 - board), 0.001), paper, 0.05, 1))
        for line in rng.uniform(0.2, 0.8, 2):
            pieces.append(
                _Piece(_patch(quads[face], (0.0, 1.0), (line, line + 0.03), 0.002), paper * 0.82, 0.0, 2)
            )
    top = quads[5]
    style = int(rng.integers(3))
    if style == 0:
        pieces.append(_Piece(_patch(top, (0.12, 0.88), (0.62, 0.85)), ink, 0.1, 1))
        pieces.append(_Piece(_patch(top, (0.2, 0.8), (0.7, 0.75)), cover, 0.1, 2))
    elif style == 1:
        pieces.append(_Piece(_patch(top, (0.1, 0.9), (0.08, 0.5)), random_colour(rng), 0.1, 1))
        pieces += [_Piece(_patch(top, (0.15, 0.85), (v, v + 0.06)), ink, 0.1, 1) for v in (0.7, 0.82)]
    else:
        pieces.append(_Piece(_patch(top, (0.0, 0.16), (0.0, 1.0)), ink, 0.1, 1))
        pieces.append(_Piece(_patch(top, (0.3, 0.85), (0.6, 0.68)), ink, 0.1, 1))
    pieces.append(_Piece(_patch(quads[0], (0.2, 0.7), (0.3, 0.7)), ink, 0.1, 1))
    body = _body(pieces, smooth=False)
    if rng.random() < 0.2:  # upright
        return _moved(body, _tip(np.pi / 2))
    return _moved(body, _tip(np.pi)) if rng.random() < 0.15 else body


def _build_phone(rng: Rng, segments: int) -> Body:
    width, length, thick = rng.uniform(0.68, 0.8), rng.uniform(1.38, 1.6), 0.09
    outline = _round_rectangle(width, length, 0.12)
    case = random_colour(rng, (0.0, 0.6), (0.08, 0.9))
    skin = _prism(outline, 0.0, thick)
    glass = _prism(outline * 0.93, 0.0, thick + 0.003)[len(outline) : 2 * len(outline)]
    lit = rng.random() < 0.6
    screen = random_colour(rng, (0.3, 0.9), (0.5, 1.0)) if lit else np.array([32.0, 28, 26])
    face = _box((width * 0.86, length * 0.88, thick), (0.0, 0.0, thick / 2))[5]
    pieces = [_Piece(skin, case, 0.3), _Piece(glass, np.array([24.0, 22, 20]), 0.6, 1)]
    bands = np.linspace(0, 1, 11)
    tint = random_colour(rng, (0.2, 0.9), (0.4, 1.0)) if lit else screen * 1.15
    for low, high in zip(bands[:-1].tolist(), bands[1:].tolist(), strict=True):
        pieces.append(_Piece(_patch(face, (0.0, 1.0), (low, high)), screen * (1 - low) + tint * low, 0.5, 2))
    if lit:
        for row in range(int(rng.integers(2, 6))):
            for column in range(4):
                u, v = 0.08 + 0.23 * column, 0.82 - 0.14 * row
                icon = _patch(face, (u, u + 0.15), (v, v + 0.08), 0.005)
                pieces.append(_Piece(icon, random_colour(rng, (0.1, 0.9), (0.6, 1.0)), 0.3, 3))
    back = _box((width, length, thick), (0.0, 0.0, thick / 2))[4]
    bump = _patch(back, (0.08, 0.42), (0.06, 0.26), 0.01)
    pieces.append(_Piece(bump, case * 0.6 + 20, 0.3, 1))
    for u, v in ((0.16, 0.11), (0.34, 0.11), (0.16, 0.21)):
        pieces.append(
            _Piece(_patch(back, (u - 0.05, u + 0.05), (v - 0.025, v + 0.025), 0.012), case * 0.0 + 18, 0.8, 2)
        )
    body = _body(pieces, smooth=False)
    pose = rng.random()
    if pose < 0.2:
        return _moved(body, _tip(np.pi))
    if pose < 0.4:
        return _moved(body, _tip(rng.uniform(1.0, 1.35)))  # leaning back on a stand too small to see
    return body


def _build_screwdriver(rng: Rng, segments: int) -> Body:
    grip, shaft = rng.uniform(0.75, 1.0), rng.uniform(0.75, 1.2)
    radius, thin = rng.uniform(0.14, 0.19), rng.uniform(0.04, 0.06)
    colour, ring = random_colour(rng, (0.5, 0.95), (0.4, 1.0)), random_colour(rng, (0.0, 0.9), (0.05, 0.9))
    shares = [
        (0.0, 0.0),
        (0.7, 0.0),
        (0.95, 0.06),
        (1.0, 0.2),
        (0.85, 0.35),
        (0.95, 0.5),
        (1.0, 0.75),
        (0.9, 0.85),
    ]
    profile = [(radius * r, grip * z) for r, z in shares]
    profile += [(0.55 * radius, grip * 0.93), (0.6 * radius, grip), (thin, grip)]
    colours = [colour, ring, *[colour] * 4, ring, colour, ring, ring]
    count = max(10, segments // 2)
    steel = np.array([190.0, 186, 182])
    grooved = (
        _rows(colours, count) * np.where(np.arange(len(colours) * count) % count % 3 == 0, 0.8, 1.0)[:, None]
    )
    rod = _lathe([(thin, grip), (thin, grip + shaft * 0.9)], 8)
    tip = _box((2.6 * thin, 0.7 * thin, shaft * 0.12), (0.0, 0.0, grip + shaft * 0.94))
    body = _body(
        [_Piece(_lathe(profile, count), grooved, 0.5)],
        [_Piece(rod, steel, 0.9)],
        [_Piece(tip, steel * 0.85, 0.5)],
        smooth=True,
    )
    lying = body.quads - (0.0, 0.0, (grip + shaft) / 2)
    return _moved(body._replace(quads=lying), _tip(np.pi / 2 + np.arctan2(radius - thin, grip + shaft)))


def _swing(forward: float, outward: float, side: float) -> np.ndarray:
    """Return the direction of a limb that hangs down, swung forward (to +x) and outward (to side * y)."""
    return np.array(
        [np.sin(forward) * np.cos(outward), side * np.sin(outward), -np.cos(forward) * np.cos(outward)]
    )


def _pose(rng: Rng, time_s: float) -> dict[str, np.ndarray]:
    """Return limb angles of a figurine, radians; rows are left and right."""
    kind = rng.choice(['stand', 'wave', 'cheer', 'walk', 'sit', 'spread', 'free'])
    arm, bend = rng.uniform(-0.3, 0.4, 2), rng.uniform(0.1, 0.5, 2)
    out = rng.uniform(0.12, 0.4, 2)
    leg, knee, stance = rng.uniform(-0.1, 0.1, 2), rng.uniform(0.0, 0.1, 2), rng.uniform(0.05, 0.2, 2)
    beat = 0.25 * np.sin(2.2 * time_s + rng.uniform(0, 6.3))
    if kind == 'wave':
        out[0], bend[0], arm[0] = 1.7 + 0.4 * beat, 0.3, 0.2
    elif kind == 'cheer':
        out, arm = rng.uniform(2.2, 2.8, 2) + 0.3 * beat, rng.uniform(-0.2, 0.3, 2)
    elif kind == 'walk':
        stride = rng.uniform(0.3, 0.6) + beat
        leg, arm, knee = np.array([stride, -stride]), np.array([-stride, stride]), np.array([0.1, 0.5])
    elif kind == 'sit':
        leg, knee = rng.uniform(1.3, 1.6, 2), rng.uniform(0.0, 0.9, 2)
        arm = rng.uniform(0.1, 1.0, 2)
    elif kind == 'spread':
        out = rng.uniform(1.2, 1.75, 2) + 0.3 * beat
    elif kind == 'free':
        arm, bend, out = rng.uniform(-0.6, 2.2, 2) + beat, rng.uniform(0, 1.8, 2), rng.uniform(0.1, 1.3, 2)
        leg, knee = rng.uniform(-0.3, 0.8, 2), rng.uniform(0.0, 0.9, 2)
    lean = np.array([rng.normal(0, 0.12), rng.normal(0, 0.08)])
    head = np.array([rng.normal(0, 0.4) + beat, rng.normal(0, 0.15)])
    return {
        'arm': arm,
        'bend': bend,
        'out': out,
        'leg': leg,
        'knee': knee,
        'stance': stance,
        'lean': lean,
        'head': head,
    }


def build_figurine(rng: Rng, segments: int, time_s: float = 0.0) -> Body:
    """Build a toy robot or a toy person that looks along +x, with the 17 joints of COCO."""
    machine = bool(rng.random() < 0.5)
    tall = rng.uniform(1.7, 2.5)
    thigh, shin, trunk = tall * 0.22, tall * 0.21, tall * rng.uniform(0.27, 0.31)
    hip_half, shoulder_half = tall * rng.uniform(0.055, 0.075), tall * rng.uniform(0.115, 0.145)
    skull = tall * rng.uniform(0.085, 0.115)
    thick = tall * rng.uniform(0.032, 0.045)
    pose = _pose(np.random.default_rng(int(rng.integers(1 << 31))), time_s)
    up = np.array([np.sin(pose['lean'][0]), np.sin(pose['lean'][1]), 1.0])
    up /= np.linalg.norm(up)
    forward = cross(np.array([0.0, 1.0, 0.0]), up)
    forward /= np.linalg.norm(forward)
    left = cross(up, forward)
    chest = trunk * up
    neck = chest + 0.35 * skull * up
    turn = pose['head'][0]
    gaze = np.cos(turn) * forward + np.sin(turn) * left + np.sin(pose['head'][1]) * up
    gaze /= np.linalg.norm(gaze)
    ear = cross(up, gaze)
    ear /= np.linalg.norm(ear)
    crown = cross(gaze, ear)
    head = neck + 0.95 * skull * up

    pairs: dict[str, list[np.ndarray]] = {
        name: [] for name in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
    }
    for index, side in enumerate((1.0, -1.0)):
        shoulder = 0.93 * chest + side * shoulder_half * left
        elbow = shoulder + tall * 0.16 * _swing(pose['arm'][index], pose['out'][index], side)
        wrist = elbow + tall * 0.15 * _swing(
            pose['arm'][index] + pose['bend'][index], 0.9 * pose['out'][index], side
        )
        hip = np.array([0.0, side * hip_half, 0.0])
        knee = hip + thigh * _swing(pose['leg'][index], pose['stance'][index], side)
        ankle = knee + shin * _swing(
            pose['leg'][index] - pose['knee'][index], 0.5 * pose['stance'][index], side
        )
        for name, joint in zip(pairs, (shoulder, elbow, wrist, hip, knee, ankle), strict=True):
            pairs[name].append(joint)

    count = 8
    skin = np.array([120.0, 165, 225]) * rng.uniform(0.4, 1.08)
    metal = random_colour(rng, (0.0, 0.75), (0.45, 0.98))
    shirt, trousers, shoes = (
        random_colour(rng),
        random_colour(rng, (0.1, 0.8), (0.15, 0.8)),
        random_colour(rng, (0.0, 0.7), (0.08, 0.6)),
    )
    accent = random_colour(rng, (0.5, 1.0), (0.6, 1.0))
    if machine:
        skin, shirt, trousers, shoes = metal, metal, metal * 0.85, accent * 0.8
    sleeve = shirt if machine or rng.random() < 0.6 else skin
    gloss = 0.5 if machine else 0.1
    frame = np.stack([forward, left, up])
    parts: list[list[_Piece]] = []
    for index in range(2):
        shoulder, elbow, wrist, hip, knee, ankle = (joints[index] for joints in pairs.values())
        hand = wrist + 0.35 * thick * (wrist - elbow) / np.linalg.norm(wrist - elbow)
        parts.append([_Piece(_limb(shoulder, elbow, (1.05 * thick, 0.85 * thick), count), shirt, gloss)])
        parts.append([_Piece(_limb(elbow, wrist, (0.85 * thick, 0.7 * thick), count), sleeve, gloss)])
        parts.append([_Piece(_ball_quads(0.95 * thick, count) + hand, accent if machine else skin, gloss)])
        parts.append([_Piece(_limb(hip, knee, (1.35 * thick, 1.1 * thick), count), trousers, gloss)])
        parts.append([_Piece(_limb(knee, ankle, (1.1 * thick, 0.85 * thick), count), trousers, gloss)])
        toe = ankle + np.array([1.6 * thick, 0.0, -0.45 * thick])
        parts.append(
            [
                _Piece(
                    _limb(ankle - (0, 0, 0.45 * thick), toe, (0.95 * thick, 0.8 * thick), count), shoes, gloss
                )
            ]
        )
    if machine:
        shell = (
            _box((0.7 * shoulder_half * 1.3, 1.75 * shoulder_half, trunk * 1.02), (0.0, 0.0, trunk * 0.5))
            @ frame
        )
        panel = shell[1]
        trunk_part = [
            _Piece(shell, metal, 0.3),
            _Piece(_patch(panel, (0.18, 0.82), (0.45, 0.85)), metal * 0.35, 0.4, 1),
        ]
        for spot in (0.25, 0.45, 0.65):
            trunk_part.append(_Piece(_patch(panel, (spot, spot + 0.1), (0.6, 0.72)), accent, 0.5, 2))
        skull_box = (
            _box((1.6 * skull, 1.9 * skull, 1.6 * skull), (0.0, 0.0, 0.0)) @ np.stack([gaze, ear, crown])
            + head
        )
        head_part = [_Piece(skull_box, metal * 1.05, 0.3)]
        visor = skull_box[1]
        head_part.append(_Piece(_patch(visor, (0.1, 0.9), (0.42, 0.82)), np.array([40.0, 32, 28]), 0.6, 1))
        for u in (0.22, 0.62):
            head_part.append(
                _Piece(_patch(visor, (u, u + 0.16), (0.52, 0.74), 0.008), accent * 0.5 + 127, 0.0, 2)
            )
        head_part.append(_Piece(_patch(visor, (0.3, 0.7), (0.16, 0.24), 0.008), metal * 0.4, 0.0, 2))
        parts += [trunk_part, head_part]
        if rng.random() < 0.7:
            tip = head + 1.45 * skull * crown
            parts.append(
                [_Piece(_limb(head + 0.7 * skull * crown, tip, (0.08 * skull, 0.06 * skull), 6), metal * 0.6)]
            )
            parts.append([_Piece(_ball_quads(0.17 * skull, 8) + tip, accent, 0.6)])
    else:
        waist = np.array([0.55, 1.0, 1.0])
        profile = [
            (0.0, -0.12),
            (0.85, -0.08),
            (0.92, 0.2),
            (0.9, 0.45),
            (1.05, 0.8),
            (0.8, 1.0),
            (0.0, 1.06),
        ]
        torso = _lathe([(0.85 * r * shoulder_half, z * trunk) for r, z in profile], 12) * waist @ frame
        colours = [trousers, trousers, shirt, shirt, shirt, shirt]
        parts.append([_Piece(torso, _rows(colours, 12), gloss)])
        parts.append([_Piece(_limb(chest, head, (0.4 * skull, 0.4 * skull), count), skin, gloss)])
        ball = _ball_quads(skull, 14)
        hair = random_colour(rng, (0.2, 0.8), (0.08, 0.7))
        axes = np.stack([gaze, ear, crown])
        middle = ball.mean(axis=1)
        hairy = (middle[:, 2] > 0.45 * skull) | (
            (middle[:, 0] < -0.15 * skull) & (middle[:, 2] > -0.5 * skull)
        )
        face = _Piece(ball * (0.95, 0.9, 1.08) @ axes + head, np.where(hairy[:, None], hair, skin), gloss)
        nose = _Piece(
            _ball_quads(0.16 * skull, 6) + head + 0.98 * skull * gaze - 0.08 * skull * crown,
            skin * 0.9,
            gloss,
        )
        parts += [[face], [nose]]
        for side in (1.0, -1.0):
            eye = head + 0.86 * skull * gaze + side * 0.36 * skull * ear + 0.2 * skull * crown
            parts.append([_Piece(_ball_quads(0.13 * skull, 6) + eye, np.array([30.0, 25, 20]), 0.8)])
            parts.append(
                [_Piece(_ball_quads(0.2 * skull, 6) + head + side * 0.88 * skull * ear, skin * 0.95, gloss)]
            )

    joints = [head + 0.95 * skull * gaze]
    joints += [
        head + 0.82 * skull * gaze + side * 0.36 * skull * ear + 0.2 * skull * crown for side in (1.0, -1.0)
    ]
    joints += [head + side * 0.92 * skull * ear for side in (1.0, -1.0)]
    joints += [joint for pair in pairs.values() for joint in pair]
    normals = np.zeros((len(KEYPOINT_NAMES), 3))
    normals[:5] = gaze, gaze, gaze, ear, -ear
    body = _body(*parts, smooth=False)
    ground = np.array([0.0, 0.0, body.quads[..., 2].min()])
    return body._replace(quads=body.quads - ground, joints=np.array(joints) - ground, joint_normals=normals)


def _build_cone(rng: Rng, segments: int) -> Body:
    radius, height = rng.uniform(0.25, 0.45), rng.uniform(0.5, 1.0)
    first, second = random_colour(rng), random_colour(rng, (0.0, 0.5), (0.6, 1.0))
    profile = [(0.0, 0.0), *[(radius * (1 - share), share * height) for share in (0.0, 0.3, 0.6, 1.0)]]
    return _body(
        [_Piece(_lathe(profile, segments), _rows([first, first, second, first], segments))], smooth=True
    )


def _build_pyramid(rng: Rng, segments: int) -> Body:
    side, height = rng.uniform(0.3, 0.5), rng.uniform(0.4, 0.8)
    quads = _lathe([(0.0, 0.0), (side, 0.0), (0.0, height)], int(rng.integers(3, 6)))
    return _body([_Piece(quads, random_colour(rng), 0.1)], smooth=False)


def _build_ring(rng: Rng, segments: int) -> Body:
    radius, thick = rng.uniform(0.25, 0.45), rng.uniform(0.06, 0.12)
    angle = np.linspace(0, 2 * np.pi, 9).tolist()
    profile = [(radius + thick * np.sin(a), thick * (1 - np.cos(a))) for a in angle]
    return _body([_Piece(_lathe(profile, segments), random_colour(rng), 0.4)], smooth=True)


def _build_star(rng: Rng, segments: int) -> Body:
    points = int(rng.integers(5, 9))
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, rng.uniform(0.12, 0.2), rng.uniform(0.32, 0.45))
    outline = np.c_[radius * np.cos(angle), radius * np.sin(angle)]
    return _body(
        [_Piece(_prism(outline, 0.0, rng.uniform(0.05, 0.2)), random_colour(rng), 0.2)], smooth=False
    )


def _build_cable(rng: Rng, segments: int) -> Body:
    step = np.linspace(0, 1, 24)
    length, wave, turns = rng.uniform(1.5, 3.0), rng.uniform(0.2, 0.5), rng.uniform(3, 8)
    path = np.c_[(step - 0.5) * length, wave * np.sin(turns * step + rng.uniform(0, 6)), np.full(24, 0.04)]
    return _body([_Piece(_tube(path, 0.04, 6), random_colour(rng, (0.0, 0.8), (0.1, 0.9)))], smooth=False)


def _build_paper(rng: Rng, segments: int) -> Body:
    corners = int(rng.integers(3, 9))
    angle = np.arange(corners) * 2 * np.pi / corners + np.pi / 4
    outline = np.c_[np.cos(angle) * rng.uniform(0.4, 1.1), np.sin(angle) * rng.uniform(0.4, 1.1)]
    top = _prism(outline, 0.0, 0.01)[corners : 2 * corners]
    return _body([_Piece(top, random_colour(rng, (0.0, 0.6), (0.3, 1.0)), 0.0)], smooth=False)


Builder = Callable[..., Body]

BUILDERS: dict[str, Builder] = {
    'mug': _build_mug,
    'bottle': _build_bottle,
    'bowl': _build_bowl,
    'ball': _build_ball,
    'block': _build_block,
    'book': _build_book,
    'phone': _build_phone,
    'screwdriver': _build_screwdriver,
    'figurine': build_figurine,
}

# Things of no class: how to build one, and whether it lies flat under everything else.
DISTRACTORS: tuple[tuple[Builder, bool], ...] = (
    (_build_cone, False),
    (_build_pyramid, False),
    (_build_ring, False),
    (_build_star, False),
    (_build_cable, True),
    (_build_paper, True),
)
