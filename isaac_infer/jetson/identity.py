"""Identity: which board this is, and what release runs on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from isaac_infer.jetson.sysfs import read_text

_JETPACK_OF_L4T = {35: 5, 36: 6, 38: 7, 39: 7}


@dataclass(frozen=True)
class Identity:
    """A board and its release; None: unknown."""

    model: str | None
    soc: str | None  # such as tegra234, an Orin; None also where this is no Jetson
    l4t: str | None  # such as 36.4.4
    jetpack: int | None  # of that release


def parse_release(text: str) -> tuple[str, int | None] | None:
    """Read the text of /etc/nv_tegra_release: the release of L4T and its JetPack; else None."""
    found = re.search(r'# R(\d{1,4}) \(release\), REVISION: ([\d.]{1,20})', text, re.ASCII)
    return (f'{found[1]}.{found[2]}', _JETPACK_OF_L4T.get(int(found[1]))) if found else None


def read_identity(root: Path) -> Identity:
    """Read which board this is; of a PC, which has no device tree, its maker's name for it."""
    tree = root / 'proc/device-tree'
    soc = re.search(r'\btegra\d+', read_text(tree / 'compatible') or '', re.ASCII)
    l4t, jetpack = parse_release(read_text(root / 'etc/nv_tegra_release') or '') or (None, None)
    model = read_text(tree / 'model') or read_text(root / 'sys/class/dmi/id/product_name')
    return Identity(model or None, soc[0] if soc else None, l4t, jetpack)
