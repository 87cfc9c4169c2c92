"""Regular expressions of custom resources' schemas: Go's dialect, and no pattern takes more than linear time.

Python's own engine backtracks, so that `^(a+)+$` and thirty letters would stop the server for minutes. RE2 reads the
dialect that upstream's reads and needs time linear in the text. Imported only where a definition has patterns.

Spec: RE2 syntax; Kubernetes docs, "Specifying a structural schema" (`pattern`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

REMEMBERED_PATTERNS = 512


@lru_cache(maxsize=REMEMBERED_PATTERNS)
def _compiled(text: str) -> Any:
    """Return the pattern, or a text that says what is wrong with it."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        detail = error.args[0] if error.args else "invalid"
        return detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)


def pattern_problem(text: str) -> str:
    """Return why a text is no pattern, "" if it is one."""
    found = _compiled(text)
    return f"error parsing regexp: {found}: `{text}`" if isinstance(found, str) else ""


def matches_pattern(text: str, value: str) -> bool:
    """Return whether a value contains a match. A wrong pattern, which no definition can have now, matches all."""
    found = _compiled(text)
    return isinstance(found, str) or found.search(value) is not None


def find_matches(text: str, value: str, limit: int = -1) -> list[str]:
    """Return the texts of the first `limit` matches of a valid pattern, of all when it is negative."""
    found: list[str] = []
    for match in _compiled(text).finditer(value):
        if 0 <= limit <= len(found):
            break
        found.append(match.group())
    return found
