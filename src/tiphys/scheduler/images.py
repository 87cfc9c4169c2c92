"""Which nodes have a container image already, and the score for it.

Invariant: `_sizes[name][row]` is the size that the node of a row tells for an image name, 0 when it has none. Bound:
`NAMES` image names; what goes beyond is not scored.

Spec: Kubernetes docs, "Scheduler Configuration", ImageLocality: bytes present, weighted by the share of nodes that have
them (so that one node does not draw all pods), between 23 MB and 1,000 MB for each container.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tiphys.api.views.node import ContainerImage
from tiphys.scheduler.table import Ints

MEGABYTE = 1024 * 1024
LEAST_BYTES = 23 * MEGABYTE
MOST_BYTES = 1000 * MEGABYTE
MAX_SCORE = 100
NAMES = 2000


def tagged(name: str) -> str:
    """Return an image name with its tag; `latest` is the one that is not written."""
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


class ImageTable:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._sizes: dict[str, Ints] = {}
        self._names_on: dict[int, tuple[str, ...]] = {}
        self._scores: dict[tuple[tuple[str, ...], int], Ints | None] = {}
        """By images and number of nodes; emptied at every change."""

    def set(self, row: int, images: Sequence[ContainerImage], capacity: int) -> None:
        """Take over what a node has; () when it is gone."""
        self._scores.clear()
        for name in self._names_on.pop(row, ()):
            self._sizes[name][row] = 0
            if not self._sizes[name].any():
                del self._sizes[name]
        names: list[str] = []
        for image in images:
            for name in image.names:
                values = self._sizes.get(name)
                if values is None and len(self._sizes) >= NAMES:
                    continue
                if values is None or len(values) < capacity:
                    values = self._sizes[name] = _grown(values, capacity)
                values[row] = image.size_bytes or 0
                names.append(name)
        if names:
            self._names_on[row] = tuple(names)

    def scores(self, images: tuple[str, ...], containers: int, nodes: int, capacity: int) -> Ints | None:
        """Return the score (0 to 100) of each row; None when no node has any of the images."""
        key = (images, nodes)
        if key not in self._scores:
            self._scores[key] = self._new_scores(images, containers, nodes, capacity)
        return self._scores[key]

    def _new_scores(self, images: tuple[str, ...], containers: int, nodes: int, capacity: int) -> Ints | None:
        total: npt.NDArray[Any] | None = None
        for image in images:
            values = self._sizes.get(tagged(image))
            if values is not None:
                values = _grown(values, capacity)
                weighted = (values * (np.count_nonzero(values) / nodes)).astype(np.int64)
                total = weighted if total is None else total + weighted
        if total is None:
            return None
        most = MOST_BYTES * containers
        scores: Ints = MAX_SCORE * (np.clip(total, LEAST_BYTES, most) - LEAST_BYTES) // (most - LEAST_BYTES)
        return scores


def _grown(values: Ints | None, capacity: int) -> Ints:
    if values is None:
        return np.zeros(capacity, np.int64)
    if len(values) == capacity:
        return values
    return np.concatenate([values, np.zeros(capacity - len(values), np.int64)])
