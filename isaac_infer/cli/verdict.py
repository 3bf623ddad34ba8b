"""Verdict: what came of a comparison, as rows, checks, notes and tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isaac_infer.cli.comparison import Pictures
from isaac_infer.cli.run import show_note
from isaac_infer.cli.scores import Measure, Score
from isaac_infer.cli.variants import Variant
from isaac_infer.core.errors import SourceError
from isaac_infer.core.matching import Agreement
from isaac_infer.core.source import Source, open_source
from isaac_infer.core.text import counted, without_commands
from isaac_infer.core.timing import Timings, summarise
from isaac_infer.engine.load import file_sha256, unused_precision
from isaac_infer.params import DetectionParams

FEW_OBJECTS = 100  # of the reference, with which shares are coarse
MAP_LOSS = 0.02
MEAN_CLASS_IOU = 0.9  # on average over the classes; semantic models differ by more than by rounding below it


@dataclass(frozen=True)
class Row:
    """What is said of one variant; None: not measured, because it failed or because nobody can know."""

    model: str
    sha256: str
    failure: str
    backend: str
    precision: str  # as it was asked for, or as the file tells it; empty where it does not
    run_ms: Timings | None
    picture_ms: Timings | None
    speed_up: float | None  # of the median from picture to result
    agreement: Agreement | None  # of the reference with itself: perfect
    score: Score | None


@dataclass(frozen=True)
class Check:
    """One threshold, and what was measured."""

    model: str
    what: str
    wanted: str
    measured: str
    holds: bool


def rows_of(variants: Sequence[Variant]) -> list[Row]:
    """Sum up each variant, once all pictures were answered."""
    usual_ms = summarise(variants[0].picture_ms).median
    rows = []
    for variant in variants:
        wanted, path = variant.wanted, variant.wanted.file
        backend = wanted.params.backend if wanted.precision else ''
        row = Row(str(path), file_sha256(path), variant.failure, backend, wanted.precision, *([None] * 5))
        if variant.pipeline:
            session = variant.pipeline.session
            precision = wanted.precision or str(session.metadata.get('precision', ''))
            row = replace(row, backend=session.backend, precision=precision)
        if not variant.failure:
            picture_ms = summarise(variant.picture_ms)
            row = replace(
                row,
                run_ms=summarise(variant.run_ms),
                picture_ms=picture_ms,
                speed_up=usual_ms / picture_ms.median,
                agreement=variant.agreeing.agreement(),
                score=variant.scoring.score() if variant.scoring else None,
            )
        rows.append(row)
    return rows


def checks_of(rows: Sequence[Row], measure: Measure, args: argparse.Namespace) -> list[Check]:
    """Compare every variant but the reference with the thresholds; what cannot be measured does not hold."""
    checks = []
    least_mean_iou = args.min_mean_iou
    if least_mean_iou is None and not measure.has_objects:
        least_mean_iou = MEAN_CLASS_IOU
    for row, name in list(zip(rows, short_names(rows), strict=True))[1:]:
        if row.failure:
            checks.append(Check(name, 'runs', 'without an error', 'failed', False))
            continue
        agreed = row.agreement
        assert agreed is not None
        at_least = {
            measure.again: (agreed.share, args.min_agreement),
            f'{measure.overlap}, mean': (agreed.mean_iou, least_mean_iou),
            f'{measure.overlap} of the worst {measure.worst}': (agreed.worst_iou, args.min_iou),
            'speed-up': (row.speed_up, args.min_speed_up),
        }
        at_most = {
            'extra objects': (agreed.extra_share, args.max_extra if measure.has_objects else None),
            'score difference of the worst pair': (agreed.worst_score_difference, args.max_score_difference),
        }
        loss = f'loss of {measure.scores[measure.main_score]}'
        if row.score and rows[0].score:
            most_lost = MAP_LOSS if args.max_map_loss is None else args.max_map_loss
            at_most[loss] = rows[0].score[measure.main_score] - row.score[measure.main_score], most_lost
        else:
            at_most[loss] = None, args.max_map_loss
        for sign, thresholds in (('>=', at_least), ('<=', at_most)):
            for what, (value, limit) in thresholds.items():
                if limit is None:
                    continue
                holds = value is not None and (value >= limit if sign == '>=' else value <= limit)
                checks.append(Check(name, what, f'{sign} {limit:g}', _number(value, 4), holds))
    return checks


def as_dict(row: Row) -> dict[str, Any]:
    """Give a row as the report has it."""
    content = asdict(row)
    if row.agreement:
        content['agreement'].update(share=row.agreement.share, extra_share=row.agreement.extra_share)
    return content


def short_names(rows: Sequence[Row]) -> list[str]:
    """The variants' file names, or what tells them apart: paths, or precision and backend of one model."""
    names = [Path(row.model).name for row in rows]
    models = {row.model for row in rows}
    if len(set(names)) == len(names):
        return names
    if len(models) == len(rows):
        return [row.model for row in rows]
    parts = [(name, row.precision, row.backend.partition(' ')[0]) for name, row in zip(names, rows)]
    is_one = len(models) == 1 and all(row.precision for row in rows)
    return [' '.join(filter(None, each[1:] if is_one else each)) for each in parts]


def _number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def notes_of(rows: Sequence[Row], measure: Measure) -> list[str]:
    """What the numbers do not say."""
    notes = []
    expected = rows[0].agreement.expected if rows[0].agreement else 0
    if measure.has_objects and 0 < expected < FEW_OBJECTS:
        share = f'one more or less is {100 / expected:.0f} %'
        notes.append(f'the first finds {expected} {measure.things} in all: {share}')
    if any(row.precision in ('fp16', 'int8') and 'CPUExecutionProvider' in row.backend for row in rows):
        notes.append('how fast fp16 and int8 are on the CPU says nothing of a GPU')
    return notes


def notes_of_models(variants: Sequence[Variant]) -> list[str]:
    """What may be wrong with how the models are read, and how they are, each note once."""
    specs = [variant.pipeline.spec for variant in variants if variant.pipeline]
    return list(dict.fromkeys(note for spec in specs for note in (*spec.warnings, *spec.notes)))


def notes_of_precision(
    variants: Sequence[Variant],
    rows: Sequence[Row],
    args: argparse.Namespace,
    params: DetectionParams,
    source: Source,
) -> list[str]:
    """What was asked for and makes no difference, and what flatters INT8."""
    sessions = [variant.pipeline.session for variant in variants if variant.pipeline]
    unused = [unused_precision(args.precision, session) for session in sessions]
    notes = unused[:1] if all(unused) and not args.precisions else []
    quantised = [row for row in rows if row.precision == 'int8' and not row.failure]
    if params.calibration != 'qdq' and any(row.backend.startswith('onnxruntime') for row in quantised):
        notes.append(
            f'calibration {params.calibration} is one of TensorRT; on ONNX Runtime int8 is calibrated as qdq'
        )
    seen = _calibrated_on(params, source) if quantised else 0
    if seen:
        notes.append(
            f'int8 is calibrated on {seen} of the {counted(len(source.paths), "file")} of '
            f'{", ".join(args.source)}: of pictures that it has not seen it may be worse'
        )
    return notes


def _calibrated_on(params: DetectionParams, source: Source) -> int:
    """How many of the files that are compared are those of the calibration."""
    try:
        with open_source(params.calibration_path) as calibration:
            paths = {os.path.realpath(path) for path in calibration.paths}
    except SourceError:
        return 0  # an engine may be there although its pictures are gone
    return sum(os.path.realpath(path) in paths for path in source.paths)


def show(
    rows: Sequence[Row],
    checks: Sequence[Check],
    measure: Measure,
    pictures: Pictures,
    notes: Sequence[str],
    out: Console,
) -> None:
    """Print speed, accuracy and verdict, each as a table."""
    names = [Text(without_commands(name)) for name in short_names(rows)]
    times = 'run', 'picture', 'faster'
    if len({row.model for row in rows}) == 1:
        model = without_commands(rows[0].model)
        out.print(f'model: {model}', markup=False, highlight=False, soft_wrap=True)
    title = f'speed, {counted(pictures.count, "picture")}, median milliseconds of the network and of all'
    speed = _table(title, 'variant', *times)
    scores = measure.scores.values() if pictures.with_truth else []
    if measure.has_objects:
        title = f'agreement with the first: {measure.overlap} and difference of scores, mean and worst'
        pairs = ['found', 'extra', measure.overlap, 'worst', 'score', 'worst']
    else:
        title = f'agreement with the first: equal {measure.things}; {measure.overlap}, mean and worst'
        pairs = ['equal', measure.overlap, 'worst']
    accuracy = _table(title, 'variant', *pairs, *scores)
    for name, row in zip(names, rows, strict=True):
        medians = [times.median if times else None for times in (row.run_ms, row.picture_ms)]
        numbers = [_number(value, 2) for value in (*medians, row.speed_up)]
        one = row.agreement
        if one is None:
            speed.add_row(name, 'failed')
            continue
        speed.add_row(name, *numbers)
        objects = [_number(one.share, 4)]
        values = [one.mean_iou, one.worst_iou]
        if measure.has_objects:
            objects = [f'{one.found}/{one.expected}', str(one.extra)]
            values += [one.mean_score_difference, one.worst_score_difference]
        if pictures.with_truth:
            values += [row.score[key] if row.score else None for key in measure.scores]
        accuracy.add_row(name, *objects, *map(_number, values))
    out.print(speed, accuracy)
    for name, row in zip(names, rows, strict=True):
        if row.failure:  # which was said when it happened
            continue
        runs_on = ', '.join(filter(None, (row.backend, row.precision)))
        text = Text.assemble(name, ': ', without_commands(runs_on))
        out.print(text, style='dim', highlight=False, soft_wrap=True)
    for note in notes:
        show_note(note, out)
    if pictures.unread:
        out.print(f'verdict: {counted(pictures.unread, "picture")} could not be read', style='bold red')
    if not checks:
        alone = 'one model, measured by the truth' if pictures.with_truth else ''
        out.print(f'verdict: {alone or "nothing to compare, give a second model"}', style='bold')
        return
    verdict = _table('thresholds', 'variant', 'what', 'wanted', 'measured', '')
    for check in checks:
        texts = (check.model, check.what, check.wanted, check.measured, 'holds' if check.holds else 'missed')
        verdict.add_row(
            *(Text(without_commands(text)) for text in texts), style=None if check.holds else 'red'
        )
    out.print(verdict)
    missed = sum(not check.holds for check in checks)
    words = f'{missed} of {counted(len(checks), "threshold")} missed' if missed else 'all thresholds hold'
    words += ' for the other pictures' if pictures.unread else ''
    out.print(f'verdict: {words}', style='bold', highlight=False)


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=Text(title, style='bold'),
        title_justify='left',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in headings:
        is_text = heading in ('variant', 'what')
        # In two lines, or a table of masks would be wider than 80 columns.
        table.add_column(
            heading if is_text else heading.replace(' ', '\n'),
            justify='left' if is_text else 'right',
            overflow='fold',
        )
    return table
