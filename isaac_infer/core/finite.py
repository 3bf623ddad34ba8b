"""Finite: reports in JSON, which has neither NaN nor infinite numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(content: Any) -> Any:
    """Put null, not known, for numbers that JSON does not have: NaN and infinite ones."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    return [finite(value) for value in content] if isinstance(content, (list, tuple)) else content
