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
_OURS = {"apiVersion", "kind", "current-context", "preferences", *_LISTS}


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
    """Write the cluster's own kubeconfig (0600) and return its path."""
    path = Files.of(config.name).kubeconfig
    write_private(path, _dump(admin_kubeconfig(config, pki)))
    return path


def merge_kubeconfig(config: ClusterConfig, pki: Pki) -> None:
    """Put the cluster into the user's kubeconfig and make it the current one. Raises TiphysError, OSError."""
    own = admin_kubeconfig(config, pki)
    path = user_kubeconfig()
    merged = _load(path)
    _drop(merged, context_name(config.name))
    for key in _LISTS:
        merged[key] = [*(merged.get(key) or []), *own[key]]
    merged["current-context"] = own["current-context"]
    merged.setdefault("apiVersion", "v1")
    merged.setdefault("kind", "Config")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, _dump(merged))


def remove_kubeconfig(cluster: str) -> None:
    """Take the cluster's entries out of the user's kubeconfig. Idempotent."""
    path = user_kubeconfig()
    if not path.exists():
        return
    merged = _load(path)
    before = _dump(merged)
    _drop(merged, context_name(cluster))
    if not any(merged.get(key) for key in _LISTS) and set(merged) <= _OURS:
        path.unlink()  # nobody else wrote anything into it
        return
    after = _dump(merged)
    if after != before:
        write_private(path, after)


def has_entries(cluster: str) -> bool:
    """Return whether the user's kubeconfig names the cluster."""
    try:
        path = user_kubeconfig()
        if not path.exists():
            return False
        before = _load(path)
    except (TiphysError, OSError):
        return False
    name = context_name(cluster)
    return any(entry.get("name") == name for key in _LISTS for entry in before.get(key) or [])


def user_kubeconfig() -> Path:
    """Return the file that kubectl reads first: the first of $KUBECONFIG, or ~/.kube/config."""
    given = [p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    path = Path(given[0]) if given else Path.home() / ".kube" / "config"
    return path.resolve()  # a link stays a link


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise TiphysError(f"{path} is not valid YAML ({error}); mend it or set KUBECONFIG to another file") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise TiphysError(f"{path} is not a kubeconfig; mend it or set KUBECONFIG to another file")
    for key in _LISTS:
        if any(not isinstance(entry, dict) for entry in loaded.get(key) or []):
            raise TiphysError(f"{path}: {key} is not a list of entries; mend it or set KUBECONFIG to another file")
    return loaded


def _dump(kubeconfig: dict[str, Any]) -> bytes:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(kubeconfig, Dumper=dumper, sort_keys=False, allow_unicode=True)
    return text.encode()


def _drop(kubeconfig: dict[str, Any], name: str) -> None:
    for key in _LISTS:
        kubeconfig[key] = [entry for entry in kubeconfig.get(key) or [] if entry.get("name") != name]
    if kubeconfig.get("current-context") == name:
        kubeconfig["current-context"] = ""


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
