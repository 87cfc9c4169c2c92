"""Who makes a request: as a front proxy says, by client certificate, by service-account token, or nobody.

Order as upstream: headers beside a front proxy's certificate, a verified client certificate, then a bearer token. A
credential that is sent and is wrong is refused; no credentials at all are system:anonymous.

Spec: Kubernetes documentation, "Authenticating" (authenticating proxy, X509 client certificates, service account
tokens, anonymous requests).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable

import msgspec
import orjson

from tiphys.api.causes import go_quote
from tiphys.api.kind import Kind
from tiphys.apiserver.cache import CachedObject, WatchCache
from tiphys.apiserver.frontproxy import FrontProxy, remote_user
from tiphys.apiserver.tokens import REMEMBERED_TOKENS, BadToken, Claims, Tokens
from tiphys.apiserver.user import ANONYMOUS, AUTHENTICATED, CREDENTIAL, UNAUTHENTICATED, User
from tiphys.base.errors import unauthorized
from tiphys.wire.message import Request

log = logging.getLogger(__name__)

_NOBODY = User(ANONYMOUS, (UNAUTHENTICATED,))
REMEMBERED_CERTIFICATES = 10_000
WEBSOCKET_TOKEN = "base64url.bearer.authorization.k8s.io."
"""Beginning of the subprotocol in which a browser sends its token: it can set no header of a WebSocket."""
_INVALIDATED = "service account token has been invalidated"
_PLURALS = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


class _Seen(msgspec.Struct, frozen=True):
    """A token that was good when the newest change of a service account was that of `accounts_at`."""

    claims: Claims
    user: User
    accounts_at: int


class RequestAuthenticator:
    """The Authenticator of the pipeline. `kind_of(plural)` returns a Kind of the core group; `front_proxy` says whose
    word is taken for others, None nobody's."""

    def __init__(
        self,
        tokens: Tokens,
        audiences: tuple[str, ...],
        cache: WatchCache,
        kind_of: Callable[[str], Kind],
        front_proxy: FrontProxy | None = None,
    ) -> None:
        self._tokens = tokens
        self._front_proxy = front_proxy
        self._audiences = frozenset(audiences)
        self._cache = cache
        self._kind_of = kind_of
        self._accounts = cache.resource(kind_of("serviceaccounts").storage_prefix())
        self._by_certificate: dict[tuple[str, tuple[str, ...], str], User] = {}
        """Users of client certificates seen lately."""
        self._by_header: dict[str, _Seen] = {}
        """Tokens seen lately, by the whole Authorization header."""

    def authenticate(self, request: Request) -> User:
        peer = request.peer
        vouched_for = False
        if self._front_proxy is not None and peer.issuer == self._front_proxy.issuer:
            user = self._of_front_proxy(request, self._front_proxy)
            if user is not None:
                return user
            vouched_for = True
        elif peer.common_name is not None:
            key = (peer.common_name, peer.organizations, peer.certificate_sha256)
            return self._by_certificate.get(key) or self._of_certificate(*key)
        header = request.headers.get("authorization", "")
        seen = self._by_header.get(header)
        if seen is not None and seen.accounts_at == self._accounts.changed_at:
            claims = seen.claims
            if self._tokens.is_valid_now(claims):
                return seen.user
        token = _bearer_token(request)
        if not token:
            if vouched_for:  # a certificate that names no client is no ordinary credential
                raise unauthorized()
            return _NOBODY
        try:
            return self._of_token(token, header)
        except BadToken as error:
            log.info("refused a bearer token from %s: %s", peer.address, error)
            raise unauthorized() from None

    def _of_front_proxy(self, request: Request, proxy: FrontProxy) -> User | None:
        """Return whom a front proxy's certificate and headers name, None if it may not or does not."""
        name = request.peer.common_name
        if proxy.allowed_names and name not in proxy.allowed_names:
            log.info("x509: subject with cn=%s is not in the allowed list of front proxies", name)
            return None
        return remote_user(request.headers)

    def _of_certificate(self, name: str, organizations: tuple[str, ...], digest: str) -> User:
        extra = {CREDENTIAL: (f"X509SHA256={digest}",)} if digest else {}
        user = User(name, (*organizations, AUTHENTICATED), extra=extra)
        if len(self._by_certificate) >= REMEMBERED_CERTIFICATES:
            self._by_certificate.clear()
        self._by_certificate[name, organizations, digest] = user
        return user

    def _of_token(self, token: str, header: str) -> User:
        """Check a token; remember it until its service account may have changed, if it is bound to nothing else."""
        user, _ = self.check_token(token, self._audiences)
        claims = self._tokens.check(token)
        if header and not claims.bound:
            if len(self._by_header) >= REMEMBERED_TOKENS:
                self._by_header.clear()
            self._by_header[header] = _Seen(claims, user, self._accounts.changed_at)
        return user

    def check_token(self, token: str, audiences: frozenset[str]) -> tuple[User, tuple[str, ...]]:
        """Return the token's user and which of the wanted audiences it is for. Raises BadToken."""
        claims = self._tokens.check(token)
        # The token of a Secret names no audience: it is good for this server.
        named = self._audiences if claims.secret_token else claims.audiences
        matched = tuple(a for a in named if a in audiences)
        if not matched:
            told = (" ".join(map(go_quote, names)) for names in (claims.audiences, sorted(audiences)))
            raise BadToken("token audiences [{}] is invalid for the target audiences [{}]".format(*told))
        self._check_objects(claims)
        return claims.user(), matched

    def _check_objects(self, claims: Claims) -> None:
        """A token lives only as long as its service account and the object that it is bound to."""
        account = self._object("serviceaccounts", claims.namespace, claims.service_account)
        if account is None:
            raise BadToken(f"serviceaccounts {go_quote(claims.service_account)} not found")
        if account.uid != claims.uid:
            raise BadToken(f"service account UID ({account.uid}) does not match claim ({claims.uid})")
        if claims.secret_token:
            self._check_secret(claims)
            return
        for bound in claims.bound:
            namespace = "" if bound.kind == "Node" else claims.namespace
            there = self._object(_PLURALS[bound.kind], namespace, bound.name)
            if there is None:
                raise BadToken(_INVALIDATED)
            if there.uid != bound.uid:
                what = bound.kind.lower()
                raise BadToken(
                    f"{what} UID ({there.uid}) does not match service account {what} ref claim ({bound.uid})"
                )

    def _check_secret(self, claims: Claims) -> None:
        """The token of a Secret is good as long as the Secret holds it."""
        name = claims.bound[0].name
        cached = self._object("secrets", claims.namespace, name)
        data = orjson.loads(cached.body).get("data") if cached is not None else None
        held = base64.b64decode((data or {}).get("token") or "")
        if held != claims.secret_token.encode():
            raise BadToken(_INVALIDATED)

    def _object(self, plural: str, namespace: str, name: str) -> CachedObject | None:
        return self._cache.resource(self._kind_of(plural).storage_prefix()).get(namespace, name)


def _bearer_token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for protocol in request.headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(WEBSOCKET_TOKEN):
            text = protocol.strip().removeprefix(WEBSOCKET_TOKEN)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except ValueError:  # not base64, or not text inside
                raise unauthorized() from None
    return ""
