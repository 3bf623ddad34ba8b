"""`isaac-infer inspect`: what a model file holds, and how it will be used."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.models import add_model_argument, model_path, open_network, take_model_argument
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import add_json_option, check_report, write_report
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import IsaacInferError
from isaac_infer.core.session import Session
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.core.text import without_commands
from isaac_infer.engine.cache import read_sidecar
from isaac_infer.engine.engines import spec_of
from isaac_infer.engine.load import file_sha256, find_model, find_spec, is_engine
from isaac_infer.engine.plan import read_plan
from isaac_infer.params import ModelParams

LONGEST_VALUE = 200  # characters of a metadata value that are shown


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `inspect` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'inspect',
        help='show what a model file holds and how it will be used',
        description='Shows tensors and metadata of a model, its decoder, and how pictures are fed to it.',
    )
    add_model_argument(parser)
    add_json_option(parser)
    add_options(parser, ModelParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Show a model; its tensors also where it is not understood, before the error that says why."""
    take_model_argument(args)
    params = params_from(args, ModelParams)
    overrides = params.overrides(read_class_names(params.class_names))
    path = find_model(model_path(params))
    check_report(args.json, params)
    if is_engine(path):
        return _inspect_engine(path, overrides, args.json)
    if params.backend == 'auto':  # looking at a model builds nothing
        params = params.changed(backend='onnxruntime')
    with open_network(params) as session:
        facts: dict[str, Any] = {
            'model': str(path),
            'bytes': path.stat().st_size,
            'sha256': file_sha256(path),
            'backend': session.backend,
            'fallbacks': list(session.fallbacks),
            'inputs': [_tensor(spec) for spec in session.inputs],
            'outputs': [_tensor(spec) for spec in session.outputs],
            'metadata': dict(session.metadata),
        }
        if not args.json:
            _show(facts, session)
        try:
            spec = find_spec(session, path, overrides)
        except IsaacInferError as error:
            if args.json:
                write_report(args.json, {**facts, 'error': str(error)})
            raise
    if args.json:
        write_report(args.json, {**facts, 'spec': asdict(spec)})
    else:
        _show_spec(spec)
    return 0


def _inspect_engine(path: Path, overrides: Overrides, report: str) -> int:
    """Show what an engine says without TensorRT and without a GPU: its header, and what its build wrote."""
    plan, sidecar = read_plan(path), read_sidecar(path)
    spec = spec_of(path, overrides) if sidecar else None
    facts: dict[str, Any] = {
        'model': str(path),
        'bytes': path.stat().st_size,
        'sha256': file_sha256(path),
        'backend': 'tensorrt',
        'built by TensorRT': '.'.join(map(str, plan.version)),
        'metadata': dict(plan.metadata),
        'key': dict(sidecar['key']) if sidecar else {},
    }
    if report:
        write_report(report, {**facts, 'facts': sidecar['facts'] if sidecar else {}})
        return 0
    rows = {name: str(value) for name, value in facts.items() if name not in ('metadata', 'key', 'backend')}
    rows.update((f'metadata {name}', _shortened(value)) for name, value in plan.metadata.items())
    if sidecar:
        rows.update((f'built for: {name}', _shortened(value)) for name, value in facts['key'].items())
        rows.update(
            (name.replace('_', ' '), str(sidecar['facts'][name]))
            for name in ('source', 'build_s', 'latency_ms')
            if name in sidecar['facts']
        )
    else:
        rows['sidecar'] = 'none: built by somebody else, or moved without it'
    _print('the engine', rows)
    if spec:
        _show_spec(spec)
    return 0


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {'name': spec.name, 'shape': list(spec.shape), 'dtype': str(spec.dtype)}


def _show(facts: dict[str, Any], session: Session) -> None:
    rows = {key: str(facts[key]) for key in ('model', 'bytes', 'sha256', 'backend')}
    for kind, tensors in (('input', session.inputs), ('output', session.outputs)):
        rows.update({f'{kind} {spec.name}': spec.layout for spec in tensors})
    rows.update(('metadata ' + key, _shortened(value)) for key, value in session.metadata.items())
    rows.update((f'fallback {number}', text) for number, text in enumerate(session.fallbacks, 1))
    _print('the file', rows)


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f'{value[:LONGEST_VALUE]}... ({len(value)} characters)'


def _show_spec(spec: ModelSpec) -> None:
    image = spec.image
    height, width = image.size_hw
    _print(
        'how it is used',
        {
            'decoder': spec.decoder,
            'outputs read': ', '.join(spec.outputs),
            'classes': _shortened(f'{spec.num_classes}: {", ".join(spec.class_names) or "not named"}'),
            'picture': f'{width}x{height} {image.channel_order} {image.layout} {image.dtype}, {image.resize}',
            'values': f'(pixel * {image.scale:g} - {_numbers(image.mean)}) / {_numbers(image.std)}',
            **{f'note {number}': note for number, note in enumerate(spec.notes, 1)},
        },
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ', '.join(f'{value:g}' for value in values) if len(values) == 1 else str(list(values))


def _print(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD, show_header=False)
    table.add_column()
    table.add_column(overflow='fold')
    for key, value in rows.items():
        table.add_row(Text(without_commands(key)), Text(without_commands(value)))
    Console().print(table)
