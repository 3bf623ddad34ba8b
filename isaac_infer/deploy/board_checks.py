"""Board checks: power mode, clocks, disk space and time are as a deployment wants them; read without root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from isaac_infer.deploy.checks import Check, CheckError, Group, NotRunError
from isaac_infer.deploy.manifest import Manifest
from isaac_infer.engine.cache import default_folder
from isaac_infer.jetson.board import ROOT, Board, BoardReader
from isaac_infer.jetson.nvpmodel import read_modes

MB = 1_000_000
CLOCK_TOLERANCE = 0.02  # clocks come in steps
TIMESYNCD = 'run/systemd/timesync/synchronized'  # a file that systemd-timesyncd has where it is
_TIMEX_BYTES = 256  # of the kernel's struct timex, or more
_TIME_ERROR = 5  # what adjtimex says of a clock that nobody keeps in time


def board_checks(manifest: Manifest, *, root: Path = ROOT) -> list[Group]:
    """Give the checks of the board and its system.

    Args:
        root: the folder that stands for `/`.
    """
    checks = []
    if manifest.board is not None and manifest.board.mode:
        checks.append(Check('board: mode', partial(check_mode, root, manifest.board.mode)))
    if manifest.board is not None and manifest.board.clocks:
        is_fixed = manifest.board.clocks == 'fixed'
        checks.append(Check('board: clocks', partial(check_clocks, root, is_fixed=is_fixed)))
    if manifest.disk_free_mb is not None:
        folders = [manifest.folder, default_folder(manifest.folder / 'model')]
        checks.append(Check('system: disk', partial(check_disk, folders, manifest.disk_free_mb)))
    if manifest.clock_sync:
        checks.append(Check('system: clock', partial(check_clock, root)))
    return [Group(tuple(checks))] if checks else []


def check_mode(root: Path, wanted: str) -> Mapping[str, Any]:
    """The board is in the power mode of this name."""
    modes = read_modes(root).modes.values()
    mode = BoardReader(root).read().power_mode
    names = ', '.join(each.name for each in modes if each.name)
    if mode is None:
        raise NotRunError('the power mode is unknown: nvpmodel says nothing here')
    values = {'mode': mode.name, 'id': mode.id}
    if mode.name != wanted:
        ids = [each.id for each in modes if each.name == wanted]
        way_out = f'run "sudo nvpmodel -m {ids[0]}"' if ids else f'this board has {names or "no named modes"}'
        raise CheckError(f'expected power mode {wanted}, got {mode.name} (ID {mode.id}); {way_out}', values)
    return values


def check_clocks(root: Path, *, is_fixed: bool) -> Mapping[str, Any]:
    """Cores and clocks are those of the power mode; fixed: as jetson_clocks does it, too."""
    board = BoardReader(root).read()
    mode = board.power_mode
    if mode is None:
        raise NotRunError('the power mode is unknown, and with it its clocks')
    if mode not in board.power_modes:
        raise NotRunError(f'nvpmodel.conf does not have the power mode (ID {mode.id}), and so not its clocks')
    online = [core for core in board.cpu.cores if core.is_online is not False]
    highest = [core.max_clock_hz for core in online if core.max_clock_hz is not None]
    fastest = [core.fastest_clock_hz for core in online if core.fastest_clock_hz is not None]
    # What a mode does not cap runs as fast as the board can.
    found = {
        'GPU': (mode.gpu_max_hz or board.gpu.fastest_clock_hz, board.gpu.max_clock_hz),
        'CPU': (mode.cpu_max_hz or max(fastest, default=None), max(highest, default=None)),
    }
    values: dict[str, Any] = {
        f'{part.lower()}_max_mhz': None if got is None else got / 1e6 for part, (_, got) in found.items()
    }
    values |= {'cores': len(online), 'are_fixed': board.are_clocks_fixed}
    if mode.cores_online is not None and any(core.is_online is None for core in online):
        raise NotRunError('which cores are online is unknown', values)
    if mode.cores_online is not None and len(online) != mode.cores_online:
        raise CheckError(
            f'expected {mode.cores_online} cores online in {mode.name}, got {len(online)}; {_SET_AGAIN}',
            values,
        )
    for part, (want, got) in found.items():
        if got is None:
            raise NotRunError(f'the highest clock of the {part} is unknown', values)
        if want is None:
            raise NotRunError(
                f'{mode.name} does not cap the {part}, and how fast it can be is unknown', values
            )
        if abs(got - want) > CLOCK_TOLERANCE * want:
            raise CheckError(
                f'{part}: expected clocks up to {want / 1e6:.0f} MHz in {mode.name}, got {got / 1e6:.0f}; '
                f'{_SET_AGAIN}',
                values,
            )
    if is_fixed:
        _check_fixed(board, values)
    return values


_SET_AGAIN = 'set the mode again (sudo nvpmodel -m ID)'


def _check_fixed(board: Board, values: Mapping[str, Any]) -> None:
    if board.are_clocks_fixed is None:
        raise NotRunError('whether clocks are fixed is unknown', values)
    if not board.are_clocks_fixed:
        raise CheckError('expected fixed clocks, got changing ones; run "sudo jetson_clocks"', values)


def check_disk(folders: list[Path], wanted_mb: float) -> Mapping[str, Any]:
    """There is so much room where models and engines lie, for who is not root."""
    free_mb = {}
    for folder in folders:
        place = next(each for each in (folder, *folder.parents) if each.exists())
        facts = os.statvfs(place)
        free_mb[str(place)] = facts.f_bavail * facts.f_frsize / MB
    least = min(free_mb, key=free_mb.__getitem__)
    values = {'free_mb': free_mb[least], 'folder': least}
    if free_mb[least] < wanted_mb:
        raise CheckError(f'{least}: expected {wanted_mb:g} MB free, got {free_mb[least]:.0f}', values)
    return values


def check_clock(root: Path, ask_kernel: Callable[[], int | None] | None = None) -> Mapping[str, Any]:
    """The clock is kept in time with others."""
    if (root / TIMESYNCD).exists():
        return {'by': 'systemd-timesyncd'}
    state = (ask_kernel or _clock_state)() if root == ROOT or ask_kernel else None
    if state is None:
        raise NotRunError('whether the clock is kept in time is unknown: neither systemd-timesyncd nor the '
                          'kernel tells')  # fmt: skip
    if state == _TIME_ERROR:
        raise CheckError(
            'the clock is not kept in time with others; set up systemd-timesyncd or chrony, or PTP',
            {'kernel_state': state},
        )
    return {'by': 'the kernel', 'kernel_state': state}


def _clock_state() -> int | None:
    """What the kernel says of its clock, which chrony and ntpd tell it; None where it does not say."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except AttributeError:
        return None
    state: int = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # zeros: asked, and nothing is set
    return None if state < 0 else state
