"""Register: the manifest of models as they are here, to compare with on the robot."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isaac_infer.core.errors import ParameterError
from isaac_infer.deploy.manifest import ONNXRUNTIME, POLICY, ModelEntry
from isaac_infer.deploy.model_checks import ModelUnderTest, digest_of
from isaac_infer.engine.load import find_model, is_engine, open_session
from isaac_infer.engine.task import takes_pictures

HEAD = """\
# What isaac-infer validate and deployment_validator check. Files are looked up beside this one first.
models:
"""
TAIL = """\
# Take what your robot has, and remove the signs before it; README.md, "Validate a deployment", has all keys.
# topics:
#   - {name: camera/image_raw, type: sensor_msgs/msg/Image, min_rate_hz: 25, frame_id: camera}
# nodes: [detector_node]
# outputs:
#   - topic: detections
#     type: vision_msgs/msg/Detection2DArray
#     stamps_of: camera/image_raw
#     max_age_ms: 100
# board: {mode: MAXN_SUPER, clocks: mode}
# disk_free_mb: 1000
# clock_sync: true
# budget: {nodes: [detector_node], camera: 30, prepare: 5, inference: 20, decode: 5, publish: 5}
"""


@dataclass(frozen=True)
class Registered:
    """A model as it is here."""

    entry: ModelEntry
    outputs: bytes  # an npz file for `entry.reference`


def register(
    models: Sequence[str], manifest: Path, *, task: str = '', tasks: Mapping[str, str] | None = None
) -> list[Registered]:
    """Run models on ONNX Runtime, or engines as they are, and say what they are and answer; slow.

    Args:
        models: files, as `find_model` takes them.
        manifest: beside which they, and their outputs, are looked up.
        task: of those that `tasks` does not name; empty: what each is for, of one that takes no picture a
            policy. A policy's inputs are zeros, in its sample too.
        tasks: of models, by their names or as they are given.

    Raises:
        ModelError, ParameterError, SessionError: one of them cannot be found, understood or run.
    """
    folder = manifest.absolute().parent
    tasks = tasks or {}
    known = {each for given in models for each in (given, Path(given).name)}
    if unknown := sorted(set(tasks) - known):
        raise ParameterError(f'task: expected a model of {", ".join(models)}, got {unknown[0]!r}')
    paths = [find_model(given) for given in models]
    _check_names(paths)
    found = []
    for given, path in zip(models, paths):
        is_here = os.path.exists(os.path.expanduser(given))
        place = os.path.relpath(path.absolute(), folder) if is_here else given
        reference = f'{manifest.stem}.{path.name}.npz'
        backend = 'auto' if is_engine(path) else ONNXRUNTIME  # whatever else this machine has
        wanted = tasks.get(given) or tasks.get(Path(given).name) or task
        if not wanted and _takes_no_picture(path, backend):
            wanted = POLICY
        entry = ModelEntry(path=place, sha256=digest_of(path), task=wanted, reference=reference)
        model = ModelUnderTest(replace(entry, backend=backend), folder=folder)
        try:
            told = model.loads()
            outputs = model.outputs()
        finally:
            model.close()
        for name, output in outputs.items():
            if not np.isfinite(output).all():
                raise ParameterError(f'{path}: expected finite outputs, got NaN or Inf in {name}')
        file = io.BytesIO()
        np.savez_compressed(file, **outputs)  # type: ignore[arg-type]
        found.append(Registered(replace(entry, task=told.get('task', POLICY)), file.getvalue()))
    return found


def _check_names(models: Sequence[Path]) -> None:
    """See that no two models have one name, by which their checks and outputs are told apart.

    Raises:
        ParameterError: two have.
    """
    named: dict[str, Path] = {}
    for path in models:
        other = named.setdefault(path.name, path)
        if other is not path:
            way_out = 'leave one out' if path.samefile(other) else 'give one of them another file name'
            raise ParameterError(f'expected models of different names, got {other} and {path}; {way_out}')


def _takes_no_picture(path: Path, backend: str) -> bool:
    with closing(open_session(path, backend=backend)) as session:
        return not takes_pictures(session)


def manifest_text(registered: Sequence[Registered]) -> str:
    """The manifest of models, with what may come beside them as comments."""
    lines = []
    for each in registered:
        entry = each.entry
        values = {
            'path': entry.path,
            'sha256': entry.sha256,
            'task': entry.task,
            'reference': entry.reference,
            'tolerance': entry.tolerance,
        }
        # JSON is YAML, too.
        text = [f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in values.items()]
        lines += [f'  {"-" if not number else " "} {line}' for number, line in enumerate(text)]
        lines.append('    # latency_budget_ms: 30    # 95 of 100 pictures take at most so long')
    return HEAD + '\n'.join(lines) + '\n' + TAIL
