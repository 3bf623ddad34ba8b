"""Document: a JSON or YAML file that somebody wrote, parsed within bounds and never trusted."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

SUFFIXES = ('.json', '.yaml', '.yml')
NULLS = ('~', 'null', 'Null', 'NULL')  # how YAML writes that a key has no value
MAX_FILE_BYTES = 1 << 24
MAX_YAML_BYTES = 1 << 20  # its parser is slow: more takes minutes


def read_text(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Read a text file in UTF-8.

    Raises:
        ValueError: it cannot be read, is too large, or is no text.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError('expected a file, got a folder, pipe or device')
        size = facts.st_size
        if size > max_bytes:
            raise ValueError(f'expected at most {max_bytes} bytes, got a file of {size} bytes')
        return path.read_text('utf-8-sig')
    except OSError as error:
        raise ValueError(error.strerror) from error


def read_document(path: Path, *, is_strict: bool = False) -> Any:
    """Read a JSON or YAML file, told by its suffix. YAML's scalars stay text: there, `no` is a name too.

    Args:
        is_strict: whether a key that is there twice, of which both parsers take the last one, is an error.

    Raises:
        ValueError: it cannot be read, is too large or nested too deeply, or is neither.
    """
    try:
        if path.suffix.lower() == '.json':
            return json.loads(read_text(path), object_pairs_hook=_once if is_strict else None)
        return _yaml(read_text(path, max_bytes=MAX_YAML_BYTES), is_strict=is_strict)
    except RecursionError:
        raise ValueError('it is nested too deeply') from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a mapping of pairs whose keys are there once."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f'expected each key once, got {key!r} twice')
        content[key] = value
    return content


def _yaml(text: str, *, is_strict: bool) -> Any:
    import yaml

    class Loader(yaml.BaseLoader):
        """Knows no aliases: a few of them, nested, stand for more than any memory holds."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError('it holds a YAML alias (*name); write out what it stands for')
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            if is_strict:
                keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                _once([(key, None) for key in keys])
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if isinstance(content, dict):
        return {key: None if value in NULLS else value for key, value in content.items()}
    return content
