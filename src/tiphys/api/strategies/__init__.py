"""The rules of every built-in kind: defaults, what a request may not set or change, validation, warnings.

`STRATEGIES` maps (group, kind) to its `Strategy`; the tables of kinds look theirs up. One noun a file; what several
kinds share is in fields.py, and all about pods' specs in pod_*.py, containers.py, volumes.py and their neighbours.
All hooks are pure functions over JSON objects.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.kind import Strategy
from tiphys.api.strategies.configmap import CONFIG_MAP
from tiphys.api.strategies.deployment import DEPLOYMENT
from tiphys.api.strategies.namespace import NAMESPACE
from tiphys.api.strategies.pod import POD
from tiphys.api.strategies.service import SERVICE

STRATEGIES: Mapping[tuple[str, str], Strategy] = {
    ("", "ConfigMap"): CONFIG_MAP,
    ("", "Namespace"): NAMESPACE,
    ("", "Pod"): POD,
    ("", "Service"): SERVICE,
    ("apps", "Deployment"): DEPLOYMENT,
}
