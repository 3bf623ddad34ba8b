"""Write config/*.yaml and the parameter tables of the documents from what isaac_infer/params declares."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from isaac_infer.params import (
    NODES,
    DetectorParams,
    Parameter,
    Params,
    PoseNodeParams,
    SegmentationNodeParams,
    parameters,
)

ROOT = Path(__file__).resolve().parents[1]
FILES: dict[str, tuple[type[Params], Path]] = {  # node -> its parameters and its file
    node: (kind, ROOT / 'config' / f'{node.removesuffix("_node")}.yaml') for node, kind in NODES.items()
}
README, DOCS = ROOT / 'README.md', ROOT / 'docs' / 'parameters.md'
IN_DOCS = ('jetson_executor', 'power_manager', 'deployment_validator', 'robot_simulator')  # of a robot
TABLES = {  # document -> the nodes whose tables it has
    README: tuple(node for node in NODES if node not in IN_DOCS),
    DOCS: IN_DOCS,
}
LIFECYCLE_NODES = ('detector_node', 'segmentation_node', 'pose_node')
LINE_LENGTH = 110


def yaml_text(node: str, kind: type[Params]) -> str:
    """All parameters with their defaults, and what they mean as comments."""
    if any(parameter.live for parameter in parameters(kind)):
        others = 'only while the node is not configured' if node in LIFECYCLE_NODES else 'not while it runs'
        rule = f'Those marked "live" may change at any time, the others {others}.'
    else:
        rule = 'They are read once, when the node starts.'
    lines = [
        f'# Parameters of {node}, with their defaults. Written by tools/write_params.py: edit a copy of it.',
        f'# {rule}',
        '/**:',
        '  ros__parameters:',
    ]
    for parameter in parameters(kind):
        about = [parameter.description, f'({parameter.expected}{", live" if parameter.live else ""})']
        lines += textwrap.wrap(
            ' '.join(about),
            LINE_LENGTH,
            initial_indent='    # ',
            subsequent_indent='    # ',
            break_on_hyphens=False,
        )
        lines.append(f'    {parameter.name}: {_yaml_value(parameter)}')
    return '\n'.join(lines) + '\n'


# Tables of the README that only have what the detector does not have.
BESIDE_DETECTOR = (SegmentationNodeParams, PoseNodeParams)


def table_text(kind: type[Params]) -> str:
    """The parameters as a Markdown table."""
    known = parameters(DetectorParams) if kind in BESIDE_DETECTOR else ()
    rows = ['| parameter | type | default | live | meaning |', '|---|---|---|---|---|']
    for parameter in parameters(kind):
        if parameter in known:
            continue
        live = 'yes' if parameter.live else ''
        expected = parameter.expected.replace('|', '\\|')
        cells = [f'`{parameter.name}`', expected, f'`{_yaml_value(parameter)}`', live, parameter.description]
        rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows) + '\n'


def document_text(path: Path) -> str:
    """A document with the tables between their marks.

    Raises:
        ValueError: a mark is missing.
    """
    text = path.read_text('utf-8')
    for node in TABLES[path]:
        kind, _ = FILES[node]
        begin, end = f'<!-- parameters of {node} -->\n', f'<!-- end of parameters of {node} -->'
        head, found, rest = text.partition(begin)
        _, found_end, tail = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f'{path.name}: expected the lines "{begin.strip()}" and "{end}"')
        text = f'{head}{begin}{table_text(kind)}{end}{tail}'
    return text


def wanted() -> dict[Path, str]:
    """What every written file should hold."""
    files = {path: yaml_text(node, kind) for node, (kind, path) in FILES.items()}
    return files | {path: document_text(path) for path in TABLES if path.is_file()}


def _yaml_value(parameter: Parameter) -> str:
    """A value as YAML that keeps its type: JSON is."""
    return json.dumps(parameter.default)


def main() -> int:
    """Write the files, or with --check say which of them are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--check', action='store_true', help='change nothing; exit with 1 if one is out of date'
    )
    check = parser.parse_args().check
    try:
        files = wanted()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text('utf-8') != text]
    for path in stale:
        print(f'{path.relative_to(ROOT)}: ' + ('out of date; run "make docs"' if check else 'written'))
        if not check:
            path.write_text(files[path], 'utf-8')
    return 1 if check and stale else 0


if __name__ == '__main__':
    sys.exit(main())
