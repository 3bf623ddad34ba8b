"""Variants: an ONNX model in other precisions, for ONNX Runtime, which computes as the model says."""

from __future__ import annotations

import shutil
from pathlib import Path

from isaac_infer.core.build_options import EngineOptions
from isaac_infer.core.decode.document import SUFFIXES
from isaac_infer.core.errors import ModelError
from isaac_infer.core.progress import Say
from isaac_infer.core.spec import Overrides
from isaac_infer.engine.engines import FindSpec
from isaac_infer.engine.trial import try_model

ONNX_PRECISIONS = ('fp32', 'fp16', 'int8')  # that models are given in for ONNX Runtime; fp32: as they are


def save_variant(
    model: Path,
    folder: Path,
    *,
    precision: str,
    options: EngineOptions,
    overrides: Overrides,
    find_spec: FindSpec,
    say: Say = lambda text: None,
) -> Path:
    """Write a model in another precision into a folder, with its sidecar beside it; gives where.

    Args:
        model: the ONNX file in float32.
        precision: one of ONNX_PRECISIONS.
        options: says on which pictures int8 is calibrated.
        overrides: what the user says of the model.
        find_spec: finds out how a session is fed; `engine.load.find_spec`.
        say: is told on how many pictures int8 is calibrated, and which of them cannot be read.

    Raises:
        ModelError: it cannot be given in this precision.
        ParameterError: there are no pictures to calibrate on.
    """
    if precision not in ONNX_PRECISIONS:
        raise ModelError(
            f'{model.name}: ONNX Runtime gets it in {", ".join(ONNX_PRECISIONS)}, not in {precision}; '
            'TensorRT builds it'
        )
    if precision == 'fp32':
        return model
    place = folder / model.name
    if precision == 'fp16':
        from isaac_infer.engine.surgery import load_model, save_model, to_float16

        save_model(to_float16(load_model(model)), place)
    else:
        _save_int8(model, place, options, overrides, find_spec, say)
    for sidecar in (model.with_suffix(suffix) for suffix in SUFFIXES):
        if sidecar.is_file():
            shutil.copy(sidecar, folder)
    return place


def _save_int8(
    model: Path, place: Path, options: EngineOptions, overrides: Overrides, find_spec: FindSpec, say: Say
) -> None:
    from isaac_infer.engine.engines import calibration_frames
    from isaac_infer.engine.ort import OrtSession
    from isaac_infer.engine.quantise import calibration_batches, quantise

    frames = calibration_frames(options, say)
    try_model(model)
    with OrtSession(model) as session:
        spec = find_spec(session, model, overrides)
    quantise(model, place, calibration_batches(frames, spec))
