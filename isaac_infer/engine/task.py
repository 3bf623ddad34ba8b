"""Task: what a model is for, where nobody says it: as it says itself, or as its outputs can be read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from isaac_infer.core.decode.families import BOXES_ONLY
from isaac_infer.core.decode.metadata import read_metadata
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import IsaacInferError, NamesError, ParameterError
from isaac_infer.core.session import Session
from isaac_infer.core.spec import ModelSpec, Overrides
from isaac_infer.engine.load import find_spec, is_engine, metadata_of, open_session

FIRST_TASK = next(iter(TASKS))
UNKNOWN = 'nobody says another one'  # why a model is taken for the first task
UNCLEAR = '--task says what it is for'  # how the reason ends where several can read a model
_PICTURE_AXES = 3  # there may be several pictures, too
_PART = re.compile('[A-Z]*[a-z]+|[A-Z]+')  # of a name such as stage2/HeatMaps:0
_BOXES_ALONE = f'only its boxes are read, as detector_node does (--task {FIRST_TASK})'


def task_of_file(path: Path, overrides: Overrides, *, is_posed: bool = False) -> tuple[str, str]:
    """What a model is for, and why: see `task_of`; of an engine what it was built for.

    Args:
        path: an ONNX model or an engine; one that does not open is for the first task, for which it is then
            said why.

    Raises:
        ParameterError: it is not for detection, and several others can read it; or there is no such decoder.
    """
    if by_decoder := _task_by_decoder(overrides.decoder):
        return by_decoder
    try:
        if is_engine(path):
            from isaac_infer.engine.engines import spec_of

            spec = spec_of(path, overrides)
            return (spec.task, 'it was built for this') if spec else (FIRST_TASK, UNKNOWN)
        with contextlib.closing(open_session(path, backend='onnxruntime')) as session:
            return task_of(session, path, overrides, is_posed=is_posed)
    except ParameterError:
        raise
    except IsaacInferError:
        return FIRST_TASK, UNKNOWN


def task_of(session: Session, path: Path, overrides: Overrides, *, is_posed: bool = False) -> tuple[str, str]:
    """What a model is for, and why: as it says itself, or the only task that reads all of it; else detection.

    Args:
        is_posed: whether it is used as only pose models can be: where it can be one, it is.

    Raises:
        ParameterError: it is not for detection, and several others can read it; or there is no such decoder.
    """
    says = read_metadata(metadata_of(path, session.metadata, overrides)[0], file_name=path.name)
    if by_decoder := _task_by_decoder(overrides.decoder or says.own.get('decoder', '')):
        return by_decoder
    # Such models can be read as detectors too: what only one task says comes first.
    for task in reversed(tuple(TASKS)):
        if says.task in TASKS[task].says:
            is_detector_too = task != FIRST_TASK and says.task in TASKS[FIRST_TASK].says
            boxes = f'; for {FIRST_TASK} {_BOXES_ALONE}' if is_detector_too else ''
            return task, f'its metadata says {says.task!r}{boxes}'
        if says.purpose in TASKS[task].says:
            return task, 'its metadata or its sidecar say so'
    if says.keypoints:
        return 'pose', 'its metadata or its sidecar name key points'
    specs = _specs(session, path, overrides)
    if (is_posed or overrides.keypoints) and 'pose' in specs:
        return 'pose', 'it is used with key points'
    if len(specs) == 1:
        return next(iter(specs)), 'no other one can read what it answers'
    if not specs:
        return FIRST_TASK, UNKNOWN
    others = [task for task in specs if task != FIRST_TASK]
    if FIRST_TASK not in specs:
        told = {task: _names_with(session, TASKS[task].words) for task in others}
        told = {task: names for task, names in told.items() if names}
        if len(told) == 1:
            ((task, names),) = told.items()
            return task, f'its outputs are called {", ".join(names)}'
        raise ParameterError(
            f'task: {path.name} can be read for {" and ".join(others)}; say what it is for: --task, in '
            f'Python task, or for good "task: {others[0]}" in {path.with_suffix(".yaml").name} beside it'
        )
    spec = specs[FIRST_TASK]
    if spec and not BOXES_ONLY.isdisjoint(spec.notes):
        # Prototypes of masks look like heat maps to who does not read the boxes beside them, and their
        # coefficients like key points to who does not read the prototypes.
        read = {task: set(each.outputs) for task, each in specs.items() if each}
        whole = [task for task in others if all(read.get(task, set()) >= each for each in read.values())]
        if len(whole) == 1:
            return whole[0], f'for {FIRST_TASK} {_BOXES_ALONE}'
    return FIRST_TASK, f'it can be read for {" and ".join(others)} too; {UNCLEAR}'


def takes_pictures(session: Session) -> bool:
    """Whether one of its inputs has rows, columns and channels; a control policy mostly has none such."""
    return any(len(spec.shape) >= _PICTURE_AXES for spec in session.inputs)


def _names_with(session: Session, words: Sequence[str]) -> list[str]:
    """The names of outputs of which a part begins with one of these words: `out_poses`, not `transpose`."""
    parts = {output.name: _PART.findall(output.name) for output in session.outputs}
    return [name for name in parts if any(part.lower().startswith(tuple(words)) for part in parts[name])]


def _task_by_decoder(decoder: str) -> tuple[str, str] | None:
    """The task of a decoder, and why; None where none is asked for."""
    if not decoder:
        return None
    tasks = [task for task in TASKS if decoder in TASKS[task].decoders]
    if not tasks:
        known = ''.join(f'\n  {task}: {", ".join(TASKS[task].decoders)}' for task in TASKS)
        raise ParameterError(f'decoder: there is no decoder {decoder!r}; there are, by task{known}')
    return tasks[0], f'its decoder is {decoder}'


def _specs(session: Session, path: Path, overrides: Overrides) -> dict[str, ModelSpec | None]:
    """How a model is used, by the tasks that it can be used for; None: but for the number of names."""
    specs: dict[str, ModelSpec | None] = {}
    for task in TASKS:
        try:
            specs[task] = find_spec(session, path, overrides, task=task)
        except NamesError:
            specs[task] = None
        except IsaacInferError:
            continue
    return specs
