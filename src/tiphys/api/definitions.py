"""The OpenAPI definitions of every supported Kubernetes version.

They come from the `kubernetes-validate` package, which publishes each version's definitions with two changes that its
own validator needs: types of optional fields allow null, and references point into `$defs`. Both are undone here on
the bytes before parsing (a few milliseconds), so that readers (schema.py, strategic.py, the OpenAPI and `explain`
documents) see what upstream publishes in OpenAPI v2. The package is located without importing it.

Invariant: the returned tables are shared and cached; nobody changes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from tiphys.base.errors import TiphysError

Definitions = dict[str, dict[str, Any]]

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

REFERENCE_PREFIX = "#/definitions/"

_DIRECTORY = re.compile(r"v(\d+)\.(\d+)\.0-local")
_NULLABLE = re.compile(rb'\[\s*"([a-z]+)",\s*"null"\s*\]')


@cache
def _directory() -> Path:
    spec = find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise TiphysError(
            "the package kubernetes-validate, which holds the API's schemas, is not installed: run pip install tiphys"
        )
    return Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema"


@cache
def supported_versions() -> tuple[tuple[int, int], ...]:
    """Return the Kubernetes versions whose definitions are installed, oldest first."""
    found = (_DIRECTORY.fullmatch(path.name) for path in _directory().iterdir())
    return tuple(sorted((int(match[1]), int(match[2])) for match in found if match))


@cache
def load_definitions(version: tuple[int, int]) -> Definitions:
    """Return definition name -> definition, as OpenAPI v2 publishes them. Raises TiphysError for an unknown version."""
    path = _directory() / f"v{version[0]}.{version[1]}.0-local" / "_definitions.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        known = ", ".join(f"{major}.{minor}" for major, minor in supported_versions())
        raise TiphysError(
            f"Kubernetes {version[0]}.{version[1]} is not a supported version; choose one of {known}"
        ) from None
    data = _NULLABLE.sub(rb'"\1"', data)
    data = data.replace(b'"#/$defs/', b'"#/definitions/')
    document = orjson.loads(data)
    definitions: Definitions = document.get("$defs") or document["definitions"]
    _restore(definitions)
    return definitions


def _restore(definitions: Definitions) -> None:
    """Give back the forms that the validator's copies lost."""
    if QUANTITY in definitions:
        definitions[QUANTITY] = {"type": "string", "description": "A fixed-point number such as 500m or 1Gi."}
    if INT_OR_STRING in definitions:
        definitions[INT_OR_STRING] = {
            "type": "string",
            "format": "int-or-string",
            "description": "An integer, or text such as a percentage or a port's name.",
        }
    for definition in definitions.values():
        if "x-kubernetes-group-version-kind" in definition:
            properties = definition.get("properties", {})
            for name in ("apiVersion", "kind"):
                if name in properties:
                    properties[name].pop("enum", None)


def referenced(node: Mapping[str, Any]) -> str | None:
    """Return the name of the definition that a node refers to, None for a node without reference."""
    reference = node.get("$ref")
    return reference.removeprefix(REFERENCE_PREFIX) if reference else None
