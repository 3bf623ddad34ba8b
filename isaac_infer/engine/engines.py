"""Engines: the TensorRT engine of an ONNX model, from the cache or built now, and how it is fed and read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isaac_infer.core.agreeing import AGREEING, Pixels, kind_of
from isaac_infer.core.bag import is_bag, split_topic
from isaac_infer.core.build_options import BuildOptions, EngineOptions, Shape
from isaac_infer.core.decode.document import SUFFIXES
from isaac_infer.core.decode.names import doubts_about
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import (
    ModelError,
    NamesError,
    ParameterError,
    SessionError,
    SourceError,
    TensorError,
)
from isaac_infer.core.frame import Frame
from isaac_infer.core.matching import match
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.progress import Say
from isaac_infer.core.results import Detections, Poses, Segmentation
from isaac_infer.core.session import Session
from isaac_infer.core.source import open_source
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec, Overrides, check_spec
from isaac_infer.core.text import counted
from isaac_infer.engine.build import Request, build_plan, check_shapes, store_batches
from isaac_infer.engine.cache import (
    DIGEST_CHARACTERS,
    BuildKey,
    cached_plan,
    default_folder,
    last_build_s,
    model_digest,
    pictures_digest,
    read_sidecar,
)
from isaac_infer.engine.cuda import Gpu
from isaac_infer.engine.files import FOLDER_PREFIX, replace_file, working_folder
from isaac_infer.engine.trial import try_model
from isaac_infer.engine.trt import TrtSession, find_tensorrt, installed_version

RECIPE = '1'  # counts up when what is done to models before they are built changes
CHECK_PICTURES = 20  # of the calibration, on which a model in INT8 is compared with the one in float32
LEAST_FOUND = 0.5  # of the objects, or overlap of the classes of pixels; with less a precision is of no use
SAME_OBJECT_IOU = 0.5  # or OKS
LEAST_PIXELS = 0.001  # of the pictures, in classes that are looked at: of stray pixels none need be found
SAME_PIXELS = 0.99  # of two masks of one object: single pixels of its border may change
MOST_COMPARED = 10000  # objects of a picture: all of them
CHECK_SCENES = 3  # drawn pictures on which a changed model is compared with its original
PICTURES_PART = 'calibration pictures'  # of a key
# Parts of a key that decide what a calibrator of TensorRT finds out.
CALIBRATED_BY = (
    'model',
    'task',
    'tensorrt',
    'calibration',
    PICTURES_PART,
    'uint8 input',
    'best class',
    'recipe',
    'overrides',
    'class names',
    'sidecar',
)
FEW_CALIBRATED = 100  # with which ranges are a matter of luck
MOST_CALIBRATED = 500  # pictures; more change nothing but the time
DTYPES = ('float32', 'float16', 'uint8', 'int8', 'int32')  # of image inputs


class Version(NamedTuple):
    """A model on its way to TensorRT."""

    model: Any  # as the package onnx has it
    spec: ModelSpec
    path: Path  # where it is written, with its weights wherever they are


class Original(NamedTuple):
    """What versions of a model are compared with."""

    path: Path
    spec: ModelSpec
    frames: Sequence[Frame]  # to compare on
    tolerance: Tolerance


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
        overrides: what the user says of the model: a part of the key, since it may be built in; of class
            names their number, the first and the last, for the others are only names; of `box_blend` nothing.
        find_spec: finds out how a session is fed and read; `engine.load.find_spec` for this task.
        task: what kind of answer is wanted.
        say: takes a sentence for the log: why it is built, how far it is.
        is_cancelled: asked several times a second while it is built.

    Returns:
        The session, and how it is fed and read: None where the model is not understood.

    Raises:
        ModelError: it cannot be built.
        ParameterError: int8 has no pictures to calibrate on, and there is no engine that was calibrated.
        SessionError: there is no GPU or no TensorRT, not enough memory, or it was cancelled.
    """
    build, built_in = options.build, replace(overrides, box_blend=None)
    pictures, missing = None, None
    if build.precision == 'int8':
        try:
            pictures = _calibration_pictures(options)
        except ParameterError as error:
            missing = error  # a robot needs no pictures where its engine is there
    trt, gpu = find_tensorrt(), Gpu(options.device)
    folder = Path(options.cache_folder).expanduser() if options.cache_folder else default_folder(model)
    calibrated_on = _calibrated_on(pictures, folder) if pictures else ''
    key = _key(model, task, build, built_in, calibrated_on, installed_version(trt), gpu)
    if missing:
        key = _calibrated_key(folder, key, _remembered(folder, options.calibration)[1], missing, say)
    opened: list[TrtSession] = []
    expected_s = last_build_s(folder, model.stem)

    def check(path: Path) -> None:
        while opened:
            opened.pop().close()
        opened.append(TrtSession(path, device=options.device, dla_core=build.dla_core))

    def make(into: Path) -> Mapping[str, Any]:
        if missing:
            raise missing
        return _make(model, into, options, built_in, find_spec, pictures, key, expected_s, say, is_cancelled)

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
    if overrides.box_blend is not None:
        spec = replace(spec, box_blend=overrides.box_blend)
    names = overrides.class_names
    if spec.class_names == ('background', *names):  # as a model with one output per pixel gets its only name
        return spec
    if names and spec.num_classes and len(names) != spec.num_classes:
        raise ModelError(
            f'{engine.name}: expected {counted(spec.num_classes, "class name")}, as the model has classes, '
            f'got {len(names)}{doubts_about(names)}'
        )
    return replace(spec, class_names=names) if names else spec


def calibration_frames(options: EngineOptions, say: Say = lambda text: None) -> Iterator[Frame]:
    """Read the pictures that int8 is calibrated on; `say` is told how many, and which cannot be read.

    Raises:
        ParameterError: there are none.
    """
    pictures = _calibration_pictures(options)
    _say_count(pictures, say)
    return _frames(pictures, say)


# ---- the key --------------------------------------------------------------------------------------


def _key(
    model: Path,
    task: str,
    build: BuildOptions,
    overrides: Overrides,
    calibrated_on: str,
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
    # What is said of the model may be built in: its normalisation, its decoder.
    said = {name: value for name, value in asdict(overrides).items() if value not in ('', None, ())}
    if names := said.pop('class_names', ()):
        # All that a model is recognised by: the first or the last may be that of the background.
        parts['class names'] = f'{len(names)}, from {names[0]} to {names[-1]}'
    if said:
        parts['overrides'] = json.dumps(said)
    sidecars = [file for suffix in SUFFIXES if (file := model.with_suffix(suffix)).is_file()]
    if sidecars:
        parts['sidecar'] = pictures_digest(sidecars[:1])
    if calibrated_on:
        parts[PICTURES_PART] = calibrated_on
    return BuildKey(parts)


def _calibrated_on(pictures: Pictures, cache: Path) -> str:
    """Say in the key which pictures: their digest, read anew only where names, sizes or times have changed.

    Recordings have many GB, and every start asks.
    """
    # The others are skipped later; opening a pipe would wait for somebody to write into it.
    paths = [path for path in pictures.paths if path.is_file() and os.access(path, os.R_OK)]
    states = [
        (str(path), each.st_size, each.st_mtime_ns, each.st_ctime_ns)
        for path in paths
        for each in (path.stat(),)
    ]
    state = hashlib.sha256(json.dumps(states).encode()).hexdigest()
    known, digest = _remembered(cache, pictures.source)
    if known != state:
        digest = pictures_digest(paths)
        with suppress(OSError):  # then it is read again the next time
            cache.mkdir(parents=True, exist_ok=True)
            replace_file(_memory(cache, pictures.source), f'{state} {digest}\n'.encode())
    return f'{digest} {pictures.topic}'.rstrip()


def _memory(cache: Path, source: str) -> Path:
    """The file that remembers the digest of pictures that int8 was calibrated on."""
    place = os.path.abspath(os.path.expanduser(split_topic(source)[0]))
    digest = hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()
    return cache / f'pictures-{digest[:DIGEST_CHARACTERS]}.cache'


def _remembered(cache: Path, source: str) -> tuple[str, str]:
    """The state of the files and the digest of their content, as they were the last time; or nothing."""
    memory = _memory(cache, source)
    with suppress(OSError, ValueError):
        if source and memory.is_file():
            state, digest = memory.read_text('ascii').split()
            return state, digest
    return '', ''


def _calibrated_key(folder: Path, key: BuildKey, digest: str, missing: ParameterError, say: Say) -> BuildKey:
    """Give the key of the engine that is of this key in all but the pictures, which are not there.

    Args:
        digest: of the pictures, if they were there once; else there must be one calibration only.

    Raises:
        ParameterError: there is no such engine, or nobody knows which.
    """
    found: dict[str, tuple[Path, BuildKey]] = {}  # by what they were calibrated on
    for path in folder.glob('*.engine'):
        sidecar = read_sidecar(path)
        parts = dict(sidecar['key']) if sidecar else {}
        calibrated_on = parts.get(PICTURES_PART, '')
        is_of_key = calibrated_on and {**key.parts, PICTURES_PART: calibrated_on} == parts
        if is_of_key and (not digest or calibrated_on.split()[:1] == [digest]):
            found[calibrated_on] = path, BuildKey(parts)
    if not found:
        raise missing
    if len(found) > 1:
        raise ParameterError(
            f'{missing}; engines of {len(found)} calibrations are there, so nobody knows which'
        )
    ((path, calibrated),) = found.values()
    say(f'{path.name}: opened as it was calibrated, since its pictures are not here to compare: {missing}')
    return calibrated


def _say_count(pictures: Pictures, say: Say) -> None:
    count = len(pictures.numbers)
    few = '; some hundred are wanted' if count < FEW_CALIBRATED else ''
    say(f'calibrating on {counted(count, "picture")}{few}')


def _calibration_name(key: BuildKey) -> str:
    """The file for what TensorRT's calibrators find out, which builds with other options take from there."""
    parts = {name: key.parts[name] for name in CALIBRATED_BY if name in key.parts}
    return f'calibration-{BuildKey(parts).digest}.cache'


def _place(options: EngineOptions) -> str:
    """The folder or recording of the pictures that int8 is calibrated on."""
    return os.path.expanduser(split_topic(options.calibration)[0])


def _calibration_pictures(options: EngineOptions) -> Pictures:
    """Choose the pictures: all of a folder or recording, or as many as count, spread evenly over it."""
    place = _place(options)
    if not place or not (os.path.isdir(place) or is_bag(Path(place))):
        got = repr(options.calibration) if options.calibration else 'nothing'
        missing = ', which does not exist' if place and not os.path.exists(place) else ''
        raise ParameterError(
            'calibration_path: int8 needs a folder of pictures as the robot sees them, some hundred, or a '
            f'recording (rosbag2), got {got}{missing}'
        )
    try:
        with open_source(options.calibration) as source:
            length, paths, topic = source.length or 0, source.paths, source.topic
    except SourceError as error:
        raise ParameterError(f'calibration_path: {error}') from error
    count = min(length, MOST_CALIBRATED)
    numbers = tuple(index * length // count for index in range(count))
    if not topic:  # each picture is a file
        paths = tuple(paths[number] for number in numbers)
    return Pictures(options.calibration, numbers, paths, topic)


# ---- the build ------------------------------------------------------------------------------------


def _make(
    model: Path,
    into: Path,
    options: EngineOptions,
    overrides: Overrides,
    find_spec: FindSpec,
    pictures: Pictures | None,
    key: BuildKey,
    expected_s: float,
    say: Say,
    is_cancelled: Callable[[], bool],
) -> dict[str, Any]:
    from isaac_infer.engine.ort import OrtSession
    from isaac_infer.engine.quantise import calibration_batches

    build = options.build
    with working_folder('model') as folder:
        trt = find_tensorrt()
        if not hasattr(trt, 'BuilderFlag'):
            raise SessionError(f'{trt.__name__} only runs engines; the whole of TensorRT builds them')
        has_flag = hasattr(trt.BuilderFlag, 'FP16')
        try:
            source, spec, metadata = _changed(
                model,
                folder,
                build,
                overrides,
                find_spec,
                pictures,
                say,
                has_fp16_flag=has_flag,
                is_cancelled=is_cancelled,
            )
            if spec:
                check_spec(spec)  # or the sidecar would be refused when the engine is opened
        except ModelError as error:
            raise ModelError(_without_places(error, model, folder)) from error
        except ValueError as error:
            raise ModelError(f'{model.name}: {error}') from error
        machine = re.sub(r'[^\w.]+', '-', f'{key.parts["tensorrt"]}-{key.parts["gpu"]}')
        # TensorRT's own calibrators run in the child.
        calibrated = pictures if build.calibration != 'qdq' else None
        if calibrated:
            assert spec is not None  # int8 asks for it
            store_batches(calibration_batches(_frames(calibrated, say), spec), folder)
        request = Request(
            model=str(source),
            into=str(into),
            options=asdict(replace(build, shapes=_fed_shapes(build, spec))),
            device=options.device,
            timing_cache=str(into.parent / f'timing-{machine}.cache'),
            batches=str(folder) if calibrated else '',
            calibration_cache=str(into.parent / _calibration_name(key)) if calibrated else '',
            expected_s=expected_s,
        )
        try:
            facts = build_plan(request, say=say, is_cancelled=is_cancelled)
            if calibrated:  # only the engine itself computes in it
                assert spec is not None
                engine = partial(TrtSession, into, device=options.device, dla_core=build.dla_core)
                with OrtSession(source) as first, engine() as second:
                    _check_int8(model, first, second, spec, calibrated, say)
        except (ModelError, SessionError) as error:
            raise type(error)(_without_places(error, model, folder)) from error
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
    is_cancelled: Callable[[], bool] = lambda: False,
) -> tuple[Path, ModelSpec | None, dict[str, str]]:
    """Do to a model what is done before it is built: the file, how it is fed and read, its metadata."""
    from isaac_infer.core.scenes import draw_scene
    from isaac_infer.engine import surgery
    from isaac_infer.engine.ort import OrtSession
    from isaac_infer.engine.quantise import calibration_batches, quantise

    try_model(model, is_cancelled=is_cancelled)
    with OrtSession(model) as session:
        metadata = dict(session.metadata)
        check_shapes(build.shapes, {each.name: each.shape for each in session.inputs})
        try:
            spec = find_spec(session, model, overrides)
        except NamesError:
            raise  # it is understood, but what is said of it is not right
        except ModelError as error:
            if build.precision == 'int8':
                raise
            say(f'built as it is, since it is not understood: {error}'.split('\n')[0])
            return model, None, metadata
    if pictures:
        _say_count(pictures, say)
    frames = [Frame(draw_scene(seed).image) for seed in range(CHECK_SCENES)]
    version = Version(surgery.load_model(model), spec, model)
    original = Original(model, spec, frames, SINGLE_CLOSE)
    if build.precision == 'fp16' and not has_fp16_flag:  # TensorRT 11: the model itself says the types
        original = original._replace(tolerance=HALF_CLOSE)
        version = _saved(surgery.to_float16(version.model), spec, folder / 'float16.onnx')
        if spec.task == 'detection':
            _check_objects(original, version)
        else:
            with OrtSession(model) as first, OrtSession(version.path) as second:
                what = f'{model.name}: on drawn scenes float16'
                _check_agreement(what, first, second, spec, frames, say, way_out='take fp32')
    steps: dict[str, Callable[[Original, Version, Path], Version]] = {}
    # In half precision even a change that only moves work moves the values: such models stay as they are.
    if spec.image.dtype == np.float32:
        if build.uint8_input:
            steps['uint8_input'] = _with_uint8_input
        if build.best_class and _has_class_rows(spec) and surgery.can_best_class(version.model):
            steps['best_class'] = _with_best_class
    for name, step in steps.items():
        # Both are on unless somebody turns them off: a model that one does not fit is built without it.
        try:
            version = step(original, version, folder / f'{name}.onnx')
        except (ModelError, SessionError, TensorError) as error:
            if isinstance(error.__cause__, OSError):  # of the disk: the next build may do better
                raise
            reason = _without_places(error, model, folder)
            say(f'{model.name}: built without {name}, which only saves time: {reason}')
    source, changed_spec = version.path, version.spec
    if pictures and build.calibration == 'qdq':
        float_model, source = source, folder / 'int8.onnx'
        # Last, because everything before it leaves the values as they are, and can be checked by them.
        quantise(float_model, source, calibration_batches(_frames(pictures, say), changed_spec))
        with OrtSession(float_model) as first, OrtSession(source) as second:
            _check_int8(model, first, second, changed_spec, pictures, say)
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
    """Tell whether each box has a score for each of several classes."""
    return spec.decoder == 'ultralytics' and spec.row_length == 4 + spec.num_classes and spec.num_classes > 1


def _without_places(error: Exception, model: Path, folder: Path) -> str:
    """What an error says, with the model's name for files that are gone when somebody reads it."""
    others = Path(tempfile.gettempdir(), FOLDER_PREFIX)
    folders = f'{re.escape(str(folder))}|{re.escape(str(others))}[^/]+'
    return re.sub(rf'(?:{folders})/\w+\.onnx', model.name, str(error))


def _saved(changed: Any, spec: ModelSpec, place: Path) -> Version:
    from isaac_infer.engine.surgery import save_model

    save_model(changed, place)
    return Version(changed, spec, place)


def _with_uint8_input(original: Original, version: Version, place: Path) -> Version:
    """Let a model take pixels, and see that its outputs stay the same, or else what is read from them.

    Raises:
        ModelError: it cannot take them, or does not answer the same.
    """
    from isaac_infer.engine import surgery

    image = version.spec.image
    changed_spec = replace(version.spec, image=surgery.uint8_spec(image))
    made = _saved(surgery.take_uint8(version.model, image), changed_spec, place)
    feeds = list(surgery.feeds_from(original.frames, image, made.spec.image, others=version.spec.sizes()))
    exactly = surgery.HALF if original.tolerance is HALF_CLOSE else surgery.EXACT
    try:
        surgery.check_equal(version.model, made.model, feeds, tolerance=exactly)
    except ModelError:
        # Where a network chooses its best rows itself, nearly equal ones change places.
        if not _check_objects(original, made):
            raise  # nothing was found that could tell
    return made


def _with_best_class(original: Original, version: Version, place: Path) -> Version:
    """Let a model answer the best class of each box only, and see that this is the best one.

    Raises:
        ModelError: its output is laid out otherwise, or it does not answer the same.
    """
    from isaac_infer.engine import surgery

    spec = version.spec
    changed = surgery.to_best_class(version.model, spec.outputs[0], num_classes=spec.num_classes)
    made = _saved(changed, replace(spec, decoder='ultralytics_best', row_length=6), place)
    _check_objects(original, made)
    return made


def _check_objects(original: Original, changed: Version) -> int:
    """See that a changed model finds in pictures what its original finds; both on the CPU.

    Returns:
        How many objects were compared.

    Raises:
        ModelError: it finds others.
    """
    from isaac_infer.engine.ort import OrtSession

    tolerance = original.tolerance
    limits = Limits(confidence_threshold=tolerance.threshold, max_detections=MOST_COMPARED)
    compared = 0
    with OrtSession(original.path) as first, OrtSession(changed.path) as second:
        pipelines = Pipeline(first, original.spec, limits), Pipeline(second, changed.spec, limits)
        for frame in original.frames:
            want, got = (pipeline(frame) for pipeline in pipelines)
            clear, single = _compare_objects(want, got, tolerance)
            if single:
                raise ModelError(
                    f'{original.path.name}: expected the same {counted(clear, "object")} after it was '
                    f'changed for TensorRT, got {single} that only one of both models finds'
                )
            compared += clear
            if changed.spec.decoder == 'ultralytics_best' and tolerance is SINGLE_CLOSE:
                output = original.spec.outputs[0]
                _check_rows(original.path, first.run()[output], second.run()[output])
    return compared


def _compare_objects(want: Any, got: Any, tolerance: Tolerance) -> tuple[int, int]:
    """Count the objects of a result, and those of it and of another that the other one does not have.

    What scores so little that it may pass the threshold in one of both only does not count.
    """
    first, second = _objects(want), _objects(got)
    apart = np.abs(first.xyxy[:, None] - second.xyxy[None]).max(axis=2)
    score_apart = np.abs(first.score[:, None] - second.score[None])
    is_close = (apart <= tolerance.pixels) & (score_apart <= tolerance.score)
    is_alone, is_other_alone = np.ones(len(first), bool), np.ones(len(second), bool)
    pairs = match(first, second, is_close.astype(np.float64), threshold=1.0)
    for row, other in zip(pairs.reference, pairs.other):
        if _has_same_parts(want, got, row, other, tolerance):
            is_alone[row] = is_other_alone[other] = False
    least = tolerance.threshold + tolerance.score
    is_clear, is_other_clear = first.score >= least, second.score >= least
    single = (is_alone & is_clear).sum() + (is_other_alone & is_other_clear).sum()
    return int(is_clear.sum()), int(single)


def _objects(found: Any) -> Detections:
    if isinstance(found, Segmentation):
        return found.objects
    objects: Detections = found.persons if isinstance(found, Poses) else found
    return objects


def _has_same_parts(want: Any, got: Any, row: int, other: int, tolerance: Tolerance) -> bool:
    """Tell whether two objects with the same box have the same mask or key points, if they have any."""
    if isinstance(want, Segmentation):
        mask, other_mask = want.masks[row], got.masks[other]
        return mask.shape == other_mask.shape and bool((mask == other_mask).mean() >= SAME_PIXELS)
    if isinstance(want, Poses):
        is_near = np.abs(want.xy[row] - got.xy[other]).max(initial=0) <= tolerance.pixels
        return bool(is_near and np.allclose(want.score[row], got.score[other], rtol=0, atol=tolerance.score))
    return True


def _check_int8(
    model: Path, original: Session, quantised: Session, spec: ModelSpec, pictures: Pictures, say: Say
) -> None:
    """See that a model in INT8 still finds what it found in float32, on pictures of its calibration."""
    what = f'{model.name}: on pictures of its calibration int8'
    way_out = "take fp16, another calibration, or calibration pictures more like the robot's"
    frames = islice(_frames(pictures), CHECK_PICTURES)
    _check_agreement(what, original, quantised, spec, frames, say, way_out=way_out)


def _check_agreement(
    what: str,
    original: Session,
    changed: Session,
    spec: ModelSpec,
    frames: Iterable[Frame],
    say: Say,
    *,
    way_out: str,
) -> None:
    """See that a model in another precision still finds what it found in float32, and say how much of it.

    Args:
        what: the model, the pictures and the precision, for people.
        spec: of both.
        way_out: what to do where it does not.

    Raises:
        ModelError: it finds less than half of it.
    """
    kind = kind_of(spec)
    before, after = (Pipeline(session, spec, Limits()) for session in (original, changed))
    agreeing = AGREEING[kind](before, after, SAME_OBJECT_IOU)
    for frame in frames:
        agreeing.add(before(frame), after(frame))
    if isinstance(agreeing, Pixels):  # of which most may be of one class, whatever becomes of the others
        found = agreeing.agreement(LEAST_PIXELS)
        share = found.mean_iou
        equal, overlap = found.share or 0.0, found.mean_iou or 0.0
        said = f'has {equal:.1%} of the pixels as float32; the mean IoU of the classes is {overlap:.2f}'
    else:
        found = agreeing.agreement()
        share = found.share
        things = counted(found.expected, 'person' if kind == 'poses' else 'object')
        said = f'finds {found.found} of the {things} of float32 again, and {counted(found.extra, "other")}'
    if share is not None and share < LEAST_FOUND:
        raise ModelError(f'{what} {said}; {way_out}')
    say(f'{what} {said}')


def _check_rows(original: Path, rows: np.ndarray, best: np.ndarray) -> None:
    """See that the best class of every box is that, also of those that nobody would call an object.

    Args:
        rows: (1, 4 + nc, N), of the original.
        best: (1, 6, N).
    """
    scores, classes = rows[:, 4:], np.clip(np.nan_to_num(best[:, 5:]), 0, rows.shape[1] - 5).astype(np.intp)
    expected = np.concatenate((rows[:, :4], scores.max(axis=1, keepdims=True)), axis=1)
    of_classes = np.take_along_axis(scores, classes, axis=1)  # of equal scores either may be the best
    if not (
        np.allclose(best[:, :5], expected, atol=SINGLE_CLOSE.pixels)
        and np.allclose(of_classes, best[:, 4:5], atol=SINGLE_CLOSE.score)
        and np.array_equal(classes, best[:, 5:])
    ):
        raise ModelError(
            f'{original.name}: expected the best class of each box after it was changed for TensorRT, got '
            'something else'
        )


def _frames(pictures: Pictures, say: Say = lambda text: None) -> Iterator[Frame]:
    """Read the chosen pictures but those that cannot be read, which are told at the end.

    Raises:
        ParameterError: none can be read.
    """
    chosen, broken = set(pictures.numbers), []
    with open_source(pictures.source) as source:
        for number, load in enumerate(islice(source.unread(), pictures.numbers[-1] + 1)):
            if number not in chosen:
                continue
            try:
                picture = load()
            except SourceError as error:
                broken.append(str(error))
                continue
            yield Frame(picture.image)
    if len(broken) == len(chosen):
        raise ParameterError(
            f'calibration_path: expected pictures, got {len(broken)} that cannot be read; first: {broken[0]}'
        )
    if broken:
        say(
            f'calibration: skipped {len(broken)} of {counted(len(chosen), "picture")}, which cannot be read; '
            f'first: {broken[0]}'
        )


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
    check_spec(made)
    return made


def _with_tuples(values: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """What JSON has lists for; unknown names are an error of the dataclass."""
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f'unknown {", ".join(unknown)}')
    return {name: _tupled(value) for name, value in values.items()}


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
