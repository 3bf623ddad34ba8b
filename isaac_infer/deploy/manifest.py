"""Manifest: what a deployment is, as a YAML or JSON file says it."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from isaac_infer.core.build_options import PRECISIONS
from isaac_infer.core.decode.document import read_document
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import ParameterError
from isaac_infer.engine.load import BACKENDS, ENGINE_SUFFIXES, find_model

DEFAULT_MANIFEST = 'deployment.yaml'
POLICY = 'policy'  # the task of a network that looks at no picture: its inputs are fed by their names
ONNXRUNTIME = 'onnxruntime'  # the reference that is run on the spot
STAGES = ('camera', 'prepare', 'inference', 'decode', 'publish', 'planning', 'control')
SYNTHETIC = 'synthetic'

Entry = TypeVar('Entry')


def _is_at_least(least: float, most: float = math.inf) -> dict[str, Any]:
    return {'least': least, 'most': most}


def _one_of(*choices: str) -> dict[str, Any]:
    return {'choices': choices}


@dataclass(frozen=True)
class ModelEntry:
    """A model file, and what is expected of it; relative paths are beside the manifest, or see `place_of`."""

    path: str
    sha256: str = ''
    task: str = field(default='', metadata=_one_of('', *TASKS, POLICY))  # empty: what the model is for
    backend: str = field(default='auto', metadata=_one_of(*BACKENDS))
    precision: str = field(default='fp16', metadata=_one_of(*PRECISIONS))
    sample: str = SYNTHETIC  # a picture, or a drawn scene; of a policy an npz file with its inputs
    reference: str = ''  # ONNXRUNTIME, an npz file with outputs, or empty: none
    tolerance: float = field(
        default=1e-3, metadata=_is_at_least(0)
    )  # |got - want| <= tolerance * (1 + |want|)
    # Of the objects, or pixels, of the reference found again, where outputs cannot be compared one by one.
    min_agreement: float = field(default=0.95, metadata=_is_at_least(0, 1))
    latency_budget_ms: float | None = field(default=None, metadata=_is_at_least(0))  # p95 of a picture
    memory_mb: float | None = field(default=None, metadata=_is_at_least(0))  # that must be free to load it

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class TopicEntry:
    """A topic that must be alive."""

    name: str
    type: str
    min_rate_hz: float = field(default=0.0, metadata=_is_at_least(0))
    frame_id: str | None = None
    reliability: str = field(default='best_effort', metadata=_one_of('best_effort', 'reliable'))


@dataclass(frozen=True)
class OutputEntry:
    """A topic that must carry answers to an input."""

    topic: str
    type: str
    stamps_of: str = ''  # the input topic whose stamps it carries; empty: of none
    max_age_ms: float | None = field(default=None, metadata=_is_at_least(0))  # p95, when it comes


@dataclass(frozen=True)
class BoardEntry:
    """The state that the board must be in."""

    mode: str = ''  # name of the power mode, such as MAXN_SUPER
    clocks: str = field(default='', metadata=_one_of('', 'mode', 'fixed'))  # as the mode says, or fixed too


@dataclass(frozen=True)
class BudgetEntry:
    """Milliseconds per stage, p95, as nodes measure them; None: no limit."""

    nodes: tuple[str, ...]  # whose diagnostics have the stages
    camera: float | None = field(default=None, metadata=_is_at_least(0))
    prepare: float | None = field(default=None, metadata=_is_at_least(0))
    inference: float | None = field(default=None, metadata=_is_at_least(0))
    decode: float | None = field(default=None, metadata=_is_at_least(0))
    publish: float | None = field(default=None, metadata=_is_at_least(0))
    planning: float | None = field(default=None, metadata=_is_at_least(0))
    control: float | None = field(default=None, metadata=_is_at_least(0))

    def limits_ms(self) -> dict[str, float]:
        """The limits there are, in the order of a picture's way."""
        given = {stage: getattr(self, stage) for stage in STAGES}
        return {stage: limit for stage, limit in given.items() if limit is not None}


@dataclass(frozen=True)
class Manifest:
    """A deployment."""

    models: tuple[ModelEntry, ...] = ()
    topics: tuple[TopicEntry, ...] = ()
    nodes: tuple[str, ...] = ()
    outputs: tuple[OutputEntry, ...] = ()
    board: BoardEntry | None = None
    disk_free_mb: float | None = field(default=None, metadata=_is_at_least(0))
    clock_sync: bool = False
    budget: BudgetEntry | None = None
    listen_s: float = field(default=3.0, metadata=_is_at_least(0.1))  # how long topics are listened to
    optional: tuple[str, ...] = ()  # names of checks that may fail
    folder: Path = field(default=Path(), metadata={'is_internal': True})


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest, strictly.

    Raises:
        ParameterError: it cannot be read, or says something that nobody knows; names the place in it.
    """
    path = Path(os.path.expanduser(path))
    if path.suffix.lower() in ('.onnx', *ENGINE_SUFFIXES):
        command = how_to_write(DEFAULT_MANIFEST, str(path))
        raise ParameterError(f'{path}: expected a manifest, got a model; write one of it first: {command}')
    try:
        content = read_document(path, is_strict=True)
    except ValueError as error:
        way_out = '' if os.path.exists(path) else f'; write one: {how_to_write(path)}'
        raise ParameterError(f'{path}: cannot be read as a manifest: {error}{way_out}') from error
    try:
        manifest = _entry(Manifest, content, '')
        _check(manifest)
    except ParameterError as error:
        raise ParameterError(f'{path}: {error}') from None
    return dataclasses.replace(manifest, folder=path.absolute().parent)


def how_to_write(manifest: str | Path, models: str = 'MODEL ...') -> str:
    """The command that writes a manifest to begin with."""
    return f'isaac-infer validate --write {manifest} {models}'


def ros_names(manifest: Manifest) -> list[str]:
    """The names of the checks over ROS, in their order."""
    names = [f'{topic.name}: topic' for topic in manifest.topics]
    names += [f'{name}: node' for name in manifest.nodes]
    names += [f'{output.topic}: output' for output in manifest.outputs]
    return names + ['latency: budget'] * (manifest.budget is not None)


def place_of(path: str, *, folder: Path, model_directory: str = '') -> Path:
    """Give where a file of a manifest lies: a relative one in the folder of models, then beside the manifest,
    then where models are looked for.

    Raises:
        ModelError: it is nowhere.
    """
    given = Path(os.path.expanduser(path))
    places = [Path(os.path.expanduser(each)) / given for each in (model_directory, folder) if str(each)]
    return next((place for place in places if os.path.isfile(place)), None) or find_model(given)


def _check(manifest: Manifest) -> None:
    """See that there is something to be checked, and that no check is there twice."""
    budget = manifest.budget
    if budget is not None and not budget.limits_ms():
        raise ParameterError(f'budget: expected milliseconds of a stage ({", ".join(STAGES)}), got none')
    if manifest.board is not None and not (manifest.board.mode or manifest.board.clocks):
        raise ParameterError('board: expected mode or clocks, got neither')
    parts = (manifest.models, manifest.topics, manifest.nodes, manifest.outputs, manifest.board, budget)
    if not (any(parts) or manifest.disk_free_mb is not None or manifest.clock_sync):
        raise ParameterError('expected something to check, such as models or topics, got nothing')
    named = {
        'models': [model.name for model in manifest.models],
        'topics': [topic.name for topic in manifest.topics],
        'nodes': manifest.nodes,
        'outputs': [output.topic for output in manifest.outputs],
    }
    for part, names in named.items():
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ParameterError(f'{part}: expected each name once, got {twice[0]!r} several times')
    for output in manifest.outputs:
        if output.stamps_of and output.stamps_of not in named['topics']:
            known = ', '.join(named['topics']) or 'none'
            raise ParameterError(
                f'outputs: {output.topic}: stamps_of: expected one of topics ({known}), '
                f'got {output.stamps_of!r}'
            )
    for model in manifest.models:
        if model.sha256 and not re.fullmatch('[0-9a-f]{64}', model.sha256):
            raise ParameterError(
                f'models: {model.name}: sha256: expected 64 digits from 0 to f, got {model.sha256!r}'
            )
    kinds = [topic.type for topic in manifest.topics] + [output.type for output in manifest.outputs]
    for kind in kinds:
        if not re.fullmatch(r'\w+/msg/\w+', kind):
            raise ParameterError(f'type: expected one such as sensor_msgs/msg/Image, got {kind!r}')


def _entry(kind: type[Entry], content: Any, where: str) -> Entry:
    """Make an entry of what the file has in its place."""
    if not isinstance(content, dict):
        raise ParameterError(f'{where or "manifest"}: expected a mapping, got {_what(content)}')
    hints = get_type_hints(kind)
    fields = {
        each.name: each
        for each in dataclasses.fields(kind)  # type: ignore[arg-type]
        if 'is_internal' not in each.metadata
    }
    for name in content:
        if name not in fields:
            alike = get_close_matches(str(name), fields, n=1) or list(fields)
            raise ParameterError(f'{_at(where, name)}: unknown; expected {", ".join(alike)}')
    for name, each in fields.items():
        has_default = each.default is not dataclasses.MISSING
        if name not in content and not has_default:
            raise ParameterError(f'{_at(where, name)}: expected a value, got none')
    values = {
        name: _value(hints[name], value, _at(where, name), fields[name].metadata)
        for name, value in content.items()
    }
    return kind(**values)


def _at(where: str, name: Any) -> str:
    return f'{where}.{name}' if where else str(name)


def _value(kind: Any, value: Any, where: str, facts: Mapping[str, Any]) -> Any:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if not isinstance(value, list):
            raise ParameterError(f'{where}: expected a list, got {_what(value)}')
        return tuple(_value(item, each, f'{where}[{number}]', {}) for number, each in enumerate(value))
    choices = [each for each in get_args(kind) if each is not type(None)]
    kind = choices[0] if choices else kind
    if dataclasses.is_dataclass(kind):
        return _entry(kind, value, where)  # type: ignore[arg-type]
    if kind is str:
        if isinstance(value, str) and value and (not facts.get('choices') or value in facts['choices']):
            return value
        named = ' one of ' + ', '.join(filter(None, facts['choices'])) if facts.get('choices') else ' a text'
        raise ParameterError(f'{where}: expected{named}, got {_what(value)}')
    if kind is bool:
        # A text in YAML, whose scalars nobody has read yet; of JSON what it is.
        known = {'true': True, 'false': False, True: True, False: False}
        if isinstance(value, (str, bool)) and value in known:
            return known[value]
        raise ParameterError(f'{where}: expected true or false, got {_what(value)}')
    return _number(value, where, facts)


def _number(value: Any, where: str, facts: Mapping[str, Any]) -> float:
    least, most = facts['least'], facts['most']
    try:
        is_number = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        number = float(value) if is_number else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    # Written so that NaN is refused too.
    if not (math.isfinite(number) and least <= number <= most):
        bounds = f'of at least {least:g}' if most == math.inf else f'from {least:g} to {most:g}'
        raise ParameterError(f'{where}: expected a number {bounds}, got {_what(value)}')
    return number


def _what(value: Any) -> str:
    if value is None:
        return 'nothing'
    return 'a mapping' if isinstance(value, dict) else 'a list' if isinstance(value, list) else repr(value)
