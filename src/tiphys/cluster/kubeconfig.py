"""The admin's kubeconfig: written into the cluster's directory, and merged into the user's own so that kubectl works
at once.

Merging touches nothing but the entries named `tiphys-<cluster>` and current-context; `remove` takes them away again.

Spec: Kubernetes documentation, "Organizing Cluster Access Using kubeconfig Files".
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import ClusterConfig, Files
from tiphys.cluster.pki import Pki
from tiphys.wire.tls import write_private

_LISTS = ("clusters", "users", "contexts")


def context_name(cluster: str) -> str:
    """Return the name of the cluster's entries."""
    return "tiphys" if cluster == "tiphys" else f"tiphys-{cluster}"


def admin_kubeconfig(config: ClusterConfig, pki: Pki) -> dict[str, Any]:
    """Return the kubeconfig of the cluster's administrator, with all keys inside."""
    name = context_name(config.name)
    certificate, key = pki.pair("admin")
    cluster = {"server": config.server_url, "certificate-authority-data": _encoded(pki.ca)}
    user = {"client-certificate-data": _encoded(certificate), "client-key-data": _encoded(key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    }


def write_kubeconfig(config: ClusterConfig, pki: Pki) -> Path:
    """Write the cluster's own kubeconfig (0600) and merge it into the user's. Return the path of the cluster's own."""
    own = admin_kubeconfig(config, pki)
    path = Files.of(config.name).kubeconfig
    write_private(path, yaml.safe_dump(own, sort_keys=False).encode())
    users = user_kubeconfig()
    merged = _load(users)
    _drop(merged, context_name(config.name))
    for key in _LISTS:
        merged.setdefault(key, [])
        merged[key] = [*(merged[key] or []), *own[key]]
    merged["current-context"] = own["current-context"]
    merged.setdefault("apiVersion", "v1")
    merged.setdefault("kind", "Config")
    users.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(users, yaml.safe_dump(merged, sort_keys=False).encode())
    return path


def remove_kubeconfig(cluster: str) -> None:
    """Take the cluster's entries out of the user's kubeconfig. Idempotent."""
    path = user_kubeconfig()
    if not path.exists():
        return
    merged = _load(path)
    before = yaml.safe_dump(merged, sort_keys=False)
    _drop(merged, context_name(cluster))
    after = yaml.safe_dump(merged, sort_keys=False)
    if after != before:
        write_private(path, after.encode())


def user_kubeconfig() -> Path:
    """Return the file that kubectl reads first: the first of $KUBECONFIG, or ~/.kube/config."""
    given = [p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return Path(given[0]) if given else Path.home() / ".kube" / "config"


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise TiphysError(f"{path} is not valid YAML ({error}); mend it or set KUBECONFIG to another file") from error
    return loaded if isinstance(loaded, dict) else {}


def _drop(kubeconfig: dict[str, Any], name: str) -> None:
    for key in _LISTS:
        kubeconfig[key] = [entry for entry in kubeconfig.get(key) or [] if entry.get("name") != name]
    if kubeconfig.get("current-context") == name:
        kubeconfig["current-context"] = ""


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
