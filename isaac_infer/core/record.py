"""Record: answers matched with their pictures by stamp, counted, timed and sampled."""

from __future__ import annotations

import random
import zlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from isaac_infer.core.stats import Window

TIMED = 10_000  # the last so many answers enter the percentiles


@dataclass(frozen=True)
class Sample:
    """One answered picture."""

    stamp_ns: int
    image: np.ndarray  # (H, W, 3) uint8 BGR
    answer: object  # what was said of it
    latency_ms: float  # from the picture's stamp to the arrival of the answer
    checksum: int  # of the picture as it came
    is_drawn: bool = False  # whether the answer is drawn on the picture


class Record:
    """What a detector answered: counts, latencies, and a few pictures spread over the whole run.

    Memory is bounded: at most `pending` pictures wait for their answer and `samples` are kept.
    """

    def __init__(self, *, samples: int = 12, pending: int = 32) -> None:
        self.pictures = 0
        self.answered = 0
        self.unmatched = 0  # answers whose picture did not arrive here, or not alone
        self.classes: Counter[str] = Counter()
        self._latencies_ms = Window(TIMED)
        self._waiting: OrderedDict[int, np.ndarray | None] = OrderedDict()  # None: several of one stamp
        self._pending, self._wanted = pending, samples
        self._kept: list[tuple[int, Sample]] = []  # with their place in the run
        # At random: a folder shown in a circle would meet an even stride at the same picture every time.
        self._random = random.Random(0)

    def add_picture(self, stamp_ns: int, image_bgr: np.ndarray) -> None:
        """Keep a picture until its answer comes; of those with one stamp none, as none has a known answer."""
        self.pictures += 1
        self._waiting[stamp_ns] = None if stamp_ns in self._waiting else image_bgr
        while len(self._waiting) > self._pending:
            self._waiting.popitem(last=False)

    def add_answer(self, stamp_ns: int, answer: object, class_names: list[str], latency_ms: float) -> None:
        """Count an answer and keep it with its picture where it is one of the samples."""
        self.classes.update(class_names)
        self._latencies_ms.add(latency_ms)
        image = self._waiting.get(stamp_ns)
        if image is None:
            self.unmatched += 1
        else:
            del self._waiting[stamp_ns]
            self._keep(stamp_ns, image, answer, latency_ms)
        self.answered += 1

    def _keep(self, stamp_ns: int, image: np.ndarray, answer: object, latency_ms: float) -> None:
        """Keep each of the answered pictures with the same probability (reservoir sampling), none twice."""
        place = len(self._kept)
        if place == self._wanted and (place := self._random.randrange(self.answered + 1)) >= self._wanted:
            return
        checksum = zlib.crc32(np.ascontiguousarray(image).data, zlib.crc32(str(image.shape).encode()))
        if all(checksum != sample.checksum for _, sample in self._kept):  # what repeats shows nothing new
            sample = Sample(stamp_ns, image, answer, latency_ms, checksum)
            self._kept[place : place + 1] = [(self.answered, sample)]

    def add_drawn(self, stamp_ns: int, image_bgr: np.ndarray) -> None:
        """Take the picture with its answer drawn on it, where it is one of the samples."""
        for at, (number, sample) in enumerate(self._kept):
            if sample.stamp_ns == stamp_ns:
                self._kept[at] = number, replace(sample, image=image_bgr, is_drawn=True)

    def samples(self) -> list[Sample]:
        """The wanted number of answered pictures, or fewer, oldest first."""
        return [sample for _, sample in sorted(self._kept, key=lambda entry: entry[0])]

    def latency_ms(self) -> tuple[float, float, float]:
        """The 50th, 95th and 99th percentile of stamp-to-answer; NaN where nothing was answered."""
        return self._latencies_ms.percentiles()
