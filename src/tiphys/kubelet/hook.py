"""Lifecycle hooks: postStart and preStop, by exec, HTTP or sleep.

Spec: Kubernetes docs, "Container Lifecycle Hooks".
"""

from __future__ import annotations

import asyncio

from tiphys.api.views.pod import LifecycleHandler
from tiphys.base.errors import TiphysError
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.pod import Specced
from tiphys.kubelet.probehandler import resolve_port

HTTP_TIMEOUT_S = 30.0


class HookFailed(TiphysError):
    """The hook did not succeed; the message says how."""


async def run_hook(
    context: NodeContext, hook: LifecycleHandler, container: Specced, container_id: str, address: str
) -> None:
    """Carry out a hook and wait for its end. The caller sets the time limit. Raises HookFailed."""
    if hook.exec is not None:
        result = await context.runtime.exec_sync(container_id, hook.exec.command, 0)
        if result.exit_code != 0:
            command = " ".join(hook.exec.command)
            raise HookFailed(
                f"command '{command}' exited with {result.exit_code}: {(result.stdout + result.stderr).decode(errors='replace')}"
            )
    elif hook.http_get is not None:
        port = resolve_port(container, hook.http_get.port) or 80
        host = hook.http_get.host or address
        answer = await context.network_probes.http(hook.http_get, host, port, HTTP_TIMEOUT_S)
        # Upstream asks only that an answer came, whatever its status.
        if not answer.success and not answer.output.startswith("HTTP probe failed"):
            raise HookFailed(answer.output)
    elif hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds or 0)
