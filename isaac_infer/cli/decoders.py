"""`isaac-infer decoders`: the output layouts that are understood."""

from __future__ import annotations

import argparse
from typing import Any

from isaac_infer.cli.report import add_json_option, write_report
from isaac_infer.core.decode.tasks import TASKS


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `decoders` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'decoders',
        help='list the output layouts that are understood',
        description='Lists the decoders: what --decoder takes where a model is not recognised by itself.',
    )
    parser.add_argument(
        '--task',
        choices=tuple(TASKS),
        help='what the model finds (default: all)',
    )
    add_json_option(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print name and description of every decoder."""
    tasks = [args.task] if args.task else list(TASKS)
    descriptions = {
        task: {name: decoder.description for name, decoder in TASKS[task].decoders.items()} for task in tasks
    }
    if args.json:
        write_report(args.json, {name: text for told in descriptions.values() for name, text in told.items()})
        return 0
    width = max(len(name) for told in descriptions.values() for name in told)
    for task, told in descriptions.items():
        if not args.task:
            print(f'{task}:')
        for name, description in told.items():
            print(f'{name:<{width}}  {description}')
    return 0
