"""Loop: a network trained on scenes until a moment in time, and the average of its weights."""

from __future__ import annotations

import argparse
import math
import time
from copy import deepcopy

import torch
from torch import Tensor, nn

from training.losses import losses_of
from training.network import Network
from training.scenes import Scenes, batches

WARM_UP = 400  # steps, or
WARM_UP_SHARE = 0.1  # of all, where that is less
LOWEST_RATE = 0.01  # of the learning rate, at the end
REPORTS = 20  # while training
RECENT = 0.02  # share of a step in the losses that are printed


def train(
    network: Network, scenes: Scenes, check: Scenes, *, until: float, options: argparse.Namespace
) -> Network:
    """Train until a moment of the monotonic clock, or for as many epochs as are asked for, if that is sooner.

    The learning rate falls with whichever share is larger, of the time or of the steps: training ends in time
    and with a small learning rate, however fast the machine is.

    Returns:
        The average over the last steps.
    """
    began = time.monotonic()
    device = scenes.pictures.device
    generator = torch.Generator(device).manual_seed(options.seed)
    network = network.to(device, memory_format=torch.channels_last).train()
    average = deepcopy(network).eval()
    optimizer = _optimizer(network, options)
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    means = [value for value in average.state_dict().values() if value.is_floating_point()]
    steps = options.epochs * (len(scenes) // options.batch) if options.epochs else math.inf
    count = sum(weight.numel() for weight in network.parameters())
    print(f'{", ".join(network.tasks)}: {count:,} parameters, {until - began:.0f} s', flush=True)
    reported, recent = 0, {}
    for step, (pictures, found) in enumerate(batches(scenes, options.batch, generator)):
        progress = max((time.monotonic() - began) / (until - began), step / steps)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group['lr'] = options.learning_rate * _rate(step, progress)
        parts = losses_of(network, pictures.contiguous(memory_format=torch.channels_last), found)
        optimizer.zero_grad(set_to_none=True)
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        keep = options.average * (1 - math.exp(-(step + 1) / 500))
        torch._foreach_lerp_(means, values, 1 - keep)
        for name, part in parts.items():
            recent[name] = torch.lerp(recent.get(name, part.detach()), part.detach(), RECENT)
        if progress * REPORTS >= reported + 1:
            reported = int(progress * REPORTS)
            _report(step, len(scenes) // options.batch, time.monotonic() - began, recent)
    _report(step, len(scenes) // options.batch, time.monotonic() - began, recent)
    print(f'not trained on: {_shown(_validate(average, check, options.batch))}', flush=True)
    return average


def _rate(step: int, progress: float) -> float:
    """Share of the learning rate: it rises with the first steps and falls as a cosine."""
    fall = LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * progress)) / 2
    rise = max((step + 1) / WARM_UP, progress / WARM_UP_SHARE)
    return min(1.0, rise) * fall


def _optimizer(network: Network, options: argparse.Namespace) -> torch.optim.Optimizer:
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    return torch.optim.AdamW(
        [{'params': decayed, 'weight_decay': options.weight_decay}, {'params': others, 'weight_decay': 0.0}],
        lr=options.learning_rate,
        betas=(0.9, 0.99),
        fused=decayed[0].device.type == 'cuda',
    )


@torch.no_grad()
def _validate(network: Network, scenes: Scenes, size: int) -> dict[str, Tensor]:
    """Return the mean parts of the loss over scenes that are not trained on."""
    whole = len(scenes) // size * size or len(scenes)
    rows = torch.arange(whole, device=scenes.pictures.device).split(min(size, whole))
    parts = [
        losses_of(network, batch.pictures.float() / 255, batch) for batch in map(scenes.__getitem__, rows)
    ]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def _report(step: int, steps_per_epoch: int, seconds: float, recent: dict[str, Tensor]) -> None:
    """Say how far training is.

    Raises:
        SystemExit: the loss is not finite, so that nothing can come of it any more.
    """
    epoch = step / max(steps_per_epoch, 1)
    print(f'step {step}, epoch {epoch:.1f}, {seconds:.0f} s: {_shown(recent)}', flush=True)
    if not all(math.isfinite(part) for part in recent.values()):
        raise SystemExit('the loss is not finite; lower --learning-rate')


def _shown(parts: dict[str, Tensor]) -> str:
    return ' '.join(f'{name} {part:.3f}' for name, part in parts.items())
