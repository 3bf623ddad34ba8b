"""A stand-in for nvpmodel: a script that switches the tree of a board, or fails as the tool does."""

import sys

SCRIPT = """#!{python}
import sys, time
from pathlib import Path

root = Path({root!r})
(root / 'asked').open('a').write(' '.join(sys.argv[1:]) + '\\n')
assert sys.stdin.read() == '', 'expected no stdin'


def switch(id):
    (root / 'var/lib/nvpmodel/status').write_text(f'pmode:{{int(id):04}} fmode:fan_mode_quiet\\n')


{does}
"""
REBOOT = """
print('NVPM WARN: Golden image context is already created')
print(f'NVPM WARN: Reboot required for changing to this power mode: {sys.argv[2]}')
print('NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:')
print('NVPM ERROR: optMask is 1, no request for power mode')
"""
FAILS = """
print('NVPM ERROR: Error writing 2 to /sys/devices/gpu.0/fbp_pg_mask: 19')
print('NVPM ERROR: failed to write PARAM FBP_POWER_GATING: ARG FBP_PG_MASK: PATH: /sys/devices/gpu.0/fbp_pg_mask VAL: 2')
print('NVPM ERROR: failed to set power mode!')
sys.exit(1)
"""  # noqa: E501
TRANSLATES = """
import os
is_german = os.environ.get('LC_ALL', '').startswith('de')
print('sudo: Ein Passwort ist notwendig' if is_german else 'sudo: a password is required', file=sys.stderr)
sys.exit(1)
"""
DENIED = """
print('NVPM ERROR: Error opening /sys/kernel/nvpmodel_emc_cap/emc_iso_cap: 13')
sys.exit(255)
"""
WAYS = {
    'switches': 'switch(sys.argv[2])',
    'reboot': REBOOT,
    'fails': FAILS,
    'slow': 'time.sleep(8)\nswitch(sys.argv[2])',
    'hangs': 'time.sleep(60)',
    'refuses': "print('sudo: a password is required', file=sys.stderr)\nsys.exit(1)",
    'translates': TRANSLATES,
    'denied': DENIED,
    'lies': 'pass',
    'tells': "print('NV Power Mode: MAXN_SUPER\\n2')",
    'elsewhere': 'switch(7)',
    'rubbish': 'sys.stdout.buffer.write(bytes(range(256)) * 1000)\nsys.exit(3)',
}


def install(root, way):
    """Put the stand-in below the root of a tree; give its path."""
    tool = root / 'usr/sbin/nvpmodel'
    tool.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and moved: it may be running.
    fresh = tool.with_name('fresh')
    fresh.write_text(SCRIPT.format(python=sys.executable, root=str(root), does=WAYS[way]))
    fresh.chmod(0o755)
    fresh.replace(tool)
    return tool


def asked(root):
    """Give the arguments of all calls, a line each."""
    log = root / 'asked'
    return log.read_text().splitlines() if log.exists() else []
