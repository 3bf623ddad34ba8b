"""Pipeline: a frame goes in, a result in source pixels comes out: prepare, run, decode."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.results import Detections
from isaac_infer.core.session import Session
from isaac_infer.core.spec import Limits, ModelSpec


@dataclass(frozen=True)
class StageTimes:
    """How long each stage of one frame took, in milliseconds."""

    prepare_ms: float = 0.0
    run_ms: float = 0.0
    decode_ms: float = 0.0


class Pipeline:
    """A session, the spec of its model and the limits that count; one thread at a time.

    `limits` may be replaced between two frames. `times` speaks of the last frame.
    """

    def __init__(self, session: Session, spec: ModelSpec, limits: Limits) -> None:
        self.session, self.spec, self.limits = session, spec, limits
        self.times = StageTimes()
        self._prepare = Preparer(spec.image)
        self._decode = DECODERS[spec.decoder]
        self._image = session.input_buffer(spec.image.name, spec.image.shape)
        if spec.size_input:
            # Asked for boxes in network pixels, such a model answers like all others, whatever the fit.
            session.input_buffer(spec.size_input, (1, 2))[...] = spec.image.size_hw[::-1]

    def __call__(self, frame: Frame) -> Detections:
        """Find what is in a frame.

        Raises:
            SessionError: the network failed, or answered with something that is not finite.
        """
        start = perf_counter_ns()
        fit = self._prepare(frame, into=self._image)
        prepared = perf_counter_ns()
        outputs = self.session.run()
        ran = perf_counter_ns()
        found = self._decode(outputs, fit, self.spec, self.limits)
        decoded = perf_counter_ns()
        self.times = StageTimes((prepared - start) / 1e6, (ran - prepared) / 1e6, (decoded - ran) / 1e6)
        return found

    def warm_up(self) -> Detections:
        """Run once on a grey picture of the network's own size."""
        height, width = self.spec.image.size_hw
        return self(Frame(np.full((height, width, 3), 114, np.uint8)))

    def close(self) -> None:
        """Close the session; safe to call twice."""
        self.session.close()
