"""Trust anchors as files: which bundles are chosen, each anchor once, and what is told when there is none."""

from __future__ import annotations

import msgspec
import pytest
from kubelet_support import bound, pod_object

from tiphys.api.views.pod import ClusterTrustBundleProjection
from tiphys.kubelet.payload import VolumeSources, volume_files
from tiphys.kubelet.podfiles import VolumeFailed
from tiphys.kubelet.trustbundles import NoAnchors, TrustBundle, anchors, asked_bundles

FIRST, SECOND = "Zmlyc3Q=" * 10, "c2Vjb25k" * 3


def block(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def bundle(name: str, text: str, signer: str = "", **labels: str) -> TrustBundle:
    spec = {"signerName": signer, "trustBundle": text}
    return msgspec.convert({"metadata": {"name": name, "labels": labels}, "spec": spec}, TrustBundle)


def projection(**fields: object) -> ClusterTrustBundleProjection:
    return msgspec.convert({"path": "ca.pem", **fields}, ClusterTrustBundleProjection)


BUNDLES = [
    bundle("plain", f"words\n{block(FIRST)}"),
    bundle("example.com:ca:one", block(SECOND) + block(FIRST), "example.com/ca", live="yes"),
    bundle("example.com:ca:two", block(SECOND), "example.com/ca", live="yes"),
    bundle("example.com:ca:old", block("b2xk"), "example.com/ca", live="no"),
]


def test_a_bundle_is_chosen_by_name() -> None:
    text = anchors(projection(name="plain"), BUNDLES).decode()
    assert text == block(f"{FIRST[:64]}\n{FIRST[64:]}")


def test_the_anchors_of_a_signer_are_there_once_in_a_fixed_order() -> None:
    live = projection(signerName="example.com/ca", labelSelector={"matchLabels": {"live": "yes"}})
    text = anchors(live, BUNDLES).decode()
    assert text == block(f"{FIRST[:64]}\n{FIRST[64:]}") + block(SECOND)
    assert anchors(live, BUNDLES[::-1]).decode() == text
    everything = projection(signerName="example.com/ca", labelSelector={})
    assert anchors(everything, BUNDLES).count(b"BEGIN") == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "none"}, 'clustertrustbundles.certificates.k8s.io "none" not found'),
        ({"signerName": "example.com/ca"}, "combination of signerName and labelSelector matched zero"),
        ({"signerName": "example.com/other", "labelSelector": {}}, "combination of signerName and labelSelector"),
    ],
)
def test_what_is_missing_is_told_or_optional(fields: dict[str, object], why: str) -> None:
    with pytest.raises(NoAnchors, match=why):
        anchors(projection(**fields), BUNDLES)
    assert anchors(projection(**fields, optional=True), BUNDLES) == b""


def test_a_volume_has_the_file_or_does_not_mount() -> None:
    source = {"clusterTrustBundle": {"name": "plain", "path": "deep/ca.pem"}}
    pod = bound(pod_object("p", volumes=[{"name": "v", "projected": {"sources": [source], "defaultMode": 0o440}}]))
    (asked,) = asked_bundles(pod.spec.volumes)
    assert asked.name == "plain"
    files = volume_files(pod, pod.spec.volumes[0], VolumeSources(bundles=BUNDLES))
    assert files["deep/ca.pem"].mode == 0o440
    with pytest.raises(VolumeFailed, match='failed for volume "v" : clustertrustbundles'):
        volume_files(pod, pod.spec.volumes[0], VolumeSources())
