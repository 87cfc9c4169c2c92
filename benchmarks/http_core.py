"""CPU per request of the HTTP core with a handler that does nothing, over TLS, under wrk. Prints JSON.

Run: python benchmarks/http_core.py [--seconds 3] [--connections 16]; needs wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from tiphys.wire import tls
from tiphys.wire.message import Answer, Request, Response
from tiphys.wire.server import HttpServer

BODY = b"{" + b"x" * 1000 + b"}"
BODY_PARTS = [b"y" * 3700] * 500


async def handler(request: Request) -> Answer:
    if request.path == "/suspend":
        await asyncio.sleep(0)
    if request.path == "/list":
        return Response(200, BODY_PARTS)
    return Response(200, BODY)


async def load(port: int, path: str, connections: int, seconds: int) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    wrk = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"https://127.0.0.1:{port}{path}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output = (await wrk.communicate())[0].decode()
    after = resource.getrusage(resource.RUSAGE_SELF)
    count = re.search(r"(\d+) requests in", output)
    assert count is not None, output
    requests = int(count[1])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"requests_per_s": round(requests / seconds), "cpu_ms_per_request": round(1000 * cpu_s / requests, 4)}


async def run(connections: int, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        ca = tls.create_ca("bench")
        pair = tls.issue(ca, "bench", ip_addresses=["127.0.0.1"], server=True)
        pair.write(folder / "tls.crt", folder / "tls.key")
        context = tls.server_context(folder / "tls.crt", folder / "tls.key")
        server = HttpServer(handler, ssl_context=context)
        port = await server.start("127.0.0.1", 0)
        results = {path: await load(port, path, connections, seconds) for path in ("/get", "/suspend", "/list")}
        await server.stop(0)
    json.dump(results, sys.stdout, indent=1)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; install it (Debian: apt-get install wrk) and run this again")
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.run(run(arguments.connections, arguments.seconds))
    else:
        asyncio.run(run(arguments.connections, arguments.seconds))


if __name__ == "__main__":
    main()
