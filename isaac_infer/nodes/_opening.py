"""Opening: how every perception node opens the model that its parameters name."""

from __future__ import annotations

from collections.abc import Callable

from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.spec import Limits, ModelSpec
from isaac_infer.engine.load import check_built, file_sha256, find_model, open_pipeline, unused_precision
from isaac_infer.params import DetectionParams, PerceptionParams
from isaac_infer.ros.cdr import writer
from isaac_infer.ros.perception import Loaded


def limits_of(params: DetectionParams, spec: ModelSpec) -> Limits:
    """What of the answers counts."""
    return params.limits(spec.class_names, spec.num_classes)


def open_model(
    task: str, params: PerceptionParams, say: Callable[[str], None], is_cancelled: Callable[[], bool]
) -> Loaded:
    """Open the model of a node for a task; see `open_any`."""
    return open_any(task, params, say, is_cancelled, build_only=params.build_only)


def open_any(
    task: str,
    params: DetectionParams,
    say: Callable[[str], None],
    is_cancelled: Callable[[], bool],
    *,
    build_only: bool,
) -> Loaded:
    """Open a model for a task.

    Args:
        task: a key of TASKS.
        params: name the model and how it is run.
        say: takes a sentence about how far it is.
        is_cancelled: tells that the model is not wanted any more.
        build_only: whether nothing but its engine is wanted.
    """
    path = find_model(params.engine_file_path or params.model_file_path)
    pipeline = open_pipeline(
        path,
        task=task,
        limits=lambda spec: limits_of(params, spec),
        overrides=params.overrides(read_class_names(params.class_names)),
        say=say,
        is_cancelled=is_cancelled,
        **params.run_options(),
    )
    if build_only:
        check_built(pipeline.session, params.backend)
    is_asked_for = params.precision != type(params)().precision
    if is_asked_for and (note := unused_precision(params.precision, pipeline.session)):
        say(note)
    return Loaded(pipeline, {'model': str(path), 'sha256': file_sha256(path), 'messages': writer()})
