"""`isaac-infer compare`, called by tests."""

import json
from pathlib import Path
from typing import Any

from isaac_infer.cli.main import main


def compare(*arguments: object) -> int:
    return main(['compare', *map(str, arguments)])


def report_of(code: int, out: Path, *arguments: object) -> dict[str, Any]:
    """The report of a comparison that ends with this code."""
    file = out / 'report.json'
    assert compare(*arguments, '--json', file) == code
    report: dict[str, Any] = json.loads(file.read_text())
    return report
