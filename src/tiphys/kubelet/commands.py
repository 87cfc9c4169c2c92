"""exec, attach, run and port-forward of the kubelet's API: between a client's streams and the runtime's.

Spec: Kubernetes API, pods/exec, pods/attach, pods/portforward; statuses of remote commands (NonZeroExitCode with cause
ExitCode).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tiphys.base.errors import ApiError, TiphysError, bad_request, internal
from tiphys.runtime.interface import ByteReader, ByteWriter, ProcessStream, Runtime
from tiphys.wire.message import Request, Upgrade
from tiphys.wire.portforward import upgrade_port_forward
from tiphys.wire.streams import RemoteCommandOptions, RemoteSession, upgrade_remote_command


def command_options(request: Request) -> RemoteCommandOptions:
    """Return the streams that the query asks for, in the kubelet's names or the API's. Raises ApiError for none."""

    def asked(*names: str) -> bool:
        return any(request.param(name).lower() in ("1", "true") for name in names)

    tty = asked("tty")
    options = RemoteCommandOptions(
        stdin=asked("input", "stdin"),
        stdout=asked("output", "stdout"),
        stderr=asked("error", "stderr") and not tty,
        tty=tty,
    )
    if not (options.stdin or options.stdout or options.stderr):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return options


def exec_upgrade(runtime: Runtime, request: Request, container_id: str) -> Upgrade:
    """Return the answer to an exec request."""
    options = command_options(request)
    command = request.query.get("command", [])
    if not command:
        raise bad_request("you must specify at least one command")

    async def run(session: RemoteSession) -> dict[str, Any] | None:
        try:
            process = await runtime.exec(container_id, command, stdin=options.stdin, tty=options.tty)
        except (TiphysError, OSError) as error:
            return internal(f"error executing command in container: {error}").status()
        code = await pipe(session, process, options)
        return exit_status(command, code) if code else None

    return upgrade_remote_command(request, options, run)


def attach_upgrade(runtime: Runtime, request: Request, container_id: str) -> Upgrade:
    """Return the answer to an attach request."""
    options = command_options(request)

    async def run(session: RemoteSession) -> dict[str, Any] | None:
        try:
            process = await runtime.attach(container_id, stdin=options.stdin)
        except (TiphysError, OSError) as error:
            return internal(f"error attaching to container: {error}").status()
        await pipe(session, process, options)
        return None

    return upgrade_remote_command(request, options, run)


async def pipe(session: RemoteSession, process: ProcessStream, options: RemoteCommandOptions) -> int:
    """Move bytes both ways until the process has ended; return its exit code. The process is closed."""
    helpers = [asyncio.create_task(_resize(session, process), name="terminal size")] if options.tty else []
    if options.stdin:
        helpers.append(asyncio.create_task(_feed(session, process), name="stdin"))
    try:
        async for stream, data in process.output():
            if stream == 1 and options.stdout:
                await session.write(1, data)
            elif stream == 2 and options.stderr:
                await session.write(2, data)
        return await process.wait()
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await process.close()


async def _feed(session: RemoteSession, process: ProcessStream) -> None:
    try:
        while data := await session.read_stdin():
            await process.write_stdin(data)
        await process.close_stdin()
    except (BrokenPipeError, ConnectionError):
        # The process reads no more; its output and exit still count.
        return


async def _resize(session: RemoteSession, process: ProcessStream) -> None:
    async for width, height in session.resizes():
        await process.resize(width, height)


def exit_status(command: Sequence[str], code: int) -> dict[str, Any]:
    """Return the Status of a command that failed."""
    words = " ".join(command)
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command [{words}], exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def port_forward_upgrade(runtime: Runtime, request: Request, sandbox_id: str) -> Upgrade:
    """Return the answer to a portForward request."""
    ports: list[int] = []
    for text in request.query.get("port", []) + request.query.get("ports", []):
        for part in text.split(","):
            if not part.isdigit() or not 0 < int(part) < 65536:
                raise ApiError(400, "BadRequest", f'invalid port "{part}": give a number from 1 to 65535')
            ports.append(int(part))

    async def connect(port: int) -> tuple[ByteReader, ByteWriter]:
        return await runtime.port_forward(sandbox_id, port)

    return upgrade_port_forward(request, connect, ports)
