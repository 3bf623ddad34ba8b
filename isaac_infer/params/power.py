"""Power: the parameters of power_manager."""

from __future__ import annotations

from dataclasses import dataclass

from isaac_infer.core.errors import ParameterError
from isaac_infer.params.declare import Params, param


@dataclass(frozen=True)
class PowerManagerParams(Params):
    """Parameters of power_manager."""

    monitoring_frequency: float = param(5.0, 'Readings of the board per second.', low=0.1, high=50.0)
    dry_run: bool = param(
        True, 'Only say which power mode would be switched to; false: switch to it.', live=True
    )
    pinned_mode: str = param(
        '',
        'Name of the power mode to stay in whatever the load, unless the board is hot; empty: by the load.',
        live=True,
    )
    allowed_modes: list[str] = param(
        [],
        'Names of the power modes that may be chosen; of those that nvpmodel.conf does not tell apart, the '
        'weaker first; empty: all.',
    )
    low_power_profile: str = param(
        '', 'Name of the lowest power mode that is chosen; empty: the lowest that is allowed.'
    )
    high_power_profile: str = param(
        '', 'Name of the highest power mode that is chosen; empty: the highest that is allowed.'
    )
    cpu_usage_threshold: float = param(
        80.0,
        'Load of the CPU in percent from which on a higher mode is wanted.',
        low=1.0,
        high=100.0,
        live=True,
    )
    gpu_usage_threshold: float = param(
        80.0,
        'Load of the GPU in percent from which on a higher mode is wanted.',
        low=1.0,
        high=100.0,
        live=True,
    )
    memory_usage_threshold: float = param(
        90.0, 'Memory used in percent from which on a higher mode is wanted.', low=1.0, high=100.0, live=True
    )
    missed_deadlines_threshold: int = param(
        1,
        'Deadlines missed and pictures dropped by busy nodes in 3 s from which on a higher mode is wanted.',
        low=1,
        live=True,
    )
    usage_hysteresis: float = param(
        30.0,
        'Percent points that all loads have to be below their thresholds before a lower mode is wanted.',
        low=0.0,
        high=100.0,
        live=True,
    )
    dwell_s: float = param(
        10.0, 'How long a load has to last before the mode is changed.', low=0.0, high=3600.0, live=True
    )
    min_switch_interval_s: float = param(
        30.0,
        'Time between two switches at least; only a board about to throttle is switched sooner.',
        low=1.0,
        high=3600.0,
        live=True,
    )
    throttle_celsius: float = param(
        99.0,
        'Temperature at which the board begins to throttle, where its sensors do not say it themselves.',
        low=20.0,
        high=150.0,
        live=True,
    )
    hot_margin_celsius: float = param(
        8.0,
        'Degrees to throttling below which a lower power mode is chosen, whatever the load.',
        low=0.0,
        high=100.0,
        live=True,
    )
    critical_margin_celsius: float = param(
        2.0,
        'Degrees to throttling below which the lowest power mode is chosen at once.',
        low=0.0,
        high=100.0,
        live=True,
    )
    reduced_margin_celsius: float = param(
        5.0, 'Degrees to throttling below which load_level is reduced.', low=0.0, high=100.0, live=True
    )
    minimal_margin_celsius: float = param(
        2.0, 'Degrees to throttling below which load_level is minimal.', low=0.0, high=100.0, live=True
    )
    thermal_hysteresis_celsius: float = param(
        4.0,
        'How many degrees cooler it has to be before a higher mode, or more work, is allowed again.',
        low=0.0,
        high=50.0,
        live=True,
    )
    nvpmodel_command: list[str] = param(
        ['sudo', '-n', '/usr/sbin/nvpmodel'],
        'What switches the power mode, a word each; -m and the ID come after it.',
    )
    nvpmodel_timeout_s: float = param(
        10.0, 'How long a switch may take before it counts as failed.', low=0.1, high=300.0
    )
    root: str = param('/', 'The folder that stands for / where the board is read.')

    def check(self) -> None:
        """Check that lower limits are not above higher ones, and that there is a command."""
        for lower, higher in (
            ('critical_margin_celsius', 'hot_margin_celsius'),
            ('minimal_margin_celsius', 'reduced_margin_celsius'),
        ):
            if getattr(self, lower) > getattr(self, higher):
                raise ParameterError(
                    f'{lower}: expected at most {higher}, which is {getattr(self, higher):g}, '
                    f'got {getattr(self, lower):g}'
                )
        if not self.nvpmodel_command or not all(self.nvpmodel_command):
            raise ParameterError(
                f'nvpmodel_command: expected a program and its arguments, got {self.nvpmodel_command}'
            )
