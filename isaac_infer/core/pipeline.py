"""Pipeline: a frame goes in, a result in source pixels comes out: prepare, run, decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np

from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import FrameError, SessionError
from isaac_infer.core.fit import Fit
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.session import AsyncSession, Session, close_all
from isaac_infer.core.spec import Limits, ModelSpec


@dataclass(frozen=True)
class StageTimes:
    """How long each stage of one frame took, in milliseconds."""

    prepare_ms: float = 0.0
    run_ms: float = 0.0
    decode_ms: float = 0.0
    persons_ms: float | None = None  # of two networks: until the first one has found the persons

    def by_stage(self) -> dict[str, float]:
        """The times by the names of their stages, in their order."""
        persons = {} if self.persons_ms is None else {'persons': self.persons_ms}
        return {**persons, 'prepare': self.prepare_ms, 'run': self.run_ms, 'decode': self.decode_ms}


class Pipeline:
    """A session, the spec of its model and the limits that count; one thread at a time.

    `limits` may be replaced between two frames. `times` speaks of the last frame.
    """

    def __init__(
        self,
        session: Session,
        spec: ModelSpec,
        limits: Limits,
        *,
        prepare: Callable[[Frame], Fit] | None = None,
    ) -> None:
        """Put the steps together; `prepare` fills the image input, None: on the CPU, from here."""
        self.session, self.spec, self.limits = session, spec, limits
        self.times = StageTimes()
        # Looked up once: to ask a protocol takes several microseconds, which every frame would pay twice.
        self._start, self._finish = _nothing, session.run
        if isinstance(session, AsyncSession):
            self._start, self._finish = session.start, session.finish
        self._fit: Fit
        self._prepare_ms, self._prepared_ns = 0.0, 0
        self._decode = TASKS[spec.task].decoders[spec.decoder]
        image = session.input_buffer(spec.image.name, spec.image.shape)
        # Others of the same model, that a frame can be begun with while this one works on another.
        self.twins: tuple[Pipeline, ...] = ()
        self.prepare = prepare or partial(Preparer(spec.image), into=image)
        if spec.size_input:
            # Asked for boxes in network pixels, such a model answers like all others, whatever the fit.
            session.input_buffer(spec.size_input, (1, 2))[...] = spec.image.size_hw[::-1]

    def __call__(self, frame: Frame) -> Any:
        """Find what is in a frame: Detections, Segmentation or Poses, as the task of the spec has it.

        Raises:
            FrameError: it is none.
            SessionError: the network failed, or answered with something that is not finite.
        """
        self.begin(frame)
        return self.end()

    def begin(self, frame: Frame) -> None:
        """Prepare a frame and, where the session runs beside the CPU, begin its run; see `end`."""
        if not isinstance(frame, Frame):
            raise FrameError(f'expected a Frame, got {type(frame).__name__}; wrap the picture: Frame(array)')
        start = perf_counter_ns()
        self._fit = self.prepare(frame)
        self._prepared_ns = perf_counter_ns()
        self._prepare_ms = (self._prepared_ns - start) / 1e6
        self._start()

    def end(self) -> Any:
        """Give what is in the frame that was begun."""
        outputs = self._finish()
        ran = perf_counter_ns()
        found = self._decode(outputs, self._fit, self.spec, self.limits)
        decoded = perf_counter_ns()
        self.times = StageTimes(self._prepare_ms, (ran - self._prepared_ns) / 1e6, (decoded - ran) / 1e6)
        return found

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What was asked for and is not in use, and what may be wrong, and why, one sentence each."""
        return (*self.session.fallbacks, *self.spec.warnings)

    def warm_up(self) -> Any:
        """Run once on a grey picture of the network's own size."""
        height, width = self.spec.image.size_hw
        return self(Frame(np.full((height, width, 3), 114, np.uint8)))

    def close(self) -> None:
        """Close the session and those of its twins; safe to call twice.

        Raises:
            SessionError: one of them could not be closed in order; the others are closed all the same.
        """
        self.prepare = _closed  # it may hold memory of the session
        close_all([*(twin.close for twin in self.twins), self.session.close])


def _nothing() -> None:
    """What a session that runs all at once has to begin."""


def _closed(frame: Frame) -> Fit:
    raise SessionError('the pipeline is closed; open the model again')
