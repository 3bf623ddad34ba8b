"""Variants: what `isaac-infer compare` is asked to compare, and how each is opened."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isaac_infer.cli.models import model_file, model_path, open_detector
from isaac_infer.cli.progress import BuildProgress
from isaac_infer.cli.scores import Scoring
from isaac_infer.core.agreeing import Agreeing
from isaac_infer.core.build_options import PRECISIONS
from isaac_infer.core.decode.names import read_class_names
from isaac_infer.core.errors import IsaacInferError, ParameterError
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.text import without_commands
from isaac_infer.engine.engines import calibration_frames
from isaac_infer.engine.files import working_folder
from isaac_infer.engine.load import BACKENDS, find_spec, is_engine, runs_on_tensorrt
from isaac_infer.engine.variants import ONNX_PRECISIONS, save_variant
from isaac_infer.params import DetectionParams

REFERENCE_BACKEND, REFERENCE_PRECISION = 'onnxruntime', 'fp32'  # where one model is compared with itself


@dataclass(frozen=True)
class Wanted:
    """One variant that is asked for."""

    params: DetectionParams
    precision: str = ''  # of a model that is given in several; empty: as its file is

    @property
    def path(self) -> str:
        return model_path(self.params)

    @property
    def file(self) -> Path:
        return model_file(self.params)


class Variant:
    """One variant at work: how what it found so far is measured, and how long that took."""

    def __init__(self, wanted: Wanted, pipeline: Pipeline | None, failure: str = '') -> None:
        self.wanted, self.path, self.pipeline = wanted, wanted.path, pipeline
        self.failure = failure  # why it is out; empty: it is not
        self.agreeing: Agreeing  # with the reference
        self.scoring: Scoring | None = None  # where truth is known
        self.run_ms: list[float] = []
        self.picture_ms: list[float] = []  # from the picture to what is found


def wanted_variants(args: argparse.Namespace, params: DetectionParams) -> list[Wanted]:
    """List the variants: the models as they are, or each ONNX model in all precisions on all backends.

    Raises:
        ModelError: a model is not there.
        ParameterError: a precision or a backend is unknown or lacks something, or the first model is no ONNX
            model.
    """
    first = [model_path(params)] if params.model_file_path or params.engine_file_path else []
    if not (first or args.models):
        raise ParameterError('MODEL: expected at least one model, got none; name them first, before --source')
    models = [params.changed(model_file_path=model, engine_file_path='') for model in (*first, *args.models)]
    paths = [model_file(model) for model in models]
    if not (args.precisions or args.backends):
        return [Wanted(model) for model in models]
    for option, known in (('precisions', PRECISIONS), ('backends', BACKENDS)):
        unknown = [word for word in getattr(args, option) if word not in known]
        if unknown:
            raise ParameterError(f'{option}: expected some of {", ".join(known)}, got {", ".join(unknown)}')
    if is_engine(paths[0]):
        raise ParameterError(f'precisions, backends: expected an ONNX model first, got {paths[0]}')
    reference = Wanted(models[0].changed(backend=REFERENCE_BACKEND), REFERENCE_PRECISION)
    variants = [reference]
    for model, path in zip(models, paths, strict=True):
        if is_engine(path):
            variants.append(Wanted(model))
            continue
        for backend in args.backends or [params.backend]:
            on_tensorrt = runs_on_tensorrt(path, backend, params.providers)
            named = model.changed(backend='tensorrt' if on_tensorrt else 'onnxruntime')
            # Without a list: what TensorRT is asked for, and the file as it is on ONNX Runtime.
            for precision in args.precisions or [params.precision if on_tensorrt else REFERENCE_PRECISION]:
                variants.append(Wanted(named.changed(precision=precision), precision))
    once: dict[tuple[str, str, str], Wanted] = {}
    for each in variants:
        once.setdefault((each.path, each.params.backend, each.precision), each)
    for each in once.values():
        _check_precision(each)
    return list(once.values())


def _check_precision(wanted: Wanted) -> None:
    """See before the work that a precision can be given, as far as that can be known.

    Raises:
        ParameterError: ONNX Runtime does not have it, or there are no pictures to calibrate it on.
    """
    precision, params = wanted.precision, wanted.params
    is_on_onnxruntime = params.backend == 'onnxruntime'
    if is_on_onnxruntime and precision and precision not in ONNX_PRECISIONS:
        raise ParameterError(
            f'precisions: expected some of {", ".join(ONNX_PRECISIONS)} on ONNX Runtime, got {precision}; '
            'leave it out, or give --backends tensorrt'
        )
    path = params.calibration_path
    # TensorRT may find an engine although its pictures are gone.
    if precision == 'int8' and (is_on_onnxruntime or not path or os.path.isdir(os.path.expanduser(path))):
        next(calibration_frames(params.engine_options()))  # one that can be read is enough


def to_build(
    variants: Sequence[Wanted], args: argparse.Namespace, params: DetectionParams
) -> list[DetectionParams]:
    """What `--build-only` opens: all, or of one model in several precisions those of TensorRT."""
    built = [each.params for each in variants if each.params.backend != REFERENCE_BACKEND]
    if built:
        return built
    # As it was asked for: that nothing is built is fine only where ONNX Runtime was.
    asked = next((each for each in args.backends or [params.backend] if each != 'onnxruntime'), 'onnxruntime')
    return [variants[0].params.changed(backend=asked)]


def open_variants(wanted: Sequence[Wanted], task: str, stack: contextlib.ExitStack) -> list[Variant]:
    """Open variants; one that does not open is out, but nothing can be compared without the first one.

    What keeps several of them out is told of the first in full.
    """
    variants: list[Variant] = []
    for each in wanted:
        variant = _open_variant(each, task, stack, is_reference=not variants)
        if variant.failure:
            if variant.failure in [other.failure for other in variants]:
                variant.failure = variant.failure.split(';')[0]  # without what helps
            say_failure(variant)
        variants.append(variant)
    return variants


def _open_variant(wanted: Wanted, task: str, stack: contextlib.ExitStack, *, is_reference: bool) -> Variant:
    try:
        params = wanted.params
        if wanted.precision and params.backend == 'onnxruntime':
            folder = stack.enter_context(working_folder('compare'))
            with BuildProgress() as say:
                place = save_variant(
                    wanted.file,
                    folder,
                    precision=wanted.precision,
                    options=params.engine_options(),
                    overrides=params.overrides(read_class_names(params.class_names)),
                    find_spec=partial(find_spec, task=task),
                    say=say,
                )
            params = params.changed(model_file_path=str(place))
        return Variant(wanted, stack.enter_context(contextlib.closing(open_detector(params, task=task))))
    except IsaacInferError as error:
        # What is asked for wrongly is wrong for all variants; a precision may lack something of its own.
        if is_reference or (isinstance(error, ParameterError) and not wanted.precision):
            raise
        return Variant(wanted, None, failure_of(wanted, error))


def failure_of(wanted: Wanted, error: Exception) -> str:
    """Why a variant is out: the first line of an error, without the name of the file."""
    reason = str(error).splitlines()[0]
    for told in (wanted.path, Path(wanted.path).name):
        reason = reason.removeprefix(f'{told}: ')
    return reason


def say_failure(variant: Variant) -> None:
    """Say that a variant is out, and why."""
    wanted = variant.wanted
    name = ' '.join([wanted.path, *([wanted.precision, wanted.params.backend] if wanted.precision else [])])
    print(f'isaac-infer: error: {without_commands(f"{name}: {variant.failure}")}', file=sys.stderr)
