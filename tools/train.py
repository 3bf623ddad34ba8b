"""Train the networks in models/ from scratch on drawn scenes.

    python3 tools/train.py --out models --minutes 9

Needs PyTorch and onnx, which the package itself never does. See models/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from training.export import PRODUCTS, export
from training.loop import train
from training.network import TABLETOP, Network
from training.scenes import Drawing, Order

from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED

VALIDATION_SEED = 900_000  # below FIRST_HELD_OUT_SEED: the held-out scenes are never looked at in training
EXPORT_S = 6  # to write one model
SHARES = {'tabletop': 1.25, 'humanoids': 1.0}  # of the time that is there, where both are trained


def main() -> None:
    """Train and export."""
    options = _options()
    started = time.monotonic()
    trainings = {
        'tabletop': tuple(task for task in TABLETOP if task in options.tasks),
        'humanoids': tuple(task for task in options.tasks if task == 'pose'),
    }
    trainings = {name: tasks for name, tasks in trainings.items() if tasks}
    drawing = Drawing(_orders(trainings, options), workers=options.workers)  # before anything uses the GPU

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if device.type == 'cpu':
        print('no CUDA device: training on the CPU works, but takes days instead of minutes')
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    files: list[Path] = []
    for number, (name, tasks) in enumerate(trainings.items()):
        scenes, check = (drawing.wait(2 * number + part).to(device) for part in range(2))
        print(f'{name}: {len(scenes)} scenes on the device, {_since(started)}', flush=True)
        drawing.forget(2 * number)
        torch.manual_seed(options.seed)
        until = _until(list(trainings)[number:], list(trainings.values())[number:], started, options)
        network = train(Network(tasks), scenes, check, until=until, options=options)
        files += [export(network, task, options.out) for task in tasks]
        print(f'{name}: written, {_since(started)}', flush=True)
        del scenes, check
    record = {
        'options': {name: str(value) for name, value in vars(options).items() if name != 'out'},
        'device': torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU',
        'torch': torch.__version__,
        'opencv': cv2.__version__,
        'numpy': np.__version__,
        'minutes': round((time.monotonic() - started) / 60, 2),
        'files': {
            path.name: {
                'bytes': path.stat().st_size,
                'sha256': sha256(path.read_bytes()).hexdigest(),
            }
            for path in files
        },
    }
    print(json.dumps(record, indent=2))


def _orders(trainings: dict[str, tuple[str, ...]], options: argparse.Namespace) -> list[Order]:
    """What is drawn: for each training the scenes to train on, and those to look at."""
    orders = []
    for name, tasks in trainings.items():
        kind = {'humanoids': name == 'humanoids', 'wants_labels': bool(set(tasks) - {'detection', 'pose'})}
        count = options.humanoid_scenes if name == 'humanoids' else options.scenes
        orders.append(Order(0, count, **kind))
        orders.append(Order(VALIDATION_SEED, options.validation_scenes, **kind))
    return orders


def _until(
    names: list[str], tasks: list[tuple[str, ...]], started: float, options: argparse.Namespace
) -> float:
    """When the first of the trainings that are left has to end, on the monotonic clock."""
    now = time.monotonic()
    left = started + 60 * options.minutes - now - EXPORT_S * sum(map(len, tasks))
    if left <= 0:
        raise SystemExit(f'--minutes {options.minutes:g}: drawing took all of them; draw fewer scenes')
    return now + left * SHARES[names[0]] / sum(SHARES[name] for name in names)


def _since(started: float) -> str:
    return f'{time.monotonic() - started:.0f} s after the start'


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='the folder to write the ONNX files into')
    parser.add_argument(
        '--tasks',
        nargs='+',
        choices=list(PRODUCTS),
        default=['segmentation', 'instances', 'pose'],
        help='which models (default: %(default)s); all but pose are learned by one network',
    )
    parser.add_argument(
        '--seed', type=int, default=1, help='of weights and order; scenes are seeds 0, 1, 2, ...'
    )
    parser.add_argument('--scenes', type=int, default=40_000, help='how many table-top scenes to draw')
    parser.add_argument('--humanoid-scenes', type=int, default=30_000, help='how many humanoid scenes')
    parser.add_argument(
        '--validation-scenes', type=int, default=512, help='for the loss that is printed last'
    )
    parser.add_argument('--minutes', type=float, default=60.0, help='for everything, drawing included')
    parser.add_argument(
        '--epochs', type=int, help='of each training, if they fit (default: until the time is over)'
    )
    parser.add_argument('--batch', type=int, default=128)
    parser.add_argument('--learning-rate', type=float, default=2e-3)
    parser.add_argument('--weight-decay', type=float, default=0.03)
    parser.add_argument(
        '--average', type=float, default=0.998, help='share of the past in the weights exported'
    )
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes that draw')
    options = parser.parse_args()
    most = max(options.scenes, options.humanoid_scenes)
    if most > VALIDATION_SEED or VALIDATION_SEED + options.validation_scenes > FIRST_HELD_OUT_SEED:
        parser.error(
            f'training takes seeds below {VALIDATION_SEED}, validation those below {FIRST_HELD_OUT_SEED}'
        )
    if min(options.scenes, options.humanoid_scenes) < options.batch:
        parser.error(f'expected at least one batch of {options.batch} scenes')
    return options


if __name__ == '__main__':
    main()
