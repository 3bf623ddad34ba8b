"""Parts: all checks of a manifest, those that are run now and those that are not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from isaac_infer.deploy.board_checks import board_checks
from isaac_infer.deploy.checks import Check, Group, NotRunError, Result, skipped, with_optional
from isaac_infer.deploy.manifest import Manifest, ros_names
from isaac_infer.deploy.model_checks import model_checks
from isaac_infer.jetson.board import ROOT


def checks_of(
    manifest: Manifest,
    parts: Sequence[str],
    *,
    ros: Sequence[Group] = (),
    model_directory: str = '',
    root: Path = ROOT,
    cancelled: threading.Event,
    why_not: str = 'this part was not asked for',
) -> tuple[list[Group], list[Result]]:
    """Give the checks of some parts, and the results of the others: not run, and so not required.

    Args:
        parts: of `params.PARTS`, those that are run.
        ros: the checks over ROS, from where there is ROS.
        model_directory: where relative paths of models are looked up first.
        root: the folder that stands for `/`.
        cancelled: what long checks look at.
        why_not: the other parts are not run.

    Raises:
        ParameterError: the manifest calls a check optional that there is not.
    """
    named = {
        'models': model_checks(
            manifest, model_directory=model_directory, root=root, is_cancelled=cancelled.is_set
        ),
        'board': board_checks(manifest, root=root),
        'ros': ros or [Group((Check(name, _without_ros),)) for name in ros_names(manifest)],
    }
    of_part = [part for part, groups in named.items() for _ in groups]
    groups = with_optional([group for groups in named.values() for group in groups], manifest.optional)
    wanted = [group for part, group in zip(of_part, groups, strict=True) if part in parts]
    others = [group for part, group in zip(of_part, groups, strict=True) if part not in parts]
    return wanted, [replace(result, is_required=False) for result in skipped(others, why_not)]


def _without_ros() -> dict[str, object]:
    raise NotRunError('there is no ROS here')
