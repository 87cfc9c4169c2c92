"""Hashes of pod templates, and the ControllerRevisions of DaemonSets and StatefulSets.

The hash only has to be stable for one template and safe in a label; equality of templates is always decided on the
templates themselves, so a hash from another implementation of the API is no reason to roll anything out.

Spec: Kubernetes docs, "pod-template-hash label"; ControllerRevision API reference.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import orjson

from tiphys.base.clock import SUFFIX_ALPHABET
from tiphys.controllers.views import decode_template

HASH_LABEL = "pod-template-hash"


def encode_safe(text: str) -> str:
    """Return text of the same length in letters that form no words."""
    return "".join(SUFFIX_ALPHABET[ord(letter) % len(SUFFIX_ALPHABET)] for letter in text)


def hash_bytes(data: bytes, collisions: int = 0) -> str:
    """Return a short hash, safe in names and labels; another one for each collision count."""
    digest = hashlib.sha256(data + (collisions.to_bytes(4, "big") if collisions else b"")).digest()
    return encode_safe(str(int.from_bytes(digest[:4], "big")))


@lru_cache(maxsize=4096)
def canonical_template(template: bytes) -> bytes:
    """Return a template with sorted keys and without the hash label: equal templates have equal bytes."""
    return canonical(without_hash(decode_template(template)))


def canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def without_hash(template: dict[str, Any]) -> dict[str, Any]:
    """Return the template without the label that the controller added, and without empty metadata fields."""
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v is not None and k != "creationTimestamp"}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != HASH_LABEL}
    if labels or "labels" in metadata:
        metadata["labels"] = labels
    return {**template, "metadata": metadata}
