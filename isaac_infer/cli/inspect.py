"""`isaac-infer inspect`: what a model file holds, and how it will be used."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.console import unfolded
from isaac_infer.cli.models import (
    ASKED,
    add_model_argument,
    add_task_option,
    check_task,
    find_task,
    model_file,
    open_network,
    take_model_argument,
)
from isaac_infer.cli.options import add_options, params_from
from isaac_infer.cli.report import add_json_option, check_report, failure_in, write_report
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import IsaacInferError, ModelError
from isaac_infer.core.fit import input_size_text
from isaac_infer.core.session import Session
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.core.text import counted, without_commands
from isaac_infer.engine.cache import read_sidecar
from isaac_infer.engine.engines import spec_of
from isaac_infer.engine.layers import (
    EngineFacts,
    count_kinds,
    count_precisions,
    engine_facts,
    onnx_facts,
    type_in,
)
from isaac_infer.engine.load import file_sha256, find_spec, is_engine
from isaac_infer.engine.plan import read_plan
from isaac_infer.engine.task import FIRST_TASK, takes_pictures, task_of
from isaac_infer.engine.trt import TrtSession
from isaac_infer.params import ModelParams

LONGEST_VALUE = 200  # characters of a metadata value that are shown
MOST_OPERATORS = 8  # that are shown by name
A_POLICY = (
    'It takes no picture. As a control policy jetson_executor runs it (control_model_path), its inputs and '
    'outputs bound by their names (control_config).'
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `inspect` to the sub-commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'inspect',
        help='show what a model file holds and how it will be used',
        description='Shows tensors and metadata of a model, what it is for, its decoder, and how pictures '
        'are fed to it.',
    )
    add_model_argument(parser)
    add_task_option(parser)
    parser.add_argument(
        '--layers',
        action='store_true',
        help='list all layers: of engines with what they compute in, of ONNX models with the type of their '
        'weights',
    )
    add_json_option(parser)
    add_options(parser, ModelParams)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Show a model; its tensors also where it is not understood, before the error that says why."""
    take_model_argument(args)
    params = params_from(args, ModelParams)
    with failure_in(args.json, params) as known:
        return _inspect(args, params, known)


def _inspect(args: argparse.Namespace, params: ModelParams, known: dict[str, Any]) -> int:
    """Show a model; what is found out goes into `known`, too."""
    overrides = params.overrides(read_class_names(params.class_names))
    check_task(args.task)
    path = model_file(params)
    check_report(args.json, params)
    if is_engine(path):
        return _inspect_engine(path, params, overrides, args)
    if params.backend == 'auto':  # looking at a model builds nothing
        params = params.changed(backend='onnxruntime')
    task = (args.task, ASKED) if args.task else None
    if params.backend == 'tensorrt':  # engines are built for a task
        task = task or find_task(params)
    with open_network(params, task=task[0] if task else FIRST_TASK) as session:
        facts: dict[str, Any] = {
            'model': str(path),
            'bytes': path.stat().st_size,
            'sha256': file_sha256(path),
            'backend': session.backend,
            'fallbacks': list(session.fallbacks),
            'inputs': [_tensor(spec) for spec in session.inputs],
            'outputs': [_tensor(spec) for spec in session.outputs],
            'metadata': dict(session.metadata),
            'network': _network(path),
        }
        if isinstance(session, TrtSession):
            facts |= {'engine': str(session.path), **_engine_dict(session, engine_facts(session))}
        if not args.json:
            _show(facts, session)
            _show_network(facts['network'], with_layers=args.layers)
            if isinstance(session, TrtSession):
                _show_engine(facts, session.metadata.get('precision', ''), with_layers=args.layers)
        known |= facts
        if task is None and not takes_pictures(session):
            if args.json:
                write_report(args.json, {**facts, 'spec': None})
            else:
                unfolded(Console()).print(A_POLICY, highlight=False)
            return 0
        spec = _spec(session, path, overrides, task)
    if args.json:
        write_report(args.json, {**facts, 'spec': asdict(spec)})
    else:
        _show_spec(spec)
    return 0


def _spec(session: Session, path: Path, overrides: Overrides, task: tuple[str, str] | None) -> ModelSpec:
    """Find out how a model is used: for this task, see `task_of`, or for the one that it seems to be for."""
    name, why = task or task_of(session, path, overrides)
    return _with_reason(find_spec(session, path, overrides, task=name), why)


def _with_reason(spec: ModelSpec, why: str) -> ModelSpec:
    return replace(spec, notes=(f'task {spec.task}: {why}', *spec.notes))


def _inspect_engine(path: Path, params: ModelParams, overrides: Overrides, args: argparse.Namespace) -> int:
    """Show what an engine says: its header and what its build wrote everywhere, the rest where it can run."""
    plan, sidecar = read_plan(path), read_sidecar(path)
    spec = spec_of(path, overrides) if sidecar else None
    task = (args.task, ASKED) if args.task else None
    if spec:
        is_built_for = args.task in (None, spec.task)
        spec = _with_reason(spec, 'it was built for this') if is_built_for else None
    facts: dict[str, Any] = {
        'model': str(path),
        'bytes': path.stat().st_size,
        'sha256': file_sha256(path),
        'backend': 'tensorrt',
        'built by TensorRT': '.'.join(map(str, plan.version)),
        'metadata': dict(plan.metadata),
        'key': dict(sidecar['key']) if sidecar else {},
    }
    inside: dict[str, Any] = {}
    problems = {}
    try:
        with TrtSession(
            path, device=params.device, profile=params.engine_profile, dla_core=params.dla_core
        ) as session:
            inside = _engine_dict(session, engine_facts(session))
            try:
                spec = spec or _spec(session, path, overrides, task)
            except IsaacInferError as error:
                problems['how it is used'] = f'not understood: {error}'
    except IsaacInferError as error:
        problems['not shown'] = f'tensors, memory and layers, which only a loaded engine tells: {error}'
    if args.json:
        told = {**facts, **inside, **problems, 'facts': sidecar['facts'] if sidecar else {}}
        write_report(args.json, told)
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
    _print('the engine', rows | problems)
    if inside:
        _show_engine(inside, str(facts['key'].get('precision', '')), with_layers=args.layers)
    if spec:
        _show_spec(spec)
    return 0


# ---- what it computes ----------------------------------------------------------------------------


def _network(path: Path) -> dict[str, Any]:
    """Count what an ONNX model is made of."""
    try:
        facts = onnx_facts(path)
    except ModuleNotFoundError as error:
        return {'not shown': f'the Python module {error.name} is missing'}
    except ModelError as error:
        return {'not shown': str(error)}
    operators = Counter(layer.kind for layer in facts.layers)
    return {
        'nodes': len(facts.layers),
        'operators': dict(operators.most_common()),
        'quantize': operators['QuantizeLinear'],
        'dequantize': operators['DequantizeLinear'],
        'weights': dict(facts.weights),
        'layers': [asdict(layer) for layer in facts.layers],
    }


def _engine_dict(session: TrtSession, facts: EngineFacts) -> dict[str, Any]:
    """What a loaded engine tells, as JSON has it."""
    return {
        'inputs': [
            {**_tensor(spec), 'profiles': [list(map(list, each[spec.name])) for each in facts.profiles]}
            for spec in session.inputs
        ],
        'outputs': [_tensor(spec) for spec in session.outputs],
        'num_layers': facts.num_layers,
        'device_bytes': facts.device_bytes,
        'precisions': count_precisions(facts.layers),
        'kinds': count_kinds(facts.layers),
        'layers': [asdict(layer) for layer in facts.layers],
    }


def _show_network(network: dict[str, Any], *, with_layers: bool) -> None:
    if 'not shown' in network:
        _print('the network', {'not shown': network['not shown']})
        return
    operators: dict[str, int] = network['operators']
    named = _counted(dict(list(operators.items())[:MOST_OPERATORS]))
    others = len(operators) - MOST_OPERATORS
    _print(
        'the network',
        {
            'nodes': str(network['nodes']),
            'operators': f'{named}, and {counted(others, "other")}' if others > 0 else named,
            'weights': ', '.join(f'{number:,} {dtype}' for dtype, number in network['weights'].items()),
            'quantised': f'{network["quantize"]} QuantizeLinear, {network["dequantize"]} DequantizeLinear',
        },
    )
    if with_layers:
        title = 'layers of the file; what they compute in, only an engine tells'
        _show_layers(network['layers'], title, precision='weights')


def _show_engine(inside: dict[str, Any], asked: str, *, with_layers: bool) -> None:
    """Show what a loaded engine tells, and whether it computes in the precision that was asked for."""
    rows = {}
    for kind in ('input', 'output'):
        for tensor in inside[f'{kind}s']:
            text = f'{tensor["dtype"]}{tensor["shape"]}'.replace('-1', '?')
            profiles = [
                f'profile {number}: ' + ', '.join(map(str, shapes))
                for number, shapes in enumerate(tensor.get('profiles', ()))
                if -1 in tensor['shape']
            ]
            rows[f'{kind} {tensor["name"]}'] = '; '.join([text, *profiles])
    rows['layers'] = str(inside['num_layers'])
    rows['temporary memory'] = f'{inside["device_bytes"] / (1 << 20):.1f} MiB on the device'
    rows['computes in'] = _precision_words(inside, asked)
    _print('the engine, loaded', rows)
    kinds = inside['kinds']
    if any(kinds):
        table = Table(title='its layers', title_justify='left', title_style='bold', box=SIMPLE_HEAD)
        table.add_column('kind')
        table.add_column('layers', justify='right')
        table.add_column('precisions')
        for name, counts in kinds.items():
            table.add_row(Text(without_commands(name)), str(sum(counts.values())), _counted(counts))
        unfolded(Console()).print(table, highlight=False)
    if with_layers:
        _show_layers(inside['layers'], 'layers')


def _precision_words(inside: dict[str, Any], asked: str) -> str:
    counts: dict[str, int] = inside['precisions']
    if not counts:
        return 'not told: it was built without the details of its layers'
    told = f'{_counted(counts)} of {sum(counts.values())} layers that compute'
    return f'{told}; asked for was {asked}' if asked else told


def _counted(counts: dict[str, int]) -> str:
    return ', '.join(f'{name or "-"} {number}' for name, number in counts.items())


def _show_layers(layers: list[dict[str, Any]], title: str, *, precision: str = 'precision') -> None:
    """List layers, in columns of what is told of any of them.

    Args:
        precision: what theirs is that of.
    """
    columns = {
        heading: [' '.join(type_in(text) or '?' for text in layer[key]) for layer in layers]
        for heading, key in (('takes', 'inputs'), ('gives', 'outputs'))
    }
    told = {'name': 'name', 'kind': 'kind', precision: 'precision'}
    columns = {heading: [layer[key] for layer in layers] for heading, key in told.items()} | columns
    columns = {heading: texts for heading, texts in columns.items() if any(texts)}
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    table.add_column('', justify='right')
    for heading in columns:
        table.add_column(heading, overflow='fold')
    for number, texts in enumerate(zip(*columns.values())):
        table.add_row(str(number), *(Text(without_commands(text)) for text in texts))
    unfolded(Console()).print(table, highlight=False)


# ---- what the file says --------------------------------------------------------------------------


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {'name': spec.name, 'shape': list(spec.shape), 'dtype': spec.type_name}


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
    prepared = f'{image.channel_order} {image.layout} {image.dtype}, {image.resize}'
    classes = f'{spec.num_classes}: {", ".join(spec.class_names) or "not named"}'
    count = len(spec.keypoints)
    are_named = spec.keypoints != tuple(map(str, range(count)))
    points = f'{count}: {", ".join(spec.keypoints) if are_named else "not named"}'
    _print(
        'how it is used',
        {
            'task': spec.task,
            'decoder': spec.decoder,
            'outputs read': ', '.join(spec.outputs),
            **({'classes': _shortened(classes)} if spec.num_classes or not count else {}),
            **({'key points': _shortened(points)} if count else {}),
            'picture': f'{input_size_text(image.size_hw)}, {prepared}',
            'values': f'(pixel * {image.scale:g} - {_numbers(image.mean)}) / {_numbers(image.std)}',
            **{f'warning {number}': text for number, text in enumerate(spec.warnings, 1)},
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
    unfolded(Console()).print(table, highlight=False)
