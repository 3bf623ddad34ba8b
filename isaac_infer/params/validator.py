"""Validator: the parameters of what says whether a deployment may be trusted."""

from __future__ import annotations

from dataclasses import dataclass

from isaac_infer.core.errors import ParameterError
from isaac_infer.params.declare import Params, param

PARTS = ('models', 'board', 'ros')


@dataclass(frozen=True)
class ValidatorParams(Params):
    """Parameters of deployment_validator."""

    manifest: str = param('', 'YAML or JSON file that says what the deployment is. It has no default.')
    model_directory: str = param(
        '', 'Where relative paths of the manifest are looked up before its own folder; empty: nowhere.'
    )
    validation_timeout: float = param(
        120.0, 'Seconds for all checks; those that are left then are not run.', low=0.1, high=86400.0
    )
    period: float = param(
        0.0,
        'Seconds between the end of one validation and the next; 0: once, and then the process ends, with '
        'exit code 0 only if all required checks passed.',
        low=0.0,
        high=1e6,
    )
    parts: list[str] = param(
        list(PARTS), f'Which checks of the manifest are run, of {", ".join(PARTS)}; the others are not run.'
    )
    report: str = param('', 'JSON file for the report, written after every validation; empty: none.')

    def check(self) -> None:
        if unknown := sorted(set(self.parts) - set(PARTS)):
            raise ParameterError(f'parts: expected some of {", ".join(PARTS)}, got {unknown[0]!r}')
