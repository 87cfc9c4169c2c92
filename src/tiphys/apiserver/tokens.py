"""Service-account tokens: signing, checking, and the documents by which others check them.

A token is a JWT bound to a service account and, where asked, to a pod, secret or node; it dies with what it is bound
to. Checked tokens are remembered, so a request costs one dictionary look-up and the look-ups of the bound objects.

Spec: Kubernetes documentation, "Managing Service Accounts" (bound tokens, issuer discovery); KEP-1205; RFC 7519, 7517.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from tiphys.apiserver.user import CREDENTIAL, User, service_account_user
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import TiphysError

REMEMBERED_TOKENS = 10_000
ALGORITHM = "ES256"
LEEWAY_S = 60.0
SECRET_ISSUER = "kubernetes/serviceaccount"
SECRET_CLAIM = "kubernetes.io/serviceaccount/"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_UID = "authentication.kubernetes.io/node-uid"


UNKNOWN = "invalid bearer token"
"""What is said of a token that no issuer here gave out, and before everything else that is wrong with one."""


class BadToken(TiphysError):
    """A bearer token that does not authenticate anybody; the message says why, for the log and for reviews."""

    def __init__(self, why: str = "") -> None:
        super().__init__(f"[{UNKNOWN}, {why}]" if why else UNKNOWN)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a token is bound to besides its service account."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claims:
    """A token whose signature and times are good; whether its objects still exist is checked on each use."""

    namespace: str
    service_account: str
    uid: str
    bound: tuple[Bound, ...]
    audiences: tuple[str, ...]
    not_before_s: float
    expires_s: float
    """Infinite for the token of a Secret."""
    token_id: str
    secret_token: str = ""
    """The token itself, if a Secret has to hold it still."""

    def user(self) -> User:
        """Return the user that the token stands for."""
        extra: dict[str, tuple[str, ...]] = {}
        if self.token_id:
            extra[CREDENTIAL] = (f"JTI={self.token_id}",)
        for bound in self.bound:
            if bound.kind == "Pod":
                extra |= {_POD_NAME: (bound.name,), _POD_UID: (bound.uid,)}
            elif bound.kind == "Node":
                extra |= {_NODE_NAME: (bound.name,), _NODE_UID: (bound.uid,)}
        return service_account_user(self.namespace, self.service_account, self.uid, extra)


class Tokens:
    """Signs and checks with one key (PEM of an EC P-256 private key)."""

    def __init__(self, issuer: str, private_key_pem: bytes, clock: Clock, randomness: Randomness) -> None:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        self.issuer = issuer
        self._key = cast(EllipticCurvePrivateKey, load_pem_private_key(private_key_pem, None))
        self._public = self._key.public_key()
        self._clock = clock
        self._randomness = randomness
        self._checked: dict[str, Claims] = {}
        numbers = self._public.public_numbers()
        self._x, self._y = (_base64url(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
        thumbprint = f'{{"crv":"P-256","kty":"EC","x":"{self._x}","y":"{self._y}"}}'.encode()
        self.key_id = _base64url(hashlib.sha256(thumbprint).digest())

    def issue(
        self,
        namespace: str,
        service_account: Mapping[str, Any],
        audiences: Sequence[str],
        lifetime_s: int,
        bound: Sequence[Bound] = (),
    ) -> tuple[str, float]:
        """Return a new token and its expiry in Unix seconds."""
        import jwt

        now_s = int(self._clock.now_s())
        expires_s = now_s + lifetime_s
        metadata = service_account["metadata"]
        about: dict[str, Any] = {"namespace": namespace}
        for item in bound:
            about[item.kind.lower()] = {"name": item.name, "uid": item.uid}
        about["serviceaccount"] = {"name": metadata["name"], "uid": metadata["uid"]}
        claims = {
            "aud": list(audiences),
            "exp": expires_s,
            "iat": now_s,
            "iss": self.issuer,
            "jti": self._randomness.uid(),
            "kubernetes.io": about,
            "nbf": now_s,
            "sub": f"system:serviceaccount:{namespace}:{metadata['name']}",
        }
        return jwt.encode(claims, self._key, ALGORITHM, headers={"kid": self.key_id}), float(expires_s)

    def check(self, token: str) -> Claims:
        """Return the claims of a token of ours that is valid now. Raises BadToken."""
        claims = self._checked.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._checked) >= REMEMBERED_TOKENS:
                self._checked.clear()
            self._checked[token] = claims
        if not self.is_valid_now(claims):
            expired = self._clock.now_s() > claims.expires_s
            raise BadToken(f"service account token {'has expired' if expired else 'is not valid yet'}")
        return claims

    def is_valid_now(self, claims: Claims) -> bool:
        """Tell whether the time is within the token's lifetime."""
        return claims.not_before_s - LEEWAY_S <= self._clock.now_s() <= claims.expires_s

    def _verify(self, token: str) -> Claims:
        import jwt

        try:
            if jwt.decode(token, options={"verify_signature": False}).get("iss") == SECRET_ISSUER:
                return self._verify_of_secret(token)
            # times are checked above, on this server's own clock
            data = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            about = data["kubernetes.io"]
            account = about["serviceaccount"]
            bound = tuple(
                Bound(kind, about[kind.lower()]["name"], about[kind.lower()]["uid"])
                for kind in ("Pod", "Secret", "Node")
                if kind.lower() in about
            )
            audience = data.get("aud") or []
            return Claims(
                about["namespace"],
                account["name"],
                account["uid"],
                bound,
                tuple([audience] if isinstance(audience, str) else audience),
                float(data.get("nbf", 0)),
                float(data["exp"]),
                str(data.get("jti", "")),
            )
        except jwt.InvalidSignatureError as error:
            raise BadToken("go-jose/go-jose: error in cryptographic primitive") from error
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise BadToken from error

    def _verify_of_secret(self, token: str) -> Claims:
        """Check a token that the token controller put into a Secret: it does not expire."""
        import jwt

        data = jwt.decode(token, self._public, algorithms=[ALGORITHM], issuer=SECRET_ISSUER)
        return Claims(
            namespace=data[f"{SECRET_CLAIM}namespace"],
            service_account=data[f"{SECRET_CLAIM}service-account.name"],
            uid=data[f"{SECRET_CLAIM}service-account.uid"],
            bound=(Bound("Secret", data[f"{SECRET_CLAIM}secret.name"], ""),),
            audiences=(),
            not_before_s=0.0,
            expires_s=math.inf,
            token_id="",
            secret_token=token,
        )

    def jwks(self) -> bytes:
        """Return the JSON Web Key Set of the signing key."""
        key = {"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": ALGORITHM}
        return orjson.dumps({"keys": [key | {"x": self._x, "y": self._y}]})

    def discovery(self, jwks_uri: str) -> bytes:
        """Return the OpenID provider configuration."""
        return orjson.dumps(
            {
                "issuer": self.issuer,
                "jwks_uri": jwks_uri,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
            }
        )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
