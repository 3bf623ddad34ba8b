"""Engines: the TensorRT engine of an ONNX model, from the cache or built now, and how it is fed and read."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isaac_infer.core.bag import is_bag, split_topic
from isaac_infer.core.build_options import BuildOptions, EngineOptions, Shape
from isaac_infer.core.decode.document import SUFFIXES
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import ModelError, ParameterError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import agreement
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.progress import Say
from isaac_infer.core.source import open_source
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec, Overrides
from isaac_infer.engine.build import Request, build_plan
from isaac_infer.engine.cache import (
    BuildKey,
    cached_plan,
    default_folder,
    last_build_s,
    model_digest,
    pictures_digest,
    read_sidecar,
)
from isaac_infer.engine.cuda import Gpu
from isaac_infer.engine.trial import try_model
from isaac_infer.engine.trt import TrtSession, find_tensorrt, installed_version

RECIPE = '1'  # counts up when what is done to models before they are built changes
CHECK_PICTURES = 20  # of the calibration, on which a model in INT8 is compared with the one in float32
LEAST_FOUND = 0.5  # of the objects, or INT8 is of no use
SAME_OBJECT_IOU = 0.5
CHECK_SCENES = 3  # drawn pictures on which a changed model is compared with its original
# Parts of a key that decide what a calibrator of TensorRT finds out.
CALIBRATED_BY = (
    'model',
    'task',
    'tensorrt',
    'calibration',
    'calibration pictures',
    'uint8 input',
    'best class',
)
OVERRIDDEN_BY = ('overrides', 'sidecar')
FEW_CALIBRATED = 100  # with which ranges are a matter of luck
MOST_CALIBRATED = 500  # pictures; more change nothing but the time
DTYPES = ('float32', 'float16', 'uint8', 'int8', 'int32')  # of image inputs


class Tolerance(NamedTuple):
    """How far the objects of a changed model may be off."""

    pixels: float
    score: float
    threshold: float  # of the objects that are compared


SINGLE_CLOSE = Tolerance(pixels=1e-2, score=1e-2, threshold=0.05)
HALF_CLOSE = Tolerance(pixels=4.0, score=0.05, threshold=0.5)


@dataclass(frozen=True)
class Pictures:
    """What int8 is calibrated on: pictures of a folder or recording, spread evenly over it."""

    source: str  # as `open_source` takes it
    numbers: tuple[int, ...]  # which of them, from 0 and ascending
    paths: tuple[Path, ...]  # the files that hold them
    topic: str = ''  # of a recording


FindSpec = Callable[[Any, Path, Overrides], ModelSpec]


def open_engine(
    model: Path,
    options: EngineOptions,
    overrides: Overrides,
    find_spec: FindSpec,
    *,
    task: str = 'detection',
    say: Say,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> tuple[TrtSession, ModelSpec | None]:
    """Open the engine of a model, built if there is none of this key yet.

    Args:
        model: the ONNX file.
        overrides: what the user says of the model: a part of the key, since it may be built in.
        find_spec: finds out how a session is fed and read; `engine.load.find_spec` for this task.
        task: what kind of answer is wanted.
        say: takes a sentence for the log: why it is built, how far it is.
        is_cancelled: asked several times a second while it is built.

    Returns:
        The session, and how it is fed and read: None where the model is not understood.

    Raises:
        ModelError: it cannot be built.
        SessionError: there is no GPU or no TensorRT, not enough memory, or it was cancelled.
    """
    build = options.build
    pictures = _calibration_pictures(options) if build.precision == 'int8' else None
    trt, gpu = find_tensorrt(), Gpu(options.device)
    key = _key(model, task, build, overrides, pictures, installed_version(trt), gpu)
    folder = Path(options.cache_folder).expanduser() if options.cache_folder else default_folder(model)
    opened: list[TrtSession] = []
    expected_s = last_build_s(folder, model.stem)

    def check(path: Path) -> None:
        while opened:
            opened.pop().close()
        opened.append(TrtSession(path, device=options.device, dla_core=build.dla_core))

    def make(into: Path) -> Mapping[str, Any]:
        return _make(model, into, build, overrides, find_spec, pictures, key, expected_s, say, is_cancelled)

    cached = cached_plan(folder, model.stem, key, build=make, check=check, say=say, is_cancelled=is_cancelled)
    return opened[0], spec_of(cached.path, overrides)


def spec_of(engine: Path, overrides: Overrides) -> ModelSpec | None:
    """Give how an engine is fed and read, as its build has written it; None where it has not."""
    sidecar = read_sidecar(engine)
    said = sidecar['facts'].get('spec') if sidecar else None
    if said is None:
        return None
    try:
        spec = _spec_from(said)
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise ModelError(
            f'{engine.with_suffix(".json")}: cannot be understood: {error}; remove it'
        ) from error
    names = overrides.class_names
    if names and spec.num_classes and len(names) != spec.num_classes:
        raise ModelError(
            f'{engine.name}: expected {spec.num_classes} class names, as the model has classes, '
            f'got {len(names)}'
        )
    return replace(spec, class_names=names) if names else spec


def calibration_frames(options: EngineOptions) -> Iterator[Frame]:
    """Read the pictures that int8 is calibrated on.

    Raises:
        ParameterError: there are none.
    """
    return _frames(_calibration_pictures(options))


# ---- the key --------------------------------------------------------------------------------------


def _key(
    model: Path,
    task: str,
    build: BuildOptions,
    overrides: Overrides,
    pictures: Pictures | None,
    version: tuple[int, ...],
    gpu: Gpu,
) -> BuildKey:
    facts = gpu.facts
    parts = {
        'model': model_digest(model),
        'task': task,
        'tensorrt': '.'.join(map(str, version)),
        'gpu': facts.name,
        'compute capability': '.'.join(map(str, facts.compute_capability)),
        **build.words(),
        'recipe': RECIPE,
    }
    # What is said of the model may be built in: its normalisation, its decoder. Names are not.
    said = {
        name: value
        for name, value in asdict(overrides).items()
        if value not in ('', None, ()) and name != 'class_names'
    }
    if said:
        parts['overrides'] = json.dumps(said)
    sidecars = [file for suffix in SUFFIXES if (file := model.with_suffix(suffix)).is_file()]
    if sidecars:
        parts['sidecar'] = pictures_digest(sidecars[:1])
    if pictures:
        parts['calibration pictures'] = ' '.join(
            filter(None, [pictures_digest(pictures.paths), pictures.topic])
        )
    return BuildKey(parts)


def _calibration_name(key: BuildKey) -> str:
    """The file for what TensorRT's calibrators find out, which builds with other options take from there."""
    parts = {name: key.parts[name] for name in CALIBRATED_BY if name in key.parts}
    return f'calibration-{BuildKey(parts).digest}.cache'


def _calibration_pictures(options: EngineOptions) -> Pictures:
    """Choose the pictures: all of a folder or recording, or as many as count, spread evenly over it."""
    place = os.path.expanduser(split_topic(options.calibration)[0])
    if not place or not (os.path.isdir(place) or is_bag(Path(place))):
        raise ParameterError(
            'calibration: int8 needs a folder of pictures as the robot sees them, some hundred, or a '
            f'recording (rosbag2), got {options.calibration!r}'
        )
    try:
        with open_source(options.calibration) as source:
            length, paths, topic = source.length or 0, source.paths, source.topic
    except SourceError as error:
        raise ParameterError(f'calibration: {error}') from error
    count = min(length, MOST_CALIBRATED)
    numbers = tuple(index * length // count for index in range(count))
    if not topic:  # each picture is a file
        paths = tuple(paths[number] for number in numbers)
    return Pictures(options.calibration, numbers, paths, topic)


# ---- the build ------------------------------------------------------------------------------------


def _make(
    model: Path,
    into: Path,
    build: BuildOptions,
    overrides: Overrides,
    find_spec: FindSpec,
    pictures: Pictures | None,
    key: BuildKey,
    expected_s: float,
    say: Say,
    is_cancelled: Callable[[], bool],
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix='isaac_infer_model_') as folder:
        has_flag = hasattr(find_tensorrt().BuilderFlag, 'FP16')
        source, spec, metadata = _changed(
            model, Path(folder), build, overrides, find_spec, pictures, say, has_fp16_flag=has_flag
        )
        machine = re.sub(r'[^\w.]+', '-', f'{key.parts["tensorrt"]}-{key.parts["gpu"]}')
        batches = ''
        if pictures and build.calibration != 'qdq':
            batches = _stored_batches(pictures, spec, Path(folder, 'batches.npz'))
        request = Request(
            model=str(source),
            into=str(into),
            options=asdict(replace(build, shapes=_fed_shapes(build, spec))),
            timing_cache=str(into.parent / f'timing-{machine}.cache'),
            batches=batches,
            calibration_cache=str(into.parent / _calibration_name(key)) if batches else '',
            expected_s=expected_s,
        )
        facts = build_plan(request, say=say, is_cancelled=is_cancelled)
    for warning in facts['warnings']:
        say(f'TensorRT: {warning}')
    say(f'{model.name}: built in {facts["build_s"]:.0f} s; a run takes {facts["latency_ms"]:.2f} ms')
    return {
        **facts,
        'source': str(model),
        'metadata': metadata,
        **({'spec': _spec_to(spec)} if spec else {}),
    }


def _changed(
    model: Path,
    folder: Path,
    build: BuildOptions,
    overrides: Overrides,
    find_spec: FindSpec,
    pictures: Pictures | None,
    say: Say,
    *,
    has_fp16_flag: bool = True,
) -> tuple[Path, ModelSpec | None, dict[str, str]]:
    """Do to a model what is done before it is built: the file, how it is fed and read, its metadata."""
    from isaac_infer.core.scenes import draw_scene
    from isaac_infer.engine import surgery
    from isaac_infer.engine.ort import OrtSession
    from isaac_infer.engine.quantise import calibration_batches, quantise

    try_model(model)
    with OrtSession(model) as session:
        metadata = dict(session.metadata)
        try:
            spec = find_spec(session, model, overrides)
        except ModelError as error:
            if build.precision == 'int8':
                raise
            say(f'built as it is, since it is not understood: {error}'.split('\n')[0])
            return model, None, metadata
    frames = [Frame(draw_scene(seed).image) for seed in range(CHECK_SCENES)]
    changed, changed_spec = surgery.load_model(model), spec
    exactly, tolerance = surgery.EXACT, SINGLE_CLOSE
    if build.precision == 'fp16' and not has_fp16_flag:  # TensorRT 11: the model itself says the types
        changed, exactly, tolerance = surgery.to_float16(changed), surgery.HALF, HALF_CLOSE
    # In half precision even a change that only moves work moves the values: such models stay as they are.
    is_single = spec.image.dtype == np.float32
    if build.uint8_input and is_single:
        others = _sizes(spec)
        image = surgery.checked(
            changed, spec.image, frames, uint8_input=True, tolerance=exactly, others=others
        )
        changed, changed_spec = image.model, replace(spec, image=image.image)
    if build.best_class and is_single and _has_class_rows(spec) and surgery.can_best_class(changed):
        changed = surgery.to_best_class(changed, spec.outputs[0], num_classes=spec.num_classes)
        changed_spec = replace(changed_spec, decoder='ultralytics_best', row_length=6)
    source = model  # where nothing was changed, with its weights wherever they are
    if changed_spec is not spec or tolerance is not SINGLE_CLOSE:
        source = folder / 'changed.onnx'
        surgery.save_model(changed, source)
        if spec.task == 'detection':  # others are compared tensor by tensor, above
            _check_same(model, spec, source, changed_spec, frames, tolerance)
    if pictures and build.calibration == 'qdq':
        count = len(pictures.numbers)
        few = '; some hundred are wanted' if count < FEW_CALIBRATED else ''
        say(f'{model.name}: calibrating on {count} pictures{few}')
        float_model, source = source, folder / 'int8.onnx'
        # Last, because everything before it leaves the values as they are, and can be checked by them.
        quantise(float_model, source, calibration_batches(_frames(pictures), changed_spec))
        if spec.task == 'detection':
            seen = islice(_frames(pictures), CHECK_PICTURES)
            _check_quantised(model, float_model, source, changed_spec, seen, say)
    return source, changed_spec, metadata


def _fed_shapes(build: BuildOptions, spec: ModelSpec | None) -> dict[str, tuple[Shape, Shape, Shape]]:
    """The shapes that the user gave for the model, as its inputs are after it was changed."""
    shapes = dict(build.shapes)
    if spec and spec.image.name in shapes and spec.image.layout == 'nhwc' and spec.image.dtype == np.uint8:
        low, usual, high = shapes[spec.image.name]
        channels = spec.image.channels
        if len(low) == 4 and {low[1], usual[1], high[1]} == {channels} and low[3] != channels:
            first, second, third = ((n, h, w, c) for n, c, h, w in (low, usual, high))
            shapes[spec.image.name] = first, second, third
    return shapes


def _has_class_rows(spec: ModelSpec) -> bool:
    return spec.decoder == 'ultralytics' and spec.row_length == 4 + spec.num_classes and spec.num_classes > 1


def _check_same(
    original: Path,
    spec: ModelSpec,
    changed: Path,
    changed_spec: ModelSpec,
    frames: Iterable[Frame],
    tolerance: Tolerance,
) -> None:
    """See that a changed model says of pictures what its original says; both on the CPU."""
    from isaac_infer.engine.ort import OrtSession

    limits = Limits(confidence_threshold=tolerance.threshold)
    with OrtSession(original) as first, OrtSession(changed) as second:
        pipelines = Pipeline(first, spec, limits), Pipeline(second, changed_spec, limits)
        for frame in frames:
            want, got = (pipeline(frame) for pipeline in pipelines)
            is_same = len(want) == len(got) and (want.class_id == got.class_id).all()
            if not is_same or not (
                np.allclose(want.xyxy, got.xyxy, atol=tolerance.pixels)
                and np.allclose(want.score, got.score, atol=tolerance.score)
            ):
                raise ModelError(
                    f'{original.name}: expected the same {len(want)} objects after it was changed for '
                    f'TensorRT, got {len(got)} others; build it in fp32, or with uint8_input and '
                    'best_class off'
                )
            if changed_spec.decoder == 'ultralytics_best' and tolerance is SINGLE_CLOSE:
                _check_rows(original, first.run()[spec.outputs[0]], second.run()[spec.outputs[0]])


def _check_quantised(
    model: Path, original: Path, quantised: Path, spec: ModelSpec, frames: Iterable[Frame], say: Say
) -> None:
    """See that a model in INT8 still finds what it found in float32; both on the CPU, on pictures."""
    from isaac_infer.engine.ort import OrtSession

    with OrtSession(original) as first, OrtSession(quantised) as second:
        before, after = (Pipeline(session, spec, Limits()) for session in (first, second))
        found = agreement(((before(frame), after(frame)) for frame in frames), iou_threshold=SAME_OBJECT_IOU)
    said = (
        f'int8 finds {found.found} of the {found.expected} objects of float32 again, and {found.extra} others'
    )
    if found.share is not None and found.share < LEAST_FOUND:
        raise ModelError(
            f'{model.name}: {said}; take fp16, another calibration, or calibration pictures more like the '
            "robot's"
        )
    say(f'{model.name}: {said}')


def _check_rows(original: Path, rows: np.ndarray, best: np.ndarray) -> None:
    """See that the best class of every box is that, also of those that nobody would call an object."""
    expected = np.concatenate((rows[:, :4], rows[:, 4:].max(axis=1, keepdims=True)), axis=1)
    if not np.allclose(best[:, :5], expected, atol=SINGLE_CLOSE.pixels):
        raise ModelError(
            f'{original.name}: expected the best class of each box after it was changed for TensorRT, got '
            'something else; build it with best_class off'
        )


def _sizes(spec: ModelSpec) -> dict[str, np.ndarray]:
    if not spec.size_input:
        return {}
    return {spec.size_input: np.array([spec.image.size_hw[::-1]], np.int64)}


def _frames(pictures: Pictures) -> Iterator[Frame]:
    chosen = set(pictures.numbers)
    with open_source(pictures.source) as source:
        for number, load in enumerate(source.unread()):
            if number in chosen:
                yield Frame(load().image)
            if number >= pictures.numbers[-1]:
                return


def _stored_batches(pictures: Pictures, spec: ModelSpec | None, place: Path) -> str:
    """Keep prepared pictures for TensorRT's own calibrators, which run in the child."""
    from isaac_infer.engine.quantise import calibration_batches

    assert spec is not None  # int8 asks for it
    stored = {
        f'{index}/{name}': array
        for index, batch in enumerate(calibration_batches(_frames(pictures), spec))
        for name, array in batch.items()
    }
    np.savez(place, **stored)  # type: ignore[arg-type]
    return str(place)


# ---- a spec as JSON -------------------------------------------------------------------------------


def _spec_to(spec: ModelSpec) -> dict[str, Any]:
    values = asdict(spec)
    values['image']['dtype'] = spec.image.dtype.name
    values['unsettled'] = sorted(spec.unsettled)
    return values


def _spec_from(values: Mapping[str, Any]) -> ModelSpec:
    if values['image']['dtype'] not in DTYPES:
        raise ValueError(f'there is no input of type {values["image"]["dtype"]!r}')
    image = {**values['image'], 'dtype': np.dtype(values['image']['dtype'])}
    spec = {**values, 'unsettled': frozenset(values['unsettled'])}
    if spec['task'] not in TASKS or spec['decoder'] not in TASKS[spec['task']].decoders:
        raise ValueError(f'there is no decoder {spec["decoder"]!r} for {spec["task"]!r}')
    spec['image'] = ImageSpec(**_with_tuples(image, ImageSpec))
    made = ModelSpec(**_with_tuples(spec, ModelSpec))
    _check_types(made)
    return made


def _check_types(spec: ModelSpec) -> None:
    """Raise TypeError where a sidecar holds something else than its build writes."""
    image = spec.image
    texts: tuple[object, ...] = (
        *(spec.task, spec.box_unit, spec.size_input, *spec.outputs, *spec.class_names, *spec.notes),
        *(image.name, image.layout, image.channel_order, image.resize),
        *(spec.score_unit, *spec.keypoints, spec.keypoint_unit, spec.keypoint_refinement),
    )
    numbers = (
        *(spec.num_classes, spec.row_length, spec.first_class, spec.keypoint_values),
        *(image.pad_value, *image.size_hw),
    )
    reals = (image.scale, *image.mean, *image.std)
    is_right = (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) for number in (*numbers, *spec.strides))
        and all(isinstance(number, (int, float)) for number in reals)
        and len(image.size_hw) == 2
        and len(spec.outputs) > 0
    )
    if not is_right:
        raise TypeError('a value has another type than its build writes')


def _with_tuples(values: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """What JSON has lists for; unknown names are an error of the dataclass."""
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f'unknown {", ".join(unknown)}')
    return {name: _tupled(value) for name, value in values.items()}


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
