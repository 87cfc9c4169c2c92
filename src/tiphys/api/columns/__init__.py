"""Printer columns of built-in kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiphys.api.kind import Column, JsonObject, no_row

Table = tuple[tuple[Column, ...], Callable[[JsonObject, float], list[Any]]]

TABLES: Mapping[tuple[str, str], Table] = {("", ""): ((), no_row)}
