"""Train models/tabletop_detector.onnx from scratch on drawn scenes.

    python3 tools/train_detector.py --out models/tabletop_detector.onnx

Needs PyTorch and onnx, which the package itself never does. See models/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.shapes import CLASS_NAMES
from isaac_infer.core.source import FIRST_HELD_OUT_SEED
from isaac_infer.core.spec import ImageSpec

INPUT_SIZE = 320
STRIDES = (8, 16, 32)
BINS = 16  # of the distribution over the distance to each side of a box, in strides
MAX_OBJECTS = 16
VALIDATION_SEED = 900_000  # below FIRST_HELD_OUT_SEED: the held-out scenes are never looked at in training

# Height and width of the drawn pictures and how often; then they are scaled as at run time.
SOURCES_HW = {
    (480, 640): 0.58,
    (360, 640): 0.08,
    (720, 1280): 0.08,
    (1080, 1920): 0.05,
    (640, 480): 0.07,
    (600, 800): 0.06,
    (240, 320): 0.04,
    (320, 320): 0.04,
}


# --- data: scenes drawn once by all cores into one block of memory ------------------------------------------


def draw_set(first_seed: int, count: int, *, workers: int) -> tuple[Tensor, Tensor]:
    """Draw scenes; return pictures (N, 3, S, S) uint8 RGB and objects (N, M, 5): class or -1, x1 y1 x2 y2."""
    shape = (count, 3, INPUT_SIZE, INPUT_SIZE)
    pictures = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
    objects = np.frombuffer(mmap.mmap(-1, count * MAX_OBJECTS * 5 * 4), np.float32).reshape(
        count, MAX_OBJECTS, 5
    )

    def draw(worker: int) -> None:
        cv2.setNumThreads(1)
        spec = ImageSpec('images', (INPUT_SIZE, INPUT_SIZE), dtype=np.dtype(np.uint8), scale=1.0)
        preparers = {size_hw: Preparer(spec) for size_hw in SOURCES_HW}
        buffer = np.empty((1, *shape[1:]), np.uint8)
        sizes = list(SOURCES_HW)
        for index in range(worker, count, workers):
            seed = first_seed + index
            choice = np.random.default_rng([seed, INPUT_SIZE]).choice(len(sizes), p=list(SOURCES_HW.values()))
            size_hw = sizes[choice]
            scene = draw_scene(seed, size_hw=size_hw)
            fit = preparers[size_hw](Frame(scene.image), into=buffer)
            pictures[index] = buffer[0]
            found = len(scene.class_id)
            objects[index, :, 0] = -1
            objects[index, :found, 0] = scene.class_id
            objects[index, :found, 1:] = fit.to_network(scene.boxes_xyxy)

    context = multiprocessing.get_context('fork')  # the children write into the memory they inherit
    children = [context.Process(target=draw, args=(worker,)) for worker in range(workers)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        if child.exitcode:
            raise SystemExit(f'drawing scenes failed in a worker, exit code {child.exitcode}')
    return torch.from_numpy(pictures), torch.from_numpy(objects)


def batches(
    pictures: Tensor, objects: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled batches: half of them mirrored, light and colour varied a little."""
    device = pictures.device
    order = torch.randperm(len(pictures), generator=generator, device=device)
    for rows in order[: len(order) // size * size].split(size):
        images, found = pictures[rows].float() / 255, objects[rows].clone()
        mirror = torch.rand(size, generator=generator, device=device) < 0.5
        images = torch.where(mirror[:, None, None, None], images.flip(3), images)
        sides = INPUT_SIZE - found[..., [3, 1]]
        found[..., [1, 3]] = torch.where(mirror[:, None, None], sides, found[..., [1, 3]])
        gain = 1 + 0.12 * torch.randn(size, 1, 1, 1, generator=generator, device=device)
        tint = 1 + 0.05 * torch.randn(size, 3, 1, 1, generator=generator, device=device)
        yield (images * gain * tint).clamp_(0, 1), found


# --- network ------------------------------------------------------------------------------------------------


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


class Detector(nn.Module):
    """Pictures (B, 3, S, S) to box distributions (B, 4 * BINS, A) and class logits (B, classes, A)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        c2, c3, c4, c5, neck = 32, 48, 80, 88, 64
        self.stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, c2, 3, 2), Split(c2, c2, 2, Residual))
        self.level3 = nn.Sequential(Conv(c2, c3, 3, 2), Split(c3, c3, 2, Residual))
        self.level4 = nn.Sequential(Conv(c3, c4, 3, 2), Split(c4, c4, 2, Residual))
        self.level5 = nn.Sequential(Conv(c4, c5, 3, 2), Split(c5, c5, 1, Residual), Pool(c5))
        self.enter5 = Conv(c5, neck)
        self.down4 = Split(neck + c4, neck, 2, Separable)
        self.down3 = Split(neck + c3, neck, 2, Separable)
        self.shrink3 = Conv(neck, neck, 3, 2, groups=neck)
        self.up4 = Split(2 * neck, neck, 2, Separable)
        self.shrink4 = Conv(neck, neck, 3, 2, groups=neck)
        self.up5 = Split(2 * neck, neck, 2, Separable)
        # Each level has its own head: a shared one would need batch statistics of its own for each of them.
        self.box_heads = nn.ModuleList(nn.Sequential(Separable(neck), Separable(neck)) for _ in STRIDES)
        self.class_heads = nn.ModuleList(Separable(neck) for _ in STRIDES)
        self.box_out = nn.ModuleList(nn.Conv2d(neck, 4 * BINS, 1) for _ in STRIDES)
        self.class_out = nn.ModuleList(nn.Conv2d(neck, classes, 1) for _ in STRIDES)
        for box, score, stride in zip(self.box_out, self.class_out, STRIDES, strict=True):
            nn.init.constant_(box.bias, 1.0)
            nn.init.constant_(score.bias, math.log(5 / classes / (INPUT_SIZE / stride) ** 2))
        points, strides = [], []
        for stride in STRIDES:
            side = torch.arange(INPUT_SIZE // stride) + 0.5
            y, x = torch.meshgrid(side, side, indexing='ij')
            points.append(torch.stack([x, y]).flatten(1))
            strides.append(torch.full((1, side.numel() ** 2), float(stride)))
        self.register_buffer('points', torch.cat(points, 1), persistent=False)  # (2, A), in strides
        self.register_buffer('strides', torch.cat(strides, 1), persistent=False)  # (1, A)
        self.register_buffer('bins', torch.arange(BINS).float(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c3 = self.level3(self.stem(x))
        c4 = self.level4(c3)
        p5 = self.enter5(self.level5(c4))
        p4 = self.down4(torch.cat([functional.interpolate(p5, scale_factor=2.0), c4], 1))
        p3 = self.down3(torch.cat([functional.interpolate(p4, scale_factor=2.0), c3], 1))
        p4 = self.up4(torch.cat([self.shrink3(p3), p4], 1))
        p5 = self.up5(torch.cat([self.shrink4(p4), p5], 1))
        levels = (p3, p4, p5)
        boxes = [out(head(x)) for x, head, out in zip(levels, self.box_heads, self.box_out, strict=True)]
        scores = [out(head(x)) for x, head, out in zip(levels, self.class_heads, self.class_out, strict=True)]
        return torch.cat([box.flatten(2) for box in boxes], 2), torch.cat(
            [score.flatten(2) for score in scores], 2
        )

    def sides(self, boxes: Tensor) -> Tensor:
        """Turn box distributions into distances (B, 4, A) to left, top, right, bottom, in strides."""
        batch, _, anchors = boxes.shape
        weight = boxes.view(batch, 4, BINS, anchors).softmax(2)
        return (weight * self.bins.view(1, 1, BINS, 1)).sum(2)

    def xyxy(self, boxes: Tensor) -> Tensor:
        """Turn box distributions into corners (B, 4, A) in input pixels."""
        low, high = self.sides(boxes).split(2, 1)
        return torch.cat([self.points - low, self.points + high], 1) * self.strides


class Exported(nn.Module):
    """The detector with its answer laid out as one tensor (1, 4 + classes, A): cx, cy, w, h, scores."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        boxes, scores = self.detector(images)
        low, high = self.detector.sides(boxes).split(2, 1)
        centre = self.detector.points + (high - low) / 2
        return torch.cat([torch.cat([centre, low + high], 1) * self.detector.strides, scores.sigmoid()], 1)


# --- loss ---------------------------------------------------------------------------------------------------


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


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, points: Tensor, objects: Tensor, *, candidates: int = 10
) -> tuple[Tensor, Tensor, Tensor]:
    """Give every object the cells inside it that answer it best (task-aligned assignment, TOOD).

    Args:
        scores: (B, A, classes) 0..1.
        boxes: (B, A, 4) input pixels.
        points: (A, 2) cell centres, input pixels.
        objects: (B, M, 5), class -1 where there is none.

    Returns:
        Class targets (B, A, classes), box targets (B, A, 4), and which cells have one (B, A).
    """
    present = objects[..., 0] >= 0
    label, truth = objects[..., 0].clamp(0).long(), objects[..., 1:]
    inside = torch.cat([points - truth[:, :, None, :2], truth[:, :, None, 2:] - points], -1).amin(-1) > 1e-6
    inside &= present[..., None]
    chance = scores.transpose(1, 2).gather(1, label[..., None].expand(-1, -1, scores.shape[1]))
    overlap = complete_iou(truth[:, :, None], boxes[:, None], complete=False) * inside
    fitness = chance.sqrt() * overlap**6 * inside
    best, cell = fitness.topk(candidates, -1)
    chosen = torch.zeros_like(fitness).scatter_(-1, cell, (best > 1e-9).float())
    # A cell wanted by several objects answers the one it overlaps most.
    owner = (overlap * chosen).argmax(1)
    chosen = chosen * functional.one_hot(owner, objects.shape[1]).transpose(1, 2)
    taken = chosen.sum(1) > 0
    fitness = fitness * chosen
    scaled = fitness / (fitness.amax(-1, keepdim=True) + 1e-9) * (overlap * chosen).amax(-1, keepdim=True)
    strength = scaled.amax(1)
    cell_label = label.gather(1, owner)
    classes = functional.one_hot(cell_label, scores.shape[-1]) * (strength * taken)[..., None]
    return classes, truth.gather(1, owner[..., None].expand(-1, -1, 4)), taken


def loss_of(model: Detector, images: Tensor, objects: Tensor) -> Tensor:
    """Return the loss parts (3,): overlap, class, distribution."""
    with torch.autocast(images.device.type, torch.bfloat16):
        raw_boxes, raw_scores = model(images)
    raw_boxes, logits = raw_boxes.float(), raw_scores.float().transpose(1, 2)
    boxes = model.xyxy(raw_boxes).transpose(1, 2)
    strides = model.strides[0]
    points = (model.points * model.strides).T
    classes, truth, taken = assign(logits.detach().sigmoid(), boxes.detach(), points, objects)
    total = classes.sum().clamp(1.0)
    score_loss = functional.binary_cross_entropy_with_logits(logits, classes, reduction='sum') / total
    weight = classes.sum(-1) * taken
    box_loss = ((1 - complete_iou(boxes, truth, complete=True)) * weight).sum() / total
    sides = torch.cat([points - truth[..., :2], truth[..., 2:] - points], -1) / strides[:, None]
    sides = sides.clamp(0, BINS - 1.01)
    lower = sides.long()
    share = sides - lower
    logs = raw_boxes.view(len(images), 4, BINS, -1).permute(0, 3, 1, 2).log_softmax(-1)
    likely = (
        logs.gather(-1, lower[..., None])[..., 0] * (1 - share)
        + logs.gather(-1, lower[..., None] + 1)[..., 0] * share
    )
    side_loss = (-likely.mean(-1) * weight).sum() / total
    return torch.stack([7.5 * box_loss, 0.5 * score_loss, 1.5 * side_loss])


# --- training and export ------------------------------------------------------------------------------------


def train(options: argparse.Namespace, device: torch.device) -> Detector:
    """Draw the scenes, train, and return the averaged model."""
    started = time.monotonic()
    pictures, objects = draw_set(0, options.scenes, workers=options.workers)
    check_pictures, check_objects = draw_set(
        VALIDATION_SEED, options.validation_scenes, workers=options.workers
    )
    print(f'{options.scenes} scenes drawn in {time.monotonic() - started:.0f} s', flush=True)
    pictures, objects = pictures.to(device), objects.to(device)
    check_pictures, check_objects = check_pictures.to(device), check_objects.to(device)
    print(f'on the device after {time.monotonic() - started:.0f} s', flush=True)

    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    generator = torch.Generator(device).manual_seed(options.seed)
    model = Detector(len(CLASS_NAMES)).to(device, memory_format=torch.channels_last)
    print(f'{sum(weight.numel() for weight in model.parameters()):,} parameters')
    average = deepcopy(model).eval()
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{'params': decayed, 'weight_decay': options.weight_decay}, {'params': others, 'weight_decay': 0.0}],
        lr=options.learning_rate,
        betas=(0.9, 0.99),
        fused=device.type == 'cuda',
    )
    values = [value for value in model.state_dict().values() if value.is_floating_point()]
    means = [value for value in average.state_dict().values() if value.is_floating_point()]
    steps = options.epochs * (len(pictures) // options.batch)
    warm_up = min(400, steps // 10 + 1)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    deadline = started + 60 * options.minutes
    began = warm = time.monotonic()
    step = 0
    running = torch.zeros(3, device=device)
    for epoch in range(options.epochs):
        for images, found in batches(pictures, objects, options.batch, generator):
            parts = loss_of(model, images.contiguous(memory_format=torch.channels_last), found)
            optimizer.zero_grad(set_to_none=True)
            parts.sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            step += 1
            running.lerp_(parts.detach(), 0.02)
            keep = options.average * (1 - math.exp(-step / 500))
            torch._foreach_lerp_(means, values, 1 - keep)
        if epoch % max(1, options.epochs // 20) == 0 or epoch == options.epochs - 1:
            check = validate(average, check_pictures, check_objects)
            spent = time.monotonic() - began
            text = ' '.join(f'{value:.3f}' for value in [*running.tolist(), *check])
            print(f'epoch {epoch + 1}/{options.epochs} step {step}/{steps} {spent:.0f} s: {text}', flush=True)
        if epoch == 0:
            warm = time.monotonic()  # the first epoch also tunes the kernels
        if epoch == 1 and warm + (time.monotonic() - warm) * (options.epochs - 1) > deadline:
            fit = int((deadline - warm) / (time.monotonic() - warm))
            raise SystemExit(
                f'{options.epochs} epochs do not fit into --minutes {options.minutes}; about {fit} would'
            )
    return average


@torch.no_grad()
def validate(model: Detector, pictures: Tensor, objects: Tensor, *, size: int = 250) -> list[float]:
    """Return the mean loss parts over scenes that are not trained on."""
    model.eval()
    parts = [
        loss_of(model, images.float() / 255, found)
        for images, found in zip(pictures.split(size), objects.split(size), strict=True)
    ]
    return torch.stack(parts).mean(0).tolist()


def export(model: Detector, path: Path) -> None:
    """Write the model as ONNX, with the metadata by which the package configures itself."""
    model = deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    for module in list(model.modules()):
        if isinstance(module, Conv):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    images = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        Exported(model).eval(), (images,), str(path), input_names=['images'], output_names=['output0'],
        opset_version=17, do_constant_folding=True, dynamo=False,
    )  # fmt: skip
    graph = onnx.load(str(path))
    graph.ir_version = min(graph.ir_version, 9)
    metadata = {
        'description': 'Detector of drawn table-top objects, '
        'trained from scratch on the scenes of isaac_infer',
        'author': 'the isaac_infer project',
        'license': 'Apache-2.0',
        'version': '1.0.0',
        'stride': str(max(STRIDES)),
        'task': 'detect',
        'head': 'Detect',
        'batch': '1',
        'channels': '3',
        'imgsz': str([INPUT_SIZE, INPUT_SIZE]),
        'names': str(dict(enumerate(CLASS_NAMES))),
        'args': str({'batch': 1, 'half': False, 'dynamic': False, 'nms': False}),
        'end2end': 'False',
    }
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='the ONNX file to write')
    parser.add_argument(
        '--seed', type=int, default=1, help='of weights and order; scenes are seeds 0, 1, 2, ...'
    )
    parser.add_argument('--scenes', type=int, default=60_000, help='how many scenes to draw')
    parser.add_argument('--validation-scenes', type=int, default=1000, help='for the loss that is printed')
    parser.add_argument('--epochs', type=int, default=40)
    parser.add_argument('--minutes', type=float, default=60.0, help='refuse to start what would take longer')
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--learning-rate', type=float, default=3e-3)
    parser.add_argument('--weight-decay', type=float, default=0.03)
    parser.add_argument(
        '--average', type=float, default=0.9995, help='share of the past in the weights exported'
    )
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes that draw')
    options = parser.parse_args()
    if options.scenes > VALIDATION_SEED or VALIDATION_SEED + options.validation_scenes > FIRST_HELD_OUT_SEED:
        parser.error(
            f'training takes seeds below {VALIDATION_SEED}, validation those below {FIRST_HELD_OUT_SEED}'
        )

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if device.type == 'cpu':
        print('no CUDA device: training on the CPU works, but takes days instead of minutes')
    started = time.monotonic()
    model = train(options, device)
    export(model, options.out)
    record = {
        'options': {name: str(value) for name, value in vars(options).items() if name != 'out'},
        'device': torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU',
        'torch': torch.__version__,
        'opencv': cv2.__version__,
        'numpy': np.__version__,
        'minutes': round((time.monotonic() - started) / 60, 2),
        'bytes': options.out.stat().st_size,
    }
    print(json.dumps(record, indent=2))


if __name__ == '__main__':
    main()
