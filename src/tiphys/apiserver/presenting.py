"""Small answers that handlers make as JSON (Status, Scale, TokenRequest, reviews) in the media type that the client wants.

Reads and answers of writes are rendered in reads.py. Everything else that is an API object passes here last, so no
handler has to know of media types. What has no protobuf message stays JSON.

Spec: Kubernetes API concepts, "Alternate representations of resources".
"""

from __future__ import annotations

import orjson

from tiphys.apiserver.negotiation import JSON, PROTOBUF, YAML, accepted_media
from tiphys.wire.message import Request, Response


def present(answer: Response, request: Request) -> Response:
    """Return a JSON answer as the Accept header wants it; other answers as they are."""
    accept = request.headers.get("accept", "")
    if ("protobuf" not in accept and "yaml" not in accept) or answer.content_type != JSON or not answer.body:
        return answer
    media = accepted_media(accept)
    if media == PROTOBUF:
        return _as_protobuf(answer)
    if media == YAML:
        from tiphys.apiserver.listforms import dump_yaml

        return Response(answer.status, dump_yaml(orjson.loads(answer.body_bytes())), YAML, answer.headers)
    return answer


def _as_protobuf(answer: Response) -> Response:
    from tiphys.api.protobuf import encode_object
    from tiphys.api.protobuftable import message_name

    obj = orjson.loads(answer.body_bytes())
    if not isinstance(obj, dict) or message_name(str(obj.get("apiVersion")), str(obj.get("kind"))) is None:
        return answer
    return Response(answer.status, encode_object(obj), PROTOBUF, answer.headers)
