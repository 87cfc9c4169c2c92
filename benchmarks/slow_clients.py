"""Memory that clients cost who ask for everything and read nothing.

Starts an API server of its own on a store with pods of 4 KB, opens watches of all pods and lists of all pods with a
selector that takes all, and reads not a byte. Prints a JSON line before and after.

Run: python benchmarks/slow_clients.py [--pods 20000] [--clients 10]
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import time
from urllib.parse import urlsplit

from benchmark_apiserver import lone_apiserver
from benchmark_cluster import Target, insecure
from idle_memory import pss_mib

PATHS = ("/api/v1/pods?watch=1", "/api/v1/pods?labelSelector=none%21%3Dset")
SETTLE_S = 5.0
"""A server that makes what nobody takes has made it by then."""


def ask(target: Target, context: ssl.SSLContext, path: str) -> ssl.SSLSocket:
    """Send a request and return the connection, unread."""
    parts = urlsplit(target.url)
    connection = context.wrap_socket(socket.create_connection((parts.hostname, parts.port)))
    head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {target.token}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def report(target: Target, clients: int) -> None:
    pss = round(pss_mib(target.pids["apiserver"]))
    print(json.dumps({"benchmark": "slow_clients", "clients": clients, "pss_mib": pss}), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--pods", type=int, default=20_000)
    options.add_argument("--clients", type=int, default=10)
    arguments = options.parse_args()
    context = insecure()
    with lone_apiserver(stored_pods=arguments.pods) as server:
        report(server.target, 0)
        connections = [ask(server.target, context, PATHS[n % len(PATHS)]) for n in range(arguments.clients)]
        time.sleep(SETTLE_S)
        report(server.target, arguments.clients)
        for connection in connections:
            connection.close()


if __name__ == "__main__":
    main()
