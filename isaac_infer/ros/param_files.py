"""Parameter files: those that are given to a node and say nothing of it, which ROS passes over in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from isaac_infer.params import NODES

SIMILAR = 0.8  # of two names: one of them is a slip of the pen
MOST_SHOWN = 5  # sections of a file


def slips_of(args: Sequence[str], full_name: str, usual_name: str) -> Iterator[str]:
    """Say which parameter files were meant for a node and are not: by another name, or in another namespace.

    A file with sections of our other nodes alone is one that they share, and no slip.

    Args:
        args: of the command line.
        full_name: of the node, with its namespace.
        usual_name: which it has where nobody gives it another one.
    """
    name = full_name.rpartition('/')[2]
    for option, path in pairwise(args):
        if option != '--params-file':
            continue
        try:
            sections = list(_sections(yaml.safe_load(Path(path).read_text('utf-8'))))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # ROS, which has another parser, has taken it
        if any(_applies(section, full_name) for section in sections):
            continue
        bases = [section.rpartition('/')[2] for section in sections]
        is_meant = any(_is_alike(base, known) for base in bases for known in (name, usual_name))
        if is_meant or NODES.keys().isdisjoint(bases):
            shown = ', '.join(sections[:MOST_SHOWN]) or 'no section with ros__parameters'
            yield (
                f'{path}: nothing in it is for {full_name}: it has {shown}; name the section {full_name}, or '
                f'/**/{name} for all namespaces'
            )


def _sections(tree: Any, above: str = '') -> Iterator[str]:
    """The full names of the sections of a file; namespaces may be nested."""
    for key, inner in tree.items() if isinstance(tree, dict) else ():
        if isinstance(inner, dict) and key != 'ros__parameters':
            name = f'{above}/{str(key).strip("/")}'
            if 'ros__parameters' in inner:
                yield name
            yield from _sections(inner, name)


def _applies(section: str, full_name: str) -> bool:
    wild = {'**': r'(/\w+)*', '*': r'/\w+'}
    pattern = ''.join(wild.get(part, f'/{re.escape(part)}') for part in section.split('/')[1:])
    return bool(re.fullmatch(pattern, full_name))


def _is_alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one, other).ratio() >= SIMILAR
