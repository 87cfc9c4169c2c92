"""Decides what an image reference means: `nginx` is docker.io/library/nginx:latest.

Spec: the distribution project's reference grammar; Docker's rule that a first component without dot, colon or
`localhost` is not a registry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.runtime.interface import RuntimeFailed

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"^{_COMPONENT}(?:/{_COMPONENT})*$")
_DOMAIN = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?$")
_TAG = re.compile(r"^\w[\w.-]{0,127}$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. At least one of `tag` and `digest` is set."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Return `docker.io/library/nginx`."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """Return `name:tag`, or "" without a tag."""
        return f"{self.name}:{self.tag}" if self.tag else ""

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def status_names(reference: str, image_id: str, tags: Sequence[str], digests: Sequence[str]) -> tuple[str, str]:
    """Return what a container's status tells of its image, as containerd does: its name and its digest reference."""
    name = "" if reference.startswith("sha256:") else parse_reference(reference).tagged
    repository = name.rpartition(":")[0]
    own = next((digest for digest in digests if digest.startswith(f"{repository}@")), None)
    digest = own or next(iter(digests), image_id)
    if name in tags:
        return name, digest
    return next(iter(tags), digest), digest


def parse_reference(text: str) -> Reference:
    """Return the normalised reference. Raises RuntimeFailed("InvalidImageName")."""

    def refuse() -> RuntimeFailed:
        return RuntimeFailed("InvalidImageName", f'couldn\'t parse image name "{text}": invalid reference format')

    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.match(digest):
        raise refuse()
    head, slash, tail = rest.rpartition("/")
    last, _, tag = tail.partition(":")
    if (tag and not _TAG.match(tag)) or tail.endswith(":"):
        raise refuse()
    path = f"{head}{slash}{last}"
    first, slash, others = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, others
    else:
        registry, repository = "docker.io", path
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if not _PATH.match(repository) or not _DOMAIN.match(registry) or len(repository) > 255:
        raise refuse()
    if not tag and not digest:
        tag = "latest"
    return Reference(registry, repository, tag, digest)
