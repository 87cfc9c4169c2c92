"""Pulls an image from a registry into the image store.

Input is a reference and perhaps a user; what it reads is checked against digests (manifest against the reference or
its index, config against the manifest, each layer's content against the config), so a bad registry or a broken
transfer leaves nothing behind. Layers come in parallel, unpacked while they arrive; those that are here are not
fetched. Everything blocks; the runtime calls it in a thread.

Spec: OCI distribution specification 1.0; Docker registry token authentication; errors worded as kubelet users know
them from containerd.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

from tiphys.base.errors import TiphysError
from tiphys.runtime.imagebuild import architecture
from tiphys.runtime.images import ImageStore, open_tar, parse_config
from tiphys.runtime.interface import ImageAuth, RuntimeFailed
from tiphys.runtime.references import Reference, parse_reference

TIMEOUT_S = 30.0
PARALLEL_LAYERS = 3
LAYER_ATTEMPTS = 3
MANIFEST_LIMIT_BYTES = 4 << 20
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryRefused(TiphysError):
    """An answer other than success."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Registry:
    """One registry and repository, with the authorization that it asked for."""

    def __init__(self, reference: Reference, auth: ImageAuth | None) -> None:
        host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        self._base = f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{reference.repository}"
        self._repository = reference.repository
        self._auth = auth if auth and (auth.username or auth.password) else None
        self._authorization = ""

    def read(self, path: str, accept: str, limit_bytes: int) -> tuple[bytes, str]:
        """Return a body and its content type."""
        with self.open(path, accept) as response:
            body = response.read(limit_bytes + 1)
            if len(body) > limit_bytes:
                raise TiphysError(f"{self._base}/{path} is larger than {limit_bytes} bytes")
            return body, response.headers.get("Content-Type", "").partition(";")[0].strip()

    def open(self, path: str, accept: str = "*/*") -> http.client.HTTPResponse:
        """Open one resource, answering the registry's challenge once. Raises RegistryRefused, OSError."""
        url = f"{self._base}/{path}"
        try:
            return self._request(url, accept)
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            error.close()
            if error.code != 401 or not challenge:
                raise RegistryRefused(error.code, f"{url}: {error.code} {error.reason}") from error
        self._authorize(challenge)
        try:
            return self._request(url, accept)
        except urllib.error.HTTPError as error:
            error.close()
            raise RegistryRefused(error.code, f"{url}: {error.code} {error.reason}") from error

    def _request(self, url: str, accept: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "tiphys"})
        if self._authorization:  # not sent on to where the registry redirects: storage services refuse it
            request.add_unredirected_header("Authorization", self._authorization)
        return cast(http.client.HTTPResponse, urllib.request.urlopen(request, timeout=TIMEOUT_S))

    def _authorize(self, challenge: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if self._auth:
                self._authorization = _basic(self._auth)
            return
        fields = dict(_CHALLENGE.findall(rest))
        query = {
            "service": fields.get("service", ""),
            "scope": fields.get("scope", f"repository:{self._repository}:pull"),
        }
        realm = fields.get("realm", "")
        if urllib.parse.urlsplit(realm).scheme not in ("http", "https"):
            raise TiphysError(f"the registry asks for a token from {realm!r}, which is not a web address")
        request = urllib.request.Request(f"{realm}?{urllib.parse.urlencode(query)}")
        if self._auth:
            request.add_unredirected_header("Authorization", _basic(self._auth))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                token = json.loads(response.read(MANIFEST_LIMIT_BYTES))
        except urllib.error.HTTPError as error:
            error.close()
            raise RegistryRefused(error.code, f"failed to fetch oauth token: {error.code} {error.reason}") from error
        self._authorization = f"Bearer {token.get('token') or token.get('access_token', '')}"


def pull(store: ImageStore, reference: str, auth: ImageAuth | None = None) -> str:
    """Pull an image; return its id. Raises RuntimeFailed("ErrImagePull" or "InvalidImageName")."""
    parsed = parse_reference(reference)
    try:
        return _pull(store, parsed, Registry(parsed, auth))
    except (TiphysError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise RuntimeFailed("ErrImagePull", format_pull_error(parsed, error)) from error


def format_pull_error(reference: Reference, error: Exception) -> str:
    """Return the message that a pod's status tells."""
    start = f'failed to pull and unpack image "{reference}"'
    resolve = f'{start}: failed to resolve reference "{reference}"'
    if isinstance(error, RegistryRefused):
        if error.code == 404:
            return f"{resolve}: {reference}: not found"
        if error.code in (401, 403):
            return (
                f"{resolve}: pull access denied, repository does not exist or may require authorization: "
                "server message: insufficient_scope: authorization failed"
            )
        return f"{resolve}: unexpected status from GET request to {error}"
    if isinstance(error, OSError):
        reason = getattr(error, "reason", error)
        return f"{resolve}: failed to do request to {reference.registry}: {reason}"
    return f"{start}: {error}"


def _pull(store: ImageStore, reference: Reference, registry: Registry) -> str:
    accept = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
    body, kind = registry.read(f"manifests/{reference.digest or reference.tag}", accept, MANIFEST_LIMIT_BYTES)
    digest = _check(body, reference.digest)
    manifest = json.loads(body)
    if (manifest.get("mediaType") or kind) in INDEX_TYPES or "manifests" in manifest:
        chosen = choose_platform(manifest["manifests"], architecture())
        body, _ = registry.read(f"manifests/{chosen['digest']}", accept, MANIFEST_LIMIT_BYTES)
        _check(body, chosen["digest"])
        manifest = json.loads(body)
    if "layers" not in manifest or "config" not in manifest:
        raise TiphysError(f"its manifest of type {kind or 'unknown'} is not one that can be run")
    config, _ = registry.read(f"blobs/{manifest['config']['digest']}", "*/*", MANIFEST_LIMIT_BYTES)
    _check(config, manifest["config"]["digest"])
    diff_ids = parse_config(config)["rootfs"]["diff_ids"]
    if len(diff_ids) != len(manifest["layers"]):
        raise TiphysError(f"its config names {len(diff_ids)} layers, its manifest {len(manifest['layers'])}")
    with store.pin(diff_ids), ThreadPoolExecutor(PARALLEL_LAYERS, thread_name_prefix="pull") as pool:
        wanted = dict(zip(diff_ids, manifest["layers"], strict=True))
        for done in [pool.submit(_pull_layer, store, registry, *item) for item in wanted.items()]:
            done.result()
        size = len(config) + sum(layer["size"] for layer in manifest["layers"])
        tags = [reference.tagged] if reference.tag and not reference.digest else []
        return store.add_image(config, size, tags, [f"{reference.name}@{digest}"]).id


def _pull_layer(store: ImageStore, registry: Registry, diff_id: str, layer: Mapping[str, Any]) -> None:
    for attempt in range(LAYER_ATTEMPTS):
        try:
            store.add_layer(diff_id, lambda: open_tar(cast("IO[bytes]", registry.open(f"blobs/{layer['digest']}"))))
            return
        except RegistryRefused:
            raise
        except (TiphysError, OSError, http.client.HTTPException):
            if attempt == LAYER_ATTEMPTS - 1:
                raise


def choose_platform(manifests: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    """Return the entry of an index for this machine. Raises TiphysError."""
    for entry in manifests:
        platform = entry.get("platform") or {}
        if platform.get("os", "linux") == "linux" and platform.get("architecture", wanted) == wanted:
            return entry
    raise TiphysError(f"no match for platform in manifest: linux/{wanted}: not found")


def _check(body: bytes, digest: str) -> str:
    actual = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if digest and actual != digest:
        raise TiphysError(f"the registry sent content with the digest {actual} instead of {digest}")
    return actual


def _is_loopback(host: str) -> bool:
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _basic(auth: ImageAuth) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
