"""Regular expressions of RE2, compiled once.

Used by `matches` and by the check of literals. Invariant: no pattern takes more than linear time, and none more memory
than the limit; the most recent patterns are kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from tiphys.cel.errors import EvaluationError

MEMORY_MAXIMUM: Final = 8 * 2**20
_CACHED: Final = 256


@lru_cache(maxsize=_CACHED)
def compiled(pattern: str) -> Any:
    """Return RE2's pattern object; raises EvaluationError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY_MAXIMUM
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise EvaluationError(f"error parsing regexp: {shown}: `{pattern}`") from error


def matches(text: str, pattern: str) -> bool:
    """Return whether a pattern is somewhere in a text."""
    return compiled(pattern).search(text) is not None
