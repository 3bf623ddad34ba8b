"""Comparison: all pictures answered by all variants in turns, and measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from rich.console import Console

from isaac_infer.cli.precision import CUSTOMARY
from isaac_infer.cli.scores import Measure, check_kinds, measure_of
from isaac_infer.cli.truth import Known, Truth, draw_known, scenes_truth
from isaac_infer.cli.variants import Variant, failure_of, say_failure
from isaac_infer.core.errors import IsaacInferError, ParameterError, SourceError
from isaac_infer.core.frame import Frame
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.source import SYNTHETIC, Source
from isaac_infer.core.text import without_commands


@dataclass(frozen=True)
class Sample:
    """One picture of the comparison."""

    name: str
    frame: Frame
    known: Known | None  # None where nobody knows what is in it


class Pictures:
    """Which pictures were compared so far."""

    def __init__(self) -> None:
        self.count = 0
        self.unread = 0
        self.with_truth = 0


def is_drawn(args: argparse.Namespace) -> bool:
    """Tell whether the pictures are drawn scenes, whose truth is known."""
    return bool(args.source == [SYNTHETIC])


def begin(
    variants: Sequence[Variant], truth: Truth | None, args: argparse.Namespace
) -> tuple[Measure, Truth | None]:
    """Find out how what the variants answer is measured, now that they are open, and begin to.

    Raises:
        ParameterError: they answer different things, or others than are in the truth.
    """
    reference = variants[0].pipeline
    assert reference is not None  # or it would not be there
    measure = measure_of(reference.spec)
    if truth and is_drawn(args):
        truth = scenes_truth(measure.kind)
    elif truth:
        check_kinds(truth, measure, args.truth)
        truth = replace(truth, num_classes=reference.spec.num_classes)
    for variant in variants:
        if variant.pipeline is None:
            continue
        spec = variant.pipeline.spec
        if not measure.has_objects and variant.pipeline.limits.class_ids:
            raise ParameterError('class_filter: expected none, because class maps are compared as a whole')
        try:
            if measure_of(spec) is not measure:
                raise ParameterError(
                    f'expected {measure.kind}, as the first gives, got {measure_of(spec).kind}'
                )
            variant.agreeing = measure.agreeing(reference, variant.pipeline, args.iou)
            variant.scoring = measure.scoring(spec, reference.spec, truth) if truth else None
        except ParameterError as error:
            raise ParameterError(f'{variant.path}: {error}') from error
    return measure, truth


def answer_all(
    variants: Sequence[Variant],
    args: argparse.Namespace,
    source: Source,
    truth: Truth | None,
    measure: Measure,
    out: Console,
) -> Pictures:
    """Answer all pictures with all variants, in turns, so that a slow moment of the machine hits all."""
    pictures = Pictures()
    progress = out.status('comparing')
    with progress:
        for sample in _samples(args, source, truth, measure, pictures):
            number = pictures.count
            progress.update(f'comparing: picture {number + 1}')
            pictures.with_truth += sample.known is not None
            found: dict[int, Any] = {}
            # Each comes first once, because what runs after another finds its caches cold.
            turn = number % len(variants)
            for index in [*range(turn, len(variants)), *range(turn)]:
                variant = variants[index]
                if variant.failure:
                    continue
                try:
                    found[index] = _answer(variant, sample, measure)
                except IsaacInferError as error:
                    if index == 0:
                        raise type(error)(f'{variant.path}: {sample.name}: {error}') from error
                    variant.failure = failure_of(variant.wanted, type(error)(f'{sample.name}: {error}'))
                    say_failure(variant)
            for index, result in found.items():  # at once, because masks take much memory
                variants[index].agreeing.add(found[0], result)
            pictures.count += 1
    if not pictures.count:
        raise SourceError(f'{", ".join(args.source)}: expected pictures, got none that can be read')
    return pictures


def _samples(
    args: argparse.Namespace, source: Source, truth: Truth | None, measure: Measure, pictures: Pictures
) -> Iterator[Sample]:
    """Give the pictures one by one, with what is in them; those that cannot be read are reported."""
    if is_drawn(args):
        for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + args.scenes):
            image, known = draw_known(seed, pictures.count, measure.kind)
            yield Sample(f'{SYNTHETIC} {seed}', Frame(image), known if truth else None)
        return
    while True:
        try:
            picture = source.read()
        except SourceError as error:
            pictures.unread += 1
            print(f'isaac-infer: error: {without_commands(str(error))}', file=sys.stderr)
            continue
        if picture is None:
            return
        height, width = picture.image.shape[:2]
        known = truth.known(picture.name, pictures.count, (height, width)) if truth else None
        yield Sample(picture.name, Frame(picture.image), known)


def _answer(variant: Variant, sample: Sample, measure: Measure) -> Any:
    """Let a variant answer one picture, as a node would; where truth is known, once more for the metric."""
    pipeline = variant.pipeline
    assert pipeline is not None  # or it would have failed
    if not variant.run_ms:
        pipeline(sample.frame)  # the first picture of a size takes longer
    found = pipeline(sample.frame)
    times = pipeline.times
    variant.run_ms.append(times.run_ms)
    variant.picture_ms.append(sum(times.by_stage().values()))
    if sample.known is None or variant.scoring is None:
        return found
    if not measure.has_objects:
        variant.scoring.add(sample.known, found)
        return found
    usual, customary = pipeline.limits, cast(dict[str, Any], CUSTOMARY)
    pipeline.limits = replace(usual, **customary)  # nearly every answer counts, which takes longer
    try:
        variant.scoring.add(sample.known, pipeline(sample.frame))
    finally:
        pipeline.limits = usual
    return found
