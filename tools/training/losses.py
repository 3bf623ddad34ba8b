"""Losses: how far what a network says is from what is in the pictures, one function per kind of answer."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from training.network import BINS, PROTOTYPE_STRIDE, Answer, Network
from training.scenes import PADDING, Scenes

CANDIDATES = 10  # cells that answer an object, at most
IGNORED = -100  # class of a pixel that does not count
FIGURE_SHARE = 0.5  # of its box that a figure covers: OKS measures by the area of the figure
# How much each part counts.
WEIGHTS = {
    'box': 7.5,
    'score': 0.5,
    'side': 1.5,
    'mask': 5.0,
    'pixel': 6.0,
    'region': 3.0,
    'keypoint': 10.0,
    'visible': 1.0,
}


def losses_of(network: Network, pictures: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """Return the parts of the loss of a batch, each already weighted."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        answer = network(pictures)
    answer = Answer(*(None if part is None else part.float() for part in answer))
    parts: dict[str, Tensor] = {}
    if answer.boxes is not None:
        boxes = network.xyxy(answer.boxes).transpose(1, 2)
        points = (network.points * network.strides).T
        logits = answer.scores.transpose(1, 2)
        given = assign(logits.detach().sigmoid(), boxes.detach(), points, scenes.objects)
        parts |= _box_losses(network, answer.boxes, boxes, logits, points, given)
        if answer.prototypes is not None:
            parts['mask'] = _mask_loss(answer, scenes, given)
        if scenes.keypoints is not None:
            parts |= _keypoint_losses(network, answer.further, scenes.keypoints, given)
    if answer.pixels is not None:
        parts |= _pixel_losses(answer.pixels, scenes)
    return {name: WEIGHTS[name] * part for name, part in parts.items()}


# ---- boxes ---------------------------------------------------------------------------------------


def complete_iou(a: Tensor, b: Tensor, *, complete: bool) -> Tensor:
    """Return the overlap of boxes (..., 4); complete: less distances of centre and aspect ratio (CIoU)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(0).prod(-1)
    size_a, size_b = (a[..., 2:] - a[..., :2]).clamp(1e-6), (b[..., 2:] - b[..., :2]).clamp(1e-6)
    iou = shared / (size_a.prod(-1) + size_b.prod(-1) - shared + 1e-7)
    if not complete:
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = offset.square().sum(-1) / (hull.square().sum(-1) + 1e-7)
    turn = torch.atan2(size_a[..., 0], size_a[..., 1]) - torch.atan2(size_b[..., 0], size_b[..., 1])
    shape = 4 / math.pi**2 * turn.square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    return iou - distance - weight * shape


class Given(NamedTuple):
    """Which cells answer which objects."""

    classes: Tensor  # (B, A, classes) 0..1, the scores that cells should have
    truth: Tensor  # (B, A, 4) the boxes they should have, input pixels
    weight: Tensor  # (B, A) how much they count; 0: they have no object
    owner: Tensor  # (B, A) the object that they answer, where they have one
    cells: Tensor  # (B, M, CANDIDATES) the cells of each object
    is_given: Tensor  # (B, M, CANDIDATES) whether it has so many


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, points: Tensor, objects: Tensor) -> Given:
    """Give every object the cells inside it that answer it best (task-aligned assignment, TOOD).

    Args:
        scores: (B, A, classes) 0..1.
        boxes: (B, A, 4) input pixels.
        points: (A, 2) cell centres, input pixels.
        objects: (B, M, 5), class below 0 where there is none.
    """
    present = objects[..., 0] >= 0
    label, truth = objects[..., 0].clamp(0).long(), objects[..., 1:]
    inside = torch.cat([points - truth[:, :, None, :2], truth[:, :, None, 2:] - points], -1).amin(-1) > 1e-6
    inside &= present[..., None]
    chance = scores.transpose(1, 2).gather(1, label[..., None].expand(-1, -1, scores.shape[1]))
    overlap = complete_iou(truth[:, :, None], boxes[:, None], complete=False) * inside
    fitness = chance.sqrt() * overlap**6 * inside
    best, cells = fitness.topk(CANDIDATES, -1)
    chosen = torch.zeros_like(fitness).scatter_(-1, cells, (best > 1e-9).float())
    # A cell wanted by several objects answers the one it overlaps most.
    owner = (overlap * chosen).argmax(1)
    chosen = chosen * functional.one_hot(owner, objects.shape[1]).transpose(1, 2)
    taken = chosen.sum(1) > 0
    fitness = fitness * chosen
    scaled = fitness / (fitness.amax(-1, keepdim=True) + 1e-9) * (overlap * chosen).amax(-1, keepdim=True)
    strength = scaled.amax(1) * taken
    classes = functional.one_hot(label.gather(1, owner), scores.shape[-1]) * strength[..., None]
    return Given(
        classes,
        truth.gather(1, owner[..., None].expand(-1, -1, 4)),
        strength,
        owner,
        cells,
        chosen.gather(-1, cells) > 0,
    )


def _box_losses(
    network: Network, raw_boxes: Tensor, boxes: Tensor, logits: Tensor, points: Tensor, given: Given
) -> dict[str, Tensor]:
    """Class (B, A, classes), overlap, and likelihood of the distances."""
    total = given.weight.sum().clamp(1.0)
    score = functional.binary_cross_entropy_with_logits(logits, given.classes, reduction='sum')
    box = ((1 - complete_iou(boxes, given.truth, complete=True)) * given.weight).sum()
    sides = torch.cat([points - given.truth[..., :2], given.truth[..., 2:] - points], -1)
    sides = (sides / network.strides[0, :, None]).clamp(0, BINS - 1.01)
    lower = sides.long()
    share = sides - lower
    logs = raw_boxes.view(len(boxes), 4, BINS, -1).permute(0, 3, 1, 2).log_softmax(-1)
    likely = (
        logs.gather(-1, lower[..., None])[..., 0] * (1 - share)
        + logs.gather(-1, lower[..., None] + 1)[..., 0] * share
    )
    side = (-likely.mean(-1) * given.weight).sum()
    return {'box': box / total, 'score': score / total, 'side': side / total}


# ---- masks ---------------------------------------------------------------------------------------


def _mask_loss(answer: Answer, scenes: Scenes, given: Given) -> Tensor:
    """Cross-entropy of the masks of all cells that have an object, inside its box, each mask counting alike.

    The target is the share of a prototype's cell that the object covers, so that a mask that is interpolated
    between cells passes one half at the outline.
    """
    batch, most, count = given.cells.shape
    channels, height, width = answer.prototypes.shape[1:]
    number = torch.arange(1, most + 1, device=given.cells.device, dtype=torch.uint8)
    own = (scenes.labels[:, None] == number[:, None, None]).to(torch.bfloat16)
    covered = functional.avg_pool2d(own, PROTOTYPE_STRIDE).float().flatten(2)[:, :, None]

    cells = given.cells.flatten(1)[:, None].expand(-1, channels, -1)
    coefficients = answer.further.gather(2, cells).transpose(1, 2)
    logits = (coefficients @ answer.prototypes.flatten(2)).view(batch, most, count, height * width)

    middles = (torch.arange(height, device=cells.device) + 0.5) * PROTOTYPE_STRIDE  # input pixels; square
    left, top, right, bottom = scenes.objects[..., 1:, None].unbind(2)
    margin = PROTOTYPE_STRIDE / 2  # a cell that the box cuts
    in_x = (middles > left - margin) & (middles < right + margin)
    in_y = (middles > top - margin) & (middles < bottom + margin)
    inside = (in_y[..., :, None] & in_x[..., None, :]).flatten(2)[:, :, None]
    each = functional.binary_cross_entropy_with_logits(logits, covered.expand_as(logits), reduction='none')
    each = (each * inside).sum(-1) / inside.sum(-1).clamp(1)
    return (each * given.is_given).sum() / given.is_given.sum().clamp(1)


# ---- classes of pixels ---------------------------------------------------------------------------


def _pixel_losses(logits: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """Cross-entropy, and one minus the (soft) overlap of each class over the batch, as mIoU counts it."""
    table = logits.new_zeros((len(logits), PADDING + 1), dtype=torch.long)
    table[:, 1 : 1 + scenes.objects.shape[1]] = scenes.objects[..., 0].long() + 1
    table[:, PADDING] = IGNORED
    target = table.gather(1, scenes.labels.flatten(1).long()).view_as(scenes.labels)
    logs = logits.log_softmax(1)
    pixel = functional.nll_loss(logs, target, ignore_index=IGNORED)
    counts = (target != IGNORED)[:, None]
    chance = logs.exp() * counts
    number = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    present = target[:, None] == number
    common = (chance * present).sum((0, 2, 3))
    union = chance.sum((0, 2, 3)) + present.sum((0, 2, 3)) - common
    return {'pixel': pixel, 'region': (1 - (common + 1) / (union + 1)).mean()}


# ---- key points ----------------------------------------------------------------------------------


def _keypoint_losses(network: Network, further: Tensor, keypoints: Tensor, given: Given) -> dict[str, Tensor]:
    """One minus the similarity (OKS) of key points, and cross-entropy of whether they are in the picture.

    The similarity alone would not pull at points that are far away, so a little of the distance is added.
    """
    xy, logits = network.keypoints(further)
    xy, logits = xy.permute(0, 3, 1, 2), logits.transpose(1, 2)  # (B, A, K, 2), (B, A, K)
    count = keypoints.shape[2]
    owner = given.owner[..., None].expand(-1, -1, 3 * count)
    wanted = keypoints.flatten(2).gather(1, owner).view(*given.owner.shape, count, 3)
    is_there = (wanted[..., 2] > 0).float()
    area = FIGURE_SHARE * (given.truth[..., 2:] - given.truth[..., :2]).clamp(1).prod(-1)[..., None]
    off = (xy - wanted[..., :2]).square().sum(-1) / area  # in units of the object's size, squared
    unlike = 1 - torch.exp(-off / (8 * network.sigmas.square())) + 0.5 * (off + 1e-6).sqrt()
    weight = given.weight / given.weight.sum().clamp(1)
    of_points = (unlike * is_there).sum(-1) / is_there.sum(-1).clamp(1)
    visible = functional.binary_cross_entropy_with_logits(logits, is_there, reduction='none').mean(-1)
    return {'keypoint': (of_points * weight).sum(), 'visible': (visible * weight).sum()}
