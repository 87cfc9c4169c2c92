"""Keep container logs bounded: a file that grew too large is set aside and the runtime opens a new one.

At most `MAX_FILES` files of about `MAX_BYTES` a container. Looked at every ten seconds, as upstream does: the kernel
tells no one that a file is large.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from tiphys.base.errors import TiphysError
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.logs import log_parts
from tiphys.runtime.interface import ContainerState

log = logging.getLogger(__name__)

EVERY_S = 10.0
MAX_BYTES = 10 << 20
MAX_FILES = 5


async def run_rotation(context: NodeContext) -> None:
    """Rotate until cancelled. Does nothing on a node without files."""
    while context.files.disk_root():
        await asyncio.sleep(EVERY_S)
        try:
            for container in await context.runtime.list_containers():
                if container.state is ContainerState.RUNNING and container.log_path:
                    await rotate(context, container.id, container.log_path)
        except (TiphysError, OSError) as error:
            log.warning("log rotation goes on in %.0f s: %s", EVERY_S, error)


async def rotate(context: NodeContext, container_id: str, path: str, max_bytes: int = MAX_BYTES) -> bool:
    """Set the log aside if it is too large. Return whether it was."""
    try:
        if os.stat(path).st_size < max_bytes:
            return False
    except FileNotFoundError:
        return False
    for old in log_parts(path)[: -(MAX_FILES - 1)]:
        os.unlink(old)
    aside = f"{path}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime(context.clock.now_s()))}"
    os.rename(path, aside)
    try:
        await context.runtime.reopen_container_log(container_id)
    except TiphysError:
        # Without a new file the container would write into the old one for ever: put it back.
        os.rename(aside, path)
        raise
    return True
