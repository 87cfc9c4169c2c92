"""Keys and certificates of a cluster: whole after any crash, private, and of two authorities that never mix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tiphys.cluster.config import ClusterConfig, Files
from tiphys.cluster.pki import FRONT_PROXY_CA, FRONT_PROXY_CLIENT, ensure_pki, front_proxy_issuer, is_complete

CONFIG = ClusterConfig(
    name="t",
    kubernetes_version=(1, 37),
    api_port=1,
    kubelet_port=1,
    node_name="node",
    node_address="127.0.0.1",
    pod_cidr="10.244.0.0/16",
    service_cidr="10.96.0.0/16",
    simulated=True,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TIPHYS_HOME", str(tmp_path))
    Files.of("t").make()
    yield Files.of("t").pki


def test_everything_is_made_once_and_private(folder: Path) -> None:
    assert not is_complete(CONFIG)
    ensure_pki(CONFIG)
    assert is_complete(CONFIG)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    ensure_pki(CONFIG)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


@pytest.mark.parametrize("lost", ["admin.key", "front-proxy-client.crt", "service-accounts.key"])
def test_what_is_missing_is_made_by_the_authorities_that_stand(folder: Path, lost: str) -> None:
    ensure_pki(CONFIG)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(lost.split(".")[0])}
    (folder / lost).unlink()
    assert not is_complete(CONFIG)
    ensure_pki(CONFIG)
    assert is_complete(CONFIG)
    assert {name: (folder / name).read_bytes() for name in kept} == kept


def test_front_proxies_have_an_authority_of_their_own(folder: Path) -> None:
    pki = ensure_pki(CONFIG)
    told = {}
    for name in ("admin", FRONT_PROXY_CLIENT):
        certificate = x509.load_pem_x509_certificate(pki.pair(name)[0].read_bytes())
        told[name] = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert told == {"admin": "tiphys-t", FRONT_PROXY_CLIENT: front_proxy_issuer(CONFIG)}
    assert pki.pair(FRONT_PROXY_CA)[0].read_bytes() != pki.ca.read_bytes()
