"""Nvpmodel: the power modes of a board, which of them it is in, and what a switch takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from isaac_infer.core.errors import PowerModeError
from isaac_infer.jetson.sysfs import read_text, to_number
from isaac_infer.jetson.tool import run_tool

CONF = 'etc/nvpmodel.conf'
STATUS = 'var/lib/nvpmodel/status'
TOOL = 'usr/sbin/nvpmodel'
PATIENCE_S = 5.0  # for the tool

_INT_MAX = 2**31 - 1  # what -1, no cap, becomes where it is read back
_SECTION = re.compile(r'<\s*(PARAM|POWER_MODEL|PM_CONFIG)\b([^<>]*)>')
_HEX = re.compile(r'0[xX][0-9a-fA-F]{1,16}')
_VALUE = re.compile(r'(\w+)\s*=\s*([^\s>]+)')


@dataclass(frozen=True)
class PowerMode:
    """A power mode: how many cores it has on, and how fast what may run; None: no cap."""

    id: int  # what nvpmodel -m takes; neither a place in a list nor a rank
    name: str | None
    cores_online: int | None = None  # None: not said
    cpu_max_hz: int | None = None  # of the fastest cluster
    gpu_max_hz: int | None = None
    emc_max_hz: int | None = None  # memory
    tpc_mask: int | None = None  # parts of the GPU that are off
    fbp_mask: int | None = None
    is_gating_known: bool = True  # False: which parts are off cannot be told, so neither what a switch takes


@dataclass(frozen=True)
class PowerModes:
    """What nvpmodel.conf says: the modes by their ID, and the one that the board starts with at first."""

    modes: Mapping[int, PowerMode] = field(default_factory=dict)
    default_id: int | None = None

    @property
    def default(self) -> PowerMode | None:
        """The mode that the board starts with at first."""
        return None if self.default_id is None else self.modes.get(self.default_id)


def parse_conf(text: str) -> PowerModes:
    """Read the text of nvpmodel.conf; lines that are not of its grammar are passed over."""
    default_id = None
    modes: dict[int, tuple[str | None, Mapping[tuple[str, str], str]]] = {}
    twice: set[int] = set()  # IDs: nobody knows which of both is meant
    settings: dict[tuple[str, str], str] = {}  # of the section; those of PARAM are paths, and nobody's
    # Comments explain the grammar with examples of it, so they go first.
    for line in (line.partition('#')[0].strip() for line in text.splitlines()):
        section = _SECTION.search(line)
        if section is None:
            words = line.split()
            if len(words) == 3:
                settings[words[0], words[1]] = words[2]
            continue
        settings = {}
        values = dict(_VALUE.findall(section[2]))
        number = to_number(values.get('DEFAULT' if section[1] == 'PM_CONFIG' else 'ID'))
        if section[1] == 'PM_CONFIG':
            default_id = number
        elif section[1] == 'POWER_MODEL' and number is not None:
            twice |= {number} & modes.keys()
            modes[number] = (values.get('NAME'), settings)
    known = {id: _mode(id, *told) for id, told in modes.items()}
    return PowerModes(
        {**known, **{id: replace(known[id], is_gating_known=False) for id in twice}}, default_id
    )


def _mode(id: int, name: str | None, settings: Mapping[tuple[str, str], str]) -> PowerMode:
    cores = [value for (part, _), value in settings.items() if part == 'CPU_ONLINE']
    clusters = [
        _cap(value, 1000)  # cpufreq counts in kHz
        for (part, argument), value in settings.items()
        if part.startswith('CPU_') and argument == 'MAX_FREQ'
    ]
    capped = [cap for cap in clusters if cap is not None]
    masks = [settings.get((f'{part}_POWER_GATING', f'{part}_PG_MASK')) for part in ('TPC', 'FBP')]
    tpc_mask, fbp_mask = map(_mask, masks)
    return PowerMode(
        id=id,
        name=name,
        cores_online=cores.count('1') if cores else None,
        cpu_max_hz=max(capped) if capped and len(capped) == len(clusters) else None,
        gpu_max_hz=_cap(settings.get(('GPU', 'MAX_FREQ'))),
        emc_max_hz=_cap(settings.get(('EMC', 'MAX_FREQ'))),
        tpc_mask=tpc_mask,
        fbp_mask=fbp_mask,
        is_gating_known=all(text is None or _mask(text) is not None for text in masks),
    )


def _mask(text: str | None) -> int | None:
    return int(text, 16) if text and _HEX.fullmatch(text) else to_number(text)


def _cap(text: str | None, scale: int = 1) -> int | None:
    number = to_number(text)
    return None if number is None or number <= 0 or number == _INT_MAX else number * scale


def parse_status(text: str) -> int | None:
    """Find the ID of the current mode in what nvpmodel keeps, such as `pmode:0002 fmode:quiet`."""
    found = re.search(r'\bpmode:(\d+)', text, re.ASCII)
    return to_number(found[1]) if found else None


def parse_fan_profile(text: str) -> str | None:
    """Find the profile of the fan there, such as quiet; None where it is not said."""
    found = re.search(r'\bfmode:(?:fan_mode_)?(\w+)', text, re.ASCII)
    return found[1] if found else None


def parse_query(text: str) -> PowerMode | None:
    """Find the current mode in what `nvpmodel -q` prints, among its warnings: its name, below it its ID."""
    name = None
    for line in text.splitlines():
        if found := re.search(r'NV Power Mode: (\S+)', line):
            name = found[1]
        elif name is not None and (number := to_number(line.strip())) is not None:
            return PowerMode(number, name, is_gating_known=False)
    return None


def find_mode(modes: Iterable[PowerMode], name: str) -> PowerMode:
    """Find a mode by its name.

    Raises:
        PowerModeError: there is none of that name, or more than one.
    """
    modes = tuple(modes)
    known = {mode.name: mode for mode in modes}
    if not known:
        raise PowerModeError(
            f'power mode {name!r}: expected a board with modes, but there is no {CONF} with some'
        )
    if name not in known:
        raise PowerModeError(f'power mode {name!r}: expected one of {", ".join(map(str, known))}')
    ids = [str(mode.id) for mode in modes if mode.name == name]
    if len(ids) > 1:
        raise PowerModeError(
            f'power mode {name!r}: expected one of that name in {CONF}, got IDs {", ".join(ids)}'
        )
    return known[name]


def needs_reboot(current: PowerMode, target: PowerMode) -> bool:
    """Tell whether a switch takes a reboot, as it does where other parts of the GPU are off, or may be."""
    if not (current.is_gating_known and target.is_gating_known):
        return current.id != target.id
    return (current.tpc_mask, current.fbp_mask) != (target.tpc_mask, target.fbp_mask)


def read_modes(root: Path) -> PowerModes:
    """Read the modes of the board below a root; none where it has no nvpmodel.conf."""
    return parse_conf(read_text(root / CONF) or '')


def read_fan_profile(root: Path) -> str | None:
    """Read which profile the fan has; None where nobody tells."""
    return parse_fan_profile(read_text(root / STATUS) or '')


def read_mode(root: Path, modes: PowerModes, *, asks_tool: bool = True) -> PowerMode | None:
    """Read which mode the board is in; None where nobody tells.

    Args:
        asks_tool: where nothing is kept, ask the tool itself, which may take PATIENCE_S.
    """
    number = parse_status(read_text(root / STATUS) or '')
    if number is not None:
        return modes.modes.get(number, PowerMode(number, None, is_gating_known=False))
    told = parse_query(_ask(root / TOOL)) if asks_tool else None
    return None if told is None else modes.modes.get(told.id, told)


def _ask(tool: Path) -> str:
    """Give what `nvpmodel -q` prints; nothing where it is not there or does not answer."""
    try:
        return run_tool([str(tool), '-q'], timeout_s=PATIENCE_S).told
    except (OSError, PowerModeError):
        return ''
