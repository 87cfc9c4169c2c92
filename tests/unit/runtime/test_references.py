"""How a container's status names its image."""

from __future__ import annotations

import pytest

from tiphys.runtime.references import status_names

TAG = "docker.io/library/busybox:latest"
DIGEST = f"docker.io/library/busybox@sha256:{'a' * 64}"
ID = f"sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("reference", "tags", "digests", "names"),
    [
        ("busybox", [TAG], [DIGEST], (TAG, DIGEST)),
        ("busybox", ["docker.io/library/other:1", TAG], ["docker.io/library/other@sha256:1", DIGEST], (TAG, DIGEST)),
        (f"busybox@sha256:{'a' * 64}", [], [DIGEST], (DIGEST, DIGEST)),
        (ID, [TAG], [], (TAG, ID)),
        (ID, [], [], (ID, ID)),
    ],
)
def test_names_are_those_of_containerd(
    reference: str, tags: list[str], digests: list[str], names: tuple[str, str]
) -> None:
    assert status_names(reference, ID, tags, digests) == names
