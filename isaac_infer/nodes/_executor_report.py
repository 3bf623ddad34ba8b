"""Executor report: how the executor is doing, as diagnostics, figures and a line for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from isaac_infer.core.control.safety import Reason, State
from isaac_infer.core.control.schedule import Pace
from isaac_infer.core.control.variants import VariantState
from isaac_infer.core.text import beside, counted
from isaac_infer.jetson.pc import add_psutil
from isaac_infer.jetson.sensors import read_temperatures
from isaac_infer.jetson.sysfs import Tree
from isaac_infer.params import ExecutorParams
from isaac_infer.ros.diagnostics import ERROR, OK, PERCENTS, WARN, Report, report_values
from isaac_infer.ros.perceiver import Perceiver, Variant

# What the robot stands for without a fault of anything.
ORDERS = ('not_enabled', 'latched', 'obstacle')
Percentiles = tuple[float, float, float]  # PERCENTS
_NOTHING: Percentiles = (nan, nan, nan)


@dataclass(frozen=True)
class Doing:
    """What the executor does at a moment, perception aside."""

    params: ExecutorParams
    pace: Pace
    state: State
    reasons: tuple[Reason, ...]  # why it stands; empty: it drives
    hints: Mapping[str, str]  # by input: why it does not come
    is_enabled: bool
    misses: int  # deadlines, of the control policy
    # How long the stages of a period took: planning, until what is wanted is known, and control, from when
    # the command was due until it was sent.
    times_ms: Mapping[str, Percentiles]
    variant: VariantState
    load_level: str
    celsius: float | None
    notes: tuple[str, ...]  # what is not as it should be, and no reason to stand


def status_text(params: ExecutorParams, reasons: Sequence[Reason], hints: Mapping[str, str]) -> str:
    """Say what it does, and why.

    Args:
        hints: by the names of inputs: why they do not come.
    """
    if reasons:
        told = (
            f'{reason.text} ({hint})' if (hint := hints.get(reason.source)) else reason.text
            for reason in reasons
        )
        return 'standing: ' + '; '.join(told)
    return f'driving by {params.control_model_path or "the obstacle rule"}'


def judge_control(doing: Doing) -> tuple[bytes, str]:
    """Give the level of the control's health, and why."""
    text = status_text(doing.params, doing.reasons, doing.hints)
    if any(reason.kind not in ORDERS for reason in doing.reasons):
        # Before it is enabled it is to stand anyway, and what it needs may be yet to come.
        return (ERROR if doing.is_enabled else WARN), text
    if doing.pace.overruns:
        return WARN, f'{counted(doing.pace.overruns, "period")} missed lately; {text}'
    if doing.notes:
        return WARN, '; '.join((*doing.notes, text))
    return (WARN if doing.state.latched else OK), text


def control_values(doing: Doing, perceiver: Perceiver) -> dict[str, str]:
    pace, last = doing.pace, doing.state.last
    values = {
        'rate_hz': f'{pace.rate_hz:.2f}',
        'jitter_ms_p50': f'{pace.jitter_ms_p50:.3f}',
        'jitter_ms_p99': f'{pace.jitter_ms_p99:.3f}',
        'overruns': str(pace.total_overruns),
        'overruns_lately': str(pace.overruns),
        'deadline_missed': str(doing.misses),
        'is_enabled': str(doing.is_enabled).lower(),
        'latched': doing.state.latched,
        'reasons': ' '.join(reason.name for reason in doing.reasons),
        'linear_x_mps': f'{last.linear_x:.3f}',
        'linear_y_mps': f'{last.linear_y:.3f}',
        'angular_z_radps': f'{last.angular_z:.3f}',
        'control_model': doing.params.control_model_path or 'none: the obstacle rule',
        'variant': _variant_name(perceiver),
        'load_level': doing.load_level,
    }
    for stage, times_ms in doing.times_ms.items():
        for percent, time_ms in zip(PERCENTS, times_ms):
            values[f'{stage}_ms_p{percent}'] = f'{time_ms:.3f}'
    return values


def judge_perception(report: Report, perceiver: Perceiver, params: ExecutorParams) -> tuple[bytes, str]:
    """Give the level of the perception's health, and why."""
    problems = ' | '.join(_problem_of(each) for each in perceiver.variants if each.problem)
    if not perceiver.ready:
        return (OK, 'opening the model') if perceiver.is_opening else (ERROR, problems)
    if report.recent.received and not report.recent.answered:
        return ERROR, f'none of {counted(report.recent.received, "picture")} answered; {report.last_error}'
    if problems:
        return WARN, problems
    limit_ms, mean_ms = params.variant_limits().mean_ms, perceiver.readings((0.0, 0.0)).mean_ms
    if limit_ms and mean_ms > limit_ms:
        return WARN, f'{beside(mean_ms, limit_ms, 1)} ms per picture, more than {limit_ms:g}'
    return OK, f'{report.rate_hz:.1f} pictures per second by {_variant_name(perceiver)}'


def _problem_of(variant: Variant) -> str:
    is_named = Path(variant.name).name in variant.problem
    return variant.problem if is_named else f'{variant.name}: {variant.problem}'


def perception_values(report: Report, perceiver: Perceiver, doing: Doing) -> dict[str, str]:
    variant = perceiver.current
    values = {'variant': _variant_name(perceiver), 'variant_reason': doing.variant.reason}
    if variant is not None and variant.opened is not None:
        pipeline = variant.opened.loaded.pipeline
        values |= {
            **variant.opened.loaded.facts,
            'backend': pipeline.session.backend,
            'fallbacks': ' '.join(pipeline.fallbacks),
            'decoder': pipeline.spec.decoder,
        }
    return {**values, **report_values(report)}


def figures(doing: Doing, report: Report, perceiver: Perceiver) -> dict[str, float | None]:
    """The fields of model_inference_stats."""
    pace, stages = doing.pace, report.percentiles_ms
    times = {
        **{stage: doing.times_ms.get(stage, _NOTHING) for stage in ('planning', 'control')},
        'perception': stages.get('total', _NOTHING),
        **{f'perception_{stage}': stages.get(stage, _NOTHING) for stage in ('prepare', 'run', 'decode')},
    }
    return {
        'control_rate_hz': pace.rate_hz,
        'control_jitter_p50_ms': pace.jitter_ms_p50,
        'control_jitter_p99_ms': pace.jitter_ms_p99,
        'control_overruns': float(pace.total_overruns),
        'control_deadline_missed': float(doing.misses),
        **{
            f'{stage}_p{percent}_ms': time_ms
            for stage, times_ms in times.items()
            for percent, time_ms in zip(PERCENTS, times_ms)
        },
        'perception_rate_hz': report.rate_hz,
        'perception_input_rate_hz': report.input_rate_hz,
        'perception_answered': float(report.total.answered),
        'variant_index': float(doing.variant.index) if perceiver.current else None,
        'temperature_c': doing.celsius,
    }


def benchmark_text(doing: Doing, report: Report) -> str:
    """A line for the log: how well the rate is kept, and how long each stage takes."""
    pace = doing.pace
    parts = [
        f'{pace.rate_hz:.1f} commands per second',
        counted(pace.overruns, 'overrun'),
        f'jitter p50 {pace.jitter_ms_p50:.2f} ms, p99 {pace.jitter_ms_p99:.2f} ms',
    ]
    times = {**doing.times_ms, **report.percentiles_ms}
    stages = [f'{stage} {"/".join(f"{ms:.2f}" for ms in times_ms)}' for stage, times_ms in times.items()]
    return f'benchmark: {", ".join(parts)}; p50/p95/p99 in ms: {", ".join(stages)}'


def hottest_celsius(tree: Tree) -> float | None:
    """The temperature of the hottest part of the board; None: unknown."""
    temperatures, _ = add_psutil(read_temperatures(tree), ())
    return max((each.celsius for each in temperatures if each.celsius is not None), default=None)


def _variant_name(perceiver: Perceiver) -> str:
    return perceiver.current.name if perceiver.current else ''
