"""Network: a feature pyramid, and what is read from it: boxes, masks, classes of pixels, key points."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from isaac_infer.core.oks import sigmas_of
from isaac_infer.core.shapes import CLASS_NAMES, KEYPOINT_NAMES
from training.scenes import INPUT_SIZE

STRIDES = (8, 16, 32)
BINS = 16  # of the distribution over the distance to each side of a box, in strides
PROTOTYPES = 24  # of which every mask is a sum
PROTOTYPE_STRIDE = 4  # by which the package and others know prototypes
KEYPOINT_REACH = 4.0  # strides that an answer of 1 puts a key point away from the middle of its cell

TABLETOP = ('detection', 'instances', 'segmentation')  # tasks that one network can learn together


class Features(NamedTuple):
    """What the pyramid sees: (B, channels, S / stride, S / stride) each."""

    half: Tensor  # stride 2
    quarter: Tensor  # stride 4
    eighth: Tensor  # stride 8, all coarser ones mixed in from above


class Answer(NamedTuple):
    """What a network says of pictures; None: it does not learn that."""

    boxes: Tensor | None = None  # (B, 4 * BINS, A) distributions
    scores: Tensor | None = None  # (B, classes, A) logits
    further: Tensor | None = None  # (B, K, A): coefficients of masks, or three numbers per key point
    prototypes: Tensor | None = None  # (B, K, S / 4, S / 4)
    pixels: Tensor | None = None  # (B, 1 + classes, S, S) logits


# ---- blocks --------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Conv(width, width, 3), Conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Separable(nn.Module):
    """A 5x5 convolution per channel, then one across channels, around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space, self.mix = Conv(width, width, 5, groups=width), Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.space(x))


class Split(nn.Module):
    """Half of the channels go through a chain of blocks; every step of the chain is kept and mixed."""

    def __init__(self, inputs: int, outputs: int, depth: int, block: type[nn.Module]) -> None:
        super().__init__()
        self.half = half = outputs // 2
        self.enter = Conv(inputs, 2 * half)
        self.blocks = nn.ModuleList(block(half) for _ in range(depth))
        self.leave = Conv((2 + depth) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        steps = list(self.enter(x).split(self.half, 1))
        for block in self.blocks:
            steps.append(block(steps[-1]))
        return self.leave(torch.cat(steps, 1))


class Pool(nn.Module):
    """Three max-pools in a row, so that the coarsest level sees the whole picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.enter, self.leave = Conv(width, half), Conv(4 * half, width)

    def forward(self, x: Tensor) -> Tensor:
        steps = [self.enter(x)]
        for _ in range(3):
            steps.append(functional.max_pool2d(steps[-1], 5, 1, 2))
        return self.leave(torch.cat(steps, 1))


# ---- the parts -----------------------------------------------------------------------------------


class Pyramid(nn.Module):
    """Pictures (B, 3, S, S) to features; coarser levels are mixed into finer ones."""

    widths = half, quarter, c3, c4, c5, neck = 16, 32, 48, 80, 88, 64

    def __init__(self) -> None:
        super().__init__()
        half, c2, c3, c4, c5, neck = self.widths
        self.enter2 = Conv(3, half, 3, 2)
        self.level2 = nn.Sequential(Conv(half, c2, 3, 2), Split(c2, c2, 2, Residual))
        self.level3 = nn.Sequential(Conv(c2, c3, 3, 2), Split(c3, c3, 2, Residual))
        self.level4 = nn.Sequential(Conv(c3, c4, 3, 2), Split(c4, c4, 2, Residual))
        self.level5 = nn.Sequential(Conv(c4, c5, 3, 2), Split(c5, c5, 1, Residual), Pool(c5))
        self.enter5 = Conv(c5, neck)
        self.down4 = Split(neck + c4, neck, 2, Separable)
        self.down3 = Split(neck + c3, neck, 2, Separable)

    def forward(self, x: Tensor) -> tuple[Features, Tensor, Tensor]:
        """Give the features, and those of strides 16 and 32."""
        half = self.enter2(x)
        quarter = self.level2(half)
        c3 = self.level3(quarter)
        c4 = self.level4(c3)
        p5 = self.enter5(self.level5(c4))
        p4 = self.down4(torch.cat([functional.interpolate(p5, scale_factor=2.0), c4], 1))
        p3 = self.down3(torch.cat([functional.interpolate(p4, scale_factor=2.0), c3], 1))
        return Features(half, quarter, p3), p4, p5


class Boxes(nn.Module):
    """Features to boxes, scores, and so many further numbers, of each cell of each level."""

    def __init__(self, classes: int, further: int = 0) -> None:
        super().__init__()
        neck = Pyramid.neck
        self.shrink3 = Conv(neck, neck, 3, 2, groups=neck)
        self.up4 = Split(2 * neck, neck, 2, Separable)
        self.shrink4 = Conv(neck, neck, 3, 2, groups=neck)
        self.up5 = Split(2 * neck, neck, 2, Separable)
        # Each level has its own head: a shared one would need batch statistics of its own for each of them.
        self.boxes = nn.ModuleList(_head(2, 4 * BINS) for _ in STRIDES)
        self.scores = nn.ModuleList(_head(1, classes) for _ in STRIDES)
        self.further = nn.ModuleList(_head(3, further) for _ in STRIDES if further)
        for box, score, stride in zip(self.boxes, self.scores, STRIDES, strict=True):
            nn.init.constant_(box[-1].bias, 1.0)
            nn.init.constant_(score[-1].bias, math.log(5 / classes / (INPUT_SIZE / stride) ** 2))

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        p4 = self.up4(torch.cat([self.shrink3(p3), p4], 1))
        p5 = self.up5(torch.cat([self.shrink4(p4), p5], 1))
        boxes, scores, further = (
            torch.cat([head(level).flatten(2) for head, level in zip(heads, (p3, p4, p5))], 2)
            if len(heads)
            else None
            for heads in (self.boxes, self.scores, self.further)
        )
        return boxes, scores, further


def _head(depth: int, outputs: int) -> nn.Sequential:
    neck = Pyramid.neck
    return nn.Sequential(*(Separable(neck) for _ in range(depth)), nn.Conv2d(neck, outputs, 1))


class Fine(nn.Module):
    """Features to one tensor of stride 4 that knows what is where: (B, 48, S / 4, S / 4)."""

    width = 48

    def __init__(self) -> None:
        super().__init__()
        self.shrink = Conv(Pyramid.neck, 32)
        self.mix = nn.Sequential(Conv(32 + Pyramid.quarter, self.width), Separable(self.width))

    def forward(self, features: Features) -> Tensor:
        coarse = functional.interpolate(self.shrink(features.eighth), scale_factor=2.0)
        return self.mix(torch.cat([coarse, features.quarter], 1))


class Pixels(nn.Module):
    """Fine features to a score for every class of every pixel; the first class is the background.

    Features of stride 2 give the scores of four pixels each: finer features would cost four times as much.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = 32
        self.deepen = nn.Sequential(Separable(Fine.width), Separable(Fine.width))
        self.shrink = Conv(Fine.width, width)
        self.mix = nn.Sequential(Conv(width + Pyramid.half, width), Separable(width))
        self.out = nn.Conv2d(width, 4 * (1 + classes), 1)

    def forward(self, fine: Tensor, features: Features) -> Tensor:
        coarse = functional.interpolate(self.shrink(self.deepen(fine)), scale_factor=2.0)
        return functional.pixel_shuffle(self.out(self.mix(torch.cat([coarse, features.half], 1))), 2)


class Network(nn.Module):
    """One pyramid, and the parts that some tasks need: of TABLETOP, or `pose` alone."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks
        self.pyramid = Pyramid()
        if 'pose' in tasks:
            self.boxes = Boxes(1, 3 * len(KEYPOINT_NAMES))
        elif 'instances' in tasks:
            self.boxes = Boxes(len(CLASS_NAMES), PROTOTYPES)
        elif 'detection' in tasks:
            self.boxes = Boxes(len(CLASS_NAMES))
        if 'instances' in tasks or 'segmentation' in tasks:
            self.fine = Fine()
        if 'instances' in tasks:
            self.prototypes = nn.Sequential(Separable(Fine.width), nn.Conv2d(Fine.width, PROTOTYPES, 1))
        if 'segmentation' in tasks:
            self.pixels = Pixels(len(CLASS_NAMES))
        points, strides = [], []
        for stride in STRIDES:
            side = torch.arange(INPUT_SIZE // stride) + 0.5
            y, x = torch.meshgrid(side, side, indexing='ij')
            points.append(torch.stack([x, y]).flatten(1))
            strides.append(torch.full((1, side.numel() ** 2), float(stride)))
        self.register_buffer('points', torch.cat(points, 1), persistent=False)  # (2, A), in strides
        self.register_buffer('strides', torch.cat(strides, 1), persistent=False)  # (1, A)
        self.register_buffer('bins', torch.arange(BINS).float(), persistent=False)
        sigmas = torch.from_numpy(sigmas_of(KEYPOINT_NAMES)).float()
        self.register_buffer('sigmas', sigmas, persistent=False)  # (K,) of OKS

    def forward(self, x: Tensor, tasks: tuple[str, ...] = ()) -> Answer:
        """Answer pictures (B, 3, S, S), as far as some of the tasks need it; none: all."""
        tasks = tasks or self.tasks
        features, p4, p5 = self.pyramid(x)
        answer = Answer()
        if set(tasks) - {'segmentation'}:
            answer = Answer(*self.boxes(features.eighth, p4, p5))
        if 'instances' in tasks or 'segmentation' in tasks:
            fine = self.fine(features)
        if 'instances' in tasks:
            answer = answer._replace(prototypes=self.prototypes(fine))
        if 'segmentation' in tasks:
            answer = answer._replace(pixels=self.pixels(fine, features))
        return answer

    def sides(self, boxes: Tensor) -> Tensor:
        """Turn box distributions into distances (B, 4, A) to left, top, right, bottom, in strides."""
        batch, _, anchors = boxes.shape
        weight = boxes.view(batch, 4, BINS, anchors).softmax(2)
        return (weight * self.bins.view(1, 1, BINS, 1)).sum(2)

    def xyxy(self, boxes: Tensor) -> Tensor:
        """Turn box distributions into corners (B, 4, A) in input pixels."""
        low, high = self.sides(boxes).split(2, 1)
        return torch.cat([self.points - low, self.points + high], 1) * self.strides

    def keypoints(self, further: Tensor) -> tuple[Tensor, Tensor]:
        """Turn further numbers of poses into x, y (B, K, 2, A) in input pixels, and logits (B, K, A)."""
        batch, _, anchors = further.shape
        values = further.view(batch, len(KEYPOINT_NAMES), 3, anchors)
        return (self.points + KEYPOINT_REACH * values[:, :, :2]) * self.strides, values[:, :, 2]
