"""jsonpatch.escapeKey: a key as it stands in a JSON pointer, for patches that mutating policies write.

Spec: RFC 6901, section 3; Kubernetes documentation, "Mutating Admission Policy".
"""

from __future__ import annotations

from tiphys.api.cellibrary.costs import TRAVERSED
from tiphys.cel import types
from tiphys.cel.declarations import Function, Library, Overload


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


_ESCAPE = Overload("string_jsonpatch_escapeKey_string", (types.STRING,), types.STRING, _escape, cost=TRAVERSED)

LIBRARY: Library = (Function("jsonpatch.escapeKey", (_ESCAPE,)),)
