"""Network namespaces with little servers and clients in them, for tests of the pod network.

A namespace is a file descriptor: it is gone when that is closed and no socket of it is left, so nothing can leak. Names
and ranges depend on the process, so tests of several workers and clusters run side by side.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tiphys.network.bridge import BridgeNetwork
from tiphys.network.interface import Endpoint, ServicePort
from tiphys.network.netlink import run_inside
from tiphys.network.nftables import NftablesProxy
from tiphys.runtime import syscalls
from tiphys.runtime.podnetwork import PortMapping

NUMBER = os.getpid() % 2000
MARKER = f"tn{NUMBER}"
POD_CIDR = f"10.{240 + NUMBER % 8}.{NUMBER // 8 % 256}.0/24"
SERVICE_PREFIX = f"10.{232 + NUMBER % 8}.{NUMBER // 8 % 256}"
NODE_PORT = 30000 + NUMBER % 1300 * 2
PORT = 8080


class Namespace:
    """One network namespace; `fd` -1 is the machine's own."""

    def __init__(self, *, machine: bool = False) -> None:
        self.fd = -1
        if not machine:
            thread = threading.Thread(target=self._make)
            thread.start()
            thread.join()

    def _make(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def socket(self, kind: socket.SocketKind) -> socket.socket:
        def make() -> socket.socket:
            return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

        work: Callable[[], socket.socket] = make if self.fd < 0 else lambda: run_inside(self.fd, make)
        return await asyncio.to_thread(work)

    async def ask(self, address: str, port: int = PORT, *, udp: bool = False, timeout_s: float = 2.0) -> str:
        """Return `<server's name> <address that the server saw>`, or the failure's name."""
        sock = await self.socket(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        with sock:
            return await ask_by(sock, address, port, timeout_s)


async def ask_by(sock: socket.socket, address: str, port: int, timeout_s: float = 2.0) -> str:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(sock, (address, port))
            await loop.sock_sendall(sock, b"?")
            return (await loop.sock_recv(sock, 200)).decode()
    except (OSError, TimeoutError) as error:
        return type(error).__name__


class Pod(Namespace):
    """A namespace on the pod network with a TCP and a UDP server that tell its name and who asked."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.address = ""
        self._closers: list[Callable[[], None]] = []

    @property
    def sandbox_id(self) -> str:
        return f"{MARKER}-{self.name}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, PORT)

    async def attach(self, network: BridgeNetwork, ports: tuple[PortMapping, ...] = ()) -> None:
        attached = await network.attach(self.sandbox_id, self.path, ports=ports)
        self.address = attached.addresses[0]

    async def serve(self) -> None:
        tcp, udp = await self.socket(socket.SOCK_STREAM), await self.socket(socket.SOCK_DGRAM)
        tcp.bind(("0.0.0.0", PORT))
        udp.bind(("0.0.0.0", PORT))
        server = await asyncio.start_server(self._connection, sock=tcp)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Echo(self.name), sock=udp)
        self._closers += [server.close, transport.close]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            writer.write(f"{self.name} {writer.get_extra_info('peername')[0]}".encode())
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def close(self) -> None:
        for close in self._closers:
            close()
        super().close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(f"{self._name} {addr[0]}".encode(), addr)  # type: ignore[attr-defined]


class PodNet:
    """A bridge network, a proxy and pods; `close` takes all away."""

    def __init__(self, directory: Path) -> None:
        self.network = BridgeNetwork(f"ti-{MARKER}", POD_CIDR, directory / "network.json")
        self.proxy = NftablesProxy(f"tiphys-{MARKER}", POD_CIDR, f"ti-{MARKER}")
        self.machine = Namespace(machine=True)
        self.pods: list[Pod] = []
        self.gateway = str(POD_CIDR.replace(".0/24", ".1"))

    async def start(self, pods: int) -> list[Pod]:
        await self.network.start()
        await self.proxy.start()
        for index in range(pods):
            pod = Pod(f"pod{index}")
            self.pods.append(pod)
            await pod.attach(self.network)
            await pod.serve()
        return self.pods

    async def close(self) -> None:
        for pod in self.pods:
            pod.close()
        await self.network.stop(remove=True)
        await self.proxy.stop(remove=True)


def service(name: str, number: int, *endpoints: Endpoint, **more: object) -> ServicePort:
    values: dict[str, object] = {
        "namespace": "default",
        "name": name,
        "port_name": "",
        "protocol": "TCP",
        "port": 80,
        "cluster_ips": (cluster_ip(number),),
        "endpoints": endpoints,
    }
    return ServicePort(**{**values, **more})  # type: ignore[arg-type]


def cluster_ip(number: int) -> str:
    return f"{SERVICE_PREFIX}.{number}"
