"""Where group versions stand in discovery: clients prefer what comes first.

Built-in groups have fixed places; custom resources stand behind them; APIServices of others say where they want to be.
Pure.

Spec: API reference, APIService v1, groupPriorityMinimum and versionPriority; the numbers are those of the APIServices
that every cluster shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

OWN_GROUP = "apiregistration.k8s.io"
"""The group of APIServices itself: no APIService stands for it, and it comes before all others."""
OWN_PRIORITY = 30_000
CUSTOM = (1_000, 100)
"""Priorities of the APIServices of custom resources: group, version."""
UNKNOWN = (15_000, 9)
"""Of a built-in group that is not in the table: behind all that are."""

_TABLE = """
core                          18000 v1=1
apps                          17800 v1=15
events.k8s.io                 17750 v1=15 v1beta1=5
authentication.k8s.io         17700 v1=15 v1beta1=9 v1alpha1=1
authorization.k8s.io          17600 v1=15
autoscaling                   17500 v1=15 v2=30 v2beta1=9 v2beta2=1
batch                         17400 v1=15 v1beta1=9
certificates.k8s.io           17300 v1=15 v1beta1=9 v1alpha1=1
networking.k8s.io             17200 v1=15 v1beta1=9 v1alpha1=1
policy                        17100 v1=15 v1beta1=9
rbac.authorization.k8s.io     17000 v1=15
storage.k8s.io                16800 v1=15 v1beta1=9 v1alpha1=1
apiextensions.k8s.io          16700 v1=15
admissionregistration.k8s.io  16700 v1=15 v1beta1=12 v1alpha1=9
scheduling.k8s.io             16600 v1=15 v1alpha1=9
coordination.k8s.io           16500 v1=15 v1beta1=13 v1alpha2=12
node.k8s.io                   16300 v1=15 v1beta1=9 v1alpha1=1
discovery.k8s.io              16200 v1=15 v1beta1=12
resource.k8s.io               16200 v1=20 v1beta2=15 v1beta1=9 v1alpha3=1
flowcontrol.apiserver.k8s.io  16100 v1=21 v1beta3=18 v1beta2=15 v1beta1=12
internal.apiserver.k8s.io     16000 v1alpha1=9
storagemigration.k8s.io       15800 v1=15 v1beta1=9 v1alpha1=9
"""


@cache
def builtin_priorities() -> Mapping[tuple[str, str], tuple[int, int]]:
    """Return (group, version) -> (group priority, version priority) of what upstream itself serves."""
    priorities = {}
    for line in _TABLE.strip().splitlines():
        group, group_priority, *versions = line.split()
        for text in versions:
            version, _, priority = text.partition("=")
            priorities["" if group == "core" else group, version] = (int(group_priority), int(priority))
    return priorities


def priority_of(group: str, version: str, *, custom: bool) -> tuple[int, int]:
    """Return the priorities of a group version that this server serves itself."""
    if custom:
        return CUSTOM
    if group == OWN_GROUP:
        return OWN_PRIORITY, 15
    return builtin_priorities().get((group, version), UNKNOWN)


def group_priority(versions: Iterable[tuple[int, int]]) -> int:
    """Return the place of a group: that of its version with the highest one."""
    return max(priority for priority, _ in versions)
