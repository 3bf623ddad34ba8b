"""Model checks: a model file is the registered one, loads here, and answers as it should, and in time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any

import numpy as np

from isaac_infer.core.agreeing import AGREEING, Pixels, kind_of
from isaac_infer.core.build_options import BuildOptions, EngineOptions
from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.session import Session, close_all
from isaac_infer.core.source import DRAWN, open_source
from isaac_infer.core.timing import summarise
from isaac_infer.deploy.checks import Check, CheckError, Group, NotRunError, short
from isaac_infer.deploy.manifest import ONNXRUNTIME, POLICY, Manifest, ModelEntry, place_of
from isaac_infer.engine.cache import model_digest, read_sidecar
from isaac_infer.engine.cuda import Gpu
from isaac_infer.engine.load import (
    file_sha256,
    is_engine,
    open_pipeline,
    open_session,
    runs_on_tensorrt,
)
from isaac_infer.engine.plan import check_version, read_plan
from isaac_infer.engine.trt import RUNTIMES, find_tensorrt, installed_version
from isaac_infer.jetson.board import ROOT
from isaac_infer.jetson.memory import read_memory

MB = 1_000_000
WARM_UP_RUNS, MOST_RUNS, LEAST_RUNS, MEASURED_S = 5, 200, 20, 3.0  # of the latency
SAME_OBJECT = 0.5  # overlap from which two objects are the same
SAMPLE, ZEROS = 'sample', 'zeros'  # parts of the names in a file of reference outputs: sample/output0


class ModelUnderTest:
    """A model of a manifest: opened by the first check that needs it, closed after the last."""

    def __init__(
        self,
        entry: ModelEntry,
        *,
        folder: Path,
        model_directory: str = '',
        root: Path = ROOT,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.entry = entry
        self._folder, self._model_directory, self._root = folder, model_directory, root
        self._is_cancelled = is_cancelled
        self._pipeline: Pipeline | None = None
        self._session: Session | None = None

    @property
    def path(self) -> Path:
        return self._place(self.entry.path)

    def _place(self, path: str) -> Path:
        return place_of(path, folder=self._folder, model_directory=self._model_directory)

    def close(self) -> None:
        """Close what is open; safe to call twice."""
        closings = [each.close for each in (self._pipeline, self._session) if each is not None]
        self._pipeline = self._session = None
        close_all(closings)

    # --- what the checks do --------------------------------------------------------------------------------

    def exists(self) -> Mapping[str, Any]:
        return {'path': str(self.path), 'size_mb': self.path.stat().st_size / MB}

    def hashes(self) -> Mapping[str, Any]:
        got = digest_of(self.path)
        if got != self.entry.sha256:
            raise CheckError(
                f'{self.path}: expected the file, with its weights, with SHA-256 '
                f'{short(self.entry.sha256)}..., got {short(got)}...; copy it again, or register the one '
                'that is meant (isaac-infer validate --write)',
                {'sha256': got},
            )
        return {'sha256': got}

    def plan_fits(self) -> Mapping[str, Any]:
        """An engine was built by the TensorRT, and for the GPU, of this machine."""
        plan = read_plan(self.path)
        values: dict[str, Any] = {'built_by': '.'.join(map(str, plan.version[:3]))}
        tensorrt = find_tensorrt()
        installed = installed_version(tensorrt)
        check_version(plan, installed, is_lean=tensorrt.__name__ != RUNTIMES[0], model=self.path.stem)
        gpu = Gpu().facts.name
        values |= {'tensorrt': '.'.join(map(str, installed[:3])), 'gpu': gpu}
        sidecar = read_sidecar(self.path)
        built_for = sidecar['key'].get('gpu') if sidecar else None
        is_portable = sidecar is not None and sidecar['key'].get('hardware compatible') == 'true'
        if built_for not in (None, gpu) and not is_portable:
            raise CheckError(
                f'{self.path}: built for {built_for}, this machine has {gpu}; build it here', values
            )
        return values

    def memory_suffices(self) -> Mapping[str, Any]:
        """There is as much memory free as the manifest says the model needs."""
        wanted_mb = self.entry.memory_mb
        assert wanted_mb is not None
        free = {'ram': read_memory(self._root).ram_available_bytes}
        if runs_on_tensorrt(self.path, self.entry.backend):
            gpu = Gpu()
            with gpu.current():
                free['gpu'] = gpu.free_bytes()
        values = {f'{kind}_free_mb': None if size is None else size / MB for kind, size in free.items()}
        for kind, size in free.items():
            if size is None or size < wanted_mb * MB:
                got = 'an unknown amount' if size is None else f'{size / MB:.0f} MB'
                raise CheckError(f'{kind}: expected {wanted_mb:g} MB free, got {got}', values)
        return values

    def loads(self) -> Mapping[str, Any]:
        session, spec = self.session, self._pipeline.spec if self._pipeline else None
        values: dict[str, Any] = {'backend': session.backend}
        if spec is not None:
            values |= {'task': spec.task, 'decoder': spec.decoder}
        if session.fallbacks:
            values['fallbacks'] = ' '.join(session.fallbacks)
        return values

    def answers_zeros(self) -> Mapping[str, Any]:
        return self._compared(ZEROS)

    def answers_sample(self) -> Mapping[str, Any]:
        return self._compared(SAMPLE)

    def is_in_time(self) -> Mapping[str, Any]:
        """The 95th percentile of whole answers, back to back, is within the budget."""
        budget_ms = self.entry.latency_budget_ms
        assert budget_ms is not None
        once = self._once()
        for _ in range(WARM_UP_RUNS):
            once()
        times_ms: list[float] = []
        end_s = monotonic() + MEASURED_S
        while len(times_ms) < LEAST_RUNS or (len(times_ms) < MOST_RUNS and monotonic() < end_s):
            if self._is_cancelled():
                raise NotRunError(f'the checks were ended after {len(times_ms)} runs')
            begun_ns = perf_counter_ns()
            once()
            times_ms.append((perf_counter_ns() - begun_ns) / 1e6)
        found = summarise(times_ms)
        values = {'p50_ms': found.median, 'p95_ms': found.p95, 'runs': found.count, 'budget_ms': budget_ms}
        if not found.p95 <= budget_ms:  # written so that NaN fails too
            raise CheckError(f'expected at most {budget_ms:g} ms, got {found.p95:.3g} ms (p95)', values)
        return values

    # --- running it ----------------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The network; opened now where it is not yet.

        Raises:
            ModelError, SessionError: it cannot be.
        """
        if self._session is None:
            self._pipeline, self._session = self._open(self.entry.backend)
        return self._session

    def _open(self, backend: str) -> tuple[Pipeline | None, Session]:
        entry = self.entry
        engine = EngineOptions(build=BuildOptions(precision=entry.precision))
        if entry.task == POLICY:
            return None, open_session(
                self.path, backend=backend, engine=engine, is_cancelled=self._is_cancelled
            )
        pipeline = open_pipeline(
            self.path, task=entry.task, backend=backend, engine=engine, is_cancelled=self._is_cancelled
        )
        return pipeline, pipeline.session

    def _once(self) -> Callable[[], object]:
        """What is measured: a picture's way from pixels to objects, or a run of a policy."""
        session = self.session
        if self._pipeline is None:
            self._feed(session, SAMPLE)
            return session.run
        pipeline, frame = self._pipeline, self._frame()
        return lambda: pipeline(frame)

    def _frame(self) -> Frame:
        sample = self.entry.sample
        with open_source(
            sample if sample in DRAWN else str(self._place(sample)), seed=FIRST_HELD_OUT_SEED
        ) as source:
            picture = source.read()
        if picture is None:
            raise ModelError(f'{sample}: expected a picture, got none')
        return Frame(picture.image)

    def _feed(self, session: Session, what: str) -> None:
        """Put zeros, or the sample of a policy, into the inputs of a network without a picture."""
        sample = self.entry.sample
        given = {} if what == ZEROS or sample in DRAWN else read_arrays(self._place(sample))
        for spec in session.inputs:
            array = given.get(spec.name)
            shape = tuple(max(length, 1) for length in spec.shape) if array is None else array.shape
            session.input_buffer(spec.name, shape)[...] = 0 if array is None else array
        if unknown := sorted(set(given) - {spec.name for spec in session.inputs}):
            known = ', '.join(map(str, session.inputs))
            raise ParameterError(f'{sample}: expected arrays for the inputs {known}, got {unknown[0]!r}')

    def _answer(self, pipeline: Pipeline | None, session: Session, what: str) -> dict[str, np.ndarray]:
        """The outputs of a network by their names, copied."""
        if pipeline is None:
            self._feed(session, what)
        elif what == SAMPLE:
            pipeline.prepare(self._frame())
        else:
            image = pipeline.spec.image
            session.input_buffer(image.name, image.shape)[...] = 0
        return {name: np.array(output) for name, output in session.run().items()}

    def outputs(self) -> dict[str, np.ndarray]:
        """What is kept as a reference: every output for zeros and for the sample."""
        session = self.session
        return {
            f'{what}/{name}': output
            for what in (ZEROS, SAMPLE)
            for name, output in self._answer(self._pipeline, session, what).items()
        }

    def _compared(self, what: str) -> Mapping[str, Any]:
        session = self.session
        got = self._answer(self._pipeline, session, what)
        for name, output in got.items():
            if not np.isfinite(output).all():
                raise CheckError(f'output {name}: expected finite numbers for {what}, got NaN or Inf')
        values: dict[str, Any] = {'outputs': len(got)}
        if not self.entry.reference:
            return values
        if self.entry.reference == ONNXRUNTIME:
            return {**values, **self._compare_with_onnxruntime(what, got)}
        stored = read_arrays(self._place(self.entry.reference))
        want = {
            name.partition('/')[2]: output for name, output in stored.items() if name.startswith(f'{what}/')
        }
        if _are_alike(want, got):
            return {**values, **self._within_tolerance(want, got)}
        if not is_engine(self.path):  # of which the engine that runs here has other outputs
            return {**values, **self._compare_with_onnxruntime(what, got, want)}
        raise CheckError(self._unlike(want, got, what))

    def _unlike(self, want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], what: str) -> str:
        return (
            f'{self.entry.reference}: expected outputs as they are here, {_layout(got)}, got '
            f'{_layout(want) or "none"} for {what}; write it anew (isaac-infer validate --write)'
        )

    def _compare_with_onnxruntime(
        self, what: str, got: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray] | None = None
    ) -> Mapping[str, Any]:
        """Compare with the ONNX model on the CPU, which itself has to give what is stored."""
        if is_engine(self.path):
            raise CheckError(
                f'reference: an engine cannot run on {ONNXRUNTIME}; give the ONNX model as path, or a file '
                'of outputs as reference'
            )
        pipeline, session = self._open(ONNXRUNTIME)
        try:
            want = self._answer(pipeline, session, what)
            if stored is not None:
                if not _are_alike(stored, want):
                    raise CheckError(self._unlike(stored, want, what))
                self._within_tolerance(stored, want)
            if _are_alike(want, got):
                return self._within_tolerance(want, got)
            # Engines are changed when they are built: pictures as bytes, the best class only.
            if pipeline is None or self._pipeline is None:
                raise CheckError(f'expected outputs {_layout(want)}, got {_layout(got)}')
            return self._agree(pipeline, self._pipeline, what)
        finally:
            close_all([session.close if pipeline is None else pipeline.close])

    def _within_tolerance(
        self, want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]
    ) -> Mapping[str, Any]:
        tolerance = self.entry.tolerance
        apart = {name: _difference(output, got[name]) for name, output in want.items()}
        where = max(apart, key=apart.__getitem__)
        worst = apart[where]
        values = {'worst_difference': worst, 'tolerance': tolerance}
        if not worst <= tolerance:  # written so that NaN fails too
            raise CheckError(
                f'output {where}: expected the reference within {tolerance:g}, got {worst:.3g} beside it '
                '(|got - want| / (1 + |want|))',
                values,
            )
        return values

    def _agree(self, reference: Pipeline, other: Pipeline, what: str) -> Mapping[str, Any]:
        height, width = other.spec.image.size_hw
        frame = self._frame() if what == SAMPLE else Frame(np.zeros((height, width, 3), np.uint8))
        agreeing = AGREEING[kind_of(reference.spec)](reference, other, SAME_OBJECT)
        agreeing.add(reference(frame), other(frame))
        found = agreeing.agreement()
        things = 'pixels' if isinstance(agreeing, Pixels) else 'objects'
        values = {f'{things}_expected': found.expected, 'found': found.found, 'extra': found.extra}
        if what == SAMPLE and not (found.expected or found.extra):
            raise NotRunError('neither finds anything in the sample: give another picture', values)
        least = self.entry.min_agreement
        most_extra = (1 - least) * max(found.expected, 1)
        if found.found < least * found.expected or found.extra > most_extra:
            raise CheckError(
                f'expected {least:.0%} of the {found.expected} {things} of the reference, got {found.found}, '
                f'and {found.extra} others',
                values,
            )
        return values


def digest_of(path: Path) -> str:
    """Hash a model: an ONNX file with the files that hold its weights, an engine as it is.

    Raises:
        ModelError, SessionError: see `model_digest`.
    """
    return file_sha256(path) if is_engine(path) else model_digest(path)


def _difference(want: np.ndarray, got: np.ndarray) -> float:
    """The largest |got - want| / (1 + |want|); infinite where one of them has NaN or Inf."""
    one, two = want.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        return math.inf
    return float((np.abs(two - one) / (1 + np.abs(one))).max(initial=0))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an npz file.

    Raises:
        ModelError: it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            if isinstance(content, np.ndarray):
                raise ValueError('it is a single array')
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f'{path}: cannot be read as an npz file of arrays: {error}') from error


def _are_alike(want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> bool:
    return {name: output.shape for name, output in want.items()} == {
        name: output.shape for name, output in got.items()
    }


def _layout(outputs: Mapping[str, np.ndarray]) -> str:
    return ', '.join(f'{name} {list(output.shape)}' for name, output in outputs.items())


def model_checks(
    manifest: Manifest,
    *,
    model_directory: str = '',
    root: Path = ROOT,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[Group]:
    """Give the checks of the models, a group for each of them.

    Args:
        model_directory: where relative paths are looked up first.
        root: the folder that stands for `/`, for memory.
        is_cancelled: asked while a model is opened or measured.
    """
    groups = []
    for entry in manifest.models:
        model = ModelUnderTest(
            entry,
            folder=manifest.folder,
            model_directory=model_directory,
            root=root,
            is_cancelled=is_cancelled,
        )
        name = {what: f'{entry.name}: {what}' for what in ('file', 'hash', 'plan', 'memory', 'load')}
        checks = [Check(name['file'], model.exists)]
        before = [name['file']]
        for what, is_wanted, function in (
            ('hash', bool(entry.sha256), model.hashes),
            ('plan', is_engine(Path(entry.path)), model.plan_fits),
            ('memory', entry.memory_mb is not None, model.memory_suffices),
        ):
            if is_wanted:
                # A file that is not the registered one is not run.
                checks.append(Check(name[what], function, needs=tuple(before)))
                before.append(name[what])
        checks.append(Check(name['load'], model.loads, needs=tuple(before)))
        for what, is_wanted, function in (
            (ZEROS, True, model.answers_zeros),
            (SAMPLE, True, model.answers_sample),
            ('latency', entry.latency_budget_ms is not None, model.is_in_time),
        ):
            if is_wanted:
                checks.append(Check(f'{entry.name}: {what}', function, needs=(name['load'],)))
        groups.append(Group(tuple(checks), model.close))
    return groups
