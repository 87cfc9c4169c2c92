"""The files of clusterTrustBundle projections: the trust anchors of one bundle, or of all of a signer. Pure.

In: what a volume asks for, and the bundles that there are. Out: a PEM text, each certificate once, in a fixed order, so
that a file changes only when the anchors do.

Spec: Kubernetes documentation, "Projected Volumes" (clusterTrustBundle); KEP-3257.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiphys.api.selectors import selector_of
from tiphys.api.views.meta import ObjectMeta, View
from tiphys.api.views.pod import ClusterTrustBundleProjection, Volume
from tiphys.base.errors import TiphysError

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\r?\n(.*?)-----END CERTIFICATE-----", re.DOTALL)
_LINE = 64


class TrustBundleSpec(View, frozen=True):
    signer_name: str = ""
    trust_bundle: str = ""


class TrustBundle(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: TrustBundleSpec = TrustBundleSpec()


class NoAnchors(TiphysError):
    """Nothing is what a projection asks for; the text says why."""


def asked_bundles(volumes: Sequence[Volume]) -> list[ClusterTrustBundleProjection]:
    """Return the clusterTrustBundle projections of the volumes."""
    return [
        source.cluster_trust_bundle
        for volume in volumes
        if volume.projected is not None
        for source in volume.projected.sources
        if source.cluster_trust_bundle is not None
    ]


def anchors(source: ClusterTrustBundleProjection, bundles: Sequence[TrustBundle]) -> bytes:
    """Return the anchors' PEM. Raises NoAnchors when there is no bundle and the projection is not optional."""
    if source.name:
        chosen = [bundle for bundle in bundles if bundle.metadata.name == source.name]
        why = f'clustertrustbundles.certificates.k8s.io "{source.name}" not found'
    else:
        selector = selector_of(source.label_selector)
        of_signer = (bundle for bundle in bundles if bundle.spec.signer_name == source.signer_name)
        chosen = [bundle for bundle in of_signer if selector.matches(bundle.metadata.labels)]
        why = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    if not chosen and not source.optional:
        raise NoAnchors(why)
    bodies = {"".join(body.split()) for bundle in chosen for body in _BLOCK.findall(bundle.spec.trust_bundle)}
    return "".join(_block(body) for body in sorted(bodies)).encode()


def _block(body: str) -> str:
    lines = "\n".join(body[start : start + _LINE] for start in range(0, len(body), _LINE))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
