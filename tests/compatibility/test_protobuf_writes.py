"""Every stored kind is created, replaced and read in protobuf as it is in JSON."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from probe import NEWEST, OLDEST, Probe, Server, running_server

from tiphys.api.kind import Kind
from tiphys.api.protobuf import decode_protobuf, encode_object
from tiphys.apiserver.negotiation import PROTOBUF
from tiphys.wire.message import Response

_CHANCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=kube-api-access-)\w{5}|\b10\.96\.0\.\d+")
"""What a server draws or counts: uids, names, addresses."""


def essence(value: Any) -> Any:
    """Return an object without what differs between two writes, and without what says nothing."""
    if isinstance(value, dict):
        kept = {key: essence(item) for key, item in value.items() if key not in ("uid", "managedFields")}
        return {key: item for key, item in kept.items() if item not in (None, {}, [], "", 0)}
    if isinstance(value, str):
        return _CHANCE.sub("<chance>", value)
    return [essence(item) for item in value] if isinstance(value, list) else value


async def compare(server: Server, kind: Kind) -> None:
    probe = Probe(server, kind)
    in_json = await probe.ask("POST", f"{probe.list_path}?dryRun=All", probe.obj)
    whole = encode_object(probe.obj)
    in_protobuf = await probe.ask("POST", f"{probe.list_path}?dryRun=All", whole, content_type=PROTOBUF)
    assert essence(in_protobuf) == essence(in_json)
    await probe.ask("POST", probe.list_path, whole, content_type=PROTOBUF)
    answer = await server.answer("GET", probe.path, headers={"accept": PROTOBUF})
    assert isinstance(answer, Response) and answer.content_type == PROTOBUF
    stored = await probe.ask("GET", probe.path)
    assert essence(decode_protobuf(answer.body_bytes())) == essence(stored)
    if "update" in kind.verbs:
        replaced = await probe.ask("PUT", f"{probe.path}?dryRun=All", answer.body_bytes(), content_type=PROTOBUF)
        assert essence(replaced) == essence(stored)


@pytest.mark.parametrize("version", [OLDEST, NEWEST], ids=lambda v: ".".join(map(str, v)))
async def test_every_kind_is_written_and_read(version: tuple[int, int]) -> None:
    failures: dict[str, str] = {}
    async with running_server(version=version) as server:
        for kind in server.assembled.kinds.all():
            if "create" not in kind.verbs or kind.virtual:
                continue
            try:
                await compare(server, kind)
            except AssertionError as error:
                failures[f"{kind.api_version} {kind.kind}"] = str(error)
            await server.call("DELETE", Probe(server, kind).path)  # some are rules for what comes next
    assert failures == {}
