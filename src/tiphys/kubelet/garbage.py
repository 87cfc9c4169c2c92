"""Image garbage collection, by disk use.

Above the high mark images that no container uses are removed, the longest unused first, until use is below the low
mark. Invariant: an image of any container (running or dead) and one younger than two minutes are never removed.

Spec: Kubernetes docs, "Garbage Collection" (container images: 85% and 80%).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence

from tiphys.base.errors import TiphysError
from tiphys.kubelet.context import NodeContext
from tiphys.runtime.interface import Image

log = logging.getLogger(__name__)

EVERY_S = 300.0
HIGH_PERCENT = 85
LOW_PERCENT = 80
YOUNG_S = 120.0


def plan_image_removal(
    images: Sequence[Image], used_ids: frozenset[str], used_at_s: Mapping[str, float], to_free_bytes: int, now_s: float
) -> list[Image]:
    """Return the images to remove, the longest unused first, until `to_free_bytes` would be free."""
    candidates = [
        image for image in images if image.id not in used_ids and now_s - used_at_s.get(image.id, 0.0) > YOUNG_S
    ]  # fmt: skip
    chosen: list[Image] = []
    for image in sorted(candidates, key=lambda i: (used_at_s.get(i.id, 0.0), i.id)):
        if to_free_bytes <= 0:
            break
        chosen.append(image)
        to_free_bytes -= image.size_bytes
    return chosen


def to_free(total_bytes: int, free_bytes: int) -> int:
    """Return how many bytes must become free; 0 below the high mark."""
    used = total_bytes - free_bytes
    if total_bytes <= 0 or used * 100 < total_bytes * HIGH_PERCENT:
        return 0
    return used - total_bytes * LOW_PERCENT // 100


async def run_garbage(context: NodeContext) -> None:
    """Look every five minutes, until cancelled."""
    root = context.files.disk_root()
    while root:
        await asyncio.sleep(EVERY_S)
        disk = os.statvfs(root)
        wanted = to_free(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)
        if not wanted:
            continue
        try:
            images = await context.runtime.list_images()
            containers = await context.runtime.list_containers()
            used = frozenset({c.image_id for c in containers} | {c.image for c in containers})
            for image in plan_image_removal(images, used, context.images.used_at_s, wanted, context.clock.now_s()):
                log.info("image %s is removed to free disk space", image.tags or image.id)
                await context.runtime.remove_image(image.id)
        except (TiphysError, OSError) as error:
            log.warning("image garbage collection goes on in %.0f s: %s", EVERY_S, error)
