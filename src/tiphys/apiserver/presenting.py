"""Small answers that handlers make as JSON (Status, Scale, TokenRequest, reviews) in the media type that the client wants.

Reads and answers of writes are rendered in reads.py. Everything else that is an API object passes here last, so no
handler has to know of media types. What has no protobuf message stays JSON.

Spec: Kubernetes API concepts, "Alternate representations of resources".
"""

from __future__ import annotations

import orjson

from tiphys.api.kind import JsonObject
from tiphys.apiserver.negotiation import CBOR, JSON, PROTOBUF, YAML, accepted_media
from tiphys.wire.message import Request, Response

BINARY = (PROTOBUF, CBOR)
"""Media types that no person reads."""


def present(answer: Response, request: Request) -> Response:
    """Return a JSON answer as the Accept header wants it; other answers as they are."""
    accept = request.headers.get("accept", "")
    if not ("protobuf" in accept or "yaml" in accept or "cbor" in accept):
        return answer
    if answer.content_type != JSON or not answer.body:
        return answer
    media = accepted_media(accept)
    if media == JSON:
        return answer
    obj = orjson.loads(answer.body_bytes())
    if media == YAML:
        from tiphys.apiserver.listforms import dump_yaml

        return Response(answer.status, dump_yaml(obj), YAML, answer.headers)
    if media == PROTOBUF and not _has_message(obj):
        return answer
    return Response(answer.status, encode_binary(obj, media), media, answer.headers)


def encode_binary(obj: JsonObject, media: str) -> bytes:
    """Return an API object in one of the BINARY media types."""
    if media == PROTOBUF:
        from tiphys.api.protobuf import encode_object

        return encode_object(obj)
    from tiphys.api.cbor import encode_cbor

    return encode_cbor(obj)


def _has_message(obj: object) -> bool:
    from tiphys.api.protobuftable import message_name

    return isinstance(obj, dict) and message_name(str(obj.get("apiVersion")), str(obj.get("kind"))) is not None
