"""Perceiver: looks at the newest picture with one of several models, each in a thread of its own."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from time import monotonic, perf_counter_ns
from typing import Any

import numpy as np
from std_msgs.msg import Float32MultiArray, MultiArrayDimension, MultiArrayLayout

from isaac_infer.core.control.safety import age_of
from isaac_infer.core.control.variants import LEAST_ANSWERS, VariantReadings
from isaac_infer.core.errors import FrameError, describe, traced
from isaac_infer.core.results import Detections, Poses, Segmentation
from isaac_infer.ros.diagnostics import BAD_IMAGE, BUSY, FAILED, Health
from isaac_infer.ros.images import frame_from_image_cdr
from isaac_infer.ros.perception import Answer, Loaded, Perception
from isaac_infer.ros.worker import Worker

FIELDS = 'x,y,width,height,score,class'  # of perception_output: the centre first, all in source pixels
RECENT = 30  # answers whose time is averaged
RETRY_S, RETRY = 30.0, 10.0  # until a model that failed is a choice again: at least, and times as it failed
MOST_RETRY_S, MOST_LAPSES = 3600.0, 8  # further ones would change nothing


@dataclass(frozen=True)
class Opened:
    """A model that is ready, and what makes its answers messages."""

    perception: Perception
    params: Any
    loaded: Loaded


Open = Callable[[Callable[[str], None], Callable[[], bool]], Opened]  # as Perception.load


@dataclass(frozen=True)
class _Picture:
    number: int
    cdr: bytes
    received_s: float  # monotonic
    received_ns: int  # of perf_counter


@dataclass
class Variant:
    """One of the models, and how it does while it is in use."""

    name: str
    worker: Worker[_Picture]
    opened: Opened | None = None
    is_ready: bool = False  # as whoever publishes its answers says it
    problem: str = ''  # why it could not be opened
    answers: int = 0  # since it is in use
    times_ms: list[float] = field(default_factory=list)  # of the last ones
    begun_s: float | None = None  # monotonic; of the picture that is being looked at
    failed_s: tuple[float, float] | None = None  # monotonic; first and last time since its last answer
    lapses: int = 0  # times that it was left failing, since it answered


class Perceiver:
    """Offers pictures to the variant in use, and hands out its answers, the newest picture's last.

    Every model lives in its own thread: while one is opened, or hangs, another one works, and a change from
    one to the other waits for nobody.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, Open]],
        give: Callable[[Opened, Answer], None],
        say: Callable[[str], None],
        note_error: Callable[[str], None],
        *,
        waits_for_all: bool,
        now_ns: Callable[[], int],
    ) -> None:
        """Begin to open the models.

        Args:
            models: their names and what opens them, the heaviest first.
            give: takes an answer and publishes it, in the thread of its model.
            say: takes a sentence for the log.
            note_error: takes what went wrong.
            waits_for_all: whether no picture is looked at before all are open; else the first that is open
                begins, and the others are opened one after the other.
            now_ns: gives ROS time, which stamps are in.
        """
        self.health = Health()
        self._give, self._say, self._note_error, self._now_ns = give, say, note_error, now_ns
        self._waits_for_all = waits_for_all
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._number = self._given = 0  # of the last picture that came, and that was answered
        self._answered: tuple[int, float] | None = None  # stamp of that picture, and when it came
        self.last_error = ''
        self.index = 0
        self.variants = tuple(
            Variant(name, Worker(partial(self._work, number))) for number, (name, _) in enumerate(models)
        )
        self._openings = [open_model for _, open_model in models]
        for number in range(len(models)) if waits_for_all else range(min(len(models), 1)):
            self._open(number)

    # --- opening -------------------------------------------------------------------------------------------

    @property
    def ready(self) -> Collection[int]:
        """The indices of the variants that may be used; none while they are waited for."""
        if self._waits_for_all and any(not (each.opened or each.problem) for each in self.variants):
            return ()
        return tuple(number for number, each in enumerate(self.variants) if each.is_ready)

    @property
    def choices(self) -> Collection[int]:
        """Those of them that can answer: not one left with a picture that holds it up, or failing."""
        return tuple(number for number in self.ready if number == self.index or self._can_answer(number))

    def _can_answer(self, number: int) -> bool:
        variant = self.variants[number]
        if variant.begun_s is not None:
            return False
        if (failed_s := variant.failed_s) is None:
            return True
        first_s, last_s = failed_s
        # Later each time: while it is tried, nothing is seen.
        pause_s = max(RETRY_S, RETRY * (last_s - first_s)) * 2 ** max(variant.lapses - 1, 0)
        return monotonic() - last_s >= min(pause_s, MOST_RETRY_S)

    @property
    def is_opening(self) -> bool:
        return any(not (each.opened or each.problem) for each in self.variants)

    @property
    def current(self) -> Variant | None:
        """The variant in use; None while there is none."""
        return self.variants[self.index] if self.index in self.ready else None

    def _open(self, number: int) -> None:
        open_model = partial(self._openings[number], self._say, self._closing.is_set)
        opening = self.variants[number].worker.call(open_model)
        opening.add_done_callback(partial(self._note_opened, number))

    def _note_opened(self, number: int, opening: Future[Opened]) -> None:
        variant, error = self.variants[number], opening.exception()
        if error is None:
            variant.opened = opening.result()
            self._say(f'{variant.name}: {variant.opened.loaded.pipeline.session.backend}')
        else:
            variant.problem = self._said(error)
        if not (self._waits_for_all or self._closing.is_set()) and number + 1 < len(self.variants):
            self._open(number + 1)

    # --- pictures ------------------------------------------------------------------------------------------

    def offer(self, cdr: bytes) -> None:
        """Have a picture looked at, in place of one that waits still; never waits itself."""
        self.health.received()
        self._number += 1
        variant = self.current
        if variant is None:
            return
        if variant.worker.offer(_Picture(self._number, cdr, monotonic(), perf_counter_ns())):
            self.health.dropped(BUSY)

    def use(self, index: int) -> None:
        """Look at pictures with another variant, from the next one on."""
        with self._lock:
            variant, before = self.variants[index], self.variants[self.index]
            if index != self.index and before.failed_s is not None:
                before.lapses = min(before.lapses + 1, MOST_LAPSES)
            variant.answers, variant.times_ms, variant.failed_s = 0, [], None
            forgotten = before.worker.forget() if index != self.index else False
            self.index = index
        self.health.dropped(BUSY, count=int(forgotten))

    def age_s(self, now_s: float, now_ns: int) -> float | None:
        """How old the picture of the last answer is, as `age_of`; None while nothing was answered."""
        if self._answered is None:
            return None
        stamp_ns, received_s = self._answered
        return age_of((now_ns - stamp_ns) / 1e9, now_s - received_s)

    def readings(
        self, rates_hz: tuple[float, float], *, celsius: float | None = None, load_level: str = ''
    ) -> VariantReadings:
        """What a choice of variants has to know of the one in use.

        Args:
            rates_hz: of answers, and of pictures.
        """
        with self._lock:
            variant, now_s = self.variants[self.index], monotonic()
            mean_ms, begun_s = fmean(variant.times_ms or [0.0]), variant.begun_s
            held_up_s = 0.0 if begun_s is None else now_s - begun_s
            if held_up_s * 1e3 > mean_ms:  # it may never come to its end
                mean_ms = fmean([*variant.times_ms[1 - LEAST_ANSWERS :], held_up_s * 1e3])
            if variant.failed_s:
                held_up_s = max(held_up_s, variant.failed_s[1] - variant.failed_s[0])
            return VariantReadings(now_s, variant.answers, mean_ms, *rates_hz, celsius, load_level, held_up_s)

    def close(self, timeout_s: float) -> None:
        """Close all models; safe to call twice.

        Raises:
            TimeoutError: one of them is still busy.
        """
        self._closing.set()
        for variant in self.variants:
            opened, variant.opened = variant.opened, None
            if opened is not None:
                variant.worker.call(opened.loaded.pipeline.close)
        end_s = monotonic() + timeout_s
        for variant in self.variants:
            variant.worker.close(max(end_s - monotonic(), 0.0))

    def _work(self, number: int, picture: _Picture) -> None:
        variant = self.variants[number]
        opened = variant.opened
        if opened is None or self._closing.is_set():
            return
        variant.begun_s = monotonic()
        try:
            self._answer(variant, opened, picture)
        except Exception as error:  # of the picture, the model, the messages: the next one is looked at
            now_s = monotonic()
            first_s, last_s = variant.failed_s or (now_s, now_s)
            if not isinstance(error, FrameError):
                variant.failed_s = first_s, now_s
            elif variant.failed_s is not None:  # no model can do anything for it: that time does not count
                variant.failed_s = first_s + now_s - last_s, now_s
            self.health.dropped(BAD_IMAGE if isinstance(error, FrameError) else FAILED)
            self.health.error(self._said(error))
        finally:
            variant.begun_s = None

    def _answer(self, variant: Variant, opened: Opened, picture: _Picture) -> None:
        begun_ns = perf_counter_ns()
        pipeline = opened.loaded.pipeline
        frame = frame_from_image_cdr(picture.cdr)
        converted_ns = perf_counter_ns()
        found = opened.loaded.refine(pipeline(frame), frame, opened.params)
        found_ns = perf_counter_ns()
        with self._lock:
            if picture.number <= self._given:  # another variant has answered a newer one
                self.health.dropped(BUSY)
                return
            self._given = picture.number
            self._give(opened, Answer(found, frame, pipeline.spec, opened.params, opened.loaded.extra))
            done_ns = perf_counter_ns()
            total_ms, age_ms = (done_ns - begun_ns) / 1e6, (self._now_ns() - frame.stamp_ns) / 1e6
            self._answered = frame.stamp_ns, picture.received_s
            if variant is self.variants[self.index]:
                variant.answers += 1
                variant.failed_s, variant.lapses = None, 0
                variant.times_ms = [*variant.times_ms[1 - RECENT :], total_ms]
        self.health.answered(
            {
                'wait': (begun_ns - picture.received_ns) / 1e6,
                'convert': (converted_ns - begun_ns) / 1e6,
                **pipeline.times.by_stage(),
                'publish': (done_ns - found_ns) / 1e6,
                'total': total_ms,
                'age': age_ms,
            }
        )

    def _said(self, error: BaseException) -> str:
        self.last_error = describe(error)
        self._note_error(traced(error))
        return self.last_error


def objects_of(found: Detections | Segmentation | Poses) -> Detections:
    """Give what has boxes in an answer of any task."""
    if isinstance(found, Segmentation):
        return found.objects
    return found.persons if isinstance(found, Poses) else found


def objects_msg(found: Detections | Segmentation | Poses) -> Float32MultiArray:
    """Give the objects as numbers: a row per object, FIELDS as columns, in source pixels."""
    objects = objects_of(found)
    corners = objects.xyxy.astype(np.float32)
    sizes = corners[:, 2:] - corners[:, :2]
    rows = np.column_stack((corners[:, :2] + sizes / 2, sizes, objects.score, objects.class_id))
    count, width = rows.shape
    layout = MultiArrayLayout(
        dim=[
            MultiArrayDimension(label='object', size=count, stride=count * width),
            MultiArrayDimension(label=FIELDS, size=width, stride=width),
        ]
    )
    return Float32MultiArray(layout=layout, data=array('f', rows.astype(np.float32).tobytes()))
